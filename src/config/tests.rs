//! Tests of the whole configuration, from text to result: the files that come with the program, and texts that
//! nobody would write.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::problem::Report;
use super::resolve::build;
use super::*;
use crate::model::identity;
use crate::model::value::Value;

const PRODUCTS: [(&str, &str); 4] = [
    ("products/eastron-sdm120.toml", include_str!("../../products/eastron-sdm120.toml")),
    ("products/shelly-gen2-switch.toml", include_str!("../../products/shelly-gen2-switch.toml")),
    ("products/tasmota-plug.toml", include_str!("../../products/tasmota-plug.toml")),
    ("products/zigbee2mqtt-lamp.toml", include_str!("../../products/zigbee2mqtt-lamp.toml")),
];

const SAMPLE: &str = include_str!("../../etc/pentad.toml");
const CLIENTS: &str = include_str!("../../etc/clients.toml");

/// A machine on which every file is there and holds the same word.
#[derive(Debug)]
struct Everywhere;

impl Surroundings for Everywhere {
    fn credentials(&self) -> Option<&Path> {
        None
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Ok("word\n".to_owned())
    }

    fn missing(&self, _path: &Path) -> bool {
        false
    }

    fn canonical(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    fn stable_name(&self, _port: &str) -> Option<String> {
        None
    }

    fn timezone(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::UTC
    }
}

/// These files after the shipped products.
fn with_products(files: &[(&str, &str)]) -> Vec<Source> {
    let source = |(name, text): &(&str, &str)| Source { name: name.into(), text: (*text).to_owned() };
    PRODUCTS.iter().chain(files).map(source).collect()
}

/// The sample with every setting that it shows switched on.
fn enabled(text: &str) -> String {
    let enable = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    };
    text.lines().map(enable).collect::<Vec<_>>().join("\n")
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_demo_loads_without_a_word() {
    let demo =
        include_str!("../demo/demo.toml").replace("{pty}", "/dev/pts/7").replace("{broker_port}", "1883");
    let loaded =
        resolve(&with_products(&[("demo.toml", &demo)])).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(lines(&loaded.warnings), "");
    let devices: Vec<&str> = loaded.config.devices.iter().map(|device| &*device.id).collect();
    assert_eq!(devices, ["meter-1", "press-1", "dead-1", "plug-1", "lamp-1", "shelly-1"]);
}

#[test]
fn the_sample_loads_as_it_is_shipped() {
    let sources = with_products(&[("pentad.toml", SAMPLE), ("clients.toml", CLIENTS)]);
    let loaded = resolve(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let found: Vec<&str> = loaded.warnings.iter().map(|warning| warning.found.as_str()).collect();
    assert_eq!(found, ["no client is configured, so nobody can come in", "no device is configured"]);
}

#[test]
fn everything_that_the_sample_shows_can_be_switched_on() {
    let report = Report::default();
    let sources = with_products(&[("pentad.toml", &enabled(SAMPLE)), ("clients.toml", &enabled(CLIENTS))]);
    let (config, _) = build(&sources, &Everywhere, &report);
    let warnings = report.into_result().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.devices.len(), 3);
    // A bus and a broker that are shown without a device.
    assert_eq!(warnings.len(), 2, "{}", lines(&warnings));
}

#[test]
fn the_sample_shows_every_setting() {
    let report = Report::default();
    let (sample, clients) = (enabled(SAMPLE), enabled(CLIENTS));
    let sources = with_products(&[("pentad.toml", &sample), ("clients.toml", &clients)]);
    build(&sources, &Everywhere, &report);
    let mut shown = BTreeSet::new();
    for text in [&sample, &clients] {
        collect_keys(&DeValue::Table(DeTable::parse(text).unwrap().into_inner()), "", &mut shown);
    }
    let hidden: Vec<String> =
        report.known().iter().map(|key| alike(key)).filter(|key| !shown.contains(key)).collect();
    assert_eq!(hidden, Vec::<String>::new());
}

/// Every key below a value, with its path, without array positions.
fn collect_keys(value: &DeValue<'_>, path: &str, keys: &mut BTreeSet<String>) {
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            let path =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            keys.insert(alike(&path));
            collect_keys(value.get_ref(), &path, keys);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        collect_keys(item.get_ref(), path, keys);
    }
}

/// One path for what is the same in several places: the common settings of dialects, parameters, where something stands in
/// registers, and what single devices have otherwise than their product.
fn alike(path: &str) -> String {
    let mut path = path.replace("[]", "");
    for list in [".inputs", ".outputs", ".params"] {
        path = path.replace(list, ".parameters");
    }
    path = path.replace("event.parameters", "function.parameters");
    // Every property or one of them is read in the same way, and every message is answered in the same way.
    path = path.replace("product.mqtt.read", "product.property.mqtt.read");
    for answered in ["property.mqtt.read.reply.", "property.mqtt.write.reply."] {
        path = path.replace(answered, "function.mqtt.reply.");
    }
    // Conditions are alike wherever they stand, and one source may be written short.
    if path.ends_with(".when.user") || path.ends_with(".ok.user") {
        "product.property.mqtt.sources.when.user".clone_into(&mut path);
    }
    // A parameter stands where a value does.
    let parameter =
        path.split_once(".mqtt.parameters.").or_else(|| path.split_once(".mqtt.reply.parameters."));
    if let Some((_, key)) = parameter.and_then(|(_, place)| place.split_once('.')) {
        path = format!("product.property.mqtt.{key}");
    }
    path = path.replace("product.property.mqtt.user", "product.property.mqtt.sources.user");
    path = path.replace("function.modbus", "property.modbus");
    // What a device may have otherwise than its product.
    let found = ["mqtt.discover.", "mqtt.homeassistant."].iter().find_map(|found| path.strip_prefix(found));
    if let Some(own) = found {
        if ["report", "stale_after", "property", "alarm"].iter().any(|key| own.starts_with(key)) {
            path = format!("device.{own}");
        }
    }
    let common = [
        "enabled",
        "listen",
        "tls_listen",
        "anonymous",
        "anonymous.networks",
        "anonymous.rights",
        "anonymous.devices",
    ];
    let dialect = path.strip_prefix("dialects.").and_then(|rest| rest.split_once('.'));
    match dialect {
        Some((_, key)) if common.contains(&key) => format!("dialects.*.{key}"),
        Some(_) | None => path,
    }
}

#[test]
fn every_example_of_the_page_on_products_loads() {
    let page = include_str!("../../docs/products.md");
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let examples: Vec<&str> =
        examples.into_iter().filter(|example| example.starts_with("[[product]]\n")).collect();
    assert!(examples.len() >= 5, "only {} examples were found", examples.len());
    for example in examples {
        let id = example.lines().find_map(|line| line.strip_prefix("id = ")).unwrap();
        let place = if example.contains("[product.mqtt]") {
            r#"mqtt = [{ id = "local", url = "mqtt://h", version = "5" }]
            device = [{ id = "device-1", product = ID, mqtt = "local" }]"#
        } else {
            r#"serial = [{ id = "line", port = "/dev/ttyS0" }]
            device = [{ id = "device-1", product = ID, bus = "line", unit = 1 }]"#
        };
        let place = place.replace("ID", id);
        let plant = format!(
            r#"
            gateway = {{ id = "g" }}
            {place}
            client = [{{ id = "c", secret = "long-enough-secret" }}]
            "#
        );
        let sources = [("pentad.toml", plant.as_str()), ("product.toml", example)];
        let loaded = resolve(&with_products(&sources)).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(lines(&loaded.warnings), "", "{example}");
    }
}

/// The lease that the page gives a device of a shipped product.
#[test]
fn a_device_has_a_lease_that_its_product_does_not_have() {
    let page = include_str!("../../docs/products.md");
    let example =
        page.split("```toml\n").find(|rest| rest.starts_with("[[device]]\nid = \"pump-1\"")).unwrap();
    let plant = format!(
        "{}\n[gateway]\nid = \"g\"\n[[serial]]\nid = \"rs485\"\nport = \"/dev/ttyS0\"\nbaud_rate = 9600\n\
         parity = \"even\"\n[[device]]\nid = \"pump-2\"\nproduct = \"danfoss-fc51\"\nbus = \"rs485\"\nunit = 4\n\
         [[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n",
        example.split("```").next().unwrap()
    );
    let product = include_str!("../../products/danfoss-fc51.toml");
    let sources = with_products(&[("pentad.toml", plant.as_str()), ("products/danfoss-fc51.toml", product)]);
    let config = resolve(&sources).unwrap_or_else(|problems| panic!("{problems}")).config;
    let lease = |at: usize| {
        let (_, property) = config.devices[at].product.property("reference").unwrap();
        property.lease.as_ref().map(|rule| (rule.safe.clone(), rule.default))
    };
    assert_eq!(lease(0), Some((Value::Float(0.0), Some(Duration::from_secs(60)))));
    assert_eq!(lease(1), None, "the other one has none");
}

#[test]
fn identities_are_the_same_on_every_run_and_can_be_set() {
    let text = format!(
        "{}\n[gateway]\nid = \"g\"\n",
        r#"
        mqtt = [{ id = "b", url = "mqtt://h" }]
        device = [
            { id = "one", product = "tasmota-plug", mqtt = "b" },
            { id = "two", product = "tasmota-plug", mqtt = "b", uuid = "aaaa-bbbb-cccc-0001", mac = "00:00:00:00:00:a1" },
        ]
    "#
    );
    let load =
        || resolve(&with_products(&[("pentad.toml", &text)])).unwrap_or_else(|problems| panic!("{problems}"));
    let (first, second) = (load().config, load().config);
    assert_eq!(first.devices, second.devices);
    assert_eq!(&*first.devices[0].uuid, identity::uuid("g", "one"));
    assert_eq!(&*first.devices[0].mac, identity::mac("g", "one"));
    assert_eq!((&*first.devices[1].uuid, &*first.devices[1].mac), ("AAAA-BBBB-CCCC-0001", "0000000000A1"));
    assert_eq!(&*first.devices[0].product.type_id, identity::type_id("tasmota-plug"));
}

#[test]
fn a_source_does_not_show_its_text() {
    let source = Source { name: "clients.toml".into(), text: "secret = \"s3cret-word\"".to_owned() };
    assert!(!format!("{source:?}").contains("s3cret-word"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        drop(resolve(&[Source { name: "pentad.toml".into(), text }]));
    }

    /// Damage to a file that uses every setting reaches far deeper than random text.
    #[test]
    fn no_damaged_configuration_panics(
        hits in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\n]{0,3}", 0..4_usize), 1..12),
    ) {
        let mut text: Vec<char> = enabled(SAMPLE).chars().collect();
        for (at, new, remove) in hits {
            let start = at.index(text.len());
            let end = text.len().min(start + remove);
            text.splice(start..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        let report = Report::default();
        drop(build(&with_products(&[("pentad.toml", &text)]), &Everywhere, &report));
        for problem in report.into_result().unwrap_or_else(|problems| problems.0) {
            prop_assert!(problem.line.is_none_or(|line| line >= 1));
        }
    }

    /// Whatever stands in place of each value, its reader has an answer.
    #[test]
    fn no_value_panics(
        value in prop::sample::select(vec![
            "0", "-1", "1e400", "nan", "inf", "true", "\"\"", "\"{x}\"", "[]", "[[]]", "{}", "1979-05-27",
            "9223372036854775807", "\"é\"", "[1, 2]", "[{}]", "{ a = 1 }", "0xFFFF_FFFF",
        ]),
        hit in any::<prop::sample::Index>(),
    ) {
        let sample = enabled(SAMPLE);
        let settings: Vec<usize> =
            sample.lines().enumerate().filter(|(_, line)| line.contains(" = ")).map(|(at, _)| at).collect();
        let hit = settings[hit.index(settings.len())];
        let replace = |(at, line): (usize, &str)| match line.split_once(" = ") {
            Some((key, _)) if at == hit => format!("{key} = {value}"),
            Some(_) | None => line.to_owned(),
        };
        let text = sample.lines().enumerate().map(replace).collect::<Vec<_>>().join("\n");
        drop(build(&with_products(&[("pentad.toml", &text)]), &Everywhere, &Report::default()));
    }
}

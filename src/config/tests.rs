//! Tests of the whole configuration, from text to result.

use super::*;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.to_owned() }
}

const PRODUCTS: [(&str, &str); 4] = [
    ("products/eastron-sdm120.toml", include_str!("../../products/eastron-sdm120.toml")),
    ("products/shelly-gen2-switch.toml", include_str!("../../products/shelly-gen2-switch.toml")),
    ("products/tasmota-plug.toml", include_str!("../../products/tasmota-plug.toml")),
    ("products/zigbee2mqtt-lamp.toml", include_str!("../../products/zigbee2mqtt-lamp.toml")),
];

/// These files after the shipped products.
fn with_products(files: &[(&str, &str)]) -> Vec<Source> {
    PRODUCTS.iter().chain(files).map(|(name, text)| source(name, text)).collect()
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
    assert_eq!(loaded.config.devices.len(), 6);
}

//! The page of metrics of a gateway that works, read by Prometheus's own Python library: what is there, of which type, and that its
//! labels are bounded by the configuration and the program.

#![cfg(test)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::world::{SECRET, World};
use common::ws::{PATIENCE, Ws, http};
use serde_json::{Value as Json, json};

/// Every family, with its type, the labels of its samples, and whether each of these must have been counted already.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    // The buses: requests, how long they take, what went wrong, who is left alone.
    ("pentad_bus_requests", "counter", &["link"]),
    ("pentad_bus_busy_seconds", "counter", &["link"]),
    ("pentad_bus_behind_seconds", "gauge", &["link"]),
    ("pentad_bus_timeouts", "counter", &["link"]),
    ("pentad_bus_bad_answers", "counter", &["link"]),
    ("pentad_bus_exceptions", "counter", &["link"]),
    ("pentad_bus_silent_units", "gauge", &["link"]),
    // The brokers: messages and what became of them.
    ("pentad_mqtt_received", "counter", &["link"]),
    ("pentad_mqtt_sent", "counter", &["link"]),
    ("pentad_mqtt_dropped", "counter", &["link", "reason"]),
    ("pentad_mqtt_found_devices", "gauge", &["link"]),
    ("pentad_mqtt_unwelcome", "counter", &["link"]),
    // Both: whether it is there.
    ("pentad_link_up", "gauge", &["link"]),
    ("pentad_link_connects", "counter", &["link"]),
    // The clients.
    ("pentad_sessions", "gauge", &["dialect"]),
    ("pentad_sessions_opened", "counter", &["dialect"]),
    ("pentad_sessions_evicted", "counter", &["dialect"]),
    ("pentad_messages_delivered", "counter", &["dialect"]),
    ("pentad_reports_missed", "counter", &["dialect"]),
    ("pentad_commands", "counter", &["dialect", "outcome"]),
    ("pentad_connections", "gauge", &[]),
    // The hub and what it keeps.
    ("pentad_hub_answers", "gauge", &[]),
    ("pentad_hub_requests_waiting", "gauge", &[]),
    ("pentad_hub_turns", "counter", &[]),
    ("pentad_messages", "counter", &[]),
    ("pentad_messages_unbalanced", "counter", &[]),
    ("pentad_messages_unkept", "counter", &[]),
    ("pentad_history_troubled", "gauge", &[]),
    ("pentad_clock_synchronised", "gauge", &[]),
    ("pentad_devices", "gauge", &[]),
    ("pentad_devices_online", "gauge", &[]),
    ("pentad_alarms_raised", "gauge", &[]),
    // The process.
    ("pentad_build_info", "gauge", &["version"]),
    ("process_cpu_seconds", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_peak_memory_bytes", "gauge", &[]),
    ("process_threads", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_uptime_seconds", "gauge", &[]),
];

/// What a label may say: nothing of it comes from a client or a device.
const LINKS: &[&str] = &["rs485", "local"];
const DIALECTS: &[&str] = &["janus", "sagoo", "ithings", "oam", "uplus"];

/// What the library makes of a page.
fn understood(page: &str) -> Vec<Json> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut child = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("counterparts/read_metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/run makes the environment");
    child.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the library does not read the page:\n{page}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn samples<'a>(families: &'a [Json], name: &str) -> &'a [Json] {
    let family = families.iter().find(|family| family["name"] == name);
    family.and_then(|family| family["samples"].as_array()).unwrap_or_else(|| panic!("{name} is missing"))
}

/// The value of the only sample with this label.
fn value(families: &[Json], name: &str, label: (&str, &str)) -> f64 {
    let of = samples(families, name).iter().find(|sample| sample["labels"][label.0] == label.1);
    of.and_then(|sample| sample["value"].as_f64()).unwrap_or_else(|| panic!("{name} has no {label:?}"))
}

#[tokio::test]
async fn prometheus_reads_every_figure_with_its_type_and_labels_that_are_bounded() {
    let world = World::start().await;
    let page = async || http(world.port, "GET", "/metrics", &[], "").await.1;
    // A client that reads and writes, so that something is counted.
    let mut ws = Ws::connect(world.port, &format!("/messaging/{SECRET}")).await;
    ws.send(&json!({"id": "live", "type": "sub", "topic": "/device/press/press-1/**"}).to_string()).await;
    let parameter = json!({"messageType": "WRITE_PROPERTY", "properties": {"setpoint": 21.5}});
    let topic = "/device-message-sender/press/press-1";
    ws.send(&json!({"id": "w", "type": "sub", "topic": topic, "parameter": parameter}).to_string()).await;
    let result =
        ws.wait_json("the result", |frame| frame["type"] == "result" && frame["requestId"] == "w").await;
    assert_eq!(result["payload"]["success"], true, "{result}");
    // A unit that falls silent, and a message that nobody has a use for.
    world.line.fault("mute", 2);
    world.broker.publish("stat/plug-1/POWER", "neither on nor off", false);
    let counted = async {
        loop {
            let families = understood(&page().await);
            let silent = value(&families, "pentad_bus_silent_units", ("link", "rs485")) >= 1.0;
            let dropped =
                samples(&families, "pentad_mqtt_dropped").iter().any(|sample| sample["value"] != 0.0);
            let delivered = value(&families, "pentad_messages_delivered", ("dialect", "sagoo")) > 0.0;
            if silent && dropped && delivered {
                return families;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let families = tokio::time::timeout(2 * PATIENCE, counted).await.expect("all of that is counted in time");

    let mut found = BTreeMap::new();
    for family in &families {
        let name = family["name"].as_str().expect("a name");
        assert!(found.insert(name, family).is_none(), "{name} is there twice");
        assert!(!family["help"].as_str().expect("a help").is_empty(), "{name} says nothing of itself");
        let mut seen = BTreeSet::new();
        for sample in family["samples"].as_array().expect("samples") {
            assert!(seen.insert(sample["labels"].to_string()), "{name} has {} twice", sample["labels"]);
            for (label, said) in sample["labels"].as_object().expect("labels") {
                let said = said.as_str().expect("text");
                match label.as_str() {
                    "link" => assert!(LINKS.contains(&said), "{name}: {said}"),
                    "dialect" => assert!(DIALECTS.contains(&said), "{name}: {said}"),
                    "version" => assert_eq!(said, env!("CARGO_PKG_VERSION")),
                    "reason" | "outcome" => {
                        assert!(
                            said.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-')),
                            "{name}: {said}"
                        );
                    }
                    _ => panic!("{name} has a label {label}"),
                }
            }
        }
    }
    for (name, kind, labels) in FAMILIES {
        let family = found.remove(name).unwrap_or_else(|| panic!("{name} is missing in\n{families:#?}"));
        assert_eq!(family["type"], *kind, "{name}");
        let samples = family["samples"].as_array().expect("samples");
        assert!(!samples.is_empty(), "{name} has no sample");
        for sample in samples {
            let named: Vec<&str> =
                sample["labels"].as_object().expect("labels").keys().map(String::as_str).collect();
            assert_eq!(named.iter().collect::<BTreeSet<_>>(), labels.iter().collect(), "{name}");
        }
    }
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "a family that this test does not know"
    );

    let (line, sagoo) = (("link", "rs485"), ("dialect", "sagoo"));
    for name in ["pentad_bus_requests", "pentad_bus_busy_seconds", "pentad_bus_timeouts", "pentad_link_up"] {
        assert!(value(&families, name, line) > 0.0, "{name}");
    }
    for name in ["pentad_mqtt_received", "pentad_link_up", "pentad_link_connects"] {
        assert!(value(&families, name, ("link", "local")) > 0.0, "{name}");
    }
    assert!(value(&families, "pentad_sessions", sagoo) >= 1.0);
    assert!(value(&families, "pentad_commands", ("outcome", "confirmed")) >= 1.0, "{result}");
}

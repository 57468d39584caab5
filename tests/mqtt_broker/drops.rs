//! Reads that a device is asked for, and messages of which nothing becomes: those are counted where that happens, and what a broker does not take costs nobody else.

use pentad::drivers::Observation;
use pentad::drivers::mqtt::BrokerSettings;
use pentad::drivers::mqtt::packet::Version;
use pentad::model::command::{Outcome, Rejection};
use pentad::model::value::Value;

use serde_json::json;

use crate::gateway::Gateway;
use crate::live::{head, plug, reports};
use crate::mosquitto::Mosquitto;
use crate::rig::{LEVEL, Rig, confirmed, settings};
use crate::ws::http;

/// The figure for a reason, in the words of the exposition.
fn dropped(rig: &Rig, reason: &str) -> u64 {
    let start = format!("pentad_mqtt_dropped_total{{link=\"local\",reason=\"{reason}\"}} ");
    let text = rig.meters.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start} is missing in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_a_broker_brings_in_vain_is_counted_by_its_reason() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    for reason in ["unmatched", "unreadable", "too_large", "queue_full"] {
        assert_eq!(dropped(&rig, reason), 0, "{reason}");
    }
    broker.publish("plug-1/state", r#"{"nothing":"known"}"#).await;
    broker.publish("plug-1/state", "no JSON").await;
    broker.publish("plug-1/state", r#"{"power":[]}"#).await;
    broker.publish("plug-1/log/large", &"x".repeat((64 << 10) + 1)).await;
    broker.publish("plug-1/log/small", "x").await;
    rig.find(|seen| matches!(seen, Observation::Publish { .. }).then_some(())).await;
    let counts = ["unmatched", "unreadable", "too_large", "queue_full"].map(|reason| dropped(&rig, reason));
    assert_eq!(counts, [1, 2, 1, 0]);
}

#[tokio::test]
async fn a_message_that_the_broker_would_not_take_is_refused_and_the_connection_stays() {
    let mut broker = Mosquitto::absent();
    broker.run_with("max_packet_size 200\nallow_anonymous true").await;
    let mut rig = Rig::start(BrokerSettings { version: Version::V5, ..settings(&broker) }, false);
    rig.connected().await;
    let text = ("text".into(), Value::text("x".repeat(300)));
    rig.command(pentad::drivers::DriverAction::Invoke { function: 0, inputs: vec![text] }).await;
    let words = "the broker takes no message of more than 200 bytes".to_owned();
    assert_eq!(rig.outcome().await, Outcome::Rejected(Rejection::ByDevice(words)));
    rig.write(&[(LEVEL, Value::Int(3))]).await;
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(3))]));
    assert!(
        !rig.seen.iter().any(|seen| matches!(seen, Observation::Link { up: false, .. })),
        "{:?}",
        rig.seen
    );
    assert_eq!(dropped(&rig, "too_large"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_is_answered_by_the_device_and_prometheus_sees_what_came_in_vain() {
    let broker = Mosquitto::start().await;
    let product = r#"
[[product]]
id = "asked"
[[product.property]]
id = "watts"
type = "float"
mqtt = { topic = "plugs/{topic}/state", path = "$.watts", read = { topic = "plugs/{topic}/get", payload = "watts" } }
"#;
    let device = plug("local", "m", "").replace("\"plug\"", "\"asked\"");
    let gateway = Gateway::start(&(head(&[("local", broker.port())]) + product + &device));
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    // Kept, because nothing tells when the subscriptions stand.
    broker.publish_retained("plugs/m/state", r#"{"watts":1}"#).await;
    reports(&mut sagoo, "m", 1.0).await;

    let mut meter = broker.subscribe("plugs/m/get").await;
    let read = json!({
        "id": "r", "type": "sub", "topic": "/device-message-sender/asked/m",
        "parameter": {"messageType": "READ_PROPERTY", "properties": ["watts"]},
    });
    sagoo.send(&read.to_string()).await;
    assert_eq!(meter.next().await.1, "watts");
    broker.publish("plugs/m/state", r#"{"watts":2.5}"#).await;
    let answer = sagoo.wait_json("the answer", |frame| frame["id"] == "r" && frame["type"] == "result").await;
    assert_eq!(answer["payload"]["properties"], json!({"watts": 2.5}));

    broker.publish("plugs/m/state", "no JSON").await;
    broker.publish("plugs/m/state", r#"{"watts":3}"#).await;
    reports(&mut sagoo, "m", 3.0).await;
    let (status, figures) = http(gateway.port, "GET", "/metrics", &[], "").await;
    assert_eq!(status, 200, "{figures}");
    for (reason, count) in [("unreadable", 1), ("unmatched", 0), ("too_large", 0), ("queue_full", 0)] {
        let line = format!("pentad_mqtt_dropped_total{{link=\"local\",reason=\"{reason}\"}} {count}");
        assert!(figures.lines().any(|each| each == line), "{line} is missing in\n{figures}");
    }
    gateway.stop().await;
}

//! Devices that appear by themselves behind a real broker, as clients of the dialects see them.

use serde_json::Value as Json;

use crate::gateway::Gateway;
use crate::live::{connections, head, is_written, kept, plug, reports, until};
use crate::mosquitto::{DEADLINE, Mosquitto};
use crate::relay::Relay;
use crate::ws::{Ws, http};

/// A rule for plugs with what else is said in it.
fn discover(more: &str) -> String {
    format!("\n[[mqtt.discover]]\npattern = \"plugs/{{device}}/state\"\nproduct = \"plug\"\n{more}\n")
}

/// A STOMP session that is subscribed to one destination.
pub(crate) async fn subscribed(gateway: &Gateway, path: &str, destination: &str) -> Ws {
    let mut ws = gateway.stomp(path).await;
    ws.send(&format!("SUBSCRIBE\nid:s\ndestination:{destination}\nreceipt:r\n\n\0")).await;
    ws.wait_for("the receipt", |text| text.starts_with("RECEIPT")).await;
    ws
}

/// The device list that a Janus client is given.
pub(crate) async fn listed(gateway: &Gateway) -> Vec<Json> {
    let path = "/api/device/list?token=demo-secret";
    let (status, body) = http(gateway.port, "GET", path, &[], "").await;
    assert_eq!(status, 200, "{body}");
    let body: Json = serde_json::from_str(&body).unwrap();
    body["data"]["devices"].as_array().unwrap_or_else(|| panic!("{body}")).clone()
}

/// Waits until a metric has this value.
pub(crate) async fn counts(gateway: &Gateway, metric: &str, value: u64) {
    let line = format!("{metric}{{link=\"local\"}} {value}");
    let counted = async {
        loop {
            let (_, text) = http(gateway.port, "GET", "/metrics", &[], "").await;
            if text.lines().any(|each| each == line) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, counted).await.unwrap_or_else(|_| panic!("{line} in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_appear_in_every_dialect_from_kept_and_fresh_messages_up_to_the_limit() {
    let broker = Mosquitto::start().await;
    kept(&broker, "main", 1).await;
    kept(&broker, "a", 2).await;
    // `main` is configured under another id, and counts for nothing here.
    let text = head(&[("local", broker.port())])
        + &plug("local", "first", "topic = \"main\"")
        + &discover("limit = 2\ndeny = [\"hidden*\"]\nwhen = { path = \"$.watts\" }");
    let gateway = Gateway::start(&text);
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    let mut ithings = connections(&gateway).await;
    let mut uplus = gateway.uplus_statuses(&text, "demo", "1plug").await;
    counts(&gateway, "pentad_mqtt_found_devices", 1).await;

    // One more comes while everybody listens; others do not count, or are too many.
    broker.publish("plugs/hidden-1/state", r#"{"watts":7}"#).await;
    broker.publish("plugs/empty/state", r#"{"volts":7}"#).await;
    kept(&broker, "Küche", 3).await;
    reports(&mut sagoo, "K_che-a9ec872e", 3.0).await;
    let seen = until(&mut ithings, "+K_che-a9ec872e").await;
    assert!(!seen.iter().any(|seen| seen.contains("main") || seen.contains("hidden")), "{seen:?}");
    broker.publish("plugs/c/state", r#"{"watts":4}"#).await;
    broker.publish("plugs/d/state", r#"{"watts":5}"#).await;
    counts(&gateway, "pentad_mqtt_unwelcome_total", 2).await;
    counts(&gateway, "pentad_mqtt_found_devices", 2).await;

    // Each dialect knows it by its own name for it.
    kept(&broker, "a", 20).await;
    reports(&mut sagoo, "a", 20.0).await;
    let list = listed(&gateway).await;
    let mut names: Vec<&str> = list.iter().filter_map(|device| device["baseInfo"]["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Küche", "a", "first"]);
    let uuid =
        list.iter().find(|device| device["id"] == "a").and_then(|device| device["uuid"].as_str()).unwrap();
    let topic = format!("/websocket/deviceData/{uuid}");
    let mut janus = subscribed(&gateway, "/websocket?token=demo-secret", &topic).await;
    let mut oam = subscribed(&gateway, "/ws?token=demo-secret", "/stream/local/a").await;
    broker.publish("plugs/a/state", r#"{"watts":21}"#).await;
    janus.wait_body("its value", &topic, |body| body["data"]["watts"].as_f64() == Some(21.0)).await;
    oam.wait_for("its sample", |text| text.contains("/stream/local/a") && text.contains("21")).await;
    uplus.wait_json("its status", |frame| frame["data"]["status"]["watts"] == "21").await;

    // And it is written like any other.
    is_written(&broker, &mut sagoo).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_falls_silent_is_forgotten_and_comes_back_with_its_next_message() {
    let broker = Mosquitto::start().await;
    let text = head(&[("local", broker.port())]) + &discover("forget_after = \"2s\"");
    let gateway = Gateway::start(&text);
    let mut ithings = connections(&gateway).await;
    counts(&gateway, "pentad_mqtt_found_devices", 0).await;
    kept(&broker, "there", 1).await;
    until(&mut ithings, "+there").await;
    for _ in 0..2 {
        broker.publish("plugs/quiet/state", r#"{"watts":1}"#).await;
        let seen = until(&mut ithings, "+quiet").await;
        assert!(!seen.contains(&"-there".to_owned()), "{seen:?}");
        // `there` is as silent, but has said that it is there.
        assert_eq!(until(&mut ithings, "-quiet").await, ["-quiet"]);
        counts(&gateway, "pentad_mqtt_found_devices", 1).await;
    }
    assert_eq!(listed(&gateway).await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_who_has_appeared_while_the_rule_holds() {
    let broker = Mosquitto::start().await;
    let relay = Relay::to(broker.port()).await;
    let head = head(&[("local", relay.port)]);
    kept(&broker, "a", 1).await;
    kept(&broker, "b", 2).await;
    let gateway = Gateway::start(&(head.clone() + &discover("")));
    counts(&gateway, "pentad_mqtt_found_devices", 2).await;

    // A device elsewhere takes the name of one of them, and gives it back.
    let elsewhere =
        "\n[[mqtt]]\nid = \"other\"\nurl = \"mqtt://127.0.0.1:1\"\n".to_owned() + &plug("other", "b", "");
    gateway.reload(&(head.clone() + &discover("") + &elsewhere)).await.unwrap();
    counts(&gateway, "pentad_mqtt_found_devices", 1).await;
    broker.publish("plugs/b/state", r#"{"watts":2}"#).await;
    counts(&gateway, "pentad_mqtt_unwelcome_total", 1).await;
    gateway.reload(&(head.clone() + &discover(""))).await.unwrap();
    kept(&broker, "b", 2).await;
    counts(&gateway, "pentad_mqtt_found_devices", 2).await;

    let mut ithings = connections(&gateway).await;
    // The configuration takes one of them over, under its own name, and the other stays.
    let text = head.clone() + &plug("local", "mine", "topic = \"b\"");
    gateway.reload(&(text.clone() + &discover(""))).await.unwrap();
    let seen = until(&mut ithings, "+mine").await;
    assert!(seen.contains(&"-b".to_owned()) && !seen.contains(&"-a".to_owned()), "{seen:?}");
    let applied = gateway.reload(&(text + &discover("limit = 5"))).await.unwrap();
    assert_eq!(applied.changes, ["discovery of plugs/{device}/state at local as plug changes"]);
    assert_eq!(
        until(&mut ithings, "+a").await,
        ["-a", "+a"],
        "under a changed rule it appears anew, and at once"
    );
    let applied = gateway.reload(&head).await.unwrap();
    assert!(
        applied.changes.contains(&"discovery of plugs/{device}/state at local as plug is removed".to_owned())
    );
    let seen = until(&mut ithings, "-a").await;
    assert_eq!(seen.iter().filter(|seen| seen.ends_with('a')).count(), 1, "{seen:?}");
    counts(&gateway, "pentad_mqtt_found_devices", 0).await;
    assert_eq!((listed(&gateway).await.len(), relay.connections()), (0, 1));
    gateway.stop().await;
}

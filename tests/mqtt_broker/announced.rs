//! A device that announces itself as Home Assistant's MQTT discovery has it, behind a real broker, as clients of the dialects see it.

use pentad::model::identity;
use serde_json::json;

use crate::found::{counts, listed, subscribed};
use crate::gateway::Gateway;
use crate::live::{connections, head, plug, reports, until};
use crate::mosquitto::Mosquitto;

const FOUND: &str = "pentad_mqtt_found_devices";

/// A gateway's configuration in which that is switched on.
fn plant(port: u16, more: &str) -> String {
    let url = format!("url = \"mqtt://127.0.0.1:{port}\"\n");
    let scheme = format!("{url}\n[mqtt.homeassistant]\nprefix = \"ha\"\n{more}\n");
    head(&[("local", port)]).replace(&url, &scheme)
}

/// Two entities of a device: a switch `power` and a sensor `watts`.
async fn announces(broker: &Mosquitto, id: &str) {
    let device = json!({"ids": [id], "name": format!("Plug {id}"), "mf": "Acme", "mdl": "P1"});
    let common = |more: serde_json::Value| {
        let mut entity = json!({"~": format!("acme/{id}"), "avty_t": "~/status", "dev": device});
        entity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entity.to_string()
    };
    let switch = common(json!({"stat_t": "~/power", "cmd_t": "~/power/set", "qos": 1}));
    let sensor = common(
        json!({"stat_t": "~/state", "val_tpl": "{{ value_json.w | float / 10 }}", "unit_of_meas": "W"}),
    );
    broker.publish_retained(&format!("ha/switch/{id}/power/config"), &switch).await;
    broker.publish_retained(&format!("ha/sensor/{id}/watts/config"), &sensor).await;
}

async fn forgets(broker: &Mosquitto, id: &str) {
    broker.publish_retained(&format!("ha/switch/{id}/power/config"), "").await;
    broker.publish_retained(&format!("ha/sensor/{id}/watts/config"), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_announces_itself_reports_is_written_goes_offline_and_is_removed() {
    let broker = Mosquitto::start().await;
    let text = plant(broker.port(), "deny = [\"stranger*\"]\nreport = { on = \"reading\" }");
    let gateway = Gateway::start(&text);
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    let mut ithings = connections(&gateway).await;
    counts(&gateway, FOUND, 0).await;

    broker.publish_retained("acme/a/state", r#"{"w":125}"#).await;
    announces(&broker, "stranger-1").await;
    announces(&broker, "a").await;
    counts(&gateway, FOUND, 1).await;
    // A value that the broker had kept is told; that the device is there says its status alone.
    reports(&mut sagoo, "a", 12.5).await;
    broker.publish_retained("acme/a/status", "online").await;
    assert_eq!(until(&mut ithings, "+a").await, ["+a"]);

    // Each dialect knows it by its own name for it.
    let list = listed(&gateway).await;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0]["id"], &list[0]["baseInfo"]["name"]), (&json!("a"), &json!("Plug a")));
    let uuid = identity::uuid("barn", "a");
    assert_eq!(list[0]["uuid"], json!(uuid));
    let topic = format!("/websocket/deviceData/{uuid}");
    let mut janus = subscribed(&gateway, "/websocket?token=demo-secret", &topic).await;
    let mut oam = subscribed(&gateway, "/ws?token=demo-secret", "/stream/local/a").await;
    // U+ grants a kind of device once there is one.
    let mut uplus = gateway.uplus(&text, "demo").await;
    let kind = identity::type_id("ha-a");
    let status = json!({"cmd": "subscribe", "data": {"subdata": [{"topic": "DEV_STATUS", "keys": {"typeId": [kind]}}]}});
    uplus.send(&status.to_string()).await;
    uplus.wait_json("the grant", |frame| frame["cmd"] == "subscribe-ack").await;
    broker.publish("acme/a/state", r#"{"w":215}"#).await;
    reports(&mut sagoo, "a", 21.5).await;
    janus.wait_body("its value", &topic, |body| body["data"]["watts"].as_f64() == Some(21.5)).await;
    oam.wait_for("its sample", |text| text.contains("/stream/local/a") && text.contains("21.5")).await;
    uplus.wait_json("its status", |frame| frame["data"]["status"]["watts"] == "21.5").await;

    // A write is done when the device reports it.
    let mut device = broker.subscribe("acme/a/power/set").await;
    let write = json!({
        "id": "w", "type": "sub", "topic": "/device-message-sender/ha-a/a",
        "parameter": {"messageType": "WRITE_PROPERTY", "properties": {"power": true}},
    });
    sagoo.send(&write.to_string()).await;
    assert_eq!(device.next().await.1, "ON");
    broker.publish("acme/a/power", "ON").await;
    let is_done = |frame: &serde_json::Value| {
        frame["payload"]["messageType"] == "WRITE_PROPERTY_REPLY" && frame["payload"]["success"] == true
    };
    sagoo.wait_json("the outcome", is_done).await;

    broker.publish_retained("acme/a/status", "offline").await;
    assert_eq!(until(&mut ithings, "-a").await, ["-a"]);
    broker.publish_retained("acme/a/status", "online").await;
    assert_eq!(until(&mut ithings, "+a").await, ["+a"]);
    forgets(&broker, "a").await;
    assert_eq!(until(&mut ithings, "-a").await, ["-a"]);
    counts(&gateway, FOUND, 0).await;
    assert_eq!(listed(&gateway).await.len(), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_is_back_after_a_restart_and_comes_and_goes_with_a_reload() {
    let broker = Mosquitto::start().await;
    announces(&broker, "a").await;
    announces(&broker, "b").await;
    broker.publish_retained("acme/a/status", "online").await;
    broker.publish_retained("acme/b/status", "offline").await;
    let text = plant(broker.port(), "");
    for _ in 0..2 {
        let gateway = Gateway::start(&text);
        counts(&gateway, FOUND, 2).await;
        gateway.stop().await;
    }
    let gateway = Gateway::start(&plant(broker.port(), "allow = [\"Plug b\"]"));
    counts(&gateway, FOUND, 1).await;
    let mut ithings = connections(&gateway).await;
    let applied = gateway.reload(&text).await.unwrap();
    assert_eq!(applied.changes, ["discovery of announcements at local changes"]);
    // Only of the one that is there it is said that it is.
    let seen = until(&mut ithings, "+a").await;
    assert!(!seen.contains(&"+b".to_owned()), "{seen:?}");
    counts(&gateway, FOUND, 2).await;
    // A reload that has nothing to do with it leaves them alone.
    gateway.reload(&(text.clone() + &plug("local", "first", "topic = \"x\""))).await.unwrap();
    counts(&gateway, FOUND, 2).await;
    // What is configured by its topic is not there twice.
    let own = "\n[[device]]\nid = \"own\"\nproduct = \"own\"\nmqtt = \"local\"\ntopic = \"acme/a\"\n[[product]]\nid = \"own\"\n\
               [[product.property]]\nid = \"watts\"\ntype = \"float\"\nmqtt = { topic = \"{topic}/state\", path = \"$.w\" }\n";
    gateway.reload(&(text.clone() + own)).await.unwrap();
    until(&mut ithings, "-a").await;
    counts(&gateway, FOUND, 1).await;
    gateway.reload(&head(&[("local", broker.port())])).await.unwrap();
    counts(&gateway, FOUND, 0).await;
    gateway.stop().await;
}

//! A running gateway whose devices behind a broker change: the connection lives, and so do the other devices.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::gateway::Gateway;
use crate::mosquitto::Mosquitto;
use crate::relay::Relay;
use crate::ws::Ws;

/// A gateway with these brokers, one product of plugs, and one client.
pub(crate) fn head(brokers: &[(&str, u16)]) -> String {
    let brokers = brokers.iter().fold(String::new(), |mut text, (id, port)| {
        write!(text, "[[mqtt]]\nid = \"{id}\"\nurl = \"mqtt://127.0.0.1:{port}\"\n")
            .expect("a string takes all");
        text
    });
    format!(
        r#"
[gateway]
id = "barn"
timezone = "UTC"
{brokers}
[[product]]
id = "plug"
type_id = "1plug"
[product.mqtt]
availability = {{ topic = "plugs/{{topic}}/online", online = "true", offline = "false" }}
[[product.property]]
id = "watts"
type = "float"
access = "rw"
mqtt = {{ topic = "plugs/{{topic}}/state", path = "$.watts", write = {{ topic = "plugs/{{topic}}/set" }} }}

[[client]]
id = "demo"
secret = "demo-secret"
rights = ["read", "write"]
"#
    )
}

/// A plug with what else is said of it.
pub(crate) fn plug(broker: &str, id: &str, more: &str) -> String {
    format!("\n[[device]]\nid = \"{id}\"\nproduct = \"plug\"\nmqtt = \"{broker}\"\n{more}\n")
}

/// What a plug publishes, kept by the broker.
pub(crate) async fn kept(broker: &Mosquitto, plug: &str, watts: u32) {
    broker.publish_retained(&format!("plugs/{plug}/online"), "true").await;
    broker.publish_retained(&format!("plugs/{plug}/state"), &json!({"watts": watts}).to_string()).await;
}

/// A write of a client reaches the plug `a`.
pub(crate) async fn is_written(broker: &Mosquitto, sagoo: &mut Ws) {
    let mut device = broker.subscribe("plugs/a/set").await;
    let write = json!({
        "id": "w", "type": "sub", "topic": "/device-message-sender/plug/a",
        "parameter": {"messageType": "WRITE_PROPERTY", "properties": {"watts": 5}},
    });
    sagoo.send(&write.to_string()).await;
    assert_eq!(device.next().await.1, "5");
}

/// A session that is told of every device that comes or goes.
pub(crate) async fn connections(gateway: &Gateway) -> Ws {
    let mut ithings = gateway.ithings("demo-secret").await;
    let ask = json!({"type": "up.sub", "body": {"code": "deviceConn", "params": {"projectID": "1"}}});
    ithings.send(&ask.to_string()).await;
    ithings.wait_json("the answer to the subscription", |frame| frame["type"] == "down.subRet").await;
    ithings
}

/// The devices that came (`+`) and went (`-`), in order, up to this one.
pub(crate) async fn until(ithings: &mut Ws, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| seen != last) {
        let frame = ithings.wait_json(last, |frame| frame["device"]["deviceName"].is_string()).await;
        if let (Some(device), Some(status)) =
            (frame["device"]["deviceName"].as_str(), frame["status"].as_u64())
        {
            seen.push(format!("{}{device}", if status == 1 { '+' } else { '-' }));
        }
    }
    seen
}

/// Waits for a report of this value.
pub(crate) async fn reports(sagoo: &mut Ws, device: &str, watts: f64) {
    let of = |frame: &Json| {
        frame["payload"]["deviceId"] == device
            && frame["payload"]["properties"]["watts"].as_f64() == Some(watts)
    };
    sagoo.wait_json(&format!("{watts} W of {device}"), of).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_changes_devices_of_a_broker_keeps_its_connection_and_the_other_devices() {
    let broker = Mosquitto::start().await;
    let relay = Relay::to(broker.port()).await;
    for (plug, watts) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        kept(&broker, plug, watts).await;
    }
    let head = head(&[("local", relay.port)]);
    let gateway = Gateway::start(&(head.clone() + &plug("local", "a", "") + &plug("local", "b", "")));
    let mut ithings = connections(&gateway).await;
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    // Kept, because nothing tells when the subscriptions stand.
    kept(&broker, "a", 10).await;
    reports(&mut sagoo, "a", 10.0).await;

    // One goes, one comes, one is another thing from now on, and one is only called otherwise.
    let renamed = plug("local", "a", "name = \"First plug\"");
    let text = head.clone() + &renamed + &plug("local", "c", "");
    let applied = gateway.reload(&text).await.unwrap();
    assert_eq!(
        applied.changes,
        ["device b is removed", "device a changes: name", "device c is added on local"]
    );
    reports(&mut sagoo, "c", 3.0).await;
    let seen = until(&mut ithings, "+c").await;
    assert!(seen.contains(&"-b".to_owned()) && !seen.contains(&"-a".to_owned()), "{seen:?}");
    gateway.reload(&(head.clone() + &renamed + &plug("local", "c", "topic = \"d\""))).await.unwrap();
    reports(&mut sagoo, "c", 4.0).await;
    assert_eq!(until(&mut ithings, "+c").await, ["-c", "+c"]);

    // What stayed is read and written as before.
    broker.publish("plugs/a/state", r#"{"watts":11}"#).await;
    reports(&mut sagoo, "a", 11.0).await;
    is_written(&broker, &mut sagoo).await;
    assert_eq!(relay.connections(), 1, "there was one connection all the time");
    gateway.stop().await;
}

/// With the broker's own log as the witness, in both versions of the protocol: that of MQTT 5 has properties and reasons.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topics_of_a_device_that_goes_are_given_back_and_its_messages_come_no_more() {
    for version in ["3.1.1", "5"] {
        let mut broker = Mosquitto::absent();
        let log = broker.folder().join("log");
        broker
            .run_with(&format!("allow_anonymous true\nlog_dest file {}\nlog_type all", log.display()))
            .await;
        let head = head(&[("local", broker.port())])
            .replace("[[mqtt]]\n", &format!("[[mqtt]]\nversion = \"{version}\"\n"));
        let gateway = Gateway::start(&(head.clone() + &plug("local", "a", "") + &plug("local", "b", "")));
        let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
        for plug in ["a", "b"] {
            kept(&broker, plug, 1).await;
            reports(&mut sagoo, plug, 1.0).await;
        }
        gateway.reload(&(head.clone() + &plug("local", "a", ""))).await.unwrap();
        let says = |words: &str| std::fs::read_to_string(&log).unwrap().matches(words).count();
        let given_back = async {
            while says("Sending UNSUBACK to pentad-barn-local") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let given_back = tokio::time::timeout(crate::mosquitto::DEADLINE, given_back).await;
        given_back.unwrap_or_else(|_| panic!("MQTT {version}: the broker is never told"));
        assert_eq!(says("Received UNSUBSCRIBE from pentad-barn-local"), 1, "MQTT {version}");
        for topic in ["online", "state"] {
            assert_eq!(says(&format!("pentad-barn-local plugs/b/{topic}")), 1, "MQTT {version}: {topic}");
        }
        // What the one that has gone says travels no more, and the other is there as before.
        let sent = |plug: &str| {
            let of = |line: &&str| {
                line.contains("Sending PUBLISH to pentad-barn-local")
                    && line.contains(&format!("'plugs/{plug}/state'"))
            };
            std::fs::read_to_string(&log).unwrap().lines().filter(of).count()
        };
        let before = sent("b");
        kept(&broker, "b", 2).await;
        kept(&broker, "a", 2).await;
        reports(&mut sagoo, "a", 2.0).await;
        assert_eq!(sent("b"), before, "MQTT {version}");
        // Asked for again, it is sent again.
        gateway.reload(&(head + &plug("local", "a", "") + &plug("local", "b", ""))).await.unwrap();
        reports(&mut sagoo, "b", 2.0).await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_brokers_one_is_killed_and_the_other_goes_on() {
    let (mut one, other) = (Mosquitto::start().await, Mosquitto::start().await);
    kept(&one, "a", 1).await;
    kept(&other, "b", 2).await;
    let text = head(&[("one", one.port()), ("other", other.port())])
        + &plug("one", "a", "")
        + &plug("other", "b", "");
    let gateway = Gateway::start(&text);
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    for (broker, plug) in [(&one, "a"), (&other, "b")] {
        kept(broker, plug, 10).await;
        reports(&mut sagoo, plug, 10.0).await;
    }
    let mut ithings = connections(&gateway).await;

    one.kill().await;
    assert_eq!(until(&mut ithings, "-a").await, ["-a"]);
    for watts in [20, 21] {
        other.publish("plugs/b/state", &json!({"watts": watts}).to_string()).await;
        reports(&mut sagoo, "b", f64::from(watts)).await;
    }
    one.run().await;
    kept(&one, "a", 30).await;
    assert_eq!(until(&mut ithings, "+a").await, ["+a"], "of the other one nothing was said");
    reports(&mut sagoo, "a", 30.0).await;
    gateway.stop().await;
}

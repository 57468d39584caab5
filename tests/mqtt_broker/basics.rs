//! Values, commands, presence and the comings and goings of a broker.

use std::time::Duration;

use pentad::drivers::mqtt::BrokerSettings;
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::client::Secret;
use pentad::model::command::{Outcome, Rejection};
use pentad::model::value::Value;
use tokio::time::timeout;

use crate::mosquitto::{DEADLINE, Mosquitto};
use crate::rig::{LEVEL, POWER, Rig, WATTS, confirmed, on, settings};

#[tokio::test]
async fn a_report_becomes_one_observation_with_all_its_values() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    broker.publish("plug-1/state", r#"{"power":"ON","meter":{"watts":"12.5"},"other":1}"#).await;
    assert!(rig.presence().await.0);
    assert_eq!(rig.values().await, [(POWER, on()), (WATTS, Sample::Value(Value::Float(12.5)))]);
    broker.publish("plug-1/state", r#"{"meter":{"watts":true}}"#).await;
    let values = rig.values().await;
    assert!(matches!(values.as_slice(), [(WATTS, Sample::Unreadable(_))]), "{values:?}");
}

#[tokio::test]
async fn what_the_broker_kept_is_there_after_the_connect() {
    let broker = Mosquitto::start().await;
    broker.publish_retained("plug-1/state", r#"{"power":"OFF"}"#).await;
    broker.publish_retained("plug-1/online", "true").await;
    let mut rig = Rig::with(&broker, true);
    assert_eq!(rig.values().await, [(POWER, Sample::Value(Value::Bool(false)))]);
}

#[tokio::test]
async fn a_write_reaches_the_command_topic_and_is_confirmed_by_the_broker() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    let mut device = broker.subscribe("plug-1/set/#").await;
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    assert_eq!(device.next().await, ("plug-1/set/level".to_owned(), r#"{"level":40}"#.to_owned()));
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(40))]));
}

#[tokio::test]
async fn a_function_reaches_its_topic_with_its_inputs() {
    let broker = Mosquitto::start().await;
    let mut device = broker.subscribe("plug-1/do").await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    let inputs = vec![("text".into(), Value::text("say \"hi\""))];
    rig.command(DriverAction::Invoke { function: 0, inputs }).await;
    assert_eq!(device.next().await.1, r#"{"text":"say \"hi\"","times":null}"#);
    assert_eq!(rig.outcome().await, confirmed(&[]));
}

#[tokio::test]
async fn a_write_with_a_reply_is_confirmed_by_the_device_alone() {
    let broker = Mosquitto::start().await;
    let mut device = broker.subscribe("plug-1/set/power").await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(POWER, Value::Bool(true))]).await;
    assert_eq!(device.next().await.1, "ON");
    broker.publish("plug-1/state", r#"{"power":"OFF"}"#).await;
    broker.publish("plug-1/state", r#"{"power":"ON"}"#).await;
    assert_eq!(rig.outcome().await, confirmed(&[("power", Value::Bool(true))]));

    rig.write(&[(POWER, Value::Bool(true))]).await;
    device.next().await;
    broker.publish("plug-1/state", r#"{"power":"OFF"}"#).await;
    let mismatch =
        Rejection::Mismatch { id: "power".into(), expected: Value::Bool(true), found: Value::Bool(false) };
    assert_eq!(rig.outcome().await, Outcome::Rejected(mismatch));

    rig.write(&[(POWER, Value::Bool(true))]).await;
    assert_eq!(rig.outcome().await, Outcome::TimedOut, "the device said nothing");
}

#[tokio::test]
async fn the_availability_topic_decides_who_is_there() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::with(&broker, true);
    rig.connected().await;
    broker.publish_retained("plug-1/online", "true").await;
    assert!(rig.presence().await.0);
    broker.publish_retained("plug-1/online", "false").await;
    let (online, reason) = rig.presence().await;
    assert!(!online && reason.is_some(), "{reason:?}");
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    assert_eq!(rig.outcome().await, Outcome::Offline);
}

#[tokio::test]
async fn a_broker_that_is_absent_at_start_is_found_when_it_comes() {
    let mut broker = Mosquitto::absent();
    let mut rig = Rig::new(&broker);
    let (up, reason) = rig.link().await;
    assert!(!up && reason.unwrap().contains("is not reachable"));
    assert_eq!(rig.presence().await, (false, Some(format!("broker {} is not reachable", rig.display))));
    rig.write(&[(LEVEL, Value::Int(1))]).await;
    assert_eq!(rig.outcome().await, Outcome::Offline);
    broker.run().await;
    assert!(rig.link().await.0);
    // It may only be waiting for something to do.
    rig.write(&[(LEVEL, Value::Int(1))]).await;
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(1))]));
    // Kept, because nothing tells when the new subscription stands.
    broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
    assert!(rig.presence().await.0);
    assert_eq!(rig.values().await, [(POWER, on())]);
}

#[tokio::test]
async fn a_broker_that_is_killed_takes_its_devices_offline_once_and_brings_them_back() {
    let mut broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    assert!(rig.link().await.0);
    for round in 0..2 {
        broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
        assert!(rig.presence().await.0, "round {round}");
        assert_eq!(rig.values().await, [(POWER, on())]);
        broker.kill().await;
        assert!(!rig.link().await.0);
        assert!(!rig.presence().await.0);
        broker.run().await;
        // Had anything been said twice, it would stand in the way of this.
        assert!(matches!(rig.next().await, Observation::Link { up: true, .. }));
        assert!(matches!(rig.next().await, Observation::Doubt { .. }));
    }
}

#[tokio::test]
async fn a_kept_session_brings_what_was_missed_and_one_that_the_broker_lost_is_made_anew() {
    let mut broker = Mosquitto::start().await;
    let kept = |broker: &Mosquitto| BrokerSettings { clean_session: false, ..settings(broker) };
    let mut rig = Rig::start(kept(&broker), false);
    rig.connected().await;
    rig.stop.cancel();
    timeout(DEADLINE, rig.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
    broker.publish("plug-1/state", r#"{"power":"ON"}"#).await;
    let mut rig = Rig::start(kept(&broker), false);
    assert_eq!(rig.values().await, [(POWER, on())], "the broker had kept it for this client");

    broker.kill().await;
    assert!(!rig.link().await.0);
    broker.run().await;
    // The broker knows neither the client nor its subscriptions. The first message is kept, because nothing tells when the
    // new ones stand.
    assert!(rig.link().await.0);
    broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
    assert_eq!(rig.values().await, [(POWER, on())]);
    broker.publish("plug-1/state", r#"{"power":"OFF"}"#).await;
    assert_eq!(rig.values().await, [(POWER, Sample::Value(Value::Bool(false)))]);
}

#[tokio::test]
async fn what_is_under_way_when_the_broker_falls_silent_is_unknown_and_later_commands_are_not_sent() {
    let broker = Mosquitto::start().await;
    let mut rig =
        Rig::start(BrokerSettings { keep_alive: Duration::from_secs(2), ..settings(&broker) }, false);
    rig.connected().await;
    broker.freeze().await;
    rig.write(&[(LEVEL, Value::Int(1))]).await;
    assert_eq!(rig.outcome().await, Outcome::TimedOut);
    assert!(!rig.link().await.0, "the device is told as offline");
    rig.write(&[(LEVEL, Value::Int(2))]).await;
    assert_eq!(rig.outcome().await, Outcome::Offline);
    broker.thaw().await;
    let mut device = broker.subscribe("plug-1/set/level").await;
    assert!(rig.link().await.0);
    broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
    assert!(rig.presence().await.0);
    rig.write(&[(LEVEL, Value::Int(3))]).await;
    // The frozen broker may still find the first write in its socket, but never the second.
    let mut seen = device.next().await.1;
    if seen == r#"{"level":1}"# {
        seen = device.next().await.1;
    }
    assert_eq!(seen, r#"{"level":3}"#);
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(3))]));
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed() {
    let broker = Mosquitto::start().await;
    // Short enough for a test, long enough for a broker that waits for its turn on a busy machine.
    let mut rig =
        Rig::start(BrokerSettings { keep_alive: Duration::from_secs(2), ..settings(&broker) }, false);
    rig.connected().await;
    broker.freeze().await;
    let (up, reason) = rig.link().await;
    assert!(!up, "{reason:?}");
    broker.thaw().await;
    assert!(rig.link().await.0);
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_shown() {
    let mut broker = Mosquitto::absent();
    let file = broker.password_file("pentad", "right").await;
    broker.run_with(&format!("allow_anonymous false\npassword_file {}", file.display())).await;
    let login = |password: &str| Some(("pentad".into(), Secret::new(password)));
    let mut rig = Rig::start(BrokerSettings { login: login("wr0ng"), ..settings(&broker) }, false);
    let reason = rig.link().await.1.unwrap();
    assert!(reason.contains("user name and password") && !reason.contains("wr0ng"), "{reason}");
    let mut rig = Rig::start(BrokerSettings { login: login("right"), ..settings(&broker) }, false);
    assert!(rig.link().await.0);
}

#[tokio::test]
async fn raw_topics_are_passed_on_but_never_the_gateways_own_commands() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(LEVEL, Value::Int(3))]).await;
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(3))]));
    broker.publish("plug-1/log/boot", "hello").await;
    let raw = rig.find(|seen| {
        let Observation::Publish { topic, payload, .. } = seen else { return None };
        Some((topic.to_string(), payload.to_string()))
    });
    assert_eq!(raw.await, ("plug-1/log/boot".to_owned(), "hello".to_owned()));
}

#[tokio::test]
async fn when_told_to_stop_it_settles_what_it_holds_and_ends() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(POWER, Value::Bool(true))]).await;
    rig.find(|seen| matches!(seen, Observation::Accepted { .. }).then_some(())).await;
    rig.stop.cancel();
    assert_eq!(rig.outcome().await, Outcome::TimedOut);
    timeout(DEADLINE, rig.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
}

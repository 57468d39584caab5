//! What the gateway says of itself, as an independent client sees it.

use std::sync::Arc;

use pentad::drivers::Observation;
use pentad::drivers::mqtt::BrokerSettings;
use pentad::drivers::mqtt::packet::Version;
use pentad::drivers::mqtt::presence::PresenceSettings;
use tokio::time::timeout;

use crate::mosquitto::{DEADLINE, Mosquitto};
use crate::rig::{Rig, settings};

const STATUS: &str = "pentad/g/status";
const STATE: &str = "pentad/g/state";

fn present(broker: &Mosquitto) -> BrokerSettings {
    let presence = PresenceSettings {
        topic: STATUS.into(),
        online: "online".into(),
        offline: "offline".into(),
        state: Some(STATE.into()),
    };
    BrokerSettings { presence: Some(presence), ..settings(broker) }
}

/// What the broker has kept on a topic, as somebody learns who comes later.
async fn kept(broker: &Mosquitto, topic: &str) -> String {
    broker.subscribe(topic).await.next().await.1
}

#[tokio::test]
async fn birth_and_state_are_kept_and_told_again_to_a_broker_that_has_forgotten_them() {
    let mut broker = Mosquitto::start().await;
    let mut rig = Rig::start(present(&broker), false);
    rig.gateway.send_replace(Some(Arc::from(r#"{"devices":1}"#)));
    rig.connected().await;
    assert_eq!(kept(&broker, STATUS).await, "online");
    assert_eq!(kept(&broker, STATE).await, r#"{"devices":1}"#);
    let mut listener = broker.subscribe(STATE).await;
    listener.next().await;
    rig.gateway.send_replace(Some(Arc::from(r#"{"devices":2}"#)));
    assert_eq!(listener.next().await.1, r#"{"devices":2}"#);
    drop(listener);

    broker.kill().await;
    broker.run().await;
    rig.find(|seen| matches!(seen, Observation::Link { up: true, .. }).then_some(())).await;
    assert_eq!(kept(&broker, STATUS).await, "online");
    assert_eq!(kept(&broker, STATE).await, r#"{"devices":2}"#);
}

#[tokio::test]
async fn the_will_is_published_when_the_connection_breaks_and_the_goodbye_when_the_gateway_stops() {
    for version in [Version::V3, Version::V5] {
        let broker = Mosquitto::start().await;
        let mut rig = Rig::start(BrokerSettings { version, ..present(&broker) }, false);
        rig.connected().await;
        let mut listener = broker.subscribe(STATUS).await;
        assert_eq!(listener.next().await.1, "online");
        // The task is gone at once, as with a killed process.
        rig.tasks.abort_all();
        assert_eq!(listener.next().await.1, "offline", "the will");

        let mut rig = Rig::start(BrokerSettings { version, ..present(&broker) }, false);
        rig.connected().await;
        assert_eq!(listener.next().await.1, "online");
        rig.stop.cancel();
        assert_eq!(listener.next().await.1, "offline", "the goodbye");
        timeout(DEADLINE, rig.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
        assert_eq!(kept(&broker, STATUS).await, "offline");
    }
}

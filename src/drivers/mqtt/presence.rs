//! What the gateway says of itself at a broker: that it is there or gone, and how it is.
//!
//! Pure. The status is retained, and the broker publishes its other half as the last will; the state is a JSON object,
//! retained as well. Both are published at each connect, the state also when it changes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use super::packet::{Extra, Message};
use crate::model::snapshot::Snapshot;

/// Where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceSettings {
    /// Topic of the status.
    pub topic: Arc<str>,
    /// The status while connected.
    pub online: Arc<str>,
    /// The status afterwards.
    pub offline: Arc<str>,
    /// Topic of the state; `None` publishes none.
    pub state: Option<Arc<str>>,
}

impl PresenceSettings {
    /// The last will, and what is published before a goodbye in form.
    pub fn gone(&self) -> Message {
        retained(&self.topic, &self.offline)
    }

    /// What is published at each connect.
    pub fn here(&self) -> Message {
        retained(&self.topic, &self.online)
    }

    /// The message that carries this state.
    pub fn state(&self, state: &Arc<str>) -> Option<Message> {
        self.state.as_ref().map(|topic| retained(topic, state))
    }
}

fn retained(topic: &Arc<str>, payload: &Arc<str>) -> Message {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Message { topic: Arc::clone(topic), payload, qos: 1, retain: true, extra: Extra::default() }
}

/// The state as JSON: version, how many devices there are and answer, and each bus and broker with whether it is up and
/// since when (milliseconds since 1970). The same snapshot always gives the same text.
pub fn state_text(version: &str, snapshot: &Snapshot) -> String {
    let online = snapshot.devices.iter().filter(|device| device.online).count();
    let links: Map<String, Json> = snapshot
        .links
        .iter()
        .map(|link| {
            let since = link.since.map(|since| since.0);
            (link.link.id.to_string(), json!({"up": link.up, "since": since}))
        })
        .collect();
    let devices = json!({"online": online, "total": snapshot.devices.len()});
    json!({"version": version, "devices": devices, "links": links}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::Link;
    use crate::model::snapshot::LinkSnapshot;
    use crate::model::time::UnixMillis;

    #[test]
    fn the_state_names_versions_devices_and_links() {
        let link = |id: &str, up, since| LinkSnapshot {
            link: Arc::new(Link { id: id.into(), address: "somewhere".into(), readable: true }),
            up,
            since,
            connects: 1,
        };
        let links = vec![link("rs485", true, Some(UnixMillis(7))), link("local", false, None)];
        let snapshot = Snapshot { seq: 3, devices: vec![], links };
        assert_eq!(
            state_text("1.2.3", &snapshot),
            r#"{"version":"1.2.3","devices":{"online":0,"total":0},"links":{"rs485":{"up":true,"since":7},"local":{"up":false,"since":null}}}"#
        );
    }

    #[test]
    fn every_message_is_kept_by_the_broker() {
        let settings = PresenceSettings {
            topic: "pentad/g/status".into(),
            online: "online".into(),
            offline: "offline".into(),
            state: None,
        };
        assert!(settings.here().retain && settings.gone().retain);
        assert_eq!(settings.gone().payload, "offline");
        assert_eq!(settings.state(&"{}".into()), None);
    }
}

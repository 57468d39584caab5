//! The MQTT driver: one task per broker, publishes in, values out.

use std::sync::Arc;
use std::time::Duration;

use super::roll::{Roll, roll};
use crate::model::client::Secret;
use crate::model::device::Device;

pub mod body;
pub mod client;
pub mod discover;
pub mod feed;
pub mod homeassistant;
mod ledger;
pub mod map;
pub mod packet;
pub mod path;
pub mod payload;
mod plan;
pub mod presence;
pub mod route;
pub mod session;
pub mod state;
mod station;
pub mod template;
pub mod tls;
pub mod transport;
mod waiting;

/// One broker as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerSettings {
    /// Unique over buses and brokers.
    pub id: Arc<str>,
    /// The gateway's id, for topics.
    pub gateway: Arc<str>,
    /// Host name or address.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// What lies between TCP and MQTT.
    pub transport: Transport,
    /// Which MQTT.
    pub version: packet::Version,
    /// The address for people and logs, without credentials.
    pub display: Arc<str>,
    /// MQTT client id, stable so that the broker knows us again.
    pub client_id: Arc<str>,
    /// Login, if the broker wants one.
    pub login: Option<(Arc<str>, Secret)>,
    /// Silence that the broker and we allow each other; whole seconds, at most 65,535.
    pub keep_alive: Duration,
    /// Whether the broker forgets us between two connections.
    pub clean_session: bool,
    /// What the gateway says of itself there; `None` says nothing.
    pub presence: Option<presence::PresenceSettings>,
}

/// What lies between TCP and MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// TLS.
    pub tls: Option<tls::TlsSettings>,
    /// A WebSocket at this path, which begins with a slash.
    pub web: Option<Arc<str>>,
}

/// Who is behind a broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// The configured devices.
    pub devices: Vec<MqttDevice>,
    /// By which others appear by themselves; the first that fits counts.
    pub rules: Vec<Arc<discover::Rule>>,
    /// How those are taken that announce themselves; `None` takes none.
    pub scheme: Option<Arc<homeassistant::Scheme>>,
}

/// Devices that never change.
impl From<Vec<MqttDevice>> for Roll<Members> {
    fn from(devices: Vec<MqttDevice>) -> Self {
        roll(Members { devices, ..Members::default() }).1
    }
}

/// One device behind a broker.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttDevice {
    /// Who it is.
    pub device: Arc<Device>,
    /// What stands for `{topic}` in the product's templates.
    pub topic: Arc<str>,
    /// How its properties are published.
    pub map: Arc<map::MqttMap>,
}

//! The resolved configuration: what the rest of the program is built from.
//!
//! Immutable, checked, handed down part by part. How it comes out of files stands in the files beside this one.

mod access;
mod binding;
mod broker;
mod buses;
mod catalogue;
mod device;
mod difference;
mod discovery;
mod formula;
mod guess;
mod links;
mod load;
mod node;
mod plan;
mod problem;
mod product;
mod reader;
mod resolve;
mod reuse;
mod rules;
mod scalar;
mod sequence;
mod server;
#[cfg(test)]
mod tests;
mod tuning;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::dialects;
use crate::drivers::modbus::{BusSettings, ModbusDevice};
use crate::drivers::mqtt::discover::Rule;
use crate::drivers::mqtt::homeassistant::Scheme;
use crate::drivers::mqtt::{BrokerSettings, MqttDevice};
use crate::model::client::ClientBook;
use crate::model::device::{Device, Gateway, Link};
use crate::serve::tls::ClientCertificates;

pub use self::catalogue::catalogue;
pub use self::difference::{Difference, LinkChange};
pub use self::load::{Places, SHIPPED_PRODUCTS, load};
pub use self::plan::{BusPlan, Cycle, Plan};
pub use self::problem::{Problem, Problems, Severity};
use self::resolve::Surroundings;
pub use self::resolve::resolve;

/// The text of one file. `Debug` leaves the text out, which may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Its path, as problems name it. A product may stand once in a folder, and again in another one.
    pub name: PathBuf,
    /// What stands in it.
    pub text: String,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What its author should know of it, in the order of files and lines.
    pub warnings: Vec<Problem>,
    /// How busy its buses will be.
    pub plan: Plan,
}

/// Everything that was configured, all references resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the gateway says of itself.
    pub gateway: Gateway,
    /// Listeners and limits.
    pub server: Server,
    /// Every dialect's settings.
    pub dialects: dialects::Settings,
    /// The history store; `None` keeps no history.
    pub history: Option<History>,
    /// Every bus with its devices.
    pub buses: Vec<Bus>,
    /// Every broker with its devices.
    pub brokers: Vec<Broker>,
    /// Every device, in configuration order.
    pub devices: Vec<Arc<Device>>,
    /// Every bus and broker as clients see it, in configuration order.
    pub links: Vec<Arc<Link>>,
    /// Who may come in.
    pub clients: Arc<ClientBook>,
}

/// A bus and who is on it.
#[derive(Clone, Debug)]
pub struct Bus {
    /// The line.
    pub settings: BusSettings,
    /// The units.
    pub devices: Vec<ModbusDevice>,
}

/// A broker and who is behind it.
#[derive(Clone, Debug)]
pub struct Broker {
    /// The connection.
    pub settings: BrokerSettings,
    /// The devices.
    pub devices: Vec<MqttDevice>,
    /// By which others appear by themselves; the first that fits counts.
    pub rules: Vec<Arc<Rule>>,
    /// How those are taken that announce themselves, if any are.
    pub scheme: Option<Arc<Scheme>>,
}

/// Listeners and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Plain listeners.
    pub listen: Vec<SocketAddr>,
    /// TLS listeners.
    pub tls: Option<Tls>,
    /// How clients reach the gateway, when it cannot be told from their requests: `https://barn.local:8443`.
    pub public_url: Option<dialects::Origin>,
    /// Whose X-Forwarded headers are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether the local network is told where the gateway is.
    pub advertise: bool,
    /// How long device messages for one connection may gather before they are written together; zero is not at all.
    pub flush_interval: Duration,
    /// Bounds.
    pub limits: Limits,
}

/// TLS listeners and their certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// Whether clients are to show certificates.
    pub clients: Option<ClientCertificates>,
}

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; a further one is answered 503.
    pub connections: usize,
    /// Connections at a time from one address; a further one is answered 503.
    pub connections_per_address: usize,
    /// Bytes in one WebSocket message or HTTP body.
    pub frame_bytes: usize,
    /// Device messages that wait for one client.
    pub send_queue: usize,
    /// Different wrong credentials within a minute, after which an address is not listened to for a while; zero is
    /// no limit.
    pub failed_logins: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            frame_bytes: 1 << 20,
            send_queue: 1024,
            failed_logins: 10,
        }
    }
}

/// The history store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Its file.
    pub path: PathBuf,
    /// How long messages are kept.
    pub keep: Duration,
    /// How large the file may grow.
    pub max_bytes: u64,
    /// How long messages wait in memory before they are written.
    pub commit_every: Duration,
}

//! Devices: one physical thing each, with the names that the five dialects know it by.

use std::sync::Arc;

use super::product::Product;
use super::time::Trust;

/// One physical thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Unique in the gateway; the iThings deviceName and the JetLinks deviceId.
    pub id: Arc<str>,
    /// For people.
    pub name: Arc<str>,
    /// Its thing model.
    pub product: Arc<Product>,
    /// The bus or broker link that it is reached through.
    pub link: Arc<str>,
    /// iThings projectID, a decimal string.
    pub project: Arc<str>,
    /// iThings areaID, a decimal string.
    pub area: Arc<str>,
    /// Free labels.
    pub tags: Vec<Arc<str>>,
    /// Janus identity: four groups of four upper-case hex digits.
    pub uuid: Arc<str>,
    /// U+ deviceId: twelve upper-case hex digits.
    pub mac: Arc<str>,
}

/// A bus or broker link as clients may see it: the OAM node.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Unique in the gateway, over buses and brokers together.
    pub id: Arc<str>,
    /// What it is, for people: the port, the address or the broker's address without credentials.
    pub address: Arc<str>,
    /// Whether every property can be read from its devices on demand (Modbus), or only those that the product says so
    /// of, and the others are awaited (MQTT).
    pub readable: bool,
}

/// What the gateway says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Stable; default identities derive from it.
    pub id: Arc<str>,
    /// For people.
    pub name: Arc<str>,
    /// Default iThings projectID.
    pub project: Arc<str>,
    /// Default iThings areaID.
    pub area: Arc<str>,
    /// For dialects with wall-clock strings.
    pub timezone: jiff::tz::TimeZone,
    /// What makes the wall clock a right one.
    pub clock: Trust,
}

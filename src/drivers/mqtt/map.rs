//! How a product's properties and functions travel over MQTT.
//!
//! Pure: no connection, no clock.

use std::sync::Arc;
use std::time::Duration;

use crate::model::value::Value;

/// The MQTT side of a product, in the product's order. In every topic `{topic}` stands for the device's own.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttMap {
    /// By position in the product's properties; `None` for a property that is not on MQTT.
    pub properties: Vec<Option<Point>>,
    /// By position in the product's functions.
    pub functions: Vec<Option<Publish>>,
    /// Says that the device is there or gone.
    pub availability: Option<Availability>,
    /// Offline when nothing was heard for this long; `None` trusts the availability topic alone.
    pub offline_after: Option<Duration>,
    /// Topics whose payloads are passed on as they come.
    pub publish: Vec<Arc<str>>,
}

/// One property's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Where values come from; the first that matches a message wins.
    pub sources: Vec<Source>,
    /// value = raw * scale + offset.
    pub scale: f64,
    /// See `scale`.
    pub offset: f64,
    /// What a bool's `true` and `false` are called on the wire, both ways; any JSON true/false, 1/0 is read as well.
    pub on: Option<Arc<str>>,
    /// See `on`.
    pub off: Option<Arc<str>>,
    /// How it is written, when it can be.
    pub write: Option<Publish>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Topic template.
    pub topic: Arc<str>,
    /// JSON path such as `$.ENERGY.Power` or `switch[0].on`; `None` takes the whole payload as plain text.
    pub path: Option<Arc<str>>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Topic template.
    pub topic: Arc<str>,
    /// Payload template: `{value}` for a property's write, `{input-id}` for a function's inputs, JSON-escaped where
    /// it stands inside quotes; everything else literally.
    pub payload: Arc<str>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// Where the device confirms, and how long that may take; `None` settles a command when the broker has it.
    pub reply: Option<Reply>,
}

/// Where a device confirms a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Longest wait for one of the property's own sources to report the written value.
    pub timeout: Duration,
}

/// Availability topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Availability {
    /// Topic template.
    pub topic: Arc<str>,
    /// JSON path; `None` for plain text.
    pub path: Option<Arc<str>>,
    /// The payload that means online.
    pub online: Value,
    /// The payload that means offline.
    pub offline: Value,
}

//! Dashboard topics: `/dashboard/{dashboard}/{object}/{measurement}/{dimension}`, which the JetLinks consoles and the
//! screens made after them use for live values.
//!
//! Three measurements of devices are served: properties, events and changes of status, in real time. Any other
//! dashboard has nothing to show and is completed at once, as in the real server. There is no history in a session, so
//! where a client asks for earlier values it gets the current ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use super::wire::to_text;
use crate::dialects::shared::json::{self, member};
use crate::model::device::Device;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::product::Property;
use crate::model::snapshot::Snapshot;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// Any device, in the `deviceId` of a status.
const ANY: &str = "*";

/// A stream of one measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dashboard {
    measurement: Measurement,
    /// `None` for every product.
    product: Option<Arc<str>>,
    /// `None` for every device.
    device: Option<Arc<str>>,
    /// Whether the client wants current values first.
    history: bool,
    /// Properties that were shown before the current values came; those are older.
    shown: BTreeSet<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Measurement {
    /// Of these; empty for all.
    Properties(BTreeSet<String>),
    Events,
    Status,
}

/// What a topic turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No dashboard topic.
    Other,
    /// A dashboard without anything to show.
    Nothing,
    /// A stream.
    Stream(Dashboard),
}

/// Reads a topic with its parameter.
pub(super) fn find(topic: &str, parameter: Option<&Map<String, Json>>) -> Found {
    let levels: Vec<&str> = topic.split('/').collect();
    let ["", "dashboard", dashboard, object, measurement, dimension] = levels.as_slice() else {
        return Found::Other;
    };
    let given = |name| parameter.and_then(|parameter| member(parameter, name));
    let (measurement, product) = match (*dashboard, *object, *measurement, *dimension) {
        ("device", "status", "change", "realTime") => (Measurement::Status, None),
        ("device", product, "properties", "realTime") => {
            let names = match given("properties") {
                Some(Json::Array(items)) => items.iter().filter_map(to_text).collect(),
                Some(one) => to_text(one).into_iter().collect(),
                None => BTreeSet::new(),
            };
            (Measurement::Properties(names), Some(Arc::from(product)))
        }
        ("device", product, "events", "realTime") => (Measurement::Events, Some(Arc::from(product))),
        _ => return Found::Nothing,
    };
    let Some(device) = given("deviceId").and_then(to_text) else { return Found::Nothing };
    // Only a change of status says which device it is about.
    let device = (device != ANY || measurement != Measurement::Status).then(|| Arc::from(device));
    let history =
        given("history").and_then(to_text).is_some_and(|count| !matches!(count.trim(), "0" | "false"));
    Found::Stream(Dashboard { measurement, product, device, history, shown: BTreeSet::new() })
}

impl Dashboard {
    /// What to ask of the hub.
    pub(super) fn interest(&self) -> Interest {
        let kinds = match self.measurement {
            Measurement::Properties(_) => Kinds::PROPERTIES,
            Measurement::Events => Kinds::EVENT.with(Kinds::ALARM),
            Measurement::Status => Kinds::PRESENCE,
        };
        Interest { selector: self.selector(), kinds }
    }

    /// Whose current values to ask for first, if they are wanted.
    pub(super) fn history(&self) -> Option<Selector> {
        let wanted = self.history && matches!(self.measurement, Measurement::Properties(_));
        wanted.then(|| self.selector())
    }

    fn selector(&self) -> Selector {
        self.device.as_ref().map_or(Selector::All, |device| Selector::Device(Arc::clone(device)))
    }

    fn is_of(&self, device: &Device) -> bool {
        self.device.as_ref().is_none_or(|id| device.id == *id)
            && self.product.as_ref().is_none_or(|id| device.product.id == *id)
    }

    fn takes(&self, property: &str) -> bool {
        match &self.measurement {
            Measurement::Properties(names) => names.is_empty() || names.contains(property),
            Measurement::Events | Measurement::Status => false,
        }
    }

    /// The payloads that a message brings.
    pub(super) fn message(&mut self, message: &DeviceMessage, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        let device = &message.device;
        if !self.is_of(device) {
            return Vec::new();
        }
        let one = |value: Json| vec![payload(value, message.at, timezone)];
        match (&self.measurement, &message.body) {
            (Measurement::Properties(_), Body::Properties(reports)) => {
                let mut payloads = Vec::new();
                for report in reports.iter().filter(|report| self.takes(&report.id)) {
                    if let Some(property) = device.product.properties.get(report.property) {
                        let value = reading(property, &report.value, report.at, report.quality);
                        payloads.push(payload(value, report.at, timezone));
                    }
                }
                if self.history {
                    self.shown.extend(reports.iter().map(|report| Arc::clone(&report.id)));
                }
                payloads
            }
            (Measurement::Events, Body::Event { event, params, .. }) => {
                let data = json::object(params.iter().map(|(id, value)| (id, value)));
                one(json!({"event": &**event, "data": data}))
            }
            (Measurement::Events, Body::Alarm { rule, property, raised, value, .. }) => one(
                json!({"event": &*rule.id, "data": super::payload::alarm(device, rule, *property, *raised, value)}),
            ),
            (Measurement::Status, Body::Presence { online, .. }) => {
                let state = if *online { "online" } else { "offline" };
                one(json!({"type": state, "deviceId": &*device.id}))
            }
            (Measurement::Properties(_) | Measurement::Events | Measurement::Status, _) => Vec::new(),
        }
    }

    /// The payloads of the current values. Comes once; live values of a property are never followed by older ones.
    pub(super) fn current(&mut self, snapshot: &Snapshot, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        self.history = false;
        let shown = std::mem::take(&mut self.shown);
        let mut payloads = Vec::new();
        for device in snapshot.devices.iter().filter(|found| self.is_of(&found.device)) {
            for (property, found) in device.device.product.properties.iter().zip(&device.readings) {
                let Some(found) = found else { continue };
                if self.takes(&property.id) && !shown.contains(&property.id) {
                    let value = reading(property, &found.value, found.at, found.quality);
                    payloads.push(payload(value, found.at, timezone));
                }
            }
        }
        payloads
    }
}

fn reading(property: &Property, value: &Value, at: UnixMillis, quality: Quality) -> Json {
    let unit = property.unit.as_deref().unwrap_or_default();
    let mut reading = json!({
        "property": &*property.id,
        "value": json::to_json(value),
        "formatValue": format!("{value}{unit}"),
        "timestamp": at.0,
    });
    if let Json::Object(members) = &mut reading {
        if let Some(unit) = &property.unit {
            members.insert("unit".to_owned(), Json::from(&**unit));
        }
        if let Some(state) = super::payload::state(quality) {
            members.insert("state".to_owned(), state.into());
        }
    }
    reading
}

fn payload(value: Json, at: UnixMillis, timezone: &TimeZone) -> Map<String, Json> {
    let time = Timestamp::from_millisecond(at.0).unwrap_or_default().to_zoned(timezone.clone());
    let members = [
        ("value", value),
        ("timeString", Json::from(time.strftime("%Y-%m-%d %H:%M:%S").to_string())),
        ("timestamp", Json::from(at.0)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

//! Dashboard topics: `/dashboard/{dashboard}/{object}/{measurement}/{dimension}`, which the JetLinks consoles and the
//! screens made after them use for live values.
//!
//! Three measurements of devices are served: properties, events and changes of status, in real time. Any other
//! dashboard has nothing to show and is completed at once, as in the real server.
//!
//! A stream of properties or events may ask for what was before, oldest first:
//!
//! ```text
//! watch -> current values (number c) -> the history (number h) -> what came in the meantime -> live
//! ```
//!
//! Current values are asked of the hub, which has begun to send messages by then and has given the store every message
//! up to `c`; the history so holds everything up to some `h` not before `c`. Of the messages that arrive, those up to
//! `h` are contained in it and the later ones are not, so that nothing is shown twice and nothing left out. Of a property
//! without history, and where no history is kept, the current value stands in.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use super::wire::to_text;
use crate::dialects::shared::json::{self, member};
use crate::model::device::Device;
use crate::model::history::{Events, EventsQuery, Latest, LatestQuery};
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::product::Property;
use crate::model::snapshot::{Question, Snapshot};
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// Any device, in the `deviceId` of a status.
const ANY: &str = "*";

/// Most past values of each property, or past events, whatever the client asks for.
const HISTORY: usize = 500;

/// Bytes that the device and the properties of one stream may come to, with [`SHARE`] for each name: they are kept while it
/// is open. Room for every property of a large device.
pub(super) const PARAMETER_BYTES: usize = 32 * 1024;

/// What a name takes beside its text.
const SHARE: usize = 32;

/// Messages that wait while the history is asked for. When full the stream goes on without it: what is new matters
/// more.
const HELD: usize = 256;

/// A stream of one measurement.
#[derive(Clone, Debug)]
pub(super) struct Dashboard {
    measurement: Measurement,
    /// `None` for every product.
    product: Option<Arc<str>>,
    /// `None` for every device.
    device: Option<Arc<str>>,
    past: Past,
}

/// What a stream still owes of the past.
#[derive(Clone, Debug)]
enum Past {
    /// Nothing; messages after this number are shown as they come.
    Shown(u64),
    /// This many values of each property, or events. Messages wait for them.
    Wanted {
        count: usize,
        /// Once they are here.
        current: Option<Arc<Snapshot>>,
        held: Vec<Arc<DeviceMessage>>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Measurement {
    /// Of these; empty for all.
    Properties(BTreeSet<String>),
    Events,
    Status,
}

impl Measurement {
    /// What its names take, roughly.
    fn bytes(&self) -> usize {
        match self {
            Self::Properties(names) => names.iter().map(|name| name.len() + SHARE).sum(),
            Self::Events | Self::Status => 0,
        }
    }
}

/// What a topic turns out to be.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// No dashboard topic.
    Other,
    /// A dashboard without anything to show.
    Nothing,
    /// A stream that names more than [`PARAMETER_BYTES`].
    TooLong,
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
    if device.len() + measurement.bytes() > PARAMETER_BYTES {
        return Found::TooLong;
    }
    // Only a change of status says which device it is about.
    let device = (device != ANY || measurement != Measurement::Status).then(|| Arc::from(device));
    let count = given("history").and_then(to_text).map_or(0, |count| how_many(count.trim()));
    let past = if count == 0 || measurement == Measurement::Status {
        Past::Shown(0)
    } else {
        Past::Wanted { count, current: None, held: Vec::new() }
    };
    Found::Stream(Dashboard { measurement, product, device, past })
}

/// A wish for history that is no number is one for a little of it.
fn how_many(count: &str) -> usize {
    if count == "false" || count.starts_with('-') {
        return 0;
    }
    count.parse().map_or(1, |count: usize| count.min(HISTORY))
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

    /// Whose current values to ask for first, if the past is wanted.
    pub(super) fn history(&self) -> Option<Selector> {
        matches!(self.past, Past::Wanted { .. }).then(|| self.selector())
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

    /// The payloads that a message brings now.
    pub(super) fn message(
        &mut self,
        message: &Arc<DeviceMessage>,
        timezone: &TimeZone,
    ) -> Vec<Map<String, Json>> {
        match &mut self.past {
            Past::Shown(until) if message.seq <= *until => Vec::new(),
            Past::Shown(_) => self.render(message, timezone),
            Past::Wanted { held, .. } => {
                held.push(Arc::clone(message));
                if held.len() < HELD { Vec::new() } else { self.end_of_past(0, timezone) }
            }
        }
    }

    /// Takes the current values in; what to ask for next.
    pub(super) fn current(&mut self, snapshot: &Arc<Snapshot>) -> Option<Question> {
        let Past::Wanted { count, current, .. } = &mut self.past else { return None };
        let device = self.device.as_ref().map(Arc::clone)?;
        let count = *count;
        *current = Some(Arc::clone(snapshot));
        match &self.measurement {
            Measurement::Properties(names) => {
                let properties = names.iter().map(|name| Arc::from(name.as_str())).collect();
                Some(Question::Latest(LatestQuery { device, properties, count }))
            }
            Measurement::Events => Some(Question::Events(EventsQuery { device, count })),
            Measurement::Status => None,
        }
    }

    /// The payloads of past values, and of what came while they were asked for.
    pub(super) fn values(&mut self, latest: &Latest, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        let Past::Wanted { current: Some(current), .. } = &self.past else { return Vec::new() };
        let mut past = Vec::new();
        for found in current.devices.iter().filter(|found| self.is_of(&found.device)) {
            for (property, reading) in found.device.product.properties.iter().zip(&found.readings) {
                if !self.takes(&property.id) {
                    continue;
                }
                match (latest.values.iter().find(|(id, _)| *id == property.id), reading) {
                    (Some((_, series)), _) => {
                        past.extend(series.iter().map(|(at, value)| (property, *at, value, Quality::Good)));
                    }
                    (None, Some(now)) => past.push((property, now.at, &now.value, now.quality)),
                    (None, None) => {}
                }
            }
        }
        past.sort_by_key(|(_, at, _, _)| *at);
        let mut payloads: Vec<_> = past
            .into_iter()
            .map(|(property, at, value, quality)| {
                payload(reading(property, value, at, quality), at, timezone)
            })
            .collect();
        let until = if latest.kept { latest.seq } else { current.seq };
        payloads.extend(self.end_of_past(until, timezone));
        payloads
    }

    /// The payloads of past events, and of what came while they were asked for.
    pub(super) fn events(&mut self, events: &Events, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        let Past::Wanted { current: Some(current), .. } = &self.past else { return Vec::new() };
        let until = if events.kept { events.seq } else { current.seq };
        let mut payloads: Vec<_> =
            events.messages.iter().flat_map(|message| self.render(message, timezone)).collect();
        payloads.extend(self.end_of_past(until, timezone));
        payloads
    }

    /// The past is shown up to this number; the payloads of what waited.
    fn end_of_past(&mut self, until: u64, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        let Past::Wanted { held, .. } = std::mem::replace(&mut self.past, Past::Shown(until)) else {
            return Vec::new();
        };
        let later = held.iter().filter(|message| message.seq > until);
        later.flat_map(|message| self.render(message, timezone)).collect()
    }

    fn render(&self, message: &DeviceMessage, timezone: &TimeZone) -> Vec<Map<String, Json>> {
        let device = &message.device;
        if !self.is_of(device) {
            return Vec::new();
        }
        let one = |value: Json| vec![payload(value, message.at, timezone)];
        match (&self.measurement, &message.body) {
            (Measurement::Properties(_), Body::Properties(reports)) => {
                let taken = reports.iter().filter(|report| self.takes(&report.id));
                let payloads = taken.filter_map(|report| {
                    let property = device.product.properties.get(report.property)?;
                    let value = reading(property, &report.value, report.at, report.quality);
                    Some(payload(value, report.at, timezone))
                });
                payloads.collect()
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
}

fn reading(property: &Property, value: &Value, at: UnixMillis, quality: Quality) -> Json {
    let unit = property.unit.as_deref().unwrap_or_default();
    // An enumeration's number has a name for people.
    let label = property.labels.iter().find(|(number, _)| Value::Int(*number) == *value);
    let shown = label.map_or_else(|| format!("{value}{unit}"), |(_, label)| label.as_ref().to_owned());
    let mut reading = json!({
        "property": &*property.id,
        "value": json::to_json(value),
        "formatValue": shown,
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

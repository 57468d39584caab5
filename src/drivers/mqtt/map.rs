//! How a product's properties, functions, events and updates travel over MQTT.
//!
//! Pure: no connection, no clock. In every topic `{topic}` stands for the device's own topic, `{device}` for its id and
//! `{gateway}` for the gateway's; see [`PLACES`].

use std::sync::Arc;
use std::time::Duration;

use super::homeassistant::jinja::Template;
use crate::model::value::Value;

/// What may stand in braces in a topic, and in a payload beside the values that are sent.
pub const PLACES: [&str; 3] = ["topic", "device", "gateway"];

/// What stands in a payload for the number of the request, by which its answer is known.
pub const REQUEST: &str = "request";

/// The MQTT side of a product, in the product's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MqttMap {
    /// By position in the product's properties; `None` for a property that is not on MQTT.
    pub properties: Vec<Option<Point>>,
    /// By position in the product's functions.
    pub functions: Vec<Option<Call>>,
    /// By position in the product's events; `None` for one that the device does not send itself.
    pub events: Vec<Option<Occurrence>>,
    /// Where updates of the device's firmware are told of.
    pub ota: Vec<Progress>,
    /// Say that the device is there or gone.
    pub availability: Vec<Availability>,
    /// How those count together.
    pub availability_mode: AvailabilityMode,
    /// Offline when nothing was heard for this long; `None` trusts the availability topic alone.
    pub offline_after: Option<Duration>,
    /// Topics whose payloads are passed on as they come.
    pub publish: Vec<Place>,
}

impl MqttMap {
    /// The requests that make the device report something, each once, and by position in the product's properties which
    /// of them each property has.
    pub fn reads(&self) -> (Vec<&Publish>, Vec<Option<usize>>) {
        let mut reads = Vec::new();
        let mut by_property = Vec::with_capacity(self.properties.len());
        for point in &self.properties {
            let read = point.as_ref().and_then(|point| point.read.as_ref());
            by_property.push(read.map(|read| {
                reads.iter().position(|known| *known == read).unwrap_or_else(|| {
                    reads.push(read);
                    reads.len() - 1
                })
            }));
        }
        (reads, by_property)
    }

    /// Every place where values, events, presence and progress come from.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let sources = self.properties.iter().flatten().flat_map(|point| &point.sources);
        let events = self.events.iter().flatten().map(|event| &event.place);
        let presence = self.availability.iter().map(|availability| &availability.place);
        let updates = self.ota.iter().map(|progress| &progress.place);
        sources.map(|source| &source.place).chain(events).chain(presence).chain(updates).chain(&self.publish)
    }
}

/// Messages that are of interest.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Topic filter template.
    pub topic: Arc<str>,
    /// Highest QoS that is asked for.
    pub qos: u8,
    /// Whether messages that the broker had kept count; their age is unknown.
    pub retained: bool,
    /// What else a message must say to count.
    pub when: Option<Condition>,
}

impl Place {
    /// All messages of a topic, at least once.
    pub fn of(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), qos: 1, retained: true, when: None }
    }
}

/// What a message must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Where; never a pattern.
    pub part: Part,
    /// Globs, of which one must fit the scalar there; names in braces as in topics. None is content with anything there but
    /// null.
    pub equals: Vec<Arc<str>>,
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
    /// Least time between two writes, which spares memory that wears out.
    pub write_interval: Option<Duration>,
    /// What makes the device report it, when something does.
    pub read: Option<Publish>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// In which messages.
    pub place: Place,
    /// Where in them.
    pub part: Part,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// All of the payload, as plain text.
    Whole,
    /// A JSON path such as `$.ENERGY.Power` or `switch[0].on`.
    Path(Arc<str>),
    /// What stands in the place of `{value}` in this text; `*` stands for any run.
    Pattern(Arc<str>),
    /// The first user property of that name, which travels beside the payload with MQTT 5.
    User(Arc<str>),
    /// What a template makes of it, or what a word in it means.
    Reading(Arc<Reading>),
}

/// How a message is read that is not understood as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What makes the value of it; without one the whole text is the value.
    pub template: Option<Template>,
    /// Words, and what is read in their place: nothing, where the message then says nothing.
    pub words: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Topic template.
    pub topic: Arc<str>,
    /// Payload template: `{value}` for a property's write, `{input-id}` for a function's inputs, JSON-escaped where
    /// it stands inside quotes; everything else literally.
    pub payload: Arc<str>,
    /// What makes the payload of the value, in place of `payload`.
    pub template: Option<Arc<Template>>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// Names and values that travel beside it with MQTT 5.
    pub user: Vec<(Arc<str>, Arc<str>)>,
    /// How the device confirms a write or answers a read; `None` settles a command when the broker has it. For a call
    /// see [`Call::answer`].
    pub reply: Option<Reply>,
}

/// How a device confirms a write, or answers a read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Longest wait for one of the property's own sources to report the written value, or any.
    pub timeout: Duration,
    /// Where the device says whether it has done it, if it says so apart from the report.
    pub answer: Option<Answer>,
}

/// How a function is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The request.
    pub publish: Publish,
    /// The answer; `None` settles the call when the broker has the request.
    pub answer: Option<Answer>,
}

/// How a device answers a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// In which messages.
    pub place: Place,
    /// Whether the request names that topic and a number by properties of MQTT 5, and the answer carries the number.
    pub properties: bool,
    /// Where the answer carries the number of the request; without this and `properties`, answers come in the order
    /// of the calls.
    pub id: Option<Arc<str>>,
    /// JSON path of what went wrong: the call has failed when something other than null, false or "" stands there.
    pub error: Option<Arc<str>>,
    /// What an answer must say, unless the call has failed.
    pub ok: Option<Condition>,
    /// Where the function's outputs stand, by position; `None` where no answer carries it.
    pub outputs: Vec<Option<Part>>,
    /// Longest wait.
    pub timeout: Duration,
}

/// How a device sends an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// In which messages.
    pub place: Place,
    /// Where in them each of the event's parameters stands, by position; one that is absent is left out.
    pub params: Vec<Option<Part>>,
}

/// How a device tells of an update.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// In which messages.
    pub place: Place,
    /// Where the percentage stands.
    pub step: Option<Part>,
    /// Where the device's words stand.
    pub detail: Option<Part>,
    /// Globs over the words, and the percentage (or negative failure code) that they mean; the first that fits goes
    /// before `step`.
    pub steps: Vec<(Arc<str>, i32)>,
}

/// How several availability topics count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AvailabilityMode {
    /// The device is gone as soon as one says so.
    #[default]
    All,
    /// It is there as long as one says so.
    Any,
    /// What was said last counts, wherever.
    Latest,
}

/// Availability topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Availability {
    /// In which messages.
    pub place: Place,
    /// Where in them.
    pub part: Part,
    /// The payloads that mean online.
    pub online: Vec<Value>,
    /// The payloads that mean offline.
    pub offline: Vec<Value>,
}

//! What a message of one topic means to one device: the parts of a product's map that belong to that topic, parsed.
//!
//! Pure.

use std::sync::Arc;

use serde_json::Value as Json;
use wildmatch::WildMatch;

use super::body::{Body, Part, PartError, When, parse_path};
#[cfg(doc)]
use super::map::MqttMap;
use super::map::{Answer, Availability, Occurrence, Place, Progress, Source};
use super::packet::Message;
use super::path::Path;
use super::payload::{Form, scalar_text};
use super::route::Names;
use crate::drivers::Sample;
use crate::model::product::Parameter;
use crate::model::value::{Value, ValueType};

/// What a message of one topic means to one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Feed {
    /// The device's number.
    pub device: usize,
    /// Highest QoS that is wanted of the topic.
    pub qos: u8,
    /// The properties that it may carry.
    pub spots: Vec<Spot>,
    /// What it says of the device being there or gone.
    pub signs: Vec<Sign>,
    /// The events that it may be.
    pub triggers: Vec<Trigger>,
    /// What it says of an update.
    pub gauges: Vec<Gauge>,
    /// The calls, writes and reads that it may answer.
    pub replies: Vec<CallReply>,
    /// Whether it is passed on as it comes.
    pub raw: Vec<Gate>,
}

impl Feed {
    /// What a message says of an update.
    pub fn progress(&self, body: &Body<'_>, retained: bool) -> Option<(i32, Arc<str>)> {
        self.gauges.iter().find_map(|gauge| gauge.read(body, retained))
    }

    /// Whether a message says that the device is there or gone.
    pub fn says_presence(&self, body: &Body<'_>, retained: bool) -> bool {
        self.signs.iter().any(|sign| sign.read(body, retained).is_some())
    }
}

/// Which messages count.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    retained: bool,
    when: Option<When>,
}

impl Gate {
    /// Reads a product's place.
    pub fn parse(place: &Place, names: &Names) -> Result<Self, PartError> {
        let when = place.when.as_ref().map(|when| When::parse(when, names)).transpose()?;
        Ok(Self { retained: place.retained, when })
    }

    /// Whether the message counts.
    pub fn lets(&self, body: &Body<'_>, retained: bool) -> bool {
        (self.retained || !retained) && self.when.as_ref().is_none_or(|when| when.holds(body))
    }
}

/// Where in a message one property's value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    /// Position in the product's properties.
    pub property: usize,
    /// The first that is present counts.
    pub sources: Vec<(Gate, Part)>,
}

impl Spot {
    /// Reads a product's source.
    pub fn source(source: &Source, names: &Names) -> Result<(Gate, Part), PartError> {
        Ok((Gate::parse(&source.place, names)?, Part::parse(&source.part)?))
    }

    /// The property's reading, if the message has one.
    pub fn read(&self, body: &Body<'_>, retained: bool, form: &Form) -> Option<Sample> {
        let counts = self.sources.iter().filter(|(gate, _)| gate.lets(body, retained));
        counts.map(|(_, part)| part).find_map(|part| part.read(body, form))
    }
}

/// How a message says that the device is there or gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Sign {
    /// Position in the product's availability.
    pub at: usize,
    gate: Gate,
    part: Part,
    online: Vec<String>,
    offline: Vec<String>,
}

impl Sign {
    /// Reads a product's availability.
    pub fn parse(at: usize, availability: &Availability, names: &Names) -> Result<Self, PartError> {
        let words = |values: &[Value]| values.iter().map(ToString::to_string).collect();
        Ok(Self {
            at,
            gate: Gate::parse(&availability.place, names)?,
            part: Part::parse(&availability.part)?,
            online: words(&availability.online),
            offline: words(&availability.offline),
        })
    }

    /// What the message says, unless it says something else altogether.
    pub fn read(&self, body: &Body<'_>, retained: bool) -> Option<bool> {
        if !self.gate.lets(body, retained) {
            return None;
        }
        let word = self.part.word(body)?;
        let is = |words: &[String]| words.iter().any(|known| known.eq_ignore_ascii_case(&word));
        if is(&self.online) {
            Some(true)
        } else if is(&self.offline) {
            Some(false)
        } else {
            None
        }
    }
}

/// How a message is an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Position in the product's events.
    pub event: usize,
    gate: Gate,
    params: Vec<Option<Part>>,
}

impl Trigger {
    /// Reads a product's occurrence.
    pub fn parse(event: usize, occurrence: &Occurrence, names: &Names) -> Result<Self, PartError> {
        Ok(Self { event, gate: Gate::parse(&occurrence.place, names)?, params: parts(&occurrence.params)? })
    }

    /// The event's parameters, if the message is one. What cannot be read of them is left out.
    pub fn read(
        &self,
        body: &Body<'_>,
        retained: bool,
        known: &[Parameter],
    ) -> Option<Vec<(Arc<str>, Value)>> {
        self.gate.lets(body, retained).then(|| parameters(&self.params, known, body))
    }
}

/// Reads a product's places of parameters.
fn parts(parts: &[Option<super::map::Part>]) -> Result<Vec<Option<Part>>, PartError> {
    parts.iter().map(|part| part.as_ref().map(Part::parse).transpose()).collect()
}

/// The parameters that a message carries; what cannot be read of them is left out.
fn parameters(parts: &[Option<Part>], known: &[Parameter], body: &Body<'_>) -> Vec<(Arc<str>, Value)> {
    let read = |(parameter, part): (&Parameter, &Option<Part>)| match part
        .as_ref()?
        .read(body, &Form::plain(parameter.kind))?
    {
        Sample::Value(value) => Some((Arc::clone(&parameter.id), value)),
        Sample::Unreadable(_) => None,
    };
    known.iter().zip(parts).filter_map(read).collect()
}

/// How a message tells of an update.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    gate: Gate,
    step: Option<Part>,
    detail: Option<Part>,
    steps: Vec<(WildMatch, i32)>,
}

impl Gauge {
    /// Reads a product's progress.
    pub fn parse(progress: &Progress, names: &Names) -> Result<Self, PartError> {
        Ok(Self {
            gate: Gate::parse(&progress.place, names)?,
            step: progress.step.as_ref().map(Part::parse).transpose()?,
            detail: progress.detail.as_ref().map(Part::parse).transpose()?,
            steps: progress.steps.iter().map(|(glob, step)| (WildMatch::new(glob), *step)).collect(),
        })
    }

    /// The percentage or failure code and the device's words, if the message tells of an update.
    pub fn read(&self, body: &Body<'_>, retained: bool) -> Option<(i32, Arc<str>)> {
        if !self.gate.lets(body, retained) {
            return None;
        }
        let value = |part: &Option<Part>, kind| match part.as_ref()?.read(body, &Form::plain(kind))? {
            Sample::Value(value) => Some(value),
            Sample::Unreadable(_) => None,
        };
        let detail = match value(&self.detail, ValueType::Text) {
            Some(Value::Text(text)) => text,
            Some(other) => other.to_string().into(),
            None => "".into(),
        };
        let meant = self.steps.iter().find(|(glob, _)| glob.matches(&detail)).map(|(_, step)| *step);
        let told = || percent(value(&self.step, ValueType::Float)?.as_f64()?);
        Some((meant.or_else(told)?, detail))
    }
}

/// A percentage or a failure code as a whole number; what is neither is none.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range is checked before")]
fn percent(number: f64) -> Option<i32> {
    (-1_000_000.0..=100.5).contains(&number).then(|| number.round().min(100.0) as i32)
}

/// What a message was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A call, by position in the product's functions.
    Function(usize),
    /// A write, by position in the product's properties.
    Write(usize),
    /// A read, by position in what [`MqttMap::reads`] gives.
    Read(usize),
}

/// How a message answers a call, a write or a read.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReply {
    /// What it answers.
    pub subject: Subject,
    gate: Gate,
    properties: bool,
    id: Option<Path>,
    error: Option<Path>,
    ok: Option<When>,
    outputs: Vec<Option<Part>>,
}

impl CallReply {
    /// Reads a product's answer.
    pub fn parse(subject: Subject, answer: &Answer, names: &Names) -> Result<Self, PartError> {
        let path = |path: &Option<Arc<str>>| path.as_ref().map(parse_path).transpose();
        Ok(Self {
            subject,
            gate: Gate::parse(&answer.place, names)?,
            properties: answer.properties,
            id: path(&answer.id)?,
            error: path(&answer.error)?,
            ok: answer.ok.as_ref().map(|ok| When::parse(ok, names)).transpose()?,
            outputs: parts(&answer.outputs)?,
        })
    }

    /// Whether the message answers the request of this number.
    pub fn answers(&self, body: &Body<'_>, message: &Message, request: u64) -> bool {
        let number = request.to_string();
        if message.retain || !self.gate.lets(body, false) {
            return false;
        }
        if self.properties {
            return message.extra.correlation.as_deref() == Some(number.as_bytes());
        }
        self.id.as_ref().is_none_or(|id| body.word(Some(id)).is_some_and(|word| word == number))
    }

    /// What the answer gives of a function's outputs.
    pub fn outputs(&self, body: &Body<'_>, outputs: &[Parameter]) -> Vec<(Arc<str>, Value)> {
        parameters(&self.outputs, outputs, body)
    }

    /// The device's words, when the answer is that it failed.
    pub fn failure(&self, body: &Body<'_>) -> Option<String> {
        let found = self.error.as_ref().and_then(|path| path.find(body.json()?));
        match found {
            None | Some(Json::Null | Json::Bool(false)) => {}
            Some(Json::String(text)) if text.is_empty() => {}
            Some(error) => return Some(shorten(&scalar_text(error).unwrap_or_else(|| error.to_string()))),
        }
        let refused = self.ok.as_ref().is_some_and(|ok| !ok.holds(body));
        refused.then(|| shorten(body.text().unwrap_or("its answer is no text")))
    }
}

/// A device's words for a client: at most so many of them.
fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    let text = text.trim();
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { short + "..." } else { short }
}

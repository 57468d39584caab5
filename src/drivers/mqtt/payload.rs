//! Payloads to typed values and back: what one property looks like on the wire.
//!
//! Pure. Reading never fails with an error: what is no reading of the property's type becomes
//! [`Sample::Unreadable`] with a reason that names types and lengths, never the payload itself, because reasons
//! reach logs. What [`Form::write`] produces, the same form reads back as the same value.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use super::map::Point;
use crate::drivers::Sample;
use crate::model::product::Property;
use crate::model::value::{Value, ValueType};

/// Largest text or object that is a reading, about in bytes. It travels to every client and into the history, and what
/// waits for a client is counted by messages: what is larger is a file, not a reading.
const LARGEST_READING: usize = 64 << 10;

/// How values of one type look on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    kind: ValueType,
    labels: Vec<(i64, Arc<str>)>,
    scale: f64,
    offset: f64,
    on: Option<Arc<str>>,
    off: Option<Arc<str>>,
}

/// Where in a message a written value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In plain text, as it is.
    Plain,
    /// In JSON outside quotes: it must itself be JSON.
    Bare,
    /// Inside quotes: it is escaped as JSON wants it.
    Quoted,
}

impl Form {
    /// The form of a property at its place.
    pub fn of(property: &Property, point: &Point) -> Self {
        Self {
            kind: property.kind,
            labels: property.labels.clone(),
            scale: point.scale,
            offset: point.offset,
            on: point.on.clone(),
            off: point.off.clone(),
        }
    }

    /// The form of a function's input: no scale, no words.
    pub fn plain(kind: ValueType) -> Self {
        Self { kind, labels: Vec::new(), scale: 1.0, offset: 0.0, on: None, off: None }
    }

    /// Reads a payload that is plain text.
    pub fn read_text(&self, text: &str) -> Sample {
        let word = text.trim();
        sample(match self.kind {
            ValueType::Bool => {
                self.bool_of(word).map(Value::Bool).ok_or_else(|| foreign_text(text, "a switch state"))
            }
            ValueType::Int | ValueType::Float => Raw::of_text(word)
                .ok_or_else(|| foreign_text(text, "a number"))
                .and_then(|raw| self.number(raw)),
            ValueType::Text => Ok(Value::text(text)),
            ValueType::Enum => self.label(text),
            ValueType::Object => match serde_json::from_str::<Json>(text) {
                Ok(json) => object(&json),
                Err(_) => Err(foreign_text(text, "a JSON object")),
            },
        })
    }

    /// Reads a value out of a JSON payload. Numbers, switch states and labels may stand there as JSON text too.
    pub fn read_json(&self, json: &Json) -> Sample {
        let foreign = |wanted: &str| format!("{} is not {wanted}", json_name(json));
        sample(match (self.kind, json) {
            (_, Json::Null) => Err("null is no value".to_owned()),
            (ValueType::Object, _) => object(json),
            (ValueType::Text, Json::String(text)) => Ok(Value::text(text.as_str())),
            (ValueType::Text, _) => Ok(Value::text(json.to_string())),
            (ValueType::Bool, Json::Bool(on)) => {
                // `true` may have been given the meaning of off.
                Ok(Value::Bool(self.bool_of(if *on { "true" } else { "false" }).unwrap_or(*on)))
            }
            (ValueType::Bool, Json::Number(number)) => self
                .bool_of(&number.to_string())
                .or_else(|| Raw::of_number(number).and_then(Raw::as_bool))
                .map(Value::Bool)
                .ok_or_else(|| foreign("a switch state")),
            (ValueType::Int | ValueType::Float, Json::Number(number)) => Raw::of_number(number)
                .ok_or_else(|| foreign("a number in range"))
                .and_then(|raw| self.number(raw)),
            (ValueType::Enum, Json::Number(number)) => match Raw::of_number(number).and_then(Raw::whole) {
                Some(number) => self.numbered(number),
                None => Err(foreign("a whole number")),
            },
            (ValueType::Bool | ValueType::Int | ValueType::Float | ValueType::Enum, Json::String(text)) => {
                return self.read_text(text);
            }
            (ValueType::Bool, Json::Array(_) | Json::Object(_)) => Err(foreign("a switch state")),
            (ValueType::Int | ValueType::Float, Json::Bool(_) | Json::Array(_) | Json::Object(_)) => {
                Err(foreign("a number"))
            }
            (ValueType::Enum, Json::Bool(_) | Json::Array(_) | Json::Object(_)) => Err(foreign("a label")),
        })
    }

    /// Writes a value for its place; `None` when it cannot be a number on the wire (a scale of zero, or too large).
    ///
    /// A labelled number is written as its label in plain text and inside quotes, and as its number bare in JSON.
    pub fn write(&self, value: &Value, place: Place) -> Option<String> {
        let (text, is_json) = match value {
            Value::Bool(on) => match if *on { &self.on } else { &self.off } {
                Some(word) => (word.as_ref().to_owned(), is_json_scalar(word)),
                None => (on.to_string(), true),
            },
            Value::Int(number) if self.kind == ValueType::Enum => match self.label_of(*number) {
                Some(label) if place != Place::Bare => (label.as_ref().to_owned(), false),
                Some(_) | None => (number.to_string(), true),
            },
            Value::Int(number) if self.is_identity() => (number.to_string(), true),
            Value::Int(_) | Value::Float(_) => (self.raw(value.as_f64()?)?.to_string(), true),
            Value::Text(text) => (text.as_ref().to_owned(), false),
            Value::Null => ("null".to_owned(), true),
            Value::List(_) | Value::Object(_) => (to_json(value).to_string(), true),
        };
        Some(match place {
            Place::Plain => text,
            Place::Bare if is_json => text,
            Place::Bare => Json::String(text).to_string(),
            Place::Quoted => escaped(&text),
        })
    }

    /// A value as a template is given it: a number, an object, or the word for it.
    pub fn sent(&self, value: &Value) -> Option<Json> {
        match value {
            Value::Int(_) | Value::Float(_) if self.kind != ValueType::Enum => {
                let raw = self.raw(value.as_f64()?)?;
                Some(whole(raw).map_or_else(|| to_json(&Value::Float(raw)), Json::from))
            }
            Value::List(_) | Value::Object(_) => Some(to_json(value)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                self.write(value, Place::Plain).map(Json::String)
            }
        }
    }

    /// Whether a reading is the value that was written. Numbers may differ by rounding: by half a step of the
    /// device's own whole numbers where a scale turns those into others.
    pub fn same(&self, written: &Value, read: &Value) -> bool {
        if written == read {
            return true;
        }
        match (self.kind, written.as_f64(), read.as_f64()) {
            (ValueType::Int | ValueType::Float, Some(written), Some(read)) => {
                let coarse = if self.is_identity() { 0.0 } else { self.scale.abs() / 2.0 };
                let tolerance = coarse.max(written.abs().max(read.abs()) * 1e-6);
                (written - read).abs() <= tolerance
            }
            (_, _, _) => false,
        }
    }

    fn bool_of(&self, word: &str) -> Option<bool> {
        let words = [(&self.on, true), (&self.off, false)];
        let named = |same: fn(&str, &str) -> bool| {
            words
                .iter()
                .find(|(name, _)| name.as_deref().is_some_and(|name| same(name, word)))
                .map(|(_, on)| *on)
        };
        // The configured words come first: they may turn the usual ones round.
        named(|name, word| name == word || name.trim() == word)
            .or_else(|| named(str::eq_ignore_ascii_case))
            // JSON has many ways to write one number, and what was 1e0 comes as 1.0.
            .or_else(|| named(same_number))
            .or_else(|| {
                let is = |words: [&str; 3]| words.iter().any(|usual| usual.eq_ignore_ascii_case(word));
                if is(["true", "on", "1"]) {
                    Some(true)
                } else if is(["false", "off", "0"]) {
                    Some(false)
                } else {
                    None
                }
            })
    }

    fn label(&self, text: &str) -> Result<Value, String> {
        let word = text.trim();
        let labelled =
            |same: &dyn Fn(&str) -> bool| self.labels.iter().find(|(_, label)| same(label)).map(|(n, _)| *n);
        labelled(&|label| label == text)
            .or_else(|| labelled(&|label| label == word))
            .or_else(|| labelled(&|label| label.eq_ignore_ascii_case(word)))
            .map_or_else(
                || match Raw::of_text(word).and_then(Raw::whole) {
                    Some(number) => self.numbered(number),
                    None => Err(foreign_text(text, "one of the labels")),
                },
                |number| Ok(Value::Int(number)),
            )
    }

    fn numbered(&self, number: i64) -> Result<Value, String> {
        if self.labels.is_empty() || self.label_of(number).is_some() {
            Ok(Value::Int(number))
        } else {
            Err(format!("{number} has no label"))
        }
    }

    fn label_of(&self, number: i64) -> Option<&Arc<str>> {
        self.labels.iter().find(|(labelled, _)| *labelled == number).map(|(_, label)| label)
    }

    #[expect(clippy::float_cmp, reason = "the configuration's own 1 and 0 are exact")]
    fn is_identity(&self) -> bool {
        self.scale == 1.0 && self.offset == 0.0
    }

    fn number(&self, raw: Raw) -> Result<Value, String> {
        if self.kind == ValueType::Int {
            let whole = if self.is_identity() {
                raw.whole().ok_or("the number is not whole or too large")
            } else {
                whole((raw.float() * self.scale + self.offset).round()).ok_or("the number is too large")
            };
            return whole.map(Value::Int).map_err(str::to_owned);
        }
        let number = if self.is_identity() { raw.float() } else { raw.float() * self.scale + self.offset };
        if number.is_finite() { Ok(Value::Float(number)) } else { Err("the number is too large".to_owned()) }
    }

    /// The number on the wire for a value, freed of the noise that the division leaves.
    fn raw(&self, value: f64) -> Option<f64> {
        if self.is_identity() {
            return Some(value);
        }
        let raw = (value - self.offset) / self.scale;
        if !raw.is_finite() {
            return None;
        }
        // Twelve significant digits: beyond any device's resolution, short of the noise at the sixteenth.
        if raw.abs() < 1e11 { format!("{raw:.11e}").parse().ok() } else { Some(raw) }
    }
}

/// The text of a JSON scalar, for comparing with a word; nothing for null, lists and objects.
pub fn scalar_text(json: &Json) -> Option<String> {
    match json {
        Json::Bool(on) => Some(on.to_string()),
        Json::Number(number) => Some(number.to_string()),
        Json::String(text) => Some(text.clone()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// A number as the wire gave it, whole as long as it can be.
#[derive(Clone, Copy, Debug)]
enum Raw {
    Int(i64),
    Float(f64),
}

impl Raw {
    fn of_text(word: &str) -> Option<Self> {
        // Words such as "inf" and "nan" are numbers to the parser but no readings.
        word.parse()
            .map(Self::Int)
            .ok()
            .or_else(|| word.parse().ok().filter(|n: &f64| n.is_finite()).map(Self::Float))
    }

    fn of_number(number: &Number) -> Option<Self> {
        number.as_i64().map(Self::Int).or_else(|| number.as_f64().filter(|n| n.is_finite()).map(Self::Float))
    }

    fn whole(self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(number),
            Self::Float(number) => whole(number),
        }
    }

    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "beyond 53 bits a float rounds")]
    fn float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    fn as_bool(self) -> Option<bool> {
        match self.whole() {
            Some(1) => Some(true),
            Some(0) => Some(false),
            Some(_) | None => None,
        }
    }
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range is checked before")]
fn whole(number: f64) -> Option<i64> {
    // 2^63 is the first float beyond the range; its negative is the last within it.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let fits = number.fract() == 0.0 && (-BEYOND..BEYOND).contains(&number);
    fits.then_some(number as i64)
}

fn sample(read: Result<Value, String>) -> Sample {
    match read {
        Ok(value) if size(&value) > LARGEST_READING => {
            Sample::Unreadable(format!("it is larger than {} KiB", LARGEST_READING >> 10).into())
        }
        Ok(value) => Sample::Value(value),
        Err(reason) => Sample::Unreadable(reason.into()),
    }
}

/// About how many bytes a value takes as text.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 8,
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + size(value)).sum(),
    }
}

fn foreign_text(text: &str, wanted: &str) -> String {
    if text.is_empty() {
        format!("an empty text is not {wanted}")
    } else {
        format!("a text of {} bytes is not {wanted}", text.len())
    }
}

fn json_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "the number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn object(json: &Json) -> Result<Value, String> {
    match json {
        Json::Object(_) => Ok(from_json(json)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            Err(format!("{} is not an object", json_name(json)))
        }
    }
}

fn is_json_scalar(word: &str) -> bool {
    serde_json::from_str::<Json>(word)
        .is_ok_and(|json| matches!(json, Json::Null | Json::Bool(_) | Json::Number(_)))
}

/// The text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Json::String(text.to_owned()).to_string();
    quoted.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(on) => Value::Bool(*on),
        Json::Number(number) => match Raw::of_number(number) {
            Some(Raw::Int(number)) => Value::Int(number),
            Some(Raw::Float(number)) => Value::Float(number),
            None => Value::Null,
        },
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (Arc::from(name.as_str()), from_json(value))).collect(),
        ),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(on) => Json::Bool(*on),
        Value::Int(number) => Json::Number((*number).into()),
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Text(text) => Json::String(text.as_ref().to_owned()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.as_ref().to_owned(), to_json(value)));
            Json::Object(members.collect::<Map<_, _>>())
        }
    }
}

/// Whether both are the same number.
fn same_number(one: &str, other: &str) -> bool {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    number(one).is_some_and(|one| number(other).is_some_and(|other| one.total_cmp(&other).is_eq()))
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;

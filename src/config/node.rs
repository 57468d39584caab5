//! One TOML value with its place, and the ways to read it.
//!
//! Each reader gives `None` after having reported what was found and what is allowed. A node marked secret is
//! reported without its value.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::guess::did_you_mean;
use super::problem::{Problem, Report, Spot};
use super::reader::{Document, Table};
use super::scalar;
use crate::model::value::{Value, ValueType};

/// Most characters of a found value that a message shows.
const SHOWN: usize = 60;

/// A time that may be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lapse {
    Off,
    After(Duration),
}

impl Lapse {
    pub(super) fn time(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(time) => Some(time),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    report: &'a Report,
    document: &'a Document<'a>,
    value: &'a Spanned<DeValue<'a>>,
    path: String,
    secret: bool,
}

impl<'a> Node<'a> {
    pub(super) fn new(
        report: &'a Report,
        document: &'a Document<'a>,
        value: &'a Spanned<DeValue<'a>>,
        path: String,
    ) -> Self {
        Self { report, document, value, path, secret: false }
    }

    /// The same, but its value is never shown.
    pub(super) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) fn spot(&self) -> Spot {
        self.document.spot(self.value.span().start, self.path.clone())
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// The file that the value stands in.
    pub(super) fn file(&self) -> &std::path::Path {
        self.document.name()
    }

    /// Reports the value as not allowed.
    pub(super) fn wrong(&self, allowed: impl Into<String>) {
        self.wrong_with(allowed, None);
    }

    /// Reports the value as not allowed, with a hint.
    pub(super) fn wrong_with(&self, allowed: impl Into<String>, hint: Option<String>) {
        let mut problem = Problem::error(&self.spot(), format!("found {}", self.show())).allowed(allowed);
        problem.hint = hint;
        self.report.add(problem);
    }

    /// The value as a message shows it.
    fn show(&self) -> String {
        if self.secret {
            return "a value that is not shown".to_owned();
        }
        let scalar = match self.value.get_ref() {
            DeValue::String(text) => {
                let short: String = text.chars().take(SHOWN).collect();
                let more = if short.len() < text.len() { "..." } else { "" };
                return format!("{short:?}{more}");
            }
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(on) => on.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => return "a list".to_owned(),
            DeValue::Table(_) => return "a table".to_owned(),
        };
        scalar.chars().take(SHOWN).collect()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.text_or("a string")
    }

    fn text_or(&self, allowed: &str) -> Option<&'a str> {
        let found = self.value.get_ref().as_str();
        if found.is_none() {
            self.wrong(allowed);
        }
        found
    }

    /// The text, without complaint if it is none.
    pub(super) fn quiet_text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    /// Whether it is true or false, without complaint if not.
    pub(super) fn is_bool(&self) -> bool {
        self.value.get_ref().is_bool()
    }

    /// Whether it is a list, without complaint if not.
    pub(super) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Whether it is a table, without complaint if not.
    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// Whether it is this word, without complaint if not.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.value.get_ref().as_str() == Some(word)
    }

    /// Whether it is text with this character in it, without complaint if not.
    pub(super) fn holds(&self, c: char) -> bool {
        self.value.get_ref().as_str().is_some_and(|text| text.contains(c))
    }

    /// Text that is not empty and fits one line.
    pub(super) fn line(&self) -> Option<&'a str> {
        const ALLOWED: &str = "text of 1 to 256 characters without control characters";
        let text = self.text_or(ALLOWED)?;
        let fits = (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if !fits {
            self.wrong(ALLOWED);
        }
        fits.then_some(text)
    }

    /// Text that `parse` understands.
    pub(super) fn parse<T>(&self, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = parse(self.text_or(allowed)?);
        if parsed.is_none() {
            self.wrong(allowed);
        }
        parsed
    }

    pub(super) fn id(&self) -> Option<Arc<str>> {
        self.parse(scalar::ID_RULE, |text| scalar::is_id(text).then(|| text.into()))
    }

    /// A number that is kept as a string of digits; both ways of writing it are read.
    pub(super) fn digits(&self) -> Option<Arc<str>> {
        const ALLOWED: &str = "a decimal number of at most 20 digits";
        let text = match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => "",
        };
        let fits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !fits {
            self.wrong(ALLOWED);
        }
        fits.then(|| text.into())
    }

    pub(super) fn bool(&self) -> Option<bool> {
        let found = self.value.get_ref().as_bool();
        if found.is_none() {
            self.wrong("true or false");
        }
        found
    }

    pub(super) fn int<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::Integer(number) => parse_int(number).filter(|number| range.contains(number)),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let found = found.and_then(|number| T::try_from(number).ok());
        if found.is_none() {
            self.wrong(format!("a whole number from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// A finite number; whole ones may be written without a point.
    pub(super) fn float(&self, allowed: &str, fits: impl FnOnce(f64) -> bool) -> Option<f64> {
        let text = match self.value.get_ref() {
            DeValue::Integer(number) => parse_int(number).map(|number| number.to_string()),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let found = text.and_then(|text| text.parse().ok()).filter(|number: &f64| number.is_finite());
        let found = found.filter(|number| fits(*number));
        if found.is_none() {
            self.wrong(allowed);
        }
        found
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.float("a number", |_| true)
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.duration_or(range, "")
    }

    /// A duration, or that there is none.
    pub(super) fn duration_or_off(&self, range: RangeInclusive<Duration>) -> Option<Lapse> {
        if self.is_word("off") {
            Some(Lapse::Off)
        } else {
            self.duration_or(range, ", or \"off\"").map(Lapse::After)
        }
    }

    fn duration_or(&self, range: RangeInclusive<Duration>, or: &str) -> Option<Duration> {
        let allowed = || {
            let show = scalar::show_duration;
            format!(
                "a duration from {} to {}, written as in \"300ms\", \"5s\", \"10m\", \"24h\" or \"7d\"{or}",
                show(*range.start()),
                show(*range.end())
            )
        };
        let found = self.value.get_ref().as_str().and_then(scalar::duration);
        let found = found.filter(|duration| range.contains(duration));
        if found.is_none() {
            self.wrong(allowed());
        }
        found
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let text = self.value.get_ref().as_str();
        let found =
            text.and_then(|text| words.iter().find(|(name, _)| *name == text)).map(|(_, value)| *value);
        if found.is_none() {
            let meant = text.filter(|_| !self.secret).and_then(|text| did_you_mean(text, &names));
            self.wrong_with(names.join(", "), meant);
        }
        found
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.parse("a single IP address", |text| text.parse().ok())
    }

    pub(super) fn socket(&self) -> Option<SocketAddr> {
        self.parse("an IP address and a port, as in \"0.0.0.0:8080\" or \"[::]:8080\"", |text| {
            text.parse().ok()
        })
    }

    pub(super) fn list(&self) -> Option<Vec<Self>> {
        self.list_or("a list")
    }

    /// The items of a list; `allowed` is what to say if it is none.
    pub(super) fn list_or(&self, allowed: &str) -> Option<Vec<Self>> {
        let Some(items) = self.value.get_ref().as_array() else {
            self.wrong(allowed);
            return None;
        };
        let item = |(at, value)| Self {
            value,
            path: format!("{}[{at}]", self.path),
            report: self.report,
            document: self.document,
            secret: self.secret,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list whose items can all be read; the ones that can not are reported and left out.
    pub(super) fn list_of<T>(&self, read: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        self.list().map(|items| items.iter().filter_map(read).collect())
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.wrong("a table");
            return None;
        };
        Some(Table::of(self.report, self.document, table, self.spot()))
    }

    /// A value of a product's type.
    pub(super) fn value(&self, kind: ValueType) -> Option<Value> {
        let found = plain_value(self.value.get_ref(), 0);
        let fitting = found.and_then(|value| match (kind, value) {
            (ValueType::Bool, value @ Value::Bool(_))
            | (ValueType::Int | ValueType::Enum, value @ Value::Int(_))
            | (ValueType::Float, value @ Value::Float(_))
            | (ValueType::Text, value @ Value::Text(_))
            | (ValueType::Object, value @ Value::Object(_)) => Some(value),
            (ValueType::Float, value @ Value::Int(_)) => value.as_f64().map(Value::Float),
            _ => None,
        });
        if fitting.is_none() {
            self.wrong(format!("a value of type {}", kind.name()));
        }
        fitting
    }

    /// Text, number or bool, as it stands.
    pub(super) fn scalar(&self) -> Option<Value> {
        let found = plain_value(self.value.get_ref(), 0);
        let found = found.filter(|value| !matches!(value, Value::List(_) | Value::Object(_)));
        if found.is_none() {
            self.wrong("a string, a number, true or false");
        }
        found
    }

    /// One scalar, or a list of them that is not empty.
    pub(super) fn scalars(&self) -> Option<Vec<Value>> {
        if !self.is_list() {
            return self.scalar().map(|value| vec![value]);
        }
        let items = self.list()?;
        if items.is_empty() {
            self.wrong("at least one of them");
            return None;
        }
        items.iter().map(Self::scalar).collect()
    }

    /// A pair of numbers, the first not above the second.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let items = self.list()?;
        let bounds = match items.as_slice() {
            [low, high] => low.number().zip(high.number()),
            _ => None,
        };
        let bounds = bounds.filter(|(low, high)| low <= high);
        if bounds.is_none() {
            self.wrong("[smallest, largest]");
        }
        bounds
    }
}

/// A value without regard to any expected type. The parser bounds the depth; this bound only makes that plain here.
fn plain_value(value: &DeValue<'_>, depth: usize) -> Option<Value> {
    if depth > 100 {
        return None;
    }
    match value {
        DeValue::String(text) => Some(Value::text(text.as_ref())),
        DeValue::Integer(number) => parse_int(number).map(Value::Int),
        DeValue::Float(number) => {
            number.as_str().parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
        }
        DeValue::Boolean(on) => Some(Value::Bool(*on)),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => items
            .iter()
            .map(|item| plain_value(item.get_ref(), depth + 1))
            .collect::<Option<_>>()
            .map(Value::List),
        DeValue::Table(members) => members
            .iter()
            .map(|(key, value)| {
                Some((Arc::from(key.get_ref().as_ref()), plain_value(value.get_ref(), depth + 1)?))
            })
            .collect::<Option<_>>()
            .map(Value::Object),
    }
}

fn parse_int(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Words for a message: `a, b or c`.
pub(super) fn list_words<T: Display>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

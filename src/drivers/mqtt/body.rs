//! A message as it came, and what is looked for in it.
//!
//! Pure. The parts and conditions of a product are parsed once, when the routes are built.

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::Value as Json;
use wildmatch::WildMatch;

use super::homeassistant::jinja::{RenderError, Scope};
use super::map;
use super::packet::Message;
use super::path::{Path, PathError};
use super::payload::{Form, scalar_text};
use super::route::Names;
use crate::drivers::Sample;

/// Why a part cannot be looked for. The configuration's own check reports the same before it comes here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// A JSON path.
    #[error("the JSON path {path} cannot be read")]
    Path {
        /// As configured.
        path: Arc<str>,
        /// Why.
        #[source]
        source: PathError,
    },
    /// A pattern.
    #[error("the pattern {0:?} does not have {{value}} in it exactly once")]
    Pattern(Arc<str>),
}

/// A message, read as JSON at most once.
#[derive(Debug)]
pub struct Body<'a> {
    bytes: &'a [u8],
    user: &'a [(Arc<str>, Arc<str>)],
    json: OnceCell<Option<Json>>,
}

impl<'a> Body<'a> {
    /// Of a payload.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, user: &[], json: OnceCell::new() }
    }

    /// Of a message, with what travels beside its payload.
    pub fn of(message: &'a Message) -> Self {
        Self { user: &message.extra.user, ..Self::new(&message.payload) }
    }

    /// An empty payload only clears a retained message.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As text, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes).ok()
    }

    /// As JSON, if it is.
    pub fn json(&self) -> Option<&Json> {
        self.json.get_or_init(|| serde_json::from_slice(self.bytes).ok()).as_ref()
    }

    /// The first user property of that name.
    pub fn user(&self, name: &str) -> Option<&'a str> {
        self.user.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// The scalar at a path, or the whole text without one, as a word.
    pub fn word(&self, path: Option<&Path>) -> Option<String> {
        match path {
            None => Some(self.text()?.trim().to_owned()),
            Some(path) => scalar_text(path.find(self.json()?)?),
        }
    }
}

/// A part of a payload, ready to be looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What stands at a path.
    Path(Path),
    /// What stands between others.
    Pattern(Pattern),
    /// The user property of that name.
    User(Arc<str>),
    /// What a template or a list of words makes of it.
    Reading(Arc<map::Reading>),
}

impl Part {
    /// Reads a product's part.
    pub fn parse(part: &map::Part) -> Result<Self, PartError> {
        match part {
            map::Part::Whole => Ok(Self::Whole),
            map::Part::Path(path) => parse_path(path).map(Self::Path),
            map::Part::User(name) => Ok(Self::User(Arc::clone(name))),
            map::Part::Reading(reading) => Ok(Self::Reading(Arc::clone(reading))),
            map::Part::Pattern(text) => {
                Pattern::parse(text).map(Self::Pattern).ok_or_else(|| PartError::Pattern(Arc::clone(text)))
            }
        }
    }

    /// The reading of a form there; `None` when the message does not have that part. A path that leads nowhere is no
    /// reading: one topic often carries now these members, now those. Nor is an empty payload, which clears what the
    /// broker keeps, or only carries what stands beside it.
    pub fn read(&self, body: &Body<'_>, form: &Form) -> Option<Sample> {
        let unreadable = |reason: &str| Some(Sample::Unreadable(reason.into()));
        match self {
            Self::User(name) => body.user(name).map(|value| form.read_text(value)),
            Self::Whole | Self::Path(_) | Self::Pattern(_) | Self::Reading(_) if body.is_empty() => None,
            Self::Whole => match body.text() {
                Some(text) => Some(form.read_text(text)),
                None => unreadable("the payload is not UTF-8 text"),
            },
            Self::Path(path) => match body.json() {
                Some(json) => path.find(json).map(|found| form.read_json(found)),
                None => unreadable("the payload is not JSON"),
            },
            Self::Pattern(pattern) => match body.text() {
                Some(text) => pattern.find(text).map(|found| form.read_text(found)),
                None => unreadable("the payload is not UTF-8 text"),
            },
            Self::Reading(reading) => match reading.read(body) {
                Ok(None) => None,
                // A template's word for a value that there is not.
                Ok(Some(text)) if text == "None" => unreadable("the template gives no value"),
                Ok(Some(text)) => Some(form.read_text(&text)),
                Err(error) => unreadable(&error.to_string()),
            },
        }
    }

    /// The scalar there as a word; nothing where the message does not have that part.
    pub fn word(&self, body: &Body<'_>) -> Option<String> {
        match self {
            Self::Whole => body.word(None),
            Self::Path(path) => body.word(Some(path)),
            Self::Pattern(pattern) => body.text().and_then(|text| pattern.find(text)).map(str::to_owned),
            Self::User(name) => body.user(name).map(str::to_owned),
            Self::Reading(reading) => reading.read(body).ok()?,
        }
    }
}

impl map::Reading {
    /// The text that it makes of a message; nothing for one that says nothing.
    fn read(&self, body: &Body<'_>) -> Result<Option<String>, RenderError> {
        let Some(text) = body.text() else { return Ok(None) };
        let said = match &self.template {
            Some(template) => template.render(Scope::of(text, body.json()))?,
            None => Some(text.to_owned()),
        };
        let Some(said) = said.filter(|said| !said.is_empty()) else { return Ok(None) };
        let meant =
            self.words.iter().find(|(word, _)| **word == *said.trim()).map(|(_, meant)| meant.as_ref());
        Ok(meant.map_or(Some(said), |meant| meant.map(|meant| meant.as_ref().to_owned())))
    }
}

/// Reads a product's path.
pub fn parse_path(path: &Arc<str>) -> Result<Path, PartError> {
    Path::parse(path).map_err(|source| PartError::Path { path: Arc::clone(path), source })
}

/// Text around a value: `temperature is {value} degrees*`. Both sides are literal but for `*`, which stands for any
/// run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: Vec<Box<str>>,
    after: Vec<Box<str>>,
}

impl Pattern {
    /// Reads a pattern, which has `{value}` exactly once.
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once("{value}")?;
        if after.contains("{value}") {
            return None;
        }
        let pieces = |side: &str| side.split('*').map(Box::from).collect();
        Some(Self { before: pieces(before), after: pieces(after) })
    }

    /// What stands there in a text of this form: the shortest run that fits.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (first, others) = self.before.split_first()?;
        let mut rest = text.strip_prefix(first.as_ref())?;
        for piece in others {
            rest = rest.split_once(piece.as_ref())?.1;
        }
        let (next, others) = self.after.split_first()?;
        if others.is_empty() {
            return rest.strip_suffix(next.as_ref());
        }
        let (value, mut tail) = if next.is_empty() { (rest, "") } else { rest.split_once(next.as_ref())? };
        let (last, between) = others.split_last()?;
        for piece in between {
            tail = tail.split_once(piece.as_ref())?.1;
        }
        tail.ends_with(last.as_ref()).then_some(value)
    }
}

/// What a message must say, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    part: Part,
    equals: Vec<WildMatch>,
}

impl When {
    /// Reads a product's condition, whose globs may have names in braces as topics do.
    pub fn parse(condition: &map::Condition, names: &Names) -> Result<Self, PartError> {
        let equals = condition.equals.iter().map(|glob| WildMatch::new(&names.fill(glob))).collect();
        Ok(Self { part: Part::parse(&condition.part)?, equals })
    }

    /// Whether the message says so.
    pub fn holds(&self, body: &Body<'_>) -> bool {
        if let (Part::Path(path), true) = (&self.part, self.equals.is_empty()) {
            let found = body.json().and_then(|json| path.find(json));
            return found.is_some_and(|found| !found.is_null());
        }
        let word = self.part.word(body);
        let fits = |word: &str| self.equals.iter().any(|glob| glob.matches(word));
        word.is_some_and(|word| self.equals.is_empty() || fits(&word))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::value::{Value, ValueType};

    #[test]
    fn a_pattern_finds_the_value_between_its_words() {
        for (pattern, text, found) in [
            ("T:{value}", "T:21.5", Some("21.5")),
            ("{value} °C", "21.5 °C", Some("21.5")),
            ("*temp={value};*", "id=7;temp=3;hum=5", Some("3")),
            ("*temp={value};*hum*", "id=7;temp=3;hum=5", Some("3")),
            ("*hum={value}", "id=7;temp=3;hum=5", Some("5")),
            ("{value}", "all of it", Some("all of it")),
            ("{value}*", "all of it", Some("all of it")),
            ("T:{value}", "H:3", None),
            ("*temp={value};*", "temp=3", None),
            ("a{value}b*c", "a1b2d", None),
        ] {
            let parsed = Pattern::parse(pattern).unwrap_or_else(|| panic!("{pattern} is a pattern"));
            assert_eq!(parsed.find(text), found, "{pattern} in {text}");
        }
        assert_eq!(Pattern::parse("no value"), None);
        assert_eq!(Pattern::parse("{value}{value}"), None);
    }

    #[test]
    fn a_condition_looks_at_a_word_or_at_the_whole_text() {
        let holds = |path: Option<&str>, equals: &[&str], payload: &str| {
            let equals = equals.iter().map(|glob| Arc::from(*glob)).collect();
            let part = path.map_or(map::Part::Whole, |path| map::Part::Path(path.into()));
            let when = When::parse(&map::Condition { part, equals }, &Names::default()).unwrap();
            when.holds(&Body::new(payload.as_bytes()))
        };
        assert!(holds(Some("$.action"), &["single", "double"], r#"{"action":"double"}"#));
        assert!(holds(Some("$.action"), &["*_press"], r#"{"action":"long_press"}"#));
        assert!(holds(Some("$.n"), &["3"], r#"{"n":3}"#));
        assert!(!holds(Some("$.action"), &["single"], r#"{"other":1}"#));
        assert!(!holds(Some("$.action"), &["*"], "no json"));
        assert!(holds(None, &["on*"], " online\n"));
        assert!(holds(Some("$.e"), &[], r#"{"e":{"p":1}}"#) && holds(Some("$.e"), &[], r#"{"e":false}"#));
        assert!(!holds(Some("$.e"), &[], r#"{"e":null}"#) && !holds(Some("$.e"), &[], r#"{"f":1}"#));
    }

    #[test]
    fn a_user_property_is_read_and_asked_like_the_payload() {
        let mut message = Message { payload: "x".into(), ..Message::default() };
        message.extra.user =
            vec![("unit".into(), "C".into()), ("t".into(), "21.5".into()), ("t".into(), "3".into())];
        let (part, form) = (Part::User("t".into()), Form::plain(ValueType::Float));
        assert_eq!(part.read(&Body::of(&message), &form), Some(Sample::Value(Value::Float(21.5))));
        assert_eq!(Part::User("none".into()).read(&Body::of(&message), &form), None);
        let condition = |equals: &str| map::Condition {
            part: map::Part::User("unit".into()),
            equals: vec![equals.into()],
        };
        let holds = |equals, message: &Message| {
            When::parse(&condition(equals), &Names::default()).unwrap().holds(&Body::of(message))
        };
        assert!(holds("C", &message) && !holds("F", &message) && !holds("*", &Message::default()));
        message.payload.clear();
        assert_eq!(Part::Whole.read(&Body::of(&message), &form), None);
        assert!(part.read(&Body::of(&message), &form).is_some(), "the payload may be empty");
    }

    proptest! {
        #[test]
        fn a_value_without_the_patterns_words_comes_back(value in "[0-9.]{1,6}", before in "[a-z]{0,4}", after in "[a-z]{0,4}") {
            let pattern = Pattern::parse(&format!("{before}{{value}}{after}")).unwrap();
            let text = format!("{before}{value}{after}");
            prop_assert_eq!(pattern.find(&text), Some(value.as_str()));
            let loose = Pattern::parse(&format!("*{before}{{value}}{after}*")).unwrap();
            let found = loose.find(&text);
            prop_assert!(found.is_some());
        }

        #[test]
        fn no_text_panics(pattern in any::<String>(), text in any::<String>()) {
            if let Some(pattern) = Pattern::parse(&(pattern + "{value}")) {
                pattern.find(&text);
            }
            let form = Form::plain(ValueType::Float);
            let read = Part::Whole.read(&Body::new(text.as_bytes()), &form);
            prop_assert_eq!(read.is_some(), !text.is_empty());
        }
    }
}

//! One entity, taken into the parts of a product: what all kinds of entities share.
//!
//! Pure. A part that is not understood is left out with its reason, and the others stay.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::super::map::{
    Availability, Call, Condition, Occurrence, Part, Place, Point, Publish, Reading, Reply, Source,
};
use super::jinja::{Template, TemplateError};
use super::keys::Keys;
use super::product::Mode;
use crate::model::product::{Access, EventType, Function, Level, Parameter, Property};
use crate::model::value::{Value, ValueType};

/// How long a device may take to report what was written; those on batteries or behind a mesh are slow.
const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// Most options of a choice, and payload words of an entity. With more it is a text.
const OPTIONS: usize = 256;

/// What an entity gives its device. Ids are those within the entity, empty for its main part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// What its parts are called by; unique only among those of one topic.
    pub id: String,
    /// What kind it is.
    pub component: String,
    /// Values.
    pub properties: Vec<(Property, Point)>,
    /// What it can be told to do.
    pub functions: Vec<(Function, Call)>,
    /// What happens at it.
    pub events: Vec<(EventType, Occurrence)>,
    /// How its availability topics count together, and which they are.
    pub availability: (Mode, Vec<Availability>),
}

/// Why a part of an announcement is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kind of entity that nothing is made of.
    #[error("entities of this kind are not taken over")]
    Component,
    /// No topic from which or to which anything could travel.
    #[error("it names no topic")]
    NoTopic,
    /// Not one that a message can be published to, or with wildcards or braces.
    #[error("{0} is no plain topic")]
    Topic(String),
    /// A template.
    #[error("its {key} is not understood: {error}")]
    Template {
        /// Under which key.
        key: String,
        /// Why.
        #[source]
        error: TemplateError,
    },
    /// Something that has no place here.
    #[error("{0}")]
    Other(&'static str),
}

/// What values a part has.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// On and off as they are sent, and as they are told where that differs; words that say neither.
    Switch { sent: [String; 2], told: [String; 2], neither: Vec<String> },
    /// A number, as `value = raw * scale + offset`.
    Number { range: Option<(f64, f64)>, step: Option<f64>, unit: Option<Arc<str>>, scale: f64, offset: f64 },
    /// One of several, with the words for them on the wire.
    Choice(Vec<(String, String)>),
    /// Anything.
    Text,
    /// Named values.
    Object,
}

impl Shape {
    /// On and off by these keys, or these words.
    pub(super) fn switch(keys: &Keys, on: (&str, &str), off: (&str, &str)) -> Self {
        let word = |(key, usual): (&str, &str)| keys.text(key).unwrap_or_else(|| usual.to_owned());
        let sent = [word(on), word(off)];
        Self::Switch { told: sent.clone(), sent, neither: Vec::new() }
    }

    /// A number within bounds.
    pub(super) fn number(range: Option<(f64, f64)>, step: Option<f64>, unit: Option<Arc<str>>) -> Self {
        // Bounds the wrong way round would let nothing in.
        let range = range.filter(|(low, high)| low < high);
        Self::Number { range, step: step.filter(|step| *step > 0.0), unit, scale: 1.0, offset: 0.0 }
    }

    /// One of the texts under a key, or of these.
    pub(super) fn choice(keys: &Keys, key: &str, usual: &[&str]) -> Self {
        let mut words = keys.list(key);
        if words.is_empty() {
            words = usual.iter().map(|word| (*word).to_owned()).collect();
        }
        Self::Choice(words.into_iter().map(|word| (word.clone(), word)).collect())
    }
}

/// Where a part is told or sent: the keys of topic and template.
pub(super) type Way<'k> = (&'k str, &'k str);

/// Puts an entity together.
#[derive(Debug)]
pub(super) struct Maker<'k> {
    pub(super) keys: &'k Keys,
    pub(super) entity: Entity,
    pub(super) faults: Vec<Fault>,
    name: Arc<str>,
    qos: u8,
}

impl<'k> Maker<'k> {
    pub(super) fn new(id: String, component: &str, keys: &'k Keys) -> Self {
        let title = |word: &str| -> Arc<str> {
            let word = word.replace('_', " ");
            let mut characters = word.chars();
            characters
                .next()
                .map_or_else(String::new, |c| c.to_uppercase().chain(characters).collect())
                .into()
        };
        let named = keys.name("name").or_else(|| keys.name("device_class").map(|class| title(&class)));
        let qos = keys.number("qos").unwrap_or_default();
        let mut maker = Self {
            keys,
            name: named.unwrap_or_else(|| title(component)),
            entity: Entity { id, component: component.to_owned(), ..Entity::default() },
            faults: Vec::new(),
            qos: if qos >= 2.0 { 2 } else { u8::from(qos >= 1.0) },
        };
        maker.availability();
        maker
    }

    /// The entity with what had to be left out of it; only the reasons where nothing is left.
    pub(super) fn done(mut self) -> (Option<Entity>, Vec<Fault>) {
        let Entity { properties, functions, events, .. } = &self.entity;
        let empty = properties.is_empty() && functions.is_empty() && events.is_empty();
        if empty && self.faults.is_empty() {
            self.faults.push(Fault::NoTopic);
        }
        ((!empty).then_some(self.entity), self.faults)
    }

    /// A value, if one of its topics is there.
    pub(super) fn value(&mut self, id: &str, shape: Shape, told: Way<'_>, sent: Way<'_>) {
        let ways = self.source(told, &shape).and_then(|source| Ok((source, self.letter(sent)?)));
        match ways {
            Ok((None, None)) => {}
            Ok((source, letter)) => self.put(id, shape, source, letter),
            Err(fault) => self.faults.push(fault),
        }
    }

    /// A value with ways that are known already.
    pub(super) fn put(&mut self, id: &str, shape: Shape, source: Option<Source>, letter: Option<Publish>) {
        let optimistic = self.keys.flag("optimistic");
        let write = letter.map(|letter| {
            let reply = Reply { timeout: REPLY_WITHIN, answer: None };
            Publish { reply: (source.is_some() && !optimistic).then_some(reply), ..letter }
        });
        let access = match (&source, &write) {
            (_, None) => Access::Read,
            (None, Some(_)) => Access::Write,
            (Some(_), Some(_)) => Access::ReadWrite,
        };
        let mut point = Point {
            sources: source.into_iter().collect(),
            scale: 1.0,
            offset: 0.0,
            on: None,
            off: None,
            write,
            write_interval: None,
            read: None,
        };
        let mut property = Property { access, name: self.named(id), ..Property::new(id, ValueType::Text) };
        match shape {
            Shape::Switch { sent: [on, off], .. } => {
                property.kind = ValueType::Bool;
                (point.on, point.off) = (Some(on.into()), Some(off.into()));
            }
            Shape::Number { range, step, unit, scale, offset } => {
                property.kind = ValueType::Float;
                (property.range, property.step, property.unit) = (range, step, unit);
                (point.scale, point.offset) = (scale, offset);
            }
            Shape::Choice(words) if (1..=OPTIONS).contains(&words.len()) => {
                property.kind = ValueType::Enum;
                property.labels = (0..).zip(words.into_iter().map(|(word, _)| word.into())).collect();
            }
            Shape::Choice(_) | Shape::Text => {}
            Shape::Object => property.kind = ValueType::Object,
        }
        let expires =
            self.keys.number("expire_after").filter(|seconds| (1.0..=2_592_000.0).contains(seconds));
        property.stale_after = expires.map(Duration::from_secs_f64);
        self.entity.properties.push((property, point));
    }

    /// A function that sends a payload.
    pub(super) fn function(&mut self, id: &str, payload: &str, sent: Way<'_>) {
        match self.letter(sent) {
            Ok(None) => {}
            Ok(Some(letter)) => {
                // A command template has the payload for its value.
                let said = letter
                    .template
                    .as_ref()
                    .map(|template| template.render(super::jinja::Scope::sent(payload.into())));
                let payload = match said {
                    None => payload.to_owned(),
                    Some(Ok(said)) => said.unwrap_or_default(),
                    Some(Err(_)) => {
                        return self.faults.push(Fault::Other("its command template gives nothing"));
                    }
                };
                let publish = Publish { template: Some(Arc::new(Template::literal(&payload))), ..letter };
                let function = Function { name: self.named(id), ..Function::new(id) };
                self.entity.functions.push((function, Call { publish, answer: None }));
            }
            Err(fault) => self.faults.push(fault),
        }
    }

    /// An event, by the messages of a topic; one that the broker had kept is none.
    pub(super) fn event(
        &mut self,
        id: &str,
        topic: Arc<str>,
        when: Option<Condition>,
        param: Option<(&str, Part)>,
    ) {
        let place = Place { retained: false, when, qos: self.qos, ..Place::of(topic) };
        let (known, parts) = param
            .map(|(id, part)| {
                let parameter =
                    Parameter { id: id.into(), kind: ValueType::Text, required: false, range: None };
                (parameter, Some(part))
            })
            .into_iter()
            .unzip();
        let event =
            EventType { id: id.into(), name: self.named(id), level: Level::Info, params: known, when: None };
        self.entity.events.push((event, Occurrence { place, params: parts }));
    }

    /// A source of readings, if its topic is there.
    pub(super) fn source(&self, (topic, template): Way<'_>, shape: &Shape) -> Result<Option<Source>, Fault> {
        let Some(topic) = self.keys.topic(topic)? else { return Ok(None) };
        let part = part(self.template(template)?, words(shape));
        Ok(Some(Source { place: self.place(topic), part }))
    }

    /// A message that can be sent, if its topic is there.
    pub(super) fn letter(&self, (topic, template): Way<'_>) -> Result<Option<Publish>, Fault> {
        let Some(topic) = self.keys.topic(topic)? else { return Ok(None) };
        let template =
            self.template(template)?.filter(|template| template.path().is_none_or(|path| !path.is_empty()));
        Ok(Some(self.publish(topic, template)))
    }

    /// A message to a topic: what the template gives, or the value as it is.
    pub(super) fn publish(&self, topic: Arc<str>, template: Option<Template>) -> Publish {
        Publish {
            topic,
            payload: "{value}".into(),
            template: template.map(Arc::new),
            qos: self.qos,
            retain: self.keys.flag("retain"),
            user: Vec::new(),
            reply: None,
        }
    }

    pub(super) fn place(&self, topic: Arc<str>) -> Place {
        Place { qos: self.qos, ..Place::of(topic) }
    }

    pub(super) fn template(&self, key: &str) -> Result<Option<Template>, Fault> {
        template(self.keys, key)
    }

    fn named(&self, id: &str) -> Arc<str> {
        if id.is_empty() {
            Arc::clone(&self.name)
        } else {
            format!("{} {}", self.name, id.replace('_', " ")).into()
        }
    }

    /// What says that it is there or gone.
    fn availability(&mut self) {
        let keys = self.keys;
        let mode = match keys.text("availability_mode").as_deref() {
            Some("all") => Mode::All,
            Some("any") => Mode::Any,
            _ => Mode::Latest,
        };
        let mut given = keys.objects("availability");
        given.truncate(OPTIONS);
        let listed = given.iter().map(|keys| (keys, "topic", "value_template"));
        let single = (keys, "availability_topic", "availability_template");
        let all = listed.chain(keys.get(single.1).is_some().then_some(single));
        for (keys, topic, form) in all {
            let word = |key, usual: &str| Value::text(keys.text(key).unwrap_or_else(|| usual.to_owned()));
            let read = keys.topic(topic).and_then(|topic| Ok((topic, template(keys, form)?)));
            match read {
                Ok((Some(topic), template)) => self.entity.availability.1.push(Availability {
                    place: self.place(topic),
                    part: part(template, Vec::new()),
                    online: vec![word("payload_available", "online")],
                    offline: vec![word("payload_not_available", "offline")],
                }),
                Ok((None, _)) => {}
                Err(fault) => self.faults.push(fault),
            }
        }
        self.entity.availability.0 = mode;
    }
}

fn template(keys: &Keys, key: &str) -> Result<Option<Template>, Fault> {
    let Some(text) = keys.text(key) else { return Ok(None) };
    let refused = |error| Fault::Template { key: key.to_owned(), error };
    Template::parse(&text).map(Some).map_err(refused)
}

/// Where in a message a value stands. Plain members are found as those of other products are.
fn part(template: Option<Template>, words: Vec<(Arc<str>, Option<Arc<str>>)>) -> Part {
    if words.is_empty() {
        match template.as_ref().map(Template::path) {
            None => return Part::Whole,
            Some(Some(path)) if path.is_empty() => return Part::Whole,
            Some(Some(path)) => return Part::Path(path.into()),
            Some(None) => {}
        }
    }
    Part::Reading(Arc::new(Reading { template, words }))
}

/// Words that a device tells in place of those that it is sent, and what they mean.
fn words(shape: &Shape) -> Vec<(Arc<str>, Option<Arc<str>>)> {
    let pair = |told: &String, meant: Option<&String>| {
        (told.as_str().into(), meant.map(|meant| meant.as_str().into()))
    };
    match shape {
        Shape::Switch { sent, told, neither } if sent != told || !neither.is_empty() => {
            let named = told.iter().zip(sent).map(|(told, sent)| pair(told, Some(sent)));
            named.chain(neither.iter().map(|told| pair(told, None))).collect()
        }
        Shape::Choice(words) if words.iter().any(|(name, wire)| name != wire) => {
            words.iter().map(|(name, wire)| pair(wire, Some(name))).collect()
        }
        Shape::Switch { .. } | Shape::Number { .. } | Shape::Choice(_) | Shape::Text | Shape::Object => {
            Vec::new()
        }
    }
}

/// Names what was left out: `sensor temperature (reason)`.
pub(super) fn left_out(component: &str, id: &str, fault: &dyn Display) -> String {
    format!("{component} {id} ({fault})")
}

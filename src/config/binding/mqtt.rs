//! Reads how a product travels over MQTT: `[product.mqtt]`, `mqtt = { ... }` of a property and of a function.

use std::sync::Arc;
use std::time::Duration;

use super::super::node::{Node, list_words};
use super::super::problem::Problem;
use super::super::reader::{Entry, Table};
use super::super::scalar;
use crate::drivers::mqtt::map::{Availability, MqttMap, Point, Publish, Reply, Source};
use crate::drivers::mqtt::path::Path;
use crate::drivers::mqtt::route::{concrete, is_filter, is_topic};
use crate::model::product::{Access, Parameter};
use crate::model::value::Value;

/// What a product says once for all its topics.
#[derive(Debug, Default)]
pub(in super::super) struct Settings {
    availability: Option<Availability>,
    offline_after: Option<Duration>,
    pub(in super::super) publish: Vec<Arc<str>>,
}

impl Settings {
    /// The whole map, from what stands at each property and function.
    pub(in super::super) fn map(
        self,
        properties: Vec<Option<Point>>,
        functions: Vec<Option<Publish>>,
    ) -> MqttMap {
        let Self { availability, offline_after, publish } = self;
        MqttMap { properties, functions, availability, offline_after, publish }
    }
}

pub(in super::super) fn settings(table: Option<Table<'_>>) -> Settings {
    let Some(table) = table else { return Settings::default() };
    let range = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
    let settings = Settings {
        availability: table.table("availability").and_then(availability),
        offline_after: table.key("offline_after").read(|node| node.duration(range)),
        publish: table.key("publish").read(|node| node.list_of(|item| topic(item, true))).unwrap_or_default(),
    };
    table.finish();
    settings
}

fn availability(table: Table<'_>) -> Option<Availability> {
    let topic = source_topic(&table);
    let path = path(&table);
    let online = table.key("online").read(Node::scalar).unwrap_or_else(|| Value::text("online"));
    let offline = table.key("offline").read(Node::scalar).unwrap_or_else(|| Value::text("offline"));
    if online == offline {
        let problem = Problem::error(&table.spot(), "online and offline are the same payload");
        table.report().add(problem);
    }
    table.finish();
    Some(Availability { topic: topic?, path, online, offline })
}

/// The place of a property.
pub(in super::super) fn point(table: Table<'_>, access: Access) -> Point {
    let sources = sources(&table, access);
    let scale = table.key("scale").read(|node| node.float("a number other than 0", |scale| scale != 0.0));
    let offset = table.key("offset").read(Node::number);
    let on = table.key("on").read(Node::line).map(Arc::from);
    let off = table.key("off").read(Node::line).map(Arc::from);
    if on.is_some() && on == off {
        table.report().add(Problem::error(&table.key("off").spot(), "on and off are the same word"));
    }
    let write = table.table("write");
    if access.writable() && write.is_none() {
        let spot = table.key("write").spot();
        let problem = Problem::error(&spot, "missing, but the property is to be written");
        table.report().add(problem.allowed("write = { topic = ..., payload = ... }, or access = \"r\""));
    }
    if let Some(write) = write.as_ref().filter(|_| !access.writable()) {
        let problem = Problem::warning(&write.spot(), "has no effect on a property that is only read");
        table.report().add(problem.hint("did you mean access = \"rw\"?"));
    }
    let write = write.and_then(|table| {
        let publish = publish(&table, "{value}", |name| name == "value");
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        let reply = table.key("reply").read(|node| node.duration(range)).map(|timeout| Reply { timeout });
        if publish.as_ref().is_some_and(|publish| !publish.payload.contains("{value}")) {
            let problem =
                Problem::warning(&table.key("payload").spot(), "every value is written as the same payload");
            table.report().add(problem.allowed("a payload with {value} in it"));
        }
        table.finish();
        publish.map(|publish| Publish { reply, ..publish })
    });
    table.finish();
    Point { sources, scale: scale.unwrap_or(1.0), offset: offset.unwrap_or_default(), on, off, write }
}

/// Where values come from: one place, written short, or several in a list.
fn sources(table: &Table<'_>, access: Access) -> Vec<Source> {
    let short = table.key("topic");
    let list = table.key("sources");
    if short.given() && list.given() {
        let problem = Problem::error(&list.spot(), "topic and sources are both given");
        table.report().add(problem.allowed("one of them"));
    }
    let mut sources: Vec<Source> = table.tables("sources").into_iter().filter_map(source).collect();
    let path = path(table);
    sources.extend(short.read(|node| topic(node, true)).map(|topic| Source { topic, path }));
    if access.readable() && !short.given() && !list.given() {
        let problem = Problem::error(&short.spot(), "missing");
        table.report().add(problem.allowed("topic and perhaps path, or sources = [{ topic = ... }]"));
    }
    sources
}

fn source(table: Table<'_>) -> Option<Source> {
    let topic = source_topic(&table);
    let path = path(&table);
    table.finish();
    Some(Source { topic: topic?, path })
}

fn source_topic(table: &Table<'_>) -> Option<Arc<str>> {
    table.key("topic").required("a topic, as in \"tele/{topic}/STATE\"").read(|node| topic(node, true))
}

/// What a call of a function sends.
pub(in super::super) fn function(table: Table<'_>, inputs: &[Parameter]) -> Option<Publish> {
    let known: Vec<String> = inputs.iter().map(|input| format!("{{{}}}", input.id)).collect();
    let publish = publish(&table, &list_words(&known), |name| inputs.iter().any(|input| *input.id == *name));
    table.finish();
    publish
}

/// Topic, payload, qos and retain. `known` says which names in braces stand for something.
fn publish(table: &Table<'_>, allowed: &str, known: impl Fn(&str) -> bool) -> Option<Publish> {
    let topic =
        table.key("topic").required("a topic, as in \"cmnd/{topic}/POWER\"").read(|node| topic(node, false));
    let entry = table.key("payload");
    let payload = payload(&entry, allowed, known);
    let qos = table.key("qos").read(|node| node.int(0..=2)).unwrap_or(1);
    let retain = table.key("retain").read(Node::bool).unwrap_or_default();
    Some(Publish { topic: topic?, payload: payload?, qos, retain, reply: None })
}

fn payload(entry: &Entry<'_>, allowed: &str, known: impl Fn(&str) -> bool) -> Option<Arc<str>> {
    if !entry.given() {
        // For a property there is one value to send; for a function nothing in particular.
        return Some(if allowed == "{value}" { "{value}".into() } else { "".into() });
    }
    entry.read(|node| {
        let text = node.text()?;
        if let Some(unknown) = scalar::placeholders(text).into_iter().find(|name| !known(name)) {
            let hint = format!("{{{unknown}}} stands for nothing here");
            let allowed = if allowed.is_empty() { "text without names in braces" } else { allowed };
            node.wrong_with(allowed, Some(hint));
        }
        Some(text.into())
    })
}

/// A topic template: `{topic}` stands for the device's own. Only what is subscribed to may have wildcards.
fn topic(node: &Node<'_>, subscribed: bool) -> Option<Arc<str>> {
    let (allowed, fits): (_, fn(&str) -> bool) = if subscribed {
        ("a topic filter, in which {topic} stands for the device's own topic", is_filter)
    } else {
        ("a topic without + and #, in which {topic} stands for the device's own topic", is_topic)
    };
    node.parse(allowed, |text| {
        let known = scalar::placeholders(text).into_iter().all(|name| name == "topic");
        (known && fits(&concrete(text, "topic"))).then(|| text.into())
    })
}

fn path(table: &Table<'_>) -> Option<Arc<str>> {
    let entry = table.key("path");
    let text = entry.read(Node::text)?;
    if let Err(error) = Path::parse(text) {
        entry.read(|node| {
            node.wrong_with(
                "a JSON path, as in \"$.ENERGY.Power\" or \"switch[0].on\"",
                Some(error.to_string()),
            );
            None::<()>
        });
    }
    Some(text.into())
}

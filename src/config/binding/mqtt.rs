//! How a product is bound to topics: `[product.mqtt]`, and `mqtt = { ... }` of a property, a function and an event.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::node::{Node, list_words};
use super::super::problem::Problem;
use super::super::reader::{Entry, Table};
use super::super::scalar;
use super::write_interval;
use crate::drivers::mqtt::body::Pattern;
use crate::drivers::mqtt::map::{
    Answer, Availability, Call, Condition, MqttMap, Occurrence, PLACES, Part, Place, Point, Progress,
    Publish, REQUEST, Reply, Source,
};
use crate::drivers::mqtt::path::Path;
use crate::drivers::mqtt::route::{Names, is_filter, is_topic};
use crate::model::product::{Access, Parameter};
use crate::model::value::Value;

/// How long a device may take to confirm or answer.
const REPLY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// How long an answer to a call or a read is waited for when the product does not say.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where answers are asked for by properties of MQTT 5 when the product does not say.
const RESPONSE_TOPIC: &str = "pentad/{gateway}/reply/{device}";

/// What a product says once for all its topics.
#[derive(Debug, Default)]
pub(in super::super) struct Settings {
    availability: Vec<Availability>,
    offline_after: Option<Duration>,
    ota: Vec<Progress>,
    pub(in super::super) publish: Vec<Place>,
    /// How every property is read that does not say so itself.
    pub(in super::super) read: Option<Publish>,
}

impl Settings {
    /// The whole map, from what stands at each property, function and event.
    pub(in super::super) fn map(
        self,
        properties: Vec<Option<Point>>,
        functions: Vec<Option<Call>>,
        events: Vec<Option<Occurrence>>,
    ) -> MqttMap {
        let Self { availability, offline_after, ota, publish, read: _ } = self;
        MqttMap {
            properties,
            functions,
            events,
            ota,
            availability,
            offline_after,
            publish,
            ..MqttMap::default()
        }
    }
}

pub(in super::super) fn settings(table: Option<Table<'_>>) -> Settings {
    let Some(table) = table else { return Settings::default() };
    let range = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
    let settings = Settings {
        availability: table.one_or_more("availability").into_iter().filter_map(availability).collect(),
        offline_after: table.key("offline_after").read(|node| node.duration(range)),
        ota: table.one_or_more("ota").into_iter().filter_map(progress).collect(),
        publish: table
            .key("publish")
            .read(|node| node.list_of(|item| topic(item, true).map(Place::of)))
            .unwrap_or_default(),
        read: table.table("read").and_then(read),
    };
    table.finish();
    settings
}

fn availability(table: Table<'_>) -> Option<Availability> {
    let place = place(&table, true);
    let path = path(&table, "path");
    let words =
        |key, usual: &str| table.key(key).read(Node::scalars).unwrap_or_else(|| vec![Value::text(usual)]);
    let (online, offline) = (words("online", "online"), words("offline", "offline"));
    if online.iter().any(|word| offline.contains(word)) {
        let problem = Problem::error(&table.spot(), "online and offline are the same payload");
        table.report().add(problem);
    }
    table.finish();
    let part = path.map_or(Part::Whole, Part::Path);
    Some(Availability { place: place?, part, online, offline })
}

fn progress(table: Table<'_>) -> Option<Progress> {
    let place = place(&table, false);
    let step = path(&table, "step").map(Part::Path);
    let detail = table.key("detail");
    // The whole message is the device's word where only words are told.
    let detail = match path(&table, "detail") {
        Some(path) => Some(Part::Path(path)),
        None => (!detail.given() && step.is_none()).then_some(Part::Whole),
    };
    let mut steps = Vec::new();
    for (glob, node) in table.table("steps").iter().flat_map(Table::pairs) {
        steps.extend(node.int::<i32>(-1_000_000..=100).map(|step| (Arc::from(glob), step)));
    }
    if step.is_none() && steps.is_empty() {
        let problem = Problem::error(&table.spot(), "neither step nor steps, so there is never any progress");
        table.report().add(problem.allowed("step with a JSON path, or steps = { \"word*\" = 100 }"));
    }
    table.finish();
    Some(Progress { place: place?, step, detail, steps })
}

/// What makes a device report a property.
fn read(table: Table<'_>) -> Option<Publish> {
    let publish = publish(&table, &[]);
    let given = table.key("reply").given();
    let reply = reply(&table).or((!given).then_some(Reply { timeout: ANSWER_WITHIN, answer: None }));
    table.finish();
    Some(Publish { reply: Some(reply?), ..publish? })
}

/// How a device confirms a write or answers a read: a time, or a table with the place of its answer.
fn reply(table: &Table<'_>) -> Option<Reply> {
    let entry = table.key("reply");
    if entry.node().is_some_and(Node::is_table) {
        let answer = answer_of(table.table("reply")?, None)?;
        return Some(Reply { timeout: answer.timeout, answer: Some(answer) });
    }
    entry.read(|node| node.duration(REPLY)).map(|timeout| Reply { timeout, answer: None })
}

/// The place of a property. `usual` is how it is read when it does not say.
pub(in super::super) fn point(table: Table<'_>, access: Access, usual: Option<&Publish>) -> Point {
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
        let publish = publish(&table, &["value".to_owned()]);
        let reply = reply(&table);
        if publish.as_ref().is_some_and(|publish| !publish.payload.contains("{value}")) {
            let problem =
                Problem::warning(&table.key("payload").spot(), "every value is written as the same payload");
            table.report().add(problem.allowed("a payload with {value} in it"));
        }
        table.finish();
        publish.map(|publish| Publish { reply, ..publish })
    });
    let write_interval = write_interval(&table, access);
    let own = table.table("read");
    if let Some(own) = own.as_ref().filter(|_| !access.readable()) {
        table.report().add(Problem::warning(&own.spot(), "has no effect on a property that is only written"));
    }
    let usual = usual.filter(|_| own.is_none()).cloned();
    let read = own.and_then(read).or(usual).filter(|_| access.readable() && !sources.is_empty());
    table.finish();
    let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or_default());
    Point { sources, scale, offset, on, off, write, write_interval, read }
}

/// Where values come from: one place, written short, or several in a list.
fn sources(table: &Table<'_>, access: Access) -> Vec<Source> {
    let short = table.key("topic").given();
    let list = table.key("sources");
    if short && list.given() {
        let problem = Problem::error(&list.spot(), "topic and sources are both given");
        table.report().add(problem.allowed("one of them"));
    }
    let mut sources: Vec<Source> = table
        .tables("sources")
        .into_iter()
        .filter_map(|table| {
            let source = source(&table, true);
            table.finish();
            source
        })
        .collect();
    sources.extend(source(table, short));
    if access.readable() && !short && !list.given() {
        let problem = Problem::error(&table.key("topic").spot(), "missing");
        table.report().add(problem.allowed("topic and perhaps path, or sources = [{ topic = ... }]"));
    }
    sources
}

/// One source; its keys are known even where it is not there.
fn source(table: &Table<'_>, required: bool) -> Option<Source> {
    let part = part(table);
    let place = if required { place(table, true) } else { known_place(table) };
    Some(Source { place: place?, part })
}

/// Where in a message something stands: `path`, `text` with `{value}` in it, `user`, or all of it.
fn part(table: &Table<'_>) -> Part {
    let text = table.key("text");
    for other in ["path", "user"] {
        if text.given() && table.key(other).given() {
            let problem = Problem::error(&text.spot(), format!("{other} and text are both given"));
            table.report().add(problem.allowed("one of them"));
        }
    }
    let pattern = text.read(|node| {
        node.parse("text with {value} in it once, as in \"T={value} *\"", |text| {
            Pattern::parse(text).is_some().then(|| Arc::<str>::from(text))
        })
    });
    let part = path_or_user(table);
    match pattern {
        Some(pattern) if part == Part::Whole => Part::Pattern(pattern),
        _ => part,
    }
}

/// The same where it may also be a path alone.
fn part_of(node: &Node<'_>) -> Option<Part> {
    if !node.is_table() {
        return path_of(node).map(Part::Path);
    }
    let table = node.table()?;
    let part = part(&table);
    table.finish();
    Some(part)
}

/// Where a scalar stands: `path`, or `user` with the name of a property of MQTT 5 beside the payload, or all of it.
fn path_or_user(table: &Table<'_>) -> Part {
    let user = table.key("user");
    if user.given() && table.key("path").given() {
        let problem = Problem::error(&user.spot(), "path and user are both given");
        table.report().add(problem.allowed("one of them"));
    }
    let name = user.read(Node::line);
    match (path(table, "path"), name) {
        (Some(path), _) => Part::Path(path),
        (None, Some(name)) => Part::User(name.into()),
        (None, None) => Part::Whole,
    }
}

/// Which messages are of interest. `retained` is what holds when the product does not say.
fn place(table: &Table<'_>, retained: bool) -> Option<Place> {
    let entry = table.key("topic").required("a topic, as in \"tele/{topic}/STATE\"");
    place_at(table, &entry, None, retained)
}

/// The same for keys that may be absent altogether.
fn known_place(table: &Table<'_>) -> Option<Place> {
    place_at(table, &table.key("topic"), None, true)
}

fn place_at(table: &Table<'_>, entry: &Entry<'_>, usual: Option<&str>, retained: bool) -> Option<Place> {
    let topic = entry.read(|node| topic(node, true));
    let qos = table.key("qos").read(|node| node.int(0..=2)).unwrap_or(1);
    let retained = table.key("retained").read(Node::bool).unwrap_or(retained);
    let when = table.table("when").and_then(|table| condition(table, true));
    let usual = usual.filter(|_| !entry.given()).map(Arc::from);
    Some(Place { topic: topic.or(usual)?, qos, retained, when })
}

/// What a message must say. Where a `word` is not wanted, it is enough that something stands at the path.
pub(in super::super) fn condition(table: Table<'_>, word: bool) -> Option<Condition> {
    let part = path_or_user(&table);
    let word = word || part == Part::Whole;
    let equals = table.key("equals");
    let equals = if word { equals.required("a word, perhaps with *, or a list of words") } else { equals };
    let given = equals.given();
    let equals = equals.read(Node::scalars);
    table.finish();
    if !given && !word {
        return Some(Condition { part, equals: Vec::new() });
    }
    let equals = equals?.iter().map(|word| word.to_string().into()).collect();
    Some(Condition { part, equals })
}

/// What a call of a function sends, and how it is answered.
pub(in super::super) fn function(
    table: Table<'_>,
    inputs: &[Parameter],
    outputs: &[Parameter],
) -> Option<Call> {
    let names: Vec<String> = inputs.iter().map(|input| input.id.to_string()).collect();
    let publish = publish(&table, &names);
    let answer = table.table("reply");
    let asked = answer.is_some();
    let answer = answer.and_then(|table| answer_of(table, Some(outputs)));
    if !asked && !outputs.is_empty() {
        let problem = Problem::warning(&table.spot(), "outputs without a reply that could carry them");
        table.report().add(problem.allowed("reply = { topic = ... }"));
    }
    table.finish();
    let publish = publish?;
    if asked && answer.is_none() {
        return None;
    }
    Some(Call { publish, answer })
}

/// The answer to a call, which may have outputs, or to a write or a read, which has none.
fn answer_of(table: Table<'_>, outputs: Option<&[Parameter]>) -> Option<Answer> {
    let properties = table
        .key("via")
        .read(|node| node.word(&[("topic", false), ("properties", true)]))
        .unwrap_or_default();
    let entry = table.key("topic");
    let entry = if properties { entry } else { entry.required("the topic of the answer") };
    let place = place_at(&table, &entry, properties.then_some(RESPONSE_TOPIC), false);
    if properties && place.as_ref().is_some_and(|place| place.topic.contains(['+', '#'])) {
        let problem = Problem::error(&entry.spot(), "a response topic with + or #");
        table.report().add(problem.allowed("a single topic"));
    }
    let id = path(&table, "id");
    let error = path(&table, "error");
    let ok = table.table("ok").and_then(|table| condition(table, true));
    let may_have = outputs.is_some();
    let outputs = outputs.unwrap_or_default();
    let usual = |output: &Parameter| Some(Part::Path(format!("$['{}']", output.id).into()));
    let mut found: Vec<Option<Part>> = outputs.iter().map(usual).collect();
    let known: Vec<&str> = outputs.iter().map(|output| &*output.id).collect();
    let given = may_have.then(|| table.table("outputs")).flatten();
    for (name, node) in given.iter().flat_map(Table::pairs) {
        if let Some(output) = known.iter().position(|known| *known == name).and_then(|at| found.get_mut(at)) {
            *output = part_of(&node);
        } else {
            let problem = Problem::error(&node.spot(), format!("no output {name:?}"));
            node.report().add(problem.allowed(list_words(&known)));
        }
    }
    let timeout = table.key("timeout").read(|node| node.duration(REPLY)).unwrap_or(ANSWER_WITHIN);
    table.finish();
    Some(Answer { place: place?, properties, id, error, ok, outputs: found, timeout })
}

/// How a device sends an event.
pub(in super::super) fn occurrence(table: Table<'_>, params: &[Parameter]) -> Option<Occurrence> {
    let place = place(&table, false);
    let known: Vec<&str> = params.iter().map(|param| &*param.id).collect();
    let mut parts: Vec<Option<Part>> = vec![None; params.len()];
    for (name, node) in table.table("params").iter().flat_map(Table::pairs) {
        if let Some(part) = known.iter().position(|known| *known == name).and_then(|at| parts.get_mut(at)) {
            *part = part_of(&node);
        } else {
            let problem = Problem::error(&node.spot(), format!("the event has no parameter {name:?}"));
            node.report().add(problem.allowed(list_words(&known)));
        }
    }
    table.finish();
    Some(Occurrence { place: place?, params: parts })
}

/// Topic, payload, qos, retain and user properties. `values` are the names in braces that stand for what is sent.
fn publish(table: &Table<'_>, values: &[String]) -> Option<Publish> {
    let topic =
        table.key("topic").required("a topic, as in \"cmnd/{topic}/POWER\"").read(|node| topic(node, false));
    let payload = payload(&table.key("payload"), values);
    let qos = table.key("qos").read(|node| node.int(0..=2)).unwrap_or(1);
    let retain = table.key("retain").read(Node::bool).unwrap_or_default();
    let pair = |(name, node): (&str, Node<'_>)| Some((Arc::from(name), node.line()?.into()));
    let user = table.table("user").iter().flat_map(Table::pairs).filter_map(pair).collect();
    Some(Publish { topic: topic?, payload: payload?, template: None, qos, retain, user, reply: None })
}

fn payload(entry: &Entry<'_>, values: &[String]) -> Option<Arc<str>> {
    if !entry.given() {
        // For a property there is one value to send; for a function nothing in particular.
        return Some(if values == ["value"] { "{value}".into() } else { "".into() });
    }
    entry.read(|node| {
        let text = node.text()?;
        let common = PLACES.into_iter().chain([REQUEST]);
        let known: Vec<&str> = values.iter().map(String::as_str).chain(common).collect();
        if let Some(unknown) = scalar::placeholders(text).into_iter().find(|name| !known.contains(name)) {
            let hint = format!("{{{unknown}}} stands for nothing here");
            let braced: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
            node.wrong_with(list_words(&braced), Some(hint));
        }
        Some(text.into())
    })
}

/// A topic template. Only what is subscribed to may have wildcards.
fn topic(node: &Node<'_>, subscribed: bool) -> Option<Arc<str>> {
    let (allowed, fits): (_, fn(&str) -> bool) = if subscribed {
        (
            "a topic filter, in which {topic} stands for the device's own topic, {device} and {gateway} for ids",
            is_filter,
        )
    } else {
        (
            "a topic without + and #, in which {topic} stands for the device's own topic, {device} and {gateway} for ids",
            is_topic,
        )
    };
    let names = Names { topic: "topic".into(), device: "device".into(), gateway: "gateway".into() };
    node.parse(allowed, |text| {
        let known = scalar::placeholders(text).into_iter().all(|name| PLACES.contains(&name));
        (known && fits(&names.fill(text))).then(|| text.into())
    })
}

fn path(table: &Table<'_>, key: &'static str) -> Option<Arc<str>> {
    table.key(key).read(path_of)
}

fn path_of(node: &Node<'_>) -> Option<Arc<str>> {
    let text = node.text()?;
    if let Err(error) = Path::parse(text) {
        node.wrong_with("a JSON path, as in \"$.ENERGY.Power\" or \"switch[0].on\"", Some(error.to_string()));
        return None;
    }
    Some(text.into())
}

//! Reads the rules of a product's properties and events: `report`, `stale_after`, `alarm` and `when`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::binding::mqtt;
use super::node::{Lapse, Node};
use super::problem::{Problem, Spot};
use super::product::{parameter, unique};
use super::reader::{Entry, Table};
use super::scalar;
use crate::drivers::mqtt::map::Occurrence;
use crate::model::product::{
    AlarmCondition, AlarmRule, Change, Direction, Edge, EventTrigger, EventType, Level, Parameter, Property,
    Rate, ReportOn, ReportRule,
};
use crate::model::value::ValueType;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Report rules.
const PACE: RangeInclusive<Duration> = Duration::from_millis(10)..=WEEK;

/// Times after which a reading is too old, or its lack is an alarm.
const AGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30 * 86_400);

/// Delays of alarms, and times that a rate is measured over.
const DELAY: RangeInclusive<Duration> = Duration::from_millis(100)..=WEEK;

/// A polled property may miss two of its reads before it is stale, and this long if that is longer, so that one
/// lost answer or a few slow neighbours on the bus change nothing.
const PATIENCE: Duration = Duration::from_secs(10);

const LEVELS: [(&str, Level); 3] = [("info", Level::Info), ("alert", Level::Alert), ("fault", Level::Fault)];

const CONDITIONS: &str = "exactly one of above, below, equals, not_equals, rate, no_data";

/// When a property that is read so often is stale, where nothing else is said.
pub(super) fn stale_by_default(every: Duration) -> Duration {
    every.saturating_mul(3).max(PATIENCE)
}

/// What one place says of report rules: each key is laid over what was said before.
#[derive(Clone, Debug, Default)]
pub(super) struct ReportLayer {
    on: Option<ReportOn>,
    deadband: Option<f64>,
    percent: Option<f64>,
    heartbeat: Option<Lapse>,
    min_interval: Option<Lapse>,
}

impl ReportLayer {
    pub(super) fn over(&self, rule: &mut ReportRule) {
        rule.on = self.on.unwrap_or(rule.on);
        rule.deadband = self.deadband.unwrap_or(rule.deadband);
        rule.percent = self.percent.unwrap_or(rule.percent);
        rule.heartbeat = self.heartbeat.map_or(rule.heartbeat, Lapse::time);
        rule.min_interval = self.min_interval.map_or(rule.min_interval, Lapse::time);
    }
}

/// A table `report`.
pub(super) fn report(table: Table<'_>) -> ReportLayer {
    let words =
        [("change", ReportOn::Change), ("reading", ReportOn::Reading), ("heartbeat", ReportOn::Heartbeat)];
    let number = |entry: Entry<'_>| entry.read(|node| node.float("a number from 0", |n| n >= 0.0));
    let layer = ReportLayer {
        on: table.key("on").read(|node| node.word(&words)),
        deadband: number(table.key("deadband")),
        percent: number(table.key("deadband_percent")),
        heartbeat: table.key("heartbeat").read(|node| node.duration_or_off(PACE)),
        min_interval: table.key("min_interval").read(|node| node.duration_or_off(PACE)),
    };
    if layer.on == Some(ReportOn::Heartbeat) && layer.heartbeat.and_then(Lapse::time).is_none() {
        let problem = Problem::error(&table.key("on").spot(), "told by a heartbeat that is not set");
        table.report().add(problem.allowed("heartbeat with it, as in heartbeat = \"60s\""));
    }
    table.finish();
    layer
}

/// `stale_after`: a duration, or off.
pub(super) fn stale_after(node: &Node<'_>) -> Option<Lapse> {
    node.duration_or_off(AGE)
}

/// Warns of a property that is stale before it is read again.
pub(super) fn check_stale(table: &Table<'_>, spot: &Spot, stale: Option<Duration>, every: Option<Duration>) {
    if let Some((stale, every)) = stale.zip(every).filter(|(stale, every)| stale <= every) {
        let (stale, every) = (scalar::show_duration(stale), scalar::show_duration(every));
        let found = format!("stale after {stale} but read only every {every}");
        let problem = Problem::warning(spot, found);
        table.report().add(problem.hint("three times as long leaves room for an answer that is lost"));
    }
}

/// One alarm of a property of this type.
pub(super) fn alarm(table: Table<'_>, kind: ValueType) -> Option<Arc<AlarmRule>> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let name = table.key("name").read(Node::line);
    let layer = alarm_layer(&table, kind, true);
    table.finish();
    let mut rule = AlarmRule::new(id?, layer.condition.clone()?);
    rule.name = name.map_or(rule.name, Arc::from);
    layer.over(&mut rule);
    Some(Arc::new(rule))
}

/// What one place says of an alarm.
#[derive(Clone, Debug)]
pub(super) struct AlarmLayer {
    condition: Option<AlarmCondition>,
    hysteresis: Option<f64>,
    delay: Option<Lapse>,
    clear_delay: Option<Lapse>,
    level: Option<Level>,
    enabled: Option<bool>,
}

impl AlarmLayer {
    pub(super) fn over(&self, rule: &mut AlarmRule) {
        rule.condition = self.condition.clone().unwrap_or_else(|| rule.condition.clone());
        rule.hysteresis = self.hysteresis.unwrap_or(rule.hysteresis);
        rule.delay = self.delay.map_or(rule.delay, |delay| delay.time().unwrap_or_default());
        rule.clear_delay =
            self.clear_delay.map_or(rule.clear_delay, |delay| delay.time().unwrap_or_default());
        rule.level = self.level.unwrap_or(rule.level);
        rule.enabled = self.enabled.unwrap_or(rule.enabled);
    }
}

/// Everything of an alarm but its names.
pub(super) fn alarm_layer(table: &Table<'_>, kind: ValueType, required: bool) -> AlarmLayer {
    AlarmLayer {
        condition: condition(table, kind, required),
        hysteresis: table.key("hysteresis").read(|node| node.float("a number from 0", |width| width >= 0.0)),
        delay: table.key("delay").read(|node| node.duration_or_off(DELAY)),
        clear_delay: table.key("clear_delay").read(|node| node.duration_or_off(DELAY)),
        level: table.key("level").read(|node| node.word(&LEVELS)),
        enabled: table.key("enabled").read(Node::bool),
    }
}

fn condition(table: &Table<'_>, kind: ValueType, required: bool) -> Option<AlarmCondition> {
    let keys = ["above", "below", "equals", "not_equals", "rate", "no_data"];
    let [above, below, equals, not_equals, rate, no_data] = keys.map(|key| table.key(key));
    let numeric = matches!(kind, ValueType::Int | ValueType::Float);
    if let Some(limit) = [&above, &below, &rate].into_iter().find(|limit| limit.given() && !numeric) {
        let problem =
            Problem::error(&limit.spot(), format!("a limit for a property of type {}", kind.name()));
        table.report().add(problem.allowed("equals, not_equals, no_data"));
    }
    let all = [&above, &below, &equals, &not_equals, &rate, &no_data];
    match all.into_iter().filter(|entry| entry.given()).count() {
        0 if !required => return None,
        1 => {}
        _ => {
            table.report().add(Problem::error(&table.spot(), "no single condition").allowed(CONDITIONS));
            return None;
        }
    }
    let number = |entry: &Entry<'_>| entry.read(Node::number);
    let value = |entry: &Entry<'_>| entry.read(|node| node.value(kind));
    let any = number(&above)
        .map(AlarmCondition::Above)
        .or_else(|| number(&below).map(AlarmCondition::Below))
        .or_else(|| value(&equals).map(AlarmCondition::Equal))
        .or_else(|| value(&not_equals).map(AlarmCondition::NotEqual))
        .or_else(|| no_data.read(|node| node.duration(AGE)).map(AlarmCondition::NoData));
    any.or_else(|| table.table("rate").and_then(rate_limit).map(AlarmCondition::Rate))
}

/// `rate = { above = 2.0, per = "1m", over = "5m" }`
fn rate_limit(table: Table<'_>) -> Option<Rate> {
    let limits = [
        (table.key("above"), Direction::Up),
        (table.key("below"), Direction::Down),
        (table.key("beyond"), Direction::Both),
    ];
    let given: Vec<_> = limits.iter().filter(|(entry, _)| entry.given()).collect();
    let limit = if let [(entry, direction)] = given.as_slice() {
        entry.read(Node::number).map(|limit| (limit, *direction))
    } else {
        let problem = Problem::error(&table.spot(), "no single limit of a rate");
        table.report().add(problem.allowed(
            "exactly one of above (rising), below (falling, as in below = -2.0), beyond (either way)",
        ));
        None
    };
    let per = table.key("per").read(|node| node.duration(DELAY)).unwrap_or(Duration::from_secs(1));
    let over = table.key("over").read(|node| node.duration(DELAY)).unwrap_or(per);
    table.finish();
    limit.map(|(limit, direction)| Rate { direction, limit, per, over })
}

/// One event of a product, and how a device sends it by MQTT.
pub(super) fn event(
    table: Table<'_>,
    properties: &[Property],
    names: &[&str],
) -> Option<(EventType, Option<Occurrence>)> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let name = table.key("name").read(Node::line);
    let level = table.key("level").read(|node| node.word(&LEVELS)).unwrap_or(Level::Info);
    let when = table.table("when");
    let refusal = "a value of a property in an event that the device sends itself";
    let refusal = when.is_none().then_some((refusal, "when = { ... } with it"));
    let (mut params, carries) = carrying(&table, "params", properties, names, refusal);
    let when = when.and_then(|when| trigger(when, id.as_ref(), properties, names));
    let when = when.map(|when| EventTrigger { carries, ..when });
    let sent = table.table("mqtt");
    table.finish();
    let id = id?;
    if let Some(Change::Bits { .. }) = when.as_ref().map(|when| &when.change) {
        let own = [("bit", ValueType::Int), ("label", ValueType::Text), ("active", ValueType::Bool)];
        for (at, (name, kind)) in own.into_iter().enumerate() {
            if !params.iter().any(|param| *param.id == *name) {
                let param = Parameter { id: name.into(), kind, required: true, range: None };
                params.insert(at.min(params.len()), param);
            }
        }
    }
    let sent = sent.and_then(|table| mqtt::occurrence(table, &params));
    let name = name.map_or_else(|| Arc::clone(&id), Arc::from);
    Some((EventType { id, name, level, params, when }, sent))
}

/// Parameters of which some carry the value of a property. `refusal` says why none may, and what would be allowed.
pub(super) fn carrying(
    table: &Table<'_>,
    key: &'static str,
    properties: &[Property],
    names: &[&str],
    refusal: Option<(&str, &str)>,
) -> (Vec<Parameter>, Vec<(Arc<str>, usize)>) {
    let rows = table.tables(key);
    unique(table, &rows, key);
    let mut carries = Vec::new();
    let mut params = Vec::new();
    for row in rows {
        let source = row.key("property");
        let place = source.read(|node| place(node, properties, names, "so the parameter stays empty"));
        let spot = source.spot();
        if let Some((found, allowed)) = refusal.filter(|_| source.given()) {
            table.report().add(Problem::error(&spot, found).allowed(allowed));
        }
        let Some(param) = parameter(row) else { continue };
        if let Some((at, property)) = place {
            if !carries_well(property.kind, param.kind) {
                let found = format!(
                    "{} is of type {}, the parameter of type {}",
                    property.id,
                    property.kind.name(),
                    param.kind.name()
                );
                table.report().add(Problem::error(&spot, found).allowed("the same type"));
            }
            carries.push((Arc::clone(&param.id), at));
        }
        params.push(param);
    }
    (params, carries)
}

/// Whether a parameter of this type can carry a property of that type.
fn carries_well(property: ValueType, param: ValueType) -> bool {
    property == param || (property == ValueType::Enum && param == ValueType::Int)
}

/// A property by its name, and what becomes of the rest if there is none.
fn place<'p>(
    node: &Node<'_>,
    properties: &'p [Property],
    names: &[&str],
    consequence: &str,
) -> Option<(usize, &'p Property)> {
    let name = node.text()?;
    // A property that stands there, but could not be read, is reported at its own place.
    if !names.contains(&name) {
        let found = format!("no property {name:?}, {consequence}");
        let problem = Problem::warning(&node.spot(), found).allowed(names.join(", "));
        node.report().add(problem.meant(name, names));
    }
    properties.iter().enumerate().find(|(_, property)| *property.id == *name)
}

fn trigger(
    table: Table<'_>,
    event: Option<&Arc<str>>,
    properties: &[Property],
    names: &[&str],
) -> Option<EventTrigger> {
    let entry = table.key("property").required("the id of a property of this product");
    let place = entry.read(|node| place(node, properties, names, "so the event never fires"));
    let initial = table.key("initial").read(Node::bool).unwrap_or_default();
    let change = change(&table, event, place.map(|(_, property)| property));
    table.finish();
    Some(EventTrigger { property: place?.0, change: change?, initial, carries: Vec::new() })
}

fn change(table: &Table<'_>, event: Option<&Arc<str>>, property: Option<&Property>) -> Option<Change> {
    let (on, equals, bit, bits, label) =
        (table.key("on"), table.key("equals"), table.key("bit"), table.key("bits"), table.key("label"));
    let problem = |entry: &Entry<'_>, found: String, allowed: &str| {
        table.report().add(Problem::error(&entry.spot(), found).allowed(allowed));
    };
    if let Some(entry) = [&bit, &bits].into_iter().find(|entry| entry.given()) {
        let whole = |property: &Property| matches!(property.kind, ValueType::Int | ValueType::Enum);
        if let Some(property) = property.filter(|property| !whole(property)) {
            problem(entry, format!("bits of a property of type {}", property.kind.name()), "int, enum");
        }
    }
    if label.given() && !bit.given() {
        problem(&label, "a label without a bit".to_owned(), "bit with it, or bits = { 0 = \"...\" }");
    }
    match (equals.given(), bit.given(), bits.given()) {
        (true, false, false) => {
            if on.given() {
                problem(&on, "on has no meaning beside equals".to_owned(), "one of them");
            }
            equals.read(|node| node.value(property?.kind)).map(Change::Becomes)
        }
        (false, true, false) => {
            let label = label.read(Node::line).map(Arc::from).or_else(|| event.cloned());
            let bit = bit.read(|node| node.int(0..=63));
            Some(Change::Bits { labels: vec![(bit?, label?)], edge: edge(&on)? })
        }
        (false, false, true) => {
            let labels = table.table("bits").as_ref().map(labelled).unwrap_or_default();
            Some(Change::Bits { labels, edge: edge(&on)? })
        }
        (false, false, false) => {
            let words = [("rising", Change::Rises), ("falling", Change::Falls), ("change", Change::Differs)];
            let known: Vec<(&str, usize)> =
                words.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
            let at = on
                .required("equals = the value that fires the event, on = \"change\", bit or bits")
                .read(|node| node.word(&known))?;
            let ordered = |property: &Property| !matches!(property.kind, ValueType::Text | ValueType::Object);
            let (_, change) = words.into_iter().nth(at)?;
            if let Some(property) = property.filter(|property| !ordered(property)) {
                if change != Change::Differs {
                    let found =
                        format!("a property of type {} neither rises nor falls", property.kind.name());
                    problem(&table.key("on"), found, "change");
                }
            }
            Some(change)
        }
        _ => {
            let found = "equals, bit and bits stand together".to_owned();
            problem(&table.key("property"), found, "one of them");
            None
        }
    }
}

fn edge(on: &Entry<'_>) -> Option<Edge> {
    let words = [("rising", Edge::Rising), ("falling", Edge::Falling), ("change", Edge::Both)];
    if on.given() { on.read(|node| node.word(&words)) } else { Some(Edge::Rising) }
}

/// `{ 0 = "over-voltage", 1 = "over-current" }`
fn labelled(table: &Table<'_>) -> Vec<(u8, Arc<str>)> {
    let mut labels: Vec<(u8, Arc<str>)> = Vec::new();
    for (key, node) in table.pairs() {
        match key.parse().ok().filter(|bit| *bit < 64) {
            Some(bit) => labels.extend(node.line().map(|label| (bit, label.into()))),
            None => node.report().add(
                Problem::error(&node.spot(), "no number of a bit")
                    .allowed("0 to 63 with what it means, as in { 0 = \"over-voltage\" }"),
            ),
        }
    }
    if labels.is_empty() {
        table.report().add(Problem::error(&table.spot(), "no bit").allowed("at least one"));
    }
    labels.sort_by_key(|(bit, _)| *bit);
    labels
}

//! `[product.modbus]`: what a product says once for all its registers, and what its devices are particular about.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::node::Node;
use super::super::super::problem::{Problem, Report, Spot};
use super::super::super::reader::Table;
use super::super::EVERY;
use super::{ModbusMap, place, step};
use crate::drivers::modbus::map::{Mark, Order, Point, Step, Table as Registers, Wanted, WritePolicy};
use crate::model::product::Property;
use crate::model::value::{Value, ValueType};

const DEFAULT_EVERY: Duration = Duration::from_secs(1);
/// More often a check would cost more than it tells.
const SETUP_CHECK: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7 * 86_400);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE_AFTER_CONNECT: Duration = Duration::from_secs(60);

/// How addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// As they travel.
    Zero,
    /// Counted from one.
    One,
    /// As reference numbers, whose first digit names the table: 40001 or 400001 is the first holding register.
    Reference,
}

/// What a product says once for all its registers.
#[derive(Debug)]
pub(in super::super::super) struct Settings {
    max_gap: u16,
    max_span: u16,
    pause: Duration,
    pause_after_connect: Duration,
    pub(super) base: Base,
    /// Whether the product says itself that addresses stand as they travel, so that one that looks odd is meant so.
    pub(super) meant: bool,
    pub(super) order: Order,
    pub(super) every: Duration,
    pub(super) write: WritePolicy,
    pub(super) mask_write: bool,
    setup: Vec<Step>,
    setup_check: Option<Duration>,
    /// The property, and where its name stands.
    uptime: Option<(Arc<str>, Spot)>,
    identify: Vec<Mark>,
    /// The table to read instead, by table.
    pub(super) reads: Vec<(Registers, Registers)>,
}

impl Settings {
    /// The whole map, from what stands at each property and function.
    pub(in super::super::super) fn map(
        &self,
        report: &Report,
        properties: &[Property],
        points: Vec<Option<Point>>,
        functions: Vec<Vec<Step>>,
    ) -> ModbusMap {
        ModbusMap {
            setup: self.setup.clone(),
            setup_check: self.setup_check,
            uptime: self.uptime.as_ref().and_then(|named| counter(report, properties, &points, named)),
            identify: self.identify.clone(),
            max_gap: self.max_gap,
            max_span: self.max_span,
            pause: self.pause,
            pause_after_connect: self.pause_after_connect,
            ..ModbusMap::new(points, functions)
        }
    }

    /// The table that a table is read from.
    pub(super) fn read_table(&self, registers: Registers) -> Registers {
        self.reads.iter().find(|(table, _)| *table == registers).map_or(registers, |(_, read)| *read)
    }
}

pub(in super::super::super) fn settings(table: Option<Table<'_>>) -> Settings {
    let plain = ModbusMap::new(Vec::new(), Vec::new());
    let mut settings = Settings {
        max_gap: plain.max_gap,
        max_span: plain.max_span,
        pause: plain.pause,
        pause_after_connect: plain.pause_after_connect,
        base: Base::Zero,
        meant: false,
        order: Order::default(),
        every: DEFAULT_EVERY,
        write: WritePolicy::default(),
        mask_write: false,
        setup: Vec::new(),
        setup_check: None,
        uptime: None,
        identify: Vec::new(),
        reads: Vec::new(),
    };
    let Some(table) = table else { return settings };
    let read = |key, range| table.key(key).read(|node| node.int(range));
    settings.max_gap = read("max_gap", 0..=124).unwrap_or(settings.max_gap);
    settings.max_span = read("max_span", 1..=125).unwrap_or(settings.max_span);
    if table.key("grouped_reads").read(Node::bool) == Some(false) {
        (settings.max_gap, settings.max_span) = (0, 0);
    }
    let given = table.key("address_base").read(base);
    settings.meant = given == Some(Base::Zero);
    settings.base = given.unwrap_or(settings.base);
    let pause = |key, most| table.key(key).read(|node| node.duration(Duration::ZERO..=most));
    settings.pause = pause("pause", LONGEST_PAUSE).unwrap_or_default();
    settings.pause_after_connect =
        pause("pause_after_connect", LONGEST_PAUSE_AFTER_CONNECT).unwrap_or_default();
    settings.order = table.key("order").read(|node| node.word(&place::ORDERS)).unwrap_or_default();
    settings.every = table.key("every").read(|node| node.duration(EVERY)).unwrap_or(settings.every);
    let words =
        [("auto", WritePolicy::Auto), ("single", WritePolicy::Single), ("multiple", WritePolicy::Multiple)];
    settings.write = table.key("write").read(|node| node.word(&words)).unwrap_or_default();
    settings.mask_write = table.key("mask_write").read(Node::bool).unwrap_or_default();
    if let Some(functions) = table.table("read_function") {
        let mut read = |key, registers| {
            let function = functions.key(key).read(place::read_function(registers));
            settings.reads.extend(function.map(|read| (registers, read)));
        };
        read("coil", Registers::Coil);
        read("discrete", Registers::Discrete);
        read("input", Registers::Input);
        read("holding", Registers::Holding);
        functions.finish();
    }
    // Read last, since the steps go by the settings above.
    let steps = table.tables("setup").into_iter().filter_map(|row| step(row, &settings, &[])).collect();
    settings.setup = steps;
    settings.identify = table.tables("identify").into_iter().filter_map(|row| mark(row, &settings)).collect();
    let check = table.key("setup_check");
    settings.setup_check = check.read(|node| node.duration(SETUP_CHECK));
    let uptime = table.key("uptime");
    settings.uptime = uptime.read(|node| Some((Arc::from(node.text()?), node.spot())));
    for entry in [check, uptime].iter().filter(|entry| entry.given() && !table.key("setup").given()) {
        let problem = Problem::warning(&entry.spot(), "has no effect on devices that are not set up");
        table.report().add(problem.hint("give what they are told in setup = [...]"));
    }
    table.finish();
    settings
}

/// The property that counts up from the device's start.
fn counter(
    report: &Report,
    properties: &[Property],
    points: &[Option<Point>],
    (id, spot): &(Arc<str>, Spot),
) -> Option<usize> {
    let is_one = |at: usize| {
        let numeric = |property: &Property| {
            matches!(property.kind, ValueType::Int | ValueType::Float) && property.access.readable()
        };
        properties.get(at).is_some_and(numeric) && points.get(at).is_some_and(Option::is_some)
    };
    let found = properties.iter().position(|property| property.id == *id);
    if let Some(at) = found.filter(|at| is_one(*at)) {
        return Some(at);
    }
    let words = if found.is_some() { "is no number that is read on Modbus" } else { "is no property" };
    let ids: Vec<&str> = properties.iter().map(|property| &*property.id).collect();
    let problem = Problem::error(spot, format!("{id:?} {words}"))
        .allowed("the id of a property of this product that is an int or float in registers");
    report.add(if found.is_none() { problem.meant(id, &ids) } else { problem });
    None
}

/// A sign by which a scan knows the product.
fn mark(table: Table<'_>, settings: &Settings) -> Option<Mark> {
    let says = table.key("says");
    if says.given() {
        let words = says.read(Node::line);
        table.finish();
        return words.map(|words| Mark::Says(words.into()));
    }
    let (equals, range, starts) = (table.key("equals"), table.key("range"), table.key("starts"));
    let found = match [&equals, &range, &starts].iter().filter(|entry| entry.given()).count() {
        0 => Some("a place without a value that tells the product"),
        1 => None,
        _ => Some("more than one of equals, range and starts"),
    };
    if let Some(found) = found {
        let problem = Problem::error(&table.spot(), found);
        table.report().add(problem.allowed("equals, range or starts beside a place, or says alone"));
    }
    let range = range.read(Node::range);
    let values = equals.read(Node::scalars);
    let is_text = starts.given();
    let starts = starts.read(|node| {
        let word = |node: &Node<'_>| node.line().map(Arc::<str>::from);
        if node.is_list() { node.list_of(word) } else { word(node).map(|word| vec![word]) }
    });
    let kind = match values.as_deref() {
        Some([Value::Bool(_), ..]) => ValueType::Bool,
        Some([Value::Text(_), ..]) => ValueType::Text,
        Some(_) | None if is_text => ValueType::Text,
        Some(_) | None => ValueType::Float,
    };
    let point = place::place(&table, settings, kind);
    table.finish();
    let wanted = values
        .map(Wanted::OneOf)
        .or_else(|| range.map(|(low, high)| Wanted::Range(low, high)))
        .or_else(|| starts.map(Wanted::StartsWith));
    Some(Mark::Place { point: point?, kind, wanted: wanted? })
}

fn base(node: &Node<'_>) -> Option<Base> {
    const ALLOWED: &str =
        "0 (as addresses travel), 1 (counted from one), \"reference\" (40001 is the first holding register)";
    if node.is_word("reference") {
        return Some(Base::Reference);
    }
    node.float(ALLOWED, |base| base == 0.0 || (base - 1.0).abs() < f64::EPSILON)
        .map(|base| if base == 0.0 { Base::Zero } else { Base::One })
}

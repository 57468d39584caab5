//! Reads how a product lies in Modbus registers: `[product.modbus]`, `modbus = { ... }` of a property and
//! `modbus = [{ ... }]` of a function.
//!
//! What a place and its content are is read in `place.rs`; here is what belongs to a property or a step besides.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::node::Node;
use super::super::problem::{Problem, Spot};
use super::super::product::{constant, is_numeric};
use super::super::reader::{Entry, Table};
use super::super::scalar;
use super::{EVERY, warn_unless_written, write_interval};
use crate::drivers::modbus::map::{Data, ModbusMap, Operand, Point, Step, Table as Registers, WritePolicy};
use crate::model::product::{Access, Parameter, Property};
use crate::model::value::{Value, ValueType};

mod place;
mod settings;

pub(in super::super) use settings::{Settings, settings};

const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// A property's place before the other properties are known.
#[derive(Debug)]
pub(in super::super) struct Draft {
    point: Point,
    /// The property whose register holds its factor, and where its name stands.
    factor: Option<(Arc<str>, Spot)>,
}

impl Draft {
    /// How often it is read.
    pub(in super::super) fn every(&self) -> Duration {
        self.point.every
    }
}

/// The place of a property.
pub(in super::super) fn point(
    table: Table<'_>,
    settings: &Settings,
    kind: ValueType,
    access: Access,
) -> Option<Draft> {
    if !is_numeric(kind) && kind != ValueType::Text {
        let found = format!("a property of type {} on Modbus", kind.name());
        let problem = Problem::error(&table.spot(), found).allowed("bool, int, float, string, enum");
        table.report().add(problem);
    }
    let place = place::place(&table, settings, kind);
    let every = table.key("every").read(|node| node.duration(EVERY));
    let verify = table.key("verify");
    for entry in [&verify, &table.key("write")] {
        warn_unless_written(entry, access);
    }
    let verify = verify.read(Node::bool).unwrap_or_else(|| access.readable());
    let write_interval = write_interval(&table, access);
    let writes = place.as_ref().map(|point| is_writable(point.table));
    if access.writable() && writes == Some(false) {
        let problem = Problem::error(&table.key("table").spot(), "a table that cannot be written");
        table.report().add(problem.allowed("coil, holding, or access = \"r\""));
    }
    let mut by_name = None;
    let entry = table.key("scale_from");
    let by_address = entry.read(|node| match node.quiet_text() {
        Some(name) => {
            by_name = Some((Arc::from(name), node.spot()));
            None
        }
        None => place::register(&entry, settings, place.as_ref()?.read),
    });
    table.finish();
    let point = Point {
        every: every.unwrap_or(settings.every),
        verify,
        write_interval,
        factor: by_address,
        ..place?
    };
    if by_address.is_some() {
        check_factor(&entry, &point);
    }
    Some(Draft { point, factor: by_name })
}

/// Says what is wrong with a factor's register.
fn check_factor(entry: &Entry<'_>, point: &Point) {
    if let Some(found) = wrong_factor(point) {
        entry.report().add(Problem::error(&entry.spot(), found).allowed(FACTOR));
    }
}

const FACTOR: &str =
    "the id of another property, or the address of a register, within 125 registers of the same table";

fn wrong_factor(point: &Point) -> Option<&'static str> {
    if point.data.width() == 0 || point.data == Data::Bool {
        return Some("a scale factor for something that is no number");
    }
    if point.read.is_bits() {
        return Some("a scale factor in a table of bits");
    }
    point.span().is_none().then_some("too far from the property to be read together")
}

/// The places of all properties, now that they know of each other; warns of two that take the same registers for
/// different things.
pub(in super::super) fn points(
    table: &Table<'_>,
    properties: &[Property],
    drafts: Vec<Option<Draft>>,
) -> Vec<Option<Point>> {
    let ids: Vec<&str> = properties.iter().map(|property| &*property.id).collect();
    let places: Vec<Option<Point>> =
        drafts.iter().map(|draft| draft.as_ref().map(|draft| draft.point.clone())).collect();
    let resolve = |draft: Draft| {
        let Draft { mut point, factor } = draft;
        let Some((name, spot)) = factor else { return point };
        let found = ids.iter().position(|id| *id == &*name).and_then(|at| places.get(at)?.as_ref());
        let wrong = match found {
            None => Some(format!("no property {name:?} on Modbus")),
            Some(found) if found.read != point.read => Some(format!("{name} stands in another table")),
            Some(found) if !matches!(found.data, Data::I16 | Data::U16) => {
                Some(format!("{name} is no register of 16 bits"))
            }
            Some(found) => {
                point.factor = Some(found.address);
                wrong_factor(&point).map(str::to_owned)
            }
        };
        if let Some(wrong) = wrong {
            let problem = Problem::error(&spot, wrong).allowed(FACTOR);
            table.report().add(if found.is_none() { problem.meant(&name, &ids) } else { problem });
        }
        point
    };
    let points: Vec<Option<Point>> = drafts.into_iter().map(|draft| draft.map(resolve)).collect();
    check_overlaps(table, properties, &points);
    points
}

/// One step of a function.
pub(in super::super) fn step(table: Table<'_>, settings: &Settings, inputs: &[Parameter]) -> Option<Step> {
    let wait = table.key("wait");
    if wait.given() {
        let wait = wait.read(|node| node.duration(WAIT));
        table.finish();
        return wait.map(Step::Wait);
    }
    let value = table.key("value").required("a number, true, false, text, or an input as in \"{code}\"");
    let kind = value.read(|node| Some(step_kind(node, inputs))).unwrap_or(ValueType::Float);
    let place = place::place(&table, settings, kind);
    if place.as_ref().is_some_and(|point| !is_writable(point.table)) {
        let problem = Problem::error(&table.key("table").spot(), "a table that cannot be written");
        table.report().add(problem.allowed("coil, holding"));
    }
    let operand = value.read(|node| operand(node, inputs, place.as_ref()));
    table.finish();
    Some(Step::Write { point: place?, value: operand? })
}

/// The type of what a step writes.
fn step_kind(node: &Node<'_>, inputs: &[Parameter]) -> ValueType {
    if node.is_bool() {
        return ValueType::Bool;
    }
    let Some(text) = node.quiet_text() else { return ValueType::Float };
    let is_named =
        |input: &&Parameter| text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) == Some(&*input.id);
    match inputs.iter().find(is_named) {
        // A switch may be written to a register of any type.
        Some(input) if input.kind != ValueType::Bool => input.kind,
        None if scalar::placeholders(text).is_empty() => ValueType::Text,
        Some(_) | None => ValueType::Float,
    }
}

fn operand(node: &Node<'_>, inputs: &[Parameter], place: Option<&Point>) -> Option<Operand> {
    let is_text = place.is_some_and(|point| matches!(point.data, Data::Text { .. }));
    let template = node.quiet_text().map(|text| (text, scalar::placeholders(text)));
    let template = template.filter(|(_, names)| !is_text || !names.is_empty());
    if let Some((text, names)) = template {
        let input = match names.as_slice() {
            [name] if text.len() == name.len() + 2 => inputs.iter().find(|input| *input.id == **name),
            _ => None,
        };
        let known: Vec<String> = inputs.iter().map(|input| format!("\"{{{}}}\"", input.id)).collect();
        let Some(input) = input else {
            node.wrong(format!("a number, true, false, or an input of this function: {}", known.join(", ")));
            return None;
        };
        if !is_numeric(input.kind) && !is_text {
            node.wrong_with("an input of type bool, int, float", Some(format!("{} is none", input.id)));
        }
        return Some(Operand::Input(Arc::clone(&input.id)));
    }
    let value = if is_text { node.value(ValueType::Text) } else { constant(node) }?;
    if let Some(point) = place {
        if !fits(point, &value) {
            node.wrong("a value that fits the registers");
        }
    }
    Some(Operand::Constant(value))
}

fn is_writable(registers: Registers) -> bool {
    matches!(registers, Registers::Coil | Registers::Holding)
}

/// Whether a constant can stand in the registers.
fn fits(point: &Point, value: &Value) -> bool {
    // Whatever stands in the other bits now.
    let point = Point { write: WritePolicy::Mask, ..point.clone() };
    point.encode(value, None).is_ok()
}

fn check_overlaps(table: &Table<'_>, properties: &[Property], points: &[Option<Point>]) {
    let placed: Vec<_> = properties
        .iter()
        .zip(points)
        .filter_map(|(property, point)| {
            let point = point.as_ref()?;
            Some((property, point, point.place()?))
        })
        .collect();
    for (at, (property, point, span)) in placed.iter().enumerate() {
        let clash = placed.iter().take(at).find(|(_, other, taken)| {
            let apart = taken.table() != span.table()
                || u32::from(span.address()) >= taken.end()
                || u32::from(taken.address()) >= span.end();
            let same =
                other.address == point.address && other.data == point.data && other.order == point.order;
            // Parts of registers share them by their nature.
            let parts = other.bits.is_some() || point.bits.is_some();
            !apart && !same && !parts
        });
        if let Some((other, _, taken)) = clash {
            let found = format!("{} ({span}) overlaps {} ({taken})", property.id, other.id);
            table.report().add(Problem::warning(&table.spot(), found));
        }
    }
}

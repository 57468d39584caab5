//! Reads how a product lies in Modbus registers: `[product.modbus]`, `modbus = { ... }` of a property and
//! `modbus = [{ ... }]` of a function.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::product::{constant, is_numeric};
use super::super::reader::Table;
use super::super::scalar;
use crate::drivers::modbus::map::{
    Data, ModbusMap, Operand, Order, Point, Step, Table as Registers, WritePolicy,
};
use crate::model::product::{Access, Parameter, Property};
use crate::model::value::{Value, ValueType};

/// A gap of this many registers takes about as long on the wire as the frame that a second read would need.
const DEFAULT_GAP: u16 = 8;

const DEFAULT_EVERY: Duration = Duration::from_secs(1);
const EVERY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(7 * 86_400);
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

const TABLES: [(&str, Registers); 4] = [
    ("coil", Registers::Coil),
    ("discrete", Registers::Discrete),
    ("input", Registers::Input),
    ("holding", Registers::Holding),
];

const TYPES: [(&str, Data); 9] = [
    ("bool", Data::Bool),
    ("u16", Data::U16),
    ("i16", Data::I16),
    ("u32", Data::U32),
    ("i32", Data::I32),
    ("f32", Data::F32),
    ("u64", Data::U64),
    ("i64", Data::I64),
    ("f64", Data::F64),
];

/// What a product says once for all its registers.
#[derive(Debug)]
pub(in super::super) struct Settings {
    max_gap: u16,
    max_span: u16,
    base: u16,
    setup: Vec<Step>,
}

impl Settings {
    /// The whole map, from what stands at each property and function.
    pub(in super::super) fn map(
        &self,
        properties: Vec<Option<Point>>,
        functions: Vec<Vec<Step>>,
    ) -> ModbusMap {
        ModbusMap {
            properties,
            functions,
            setup: self.setup.clone(),
            max_gap: self.max_gap,
            max_span: self.max_span,
        }
    }
}

pub(in super::super) fn settings(table: Option<Table<'_>>) -> Settings {
    let mut settings = Settings { max_gap: DEFAULT_GAP, max_span: 125, base: 0, setup: Vec::new() };
    if let Some(table) = table {
        let read = |key, range| table.key(key).read(|node| node.int(range));
        settings.max_gap = read("max_gap", 0..=124).unwrap_or(settings.max_gap);
        settings.max_span = read("max_span", 1..=125).unwrap_or(settings.max_span);
        settings.base = read("address_base", 0..=1).unwrap_or(settings.base);
        let steps = table.tables("setup").into_iter().filter_map(|row| step(row, &settings, &[])).collect();
        settings.setup = steps;
        table.finish();
    }
    settings
}

/// The place of a property.
pub(in super::super) fn point(
    table: Table<'_>,
    settings: &Settings,
    kind: ValueType,
    access: Access,
) -> Option<Point> {
    if !is_numeric(kind) {
        let found = format!("a property of type {} on Modbus", kind.name());
        let problem = Problem::error(&table.spot(), found).allowed("bool, int, float, enum");
        table.report().add(problem);
    }
    let place = place(&table, settings, kind == ValueType::Bool);
    let every = table.key("every").read(|node| node.duration(EVERY));
    let verify = table.key("verify");
    let write = table.key("write");
    if !access.writable() {
        for entry in [&verify, &write] {
            if entry.given() {
                let problem =
                    Problem::warning(&entry.spot(), "has no effect on a property that is only read");
                table.report().add(problem.hint("did you mean access = \"rw\"?"));
            }
        }
    }
    let verify = verify.read(Node::bool).unwrap_or_else(|| access.readable());
    let writes = place.as_ref().map(|point| is_writable(point.table));
    if access.writable() && writes == Some(false) {
        let problem = Problem::error(&table.key("table").spot(), "a table that cannot be written");
        table.report().add(problem.allowed("coil, holding, or access = \"r\""));
    }
    table.finish();
    place.map(|point| Point { every: every.unwrap_or(DEFAULT_EVERY), verify, ..point })
}

/// One step of a function.
pub(in super::super) fn step(table: Table<'_>, settings: &Settings, inputs: &[Parameter]) -> Option<Step> {
    let wait = table.key("wait");
    if wait.given() {
        let wait = wait.read(|node| node.duration(WAIT));
        table.finish();
        return wait.map(Step::Wait);
    }
    let value = table.key("value").required("a number, true, false, or an input as in \"{code}\"");
    let boolean = value.read(|node| Some(node.is_bool())).unwrap_or_default();
    let place = place(&table, settings, boolean);
    if place.as_ref().is_some_and(|point| !is_writable(point.table)) {
        let problem = Problem::error(&table.key("table").spot(), "a table that cannot be written");
        table.report().add(problem.allowed("coil, holding"));
    }
    let operand = value.read(|node| operand(node, inputs, place.as_ref()));
    table.finish();
    Some(Step::Write { point: place?, value: operand? })
}

fn operand(node: &Node<'_>, inputs: &[Parameter], place: Option<&Point>) -> Option<Operand> {
    let template = node.quiet_text().map(|text| (text, scalar::placeholders(text)));
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
        if !is_numeric(input.kind) {
            node.wrong_with("an input of type bool, int, float", Some(format!("{} is none", input.id)));
        }
        return Some(Operand::Input(Arc::clone(&input.id)));
    }
    let value = constant(node)?;
    if let Some(point) = place {
        if !fits(point, &value) {
            node.wrong("a value that fits the registers");
        }
    }
    Some(Operand::Constant(value))
}

/// Table, address, type, order and scale, which properties and steps have in common.
fn place(table: &Table<'_>, settings: &Settings, boolean: bool) -> Option<Point> {
    let registers =
        table.key("table").required("coil, discrete, input, holding").read(|node| node.word(&TABLES));
    let address = address(table, settings, registers);
    let data = data(table, registers, boolean);
    let orders = [("ABCD", Order::Abcd), ("CDAB", Order::Cdab), ("BADC", Order::Badc), ("DCBA", Order::Dcba)];
    let order = table.key("order").read(|node| node.word(&orders));
    let scale = table.key("scale").read(|node| node.float("a number other than 0", |scale| scale != 0.0));
    let offset = table.key("offset").read(Node::number);
    let words =
        [("auto", WritePolicy::Auto), ("single", WritePolicy::Single), ("multiple", WritePolicy::Multiple)];
    let write = table.key("write").read(|node| node.word(&words));
    let point = Point {
        table: registers?,
        address: address?,
        data: data?,
        order: order.unwrap_or_default(),
        scale: scale.unwrap_or(1.0),
        offset: offset.unwrap_or_default(),
        every: DEFAULT_EVERY,
        write: write.unwrap_or_default(),
        verify: false,
    };
    if point.span().is_none() {
        let found = format!("{} registers from {} reach beyond 65535", point.data.count(), point.address);
        table.report().add(Problem::error(&table.key("address").spot(), found));
    }
    Some(point)
}

fn address(table: &Table<'_>, settings: &Settings, registers: Option<Registers>) -> Option<u16> {
    let base = i64::from(settings.base);
    let entry = table.key("address").required("the register's address");
    let written: i64 = entry.read(|node| node.int(base..=base + 65_535))?;
    // Manuals number registers from 30001 and 40001, where the digit stands for the table and is not transmitted.
    let reference = match registers {
        Some(Registers::Input) => Some(30_001),
        Some(Registers::Holding) => Some(40_001),
        Some(Registers::Coil | Registers::Discrete) | None => None,
    };
    let reference = reference.filter(|first| (*first..*first + 9999).contains(&written));
    if let Some(first) = reference {
        let found = format!("{written} looks like a register number of a manual");
        let hint = format!("as an address it would be {}", written - first + base);
        table.report().add(Problem::warning(&entry.spot(), found).hint(hint));
    }
    u16::try_from(written - base).ok()
}

fn data(table: &Table<'_>, registers: Option<Registers>, boolean: bool) -> Option<Data> {
    let entry = table.key("type");
    let found = entry.read(|node| node.word(&TYPES));
    let bits = registers.is_some_and(Registers::is_bits);
    if bits && found.is_some_and(|data| data != Data::Bool) {
        let problem = Problem::error(&entry.spot(), "a register type in a table of bits");
        table.report().add(problem.allowed("bool, or nothing"));
    }
    if bits || (boolean && !entry.given()) {
        return Some(Data::Bool);
    }
    if registers.is_some() && !entry.given() {
        let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
        table.report().add(Problem::error(&entry.spot(), "missing").allowed(names.join(", ")));
    }
    found
}

fn is_writable(registers: Registers) -> bool {
    matches!(registers, Registers::Coil | Registers::Holding)
}

/// Whether a constant can stand in the registers.
fn fits(point: &Point, value: &Value) -> bool {
    let Some(number) = value.as_f64() else { return false };
    let raw = (number - point.offset) / point.scale;
    let (low, high) = match point.data {
        Data::Bool => (0.0, 1.0),
        Data::U16 => (0.0, f64::from(u16::MAX)),
        Data::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        Data::U32 => (0.0, f64::from(u32::MAX)),
        Data::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Data::F32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
        Data::U64 => (0.0, 18_446_744_073_709_551_615.0),
        Data::I64 => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_807.0),
        Data::F64 => (f64::MIN, f64::MAX),
    };
    (low..=high).contains(&raw)
}

/// Warns of two properties that take the same registers for different things.
pub(in super::super) fn check_overlaps(table: &Table<'_>, properties: &[Property], points: &[Option<Point>]) {
    let placed: Vec<_> = properties
        .iter()
        .zip(points)
        .filter_map(|(property, point)| {
            let point = point.as_ref()?;
            Some((property, point, point.span()?))
        })
        .collect();
    for (at, (property, point, span)) in placed.iter().enumerate() {
        let clash = placed.iter().take(at).find(|(_, other, taken)| {
            let apart = taken.table() != span.table()
                || u32::from(span.address()) >= taken.end()
                || u32::from(taken.address()) >= span.end();
            let same =
                other.address == point.address && other.data == point.data && other.order == point.order;
            !apart && !same
        });
        if let Some((other, _, taken)) = clash {
            let found = format!("{} ({span}) overlaps {} ({taken})", property.id, other.id);
            table.report().add(Problem::warning(&table.spot(), found));
        }
    }
}

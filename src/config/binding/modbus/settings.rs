//! `[product.modbus]`: what a product says once for all its registers, and what its devices are particular about.

use std::time::Duration;

use super::super::super::node::Node;
use super::super::super::reader::Table;
use super::super::EVERY;
use super::{ModbusMap, place, step};
use crate::drivers::modbus::map::{Order, Point, Step, Table as Registers, WritePolicy};

/// A gap of this many registers takes about as long on the wire as the frame that a second read would need.
const DEFAULT_GAP: u16 = 8;

const DEFAULT_EVERY: Duration = Duration::from_secs(1);
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
    /// The table to read instead, by table.
    pub(super) reads: Vec<(Registers, Registers)>,
}

impl Settings {
    /// The whole map, from what stands at each property and function.
    pub(in super::super::super) fn map(
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
            pause: self.pause,
            pause_after_connect: self.pause_after_connect,
        }
    }

    /// The table that a table is read from.
    pub(super) fn read_table(&self, registers: Registers) -> Registers {
        self.reads.iter().find(|(table, _)| *table == registers).map_or(registers, |(_, read)| *read)
    }
}

pub(in super::super::super) fn settings(table: Option<Table<'_>>) -> Settings {
    let mut settings = Settings {
        max_gap: DEFAULT_GAP,
        max_span: 125,
        pause: Duration::ZERO,
        pause_after_connect: Duration::ZERO,
        base: Base::Zero,
        meant: false,
        order: Order::default(),
        every: DEFAULT_EVERY,
        write: WritePolicy::default(),
        mask_write: false,
        setup: Vec::new(),
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
    table.finish();
    settings
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

//! Where something stands in registers and what it is there: table, address, type, order, bits and scale, which
//! properties and the steps of functions have in common.

use super::super::super::guess::did_you_mean;
use super::super::super::node::Node;
use super::super::super::problem::Problem;
use super::super::super::product::is_numeric;
use super::super::super::reader::{Entry, Table};
use super::settings::{Base, Settings};
use crate::drivers::modbus::map::{Bits, Chars, Data, Order, Point, Table as Registers, WritePolicy};
use crate::model::value::{Value, ValueType};

const TABLES: [(&str, Registers); 4] = [
    ("coil", Registers::Coil),
    ("discrete", Registers::Discrete),
    ("input", Registers::Input),
    ("holding", Registers::Holding),
];

/// `None` is text, whose length stands beside it.
const TYPES: [(&str, Option<Data>); 17] = [
    ("bool", Some(Data::Bool)),
    ("u16", Some(Data::U16)),
    ("i16", Some(Data::I16)),
    ("u24", Some(Data::U24)),
    ("i24", Some(Data::I24)),
    ("u32", Some(Data::U32)),
    ("i32", Some(Data::I32)),
    ("u48", Some(Data::U48)),
    ("i48", Some(Data::I48)),
    ("u64", Some(Data::U64)),
    ("i64", Some(Data::I64)),
    ("f32", Some(Data::F32)),
    ("f64", Some(Data::F64)),
    ("bcd16", Some(Data::Bcd16)),
    ("bcd32", Some(Data::Bcd32)),
    ("bcd64", Some(Data::Bcd64)),
    ("string", None),
];

/// Orders that mean something for every length.
pub(super) const ORDERS: [(&str, Order); 4] =
    [("ABCD", Order::Abcd), ("CDAB", Order::Cdab), ("BADC", Order::Badc), ("DCBA", Order::Dcba)];

/// Most registers of a text: as many as one write can carry.
const TEXT_REGISTERS: i64 = 123;

/// Everything that stands at a place. `kind` is the type of the property or of the value that a step writes.
pub(super) fn place(table: &Table<'_>, settings: &Settings, kind: ValueType) -> Option<Point> {
    let registers =
        table.key("table").required("coil, discrete, input, holding").read(|node| node.word(&TABLES));
    let address = address(table, settings, registers);
    let bits = bits(table);
    let data = data(table, registers, kind, bits.is_some());
    let order = table.key("order").read(|node| order(node, data)).unwrap_or(settings.order);
    let scale = table.key("scale").read(|node| node.float("a number other than 0", |scale| scale != 0.0));
    let offset = table.key("offset").read(Node::number);
    let decimals = table.key("decimals").read(|node| node.int(0..=9));
    let of_number = !matches!(data, Some(Data::Text { .. }));
    let invalid = table
        .key("invalid")
        .read(|node| if of_number { node.list_of(|item| invalid(item, data)) } else { None });
    let read = registers.and_then(|registers| table.key("read_function").read(read_function(registers)));
    let write = write(table, settings, bits);
    let point = Point {
        read: read.unwrap_or_else(|| settings.read_table(registers.unwrap_or(Registers::Holding))),
        order,
        bits: data.and_then(|data| fitting(table, data, bits?)),
        scale: scale.unwrap_or(1.0),
        offset: offset.unwrap_or_default(),
        decimals,
        invalid: invalid.unwrap_or_default(),
        write,
        ..Point::new(registers?, address?, data?)
    };
    check_kind(table, &point, kind);
    if point.place().is_none() {
        let found = format!("{} registers from {} reach beyond 65535", point.data.count(), point.address);
        table.report().add(Problem::error(&table.key("address").spot(), found));
    }
    Some(point)
}

/// What the type of the property does not go with.
fn check_kind(table: &Table<'_>, point: &Point, kind: ValueType) {
    let is_text = matches!(point.data, Data::Text { .. });
    if is_text {
        for key in ["scale", "offset", "decimals", "invalid", "bit", "bits"] {
            let entry = table.key(key);
            if entry.given() {
                table.report().add(Problem::error(&entry.spot(), "means nothing for text"));
            }
        }
    }
    // What is no type for Modbus at all is told elsewhere.
    let known = is_numeric(kind) || kind == ValueType::Text;
    if known && is_text != (kind == ValueType::Text) {
        let found = if is_text { "text in registers" } else { "a number in registers" };
        let problem =
            Problem::error(&table.key("type").spot(), format!("{found} for the type {}", kind.name()));
        let allowed = if is_text { "the type string" } else { "type = \"string\" here too" };
        table.report().add(problem.allowed(allowed));
    }
}

fn address(table: &Table<'_>, settings: &Settings, registers: Option<Registers>) -> Option<u16> {
    let entry = table.key("address").required("the register's address");
    register(&entry, settings, registers.unwrap_or(Registers::Coil))
}

/// An address in the way in which the product writes them.
pub(super) fn register(entry: &Entry<'_>, settings: &Settings, registers: Registers) -> Option<u16> {
    let base = match settings.base {
        Base::Zero => 0,
        Base::One => 1,
        Base::Reference => return reference(entry, registers),
    };
    let written: i64 = entry.read(|node| node.int(base..=base + 65_535))?;
    // Manuals number registers from 30001 and 40001, where the digit stands for the table and is not transmitted.
    let reference = match registers {
        Registers::Input if !settings.meant => Some(30_001),
        Registers::Holding if !settings.meant => Some(40_001),
        Registers::Input | Registers::Holding | Registers::Coil | Registers::Discrete => None,
    };
    let reference = reference.filter(|first| (*first..*first + 9999).contains(&written));
    if let Some(first) = reference {
        let found = format!("{written} looks like a register number of a manual");
        let hint = format!(
            "as an address it would be {}; address_base = \"reference\" or 0 in [product.modbus] says how it is meant",
            written - first + base
        );
        entry.report().add(Problem::warning(&entry.spot(), found).hint(hint));
    }
    u16::try_from(written - base).ok()
}

/// A reference number with four or five digits behind the one that names the table.
fn reference(entry: &Entry<'_>, registers: Registers) -> Option<u16> {
    let digit = match registers {
        Registers::Coil => 0,
        Registers::Discrete => 1,
        Registers::Input => 3,
        Registers::Holding => 4,
    };
    let (short, long) = (digit * 10_000, digit * 100_000);
    let written: i64 = entry.read(|node| node.int(0..=465_536))?;
    let within = [(short, 9999), (long, 65_536)];
    let found = within.iter().find(|(base, most)| (base + 1..=base + most).contains(&written));
    if found.is_none() {
        let allowed = format!(
            "a reference number of this table: {} to {}, or {:06} to {:06}",
            short + 1,
            short + 9999,
            long + 1,
            long + 65_536
        );
        entry.read(|node| {
            node.wrong(allowed);
            Some(())
        });
    }
    u16::try_from(written - found?.0 - 1).ok()
}

/// The table that is read by the function with this number.
pub(super) fn read_function(registers: Registers) -> impl Fn(&Node<'_>) -> Option<Registers> {
    move |node| {
        let (low, high) = if registers.is_bits() { (1, 2) } else { (3, 4) };
        let function: i64 = node.int(low..=high)?;
        Some(match function {
            1 => Registers::Coil,
            2 => Registers::Discrete,
            3 => Registers::Holding,
            _ => Registers::Input,
        })
    }
}

fn data(table: &Table<'_>, registers: Option<Registers>, kind: ValueType, bits: bool) -> Option<Data> {
    let entry = table.key("type");
    let found = entry.read(|node| node.word(&TYPES));
    let text = text(table, matches!(found, Some(None)));
    let found = found.map(|data| data.unwrap_or(text));
    let in_bits = registers.is_some_and(Registers::is_bits);
    if in_bits {
        if found.is_some_and(|data| data != Data::Bool) {
            let problem = Problem::error(&entry.spot(), "a register type in a table of bits");
            table.report().add(problem.allowed("bool, or nothing"));
        }
        for key in ["bit", "bits", "on", "off"] {
            let entry = table.key(key);
            if entry.given() {
                table.report().add(Problem::error(&entry.spot(), "means nothing in a table of bits"));
            }
        }
        return Some(Data::Bool);
    }
    if let Some(switch) = switch(table) {
        if found.is_some_and(|data| !matches!(data, Data::Bool | Data::U16)) {
            let problem = Problem::error(&entry.spot(), "on and off for something that is no switch");
            table.report().add(problem.allowed("bool, u16, or nothing"));
        }
        return Some(switch);
    }
    if bits && (!entry.given() || found == Some(Data::Bool)) {
        return Some(Data::U16);
    }
    if kind == ValueType::Bool && !entry.given() {
        return Some(Data::Bool);
    }
    if registers.is_some() && !entry.given() {
        let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
        table.report().add(Problem::error(&entry.spot(), "missing").allowed(names.join(", ")));
    }
    found
}

/// How long a text is and where its characters stand.
fn text(table: &Table<'_>, is_text: bool) -> Data {
    let words = [("both", Chars::Both), ("high", Chars::High), ("low", Chars::Low)];
    let (registers, chars) = (table.key("registers"), table.key("chars"));
    if !is_text {
        for entry in [&registers, &chars] {
            if entry.given() {
                let problem = Problem::error(&entry.spot(), "means nothing for a number");
                table.report().add(problem.allowed("type = \"string\" with it"));
            }
        }
    }
    let registers = if is_text { registers.required("how many registers the text takes") } else { registers };
    Data::Text {
        registers: registers.read(|node| node.int(1..=TEXT_REGISTERS)).unwrap_or(1),
        chars: chars.read(|node| node.word(&words)).unwrap_or_default(),
    }
}

/// The numbers that stand for true and false, if the register has its own.
fn switch(table: &Table<'_>) -> Option<Data> {
    let (on, off) = (table.key("on"), table.key("off"));
    if !on.given() && !off.given() {
        return None;
    }
    let number = |entry: &Entry<'_>| entry.read(|node| node.int(0..=65_535));
    let on = number(&on.required("the number that stands for true"));
    let off_given = off.given();
    let (on, off) = (on.unwrap_or(1), if off_given { number(&off).unwrap_or_default() } else { 0 });
    if on == off {
        table.report().add(Problem::error(&table.key("on").spot(), "on and off are the same number"));
    }
    Some(Data::Switch { on, off })
}

/// `bit = 3`, or `bits = [first, count]`.
fn bits(table: &Table<'_>) -> Option<Bits> {
    let (one, several) = (table.key("bit"), table.key("bits"));
    if one.given() && several.given() {
        table.report().add(Problem::error(&one.spot(), "both bit and bits").allowed("one of them"));
    }
    let one = one.read(|node| node.int(0..=63)).map(|first| Bits { first, count: 1 });
    let several = several.read(|node| {
        const ALLOWED: &str = "[lowest bit from 0, how many]";
        let items = node.list_or(ALLOWED)?;
        let [first, count] = items.as_slice() else {
            node.wrong(ALLOWED);
            return None;
        };
        Some(Bits { first: first.int(0..=63)?, count: count.int(1..=64)? })
    });
    one.or(several)
}

/// The bits, if the type has them. Those of a text or a bit are complained of elsewhere.
fn fitting(table: &Table<'_>, data: Data, bits: Bits) -> Option<Bits> {
    let entry = if table.key("bit").given() { table.key("bit") } else { table.key("bits") };
    let end = u32::from(bits.first) + u32::from(bits.count);
    let wrong = if matches!(data, Data::Text { .. } | Data::Bool) {
        return None;
    } else if !data.is_integer() {
        "bits of a type that is no whole number".to_owned()
    } else if end > data.width() {
        format!("bit {} of a type with {}", end - 1, data.width())
    } else {
        return Some(bits);
    };
    table.report().add(Problem::error(&entry.spot(), wrong).allowed("bits of u16, i16 and wider ones"));
    None
}

/// Four letters for every length, or all letters of the type.
fn order(node: &Node<'_>, data: Option<Data>) -> Option<Order> {
    let known = node.quiet_text().and_then(|text| ORDERS.iter().find(|(name, _)| *name == text));
    if let Some((_, order)) = known {
        return Some(*order);
    }
    let bytes = match data {
        Some(Data::Text { .. }) => Some(2),
        Some(data) => Some(usize::from(data.count()) * 2),
        None => None,
    };
    let exact = node.quiet_text().and_then(|text| letters(text, bytes));
    let exact = match (exact, data) {
        // Of a text the letters say the order in each register.
        (Some(order), Some(Data::Text { .. })) => {
            Some(if order == Order::Letters(IN_ORDER) { Order::Abcd } else { Order::Badc })
        }
        (exact, _) => exact,
    };
    if exact.is_none() {
        let names = ORDERS.map(|(name, _)| name);
        let all: String = "ABCDEFGH".chars().take(bytes.unwrap_or(8)).collect();
        let meant = node.quiet_text().and_then(|text| did_you_mean(text, &names));
        let allowed = format!("{}, or each of {all} once", names.join(", "));
        node.wrong_with(allowed, meant);
    }
    exact
}

const IN_ORDER: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Which byte stands where, from letters of which each stands there once.
fn letters(text: &str, bytes: Option<usize>) -> Option<Order> {
    let fits = match bytes {
        Some(bytes) => text.len() == bytes,
        None => matches!(text.len(), 2 | 4 | 6 | 8),
    };
    let mut letters = IN_ORDER;
    for (place, letter) in letters.iter_mut().zip(text.bytes()) {
        *place = letter.checked_sub(b'A')?;
    }
    let mut sorted = letters;
    sorted.sort_unstable();
    (fits && sorted == IN_ORDER).then_some(Order::Letters(letters))
}

/// A raw content that is no reading: whole numbers are bits, numbers with a point are what floats hold.
fn invalid(node: &Node<'_>, data: Option<Data>) -> Option<u64> {
    let width = data.map_or(64, Data::width);
    let found = match (node.scalar()?, data) {
        (Value::Int(n), _) => {
            let n = i128::from(n);
            let end = 1_i128 << width;
            (-end / 2..end)
                .contains(&n)
                .then(|| u64::try_from(if n < 0 { n + end } else { n }).ok())
                .flatten()
        }
        (Value::Float(n), Some(Data::F64)) => Some(n.to_bits()),
        (Value::Float(n), Some(Data::F32)) => Point::new(Registers::Holding, 0, Data::F32).raw(n),
        _ => None,
    };
    if found.is_none() {
        node.wrong(format!("a raw content of {width} bits, as in 0x8000"));
    }
    found
}

fn write(table: &Table<'_>, settings: &Settings, bits: Option<Bits>) -> WritePolicy {
    let words = [
        ("auto", WritePolicy::Auto),
        ("single", WritePolicy::Single),
        ("multiple", WritePolicy::Multiple),
        ("mask", WritePolicy::Mask),
    ];
    let entry = table.key("write");
    let write = entry.read(|node| node.word(&words));
    if write == Some(WritePolicy::Mask) && bits.is_none() {
        let problem = Problem::error(&entry.spot(), "a mask for a whole register");
        table.report().add(problem.allowed("bit or bits with it"));
    }
    match write {
        Some(write) => write,
        None if settings.mask_write && bits.is_some() => WritePolicy::Mask,
        None => settings.write,
    }
}

//! Where a product's properties and functions are in Modbus registers, and what its devices are particular about;
//! `codec/` turns registers into values.
//!
//! Pure: no port, no clock.

use std::sync::Arc;
use std::time::Duration;

use crate::model::value::{Value, ValueType};
pub use crate::proto::modbus::Table;
use crate::proto::modbus::plan::Limits;

/// A gap of this many registers takes about as long on the wire as the frame that a second read would need.
const DEFAULT_GAP: u16 = 8;

/// The Modbus side of a product, in the product's order.
#[derive(Clone, Debug, PartialEq)]
pub struct ModbusMap {
    /// By position in the product's properties; `None` for a property that is not on Modbus.
    pub properties: Vec<Option<Point>>,
    /// By position in the product's functions; the steps in order.
    pub functions: Vec<Vec<Step>>,
    /// What its devices are written when they come online or return; constants only.
    pub setup: Vec<Step>,
    /// How often it is looked whether what was set up still stands there; `None`: never.
    pub setup_check: Option<Duration>,
    /// The property that counts up from the device's start: when it falls, the device has started anew.
    pub uptime: Option<usize>,
    /// How a scan knows its devices: by all of these. Empty where nothing is known for sure.
    pub identify: Vec<Mark>,
    /// Unused registers that a grouped read may bridge.
    pub max_gap: u16,
    /// Most registers in one read, 1..=125 (bits: sixteen times as many, at most 2000); 0 when each property needs a
    /// read of its own.
    pub max_span: u16,
    /// Silence that its devices need between an answer and the next request to them.
    pub pause: Duration,
    /// Silence that its devices need after the port was opened or the connection made.
    pub pause_after_connect: Duration,
}

impl ModbusMap {
    /// A map of devices that want nothing special.
    pub fn new(properties: Vec<Option<Point>>, functions: Vec<Vec<Step>>) -> Self {
        Self {
            properties,
            functions,
            setup: Vec::new(),
            setup_check: None,
            uptime: None,
            identify: Vec::new(),
            max_gap: DEFAULT_GAP,
            max_span: 125,
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        }
    }

    /// How reads are grouped.
    pub fn limits(&self) -> Limits {
        Limits { max_gap: self.max_gap, max_span: self.max_span }
    }

    /// The properties with a least time between two writes of which writing these points writes a register, and that time.
    pub(super) fn worn_by(&self, written: &[&Point]) -> Vec<(usize, Duration)> {
        let worn = |(position, point): (usize, &Option<Point>)| {
            let point = point.as_ref()?;
            let touched = written.iter().any(|other| point.shares_registers(other));
            Some((position, point.write_interval.filter(|_| touched)?))
        };
        self.properties.iter().enumerate().filter_map(worn).collect()
    }

    /// The same for the whole set-up.
    pub(super) fn worn_by_setup(&self) -> Vec<(usize, Duration)> {
        self.worn_by(&self.setup.iter().filter_map(Step::point).collect::<Vec<_>>())
    }
}

/// One property's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Which table it is written in.
    pub table: Table,
    /// Which table it is read from: nearly always the same. Some devices answer only function 4 for registers that
    /// function 6 writes.
    pub read: Table,
    /// Zero-based address as it travels in the request.
    pub address: u16,
    /// What the registers hold; coils and discrete inputs hold `Bool`.
    pub data: Data,
    /// Order of bytes and words in registers.
    pub order: Order,
    /// Only these bits of the number are the property.
    pub bits: Option<Bits>,
    /// value = raw * scale * 10^factor + offset.
    pub scale: f64,
    /// See `scale`.
    pub offset: f64,
    /// Address, in the table that is read, of the register with the factor: 16 bits, two's complement, as SunSpec
    /// has it. It is read together with the point.
    pub factor: Option<u16>,
    /// Digits behind the point that a reading keeps.
    pub decimals: Option<u8>,
    /// Raw contents, of all bits that `data` has, that mean "no reading".
    pub invalid: Vec<u64>,
    /// Poll interval.
    pub every: Duration,
    /// How it is written.
    pub write: WritePolicy,
    /// Whether a write is read back and compared.
    pub verify: bool,
    /// Least time between two writes, which spares memory that wears out.
    pub write_interval: Option<Duration>,
}

impl Point {
    /// A number that stands as it is, read every second, written by the function that fits, and read back.
    pub fn new(table: Table, address: u16, data: Data) -> Self {
        Self {
            table,
            read: table,
            address,
            data,
            order: Order::default(),
            bits: None,
            scale: 1.0,
            offset: 0.0,
            factor: None,
            decimals: None,
            invalid: Vec::new(),
            every: Duration::from_secs(1),
            write: WritePolicy::default(),
            verify: true,
            write_interval: None,
        }
    }

    /// Whether two points are written to places of which at least one is the same.
    fn shares_registers(&self, other: &Self) -> bool {
        let end = |point: &Self| u32::from(point.address) + u32::from(point.data.count());
        self.table == other.table
            && u32::from(self.address) < end(other)
            && u32::from(other.address) < end(self)
    }
}

/// What a point's registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// One bit: a coil or discrete input, or a register that is zero or not.
    Bool,
    /// A register that holds one of two numbers, and nothing else.
    Switch {
        /// That stands for true.
        on: u16,
        /// That stands for false.
        off: u16,
    },
    /// 16 bits.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// The lower 24 bits of two registers; what stands above them is not looked at.
    U24,
    /// The same, two's complement; written with the sign in the upper bits too.
    I24,
    /// 32 bits.
    U32,
    /// 32 bits, two's complement.
    I32,
    /// 48 bits in three registers.
    U48,
    /// The same, two's complement.
    I48,
    /// 64 bits.
    U64,
    /// 64 bits, two's complement.
    I64,
    /// 32 bits, IEEE 754.
    F32,
    /// 64 bits, IEEE 754.
    F64,
    /// Four decimal digits of four bits each.
    Bcd16,
    /// Eight of them.
    Bcd32,
    /// Sixteen of them.
    Bcd64,
    /// Text.
    Text {
        /// How many registers.
        registers: u16,
        /// Where in a register its characters stand.
        chars: Chars,
    },
}

/// Where in a register the characters of a text stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chars {
    /// Two in each; which comes first is a matter of the order.
    #[default]
    Both,
    /// One in the upper byte, the lower byte is zero.
    High,
    /// One in the lower byte, the upper byte is zero.
    Low,
}

impl Data {
    /// Registers (or bits, for a bit table) that it takes.
    pub fn count(self) -> u16 {
        match self {
            Self::Bool | Self::Switch { .. } | Self::U16 | Self::I16 | Self::Bcd16 => 1,
            Self::U24 | Self::I24 | Self::U32 | Self::I32 | Self::F32 | Self::Bcd32 => 2,
            Self::U48 | Self::I48 => 3,
            Self::U64 | Self::I64 | Self::F64 | Self::Bcd64 => 4,
            Self::Text { registers, .. } => registers,
        }
    }

    /// Bits of the number that it holds, lowest first; zero for text.
    pub fn width(self) -> u32 {
        match self {
            Self::U24 | Self::I24 => 24,
            Self::Text { .. } => 0,
            Self::Bool | Self::Switch { .. } | Self::U16 | Self::I16 | Self::Bcd16 => 16,
            Self::U32 | Self::I32 | Self::F32 | Self::Bcd32 => 32,
            Self::U48 | Self::I48 => 48,
            Self::U64 | Self::I64 | Self::F64 | Self::Bcd64 => 64,
        }
    }

    /// Whether the number is in two's complement.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::I16 | Self::I24 | Self::I32 | Self::I48 | Self::I64)
    }

    /// Whether it holds a whole number in binary, of which a point may be a part.
    pub fn is_integer(self) -> bool {
        self.is_signed() || matches!(self, Self::U16 | Self::U24 | Self::U32 | Self::U48 | Self::U64)
    }

    /// Decimal digits, if it holds these.
    pub(super) fn digits(self) -> Option<u32> {
        matches!(self, Self::Bcd16 | Self::Bcd32 | Self::Bcd64).then(|| self.width() / 4)
    }
}

/// A part of a whole number. One of a signed number is signed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The lowest bit, counted from 0.
    pub first: u8,
    /// How many, from 1; `first + count` is at most the number's width.
    pub count: u8,
}

/// Order of bytes on the wire, by letters: A is the most significant byte of a number, or the first character of a
/// text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Big-endian: the Modbus convention.
    #[default]
    Abcd,
    /// Words the other way round, for any number of them.
    Cdab,
    /// Bytes swapped in each word.
    Badc,
    /// Little-endian.
    Dcba,
    /// For a number of 8 bytes, or fewer in front: which byte of the number stands at each place on the wire.
    Letters([u8; 8]),
}

/// Which function code writes a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// The single code for one register or coil, the multiple code otherwise. Bits of a register are read, changed
    /// and written back.
    #[default]
    Auto,
    /// 5 or 6; several registers are several requests.
    Single,
    /// 15 or 16 always.
    Multiple,
    /// 22, which changes bits of a register without a read before; for bits only.
    Mask,
}

/// One step of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write a value.
    Write {
        /// Where and in which form; how often it is read and verified does not matter.
        point: Point,
        /// What.
        value: Operand,
    },
    /// Let time pass, during which other devices are served.
    Wait(Duration),
}

impl Step {
    /// Where it writes, if it does.
    pub(super) fn point(&self) -> Option<&Point> {
        match self {
            Self::Write { point, .. } => Some(point),
            Self::Wait(_) => None,
        }
    }
}

/// The value of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Written in the configuration.
    Constant(Value),
    /// An input of the function; a step whose input is absent is skipped.
    Input(Arc<str>),
}

/// A sign of what a device is.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// What a read of this place, and of nothing else, gives.
    Place {
        /// Where and in which form.
        point: Point,
        /// What it is compared as: a bool, a float or a text.
        kind: ValueType,
        /// What it must be.
        wanted: Wanted,
    },
    /// Words in what the device says of itself (function 43/14 or 17), in capitals or not.
    Says(Arc<str>),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// One of these.
    OneOf(Vec<Value>),
    /// A number from the first to the second.
    Range(f64, f64),
    /// A text that begins with one of these.
    StartsWith(Vec<Arc<str>>),
}

//! Where a product's properties and functions are in Modbus registers; `codec.rs` turns registers into values.
//!
//! Pure: no port, no clock.

use std::sync::Arc;
use std::time::Duration;

use crate::model::value::Value;
pub use crate::proto::modbus::Table;

/// The Modbus side of a product, in the product's order.
#[derive(Clone, Debug, PartialEq)]
pub struct ModbusMap {
    /// By position in the product's properties; `None` for a property that is not on Modbus.
    pub properties: Vec<Option<Point>>,
    /// By position in the product's functions; the steps in order.
    pub functions: Vec<Vec<Step>>,
    /// What its devices are written when they come online or return; constants only.
    pub setup: Vec<Step>,
    /// Unused registers that a grouped read may bridge.
    pub max_gap: u16,
    /// Most registers in one read, 1..=125 (bits: sixteen times as many, at most 2000).
    pub max_span: u16,
}

/// One property's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Which table.
    pub table: Table,
    /// Zero-based address as it travels in the request.
    pub address: u16,
    /// What the registers hold; coils and discrete inputs hold `Bool`.
    pub data: Data,
    /// Order of bytes and words in registers.
    pub order: Order,
    /// value = raw * scale + offset.
    pub scale: f64,
    /// See `scale`.
    pub offset: f64,
    /// Poll interval.
    pub every: Duration,
    /// How it is written.
    pub write: WritePolicy,
    /// Whether a write is read back and compared.
    pub verify: bool,
}

/// What a point's registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// One bit: a coil or discrete input, or a register that is zero or not.
    Bool,
    /// 16 bits.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits.
    U32,
    /// 32 bits, two's complement.
    I32,
    /// 32 bits, IEEE 754.
    F32,
    /// 64 bits.
    U64,
    /// 64 bits, two's complement.
    I64,
    /// 64 bits, IEEE 754.
    F64,
}

impl Data {
    /// Registers (or bits, for a bit table) that it takes.
    pub fn count(self) -> u16 {
        match self {
            Self::Bool | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }

    pub(super) fn bits(self) -> u32 {
        u32::from(self.count()) * 16
    }

    /// Smallest and largest whole number that it holds.
    pub(super) fn limits(self) -> (i128, i128) {
        let modulus = 1_i128 << self.bits();
        match self {
            Self::Bool => (0, 1),
            Self::U16 | Self::U32 | Self::U64 => (0, modulus - 1),
            Self::I16 | Self::I32 | Self::I64 | Self::F32 | Self::F64 => (-modulus / 2, modulus / 2 - 1),
        }
    }
}

/// Order of bytes, named for a 32-bit value whose most significant byte is A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Big-endian: the Modbus convention.
    #[default]
    Abcd,
    /// Words swapped.
    Cdab,
    /// Bytes swapped in each word.
    Badc,
    /// Little-endian.
    Dcba,
}

/// Which function code writes a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// The single code for one register or coil, the multiple code otherwise.
    #[default]
    Auto,
    /// 5 or 6; several registers are several requests.
    Single,
    /// 15 or 16 always.
    Multiple,
}

/// One step of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write a value.
    Write {
        /// Where and in which form; only table, address, data, order, scale, offset and write policy matter.
        point: Point,
        /// What.
        value: Operand,
    },
    /// Let time pass, during which other devices are served.
    Wait(Duration),
}

/// The value of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Written in the configuration.
    Constant(Value),
    /// An input of the function; a step whose input is absent is skipped.
    Input(Arc<str>),
}

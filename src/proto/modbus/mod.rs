//! Modbus as a master speaks it: frames, the plan of grouped reads, line timing, and the schedule of a bus.
//!
//! Knows units, tables and addresses, neither devices nor properties. Source of the wire facts: the public
//! "MODBUS Application Protocol Specification V1.1b3", "MODBUS over Serial Line V1.02" and "MODBUS Messaging on
//! TCP/IP Implementation Guide V1.0b". Nothing here reads a clock or touches a port.

pub mod ascii;
pub mod breaker;
pub mod frame;
pub mod late;
pub mod plan;
pub mod reply;
pub mod schedule;
pub mod timing;

/// The four tables of the Modbus data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Coils: bits, read by 1, written by 5 and 15.
    Coil,
    /// Discrete inputs: bits, read by 2.
    Discrete,
    /// Input registers: read by 4.
    Input,
    /// Holding registers: read by 3, written by 6 and 16.
    Holding,
}

impl Table {
    /// Whether its places are single bits and not registers.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// Most places that one read may name: 2000 bits or 125 registers.
    pub fn read_limit(self) -> u16 {
        if self.is_bits() { 2000 } else { 125 }
    }

    /// Most places that one write may carry: 1968 bits or 123 registers.
    pub fn write_limit(self) -> u16 {
        if self.is_bits() { 1968 } else { 123 }
    }

    /// The name in messages for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete input",
            Self::Input => "input register",
            Self::Holding => "holding register",
        }
    }
}

/// Adjacent places of one table that one read can fetch: 1 to [`Table::read_limit`] of them, none beyond 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    table: Table,
    address: u16,
    count: u16,
}

impl Span {
    /// `None` when the count is zero or beyond the table's limit, or when the end is beyond address 65535.
    pub fn new(table: Table, address: u16, count: u16) -> Option<Self> {
        let fits = count >= 1 && count <= table.read_limit() && address.checked_add(count - 1).is_some();
        fits.then_some(Self { table, address, count })
    }

    /// Which table.
    pub fn table(self) -> Table {
        self.table
    }

    /// The first place.
    pub fn address(self) -> u16 {
        self.address
    }

    /// How many places.
    pub fn count(self) -> u16 {
        self.count
    }

    /// The first address behind it, up to 65536.
    pub fn end(self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// Where `part` begins in this span, if it lies wholly inside.
    pub fn offset_of(self, part: Self) -> Option<usize> {
        let inside = part.table == self.table && part.address >= self.address && part.end() <= self.end();
        inside.then(|| usize::from(part.address - self.address))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => write!(f, "{} {}", self.table.name(), self.address),
            _ => write!(f, "{}s {} to {}", self.table.name(), self.address, self.end() - 1),
        }
    }
}

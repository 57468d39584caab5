//! The Modbus driver: one task per serial line or TCP endpoint, registers in, values out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::device::Device;
use crate::proto::modbus::timing::LineTiming;

pub mod adapter;
pub mod bus;
pub mod captures;
pub mod codec;
mod core;
#[cfg(test)]
mod fixture;
mod job;
pub mod map;
mod pace;
mod port;
pub mod recorder;
pub mod scan;
mod silence;
mod wire;

/// One bus as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct BusSettings {
    /// Unique over buses and brokers.
    pub id: Arc<str>,
    /// Where it is.
    pub target: Target,
    /// How long an answer may take after the request has left.
    pub timeout: Duration,
    /// Pause between an answer and the next request, beyond what the framing demands.
    pub pause: Duration,
    /// Time that a port is left alone when it has just been opened, for devices that restart then.
    pub pause_after_connect: Duration,
}

/// Where a bus is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A serial line.
    Serial(SerialSettings),
    /// A TCP endpoint.
    Tcp {
        /// Host and port as configured; a host name is resolved at each connect.
        address: Arc<str>,
        /// Resolved already when the configuration gave an IP address.
        socket: Option<SocketAddr>,
        /// MBAP header, or RTU frames over TCP.
        framing: TcpFraming,
    },
}

/// What travels over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpFraming {
    /// Modbus TCP with MBAP header.
    Tcp,
    /// RTU frames with CRC.
    Rtu,
}

/// A serial line.
#[derive(Clone, Debug, PartialEq)]
pub struct SerialSettings {
    /// Device node, best a stable name under /dev/serial/by-id.
    pub path: Arc<str>,
    /// Bits per second.
    pub baud_rate: u32,
    /// 7 or 8.
    pub data_bits: u8,
    /// Parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// How frames are written.
    pub framing: SerialFraming,
    /// Who turns an RS-485 transceiver round; `None` where the adapter does it by itself.
    pub rs485: Option<Rs485>,
}

/// What travels on a serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SerialFraming {
    /// Bytes with a CRC behind them.
    #[default]
    Rtu,
    /// Hexadecimal digits.
    Ascii,
}

/// How an RS-485 transceiver is turned from listening to sending and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rs485 {
    /// Who does it.
    pub by: Turn,
    /// Level of RTS while sending.
    pub high: bool,
    /// Time from turning to the first bit.
    pub before: Duration,
    /// Time from the last bit to turning back.
    pub after: Duration,
}

/// Who turns a transceiver round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The kernel's serial driver (TIOCSRS485), exact to the bit.
    Kernel,
    /// This program, by the RTS line, as exact as its timers.
    Rts,
}

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
}

impl SerialSettings {
    /// A port as most devices have it set up: RTU, 8N1, an adapter that turns itself round.
    pub fn at(path: &str, baud_rate: u32) -> Self {
        Self {
            path: path.into(),
            baud_rate,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            framing: SerialFraming::Rtu,
            rs485: None,
        }
    }

    /// The pace of the line.
    pub fn timing(&self) -> LineTiming {
        let timing = LineTiming::serial(self.baud_rate, self.bits_per_character());
        if self.framing == SerialFraming::Ascii { timing.in_ascii() } else { timing }
    }

    /// Bits that one character takes on the wire: start, data, parity and stop bits.
    pub fn bits_per_character(&self) -> u32 {
        let parity = u32::from(self.parity != Parity::None);
        1 + u32::from(self.data_bits) + parity + u32::from(self.stop_bits)
    }
}

/// One device on a bus.
#[derive(Clone, Debug, PartialEq)]
pub struct ModbusDevice {
    /// Who it is.
    pub device: Arc<Device>,
    /// Unit (slave) address, 1 to 247; over TCP also 0 and 255.
    pub unit: u8,
    /// Where its properties are.
    pub map: Arc<map::ModbusMap>,
}

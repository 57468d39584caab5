//! Requests, their answers, and how a request looks on the wire.
//!
//! Frames are built by `rmodbus`; its parser is not used, because it neither compares the echo of a write nor finds a
//! frame behind noise: see `reply.rs`. A request that the protocol cannot carry is an error here, never a frame.

use std::fmt;

use rmodbus::client::ModbusRequest;
use rmodbus::{ErrorKind, ModbusProto};

use super::{Span, Table, ascii};

/// What a master asks of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Functions 1 to 4.
    Read(Span),
    /// Function 5.
    WriteCoil {
        /// Zero-based.
        address: u16,
        /// The new state.
        on: bool,
    },
    /// Function 6.
    WriteRegister {
        /// Zero-based.
        address: u16,
        /// The new content.
        value: u16,
    },
    /// Function 15: 1 to 1968 coils.
    WriteCoils {
        /// Of the first coil.
        address: u16,
        /// The new states.
        values: Vec<bool>,
    },
    /// Function 16: 1 to 123 registers.
    WriteRegisters {
        /// Of the first register.
        address: u16,
        /// The new contents.
        values: Vec<u16>,
    },
    /// Function 22: the new content is `(old & and) | (or & !and)`. Few devices have it.
    MaskRegister {
        /// Zero-based.
        address: u16,
        /// Ones where a bit stays.
        and: u16,
        /// The bits that do not stay.
        or: u16,
    },
    /// Function 17: what the device says of itself, in a form of its own.
    ReportServerId,
    /// Function 43/14: names of maker, product and version.
    ReadIdentification,
}

impl Request {
    /// The function code.
    pub fn function(&self) -> u8 {
        match self {
            Self::Read(span) => match span.table() {
                Table::Coil => 1,
                Table::Discrete => 2,
                Table::Holding => 3,
                Table::Input => 4,
            },
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::WriteCoils { .. } => 15,
            Self::WriteRegisters { .. } => 16,
            Self::MaskRegister { .. } => 22,
            Self::ReportServerId => 17,
            Self::ReadIdentification => 43,
        }
    }

    /// Whether it changes nothing in the device, so that it may be sent again.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read(_) | Self::ReportServerId | Self::ReadIdentification)
    }

    /// The bytes to send to a unit.
    pub fn encode(&self, unit: u8, framing: Framing) -> Result<Vec<u8>, RequestError> {
        let mut request = match framing {
            Framing::Rtu | Framing::Ascii => ModbusRequest::new(unit, ModbusProto::Rtu),
            Framing::Tcp { transaction } => ModbusRequest::new_tcp_udp(unit, transaction),
        };
        let own = |body: &[u8]| Ok(framed(&[&[unit], body].concat(), framing));
        let mut frame: Vec<u8> = Vec::with_capacity(16);
        let built = match self {
            Self::Read(span) => {
                let (address, count) = (span.address(), span.count());
                match span.table() {
                    Table::Coil => request.generate_get_coils(address, count, &mut frame),
                    Table::Discrete => request.generate_get_discretes(address, count, &mut frame),
                    Table::Holding => request.generate_get_holdings(address, count, &mut frame),
                    Table::Input => request.generate_get_inputs(address, count, &mut frame),
                }
            }
            Self::WriteCoil { address, on } => request.generate_set_coil(*address, *on, &mut frame),
            Self::WriteRegister { address, value } => {
                request.generate_set_holding(*address, *value, &mut frame)
            }
            Self::WriteCoils { address, values } => {
                check_write(Table::Coil, *address, values.len())?;
                request.generate_set_coils_bulk(*address, values, &mut frame)
            }
            Self::WriteRegisters { address, values } => {
                check_write(Table::Holding, *address, values.len())?;
                request.generate_set_holdings_bulk(*address, values, &mut frame)
            }
            Self::MaskRegister { address, and, or } => {
                let words = [*address, *and, *or].map(u16::to_be_bytes);
                return own(&[&[22], words.as_flattened()].concat());
            }
            Self::ReportServerId => return own(&[17]),
            // The basic names, in a stream that begins with the first one.
            Self::ReadIdentification => return own(&[43, 14, 1, 0]),
        };
        built.map_err(RequestError::Frame)?;
        match (framing, frame.split_last_chunk::<2>()) {
            (Framing::Ascii, Some((body, _crc))) => Ok(ascii::encode(body)),
            (Framing::Ascii | Framing::Rtu | Framing::Tcp { .. }, _) => Ok(frame),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(span) => write!(f, "read of {span}"),
            Self::WriteCoil { address, .. } => write!(f, "write of coil {address}"),
            Self::WriteRegister { address, .. } => write!(f, "write of holding register {address}"),
            Self::WriteCoils { address, values } => {
                write!(f, "write of {} coils from {address}", values.len())
            }
            Self::WriteRegisters { address, values } => {
                write!(f, "write of {} holding registers from {address}", values.len())
            }
            Self::MaskRegister { address, .. } => write!(f, "write of bits of holding register {address}"),
            Self::ReportServerId => f.write_str("report of the server's id"),
            Self::ReadIdentification => f.write_str("read of the device identification"),
        }
    }
}

/// Wraps unit, function code and data, where the library does not build the request.
pub(super) fn framed(body: &[u8], framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Rtu => [body, &crc16(body).to_le_bytes()].concat(),
        Framing::Ascii => ascii::encode(body),
        Framing::Tcp { transaction } => {
            let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
            let header = [transaction.to_be_bytes(), [0, 0], length.to_be_bytes()];
            [&header.concat(), body].concat()
        }
    }
}

/// How a frame is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Unit in front, CRC behind; also over TCP.
    Rtu,
    /// Hexadecimal digits between a colon and a line end.
    Ascii,
    /// The MBAP header of Modbus TCP.
    Tcp {
        /// Comes back with the answer.
        transaction: u16,
    },
}

/// A request that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too few or too many places, or places beyond address 65535.
    #[error("a write of {count} {table}s at {address} is impossible: 1 to {limit} up to address 65535", table = .table.name())]
    Places {
        /// Which table.
        table: Table,
        /// The first place.
        address: u16,
        /// How many.
        count: usize,
        /// Most that one write may carry.
        limit: u16,
    },
    /// The frame did not fit into its size limit.
    #[error("a Modbus request cannot be put into a frame")]
    Frame(#[source] ErrorKind),
}

fn check_write(table: Table, address: u16, count: usize) -> Result<(), RequestError> {
    let limit = table.write_limit();
    let end = usize::from(address) + count;
    if count == 0 || count > usize::from(limit) || end > usize::from(u16::MAX) + 1 {
        return Err(RequestError::Places { table, address, count, limit });
    }
    Ok(())
}

/// What a unit answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As many bits as were asked for.
    Bits(Vec<bool>),
    /// As many registers as were asked for.
    Registers(Vec<u16>),
    /// The write was taken.
    Written,
    /// Data in a form of the device's own (function 17).
    Data(Vec<u8>),
    /// Numbered names (function 43/14).
    Names(Vec<(u8, Vec<u8>)>),
    /// The unit refused.
    Exception(Exception),
}

/// The code of an exception answer; `Display` names it for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The unit does not have such a place, or takes no such value: asking for less may help.
    pub fn refuses_places(self) -> bool {
        matches!(self.0, 2 | 3)
    }

    /// The unit took the request and will need longer than an answer may take.
    pub fn is_acknowledge(self) -> bool {
        self.0 == 5
    }

    /// The unit is doing something else; it will answer later.
    pub fn is_busy(self) -> bool {
        self.0 == 6
    }

    /// A gateway speaks for a unit that it does not reach: the unit itself is silent.
    pub fn is_from_gateway(self) -> bool {
        matches!(self.0, 10 | 11)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "device failure",
            5 => "acknowledge",
            6 => "device busy",
            7 => "negative acknowledge",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target does not respond",
            _ => "unknown refusal",
        };
        write!(f, "{name} (exception {})", self.0)
    }
}

/// The CRC of an RTU frame, low byte first on the wire.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rtu(request: &Request) -> Vec<u8> {
        request.encode(0x11, Framing::Rtu).unwrap()
    }

    #[test]
    fn requests_look_as_the_specification_prints_them() {
        let read = |table, address, count| Request::Read(Span::new(table, address, count).unwrap());
        let cases: [(Request, &[u8]); 11] = [
            (read(Table::Coil, 0x13, 0x13), &[1, 0, 0x13, 0, 0x13]),
            (read(Table::Discrete, 0xC4, 0x16), &[2, 0, 0xC4, 0, 0x16]),
            (read(Table::Holding, 0x6B, 3), &[3, 0, 0x6B, 0, 3]),
            (read(Table::Input, 8, 1), &[4, 0, 8, 0, 1]),
            (Request::WriteCoil { address: 0xAC, on: true }, &[5, 0, 0xAC, 0xFF, 0]),
            (Request::WriteRegister { address: 1, value: 3 }, &[6, 0, 1, 0, 3]),
            (
                Request::WriteCoils {
                    address: 0x13,
                    values: [1, 0, 1, 1, 0, 0, 1, 1, 1, 0].map(|b| b == 1).to_vec(),
                },
                &[15, 0, 0x13, 0, 10, 2, 0xCD, 1],
            ),
            (
                Request::WriteRegisters { address: 1, values: vec![10, 0x102] },
                &[16, 0, 1, 0, 2, 4, 0, 10, 1, 2],
            ),
            (Request::MaskRegister { address: 4, and: 0xF2, or: 0x25 }, &[22, 0, 4, 0, 0xF2, 0, 0x25]),
            (Request::ReportServerId, &[17]),
            (Request::ReadIdentification, &[43, 14, 1, 0]),
        ];
        for (request, pdu) in cases {
            let frame = rtu(&request);
            let (body, crc) = frame.split_at(frame.len() - 2);
            assert_eq!(body, [&[0x11], pdu].concat(), "{request}");
            assert_eq!(crc, crc16(body).to_le_bytes(), "{request}");
            assert_eq!(pdu[0], request.function());
            let tcp = request.encode(0x11, Framing::Tcp { transaction: 0x1234 }).unwrap();
            let length = u8::try_from(pdu.len() + 1).unwrap();
            assert_eq!(tcp, [&[0x12, 0x34, 0, 0, 0, length, 0x11], pdu].concat(), "{request}");
        }
    }

    #[test]
    fn the_largest_writes_fit_and_larger_ones_are_refused() {
        let coils = |count| Request::WriteCoils { address: 0, values: vec![true; count] };
        let registers = |address, count| Request::WriteRegisters { address, values: vec![1; count] };
        assert_eq!(rtu(&coils(1968)).len(), 255);
        assert_eq!(rtu(&registers(0, 123)).len(), 255);
        for bad in [coils(0), coils(1969), registers(0, 0), registers(0, 124), registers(65535, 2)] {
            assert!(bad.encode(1, Framing::Rtu).is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions_have_names() {
        assert_eq!(Exception(2).to_string(), "illegal data address (exception 2)");
        assert_eq!(Exception(99).to_string(), "unknown refusal (exception 99)");
    }

    proptest! {
        #[test]
        fn any_write_becomes_a_frame_or_an_error(
            address: u16, count in 0..300_usize, transaction: u16, unit: u8,
        ) {
            let request = Request::WriteRegisters { address, values: vec![7; count] };
            for framing in [Framing::Rtu, Framing::Tcp { transaction }] {
                if let Ok(frame) = request.encode(unit, framing) {
                    prop_assert!(frame.len() <= 260);
                }
            }
        }
    }
}

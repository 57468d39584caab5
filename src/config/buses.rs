//! Reads `[[serial]]` and `[[modbus_tcp]]`: the ways to Modbus units.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Surroundings;
use super::links::{Id, id};
use super::node::Node;
use super::problem::Problem;
use super::reader::Table;
use super::scalar::Endpoint;
use crate::drivers::modbus::{
    BusSettings, Parity, Rs485, SerialFraming, SerialSettings, Target, TcpFraming, Turn,
};

const MODBUS_PORT: u16 = 502;

/// How long an answer may take.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const SERIAL_TIMEOUT: Duration = Duration::from_millis(300);
const TCP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a bus may be left alone between requests, or after it was opened.
const PAUSE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);

/// How long a transceiver may take to turn round: the kernel takes no longer time either.
const TURN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(100);

pub(super) fn serial(table: Table<'_>, surroundings: &dyn Surroundings) -> (Id, Option<BusSettings>) {
    let id = id(&table);
    let port = table.key("port").required("a serial port, best its stable name under /dev/serial/by-id");
    let spot = port.spot();
    let port = port.read(Node::line);
    if let Some((port, hint)) = port.and_then(|port| Some((port, surroundings.stable_name(port)?))) {
        let found = format!("{port} may be another adapter after a restart");
        table.report().add(Problem::warning(&spot, found).hint(hint));
    }
    let framings = [("rtu", SerialFraming::Rtu), ("ascii", SerialFraming::Ascii)];
    let framing = table.key("framing").read(|node| node.word(&framings)).unwrap_or_default();
    let baud_rate = table.key("baud_rate").read(|node| node.int(300..=4_000_000)).unwrap_or(9600);
    let data_bits = table.key("data_bits");
    let bits = data_bits.read(|node| node.int(7..=8)).unwrap_or(8);
    if bits == 7 && framing == SerialFraming::Rtu {
        let problem =
            Problem::error(&data_bits.spot(), "found 7, with which RTU bytes do not fit in a character");
        table.report().add(problem.allowed("8, or framing = \"ascii\""));
    }
    let words = [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
    let parity = table.key("parity").read(|node| node.word(&words)).unwrap_or(Parity::None);
    let stop_bits = table.key("stop_bits").read(|node| node.int(1..=2)).unwrap_or(1);
    let rs485 = rs485(&table);
    let (timeout, pause, pause_after_connect) = times(&table, SERIAL_TIMEOUT);
    table.finish();
    let settings = id.as_ref().zip(port).map(|((id, _), port)| {
        let path = port.into();
        let serial = SerialSettings { path, baud_rate, data_bits: bits, parity, stop_bits, framing, rs485 };
        BusSettings {
            id: Arc::clone(id),
            target: Target::Serial(serial),
            timeout,
            pause,
            pause_after_connect,
        }
    });
    (id, settings)
}

/// Who turns an RS-485 transceiver round, where that is not the adapter itself.
fn rs485(table: &Table<'_>) -> Option<Rs485> {
    let entry = table.key("rs485");
    let words = [("off", None), ("kernel", Some(Turn::Kernel)), ("rts", Some(Turn::Rts))];
    let by = entry.read(|node| node.word(&words)).flatten();
    let (level, before, after) =
        (table.key("rts_while_sending"), table.key("rts_before"), table.key("rts_after"));
    if by.is_none() {
        for entry in [&level, &before, &after] {
            if entry.given() {
                let problem = Problem::warning(&entry.spot(), "has no effect while RTS turns nothing round");
                table.report().add(problem.hint("did you mean rs485 = \"rts\"?"));
            }
        }
    }
    let high = level.read(|node| node.word(&[("high", true), ("low", false)])).unwrap_or(true);
    let before = before.read(|node| node.duration(TURN)).unwrap_or_default();
    let after = after.read(|node| node.duration(TURN)).unwrap_or_default();
    by.map(|by| Rs485 { by, high, before, after })
}

pub(super) fn modbus_tcp(table: Table<'_>) -> (Id, Option<BusSettings>) {
    const ALLOWED: &str = "a host and perhaps a port, as in \"192.168.1.20:502\"";
    let id = id(&table);
    let endpoint = table.key("address").required(ALLOWED);
    let endpoint = endpoint.read(|node| node.parse(ALLOWED, |text| Endpoint::parse(text, MODBUS_PORT)));
    let words = [("tcp", TcpFraming::Tcp), ("rtu", TcpFraming::Rtu)];
    let framing = table.key("framing").read(|node| node.word(&words)).unwrap_or(TcpFraming::Tcp);
    let (timeout, pause, pause_after_connect) = times(&table, TCP_TIMEOUT);
    table.finish();
    let settings = id.as_ref().zip(endpoint).map(|((id, _), endpoint)| {
        let target = Target::Tcp { address: endpoint.show().into(), socket: endpoint.socket(), framing };
        BusSettings { id: Arc::clone(id), target, timeout, pause, pause_after_connect }
    });
    (id, settings)
}

/// Timeout, pause between requests and pause after opening.
fn times(table: &Table<'_>, timeout: Duration) -> (Duration, Duration, Duration) {
    let read = |key, range: RangeInclusive<Duration>| table.key(key).read(|node| node.duration(range));
    (
        read("timeout", TIMEOUT).unwrap_or(timeout),
        read("pause", PAUSE).unwrap_or_default(),
        read("pause_after_connect", PAUSE).unwrap_or_default(),
    )
}

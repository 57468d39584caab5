//! What the driver has written into units of others, read back by mbpoll: each kind of write, on a pseudo-terminal and
//! over TCP.

use pentad::drivers::DriverAction;
use pentad::drivers::modbus::map::{Bits, Chars, Data, Order, Point, Table, WritePolicy};
use pentad::drivers::modbus::{SerialFraming, TcpFraming};
use pentad::model::command::Outcome;
use pentad::model::value::Value;

use crate::peers::{Relay, Way};
use crate::rig::{Rig, device, point};
use crate::units::{Unit, mbpoll};

/// Read so rarely that only the writes and their own reads are on the line.
const RARELY: u64 = 60_000;

fn register(address: u16, data: Data) -> Point {
    point(Table::Holding, address, data, RARELY)
}

fn float(address: u16, order: Order) -> Point {
    Point { order, ..register(address, Data::F32) }
}

fn bit(address: u16, first: u8, write: WritePolicy) -> Point {
    Point { bits: Some(Bits { first, count: 1 }), write, ..register(address, Data::U16) }
}

/// What is written where.
fn writes() -> Vec<(Point, Value)> {
    let text = Data::Text { registers: 4, chars: Chars::Both };
    vec![
        // Functions 5, 15 and 6.
        (point(Table::Coil, 20, Data::Bool, RARELY), Value::Bool(true)),
        (
            Point { write: WritePolicy::Multiple, ..point(Table::Coil, 22, Data::Bool, RARELY) },
            Value::Bool(true),
        ),
        (register(20, Data::U16), Value::Int(1234)),
        // Function 16: a float in each order, then a text.
        (float(30, Order::Abcd), Value::Float(230.5)),
        (float(32, Order::Cdab), Value::Float(-17.25)),
        (float(34, Order::Badc), Value::Float(230.5)),
        (float(36, Order::Dcba), Value::Float(230.5)),
        (register(40, text), Value::Text("Pumpe 1".into())),
        // Register 50 is 0x00F0 before; one bit is set by reading, changing and writing it back, one cleared by function 22.
        (register(50, Data::U16), Value::Int(0x00F0)),
        (bit(50, 0, WritePolicy::Auto), Value::Bool(true)),
        (bit(50, 7, WritePolicy::Mask), Value::Bool(false)),
    ]
}

/// Writes everything and asks mbpoll what is there.
async fn is_there(way: Way, unit: impl AsyncFn(&Relay) -> Unit) {
    let relay = Relay::plug(&way).await;
    let _unit = unit(&relay).await;
    let points = writes().into_iter().map(|(point, _)| point).collect();
    let mut rig = Rig::start(relay.target(&way), vec![device(1, points, vec![])]);
    rig.presence(1, true).await;
    for (position, (point, value)) in writes().into_iter().enumerate() {
        let outcome = rig.command(1, DriverAction::Write(vec![(position, value)])).await;
        assert!(matches!(outcome, Outcome::Confirmed { .. }), "{point:?}: {outcome:?}");
    }
    rig.stop().await;

    let place = relay.near();
    assert_eq!(mbpoll(&place, &["0"], 20, 3).await, ["1", "0", "1"]);
    assert_eq!(mbpoll(&place, &["4"], 20, 1).await, ["1234"]);
    // mbpoll's own floats have their low word first, and with -B the high one.
    assert_eq!(mbpoll(&place, &["4:float", "-B"], 30, 1).await, ["230.5"]);
    assert_eq!(mbpoll(&place, &["4:float"], 32, 1).await, ["-17.25"]);
    // 230.5 is 4366 8000.
    assert_eq!(mbpoll(&place, &["4:hex"], 34, 4).await, ["0x6643", "0x0080", "0x0080", "0x6643"]);
    assert_eq!(mbpoll(&place, &["4:hex"], 40, 4).await, ["0x5075", "0x6D70", "0x6520", "0x3100"]);
    assert_eq!(mbpoll(&place, &["4:hex"], 50, 1).await, ["0x0071"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mbpoll_reads_back_each_kind_of_write_from_a_pymodbus_unit_on_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::line(folder.path(), SerialFraming::Rtu);
    is_there(way, async |relay| Unit::pymodbus("rtu", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mbpoll_reads_back_each_kind_of_write_from_a_libmodbus_unit_on_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::line(folder.path(), SerialFraming::Rtu);
    is_there(way, async |relay| Unit::libmodbus(folder.path(), "rtu", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mbpoll_reads_back_each_kind_of_write_from_a_pymodbus_unit_over_tcp() {
    let way = Way::net(TcpFraming::Tcp);
    is_there(way, async |relay| Unit::pymodbus("tcp", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mbpoll_reads_back_each_kind_of_write_from_a_libmodbus_unit_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::net(TcpFraming::Tcp);
    is_there(way, async |relay| Unit::libmodbus(folder.path(), "tcp", &relay.far).await).await;
}

//! Figures of a Modbus bus: how much of a paced line is used, how long a write waits, what a dead unit costs, and what TCP
//! gives. Prints; asserts nothing.
//!
//! `cargo bench --bench line`. The slaves are paced by hand on the other end of a pseudo-terminal: a request takes its time
//! on the wire, then come 3.5 characters of silence, then the answer character by character. A line that is used to the
//! full is therefore busy for the whole turn of [`LineTiming::read_turn`], and what is missing to 100 % is ours.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a program for people who measure, not a part of the gateway"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pentad::clock;
use pentad::drivers::modbus::bus::run;
use pentad::drivers::modbus::map::{Data, ModbusMap, Point, Table, WritePolicy};
use pentad::drivers::modbus::recorder::Recorder;
use pentad::drivers::modbus::{BusSettings, ModbusDevice, SerialSettings, Target, TcpFraming};
use pentad::drivers::{
    COMMAND_QUEUE, CommandId, DriverAction, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation,
};
use pentad::meters::LinkMeters;
use pentad::model::device::Device;
use pentad::model::product::{Access, Product, Property};
use pentad::model::value::{Value, ValueType};
use pentad::proto::modbus::Span;
use pentad::proto::modbus::timing::LineTiming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Registers in one poll: a usual meter.
const REGISTERS: u16 = 10;

/// How long each case is measured, and how long it runs before.
const MEASURED: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    println!("line use: share of the wire-time bound, polling as fast as possible (budget 95 %)");
    for baud in [9600, 115_200] {
        for units in [1, 10, 32] {
            let line = Line::plug(baud, None);
            let rates = measure(&line, devices(units), WARM_UP, |_| {});
            println!("  {baud:>6} baud, {units:>2} units: {:5.1} %", 100.0 * line.used(&rates));
        }
    }
    println!("one dead unit among ten: what the other nine keep (budget 90 %)");
    for baud in [9600, 115_200] {
        let line = Line::plug(baud, Some(4));
        let rates = measure(&line, devices(10), Duration::from_secs(8), |_| {});
        println!("  {baud:>6} baud: {:5.1} % of the bound", 100.0 * line.used(&rates));
    }
    println!("write latency on a busy line of ten units: command to the first byte on the wire");
    for baud in [9600, 115_200] {
        let line = Line::plug(baud, None);
        let turn = line.turn();
        let mut waits = writes(&line, devices(10));
        waits.sort_unstable();
        println!(
            "  {baud:>6} baud: median {:.1} ms, longest {:.1} ms of {} (budget {:.1} ms: a turn and 20 ms)",
            millis(waits[waits.len() / 2]),
            millis(waits[waits.len() - 1]),
            waits.len(),
            millis(turn) + 20.0,
        );
    }
    println!("1000 registers over TCP on loopback, 8 reads of 125");
    let server = serve_tcp();
    let target = Target::Tcp {
        address: server.0.to_string().into(),
        socket: Some(server.0),
        framing: TcpFraming::Tcp,
    };
    let points = (0..8_u16).map(|at| holding(at * 125, 125)).collect();
    let asked = drive(target, vec![device(1, points)], WARM_UP, &server.1, |_| {});
    let reads: u64 = asked.values().sum();
    let seconds = MEASURED.as_secs_f64();
    println!(
        "  {:.0} rounds of 1000 registers a second, {:.2} ms each",
        reads as f64 / 8.0 / seconds,
        8000.0 * seconds / reads.max(1) as f64
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What a slave was asked, by unit, since the count was last taken; and when writes arrived.
#[derive(Debug, Default)]
struct Count {
    reads: BTreeMap<u8, u64>,
    writes: Vec<Instant>,
}

type Counter = Arc<Mutex<Count>>;

/// A paced line.
struct Line {
    path: String,
    baud: u32,
    timing: LineTiming,
    count: Counter,
    stop: Arc<AtomicBool>,
    _slave: serial2::SerialPort,
}

impl Line {
    fn plug(baud: u32, dead: Option<u8>) -> Self {
        let (master, slave) = serial2::SerialPort::pair().unwrap();
        let node = format!("/proc/self/fd/{}", slave.as_fd().as_raw_fd());
        let path = std::fs::read_link(node).unwrap().to_str().unwrap().to_owned();
        let timing = LineTiming::serial(baud, 10);
        let (count, stop) = (Counter::default(), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&count), Arc::clone(&stop));
        thread::spawn(move || serve_line(master, timing, dead, &counter, &stopped));
        Self { path, baud, timing, count, stop, _slave: slave }
    }

    fn turn(&self) -> Duration {
        self.timing.read_turn(Span::new(Table::Holding, 0, REGISTERS).unwrap())
    }

    /// The share of the time that the turns which were made need at least.
    fn used(&self, reads: &BTreeMap<u8, u64>) -> f64 {
        let turns: u64 = reads.values().sum();
        turns as f64 * self.turn().as_secs_f64() / MEASURED.as_secs_f64()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve_line(
    mut master: serial2::SerialPort,
    timing: LineTiming,
    dead: Option<u8>,
    count: &Counter,
    stop: &AtomicBool,
) {
    master.set_read_timeout(Duration::from_millis(20)).unwrap();
    let mut buffer = [0; 256];
    let mut request = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(read) = master.read(&mut buffer) else { continue };
        let arrived = clock::instant();
        request.extend_from_slice(&buffer[..read]);
        if request.len() < 8 {
            continue;
        }
        let (unit, function) = (request[0], request[1]);
        let characters = u32::try_from(request.len()).unwrap();
        let answer = if function == 6 {
            count.lock().unwrap().writes.push(arrived);
            request.clone()
        } else {
            let registers = u8::try_from(u16::from_be_bytes([request[4], request[5]]) * 2).unwrap();
            let body = [&[unit, function, registers][..], &vec![0; usize::from(registers)]].concat();
            [&body[..], &pentad::proto::modbus::frame::crc16(&body).to_le_bytes()].concat()
        };
        request.clear();
        if dead == Some(unit) {
            continue;
        }
        let mut due = arrived + timing.characters(characters) + timing.silence();
        // In pieces, as a UART with a small buffer hands them over.
        for piece in answer.chunks(4) {
            due += timing.characters(u32::try_from(piece.len()).unwrap());
            wait_until(due);
            master.write_all(piece).unwrap();
        }
        if function != 6 {
            *count.lock().unwrap().reads.entry(unit).or_default() += 1;
        }
    }
}

/// Exact to some microseconds.
fn wait_until(then: Instant) {
    let left = then.saturating_duration_since(clock::instant());
    if left > Duration::from_millis(1) {
        thread::sleep(left.saturating_sub(Duration::from_millis(1)));
    }
    while clock::instant() < then {
        std::hint::spin_loop();
    }
}

/// A Modbus TCP server that answers every read with zeros.
fn serve_tcp() -> (SocketAddr, Counter) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Counter::default();
    let counter = Arc::clone(&count);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = [0; 12];
        while stream.read_exact(&mut request).is_ok() {
            let registers = u8::try_from(u16::from_be_bytes([request[10], request[11]]) * 2).unwrap();
            let length = u16::from(registers) + 3;
            let head = [&request[..4], &length.to_be_bytes(), &[request[6], request[7], registers]].concat();
            let answer = [head, vec![0; usize::from(registers)]].concat();
            if stream.write_all(&answer).is_err() {
                return;
            }
            *counter.lock().unwrap().reads.entry(request[6]).or_default() += 1;
        }
    });
    (address, count)
}

fn holding(address: u16, registers: u16) -> Vec<Point> {
    let point = |address| Point {
        every: Duration::ZERO,
        write: WritePolicy::Single,
        verify: false,
        ..Point::new(Table::Holding, address, Data::U16)
    };
    (address..address + registers).map(point).collect()
}

fn devices(units: u8) -> Vec<ModbusDevice> {
    (1..=units).map(|unit| device(unit, vec![holding(0, REGISTERS)])).collect()
}

fn device(unit: u8, groups: Vec<Vec<Point>>) -> ModbusDevice {
    let points: Vec<Point> = groups.into_iter().flatten().collect();
    let property =
        |at: usize| Property { access: Access::ReadWrite, ..Property::new(format!("p{at}"), ValueType::Int) };
    let product = Product {
        id: "thing".into(),
        name: "thing".into(),
        type_id: "thing".into(),
        properties: (0..points.len()).map(property).collect(),
        functions: Vec::new(),
        events: Vec::new(),
    };
    let device = Device {
        id: format!("dev-{unit}").into(),
        name: "device".into(),
        product: Arc::new(product),
        link: "bus".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
        uuid: "0000-0000-0000-0000".into(),
        mac: "000000000000".into(),
    };
    let map = ModbusMap {
        properties: points.into_iter().map(Some).collect(),
        functions: Vec::new(),
        setup: Vec::new(),
        max_gap: 0,
        max_span: 125,
        pause: Duration::ZERO,
        pause_after_connect: Duration::ZERO,
    };
    ModbusDevice { device: Arc::new(device), unit, map: Arc::new(map) }
}

fn measure(
    line: &Line,
    devices: Vec<ModbusDevice>,
    warm_up: Duration,
    meanwhile: impl FnOnce(&Bus),
) -> BTreeMap<u8, u64> {
    let target = Target::Serial(SerialSettings::at(&line.path, line.baud));
    drive(target, devices, warm_up, &line.count, meanwhile)
}

/// Writes again and again, at odd moments; how long each took to reach the wire.
fn writes(line: &Line, devices: Vec<ModbusDevice>) -> Vec<Duration> {
    let mut asked = Vec::new();
    let all = devices.clone();
    measure(line, devices, WARM_UP, |bus| {
        let begun = clock::instant();
        let mut number = 0;
        while clock::instant() < begun + MEASURED {
            let device = &all[usize::try_from(number).unwrap() % all.len()];
            thread::sleep(Duration::from_millis(37 + number * 13 % 50));
            asked.push(clock::instant());
            let action = DriverAction::Write(vec![(0, Value::Int(1))]);
            let deadline = clock::instant() + Duration::from_secs(10);
            let (id, device) = (CommandId(number), Arc::clone(&device.device));
            bus.commands.blocking_send(DriverCommand { id, device, action, deadline }).unwrap();
            number += 1;
        }
    });
    let count = line.count.lock().unwrap();
    asked.iter().zip(&count.writes).map(|(asked, came)| came.saturating_duration_since(*asked)).collect()
}

/// A running driver's hub end.
struct Bus {
    commands: mpsc::Sender<DriverCommand>,
}

/// Lets a bus run, and counts what its slaves are asked after the warm-up.
fn drive(
    target: Target,
    devices: Vec<ModbusDevice>,
    warm_up: Duration,
    count: &Counter,
    meanwhile: impl FnOnce(&Bus),
) -> BTreeMap<u8, u64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (observation_queue, mut observations) = mpsc::channel::<Observation>(OBSERVATION_QUEUE);
    let settings = BusSettings {
        id: "bus".into(),
        target,
        timeout: Duration::from_millis(300),
        pause: Duration::ZERO,
        pause_after_connect: Duration::ZERO,
    };
    let port = LinkPort {
        link: "bus".into(),
        commands: command_queue,
        observations: observation_queue,
        meters: LinkMeters::default(),
        announcer: None,
    };
    let stop = CancellationToken::new();
    let recorder = Recorder::new(&settings, None);
    let driver = runtime.handle().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(settings, devices, port, recorder, stop.clone()));
        tasks.spawn(async move { while observations.recv().await.is_some() {} });
        tasks
    });
    thread::sleep(warm_up);
    *count.lock().unwrap() = Count::default();
    let begun = clock::instant();
    // A driver whose queue has nobody at the other end stops.
    let bus = Bus { commands };
    meanwhile(&bus);
    wait_until(begun + MEASURED);
    let reads = count.lock().unwrap().reads.clone();
    stop.cancel();
    runtime.block_on(driver.join_all());
    drop(bus);
    reads
}

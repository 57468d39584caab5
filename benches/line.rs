//! Figures of a Modbus bus: how much of a paced line is used, how long a write waits, what a dead unit costs, and what TCP
//! gives. Prints; asserts nothing.
//!
//! `cargo bench --bench line`. The slaves are paced by hand on the other end of a pseudo-terminal: a request takes its time
//! on the wire, then come 3.5 characters of silence (1.75 ms on a fast line), then the answer in pieces of four characters.
//!
//! The wire-time bound is [`LineTiming::read_turn`]: the characters of the request, a silence, the characters of the
//! answer, a silence. The first silence stands for the unit, which may not answer earlier and here takes no time beyond
//! it; the second is what a master owes before it asks again. Real units think for some milliseconds longer, which is
//! their line's own loss and no part of this.
//!
//! What is missing to 100 % is the driver's, and the machine's: two threads and two passes through the kernel's
//! pseudo-terminal stand for the wire. Therefore each line is first asked by a bare loop that does nothing but write,
//! read and wait: what that loop is short of the bound, no driver can use here. How late the simulated slave itself was
//! is said too. On a machine that does other things besides, run it with real-time priority (`chrt -f 50`), or the
//! figures are those of the other things.

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
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
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
    println!("the pseudo-terminal by itself: a request there and an answer back, with nothing else");
    let hops = hops();
    let mean = hops.iter().sum::<Duration>() / u32::try_from(hops.len()).unwrap();
    println!(
        "  median {:.3} ms, mean {:.3} ms, longest {:.1} ms: every turn below pays it",
        millis(hops[hops.len() / 2]),
        millis(mean),
        millis(hops[hops.len() - 1])
    );
    println!("line use: share of the wire-time bound, polling as fast as possible (budget 95 %)");
    for baud in [9600, 115_200] {
        let line = Line::plug(baud, None);
        let bare = ask_barely(&line);
        println!("  {baud:>6} baud, a bare loop: {:5.1} %", 100.0 * line.used(bare));
        for units in [1, 10, 32] {
            let line = Line::plug(baud, None);
            let made = measure(&line, devices(units, Duration::ZERO), WARM_UP, |_| {});
            println!(
                "  {baud:>6} baud, {units:>2} units: {:5.1} %; a turn of {:.2} ms took {:.2} ms, of which the slave was late by {:.2} ms; {:.1} % of a core",
                100.0 * line.used(made.turns()),
                millis(line.turn()),
                millis(MEASURED) / made.turns().max(1) as f64,
                millis(made.late) / made.turns().max(1) as f64,
                made.core(),
            );
        }
    }
    println!("one dead unit among ten: what the other nine keep of what they have among nine (budget 90 %)");
    for baud in [9600, 115_200] {
        let alive = Line::plug(baud, None);
        let nine = devices(10, Duration::ZERO).into_iter().filter(|device| device.unit != 4).collect();
        let alone = measure(&alive, nine, WARM_UP, |_| {});
        let line = Line::plug(baud, Some(4));
        let made = measure(&line, devices(10, Duration::ZERO), Duration::from_secs(8), |_| {});
        let slowest = made.reads.values().min().copied().unwrap_or_default();
        println!(
            "  {baud:>6} baud: {:5.1} % together, {:5.1} % for the slowest",
            100.0 * made.turns() as f64 / alone.turns().max(1) as f64,
            900.0 * slowest as f64 / alone.turns().max(1) as f64,
        );
    }
    println!("write latency on a busy line of ten units: command to the first byte on the wire");
    for baud in [9600, 115_200] {
        let line = Line::plug(baud, None);
        let turn = line.turn();
        let mut waits = writes(&line, devices(10, Duration::ZERO));
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
    let (target, count) = tcp();
    let points = (0..8_u16).map(|at| holding(at * 125, 125)).collect();
    let made = drive(target, vec![device(1, points, Duration::ZERO)], WARM_UP, &count, |_| {});
    let reads = made.turns();
    let seconds = MEASURED.as_secs_f64();
    println!(
        "  {:.0} rounds of 1000 registers a second, {:.2} ms each",
        reads as f64 / 8.0 / seconds,
        8000.0 * seconds / reads.max(1) as f64
    );
    println!("fifty units at a second each: the driver's processor time (budget 1 % of a core)");
    let line = Line::plug(115_200, None);
    let made = measure(&line, devices(50, Duration::from_secs(1)), WARM_UP, |_| {});
    println!("  115200 baud: {:.2} % of a core for {} reads", made.core(), made.turns());
    let (target, count) = tcp();
    let made = drive(target, devices(50, Duration::from_secs(1)), WARM_UP, &count, |_| {});
    println!("  TCP: {:.2} % of a core for {} reads", made.core(), made.turns());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What a slave was asked, by unit, since the count was last taken; and when writes arrived.
#[derive(Clone, Debug, Default)]
struct Count {
    reads: BTreeMap<u8, u64>,
    writes: Vec<Instant>,
    /// By how much the slave's answers ended too late, all together.
    late: Duration,
    /// Processor time: of the slave's thread since it began, while it runs; of the driver, in a result.
    used: Duration,
}

impl Count {
    fn turns(&self) -> u64 {
        self.reads.values().sum()
    }

    /// Processor time of the driver in percent of a core.
    fn core(&self) -> f64 {
        100.0 * self.used.as_secs_f64() / MEASURED.as_secs_f64()
    }
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
    fn used(&self, turns: u64) -> f64 {
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
        let ended = clock::instant();
        let mut count = count.lock().unwrap();
        count.late += ended.saturating_duration_since(due);
        count.used = processor_time(UsageWho::RUSAGE_THREAD);
        if function != 6 {
            *count.reads.entry(unit).or_default() += 1;
        }
    }
}

/// The turns that a loop makes which does nothing else.
fn ask_barely(line: &Line) -> u64 {
    let mut port = serial2::SerialPort::open(&line.path, |mut settings: serial2::Settings| {
        settings.set_raw();
        settings.set_baud_rate(line.baud)?;
        Ok(settings)
    })
    .unwrap();
    port.set_read_timeout(Duration::from_secs(1)).unwrap();
    let body = [&[1, 3, 0, 0][..], &REGISTERS.to_be_bytes()].concat();
    let request = [&body[..], &pentad::proto::modbus::frame::crc16(&body).to_le_bytes()].concat();
    let mut answer = vec![0; 5 + 2 * usize::from(REGISTERS)];
    let end = clock::instant() + MEASURED;
    let mut turns = 0;
    while clock::instant() < end {
        port.write_all(&request).unwrap();
        port.read_exact(&mut answer).unwrap();
        wait_until(clock::instant() + line.timing.silence());
        turns += 1;
    }
    turns
}

/// How long the pseudo-terminal and two threads that wait for each other take for a request and its answer, the shortest first.
fn hops() -> Vec<Duration> {
    let (mut master, mut slave) = serial2::SerialPort::pair().unwrap();
    for port in [&mut master, &mut slave] {
        port.set_read_timeout(Duration::from_secs(1)).unwrap();
        let mut settings = port.get_configuration().unwrap();
        settings.set_raw();
        port.set_configuration(&settings).unwrap();
    }
    let echo = thread::spawn(move || {
        let mut request = [0; 8];
        while master.read_exact(&mut request).is_ok() {
            master.write_all(&[0; 25]).unwrap();
        }
    });
    let mut answer = [0; 25];
    let mut took = Vec::new();
    for _ in 0..1000 {
        let begun = clock::instant();
        slave.write_all(&[1; 8]).unwrap();
        slave.read_exact(&mut answer).unwrap();
        took.push(begun.elapsed());
        // As on a line: neither end is awake from the last turn.
        thread::sleep(Duration::from_millis(2));
    }
    drop(slave);
    echo.join().unwrap();
    took.sort_unstable();
    took
}

/// Exact to some microseconds: the last part of the wait is spent looking.
fn wait_until(then: Instant) {
    let left = then.saturating_duration_since(clock::instant());
    thread::sleep(left.saturating_sub(Duration::from_micros(100)));
    while clock::instant() < then {
        std::hint::spin_loop();
    }
}

fn processor_time(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let micros = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap());
    micros(usage.user_time()) + micros(usage.system_time())
}

/// A Modbus TCP server that answers every read with zeros.
fn tcp() -> (Target, Counter) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let target =
        Target::Tcp { address: address.to_string().into(), socket: Some(address), framing: TcpFraming::Tcp };
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
            let mut count = counter.lock().unwrap();
            count.used = processor_time(UsageWho::RUSAGE_THREAD);
            *count.reads.entry(request[6]).or_default() += 1;
        }
    });
    (target, count)
}

fn holding(address: u16, registers: u16) -> Vec<Point> {
    let point = |address| Point {
        write: WritePolicy::Single,
        verify: false,
        ..Point::new(Table::Holding, address, Data::U16)
    };
    (address..address + registers).map(point).collect()
}

fn devices(units: u8, every: Duration) -> Vec<ModbusDevice> {
    (1..=units).map(|unit| device(unit, vec![holding(0, REGISTERS)], every)).collect()
}

fn device(unit: u8, groups: Vec<Vec<Point>>, every: Duration) -> ModbusDevice {
    let points: Vec<Point> = groups.into_iter().flatten().map(|point| Point { every, ..point }).collect();
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
    let map = ModbusMap { max_gap: 0, ..ModbusMap::new(points.into_iter().map(Some).collect(), Vec::new()) };
    ModbusDevice { device: Arc::new(device), unit, map: Arc::new(map) }
}

fn measure(
    line: &Line,
    devices: Vec<ModbusDevice>,
    warm_up: Duration,
    meanwhile: impl FnOnce(&Bus),
) -> Count {
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
            bus.commands
                .blocking_send(DriverCommand { id, device, action, deadline, urgent: false })
                .unwrap();
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
) -> Count {
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
    let before = std::mem::take(&mut *count.lock().unwrap());
    let used = processor_time(UsageWho::RUSAGE_SELF);
    let begun = clock::instant();
    // A driver whose queue has nobody at the other end stops.
    let bus = Bus { commands };
    meanwhile(&bus);
    thread::sleep((begun + MEASURED).saturating_duration_since(clock::instant()));
    let mut made = count.lock().unwrap().clone();
    let slave = made.used.saturating_sub(before.used);
    made.used = processor_time(UsageWho::RUSAGE_SELF).saturating_sub(used).saturating_sub(slave);
    stop.cancel();
    runtime.block_on(driver.join_all());
    drop(bus);
    made
}

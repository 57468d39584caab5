//! The driver against units that others have written (pymodbus, libmodbus), on a line that does everything that lines do.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pentad::drivers::modbus::map::{Data, Table};
use pentad::drivers::modbus::{BusSettings, SerialFraming, SerialSettings, Target, TcpFraming};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::value::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_serial::{SerialPort, SerialStream};

use crate::rig::{PATIENCE, Rig, TIMEOUT, device, holding, point};
use crate::slave::rtu;

/// What happens to one answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It comes after the timeout.
    Late,
    /// It never comes.
    Silent,
    /// A byte is changed.
    Garbled,
    /// Its end is lost.
    Truncated,
    /// It comes byte by byte.
    Bytewise,
    /// The traffic of others comes before it.
    Foreign,
    /// The request comes back before it, as on two-wire adapters.
    Echo,
}

const FAULTS: [Fault; 7] = [
    Fault::Late,
    Fault::Silent,
    Fault::Garbled,
    Fault::Truncated,
    Fault::Bytewise,
    Fault::Foreign,
    Fault::Echo,
];

/// A line between the driver and a unit, each on a pseudo-terminal of its own.
struct Relay {
    /// What the driver opens.
    near: PathBuf,
    /// What the unit opens.
    far: PathBuf,
    fault: Arc<Mutex<Option<Fault>>>,
    task: JoinSet<()>,
}

impl Relay {
    fn new(folder: &Path) -> Self {
        let (near, near_slave) = SerialStream::pair().unwrap();
        let (far, far_slave) = SerialStream::pair().unwrap();
        let link = folder.join("port");
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(near_slave.name().unwrap(), &link).unwrap();
        let far_path = far_slave.name().unwrap().into();
        let fault = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(carry(near, far, Arc::clone(&fault), (near_slave, far_slave)));
        Self { near: link, far: far_path, fault, task }
    }

    fn inject(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Whether the fault has struck.
    fn struck(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }

    async fn unplug(mut self) {
        self.task.shutdown().await;
        std::fs::remove_file(&self.near).unwrap();
    }
}

/// Both slave ends stay open, so that a port that is closed for a moment does not hang its master up.
async fn carry(
    mut near: SerialStream,
    mut far: SerialStream,
    fault: Arc<Mutex<Option<Fault>>>,
    _slaves: (SerialStream, SerialStream),
) {
    let (mut request, mut answer) = ([0; 512], [0; 512]);
    let mut asked = Vec::new();
    loop {
        tokio::select! {
            count = near.read(&mut request) => {
                asked = request[..count.unwrap()].to_vec();
                far.write_all(&asked).await.unwrap();
            }
            count = far.read(&mut answer) => {
                let mut frame = answer[..count.unwrap()].to_vec();
                // What comes within a moment is one answer.
                while let Ok(count) = tokio::time::timeout(TIMEOUT / 20, far.read(&mut answer)).await {
                    frame.extend_from_slice(&answer[..count.unwrap()]);
                }
                let fault = fault.lock().unwrap().take();
                for piece in mistreat(fault, &asked, frame).await {
                    near.write_all(&piece).await.unwrap();
                }
            }
        }
    }
}

/// The pieces in which an answer arrives.
async fn mistreat(fault: Option<Fault>, asked: &[u8], mut frame: Vec<u8>) -> Vec<Vec<u8>> {
    match fault {
        None => vec![frame],
        Some(Fault::Late) => {
            tokio::time::sleep(TIMEOUT * 5 / 4).await;
            vec![frame]
        }
        Some(Fault::Silent) => Vec::new(),
        Some(Fault::Garbled) => {
            frame[3] ^= 0x55;
            vec![frame]
        }
        Some(Fault::Truncated) => {
            frame.truncate(frame.len() - 2);
            vec![frame]
        }
        Some(Fault::Bytewise) => frame.into_iter().map(|byte| vec![byte]).collect(),
        Some(Fault::Foreign) => vec![rtu(&[9, 3, 0, 10, 0, 1]), rtu(&[9, 3, 2, 0, 99]), frame],
        Some(Fault::Echo) => vec![asked.to_vec(), frame],
    }
}

/// A running unit; killed when dropped.
struct Unit(#[expect(dead_code, reason = "it is killed when it is dropped")] Child);

impl Unit {
    async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("the unit is ready in time");
        assert_eq!(ready.unwrap().as_deref(), Some("ready"));
        Self(child)
    }

    async fn pymodbus(framing: &str, place: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(root.join(".venv/bin/python"));
        command.arg(root.join("counterparts/pymodbus_slave.py")).args([framing, place]);
        Self::start(command).await
    }

    async fn libmodbus(folder: &Path, arguments: &[&str]) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts/libmodbus_slave.c");
        let program = folder.join("libmodbus_slave");
        let built =
            Command::new("cc").arg(source).arg("-o").arg(&program).arg("-lmodbus").status().await.unwrap();
        assert!(
            built.success(),
            "cc and libmodbus are installed (Debian package libmodbus-dev; tests/run does it)"
        );
        let mut command = Command::new(program);
        command.args(arguments);
        Self::start(command).await
    }
}

fn on_line(relay: &Relay, framing: SerialFraming) -> Target {
    Target::Serial(SerialSettings { framing, ..SerialSettings::at(relay.near.to_str().unwrap(), 115_200) })
}

/// Reads through every fault, a write with its read-back, a refusal, and the adapter pulled out and put back.
async fn endure(folder: &Path, relay: Relay, framing: SerialFraming, restart: impl AsyncFn(&Relay) -> Unit) {
    let unit = restart(&relay).await;
    let points = vec![
        holding(10, 50),
        point(Table::Input, 10, Data::U16, 50),
        holding(20, 60_000),
        holding(30_000, 60_000),
    ];
    let mut rig = Rig::start(on_line(&relay, framing), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(4711)).await;
    rig.value(1, 1, Value::Int(815)).await;
    let Sample::Unreadable(why) = rig.sample(1, 3).await else { panic!("there is no register 30000") };
    assert!(why.contains("exception 2"), "{why}");
    for fault in FAULTS {
        rig.forget();
        relay.inject(fault);
        while !relay.struck() {
            rig.watch(TIMEOUT / 10).await;
        }
        rig.watch(TIMEOUT * 2).await;
        rig.forget();
        rig.value(1, 0, Value::Int(4711)).await;
        rig.value(1, 1, Value::Int(815)).await;
        for (position, value) in [(0, 4711), (1, 815)] {
            let samples = rig.all_samples(1, position);
            assert!(
                samples.iter().all(|sample| *sample == Sample::Value(Value::Int(value))),
                "{fault:?}: {samples:?}"
            );
        }
        assert_eq!(
            rig.count(|seen| matches!(seen, Observation::Presence { online: false, .. })),
            0,
            "{fault:?} does not take the device offline"
        );
    }
    let outcome = rig.command(1, DriverAction::Write(vec![(2, Value::Int(1234))])).await;
    assert!(matches!(outcome, Outcome::Confirmed { .. }), "{outcome:?}");
    let outcome = rig.command(1, DriverAction::Write(vec![(3, Value::Int(1))])).await;
    assert!(format!("{outcome:?}").contains("illegal data address"), "{outcome:?}");

    rig.forget();
    drop(unit);
    relay.unplug().await;
    rig.link(false).await;
    let relay = Relay::new(folder);
    let _unit = restart(&relay).await;
    rig.link(true).await;
    rig.presence(1, true).await;
    rig.value(1, 0, Value::Int(4711)).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_is_read_and_written_through_every_fault_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::new(folder.path());
    let start = async |relay: &Relay| Unit::pymodbus("rtu", relay.far.to_str().unwrap()).await;
    endure(folder.path(), relay, SerialFraming::Rtu, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_on_an_ascii_line_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::new(folder.path());
    let start = async |relay: &Relay| Unit::pymodbus("ascii", relay.far.to_str().unwrap()).await;
    endure(folder.path(), relay, SerialFraming::Ascii, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libmodbus_unit_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::new(folder.path());
    let path = folder.path().to_owned();
    let start =
        async |relay: &Relay| Unit::libmodbus(&path, &["rtu", relay.far.to_str().unwrap(), "1"]).await;
    endure(folder.path(), relay, SerialFraming::Rtu, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_units_of_others_are_read_and_written_and_mbpoll_reads_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (peer, framing) in
        [("libmodbus", TcpFraming::Tcp), ("pymodbus", TcpFraming::Tcp), ("pymodbus", TcpFraming::Rtu)]
    {
        let address = free();
        let port = address.port().to_string();
        let _unit = match (peer, framing) {
            ("libmodbus", _) => Unit::libmodbus(folder.path(), &["tcp", &port]).await,
            (_, TcpFraming::Tcp) => Unit::pymodbus("tcp", &port).await,
            (_, TcpFraming::Rtu) => Unit::pymodbus("rtu", &port).await,
        };
        let settings = BusSettings {
            id: "bus".into(),
            target: Target::Tcp { address: address.to_string().into(), socket: Some(address), framing },
            timeout: TIMEOUT * 5,
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        let points = vec![holding(10, 50), point(Table::Input, 10, Data::U16, 50), holding(20, 60_000)];
        let mut rig = Rig::start_as(settings, vec![device(1, points, vec![])]);
        rig.value(1, 0, Value::Int(4711)).await;
        rig.value(1, 1, Value::Int(815)).await;
        let outcome = rig.command(1, DriverAction::Write(vec![(2, Value::Int(1234))])).await;
        assert!(matches!(outcome, Outcome::Confirmed { .. }), "{peer}: {outcome:?}");
        rig.stop().await;
        if framing == TcpFraming::Tcp {
            // -0: addresses as they travel; -t 4: holding registers; -1: once.
            let arguments = [
                "-m",
                "tcp",
                "-p",
                &port,
                "-a",
                "1",
                "-0",
                "-r",
                "20",
                "-c",
                "1",
                "-t",
                "4",
                "-1",
                "127.0.0.1",
            ];
            let output = Command::new("mbpoll").args(arguments).output().await;
            let output = output.expect("mbpoll is installed (Debian package mbpoll; tests/run installs it)");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1234"), "{peer}: {text}");
        }
    }
}

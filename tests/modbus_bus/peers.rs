//! The driver against units that others have written (pymodbus, libmodbus), on a line and over a network that do
//! everything that lines and networks do.
//!
//! What is shown with which unit: R is RTU on a pseudo-terminal, A ASCII on one, T Modbus TCP, O RTU in a TCP stream.
//!
//! | what happens | pymodbus | libmodbus |
//! | --- | --- | --- |
//! | an answer is late, missing, garbled, truncated, comes byte by byte, behind traffic of others | R A T O | R T |
//! | the request comes back before the answer, as on two-wire adapters | R A O | R |
//! | the connection ends within an answer | T O | T |
//! | the unit refuses by an exception | R A T O | R T |
//! | adapter or server gone, and back | R A T O | R T |
//! | a write, read back by the driver | R A T O | R T |
//! | each kind of write, read back by mbpoll (`written.rs`) | R T | R T |
//!
//! `tests/end_to_end.rs` shows silent, late, garbled, and an adapter gone and back with the built binary and pymodbus on a
//! pseudo-terminal, up to the clients.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pentad::drivers::modbus::map::{Data, Table};
use pentad::drivers::modbus::{SerialFraming, SerialSettings, Target, TcpFraming};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::value::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_serial::{SerialPort, SerialStream};

use crate::port::Port;
use crate::rig::{PATIENCE, Rig, TIMEOUT, device, holding, point};
use crate::slave::{mbap, now, rtu};
use crate::units::Unit;

/// What happens to one answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It comes after the timeout.
    Late,
    /// It never comes.
    Silent,
    /// Bytes of it are changed. Over Modbus TCP, which has no checksum, the function is among them.
    Garbled,
    /// Its end is lost.
    Truncated,
    /// The connection ends within it.
    Cut,
    /// It comes byte by byte.
    Bytewise,
    /// The traffic of others comes before it.
    Foreign,
    /// The request comes back before it, as on two-wire adapters.
    Echo,
}

impl Fault {
    /// Whether the answer is there all the same.
    fn harmless(self) -> bool {
        matches!(self, Self::Bytewise | Self::Foreign | Self::Echo)
    }
}

/// How the driver reaches a unit.
pub(crate) enum Way {
    /// By a pseudo-terminal, linked as `port` in the folder.
    Line { folder: PathBuf, framing: SerialFraming },
    /// By a connection to a port of this machine.
    Net { port: Port, framing: TcpFraming },
}

impl Way {
    pub(crate) fn line(folder: &Path, framing: SerialFraming) -> Self {
        Self::Line { folder: folder.into(), framing }
    }

    pub(crate) fn net(framing: TcpFraming) -> Self {
        Self::Net { port: Port::free(), framing }
    }

    /// What may happen on it. Modbus TCP has no echo.
    fn faults(&self) -> &'static [Fault] {
        use Fault::{Bytewise, Cut, Echo, Foreign, Garbled, Late, Silent, Truncated};
        match self {
            Self::Line { .. } => &[Late, Silent, Garbled, Truncated, Bytewise, Foreign, Echo],
            Self::Net { framing: TcpFraming::Tcp, .. } => {
                &[Late, Silent, Garbled, Truncated, Cut, Bytewise, Foreign]
            }
            Self::Net { framing: TcpFraming::Rtu, .. } => {
                &[Late, Silent, Garbled, Truncated, Cut, Bytewise, Foreign, Echo]
            }
        }
    }

    fn has_transactions(&self) -> bool {
        matches!(self, Self::Net { framing: TcpFraming::Tcp, .. })
    }
}

/// A line or a network between the driver and a unit.
pub(crate) struct Relay {
    /// What the driver opens: a path or a port.
    near: String,
    /// What the unit opens.
    pub(crate) far: String,
    mischief: Arc<Mischief>,
    task: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn plug(way: &Way) -> Self {
        let mischief = Arc::new(Mischief {
            fault: Mutex::default(),
            transactions: way.has_transactions(),
            connections: AtomicUsize::new(0),
        });
        let own = Arc::clone(&mischief);
        let mut task = JoinSet::new();
        let (near, far) = match way {
            Way::Line { folder, .. } => {
                let (near, near_slave) = SerialStream::pair().unwrap();
                let (far, far_slave) = SerialStream::pair().unwrap();
                let link = folder.join("port");
                drop(std::fs::remove_file(&link));
                std::os::unix::fs::symlink(near_slave.name().unwrap(), &link).unwrap();
                let place = far_slave.name().unwrap();
                task.spawn(async move {
                    own.carry(near, far).await;
                    // Both slave ends stay open, so that a port that is closed for a moment does not hang its master up.
                    drop((near_slave, far_slave));
                });
                (link.to_str().unwrap().to_owned(), place)
            }
            Way::Net { port, .. } => {
                let listener = TcpListener::bind(port.address()).await.unwrap();
                let unit = Port::free();
                let far = unit.number.to_string();
                // One connection at a time, as many devices have it.
                task.spawn(async move {
                    loop {
                        let (near, _) = listener.accept().await.unwrap();
                        near.set_nodelay(true).unwrap();
                        own.connections.fetch_add(1, Ordering::Relaxed);
                        if let Ok(far) = TcpStream::connect(unit.address()).await {
                            own.carry(near, far).await;
                        }
                    }
                });
                (port.number.to_string(), far)
            }
        };
        Self { near, far, mischief, task }
    }

    /// What another than the driver opens in its place.
    pub(crate) fn near(&self) -> String {
        self.near.clone()
    }

    pub(crate) fn target(&self, way: &Way) -> Target {
        match way {
            Way::Line { framing, .. } => {
                let framing = *framing;
                Target::Serial(SerialSettings { framing, ..SerialSettings::at(&self.near, 115_200) })
            }
            Way::Net { port, framing } => {
                let address = port.address();
                Target::Tcp { address: address.to_string().into(), socket: Some(address), framing: *framing }
            }
        }
    }

    /// How often it was connected to, on a network.
    fn connections(&self) -> usize {
        self.mischief.connections.load(Ordering::Relaxed)
    }

    fn inject(&self, fault: Fault) {
        *self.mischief.fault.lock().unwrap() = Some(fault);
    }

    /// Whether the fault has struck.
    fn struck(&self) -> bool {
        self.mischief.fault.lock().unwrap().is_none()
    }

    async fn unplug(mut self) {
        self.task.shutdown().await;
        if self.near.starts_with('/') {
            std::fs::remove_file(&self.near).unwrap();
        }
    }
}

/// What a relay does to the next answer.
struct Mischief {
    fault: Mutex<Option<Fault>>,
    transactions: bool,
    connections: AtomicUsize,
}

impl Mischief {
    /// Until either side ends it.
    async fn carry<T: AsyncRead + AsyncWrite + Unpin>(&self, mut near: T, mut far: T) {
        let (mut request, mut answer) = ([0; 512], [0; 512]);
        let mut asked = Vec::new();
        loop {
            tokio::select! {
                count = near.read(&mut request) => {
                    let Ok(count @ 1..) = count else { return };
                    asked = request[..count].to_vec();
                    far.write_all(&asked).await.unwrap();
                }
                count = far.read(&mut answer) => {
                    let Ok(count @ 1..) = count else { return };
                    let mut frame = answer[..count].to_vec();
                    // What comes within a moment is one answer.
                    while let Ok(Ok(count @ 1..)) =
                        tokio::time::timeout(TIMEOUT / 20, far.read(&mut answer)).await
                    {
                        frame.extend_from_slice(&answer[..count]);
                    }
                    let fault = self.fault.lock().unwrap().take();
                    for piece in self.mistreat(fault, &asked, frame).await {
                        if near.write_all(&piece).await.is_err() {
                            return;
                        }
                        if fault == Some(Fault::Bytewise) {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                    if fault == Some(Fault::Cut) {
                        return;
                    }
                }
            }
        }
    }

    /// The pieces in which an answer arrives.
    async fn mistreat(&self, fault: Option<Fault>, asked: &[u8], mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        match fault {
            None => vec![frame],
            Some(Fault::Late) => {
                tokio::time::sleep(TIMEOUT * 5 / 4).await;
                vec![frame]
            }
            Some(Fault::Silent) => Vec::new(),
            Some(Fault::Garbled) => {
                // The function and the value, or a byte under the checksum.
                let places = if self.transactions { vec![7, frame.len() - 1] } else { vec![3] };
                for at in places {
                    frame[at] ^= 0x55;
                }
                vec![frame]
            }
            Some(Fault::Truncated | Fault::Cut) => {
                frame.truncate(frame.len() - 2);
                vec![frame]
            }
            Some(Fault::Bytewise) => frame.into_iter().map(|byte| vec![byte]).collect(),
            // What was never asked on this connection; on a line, both sides of another's exchange.
            Some(Fault::Foreign) if self.transactions => vec![mbap([0xAA, 0xAA], &[1, 3, 2, 0, 99]), frame],
            Some(Fault::Foreign) => vec![rtu(&[9, 3, 0, 10, 0, 1]), rtu(&[9, 3, 2, 0, 99]), frame],
            Some(Fault::Echo) => vec![asked.to_vec(), frame],
        }
    }
}

/// Waits for the values that the unit has from the beginning.
async fn both_are_read(rig: &mut Rig) {
    rig.value(1, 0, Value::Int(4711)).await;
    rig.value(1, 1, Value::Int(815)).await;
}

/// Watches until something is so.
async fn wait(rig: &mut Rig, what: &str, so: impl Fn(&Rig) -> bool) {
    let deadline = now() + PATIENCE;
    while !so(rig) {
        assert!(now() < deadline, "waited in vain until {what}");
        rig.watch(TIMEOUT / 20).await;
    }
}

/// Lets a fault strike one answer, and waits until everything is read as before, several times. Returns whether a request has
/// failed.
async fn strike(rig: &mut Rig, relay: &Relay, fault: Fault) -> bool {
    rig.forget();
    let (failures, connections) = (rig.failures(), relay.connections());
    relay.inject(fault);
    wait(rig, &format!("{fault:?} struck"), |_| relay.struck()).await;
    if !fault.harmless() {
        let noticed = |rig: &Rig| {
            if fault == Fault::Cut { relay.connections() > connections } else { rig.failures() > failures }
        };
        wait(rig, &format!("{fault:?} was noticed"), noticed).await;
    }
    for position in [0, 1] {
        let before = rig.all_samples(1, position).len();
        let again = |rig: &Rig| rig.all_samples(1, position).len() >= before + 3;
        wait(rig, &format!("p{position} was read again after {fault:?}"), again).await;
    }
    for (position, value) in [(0, 4711), (1, 815)] {
        let samples = rig.all_samples(1, position);
        let right = samples.iter().all(|sample| *sample == Sample::Value(Value::Int(value)));
        assert!(right, "{fault:?}: {samples:?}");
    }
    let offline = rig.count(|seen| matches!(seen, Observation::Presence { online: false, .. }));
    assert_eq!(offline, 0, "{fault:?} does not take the device offline");
    rig.failures() > failures
}

/// Reads through every fault, a write with its read-back, a refusal, and the adapter or the server gone and back.
async fn endure(way: Way, start: impl AsyncFn(&Relay) -> Unit) {
    let relay = Relay::plug(&way).await;
    let unit = start(&relay).await;
    let points = vec![
        holding(10, 50),
        point(Table::Input, 10, Data::U16, 50),
        holding(20, 60_000),
        holding(30_000, 60_000),
    ];
    let mut rig = Rig::start(relay.target(&way), vec![device(1, points, vec![])]);
    both_are_read(&mut rig).await;
    let Sample::Unreadable(why) = rig.sample(1, 3).await else { panic!("there is no register 30000") };
    assert!(why.contains("exception 2"), "{why}");
    for &fault in way.faults() {
        // A busy machine may hold up an answer that was only in pieces, but not every time.
        let mut tries = 0;
        while strike(&mut rig, &relay, fault).await && fault.harmless() {
            tries += 1;
            assert!(tries < 5, "{fault:?} costs an answer");
        }
    }
    let outcome = rig.command(1, DriverAction::Write(vec![(2, Value::Int(1234))])).await;
    assert!(matches!(outcome, Outcome::Confirmed { .. }), "{outcome:?}");
    let outcome = rig.command(1, DriverAction::Write(vec![(3, Value::Int(1))])).await;
    assert!(format!("{outcome:?}").contains("illegal data address"), "{outcome:?}");

    rig.forget();
    drop(unit);
    relay.unplug().await;
    rig.link(false).await;
    rig.presence(1, false).await;
    rig.forget();
    let relay = Relay::plug(&way).await;
    let _unit = start(&relay).await;
    rig.link(true).await;
    rig.presence(1, true).await;
    both_are_read(&mut rig).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_is_read_and_written_through_every_fault_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::line(folder.path(), SerialFraming::Rtu);
    endure(way, async |relay| Unit::pymodbus("rtu", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_on_an_ascii_line_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::line(folder.path(), SerialFraming::Ascii);
    endure(way, async |relay| Unit::pymodbus("ascii", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libmodbus_unit_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::line(folder.path(), SerialFraming::Rtu);
    endure(way, async |relay| Unit::libmodbus(folder.path(), "rtu", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_is_read_and_written_through_every_fault_of_a_network() {
    let way = Way::net(TcpFraming::Tcp);
    endure(way, async |relay| Unit::pymodbus("tcp", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libmodbus_unit_on_a_network_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::net(TcpFraming::Tcp);
    endure(way, async |relay| Unit::libmodbus(folder.path(), "tcp", &relay.far).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pymodbus_unit_behind_a_serial_server_is_too() {
    let way = Way::net(TcpFraming::Rtu);
    endure(way, async |relay| Unit::pymodbus("rtu", &relay.far).await).await;
}

//! Scripted Modbus slaves for tests, on the master side of a pseudo-terminal or behind a TCP listener.
//!
//! Written on raw bytes and by hand, without a line of the code under test, so that a mistake there is not repeated
//! here. By default a slave answers out of its memory; a script may answer anything else to any request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_serial::{SerialPort, SerialStream};

/// What a slave was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) unit: u8,
    pub(crate) function: u8,
    pub(crate) address: u16,
    /// Count of a read or multiple write, value of a single write.
    pub(crate) second: u16,
    /// Registers of a multiple write.
    pub(crate) data: Vec<u16>,
    /// The whole request as it came, with its checksum.
    pub(crate) frame: Vec<u8>,
    /// When it came.
    pub(crate) at: Instant,
}

/// What a slave does.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Does nothing for a while; requests that come meanwhile wait.
    Wait(Duration),
    /// Ends the connection.
    HangUp,
}

/// `None` answers out of the memory.
pub(crate) type Script = Box<dyn FnMut(&Asked) -> Option<Vec<Deed>> + Send>;

/// What slaves share with the test.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    registers: BTreeMap<(u8, u16), u16>,
    coils: BTreeSet<(u8, u16)>,
    dead: BTreeSet<u8>,
    log: Vec<Asked>,
    script: Option<Script>,
    connections: usize,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set(&self, unit: u8, address: u16, words: &[u16]) {
        for (address, word) in (address..).zip(words) {
            self.lock().registers.insert((unit, address), *word);
        }
    }

    pub(crate) fn get(&self, unit: u8, address: u16) -> Option<u16> {
        self.lock().registers.get(&(unit, address)).copied()
    }

    pub(crate) fn coil(&self, unit: u8, address: u16) -> bool {
        self.lock().coils.contains(&(unit, address))
    }

    pub(crate) fn kill(&self, unit: u8) {
        self.lock().dead.insert(unit);
    }

    pub(crate) fn revive(&self, unit: u8) {
        self.lock().dead.remove(&unit);
    }

    pub(crate) fn script(&self, script: impl FnMut(&Asked) -> Option<Vec<Deed>> + Send + 'static) {
        self.lock().script = Some(Box::new(script));
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.lock().log.clone()
    }

    /// How often a TCP server of this world was connected to.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    /// What to do about a request; bodies are without checksum.
    fn react(&self, asked: &Asked) -> Vec<Deed> {
        let mut inner = self.lock();
        inner.log.push(asked.clone());
        if inner.dead.contains(&asked.unit) {
            return Vec::new();
        }
        let mut script = inner.script.take();
        let scripted = script.as_mut().and_then(|script| script(asked));
        inner.script = script;
        scripted.unwrap_or_else(|| vec![Deed::Send(rtu(&inner.answer(asked)))])
    }
}

impl Inner {
    fn answer(&mut self, asked: &Asked) -> Vec<u8> {
        let [a, b] = asked.address.to_be_bytes();
        let [c, d] = asked.second.to_be_bytes();
        let echo = vec![asked.unit, asked.function, a, b, c, d];
        let places = (0..asked.second).map(|at| (asked.unit, asked.address.wrapping_add(at)));
        match asked.function {
            3 | 4 => {
                let words: Option<Vec<u16>> =
                    places.map(|place| self.registers.get(&place).copied()).collect();
                words.map_or_else(|| exception(asked, 2), |words| read_answer(asked, &words))
            }
            1 | 2 => {
                let mut bytes = vec![0_u8; usize::from(asked.second.div_ceil(8))];
                for (at, place) in places.enumerate() {
                    bytes[at / 8] |= u8::from(self.coils.contains(&place)) << (at % 8);
                }
                let count = u8::try_from(bytes.len()).unwrap();
                [&[asked.unit, asked.function, count][..], &bytes].concat()
            }
            5 => {
                if asked.second == 0xFF00 {
                    self.coils.insert((asked.unit, asked.address));
                } else {
                    self.coils.remove(&(asked.unit, asked.address));
                }
                echo
            }
            6 if self.registers.contains_key(&(asked.unit, asked.address)) => {
                self.registers.insert((asked.unit, asked.address), asked.second);
                echo
            }
            16 => {
                for (place, word) in places.zip(&asked.data) {
                    self.registers.insert(place, *word);
                }
                echo
            }
            6 => exception(asked, 2),
            _ => exception(asked, 1),
        }
    }
}

/// The body of a right answer to a read of registers.
pub(crate) fn read_answer(asked: &Asked, words: &[u16]) -> Vec<u8> {
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    [&[asked.unit, asked.function, u8::try_from(data.len()).unwrap()][..], &data].concat()
}

/// The body of a refusal.
pub(crate) fn exception(asked: &Asked, code: u8) -> Vec<u8> {
    vec![asked.unit, asked.function | 0x80, code]
}

/// Puts the checksum behind a body.
pub(crate) fn rtu(body: &[u8]) -> Vec<u8> {
    let mut crc = 0xFFFF_u16;
    for byte in body {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0xA001;
            }
        }
    }
    [body, &crc.to_le_bytes()].concat()
}

/// A body, without checksum, as an ASCII frame.
pub(crate) fn ascii(body: &[u8]) -> Vec<u8> {
    let sum: u32 = body.iter().map(|byte| u32::from(*byte)).sum();
    let check = u8::try_from((0x100 - (sum & 0xFF)) & 0xFF).unwrap();
    let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
    let digits = body.iter().chain([&check]).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    [b':'].into_iter().chain(digits).chain(*b"\r\n").collect()
}

/// Takes one whole ASCII request from the front of a buffer and gives it as it would be in RTU.
fn take_ascii(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let line: Vec<u8> = buffer.drain(..=end).collect();
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0xFF);
    let digits = &line[1..line.len() - 2];
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect();
    let body = &bytes[..bytes.len() - 1];
    assert_eq!(ascii(body), line, "the master sent a bad frame");
    Some(rtu(body))
}

/// Takes one whole request from the front of a buffer.
fn take_request(buffer: &mut Vec<u8>) -> Option<Asked> {
    let function = *buffer.get(1)?;
    let length = match function {
        15 | 16 => 9 + usize::from(*buffer.get(6)?),
        17 => 4,
        43 => 7,
        _ => 8,
    };
    if buffer.len() < length {
        return None;
    }
    let frame: Vec<u8> = buffer.drain(..length).collect();
    assert_eq!(rtu(&frame[..length - 2]), frame, "the master sent a bad frame");
    let byte = |at: usize| frame.get(at).copied().unwrap_or_default();
    let word = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    let data = if function == 16 { (7..length - 2).step_by(2).map(word).collect() } else { Vec::new() };
    Some(Asked { unit: frame[0], function, address: word(2), second: word(4), data, at: now(), frame })
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::from_std(pentad::clock::instant()).into_std()
}

/// A slave side of a line, and the path of the port to open. Dropping it unplugs the adapter.
pub(crate) struct Line {
    pub(crate) path: PathBuf,
    task: JoinSet<()>,
}

impl Line {
    /// A line with the world's slaves on it, reached through a stable name.
    pub(crate) fn plug(world: &World, link: &Path) -> Self {
        Self::plug_in(world, link, false)
    }

    /// The same with ASCII frames. Scripts give RTU frames all the same, or `raw` bytes.
    pub(crate) fn plug_ascii(world: &World, link: &Path) -> Self {
        Self::plug_in(world, link, true)
    }

    fn plug_in(world: &World, link: &Path, in_ascii: bool) -> Self {
        let (master, slave) = SerialStream::pair().unwrap();
        let node = slave.name().unwrap();
        drop(std::fs::remove_file(link));
        std::os::unix::fs::symlink(&node, link).unwrap();
        let mut task = JoinSet::new();
        task.spawn(serve_line(world.clone(), master, slave, in_ascii));
        Self { path: link.to_owned(), task }
    }

    /// Pulls the adapter out, name and all.
    pub(crate) async fn unplug(mut self) {
        self.task.shutdown().await;
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// `_slave` stays open: a port that is closed for a moment does not hang the master up.
async fn serve_line(world: World, master: SerialStream, _slave: SerialStream, in_ascii: bool) {
    serve_frames(world, master, in_ascii).await;
}

async fn serve_frames(world: World, mut port: impl AsyncRead + AsyncWrite + Unpin, in_ascii: bool) {
    let mut buffer = Vec::new();
    loop {
        loop {
            let asked = if in_ascii {
                take_ascii(&mut buffer).map(|mut frame| take_request(&mut frame).unwrap())
            } else {
                take_request(&mut buffer)
            };
            let Some(asked) = asked else { break };
            for deed in world.react(&asked) {
                match deed {
                    Deed::Send(bytes) if in_ascii => {
                        let bytes = match bytes.strip_prefix(RAW) {
                            Some(raw) => raw.to_vec(),
                            None => ascii(&bytes[..bytes.len() - 2]),
                        };
                        port.write_all(&bytes).await.unwrap();
                    }
                    Deed::Send(bytes) => port.write_all(&bytes).await.unwrap(),
                    Deed::Wait(time) => tokio::time::sleep(time).await,
                    Deed::HangUp => return,
                }
            }
        }
        if port.read_buf(&mut buffer).await.unwrap() == 0 {
            return;
        }
    }
}

/// A Modbus TCP server with the world's slaves behind it. Scripts give whole MBAP frames.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(world: &World, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = world.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                world.lock().connections += 1;
                connections.spawn(serve_tcp(world.clone(), stream));
            }
        });
        Self { address, tasks }
    }

    /// The same with RTU frames inside of the connection.
    pub(crate) async fn start_rtu(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = world.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_frames(world, stream, false).await;
        });
        Self { address, tasks }
    }

    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve_tcp(world: World, mut stream: TcpStream) {
    loop {
        let mut header = [0; 6];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let asked = take_request(&mut rtu(&body)).unwrap();
        for deed in world.react(&asked) {
            match deed {
                Deed::Send(frame) => {
                    // A default answer and a scripted RTU body become MBAP frames; `raw` ones are sent as they are.
                    let frame = match frame.strip_prefix(RAW) {
                        Some(raw) => raw.to_vec(),
                        None => mbap([header[0], header[1]], &frame[..frame.len() - 2]),
                    };
                    if stream.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                Deed::Wait(time) => tokio::time::sleep(time).await,
                Deed::HangUp => return,
            }
        }
    }
}

const RAW: &[u8] = b"raw:";

/// Bytes for a TCP slave to send without a header of its own.
pub(crate) fn raw(bytes: &[u8]) -> Vec<u8> {
    [RAW, bytes].concat()
}

/// A body with an MBAP header before it.
pub(crate) fn mbap(transaction: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&transaction[..], &[0, 0], &length, body].concat()
}

//! The flight recorder of a bus: the last minutes of its bytes, in memory, for whoever asks after a fault.
//!
//! The bus writes, the captures task and the HTTP server read; a frame is copied under a lock that is never held for
//! longer than that. What is kept is bounded by bytes and by age.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{BusSettings, SerialFraming, Target, TcpFraming};
use crate::model::time::Now;
use crate::proto::modbus::ascii;
use crate::proto::modbus::frame::crc16;
use crate::proto::pcapng::{self, Packet};

/// Bytes that one bus keeps, with what each frame costs besides. At 9600 baud and half load this is ten minutes. When
/// full, the oldest frames go.
pub const RECORDED_BYTES: usize = 512 * 1024;

/// What a frame costs besides its bytes.
const FRAME_COST: usize = 64;

/// Frames that are older say nothing of a fault that somebody has just seen.
pub const RECORDED_AGE: Duration = Duration::from_secs(600);

/// Bytes that come behind each other with no longer pause are one frame: adapters hand a frame over in pieces.
const SAME_FRAME: Duration = Duration::from_millis(50);

/// Faults that wait to be written. When full a fault is not written: the one before it shows the same minutes.
pub const FAULT_QUEUE: usize = 8;

/// The recorder of one bus. Copies share the tape.
#[derive(Clone, Debug)]
pub struct Recorder {
    bus: Arc<str>,
    form: Form,
    peer: Option<[u8; 4]>,
    tape: Arc<Mutex<Tape>>,
    faults: Option<mpsc::Sender<Arc<str>>>,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Rtu,
    Ascii,
    Tcp,
}

#[derive(Debug, Default)]
struct Tape {
    frames: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    at: Instant,
    until: Instant,
    outbound: bool,
    bytes: Vec<u8>,
    note: Option<String>,
}

impl Recorder {
    /// An empty tape for a bus.
    pub fn new(settings: &BusSettings, faults: Option<mpsc::Sender<Arc<str>>>) -> Self {
        let (form, peer) = match &settings.target {
            Target::Serial(serial) if serial.framing == SerialFraming::Ascii => (Form::Ascii, None),
            Target::Serial(_) => (Form::Rtu, None),
            Target::Tcp { socket, framing, .. } => {
                let peer = match socket.map(|socket| socket.ip().to_canonical()) {
                    Some(IpAddr::V4(address)) => Some(address.octets()),
                    Some(IpAddr::V6(_)) | None => None,
                };
                (if *framing == TcpFraming::Tcp { Form::Tcp } else { Form::Rtu }, peer)
            }
        };
        Self { bus: Arc::clone(&settings.id), form, peer, tape: Arc::default(), faults }
    }

    /// Id of the bus.
    pub fn bus(&self) -> &Arc<str> {
        &self.bus
    }

    /// A request went out.
    pub(super) fn sent(&self, bytes: &[u8], now: Instant) {
        self.tape().push(Frame { at: now, until: now, outbound: true, bytes: bytes.to_vec(), note: None });
    }

    /// Bytes came in, of whatever kind.
    pub(super) fn received(&self, bytes: &[u8], now: Instant) {
        let mut tape = self.tape();
        let goes_on = |frame: &&mut Frame| {
            !frame.outbound
                && frame.note.is_none()
                && now.saturating_duration_since(frame.until) <= SAME_FRAME
        };
        if let Some(frame) = tape.frames.back_mut().filter(goes_on) {
            frame.bytes.extend_from_slice(bytes);
            frame.until = now;
            tape.bytes += bytes.len();
            tape.trim(now);
        } else {
            tape.push(Frame { at: now, until: now, outbound: false, bytes: bytes.to_vec(), note: None });
        }
    }

    /// Says something of the last frame: what was wrong with it, or that nothing came behind it.
    pub(super) fn note(&self, words: &str) {
        if let Some(frame) = self.tape().frames.back_mut() {
            frame.note = Some(words.to_owned());
        }
    }

    /// A unit went offline or the port was lost: somebody may want to see what was on the line.
    pub(super) fn fault(&self) {
        if let Some(faults) = self.faults.as_ref().filter(|_| !self.tape().frames.is_empty()) {
            // See the queue for what is lost when it is full.
            drop(faults.try_send(Arc::clone(&self.bus)));
        }
    }

    /// The tape as a pcapng file.
    pub fn pcapng(&self, now: Now) -> Vec<u8> {
        let mut tape = self.tape();
        tape.trim(now.instant);
        let wall = u64::try_from(now.wall.0).unwrap_or_default().saturating_mul(1000);
        let frames: Vec<(u64, &str, Vec<u8>, &Frame)> = tape
            .frames
            .iter()
            .map(|frame| {
                let ago = now.instant.saturating_duration_since(frame.at).as_micros();
                let micros = wall.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX));
                let (dissector, bytes) = self.form.shown(&frame.bytes);
                (micros, dissector, bytes, frame)
            })
            .collect();
        let packets: Vec<Packet<'_>> = frames
            .iter()
            .map(|(micros, dissector, bytes, frame)| Packet {
                micros: *micros,
                dissector,
                outbound: frame.outbound,
                peer: self.peer,
                bytes,
                comment: frame.note.as_deref(),
            })
            .collect();
        pcapng::file(&self.bus, &packets)
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        // A frame too many or too few is no reason to stop recording.
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Form {
    /// Which dissector shows the bytes, and as what. There is none for ASCII, so what is a whole ASCII frame is shown as
    /// the RTU frame of the same content.
    fn shown(self, bytes: &[u8]) -> (&'static str, Vec<u8>) {
        match self {
            Self::Rtu => ("mbrtu", bytes.to_vec()),
            Self::Tcp => ("mbtcp", bytes.to_vec()),
            Self::Ascii => {
                let inside =
                    bytes.strip_prefix(&[ascii::START]).and_then(|text| text.strip_suffix(&[ascii::END]));
                match inside.and_then(ascii::decode) {
                    Some(body) => ("mbrtu", [&body[..], &crc16(&body).to_le_bytes()].concat()),
                    None => ("data", bytes.to_vec()),
                }
            }
        }
    }
}

impl Tape {
    fn push(&mut self, frame: Frame) {
        let now = frame.at;
        self.bytes += frame.bytes.len() + FRAME_COST;
        self.frames.push_back(frame);
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        while let Some(first) = self.frames.front() {
            let old = now.saturating_duration_since(first.until) > RECORDED_AGE;
            if !old && self.bytes <= RECORDED_BYTES {
                break;
            }
            self.bytes = self.bytes.saturating_sub(first.bytes.len() + FRAME_COST);
            self.frames.pop_front();
        }
    }
}

/// The recorders of all buses.
#[derive(Clone, Debug)]
pub struct Recorders {
    by_bus: Arc<Mutex<BTreeMap<Arc<str>, Recorder>>>,
    faults: mpsc::Sender<Arc<str>>,
}

impl Recorders {
    /// None yet, and where their faults arrive.
    pub fn new() -> (Self, mpsc::Receiver<Arc<str>>) {
        let (faults, queue) = mpsc::channel(FAULT_QUEUE);
        (Self { by_bus: Arc::default(), faults }, queue)
    }

    /// A recorder for a bus: the one of that id, or one in its place where the bus now speaks otherwise.
    pub fn open(&self, settings: &BusSettings) -> Recorder {
        let fresh = Recorder::new(settings, Some(self.faults.clone()));
        let mut by_bus = self.lock();
        let goes_on = |known: &&Recorder| known.form == fresh.form && known.peer == fresh.peer;
        if let Some(known) = by_bus.get(&settings.id).filter(goes_on) {
            return known.clone();
        }
        by_bus.insert(Arc::clone(&settings.id), fresh.clone());
        fresh
    }

    /// A bus is no longer configured: its tape goes.
    pub fn forget(&self, bus: &str) {
        self.lock().remove(bus);
    }

    /// The recorder of a bus.
    pub fn get(&self, bus: &str) -> Option<Recorder> {
        self.lock().get(bus).cloned()
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Recorder> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Recorder>> {
        self.by_bus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SerialSettings;
    use super::*;
    use crate::model::time::UnixMillis;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn recorder() -> Recorder {
        let settings = BusSettings {
            id: "line".into(),
            target: Target::Serial(SerialSettings::at("/dev/null", 9600)),
            timeout: Duration::from_secs(1),
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        Recorder::new(&settings, None)
    }

    #[test]
    fn pieces_of_one_frame_are_one_frame_and_notes_end_it() {
        let (recorder, now) = (recorder(), start());
        recorder.sent(&[1, 2], now);
        recorder.received(&[3], now + Duration::from_millis(5));
        recorder.received(&[4], now + Duration::from_millis(9));
        recorder.note("damaged");
        recorder.received(&[5], now + Duration::from_millis(10));
        recorder.received(&[6], now + Duration::from_secs(1));
        let tape = recorder.tape();
        let frames: Vec<(&[u8], bool)> =
            tape.frames.iter().map(|frame| (&frame.bytes[..], frame.note.is_some())).collect();
        assert_eq!(frames, [(&[1, 2][..], false), (&[3, 4], true), (&[5], false), (&[6], false)]);
    }

    #[test]
    fn what_is_kept_is_bounded_by_bytes_and_by_age() {
        let (recorder, now) = (recorder(), start());
        for turn in 0..100_000_u64 {
            recorder.sent(&[7; 200], now + Duration::from_micros(turn));
        }
        let full = recorder.tape().frames.len();
        assert!((1000..=RECORDED_BYTES / 200).contains(&full), "{full}");
        let later = now + RECORDED_AGE + Duration::from_secs(60);
        recorder.received(&[8], later);
        recorder.received(&vec![8; RECORDED_BYTES], later);
        assert!(recorder.tape().frames.len() <= 1);
        let file = recorder.pcapng(Now::new(later, UnixMillis(1_700_000_000_000)));
        assert!(file.len() > 60);
    }

    #[test]
    fn an_ascii_frame_is_shown_as_the_rtu_frame_of_its_content() {
        let body = [1, 3, 2, 0, 7];
        let (dissector, bytes) = Form::Ascii.shown(&ascii::encode(&body));
        assert_eq!((dissector, &bytes[..5]), ("mbrtu", &body[..]));
        assert_eq!(Form::Ascii.shown(b":0103").0, "data");
    }
}

//! Finds the answer to one request in the bytes that come in.
//!
//! RTU frames carry neither a length nor a number, and a line carries noise, foreign traffic and late answers. A frame
//! is therefore taken only when its unit, function, byte count or echo, and CRC are exactly what the request asks
//! for; whatever stands before it is skipped. Pauses between bytes mean nothing here, since USB adapters hand bytes
//! over in batches. What the strictest check cannot tell, two answers of one form, is the business of `late.rs`.
//!
//! ASCII frames are marked at both ends. Over TCP the transaction id tells answers apart and a frame carries its length; stale ones are passed over whole.

use crate::proto::modbus::frame::{Answer, Exception, Framing, Request, crc16};

mod ascii;

/// Longest ASCII frame: two digits for each of 254 bytes and the checksum, colon and line end.
const LONGEST_ASCII: usize = 513;

/// Longest RTU frame, and also the longest sensible MBAP length field plus its header.
const LONGEST_FRAME: usize = 260;

/// MBAP: transaction, protocol and length, two bytes each, before the unit.
const MBAP_HEADER: usize = 6;

/// Set in the function code of an answer that refuses.
const EXCEPTION_BIT: u8 = 0x80;

/// What has become of an answer so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// Here it is.
    Complete(Answer),
    /// It will not come: TCP only, where a frame with our transaction id is wrong, or the stream is none of Modbus.
    Bad(Defect),
}

/// Why there is no answer, or none that can be believed. `Display` is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Defect {
    /// Nothing came at all.
    #[error("no answer")]
    Silence,
    /// Only bytes that are no frame of the unit.
    #[error("only noise: {bytes} bytes that are no answer of the unit")]
    Noise {
        /// How many.
        bytes: usize,
    },
    /// A frame of somebody else.
    #[error("an answer of unit {found}, expected unit {expected}")]
    WrongUnit {
        /// Asked.
        expected: u8,
        /// Heard.
        found: u8,
    },
    /// The unit answered to something else.
    #[error("an answer to function {found}, expected function {expected}")]
    WrongFunction {
        /// Asked.
        expected: u8,
        /// Heard.
        found: u8,
    },
    /// The answer carries more or less than was asked for.
    #[error("an answer of {found} data bytes, expected {expected}")]
    WrongCount {
        /// Asked.
        expected: u8,
        /// Heard.
        found: u8,
    },
    /// The answer to a write names another place or value.
    #[error("the answer to a write echoes something else")]
    WrongEcho,
    /// The frame was damaged.
    #[error("a damaged answer: its checksum is wrong")]
    Checksum,
    /// The frame began but did not end in time.
    #[error("half an answer: {found} of {expected} bytes")]
    Truncated {
        /// Bytes of the whole frame.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The peer does not speak Modbus TCP, or its stream has lost its place; only a new connection helps.
    #[error("the peer does not speak Modbus TCP")]
    NotModbus,
}

/// What the answer to one request must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) function: u8,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// A byte count and that many bytes, which hold this many bits.
    Bits { bytes: u8, count: u16 },
    /// A byte count and that many bytes, which hold registers.
    Registers { bytes: u8 },
    /// Address and value, or address and count, as in the request.
    Echo([u8; 4]),
    /// Address and both masks, as in the request.
    MaskEcho([u8; 6]),
    /// A byte count and that many bytes.
    Data,
    /// Numbered names, each with its length.
    Names,
}

impl Shape {
    pub(super) fn of(request: &Request) -> Self {
        let echo = |address: u16, second: u16| {
            let ([a, b], [c, d]) = (address.to_be_bytes(), second.to_be_bytes());
            Body::Echo([a, b, c, d])
        };
        let body = match request {
            Request::Read(span) if span.table().is_bits() => {
                Body::Bits { bytes: byte(span.count().div_ceil(8)), count: span.count() }
            }
            Request::Read(span) => Body::Registers { bytes: byte(span.count().saturating_mul(2)) },
            Request::WriteCoil { address, on } => echo(*address, if *on { 0xFF00 } else { 0 }),
            Request::WriteRegister { address, value } => echo(*address, *value),
            Request::WriteCoils { address, values } => echo(*address, word(values.len())),
            Request::WriteRegisters { address, values } => echo(*address, word(values.len())),
            Request::MaskRegister { address, and, or } => {
                let masks = (u32::from(*and) << 16 | u32::from(*or)).to_be_bytes();
                let ([first, second], [a, b, c, d]) = (address.to_be_bytes(), masks);
                Body::MaskEcho([first, second, a, b, c, d])
            }
            Request::ReportServerId => Body::Data,
            Request::ReadIdentification => Body::Names,
        };
        Self { function: request.function(), body }
    }

    /// Bytes of function code and body; the least where the answer decides.
    fn length(self) -> usize {
        match self.body {
            Body::Bits { bytes, .. } | Body::Registers { bytes } => 2 + usize::from(bytes),
            Body::Echo(_) => 5,
            Body::MaskEcho(_) => 7,
            Body::Data => 2,
            Body::Names => 1 + NAMES_HEADER,
        }
    }

    /// Looks at function code and body, as many of their bytes as are there.
    fn look(self, pdu: &[u8]) -> Look {
        let Some((function, body)) = pdu.split_first() else { return Look::Short(self.length()) };
        if *function == self.function | EXCEPTION_BIT {
            return match body.first() {
                Some(code) => Look::Whole(2, Answer::Exception(Exception(*code))),
                None => Look::Short(2),
            };
        }
        if *function != self.function {
            return Look::Wrong(Defect::WrongFunction { expected: self.function, found: *function });
        }
        match self.body {
            Body::Bits { bytes, count } => {
                self.look_counted(bytes, body, |data| Answer::Bits(bits(data, count)))
            }
            Body::Registers { bytes } => {
                self.look_counted(bytes, body, |data| Answer::Registers(registers(data)))
            }
            Body::Echo(echo) => self.look_echo(&echo, body),
            Body::MaskEcho(echo) => self.look_echo(&echo, body),
            Body::Data => match body.split_first() {
                None => Look::Short(2),
                Some((count, data)) => match data.get(..usize::from(*count)) {
                    Some(data) => Look::Whole(2 + data.len(), Answer::Data(data.to_vec())),
                    None => Look::Short(2 + usize::from(*count)),
                },
            },
            Body::Names => look_names(body),
        }
    }

    fn look_echo(self, echo: &[u8], body: &[u8]) -> Look {
        if body.starts_with(echo) {
            Look::Whole(self.length(), Answer::Written)
        } else if echo.starts_with(body) {
            Look::Short(self.length())
        } else {
            Look::Wrong(Defect::WrongEcho)
        }
    }

    fn look_counted(self, expected: u8, body: &[u8], decode: impl Fn(&[u8]) -> Answer) -> Look {
        match body.split_first() {
            None => Look::Short(self.length()),
            Some((found, _)) if *found != expected => {
                Look::Wrong(Defect::WrongCount { expected, found: *found })
            }
            Some((_, data)) => match data.get(..usize::from(expected)) {
                Some(data) => Look::Whole(self.length(), decode(data)),
                None => Look::Short(self.length()),
            },
        }
    }
}

/// Before the names: what is asked, which names there are, whether more follow from which number, how many are here.
const NAMES_HEADER: usize = 6;

fn look_names(body: &[u8]) -> Look {
    if body.first().is_some_and(|kind| *kind != 14) {
        return Look::Wrong(Defect::WrongEcho);
    }
    let Some((header, mut left)) = body.split_at_checked(NAMES_HEADER) else {
        return Look::Short(1 + NAMES_HEADER);
    };
    let (mut names, mut length) = (Vec::new(), 1 + NAMES_HEADER);
    for _ in 0..header.last().copied().unwrap_or_default() {
        let Some(([number, size], rest)) = left.split_first_chunk::<2>() else {
            return Look::Short(length + 2);
        };
        length += 2 + usize::from(*size);
        let Some((name, rest)) = rest.split_at_checked(usize::from(*size)) else {
            return Look::Short(length);
        };
        names.push((*number, name.to_vec()));
        left = rest;
    }
    // No frame is so long; what says so is none.
    if length > LONGEST_FRAME {
        Look::Wrong(Defect::NotModbus)
    } else {
        Look::Whole(length, Answer::Names(names))
    }
}

/// What a run of bytes is, seen as function code and body.
enum Look {
    /// May become the answer; this long in all.
    Short(usize),
    /// Is the answer in form; this long in all.
    Whole(usize, Answer),
    /// Can never become the answer.
    Wrong(Defect),
}

/// Bytes of an answer's beginning that are kept to recognise an echo: a whole read request, in ASCII 17 characters.
const ECHO_LENGTH: usize = 17;

/// Collects bytes until they hold the answer to one request. The buffer stays below two frames.
#[derive(Debug)]
pub struct Reply {
    unit: u8,
    shape: Shape,
    framing: Framing,
    buffer: Vec<u8>,
    seen: usize,
    /// The very first bytes that came.
    head: Vec<u8>,
    /// What was sent, while it is still expected to be heard back.
    echo: Option<Vec<u8>>,
    worst: Defect,
    truncated: Option<Defect>,
}

impl Reply {
    /// Waits for the answer to a request that was sent to a unit.
    pub fn new(unit: u8, request: &Request, framing: Framing) -> Self {
        Self {
            unit,
            shape: Shape::of(request),
            framing,
            buffer: Vec::new(),
            seen: 0,
            head: Vec::new(),
            echo: None,
            worst: Defect::Silence,
            truncated: None,
        }
    }

    /// Expects the line to give back what is sent, as two-wire adapters without a switch for it do. Without this the
    /// echo of a single write would be its own confirmation, since the two look alike.
    #[must_use]
    pub fn behind_echo_of(mut self, sent: &[u8]) -> Self {
        self.echo = Some(sent.to_vec());
        self
    }

    /// Whether the first thing that came was what had been sent. Only for a read does that prove an echo.
    pub fn began_with_echo_of(&self, sent: &[u8]) -> bool {
        !sent.is_empty() && self.head.starts_with(sent)
    }

    /// Looks for one more answer to the same request, behind the one that was found.
    pub fn again(&mut self) -> Progress {
        self.worst = Defect::Silence;
        self.scan()
    }

    /// Takes bytes as they come, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        self.seen = self.seen.saturating_add(bytes.len());
        self.head.extend(bytes.iter().take(ECHO_LENGTH.saturating_sub(self.head.len())));
        // Pieces larger than a frame are taken one frame at a time, so that the buffer stays small.
        for piece in bytes.chunks(LONGEST_FRAME) {
            self.buffer.extend_from_slice(piece);
            let progress = self.scan();
            if progress != Progress::Incomplete {
                return progress;
            }
        }
        Progress::Incomplete
    }

    /// Characters of the whole answer on a serial line.
    pub fn expected_length(&self) -> usize {
        let bytes = self.shape.length() + 3;
        if self.framing == Framing::Ascii { bytes * 2 + 1 } else { bytes }
    }

    /// Why there is no answer, when the time is up: the most telling thing that was seen.
    pub fn defect(&self) -> Defect {
        match (self.truncated, self.worst) {
            (Some(truncated), _) => truncated,
            (None, Defect::Silence) if self.seen > 0 => Defect::Noise { bytes: self.seen },
            (None, worst) => worst,
        }
    }

    /// Bytes behind the last whole frame. Over TCP they are the beginning of the next one and go before it.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    fn scan(&mut self) -> Progress {
        if let Some(echo) = self.echo.take() {
            if self.buffer.starts_with(&echo) {
                self.buffer.drain(..echo.len());
            } else if echo.starts_with(&self.buffer) {
                self.echo = Some(echo);
                return Progress::Incomplete;
            }
        }
        match self.framing {
            Framing::Rtu => self.scan_rtu(),
            Framing::Ascii => self.scan_ascii(),
            Framing::Tcp { transaction } => self.scan_tcp(transaction),
        }
    }

    fn scan_rtu(&mut self) -> Progress {
        // Everything before the first place where an answer may still begin is dropped at the end.
        let mut keep = self.buffer.len();
        self.truncated = None;
        for start in 0..self.buffer.len() {
            let Some(frame) = self.buffer.get(start..) else { break };
            match look_rtu(self.unit, self.shape, frame) {
                Look::Whole(length, answer) => {
                    self.buffer.drain(..start + length);
                    return Progress::Complete(answer);
                }
                Look::Short(expected) => {
                    if keep > start {
                        keep = start;
                        self.truncated = Some(Defect::Truncated { expected, found: frame.len() });
                    }
                }
                // The middle of a frame has no unit; only what came first is sure to be the beginning of one.
                Look::Wrong(Defect::WrongUnit { .. } | Defect::WrongFunction { .. })
                    if start > 0 || self.seen > self.buffer.len() => {}
                Look::Wrong(defect) => self.worst = self.worst.max(defect),
            }
        }
        self.buffer.drain(..keep);
        Progress::Incomplete
    }

    fn scan_tcp(&mut self, transaction: u16) -> Progress {
        loop {
            let length = match mbap_length(&self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) => return self.tcp_incomplete(MBAP_HEADER),
                Err(defect) => return Progress::Bad(defect),
            };
            let Some(frame) = self.buffer.get(..MBAP_HEADER + length) else {
                return self.tcp_incomplete(MBAP_HEADER + length);
            };
            let ours = frame.starts_with(&transaction.to_be_bytes());
            let progress = if ours { judge_tcp(self.unit, self.shape, frame) } else { Progress::Incomplete };
            self.buffer.drain(..MBAP_HEADER + length);
            if ours {
                return progress;
            }
        }
    }

    fn tcp_incomplete(&mut self, expected: usize) -> Progress {
        let found = self.buffer.len();
        self.truncated = (found > 0).then_some(Defect::Truncated { expected, found });
        Progress::Incomplete
    }
}

/// Drops whole frames of a Modbus TCP stream that nobody waits for, and keeps the beginning of the next.
pub fn skip_stale(buffer: &mut Vec<u8>) -> Result<(), Defect> {
    while let Some(length) = mbap_length(buffer)? {
        if buffer.len() < MBAP_HEADER + length {
            break;
        }
        buffer.drain(..MBAP_HEADER + length);
    }
    Ok(())
}

fn look_rtu(unit: u8, shape: Shape, frame: &[u8]) -> Look {
    match frame.split_first() {
        None => Look::Short(shape.length() + 3),
        Some((found, _)) if *found != unit => {
            Look::Wrong(Defect::WrongUnit { expected: unit, found: *found })
        }
        Some((_, pdu)) => match shape.look(pdu) {
            Look::Short(length) => Look::Short(length + 3),
            Look::Wrong(defect) => Look::Wrong(defect),
            Look::Whole(length, answer) => match (frame.get(..=length), frame.get(length + 1..length + 3)) {
                (Some(body), Some(crc)) if crc == crc16(body).to_le_bytes() => {
                    Look::Whole(length + 3, answer)
                }
                (Some(_), Some(_)) => Look::Wrong(Defect::Checksum),
                _ => Look::Short(length + 3),
            },
        },
    }
}

/// The length field: bytes from the unit on. `None` while the header is incomplete.
fn mbap_length(buffer: &[u8]) -> Result<Option<usize>, Defect> {
    let Some(header) = buffer.first_chunk::<MBAP_HEADER>() else { return Ok(None) };
    let [_, _, protocol_high, protocol_low, length_high, length_low] = *header;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if [protocol_high, protocol_low] != [0, 0] || !(3..=LONGEST_FRAME - MBAP_HEADER).contains(&length) {
        return Err(Defect::NotModbus);
    }
    Ok(Some(length))
}

/// A whole frame with our transaction id: the answer, or wrong for good.
fn judge_tcp(unit: u8, shape: Shape, frame: &[u8]) -> Progress {
    match frame.get(MBAP_HEADER..).and_then(<[u8]>::split_first) {
        None => Progress::Bad(Defect::NotModbus),
        Some((found, _)) if *found != unit => {
            Progress::Bad(Defect::WrongUnit { expected: unit, found: *found })
        }
        Some((_, pdu)) => match shape.look(pdu) {
            Look::Whole(length, answer) if length == pdu.len() => Progress::Complete(answer),
            Look::Whole(expected, _) | Look::Short(expected) => {
                Progress::Bad(Defect::Truncated { expected, found: pdu.len() })
            }
            Look::Wrong(defect) => Progress::Bad(defect),
        },
    }
}

fn bits(data: &[u8], count: u16) -> Vec<bool> {
    let all = data.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    all.take(usize::from(count)).collect()
}

fn registers(data: &[u8]) -> Vec<u16> {
    data.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u16::from(*byte))).collect()
}

fn byte(count: u16) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

fn word(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;

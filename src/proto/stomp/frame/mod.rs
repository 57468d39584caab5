//! Incoming frames: an incremental decoder that gives the same frames however the octets were cut on their way.
//!
//! Every limit is checked before the octets that would break it are waited for, and every verdict follows from the
//! octets alone, never from where one chunk ended and the next began.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Longest command line in octets; the longest command there is has eleven.
pub const COMMAND_BYTES: usize = 32;

/// Longest header line in octets, escapes included.
pub const HEADER_BYTES: usize = 16 * 1024;

/// Most different headers in one frame. Repetitions do not count, because only the first is kept.
pub const HEADERS: usize = 100;

/// Largest frame before the client is known, in octets.
pub const FRAME_BYTES_BEFORE_CONNECT: usize = 64 * 1024;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0: no escapes, header values padded at will, subscriptions without id.
    V1_0,
    /// 1.1: escapes, heart-beats, NACK.
    V1_1,
    /// 1.2: carriage returns, ACK by its own id.
    V1_2,
}

impl Version {
    /// From the oldest to the newest.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// As headers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The newest version of a comma-separated list in any order. Without a list, or with an empty one, the client speaks
    /// 1.0.
    pub fn negotiate(accepted: Option<&str>) -> Option<Self> {
        let accepted = accepted.map(str::trim).filter(|accepted| !accepted.is_empty());
        let Some(accepted) = accepted else { return Some(Self::V1_0) };
        let offers = |version: &Self| accepted.split(',').any(|offer| offer.trim() == version.name());
        Self::ALL.into_iter().rev().find(offers)
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of the specification that it is named after")]
pub enum Command {
    Connect,
    Stomp,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
    Connected,
    Message,
    Receipt,
    Error,
}

impl Command {
    /// All of them, the client's first.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Stomp,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Nack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Connected,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// As frames write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// Whether the specification lets it carry a body.
    pub fn takes_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }

    /// Whether its headers are escaped at all: those of the handshake never are, so that 1.0 peers can read them.
    pub fn escapes(self) -> bool {
        !matches!(self, Self::Connect | Self::Stomp | Self::Connected)
    }
}

/// A whole frame with its headers unescaped. Its `Debug` does not show the passcode.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub command: Command,
    /// Distinct names in order; of a repeated header the first.
    pub headers: Vec<(String, String)>,
    /// Empty unless the command takes one.
    pub body: Bytes,
}

impl Frame {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): &(String, String)| {
            (name.clone(), if name == "passcode" { "..".to_owned() } else { value.clone() })
        };
        f.debug_struct("Frame")
            .field("command", &self.command)
            .field("headers", &self.headers.iter().map(shown).collect::<Vec<_>>())
            .field("body", &self.body)
            .finish()
    }
}

/// Why octets are no frame. The stream cannot be read on after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The line where a command stands holds something else.
    #[error("no such command")]
    UnknownCommand,
    /// The command line or a header line is longer than it may be.
    #[error("a line is longer than {0} octets")]
    LineTooLong(usize),
    /// A command or header is not text.
    #[error("a header is not UTF-8")]
    NotUtf8,
    /// A carriage return that does not stand before a line feed.
    #[error("a carriage return without line feed")]
    StrayCarriageReturn,
    /// The frame ends before the blank line that separates headers from body.
    #[error("the frame ends within its headers")]
    EndsInHeaders,
    /// A header line without a name before a colon.
    #[error("a header line without name and colon")]
    NoHeaderName,
    /// A backslash and something that the version does not define.
    #[error("an undefined escape in a header")]
    BadEscape,
    /// More different headers than allowed.
    #[error("more than {HEADERS} headers")]
    TooManyHeaders,
    /// The octet after a body of stated length is not NUL.
    #[error("no NUL after the body of {0} octets")]
    NoTerminator(usize),
    /// A body where the command takes none.
    #[error("{} takes no body", .0.name())]
    UnexpectedBody(Command),
    /// The frame is larger than it may be.
    #[error("the frame is larger than {0} octets")]
    TooLarge(usize),
}

/// Turns a stream of octets into frames. After an error it only repeats the error.
#[derive(Debug)]
pub struct Decoder {
    /// `None` until the client has connected: headers are then taken as they stand.
    version: Option<Version>,
    limit: usize,
    /// See [`Decoder::lenient`].
    lenient: bool,
    buffer: BytesMut,
    /// Octets at the start of `buffer` that were searched already.
    seen: usize,
    /// Octets of the frame that have left `buffer`.
    taken: usize,
    state: State,
    /// See [`Decoder::saw_plain_colon`].
    plain_colon: bool,
    failed: Option<FrameError>,
}

#[derive(Debug)]
enum State {
    /// Line ends pass by until something else begins a frame.
    Between,
    /// Within the command line.
    Command,
    /// Within the headers.
    Headers(Command, Vec<(String, String)>),
    /// Within the body, of stated length or up to the first NUL.
    Body(Command, Vec<(String, String)>, Option<usize>),
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            version: None,
            limit: FRAME_BYTES_BEFORE_CONNECT,
            lenient: false,
            buffer: BytesMut::new(),
            seen: 0,
            taken: 0,
            state: State::Between,
            plain_colon: false,
            failed: None,
        }
    }
}

impl Decoder {
    /// Takes a body that was counted short, which no NUL follows where it should end, up to the next NUL. A browser
    /// that cuts a large frame within a character makes it longer than it was counted, and people count by hand.
    #[must_use]
    pub fn lenient(self, lenient: bool) -> Self {
        Self { lenient, ..self }
    }

    /// Whether the client has written a colon in a header's value as it is, where its version has an escape for that.
    pub fn saw_plain_colon(&self) -> bool {
        self.plain_colon
    }

    /// Whether nothing but the NUL of a frame is missing.
    pub fn awaits_terminator(&self) -> bool {
        match self.state {
            State::Body(_, _, length) => length.is_none_or(|length| length == self.buffer.len()),
            State::Between | State::Command | State::Headers(..) => false,
        }
    }

    /// From the next frame on headers follow the rules of this version and frames may be this large.
    pub fn connected(&mut self, version: Version, limit: usize) {
        self.version = Some(version);
        self.limit = limit;
    }

    /// Takes more octets. Frames are then fetched with [`Decoder::poll`] until there is none.
    pub fn feed(&mut self, octets: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(octets);
        }
    }

    /// Octets that are not part of a fetched frame yet.
    pub fn backlog(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole frame.
    pub fn poll(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance();
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        } else if self.buffer.is_empty() {
            // An idle client should not hold on to the room that its largest frame took.
            self.buffer = BytesMut::new();
        }
        outcome
    }

    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match std::mem::replace(&mut self.state, State::Between) {
                State::Between => {
                    if !self.skip_line_ends()? {
                        return Ok(None);
                    }
                    self.state = State::Command;
                }
                State::Command => {
                    self.check_command()?;
                    let Some(line) = self.line(COMMAND_BYTES)? else {
                        self.state = State::Command;
                        return Ok(None);
                    };
                    let named = |command: &Command| command.name().as_bytes() == &*line;
                    let command = Command::ALL.into_iter().find(named).ok_or(FrameError::UnknownCommand)?;
                    self.state = State::Headers(command, Vec::new());
                }
                State::Headers(command, mut headers) => match self.line(HEADER_BYTES)? {
                    None => {
                        self.state = State::Headers(command, headers);
                        return Ok(None);
                    }
                    Some(line) if line.is_empty() => {
                        let length = stated_length(&headers);
                        if length.is_some_and(|length| length > self.room()) {
                            return Err(FrameError::TooLarge(self.limit));
                        }
                        self.state = State::Body(command, headers, length);
                    }
                    Some(line) => {
                        self.header(command, &line, &mut headers)?;
                        self.state = State::Headers(command, headers);
                    }
                },
                State::Body(command, headers, length) => {
                    let Some(body) = self.body(length)? else {
                        self.state = State::Body(command, headers, length);
                        return Ok(None);
                    };
                    self.taken = 0;
                    return finish(command, headers, body, self.version).map(Some);
                }
            }
        }
    }

    /// Passes over what may stand between frames. True when a frame begins.
    fn skip_line_ends(&mut self) -> Result<bool, FrameError> {
        loop {
            match *self.buffer {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => self.buffer.advance(2),
                [b'\r', ..] => return Err(FrameError::StrayCarriageReturn),
                // A stray NUL is what remains of a frame whose sender counted its body one short.
                [b'\n' | 0, ..] => self.buffer.advance(1),
                [_, ..] => return Ok(true),
            }
        }
    }

    /// Notices that no command begins here before its line is complete: a client of another protocol sends no
    /// line end, and should not have to wait for its answer.
    fn check_command(&self) -> Result<(), FrameError> {
        let within = COMMAND_BYTES.min(self.room()) + 1;
        let end = self.buffer.iter().take(within).find(|octet| !octet.is_ascii_uppercase());
        if end.is_none_or(|end| matches!(end, b'\r' | b'\n' | 0)) {
            Ok(())
        } else {
            Err(FrameError::UnknownCommand)
        }
    }

    /// Octets that the frame may still take.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.taken)
    }

    /// Takes one line without its end.
    fn line(&mut self, longest: usize) -> Result<Option<BytesMut>, FrameError> {
        let (cap, excess) = if longest <= self.room() {
            (longest, FrameError::LineTooLong(longest))
        } else {
            (self.room(), FrameError::TooLarge(self.limit))
        };
        let Some(end) = self.find(|octet| octet == b'\n' || octet == 0) else {
            return if self.seen > cap { Err(excess) } else { Ok(None) };
        };
        if end > cap {
            return Err(excess);
        }
        let mut line = self.take(end);
        if self.buffer.get_u8() == 0 {
            return Err(FrameError::EndsInHeaders);
        }
        self.taken += 1;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.contains(&b'\r') {
            return Err(FrameError::StrayCarriageReturn);
        }
        Ok(Some(line))
    }

    /// Takes the body with the NUL behind it.
    fn body(&mut self, length: Option<usize>) -> Result<Option<Bytes>, FrameError> {
        let end = match length {
            Some(length) if self.buffer.len() <= length => return Ok(None),
            Some(length) if !self.lenient || self.buffer.get(length) == Some(&0) => length,
            Some(_) | None => {
                self.seen = self.seen.max(length.unwrap_or(0));
                match self.find(|octet| octet == 0) {
                    Some(end) if end <= self.room() => end,
                    None if self.seen <= self.room() => return Ok(None),
                    Some(_) | None => return Err(FrameError::TooLarge(self.limit)),
                }
            }
        };
        let body = self.take(end).freeze();
        if self.buffer.get_u8() == 0 { Ok(Some(body)) } else { Err(FrameError::NoTerminator(end)) }
    }

    /// Where the first such octet is, never looking at one twice.
    fn find(&mut self, wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let unseen = self.buffer.get(self.seen..).unwrap_or_default();
        let found = unseen.iter().position(|octet| wanted(*octet)).map(|at| self.seen + at);
        self.seen = found.unwrap_or(self.buffer.len());
        found
    }

    fn take(&mut self, octets: usize) -> BytesMut {
        self.seen = 0;
        self.taken += octets;
        self.buffer.split_to(octets)
    }

    fn header(
        &mut self,
        command: Command,
        line: &[u8],
        headers: &mut Vec<(String, String)>,
    ) -> Result<(), FrameError> {
        let line = std::str::from_utf8(line).map_err(|_| FrameError::NotUtf8)?;
        let (name, value) = line.split_once(':').ok_or(FrameError::NoHeaderName)?;
        if name.is_empty() {
            return Err(FrameError::NoHeaderName);
        }
        let version = if command.escapes() { self.version } else { None };
        let (name, value) = match version {
            None => (name.to_owned(), value.to_owned()),
            Some(Version::V1_0) => (name.trim().to_owned(), value.trim().to_owned()),
            Some(version @ (Version::V1_1 | Version::V1_2)) => {
                self.plain_colon |= value.contains(':');
                (unescape(name, version)?, unescape(value, version)?)
            }
        };
        if headers.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        if headers.len() == HEADERS {
            return Err(FrameError::TooManyHeaders);
        }
        headers.push((name, value));
        Ok(())
    }
}

/// The content-length, if it is a count of octets; anything else counts as absent. A number beyond all bounds is
/// the largest there is, and so too large.
fn stated_length(headers: &[(String, String)]) -> Option<usize> {
    let (_, value) = headers.iter().find(|(name, _)| name == "content-length")?;
    let digits = value.trim();
    let is_count = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    is_count.then(|| digits.parse().unwrap_or(usize::MAX))
}

/// Only some commands take a body. Line ends before the NUL of the others are what people type by hand, and 1.0 has
/// any other body ignored.
fn finish(
    command: Command,
    headers: Vec<(String, String)>,
    body: Bytes,
    version: Option<Version>,
) -> Result<Frame, FrameError> {
    if command.takes_body() {
        return Ok(Frame { command, headers, body });
    }
    let ignored = version == Some(Version::V1_0);
    if ignored || body.iter().all(|octet| matches!(octet, b'\r' | b'\n')) {
        return Ok(Frame { command, headers, body: Bytes::new() });
    }
    Err(FrameError::UnexpectedBody(command))
}

fn unescape(text: &str, version: Version) -> Result<String, FrameError> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match rest.next() {
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some('r') if version == Version::V1_2 => '\r',
            Some(_) | None => return Err(FrameError::BadEscape),
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;

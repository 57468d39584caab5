//! The server's side of the conversation with one client, from its first octet to the close.
//!
//! Octets and time go in by [`Session::receive`], [`Session::handle_timeout`] and the calls of the application;
//! what is to be done comes out of [`Session::poll`], which is called until it gives nothing. Frames are taken from
//! the buffer one at a time and only by `poll`, so a client that sends many at once makes no queue of answers here,
//! and the application's answer to an event stands before the RECEIPT of the frame that caused it.
//!
//! Where the specification says that the server closes after an ERROR, it does.
//!
//! No message is ever sent twice: not after a NACK, nor after an UNSUBSCRIBE or the end of a connection with messages
//! unacknowledged. A destination here is a topic whose every subscriber has its own copy, and its messages tell of a
//! state that the next one replaces; one sent again would put an old value behind a newer one. ACK and NACK so only
//! end the wait for an acknowledgement, in a transaction when that commits, and unknown ids settle nothing. The wait
//! holds nothing back: [`super::subscriptions::UNACKNOWLEDGED`] says what happens when it is long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::encode::{Style, encode};
use super::frame::{Command, Decoder, Frame, FrameError, Version};
use super::heartbeat::{Due, HeartBeat, Offer};
use super::subscriptions::{AckMode, Added, Key, Subscriptions};
use super::transactions::{Action, Transactions};

mod unterminated;

use unterminated::Unterminated;

/// A client that has not connected by then is not going to.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// After the RECEIPT of a DISCONNECT the client closes. If it does not, the server does, this much later.
pub const LINGER: Duration = Duration::from_secs(1);

/// Longest destination, subscription id or transaction id in octets: they are kept, so they are bounded.
pub const NAME_BYTES: usize = 1024;

/// RFC 6455 close codes that a session uses.
pub mod close {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server stops.
    pub const GOING_AWAY: u16 = 1001;
    /// The client broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The client may not come in.
    pub const POLICY: u16 = 1008;
    /// A frame is too large.
    pub const TOO_BIG: u16 = 1009;
    /// The client reads too slowly; it may try again.
    pub const TRY_AGAIN: u16 = 1013;
}

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The session's number: the header `session`, and the first part of message ids.
    pub number: u64,
    /// The header `server`: a name, optionally a slash and a version.
    pub server: &'static str,
    /// Largest frame of a connected client; also bounds what open transactions hold.
    pub frame_bytes: usize,
    /// Heart-beats.
    pub heart_beat: Offer,
    /// Whether a body may be longer than it was counted; see [`Decoder::lenient`].
    pub lenient_content_length: bool,
    /// Whether a frame may lack its NUL, as those of React Native do.
    pub frames_without_nul: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// A client wants in: answer with [`Session::accept`] or [`Session::refuse`]. Nothing else comes before that.
    Connect(Frame),
    /// A new subscription.
    Subscribe(Key, String),
    /// A subscription is gone.
    Unsubscribe(Key),
    /// The client sends a message.
    Send(String, Bytes),
    /// Send this as one text message.
    Transmit(String),
    /// Close the connection with this code and reason. Nothing follows.
    Close(u16, &'static str),
}

/// The conversation with one client.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    decoder: Decoder,
    unterminated: Unterminated,
    phase: Phase,
    version: Version,
    heart_beat: HeartBeat,
    subscriptions: Subscriptions,
    transactions: Transactions,
    /// What the last frame or call gave. Bounded, because the next frame is only looked at when it is empty.
    outputs: VecDeque<Output>,
    messages: u64,
}

#[derive(Debug)]
enum Phase {
    /// Awaiting CONNECT.
    Fresh { until: Instant },
    /// The application decides about this client.
    Deciding { heart_beat: Option<String> },
    /// Connected.
    Open,
    /// DISCONNECT was received; the client is to close.
    Leaving { until: Instant },
    /// The last output was given, or waits to be.
    Closed,
}

/// Why a frame ends the session: a short text without colon and backslash, which some clients cannot read in a
/// header, and details for the body.
struct Fault {
    message: &'static str,
    details: String,
    code: u16,
}

impl Fault {
    fn new(message: &'static str, details: impl Into<String>) -> Self {
        Self { message, details: details.into(), code: close::PROTOCOL }
    }
}

impl Session {
    /// A session whose WebSocket has just opened.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            decoder: Decoder::default().lenient(settings.lenient_content_length),
            unterminated: Unterminated::new(settings.frames_without_nul),
            settings,
            phase: Phase::Fresh { until: now + CONNECT_WITHIN },
            version: Version::V1_0,
            heart_beat: HeartBeat::none(now),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            outputs: VecDeque::new(),
            messages: 0,
        }
    }

    /// Takes the content of a text or binary message; frames may be cut over messages in any way.
    pub fn receive(&mut self, octets: &[u8], now: Instant) {
        self.heart_beat.received(now);
        match self.phase {
            Phase::Fresh { .. } | Phase::Deciding { .. } | Phase::Open => {
                if self.unterminated.ends_before(octets, now) {
                    self.terminate();
                }
                self.decoder.feed(octets);
            }
            Phase::Leaving { .. } | Phase::Closed => {}
        }
    }

    /// Octets that were received and not looked at yet: those of an incomplete frame, or of frames that wait for
    /// the next [`Session::poll`].
    pub fn backlog(&self) -> usize {
        self.decoder.backlog()
    }

    /// The next thing to do that is known already, without looking at another frame.
    pub fn poll_known(&mut self, now: Instant) -> Option<Output> {
        let output = self.outputs.pop_front()?;
        if matches!(output, Output::Transmit(_)) {
            self.heart_beat.sent(now);
        }
        Some(output)
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        loop {
            if let Some(output) = self.poll_known(now) {
                return Some(output);
            }
            match self.phase {
                Phase::Fresh { .. } | Phase::Open => {}
                Phase::Deciding { .. } | Phase::Leaving { .. } | Phase::Closed => return None,
            }
            match self.decoder.poll() {
                Ok(Some(frame)) => self.take(frame, now),
                Ok(None) => return None,
                Err(error) => {
                    let code = match error {
                        FrameError::TooLarge(_) => close::TOO_BIG,
                        FrameError::UnknownCommand
                        | FrameError::LineTooLong(_)
                        | FrameError::NotUtf8
                        | FrameError::StrayCarriageReturn
                        | FrameError::EndsInHeaders
                        | FrameError::NoHeaderName
                        | FrameError::BadEscape
                        | FrameError::TooManyHeaders
                        | FrameError::NoTerminator(_)
                        | FrameError::UnexpectedBody(_) => close::PROTOCOL,
                    };
                    let message =
                        if error == FrameError::UnknownCommand { "Bad command" } else { "Malformed frame" };
                    self.fail(&Fault { message, details: error.to_string(), code }, None);
                }
            }
        }
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let frame = self.unterminated.timeout();
        match self.phase {
            Phase::Fresh { until } => Some(frame.map_or(until, |frame| frame.min(until))),
            Phase::Leaving { until } => Some(until),
            Phase::Open => self.heart_beat.timeout().into_iter().chain(frame).min(),
            Phase::Deciding { .. } | Phase::Closed => None,
        }
    }

    /// Does what the time is for.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.unterminated.ends_by(now) {
            self.terminate();
        }
        match self.phase {
            Phase::Fresh { until } if now >= until => {
                self.fail(&Fault::new("No CONNECT", "no CONNECT came in time"), None);
            }
            Phase::Leaving { until } if now >= until => self.close(close::NORMAL, "disconnected"),
            Phase::Open => match self.heart_beat.due(now) {
                // One line feed alone is a heart-beat; two in one message confuse stomp.js 2.3.4.
                Some(Due::Beat) => self.outputs.push_back(Output::Transmit("\n".to_owned())),
                Some(Due::Lost) => {
                    self.fail(&Fault::new("No heart-beat", "nothing was heard for too long"), None);
                }
                None => {}
            },
            Phase::Fresh { .. } | Phase::Leaving { .. } | Phase::Deciding { .. } | Phase::Closed => {}
        }
    }

    /// Lets the client of [`Output::Connect`] in.
    pub fn accept(&mut self, now: Instant) {
        let Phase::Deciding { heart_beat } = std::mem::replace(&mut self.phase, Phase::Open) else { return };
        self.decoder.connected(self.version, self.settings.frame_bytes);
        let offer = self.settings.heart_beat;
        let number = self.settings.number.to_string();
        let offered = format!("{},{}", offer.sends, offer.wants);
        let mut headers = vec![("version", self.version.name())];
        if self.version != Version::V1_0 {
            // Clients of these versions may not get by without it: stomp.js 2.3.3 throws.
            headers.push(("heart-beat", &offered));
            self.heart_beat = HeartBeat::negotiate(offer, heart_beat.as_deref(), now);
        }
        headers.extend([("session", number.as_str()), ("server", self.settings.server)]);
        let connected = encode(Command::Connected, headers, "", self.style());
        self.outputs.push_back(Output::Transmit(connected));
    }

    /// Keeps the client of [`Output::Connect`] out.
    pub fn refuse(&mut self, details: &str) {
        let fault = Fault { message: "Bad CONNECT", details: details.to_owned(), code: close::POLICY };
        self.fail(&fault, None);
    }

    /// Sends a message to a subscription. One that is gone gets nothing.
    pub fn message(&mut self, key: Key, content_type: &str, body: &str) {
        match self.phase {
            Phase::Open => {}
            Phase::Fresh { .. } | Phase::Deciding { .. } | Phase::Leaving { .. } | Phase::Closed => return,
        }
        let style = self.style();
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        self.messages += 1;
        subscription.sent(self.messages);
        let id = format!("{}-{}", self.settings.number, self.messages);
        let asks_ack = self.version == Version::V1_2 && subscription.mode != AckMode::Auto;
        let headers = [
            Some(("destination", subscription.destination.as_str())),
            Some(("content-type", content_type)),
            subscription.id.as_deref().map(|id| ("subscription", id)),
            Some(("message-id", id.as_str())),
            asks_ack.then_some(("ack", id.as_str())),
        ];
        let text = encode(Command::Message, headers.into_iter().flatten(), body, style);
        self.outputs.push_back(Output::Transmit(text));
    }

    /// Ends the session in the server's own time. Without a message there is no ERROR before the close.
    pub fn end(&mut self, message: Option<&'static str>, code: u16, reason: &'static str) {
        match message {
            Some(message) => self.fail(&Fault { message, details: reason.to_owned(), code }, None),
            None => self.close(code, reason),
        }
    }

    fn style(&self) -> Style {
        Style { version: self.version, plain_colons: self.decoder.saw_plain_colon() }
    }

    /// Puts the NUL in the place of one that was lost on the way.
    fn terminate(&mut self) {
        if self.decoder.awaits_terminator() {
            self.decoder.feed(&[0]);
        }
    }

    fn take(&mut self, frame: Frame, now: Instant) {
        // The answer to a CONNECT is no RECEIPT, whatever it asks for.
        let connecting = matches!(frame.command, Command::Connect | Command::Stomp);
        let receipt = frame.header("receipt").filter(|_| !connecting).map(str::to_owned);
        if let Err(fault) = self.process(frame, now) {
            return self.fail(&fault, receipt.as_deref());
        }
        if let Some(receipt) = receipt {
            let text = encode(Command::Receipt, [("receipt-id", receipt.as_str())], "", self.style());
            self.outputs.push_back(Output::Transmit(text));
        } else if matches!(self.phase, Phase::Leaving { .. }) {
            self.close(close::NORMAL, "disconnected");
        }
    }

    fn process(&mut self, frame: Frame, now: Instant) -> Result<(), Fault> {
        let connecting = matches!(frame.command, Command::Connect | Command::Stomp);
        match self.phase {
            Phase::Fresh { .. } if connecting => return self.connect(frame),
            Phase::Fresh { .. } => {
                return Err(Fault::new("Illegal command", "the first frame must be CONNECT"));
            }
            Phase::Deciding { .. } | Phase::Open | Phase::Leaving { .. } | Phase::Closed => {}
        }
        match frame.command {
            Command::Connect | Command::Stomp => {
                Err(Fault::new("Illegal command", "the session is connected already"))
            }
            Command::Send => self.send(frame),
            Command::Subscribe => self.subscribe(&frame),
            Command::Unsubscribe => self.unsubscribe(&frame),
            Command::Ack | Command::Nack => self.settle(&frame),
            Command::Begin => {
                let id = name(&frame, "transaction")?;
                self.transactions.begin(id).map_err(|error| Fault::new("Bad transaction", error.to_string()))
            }
            Command::Commit => {
                for action in self.end_transaction(&frame)? {
                    self.act(action);
                }
                Ok(())
            }
            Command::Abort => self.end_transaction(&frame).map(drop),
            Command::Disconnect => {
                self.phase = Phase::Leaving { until: now + LINGER };
                Ok(())
            }
            Command::Connected | Command::Message | Command::Receipt | Command::Error => {
                Err(Fault::new("Bad command", format!("{} is the server's", frame.command.name())))
            }
        }
    }

    fn connect(&mut self, mut frame: Frame) -> Result<(), Fault> {
        let Some(version) = Version::negotiate(frame.header("accept-version")) else {
            return Err(Fault::new("Version mismatch", format!("Supported versions are {}", versions())));
        };
        if version == Version::V1_0 {
            for (_, value) in &mut frame.headers {
                *value = value.trim().to_owned();
            }
        }
        self.version = version;
        self.phase = Phase::Deciding { heart_beat: frame.header("heart-beat").map(str::to_owned) };
        self.outputs.push_back(Output::Connect(frame));
        Ok(())
    }

    fn send(&mut self, frame: Frame) -> Result<(), Fault> {
        let destination = name(&frame, "destination")?.to_owned();
        let transaction = frame.header("transaction").map(str::to_owned);
        let mut body = frame.body;
        if transaction.is_some() {
            // A copy, because the body may be a small part of a large buffer that it would keep.
            body = Bytes::copy_from_slice(&body);
        }
        self.act_or_keep(Action::Send { destination, body }, transaction.as_deref())
    }

    fn subscribe(&mut self, frame: &Frame) -> Result<(), Fault> {
        let destination = name(frame, "destination")?;
        let id = frame.header("id").map(|_| name(frame, "id")).transpose()?;
        let Some(mode) = AckMode::parse(frame.header("ack")) else {
            return Err(Fault::new("Bad header", "ack is none of auto, client, client-individual"));
        };
        let added = self
            .subscriptions
            .add(id, destination, mode)
            .map_err(|error| Fault::new("Bad SUBSCRIBE", error.to_string()))?;
        let (old, new) = match added {
            Added::Known => (None, None),
            Added::New(new) => (None, Some(new)),
            Added::Instead { old, new } => (Some(old), Some(new)),
        };
        self.outputs.extend(old.map(Output::Unsubscribe));
        self.outputs.extend(new.map(|new| Output::Subscribe(new, destination.to_owned())));
        Ok(())
    }

    fn unsubscribe(&mut self, frame: &Frame) -> Result<(), Fault> {
        let (id, destination) = (frame.header("id"), frame.header("destination"));
        if id.is_none() && destination.is_none() {
            return Err(Fault::new("Missing header", "UNSUBSCRIBE needs the header id"));
        }
        for key in self.subscriptions.remove(id, destination) {
            self.outputs.push_back(Output::Unsubscribe(key));
        }
        Ok(())
    }

    fn settle(&mut self, frame: &Frame) -> Result<(), Fault> {
        // 1.2 names the message by its own id, earlier versions by message-id; some 1.2 clients send both.
        let by = if self.version == Version::V1_2 { "id" } else { "message-id" };
        let id = name(frame, by)?;
        // An id that was never given out settles nothing, as one that was settled before.
        let number = id.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        let subscription = match self.version {
            Version::V1_0 | Version::V1_2 => None,
            Version::V1_1 => frame.header("subscription").map(str::to_owned),
        };
        self.act_or_keep(Action::Settle { number, subscription }, frame.header("transaction"))
    }

    fn act_or_keep(&mut self, action: Action, transaction: Option<&str>) -> Result<(), Fault> {
        let Some(transaction) = transaction else {
            self.act(action);
            return Ok(());
        };
        self.transactions
            .add(transaction, action, self.settings.frame_bytes)
            .map_err(|error| Fault::new("Bad transaction", error.to_string()))
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { destination, body } => self.outputs.push_back(Output::Send(destination, body)),
            Action::Settle { number, subscription } => {
                let _ = self.subscriptions.settle(number, subscription.as_deref());
            }
        }
    }

    fn end_transaction(&mut self, frame: &Frame) -> Result<Vec<Action>, Fault> {
        let id = name(frame, "transaction")?;
        self.transactions.end(id).map_err(|error| Fault::new("Bad transaction", error.to_string()))
    }

    fn fail(&mut self, fault: &Fault, receipt: Option<&str>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let versions = (fault.message == "Version mismatch").then(versions);
        let headers = [
            Some(("message", fault.message)),
            Some(("content-type", "text/plain")),
            versions.as_deref().map(|list| ("version", list)),
            receipt.map(|receipt| ("receipt-id", receipt)),
        ];
        let text = encode(Command::Error, headers.into_iter().flatten(), &fault.details, self.style());
        self.outputs.push_back(Output::Transmit(text));
        self.close(fault.code, fault.message);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.outputs.push_back(Output::Close(code, reason));
        }
    }
}

/// The list of `version` headers.
fn versions() -> String {
    Version::ALL.map(Version::name).join(",")
}

/// A header that must be there and is kept, so that its length is bounded.
fn name<'a>(frame: &'a Frame, header: &str) -> Result<&'a str, Fault> {
    let value = frame.header(header).ok_or_else(|| {
        Fault::new("Missing header", format!("{} needs the header {header}", frame.command.name()))
    })?;
    if value.len() > NAME_BYTES {
        return Err(Fault::new("Bad header", format!("{header} is longer than {NAME_BYTES} octets")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;

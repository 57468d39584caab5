//! One WebSocket connection: bytes and timers on one side, a session's engine on the other.
//!
//! It is the only driver of WebSockets; no dialect has its own. It promises that a client that does not read is cut
//! off and never holds anybody up, that a client that does not speak is never punished for it as long as it answers
//! pings, and that what the session said before a close arrives before the close.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, error::ProtocolError};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Patience;
use super::engine::{Engine, News, Verdict};
use super::socket::{Metered, Socket};
use crate::clock;
use crate::dialects::{Closing, Input};
use crate::model::message::DeviceMessage;

/// Allocated for as long as the connection lives, and the most that one call to the kernel reads. Larger messages grow the
/// buffer while they last. With less than this the buffer's library does not come back to the size it began with.
const READ_BUFFER: usize = 1024;

/// Bytes that a connection may receive for one message before its client is known: more than any login needs. A longer one
/// closes the connection.
const STRANGERS_MESSAGE: usize = 64 * 1024;

/// Bytes that are gathered before they are handed to the kernel in one call.
const WRITE_BUFFER: usize = 16 * 1024;

/// The write buffer grows beyond [`WRITE_BUFFER`] only by the one message that did not fit, so this bounds one
/// message, not a backlog; a larger one closes the connection.
const LARGEST_WRITE: usize = 64 * 1024 * 1024;

/// Longest reason that fits into a close frame.
const REASON_BYTES: usize = 123;

/// One session on its socket.
///
/// It is boxed from its first moment, and its methods borrow it: what an async function takes by value, it keeps room for
/// as long as it runs, beside wherever the value goes.
#[derive(Debug)]
pub(super) struct Connection {
    ws: WebSocketStream<Metered>,
    engine: Engine,
    begun: Instant,
    /// When the last frame of any kind came.
    heard: Instant,
    next_ping: Instant,
    patience: Arc<Patience>,
    received: u64,
    sent: u64,
}

/// Why a conversation is over.
#[derive(Debug)]
enum End {
    /// The session closed, or its driver in its place.
    Closed { code: u16, reason: String },
    /// What the client sent is no WebSocket any more; nothing further can be read.
    Broken { code: u16, reason: &'static str },
    /// The client sent a close frame.
    ByClient { code: u16 },
    /// The socket is gone.
    Lost,
}

/// A write failed.
#[derive(Debug)]
enum Unsent {
    /// The client did not read in time.
    Slow,
    /// The socket is gone.
    Lost,
}

/// What woke the connection.
enum Wake {
    Frame(Option<Result<Message, WsError>>),
    News(News),
    Time,
    Stop,
}

impl Connection {
    /// A session on an upgraded socket. `early` is what the client sent on the heels of its upgrade.
    pub(super) async fn new(
        socket: Socket,
        early: Bytes,
        mut engine: Engine,
        frame_bytes: usize,
        patience: Arc<Patience>,
    ) -> Box<Self> {
        engine.count();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(LARGEST_WRITE)
            .max_message_size(Some(frame_bytes))
            .max_frame_size(Some(frame_bytes));
        // Copied and dropped: it points into the buffer that HTTP was read with, and would keep all of that for as long
        // as the connection lives.
        let part = Vec::from(&*early);
        drop(early);
        let socket = Metered::new(socket, allowance(&engine));
        let ws = WebSocketStream::from_partially_read(socket, part, Role::Server, Some(config)).await;
        let begun = clock::instant();
        let next_ping = begun + patience.ping;
        Box::new(Self { ws, engine, begun, heard: begun, next_ping, patience, received: 0, sent: 0 })
    }

    /// Runs the session until either side ends it.
    pub(super) async fn run(mut self: Box<Self>, stop: &CancellationToken) {
        info!("session opened");
        let end = self.converse(stop).await;
        let (received, sent, begun) = (self.received, self.sent, self.begun);
        // Boxed: every idle connection would otherwise keep room for it.
        let (end, code) = Box::pin(self.end(end)).await;
        info!(
            received,
            sent,
            seconds = clock::instant().saturating_duration_since(begun).as_secs(),
            code,
            end,
            "session closed"
        );
    }

    /// Runs until the conversation is over; what it was over for is then still to be said.
    async fn converse(&mut self, stop: &CancellationToken) -> End {
        let mut batch: Vec<Arc<DeviceMessage>> = Vec::new();
        let timer = sleep_until(self.next_ping.into());
        tokio::pin!(timer);
        // Asked for once: to begin and give up such a wait takes a lock that all connections share.
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        self.engine.step(Input::Open).await;
        loop {
            match self.write_out(self.patience.write).await {
                Ok(()) => self.engine.confirm(),
                Err(Unsent::Lost) => return End::Lost,
                Err(Unsent::Slow) => {
                    self.engine.lose();
                    self.engine.step(Input::Closing(Closing::TooSlow)).await;
                }
            }
            if let Some(verdict) = self.engine.verdict.take() {
                return over(verdict);
            }
            if self.engine.leased() {
                // It was told so a moment ago, or pinged as often before.
                self.next_ping = self.next_ping.min(clock::instant() + self.patience.leased_ping);
            }
            let wake = self.engine.timeout().map_or(self.next_ping, |timeout| timeout.min(self.next_ping));
            if timer.deadline() != wake.into() {
                timer.as_mut().reset(wake.into());
            }
            let wake = tokio::select! {
                // Cancel-safe: the stream keeps a half-read frame in its buffer.
                frame = self.ws.next(), if !self.engine.saturated() => Wake::Frame(frame),
                // Cancel-safe by its documentation.
                news = self.engine.news(&mut batch) => Wake::News(news),
                // Cancel-safe: a sleep holds nothing.
                () = &mut timer => Wake::Time,
                // Cancel-safe: a cancelled token stays cancelled.
                () = &mut stopped => Wake::Stop,
            };
            match wake {
                Wake::Frame(frame) => {
                    if let Some(end) = self.hear(frame).await {
                        return end;
                    }
                }
                Wake::News(news) => self.engine.take(news, &mut batch).await,
                Wake::Time => {
                    if let Some(end) = self.tick().await {
                        return end;
                    }
                }
                Wake::Stop => self.engine.step(Input::Closing(Closing::Shutdown)).await,
            }
        }
    }

    /// Takes one frame, or the end of them.
    async fn hear(&mut self, frame: Option<Result<Message, WsError>>) -> Option<End> {
        let message = match frame {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Some(broken(&error)),
            None => return Some(End::Lost),
        };
        self.heard = clock::instant();
        match message {
            Message::Text(text) => {
                self.received += 1;
                self.engine.step(Input::Text(text)).await;
                self.ws.get_mut().allow(allowance(&self.engine));
            }
            Message::Binary(bytes) => {
                self.received += 1;
                self.engine.step(Input::Binary(bytes)).await;
                self.ws.get_mut().allow(allowance(&self.engine));
            }
            // The library has prepared the answer. It leaves before the next frame is read: whoever pings without
            // reading would fill the memory with answers otherwise.
            Message::Ping(_) => {
                let answered = timeout(self.patience.write, self.ws.flush()).await;
                return self.taken(answered).await;
            }
            Message::Pong(_) | Message::Frame(_) => {}
            Message::Close(frame) => {
                // 1005 is how RFC 6455 calls a close frame without a code.
                let code = frame.map_or(1005, |frame| frame.code.into());
                return Some(End::ByClient { code });
            }
        }
        None
    }

    /// The timer fired: the session's time, or ours.
    async fn tick(&mut self) -> Option<End> {
        let now = clock::instant();
        if self.engine.timeout().is_some_and(|timeout| timeout <= now) {
            self.engine.step(Input::Timeout).await;
        }
        if now < self.next_ping {
            return None;
        }
        let Patience { ping, silence, leased_ping, leased_silence, .. } = *self.patience;
        let (ping, silence) =
            if self.engine.leased() { (leased_ping, leased_silence) } else { (ping, silence) };
        if now.saturating_duration_since(self.heard) >= silence {
            self.engine.step(Input::Closing(Closing::Silent)).await;
            return None;
        }
        self.next_ping = now + ping;
        let ping = timeout(self.patience.write, self.ws.send(Message::Ping(Bytes::new()))).await;
        self.taken(ping).await
    }

    /// What follows from sending a control frame.
    async fn taken(&mut self, sent: Result<Result<(), WsError>, Elapsed>) -> Option<End> {
        match sent {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(End::Lost),
            Err(_) => {
                self.engine.step(Input::Closing(Closing::TooSlow)).await;
                None
            }
        }
    }

    /// Sends what the session has said. Each message has the deadline for itself, so that a slow client that does
    /// read is not cut off for the length of a batch.
    async fn write_out(&mut self, deadline: Duration) -> Result<(), Unsent> {
        if self.engine.outbox.is_empty() {
            return Ok(());
        }
        let slow = |_| Unsent::Slow;
        for text in self.engine.outbox.drain(..) {
            self.sent += 1;
            timeout(deadline, self.ws.feed(Message::Text(text)))
                .await
                .map_err(slow)?
                .map_err(|error| unsent(&error))?;
        }
        timeout(deadline, self.ws.flush()).await.map_err(slow)?.map_err(|error| unsent(&error))
    }

    /// Says the last words and lets go of the socket. Gives what goes into the log.
    async fn end(mut self: Box<Self>, end: End) -> (&'static str, u16) {
        let linger = self.patience.linger;
        match end {
            End::Closed { code, reason } => {
                let words = async {
                    self.write_out(linger).await?;
                    self.engine.confirm();
                    self.close(code, &reason).await
                };
                // Whoever does not read does not get a goodbye either.
                if let Ok(Ok(())) = timeout(2 * linger, words).await {
                    let answered = timeout(linger, self.await_close()).await;
                    drop(answered);
                }
                self.let_go().await;
                ("closed by the gateway", code)
            }
            End::Broken { code, reason } => {
                if let Ok(()) = self.close(code, reason).await {
                    self.let_go().await;
                }
                (reason, code)
            }
            End::ByClient { code } => {
                // The library has prepared the answer; flushing sends it.
                drop(timeout(linger, self.ws.flush()).await);
                self.let_go().await;
                ("closed by the client", code)
            }
            // RFC 6455 calls this 1006.
            End::Lost => ("connection lost", 1006),
        }
    }

    async fn close(&mut self, code: u16, reason: &str) -> Result<(), Unsent> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: shortened(reason).into() };
        timeout(self.patience.linger, self.ws.send(Message::Close(Some(frame))))
            .await
            .map_err(|_| Unsent::Slow)?
            .map_err(|error| unsent(&error))
    }

    /// Reads until the client has answered our close.
    async fn await_close(&mut self) {
        while let Some(Ok(message)) = self.ws.next().await {
            if message.is_close() {
                return;
            }
        }
    }

    /// Ends our direction and reads the other for a moment: closing a socket with unread bytes resets it, and a reset
    /// can overtake the close frame.
    async fn let_go(&mut self) {
        let linger = self.patience.linger;
        let socket = self.ws.get_mut();
        let parting = async {
            socket.shutdown().await?;
            let mut rest = [0; 512];
            while socket.read(&mut rest).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        drop(timeout(linger, parting).await);
    }
}

/// What may be received for the next message.
fn allowance(engine: &Engine) -> Option<usize> {
    (!engine.known()).then_some(STRANGERS_MESSAGE)
}

/// A verdict as the end of a conversation.
fn over(verdict: Verdict) -> End {
    match verdict {
        Verdict::Close { code, reason } => End::Closed { code, reason },
        // Only calls respond; a session that does so here has nothing more to say.
        Verdict::Respond(_) => End::Closed { code: 1011, reason: "internal error".to_owned() },
    }
}

/// What an unreadable stream is closed with.
fn broken(error: &WsError) -> End {
    match error {
        WsError::Utf8(_) => End::Broken { code: 1007, reason: "text that is not UTF-8" },
        WsError::Capacity(_) => End::Broken { code: 1009, reason: "a message that is too large" },
        WsError::Io(error) if error.kind() == ErrorKind::FileTooLarge => {
            End::Broken { code: 1009, reason: "a message that is too large before a login" }
        }
        WsError::Protocol(violation) if *violation != ProtocolError::ResetWithoutClosingHandshake => {
            End::Broken { code: 1002, reason: "a violation of RFC 6455" }
        }
        WsError::Protocol(_)
        | WsError::Io(_)
        | WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Tls(_)
        | WsError::WriteBufferFull(_)
        | WsError::AttackAttempt
        | WsError::Url(_)
        | WsError::Http(_)
        | WsError::HttpFormat(_) => End::Lost,
    }
}

fn unsent(error: &WsError) -> Unsent {
    if matches!(error, WsError::WriteBufferFull(_)) { Unsent::Slow } else { Unsent::Lost }
}

/// The longest beginning of the reason that fits into a close frame.
fn shortened(reason: &str) -> &str {
    let fits = (0..=REASON_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    fits.and_then(|end| reason.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "\u{4f60}".repeat(50);
        assert_eq!(shortened(&reason).len(), 123);
        let reason = format!("x{reason}");
        assert_eq!(shortened(&reason).len(), 121);
        assert_eq!(shortened("short"), "short");
    }
}

//! One WebSocket connection: bytes and timers on one side, a session's engine on the other.
//!
//! It is the only driver of WebSockets; no dialect has its own. It promises that a client that does not read is cut
//! off and never holds anybody up, that a client that does not speak is never punished for it as long as it answers
//! pings, and that what the session said before a close arrives before the close.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll};
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
use tracing::{Instrument, Span, info};

use super::Patience;
use super::bell::Bell;
use super::engine::{Engine, News, Verdict};
use super::gather::Gather;
use super::socket::{Metered, Socket};
use crate::clock;
use crate::dialects::{Closing, Input};
use crate::hub::handle::Account;
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
    gather: Gather,
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
    /// Half of the message queue is taken while messages gather.
    Pressed,
}

impl Connection {
    /// A session on an upgraded socket. `early` is what the client sent on the heels of its upgrade.
    pub(super) async fn new(
        socket: Socket,
        early: Bytes,
        mut engine: Engine,
        frame_bytes: usize,
        flush_interval: Duration,
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
        let gather = Gather::new(flush_interval);
        Box::new(Self { ws, engine, begun, heard: begun, next_ping, patience, gather, received: 0, sent: 0 })
    }

    /// Runs the session until either side ends it.
    ///
    /// What happens to it is logged in the span, but for the device messages that it only passes on: to enter and leave
    /// a span for each of them costs as much as the session does.
    pub(super) async fn run(mut self: Box<Self>, stop: &CancellationToken, span: Span) {
        span.in_scope(|| info!("session opened"));
        let end = self.converse(stop, &span).await;
        let (received, sent, begun) = (self.received, self.sent, self.begun);
        // Boxed: every idle connection would otherwise keep room for it.
        let (end, code) = Box::pin(self.end(end)).instrument(span.clone()).await;
        let seconds = clock::instant().saturating_duration_since(begun).as_secs();
        span.in_scope(|| info!(received, sent, seconds, code, end, "session closed"));
    }

    /// Runs until the conversation is over; what it was over for is then still to be said.
    async fn converse(&mut self, stop: &CancellationToken, span: &Span) -> End {
        let mut batch: Vec<Arc<DeviceMessage>> = Vec::new();
        let timer = sleep_until(self.next_ping.into());
        tokio::pin!(timer);
        // Asked for once: to begin and give up such a wait takes a lock that all connections share.
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        // A message that comes alone costs a look at its queue before and after it, and none at anything else.
        let (bell, mut after_news) = (Bell::new(), false);
        let rings = bell.waker();
        Box::pin(self.engine.step(Input::Open)).instrument(span.clone()).await;
        loop {
            if let Err(unsent) = self.write_out(self.patience.write).await {
                if let Some(end) = Box::pin(self.failed(unsent)).instrument(span.clone()).await {
                    return end;
                }
            }
            if let Some(verdict) = self.engine.verdict.take() {
                return over(verdict);
            }
            if self.engine.leased() {
                // It was told so a moment ago, or pinged as often before.
                self.next_ping = self.next_ping.min(clock::instant() + self.patience.leased_ping);
            }
            let others = [self.engine.timeout(), self.gather.until()];
            let wake = others.into_iter().flatten().fold(self.next_ping, Instant::min);
            if timer.deadline() != wake.into() {
                timer.as_mut().reset(wake.into());
                bell.ring();
            }
            // While messages gather, their queue wakes nobody before it is half full.
            let account = if self.gather.until().is_some() { self.engine.account() } else { None };
            let gathering = account.is_some();
            // Boxed: every idle connection would otherwise keep room for it.
            let mut half_full = account.map(|account| Box::pin(pressed(account)));
            if gathering {
                bell.ring();
            }
            // Cancel-safe throughout: the stream keeps a half-read frame in its buffer and the queues what was not taken, a
            // timer and a cancelled token stay what they are, and a queue that is half full is noticed with the next message.
            let wake = poll_fn(|task| {
                // What is told and everything else come in turns.
                let others_first = after_news && bell.rings();
                if !others_first {
                    if let Poll::Ready(news) = self.engine.poll_news(&mut batch, gathering, task) {
                        return Poll::Ready(Wake::News(news));
                    }
                }
                if bell.take(task.waker()) {
                    let waking = &mut Context::from_waker(&rings);
                    let found = if timer.as_mut().poll(waking).is_ready() {
                        Poll::Ready(Wake::Time)
                    } else if stopped.as_mut().poll(waking).is_ready() {
                        Poll::Ready(Wake::Stop)
                    } else if half_full.as_mut().is_some_and(|half| half.as_mut().poll(waking).is_ready()) {
                        Poll::Ready(Wake::Pressed)
                    } else if let Poll::Ready(news) = self.engine.poll_rare_news(waking) {
                        Poll::Ready(Wake::News(news))
                    } else if self.engine.saturated() {
                        // For when it no longer is, of which the hub will tell.
                        bell.ring();
                        Poll::Pending
                    } else {
                        self.ws.poll_next_unpin(waking).map(Wake::Frame)
                    };
                    if found.is_ready() {
                        // There may be more.
                        bell.ring();
                        return found;
                    }
                }
                if others_first {
                    return self.engine.poll_news(&mut batch, gathering, task).map(Wake::News);
                }
                Poll::Pending
            })
            .await;
            after_news = matches!(wake, Wake::News(_));
            if matches!(wake, Wake::News(News::Messages)) && !self.engine.hears() {
                self.engine.take(News::Messages, &mut batch).await;
            } else {
                // Boxed: every idle connection would otherwise keep room for it.
                let reacting = Box::pin(self.react(wake, gathering, &mut batch));
                if let Some(end) = reacting.instrument(span.clone()).await {
                    return end;
                }
            }
        }
    }

    /// What follows from anything but messages. Gives the end, if it is that.
    async fn react(
        &mut self,
        wake: Wake,
        gathering: bool,
        batch: &mut Vec<Arc<DeviceMessage>>,
    ) -> Option<End> {
        // Messages that gather in their queue come before what happens after them, and in time before they are written.
        if gathering && !matches!(wake, Wake::News(_)) {
            if let Err(unsent) = self.catch_up(batch).await {
                if let Some(end) = self.failed(unsent).await {
                    return Some(end);
                }
            }
        }
        match wake {
            Wake::Frame(frame) => return self.hear(frame).await,
            Wake::News(news) => {
                if let News::Changed(shared) = &news {
                    self.gather.every(shared.server.flush_interval);
                }
                self.engine.take(news, batch).await;
            }
            Wake::Time => return self.tick().await,
            Wake::Stop => self.engine.step(Input::Closing(Closing::Shutdown)).await,
            Wake::Pressed => {}
        }
        None
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

    /// What follows when something that the session has said cannot be written.
    async fn failed(&mut self, unsent: Unsent) -> Option<End> {
        match unsent {
            Unsent::Lost => Some(End::Lost),
            Unsent::Slow => {
                self.engine.lose();
                self.engine.step(Input::Closing(Closing::TooSlow)).await;
                None
            }
        }
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

    /// Lets the session take the messages that wait for it now, and hands the socket what it makes of them.
    async fn catch_up(&mut self, batch: &mut Vec<Arc<DeviceMessage>>) -> Result<(), Unsent> {
        let mut left = self.engine.waiting();
        while left > 0 && self.engine.verdict.is_none() {
            self.engine.pull(batch, left);
            if batch.is_empty() {
                break;
            }
            left -= batch.len().min(left);
            self.engine.take(News::Messages, batch).await;
            self.feed(self.patience.write).await?;
        }
        Ok(())
    }

    /// Hands over what the session has said, and sends it unless it may wait for more.
    async fn write_out(&mut self, deadline: Duration) -> Result<(), Unsent> {
        let fed = self.feed(deadline).await?;
        let at_once = std::mem::take(&mut self.engine.urgent) || self.engine.verdict.is_some();
        if self.gather.holds(fed, at_once, clock::instant) {
            return Ok(());
        }
        let held = self.gather.end();
        if fed || held {
            within(deadline, self.ws.flush())
                .await
                .map_err(|_| Unsent::Slow)?
                .map_err(|error| unsent(&error))?;
        }
        self.engine.confirm();
        Ok(())
    }

    /// Hands over what the session has said, and says whether it has said anything. Each message has the deadline for
    /// itself, so that a slow client that does read is not cut off for the length of a batch.
    async fn feed(&mut self, deadline: Duration) -> Result<bool, Unsent> {
        let some = !self.engine.outbox.is_empty();
        for text in self.engine.outbox.drain(..) {
            self.sent += 1;
            within(deadline, self.ws.feed(Message::Text(text)))
                .await
                .map_err(|_| Unsent::Slow)?
                .map_err(|error| unsent(&error))?;
        }
        Ok(some)
    }

    /// Says the last words and lets go of the socket. Gives what goes into the log.
    async fn end(mut self: Box<Self>, end: End) -> (&'static str, u16) {
        let linger = self.patience.linger;
        match end {
            End::Closed { code, reason } => {
                let words = async {
                    self.engine.urgent = true;
                    self.write_out(linger).await?;
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

/// Waits until half of the message queue is taken.
async fn pressed(account: Arc<Account>) {
    account.pressed.notified().await;
}

/// Waits for something that is mostly there at once, for so long at most: a timer is made only where it is not.
async fn within<T>(deadline: Duration, done: impl Future<Output = T>) -> Result<T, Elapsed> {
    tokio::pin!(done);
    match poll_fn(|context| Poll::Ready(done.as_mut().poll(context))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => timeout(deadline, done).await,
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

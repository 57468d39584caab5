//! One session between HTTP requests: those that bring what the client says, and the one response that takes what it
//! is told.
//!
//! It promises that a client that does not read is given up, that one that does not read fast enough slows only
//! itself (the hub then drops and repairs its reports as for a WebSocket), and that what the session said before a
//! close arrives before the close.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Delivery, Receiver, Reply, answer};
use crate::clock;
use crate::dialects::{Closing, Input};
use crate::model::message::DeviceMessage;
use crate::proto::sockjs::Downlink;
use crate::serve::Patience;
use crate::serve::engine::{Engine, News, Verdict};

/// Octets that wait for the client, from which on nothing is taken in that could add to them. What one input causes
/// is still kept: a session gives a quarter of a MiB at most before it rests.
const ROOM: usize = 64 * 1024;

/// Where the session hears of requests.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) receivers: mpsc::Receiver<Receiver>,
    pub(super) deliveries: mpsc::Receiver<Delivery>,
}

/// Runs a session until its client has stayed away for too long, or has been told that it is closed and asks no more.
pub(super) async fn run(engine: Engine, ends: Ends, patience: Arc<Patience>, stop: CancellationToken) {
    let begun = clock::instant();
    let mut carrier = Carrier {
        engine: Some(engine),
        ends,
        downlink: Downlink::new(patience.sockjs, begun),
        response: None,
        waiting: None,
        patience,
        batch: Vec::new(),
        received: 0,
        sent: 0,
    };
    info!("session opened");
    carrier.converse(&stop).await;
    info!(
        received = carrier.received,
        sent = carrier.sent,
        seconds = clock::instant().saturating_duration_since(begun).as_secs(),
        "session closed"
    );
}

#[derive(Debug)]
struct Carrier {
    /// `None` once the session is closed; the hub forgets it then.
    engine: Option<Engine>,
    ends: Ends,
    downlink: Downlink,
    /// The body of the response that is there.
    response: Option<mpsc::Sender<Bytes>>,
    /// Since when a piece has been waiting for that response to take it.
    waiting: Option<Instant>,
    patience: Arc<Patience>,
    batch: Vec<Arc<DeviceMessage>>,
    received: u64,
    sent: u64,
}

/// What woke the carrier.
enum Wake {
    Receiver(Receiver),
    Delivery(Delivery),
    News(News),
    /// The response takes another piece; `None` if it is gone.
    Response(Option<mpsc::OwnedPermit<Bytes>>),
    Time,
    Stop,
}

impl Carrier {
    async fn converse(&mut self, stop: &CancellationToken) {
        self.step(Input::Open).await;
        loop {
            let now = clock::instant();
            if self.downlink.is_abandoned(now) || (stop.is_cancelled() && self.is_over()) {
                return;
            }
            match self.wake(now, stop).await {
                Wake::Receiver(receiver) => self.attach(receiver),
                Wake::Delivery(Delivery { text, reply }) => {
                    self.received += 1;
                    self.step(Input::Text(text)).await;
                    answer(reply, Reply::Taken);
                }
                Wake::News(news) => self.take(news).await,
                Wake::Response(Some(permit)) => self.write(permit),
                Wake::Response(None) => {
                    self.response = None;
                    self.waiting = None;
                    self.downlink.interrupt(clock::instant());
                    self.engine = None;
                }
                Wake::Time => self.tick().await,
                Wake::Stop => self.step(Input::Closing(Closing::Shutdown)).await,
            }
        }
    }

    /// Waits for something to happen.
    async fn wake(&mut self, now: Instant, stop: &CancellationToken) -> Wake {
        let room = self.downlink.octets() < ROOM;
        let saturated = self.engine.as_ref().is_some_and(Engine::saturated);
        let due = self.downlink.is_due(now);
        if due {
            self.waiting.get_or_insert(now);
        }
        let deadline = self.deadline(room);
        let response = self.response.clone();
        let engine = &mut self.engine;
        let batch = &mut self.batch;
        tokio::select! {
            // Cancel-safe by its documentation.
            Some(receiver) = self.ends.receivers.recv() => Wake::Receiver(receiver),
            // Cancel-safe by its documentation.
            Some(delivery) = self.ends.deliveries.recv(), if room && !saturated => Wake::Delivery(delivery),
            // Cancel-safe by its documentation.
            news = news(engine, batch), if room => Wake::News(news),
            // Cancel-safe: what is not reserved is not lost, and a response that is gone stays gone.
            taken = turn(response, due) => Wake::Response(taken),
            // Cancel-safe: a sleep holds nothing.
            () = sleep_until(deadline.into()) => Wake::Time,
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled(), if engine.is_some() => Wake::Stop,
        }
    }

    /// When the next timer fires. While there is no room the session's own have to wait, as its other inputs do.
    fn deadline(&self, room: bool) -> Instant {
        let stalled = self.waiting.map(|since| since + self.patience.write);
        // A piece that is due already waits for the response and not for a time.
        let downlink = if stalled.is_some() { None } else { Some(self.downlink.timeout()) };
        let session = self.engine.as_ref().filter(|_| room).and_then(Engine::timeout);
        [stalled, downlink, session].into_iter().flatten().min().unwrap_or_else(clock::instant)
    }

    /// Whether the client has been told all that there is to tell.
    fn is_over(&self) -> bool {
        self.engine.is_none() && self.response.is_none()
    }

    fn attach(&mut self, receiver: Receiver) {
        let Receiver { form, pieces, reply } = receiver;
        answer(reply, Reply::Taken);
        if self.downlink.attach(form, clock::instant()) {
            self.response = Some(pieces);
        } else {
            // A fresh body has room for one piece.
            drop(pieces.try_send(form.busy().into()));
        }
    }

    /// Hands one piece over.
    fn write(&mut self, permit: mpsc::OwnedPermit<Bytes>) {
        self.waiting = None;
        let Some(chunk) = self.downlink.take(clock::instant()) else { return };
        if !chunk.text.is_empty() {
            self.sent += 1;
            drop(permit.send(chunk.text.into()));
        }
        if chunk.last {
            self.response = None;
        }
    }

    async fn take(&mut self, news: News) {
        if let Some(engine) = &mut self.engine {
            engine.take(news, &mut self.batch).await;
        }
        self.collect();
    }

    async fn step(&mut self, input: Input) {
        if let Some(engine) = &mut self.engine {
            engine.step(input).await;
        }
        self.collect();
    }

    /// Takes over what the session wants said, and its close.
    fn collect(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        for text in engine.outbox.drain(..) {
            self.downlink.push(text);
        }
        match engine.verdict.take() {
            None => return,
            Some(Verdict::Close { code, reason }) => self.downlink.close(code, &reason),
            // Only calls respond; a session that does so here has nothing more to say.
            Some(Verdict::Respond(_)) => self.downlink.close(1011, "internal error"),
        }
        self.engine = None;
    }

    /// A timer fired: that of the session, or the patience with a client that does not read.
    async fn tick(&mut self) {
        let now = clock::instant();
        if self.waiting.is_some_and(|since| since + self.patience.write <= now) {
            self.step(Input::Closing(Closing::TooSlow)).await;
            self.response = None;
            self.waiting = None;
            self.downlink.interrupt(now);
        }
        let due = self.engine.as_ref().and_then(Engine::timeout).is_some_and(|timeout| timeout <= now);
        if due && self.downlink.octets() < ROOM {
            self.step(Input::Timeout).await;
        }
    }
}

/// News from the hub; never any for a session that is closed.
async fn news(engine: &mut Option<Engine>, batch: &mut Vec<Arc<DeviceMessage>>) -> News {
    match engine {
        Some(engine) => engine.news(batch).await,
        None => std::future::pending().await,
    }
}

/// Waits until the response takes a piece, if one is due, or is gone.
async fn turn(response: Option<mpsc::Sender<Bytes>>, due: bool) -> Option<mpsc::OwnedPermit<Bytes>> {
    match response {
        None => std::future::pending().await,
        Some(response) if due => response.reserve_owned().await.ok(),
        Some(response) => {
            response.closed().await;
            None
        }
    }
}

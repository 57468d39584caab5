//! The task of one broker: moves bytes between the connection, the pure [`Session`] and the pure [`State`].
//!
//! It promises to come back by itself from whatever happens to the broker, and to stop within a second. What a
//! message means, and when a command is settled, it does not know.
//!
//! Each connection gets a session of its own, and usually the broker begins anew as well. A kept session makes the
//! broker hold messages for a gateway that is away, to be delivered with wrong times; retained messages bring the
//! state back without it. Either way the gateway subscribes at every connect, and never repeats a command whose
//! sender was told long ago that the result is unknown.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::packet::{self, Hello, Message, Version};
use super::presence::PresenceSettings;
use super::route::RouteError;
use super::session::{Event, Session};
use super::state::{Announcement, Outgoing, State, Subscriptions, Ticket};
use super::transport::{self, Pipe};
use super::{BrokerSettings, Members};
use crate::backoff::Backoff;
use crate::clock;
use crate::drivers::LinkPort;
use crate::drivers::announce::Unwelcome;
use crate::drivers::roll::Roll;
use crate::meters::Dropped;
use crate::report::Chain;

/// Pauses between attempts grow from the first to the second. A broker that restarts is back within the first few;
/// thirty seconds is what a person still calls at once after repairing a network.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A connection that held this long was a good one, and the next pause is the first again. One that a broker
/// accepts and drops (another client with the same id does that) does not count.
const STABLE: Duration = Duration::from_secs(10);

/// Longest time from the first packet of TCP to the broker's welcome, over a bad mobile link.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Longest goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes that wait for the socket. When reached, further messages wait in the state, which bounds its commands; what
/// is written already is at most one largest packet more.
const UNSENT: usize = 256 << 10;

/// Room that is made for one read.
const PIECE: usize = 8 << 10;

/// Runs the link to one broker until told to stop, or until the hub is gone.
///
/// Its devices may change meanwhile; the connection stays. The newest `gateway` state is published where the settings want it; without a sender there is none.
pub async fn run(
    settings: BrokerSettings,
    members: impl Into<Roll<Members>>,
    port: LinkPort,
    gateway: watch::Receiver<Option<Arc<str>>>,
    stop: CancellationToken,
) {
    let span = info_span!("mqtt", link = %settings.id);
    Driver::new(settings, members.into(), port, gateway, stop).run().instrument(span).await;
}

struct Driver {
    settings: Arc<BrokerSettings>,
    state: State,
    roll: Roll<Members>,
    port: LinkPort,
    /// The gateway's state, as long as there is somebody to tell it.
    gateway: Option<watch::Receiver<Option<Arc<str>>>>,
    /// Whether it is to be published at the next chance.
    news: bool,
    stop: CancellationToken,
    /// Attempts since the last connection.
    attempts: u64,
    /// When the current connection was accepted.
    connected: Option<Instant>,
}

/// Why a connection is not used any more.
enum End {
    /// The broker is lost, for this reason.
    Lost(String),
    /// The gateway stops, or the hub is gone.
    Stop,
}

impl Driver {
    fn new(
        settings: BrokerSettings,
        mut roll: Roll<Members>,
        port: LinkPort,
        gateway: watch::Receiver<Option<Arc<str>>>,
        stop: CancellationToken,
    ) -> Self {
        let (id, now) = (Arc::clone(&settings.id), clock::now());
        let (state, errors) = State::new(id, &settings.gateway, &roll.now(), now);
        warn_of(errors);
        Self {
            settings: Arc::new(settings),
            state,
            roll,
            port,
            gateway: Some(gateway),
            news: false,
            stop,
            attempts: 0,
            connected: None,
        }
    }

    async fn run(mut self) {
        if self.settings.transport.tls.as_ref().is_some_and(|tls| !tls.verify) {
            warn!(
                broker = %self.settings.display,
                "the broker's certificate is NOT verified (tls.verify = false): anybody on the way can read and \
                 change everything"
            );
        }
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let reason = match self.connection().await {
                // Nobody who leaves has lost anything: brokers close as soon as they have read the goodbye.
                End::Lost(_) if self.stop.is_cancelled() => break,
                End::Lost(reason) => reason,
                End::Stop => break,
            };
            if self.connected.take().is_some_and(|since| clock::instant().duration_since(since) >= STABLE) {
                backoff.reset();
            }
            self.lost(&reason);
            if self.meanwhile(sleep(backoff.next(fastrand::f64()))).await.is_none() {
                break;
            }
        }
        // What the hub had given and this task had not yet taken is answered too.
        self.port.commands.close();
        while let Ok(command) = self.port.commands.try_recv() {
            self.state.handle_command(&command, clock::now());
        }
        self.state.handle_stop(clock::now());
        let told = self.observe().await.is_some();
        debug!(told, "stopped");
    }

    /// Connects once and serves the connection until it ends.
    async fn connection(&mut self) -> End {
        self.attempts += 1;
        let settings = Arc::clone(&self.settings);
        let begun = clock::instant();
        let opening = async move { timeout(CONNECT_WITHIN, transport::open(&settings)).await };
        let pipe = match self.meanwhile(Box::pin(opening)).await {
            None => return End::Stop,
            Some(Err(_)) => return End::Lost("no answer in time".to_owned()),
            Some(Ok(Err(error))) => return End::Lost(Chain(&error).to_string()),
            Some(Ok(Ok(pipe))) => pipe,
        };
        let session = Session::new(hello(&self.settings), clock::instant());
        let version = self.settings.version;
        let mut wire = Wire {
            pipe,
            version,
            session,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            dirty: false,
            unsent: Vec::new(),
        };
        self.serve(&mut wire, begun + CONNECT_WITHIN).await
    }

    /// Serves a connection whose broker must welcome us in time.
    async fn serve(&mut self, wire: &mut Wire, welcome_by: Instant) -> End {
        let mut leave_by = None;
        loop {
            self.announce().await;
            if leave_by.is_none() {
                if let Some(Subscriptions { wanted, unwanted }) = self.state.poll_subscriptions() {
                    // In this order nothing is missed where a wider filter takes the place of others.
                    wire.session.subscribe(&wanted);
                    wire.session.unsubscribe(&unwanted);
                }
                self.tell_state(&mut wire.session);
                let taken = wire.take_messages(&mut self.state);
                self.port.meters.broker.sent.inc_by(taken);
            }
            if let Err(error) = wire.pack() {
                return End::Lost(error.to_string());
            }
            if self.observe().await.is_none() || (leave_by.is_some() && wire.is_empty()) {
                return End::Stop;
            }
            let given_up = (!wire.session.is_welcome()).then_some(welcome_by);
            let due = [given_up, wire.session.poll_timeout(), self.state.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let wake = leave_by.or(due);
            let unsent = !wire.outbox.is_empty() || wire.dirty;
            wire.inbox.reserve(PIECE);
            tokio::select! {
                // Cancel-safe by its documentation.
                read = wire.pipe.reader.read_buf(&mut wire.inbox) => match read {
                    Ok(0) => return End::Lost("it closed the connection".to_owned()),
                    Ok(_) => if let Err(reason) = self.received(wire) {
                        return End::Lost(reason);
                    },
                    Err(error) => return End::Lost(transport::words(&error)),
                },
                // Cancel-safe: what was written is gone from the buffer, the rest is not.
                written = push(&mut wire.pipe.writer, &mut wire.outbox, &mut wire.dirty), if unsent => match written {
                    Ok(()) => wire.handed_over(&mut self.state),
                    Err(error) => return End::Lost(transport::words(&error)),
                },
                // Cancel-safe: a command stays in the queue until it is received.
                command = self.port.commands.recv(), if leave_by.is_none() => match command {
                    Some(command) => self.state.handle_command(&command, clock::now()),
                    None => return End::Stop,
                },
                // Cancel-safe by its documentation.
                members = self.roll.changed(), if leave_by.is_none() => {
                    warn_of(self.state.handle_members(&members, clock::now()));
                }
                // Cancel-safe by its documentation.
                changed = next_state(&mut self.gateway), if leave_by.is_none() => {
                    self.news = changed;
                    self.gateway = self.gateway.take().filter(|_| changed);
                }
                // Cancel-safe: a new sleep until the same moment replaces it.
                () = until(wake) => {
                    let now = clock::now();
                    if leave_by.is_some() {
                        return End::Stop;
                    }
                    if given_up.is_some_and(|by| by <= now.instant) {
                        return End::Lost("no answer in time".to_owned());
                    }
                    if let Err(fault) = wire.session.handle_timeout(now.instant) {
                        return End::Lost(fault.to_string());
                    }
                    self.state.handle_timeout(now);
                }
                // Cancel-safe: a token stays cancelled.
                () = self.stop.cancelled(), if leave_by.is_none() => {
                    if self.connected.is_none() {
                        return End::Stop;
                    }
                    // Disconnecting in form lets what is handed over leave first, and spares the broker from
                    // thinking that the gateway died.
                    if let Some(presence) = &self.settings.presence {
                        wire.session.publish(None, presence.gone());
                    }
                    wire.session.disconnect();
                    leave_by = Some(clock::instant() + GOODBYE);
                }
            }
        }
    }

    /// Takes in what has arrived.
    fn received(&mut self, wire: &mut Wire) -> Result<(), String> {
        while let Some(packet) =
            packet::decode(wire.version, &mut wire.inbox).map_err(|error| error.to_string())?
        {
            wire.session.handle_packet(packet, clock::instant()).map_err(|fault| fault.to_string())?;
            while let Some(event) = wire.session.poll_event() {
                self.happened(event, wire);
            }
        }
        Ok(())
    }

    /// Publishes the gateway's newest state, if there is news.
    fn tell_state(&mut self, session: &mut Session<Option<Ticket>>) {
        let Some(presence) = self.settings.presence.as_ref().filter(|_| self.news && session.has_room())
        else {
            return;
        };
        let state = self.gateway.as_mut().and_then(|gateway| gateway.borrow_and_update().clone());
        if let Some(message) = state.and_then(|state| presence.state(&state)) {
            session.publish(None, message);
        }
        self.news = false;
    }

    fn happened(&mut self, event: Event<Option<Ticket>>, wire: &mut Wire) {
        let now = clock::now();
        match event {
            Event::Connected(welcome) => {
                info!(
                    broker = %self.settings.display,
                    attempts = self.attempts,
                    session_present = welcome.session_present,
                    "broker connected"
                );
                self.attempts = 0;
                self.connected = Some(now.instant);
                self.state.handle_connected(now);
                if let Some(presence) = &self.settings.presence {
                    wire.session.publish(None, presence.here());
                    self.news = true;
                }
            }
            Event::Message(message) => {
                self.port.meters.broker.received.inc();
                self.state.handle_message(&message, now);
            }
            Event::Acknowledged(Some(ticket)) => self.state.handle_acknowledged(ticket, now),
            Event::Acknowledged(None) => {}
            Event::Refused(Some(ticket), reason) => self.state.handle_refused(ticket, &reason, now),
            Event::Refused(None, reason) => {
                warn!(%reason, "the broker refuses to say that the gateway is here");
            }
            Event::Subscribed(filter, Ok(())) => debug!(%filter, "subscribed"),
            Event::Subscribed(filter, Err(reason)) => {
                warn!(%filter, %reason, "the broker refuses the subscription");
            }
        }
    }

    /// Says once that the broker is lost; further attempts that fail are only counted.
    fn lost(&mut self, reason: &str) {
        let broker = &self.settings.display;
        if self.state.is_down() {
            debug!(%broker, attempts = self.attempts, error = %reason, "broker still not reachable");
            return;
        }
        warn!(%broker, error = %reason, "broker not reachable; its devices are offline");
        let device_reason = format!("broker {broker} is not reachable");
        self.state.handle_disconnected(&format!("{device_reason}: {reason}"), &device_reason, clock::now());
    }

    /// Waits for something without a connection; commands are answered all the same. `None` means to stop.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            self.announce().await;
            self.observe().await?;
            tokio::select! {
                // Not dropped when another arm wins: the same work goes on in the next round.
                done = &mut work => return Some(done),
                // Cancel-safe: a command stays in the queue until it is received.
                command = self.port.commands.recv() => self.state.handle_command(&command?, clock::now()),
                // Cancel-safe by its documentation.
                members = self.roll.changed() => warn_of(self.state.handle_members(&members, clock::now())),
                // Cancel-safe: a token stays cancelled.
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Makes known who has appeared or is forgotten, before anything is said of them, and waits until everybody knows.
    ///
    /// The connection is not served meanwhile, so that nothing is missed of those who appear; it takes milliseconds.
    async fn announce(&mut self) {
        let meters = &self.port.meters.broker;
        meters.unwelcome.inc_by(self.state.take_unwelcome());
        let Some(Announcement { come, gone }) = self.state.poll_announcement() else { return };
        let answers = match &self.port.announcer {
            Some(announcer) => announcer.announce(come.clone(), gone).await,
            None => vec![Err(Unwelcome::NotNow); come.len()],
        };
        self.state.handle_announced(&come, &answers, clock::now());
        meters.found.set(i64::try_from(self.state.found()).unwrap_or(i64::MAX));
    }

    /// Hands everything seen to the hub, waiting for room. `None` means that the hub is gone.
    ///
    /// The connection is not served meanwhile, so a hub that is behind slows the broker down.
    async fn observe(&mut self) -> Option<()> {
        for (reason, times) in Dropped::ALL.into_iter().zip(self.state.take_dropped()) {
            self.port.meters.broker.drop_by(reason, times);
        }
        while let Some(observation) = self.state.poll_observation() {
            self.port.observations.send(observation).await.ok()?;
        }
        Some(())
    }
}

/// Says what cannot be used of the maps of devices.
fn warn_of(errors: Vec<(Arc<str>, RouteError)>) {
    for (device, error) in errors {
        warn!(%device, error = %Chain(&error), "left out");
    }
}

/// One connection with its session.
struct Wire {
    pipe: Pipe,
    version: Version,
    session: Session<Option<Ticket>>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Whether something was written and not flushed.
    dirty: bool,
    /// Messages without acknowledgement that stand in the outbox.
    unsent: Vec<Ticket>,
}

impl Wire {
    /// Takes as many messages as there is room for, and says how many.
    fn take_messages(&mut self, state: &mut State) -> u64 {
        let mut taken = 0;
        while self.session.has_room() && self.outbox.len() < UNSENT {
            let Some(Outgoing { ticket, topic, payload, qos, retain, extra }) = state.poll_publish() else {
                break;
            };
            let message = Message { topic, payload: Bytes::from(payload), qos, retain, extra };
            // A packet beyond what the broker takes would cost the connection.
            if !packet::fits(self.version, &message, self.session.largest()) {
                state.handle_too_large(ticket, self.session.largest(), clock::now());
                continue;
            }
            taken += 1;
            debug!(topic = %message.topic, payload = %String::from_utf8_lossy(&message.payload), qos, retain, "publish");
            if qos == 0 {
                self.unsent.push(ticket);
            }
            self.session.publish(Some(ticket), message);
        }
        taken
    }

    /// Turns what the session wants to say into bytes.
    fn pack(&mut self) -> Result<(), packet::CodecError> {
        while let Some(packet) = self.session.poll_packet(clock::instant()) {
            packet::encode(self.version, packet, self.session.largest(), &mut self.outbox)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.outbox.is_empty() && !self.dirty
    }

    /// Some bytes have left; once all have, so have the messages that nobody acknowledges.
    fn handed_over(&mut self, state: &mut State) {
        if self.is_empty() {
            for ticket in self.unsent.drain(..) {
                state.handle_acknowledged(ticket, clock::now());
            }
        }
    }
}

/// Writes a piece of the buffer, or flushes when nothing is left in it.
async fn push(
    writer: &mut (impl AsyncWrite + Unpin),
    outbox: &mut BytesMut,
    dirty: &mut bool,
) -> std::io::Result<()> {
    if outbox.is_empty() {
        writer.flush().await?;
        *dirty = false;
        return Ok(());
    }
    if writer.write_buf(outbox).await? == 0 {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    *dirty = true;
    Ok(())
}

fn hello(settings: &BrokerSettings) -> Hello {
    Hello {
        client_id: Arc::clone(&settings.client_id),
        keep_alive: u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1),
        clean: settings.clean_session,
        login: settings.login.clone(),
        will: settings.presence.as_ref().map(PresenceSettings::gone),
    }
}

/// Waits until the gateway's state has changed; `false` when nobody tells it any more.
async fn next_state(gateway: &mut Option<watch::Receiver<Option<Arc<str>>>>) -> bool {
    match gateway {
        Some(gateway) => gateway.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Sleeps until the moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

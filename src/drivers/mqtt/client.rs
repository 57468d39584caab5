//! The task of one broker: moves packets between the MQTT library and the pure [`State`].
//!
//! It promises to come back by itself from whatever happens to the broker, and to stop within a second. What a
//! message means, and when a command is settled, it does not know.
//!
//! Each connection gets a client of its own and a clean session. A kept session would make the broker hold messages
//! for a gateway that is away, to be delivered with wrong times, and make both sides repeat commands whose senders
//! were told long ago that the result is unknown; retained messages bring the state back without it. A fresh client
//! also leaves behind whatever the old connection had buffered, numbered or half acknowledged.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event, MqttOptions, Outgoing as Sent,
    Packet, QoS, StateError, SubscribeFilter, SubscribeReasonCode,
};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::state::{Outgoing, State, Ticket};
use super::{BrokerSettings, MqttDevice};
use crate::backoff::Backoff;
use crate::clock;
use crate::drivers::LinkPort;

/// Pauses between attempts grow from the first to the second. A broker that restarts is back within the first few;
/// thirty seconds is what a person still calls at once after repairing a network.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A connection that held this long was a good one, and the next pause is the first again. One that a broker
/// accepts and drops (another client with the same id does that) does not count.
const STABLE: Duration = Duration::from_secs(10);

/// Requests that wait in the library. When full, the rest waits here (subscriptions) or in the state (publishes);
/// nothing ever awaits room in it, because only this task's own polling makes room.
const REQUESTS: usize = 32;

/// Filters in one SUBSCRIBE. Some brokers take no more than eight.
const FILTERS_AT_ONCE: usize = 8;

/// Largest packets in and out. The library's own limit of 10 KiB ends the connection on a message that Zigbee2MQTT
/// sends in passing, and a retained one would do so at every connect.
const LARGEST_PACKET: usize = 1 << 20;

/// Messages that the broker may owe acknowledgements for. More than can be under way, so that a packet number comes
/// round again only long after its message was acknowledged.
const INFLIGHT: u16 = 256;

/// Longest goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Runs the link to one broker until told to stop, or until the hub is gone.
pub async fn run(
    settings: BrokerSettings,
    devices: Vec<MqttDevice>,
    port: LinkPort,
    stop: CancellationToken,
) {
    let span = info_span!("mqtt", link = %settings.id);
    Driver::new(settings, &devices, port, stop).run().instrument(span).await;
}

struct Driver {
    settings: BrokerSettings,
    state: State,
    port: LinkPort,
    stop: CancellationToken,
    /// Attempts since the last connection.
    attempts: u64,
    /// When the current connection was accepted.
    connected: Option<Instant>,
}

/// Why a connection is not used any more.
enum End {
    Lost(ConnectionError),
    /// The gateway stops, or the hub is gone.
    Stop,
}

impl Driver {
    fn new(
        settings: BrokerSettings,
        devices: &[MqttDevice],
        port: LinkPort,
        stop: CancellationToken,
    ) -> Self {
        let (state, errors) = State::new(Arc::clone(&settings.id), devices);
        for (device, error) in errors {
            let device = devices.get(device).map(|mqtt| Arc::clone(&mqtt.device.id));
            warn!(device = device.as_deref(), error = %crate::report::Chain(&error), "left out");
        }
        Self { settings, state, port, stop, attempts: 0, connected: None }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let error = match self.connection().await {
                End::Lost(error) => error,
                End::Stop => break,
            };
            if self.connected.take().is_some_and(|since| clock::instant().duration_since(since) >= STABLE) {
                backoff.reset();
            }
            self.lost(&error);
            if self.pause(backoff.next(fastrand::f64())).await.is_none() {
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
        let (client, mut events) = AsyncClient::new(options(&self.settings), REQUESTS);
        // Otherwise a small packet waits for the acknowledgement of the one before, up to forty milliseconds.
        events.network_options.set_tcp_nodelay(true);
        let mut wire = Wire::new(client);
        let mut leave_by = None;
        loop {
            // The library's poll is not cancel-safe: dropped halfway it forgets to flush, or a packet. So the same
            // future is polled until it is done, whatever else happens meanwhile.
            let mut poll = pin!(events.poll());
            let event = loop {
                if self.connected.is_some() && leave_by.is_none() {
                    wire.send(&mut self.state);
                }
                if self.observe().await.is_none() {
                    return End::Stop;
                }
                let wake = leave_by.or_else(|| self.state.poll_timeout());
                tokio::select! {
                    // Not dropped when another arm wins; see above.
                    event = &mut poll => break event,
                    // Cancel-safe: a command stays in the queue until it is received.
                    command = self.port.commands.recv(), if leave_by.is_none() => match command {
                        Some(command) => self.state.handle_command(&command, clock::now()),
                        None => return End::Stop,
                    },
                    // Cancel-safe: a new sleep until the same moment replaces it.
                    () = until(wake) => {
                        if leave_by.is_some() {
                            return End::Stop;
                        }
                        self.state.handle_timeout(clock::now());
                    }
                    // Cancel-safe: a token stays cancelled.
                    () = self.stop.cancelled(), if leave_by.is_none() => {
                        // Disconnecting in form lets what is handed over leave first, and spares the broker from
                        // thinking that the gateway died.
                        if self.connected.is_none() || wire.client.try_disconnect().is_err() {
                            return End::Stop;
                        }
                        leave_by = Some(clock::instant() + GOODBYE);
                    }
                }
            };
            match event {
                Err(_) if leave_by.is_some() => return End::Stop,
                Err(error) => return End::Lost(error),
                Ok(Event::Outgoing(Sent::Disconnect)) => return End::Stop,
                Ok(Event::Outgoing(sent)) => {
                    if matches!(sent, Sent::Publish(_)) {
                        self.port.meters.broker.sent.inc();
                    }
                    wire.sent(&sent, &mut self.state);
                }
                Ok(Event::Incoming(packet)) => self.received(packet, &mut wire),
            }
        }
    }

    fn received(&mut self, packet: Packet, wire: &mut Wire) {
        match packet {
            Packet::ConnAck(_) => {
                let now = clock::now();
                info!(broker = %self.settings.display, attempts = self.attempts, "broker connected");
                self.attempts = 0;
                self.connected = Some(now.instant);
                self.state.handle_connected(now);
                wire.subscribe(self.state.filters());
            }
            Packet::Publish(message) => {
                self.port.meters.broker.received.inc();
                self.state.handle_message(&message.topic, &message.payload, message.retain, clock::now());
            }
            Packet::PubAck(ack) => wire.acknowledged(ack.pkid, &mut self.state),
            Packet::PubComp(ack) => wire.acknowledged(ack.pkid, &mut self.state),
            Packet::SubAck(ack) => wire.subscribed(ack.pkid, &ack.return_codes),
            Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Disconnect => {}
        }
    }

    /// Says once that the broker is lost; further attempts that fail are only counted.
    fn lost(&mut self, error: &ConnectionError) {
        let words = words(error);
        let broker = &self.settings.display;
        if self.state.is_down() {
            debug!(%broker, attempts = self.attempts, error = %words, "broker still not reachable");
            return;
        }
        warn!(%broker, error = %words, "broker not reachable; its devices are offline");
        let device_reason = format!("broker {broker} is not reachable");
        self.state.handle_disconnected(&format!("{device_reason}: {words}"), &device_reason, clock::now());
    }

    /// Lets time pass without a connection; commands are answered all the same. `None` means to stop.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let mut end = pin!(sleep(pause));
        loop {
            self.observe().await?;
            tokio::select! {
                // Cancel-safe: the same sleep goes on in the next round.
                () = &mut end => return Some(()),
                // Cancel-safe: a command stays in the queue until it is received.
                command = self.port.commands.recv() => self.state.handle_command(&command?, clock::now()),
                // Cancel-safe: a token stays cancelled.
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Hands everything seen to the hub, waiting for room. `None` means that the hub is gone.
    ///
    /// The connection is not served meanwhile, so a hub that is behind slows the broker down.
    async fn observe(&mut self) -> Option<()> {
        while let Some(observation) = self.state.poll_observation() {
            self.port.observations.send(observation).await.ok()?;
        }
        Some(())
    }
}

/// The client's side of one connection: what is asked of the library, and what its packet numbers mean.
struct Wire {
    client: AsyncClient,
    /// Filters still to be asked for.
    subscriptions: VecDeque<Vec<Arc<str>>>,
    /// What the library was asked for and has not yet written, in its order.
    requested: VecDeque<Request>,
    /// Subscriptions that the broker has not answered, by packet number.
    subscribing: HashMap<u16, Vec<Arc<str>>>,
    /// Messages that the broker has not acknowledged, by packet number.
    publishing: HashMap<u16, Ticket>,
    /// A message whose number is still taken by an older one, which the library holds back.
    held: Option<(u16, Ticket, u8)>,
}

enum Request {
    Publish(Ticket, u8),
    Subscribe(Vec<Arc<str>>),
}

impl Wire {
    fn new(client: AsyncClient) -> Self {
        Self {
            client,
            subscriptions: VecDeque::new(),
            requested: VecDeque::new(),
            subscribing: HashMap::new(),
            publishing: HashMap::new(),
            held: None,
        }
    }

    fn subscribe(&mut self, filters: &[Arc<str>]) {
        self.subscriptions = filters.chunks(FILTERS_AT_ONCE).map(<[_]>::to_vec).collect();
    }

    /// Asks the library for as much as it has room for. Its queue cannot be full here: `requested` counts more than
    /// what is in it.
    fn send(&mut self, state: &mut State) {
        while self.requested.len() < REQUESTS {
            let (asked, request) = if let Some(filters) = self.subscriptions.pop_front() {
                let wanted =
                    filters.iter().map(|filter| SubscribeFilter::new(filter.to_string(), QoS::AtLeastOnce));
                (self.client.try_subscribe_many(wanted), Request::Subscribe(filters))
            } else if let Some(Outgoing { ticket, topic, payload, qos, retain }) = state.poll_publish() {
                debug!(%topic, %payload, qos, retain, "publish");
                (
                    self.client.try_publish(topic.as_ref(), level(qos), retain, payload),
                    Request::Publish(ticket, qos),
                )
            } else {
                return;
            };
            match asked {
                Ok(()) => self.requested.push_back(request),
                // Topics and filters are checked when the routes are built, so this is a fault of ours; the command
                // is settled when its time is over.
                Err(ClientError::Request(_) | ClientError::TryRequest(_)) => warn!("a request was not taken"),
            }
        }
    }

    /// The library has written something.
    fn sent(&mut self, sent: &Sent, state: &mut State) {
        match sent {
            Sent::Publish(number) => {
                let held =
                    self.held.take_if(|(held, _, _)| held == number).map(|(_, ticket, qos)| (ticket, qos));
                if let Some((ticket, qos)) = held.or_else(|| self.requested_publish()) {
                    if qos > 0 {
                        self.publishing.insert(*number, ticket);
                    }
                    state.handle_handed_over(ticket, qos, clock::now());
                }
            }
            Sent::AwaitAck(number) => {
                self.held = self.requested_publish().map(|(ticket, qos)| (*number, ticket, qos));
            }
            Sent::Subscribe(number) => {
                if let Some(Request::Subscribe(filters)) = self.requested.pop_front() {
                    self.subscribing.insert(*number, filters);
                }
            }
            Sent::Unsubscribe(_)
            | Sent::PubAck(_)
            | Sent::PubRec(_)
            | Sent::PubRel(_)
            | Sent::PubComp(_)
            | Sent::PingReq
            | Sent::PingResp
            | Sent::Disconnect => {}
        }
    }

    fn requested_publish(&mut self) -> Option<(Ticket, u8)> {
        match self.requested.pop_front()? {
            Request::Publish(ticket, qos) => Some((ticket, qos)),
            Request::Subscribe(_) => None,
        }
    }

    fn acknowledged(&mut self, number: u16, state: &mut State) {
        if let Some(ticket) = self.publishing.remove(&number) {
            state.handle_acknowledged(ticket, clock::now());
        }
    }

    fn subscribed(&mut self, number: u16, answers: &[SubscribeReasonCode]) {
        for (filter, answer) in self.subscribing.remove(&number).iter().flatten().zip(answers) {
            match answer {
                SubscribeReasonCode::Success(_) => debug!(%filter, "subscribed"),
                SubscribeReasonCode::Failure => warn!(%filter, "the broker refuses the subscription"),
            }
        }
    }
}

fn options(settings: &BrokerSettings) -> MqttOptions {
    // The library joins host and port by a colon, so an IPv6 address needs its brackets.
    let is_bare_v6 = settings.host.contains(':') && !settings.host.starts_with('[');
    let host = if is_bare_v6 { format!("[{}]", settings.host) } else { settings.host.to_string() };
    let mut options = MqttOptions::new(settings.client_id.as_ref(), host, settings.port);
    // The library refuses less than a second by panicking, and the wire has sixteen bits of seconds.
    let keep_alive = settings.keep_alive.as_secs().clamp(1, u64::from(u16::MAX));
    options
        .set_keep_alive(Duration::from_secs(keep_alive))
        .set_clean_session(true)
        .set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET)
        .set_inflight(INFLIGHT);
    if let Some((user, password)) = &settings.login {
        options.set_credentials(user.as_ref(), password.reveal());
    }
    options
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// Sleeps until the moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// What went wrong, in words for people; the library's own are partly the names of its types.
fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => error.to_string(),
        ConnectionError::NetworkTimeout => "no answer in time".to_owned(),
        ConnectionError::FlushTimeout => "it takes no more data".to_owned(),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::Success => "refused without a reason",
            ConnectReturnCode::RefusedProtocolVersion => "it refuses MQTT 3.1.1",
            ConnectReturnCode::BadClientId => "it refuses the client id",
            ConnectReturnCode::ServiceUnavailable => "it is not ready",
            ConnectReturnCode::BadUserNamePassword => "it refuses user name and password",
            ConnectReturnCode::NotAuthorized => {
                "it does not let this client in; check user name and password"
            }
        }
        .to_owned(),
        ConnectionError::NotConnAck(_) => "it does not answer as an MQTT broker".to_owned(),
        ConnectionError::RequestsDone => "the client has ended".to_owned(),
        ConnectionError::MqttState(error) => match error {
            StateError::AwaitPingResp => "it does not answer pings".to_owned(),
            StateError::ConnectionAborted => "it closed the connection".to_owned(),
            StateError::CollisionTimeout => "it does not acknowledge messages".to_owned(),
            StateError::Deserialization(error) => format!("a packet cannot be read or written: {error}"),
            StateError::Unsolicited(_) | StateError::WrongPacket => "it sent a packet out of turn".to_owned(),
            StateError::Io(_) | StateError::InvalidState | StateError::EmptySubscription => error.to_string(),
        },
    }
}

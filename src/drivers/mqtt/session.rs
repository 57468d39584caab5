//! The client's side of one MQTT connection: packet numbers, acknowledgements, keep-alive.
//!
//! Pure: packets of the broker and the passing of time come in with `now`; packets for the broker and events for the
//! driver go out. After each `handle_*`, [`Session::poll_packet`] is drained before it waits until
//! [`Session::poll_timeout`] at the latest. A [`Fault`] ends the connection; a session never outlives its connection.
//!
//! Whether a message is worth sending, and what an acknowledgement means, it does not know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::{Hello, Inbound, LARGEST_PACKET, Message, Outbound, Welcome};

/// Our messages that the broker may owe acknowledgements for; the broker may want fewer. When reached,
/// [`Session::has_room`] says no and messages wait with their senders.
const IN_FLIGHT: u16 = 256;

/// Filters in one SUBSCRIBE. Some brokers take no more than eight.
const FILTERS_AT_ONCE: usize = 8;

/// How long the broker may take to answer a ping: short keep-alives are for who wants to know soon, and ten seconds
/// pass on a mobile link before it is really gone.
const PONG_WITHIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// The broker did what ends a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not take the client.
    #[error("{0}")]
    Refused(String),
    /// It ends the connection.
    #[error("{0}")]
    Goodbye(String),
    /// It has fallen silent.
    #[error("it does not answer pings")]
    Silent,
    /// It does not speak as a broker does.
    #[error("it does not answer as an MQTT broker")]
    Foreign,
}

/// What the driver needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The broker has accepted the connection.
    Connected(Welcome),
    /// A message for us.
    Message(Message),
    /// The broker has our message.
    Acknowledged(T),
    /// The broker refuses our message, for this reason.
    Refused(T, String),
    /// A subscription stands, or is refused for this reason.
    Subscribed(Arc<str>, Result<(), String>),
}

/// One connection's state; `T` names a message to its sender.
#[derive(Debug)]
pub struct Session<T> {
    keep_alive: Duration,
    in_flight: u16,
    largest: u32,
    welcome: bool,
    /// The number that was given out last.
    last: u16,
    /// Messages that are not acknowledged, by number.
    publishing: BTreeMap<u16, T>,
    /// Subscriptions that are not answered, by number.
    subscribing: BTreeMap<u16, Vec<Arc<str>>>,
    /// Numbers under which filters are given back.
    unsubscribing: BTreeSet<u16>,
    /// QoS 2 messages of the broker that it has not released; it keeps no more than it was told in the hello, or
    /// than there are numbers.
    received: BTreeSet<u16>,
    outgoing: VecDeque<Outbound>,
    events: VecDeque<Event<T>>,
    /// When something was last sent, and when something was last received.
    sent: Instant,
    heard: Instant,
    /// By when the answer to a ping must have come.
    pong_by: Option<Instant>,
}

impl<T: Copy> Session<T> {
    /// A connection that begins by saying hello.
    pub fn new(hello: Hello, now: Instant) -> Self {
        Self {
            keep_alive: Duration::from_secs(hello.keep_alive.max(1).into()),
            in_flight: IN_FLIGHT,
            largest: LARGEST_PACKET,
            welcome: false,
            last: 0,
            publishing: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            unsubscribing: BTreeSet::new(),
            received: BTreeSet::new(),
            outgoing: VecDeque::from([Outbound::Connect(Box::new(hello))]),
            events: VecDeque::new(),
            sent: now,
            heard: now,
            pong_by: None,
        }
    }

    /// Whether the broker has accepted the connection.
    pub fn is_welcome(&self) -> bool {
        self.welcome
    }

    /// Largest packet that the broker takes.
    pub fn largest(&self) -> u32 {
        self.largest
    }

    /// Whether a further message can be given to [`Self::publish`].
    pub fn has_room(&self) -> bool {
        self.welcome && self.publishing.len() < usize::from(self.in_flight)
    }

    /// Sends a message. With QoS 0 nothing more is heard of it.
    pub fn publish(&mut self, name: T, message: Message) {
        let number = if message.qos == 0 { 0 } else { self.number() };
        if number != 0 {
            self.publishing.insert(number, name);
        }
        self.outgoing.push_back(Outbound::Publish(number, Box::new(message)));
    }

    /// Asks for subscriptions.
    pub fn subscribe(&mut self, filters: &[(Arc<str>, u8)]) {
        for filters in filters.chunks(FILTERS_AT_ONCE) {
            let number = self.number();
            self.subscribing.insert(number, filters.iter().map(|(filter, _)| Arc::clone(filter)).collect());
            self.outgoing.push_back(Outbound::Subscribe(number, filters.to_vec()));
        }
    }

    /// Gives subscriptions back.
    pub fn unsubscribe(&mut self, filters: &[Arc<str>]) {
        for filters in filters.chunks(FILTERS_AT_ONCE) {
            let number = self.number();
            self.unsubscribing.insert(number);
            self.outgoing.push_back(Outbound::Unsubscribe(number, filters.to_vec()));
        }
    }

    /// Says goodbye, so that the broker does not publish the will.
    pub fn disconnect(&mut self) {
        self.outgoing.push_back(Outbound::Disconnect);
    }

    /// A packet has arrived.
    pub fn handle_packet(&mut self, packet: Inbound, now: Instant) -> Result<(), Fault> {
        self.heard = now;
        self.pong_by = None;
        match packet {
            Inbound::Welcome(told) if !self.welcome => {
                self.welcome = true;
                if let Some(seconds) = told.keep_alive.filter(|seconds| *seconds > 0) {
                    self.keep_alive = Duration::from_secs(seconds.into());
                }
                self.in_flight = told.in_flight.map_or(IN_FLIGHT, |limit| limit.clamp(1, IN_FLIGHT));
                self.largest = told.largest.map_or(LARGEST_PACKET, |largest| largest.min(LARGEST_PACKET));
                self.events.push_back(Event::Connected(told));
            }
            Inbound::Refused(reason) => return Err(Fault::Refused(reason)),
            Inbound::Goodbye(reason) => return Err(Fault::Goodbye(reason)),
            _ if !self.welcome => return Err(Fault::Foreign),
            Inbound::Publish(number, message) => self.message(number, message),
            Inbound::Acknowledged(number, answer) => self.settle(number, answer),
            Inbound::Received(number, Ok(())) => {
                // Also for a number that is not known, so that the broker can forget it (3.1.1, 4.3.3).
                self.outgoing.push_back(Outbound::Release(number));
            }
            Inbound::Received(number, refusal) => self.settle(number, refusal),
            Inbound::Completed(number) => self.settle(number, Ok(())),
            Inbound::Released(number) => {
                self.received.remove(&number);
                self.outgoing.push_back(Outbound::Complete(number));
            }
            Inbound::Subscribed(number, answers) => {
                let filters = self.subscribing.remove(&number).unwrap_or_default();
                let told = filters.into_iter().zip(answers);
                self.events.extend(told.map(|(filter, answer)| Event::Subscribed(filter, answer)));
            }
            Inbound::Unsubscribed(number) => {
                self.unsubscribing.remove(&number);
            }
            Inbound::Welcome(_) => return Err(Fault::Foreign),
            Inbound::Pong | Inbound::Other => {}
        }
        Ok(())
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Fault> {
        if self.pong_by.is_some_and(|by| by <= now) {
            return Err(Fault::Silent);
        }
        if self.welcome && self.pong_by.is_none() && self.ping_at() <= now {
            self.outgoing.push_back(Outbound::Ping);
            self.pong_by = Some(now + self.keep_alive.clamp(PONG_WITHIN.0, PONG_WITHIN.1));
        }
        Ok(())
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.welcome.then(|| self.pong_by.unwrap_or_else(|| self.ping_at()))
    }

    /// The next packet for the broker.
    pub fn poll_packet(&mut self, now: Instant) -> Option<Outbound> {
        let packet = self.outgoing.pop_front()?;
        self.sent = now;
        Some(packet)
    }

    /// The next event for the driver.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }

    /// A ping is due when either side was silent for three quarters of the keep-alive: the broker must hear of us
    /// within it, and we want to hear of the broker even when we have much to say.
    fn ping_at(&self) -> Instant {
        self.sent.min(self.heard) + self.keep_alive * 3 / 4
    }

    fn message(&mut self, number: u16, message: Message) {
        match message.qos {
            0 => {}
            1 => self.outgoing.push_back(Outbound::Acknowledge(number)),
            _ => {
                self.outgoing.push_back(Outbound::Received(number));
                if !self.received.insert(number) {
                    // The broker had not heard that it arrived, and sends it again.
                    return;
                }
            }
        }
        self.events.push_back(Event::Message(message));
    }

    fn settle(&mut self, number: u16, answer: Result<(), String>) {
        let Some(name) = self.publishing.remove(&number) else { return };
        self.events.push_back(match answer {
            Ok(()) => Event::Acknowledged(name),
            Err(reason) => Event::Refused(name, reason),
        });
    }

    /// A number that nothing under way has. There are more numbers than things under way: the messages are bounded,
    /// and so are the filters of a configuration by far.
    fn number(&mut self) -> u16 {
        for _ in 0..u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(1);
            let taken = self.publishing.contains_key(&self.last)
                || self.subscribing.contains_key(&self.last)
                || self.unsubscribing.contains(&self.last);
            if !taken {
                break;
            }
        }
        self.last
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

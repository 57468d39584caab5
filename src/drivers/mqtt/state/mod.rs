//! What a broker's driver knows and decides: presence, readings, and the commands under way.
//!
//! Pure: messages, commands, acknowledgements and the passing of time come in with `now`; observations for the hub
//! and publishes for the broker go out. After each `handle_*` the caller drains [`State::poll_publish`] and
//! [`State::poll_observation`], in this order, before it waits until [`State::poll_timeout`] at the latest.
//!
//! A command is settled exactly once: confirmed when every one of its messages is acknowledged or, where a reply is
//! configured, when the property's own source has reported the written value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::Members;
use super::body::Body;
use super::packet::{Extra, Message};
use super::route::{RouteError, Routes, matches};
use super::station::{Change, Letter, Station};
use super::template::Unwritable;
use super::waiting::Waiting;
use crate::drivers::{CommandId, DriverAction, DriverCommand, Observation, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::Value;

mod members;

pub use self::members::Subscriptions;

/// Commands under way at one broker. A further one is settled as busy: so many unanswered ones mean that the broker
/// does not keep up, and more would only come late.
pub const COMMANDS_IN_FLIGHT: usize = 64;

/// How long the broker may take to acknowledge a message. A broker that is there answers within a round trip.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(10);

/// Largest raw payload that is passed on. These travel to every client and into the history as they are; what is
/// larger is a firmware image or a picture, not a message.
const LARGEST_RAW: usize = 64 << 10;

/// Largest payload that is sent. A packet beyond the library's limit would cost the connection, and with it the
/// commands of everybody else.
const LARGEST_PAYLOAD: usize = 256 << 10;

/// Names a message on its way: its command and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    command: CommandId,
    step: usize,
}

/// A message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Comes back with [`State::handle_acknowledged`] or [`State::handle_refused`].
    pub ticket: Ticket,
    /// Where to.
    pub topic: Arc<str>,
    /// What.
    pub payload: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// What travels beside it with MQTT 5.
    pub extra: Extra,
}

/// The state of one broker link.
#[derive(Debug)]
pub struct State {
    link: Arc<str>,
    gateway: Arc<str>,
    /// By numbers that are never given twice.
    stations: BTreeMap<usize, Station>,
    next_station: usize,
    routes: Routes,
    /// What the broker was asked for on this connection, when that is not what it should be, and what it was asked for
    /// more than once.
    asked: BTreeMap<Arc<str>, u8>,
    resubscribe: bool,
    asked_again: BTreeSet<Arc<str>>,
    up: Option<bool>,
    commands: BTreeMap<CommandId, Command>,
    waiting: Waiting,
    outgoing: VecDeque<Outgoing>,
    observations: VecDeque<Observation>,
}

/// A command under way.
#[derive(Debug)]
struct Command {
    station: usize,
    steps: Vec<Step>,
    /// Written values; a reported one takes the place of the wish.
    values: Vec<(Arc<str>, Value)>,
    /// Whether the broker may have some of it already.
    sent: bool,
    start_by: Instant,
    until: Instant,
}

/// One message of a command.
#[derive(Debug)]
struct Step {
    /// What must come before the step is done; otherwise the acknowledgement does it.
    awaited: Option<Awaited>,
    /// What it reported instead.
    other: Option<Value>,
    done: bool,
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The property's report of the written value.
    Report(usize),
    /// The answer to a call of the function.
    Answer(usize),
}

impl State {
    /// The state for these devices before the first connection, and what their maps say that cannot be used.
    pub fn new(
        link: Arc<str>,
        gateway: &Arc<str>,
        members: &Members,
        now: Now,
    ) -> (Self, Vec<(Arc<str>, RouteError)>) {
        let mut state = Self {
            link,
            gateway: Arc::clone(gateway),
            stations: BTreeMap::new(),
            next_station: 0,
            routes: Routes::default(),
            asked: BTreeMap::new(),
            resubscribe: false,
            asked_again: BTreeSet::new(),
            up: None,
            commands: BTreeMap::new(),
            waiting: Waiting::default(),
            outgoing: VecDeque::new(),
            observations: VecDeque::new(),
        };
        let errors = state.handle_members(members, now);
        (state, errors)
    }

    /// Whether the hub was told that the broker is lost.
    pub fn is_down(&self) -> bool {
        self.up == Some(false)
    }

    /// The broker has accepted the connection.
    pub fn handle_connected(&mut self, now: Now) {
        self.begin_subscriptions();
        if self.up.replace(true) != Some(true) {
            self.observations.push_back(Observation::Link {
                link: Arc::clone(&self.link),
                at: now.wall,
                up: true,
                reason: None,
            });
        }
    }

    /// The broker was lost, or could not be reached; repeating it changes nothing. Whatever may have been sent is
    /// unknown now, the rest was not sent: messages never outlive their connection, so that nothing is switched
    /// minutes after its client was told that the result is unknown.
    pub fn handle_disconnected(&mut self, link_reason: &str, device_reason: &str, now: Now) {
        if self.up.replace(false) == Some(false) {
            return;
        }
        self.settle_all(&Outcome::Offline, now);
        self.observations.push_back(Observation::Link {
            link: Arc::clone(&self.link),
            at: now.wall,
            up: false,
            reason: Some(link_reason.into()),
        });
        for station in self.stations.values_mut() {
            let change = station.lose(device_reason);
            // The log has one line for the broker, not one for each device.
            observe(&mut self.observations, station, change, now.wall);
        }
    }

    /// The driver stops: every command gets its outcome.
    pub fn handle_stop(&mut self, now: Now) {
        self.settle_all(&Outcome::Busy, now);
    }

    /// A message arrived.
    pub fn handle_message(&mut self, message: &Message, now: Now) {
        let (topic, retained) = (message.topic.as_ref(), message.retain);
        let body = Body::new(&message.payload);
        let mut reports = Vec::new();
        let mut answers = Vec::new();
        let replayed = retained && self.asked_again.iter().any(|filter| matches(filter, topic));
        for feed in self.routes.feeds(topic) {
            let Some(station) = self.stations.get_mut(&feed.device) else { continue };
            if replayed && station.knows_better() {
                continue;
            }
            let is_own = station.is_own_topic(topic);
            let change = station.hear_availability(feed, &body, retained, now.instant);
            tell(&mut self.observations, station, change, now.wall);
            let samples = station.samples(feed, &body, retained);
            let events = if is_own { station.events(feed, &body, retained) } else { Vec::new() };
            let update = if is_own { station.update(feed, &body, retained) } else { None };
            let is_raw = is_own && feed.raw.iter().any(|gate| gate.lets(&body, retained));
            if is_own && (!samples.is_empty() || !events.is_empty() || update.is_some() || is_raw) {
                let change = station.hear(retained, now.instant);
                tell(&mut self.observations, station, change, now.wall);
            }
            let (device, at) = (|| Arc::clone(&station.device), now.wall);
            if !samples.is_empty() {
                if is_own {
                    reports.push((feed.device, samples.clone()));
                }
                self.observations.push_back(Observation::Values { device: device(), at, values: samples });
            }
            let events = events.into_iter().map(|(event, params)| Observation::Event {
                device: device(),
                at,
                event,
                params,
            });
            self.observations.extend(events);
            let update = update.map(|(step, detail)| Observation::Ota { device: device(), at, step, detail });
            self.observations.extend(update);
            if is_raw {
                self.observations.extend(raw_publish(station, topic, &message.payload, at));
            }
            // One message answers one call: the oldest that it fits.
            let answered =
                self.commands.iter().filter(|(_, command)| command.station == feed.device && command.sent);
            let answered = answered.filter_map(|(id, command)| {
                let waits = |step: &&Step| !step.done;
                let Some(Awaited::Answer(function)) = command.steps.iter().find(waits)?.awaited else {
                    return None;
                };
                let fits = |reply: &&super::feed::CallReply| {
                    reply.function == function && reply.answers(&body, message, id.0)
                };
                let reply = feed.replies.iter().find(fits)?;
                Some((*id, station.outcome(reply, &body)))
            });
            answers.extend(answered.take(1));
        }
        for (station, samples) in reports {
            self.compare(station, &samples, now);
        }
        for (id, outcome) in answers {
            if self.commands.remove(&id).is_some() {
                self.settled(id, outcome, now);
            }
        }
    }

    /// The hub wants something done.
    pub fn handle_command(&mut self, command: &DriverCommand, now: Now) {
        self.admit(command, true, now);
    }

    /// Begins a command, or lets it wait until its property may be written again.
    fn admit(&mut self, command: &DriverCommand, fresh: bool, now: Now) {
        let prepared = self.prepare(command, now).and_then(|(begun, messages)| {
            let limits = self.stations.get(&begun.station).map(|station| &station.limits);
            let admit = |limits| self.waiting.admit(limits, command, fresh, now.instant);
            Ok((limits.map(admit).transpose()?, begun, messages))
        });
        match prepared {
            Ok((admitted, begun, messages)) => {
                let begins = admitted.as_ref().is_none_or(|admitted| admitted.now);
                for (older, property) in admitted.into_iter().flat_map(|admitted| admitted.overtaken) {
                    self.settled(older, Outcome::Rejected(Rejection::Superseded(property)), now);
                }
                if begins {
                    self.commands.insert(command.id, begun);
                    self.outgoing.extend(messages);
                    self.observations.push_back(Observation::Accepted { command: command.id });
                }
            }
            Err(outcome) => self.settled(command.id, outcome, now),
        }
    }

    /// The broker has the message or, with QoS 0, the connection has taken it over.
    pub fn handle_acknowledged(&mut self, ticket: Ticket, now: Now) {
        let Some(command) = self.commands.get_mut(&ticket.command) else { return };
        if let Some(step) = command.steps.get_mut(ticket.step) {
            step.done |= step.awaited.is_none();
        }
        self.confirm_if_done(ticket.command, now);
    }

    /// The broker refuses the message, for this reason. What is left of its command is not sent.
    pub fn handle_refused(&mut self, ticket: Ticket, reason: &str, now: Now) {
        if self.commands.remove(&ticket.command).is_some() {
            self.outgoing.retain(|message| message.ticket.command != ticket.command);
            self.settled(
                ticket.command,
                by_device(&format!("the broker refuses the message: {reason}")),
                now,
            );
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<_> = self
            .commands
            .iter()
            .filter(|(_, command)| command.deadline() <= now.instant)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(command) = self.commands.remove(&id) {
                self.outgoing.retain(|message| message.ticket.command != id);
                let outcome = command.overdue();
                self.settled(id, outcome, now);
            }
        }
        for command in self.waiting.due(now.instant) {
            self.admit(&command, false, now);
        }
        for station in self.stations.values_mut() {
            let change = station.check_silence(now.instant);
            tell(&mut self.observations, station, change, now.wall);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let commands = self.commands.values().map(Command::deadline);
        let silences = self.stations.values().filter_map(Station::silence_deadline);
        commands.chain(silences).chain(self.waiting.timeout()).min()
    }

    /// The next message for the broker; from here on it counts as sent.
    pub fn poll_publish(&mut self) -> Option<Outgoing> {
        let message = self.outgoing.pop_front()?;
        if let Some(command) = self.commands.get_mut(&message.ticket.command) {
            command.sent = true;
        }
        Some(message)
    }

    /// The next observation for the hub.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.observations.pop_front()
    }

    /// The command as it will be tracked and its messages, or why it is not begun.
    fn prepare(&self, command: &DriverCommand, now: Now) -> Result<(Command, Vec<Outgoing>), Outcome> {
        if command.deadline <= now.instant || self.commands.len() + self.waiting.len() >= COMMANDS_IN_FLIGHT {
            return Err(Outcome::Busy);
        }
        let found = self.stations.iter().find(|(_, station)| station.device.id == command.device.id);
        let (&at, station) = found
            .ok_or_else(|| Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&command.device.id))))?;
        if self.up != Some(true) || !station.may_be_there() {
            return Err(Outcome::Offline);
        }
        let mut begun = Command {
            station: at,
            steps: Vec::new(),
            values: Vec::new(),
            sent: false,
            start_by: command.deadline,
            until: now.instant,
        };
        let mut messages = Vec::new();
        let mut wait = Duration::ZERO;
        let mut add = |(letter, payload): (&Letter, String), awaited: Option<(Awaited, Duration)>| {
            let ticket = Ticket { command: command.id, step: begun.steps.len() };
            begun.steps.push(Step { awaited: awaited.map(|(what, _)| what), other: None, done: false });
            wait = wait.max(awaited.map_or(ACKNOWLEDGE_WITHIN, |(_, time)| time));
            let extra = Extra { user: letter.user.clone(), ..Extra::default() };
            let (topic, qos, retain) = (Arc::clone(&letter.topic), letter.qos, letter.retain);
            messages.push(Outgoing { ticket, topic, payload, qos, retain, extra });
        };
        match &command.action {
            // The hub answers reads of such links from its own state; asked all the same, the honest answer is no.
            DriverAction::Read(_) => return Err(by_device("it reports by itself and cannot be asked")),
            DriverAction::Write(values) => {
                for (property, value) in values {
                    let id = station.property_id(*property);
                    let written = station
                        .write(*property, value, command.id.0)
                        .ok_or(Outcome::Rejected(Rejection::ReadOnly(id)))?;
                    let written = written.map_err(|error| unwritable(&error))?;
                    let awaited = written.0.reply.map(|time| (Awaited::Report(*property), time));
                    add(written, awaited);
                }
                begun.values =
                    values.iter().map(|(at, value)| (station.property_id(*at), value.clone())).collect();
            }
            DriverAction::Invoke { function, inputs } => {
                let called = station
                    .call(*function, inputs, command.id.0)
                    .ok_or_else(|| by_device("the function is not bound to a topic"))?;
                let (call, payload) = called.map_err(|error| unwritable(&error))?;
                let answer = call.answer.as_ref();
                // Without an answer the acknowledgement settles it: no property's report could.
                let awaited = answer.map(|wait| (Awaited::Answer(*function), wait.timeout));
                add((&call.letter, payload), awaited);
                let response_topic = answer.and_then(|wait| wait.response_topic.clone());
                if let Some(message) = messages.last_mut().filter(|_| response_topic.is_some()) {
                    message.extra.response_topic = response_topic;
                    message.extra.correlation = Some(command.id.0.to_string().into());
                }
            }
        }
        if messages.iter().any(|message| message.payload.len() > LARGEST_PAYLOAD) {
            return Err(by_device("the message would be too large"));
        }
        if begun.steps.is_empty() {
            return Err(Outcome::Rejected(Rejection::Empty));
        }
        begun.until = now.instant + wait;
        Ok((begun, messages))
    }

    /// Holds a device's report against the values that are awaited of it.
    fn compare(&mut self, at: usize, samples: &[(usize, Sample)], now: Now) {
        let Some(station) = self.stations.get(&at) else { return };
        let mut touched = Vec::new();
        for (id, command) in
            self.commands.iter_mut().filter(|(_, command)| command.station == at && command.sent)
        {
            for (step, (_, value)) in
                command.steps.iter_mut().zip(&mut command.values).filter(|(step, _)| !step.done)
            {
                let Some(Awaited::Report(property)) = step.awaited else { continue };
                let reported =
                    samples.iter().find(|(reported, _)| *reported == property).map(|(_, sample)| sample);
                let (Some(Sample::Value(reported)), Some(form)) = (reported, station.form(property)) else {
                    continue;
                };
                if form.same(value, reported) {
                    value.clone_from(reported);
                    step.done = true;
                    touched.push(*id);
                } else {
                    step.other = Some(reported.clone());
                }
            }
        }
        for id in touched {
            self.confirm_if_done(id, now);
        }
    }

    fn confirm_if_done(&mut self, id: CommandId, now: Now) {
        if !self.commands.get(&id).is_some_and(|command| command.steps.iter().all(|step| step.done)) {
            return;
        }
        if let Some(command) = self.commands.remove(&id) {
            self.settled(id, Outcome::Confirmed { values: command.values, outputs: Vec::new() }, now);
        }
    }

    /// Settles what is under way: unknown where it may have been sent, else as given.
    fn settle_all(&mut self, unsent: &Outcome, now: Now) {
        self.outgoing.clear();
        for id in self.waiting.take() {
            self.settled(id, unsent.clone(), now);
        }
        for (id, command) in std::mem::take(&mut self.commands) {
            let outcome = if command.sent { Outcome::TimedOut } else { unsent.clone() };
            self.settled(id, outcome, now);
        }
    }

    fn settled(&mut self, command: CommandId, outcome: Outcome, now: Now) {
        self.observations.push_back(Observation::Settled { command, at: now.wall, outcome });
    }
}

impl Command {
    fn deadline(&self) -> Instant {
        if self.sent { self.until } else { self.until.min(self.start_by) }
    }

    /// What became of a command whose time is over.
    fn overdue(&self) -> Outcome {
        if !self.sent {
            return Outcome::Busy;
        }
        let contradicted = self.steps.iter().zip(&self.values).filter(|(step, _)| !step.done);
        let mismatch = contradicted.filter_map(|(step, (id, expected))| {
            let found = step.other.clone()?;
            Some(Rejection::Mismatch { id: Arc::clone(id), expected: expected.clone(), found })
        });
        // What the device said outweighs what it did not say about another value of the same self.
        mismatch.map(Outcome::Rejected).next().unwrap_or(Outcome::TimedOut)
    }
}

/// Says a change of presence to the log and to the hub.
fn tell(observations: &mut VecDeque<Observation>, station: &Station, change: Option<Change>, at: UnixMillis) {
    match &change {
        Some(Change::Online) => info!(device = %station.device.id, "device online"),
        Some(Change::Offline(reason)) => warn!(device = %station.device.id, %reason, "device offline"),
        None => {}
    }
    observe(observations, station, change, at);
}

fn observe(
    observations: &mut VecDeque<Observation>,
    station: &Station,
    change: Option<Change>,
    at: UnixMillis,
) {
    let (online, reason) = match change {
        Some(Change::Online) => (true, None),
        Some(Change::Offline(reason)) => (false, Some(reason)),
        None => return,
    };
    observations.push_back(Observation::Presence { device: Arc::clone(&station.device), at, online, reason });
}

fn raw_publish(station: &Station, topic: &str, payload: &[u8], at: UnixMillis) -> Option<Observation> {
    if payload.len() > LARGEST_RAW {
        debug!(device = %station.device.id, topic, bytes = payload.len(), "a raw message is too large to pass on");
        return None;
    }
    let payload = String::from_utf8_lossy(payload).as_ref().into();
    Some(Observation::Publish { device: Arc::clone(&station.device), at, topic: topic.into(), payload })
}

fn by_device(words: &str) -> Outcome {
    Outcome::Rejected(Rejection::ByDevice(words.to_owned()))
}

fn unwritable(error: &Unwritable) -> Outcome {
    by_device(&error.to_string())
}

#[cfg(test)]
mod tests;

//! What a broker's driver knows and decides: presence, readings, and the commands under way.
//!
//! Pure: messages, commands, acknowledgements and the passing of time come in with `now`; observations for the hub
//! and publishes for the broker go out. After each `handle_*` the caller drains [`State::poll_publish`] and
//! [`State::poll_observation`], in this order, before it waits until [`State::poll_timeout`] at the latest.
//!
//! A command is settled exactly once: confirmed when every one of its messages is acknowledged or, where a reply is
//! configured, when the property's own source has reported the written value. A read is answered by the readings that
//! the request brings, and one request answers all who ask meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::Members;
use super::body::Body;
use super::feed::{CallReply, Subject};
use super::ledger::{Awaited, COMMANDS_IN_FLIGHT, Command, Ledger, Step};
use super::packet::Message;
use super::plan::Plan;
pub use super::plan::{Outgoing, Ticket};
use super::route::{RouteError, Routes, matches};
use super::station::{Change, Station, Verdict};
use super::template::Unwritable;
use super::waiting::{Admitted, Waiting};
use crate::drivers::{CommandId, DriverAction, DriverCommand, Observation, Sample};
use crate::meters::Dropped;
use crate::model::command::{Outcome, Rejection};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::Value;

mod announced;
mod found;
mod members;

use self::announced::Announcements;
pub use self::found::Announcement;
use self::found::Discovery;
pub(super) use self::found::Origin;
pub use self::members::Subscriptions;

/// Largest raw payload that is passed on. These travel to every client and into the history as they are; what is
/// larger is a firmware image or a picture, not a message.
const LARGEST_RAW: usize = 64 << 10;

/// Largest payload that is sent. A packet beyond the library's limit would cost the connection, and with it the
/// commands of everybody else.
const LARGEST_PAYLOAD: usize = 256 << 10;

/// The state of one broker link.
#[derive(Debug)]
pub struct State {
    link: Arc<str>,
    gateway: Arc<str>,
    /// By numbers that are never given twice.
    stations: BTreeMap<usize, Station>,
    next_station: usize,
    routes: Routes,
    discovery: Discovery,
    announcements: Announcements,
    /// Counts the devices that come together.
    joining: u64,
    /// What the broker was asked for on this connection, when that is not what it should be, and what it was asked for
    /// more than once.
    asked: BTreeMap<Arc<str>, u8>,
    resubscribe: bool,
    asked_again: BTreeSet<Arc<str>>,
    up: Option<bool>,
    ledger: Ledger,
    waiting: Waiting,
    outgoing: VecDeque<Outgoing>,
    observations: VecDeque<Observation>,
    dropped: [u64; Dropped::ALL.len()],
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
            discovery: Discovery::default(),
            announcements: Announcements::default(),
            joining: 0,
            asked: BTreeMap::new(),
            resubscribe: false,
            asked_again: BTreeSet::new(),
            up: None,
            ledger: Ledger::default(),
            waiting: Waiting::default(),
            outgoing: VecDeque::new(),
            observations: VecDeque::new(),
            dropped: Default::default(),
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
        self.begin_subscriptions(now.instant);
        if self.up.replace(true) != Some(true) {
            self.observations.push_back(Observation::Link {
                link: Arc::clone(&self.link),
                at: now.wall,
                up: true,
                reason: None,
            });
            // As at the first start: what was told of them meanwhile was the broker's fault.
            for device in self.stations.values_mut().filter_map(Station::doubt) {
                self.observations.push_back(Observation::Doubt { device });
            }
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
        let (topic, retained, at) = (message.topic.as_ref(), message.retain, now.wall);
        let body = Body::of(message);
        let announces = self.announcement(message, now);
        self.discover(message, &body, now);
        let (mut used, mut unreadable, mut too_large) = (false, false, false);
        let (mut reports, mut answers, mut known) = (Vec::new(), Vec::new(), Vec::new());
        let replayed = retained && self.asked_again.iter().any(|filter| matches(filter, topic));
        for feed in self.routes.feeds(topic) {
            let Some(station) = self.stations.get_mut(&feed.device) else { continue };
            let is_own = station.is_own_topic(topic);
            // What the gateway itself has said is of no use, and no loss.
            used |= !is_own || feed.says_presence(&body, retained);
            let was_unsure = station.unsure_until(now.instant).is_some();
            let change = station.hear_availability(feed, &body, retained, now.instant);
            tell(&mut self.observations, station, change, at);
            // What is sent again for the sake of those that came last may be older than what the others know.
            if replayed && station.joined + 1 < self.joining && station.is_heard() {
                used = true;
                continue;
            }
            let samples = station.samples(feed, &body, retained);
            unreadable |= samples.iter().any(|(_, sample)| matches!(sample, Sample::Unreadable(_)));
            let events = if is_own { station.events(feed, &body, retained) } else { Vec::new() };
            let progress = if is_own { feed.progress(&body, retained) } else { None };
            let is_raw = is_own && feed.raw.iter().any(|gate| gate.lets(&body, retained));
            let says = !samples.is_empty() || !events.is_empty() || progress.is_some() || is_raw;
            used |= says;
            let update = progress.and_then(|told| station.update(told));
            if is_own && says {
                let change = station.hear(retained, now.instant);
                tell(&mut self.observations, station, change, at);
            }
            let is_known = was_unsure && station.unsure_until(now.instant).is_none();
            known.extend(is_known.then(|| Arc::clone(&station.device.id)));
            let tells = !samples.is_empty();
            let device = || Arc::clone(&station.device);
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
                let raw = raw_publish(station, topic, &message.payload, at);
                too_large |= raw.is_none();
                self.observations.extend(raw);
            }
            // One message answers one request: the oldest that it fits.
            let answered = self.ledger.unanswered(feed.device).find_map(|(number, subject)| {
                let fits =
                    |reply: &&CallReply| reply.subject == subject && reply.answers(&body, message, number);
                Some((number, feed.replies.iter().find(fits)?))
            });
            if let Some((number, reply)) = answered {
                used = true;
                answers.push((feed.device, number, station.verdict(reply, &body), tells));
            }
        }
        let dropped = [
            (Dropped::Unreadable, unreadable),
            (Dropped::TooLarge, too_large),
            // An empty message only tells that the broker keeps nothing any more.
            (Dropped::Unmatched, !used && !announces && !body.is_empty()),
        ];
        if let Some((reason, _)) = dropped.into_iter().find(|(_, is_so)| *is_so) {
            self.drop_one(reason);
        }
        self.go_on(&known, now);
        for (station, samples) in reports {
            self.compare(station, &samples, retained, now);
        }
        for (station, number, verdict, tells) in answers {
            self.answered(station, number, verdict, tells, now);
        }
    }

    /// Something is known of these devices now: what waited for it goes on.
    fn go_on(&mut self, known: &[Arc<str>], now: Now) {
        for command in known.iter().flat_map(|device| self.waiting.of_device(device)).collect::<Vec<_>>() {
            self.admit(&command, false, now);
        }
    }

    /// The hub wants something done.
    pub fn handle_command(&mut self, command: &DriverCommand, now: Now) {
        self.admit(command, true, now);
    }

    /// Begins a command, or lets it wait until its property may be written again, or something is known of its device.
    fn admit(&mut self, command: &DriverCommand, fresh: bool, now: Now) {
        let prepared = self.prepare(command, now).and_then(|plan| {
            let Some(station) = self.stations.get(&plan.station) else { return Ok((None, plan)) };
            // Nobody but the broker would say what became of it. It leaves the broker time for that.
            let unsure = station.unsure_until(now.instant).filter(|_| fresh && plan.trusts_broker());
            if let Some(until) = unsure {
                let half = now.instant + command.deadline.saturating_duration_since(now.instant) / 2;
                let overtaken = self.waiting.hold(command, until.min(half));
                return Ok((Some(Admitted { now: false, overtaken }), plan));
            }
            let admitted = self.waiting.admit(&station.limits, command, fresh, now.instant)?;
            Ok((Some(admitted), plan))
        });
        match prepared {
            Ok((admitted, plan)) => {
                let begins = admitted.as_ref().is_none_or(|admitted| admitted.now);
                for (older, property) in admitted.into_iter().flat_map(|admitted| admitted.overtaken) {
                    self.settled(older, Outcome::Rejected(Rejection::Superseded(property)), now);
                }
                if begins {
                    self.outgoing.extend(plan.begin(command.deadline, &mut self.ledger));
                    self.observations.push_back(Observation::Accepted { command: command.id });
                }
            }
            Err(outcome) => {
                // What it shared with others goes on without it.
                self.ledger.leave(command.id);
                self.settled(command.id, outcome, now);
            }
        }
    }

    /// The broker has the message or, with QoS 0, the connection has taken it over.
    pub fn handle_acknowledged(&mut self, ticket: Ticket, now: Now) {
        for id in self.ledger.acknowledged(ticket.0) {
            self.confirm_if_done(id, now);
        }
    }

    /// The broker refuses the message, for this reason. What is left of its command is not sent.
    pub fn handle_refused(&mut self, ticket: Ticket, reason: &str, now: Now) {
        let outcome = by_device(&format!("the broker refuses the message: {reason}"));
        self.give_up(&self.ledger.served(ticket.0), &outcome, now);
    }

    /// The broker takes no message of this size; it was not sent.
    pub fn handle_too_large(&mut self, ticket: Ticket, largest: u32, now: Now) {
        self.drop_one(Dropped::TooLarge);
        let outcome = by_device(&format!("the broker takes no message of more than {largest} bytes"));
        self.give_up(&self.ledger.served(ticket.0), &outcome, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        for id in self.ledger.overdue(now.instant) {
            if let Some(command) = self.take(id) {
                self.settled(id, command.overdue(), now);
            }
        }
        for command in self.waiting.due(now.instant) {
            self.admit(&command, false, now);
        }
        for station in self.stations.values_mut() {
            let change = station.check_silence(now.instant);
            tell(&mut self.observations, station, change, now.wall);
        }
        self.forget_silent(now);
        self.put_together(now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silences = self.stations.values().filter_map(Station::silence_deadline);
        let forgotten = self.stations.values().filter_map(Station::forget_deadline);
        let forgotten = forgotten.filter(|_| self.up == Some(true));
        let commands = self.ledger.deadline().into_iter().chain(self.waiting.timeout());
        commands.chain(silences).chain(forgotten).chain(self.announcements.due()).min()
    }

    /// The next message for the broker; from here on it counts as sent.
    pub fn poll_publish(&mut self) -> Option<Outgoing> {
        let message = self.outgoing.pop_front()?;
        self.ledger.sent(message.ticket.0);
        Some(message)
    }

    /// How many messages were dropped since the last call, by the place of the reason in [`Dropped::ALL`].
    pub fn take_dropped(&mut self) -> [u64; Dropped::ALL.len()] {
        std::mem::take(&mut self.dropped)
    }

    /// The next observation for the hub.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.observations.pop_front()
    }

    /// How a command is begun, or why it is not.
    fn prepare(&mut self, command: &DriverCommand, now: Now) -> Result<Plan, Outcome> {
        if command.deadline <= now.instant {
            return Err(Outcome::Busy);
        }
        if self.ledger.len() + self.waiting.len() >= COMMANDS_IN_FLIGHT {
            self.drop_one(Dropped::QueueFull);
            return Err(Outcome::Busy);
        }
        let found = self.stations.iter().find(|(_, station)| station.device.id == command.device.id);
        let (&at, station) = found
            .ok_or_else(|| Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&command.device.id))))?;
        if self.up != Some(true) || !station.may_be_there() {
            return Err(Outcome::Offline);
        }
        let mut plan = Plan::new(command.id, at, now);
        match &command.action {
            DriverAction::Read(properties) => {
                for property in properties {
                    let read = station
                        .read_of(*property)
                        .ok_or_else(|| by_device("it reports by itself and cannot be asked"))?;
                    plan.read(station, *property, read, &mut self.ledger)?;
                }
            }
            DriverAction::Write(values) => {
                for (property, value) in values {
                    let id = station.property_id(*property);
                    let number = self.ledger.number(command.id);
                    let written = station
                        .write(*property, value, number)
                        .ok_or(Outcome::Rejected(Rejection::ReadOnly(Arc::clone(&id))))?;
                    let (letter, payload) = written.map_err(|error| unwritable(&error))?;
                    let awaited = letter.wait.as_ref().map(|_| Awaited::Report);
                    let step = Step::new(Some((*property, id)), Some(value.clone()), awaited);
                    plan.send(letter, payload, number, Subject::Write(*property), step);
                }
            }
            DriverAction::Invoke { function, inputs } => {
                let number = self.ledger.number(command.id);
                let called = station
                    .call(*function, inputs, number)
                    .ok_or_else(|| by_device("the function is not bound to a topic"))?;
                let (letter, payload) = called.map_err(|error| unwritable(&error))?;
                // Without an answer the acknowledgement settles it: no property's report could.
                let awaited = letter.wait.as_ref().map(|_| Awaited::Answer);
                plan.send(
                    letter,
                    payload,
                    number,
                    Subject::Function(*function),
                    Step::new(None, None, awaited),
                );
            }
        }
        if plan.messages.iter().any(|message| message.payload.len() > LARGEST_PAYLOAD) {
            self.drop_one(Dropped::TooLarge);
            return Err(by_device("the message would be too large"));
        }
        if plan.steps.is_empty() {
            return Err(Outcome::Rejected(Rejection::Empty));
        }
        Ok(plan)
    }

    /// Holds a device's report against what is awaited of it.
    fn compare(&mut self, at: usize, samples: &[(usize, Sample)], retained: bool, now: Now) {
        let Some(station) = self.stations.get_mut(&at) else { return };
        station.reported(samples);
        let same = |property, written: &Value, read: &Value| {
            station.form(property).is_some_and(|form| form.same(written, read))
        };
        for id in self.ledger.reported(at, samples, retained, same) {
            self.confirm_if_done(id, now);
        }
    }

    /// The device has answered a message: with a refusal, or with what the function gives. `tells`: with readings too.
    fn answered(&mut self, at: usize, number: u64, verdict: Verdict, tells: bool, now: Now) {
        match verdict {
            Verdict::Refused(words) => {
                self.give_up(&self.ledger.served(number), &by_device(&words), now);
            }
            Verdict::Outputs(outputs) => {
                let outcome = Outcome::Confirmed { values: Vec::new(), outputs };
                self.give_up(&self.ledger.served(number), &outcome, now);
            }
            Verdict::Done => {
                let Some(station) = self.stations.get(&at) else { return };
                let is_so = |property, value: Option<&Value>| station.is_so(property, value);
                for id in self.ledger.answered(number, tells, is_so) {
                    self.confirm_if_done(id, now);
                }
            }
        }
    }

    fn confirm_if_done(&mut self, id: CommandId, now: Now) {
        if let Some(command) = self.ledger.take_done(id) {
            self.forget_unwanted();
            self.settled(id, command.outcome(), now);
        }
    }

    /// Settles commands, whatever is left of them.
    fn give_up(&mut self, ids: &[CommandId], outcome: &Outcome, now: Now) {
        for id in ids {
            if self.take(*id).is_some() {
                self.settled(*id, outcome.clone(), now);
            }
        }
    }

    fn take(&mut self, id: CommandId) -> Option<Command> {
        let command = self.ledger.take(id)?;
        self.forget_unwanted();
        Some(command)
    }

    /// Messages that nobody wants any more are not sent.
    fn forget_unwanted(&mut self) {
        self.outgoing.retain(|message| self.ledger.wants(message.ticket.0));
    }

    fn drop_one(&mut self, reason: Dropped) {
        for (known, count) in Dropped::ALL.iter().zip(&mut self.dropped) {
            *count += u64::from(*known == reason);
        }
    }

    /// Settles what is under way: unknown where it may have been sent, else as given.
    fn settle_all(&mut self, unsent: &Outcome, now: Now) {
        self.outgoing.clear();
        for id in self.waiting.take() {
            self.settled(id, unsent.clone(), now);
        }
        for (id, command) in self.ledger.take_all() {
            let outcome = if command.sent { Outcome::TimedOut } else { unsent.clone() };
            self.settled(id, outcome, now);
        }
    }

    fn settled(&mut self, command: CommandId, outcome: Outcome, now: Now) {
        self.observations.push_back(Observation::Settled { command, at: now.wall, outcome });
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

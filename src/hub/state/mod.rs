//! The hub's state machine: observations, commands and questions in, numbered device messages, outcomes and
//! answers out.
//!
//! The invariant that its owner keeps: after every call that takes something in, call [`HubState::poll`] until it
//! returns `None`, carry out what it gives in that order, and only then wait or take the next thing in.
//!
//! It promises that message numbers rise by one, that every submitted command of an attached session gets exactly
//! one outcome, and that a session receives one copy of what its interests admit and its client may see. It knows
//! no queue, no task and no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dialects::Token;
use crate::drivers::{CommandId, Observation};
use crate::hub::client_alarms::ClientAlarms;
use crate::hub::commands::Commands;
use crate::hub::device::{DeviceState, Devices};
use crate::hub::documents::Documents;
use crate::hub::groups::Groups;
use crate::hub::handle::{SessionKey, SessionReply};
use crate::hub::index::Index;
use crate::hub::journal::Journal;
use crate::hub::leases::Leases;
use crate::hub::links::Links;
use crate::hub::outcomes::Outcomes;
use crate::hub::revive::revive;
use crate::hub::roster::Roster;
use crate::model::client::{Client, Origin};
use crate::model::command::Outcome;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::history::{AlarmAnswer, AlarmAsk, DocumentAnswer, DocumentAsk};
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::model::time::{Now, UnixMillis};
use crate::store::{Chunk, Fetch, Recovered, Write};

use self::dating::Dating;
use self::sequence::Sequences;
use self::watching::Sessions;

pub use crate::hub::effect::Effect;

mod adopt;
pub(super) mod dating;
mod judging;
mod leasing;
mod orders;
mod sequence;
mod watching;

/// The longest that a client may wait for an outcome. A longer wish is cut to this, so that no client can fill the
/// table of commands for good.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Work that `poll` turns into effects.
#[derive(Debug)]
enum Work {
    Do(Effect),
    /// Offer a message to the groups, each when the fate of the one before is known.
    Share {
        message: Arc<DeviceMessage>,
        device: usize,
    },
}

/// Whether there is a history store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// There is none.
    Nothing,
    /// There is one that could not be opened yet: nobody knows what is in it.
    Closed,
    /// There is one.
    Well,
    /// There is one that cannot write now.
    Badly,
}

/// Everything the hub knows.
#[derive(Debug)]
pub struct HubState {
    roster: Roster,
    /// By slot, like everything that concerns devices.
    devices: Devices,
    links: Links,
    sessions: Sessions,
    index: Index<SessionKey>,
    groups: Groups,
    commands: Commands,
    sequences: Sequences,
    outcomes: Outcomes,
    journal: Journal,
    leases: Leases,
    /// When a report rule of a device wants attention, and the same by device, to find the entry again.
    timers: BTreeSet<(Instant, usize)>,
    armed: BTreeMap<usize, Instant>,
    /// The number of the last message.
    seq: u64,
    dating: Dating,
    /// The last id of a document or an alarm of a client.
    last_id: u64,
    documents: Documents,
    alarms: ClientAlarms,
    keeping: Keeping,
    /// Whether any driver has said anything.
    begun: bool,
    effects: VecDeque<Work>,
    /// The command that the last `poll` gave away. Others are told that it is on its way once it was not refused.
    routed: Option<CommandId>,
    stopping: bool,
}

impl HubState {
    /// Knows every device and link by name, and nothing yet of how they are.
    pub fn new(directory: Arc<Directory>) -> Self {
        let links = Links::new(&directory);
        let roster = Roster::new(directory);
        let mut devices = Devices::default();
        for (slot, device) in roster.devices() {
            devices.insert(slot, DeviceState::new(Arc::clone(device)));
        }
        Self {
            links,
            roster,
            sessions: Sessions::default(),
            index: Index::default(),
            groups: Groups::default(),
            commands: Commands::default(),
            sequences: Sequences::default(),
            outcomes: Outcomes::default(),
            journal: Journal::default(),
            leases: Leases::default(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            devices,
            seq: 0,
            dating: Dating::default(),
            last_id: 0,
            documents: Documents::default(),
            alarms: ClientAlarms::default(),
            keeping: Keeping::Nothing,
            begun: false,
            effects: VecDeque::new(),
            routed: None,
            stopping: false,
        }
    }

    /// A session begins. What a session that is not attached asks for is passed over.
    pub fn attach(&mut self, key: SessionKey) {
        self.sessions.attach(key);
    }

    /// Where a session comes from, for the journal.
    pub fn came_from(&mut self, key: SessionKey, origin: Arc<Origin>) {
        self.journal.came_from(key, origin);
    }

    /// There is a history store, which has this. If it cannot be opened yet, only the number that the next ones are above
    /// counts. To be called before anything else, and messages are given to be stored from then on.
    pub fn begin_with(&mut self, recovered: Recovered, is_open: bool, now: Now) {
        if is_open {
            self.remember(recovered, now);
        } else {
            (self.keeping, self.seq) = (Keeping::Closed, recovered.seq);
        }
    }

    /// This is what the history store has: numbers go on from there. To be called before anything else, or when a store is
    /// opened that could not be at first. Gives how many numbers are passed over.
    pub fn remember(&mut self, recovered: Recovered, now: Now) -> u64 {
        self.announce();
        let late = std::mem::replace(&mut self.keeping, Keeping::Well) == Keeping::Closed;
        let head = self.seq;
        self.seq = self.seq.max(recovered.seq);
        self.last_id = self.last_id.max(recovered.last_id);
        self.groups.restore(&recovered, &self.roster, head, now);
        self.documents.restore(recovered.documents);
        for (slot, rule) in self.alarms.restore(recovered.alarms, &self.roster, now.instant) {
            if let Some(state) = self.devices.get_mut(slot) {
                state.alarm(&rule, true);
            }
        }
        if late {
            self.groups.all(self.seq);
            for (session, collection) in self.documents.tell_all() {
                self.reply(session, SessionReply::DocumentsChanged(collection));
            }
        }
        self.seq - head
    }

    /// A session has ended. Its commands run on. The messages with these numbers were given to it by
    /// [`Effect::Balance`] and it has not written them.
    pub fn detach(&mut self, key: SessionKey, unsent: &[u64], now: Now) {
        self.announce();
        self.sessions.detach(key);
        self.journal.left(key);
        self.index.remove(key);
        self.documents.forget(key);
        self.groups.leave(key, unsent, now);
        self.leases.detached(key, now.instant);
        self.fall_back(now);
    }

    /// A session has written these messages, which were given to it by [`Effect::Balance`].
    pub fn delivered(&mut self, key: SessionKey, messages: &[u64]) {
        self.announce();
        self.groups.delivered(key, messages);
    }

    /// The number of the last message that was made.
    pub fn last_number(&self) -> u64 {
        self.seq
    }

    /// Whether [`HubState::replay`] has something to ask for.
    pub fn backlogged(&self) -> bool {
        self.groups.backlogged()
    }

    /// Gives out what came back, and says what past messages groups want, as many as their members have room for.
    pub fn replay(&mut self, now: Now, room: impl Fn(SessionKey) -> usize) -> Vec<Fetch> {
        self.announce();
        self.groups.replay(self.seq, now, &self.roster, room)
    }

    /// Whether the store cannot write now. While it cannot, clients leave nothing here that they would not find again.
    pub fn store_is(&mut self, troubled: bool) {
        if matches!(self.keeping, Keeping::Well | Keeping::Badly) {
            self.keeping = if troubled { Keeping::Badly } else { Keeping::Well };
        }
    }

    /// Whether clients may leave nothing here now.
    fn refuses(&self) -> bool {
        matches!(self.keeping, Keeping::Badly | Keeping::Closed)
    }

    /// The answer to what [`HubState::replay`] asked for. Devices that are no longer configured are passed over,
    /// and so are properties that their products no longer have.
    pub fn fetched(&mut self, chunk: Chunk) {
        self.announce();
        let Chunk { group, upto, messages, after: _ } = chunk;
        let revive = |stored| revive(&self.roster, stored);
        let messages = messages.into_iter().filter_map(revive).collect();
        self.groups.fetched(&group, upto, messages);
    }

    /// The store was begun anew: gives it everything but the messages.
    pub fn rewrite(&mut self) {
        self.announce();
        let writes: Vec<Write> = self.documents.all().chain(self.alarms.all(&self.roster)).collect();
        self.effects.extend(writes.into_iter().map(|write| Work::Do(Effect::Store(write))));
        self.groups.all(self.seq);
    }

    /// Gives the store what has changed about groups since the last time.
    pub fn checkpoint(&mut self) {
        self.announce();
        self.groups.checkpoint(self.seq);
    }

    /// From now on the session receives what these interests admit and the client may see.
    pub fn watch(&mut self, key: SessionKey, client: &Arc<Client>, interests: Vec<Interest>) {
        self.announce();
        if self.sessions.contains(key) {
            self.index.set(key, self.roster.resolve(client, &interests));
            self.sessions.watch(key, client, interests);
        }
    }

    /// A session asks something.
    #[expect(clippy::needless_pass_by_value, reason = "a request is taken over whole, like all input")]
    pub fn ask(&mut self, key: SessionKey, token: Token, client: Arc<Client>, question: Question, now: Now) {
        self.announce();
        if !self.sessions.contains(key) {
            return;
        }
        match question {
            Question::Snapshot(selector) => {
                let snapshot = self.snapshot(&client, &selector);
                self.answer(key, token, Answer::Snapshot(Arc::new(snapshot)));
            }
            Question::Group(ask) => {
                let answered = self.groups.ask(key, &client, ask, &self.roster, self.seq, now);
                self.answer(key, token, Answer::Group(answered.answer));
                for member in answered.emptied {
                    self.reply(member, SessionReply::GroupEmpty);
                }
            }
            // Who asks here and not the store has none.
            Question::History(_) => self.answer(key, token, Answer::History(Arc::default())),
            Question::Latest(_) => self.answer(key, token, Answer::Latest(Arc::default())),
            Question::Events(_) => self.answer(key, token, Answer::Events(Arc::default())),
            Question::Outcome(message_id) => {
                let found = self.outcomes.find(&client, &message_id, now.instant);
                self.answer(key, token, Answer::Outcome(found));
            }
            Question::Past(_) => {
                self.reply(key, SessionReply::Answer(token, Answer::Past(Arc::default())));
            }
            Question::Documents(ask) if self.refuses() && !matches!(ask, DocumentAsk::List { .. }) => {
                self.answer(key, token, Answer::Documents(DocumentAnswer::Full));
            }
            Question::Alarms(ask) if self.refuses() && !matches!(ask, AlarmAsk::List) => {
                self.answer(key, token, Answer::Alarms(AlarmAnswer::Full));
            }
            Question::Documents(ask) => {
                let asked = self.documents.ask(key, client.rights.write, ask, &mut self.last_id);
                self.answer(key, token, Answer::Documents(asked.answer));
                self.keep(asked.change);
                for (session, collection) in asked.told {
                    self.reply(session, SessionReply::DocumentsChanged(collection));
                }
            }
            Question::Alarms(ask) => {
                let asked = self.alarms.ask(&client, ask, &self.roster, &mut self.last_id);
                self.answer(key, token, Answer::Alarms(asked.answer));
                self.keep(asked.write);
                self.alarm(asked.changes, now.wall);
            }
        }
    }

    /// A driver saw or did something. What concerns a device that is not configured is passed over.
    pub fn observe(&mut self, observation: Observation, now: Now) {
        self.announce();
        self.begin(now.instant);
        match observation {
            Observation::Values { device, at, values } => {
                let at = self.dating.date(at, now);
                let values = self.roster.readings(&device, &values).into_owned();
                let was_online = self.is_online(&device);
                let mut read = Vec::new();
                self.learn(&device, at, |state, facts| {
                    read = state.values(at, values, now.instant, facts);
                });
                // A device that gives readings is there, whether or not its driver says so.
                self.returned(&device, was_online, now.instant);
                self.judge(&device, &read, at, now.instant);
                if let Some(slot) = self.roster.slot_of(&device) {
                    self.interrupt_alarms(slot);
                }
                self.look(&device, &read, now);
            }
            Observation::Presence { device, at, online, reason } => {
                let at = self.dating.date(at, now);
                let was_online = self.is_online(&device);
                self.learn(&device, at, |state, facts| {
                    state.presence(at, online, reason, now.instant, facts);
                });
                self.returned(&device, was_online, now.instant);
                if let (false, Some(slot)) = (online, self.roster.slot_of(&device)) {
                    self.alarms.offline(slot);
                }
            }
            Observation::Doubt { device } => {
                let Some(slot) = self.roster.slot_of(&device) else { return };
                if let Some(state) = self.devices.get_mut(slot) {
                    state.doubt();
                    self.leases.doubted(slot, now.instant);
                }
            }
            Observation::Event { device, at, event, params } => {
                let at = self.dating.date(at, now);
                self.learn(&device, at, |state, facts| state.event(event, params, facts));
            }
            Observation::Publish { device, at, topic, payload } => {
                let at = self.dating.date(at, now);
                self.learn(&device, at, |_, facts| facts.push(Body::Publish { topic, payload }));
            }
            Observation::Ota { device, at, step, detail } => {
                let at = self.dating.date(at, now);
                self.learn(&device, at, |_, facts| facts.push(Body::Ota { step, detail }));
            }
            Observation::Link { link, at, up, reason: _ } => {
                self.links.observe(&link, self.dating.date(at, now), up);
            }
            Observation::Accepted { command } => self.accepted(command),
            Observation::Settled { command, at, outcome } => {
                let at = self.dating.date(at, now);
                if let Some(outcome) = self.step_done(command, outcome, now) {
                    self.settle(command, at, outcome, now.instant);
                }
            }
        }
    }

    /// The link had no room for the command that the last `poll` gave.
    pub fn refused(&mut self, command: CommandId, now: Now) {
        if self.routed == Some(command) {
            self.routed = None;
        }
        if let Some(outcome) = self.step_done(command, Outcome::Busy, now) {
            self.settle(command, now.wall, outcome, now.instant);
        }
    }

    /// A balanced message went to this session, because those before it had no room.
    pub fn served(&mut self, key: SessionKey) {
        self.groups.settle(Some(key));
    }

    /// A balanced message found nobody with room. Whether nothing is lost by that.
    pub fn unserved(&mut self) -> bool {
        self.groups.settle(None)
    }

    /// The time that `timeout` named has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.announce();
        while let Some(command) = self.commands.overdue(now.instant) {
            self.settle(command, now.wall, Outcome::TimedOut, now.instant);
        }
        self.handle_step_timeouts(now);
        self.fall_back(now);
        while let Some((_, slot)) = self.timers.first().filter(|(due, _)| *due <= now.instant).copied() {
            let mut facts = Vec::new();
            if let Some(state) = self.devices.get_mut(slot) {
                state.handle_timeout(now.instant, &mut facts);
            }
            self.publish(slot, now.wall, facts);
            self.arm(slot);
            self.interrupt_alarms(slot);
        }
        let devices = &self.devices;
        let good = |slot: usize, at: usize| devices.get(slot).is_some_and(|state| state.good(at).is_some());
        let changes = self.alarms.handle_timeout(now.instant, good);
        self.alarm(changes, now.wall);
        if self.groups.timeout().is_some_and(|due| due <= now.instant) {
            self.groups.handle_timeout(now.instant, self.seq);
        }
    }

    /// When to call `handle_timeout`.
    pub fn timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let others = [self.commands.timeout(), self.alarms.timeout(), self.groups.timeout()];
        others.into_iter().chain([timer, self.sequences.timeout(), self.leases.timeout()]).flatten().min()
    }

    /// Gives the next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.announce();
        loop {
            if let Some(offer) = self.groups.offer_shared() {
                return Some(offer.into());
            }
            match self.effects.pop_front() {
                Some(Work::Share { message, device }) => self.groups.share(message, device),
                Some(Work::Do(effect)) => {
                    if let Effect::Route { command, .. } = &effect {
                        self.routed = Some(command.id);
                    }
                    return Some(effect);
                }
                None => break,
            }
        }
        if let Some(write) = self.groups.write() {
            return Some(Effect::Store(write));
        }
        self.groups.offer_old(self.seq).map(Effect::from)
    }

    /// The hub is about to end: what is under way has an unknown result, and nothing more is begun.
    pub fn shutdown(&mut self, now: Now) {
        self.announce();
        self.stopping = true;
        self.leases.close();
        while let Some(command) = self.commands.first() {
            self.settle(command, now.wall, Outcome::TimedOut, now.instant);
        }
        self.tell_what_is_owed();
    }

    /// The newest readings of a device for a session that missed some reports, if it still wants them. Carries the
    /// number of the last message.
    pub fn newest(&self, key: SessionKey, device: &str, now: Now) -> Option<Arc<DeviceMessage>> {
        let slot = self.roster.slot(device)?;
        if !self.index.takes(key, slot, Kinds::PROPERTIES) {
            return None;
        }
        let state = self.devices.get(slot)?;
        let body = state.newest()?;
        let message = DeviceMessage::new(self.seq, now.wall, Arc::clone(state.device()), body);
        Some(Arc::new(message.by(self.dating.clock)))
    }

    /// Lets one device's state take something in and publishes what came of it.
    fn learn(
        &mut self,
        device: &Device,
        at: UnixMillis,
        take: impl FnOnce(&mut DeviceState, &mut Vec<Body>),
    ) {
        let Some(slot) = self.roster.slot_of(device) else { return };
        let mut facts = Vec::new();
        if let Some(state) = self.devices.get_mut(slot) {
            take(state, &mut facts);
        }
        self.publish(slot, at, facts);
        self.arm(slot);
    }

    /// Numbers facts and sends each to whom it concerns.
    fn publish(&mut self, slot: usize, at: UnixMillis, facts: Vec<Body>) {
        let Some(device) = self.roster.device(slot) else { return };
        for body in facts {
            self.seq += 1;
            let at = self.dating.number(at);
            let message = DeviceMessage::new(self.seq, at, Arc::clone(device), body);
            let message = Arc::new(message.by(self.dating.clock));
            let kind = message.kind();
            if self.keeping != Keeping::Nothing {
                self.effects.push_back(Work::Do(Effect::Store(Write::message(&message))));
            }
            if !self.groups.is_empty() {
                let message = Arc::clone(&message);
                self.effects.push_back(Work::Share { message, device: slot });
            }
            let sessions = self.index.takers(slot, kind);
            if !sessions.is_empty() {
                self.effects.push_back(Work::Do(Effect::Deliver { sessions, message }));
            }
        }
    }

    /// Keeps the device's entry among the timers in step with its state.
    fn arm(&mut self, slot: usize) {
        let timeout = self.devices.get(slot).and_then(DeviceState::timeout);
        let armed = self.armed.get(&slot).copied();
        if armed != timeout {
            if let Some(old) = self.armed.remove(&slot) {
                self.timers.remove(&(old, slot));
            }
            if let Some(due) = timeout {
                self.armed.insert(slot, due);
                self.timers.insert((due, slot));
            }
        }
    }

    fn snapshot(&self, client: &Client, selector: &Selector) -> Snapshot {
        let wanted = |(_, device): &(usize, &Arc<Device>)| selector.admits(device) && client.sees(device);
        let devices = self.roster.devices().filter(wanted).filter_map(|(slot, _)| self.devices.get(slot));
        Snapshot {
            seq: self.seq,
            devices: devices.map(DeviceState::snapshot).collect(),
            links: self.links.snapshot(),
        }
    }

    /// Gives the store something to keep, if there is one.
    fn keep(&mut self, write: Option<Write>) {
        if let Some(write) = write.filter(|_| self.keeping != Keeping::Nothing) {
            self.effects.push_back(Work::Do(Effect::Store(write)));
        }
    }

    fn outcome(&mut self, session: SessionKey, token: Token, outcome: Arc<Outcome>) {
        self.reply(session, SessionReply::Outcome(token, outcome));
    }

    fn answer(&mut self, session: SessionKey, token: Token, answer: Answer) {
        self.reply(session, SessionReply::Answer(token, answer));
    }

    /// Tells a session, unless it has ended.
    fn reply(&mut self, session: SessionKey, reply: SessionReply) {
        if self.sessions.contains(session) {
            self.effects.push_back(Work::Do(Effect::Reply { session, reply }));
        }
    }
}

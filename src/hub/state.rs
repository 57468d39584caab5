//! The hub's state machine: observations, commands and questions in, numbered device messages, outcomes and
//! answers out.
//!
//! The invariant that its owner keeps: after every call that takes something in, call [`HubState::poll`] until it
//! returns `None`, carry out what it gives in that order, and only then wait or take the next thing in.
//!
//! It promises that message numbers rise by one, that every submitted command of an attached session gets exactly
//! one outcome, and that a session receives one copy of what its interests admit and its client may see. It knows
//! no queue, no task and no clock.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commands::{Commands, InFlight};
use super::device::DeviceState;
use super::groups::Groups;
use super::handle::{SessionKey, SessionReply};
use super::index::{Index, Roster};
use super::links::Links;
use crate::dialects::Token;
use crate::drivers::{CommandId, DriverAction, DriverCommand, Observation};
use crate::model::check::{Checked, check};
use crate::model::client::Client;
use crate::model::command::{Action, Command, Outcome, Rejection};
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, CommandNote, DeviceMessage, Kinds};
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::Value;

/// How much earlier than the hub a driver gives a command up that it has not begun. A driver knows that nothing was
/// sent, so its `Busy` is worth more to the client than the hub's `TimedOut`, which means that nobody knows.
const DRIVERS_WORD: Duration = Duration::from_millis(250);

/// The longest that a client may wait for an outcome. A longer wish is cut to this, so that no client can fill the
/// table of commands for good.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What the hub wants done.
#[derive(Debug)]
pub enum Effect {
    /// Give a device message to these sessions, in this order.
    Deliver {
        /// In ascending order, each once.
        sessions: Arc<[SessionKey]>,
        /// The message.
        message: Arc<DeviceMessage>,
    },
    /// Give a device message to the first of these sessions that has room. If that is not the first one, say so by
    /// [`HubState::served`].
    Balance {
        /// The group that shares the message.
        group: Arc<str>,
        /// Every holder of a matching relation, whose turn it is first.
        candidates: Vec<SessionKey>,
        /// The message.
        message: Arc<DeviceMessage>,
    },
    /// Tell one session something.
    Reply {
        /// Which one.
        session: SessionKey,
        /// What.
        reply: SessionReply,
    },
    /// Hand a command to a link. If it has no room, say so by [`HubState::refused`] before the next `poll`.
    Route {
        /// Id of the bus or broker.
        link: Arc<str>,
        /// The command.
        command: DriverCommand,
    },
}

/// Everything the hub knows.
#[derive(Debug)]
pub struct HubState {
    roster: Roster,
    /// By position, like everything that concerns devices.
    devices: Vec<DeviceState>,
    links: Links,
    sessions: HashSet<SessionKey>,
    index: Index<SessionKey>,
    groups: Groups,
    commands: Commands,
    /// When a report rule of a device wants attention, and the same by device, to find the entry again.
    timers: BTreeSet<(Instant, usize)>,
    armed: Vec<Option<Instant>>,
    /// The number of the last message.
    seq: u64,
    effects: VecDeque<Effect>,
    /// The command that the last `poll` gave away. Others are told that it is on its way once it was not refused.
    routed: Option<CommandId>,
    stopping: bool,
}

impl HubState {
    /// Knows every device and link by name, and nothing yet of how they are.
    pub fn new(directory: Arc<Directory>) -> Self {
        let devices: Vec<_> = directory.devices().iter().map(Arc::clone).map(DeviceState::new).collect();
        Self {
            links: Links::new(&directory),
            roster: Roster::new(directory),
            sessions: HashSet::new(),
            index: Index::new(devices.len()),
            groups: Groups::default(),
            commands: Commands::default(),
            timers: BTreeSet::new(),
            armed: vec![None; devices.len()],
            devices,
            seq: 0,
            effects: VecDeque::new(),
            routed: None,
            stopping: false,
        }
    }

    /// A session begins. What a session that is not attached asks for is passed over.
    pub fn attach(&mut self, key: SessionKey) {
        self.sessions.insert(key);
    }

    /// A session has ended. Its commands run on.
    pub fn detach(&mut self, key: SessionKey) {
        self.announce();
        self.sessions.remove(&key);
        self.index.remove(key);
        self.groups.leave(key);
    }

    /// From now on the session receives what these interests admit and the client may see.
    pub fn watch(&mut self, key: SessionKey, client: &Arc<Client>, interests: Vec<Interest>) {
        self.announce();
        if self.sessions.contains(&key) {
            self.index.set(key, self.roster.resolve(client, interests));
        }
    }

    /// A session sends a command.
    #[expect(clippy::needless_pass_by_value, reason = "a request is taken over whole, like all input")]
    pub fn submit(&mut self, key: SessionKey, token: Token, client: Arc<Client>, command: Command, now: Now) {
        self.announce();
        if !self.sessions.contains(&key) {
            return;
        }
        match self.admit(key, &client, &command) {
            Err(outcome) => self.outcome(key, token, Arc::new(outcome)),
            Ok((device, Checked::Read(properties))) if !self.readable(device) => {
                if command.notify_accepted {
                    self.reply(key, SessionReply::Accepted(token));
                }
                let known = self.devices.get(device).map(|state| state.known(&properties));
                let values = known.unwrap_or_default();
                self.outcome(key, token, Arc::new(Outcome::Confirmed { values, outputs: Vec::new() }));
            }
            Ok((device, checked)) => self.route(key, token, &client, &command, device, checked, now),
        }
    }

    /// A session asks something.
    pub fn ask(&mut self, key: SessionKey, token: Token, client: Arc<Client>, question: Question, _now: Now) {
        self.announce();
        if !self.sessions.contains(&key) {
            return;
        }
        match question {
            Question::Snapshot(selector) => {
                let snapshot = self.snapshot(&client, &selector);
                self.reply(key, SessionReply::Answer(token, Answer::Snapshot(Arc::new(snapshot))));
            }
            Question::Group(ask) => {
                let answered = self.groups.ask(key, client, ask, &self.roster);
                self.reply(key, SessionReply::Answer(token, Answer::Group(answered.answer)));
                for member in answered.emptied {
                    self.reply(member, SessionReply::GroupEmpty);
                }
            }
        }
    }

    /// A driver saw or did something. What concerns a device that is not configured is passed over.
    pub fn observe(&mut self, observation: Observation, now: Now) {
        self.announce();
        match observation {
            Observation::Values { device, at, values } => {
                self.learn(&device, at, |state, facts| state.values(at, values, now.instant, facts));
            }
            Observation::Presence { device, at, online, reason } => {
                self.learn(&device, at, |state, facts| {
                    state.presence(at, online, reason, now.instant, facts);
                });
            }
            Observation::Event { device, at, event, params } => {
                self.learn(&device, at, |state, facts| state.event(event, params, facts));
            }
            Observation::Publish { device, at, topic, payload } => {
                self.learn(&device, at, |_, facts| facts.push(Body::Publish { topic, payload }));
            }
            Observation::Ota { device, at, step, detail } => {
                self.learn(&device, at, |_, facts| facts.push(Body::Ota { step, detail }));
            }
            Observation::Link { link, at, up, reason: _ } => self.links.observe(&link, at, up),
            Observation::Accepted { command } => self.accepted(command),
            Observation::Settled { command, at, outcome } => self.settle(command, at, outcome),
        }
    }

    /// The link had no room for the command that the last `poll` gave.
    pub fn refused(&mut self, command: CommandId, now: Now) {
        if self.routed == Some(command) {
            self.routed = None;
        }
        self.settle(command, now.wall, Outcome::Busy);
    }

    /// A balanced message went to this session, because those before it had no room.
    pub fn served(&mut self, group: &str, key: SessionKey) {
        self.groups.served(group, key);
    }

    /// The time that `timeout` named has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.announce();
        while let Some(command) = self.commands.overdue(now.instant) {
            self.settle(command, now.wall, Outcome::TimedOut);
        }
        while let Some((_, position)) = self.timers.first().filter(|(due, _)| *due <= now.instant).copied() {
            let mut facts = Vec::new();
            if let Some(state) = self.devices.get_mut(position) {
                state.handle_timeout(now.instant, &mut facts);
            }
            self.publish(position, now.wall, facts);
            self.arm(position);
        }
    }

    /// When to call `handle_timeout`.
    pub fn timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        [self.commands.timeout(), timer].into_iter().flatten().min()
    }

    /// Gives the next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.announce();
        let effect = self.effects.pop_front();
        if let Some(Effect::Route { command, .. }) = &effect {
            self.routed = Some(command.id);
        }
        effect
    }

    /// The hub is about to end: what is under way has an unknown result, and nothing more is begun.
    pub fn shutdown(&mut self, now: Now) {
        self.announce();
        self.stopping = true;
        while let Some(command) = self.commands.first() {
            self.settle(command, now.wall, Outcome::TimedOut);
        }
    }

    /// The newest readings of a device for a session that missed some reports, if it still wants them. Carries the
    /// number of the last message.
    pub fn newest(&self, key: SessionKey, device: &str, now: Now) -> Option<Arc<DeviceMessage>> {
        let position = self.roster.position(device)?;
        if !self.index.takes(key, position, Kinds::PROPERTIES) {
            return None;
        }
        let state = self.devices.get(position)?;
        let body = state.newest()?;
        Some(Arc::new(DeviceMessage::new(self.seq, now.wall, Arc::clone(state.device()), body)))
    }

    /// Every check that stands before a command travels, in the order in which a client should learn of faults: a
    /// device that it may not know of does not exist for it.
    fn admit(
        &self,
        key: SessionKey,
        client: &Client,
        command: &Command,
    ) -> Result<(usize, Checked), Outcome> {
        let found = self.roster.position(&command.device).and_then(|at| Some((at, self.devices.get(at)?)));
        let Some((position, state)) = found.filter(|(_, state)| client.devices.admits(state.device())) else {
            return Err(Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&command.device))));
        };
        if !client.may(command.action.kind(), state.device()) {
            return Err(Outcome::Forbidden);
        }
        let checked = check(&state.device().product, &command.action).map_err(Outcome::Rejected)?;
        if state.known_offline() {
            return Err(Outcome::Offline);
        }
        if self.stopping || !self.commands.has_room(key) {
            return Err(Outcome::Busy);
        }
        Ok((position, checked))
    }

    /// Whether a property of the device can be fetched, or only awaited.
    fn readable(&self, device: usize) -> bool {
        let link = self.roster.device(device).and_then(|device| self.roster.directory().link(&device.link));
        link.is_none_or(|link| link.readable)
    }

    #[expect(clippy::too_many_arguments, reason = "one command with all that was found out about it")]
    fn route(
        &mut self,
        session: SessionKey,
        token: Token,
        client: &Client,
        command: &Command,
        position: usize,
        checked: Checked,
        now: Now,
    ) {
        let Some(device) = self.roster.device(position).map(Arc::clone) else { return };
        let id = self.commands.number();
        let deadline = now.instant + command.timeout.min(LONGEST_WAIT);
        let note = Arc::new(note(id, &device, client, command, &checked));
        let notify = command.notify_accepted;
        let entry = InFlight {
            session,
            token,
            notify,
            device: position,
            note,
            announced: false,
            at: now.wall,
            deadline,
        };
        self.commands.begin(id, entry);
        let action = match checked {
            Checked::Read(properties) => DriverAction::Read(properties),
            Checked::Write(values) => DriverAction::Write(values),
            Checked::Invoke { function, inputs } => DriverAction::Invoke { function, inputs },
        };
        let link = Arc::clone(&device.link);
        let margin = DRIVERS_WORD.min(command.timeout / 4);
        let command =
            DriverCommand { id, device, action, deadline: deadline.checked_sub(margin).unwrap_or(deadline) };
        self.effects.push_back(Effect::Route { link, command });
    }

    /// Tells others of the command that the last `poll` gave away, now that it was not refused.
    fn announce(&mut self) {
        let Some(id) = self.routed.take() else { return };
        let Some(command) = self.commands.get_mut(id) else { return };
        command.announced = true;
        let (device, note, at) = (command.device, Arc::clone(&command.note), command.at);
        self.publish(device, at, vec![Body::Sent { command: note }]);
    }

    fn accepted(&mut self, id: CommandId) {
        let Some(command) = self.commands.get_mut(id) else { return };
        if std::mem::take(&mut command.notify) {
            let (session, token) = (command.session, command.token);
            self.reply(session, SessionReply::Accepted(token));
        }
    }

    /// Gives a command its outcome, unless it has one already.
    fn settle(&mut self, id: CommandId, at: UnixMillis, outcome: Outcome) {
        let Some(InFlight { session, token, device, note, announced, .. }) = self.commands.settle(id) else {
            return;
        };
        let outcome = Arc::new(outcome);
        self.outcome(session, token, Arc::clone(&outcome));
        if announced {
            self.publish(device, at, vec![Body::Reply { command: note, outcome }]);
        }
    }

    /// Lets one device's state take something in and publishes what came of it.
    fn learn(
        &mut self,
        device: &Device,
        at: UnixMillis,
        take: impl FnOnce(&mut DeviceState, &mut Vec<Body>),
    ) {
        let Some(position) = self.roster.position(&device.id) else { return };
        let mut facts = Vec::new();
        if let Some(state) = self.devices.get_mut(position) {
            take(state, &mut facts);
        }
        self.publish(position, at, facts);
        self.arm(position);
    }

    /// Numbers facts and sends each to whom it concerns.
    fn publish(&mut self, position: usize, at: UnixMillis, facts: Vec<Body>) {
        let Some(device) = self.roster.device(position) else { return };
        for body in facts {
            self.seq += 1;
            let message = Arc::new(DeviceMessage::new(self.seq, at, Arc::clone(device), body));
            let kind = message.kind();
            for (group, candidates) in self.groups.candidates(position, kind) {
                let message = Arc::clone(&message);
                self.effects.push_back(Effect::Balance { group, candidates, message });
            }
            let sessions = self.index.takers(position, kind);
            if !sessions.is_empty() {
                self.effects.push_back(Effect::Deliver { sessions, message });
            }
        }
    }

    /// Keeps the device's entry among the timers in step with its state.
    fn arm(&mut self, position: usize) {
        let timeout = self.devices.get(position).and_then(DeviceState::timeout);
        let Some(armed) = self.armed.get_mut(position) else { return };
        if *armed != timeout {
            if let Some(old) = std::mem::replace(armed, timeout) {
                self.timers.remove(&(old, position));
            }
            self.timers.extend(timeout.map(|due| (due, position)));
        }
    }

    fn snapshot(&self, client: &Client, selector: &Selector) -> Snapshot {
        let wanted = |state: &&DeviceState| selector.admits(state.device()) && client.sees(state.device());
        Snapshot {
            seq: self.seq,
            devices: self.devices.iter().filter(wanted).map(DeviceState::snapshot).collect(),
            links: self.links.snapshot(),
        }
    }

    fn outcome(&mut self, session: SessionKey, token: Token, outcome: Arc<Outcome>) {
        self.reply(session, SessionReply::Outcome(token, outcome));
    }

    /// Tells a session, unless it has ended.
    fn reply(&mut self, session: SessionKey, reply: SessionReply) {
        if self.sessions.contains(&session) {
            self.effects.push_back(Effect::Reply { session, reply });
        }
    }
}

/// A command as other sessions may see it: with the values as they were checked.
fn note(
    id: CommandId,
    device: &Device,
    client: &Client,
    command: &Command,
    checked: &Checked,
) -> CommandNote {
    let property =
        |position: &usize| device.product.properties.get(*position).map(|known| Arc::clone(&known.id));
    let values = match checked {
        Checked::Read(positions) => {
            positions.iter().filter_map(property).map(|property| (property, Value::Null)).collect()
        }
        Checked::Write(values) => {
            values.iter().filter_map(|(at, value)| Some((property(at)?, value.clone()))).collect()
        }
        Checked::Invoke { inputs, .. } => inputs.clone(),
    };
    let function = match &command.action {
        Action::Invoke { function, .. } => Some(Arc::clone(function)),
        Action::Read(_) | Action::Write(_) => None,
    };
    CommandNote {
        message_id: command.message_id.clone().unwrap_or_else(|| format!("pentad-{}", id.0).into()),
        kind: command.action.kind(),
        function,
        values,
        client: Arc::clone(&client.id),
    }
}

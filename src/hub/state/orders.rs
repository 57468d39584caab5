//! The hub's state as far as commands go: what stands before one travels, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::commands::{InFlight, answered, fetched, note};
use super::super::handle::{SessionKey, SessionReply};
use super::{Effect, HubState, LONGEST_WAIT, Work};
use crate::dialects::Token;
use crate::drivers::{CommandId, DriverAction, DriverCommand};
use crate::model::check::{Checked, check};
use crate::model::client::Client;
use crate::model::command::{Command, Outcome, Rejection};
use crate::model::message::{Body, CommandNote};
use crate::model::snapshot::Settled;
use crate::model::time::{Now, UnixMillis};

/// How much earlier than the hub a driver gives a command up that it has not begun. A driver knows that nothing was
/// sent, so its `Busy` is worth more to the client than the hub's `TimedOut`, which means that nobody knows.
pub(super) const DRIVERS_WORD: Duration = Duration::from_millis(250);

/// A command that is to be sent on its way: who wants to hear of it, and what others see of it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: CommandId,
    pub(super) session: SessionKey,
    pub(super) token: Token,
    pub(super) timeout: Duration,
    /// Whether the session wants to hear that work has begun.
    pub(super) notify: bool,
    /// See [`DriverCommand::urgent`].
    pub(super) urgent: bool,
    pub(super) note: CommandNote,
}

impl HubState {
    /// A session sends a command.
    #[expect(clippy::needless_pass_by_value, reason = "a request is taken over whole, like all input")]
    pub fn submit(&mut self, key: SessionKey, token: Token, client: Arc<Client>, command: Command, now: Now) {
        self.announce();
        if !self.sessions.contains(key) {
            return;
        }
        let admitted = self.admit(key, &client, &command).and_then(|(slot, checked)| {
            let brought = self.brought(slot, &checked, command.lease, key).map_err(Outcome::Rejected)?;
            Ok((slot, checked, brought))
        });
        match admitted {
            Err(outcome) => {
                self.journal.refused(key, &client, &command, &outcome, now.instant);
                self.outcome(key, token, Arc::new(outcome));
            }
            Ok((device, Checked::Read(properties), _)) if !self.can_ask(device, &properties) => {
                if command.notify_accepted {
                    self.reply(key, SessionReply::Accepted(token));
                }
                let known = self.devices.get(device).map(|state| state.known(&properties));
                let values = known.unwrap_or_default();
                self.outcome(key, token, Arc::new(Outcome::Confirmed { values, outputs: Vec::new() }));
            }
            Ok((slot, checked, brought)) => {
                let Some(device) = self.roster.device(slot).map(Arc::clone) else { return };
                let id = self.commands.number();
                self.leases.begin(id, &client.id, brought);
                let note = note(id, &device, &client, &command, &checked);
                let (timeout, notify) = (command.timeout, command.notify_accepted);
                let order = Order { id, session: key, token, timeout, notify, urgent: false, note };
                self.route(order, slot, checked, now);
            }
        }
    }

    /// Every check that stands before a command travels, in the order in which a client should learn of faults: a
    /// device that it may not know of does not exist for it.
    fn admit(
        &self,
        key: SessionKey,
        client: &Client,
        command: &Command,
    ) -> Result<(usize, Checked), Outcome> {
        let found = self.roster.slot(&command.device).and_then(|at| Some((at, self.devices.get(at)?)));
        let Some((slot, state)) = found.filter(|(_, state)| client.devices.admits(state.device())) else {
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
        Ok((slot, checked))
    }

    /// Whether the driver can be asked for any of these properties, or what they are computed from.
    fn can_ask(&self, device: usize, properties: &[usize]) -> bool {
        self.readable(device) || !self.askable(device, properties).is_empty()
    }

    /// What of these properties, or of what they are computed from, the driver can be asked for.
    pub(super) fn askable(&self, device: usize, properties: &[usize]) -> Vec<usize> {
        let Some(product) = self.roster.device(device).map(|device| &device.product) else {
            return Vec::new();
        };
        let mut sources = product.sources(properties);
        if !self.readable(device) {
            sources.retain(|at| product.properties.get(*at).is_some_and(|it| it.on_request));
        }
        sources
    }

    /// Whether every property of the device can be fetched, or those that cannot are awaited.
    pub(super) fn readable(&self, device: usize) -> bool {
        let link = self.roster.device(device).and_then(|device| self.roster.directory().link(&device.link));
        link.is_none_or(|link| link.readable)
    }

    /// Sends a command on its way.
    pub(super) fn route(&mut self, order: Order, slot: usize, checked: Checked, now: Now) {
        let Some(device) = self.roster.device(slot).map(Arc::clone) else { return };
        let Order { id, session, token, timeout, notify, urgent, note } = order;
        let note = Arc::new(note);
        let deadline = now.instant + timeout.min(LONGEST_WAIT);
        let (checked, asked) = fetched(&device, checked, self.readable(slot));
        let before = match &checked {
            Checked::Write(values) => {
                let written: Vec<usize> = values.iter().map(|(at, _)| *at).collect();
                self.devices.get(slot).map(|state| state.known(&written)).unwrap_or_default()
            }
            Checked::Read(_) | Checked::Invoke { .. } => Vec::new(),
        };
        let entry = InFlight {
            session,
            origin: self.journal.origin(session),
            token,
            before,
            notify,
            device: Some(slot),
            note,
            announced: false,
            at: now.wall,
            deadline,
            asked,
        };
        self.commands.begin(id, entry);
        if let Checked::Invoke { function, inputs } = &checked {
            if device.product.functions.get(*function).is_some_and(|function| !function.steps.is_empty()) {
                return self.begin_steps(id, slot, *function, inputs.clone(), now);
            }
        }
        let action = match checked {
            Checked::Read(properties) => DriverAction::Read(properties),
            Checked::Write(values) => DriverAction::Write(values),
            Checked::Invoke { function, inputs } => DriverAction::Invoke { function, inputs },
        };
        let link = Arc::clone(&device.link);
        let margin = DRIVERS_WORD.min(timeout / 4);
        let deadline = deadline.checked_sub(margin).unwrap_or(deadline);
        let command = DriverCommand { id, device, action, deadline, urgent };
        self.effects.push_back(Work::Do(Effect::Route { link, command }));
    }

    /// Tells others of the command that the last `poll` gave away, now that it was not refused.
    pub(super) fn announce(&mut self) {
        self.groups.settle_as_usual();
        let Some(id) = self.routed.take() else { return };
        let Some(command) = self.commands.get_mut(id) else { return };
        command.announced = true;
        let (device, note, at) = (command.device, Arc::clone(&command.note), command.at);
        if let Some(device) = device {
            self.publish(device, at, vec![Body::Sent { command: note }]);
        }
    }

    pub(super) fn accepted(&mut self, id: CommandId) {
        let Some(command) = self.commands.get_mut(id) else { return };
        if std::mem::take(&mut command.notify) {
            let (session, token) = (command.session, command.token);
            self.reply(session, SessionReply::Accepted(token));
        }
    }

    /// Gives a command its outcome, unless it has one already.
    pub(super) fn settle(&mut self, id: CommandId, at: UnixMillis, outcome: Outcome, now: Instant) {
        self.sequences.end(id);
        self.lease_settled(id, &outcome, now);
        let Some(command) = self.commands.settle(id) else { return };
        let InFlight { session, token, device, note, announced, asked, before, origin, .. } = command;
        let outcome = answered(asked.as_ref(), device.and_then(|slot| self.devices.get(slot)), outcome);
        let outcome = Arc::new(outcome);
        self.outcome(session, token, Arc::clone(&outcome));
        let known = device.and_then(|slot| self.roster.device(slot)).map(|device| Arc::clone(&device.id));
        if let Some(device) = known {
            self.journal.settled(&device, &origin, &before, &note, &outcome, now);
            let (command, outcome) = (Arc::clone(&note), Arc::clone(&outcome));
            self.outcomes.keep(Settled { device, command, outcome, at }, now);
        }
        if let (true, Some(device)) = (announced, device) {
            self.publish(device, at, vec![Body::Reply { command: note, outcome }]);
        }
    }
}

//! The commands that are under way: who waits for which, and until when.
//!
//! An entry is taken out exactly once, by its outcome, its deadline or the end of the hub; whatever comes for it
//! later finds nothing. That is why a command has exactly one outcome.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::device::DeviceState;
use super::handle::SessionKey;
use crate::dialects::{COMMANDS_IN_FLIGHT, Token};
use crate::drivers::{COMMAND_QUEUE, CommandId};
use crate::model::check::Checked;
use crate::model::client::{Client, Origin};
use crate::model::command::{Action, Command, Outcome};
use crate::model::device::Device;
use crate::model::message::CommandNote;
use crate::model::time::UnixMillis;
use crate::model::value::Value;

/// Commands under way for all sessions together: enough for sixteen that use all they may. A further one is
/// settled as busy.
pub const COMMANDS: usize = 16 * COMMANDS_IN_FLIGHT;

const _: () = assert!(COMMAND_QUEUE >= COMMANDS_IN_FLIGHT, "one session's commands find room on one link");

/// Commands that were handed to a link and have no outcome yet.
#[derive(Debug, Default)]
pub(super) struct Commands {
    last: u64,
    in_flight: BTreeMap<CommandId, InFlight>,
    deadlines: BTreeSet<(Instant, CommandId)>,
    per_session: HashMap<SessionKey, usize>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) session: SessionKey,
    /// Where the session came from.
    pub(super) origin: Arc<Origin>,
    /// What the written properties were when it was submitted, as far as that was known.
    pub(super) before: Vec<(Arc<str>, Value)>,
    pub(super) token: Token,
    /// Whether the session still waits to hear that work has begun.
    pub(super) notify: bool,
    /// Slot of the device, for as long as it has one.
    pub(super) device: Option<usize>,
    pub(super) note: Arc<CommandNote>,
    /// Whether others were told that it is on its way; only then they hear of its outcome.
    pub(super) announced: bool,
    /// When it was submitted.
    pub(super) at: UnixMillis,
    pub(super) deadline: Instant,
    /// What a read asked for, where something else is fetched for it.
    pub(super) asked: Option<Asked>,
}

/// A read that is answered by something else than what the driver fetches.
#[derive(Debug)]
pub(super) struct Asked {
    /// What the client wants to know.
    properties: Vec<usize>,
    /// What is fetched of it; the rest is computed, or told as it was last known.
    fetched: Vec<usize>,
}

impl Commands {
    /// Whether one more fits.
    pub(super) fn has_room(&self, session: SessionKey) -> bool {
        let own = self.per_session.get(&session).copied().unwrap_or(0);
        own < COMMANDS_IN_FLIGHT && self.in_flight.len() < COMMANDS
    }

    /// The number of the next command.
    pub(super) fn number(&mut self) -> CommandId {
        self.last += 1;
        CommandId(self.last)
    }

    pub(super) fn begin(&mut self, id: CommandId, command: InFlight) {
        *self.per_session.entry(command.session).or_default() += 1;
        self.deadlines.insert((command.deadline, id));
        self.in_flight.insert(id, command);
    }

    pub(super) fn get_mut(&mut self, id: CommandId) -> Option<&mut InFlight> {
        self.in_flight.get_mut(&id)
    }

    /// These devices have gone: the outcomes of commands to them concern nobody but who asked. Those have changed, and
    /// what was asked for by its place in their products is told as the driver fetched it.
    pub(super) fn forget(&mut self, gone: &BTreeSet<usize>, changed: &BTreeSet<usize>) {
        for command in self.in_flight.values_mut() {
            command.device = command.device.filter(|slot| !gone.contains(slot));
            if command.device.is_none_or(|slot| changed.contains(&slot)) {
                command.asked = None;
            }
        }
    }

    /// Takes a command out, for its one outcome.
    pub(super) fn settle(&mut self, id: CommandId) -> Option<InFlight> {
        let command = self.in_flight.remove(&id)?;
        self.deadlines.remove(&(command.deadline, id));
        if let Some(own) = self.per_session.get_mut(&command.session) {
            *own -= 1;
            if *own == 0 {
                self.per_session.remove(&command.session);
            }
        }
        Some(command)
    }

    /// A command whose deadline has passed, earliest first.
    pub(super) fn overdue(&self, now: Instant) -> Option<CommandId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Any command, oldest first.
    pub(super) fn first(&self) -> Option<CommandId> {
        self.in_flight.first_key_value().map(|(id, _)| *id)
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// What the driver is to read so that these properties can be told: the same, unless some are computed from others or,
/// on a link where that is so, can only be awaited. Nothing is left where the driver cannot be asked for any.
pub(super) fn fetched(device: &Device, checked: Checked, all: bool) -> (Checked, Option<Asked>) {
    match checked {
        Checked::Read(properties) => {
            let mut fetched = device.product.sources(&properties);
            let on_request = |at: &usize| device.product.properties.get(*at).is_some_and(|it| it.on_request);
            fetched.retain(|at| all || on_request(at));
            if fetched == properties {
                (Checked::Read(fetched), None)
            } else {
                (Checked::Read(fetched.clone()), Some(Asked { properties, fetched }))
            }
        }
        Checked::Write(_) | Checked::Invoke { .. } => (checked, None),
    }
}

/// The outcome of a read with what was asked for, if something else was fetched for it.
pub(super) fn answered(asked: Option<&Asked>, state: Option<&DeviceState>, outcome: Outcome) -> Outcome {
    let (Some(asked), Some(state)) = (asked, state) else { return outcome };
    let Outcome::Confirmed { values, outputs } = outcome else { return outcome };
    let told = |position: &usize| {
        if !asked.fetched.contains(position) {
            return state.known(&[*position]).pop();
        }
        let property = state.device().product.properties.get(*position)?;
        values.iter().find(|(id, _)| *id == property.id).cloned()
    };
    Outcome::Confirmed { values: asked.properties.iter().filter_map(told).collect(), outputs }
}

/// A command as other sessions may see it: with the values as they were checked.
pub(super) fn note(
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

//! What a command becomes on the bus: a list of requests and pauses, walked step by step.
//!
//! A [`Job`] says what to do next and is told what came of it; when it has finished it holds exactly one outcome per
//! command. A command that is wrong in any part is refused before anything is sent. Pure: no port, no clock.

use std::time::Duration;

use change::Change;
use fetch::Fetch;
pub(super) use setup::{Setup, Verdict};

use super::ModbusDevice;
use crate::drivers::{CommandId, DriverAction, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::proto::modbus::frame::{Answer, Request};
use crate::proto::modbus::plan::{Group, group};

mod change;
mod fetch;
mod setup;
#[cfg(test)]
mod tests;

/// What a job wants next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// Ask the device.
    Exchange(Request),
    /// Leave the device alone for so long.
    Pause(Duration),
    /// Go on after so long. The device may be read meanwhile.
    Wait(Duration),
    /// Nothing; take the outcomes.
    Finish,
}

/// A command, or several reads of one device, under way.
#[derive(Debug)]
pub(super) enum Job {
    /// A write or a function.
    Change(Change),
    /// Reads on demand.
    Fetch(Fetch),
    /// What a device is told when it comes online, or the look whether it still holds that.
    Setup(Setup),
}

impl Job {
    /// What a command means for a device, or why it cannot be done.
    pub(super) fn new(
        command: CommandId,
        device: &ModbusDevice,
        action: &DriverAction,
    ) -> Result<Self, Rejection> {
        match action {
            DriverAction::Read(positions) => Ok(Self::Fetch(Fetch::new(command, device, positions.clone()))),
            DriverAction::Write(values) => Change::write(command, device, values).map(Self::Change),
            DriverAction::Invoke { function, inputs } => {
                Change::invoke(command, device, *function, inputs).map(Self::Change)
            }
        }
    }

    /// What to do now.
    pub(super) fn act(&self) -> Act {
        match self {
            Self::Change(change) => change.act(),
            Self::Fetch(fetch) => fetch.act(),
            Self::Setup(setup) => setup.act(),
        }
    }

    /// The device answered. Gives the properties that are known now.
    pub(super) fn answered(&mut self, device: &ModbusDevice, answer: &Answer) -> Vec<(usize, Sample)> {
        match self {
            Self::Change(change) => change.answered(answer),
            Self::Fetch(fetch) => fetch.answered(device, answer),
            Self::Setup(setup) => {
                setup.answered(answer);
                Vec::new()
            }
        }
    }

    /// The device did not answer.
    pub(super) fn unanswered(&mut self) {
        match self {
            Self::Change(change) => change.unanswered(),
            Self::Fetch(fetch) => fetch.unanswered(),
            Self::Setup(setup) => setup.unanswered(),
        }
    }

    /// The pause was made.
    pub(super) fn paused(&mut self) {
        match self {
            Self::Change(change) => change.paused(),
            Self::Setup(setup) => setup.paused(),
            Self::Fetch(_) => {}
        }
    }

    /// Whether its next request must follow on the last one with nothing of this bus in between.
    pub(super) fn holds_line(&self) -> bool {
        match self {
            Self::Change(change) => change.holds_line(),
            Self::Setup(setup) => setup.holds_line(),
            Self::Fetch(_) => false,
        }
    }

    /// The commands that it serves.
    pub(super) fn commands(&self) -> Vec<CommandId> {
        match self {
            Self::Change(change) => vec![change.command()],
            Self::Fetch(fetch) => fetch.commands(),
            Self::Setup(_) => Vec::new(),
        }
    }

    /// What became of each command, once [`Act::Finish`] is reached.
    pub(super) fn outcomes(self, device: &ModbusDevice) -> Vec<(CommandId, Outcome)> {
        match self {
            Self::Change(change) => vec![change.outcome()],
            Self::Fetch(fetch) => fetch.outcomes(device),
            Self::Setup(_) => Vec::new(),
        }
    }
}

/// The reads that fetch these properties of a device; those that are nowhere on the bus are left out.
pub(super) fn grouped(device: &ModbusDevice, positions: impl IntoIterator<Item = usize>) -> Vec<Group> {
    let map = &device.map;
    let place = |at: usize| Some((at, map.properties.get(at)?.as_ref()?.span()?));
    group(positions.into_iter().filter_map(place), map.limits())
}

/// What an answer to a grouped read says of each property.
pub(super) fn samples(device: &ModbusDevice, group: &Group, answer: &Answer) -> Vec<(usize, Sample)> {
    let sample = |position: usize| {
        let property = device.device.product.properties.get(position)?;
        let point = device.map.properties.get(position)?.as_ref()?;
        if let Answer::Exception(exception) = answer {
            return Some((position, Sample::Unreadable(exception.to_string().into())));
        }
        let found = point.extract(group.span(), answer)?;
        Some((position, point.decode(property.kind, &found)))
    };
    group.members().iter().filter_map(|member| sample(member.key)).collect()
}

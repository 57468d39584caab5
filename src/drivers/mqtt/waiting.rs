//! Writes that wait because their property was written a moment ago, and wears out, or because nothing is known yet of their
//! device.
//!
//! Pure. At most as many wait as commands may be under way, and of those that wait for the same properties the last
//! value wins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::map::{MqttMap, Publish};
use crate::drivers::wear::Wear;
use crate::drivers::{CommandId, DriverAction, DriverCommand};
use crate::model::command::{Outcome, Rejection};
use crate::model::device::Device;

/// How often the properties of a device may be written.
#[derive(Debug)]
pub(super) struct Limits {
    /// By position, the least time between two writes.
    intervals: Vec<Option<Duration>>,
    /// By position of a function, the properties that its message writes.
    called: Vec<Vec<usize>>,
}

impl Limits {
    /// A function writes a property when its message goes to the same topic and names something that the property's
    /// own message names; where that names nothing, the topic is enough.
    pub(super) fn new(map: &MqttMap) -> Self {
        let writes: Vec<(usize, &Publish)> = map
            .properties
            .iter()
            .enumerate()
            .filter_map(|(position, point)| Some((position, point.as_ref()?.write.as_ref()?)))
            .collect();
        let called = |publish: &Publish| {
            let named = names(&publish.payload);
            let same = |(position, write): &(usize, &Publish)| {
                let own = names(&write.payload);
                let meets = own.is_empty() || own.intersection(&named).next().is_some();
                (write.topic == publish.topic && meets).then_some(*position)
            };
            writes.iter().filter_map(same).collect()
        };
        let functions = map.functions.iter();
        let called =
            functions.map(|call| call.as_ref().map(|call| called(&call.publish)).unwrap_or_default());
        Self {
            intervals: map.properties.iter().map(|point| point.as_ref()?.write_interval).collect(),
            called: called.collect(),
        }
    }

    /// What of that which an action writes wears out.
    fn of(&self, action: &DriverAction) -> Vec<(usize, Duration)> {
        let limited = |position: usize| Some((position, self.interval(position)?));
        match action {
            DriverAction::Read(_) => Vec::new(),
            DriverAction::Write(values) => {
                values.iter().filter_map(|(position, _)| limited(*position)).collect()
            }
            DriverAction::Invoke { function, .. } => {
                self.called.get(*function).into_iter().flatten().filter_map(|at| limited(*at)).collect()
            }
        }
    }

    fn interval(&self, position: usize) -> Option<Duration> {
        *self.intervals.get(position)?
    }
}

/// The names of members in a JSON template: what stands in quotes before a colon.
fn names(payload: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut parts = payload.split('"');
    // What is not quoted and what is take turns.
    parts.next();
    while let (Some(quoted), Some(after)) = (parts.next(), parts.next()) {
        if after.trim_start().starts_with(':') {
            names.insert(quoted);
        }
    }
    names
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    wear: Wear<Arc<str>>,
    /// In the order in which they came.
    later: Vec<(Instant, DriverCommand)>,
}

/// What becomes of a command that could be begun.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Whether it is to be begun now; otherwise it waits.
    pub(super) now: bool,
    /// The waiting writes that it takes the place of, each with a property of it.
    pub(super) overtaken: Vec<(CommandId, Arc<str>)>,
}

impl Waiting {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.later.len()
    }

    /// When the next one may go.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Vec<CommandId> {
        std::mem::take(&mut self.later).into_iter().map(|(_, command)| command.id).collect()
    }

    /// Whether a command may be begun now, and then counts as written. One that has waited before is not `fresh`: it
    /// overtakes nobody, since what waits beside it came later.
    pub(super) fn admit(
        &mut self,
        limits: &Limits,
        command: &DriverCommand,
        fresh: bool,
        now: Instant,
    ) -> Result<Admitted, Outcome> {
        let worn = limits.of(&command.action);
        let device = &command.device.id;
        let limited = worn.iter().map(|(position, _)| *position).filter(|_| !command.urgent);
        let wait = self.wear.free_at(device, limited, now);
        if let Some((at, position)) = wait.filter(|(at, _)| *at >= command.deadline) {
            let (id, every) =
                (name(&command.device, position), limits.interval(position).unwrap_or_default());
            return Err(Outcome::Rejected(Rejection::TooSoon { id, every, wait: at - now }));
        }
        let overtaken = if fresh { self.overtake(command) } else { Vec::new() };
        match wait {
            Some((at, _)) => self.later.push((at, command.clone())),
            None => self.wear.note(device, worn, now),
        }
        Ok(Admitted { now: wait.is_none(), overtaken })
    }

    /// Lets a command wait until then, or until something is known of its device. Gives the waiting writes that it takes the
    /// place of, each with a property of it.
    pub(super) fn hold(&mut self, command: &DriverCommand, until: Instant) -> Vec<(CommandId, Arc<str>)> {
        let overtaken = self.overtake(command);
        self.later.push((until, command.clone()));
        overtaken
    }

    /// Takes out what waits for a device.
    pub(super) fn of_device(&mut self, device: &str) -> Vec<DriverCommand> {
        let is_of = |(_, command): &(Instant, DriverCommand)| *command.device.id == *device;
        let (mine, others) = std::mem::take(&mut self.later).into_iter().partition(is_of);
        self.later = others;
        mine.into_iter().map(|(_, command)| command).collect()
    }

    /// Takes out the writes that wait for this device and concern nothing but what this one writes, each with a
    /// property of it.
    fn overtake(&mut self, command: &DriverCommand) -> Vec<(CommandId, Arc<str>)> {
        let DriverAction::Write(values) = &command.action else { return Vec::new() };
        let mut overtaken = Vec::new();
        self.later.retain(|(_, waiting)| {
            let DriverAction::Write(older) = &waiting.action else { return true };
            let covered = older.iter().all(|(at, _)| values.iter().any(|(newer, _)| newer == at));
            let Some((first, _)) =
                older.first().filter(|_| covered && waiting.device.id == command.device.id)
            else {
                return true;
            };
            overtaken.push((waiting.id, name(&waiting.device, *first)));
            false
        });
        overtaken
    }

    /// Takes out those whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<DriverCommand> {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        due.into_iter().map(|(_, command)| command).collect()
    }
}

/// The id of a property.
fn name(device: &Device, position: usize) -> Arc<str> {
    let property = device.product.properties.get(position);
    property.map_or_else(|| position.to_string().into(), |property| Arc::clone(&property.id))
}

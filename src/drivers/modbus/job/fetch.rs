//! Reads on demand: the wanted properties of one device in as few requests as possible, for one or more commands.
//!
//! What the device refuses is left out of the values; a group that it refuses is taken apart to find what it does
//! tell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::ModbusDevice;
use super::{Act, grouped, samples};
use crate::drivers::{CommandId, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::proto::modbus::frame::{Answer, Request};
use crate::proto::modbus::plan::Group;

/// How often a read on demand is sent again without an answer. A read changes nothing, and one lost frame is common.
const READ_RETRIES: u32 = 1;

/// Reads of one device for one or more commands.
#[derive(Debug)]
pub(in crate::drivers::modbus) struct Fetch {
    waiters: Vec<(CommandId, Vec<usize>)>,
    groups: VecDeque<Group>,
    samples: BTreeMap<usize, Sample>,
    retries: u32,
    silent: bool,
}

impl Fetch {
    pub(super) fn new(command: CommandId, device: &ModbusDevice, positions: Vec<usize>) -> Self {
        let mut fetch = Self {
            waiters: Vec::new(),
            groups: VecDeque::new(),
            samples: BTreeMap::new(),
            retries: READ_RETRIES,
            silent: false,
        };
        fetch.join(command, device, positions);
        fetch
    }

    /// Serves another command as well. Only before the first request.
    pub(in crate::drivers::modbus) fn join(
        &mut self,
        command: CommandId,
        device: &ModbusDevice,
        positions: Vec<usize>,
    ) {
        self.waiters.push((command, positions));
        let mut wanted: Vec<usize> =
            self.waiters.iter().flat_map(|(_, positions)| positions).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.groups = grouped(device, wanted).into();
    }

    /// Keeps apart what the polls of the device have learned to ask for apart: each part holds positions that one of them
    /// reads.
    pub(in crate::drivers::modbus) fn keep_apart(&mut self, device: &ModbusDevice, parts: &[Vec<usize>]) {
        let mut wanted: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for member in self.groups.iter().flat_map(Group::members) {
            let part = parts.iter().position(|part| part.contains(&member.key));
            wanted.entry(part).or_default().push(member.key);
        }
        self.groups = wanted.into_values().flat_map(|positions| grouped(device, positions)).collect();
    }

    /// Takes one command out again.
    pub(in crate::drivers::modbus) fn leave(&mut self, command: CommandId) {
        self.waiters.retain(|(waiter, _)| *waiter != command);
    }

    pub(super) fn commands(&self) -> Vec<CommandId> {
        self.waiters.iter().map(|(command, _)| *command).collect()
    }

    pub(super) fn act(&self) -> Act {
        match self.groups.front() {
            Some(group) if !self.silent => Act::Exchange(Request::Read(group.span())),
            Some(_) | None => Act::Finish,
        }
    }

    pub(super) fn answered(&mut self, device: &ModbusDevice, answer: &Answer) -> Vec<(usize, Sample)> {
        let Some(group) = self.groups.pop_front() else { return Vec::new() };
        self.retries = READ_RETRIES;
        if let (Answer::Exception(exception), Some((low, high))) = (answer, group.split()) {
            if exception.refuses_places() {
                self.groups.push_front(high);
                self.groups.push_front(low);
                return Vec::new();
            }
        }
        let known = samples(device, &group, answer);
        self.samples.extend(known.iter().cloned());
        known
    }

    pub(super) fn unanswered(&mut self) {
        self.silent = self.retries == 0;
        self.retries = self.retries.saturating_sub(1);
    }

    pub(super) fn outcomes(self, device: &ModbusDevice) -> Vec<(CommandId, Outcome)> {
        let outcome = |positions: &[usize]| {
            if self.silent {
                return Outcome::TimedOut;
            }
            let mut values = Vec::new();
            let mut refusal: Option<String> = None;
            for position in positions {
                let property = device.device.product.properties.get(*position);
                match (property, self.samples.get(position)) {
                    (Some(property), Some(Sample::Value(value))) => {
                        values.push((Arc::clone(&property.id), value.clone()));
                    }
                    (Some(property), Some(Sample::Unreadable(why))) => {
                        refusal = Some(format!("{}: {why}", property.id));
                    }
                    (Some(property), None) => {
                        refusal = Some(format!("{} is nowhere on the bus", property.id));
                    }
                    (None, _) => {}
                }
            }
            match refusal {
                Some(words) if values.is_empty() => Outcome::Rejected(Rejection::ByDevice(words)),
                _ => Outcome::Confirmed { values, outputs: Vec::new() },
            }
        };
        self.waiters.iter().map(|(command, positions)| (*command, outcome(positions))).collect()
    }
}

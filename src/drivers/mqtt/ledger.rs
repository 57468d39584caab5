//! The commands under way at one broker, and the messages that carry them.
//!
//! Pure. A command has steps, one for each value that is written or read, or one for a call; a message serves steps of
//! one command, or of all that ask for the same reading at once. What a message says is decided elsewhere: the ledger
//! is told that one was sent, acknowledged or answered, and says which commands that touches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::feed::Subject;
use crate::drivers::{CommandId, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::model::value::Value;

/// Commands under way at one broker. A further one is settled as busy: so many unanswered ones mean that the broker
/// does not keep up, and more would only come late.
pub(super) const COMMANDS_IN_FLIGHT: usize = 64;

/// A command under way.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) station: usize,
    pub(super) steps: Vec<Step>,
    /// Whether the broker may have some of it already.
    pub(super) sent: bool,
    /// It is not begun after this.
    pub(super) start_by: Instant,
    /// It is not waited for after this.
    pub(super) until: Instant,
}

/// One value of a command, or its call.
#[derive(Debug)]
pub(super) struct Step {
    /// Whose value; `None` for a call.
    pub(super) property: Option<(usize, Arc<str>)>,
    /// What is wished for, until the device reports it; what was read.
    pub(super) value: Option<Value>,
    /// What must come before the step is done; otherwise the acknowledgement does it.
    pub(super) awaited: Option<Awaited>,
    /// Whether the device has answered that it did it.
    pub(super) answered: bool,
    /// What it reported instead.
    pub(super) other: Option<Value>,
    /// Why it could not be read.
    pub(super) missing: Option<Arc<str>>,
    pub(super) done: bool,
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The property's report of the written value.
    Report,
    /// Any new reading of the property.
    Reading,
    /// The answer to a call.
    Answer,
}

/// A message that was not yet answered or acknowledged.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) station: usize,
    pub(super) subject: Subject,
    /// Steps that it serves, by their places in their commands.
    pub(super) serves: Vec<(CommandId, usize)>,
    pub(super) sent: bool,
    pub(super) answered: bool,
    /// Nobody waits for it after this.
    pub(super) until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    commands: BTreeMap<CommandId, Command>,
    /// By number, which is also their order.
    requests: BTreeMap<u64, Request>,
    last: u64,
}

impl Ledger {
    /// Commands under way.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Those to one station, oldest first.
    pub(super) fn of_station(&self, station: usize) -> Vec<CommandId> {
        let mine = self.commands.iter().filter(|(_, command)| command.station == station);
        mine.map(|(id, _)| *id).collect()
    }

    /// The number of the next message. It rises as those of commands do, so that an answer to one of an earlier link
    /// of this process fits none.
    pub(super) fn number(&mut self, command: CommandId) -> u64 {
        self.last = self.last.saturating_add(1).max(command.0);
        self.last
    }

    pub(super) fn begin(&mut self, id: CommandId, command: Command, requests: Vec<(u64, Request)>) {
        self.commands.insert(id, command);
        self.requests.extend(requests);
    }

    /// A message under way that asks a station for the same reading.
    pub(super) fn same_read(&mut self, station: usize, read: usize, now: Instant) -> Option<&mut Request> {
        self.requests.values_mut().find(|request| {
            request.station == station
                && request.subject == Subject::Read(read)
                && !request.answered
                && request.until > now
        })
    }

    /// Whether somebody still wants the message.
    pub(super) fn wants(&self, number: u64) -> bool {
        self.requests.contains_key(&number)
    }

    /// The message is handed to the connection.
    pub(super) fn sent(&mut self, number: u64) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        request.sent = true;
        for (id, _) in &request.serves {
            if let Some(command) = self.commands.get_mut(id) {
                command.sent = true;
            }
        }
    }

    /// The broker has the message.
    pub(super) fn acknowledged(&mut self, number: u64) -> Vec<CommandId> {
        let mut touched = Vec::new();
        self.serve(number, |id, step| {
            step.done |= step.awaited.is_none();
            touched.push(id);
        });
        touched
    }

    /// Messages that an answer may be for, oldest first.
    pub(super) fn unanswered(&self, station: usize) -> impl Iterator<Item = (u64, Subject)> + '_ {
        self.requests
            .iter()
            .filter(move |(_, request)| request.station == station && request.sent && !request.answered)
            .map(|(number, request)| (*number, request.subject))
    }

    /// Whom a message serves.
    pub(super) fn served(&self, number: u64) -> Vec<CommandId> {
        let serves = self.requests.get(&number).map(|request| request.serves.as_slice()).unwrap_or_default();
        let mut ids: Vec<CommandId> = serves.iter().map(|(id, _)| *id).collect();
        ids.dedup();
        ids
    }

    /// The device has answered that it did what the message wanted. `is_so` tells whether the device is known to be so
    /// already, or never reports it. Where the answer itself has readings, what it does not tell is missing; otherwise
    /// they may still come.
    pub(super) fn answered(
        &mut self,
        number: u64,
        tells: bool,
        is_so: impl Fn(usize, Option<&Value>) -> bool,
    ) -> Vec<CommandId> {
        if let Some(request) = self.requests.get_mut(&number) {
            request.answered = true;
        }
        let mut touched = Vec::new();
        self.serve(number, |id, step| {
            step.answered = true;
            match step.awaited {
                Some(Awaited::Reading) if tells => step.give_up(),
                Some(Awaited::Report) => {
                    let property = step.property.as_ref().map(|(property, _)| *property);
                    step.done |= property.is_some_and(|property| is_so(property, step.value.as_ref()));
                }
                Some(Awaited::Reading | Awaited::Answer) | None => {}
            }
            touched.push(id);
        });
        touched
    }

    /// Holds a device's report against what is awaited of it; `same` tells whether a reading is the written value. One
    /// that the broker had kept is no answer to a read.
    pub(super) fn reported(
        &mut self,
        station: usize,
        samples: &[(usize, Sample)],
        retained: bool,
        same: impl Fn(usize, &Value, &Value) -> bool,
    ) -> Vec<CommandId> {
        let mut touched = Vec::new();
        for (id, command) in self.commands.iter_mut().filter(|(_, command)| command.station == station) {
            let sent = command.sent;
            for step in command.steps.iter_mut().filter(|step| !step.done) {
                let Some((property, _)) = step.property else { continue };
                let sample = samples.iter().find(|(reported, _)| *reported == property);
                match (step.awaited, sample.map(|(_, sample)| sample)) {
                    (Some(Awaited::Reading), Some(Sample::Value(value))) if !retained => {
                        step.value = Some(value.clone());
                        step.done = true;
                    }
                    (Some(Awaited::Reading), Some(Sample::Unreadable(why))) if !retained => {
                        step.missing = Some(Arc::clone(why));
                        step.done = true;
                    }
                    (Some(Awaited::Report), Some(Sample::Value(reported))) if sent => {
                        if step.value.as_ref().is_some_and(|wished| same(property, wished, reported)) {
                            step.value = Some(reported.clone());
                            step.done = true;
                        } else {
                            step.other = Some(reported.clone());
                        }
                    }
                    _ => continue,
                }
                if step.done {
                    touched.push(*id);
                }
            }
        }
        touched.dedup();
        touched
    }

    /// Takes a command out whose every step is done.
    pub(super) fn take_done(&mut self, id: CommandId) -> Option<Command> {
        self.commands.get(&id)?.steps.iter().all(|step| step.done).then(|| self.take(id))?
    }

    /// Takes a command out, and the messages that served nobody else.
    pub(super) fn take(&mut self, id: CommandId) -> Option<Command> {
        let command = self.commands.remove(&id)?;
        self.leave(id);
        Some(command)
    }

    /// No message serves the command any more; one that serves nobody is not wanted.
    pub(super) fn leave(&mut self, id: CommandId) {
        self.requests.retain(|_, request| {
            request.serves.retain(|(served, _)| *served != id);
            !request.serves.is_empty()
        });
    }

    /// Takes every command out.
    pub(super) fn take_all(&mut self) -> BTreeMap<CommandId, Command> {
        self.requests.clear();
        std::mem::take(&mut self.commands)
    }

    /// Commands whose time is over, oldest first.
    pub(super) fn overdue(&self, now: Instant) -> Vec<CommandId> {
        let due = self.commands.iter().filter(|(_, command)| command.deadline() <= now);
        due.map(|(id, _)| *id).collect()
    }

    /// When the first command's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.commands.values().map(Command::deadline).min()
    }

    fn serve(&mut self, number: u64, mut with: impl FnMut(CommandId, &mut Step)) {
        let Some(request) = self.requests.get(&number) else { return };
        for (id, at) in &request.serves {
            let command = self.commands.get_mut(id);
            if let Some(step) = command.and_then(|command| command.steps.get_mut(*at)) {
                with(*id, step);
            }
        }
    }
}

impl Step {
    /// One that the acknowledgement of its message ends.
    pub(super) fn new(
        property: Option<(usize, Arc<str>)>,
        value: Option<Value>,
        awaited: Option<Awaited>,
    ) -> Self {
        Self { property, value, awaited, answered: false, other: None, missing: None, done: false }
    }

    /// The device has answered a read and does not tell this.
    fn give_up(&mut self) {
        if !self.done {
            self.missing = Some("the device's answer does not tell it".into());
            self.done = true;
        }
    }
}

impl Command {
    fn deadline(&self) -> Instant {
        if self.sent { self.until } else { self.until.min(self.start_by) }
    }

    /// What became of a command whose steps are all done.
    pub(super) fn outcome(self) -> Outcome {
        let refusal = self.steps.iter().find_map(|step| {
            let ((_, id), why) = (step.property.as_ref()?, step.missing.as_ref()?);
            Some(format!("{id}: {why}"))
        });
        let values: Vec<_> =
            self.steps.into_iter().filter_map(|step| Some((step.property?.1, step.value?))).collect();
        match refusal {
            Some(words) if values.is_empty() => Outcome::Rejected(Rejection::ByDevice(words)),
            _ => Outcome::Confirmed { values, outputs: Vec::new() },
        }
    }

    /// What became of a command whose time is over.
    pub(super) fn overdue(mut self) -> Outcome {
        if !self.sent {
            return Outcome::Busy;
        }
        let read = |step: &&mut Step| step.awaited == Some(Awaited::Reading) && step.answered;
        self.steps.iter_mut().filter(read).for_each(Step::give_up);
        let mismatch = self.steps.iter().filter(|step| !step.done).find_map(|step| {
            let ((_, id), expected) = (step.property.as_ref()?, step.value.clone()?);
            Some(Rejection::Mismatch { id: Arc::clone(id), expected, found: step.other.clone()? })
        });
        // What the device said outweighs what it did not say about another value of the same command.
        if let Some(mismatch) = mismatch {
            return Outcome::Rejected(mismatch);
        }
        let is_read = |step: &Step| step.awaited == Some(Awaited::Reading);
        // A device that answers that it did it may have nothing to report, because nothing has changed.
        let believed = |step: &Step| step.done || (step.answered && step.awaited == Some(Awaited::Report));
        let some_read = self.steps.iter().all(is_read) && self.steps.iter().any(|step| step.value.is_some());
        if some_read || self.steps.iter().all(believed) { self.outcome() } else { Outcome::TimedOut }
    }
}

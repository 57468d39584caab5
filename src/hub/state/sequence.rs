//! Functions that the gateway carries out step by step.
//!
//! A function with steps is one command for its client and several for the device, one after the other: the next begins
//! when the one before is confirmed. The first that is not ends the function, and the outcome says which one and why.
//! All steps together have the deadline of the command; at its end the result is unknown, and no further step begins.
//!
//! Conditions and outputs go by readings. A bus is asked for them. A device behind a broker is asked as far as its product
//! says how; of what it does not answer, or cannot be asked for, its reports count: those that come after the last step that
//! wrote, or, when none comes within a moment, the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::orders::DRIVERS_WORD;
use super::{Effect, HubState, Work};
use crate::drivers::{CommandId, DriverAction, DriverCommand};
use crate::hub::handle::SessionKey;
use crate::model::check::property_value;
use crate::model::command::{Outcome, Rejection};
use crate::model::device::Device;
use crate::model::expression::Expression;
use crate::model::message::Body;
use crate::model::product::{Function, Operand, Product, Step};
use crate::model::time::Now;
use crate::model::value::{Value, ValueType};

/// Functions with steps that may be under way on one device. A further one is settled as busy.
const AT_ONCE: usize = 4;

/// How often a condition is looked at on a device that can be asked: a person does not notice it, and a bus does.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The same of a device behind a broker, which may have to be woken by radio.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long a device behind a broker has to report what a step has changed, before its last report counts: time enough for a
/// few hops by radio, and short for a person.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// Functions under way, by the command that called them. Bounded by the commands that may be under way.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    running: BTreeMap<CommandId, Sequence>,
}

/// One function under way.
#[derive(Debug)]
struct Sequence {
    device: usize,
    /// As it was when the function began: where the configuration changed it meanwhile, no further step begins.
    product: Arc<Product>,
    function: usize,
    inputs: Vec<(Arc<str>, Value)>,
    /// The step that it is at; behind the last one the outputs are read.
    step: usize,
    /// The command to the device that its step waits for.
    child: Option<CommandId>,
    /// When it goes on by itself.
    wake: Option<Instant>,
    /// When the condition that it waits for must hold.
    until: Option<Instant>,
    /// When the last step that wrote or called was confirmed.
    acted: Option<Instant>,
    /// What was reported since it was sent.
    heard: BTreeSet<usize>,
    deadline: Instant,
}

impl Sequences {
    /// The command has its outcome: nothing further is begun for it.
    pub(super) fn end(&mut self, command: CommandId) {
        self.running.remove(&command);
    }

    /// When one of them goes on by itself.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.running.values().filter_map(|sequence| sequence.wake).min()
    }

    fn get_mut(&mut self, id: CommandId) -> Option<&mut Sequence> {
        self.running.get_mut(&id)
    }

    fn parent(&self, child: CommandId) -> Option<CommandId> {
        self.running.iter().find(|(_, sequence)| sequence.child == Some(child)).map(|(id, _)| *id)
    }
}

impl HubState {
    /// Begins a function with steps for a command that is under way.
    pub(super) fn begin_steps(
        &mut self,
        id: CommandId,
        device: usize,
        function: usize,
        inputs: Vec<(Arc<str>, Value)>,
        now: Now,
    ) {
        if self.sequences.running.values().filter(|other| other.device == device).count() >= AT_ONCE {
            return self.settle(id, now.wall, Outcome::Busy, now.instant);
        }
        let Some(product) = self.roster.device(device).map(|device| Arc::clone(&device.product)) else {
            return;
        };
        let Some(command) = self.commands.get_mut(id) else { return };
        command.announced = true;
        let (note, deadline) = (Arc::clone(&command.note), command.deadline);
        let deadline = deadline.checked_sub(DRIVERS_WORD).unwrap_or(deadline);
        self.publish(device, now.wall, vec![Body::Sent { command: note }]);
        self.accepted(id);
        let sequence = Sequence {
            device,
            product,
            function,
            inputs,
            step: 0,
            child: None,
            wake: None,
            until: None,
            acted: None,
            heard: BTreeSet::new(),
            deadline,
        };
        self.sequences.running.insert(id, sequence);
        self.advance(id, now);
    }

    /// The outcome of a command to a device. Gives it back if it is no step's.
    pub(super) fn step_done(&mut self, command: CommandId, outcome: Outcome, now: Now) -> Option<Outcome> {
        let Some(id) = self.sequences.parent(command) else { return Some(outcome) };
        self.lease_settled(command, &outcome, now.instant);
        let (device, function) = self.place(id)?;
        let sequence = self.sequences.get_mut(id)?;
        sequence.child = None;
        let (step, position) = (sequence.step, sequence.device);
        let step = function.steps.get(step);
        let was_read = matches!(step, None | Some(Step::Until { .. }));
        // Of a device that reports by itself, what it has told counts where it does not answer.
        let told = was_read && !self.readable(position) && outcome != Outcome::Offline;
        if !matches!(outcome, Outcome::Confirmed { .. }) && !told {
            self.give_up(id, outcome, now);
            return None;
        }
        if let Some(sequence) = self.sequences.get_mut(id).filter(|_| !was_read) {
            sequence.acted = Some(now.instant);
        }
        match step {
            // Its fresh readings came before it.
            Some(Step::Until { condition, .. }) if !self.holds(&device, condition) => {
                self.look_later(id, now);
            }
            Some(_) => self.next_step(id, now),
            None => self.finish_when_told(id, now),
        }
        None
    }

    /// A device that reports by itself has given these readings: a condition on them may hold now, or the outputs be there.
    pub(super) fn look(&mut self, device: &Device, read: &[(usize, Value)], now: Now) {
        if self.sequences.running.is_empty() {
            return;
        }
        let Some(position) = self.roster.slot(&device.id).filter(|at| !self.readable(*at)) else { return };
        let mut concerned = Vec::new();
        for (id, sequence) in &mut self.sequences.running {
            if sequence.device == position {
                sequence.heard.extend(read.iter().map(|(at, _)| *at));
                concerned.push(*id);
            }
        }
        for id in concerned {
            let Some((device, function)) = self.place(id) else { continue };
            let Some(sequence) = self.sequences.running.get(&id) else { continue };
            match function.steps.get(sequence.step) {
                Some(Step::Until { condition, .. }) => {
                    if !self.is_awaited(id, condition.inputs(), now) && self.holds(&device, condition) {
                        // What it was asked for beside that is of no use any more.
                        self.next_step(id, now);
                    }
                }
                None if sequence.child.is_none() => self.finish_when_told(id, now),
                Some(_) | None => {}
            }
        }
    }

    /// Whether a report of these properties, or of what they are computed from, may still come that tells what the last step
    /// has changed.
    fn is_awaited(&self, id: CommandId, properties: &[usize], now: Now) -> bool {
        let Some(sequence) = self.sequences.running.get(&id) else { return false };
        let Some(device) = self.roster.device(sequence.device).filter(|_| !self.readable(sequence.device))
        else {
            return false;
        };
        let may_come = |acted: Instant| now.instant < (acted + REPORT_WITHIN).min(sequence.deadline);
        let heard = |at: &usize| sequence.heard.contains(at);
        sequence.acted.is_some_and(may_come) && !device.product.sources(properties).iter().all(heard)
    }

    /// When that is over.
    fn awaited_until(&self, id: CommandId) -> Option<Instant> {
        let sequence = self.sequences.running.get(&id)?;
        Some((sequence.acted? + REPORT_WITHIN).min(sequence.deadline))
    }

    /// The device in this slot goes, or is of another product from now on: what its functions had still to do is not
    /// done, least of all to the device that has the slot next. To be called while it is what it was.
    pub(super) fn abandon_steps(&mut self, slot: usize, now: Now) {
        let of_slot = |(id, sequence): (&CommandId, &Sequence)| (sequence.device == slot).then_some(*id);
        let ids: Vec<CommandId> = self.sequences.running.iter().filter_map(of_slot).collect();
        for id in ids {
            self.fail(id, "the configuration of the device has changed meanwhile".to_owned(), now);
        }
    }

    /// Goes on with what has waited long enough.
    pub(super) fn handle_step_timeouts(&mut self, now: Now) {
        let due = |sequence: &Sequence| sequence.wake.is_some_and(|wake| wake <= now.instant);
        let ids: Vec<CommandId> =
            self.sequences.running.iter().filter(|(_, it)| due(it)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(sequence) = self.sequences.running.get_mut(&id) else { continue };
            // Before anything else: what is due is looked at once, whatever comes of it.
            sequence.wake = None;
            let (step, until) = (sequence.step, sequence.until);
            let Some((device, function)) = self.place(id) else { continue };
            match (function.steps.get(step), until) {
                (Some(Step::Until { within, .. }), Some(until)) if until <= now.instant => {
                    let why = format!("the condition did not hold within {within:?}");
                    self.fail(id, why, now);
                }
                (Some(Step::Until { condition, .. }), Some(_)) => {
                    self.look_at(id, &device, condition, now);
                }
                // Nobody waits for its last word any longer.
                (None, _) => self.finish(id, now),
                _ => self.next_step(id, now),
            }
        }
    }

    /// Asks for what a condition goes by, or looks at what is known of it.
    fn look_at(&mut self, id: CommandId, device: &Device, condition: &Expression, now: Now) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        let (position, until) = (sequence.device, sequence.until);
        let askable = self.askable(position, condition.inputs());
        if !askable.is_empty() {
            self.send_step(id, DriverAction::Read(askable), now);
            // A device that does not answer must not hold the condition up.
            return self.wait_at_most(id, position, until);
        }
        let awaited = self.is_awaited(id, condition.inputs(), now);
        if !awaited && self.holds(device, condition) {
            return self.next_step(id, now);
        }
        let later = self.awaited_until(id).filter(|_| awaited);
        if let Some(sequence) = self.sequences.get_mut(id) {
            sequence.wake = [later, until].into_iter().flatten().min();
        }
    }

    /// Goes on then, if the device has not answered; a bus always has a word in time.
    fn wait_at_most(&mut self, id: CommandId, position: usize, until: Option<Instant>) {
        let by_itself = !self.readable(position);
        if let Some(sequence) = self.sequences.get_mut(id).filter(|_| by_itself) {
            sequence.wake = until;
        }
    }

    fn next_step(&mut self, id: CommandId, now: Now) {
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        sequence.step += 1;
        (sequence.child, sequence.wake, sequence.until) = (None, None, None);
        self.advance(id, now);
    }

    /// Begins the step that it is at, and further ones while there is nothing to wait for.
    fn advance(&mut self, id: CommandId, now: Now) {
        loop {
            let Some((device, function)) = self.place(id) else { return };
            let Some(sequence) = self.sequences.running.get_mut(&id) else { return };
            let Some(step) = function.steps.get(sequence.step) else {
                let (position, deadline) = (sequence.device, sequence.deadline);
                let askable = self.askable(position, &outputs_of(&function));
                if askable.is_empty() || (!self.readable(position) && deadline <= now.instant) {
                    return self.finish_when_told(id, now);
                }
                self.send_step(id, DriverAction::Read(askable), now);
                return self.wait_at_most(id, position, Some(deadline));
            };
            match step {
                Step::Wait(time) => {
                    sequence.wake = now.instant.checked_add(*time);
                    return;
                }
                Step::Until { condition, within } => {
                    let until = now.instant.checked_add(*within);
                    sequence.until = until;
                    return self.look_at(id, &device, condition, now);
                }
                Step::Call { function, inputs } => {
                    let inputs = inputs.iter().filter_map(|(id, operand)| {
                        Some((Arc::clone(id), given(operand, &sequence.inputs)?))
                    });
                    let action = DriverAction::Invoke { function: *function, inputs: inputs.collect() };
                    return self.send_step(id, action, now);
                }
                Step::Write(values) => {
                    let mut written = Vec::new();
                    for (at, operand) in values {
                        let Some(value) = given(operand, &sequence.inputs) else { continue };
                        let Some(property) = device.product.properties.get(*at) else { continue };
                        match property_value(property, &value) {
                            Ok(value) => written.push((*at, value)),
                            Err(rejection) => return self.fail(id, rejection.to_string(), now),
                        }
                    }
                    if !written.is_empty() {
                        return self.send_step(id, DriverAction::Write(written), now);
                    }
                }
            }
            let Some(sequence) = self.sequences.running.get_mut(&id) else { return };
            sequence.step += 1;
            (sequence.wake, sequence.until) = (None, None);
        }
    }

    /// Looks at a condition again after a while, at the latest when it must hold.
    fn look_later(&mut self, id: CommandId, now: Now) {
        let Some(sequence) = self.sequences.running.get(&id) else { return };
        let every = if self.readable(sequence.device) { LOOK_EVERY } else { ASK_EVERY };
        let Some(sequence) = self.sequences.get_mut(id) else { return };
        let soon = now.instant.checked_add(every);
        sequence.wake = [soon, sequence.until].into_iter().flatten().min();
    }

    /// Sends a command of its own to the device.
    fn send_step(&mut self, id: CommandId, action: DriverAction, now: Now) {
        let child = self.commands.number();
        let Some(sequence) = self.sequences.running.get_mut(&id) else { return };
        if sequence.deadline <= now.instant {
            // The command's own deadline is near and says the rest.
            return;
        }
        (sequence.child, sequence.wake) = (Some(child), None);
        if !matches!(action, DriverAction::Read(_)) {
            sequence.heard.clear();
        }
        let (position, deadline) = (sequence.device, sequence.deadline);
        let Some(device) = self.roster.device(position).map(Arc::clone) else { return };
        if let Err(rejection) = self.lease_step(id, child, position, &action) {
            // Nothing may hold that nobody stands behind.
            return self.fail(id, rejection.to_string(), now);
        }
        let link = Arc::clone(&device.link);
        let command = DriverCommand { id: child, device, action, deadline, urgent: false };
        self.effects.push_back(Work::Do(Effect::Route { link, command }));
    }

    /// A step that writes is a write like any other: it takes a lease off, or brings that of the product.
    fn lease_step(
        &mut self,
        id: CommandId,
        child: CommandId,
        slot: usize,
        action: &DriverAction,
    ) -> Result<(), Rejection> {
        let (DriverAction::Write(values), Some(command)) = (action, self.commands.get_mut(id)) else {
            return Ok(());
        };
        let (session, client) = (command.session, Arc::clone(&command.note.client));
        let brought = self.brought_by(slot, values, None, session)?;
        self.leases.begin(child, &client, brought);
        Ok(())
    }

    /// Why a function cannot be begun: its steps write what could not be leased as its product wants.
    pub(super) fn leases_of_steps(
        &self,
        slot: usize,
        product: &Product,
        function: &Function,
        inputs: &[(Arc<str>, Value)],
        session: SessionKey,
    ) -> Result<(), Rejection> {
        let written = |(at, operand): &(usize, Operand)| {
            let property = product.properties.get(*at)?;
            Some((*at, property_value(property, &given(operand, inputs)?).ok()?))
        };
        for step in &function.steps {
            if let Step::Write(values) = step {
                let values: Vec<(usize, Value)> = values.iter().filter_map(written).collect();
                self.brought_by(slot, &values, None, session)?;
            }
        }
        Ok(())
    }

    /// All steps are done: tells the outputs, when the reports are there that tell of what was done, or come no more.
    fn finish_when_told(&mut self, id: CommandId, now: Now) {
        let Some((_, function)) = self.place(id) else { return };
        if !self.is_awaited(id, &outputs_of(&function), now) {
            return self.finish(id, now);
        }
        let until = self.awaited_until(id);
        if let Some(sequence) = self.sequences.get_mut(id) {
            sequence.wake = until;
        }
    }

    /// All steps are done: tells the outputs.
    fn finish(&mut self, id: CommandId, now: Now) {
        let Some((_, function)) = self.place(id) else { return };
        let Some(state) =
            self.sequences.running.get(&id).and_then(|sequence| self.devices.get(sequence.device))
        else {
            return;
        };
        let output = |(name, at): &(Arc<str>, usize)| Some((Arc::clone(name), state.known(&[*at]).pop()?.1));
        let outputs = function.reads.iter().filter_map(output).collect();
        self.settle(id, now.wall, Outcome::Confirmed { values: Vec::new(), outputs }, now.instant);
    }

    /// A step was not confirmed. Where nothing was done yet, its outcome is that of the function.
    fn give_up(&mut self, id: CommandId, outcome: Outcome, now: Now) {
        let first = self.sequences.running.get(&id).is_some_and(|sequence| sequence.step == 0);
        let why = match &outcome {
            Outcome::Busy | Outcome::Offline if first => {
                return self.settle(id, now.wall, outcome, now.instant);
            }
            Outcome::Rejected(rejection) => rejection.to_string(),
            Outcome::Offline => "the device is offline".to_owned(),
            Outcome::TimedOut => "no answer came in time, so it may have been done".to_owned(),
            Outcome::Busy => "too many commands wait already".to_owned(),
            Outcome::Forbidden | Outcome::Confirmed { .. } => outcome.name().to_owned(),
        };
        self.fail(id, why, now);
    }

    fn fail(&mut self, id: CommandId, why: String, now: Now) {
        let Some((device, function)) = self.place(id) else { return };
        let step = self.sequences.running.get(&id).map_or(0, |sequence| sequence.step);
        let what = function.steps.get(step).map_or_else(
            || "read the outputs".to_owned(),
            |step| match step {
                Step::Write(values) => {
                    let ids = values.iter().filter_map(|(at, _)| device.product.properties.get(*at));
                    let ids: Vec<&str> = ids.map(|property| &*property.id).collect();
                    format!("write {}", ids.join(", "))
                }
                Step::Call { function, .. } => {
                    format!("call {}", device.product.functions.get(*function).map_or("?", |it| &it.id))
                }
                Step::Wait(_) => "wait".to_owned(),
                Step::Until { .. } => "wait for a condition".to_owned(),
            },
        );
        info!(device = %device.id, function = %function.id, step = step + 1, %what, %why, "a function did not succeed");
        let of = function.steps.len().max(step + 1);
        let rejection = Rejection::Step { step: step + 1, of, what, why };
        self.settle(id, now.wall, Outcome::Rejected(rejection), now.instant);
    }

    /// The device and the function that a command is about.
    fn place(&self, id: CommandId) -> Option<(Arc<Device>, Function)> {
        let sequence = self.sequences.running.get(&id)?;
        let device = self.roster.device(sequence.device).map(Arc::clone)?;
        if !Arc::ptr_eq(&device.product, &sequence.product) && device.product != sequence.product {
            return None;
        }
        let function = device.product.functions.get(sequence.function)?.clone();
        Some((device, function))
    }

    /// Whether a condition holds by good readings.
    fn holds(&self, device: &Device, condition: &Expression) -> bool {
        let Some(state) = self.roster.slot(&device.id).and_then(|at| self.devices.get(at)) else {
            return false;
        };
        condition.evaluate(ValueType::Bool, &|at| state.good(at)) == Some(Value::Bool(true))
    }
}

/// The properties that a function reads at its end.
fn outputs_of(function: &Function) -> Vec<usize> {
    function.reads.iter().map(|(_, at)| *at).collect()
}

/// The value of an operand, if there is one.
fn given(operand: &Operand, inputs: &[(Arc<str>, Value)]) -> Option<Value> {
    match operand {
        Operand::Constant(value) => Some(value.clone()),
        Operand::Input(name) => inputs.iter().find(|(id, _)| id == name).map(|(_, value)| value.clone()),
    }
}

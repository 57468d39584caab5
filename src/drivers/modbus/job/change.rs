//! Writes and functions: steps in order, each write read back where the device lets itself be read.
//!
//! Nothing is sent unless every value can be encoded. A value that shares its register with others, or whose scale
//! the device tells, is encoded after a read of what stands there now; that read and the write after it hold the
//! line, so that nothing comes in between. The first refusal ends the rest, and says what had been written before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::ModbusDevice;
use super::super::codec::{Content, EncodeError, Found};
use super::super::map::{Operand, Point, Step, Table};
use super::Act;
use crate::drivers::{CommandId, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::model::product::Property;
use crate::model::value::Value;
use crate::proto::modbus::Span;
use crate::proto::modbus::frame::{Answer, Request};

/// How often a value is read back before a difference counts: many devices answer a write first and apply it then.
const CHECKS: u32 = 3;

/// Pause between two of these.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

/// Steps that change something, in order.
#[derive(Debug)]
pub(in crate::drivers::modbus) struct Change {
    command: CommandId,
    ops: VecDeque<Op>,
    values: Vec<(Arc<str>, Value)>,
    failure: Option<Outcome>,
    /// The device took a write but said that it will need longer.
    unconfirmed: bool,
    /// So many of the next writes were made of what has just been read.
    holds: usize,
}

#[derive(Debug)]
enum Op {
    /// Reads what must be known before a value can be encoded; becomes the write of it.
    Look(Box<Look>),
    /// Sends a write; the words say of what.
    Send(Request, Arc<str>),
    /// A step of a function.
    Wait(Duration),
    /// Before the same thing is asked once more.
    Pause(Duration),
    Check(Check),
    /// Books values that are not read back.
    Book(Vec<(Arc<str>, Value)>),
}

/// A read before a write.
#[derive(Debug)]
struct Look {
    span: Span,
    aim: Aim,
    left: u32,
}

/// A read after a write, and what it should find.
#[derive(Debug)]
struct Check {
    span: Span,
    members: Vec<Written>,
    left: u32,
}

/// What is to be written where.
#[derive(Clone, Debug)]
struct Aim {
    /// The property, the input or the number of the step.
    label: Arc<str>,
    /// `None` for a step of a function.
    property: Option<(usize, Property)>,
    point: Point,
    value: Value,
}

/// One property's part of a write.
#[derive(Clone, Debug)]
struct Written {
    position: usize,
    property: Property,
    point: Point,
    content: Content,
    value: Value,
}

impl Change {
    pub(super) fn write(
        command: CommandId,
        device: &ModbusDevice,
        values: &[(usize, Value)],
    ) -> Result<Self, Rejection> {
        let aims = values.iter().map(|(at, value)| Aim::of(device, *at, value));
        let ops = Chunk::ops(aims.collect::<Result<_, _>>()?)?;
        Ok(Self { command, ops, values: Vec::new(), failure: None, unconfirmed: false, holds: 0 })
    }

    pub(super) fn invoke(
        command: CommandId,
        device: &ModbusDevice,
        function: usize,
        inputs: &[(Arc<str>, Value)],
    ) -> Result<Self, Rejection> {
        let mut ops = VecDeque::new();
        for (number, step) in (1..).zip(device.map.functions.get(function).into_iter().flatten()) {
            let (point, value, id) = match step {
                Step::Wait(pause) => {
                    ops.push_back(Op::Wait(*pause));
                    continue;
                }
                Step::Write { point, value: Operand::Constant(value) } => (point, value, None),
                Step::Write { point, value: Operand::Input(id) } => {
                    let Some((_, value)) = inputs.iter().find(|(given, _)| given == id) else { continue };
                    (point, value, Some(id))
                }
            };
            let label: Arc<str> = format!("step {number}").into();
            let label = id.map_or(label, Arc::clone);
            let aim = Aim { label, property: None, point: point.clone(), value: value.clone() };
            aim.append_to(&mut ops)?;
        }
        if ops.is_empty() {
            return Err(Rejection::ByDevice("the function has nothing to do on this device".to_owned()));
        }
        Ok(Self { command, ops, values: Vec::new(), failure: None, unconfirmed: false, holds: 0 })
    }

    pub(super) fn command(&self) -> CommandId {
        self.command
    }

    pub(super) fn paused(&mut self) {
        self.ops.pop_front();
    }

    /// Whether the next request must follow on the last one with nothing in between.
    pub(super) fn holds_line(&self) -> bool {
        self.holds > 0 && self.failure.is_none() && matches!(self.ops.front(), Some(Op::Send(..)))
    }

    pub(super) fn act(&self) -> Act {
        match self.ops.front() {
            _ if self.failure.is_some() => Act::Finish,
            Some(Op::Look(look)) => Act::Exchange(Request::Read(look.span)),
            None | Some(Op::Book(_)) => Act::Finish,
            Some(Op::Send(request, _)) => Act::Exchange(request.clone()),
            Some(Op::Wait(pause)) => Act::Wait(*pause),
            Some(Op::Pause(pause)) => Act::Pause(*pause),
            Some(Op::Check(check)) => Act::Exchange(Request::Read(check.span)),
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer) -> Vec<(usize, Sample)> {
        let known = match self.ops.pop_front() {
            Some(Op::Look(look)) => {
                self.looked(*look, answer);
                Vec::new()
            }
            Some(Op::Send(_, label)) => {
                self.holds = self.holds.saturating_sub(1);
                self.sent(&label, answer);
                Vec::new()
            }
            Some(Op::Check(check)) => self.checked(check, answer),
            Some(Op::Wait(_) | Op::Pause(_) | Op::Book(_)) | None => Vec::new(),
        };
        self.book();
        known
    }

    fn sent(&mut self, label: &str, answer: &Answer) {
        match answer {
            Answer::Exception(exception) if exception.is_acknowledge() => self.unconfirmed = true,
            Answer::Exception(exception) => self.refused(format!("{exception} at {label}")),
            // The form of an answer is that of its request, so this is always the first.
            Answer::Written | Answer::Bits(_) | Answer::Registers(_) | Answer::Data(_) | Answer::Names(_) => {
            }
        }
    }

    /// Ends with the device's words, and with what had been written before.
    fn refused(&mut self, mut words: String) {
        if let Some((last, first)) = self.values.split_last() {
            let first: Vec<&str> = first.iter().map(|(id, _)| &**id).collect();
            let all = if first.is_empty() {
                last.0.to_string()
            } else {
                [&first.join(", "), &*last.0].join(" and ")
            };
            words = format!("{words}; {all} had been written before");
        }
        self.failure = Some(Outcome::Rejected(Rejection::ByDevice(words)));
    }

    /// Makes the write of what was read before it.
    fn looked(&mut self, mut look: Look, answer: &Answer) {
        look.left = look.left.saturating_sub(1);
        if let Answer::Exception(exception) = answer {
            if exception.is_busy() && look.left > 0 {
                self.retry(Op::Look(Box::new(look)));
            } else {
                self.refused(format!("{exception} at the read before the write of {}", look.aim.label));
            }
            return;
        }
        let mut ops = VecDeque::new();
        let found = look.aim.point.extract(look.span, answer);
        match look.aim.append_encoded(found.as_ref(), &mut ops) {
            Ok(()) => {
                self.holds = ops.iter().filter(|op| matches!(op, Op::Send(..))).count();
                ops.append(&mut self.ops);
                self.ops = ops;
            }
            Err(rejection) => self.failure = Some(Outcome::Rejected(rejection)),
        }
    }

    /// Compares what was read back. A difference is looked at again before it counts.
    fn checked(&mut self, mut check: Check, answer: &Answer) -> Vec<(usize, Sample)> {
        check.left = check.left.saturating_sub(1);
        if let Answer::Exception(exception) = answer {
            // A device that lets nobody read the place has still taken the write.
            if !exception.refuses_places() && exception.0 != 1 && check.left > 0 {
                self.retry(Op::Check(check));
                return Vec::new();
            }
            self.values.extend(check.members.iter().map(Written::as_written));
            return Vec::new();
        }
        let found: Vec<(&Written, Option<Found>)> =
            check.members.iter().map(|member| (member, member.point.extract(check.span, answer))).collect();
        let differs = |(member, found): &&(&Written, Option<Found>)| {
            !found.as_ref().is_some_and(|found| member.point.same(&member.content, &found.content))
        };
        if found.iter().any(|found| differs(&found)) && check.left > 0 {
            self.retry(Op::Check(check));
            return Vec::new();
        }
        let mut known = Vec::new();
        for (member, read) in &found {
            let Some(read) = read else { continue };
            let sample = member.point.decode(member.property.kind, read);
            known.push((member.position, sample.clone()));
            let found = match sample {
                Sample::Value(value) => value,
                Sample::Unreadable(why) => Value::Text(why),
            };
            let id = Arc::clone(&member.property.id);
            if member.point.same(&member.content, &read.content) {
                self.values.push((id, found));
            } else if self.failure.is_none() {
                let expected = member.value.clone();
                self.failure = Some(Outcome::Rejected(Rejection::Mismatch { id, expected, found }));
            }
        }
        self.unconfirmed = false;
        known
    }

    fn retry(&mut self, op: Op) {
        self.ops.push_front(op);
        self.ops.push_front(Op::Pause(CHECK_PAUSE));
    }

    pub(super) fn unanswered(&mut self) {
        match self.ops.pop_front() {
            Some(Op::Check(mut check)) => {
                check.left = check.left.saturating_sub(1);
                if check.left > 0 {
                    return self.retry(Op::Check(check));
                }
            }
            Some(Op::Look(mut look)) => {
                look.left = look.left.saturating_sub(1);
                if look.left > 0 {
                    return self.retry(Op::Look(look));
                }
                return self.refused(format!("no answer to the read before the write of {}", look.aim.label));
            }
            Some(Op::Send(..) | Op::Wait(_) | Op::Pause(_) | Op::Book(_)) | None => {}
        }
        self.failure = Some(Outcome::TimedOut);
    }

    fn book(&mut self) {
        while let Some(Op::Book(_)) = self.ops.front() {
            if let Some(Op::Book(values)) = self.ops.pop_front() {
                self.values.extend(values);
            }
        }
    }

    pub(super) fn outcome(self) -> (CommandId, Outcome) {
        let confirmed = || {
            if self.unconfirmed {
                Outcome::TimedOut
            } else {
                Outcome::Confirmed { values: self.values, outputs: Vec::new() }
            }
        };
        (self.command, self.failure.unwrap_or_else(confirmed))
    }
}

impl Aim {
    fn of(device: &ModbusDevice, position: usize, value: &Value) -> Result<Self, Rejection> {
        let property = device.device.product.properties.get(position);
        let point = device.map.properties.get(position).and_then(Option::as_ref);
        let (Some(property), Some(point)) = (property, point) else {
            let id =
                property.map_or_else(|| position.to_string().into(), |property| Arc::clone(&property.id));
            return Err(Rejection::UnknownProperty(id));
        };
        let label = Arc::clone(&property.id);
        let property = Some((position, property.clone()));
        Ok(Self { label, property, point: point.clone(), value: value.clone() })
    }

    /// The read that must come first, if one must. What can be known without it is checked now.
    fn look(&self) -> Result<Option<Span>, Rejection> {
        let Some(span) = self.point.needs() else { return Ok(None) };
        if self.point.factor.is_none() {
            let blank = vec![0; usize::from(self.point.data.count())];
            self.encode(Some(&Content::Registers(blank).into()))?;
        }
        Ok(Some(span))
    }

    fn encode(&self, before: Option<&Found>) -> Result<(Content, Vec<Request>), Rejection> {
        let refused = |error| refused_value(&self.label, &self.value, &error);
        let content = self.point.encode(&self.value, before).map_err(refused)?;
        let requests = self.point.write_requests(&content).map_err(refused)?;
        Ok((content, requests))
    }

    /// The step of a function.
    fn append_to(self, ops: &mut VecDeque<Op>) -> Result<(), Rejection> {
        match self.look()? {
            Some(span) => ops.push_back(Op::Look(Box::new(Look { span, aim: self, left: CHECKS }))),
            None => self.append_encoded(None, ops)?,
        }
        Ok(())
    }

    fn append_encoded(self, before: Option<&Found>, ops: &mut VecDeque<Op>) -> Result<(), Rejection> {
        if self.property.is_some() {
            Chunk::new(self, before)?.append_to(ops);
            return Ok(());
        }
        let (_, requests) = self.encode(before)?;
        ops.extend(requests.into_iter().map(|request| Op::Send(request, Arc::clone(&self.label))));
        Ok(())
    }
}

impl Written {
    fn is_checked(&self) -> bool {
        self.point.verify && self.property.access.readable()
    }

    fn as_written(&self) -> (Arc<str>, Value) {
        (Arc::clone(&self.property.id), self.value.clone())
    }
}

/// Properties that travel in the same requests.
struct Chunk {
    requests: Vec<Request>,
    span: Option<Span>,
    members: Vec<Written>,
}

impl Chunk {
    fn new(aim: Aim, before: Option<&Found>) -> Result<Self, Rejection> {
        let (content, requests) = aim.encode(before)?;
        let span = aim.point.span();
        let Aim { property, point, value, .. } = aim;
        let members = property.into_iter().map(|(position, property)| {
            // What the registers hold is what a value is compared with and shown as: 23.57 in tenths is 23.6.
            let held = Found { content: content.clone(), factor: before.and_then(|found| found.factor) };
            let value = match point.decode(property.kind, &held) {
                Sample::Value(value) => value,
                Sample::Unreadable(_) => value.clone(),
            };
            Written { position, property, point: point.clone(), content: content.clone(), value }
        });
        Ok(Self { requests, span, members: members.collect() })
    }

    /// All that writes these properties, in order.
    fn ops(aims: Vec<Aim>) -> Result<VecDeque<Op>, Rejection> {
        let mut ops = VecDeque::new();
        let mut open: Option<Self> = None;
        for aim in aims {
            let next = match aim.look()? {
                Some(span) => {
                    if let Some(chunk) = open.take() {
                        chunk.append_to(&mut ops);
                    }
                    ops.push_back(Op::Look(Box::new(Look { span, aim, left: CHECKS })));
                    continue;
                }
                None => Self::new(aim, None)?,
            };
            let left = match &mut open {
                Some(last) => last.take_in(next),
                None => Some(next),
            };
            if let Some(chunk) = left.and_then(|next| open.replace(next)) {
                chunk.append_to(&mut ops);
            }
        }
        if let Some(chunk) = open {
            chunk.append_to(&mut ops);
        }
        Ok(ops)
    }

    /// Takes in the next property if its registers follow directly and both are written by function 16 anyway.
    /// A device that takes only function 6 for single registers is so never sent a 16 that its policy did not ask
    /// for. Gives it back otherwise.
    fn take_in(&mut self, next: Self) -> Option<Self> {
        let checked = |chunk: &Self| chunk.members.iter().all(Written::is_checked);
        let (Some(span), Some(next_span)) = (self.span, next.span) else { return Some(next) };
        let joined = Span::new(span.table(), span.address(), span.count().saturating_add(next_span.count()));
        let alike = span.table() == next_span.table() && checked(self) == checked(&next);
        let follows = span.end() == u32::from(next_span.address());
        match (self.requests.as_mut_slice(), next.requests.as_slice(), joined) {
            (
                [Request::WriteRegisters { values, .. }],
                [Request::WriteRegisters { values: more, .. }],
                Some(joined),
            ) if alike && follows && joined.count() <= Table::Holding.write_limit() => {
                values.extend_from_slice(more);
                self.span = Some(joined);
                self.members.extend(next.members);
                None
            }
            _ => Some(next),
        }
    }

    fn append_to(self, ops: &mut VecDeque<Op>) {
        let ids: Vec<&str> = self.members.iter().map(|member| &*member.property.id).collect();
        let label: Arc<str> = ids.join(", ").into();
        ops.extend(self.requests.into_iter().map(|request| Op::Send(request, Arc::clone(&label))));
        ops.push_back(match self.span {
            Some(span) if self.members.iter().all(Written::is_checked) => {
                Op::Check(Check { span, members: self.members, left: CHECKS })
            }
            _ => Op::Book(self.members.iter().map(Written::as_written).collect()),
        });
    }
}

fn refused_value(id: &Arc<str>, value: &Value, error: &EncodeError) -> Rejection {
    Rejection::OutOfRange { id: Arc::clone(id), allowed: error.to_string(), found: value.clone() }
}

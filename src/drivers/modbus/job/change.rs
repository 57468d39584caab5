//! Writes and functions: steps in order, each write read back where the device lets itself be read.
//!
//! Nothing is sent unless every value can be encoded. The first refusal ends the rest, and says what had been
//! written before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::ModbusDevice;
use super::super::codec::{Content, EncodeError};
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
}

#[derive(Debug)]
enum Op {
    /// Sends a write; the words say of what.
    Send(Request, Arc<str>),
    Pause(Duration),
    Check(Check),
    /// Books values that are not read back.
    Book(Vec<(Arc<str>, Value)>),
}

/// A read after a write, and what it should find.
#[derive(Debug)]
struct Check {
    span: Span,
    members: Vec<Written>,
    left: u32,
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
        let written = values.iter().map(|(at, value)| Written::new(device, *at, value));
        let mut ops = VecDeque::new();
        for chunk in chunks(written.collect::<Result<_, _>>()?)? {
            chunk.append_to(&mut ops);
        }
        Ok(Self { command, ops, values: Vec::new(), failure: None, unconfirmed: false })
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
                    ops.push_back(Op::Pause(*pause));
                    continue;
                }
                Step::Write { point, value: Operand::Constant(value) } => (point, value, None),
                Step::Write { point, value: Operand::Input(id) } => {
                    let Some((_, value)) = inputs.iter().find(|(given, _)| given == id) else { continue };
                    (point, value, Some(id))
                }
            };
            let label: Arc<str> = format!("step {number}").into();
            let id = id.unwrap_or(&label);
            let refused = |error| refused_value(id, value, &error);
            let content = point.encode(value).map_err(refused)?;
            for request in point.write_requests(&content).map_err(refused)? {
                ops.push_back(Op::Send(request, Arc::clone(&label)));
            }
        }
        if ops.is_empty() {
            return Err(Rejection::ByDevice("the function has nothing to do on this device".to_owned()));
        }
        Ok(Self { command, ops, values: Vec::new(), failure: None, unconfirmed: false })
    }

    pub(super) fn command(&self) -> CommandId {
        self.command
    }

    pub(super) fn paused(&mut self) {
        self.ops.pop_front();
    }

    pub(super) fn act(&self) -> Act {
        match self.ops.front() {
            _ if self.failure.is_some() => Act::Finish,
            None | Some(Op::Book(_)) => Act::Finish,
            Some(Op::Send(request, _)) => Act::Exchange(request.clone()),
            Some(Op::Pause(pause)) => Act::Pause(*pause),
            Some(Op::Check(check)) => Act::Exchange(Request::Read(check.span)),
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer) -> Vec<(usize, Sample)> {
        let known = match self.ops.pop_front() {
            Some(Op::Send(_, label)) => {
                self.sent(&label, answer);
                Vec::new()
            }
            Some(Op::Check(check)) => self.checked(check, answer),
            Some(Op::Pause(_) | Op::Book(_)) | None => Vec::new(),
        };
        self.book();
        known
    }

    fn sent(&mut self, label: &str, answer: &Answer) {
        match answer {
            Answer::Exception(exception) if exception.is_acknowledge() => self.unconfirmed = true,
            Answer::Exception(exception) => {
                let mut words = format!("{exception} at {label}");
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
            // The form of an answer is that of its request, so this is always the first.
            Answer::Written | Answer::Bits(_) | Answer::Registers(_) => {}
        }
    }

    /// Compares what was read back. A difference is looked at again before it counts.
    fn checked(&mut self, mut check: Check, answer: &Answer) -> Vec<(usize, Sample)> {
        check.left = check.left.saturating_sub(1);
        if let Answer::Exception(exception) = answer {
            // A device that lets nobody read the place has still taken the write.
            if !exception.refuses_places() && exception.0 != 1 && check.left > 0 {
                self.look_again(check);
                return Vec::new();
            }
            self.values.extend(check.members.iter().map(Written::as_written));
            return Vec::new();
        }
        let found: Vec<(&Written, Option<Content>)> =
            check.members.iter().map(|member| (member, member.point.extract(check.span, answer))).collect();
        let differs = |(member, found): &&(&Written, Option<Content>)| {
            !found.as_ref().is_some_and(|found| member.point.same(&member.content, found))
        };
        if found.iter().any(|found| differs(&found)) && check.left > 0 {
            self.look_again(check);
            return Vec::new();
        }
        let mut known = Vec::new();
        for (member, content) in &found {
            let Some(content) = content else { continue };
            let sample = member.point.decode(member.property.kind, content);
            known.push((member.position, sample.clone()));
            let found = match sample {
                Sample::Value(value) => value,
                Sample::Unreadable(why) => Value::Text(why),
            };
            let id = Arc::clone(&member.property.id);
            if member.point.same(&member.content, content) {
                self.values.push((id, found));
            } else if self.failure.is_none() {
                let expected = member.value.clone();
                self.failure = Some(Outcome::Rejected(Rejection::Mismatch { id, expected, found }));
            }
        }
        self.unconfirmed = false;
        known
    }

    fn look_again(&mut self, check: Check) {
        self.ops.push_front(Op::Check(check));
        self.ops.push_front(Op::Pause(CHECK_PAUSE));
    }

    pub(super) fn unanswered(&mut self) {
        if let Some(Op::Check(mut check)) = self.ops.pop_front() {
            check.left = check.left.saturating_sub(1);
            if check.left > 0 {
                self.look_again(check);
                return;
            }
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

impl Written {
    fn new(device: &ModbusDevice, position: usize, value: &Value) -> Result<Self, Rejection> {
        let property = device.device.product.properties.get(position);
        let point = device.map.properties.get(position).and_then(Option::as_ref);
        let (Some(property), Some(point)) = (property, point) else {
            let id =
                property.map_or_else(|| position.to_string().into(), |property| Arc::clone(&property.id));
            return Err(Rejection::UnknownProperty(id));
        };
        let content = point.encode(value).map_err(|error| refused_value(&property.id, value, &error))?;
        // What the registers hold is what a value is compared with and shown as: 23.57 in tenths is 23.6.
        let value = match point.decode(property.kind, &content) {
            Sample::Value(value) => value,
            Sample::Unreadable(_) => value.clone(),
        };
        Ok(Self { position, property: property.clone(), point: point.clone(), content, value })
    }

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
    fn new(written: Written) -> Result<Self, Rejection> {
        let requests = written.point.write_requests(&written.content);
        let requests =
            requests.map_err(|error| refused_value(&written.property.id, &written.value, &error))?;
        Ok(Self { requests, span: written.point.span(), members: vec![written] })
    }

    /// Takes in the next property if its registers follow directly and both are written by function 16 anyway.
    /// A device that takes only function 6 for single registers is so never sent a 16 that its policy did not ask
    /// for. Gives it back otherwise.
    fn take_in(&mut self, next: Self) -> Option<Self> {
        let checked = |chunk: &Self| chunk.members.iter().all(Written::is_checked);
        let (Some(span), Some(next_span)) = (self.span, next.span) else { return Some(next) };
        let joined =
            Span::new(Table::Holding, span.address(), span.count().saturating_add(next_span.count()));
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

fn chunks(written: Vec<Written>) -> Result<Vec<Chunk>, Rejection> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for written in written {
        let next = Chunk::new(written)?;
        let left = match chunks.last_mut() {
            Some(last) => last.take_in(next),
            None => Some(next),
        };
        chunks.extend(left);
    }
    Ok(chunks)
}

fn refused_value(id: &Arc<str>, value: &Value, error: &EncodeError) -> Rejection {
    Rejection::OutOfRange { id: Arc::clone(id), allowed: error.to_string(), found: value.clone() }
}

//! Set-up: registers that a device is written when it comes online or returns, such as the mode of its channels.
//!
//! Nobody waits for the outcome; what the device refuses is said once in the log. Set-up values are the same each time, so
//! a write that was not answered is sent again. A check reads first, and becomes the whole set-up where something else
//! stands there. Memory that wears out (`min_write_interval`) is read first too, and written only where that is so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::super::ModbusDevice;
use super::super::codec::Found;
use super::super::map::{Operand, Point, Step};
use super::Act;
use crate::model::value::Value;
use crate::proto::modbus::Span;
use crate::proto::modbus::frame::{Answer, Request};

/// How often one write is sent before the set-up is given up; the device is then most likely gone again.
const TRIES: u32 = 3;

/// How often a device that says that it is busy is asked again, and how long it is left alone before: many are busy for
/// some seconds when they start, which is when they are set up.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// The steps that are left.
#[derive(Debug)]
pub(in crate::drivers::modbus) struct Setup {
    device: Arc<str>,
    ops: VecDeque<Op>,
    tries: u32,
    busy: u32,
    /// So many of the next writes were made of what has just been read.
    holds: usize,
    /// Memory that wears out was written.
    wore: bool,
    verdict: Verdict,
    /// The whole set-up, for a check that finds it gone.
    whole: VecDeque<Op>,
}

/// What has come of a set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drivers::modbus) enum Verdict {
    /// It was no check.
    SetUp,
    /// The device holds what it was told, as far as it can be read.
    Held,
    /// It did not, and was told again.
    Lost,
}

#[derive(Clone, Debug)]
enum Op {
    /// Reads what must be known before a value can be encoded; becomes the write of it.
    Look(Box<(Span, Point, Value)>),
    /// The same for memory that wears out: it is written only where something else stands there, or nothing can be read.
    See(Box<(Span, Point, Value)>),
    Send(Request),
    Pause(Duration),
    /// Reads what was written, and compares.
    Check(Box<(Span, Point, Value)>),
}

impl Setup {
    /// The set-up of a device; `None` where there is nothing to set up.
    pub(in crate::drivers::modbus) fn new(device: &ModbusDevice) -> Option<Self> {
        let ops = ops(device);
        (!ops.is_empty()).then(|| Self::of(device, ops, Verdict::SetUp, VecDeque::new()))
    }

    /// The look whether a device still holds its set-up; `None` where there is nothing to look at.
    pub(in crate::drivers::modbus) fn check(device: &ModbusDevice) -> Option<Self> {
        let check = |step: &Step| match step {
            Step::Write { point, value: Operand::Constant(value) } => {
                Some(Op::Check(Box::new((point.span()?, point.clone(), value.clone()))))
            }
            Step::Write { value: Operand::Input(_), .. } | Step::Wait(_) => None,
        };
        let checks: VecDeque<Op> = device.map.setup.iter().filter_map(check).collect();
        (!checks.is_empty()).then(|| Self::of(device, checks, Verdict::Held, ops(device)))
    }

    fn of(device: &ModbusDevice, ops: VecDeque<Op>, verdict: Verdict, whole: VecDeque<Op>) -> Self {
        let device = Arc::clone(&device.device.id);
        Self { device, ops, tries: TRIES, busy: BUSY_TRIES, holds: 0, wore: false, verdict, whole }
    }

    /// What has come of it, once it has ended.
    pub(in crate::drivers::modbus) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether memory that wears out was written.
    pub(in crate::drivers::modbus) fn wore(&self) -> bool {
        self.wore
    }

    pub(super) fn act(&self) -> Act {
        match self.ops.front() {
            Some(Op::Look(look) | Op::See(look) | Op::Check(look)) => Act::Exchange(Request::Read(look.0)),
            Some(Op::Send(request)) => Act::Exchange(request.clone()),
            Some(Op::Pause(pause)) => Act::Pause(*pause),
            None => Act::Finish,
        }
    }

    /// Whether the next request must follow on the last one with nothing in between.
    pub(super) fn holds_line(&self) -> bool {
        self.holds > 0 && matches!(self.ops.front(), Some(Op::Send(_)))
    }

    pub(super) fn answered(&mut self, answer: &Answer) {
        let device = &*self.device;
        let asked = self.ops.pop_front();
        self.tries = TRIES;
        let is_busy = matches!(answer, Answer::Exception(exception) if exception.is_busy());
        let asked = match asked {
            Some(op @ (Op::Look(_) | Op::See(_) | Op::Send(_))) if is_busy && self.busy > 0 => {
                self.busy -= 1;
                self.ops.push_front(op);
                self.ops.push_front(Op::Pause(BUSY_PAUSE));
                return;
            }
            asked => asked,
        };
        if matches!(asked, Some(Op::Send(_))) {
            self.holds = self.holds.saturating_sub(1);
        }
        match (asked, answer) {
            (Some(Op::See(look)), answer) if look.1.needs().is_none() || !is_refusal(answer) => {
                let (span, point, value) = *look;
                let found = point.extract(span, answer);
                if found.as_ref().is_some_and(|found| holds(&point, &value, found)) {
                    debug!(device, place = %span, "the device holds this part of its set-up already");
                } else {
                    self.wore = true;
                    self.write(&point, &value, found.as_ref());
                }
            }
            (Some(Op::Check(look)), answer) => {
                let (span, point, value) = *look;
                if is_gone(device, &point, span, &value, answer) {
                    self.verdict = Verdict::Lost;
                    self.ops = std::mem::take(&mut self.whole);
                }
            }
            (Some(Op::Look(look) | Op::See(look)), Answer::Exception(exception)) => {
                warn!(device, place = %look.0, %exception, "the device refuses the read before its set-up");
                self.ops.clear();
            }
            (Some(Op::Look(look)), answer) => {
                let (span, point, value) = *look;
                let found = point.extract(span, answer);
                self.write(&point, &value, found.as_ref());
            }
            (Some(Op::Send(request)), Answer::Exception(exception)) if !exception.is_acknowledge() => {
                warn!(device, %request, %exception, "the device refuses its set-up; it works with other settings");
                self.ops.clear();
            }
            _ if self.ops.is_empty() => debug!(device, "the device is set up"),
            _ => {}
        }
    }

    /// Lets a value be written next.
    fn write(&mut self, point: &Point, value: &Value, found: Option<&Found>) {
        let requests = sends(&self.device, point, value, found);
        self.holds = requests.len();
        for request in requests.into_iter().rev() {
            self.ops.push_front(request);
        }
    }

    pub(super) fn unanswered(&mut self) {
        self.tries = self.tries.saturating_sub(1);
        if self.tries == 0 {
            if let Some(Op::See(look)) = self.ops.front().filter(|op| is_blind(op)).cloned() {
                // Some devices keep silent where they cannot be read.
                let (_, point, value) = *look;
                self.ops.pop_front();
                self.tries = TRIES;
                self.wore = true;
                return self.write(&point, &value, None);
            }
        }
        if self.tries == 0 && matches!(self.ops.front(), Some(Op::Check(_))) {
            // Whether it is there at all is for the polls to say.
            self.ops.clear();
        } else if self.tries == 0 {
            warn!(
                device = &*self.device,
                "the device does not answer to its set-up; it is set up when it returns"
            );
            self.ops.clear();
        }
    }

    pub(super) fn paused(&mut self) {
        self.ops.pop_front();
    }
}

/// The whole set-up of a device.
fn ops(device: &ModbusDevice) -> VecDeque<Op> {
    let mut ops = VecDeque::new();
    for step in &device.map.setup {
        match step {
            Step::Wait(pause) => ops.push_back(Op::Pause(*pause)),
            Step::Write { point, value: Operand::Constant(value) } => {
                let aim = |span| Box::new((span, point.clone(), value.clone()));
                let worn = device.map.worn_by(&[point]).first().and_then(|_| point.span());
                match (point.needs(), worn) {
                    (Some(span), Some(_)) | (None, Some(span)) => ops.push_back(Op::See(aim(span))),
                    (Some(span), None) => ops.push_back(Op::Look(aim(span))),
                    (None, None) => ops.extend(sends(&device.device.id, point, value, None)),
                }
            }
            // Nobody is there to give an input.
            Step::Write { value: Operand::Input(_), .. } => {}
        }
    }
    ops
}

/// Whether a value can be written without knowing what stands there.
fn is_blind(op: &Op) -> bool {
    matches!(op, Op::See(look) if look.1.needs().is_none())
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Exception(_))
}

/// Whether a value stands there already.
fn holds(point: &Point, value: &Value, found: &Found) -> bool {
    point.encode(value, Some(found)).is_ok_and(|told| point.same(&told, &found.content))
}

/// Whether something else stands where a set-up value was written. What cannot be read is taken for held.
fn is_gone(device: &str, point: &Point, span: Span, value: &Value, answer: &Answer) -> bool {
    let Some(found) = point.extract(span, answer) else {
        debug!(device, place = %span, "the set-up cannot be read back there");
        return false;
    };
    let gone = point.encode(value, Some(&found)).is_ok_and(|told| !point.same(&told, &found.content));
    if gone {
        warn!(device, place = %span, expected = %value, "the device does not hold its set-up any more; it is set up again");
    }
    gone
}

/// The writes of a value; none, and a word in the log, where it does not fit.
fn sends(device: &str, point: &Point, value: &Value, found: Option<&Found>) -> Vec<Op> {
    let content = point.encode(value, found);
    match content.and_then(|content| point.write_requests(&content)) {
        Ok(requests) => requests.into_iter().map(Op::Send).collect(),
        Err(error) => {
            warn!(device, %error, "a set-up value does not fit its registers");
            Vec::new()
        }
    }
}

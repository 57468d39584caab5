//! Set-up: registers that a device is written when it comes online or returns, such as the mode of its channels.
//!
//! Nobody waits for the outcome; what the device refuses is said once in the log. Set-up values are the same each time, so
//! a write that was not answered is sent again.

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

/// The steps that are left.
#[derive(Debug)]
pub(in crate::drivers::modbus) struct Setup {
    device: Arc<str>,
    ops: VecDeque<Op>,
    tries: u32,
    /// The write that comes next was made of what has just been read.
    holds: bool,
}

#[derive(Debug)]
enum Op {
    /// Reads what must be known before a value can be encoded; becomes the write of it.
    Look(Box<(Span, Point, Value)>),
    Send(Request),
    Pause(Duration),
}

impl Setup {
    /// The set-up of a device; `None` where there is nothing to set up.
    pub(in crate::drivers::modbus) fn new(device: &ModbusDevice) -> Option<Self> {
        let mut ops = VecDeque::new();
        for step in &device.map.setup {
            match step {
                Step::Wait(pause) => ops.push_back(Op::Pause(*pause)),
                Step::Write { point, value: Operand::Constant(value) } => match point.needs() {
                    Some(span) => ops.push_back(Op::Look(Box::new((span, point.clone(), value.clone())))),
                    None => ops.extend(sends(&device.device.id, point, value, None)),
                },
                // Nobody is there to give an input.
                Step::Write { value: Operand::Input(_), .. } => {}
            }
        }
        (!ops.is_empty()).then(|| Self {
            device: Arc::clone(&device.device.id),
            ops,
            tries: TRIES,
            holds: false,
        })
    }

    pub(super) fn act(&self) -> Act {
        match self.ops.front() {
            Some(Op::Look(look)) => Act::Exchange(Request::Read(look.0)),
            Some(Op::Send(request)) => Act::Exchange(request.clone()),
            Some(Op::Pause(pause)) => Act::Pause(*pause),
            None => Act::Finish,
        }
    }

    /// Whether the next request must follow on the last one with nothing in between.
    pub(super) fn holds_line(&self) -> bool {
        self.holds && matches!(self.ops.front(), Some(Op::Send(_)))
    }

    pub(super) fn answered(&mut self, answer: &Answer) {
        let device = &*self.device;
        let asked = self.ops.pop_front();
        self.tries = TRIES;
        match (asked, answer) {
            (Some(Op::Look(look)), Answer::Exception(exception)) => {
                warn!(device, place = %look.0, %exception, "the device refuses the read before its set-up");
                self.ops.clear();
            }
            (Some(Op::Look(look)), answer) => {
                let (span, point, value) = *look;
                let found = point.extract(span, answer);
                for request in sends(device, &point, &value, found.as_ref()).into_iter().rev() {
                    self.ops.push_front(request);
                }
                self.holds = true;
            }
            (Some(Op::Send(request)), Answer::Exception(exception)) if !exception.is_acknowledge() => {
                warn!(device, %request, %exception, "the device refuses its set-up; it works with other settings");
                self.ops.clear();
            }
            _ if self.ops.is_empty() => debug!(device, "the device is set up"),
            _ => {}
        }
    }

    pub(super) fn unanswered(&mut self) {
        self.tries = self.tries.saturating_sub(1);
        if self.tries == 0 {
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

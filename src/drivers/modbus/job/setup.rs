//! Set-up: registers that a device is written when it comes online or returns, such as the mode of its channels.
//!
//! Nobody waits for the outcome; what the device refuses is said once in the log. Set-up values are the same each time, so
//! a write that was not answered is sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::super::ModbusDevice;
use super::super::map::{Operand, Step};
use super::Act;
use crate::proto::modbus::frame::{Answer, Request};

/// How often one write is sent before the set-up is given up; the device is then most likely gone again.
const TRIES: u32 = 3;

/// The steps that are left.
#[derive(Debug)]
pub(in crate::drivers::modbus) struct Setup {
    device: Arc<str>,
    ops: VecDeque<Op>,
    tries: u32,
}

#[derive(Debug)]
enum Op {
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
                Step::Write { point, value: Operand::Constant(value) } => {
                    let requests = point.encode(value).and_then(|content| point.write_requests(&content));
                    match requests {
                        Ok(requests) => ops.extend(requests.into_iter().map(Op::Send)),
                        Err(error) => {
                            warn!(device = %device.device.id, %error, "a set-up value does not fit its registers");
                        }
                    }
                }
                // Nobody is there to give an input.
                Step::Write { value: Operand::Input(_), .. } => {}
            }
        }
        (!ops.is_empty()).then(|| Self { device: Arc::clone(&device.device.id), ops, tries: TRIES })
    }

    pub(super) fn act(&self) -> Act {
        match self.ops.front() {
            Some(Op::Send(request)) => Act::Exchange(request.clone()),
            Some(Op::Pause(pause)) => Act::Pause(*pause),
            None => Act::Finish,
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer) {
        let device = &*self.device;
        let asked = self.ops.pop_front();
        self.tries = TRIES;
        match (asked, answer) {
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

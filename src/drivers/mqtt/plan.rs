//! How a command becomes messages: its steps, and the messages that serve them.
//!
//! Pure. What is sent for a value or a call stands ready in the station; here it gets its number, its time and its
//! place in the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::Subject;
use super::ledger::{Awaited, Command, Ledger, Request, Step};
use super::packet::Extra;
use super::station::{Letter, Station};
use crate::drivers::CommandId;
use crate::model::command::{Outcome, Rejection};
use crate::model::time::Now;

/// How long the broker may take to acknowledge a message. A broker that is there answers within a round trip.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(10);

/// Names a message on its way: its number, which is also what its answer is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// A message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Comes back with the driver's word of what became of it.
    pub ticket: Ticket,
    /// Where to.
    pub topic: Arc<str>,
    /// What.
    pub payload: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// What travels beside it with MQTT 5.
    pub extra: Extra,
}

/// A command that is put together: its steps, and the messages that serve them.
pub(super) struct Plan {
    id: CommandId,
    pub(super) station: usize,
    now: Now,
    pub(super) steps: Vec<Step>,
    requests: Vec<(u64, Request)>,
    pub(super) messages: Vec<Outgoing>,
    sent: bool,
    until: Instant,
}

impl Plan {
    pub(super) fn new(id: CommandId, station: usize, now: Now) -> Self {
        Self {
            id,
            station,
            now,
            steps: Vec::new(),
            requests: Vec::new(),
            messages: Vec::new(),
            sent: false,
            until: now.instant,
        }
    }

    /// A step with a message of its own.
    pub(super) fn send(
        &mut self,
        letter: &Letter,
        payload: String,
        number: u64,
        subject: Subject,
        step: Step,
    ) {
        let time = letter.wait.as_ref().map_or(ACKNOWLEDGE_WITHIN, |wait| wait.timeout);
        let until = self.now.instant + time;
        self.until = self.until.max(until);
        let serves = vec![(self.id, self.steps.len())];
        self.steps.push(step);
        let request = Request { station: self.station, subject, serves, sent: false, answered: false, until };
        self.requests.push((number, request));
        let response_topic = letter.wait.as_ref().and_then(|wait| wait.response_topic.clone());
        let correlation = response_topic.is_some().then(|| number.to_string().into());
        let extra = Extra { response_topic, correlation, user: letter.user.clone() };
        let (topic, qos, retain) = (Arc::clone(&letter.topic), letter.qos, letter.retain);
        self.messages.push(Outgoing { ticket: Ticket(number), topic, payload, qos, retain, extra });
    }

    /// Whether some of it is done when the broker has it, whatever the device does.
    pub(super) fn trusts_broker(&self) -> bool {
        self.steps.iter().any(|step| step.awaited.is_none())
    }

    /// A step that reads: by a message that asks for the same already, or by a new one.
    pub(super) fn read(
        &mut self,
        station: &Station,
        property: usize,
        read: usize,
        ledger: &mut Ledger,
    ) -> Result<(), Outcome> {
        let step = Step::new(Some((property, station.property_id(property))), None, Some(Awaited::Reading));
        let serve = (self.id, self.steps.len());
        let own = self.requests.iter_mut().find(|(_, request)| request.subject == Subject::Read(read));
        let shared = match own {
            Some((_, request)) => Some(request),
            None => ledger.same_read(self.station, read, self.now.instant),
        };
        if let Some(request) = shared {
            request.serves.push(serve);
            self.sent |= request.sent;
            self.until = self.until.max(request.until);
            self.steps.push(step);
            return Ok(());
        }
        let number = ledger.number(self.id);
        let asked = station.ask(read, number).ok_or(Outcome::Rejected(Rejection::Empty))?;
        let (letter, payload) =
            asked.map_err(|error| Outcome::Rejected(Rejection::ByDevice(error.to_string())))?;
        self.send(letter, payload, number, Subject::Read(read), step);
        Ok(())
    }

    /// Enters it into the ledger, to be begun by then, and gives its messages.
    pub(super) fn begin(self, start_by: Instant, ledger: &mut Ledger) -> Vec<Outgoing> {
        let Self { id, station, steps, requests, messages, sent, until, .. } = self;
        ledger.begin(id, Command { station, steps, sent, start_by, until }, requests);
        messages
    }
}

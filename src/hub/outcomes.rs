//! Outcomes that clients may come back for: what became of the last commands, for whoever sent them.
//!
//! A session hears the outcomes of its own commands while it lasts. A client that sends a command by one HTTP call
//! and asks for its outcome by another has no session in between; the hub keeps what it was told for a while.
//! Nothing of it outlives the process. Whether the client still sees the device is for its session to look at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::client::Client;
use crate::model::command::Outcome;
use crate::model::snapshot::Settled;
use crate::model::value::Value;

/// Outcomes that are kept. When full the oldest goes.
pub(super) const OUTCOMES: usize = 1024;

/// Bytes that their values may come to, about. When full the oldest go; one that is larger alone is not kept.
pub(super) const OUTCOME_BYTES: usize = 1 << 20;

/// How long an outcome is kept: long beside every deadline that a client can give a command.
pub(super) const OUTCOME_LIFETIME: Duration = Duration::from_secs(900);

/// The last outcomes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    until: Instant,
    bytes: usize,
    settled: Arc<Settled>,
}

impl Outcomes {
    /// Keeps one more.
    pub(super) fn keep(&mut self, settled: Settled, now: Instant) {
        let bytes = weight(&settled);
        if bytes > OUTCOME_BYTES {
            return;
        }
        self.expire(now);
        while self.kept.len() >= OUTCOMES || self.bytes + bytes > OUTCOME_BYTES {
            self.drop_oldest();
        }
        self.bytes += bytes;
        let settled = Arc::new(settled);
        self.kept.push_back(Kept { until: now + OUTCOME_LIFETIME, bytes, settled });
    }

    /// The newest outcome of a command that this client sent under this message id.
    pub(super) fn find(&mut self, client: &Client, message_id: &str, now: Instant) -> Option<Arc<Settled>> {
        self.expire(now);
        let mine = |kept: &&Kept| {
            let command = &kept.settled.command;
            command.client == client.id && &*command.message_id == message_id
        };
        self.kept.iter().rev().find(mine).map(|kept| Arc::clone(&kept.settled))
    }

    fn expire(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|oldest| oldest.until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }
}

/// What an outcome takes, roughly: its texts and a share for each value.
fn weight(settled: &Settled) -> usize {
    let command = &settled.command;
    command.message_id.len() + named(&command.values) + of_outcome(&settled.outcome)
}

/// What an outcome takes, roughly.
pub(super) fn of_outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Confirmed { values, outputs } => named(values) + named(outputs),
        Outcome::Rejected(rejection) => rejection.to_string().len(),
        Outcome::Offline | Outcome::TimedOut | Outcome::Busy | Outcome::Forbidden => 0,
    }
}

/// What named values take, roughly.
pub(super) fn named(values: &[(Arc<str>, Value)]) -> usize {
    values.iter().map(|(name, value)| name.len() + of_value(value)).sum()
}

/// What a value takes, roughly.
pub(super) fn of_value(value: &Value) -> usize {
    const SHARE: usize = 32;
    SHARE
        + match value {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(of_value).sum(),
            Value::Object(members) => {
                members.iter().map(|(name, member)| name.len() + of_value(member)).sum()
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::client::{DeviceFilter, Rights, Secret};
    use crate::model::command::ActionKind;
    use crate::model::message::CommandNote;
    use crate::model::time::UnixMillis;

    fn client(id: &str) -> Client {
        Client {
            id: id.into(),
            secret: Secret::new(id),
            dialects: Vec::new(),
            devices: DeviceFilter::new(["*"]),
            rights: Rights::ALL,
        }
    }

    fn settled(client: &str, message_id: &str, output: &str) -> Settled {
        let command = CommandNote {
            message_id: message_id.into(),
            kind: ActionKind::Invoke,
            function: Some("reset".into()),
            values: Vec::new(),
            client: client.into(),
        };
        let outputs = vec![("text".into(), Value::text(output))];
        Settled {
            device: "press-1".into(),
            command: Arc::new(command),
            outcome: Arc::new(Outcome::Confirmed { values: Vec::new(), outputs }),
            at: UnixMillis(1),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_outcome_is_found_by_its_client_and_id_until_its_time_is_over() {
        let (now, mut outcomes) = (epoch(), Outcomes::default());
        outcomes.keep(settled("a", "1", "old"), now);
        outcomes.keep(settled("a", "1", "new"), now);
        let found = outcomes.find(&client("a"), "1", now).unwrap();
        assert_eq!(*found, settled("a", "1", "new"));
        assert_eq!(outcomes.find(&client("b"), "1", now), None);
        assert_eq!(outcomes.find(&client("a"), "2", now), None);
        assert_eq!(outcomes.find(&client("a"), "1", now + OUTCOME_LIFETIME), None);
        assert_eq!(outcomes.bytes, 0);
    }

    #[test]
    fn the_oldest_make_room_for_new_ones_by_number_and_by_size() {
        let (now, mut outcomes) = (epoch(), Outcomes::default());
        for at in 0..=OUTCOMES {
            outcomes.keep(settled("a", &at.to_string(), ""), now);
        }
        assert_eq!((outcomes.kept.len(), outcomes.find(&client("a"), "0", now)), (OUTCOMES, None));
        let large = "x".repeat(OUTCOME_BYTES / 2);
        for id in ["l1", "l2", "l3"] {
            outcomes.keep(settled("a", id, &large), now);
        }
        assert!(outcomes.bytes <= OUTCOME_BYTES);
        assert_eq!(outcomes.find(&client("a"), "l1", now), None);
        assert!(outcomes.find(&client("a"), "l3", now).is_some());
        outcomes.keep(settled("a", "too large", &"x".repeat(OUTCOME_BYTES)), now);
        assert!(outcomes.find(&client("a"), "l3", now).is_some(), "what cannot be kept drives nothing out");
    }
}

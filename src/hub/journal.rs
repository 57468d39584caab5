//! The journal of writes and function calls: one line in the log for each property that a command was to change,
//! whatever became of it.
//!
//! Lines have the target `pentad::journal` and the level info. They say who wrote, from where, by which dialect, to
//! what, what it was before, what was wanted, what it is now, and the outcome in words; never a credential. Pure but
//! for log lines.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::handle::SessionKey;
use crate::model::client::{Client, Dialect, Origin};
use crate::model::command::{Action, ActionKind, Command, Outcome, Rejection};
use crate::model::message::CommandNote;
use crate::model::value::Value;

/// Lines in one second. A client that writes in a loop must not fill the disk; what goes beyond is only counted.
const LINES_PER_SECOND: u32 = 50;

/// Most characters of a value in a line.
const SHOWN: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Journal {
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
    /// Where the sessions come from that are attached: at most one entry for each.
    origins: BTreeMap<SessionKey, Arc<Origin>>,
}

/// Who did it.
struct Author<'a> {
    client: &'a str,
    origin: &'a Origin,
}

/// What was to change.
struct Change<'a> {
    /// Property or function.
    what: &'a str,
    before: Option<&'a Value>,
    wanted: String,
    after: Option<&'a Value>,
}

impl Journal {
    /// A session is there.
    pub(super) fn came_from(&mut self, session: SessionKey, origin: Arc<Origin>) {
        self.origins.insert(session, origin);
    }

    /// A session has ended. Commands of it that are under way know where it came from.
    pub(super) fn left(&mut self, session: SessionKey) {
        self.origins.remove(&session);
    }

    /// Where a session comes from.
    pub(super) fn origin(&self, session: SessionKey) -> Arc<Origin> {
        self.origins.get(&session).map(Arc::clone).unwrap_or_default()
    }

    /// A command has its outcome.
    pub(super) fn settled(
        &mut self,
        device: &str,
        origin: &Origin,
        known_before: &[(Arc<str>, Value)],
        note: &CommandNote,
        outcome: &Outcome,
        now: Instant,
    ) {
        let author = Author { client: &note.client, origin };
        match note.kind {
            ActionKind::Read => {}
            ActionKind::Invoke => {
                let what = note.function.as_deref().unwrap_or_default();
                let change = Change { what, before: None, wanted: inputs(&note.values), after: None };
                self.line("function", &author, device, &change, outcome, now);
            }
            ActionKind::Write => {
                for (property, wanted) in &note.values {
                    let before = value_of(known_before, property);
                    let after = after(outcome, property);
                    let change = Change { what: property, before, wanted: short(wanted), after };
                    self.line("write", &author, device, &change, outcome, now);
                }
            }
        }
    }

    /// A command was refused before it travelled.
    pub(super) fn refused(
        &mut self,
        session: SessionKey,
        client: &Client,
        command: &Command,
        outcome: &Outcome,
        now: Instant,
    ) {
        let origin = self.origin(session);
        let author = Author { client: &client.id, origin: &origin };
        match &command.action {
            Action::Read(_) => {}
            Action::Invoke { function, inputs: given } => {
                let change = Change { what: function, before: None, wanted: inputs(given), after: None };
                self.line("function", &author, &command.device, &change, outcome, now);
            }
            Action::Write(values) => {
                for (property, wanted) in values {
                    let change = Change { what: property, before: None, wanted: short(wanted), after: None };
                    self.line("write", &author, &command.device, &change, outcome, now);
                }
            }
        }
    }

    fn line(
        &mut self,
        kind: &'static str,
        author: &Author<'_>,
        device: &str,
        change: &Change<'_>,
        outcome: &Outcome,
        now: Instant,
    ) {
        if !self.may(now) {
            return;
        }
        let known = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), short);
        info!(
            target: "pentad::journal",
            client = short(author.client),
            peer = author.origin.peer.map(|peer| peer.to_string()),
            dialect = author.origin.dialect.map(Dialect::name),
            device = short(device),
            property = short(change.what),
            before = known(change.before),
            wanted = change.wanted,
            after = known(change.after),
            outcome = words(outcome),
            "{kind}"
        );
    }

    /// Whether one more line may be written.
    fn may(&mut self, now: Instant) -> bool {
        let fresh =
            self.second.is_none_or(|begun| now.saturating_duration_since(begun) >= Duration::from_secs(1));
        if fresh {
            if self.left_out > 0 {
                warn!(target: "pentad::journal", left_out = self.left_out, "more commands than the journal writes down");
            }
            (self.second, self.lines, self.left_out) = (Some(now), 0, 0);
        }
        self.lines = self.lines.saturating_add(1);
        let may = self.lines <= LINES_PER_SECOND;
        if !may {
            self.left_out = self.left_out.saturating_add(1);
        }
        may
    }
}

fn value_of<'a>(values: &'a [(Arc<str>, Value)], id: &str) -> Option<&'a Value> {
    values.iter().find(|(known, _)| **known == *id).map(|(_, value)| value)
}

/// What the property is known to be now.
fn after<'a>(outcome: &'a Outcome, property: &str) -> Option<&'a Value> {
    match outcome {
        Outcome::Confirmed { values, .. } => value_of(values, property),
        Outcome::Rejected(Rejection::Mismatch { id, found, .. }) if **id == *property => Some(found),
        Outcome::Rejected(_) | Outcome::Offline | Outcome::TimedOut | Outcome::Busy | Outcome::Forbidden => {
            None
        }
    }
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Confirmed { .. } => "confirmed".to_owned(),
        Outcome::Rejected(rejection) => format!("rejected: {}", short(rejection)),
        Outcome::Offline => "offline".to_owned(),
        Outcome::TimedOut => "unknown: no answer in time".to_owned(),
        Outcome::Busy => "busy".to_owned(),
        Outcome::Forbidden => "forbidden".to_owned(),
    }
}

fn inputs(inputs: &[(Arc<str>, Value)]) -> String {
    let named: Vec<String> = inputs.iter().map(|(id, value)| format!("{id}={value}")).collect();
    short(named.join(", "))
}

fn short(text: impl Display) -> String {
    let text = text.to_string();
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

//! Queries over past values, a slice at a time, so that none of them keeps the store from its writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::database::{Database, Trouble};
use super::{Ask, Asked, record};
use crate::dialects::Token;
use crate::model::device::Device;
use crate::model::history::{
    Events, HISTORY_EVENTS, HISTORY_ROWS, History, HistoryRow, Latest, Past, PastMessage,
};
use crate::model::message::{Body, DeviceMessage, Kinds, Report};
use crate::model::snapshot::Answer;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};
use tokio::sync::mpsc;

/// Messages that are looked at in one slice: about a millisecond on a small machine.
const SLICE: usize = 512;

/// Where a slice begins and in which direction it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: UnixMillis,
    pub(super) to: UnixMillis,
    pub(super) backwards: bool,
    /// Time and number of the message that was looked at last.
    pub(super) after: Option<(i64, i64)>,
}

/// A query under way.
#[derive(Debug)]
pub(super) struct Scan {
    device: Arc<str>,
    /// Devices whose turn comes after this one.
    others: VecDeque<Arc<str>>,
    kind: Kinds,
    properties: Vec<Arc<str>>,
    range: Range,
    /// The number of the last message when the scan began; a later one is not looked at.
    until: Option<u64>,
    found: Found,
    token: Token,
    answers: mpsc::Sender<(Token, Answer)>,
}

#[derive(Debug)]
enum Found {
    Rows { history: History, offset: u64, limit: usize },
    Latest { values: BTreeMap<Arc<str>, Vec<(UnixMillis, Value)>>, count: usize, left: usize },
    Events { device: Arc<Device>, count: usize, messages: Vec<Arc<DeviceMessage>> },
    Past { past: Past, of_device: Share, each: Share, after: u64 },
}

/// How many messages of a device are still to be passed over, and then given.
#[derive(Clone, Copy, Debug)]
struct Share {
    offset: u64,
    limit: usize,
}

/// Everything, the newest first.
const ALL_BACKWARDS: Range =
    Range { from: UnixMillis(i64::MIN), to: UnixMillis(i64::MAX), backwards: true, after: None };

impl Scan {
    pub(super) fn new(asked: Asked) -> Self {
        let Asked { question, token, answers } = asked;
        match question {
            Ask::History(query) => Self {
                device: query.device,
                others: VecDeque::new(),
                kind: Kinds::PROPERTIES,
                properties: query.properties,
                range: Range { from: query.from, to: query.to, backwards: query.newest_first, after: None },
                until: None,
                found: Found::Rows {
                    history: History { kept: true, total: 0, rows: Vec::new() },
                    offset: query.offset,
                    limit: query.limit.min(HISTORY_ROWS),
                },
                token,
                answers,
            },
            Ask::Latest(query) => Self {
                device: query.device,
                others: VecDeque::new(),
                kind: Kinds::PROPERTIES,
                properties: query.properties,
                range: ALL_BACKWARDS,
                until: None,
                found: Found::Latest { values: BTreeMap::new(), count: query.count, left: HISTORY_ROWS },
                token,
                answers,
            },
            Ask::Events { device, count } => Self {
                device: Arc::clone(&device.id),
                others: VecDeque::new(),
                kind: Kinds::EVENT,
                properties: Vec::new(),
                range: ALL_BACKWARDS,
                until: None,
                found: Found::Events { device, count: count.min(HISTORY_EVENTS), messages: Vec::new() },
                token,
                answers,
            },
            Ask::Past(query) => {
                let mut others = VecDeque::from(query.devices);
                let each = Share { offset: query.offset, limit: query.limit };
                let (from, to) = (query.from, UnixMillis(i64::MAX));
                Self {
                    // A name that no device has, so that there is nothing to find.
                    device: others.pop_front().unwrap_or_default(),
                    others,
                    kind: query.kind,
                    properties: Vec::new(),
                    range: Range { from, to, backwards: query.newest_first, after: None },
                    until: None,
                    found: Found::Past {
                        past: Past { kept: true, messages: Vec::new() },
                        of_device: each,
                        each,
                        after: query.after,
                    },
                    token,
                    answers,
                }
            }
        }
    }

    /// Looks at one more slice; `true` when there is nothing more to look at.
    pub(super) fn advance(&mut self, database: &Database) -> Result<bool, Trouble> {
        if self.answers.is_closed() {
            return Ok(true);
        }
        let until = match self.until {
            Some(until) => until,
            None => *self.until.insert(database.last()?),
        };
        if let Found::Events { device, count, messages } = &mut self.found {
            *messages = last_events(database, device, *count)?;
            return Ok(true);
        }
        let slice = database.messages(&self.device, self.kind, &self.range, SLICE)?;
        let last = slice.len() < SLICE;
        for (at, seq, body) in slice {
            self.range.after = Some((at.0, seq));
            // Written since, with a clock that was set back.
            if u64::try_from(seq).is_ok_and(|seq| seq > until) {
                continue;
            }
            match (body, &self.found) {
                (Some(body), Found::Past { .. }) => self.keep(database, at, seq, body)?,
                (Some(Body::Properties(reports)), Found::Rows { .. } | Found::Latest { .. }) => {
                    self.take(at, reports);
                }
                (Some(_) | None, _) => {}
            }
        }
        if !(last || self.satisfied()) {
            return Ok(false);
        }
        let Some(next) = self.others.pop_front() else { return Ok(true) };
        self.device = next;
        self.range.after = None;
        if let Found::Past { past, of_device, each, .. } = &mut self.found {
            *of_device = *each;
            return Ok(past.messages.len() >= HISTORY_ROWS);
        }
        Ok(false)
    }

    /// Sends the answer with what was found.
    pub(super) fn finish(self) {
        let seq = self.until.unwrap_or(0);
        let answer = match self.found {
            Found::Rows { history, .. } => Answer::History(Arc::new(history)),
            Found::Latest { values, .. } => {
                let oldest_first = |(id, mut values): (_, Vec<_>)| {
                    values.reverse();
                    (id, values)
                };
                let values = values.into_iter().map(oldest_first).collect();
                Answer::Latest(Arc::new(Latest { kept: true, seq, values }))
            }
            Found::Events { messages, .. } => Answer::Events(Arc::new(Events { kept: true, seq, messages })),
            Found::Past { past, .. } => Answer::Past(Arc::new(past)),
        };
        // A session that has ended wants no answer.
        drop(self.answers.try_send((self.token, answer)));
    }

    fn keep(&mut self, database: &Database, at: UnixMillis, seq: i64, body: Body) -> Result<(), Trouble> {
        let Found::Past { past, of_device, after, .. } = &mut self.found else { return Ok(()) };
        let seq = u64::try_from(seq).unwrap_or(0);
        if seq <= *after || of_device.limit == 0 || past.messages.len() >= HISTORY_ROWS {
            return Ok(());
        }
        if of_device.offset > 0 {
            of_device.offset -= 1;
            return Ok(());
        }
        of_device.limit -= 1;
        let came = matches!(body, Body::Presence { online: true, .. });
        let heard = if came { database.heard(&self.device, at)? } else { None };
        past.messages.push(PastMessage { seq, at, device: Arc::clone(&self.device), body, heard });
        Ok(())
    }

    fn take(&mut self, at: UnixMillis, reports: Vec<Report>) {
        let wanted = |report: &Report| {
            report.quality == Quality::Good
                && (self.properties.is_empty() || self.properties.contains(&report.id))
        };
        let reports = reports.into_iter().filter(wanted);
        match &mut self.found {
            Found::Rows { history, offset, limit } => {
                let values: Vec<_> = reports.map(|report| (report.id, report.value)).collect();
                if values.is_empty() {
                    return;
                }
                if history.total >= *offset && history.rows.len() < *limit {
                    history.rows.push(HistoryRow { at, values });
                }
                history.total += 1;
            }
            Found::Latest { values, count, left } => {
                for report in reports {
                    let known = values.entry(report.id).or_default();
                    if known.len() < *count && *left > 0 {
                        known.push((at, report.value));
                        *left -= 1;
                    }
                }
            }
            Found::Events { .. } | Found::Past { .. } => {}
        }
    }

    /// Whether more could not change the answer.
    fn satisfied(&self) -> bool {
        match &self.found {
            Found::Rows { .. } | Found::Events { .. } => false,
            Found::Past { past, of_device, .. } => {
                of_device.limit == 0 || past.messages.len() >= HISTORY_ROWS
            }
            Found::Latest { values, count, left } => {
                let full = |id: &Arc<str>| values.get(id).is_some_and(|values| values.len() >= *count);
                *left == 0 || *count == 0 || (!self.properties.is_empty() && self.properties.iter().all(full))
            }
        }
    }
}

/// The last events and alarms of a device together, oldest first.
fn last_events(
    database: &Database,
    device: &Arc<Device>,
    count: usize,
) -> Result<Vec<Arc<DeviceMessage>>, Trouble> {
    let mut messages = Vec::new();
    for kind in [Kinds::EVENT, Kinds::ALARM] {
        for (at, seq, body) in database.messages(&device.id, kind, &ALL_BACKWARDS, count)? {
            let (Ok(seq), Some(mut body)) = (u64::try_from(seq), body) else { continue };
            if record::place(&mut body, &device.product) {
                messages.push(Arc::new(DeviceMessage::new(seq, at, Arc::clone(device), body)));
            }
        }
    }
    messages.sort_unstable_by_key(|message| message.seq);
    let surplus = messages.len().saturating_sub(count);
    messages.drain(..surplus);
    Ok(messages)
}

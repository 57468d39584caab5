//! Queries over past values, a slice at a time, so that none of them keeps the store from its writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::database::{Database, Trouble};
use super::{Ask, Asked};
use crate::dialects::Token;
use crate::model::history::{HISTORY_ROWS, History, HistoryRow, Latest};
use crate::model::message::{Body, Report};
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
    properties: Vec<Arc<str>>,
    range: Range,
    found: Found,
    token: Token,
    answers: mpsc::Sender<(Token, Answer)>,
}

#[derive(Debug)]
enum Found {
    Rows { history: History, offset: u64, limit: usize },
    Latest { values: BTreeMap<Arc<str>, Vec<(UnixMillis, Value)>>, count: usize, left: usize },
}

impl Scan {
    pub(super) fn new(asked: Asked) -> Self {
        let Asked { question, token, answers } = asked;
        match question {
            Ask::History(query) => Self {
                device: query.device,
                properties: query.properties,
                range: Range { from: query.from, to: query.to, backwards: query.newest_first, after: None },
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
                properties: query.properties,
                range: Range {
                    from: UnixMillis(i64::MIN),
                    to: UnixMillis(i64::MAX),
                    backwards: true,
                    after: None,
                },
                found: Found::Latest { values: BTreeMap::new(), count: query.count, left: HISTORY_ROWS },
                token,
                answers,
            },
        }
    }

    /// Looks at one more slice; `true` when there is nothing more to look at.
    pub(super) fn advance(&mut self, database: &Database) -> Result<bool, Trouble> {
        if self.answers.is_closed() {
            return Ok(true);
        }
        let slice = database.reports(&self.device, &self.range, SLICE)?;
        let last = slice.len() < SLICE;
        for (at, seq, body) in slice {
            self.range.after = Some((at.0, seq));
            if let Some(Body::Properties(reports)) = body {
                self.take(at, reports);
            }
        }
        Ok(last || self.satisfied())
    }

    /// Sends the answer with what was found.
    pub(super) fn finish(self) {
        let answer = match self.found {
            Found::Rows { history, .. } => Answer::History(Arc::new(history)),
            Found::Latest { values, .. } => {
                let oldest_first = |(id, mut values): (_, Vec<_>)| {
                    values.reverse();
                    (id, values)
                };
                let values = values.into_iter().map(oldest_first).collect();
                Answer::Latest(Arc::new(Latest { kept: true, values }))
            }
        };
        // A session that has ended wants no answer.
        drop(self.answers.try_send((self.token, answer)));
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
        }
    }

    /// Whether more could not change the answer.
    fn satisfied(&self) -> bool {
        match &self.found {
            Found::Rows { .. } => false,
            Found::Latest { values, count, left } => {
                let full = |id: &Arc<str>| values.get(id).is_some_and(|values| values.len() >= *count);
                *left == 0 || *count == 0 || (!self.properties.is_empty() && self.properties.iter().all(full))
            }
        }
    }
}

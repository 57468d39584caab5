//! What is known of one property of a device, and whether others must hear of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::message::Report;
use crate::model::product::{Property, ReportOn, ReportRule};
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Reading, Value};

/// Between two lines that a property cannot be read, so that one which comes and goes does not fill the log.
const QUIET: Duration = Duration::from_secs(60);

/// One property's state.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    pub(super) reading: Option<Reading>,
    pub(super) trouble: Trouble,
    /// When the last reading came.
    taken: Option<Instant>,
    reported: Option<Reported>,
    /// Whether the reading came after the last report.
    fresh: bool,
    /// Whether the reading is stale only because the device is offline, which its presence tells.
    silent: bool,
}

/// What others were told last.
#[derive(Clone, Debug)]
struct Reported {
    value: Value,
    quality: Quality,
    when: Instant,
}

/// What the log knows of a property that gives no reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// Whether the log's last word is that it cannot be read.
    open: bool,
    /// When it said so.
    told: Option<Instant>,
    /// Failures that it was not told of.
    untold: u64,
}

impl Trouble {
    /// It cannot be read. Gives the failures before that the log was not told of, if it is to be told now.
    pub(super) fn begins(&mut self, now: Instant) -> Option<u64> {
        let quiet = self.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        if self.open || quiet {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        (self.open, self.told) = (true, Some(now));
        Some(std::mem::take(&mut self.untold))
    }

    /// It was read. Gives the failures since the log was told, if it was.
    pub(super) fn ends(&mut self) -> Option<u64> {
        std::mem::take(&mut self.open).then(|| std::mem::take(&mut self.untold).saturating_add(1))
    }
}

impl Point {
    /// A good reading. Gives the value before.
    pub(super) fn take(&mut self, value: Value, at: UnixMillis, now: Instant) -> Option<Value> {
        let before = self.reading.replace(Reading { value, at, quality: Quality::Good });
        (self.taken, self.fresh, self.silent) = (Some(now), true, false);
        before.map(|reading| reading.value)
    }

    /// The device answered with something that is no reading.
    pub(super) fn spoil(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.quality = Quality::Bad;
        }
    }

    /// What it is computed from is stale.
    pub(super) fn age(&mut self) {
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.quality == Quality::Good) {
            reading.quality = Quality::Stale;
            self.silent = false;
        }
    }

    /// The device went offline.
    pub(super) fn lose(&mut self) {
        if let Some(reading) = &mut self.reading {
            self.silent |= reading.quality != Quality::Stale;
            reading.quality = Quality::Stale;
        }
    }

    /// Makes a reading stale whose time is over. `online` is since when the device answers: one that has just come
    /// back is given its time anew. Gives whether something changed.
    pub(super) fn expire(&mut self, property: &Property, online: Option<Instant>, now: Instant) -> bool {
        let over = self.expires(property, online).is_some_and(|due| due <= now);
        if let Some(reading) = self.reading.as_mut().filter(|_| over) {
            reading.quality = Quality::Stale;
            self.silent = false;
        }
        over
    }

    /// When its time is over, if it has one and it is not over yet.
    fn expires(&self, property: &Property, online: Option<Instant>) -> Option<Instant> {
        let quality = self.reading.as_ref()?.quality;
        let counts = quality == Quality::Good || (quality == Quality::Stale && self.silent);
        let since = self.taken.max(online).filter(|_| counts)?;
        since.checked_add(property.stale_after?)
    }

    /// Whether there is something that others do not know yet.
    fn differs(&self, rule: &ReportRule) -> bool {
        match (&self.reading, &self.reported) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(reading), Some(reported)) => match reading.quality {
                Quality::Stale => !self.silent && reported.quality == Quality::Good,
                Quality::Bad => reported.quality != Quality::Bad,
                Quality::Good => {
                    reported.quality != Quality::Good
                        || match rule.on {
                            ReportOn::Change => moved(rule, &reported.value, &reading.value),
                            ReportOn::Reading => self.fresh,
                            ReportOn::Heartbeat => false,
                        }
                }
            },
        }
    }

    /// A new reading is due if it differs and the last report is long enough ago, or if the heartbeat has come. That
    /// a reading is stale is told at once: it is late enough.
    pub(super) fn due(&self, property: &Property, now: Instant) -> bool {
        let stale = self.reading.as_ref().is_some_and(|reading| reading.quality == Quality::Stale);
        let waits = |reported: &Reported| stale || after(reported.when, property.report.min_interval, now);
        let may = self.reported.as_ref().is_none_or(waits);
        (self.differs(&property.report) && may) || self.heartbeat_due(property, now)
    }

    /// Whether a change waits for its report.
    pub(super) fn waits(&self, property: &Property, _now: Instant) -> bool {
        self.differs(&property.report)
    }

    fn heartbeat_due(&self, property: &Property, now: Instant) -> bool {
        let good = self.reading.as_ref().is_some_and(|reading| reading.quality == Quality::Good);
        let beats = |reported: &Reported| {
            property.report.heartbeat.is_some() && after(reported.when, property.report.heartbeat, now)
        };
        good && self.reported.as_ref().is_some_and(beats)
    }

    /// When the passing of time alone may change something of an online device's property.
    pub(super) fn timeout(&self, property: &Property, online: Option<Instant>) -> Option<Instant> {
        let (reading, reported) = (self.reading.as_ref()?, self.reported.as_ref()?);
        let waiting = if self.differs(&property.report) { property.report.min_interval } else { None };
        let beating = if reading.quality == Quality::Good { property.report.heartbeat } else { None };
        let soonest = [waiting, beating].into_iter().flatten().min();
        let report = soonest.and_then(|soonest| reported.when.checked_add(soonest));
        [report, self.expires(property, online)].into_iter().flatten().min()
    }

    pub(super) fn report(&self, position: usize, property: &Property) -> Option<Report> {
        let Reading { value, at, quality } = self.reading.clone()?;
        Some(Report { property: position, id: Arc::clone(&property.id), value, at, quality })
    }

    pub(super) fn told(&mut self, now: Instant) {
        if let Some(Reading { value, quality, .. }) = self.reading.clone() {
            self.reported = Some(Reported { value, quality, when: now });
            self.fresh = false;
        }
    }
}

/// Whether so much time has passed; always, where no time is set.
fn after(when: Instant, wait: Option<Duration>, now: Instant) -> bool {
    wait.is_none_or(|wait| now.saturating_duration_since(when) >= wait)
}

/// Whether a value has moved far enough to be worth a report. A deadband is for numbers that are measured.
fn moved(rule: &ReportRule, from: &Value, to: &Value) -> bool {
    if from == to {
        return false;
    }
    let measured = matches!(to, Value::Int(_) | Value::Float(_));
    match (measured, from.as_f64(), to.as_f64()) {
        (true, Some(from), Some(to)) => {
            let far = rule.deadband.max(from.abs() * rule.percent / 100.0);
            // The margin is for decimal fractions: 20.2 is 0.2 away from 20 although floats disagree.
            let margin = 1e-9 * from.abs().max(to.abs()).max(1.0);
            (to - from).abs() >= far - margin.min(far)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_comes_and_goes_is_told_of_once_a_minute_with_a_count() {
        let begun = crate::clock::instant();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut trouble = Trouble::default();
        assert_eq!(trouble.ends(), None);
        assert_eq!(
            (trouble.begins(at(0)), trouble.begins(at(1)), trouble.begins(at(99))),
            (Some(0), None, None)
        );
        assert_eq!(trouble.ends(), Some(3));
        assert_eq!(trouble.begins(at(100)), Some(0));
        assert_eq!(trouble.ends(), Some(1));
        assert_eq!((trouble.begins(at(101)), trouble.ends(), trouble.begins(at(102))), (None, None, None));
        assert_eq!(trouble.begins(at(160)), Some(2));
    }

    #[test]
    fn of_two_deadbands_the_larger_counts() {
        let rule = ReportRule { deadband: 0.5, percent: 2.0, ..ReportRule::default() };
        let far = |from, to| moved(&rule, &Value::Float(from), &Value::Float(to));
        assert!(far(10.0, 10.5) && !far(10.0, 10.4), "2 % of 10 is less than 0.5");
        assert!(far(-230.0, -225.4) && !far(-230.0, -226.0), "2 % of 230 is 4.6");
        assert!(far(0.0, 0.5) && !far(0.0, 0.4), "a percentage of nothing is nothing");
    }
}

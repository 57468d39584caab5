//! What is known of one device: its readings, whether it answers, which alarms are raised, and which of all that
//! is worth a device message.
//!
//! A reading is always taken over; the report rule of its property only decides when others hear of it. Facts are
//! handed out without a number: the state numbers them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::alarms::Alarms;
use crate::drivers::Sample;
use crate::model::check::same;
use crate::model::device::Device;
use crate::model::message::{Body, Report};
use crate::model::product::{EventTrigger, Level, Property, ReportRule};
use crate::model::snapshot::DeviceSnapshot;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Reading, Value};

/// One device's state.
#[derive(Debug)]
pub(super) struct DeviceState {
    device: Arc<Device>,
    /// `None` until it is first heard of.
    online: Option<bool>,
    since: Option<UnixMillis>,
    /// By position in the product's properties.
    points: Vec<Point>,
    alarms: Alarms,
}

/// One property's state.
#[derive(Clone, Debug, Default)]
struct Point {
    reading: Option<Reading>,
    reported: Option<Reported>,
    trouble: Trouble,
}

/// What the log knows of a property that gives no reading.
#[derive(Clone, Debug, Default)]
struct Trouble {
    /// Whether the log's last word is that it cannot be read.
    open: bool,
    /// When it said so.
    told: Option<Instant>,
    /// Failures that it was not told of.
    untold: u64,
}

/// Between two lines that a property cannot be read, so that one which comes and goes does not fill the log.
const QUIET: Duration = Duration::from_secs(60);

/// What others were told last.
#[derive(Clone, Debug)]
struct Reported {
    value: Value,
    quality: Quality,
    when: Instant,
}

impl DeviceState {
    pub(super) fn new(device: Arc<Device>) -> Self {
        let points = vec![Point::default(); device.product.properties.len()];
        Self { device, online: None, since: None, points, alarms: Alarms::default() }
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether it is known not to answer; a device that was never heard of is worth a try.
    pub(super) fn known_offline(&self) -> bool {
        self.online == Some(false)
    }

    /// Takes readings over. A device that gives any is online.
    pub(super) fn values(
        &mut self,
        at: UnixMillis,
        values: Vec<(usize, Sample)>,
        now: Instant,
        facts: &mut Vec<Body>,
    ) {
        self.presence(at, true, None, now, facts);
        let product = Arc::clone(&self.device.product);
        let mut touched = Vec::with_capacity(values.len());
        let mut consequences = Vec::new();
        for (position, sample) in values {
            let (Some(property), Some(point)) =
                (product.properties.get(position), self.points.get_mut(position))
            else {
                continue;
            };
            touched.push(position);
            match sample {
                // A driver promises not to give these; one that did must not end up in front of a client.
                Sample::Value(Value::Float(n)) if !n.is_finite() => point.spoil(),
                Sample::Unreadable(reason) => {
                    point.spoil();
                    if let Some(untold) = point.trouble.begins(now) {
                        warn!(device = %self.device.id, property = &*property.id, %reason, untold, "property cannot be read");
                    }
                }
                Sample::Value(value) => {
                    if let Some(failures) = point.trouble.ends() {
                        info!(device = %self.device.id, property = &*property.id, failures, "property can be read again");
                    }
                    let before = point.reading.take().map(|reading| reading.value);
                    if let Some(before) = before {
                        fire(&self.device, position, &before, &value, &mut consequences);
                    }
                    self.alarms.judge(position, &property.alarms, &value, &mut consequences);
                    point.reading = Some(Reading { value, at, quality: Quality::Good });
                }
            }
        }
        self.report(touched, now, facts, Point::due);
        facts.append(&mut consequences);
    }

    /// Takes presence over, if it changed. Going offline makes every reading stale, after those that still waited
    /// for their report have been told.
    pub(super) fn presence(
        &mut self,
        at: UnixMillis,
        online: bool,
        reason: Option<Arc<str>>,
        now: Instant,
        facts: &mut Vec<Body>,
    ) {
        if self.online == Some(online) {
            return;
        }
        if !online {
            self.report(0..self.points.len(), now, facts, Point::waits);
            for reading in self.points.iter_mut().filter_map(|point| point.reading.as_mut()) {
                reading.quality = Quality::Stale;
            }
        }
        self.online = Some(online);
        self.since = Some(at);
        facts.push(Body::Presence { online, reason: if online { None } else { reason } });
    }

    /// An event that the device sent itself; one that the product does not name counts as information.
    pub(super) fn event(&self, event: Arc<str>, params: Vec<(Arc<str>, Value)>, facts: &mut Vec<Body>) {
        let known = self.device.product.events.iter().find(|known| known.id == event);
        let level = known.map_or(Level::Info, |known| known.level);
        facts.push(Body::Event { event, level, params });
    }

    /// Reports what a report rule held back or asks for again.
    pub(super) fn handle_timeout(&mut self, now: Instant, facts: &mut Vec<Body>) {
        if self.online == Some(true) {
            self.report(0..self.points.len(), now, facts, Point::due);
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        if self.online != Some(true) {
            return None;
        }
        let points = self.points.iter().zip(&self.device.product.properties);
        points.filter_map(|(point, property)| point.timeout(property)).min()
    }

    /// Every known reading as a report, for a session that missed some.
    pub(super) fn newest(&self) -> Option<Body> {
        let points = self.points.iter().zip(&self.device.product.properties).enumerate();
        let reports: Vec<Report> =
            points.filter_map(|(position, (point, property))| point.report(position, property)).collect();
        (!reports.is_empty()).then_some(Body::Properties(reports))
    }

    /// The last values of these properties. One whose device last answered with something that is no reading has
    /// no value that could be confirmed.
    pub(super) fn known(&self, positions: &[usize]) -> Vec<(Arc<str>, Value)> {
        let known = |position: &usize| {
            let property = self.device.product.properties.get(*position)?;
            let reading = self.points.get(*position)?.reading.as_ref()?;
            (reading.quality != Quality::Bad).then(|| (Arc::clone(&property.id), reading.value.clone()))
        };
        positions.iter().filter_map(known).collect()
    }

    /// An alarm of a client was raised or has cleared. Gives all that are raised now.
    pub(super) fn alarm(&mut self, rule: &Arc<str>, raised: bool) -> Vec<Arc<str>> {
        self.alarms.set(rule, raised);
        self.alarms.active().to_vec()
    }

    pub(super) fn snapshot(&self) -> DeviceSnapshot {
        DeviceSnapshot {
            device: Arc::clone(&self.device),
            online: self.online == Some(true),
            since: self.since,
            readings: self.points.iter().map(|point| point.reading.clone()).collect(),
            alarms: self.alarms.active().to_vec(),
        }
    }

    /// Puts all of these points that are due into one message.
    fn report(
        &mut self,
        positions: impl IntoIterator<Item = usize>,
        now: Instant,
        facts: &mut Vec<Body>,
        due: impl Fn(&Point, &Property, Instant) -> bool,
    ) {
        let mut reports = Vec::new();
        for position in positions {
            let (Some(point), Some(property)) =
                (self.points.get_mut(position), self.device.product.properties.get(position))
            else {
                continue;
            };
            if due(point, property, now) {
                reports.extend(point.report(position, property));
                point.told(now);
            }
        }
        if !reports.is_empty() {
            facts.push(Body::Properties(reports));
        }
    }
}

impl Trouble {
    /// It cannot be read. Gives the failures before that the log was not told of, if it is to be told now.
    fn begins(&mut self, now: Instant) -> Option<u64> {
        let quiet = self.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        if self.open || quiet {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        (self.open, self.told) = (true, Some(now));
        Some(std::mem::take(&mut self.untold))
    }

    /// It was read. Gives the failures since the log was told, if it was.
    fn ends(&mut self) -> Option<u64> {
        std::mem::take(&mut self.open).then(|| std::mem::take(&mut self.untold).saturating_add(1))
    }
}

impl Point {
    /// The device answered with something that is no reading.
    fn spoil(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.quality = Quality::Bad;
        }
    }

    /// Whether there is something that others do not know yet.
    fn differs(&self, rule: &ReportRule) -> bool {
        match (&self.reading, &self.reported) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(reading), Some(reported)) => match reading.quality {
                // That nothing is known any more is told by the device's presence.
                Quality::Stale => false,
                Quality::Bad => reported.quality != Quality::Bad,
                Quality::Good => {
                    reported.quality != Quality::Good || moved(rule, &reported.value, &reading.value)
                }
            },
        }
    }

    /// A new reading is due if it differs and the last report is long enough ago, or if the heartbeat has come.
    fn due(&self, property: &Property, now: Instant) -> bool {
        let waits = |reported: &Reported| after(reported.when, property.report.min_interval, now);
        let may = self.reported.as_ref().is_none_or(waits);
        (self.differs(&property.report) && may) || self.heartbeat_due(property, now)
    }

    /// Whether a change waits for its report.
    fn waits(&self, property: &Property, _now: Instant) -> bool {
        self.differs(&property.report)
    }

    fn heartbeat_due(&self, property: &Property, now: Instant) -> bool {
        let good = self.reading.as_ref().is_some_and(|reading| reading.quality == Quality::Good);
        let beats = |reported: &Reported| {
            property.report.heartbeat.is_some() && after(reported.when, property.report.heartbeat, now)
        };
        good && self.reported.as_ref().is_some_and(beats)
    }

    fn timeout(&self, property: &Property) -> Option<Instant> {
        let (reading, reported) = (self.reading.as_ref()?, self.reported.as_ref()?);
        let waiting = if self.differs(&property.report) { property.report.min_interval } else { None };
        let beating = if reading.quality == Quality::Good { property.report.heartbeat } else { None };
        let soonest = [waiting, beating].into_iter().flatten().min()?;
        reported.when.checked_add(soonest)
    }

    fn report(&self, position: usize, property: &Property) -> Option<Report> {
        let Reading { value, at, quality } = self.reading.clone()?;
        Some(Report { property: position, id: Arc::clone(&property.id), value, at, quality })
    }

    fn told(&mut self, now: Instant) {
        if let Some(Reading { value, quality, .. }) = self.reading.clone() {
            self.reported = Some(Reported { value, quality, when: now });
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
    let measured = matches!(to, Value::Int(_) | Value::Float(_)) && rule.deadband > 0.0;
    match (measured, from.as_f64(), to.as_f64()) {
        // The margin is for decimal fractions: 20.2 is 0.2 away from 20 although floats disagree.
        (true, Some(from), Some(to)) => {
            (to - from).abs() >= rule.deadband - 1e-9 * from.abs().max(to.abs()).max(1.0)
        }
        _ => true,
    }
}

/// Fires the events that wait for a property to become this value.
fn fire(device: &Device, position: usize, before: &Value, value: &Value, facts: &mut Vec<Body>) {
    for event in &device.product.events {
        let Some(EventTrigger { property, equals }) = &event.when else { continue };
        if *property == position && same(equals, value) && !same(equals, before) {
            facts.push(Body::Event { event: Arc::clone(&event.id), level: event.level, params: Vec::new() });
        }
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
}

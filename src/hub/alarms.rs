//! Which alarms are raised on one device.
//!
//! An alarm is raised when its condition has held for its delay, and cleared when the value has been back by the
//! hysteresis for the other delay; between the two nothing changes. Only good readings are judged, so neither a bad
//! sample nor an offline device raises or clears anything; both interrupt a delay, since nothing is known of the time
//! until the next reading. The one exception is the alarm for the lack of readings.
//!
//! Nothing is remembered over a restart: what holds then is raised again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::check::same;
use crate::model::message::Body;
use crate::model::product::{AlarmCondition, AlarmRule, Direction, Product, Rate};
use crate::model::value::Value;

/// Readings that one rule on a rate remembers. Nearer ones than its window allows for replace each other.
const SAMPLES: u32 = 32;

/// The alarms of one device.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// Rule ids in raising order.
    active: Vec<Arc<str>>,
    /// One for each enabled rule, in the order of the properties.
    watches: Vec<Watch>,
}

/// One rule on one device.
#[derive(Debug)]
struct Watch {
    property: usize,
    rule: Arc<AlarmRule>,
    stage: Stage,
    /// The last good value.
    value: Value,
    /// When that came, or when the watch began.
    heard: Option<Instant>,
    track: Track,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not raised, and the condition does not hold.
    Quiet,
    /// Not raised yet; the condition holds since then.
    Rising(Instant),
    Raised,
    /// Still raised; the value is back since then.
    Falling(Instant),
}

/// What a value means for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The condition holds.
    Holds,
    /// It does not hold, but the value has not come back far enough either.
    Between,
    /// The value is back where it should be.
    Over,
}

impl Alarms {
    pub(super) fn new(product: &Product) -> Self {
        let properties = product.properties.iter().enumerate();
        let rules = properties.flat_map(|(at, property)| property.alarms.iter().map(move |rule| (at, rule)));
        let enabled = rules.filter(|(_, rule)| rule.enabled);
        Self {
            active: Vec::new(),
            watches: enabled.map(|(property, rule)| Watch::new(property, rule)).collect(),
        }
    }

    /// Takes over the rules of another product. Where a rule stands that is there under the same id, of the same
    /// property, stays; whether its condition still holds shows at the next reading.
    pub(super) fn adopt(&mut self, old: &Product, product: &Product) {
        let of = |product: &Product, at: usize| {
            product.properties.get(at).map(|property| Arc::clone(&property.id))
        };
        let mut known = std::mem::replace(&mut self.watches, Self::new(product).watches);
        for watch in &mut self.watches {
            let same = |before: &Watch| {
                before.rule.id == watch.rule.id && of(old, before.property) == of(product, watch.property)
            };
            let Some(at) = known.iter().position(same) else { continue };
            let before = known.swap_remove(at);
            (watch.stage, watch.value, watch.heard) = (before.stage, before.value, before.heard);
            if before.rule.condition == watch.rule.condition {
                watch.track = before.track;
            }
        }
    }

    /// The time begins from which the lack of readings counts.
    pub(super) fn begin(&mut self, now: Instant) {
        for watch in &mut self.watches {
            watch.heard.get_or_insert(now);
        }
    }

    /// Rule ids in raising order.
    pub(super) fn active(&self) -> &[Arc<str>] {
        &self.active
    }

    /// An alarm that is judged elsewhere was raised or has cleared.
    pub(super) fn set(&mut self, rule: &Arc<str>, raised: bool) {
        self.active.retain(|id| id != rule);
        if raised {
            self.active.push(Arc::clone(rule));
        }
    }

    /// Judges a new good value by the rules of its property and says what changed.
    pub(super) fn judge(&mut self, property: usize, value: &Value, now: Instant, facts: &mut Vec<Body>) {
        for at in 0..self.watches.len() {
            let Some(watch) = self.watches.get_mut(at).filter(|watch| watch.property == property) else {
                continue;
            };
            watch.value = value.clone();
            watch.heard = Some(now);
            let verdict = watch.verdict(now);
            let change = watch.step(verdict, now);
            self.tell(at, change, facts);
        }
    }

    /// Nothing is known of this property any more; of any, where none is named.
    pub(super) fn interrupt(&mut self, property: Option<usize>) {
        for watch in &mut self.watches {
            if property.is_none_or(|property| property == watch.property) {
                watch.interrupt();
            }
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.watches.iter().filter_map(Watch::due).min()
    }

    /// Raises and clears what has held long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant, facts: &mut Vec<Body>) {
        for at in 0..self.watches.len() {
            // Silence may begin to hold and hold long enough in one turn, hence a second look.
            for _ in 0..2 {
                let Some(watch) = self.watches.get_mut(at) else { continue };
                let Some(due) = watch.due().filter(|due| *due <= now) else { break };
                let change = match watch.stage {
                    Stage::Quiet => watch.step(Verdict::Holds, due),
                    Stage::Rising(_) => watch.step(Verdict::Holds, now),
                    Stage::Falling(_) => watch.step(Verdict::Over, now),
                    Stage::Raised => None,
                };
                self.tell(at, change, facts);
            }
        }
    }

    /// Makes a fact of a change, if there was one.
    fn tell(&mut self, at: usize, change: Option<bool>, facts: &mut Vec<Body>) {
        let (Some(raised), Some(watch)) = (change, self.watches.get(at)) else { return };
        let (rule, property, value) = (Arc::clone(&watch.rule), watch.property, watch.value.clone());
        self.set(&rule.id, raised);
        facts.push(Body::Alarm { rule, property, raised, value, active: self.active.clone() });
    }
}

impl Watch {
    fn new(property: usize, rule: &Arc<AlarmRule>) -> Self {
        Self {
            property,
            rule: Arc::clone(rule),
            stage: Stage::Quiet,
            value: Value::Null,
            heard: None,
            track: Track::default(),
        }
    }

    /// When the passing of time alone may change something.
    fn due(&self) -> Option<Instant> {
        match (self.stage, &self.rule.condition) {
            (Stage::Rising(since), _) => since.checked_add(self.rule.delay),
            (Stage::Falling(since), _) => since.checked_add(self.rule.clear_delay),
            (Stage::Quiet, AlarmCondition::NoData(silence)) => self.heard?.checked_add(*silence),
            (Stage::Quiet | Stage::Raised, _) => None,
        }
    }

    /// Goes on by what the value means; gives whether the alarm was raised or has cleared, if either.
    fn step(&mut self, verdict: Verdict, now: Instant) -> Option<bool> {
        let long = |since: Instant, delay: Duration| now.saturating_duration_since(since) >= delay;
        let (stage, change) = match (self.stage, verdict) {
            (Stage::Quiet, Verdict::Holds) if self.rule.delay.is_zero() => (Stage::Raised, Some(true)),
            (Stage::Quiet, Verdict::Holds) => (Stage::Rising(now), None),
            (Stage::Rising(since), Verdict::Holds) if long(since, self.rule.delay) => {
                (Stage::Raised, Some(true))
            }
            (Stage::Rising(_), Verdict::Between | Verdict::Over) => (Stage::Quiet, None),
            (Stage::Raised, Verdict::Over) if self.rule.clear_delay.is_zero() => (Stage::Quiet, Some(false)),
            (Stage::Raised, Verdict::Over) => (Stage::Falling(now), None),
            (Stage::Falling(since), Verdict::Over) if long(since, self.rule.clear_delay) => {
                (Stage::Quiet, Some(false))
            }
            (Stage::Falling(_), Verdict::Holds | Verdict::Between) => (Stage::Raised, None),
            (stage, _) => (stage, None),
        };
        self.stage = stage;
        change
    }

    fn interrupt(&mut self) {
        self.track.clear();
        let silence = matches!(self.rule.condition, AlarmCondition::NoData(_));
        match self.stage {
            Stage::Rising(_) if !silence => self.stage = Stage::Quiet,
            Stage::Falling(_) => self.stage = Stage::Raised,
            Stage::Quiet | Stage::Rising(_) | Stage::Raised => {}
        }
    }

    fn verdict(&mut self, now: Instant) -> Verdict {
        let hysteresis = self.rule.hysteresis.max(0.0);
        let number = self.value.as_f64();
        let (holds, over) = match (&self.rule.condition, number) {
            (AlarmCondition::Above(limit), Some(n)) => (n > *limit, n <= limit - hysteresis),
            (AlarmCondition::Below(limit), Some(n)) => (n < *limit, n >= limit + hysteresis),
            // A text has no place above or below anything, and does not move. Alarms of clients are judged elsewhere.
            (AlarmCondition::Above(_) | AlarmCondition::Below(_) | AlarmCondition::Rate(_), None)
            | (AlarmCondition::Client { .. }, _) => (false, false),
            (AlarmCondition::Equal(limit), n) => {
                let distance = n.zip(limit.as_f64()).map(|(n, limit)| (n - limit).abs());
                (same(limit, &self.value), distance.is_none_or(|distance| distance > hysteresis))
            }
            (AlarmCondition::NotEqual(limit), n) => {
                let distance = n.zip(limit.as_f64()).map(|(n, limit)| (n - limit).abs());
                let near = distance.is_some_and(|distance| distance <= hysteresis);
                let is = near || same(limit, &self.value);
                (!is, is)
            }
            (AlarmCondition::Rate(rate), Some(n)) => match self.track.rate(rate, n, now) {
                Some(moved) => swift(rate, moved, hysteresis),
                None => (false, false),
            },
            (AlarmCondition::NoData(_), _) => (false, true),
        };
        match (holds, over) {
            (true, _) => Verdict::Holds,
            (false, true) => Verdict::Over,
            (false, false) => Verdict::Between,
        }
    }
}

/// Whether a value moves too fast, and whether it is slow enough again.
fn swift(rate: &Rate, moved: f64, hysteresis: f64) -> (bool, bool) {
    match rate.direction {
        Direction::Up => (moved > rate.limit, moved <= rate.limit - hysteresis),
        Direction::Down => (moved < rate.limit, moved >= rate.limit + hysteresis),
        Direction::Both => {
            let (moved, limit) = (moved.abs(), rate.limit.abs());
            (moved > limit, moved <= limit - hysteresis)
        }
    }
}

/// The last readings of a value whose rate is judged: at most [`SAMPLES`] and three more.
#[derive(Debug, Default)]
struct Track {
    samples: VecDeque<(Instant, f64)>,
}

impl Track {
    fn clear(&mut self) {
        self.samples.clear();
    }

    /// Takes a reading in and gives how far the value moves in each `per`. Nothing until the readings reach back over
    /// the whole window, so that the first two after a start say nothing.
    fn rate(&mut self, rate: &Rate, value: f64, now: Instant) -> Option<f64> {
        // Of the readings before the window only the last one is needed.
        let before = |samples: &VecDeque<(Instant, f64)>| {
            samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= rate.over)
        };
        while before(&self.samples) {
            self.samples.pop_front();
        }
        let moved = self.samples.front().and_then(|(at, first)| {
            let passed = now.saturating_duration_since(*at);
            (passed >= rate.over && !passed.is_zero())
                .then(|| (value - first) / passed.as_secs_f64() * rate.per.as_secs_f64())
        });
        let apart = rate.over / SAMPLES;
        let near = self.samples.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < apart);
        if !near {
            self.samples.push_back((now, value));
        }
        moved.filter(|moved| moved.is_finite())
    }
}

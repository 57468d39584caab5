//! When the metrics of a stream are sampled: each in its own period, from its own phase on.
//!
//! A sample tells the gateway's good value at the moment of sampling. A value that is out of date or cannot be read
//! makes none, and neither does a device that is offline.

use std::time::{Duration, Instant};

use super::registry::Turn;

/// Samples are taken no oftener than this, whatever the rate: those that fall due in between are taken together.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The schedule of one stream.
#[derive(Debug)]
pub(super) struct Sampler {
    plan: Vec<Turn>,
    /// When each turn of the plan comes next, in the same order.
    due: Vec<Instant>,
}

impl Sampler {
    /// Begins a plan.
    pub(super) fn new(plan: Vec<Turn>, now: Instant) -> Self {
        let due = plan.iter().map(|turn| later(now, turn.phase)).collect();
        Self { plan, due }
    }

    /// What it goes by.
    pub(super) fn plan(&self) -> &[Turn] {
        &self.plan
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.due.iter().min().copied()
    }

    /// The positions of the properties that are due, and when they come again. Turns that were missed are not made up.
    pub(super) fn take(&mut self, now: Instant) -> Vec<usize> {
        let mut properties = Vec::new();
        for (turn, due) in self.plan.iter().zip(&mut self.due) {
            if *due <= now {
                properties.push(turn.property);
                let next = later(*due, turn.period);
                *due = if next > now { next } else { later(now, turn.period.max(TICK)) };
            }
        }
        properties
    }
}

/// A moment that no clock reaches is a long time from now.
fn later(from: Instant, wait: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(366 * 24 * 3600);
    from.checked_add(wait.min(LONG)).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many values are sampled in so long a time.
    fn values(metrics: u32, rate: u64, time: Duration) -> usize {
        let period = Duration::from_millis(rate * 1000 / 30);
        let turn = |property: u32| Turn {
            property: usize::try_from(property).unwrap(),
            period,
            phase: period / metrics * property,
        };
        let begin = crate::dialects::shared::fixture::now().instant;
        let mut sampler = Sampler::new((0..metrics).map(turn).collect(), begin);
        let mut count = 0;
        while let Some(due) = sampler.timeout().filter(|due| *due < begin + time) {
            let taken = sampler.take(due).len();
            assert_eq!(taken, 1, "the metrics take turns");
            count += taken;
        }
        count
    }

    #[test]
    fn rates_give_what_the_vendor_documents() {
        let minute = Duration::from_secs(60);
        assert_eq!(values(1, 30, minute), 60, "one metric at 30: one each second");
        assert_eq!(values(1, 600, minute), 3, "one at 600: one each twenty seconds");
        assert_eq!(values(4, 600, minute), 12, "four at 600: one each five seconds");
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let second = Duration::from_secs(1);
        let begin = crate::dialects::shared::fixture::now().instant;
        let turn = Turn { property: 0, period: second, phase: Duration::ZERO };
        let mut sampler = Sampler::new(vec![turn], begin);
        assert_eq!(sampler.take(begin + 10 * second), [0]);
        assert_eq!(sampler.take(begin + 10 * second), [0; 0]);
        assert_eq!(sampler.timeout(), Some(begin + 11 * second));
    }

    #[test]
    fn a_period_without_end_does_no_harm() {
        let begin = crate::dialects::shared::fixture::now().instant;
        let turn = Turn { property: 0, period: Duration::MAX, phase: Duration::ZERO };
        let mut sampler = Sampler::new(vec![turn], begin);
        assert_eq!(sampler.take(begin), [0]);
        assert!(sampler.timeout() > Some(begin));
    }
}

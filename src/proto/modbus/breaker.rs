//! Decides when a unit that does not answer is offline, and when to ask it again.
//!
//! A unit goes offline after enough failures **and** enough time. Count alone would let a burst of noise on a fast
//! line end a unit within a fraction of a second; time alone would let one lost frame end a unit that is polled
//! rarely. While a unit is in doubt only single probes are sent, with growing pauses, so that it costs its
//! neighbours little.

use std::time::{Duration, Instant};

/// Failures without an answer between them that it takes to be offline: more than a device needs to miss while it
/// restarts its serial port, or while one telegram collides.
pub const OFFLINE_FAILURES: u32 = 3;

/// How long the unit must have been silent: a device that saves its settings or reboots its stack is back by then,
/// and a client still learns of a dead device within seconds.
pub const OFFLINE_SILENCE: Duration = Duration::from_secs(3);

/// Each probe waits longer than the one before by this; the first is sent at once, since most failures are single.
pub const PROBE_STEP: Duration = Duration::from_millis(500);

/// No probe waits longer: a device that was plugged in again is found while its installer still stands before it.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is known of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing was asked yet, or too little to tell.
    Unknown,
    /// It answers, or has failed too seldom to be given up.
    Online,
    /// It does not answer.
    Offline,
}

/// The state of one unit.
#[derive(Clone, Debug)]
pub struct Breaker {
    presence: Presence,
    failures: u32,
    silent_since: Option<Instant>,
    retry_at: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { presence: Presence::Unknown, failures: 0, silent_since: None, retry_at: None }
    }
}

impl Breaker {
    /// What is known.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Failures since the last answer.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next probe may be sent; `None` for a unit that is not in doubt.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The unit answered. Says whether that makes it online.
    pub fn answered(&mut self) -> bool {
        let changed = self.presence != Presence::Online;
        *self = Self { presence: Presence::Online, ..Self::default() };
        changed
    }

    /// The unit did not answer, or not with anything that can be believed. Says whether that makes it offline.
    pub fn failed(&mut self, now: Instant) -> bool {
        let since = *self.silent_since.get_or_insert(now);
        self.retry_at = Some(now + pause_after(self.failures));
        self.failures = self.failures.saturating_add(1);
        let silent = now.saturating_duration_since(since) >= OFFLINE_SILENCE;
        if self.presence == Presence::Offline || self.failures < OFFLINE_FAILURES || !silent {
            return false;
        }
        self.presence = Presence::Offline;
        true
    }

    /// The unit cannot be reached at all, since the link is down. Says whether that makes it offline.
    pub fn trip(&mut self, now: Instant) -> bool {
        let changed = self.presence != Presence::Offline;
        let failures = self.failures.max(1);
        *self = Self {
            presence: Presence::Offline,
            failures,
            silent_since: self.silent_since.or(Some(now)),
            retry_at: Some(now),
        };
        changed
    }

    /// The link is back: the next probe may be sent at once, and pauses grow anew.
    pub fn revive(&mut self, now: Instant) {
        if self.retry_at.is_some() {
            self.failures = 1;
            self.retry_at = Some(now);
        }
    }
}

/// The pause after a failure that had this many before it.
pub fn pause_after(failures_before: u32) -> Duration {
    PROBE_STEP.saturating_mul(failures_before).min(PROBE_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_unit_goes_offline_by_count_and_time_together() {
        let (mut breaker, now) = (Breaker::default(), start());
        for _ in 0..20 {
            assert!(!breaker.failed(now), "a burst alone is not enough");
        }
        assert!(breaker.failed(now + OFFLINE_SILENCE));
        assert_eq!(breaker.presence(), Presence::Offline);
        assert!(!breaker.failed(now + OFFLINE_SILENCE * 2), "it is said once");

        let mut breaker = Breaker::default();
        assert!(!breaker.failed(now));
        assert!(!breaker.failed(now + OFFLINE_SILENCE), "time alone is not enough");
        assert!(breaker.failed(now + OFFLINE_SILENCE * 2));
    }

    #[test]
    fn probes_come_at_once_and_then_ever_more_rarely() {
        let (mut breaker, now) = (Breaker::default(), start());
        let pauses: Vec<u128> = (0..25)
            .map(|_| {
                breaker.failed(now);
                breaker.retry_at().unwrap().duration_since(now).as_millis()
            })
            .collect();
        assert_eq!(pauses[..4], [0, 500, 1000, 1500]);
        assert_eq!(pauses[20..], [10_000; 5]);
    }

    #[test]
    fn one_answer_ends_all_doubt() {
        let (mut breaker, now) = (Breaker::default(), start());
        assert!(breaker.answered());
        breaker.failed(now);
        assert!(!breaker.answered());
        assert_eq!((breaker.failures(), breaker.retry_at()), (0, None));
    }

    #[test]
    fn a_lost_link_takes_its_units_along_and_its_return_probes_them_at_once() {
        let (mut breaker, now) = (Breaker::default(), start());
        assert!(breaker.trip(now));
        assert!(!breaker.trip(now));
        breaker.revive(now + PROBE_STEP);
        assert_eq!(breaker.retry_at(), Some(now + PROBE_STEP));
        assert!(breaker.answered());
    }
}

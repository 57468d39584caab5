//! How long what a session says of its devices may wait for more of it, so that several messages leave in one write.
//!
//! The first message that may wait begins it; when its time is over, or something comes that answers the client, all
//! leaves together and in order. It knows neither messages nor sockets, and time is an argument.

use std::time::{Duration, Instant};

/// The time of one connection.
#[derive(Debug)]
pub(super) struct Gather {
    /// Zero: nothing waits.
    interval: Duration,
    /// When what waits is written, if anything does.
    until: Option<Instant>,
}

impl Gather {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, until: None }
    }

    /// From now on it is this long; what waits already keeps its time.
    pub(super) fn every(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// When what waits is written, if anything does.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether all that was said so far may wait. `fed` says whether there is anything new, `at_once` whether it answers
    /// something. The clock is read only if it matters.
    pub(super) fn holds(&mut self, fed: bool, at_once: bool, now: impl Fn() -> Instant) -> bool {
        match self.until {
            _ if at_once => false,
            Some(until) => now() < until,
            None if !fed || self.interval.is_zero() => false,
            None => {
                self.until = Some(now() + self.interval);
                true
            }
        }
    }

    /// Everything is written. Says whether anything had waited.
    pub(super) fn end(&mut self) -> bool {
        self.until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const FIVE: Duration = Duration::from_millis(5);

    #[test]
    fn without_an_interval_nothing_waits() {
        let start = clock::instant();
        let mut gather = Gather::new(Duration::ZERO);
        assert!(!gather.holds(true, false, || start));
        assert!(!gather.end());
    }

    #[test]
    fn what_waits_is_written_when_the_first_of_it_has_waited_for_the_interval() {
        let start = clock::instant();
        let mut gather = Gather::new(FIVE);
        assert!(!gather.holds(false, false, || start), "nothing was said");
        assert!(gather.holds(true, false, || start));
        assert!(gather.holds(true, false, || start + FIVE / 2));
        assert_eq!(gather.until(), Some(start + FIVE), "a second message does not put it off");
        assert!(!gather.holds(false, false, || start + FIVE));
        assert!(gather.end());
        assert_eq!(gather.until(), None);
    }

    #[test]
    fn an_answer_does_not_wait_and_takes_along_what_does() {
        let start = clock::instant();
        let mut gather = Gather::new(FIVE);
        assert!(gather.holds(true, false, || start));
        assert!(!gather.holds(true, true, || start));
        assert!(gather.end());
    }

    #[test]
    fn another_interval_holds_for_what_is_said_from_then_on() {
        let start = clock::instant();
        let mut gather = Gather::new(FIVE);
        assert!(gather.holds(true, false, || start));
        gather.every(Duration::ZERO);
        assert!(gather.holds(true, false, || start));
        assert!(gather.end());
        assert!(!gather.holds(true, false, || start));
    }
}

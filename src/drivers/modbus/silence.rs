//! When a port is opened anew because nobody behind it answers. Pure.

use std::time::{Duration, Instant};

/// Timeouts in a row after which a TCP connection is made anew, if no unit behind it answers: a peer that was
/// restarted without a goodbye would otherwise stay silent until the kernel gives up, which takes a quarter of an hour.
const SILENT_CONNECTION: u32 = 3;

/// The same for a serial port: an adapter that has lost its head comes back when it is opened again. More timeouts, and
/// not more often than this, since nearly always it is the devices that have no power.
const SILENT_PORT: u32 = 10;
const PORT_RESET_PAUSE: Duration = Duration::from_secs(60);

/// What a silence means for the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// Too many timeouts, but a unit that was not asked lately may still be alive: ask everybody.
    Ask,
    /// Open it anew.
    Reset,
}

/// Judges the silence of one port.
#[derive(Debug)]
pub(super) struct Silence {
    patience: u32,
    pause: Duration,
    /// Not before this.
    reset_at: Instant,
}

impl Silence {
    /// Of a serial port.
    pub(super) fn of_port(now: Instant) -> Self {
        Self { patience: SILENT_PORT, pause: PORT_RESET_PAUSE, reset_at: now }
    }

    /// Of a TCP connection, which costs its peer nothing to make anew.
    pub(super) fn of_connection(now: Instant) -> Self {
        Self { patience: SILENT_CONNECTION, pause: Duration::ZERO, reset_at: now }
    }

    /// `timeouts` is how many there were since anybody answered on this port, `all_silent` whether every unit was asked
    /// since its last answer, in vain.
    pub(super) fn judge(&mut self, timeouts: u32, all_silent: bool, now: Instant) -> Verdict {
        if now < self.reset_at || timeouts < self.patience {
            return Verdict::Fine;
        }
        if !all_silent {
            return Verdict::Ask;
        }
        self.reset_at = now + self.pause;
        Verdict::Reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Judges a port that was opened anew at each reset, with a timeout every half second; when it was reset.
    fn resets(mut silence: Silence, seconds: u64, all_silent: impl Fn(u64) -> bool) -> Vec<u64> {
        let begun = start();
        let mut timeouts = 0;
        let mut resets = Vec::new();
        for half in 0..seconds * 2 {
            timeouts += 1;
            let now = begun + Duration::from_millis(500 * half);
            if silence.judge(timeouts, all_silent(half / 2), now) == Verdict::Reset {
                resets.push(half / 2);
                timeouts = 0;
            }
        }
        resets
    }

    #[test]
    fn a_silent_port_is_reset_once_in_a_minute_however_long_it_stays_silent() {
        assert_eq!(resets(Silence::of_port(start()), 190, |_| true), [4, 64, 124, 184]);
    }

    #[test]
    fn a_port_with_a_unit_that_may_be_alive_is_not_reset_but_everybody_is_asked() {
        assert_eq!(resets(Silence::of_port(start()), 190, |_| false), [0_u64; 0]);
        let now = start();
        let mut silence = Silence::of_port(now);
        assert_eq!(silence.judge(9, false, now), Verdict::Fine);
        assert_eq!(silence.judge(10, false, now), Verdict::Ask);
        assert_eq!(silence.judge(11, true, now), Verdict::Reset);
        assert_eq!(silence.judge(100, true, now + PORT_RESET_PAUSE / 2), Verdict::Fine);
    }

    #[test]
    fn a_silent_connection_is_made_anew_as_often_as_it_falls_silent() {
        assert_eq!(resets(Silence::of_connection(start()), 6, |_| true), [1, 2, 4, 5]);
    }
}

//! Growing pauses between attempts, with jitter.
//!
//! Pure: the caller brings the random number and does the waiting. Each pause is between half of the current step
//! and the whole step, so that a hundred gateways that lost the same broker do not return in the same moment, and
//! none of them returns at once. The step doubles with every attempt up to its maximum.

use std::time::Duration;

/// The shortest first pause; anything shorter would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long to wait before the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    /// A sequence whose steps grow from `first` to `max`. It cannot be made wrong: a `first` under one millisecond
    /// is raised to that, and a `max` below `first` is raised to `first`.
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.max(SHORTEST);
        Self { first, max: max.max(first), step: first }
    }

    /// The pause before the next attempt. `random` is uniform in 0..1; a number outside is taken as the nearest
    /// inside.
    pub fn next(&mut self, random: f64) -> Duration {
        let random = if random.is_nan() { 0.5 } else { random.clamp(0.0, 1.0) };
        let pause = self.step.mul_f64(0.5 + random / 2.0);
        self.step = self.step.saturating_mul(2).min(self.max);
        pause
    }

    /// An attempt succeeded: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_double_up_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses: Vec<_> = (0..4).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(50));
    }

    #[test]
    fn a_maximum_below_the_first_step_is_raised_to_it() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(backoff.next(1.0), Duration::from_secs(2));
        assert_eq!(backoff.next(1.0), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_pause_is_never_zero_and_never_above_the_maximum(
            first in 0_u64..10_000, max in 0_u64..100_000, randoms in proptest::collection::vec(any::<f64>(), 1..40),
        ) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(max));
            let mut backoff = Backoff::new(first, max);
            for random in randoms {
                let pause = backoff.next(random);
                prop_assert!(pause >= SHORTEST / 2);
                prop_assert!(pause <= max.max(first).max(SHORTEST));
            }
        }
    }
}

//! Looks at the system's clock every second, and says so when it has changed.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::signs;
use crate::backoff::Backoff;
use crate::model::time::{Change, Clock};

/// How long a clock that was set is not noticed.
const EVERY: Duration = Duration::from_secs(1);

/// Between two questions for the kernel's word on its clock, each of which starts a process.
const ASK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Looks until told to stop.
pub async fn run(stop: CancellationToken) {
    warn_of_a_clock_that_nobody_has_set();
    let mut pause = Duration::ZERO;
    let mut backoff = Backoff::new(ASK.0, ASK.1);
    let looking = async {
        loop {
            let mut is_set = false;
            if super::doubts() {
                is_set = signs::left_behind();
                if !is_set && pause.is_zero() && signs::somebody_knows() {
                    is_set = signs::kernel_says().await;
                    pause = backoff.next(fastrand::f64());
                }
            }
            if let Some(change) = super::look(is_set) {
                tell(&change);
            }
            sleep(EVERY).await;
            pause = pause.saturating_sub(EVERY);
        }
    };
    // It may be dropped anywhere: it holds nothing.
    stop.run_until_cancelled(looking).await;
}

fn warn_of_a_clock_that_nobody_has_set() {
    if super::state() == Clock::Unsynchronised && !signs::left_behind() {
        warn!(
            "nobody has set the clock since the machine started: times are estimates, and marked, until somebody does; \
             where the clock is known to be right, set gateway.clock = \"trusted\""
        );
    }
}

fn tell(change: &Change) {
    let step = jiff::SignedDuration::from_millis(change.step);
    match (change.from, change.to) {
        (Clock::Unsynchronised, Clock::Synchronised) => {
            info!(%step, "the clock is right from now on, and what was told of this run is corrected by the step");
        }
        (Clock::Synchronised, Clock::Unsynchronised) => {
            warn!(
                "the clock was set to a time before this program was built; it is not followed, and times are estimates"
            );
        }
        (Clock::Synchronised, Clock::Synchronised) if change.step == 0 => {
            info!("the clock was set back a little; time stands still until it has caught up");
        }
        (Clock::Synchronised, Clock::Synchronised) => info!(%step, "the clock was set"),
        (Clock::Unsynchronised, Clock::Unsynchronised) => {
            info!(%step, "the clock was set forward, by whom is not known");
        }
    }
}

//! Waiting to a fraction of a millisecond, which the runtime's timer alone does not.

use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::clock;

/// The runtime's timer counts whole milliseconds and may fire more than one late, which is most of a frame at 115200
/// bits/s. The last part of a wait is therefore spent yielding, so that a busy line is used to the full; a line that
/// is not busy has been silent for long when a request comes, and waits for nothing.
const TIMER_COARSENESS: Duration = Duration::from_micros(1200);

/// Waits until then. Cancel safe: it only waits.
pub(super) async fn until(then: Instant) {
    if let Some(early) = then.checked_sub(TIMER_COARSENESS) {
        if clock::instant() < early {
            sleep_until(early.into()).await;
        }
    }
    while clock::instant() < then {
        yield_now().await;
    }
}

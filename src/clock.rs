//! The only place that reads a clock.
//!
//! Everything else is handed a [`Now`] or an [`std::time::Instant`], so that the protocols, the hub and the sessions run in
//! tests as fast as their tests wish. The monotonic part follows tokio's clock, which tests may pause.

use crate::model::time::{Now, UnixMillis};

/// Reads the monotonic and the wall clock once.
pub fn now() -> Now {
    Now { instant: instant(), wall: wall() }
}

/// The monotonic clock alone, for deadlines.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
pub fn instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock alone, as Unix milliseconds; a clock before 1970 reads as zero.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
pub fn wall() -> UnixMillis {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

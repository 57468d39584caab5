//! The only place that reads a clock.
//!
//! Everything else is handed a [`Now`] or an [`std::time::Instant`], so that the protocols, the hub and the sessions run in
//! tests as fast as their tests wish. The monotonic part follows tokio's clock, which tests may pause.
//!
//! A running gateway does not take the system's wall clock as it is, since a small machine wakes up in 1970 or in the
//! past: one [`Timekeeper`] for the process decides what time is told, and [`watch`] lets it look at the system's
//! clock. Where none was begun (a command that ends at once, a test) the system's clock is told.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rustls_pki_types::UnixTime;

use crate::model::time::{Change, Clock, Now, Trust, UnixMillis};

mod keeper;
mod signs;
pub mod watch;

pub use keeper::{Look, Timekeeper};

/// What time it is, as far as the process knows.
static KEEPER: RwLock<Option<Timekeeper>> = RwLock::new(None);

/// The year in which this version was written: no clock that shows less is right.
const WRITTEN: i64 = 1_767_225_600;

/// When this program was built, as far as its packages say so. No clock that shows less is right.
pub fn built() -> UnixMillis {
    let said = option_env!("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse::<i64>().ok());
    UnixMillis(said.unwrap_or(WRITTEN).max(WRITTEN).saturating_mul(1000))
}

/// Reads the monotonic and the wall clock once.
pub fn now() -> Now {
    let instant = instant();
    told(|keeper| keeper.now(instant)).unwrap_or_else(|| Now::new(instant, system()))
}

/// The monotonic clock alone, for deadlines.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
pub fn instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock alone, as Unix milliseconds.
pub fn wall() -> UnixMillis {
    now().wall
}

/// The system's wall clock, right or wrong; one before 1970 reads as zero.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
fn system() -> UnixMillis {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// From now on the process's own time is told, and changes of the clock are noticed by [`watch`]. Where that is so
/// already, only what makes the clock a right one is taken over.
pub fn begin(trust: Trust) {
    let look = look_now(false);
    let mut keeper = KEEPER.write().unwrap_or_else(PoisonError::into_inner);
    match &mut *keeper {
        Some(keeper) => keeper.trust(trust),
        None => *keeper = Some(Timekeeper::new(trust, built(), look)),
    }
}

/// It is later than these: what an earlier run was told, and what it knew to be right.
pub fn passed(told: Option<UnixMillis>, right: Option<UnixMillis>) {
    let instant = instant();
    if let Some(keeper) = &mut *KEEPER.write().unwrap_or_else(PoisonError::into_inner) {
        keeper.passed(told, right, instant);
    }
}

/// Another setting of what makes the clock a right one. Taken into account at the next look.
pub fn trust(trust: Trust) {
    if let Some(keeper) = &mut *KEEPER.write().unwrap_or_else(PoisonError::into_inner) {
        keeper.trust(trust);
    }
}

/// Reads both clocks, and gives every change since the one with this number, which is moved on. The first is 1.
pub fn turn(since: &mut u64) -> (Now, Vec<Change>) {
    let instant = instant();
    told(|keeper| (keeper.now(instant), keeper.changes(since)))
        .unwrap_or_else(|| (Now::new(instant, system()), Vec::new()))
}

/// Looks at the system's clock, of which the system says whether it was set. Gives what has changed by that.
fn look(is_set: bool) -> Option<Change> {
    let mut keeper = KEEPER.write().unwrap_or_else(PoisonError::into_inner);
    keeper.as_mut().and_then(|keeper| keeper.look(look_now(is_set)))
}

/// Whether it still has to be found out if the system's clock was set.
fn doubts() -> bool {
    told(Timekeeper::doubts).unwrap_or(false)
}

fn look_now(is_set: bool) -> Look {
    Look { instant: instant(), system: system(), is_set }
}

fn told<T>(read: impl FnOnce(&Timekeeper) -> T) -> Option<T> {
    KEEPER.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(read)
}

/// The told time, for whoever holds certificates against it: one of a machine that wakes up in 1970 is no reason to refuse
/// them all.
#[derive(Debug)]
pub struct Told;

impl rustls::time_provider::TimeProvider for Told {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(wall().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// Whether the wall clock is known to be right.
pub fn state() -> Clock {
    now().clock
}

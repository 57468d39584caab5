//! Keeps one place in the program from filling the journal: a client that comes and goes all day, a device that answers
//! nonsense every second.
//!
//! Each place may say [`BURST`] lines in a minute at `info` and above; what it says beyond is counted, and the count
//! is told once the minute is over. What an administrator asks for at `debug` and `trace` is never held back, and neither is
//! the journal of writes and calls, which has a bound of its own and counts what goes beyond it. It knows no device and no
//! client: places that must not be lost in the noise of others have lines of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, info};
use tracing_subscriber::layer::{Context, Filter};

use crate::clock;

/// Lines of one place in one [`WINDOW`]: enough for every device of a large gateway to go offline at once.
const BURST: u32 = 300;

/// How long a place is counted.
const WINDOW: Duration = Duration::from_secs(60);

/// The target of the journal. All of it comes from one place, and a client that writes every second must not keep what
/// another one did out of it.
const JOURNAL: &str = "pentad::journal";

/// What every place has said lately. As large as the program has places that log.
static PLACES: Mutex<Option<HashMap<Identifier, Place>>> = Mutex::new(None);

#[derive(Debug)]
struct Place {
    target: &'static str,
    line: u32,
    since: Instant,
    said: u32,
    untold: u64,
}

impl Place {
    /// Whether it may say another line.
    fn says(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.said) = (now, 0);
        }
        if self.said < BURST {
            self.said += 1;
            return true;
        }
        self.untold += 1;
        false
    }
}

/// Lets events pass that are not too many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood;

impl<S> Filter<S> for Flood {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    /// Without a word on this, the other filter's would not count either, and every record of a library that nobody wants
    /// would be looked at one by one: a fifth of what a delivered message costs.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == JOURNAL {
            return true;
        }
        let now = clock::instant();
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.get_or_insert_default().entry(metadata.callsite()).or_insert_with(|| Place {
            target: metadata.target(),
            line: metadata.line().unwrap_or_default(),
            since: now,
            said: 0,
            untold: 0,
        });
        place.says(now)
    }
}

/// Tells once a minute how many lines were held back, until told to stop.
pub async fn tell(stop: CancellationToken) {
    loop {
        tokio::select! {
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled() => return,
            // Cancel-safe: a sleep holds nothing.
            () = tokio::time::sleep(WINDOW) => {}
        }
        // Told when the lock is free again, because telling is logging.
        for (target, line, lines) in take() {
            info!(lines, "held back lines of {target}:{line} that repeat too often");
        }
    }
}

/// What was held back since the last time.
fn take() -> Vec<(&'static str, u32, u64)> {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let held = places.iter_mut().flat_map(HashMap::values_mut).filter(|place| place.untold > 0);
    let mut held: Vec<_> =
        held.map(|place| (place.target, place.line, std::mem::take(&mut place.untold))).collect();
    held.sort_unstable();
    held
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::{Registry, registry::LookupSpan};

    use super::*;

    /// Counts the events that it is shown.
    struct Count(Arc<AtomicU32>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_journal_is_bounded_by_itself_and_every_other_place_here() {
        let count = Arc::new(AtomicU32::new(0));
        let layer = Count(Arc::clone(&count)).with_filter(Flood);
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            for _ in 0..2 * BURST {
                info!(target: "pentad::journal", "a write");
            }
            assert_eq!(count.swap(0, Ordering::Relaxed), 2 * BURST);
            for _ in 0..2 * BURST {
                info!(target: "pentad::hub", "a device that comes and goes");
            }
            assert_eq!(count.swap(0, Ordering::Relaxed), BURST);
        });
    }

    #[test]
    fn a_place_that_says_too_much_is_held_back_until_its_minute_is_over() {
        let start = clock::instant();
        let mut place = Place { target: "pentad::x", line: 1, since: start, said: 0, untold: 0 };
        assert!((0..BURST).all(|_| place.says(start)));
        assert!(!place.says(start + Duration::from_secs(59)));
        assert_eq!(place.untold, 1);
        assert!(place.says(start + WINDOW));
    }
}

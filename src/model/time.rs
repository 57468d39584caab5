//! Time as the model knows it: Unix milliseconds for people and wires, instants for deadlines.
//!
//! Nothing here reads a clock; see `clock/`.

use std::fmt;
use std::time::Instant;

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z, as every dialect counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the wall clock is known to be right, and so the times that are taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// It was set from a source of time, or the configuration says that it is right.
    #[default]
    Synchronised,
    /// Nobody has set it since the machine started: times are estimates, in the right order.
    Unsynchronised,
}

impl Clock {
    /// What marks a message of an unsynchronised clock, in every dialect that has room for it.
    pub fn mark(self) -> Option<&'static str> {
        match self {
            Self::Synchronised => None,
            Self::Unsynchronised => Some("unsynchronised"),
        }
    }
}

/// What makes the wall clock a right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// That the system says so.
    #[default]
    Auto,
    /// Nothing: whoever set up the machine knows that it is right.
    Always,
}

/// One reading of both clocks, handed to every state machine with its input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic: deadlines and intervals are computed from this alone.
    pub instant: Instant,
    /// Wall clock: only for what a person or a client reads.
    pub wall: UnixMillis,
    /// A time that it certainly is by now: what is judged to be too old is judged by this.
    pub certain: UnixMillis,
    /// Whether the wall clock is known to be right.
    pub clock: Clock,
}

impl Now {
    /// With a wall clock that is right.
    pub fn new(instant: Instant, wall: UnixMillis) -> Self {
        Self { instant, wall, certain: wall, clock: Clock::Synchronised }
    }
}

/// The wall clock was set, or it became known that it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub instant: Instant,
    /// The wall clock right after it.
    pub wall: UnixMillis,
    /// By how many milliseconds the time that is told has moved forward. Zero where it waits for a clock that was set back
    /// a little.
    pub step: i64,
    /// Before.
    pub from: Clock,
    /// After.
    pub to: Clock,
}

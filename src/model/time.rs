//! Time as the model knows it: Unix milliseconds for people and wires, instants for deadlines.
//!
//! Nothing here reads a clock; see `clock.rs`.

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

/// One reading of both clocks, handed to every state machine with its input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic: deadlines and intervals are computed from this alone.
    pub instant: Instant,
    /// Wall clock: only for what a person or a client reads.
    pub wall: UnixMillis,
}

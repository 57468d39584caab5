//! SockJS 0.3 as a server speaks it: the frames, the paths below the base address, and what one session owes the
//! HTTP responses that carry it.
//!
//! Facts are of the protocol's own executable description (sockjs-protocol 0.3.3) and of sockjs-client 1.6. Knows
//! neither HTTP nor what the messages say.

pub mod downlink;
pub mod frame;
pub mod path;

pub use downlink::{Chunk, Downlink, Form, Pace};
pub use path::{Route, Transport};

/// Close codes and reasons that are the protocol's own.
pub mod close {
    /// A second response wants to carry a session that has one.
    pub const BUSY: (u16, &str) = (2010, "Another connection still open");
    /// The response that carried the session broke off, and nobody knows what was lost with it.
    pub const INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");
}

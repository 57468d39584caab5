//! STOMP 1.0, 1.1 and 1.2 as a server speaks it: the frame codec and the conversation with one client.
//!
//! Facts are of the STOMP specifications and of how trusted servers and clients really behave where these leave
//! room. Knows neither devices nor dialects: who a client is, what a destination means and what a body says are
//! the application's matter.

pub mod encode;
pub mod frame;
pub mod heartbeat;
pub mod session;
pub mod subscriptions;
pub mod transactions;

pub use encode::{Style, encode};
pub use frame::{Command, Decoder, Frame, FrameError, Version};
pub use session::{Output, Session, Settings};
pub use subscriptions::Key;

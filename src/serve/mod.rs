//! Serving: listeners, HTTP, WebSockets, and the one driver that runs every dialect's session.
//!
//! ```text
//! listener  accepts, admits, TLS  ->  http  request -> dialect's `open` -> response, call or upgrade
//!                                      |                                       |           |
//!                                      +-- engine: a session against the hub <-+-----------+
//!                                                                               connection: ... on a WebSocket
//! ```
//!
//! It knows no dialect by name beyond the table in [`crate::dialects::ENTRIES`], and no device.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::dialects::Context;
use crate::hub::handle::HubHandle;

pub mod admission;
mod connection;
mod engine;
mod http;
pub mod listener;
mod origin;
mod socket;
pub mod tls;

/// How long sessions have for their goodbye when the gateway stops; what is left then is cut off.
pub const GOODBYE: Duration = Duration::from_secs(2);

/// What every connection needs; made once, shared read-only.
#[derive(Debug)]
pub struct Shared {
    /// What sessions may look at.
    pub context: Arc<Context>,
    /// The way to the hub.
    pub hub: HubHandle,
    /// Limits, proxies and the public address.
    pub server: config::Server,
    /// Who is connected.
    pub admission: admission::Admission,
}

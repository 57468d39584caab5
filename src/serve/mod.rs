//! Serving: listeners, HTTP, WebSockets, and the one driver that runs every dialect's session.
//!
//! ```text
//! listener  accepts, admits, TLS  ->  http  request -> dialect's `open` -> response, call or upgrade
//!                                      |                                       |           |
//!                                      +-- engine: a session against the hub <-+-----------+
//!                                                                               connection: ... on a WebSocket
//!                                      +-- sockjs: ... between HTTP requests that come and go
//! ```
//!
//! It knows no dialect by name beyond the table in [`crate::dialects::ENTRIES`], and no device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use crate::dialects::Context;
use crate::drivers::modbus::recorder::Recorders;
use crate::hub::handle::HubHandle;
use crate::meters::Meters;
use crate::proto::sockjs::Pace;

pub mod admission;
pub mod advertise;
mod bell;
mod bodies;
mod body;
mod captures;
mod connection;
mod engine;
mod gather;
#[cfg(test)]
mod gather_tests;
mod http;
pub mod inherited;
pub mod listener;
pub mod live;
mod monitor;
mod origin;
mod socket;
pub mod sockjs;
pub mod tls;

/// What every connection needs; shared read-only. A reload makes a new one, see [`live`].
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
    /// The way to sessions that HTTP requests carry.
    pub sockjs: sockjs::Door,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// When the process began to serve.
    pub started: Instant,
    /// What was on the buses.
    pub recorders: Recorders,
    /// How patient the server is. Every connection holds on to it, so it is not copied into each.
    pub patience: Arc<Patience>,
}

/// How long the server waits for its clients, and for the hub. Not configurable: the defaults suit links from loopback to GPRS; tests
/// shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a TLS handshake; for a request's head; and how long an idle connection is kept for the next request.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For a large body to show that it comes fast enough, before it may have to give way to others.
    pub grace: Duration,
    /// For the hub, before the pages for whoever watches the gateway take it for stuck. It takes in what waits at least
    /// every two seconds.
    pub hub: Duration,
    /// For the answer to a call. Commands of clients have shorter deadlines of their own.
    pub call: Duration,
    /// Before a connection that stays in HTTP is asked to finish: a client that does not read its answers would
    /// otherwise hold its place for ever.
    pub http: Duration,
    /// For a client to read one message.
    pub write: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// Without any frame from the client, pongs included, before it is taken for dead. Several pings in a row have
    /// been lost by then.
    pub silence: Duration,
    /// The same two for a session that a client has tied a value to: the value must not outlive its client for long, and the
    /// client has said that it will be there.
    pub leased_ping: Duration,
    /// See `leased_ping`.
    pub leased_silence: Duration,
    /// For reading on while a connection closes, so that the close frame is not lost to a reset.
    pub linger: Duration,
    /// For responses that carry sessions, and for sessions that none carries.
    pub sockjs: Pace,
    /// For sessions to say goodbye when the gateway stops; what is left then is cut off.
    pub goodbye: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            hub: Duration::from_secs(5),
            call: Duration::from_secs(65),
            http: Duration::from_secs(300),
            write: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(120),
            leased_ping: Duration::from_secs(5),
            leased_silence: Duration::from_secs(15),
            linger: Duration::from_secs(1),
            sockjs: Pace::default(),
            goodbye: Duration::from_secs(2),
        }
    }
}

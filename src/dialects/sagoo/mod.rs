//! SagooIoT / JetLinks: `/messaging/{token}`, commands and live messages on one socket.
//!
//! A client connects with its token as the last segment of the path, then sends requests, each with an id of its
//! own, and gets results that carry it:
//!
//! ```text
//! > {"id":"r1","type":"sub","topic":"/device-message-sender/press/press-1",
//!    "parameter":{"messageType":"READ_PROPERTY","properties":["temperature"],"headers":{"async":false}}}
//! < {"id":"r1","requestId":"r1","type":"result","topic":"/device-message-sender/press/press-1",
//!    "payload":{"messageType":"READ_PROPERTY_REPLY","deviceId":"press-1","success":true,
//!               "properties":{"temperature":40.0},"headers":{"productId":"press",...},"temperature":40.0,...}}
//! < {"id":"r1","requestId":"r1","type":"complete"}
//! ```
//!
//! SagooIoT's page names the id `id`, the header bag `meta` and shows flat payloads; the JetLinks server and every
//! known client use `requestId`, `headers` and an envelope. All of it is read, and by default all of it is sent.

use std::sync::Arc;

use super::{Common, Context, Opening, Request, Response, Upgrade, shared};
use crate::model::client::Dialect;
use crate::model::time::Now;

mod command;
mod dashboard;
#[cfg(test)]
mod dashboard_tests;
mod login;
mod payload;
mod session;
#[cfg(test)]
mod tests;
mod topic;
mod wire;

/// The path segment before the token.
const ENTRY: &str = "messaging";

/// The path segment before the call that gives a token for a name and a password.
const AUTHORIZE: &str = "authorize";

/// What can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a property payload.
    pub payload: Payload,
}

/// What this dialect makes of a request.
///
/// Ours is every path that ends in `messaging/{token}` or `authorize/login`, whatever a reverse proxy has put before it, and a bare
/// `.../messaging` for clients without a credential. A bad token is told over the accepted WebSocket, as the
/// JetLinks server does; its clients look for that message.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let settings = &context.settings.sagoo;
    let segments = request.segments();
    let token = match segments.as_slice() {
        [.., entry, token] if entry == ENTRY => Some(token.as_str()),
        [.., entry] if entry == ENTRY => None,
        [.., entry, service] if entry == AUTHORIZE && service == login::LOGIN && settings.common.enabled => {
            return Opening::Respond(login::answer(request, context, now));
        }
        _ => return Opening::NotMine,
    };
    if !settings.common.enabled {
        return Opening::NotMine;
    }
    if !request.upgrade {
        let response = Response::text(426, "This address speaks WebSocket only.\n");
        return Opening::Respond(response.with("upgrade", "websocket").with("connection", "upgrade"));
    }
    let client = shared::authenticate(context, Dialect::Sagoo, &settings.common, token, request.peer);
    if let (None, Some(token)) = (&client, token) {
        request.logins.failed(request.peer, "sagoo", token, now.instant);
    }
    let session = Box::new(session::Session::new(Arc::clone(context), client));
    Opening::Upgrade(Upgrade { session, subprotocol: None })
}

/// How the payload of a command's result is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// The JetLinks reply envelope with the values flat beside it.
    #[default]
    Merged,
    /// Only the values, as SagooIoT's page shows them.
    Seed,
    /// Only the JetLinks reply envelope.
    Jetlinks,
}

//! iThings: subscriptions and pushes over a WebSocket, control calls over HTTP.
//!
//! A client connects with its token in a header or in the query, is greeted, and subscribes:
//!
//! ```text
//! < {"code":200,"msg":"成功","handler":{"Traceparent":"5a21080b...","connectID":"29"}}
//! > {"type":"up.sub","body":{"code":"devicePropertyReport","params":{"productID":"press","deviceName":"press-1"}}}
//! < {"code":200,"msg":"成功","type":"down.subRet"}
//! < {"code":200,"msg":"成功","type":"down.pub","path":"devicePropertyReport","body":{"device":{...},
//!    "timestamp":"1700000000000","identifier":"temperature","param":81.5},"device":{...},...}
//! ```
//!
//! The vendor's page shows pushes as bare bodies, the server wraps them; by default a push carries both. There is no
//! way down over the socket: clients control devices by HTTP calls, which `call/` serves.

use std::sync::Arc;

use super::{Common, Context, Opening, Request, Response, Upgrade};
use crate::model::time::Now;

mod auth;
mod call;
mod fault;
mod push;
mod request;
mod session;
mod subscription;
#[cfg(test)]
mod tests;
mod wire;

/// The WebSocket.
const CONNECT: &str = "/api/v1/system/common/websocket/connect";

/// What can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a push.
    pub push: Push,
}

/// What this dialect makes of a request: the WebSocket, or one of the HTTP calls.
///
/// Whoever may not come in is told by a plain HTTP answer, before any upgrade, as the real server does.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    if !context.settings.ithings.common.enabled {
        return Opening::NotMine;
    }
    let path = request.path.trim_end_matches('/');
    if path != CONNECT {
        return call::open(request, path, context, now);
    }
    match request.method.as_str() {
        "OPTIONS" => Opening::Respond(call::preflight(request, "GET")),
        "GET" => connect(request, context, now),
        _ => Opening::Respond(call::wrong_method("GET")),
    }
}

fn connect(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let client = match auth::admit(request, context, now) {
        Ok(client) => client,
        Err(refusal) => return Opening::Respond(refusal.response()),
    };
    if !request.upgrade {
        let body = fault::Fault::SYSTEM.with("Bad Request").to_json();
        return Opening::Respond(Response::json(400, body).with("sec-websocket-version", "13"));
    }
    let session = Box::new(session::Session::new(Arc::clone(context), client, now));
    Opening::Upgrade(Upgrade { session, subprotocol: None })
}

/// How a push is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Push {
    /// The envelope with the body's members beside it.
    #[default]
    Merged,
    /// `{code, msg, type: "down.pub", path, body}`, as the server sends it.
    Envelope,
    /// Only the body, as the page shows it.
    Bare,
}

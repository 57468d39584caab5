//! Haier U+ data subscription: signed login, topics by typeId, balanced delivery.
//!
//! ```text
//!   GET /wssubscriber/msgplatform/websocket?systemId&timestamp&sign&isSubscribeEarliestMessage   -> 101, always
//! < {"cmd":"authenticate-ack","data":{"code":"00000","result":"success","systemId":"SV-1"}}
//! > {'cmd':'subscribe','data':{'subdata':[{'topic':'DEV_STATUS','keys':{'typeId':['101c..']}}]}}
//! < {"cmd":"subscribe-ack","data":{"code":"00000",..,"desc":"Topic [101c.._online_DEV_STATUS] subscribed ok"}}
//! < {"topic":"DEV_STATUS","typeId":"101c..","qos":"0","data":{"status":{"temperature":"81.5"},..}}
//! ```
//!
//! The vendor's pages of 2019 to 2020 share this path and differ in what they describe; the superset is served.
//! All connections of one systemId are one group, over which the hub balances what the group subscribes to.

use std::sync::Arc;
use std::time::Duration;

use super::{Common, Context, Opening, Request, Response, Upgrade};
use crate::model::time::Now;

mod command;
mod push;
mod relation;
mod session;
mod sign;
mod wire;

pub use sign::signed_query;

/// The path of the vendor's pages; one trailing slash is let pass.
pub const PATH: &str = "/wssubscriber/msgplatform/websocket";

/// What can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a push.
    pub push_format: PushFormat,
    /// Form of the text of an ack about a typeId.
    pub desc: Desc,
    /// Most connections of one system at a time.
    pub connections_per_system: usize,
    /// How long a subscription outlives its last connection and gathers messages, in memory and for an hour at most where
    /// no history is kept; zero lets it end at once.
    pub retention: Duration,
    /// How far the timestamp of a login may be from now; `None` only logs.
    pub timestamp_window: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            common: Common::default(),
            push_format: PushFormat::Flat,
            desc: Desc::Online,
            connections_per_system: 16,
            retention: Duration::from_secs(86_400),
            timestamp_window: None,
        }
    }
}

/// How a push is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushFormat {
    /// `{topic, typeId, qos, data}`.
    #[default]
    Flat,
    /// `{header, body}` of the later vendor pages.
    Envelope,
}

/// How the text of an ack names a subscription by typeId. The forms of the vendor's earlier and later pages, which share a path;
/// a subscription by device has one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Desc {
    /// `<typeId>_online_<topic>`.
    #[default]
    Online,
    /// `<typeId>_<topic>`.
    Plain,
}

/// What this dialect makes of a request. A login that fails is upgraded all the same: its verdict is the first
/// message, as the vendor's clients expect.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let path = request.path.strip_suffix('/').unwrap_or(&request.path);
    if path != PATH || !context.settings.uplus.common.enabled {
        return Opening::NotMine;
    }
    if request.method != "GET" {
        return Opening::Respond(Response::text(405, "Only GET is answered here.\n").with("allow", "GET"));
    }
    if !request.upgrade {
        let response = Response::text(426, "This address speaks WebSocket only.\n");
        return Opening::Respond(response.with("upgrade", "websocket").with("connection", "upgrade"));
    }
    let login = sign::log_in(request, context, now);
    let session = Box::new(session::UplusSession::new(Arc::clone(context), login));
    Opening::Upgrade(Upgrade { session, subprotocol: None })
}

#[cfg(test)]
mod tests;

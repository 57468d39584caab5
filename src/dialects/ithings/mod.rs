//! iThings: subscriptions and pushes over a WebSocket, control calls over HTTP.

use std::sync::Arc;

use super::{Common, Context, Opening, Request};
use crate::model::time::Now;

/// What can be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a push.
    pub push: Push,
}

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let (_, _, _) = (request, context, now);
    Opening::NotMine
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

//! Haier U+ data subscription: signed login, topics by typeId, balanced delivery.

use std::sync::Arc;

use super::{Common, Context, Opening, Request};
use crate::model::time::Now;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a push.
    pub push_format: PushFormat,
    /// Most connections of one system at a time.
    pub connections_per_system: usize,
    /// How far the timestamp of a login may be from now; `None` only logs.
    pub timestamp_window: Option<std::time::Duration>,
}

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let (_, _, _) = (request, context, now);
    Opening::NotMine
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

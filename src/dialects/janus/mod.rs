//! Janus: an HTTP call that names a WebSocket address and a topic, then STOMP.

use std::sync::Arc;

use super::{Common, Context, Opening, Request};
use crate::model::time::Now;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// How long the ticket in a returned address may be used to connect.
    pub ticket_lifetime: std::time::Duration,
    /// How `time` is written.
    pub time: TimeForm,
}

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let (_, _, _) = (request, context, now);
    Opening::NotMine
}

/// How the `time` of a message body separates its milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeForm {
    /// `2018-04-12 14:25:20:034`, as the vendor's example of this service.
    #[default]
    Colon,
    /// `2018-04-12 14:25:20.034`, as the vendor's other pages.
    Dot,
}

//! SagooIoT / JetLinks: `/messaging/{token}`, commands and live messages on one socket.

use std::sync::Arc;

use super::{Common, Context, Opening, Request};
use crate::model::time::Now;

/// What can be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Form of a property payload.
    pub payload: Payload,
}

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let (_, _, _) = (request, context, now);
    Opening::NotMine
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

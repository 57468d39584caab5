//! WCS OAM: STOMP at `/ws`, and the same calls as REST under `/api`.

use std::sync::Arc;

use super::{Common, Context, Opening, Request};
use crate::model::time::Now;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Longest wait before a partial batch of samples is sent.
    pub stomp_max_timeout: std::time::Duration,
    /// Samples that make a full batch.
    pub stomp_max_metrics: usize,
    /// What REST answers as Access-Control-Allow-Origin; `*` admits every origin.
    pub access_control_allow_origin: Arc<str>,
}

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let (_, _, _) = (request, context, now);
    Opening::NotMine
}

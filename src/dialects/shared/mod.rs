//! What several dialects need: values as JSON, lenient JSON in, who a token belongs to, the STOMP endpoint.

pub mod credentials;
#[cfg(test)]
pub(super) mod fixture;
pub mod json;
pub mod lenient;
pub mod stomp;

use std::net::IpAddr;
use std::sync::Arc;

use super::{Common, Context};
use crate::model::client::{Client, Dialect};

/// The client that a token opens a dialect for. Without a token, the anonymous client of the dialect if the peer's
/// network has one. A wrong token is never let in as anonymous.
pub fn authenticate(
    context: &Context,
    dialect: Dialect,
    common: &Common,
    token: Option<&str>,
    peer: IpAddr,
) -> Option<Arc<Client>> {
    match token {
        Some(token) => context.clients.by_token(dialect, token).map(Arc::clone),
        None => common.anonymous.as_ref().and_then(|anonymous| anonymous.admit(peer)).map(Arc::clone),
    }
}

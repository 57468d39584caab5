//! What several dialects need: values as JSON, lenient JSON in, who a token belongs to and who only guesses, fresh message
//! ids, preflights, the STOMP endpoint, and SockJS around it.

pub mod cors;
pub mod credentials;
#[cfg(test)]
pub(crate) mod fixture;
pub mod form;
pub mod json;
pub mod lease;
pub mod lenient;
pub mod logins;
pub mod sockjs;
pub mod stomp;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Common, Context};
use crate::model::client::{Client, Dialect};
use crate::model::time::UnixMillis;

/// Makes message ids distinct that are made in the same millisecond, over all sessions. A message id means nothing
/// to the session that makes it, so sharing the counter lets two runs of a session differ in nothing else.
static MESSAGE_IDS: AtomicU64 = AtomicU64::new(0);

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

/// An id for a command whose client gave none: a decimal number that rises with time, like those of the real
/// servers; milliseconds above, a counter in the lower twenty bits.
pub fn message_id(at: UnixMillis) -> Arc<str> {
    const COUNTER: u64 = (1 << 20) - 1;
    let counter = MESSAGE_IDS.fetch_add(1, Ordering::Relaxed) & COUNTER;
    let millis = u64::try_from(at.0).unwrap_or(0);
    Arc::from(((millis << 20) | counter).to_string())
}

//! What a client shows to be let in, wherever it shows it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::authenticate;
use super::logins::Logins;
use crate::dialects::{Common, Context, Request};
use crate::model::client::{Client, Dialect};
use crate::model::time::Now;

/// Everything that a client has shown so far. Its `Debug` tells only how much that is.
#[derive(Clone)]
pub struct Credentials {
    /// Tokens from `Authorization: Bearer`, the header `token` and the query parameter `token`; a STOMP passcode
    /// joins them. One right one is enough.
    pub tokens: Vec<String>,
    /// The query parameter `ticket`.
    pub ticket: Option<String>,
    /// Where the client is.
    pub peer: IpAddr,
    /// Who counts those that open nothing.
    pub logins: Logins,
}

impl Credentials {
    /// What a request carries. Empty values are as good as none: forms send them when nothing was filled in.
    pub fn of(request: &Request) -> Self {
        let bearer = request.header("authorization").and_then(bearer);
        let tokens = [bearer, request.header("token"), request.query("token")];
        let present = |value: &&str| !value.is_empty();
        Self {
            tokens: tokens.into_iter().flatten().filter(present).map(str::to_owned).collect(),
            ticket: request.query("ticket").filter(present).map(str::to_owned),
            peer: request.peer,
            logins: request.logins.clone(),
        }
    }

    /// The client that these open a dialect for: that of the first right token, or without any token the anonymous
    /// one. Wrong tokens are never let in as anonymous.
    pub fn admit(&self, context: &Context, dialect: Dialect, common: &Common) -> Option<Arc<Client>> {
        if self.tokens.is_empty() {
            return authenticate(context, dialect, common, None, self.peer);
        }
        self.tokens.iter().find_map(|token| authenticate(context, dialect, common, Some(token), self.peer))
    }
}

impl Credentials {
    /// Counts what was shown and opened nothing. A ticket does not count: nobody guesses the seal of one, and every page
    /// that is open shows one that opens nothing any more when the gateway has started again, each its own.
    pub fn refused(&self, door: &'static str, now: Now) {
        for token in &self.tokens {
            self.logins.failed(self.peer, door, token, now.instant);
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("tokens", &self.tokens.len())
            .field("ticket", &self.ticket.is_some())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

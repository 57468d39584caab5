//! SockJS below a base path: what each request of a client asks for, and what origins may ask.
//!
//! It owns the HTTP side of the protocol that needs no session, and the frames around a session on a WebSocket
//! ([`framed`]). A session that HTTP requests carry outlives them, so it is handed to the server as
//! [`Opening::Carry`].

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::credentials::Credentials;
use crate::dialects::Session;
use crate::dialects::{Carry, Context, Errand, Opening, Request, Response, SessionName, Upgrade};
use crate::model::time::Now;
use crate::proto::sockjs::{Form, Route, Transport, frame};

mod framed;

#[cfg(test)]
mod tests;

/// What a browser may keep of an answer to a preflight, in seconds: a year, as other servers say.
const PREFLIGHT_AGE: &str = "31536000";

/// Makes the entropy of two answers in the same millisecond differ.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// What stands behind a base path.
pub struct Base<'a> {
    /// A session that speaks through this base, raw or framed.
    pub session: &'a dyn Fn() -> Box<dyn Session>,
    /// Accepts a raw WebSocket.
    pub raw: &'a dyn Fn() -> Upgrade,
    /// Whether the page that asks may ask.
    pub admits_origin: bool,
}

impl std::fmt::Debug for Base<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("admits_origin", &self.admits_origin).finish_non_exhaustive()
    }
}

/// Answers a request whose path begins with that of the base; `path` is what stands behind it.
pub fn open(request: &Request, path: &str, context: &Context, now: Now, base: &Base<'_>) -> Opening {
    let route = Route::parse(path);
    if route == Route::Unknown {
        return Opening::Respond(Response::text(404, "no such path\n"));
    }
    if !base.admits_origin {
        return Opening::Respond(Response::text(403, "this origin is not allowed\n"));
    }
    match route {
        Route::Base if request.upgrade => Opening::Upgrade((base.raw)()),
        Route::Raw => socket(request, base.raw),
        Route::Base => simple(request, "GET", || Response::text(200, "Welcome to SockJS!\n")),
        Route::Info => simple(request, "GET", || {
            let body = format!(
                r#"{{"entropy":{},"origins":["*:*"],"cookie_needed":false,"websocket":true}}"#,
                entropy(context, now)
            );
            uncached(Response::json(200, body))
        }),
        Route::Session { session, transport } => {
            let name = || name(&session, request);
            let receive = |form| receive(request, name(), form, (base.session)());
            match transport {
                Transport::WebSocket => socket(request, &|| Upgrade {
                    session: Box::new(framed::Framed::new((base.session)(), now)),
                    subprotocol: None,
                }),
                Transport::XhrSend => send(request, name),
                Transport::Xhr => receive(Form::Polling),
                Transport::XhrStreaming => receive(Form::Streaming),
                Transport::EventSource => receive(Form::EventSource),
            }
        }
        Route::Unknown => Opening::NotMine,
    }
}

/// A path that is only a WebSocket.
fn socket(request: &Request, accept: &dyn Fn() -> Upgrade) -> Opening {
    if request.upgrade {
        return Opening::Upgrade(accept());
    }
    Opening::Respond(match request.method.as_str() {
        "GET" | "HEAD" => Response::text(400, "Can \"Upgrade\" only to \"WebSocket\".\n"),
        _ => Response::text(405, "only GET\n").with("allow", "GET"),
    })
}

/// A path that is answered at once, to a method and to its preflight.
fn simple(request: &Request, method: &str, answer: impl FnOnce() -> Response) -> Opening {
    Opening::Respond(refused_method(request, method).unwrap_or_else(|| cors(request, answer())))
}

/// The answer to a preflight, or to a wrong method.
fn refused_method(request: &Request, method: &str) -> Option<Response> {
    let allowed = format!("OPTIONS, {method}");
    match request.method.as_str() {
        own if own == method => None,
        "HEAD" if method == "GET" => None,
        "OPTIONS" => {
            let response = Response { status: 204, headers: Vec::new(), body: bytes::Bytes::new() }
                .with("access-control-allow-methods", allowed)
                .with("access-control-max-age", PREFLIGHT_AGE)
                .with("cache-control", format!("public, max-age={PREFLIGHT_AGE}"));
            Some(cors(request, response))
        }
        _ => Some(Response::text(405, "the method does not fit the path\n").with("allow", allowed)),
    }
}

/// A response that is to carry the session.
fn receive(request: &Request, name: SessionName, form: Form, session: Box<dyn Session>) -> Opening {
    let (method, kind) = match form {
        Form::Polling | Form::Streaming => ("POST", "application/javascript;charset=UTF-8"),
        Form::EventSource => ("GET", "text/event-stream;charset=UTF-8"),
    };
    if let Some(response) = refused_method(request, method) {
        return Opening::Respond(response);
    }
    let head = Response { status: 200, headers: Vec::new(), body: bytes::Bytes::new() }
        .with("content-type", kind)
        // Otherwise nginx keeps a stream to itself until it is long enough.
        .with("x-accel-buffering", "no");
    Opening::Carry(Carry {
        name,
        head: cors(request, uncached(head)),
        errand: Errand::Receive { form, session },
    })
}

/// Messages for a session.
fn send(request: &Request, name: impl FnOnce() -> SessionName) -> Opening {
    if let Some(response) = refused_method(request, "POST") {
        return Opening::Respond(response);
    }
    let texts = match frame::decode(&String::from_utf8_lossy(&request.body)) {
        Ok(texts) => texts,
        Err(error) => return Opening::Respond(cors(request, Response::text(500, error.to_string()))),
    };
    // Said although there is no content, because Firefox takes it for XML otherwise.
    let head = Response::text(204, "");
    let text = texts.concat().into();
    Opening::Carry(Carry { name: name(), head: cors(request, uncached(head)), errand: Errand::Send(text) })
}

/// The client chooses the id of its session. What it shows at each request belongs to the name, so that an id which
/// somebody has seen in a log opens nothing without the credential.
fn name(session: &str, request: &Request) -> SessionName {
    let Credentials { tokens, ticket, peer: _, logins: _ } = Credentials::of(request);
    SessionName { id: session.to_owned(), shown: tokens.into_iter().chain(ticket).collect() }
}

fn uncached(response: Response) -> Response {
    response.with("cache-control", "no-store, no-cache, no-transform, must-revalidate, max-age=0")
}

/// SockJS clients ask with credentials, which browsers grant only to an origin that is named. There are no cookies
/// here that another site's page could make use of.
fn cors(request: &Request, response: Response) -> Response {
    let response = response.with("vary", "origin");
    let response = match request.header("origin") {
        Some(origin) => response
            .with("access-control-allow-origin", origin)
            .with("access-control-allow-credentials", "true"),
        None => response.with("access-control-allow-origin", "*"),
    };
    match request.header("access-control-request-headers").filter(|names| !names.is_empty()) {
        Some(names) => response.with("access-control-allow-headers", names),
        None => response,
    }
}

/// A number that differs from answer to answer; clients without a good source of their own may use it as one.
fn entropy(context: &Context, now: Now) -> u32 {
    let count = ANSWERS.fetch_add(1, Ordering::Relaxed);
    let digest = Sha256::new()
        .chain_update(b"sockjs entropy\n")
        .chain_update(context.seal.key)
        .chain_update(now.wall.0.to_be_bytes())
        .chain_update(count.to_be_bytes())
        .finalize();
    digest.iter().take(4).fold(0, |entropy, octet| entropy << 8 | u32::from(*octet))
}

//! The calls over REST: POST with the payload as body, the answer's status as HTTP status, CORS by setting.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value as Json;

use super::api::{self, Call, Caller, Pending, Reply};
use super::wire;
use crate::dialects::shared::cors;
use crate::dialects::shared::credentials::Credentials;
use crate::dialects::shared::lenient;
use crate::dialects::{Context, Input, Opening, Output, Request, Response, Session, Token};
use crate::model::client::{Client, Dialect};
use crate::model::snapshot::Question;
use crate::model::time::Now;

/// What `Allow` and its CORS sibling say.
const ALLOWED: &str = "POST, OPTIONS";

/// Answers a call, or begins one that the hub has to be asked for.
pub(super) fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let manner = Manner::of(request, context);
    let done = |response| Opening::Respond(manner.on(response));
    match request.method.as_str() {
        "POST" => {}
        "OPTIONS" => {
            let response = match manner.origin {
                Some(_) => cors::preflight(request, ALLOWED),
                None => Response { status: 204, headers: Vec::new(), body: Bytes::new() },
            };
            return done(response.with("allow", ALLOWED).with("access-control-max-age", "86400"));
        }
        _ => return done(manner.render(&Reply::failure(405, "Method not allowed")).with("allow", ALLOWED)),
    }
    let common = &context.settings.oam.common;
    let credentials = Credentials::of(request);
    let Some(client) = credentials.admit(context, Dialect::Oam, common) else {
        credentials.refused("oam", now);
        let response = manner.render(&Reply::failure(401, "Unauthorized"));
        return done(response.with("www-authenticate", "Bearer"));
    };
    let Some(payload) = payload(&request.body) else { return done(manner.render(&Reply::bad_request())) };
    let path = format!("/{}", request.segments().join("/"));
    let caller = Caller { context, client: &client, dates: wire::Dates::Millis, now };
    match api::call(&path, &payload, caller) {
        Call::Done(reply) => done(manner.render(&reply)),
        Call::Ask(question, pending) => {
            let step = Some((question, pending));
            let context = Arc::clone(context);
            Opening::Call(Box::new(RestCall { context, client, manner, step, waiting: None, output: None }))
        }
    }
}

/// Whether a WebSocket may come from the page that asks for it. One without an Origin is no page.
pub(super) fn admits_origin(request: &Request, context: &Context) -> bool {
    let Some(origin) = request.header("origin") else { return true };
    origin.eq_ignore_ascii_case(&request.origin.http("")) || allowed(context, origin).is_some()
}

/// The body as JSON; an empty one is a call without fields.
fn payload(body: &Bytes) -> Option<Json> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Some(Json::Null);
    }
    lenient::parse(&String::from_utf8_lossy(body)).ok()
}

/// The value of Access-Control-Allow-Origin for a page of this origin.
fn allowed<'a>(context: &Context, origin: &'a str) -> Option<&'a str> {
    let setting = &*context.settings.oam.access_control_allow_origin;
    if setting.trim() == "*" {
        return Some("*");
    }
    setting.split(',').any(|allowed| allowed.trim().eq_ignore_ascii_case(origin)).then_some(origin)
}

/// How answers are given: what is said about origins on every one, and whether the status is in the body alone.
#[derive(Debug)]
struct Manner {
    origin: Option<String>,
    always_200: bool,
}

impl Manner {
    fn of(request: &Request, context: &Context) -> Self {
        let origin = request.header("origin").unwrap_or_default();
        let always_200 = context.settings.oam.rest_always_200;
        Self { origin: allowed(context, origin).map(str::to_owned), always_200 }
    }

    fn render(&self, reply: &Reply) -> Response {
        let body = wire::response(None, reply.status, reply.reason, reply.payload.as_ref());
        Response::json(if self.always_200 { 200 } else { reply.status }, body)
    }

    fn on(&self, response: Response) -> Response {
        let response = response.with("vary", "origin");
        match &self.origin {
            Some(origin) => response.with("access-control-allow-origin", origin.as_str()),
            None => response,
        }
    }
}

/// A call that waits for the hub.
#[derive(Debug)]
struct RestCall {
    context: Arc<Context>,
    client: Arc<Client>,
    manner: Manner,
    /// What is to be asked first.
    step: Option<(Question, Pending)>,
    /// What goes on with the answer.
    waiting: Option<Pending>,
    output: Option<Output>,
}

impl RestCall {
    fn ask(&mut self, question: Question, pending: Pending) {
        self.waiting = Some(pending);
        self.output = Some(Output::Ask { token: Token(0), client: Arc::clone(&self.client), question });
    }

    fn respond(&mut self, reply: &Reply) {
        self.output = Some(Output::Respond(self.manner.on(self.manner.render(reply))));
    }
}

impl Session for RestCall {
    fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Open => {
                if let Some((question, pending)) = self.step.take() {
                    self.ask(question, pending);
                }
            }
            Input::Answer(_, answer) => {
                let Some(pending) = self.waiting.take() else { return };
                let (context, client) = (Arc::clone(&self.context), Arc::clone(&self.client));
                let caller = Caller { context: &context, client: &client, dates: wire::Dates::Millis, now };
                match pending.advance(answer, caller) {
                    Call::Done(reply) => self.respond(&reply),
                    Call::Ask(question, pending) => self.ask(question, pending),
                }
            }
            Input::Closing(_) => self.respond(&Reply::failure(503, "Service unavailable")),
            Input::Text(_)
            | Input::Binary(_)
            | Input::Message(_)
            | Input::Accepted(_)
            | Input::Outcome(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Reconfigured(_)
            | Input::Timeout => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.output.take()
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }
}

//! HTTP: a request becomes what dialects know, is offered to each of them, and its answer goes back.
//!
//! Neither path nor query of a request is ever logged: several dialects carry their token there.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, field};

use super::Shared;
use super::admission::SMALL_BODY;
use super::bodies::Place;
use super::body::Payload;
use super::captures;
use super::engine::{Engine, Verdict};
use super::live::Live;
use super::monitor;
use super::origin::{Ends, origin, peer};
use super::sockjs::{self, Delivery, Receiver, Reply, Visit};
use crate::clock;
use crate::dialects::shared::form;
use crate::dialects::{Carry, Closing, Entry, Errand, Input, Opening, Request, Response, Session, Upgrade};
use crate::model::client::Dialect;

/// The page for people.
const PAGE: &str = include_str!("../demo/page.html");

type HttpResponse = http::Response<Payload>;

/// A WebSocket that was accepted and waits for its bytes.
pub(super) struct Accepted {
    pub(super) dialect: Dialect,
    pub(super) peer: IpAddr,
    pub(super) session: Box<dyn Session>,
    /// Has given what the session was made from.
    pub(super) live: Live,
    pub(super) io: OnUpgrade,
}

/// What one request needs: what holds when it comes, and where its connection stands.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    /// Has given `shared`.
    pub(super) live: Live,
    pub(super) entries: Arc<[Entry]>,
    pub(super) ends: Ends,
    pub(super) stop: CancellationToken,
    /// Where an accepted WebSocket goes. Holds one: a connection is upgraded once.
    pub(super) accepted: mpsc::Sender<Accepted>,
}

impl Door {
    /// Answers one request. Never fails: what goes wrong is an answer.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: HttpRequest<Incoming>,
    ) -> Result<HttpResponse, Infallible> {
        let method = request.method().clone();
        let peer = peer(&self.ends, &self.shared.server.trusted_proxies, request.headers());
        let span = debug_span!("request", %method, %peer, dialect = field::Empty, client = field::Empty);
        let response = self.dispatch(request, peer).instrument(span.clone()).await;
        span.in_scope(|| debug!(status = response.status().as_u16(), "answered"));
        Ok(response)
    }

    async fn dispatch(&self, mut request: HttpRequest<Incoming>, peer: IpAddr) -> HttpResponse {
        if let Some(page) = monitor::page(request.uri().path()) {
            return convert(
                monitor::answer(page, request.method(), request.headers(), peer, &self.shared).await,
            );
        }
        if let Some(response) = own_page(request.uri().path(), request.method()) {
            return response;
        }
        let logins = self.shared.admission.logins(self.shared.server.limits.failed_logins);
        if let Some(wait) = logins.blocked(peer, clock::instant()) {
            return convert(not_listened_to(wait));
        }
        if let Some(response) = captures::answer(&request, peer, &self.shared) {
            return convert(response);
        }
        let key = match upgrade_key(&request) {
            Ok(key) => key,
            Err(response) => return convert(response),
        };
        let upgrade = key.map(|key| (hyper::upgrade::on(&mut request), key));
        let wants_json = wants_json(request.uri().path(), request.headers());
        let (request, room) = match self.read(request, peer, upgrade.is_some(), wants_json).await {
            Ok(read) => read,
            Err(response) => return convert(response),
        };
        let now = clock::now();
        let opened = self.entries.iter().find_map(|entry| {
            let opening = (entry.open)(&request, &self.shared.context, now);
            (!matches!(opening, Opening::NotMine)).then_some((entry.dialect, opening))
        });
        // What is still kept from here on is kept for somebody who is known.
        drop((request, room));
        let Some((dialect, opening)) = opened else {
            return convert(not_found(wants_json));
        };
        tracing::Span::current().record("dialect", dialect.name());
        match (opening, upgrade) {
            (Opening::NotMine, _) => convert(not_found(wants_json)),
            (Opening::Respond(response), _) => convert(response),
            (Opening::Call(session), _) => convert(self.call(dialect, peer, session, wants_json).await),
            (Opening::Carry(carry), _) => self.carry(dialect, peer, carry).await,
            (Opening::Upgrade(upgrade), Some((io, key))) => self.accept(dialect, peer, upgrade, io, &key),
            (Opening::Upgrade(_), None) => plain(StatusCode::BAD_REQUEST, "this path is a WebSocket\n"),
        }
    }

    /// Reads the body and puts the request into the form that dialects know.
    async fn read(
        &self,
        request: HttpRequest<Incoming>,
        peer: IpAddr,
        upgrade: bool,
        wants_json: bool,
    ) -> Result<(Request, Option<Place>), Response> {
        let (parts, body) = request.into_parts();
        let patience = self.shared.patience.body;
        let (body, room) = match tokio::time::timeout(patience, self.body(body, peer)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(fault(wants_json, 413, "the body is too large"));
            }
            Ok(Err(error)) if error.is::<GaveWay>() => {
                return Err(fault(wants_json, 408, "the body comes too slowly while others wait"));
            }
            Ok(Err(_)) => return Err(fault(wants_json, 400, "the body cannot be read")),
            Err(_) => return Err(fault(wants_json, 408, "the body takes too long")),
        };
        let server = &self.shared.server;
        let host = parts
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()));
        let origin =
            origin(&self.ends, &server.trusted_proxies, server.public_url.as_ref(), host, &parts.headers);
        let headers = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let request = Request {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: form::pairs(parts.uri.query().unwrap_or_default()),
            headers,
            body,
            peer,
            origin,
            upgrade,
            logins: self.shared.admission.logins(server.limits.failed_logins),
        };
        Ok((request, room))
    }

    /// Reads a body. Who sends it is not known yet, so one that is not small needs a place among all large ones, and loses
    /// it where it comes too slowly.
    async fn body(
        &self,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<(Bytes, Option<Place>), Box<dyn Error + Send + Sync>> {
        let (limit, patience) = (self.shared.server.limits.frame_bytes, &self.shared.patience);
        let deadline = clock::instant() + patience.body;
        let stated = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let whole = stated.unwrap_or(limit).min(limit);
        let mut body = Limited::new(body, limit);
        let (mut read, mut place) = (BytesMut::new(), None::<Place>);
        loop {
            let frame = match &place {
                None => body.frame().await,
                Some(place) => tokio::select! {
                    // Cancel-safe: a frame is taken when it is ready, and nothing before.
                    frame = body.frame() => frame,
                    // Cancel-safe: a cancelled token stays cancelled.
                    () = place.gives_way() => return Err(GaveWay.into()),
                },
            };
            let Some(frame) = frame else { return Ok((read.freeze(), place)) };
            let Ok(data) = frame?.into_data() else { continue };
            let bytes = read.len() + data.len();
            match &place {
                Some(place) => place.read(bytes),
                None if bytes > SMALL_BODY => {
                    let admission = &self.shared.admission;
                    let taken = admission.large_body(peer, (bytes, whole), deadline, patience.grace);
                    place = Some(taken.await);
                }
                None => {}
            }
            read.extend_from_slice(&data);
        }
    }

    /// Runs a call to its response.
    async fn call(
        &self,
        dialect: Dialect,
        peer: IpAddr,
        session: Box<dyn Session>,
        wants_json: bool,
    ) -> Response {
        let shared = &self.shared;
        let mut engine = Engine::new(
            session,
            shared.hub.clone().of(dialect, peer),
            shared.server.limits.send_queue,
            shared.meters.dialect(dialect),
        );
        let deadline = clock::instant() + shared.patience.call;
        let mut batch = Vec::new();
        engine.step(Input::Open).await;
        loop {
            // A call has nowhere to send a message to.
            engine.outbox.clear();
            match engine.verdict.take() {
                None => {}
                Some(Verdict::Respond(response)) => return response,
                Some(Verdict::Close { .. }) if self.stop.is_cancelled() => {
                    return fault(wants_json, 503, "the gateway stops");
                }
                Some(Verdict::Close { .. }) => {
                    return fault(wants_json, 500, "the call ended without an answer");
                }
            }
            let wake = engine.timeout().map_or(deadline, |timeout| timeout.min(deadline));
            tokio::select! {
                // Cancel-safe by its documentation.
                news = engine.news(&mut batch) => engine.take(news, &mut batch).await,
                // Cancel-safe: a sleep holds nothing.
                () = tokio::time::sleep_until(wake.into()) => {
                    if clock::instant() >= deadline {
                        return fault(wants_json, 504, "no answer came in time");
                    }
                    engine.step(Input::Timeout).await;
                }
                // Cancel-safe: a cancelled token stays cancelled.
                () = self.stop.cancelled() => engine.step(Input::Closing(Closing::Shutdown)).await,
            }
        }
    }

    /// Brings a request to the session that it is for.
    async fn carry(&self, dialect: Dialect, peer: IpAddr, carry: Carry) -> HttpResponse {
        let Carry { name, head, errand } = carry;
        let (reply, replied) = oneshot::channel();
        let (errand, body) = match errand {
            Errand::Receive { form, session } => {
                // One piece at a time: what the client has not read stays with the session, which knows its limits.
                let (pieces, body) = mpsc::channel(1);
                (sockjs::Errand::Receive { session, receiver: Receiver { form, pieces, reply } }, Some(body))
            }
            Errand::Send(text) => (sockjs::Errand::Send(Delivery { text, reply }), None),
        };
        let live = self.live.clone();
        self.shared.sockjs.visit(Visit { dialect, peer, name, live, errand }).await;
        let reply = tokio::time::timeout(self.shared.patience.call, replied).await;
        let refusal = |status, text: &'static str| {
            // A page may read a refusal too, so what is said about origins stays.
            let headers = head.headers.iter().filter(|(name, _)| name != "content-type").cloned();
            let mut response = Response::text(status, text);
            response.headers.extend(headers);
            convert(response)
        };
        match (reply, body) {
            (Ok(Ok(Reply::Taken)), None) => convert(head),
            (Ok(Ok(Reply::Taken)), Some(body)) => {
                let mut response = convert(head);
                *response.body_mut() = Payload::Pieces(body);
                response
            }
            // A session that ends drops what waits for it.
            (Ok(Ok(Reply::Nobody) | Err(_)), _) => refusal(404, "no such session\n"),
            (Ok(Ok(Reply::Full)), _) => refusal(503, "there are too many sessions or requests\n"),
            (Err(_), _) => refusal(503, "the session does not keep up\n"),
        }
    }

    /// Answers an upgrade and hands the session to whoever drives the connection.
    fn accept(
        &self,
        dialect: Dialect,
        peer: IpAddr,
        upgrade: Upgrade,
        io: OnUpgrade,
        key: &str,
    ) -> HttpResponse {
        let subprotocol = match upgrade.subprotocol.as_deref().map(HeaderValue::from_str).transpose() {
            Ok(subprotocol) => subprotocol,
            Err(error) => {
                error!(%error, "a chosen subprotocol cannot stand in a header");
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n");
            }
        };
        let live = self.live.clone();
        let accepted = Accepted { dialect, peer, session: upgrade.session, live, io };
        if self.accepted.try_send(accepted).is_err() {
            return plain(StatusCode::BAD_REQUEST, "the connection is a WebSocket already\n");
        }
        let mut response = HttpResponse::new(Bytes::new().into());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(key) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
        }
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        response
    }
}

/// A body has lost its place to another one.
#[derive(Debug, thiserror::Error)]
#[error("the body gave way to another one")]
struct GaveWay;

/// The server's own page for people.
fn own_page(path: &str, method: &Method) -> Option<HttpResponse> {
    if path != "/" {
        return None;
    }
    if method != Method::GET && method != Method::HEAD {
        let response = Response::text(405, "only GET is answered here\n").with("allow", "GET, HEAD");
        return Some(convert(response));
    }
    let response = Response { status: 200, headers: Vec::new(), body: Bytes::from_static(PAGE.as_bytes()) }
        .with("content-type", "text/html;charset=UTF-8")
        .with("cache-control", "no-cache")
        .with("x-content-type-options", "nosniff");
    Some(convert(response))
}

/// The key of a WebSocket upgrade, `None` for an ordinary request, or the answer to one that is neither (RFC 6455
/// section 4.2).
fn upgrade_key(request: &HttpRequest<Incoming>) -> Result<Option<String>, Response> {
    let headers = request.headers();
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Ok(None);
    }
    // An older protocol knows no upgrade (RFC 9110 section 7.8); such a request came through a proxy that cannot.
    if request.version() < Version::HTTP_11
        || request.method() != Method::GET
        || !has_token(headers, header::CONNECTION, "upgrade")
    {
        return Err(Response::text(400, "a WebSocket begins with GET by HTTP/1.1 and Connection: Upgrade\n"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let response = Response::text(426, "only WebSocket version 13 is spoken here\n")
            .with("sec-websocket-version", "13")
            .with("upgrade", "websocket");
        return Err(response);
    }
    match headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).filter(|key| is_key(key)) {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Response::text(400, "Sec-WebSocket-Key must be 16 bytes in base64\n")),
    }
}

/// Whether it is sixteen bytes in base64.
fn is_key(key: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|digits| digits.bytes().all(inside))
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|each| each.trim().eq_ignore_ascii_case(token))
}

fn wants_json(path: &str, headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    path.starts_with("/api/") || accepts.is_some_and(|accept| accept.contains("json"))
}

/// The answer to an address from which somebody guesses.
pub(super) fn not_listened_to(wait: Duration) -> Response {
    let response = fault(true, 429, "too many failed logins from this address");
    response.with("retry-after", wait.as_secs().saturating_add(1).to_string())
}

fn not_found(wants_json: bool) -> Response {
    fault(wants_json, 404, "no such path")
}

/// The answer where no dialect has one. As JSON it has the members that clients of all dialects look at, since it is not known
/// whose client asks, and a page may read it.
fn fault(wants_json: bool, status: u16, words: &'static str) -> Response {
    if !wants_json {
        return Response::text(status, format!("{words}\n"));
    }
    let reason = if status == 404 { "Object not found" } else { words };
    let body = format!(
        r#"{{"code":{status},"msg":"{words}","message":"{words}","status":{status},"reason":"{reason}"}}"#
    );
    Response::json(status, body).with("access-control-allow-origin", "*")
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    convert(Response::text(status.as_u16(), text))
}

/// A dialect's response as hyper wants it. Headers that cannot be sent are left out: they are a fault of ours, and
/// the rest of the answer is still true.
fn convert(response: Response) -> HttpResponse {
    let mut converted = HttpResponse::new(response.body.into());
    *converted.status_mut() =
        StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => {
                converted.headers_mut().append(name, value);
            }
            (Err(_), _) | (_, Err(_)) => error!(header = %name.escape_debug(), "a header cannot be sent"),
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(!is_key("dGhlIHNhbXBsZSBub25jZQ="));
        assert!(!is_key("dGhlIHNhbXBsZSBub25j\u{e9}Q=="));
        assert!(!is_key(""));
    }

    #[test]
    fn a_header_that_cannot_be_sent_does_not_spoil_the_answer() {
        let response =
            convert(Response::text(200, "x").with("bad name", "v").with("ok", "a\nb").with("fine", "v"));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers().len(), 2);
    }
}

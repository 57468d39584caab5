//! Janus: an HTTP call that names a WebSocket address and a topic, then STOMP.
//!
//! ```text
//!   GET /api/janus/websocket?token=59E9-B2A9-7609-D0E2&uuid=E07E-8972-925A-C99B
//! < {"code":200,"message":"","data":{"websocket":"ws://127.0.0.1:8080/websocket?ticket=..",
//!                                    "topic":"/websocket/deviceData/E07E-8972-925A-C99B"}}
//!   GET /websocket?ticket=..                                                              -> 101
//! > CONNECT, SUBSCRIBE destination:/websocket/deviceData/E07E-8972-925A-C99B
//! < MESSAGE .. {"uuid":"E07E-8972-925A-C99B","time":"2018-04-12 14:25:20:034","data":{"speed":20,"open":true}}
//! ```
//!
//! Scripts find devices by `/api/device/list` and `/query`, read past values by `/data`, and write by `/pushdata`.
//!
//! The vendor's clients log in nowhere but in the HTTP call, and use the address that it returns as it is: the
//! ticket in it carries the login over. `/api/janus/websocket-sockjs` is the same for SockJS clients: it gives
//! `http://127.0.0.1:8080/ws?ticket=..` and the topic `/ws/deviceData/E07E-8972-925A-C99B`.

use std::sync::Arc;
use std::time::Duration;

use super::shared::cors;
use super::shared::credentials::Credentials;
use super::shared::stomp::{App, Tolerance};
use super::{Common, Context, Opening, Request, Response};
use crate::model::client::Dialect;
use crate::model::time::Now;

mod data;
mod device;
mod session;
mod ticket;
mod wire;

#[cfg(test)]
mod tests;

/// What can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// How long the ticket in a returned address may be used to connect.
    pub ticket_lifetime: Duration,
    /// How `time` is written.
    pub time: TimeForm,
    /// What is put up with on `/websocket`, and on `/ws` where it is this dialect's alone.
    pub stomp: Tolerance,
}

impl Default for Settings {
    fn default() -> Self {
        // Long enough for a page that connects again and again on a bad link, short enough for a log file.
        Self {
            common: Common::default(),
            ticket_lifetime: Duration::from_secs(600),
            time: TimeForm::Colon,
            stomp: Tolerance::default(),
        }
    }
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

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    if !context.settings.janus.common.enabled {
        return Opening::NotMine;
    }
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["websocket"] => super::endpoints::websocket(request, context, now),
        // Pages of any origin may come, as with the vendor's server.
        ["ws", ..] if !super::endpoints::share_ws(context) => {
            super::endpoints::ws(request, context, now, Dialect::Janus, true)
        }
        ["api", "janus", "websocket"] => {
            Opening::Respond(with_cors(address(request, context, now, Service::WebSocket)))
        }
        ["api", "janus", "websocket-sockjs"] => {
            Opening::Respond(with_cors(address(request, context, now, Service::SockJs)))
        }
        ["api", "janus", ..] => {
            Opening::Respond(with_cors(Response::json(404, wire::refusal(404, "No such service"))))
        }
        ["api", "device", service] => device::open(service, request, context, now),
        _ => Opening::NotMine,
    }
}

/// The application that serves this dialect's topics on a STOMP connection.
pub(super) fn app(context: &Arc<Context>) -> Box<dyn App> {
    Box::new(session::Telemetry::new(Arc::clone(context)))
}

/// The two ways to the same reports.
#[derive(Clone, Copy, Debug)]
enum Service {
    WebSocket,
    SockJs,
}

/// The HTTP call. A failure is HTTP 200 with its code in the body, because the vendor's page looks at the body
/// alone. The token is looked at before the device, so that a stranger learns nothing of devices.
fn address(request: &Request, context: &Context, now: Now, service: Service) -> Response {
    match request.method.as_str() {
        "GET" | "HEAD" => {}
        "OPTIONS" => return cors::preflight(request, ALLOWED),
        _ => return Response::text(405, "only GET\n").with("allow", ALLOWED),
    }
    let settings = &context.settings.janus;
    let credentials = Credentials::of(request);
    let Some(client) = credentials.admit(context, Dialect::Janus, &settings.common) else {
        return stranger(&credentials, now);
    };
    let Some(uuid) = request.query("uuid").filter(|uuid| !uuid.is_empty()) else {
        let message = "Device does not exist: the parameter uuid is missing";
        return Response::json(200, wire::refusal(1003, message));
    };
    let Some(device) = context.directory.by_uuid(uuid).filter(|device| client.sees(device)) else {
        return Response::json(200, wire::refusal(1003, "Device does not exist"));
    };
    // An anonymous client is let in by its network again, and no ticket could name it.
    let query = if credentials.tokens.is_empty() {
        String::new()
    } else {
        let ticket = ticket::Ticket {
            expires: ticket::expiry(&context.seal, now.instant, settings.ticket_lifetime),
            client: client.id.to_string(),
            uuid: device.uuid.to_string(),
        };
        format!("?ticket={}", ticket.seal(&context.seal, &client.secret))
    };
    let (address, prefix) = match service {
        Service::WebSocket => (request.origin.websocket(&format!("/websocket{query}")), session::TOPICS[0]),
        // SockJS clients keep a query behind every path that they append.
        Service::SockJs => (request.origin.http(&format!("/ws{query}")), session::TOPICS[1]),
    };
    let topic = format!("{prefix}{}", device.uuid);
    Response::json(200, wire::address(&address, &topic))
}

/// The answer to whom no credential lets in.
fn stranger(credentials: &Credentials, now: Now) -> Response {
    credentials.refused("janus", now);
    let message = if credentials.tokens.is_empty() {
        "Token authentication failed: the parameter token is missing"
    } else {
        "Token authentication failed"
    };
    Response::json(200, wire::refusal(401, message))
}

/// What `Allow` and its CORS sibling say of the HTTP call.
const ALLOWED: &str = "GET, OPTIONS";

/// The vendor's page is served from another origin than the gateway and sends its token in the address, so any
/// origin may read the answer.
fn with_cors(response: Response) -> Response {
    readable(response, ALLOWED)
}

/// The same for a call with other methods.
fn readable(response: Response, allowed: &str) -> Response {
    let preflight = response.status == 204;
    let response = response
        .with("access-control-allow-origin", "*")
        // The answer carries a ticket, which is not for reuse by whoever shares a cache.
        .with("cache-control", "no-store");
    if preflight {
        response.with("access-control-max-age", "86400")
    } else {
        response.with("access-control-allow-methods", allowed)
    }
}

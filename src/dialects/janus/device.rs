//! The device calls of the vendor's manual: `list` and `query` tell of devices, `data` of past values, `pushdata`
//! writes to one.
//!
//! As with the address call, a failure is HTTP 200 with its code in the body, and the token is looked at before the
//! device. 401 and 1003 are the vendor's codes; for what his manual has no code, HTTP's own stand in: 501 where no
//! history is kept that `data` could tell of.
//!
//! A `callback` address is not called: the answer itself waits for the device and tells what became of the write,
//! and a gateway that calls addresses which a client names could be turned against its own network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json};

use super::{data, readable, stranger, wire};
use crate::dialects::shared::credentials::Credentials;
use crate::dialects::shared::{cors, form, json, lease, lenient, message_id};
use crate::dialects::{Context, Input, Opening, Output, Request, Response, Session, Token};
use crate::model::client::{Client, Dialect};
use crate::model::command::{Action, Command, Outcome, Rejection};
use crate::model::device::Device;
use crate::model::history::History;
use crate::model::interest::Selector;
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::model::time::Now;

/// Devices on one page of the list.
const PAGE: usize = 15;

/// How long a write may take; the manual names no time, and its clients are scripts that wait.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// The four calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    List,
    Query,
    Data,
    PushData,
}

impl Service {
    fn named(name: &str) -> Option<Self> {
        match name {
            "list" => Some(Self::List),
            "query" => Some(Self::Query),
            "data" => Some(Self::Data),
            "pushdata" => Some(Self::PushData),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::List | Self::Query | Self::Data => "GET",
            Self::PushData => "POST",
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::List | Self::Query | Self::Data => "GET, OPTIONS",
            Self::PushData => "POST, OPTIONS",
        }
    }
}

/// Answers a call, or begins it.
pub(super) fn open(name: &str, request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let Some(service) = Service::named(name) else {
        let response = Response::json(404, wire::refusal(404, "No such service"));
        return Opening::Respond(readable(response, "OPTIONS"));
    };
    let done = |response| Opening::Respond(readable(response, service.allowed()));
    match request.method.as_str() {
        "OPTIONS" => return done(cors::preflight(request, service.allowed())),
        "HEAD" if service.method() == "GET" => {}
        method if method == service.method() => {}
        _ => {
            let only = format!("only {}\n", service.method());
            return done(Response::text(405, only).with("allow", service.allowed()));
        }
    }
    let fields = if service == Service::PushData { Fields::read(request) } else { Ok(Fields::default()) };
    let mut credentials = Credentials::of(request);
    let in_body = fields.as_ref().ok().and_then(|fields| fields.text("token"));
    credentials.tokens.extend(in_body.filter(|token| !token.is_empty()));
    let Some(client) = credentials.admit(context, Dialect::Janus, &context.settings.janus.common) else {
        return done(stranger(&credentials, now));
    };
    let wish = fields.and_then(|fields| Wish::of(service, request, &fields, &client, context, now));
    match wish {
        Ok(wish) => {
            Opening::Call(Box::new(Call { context: Arc::clone(context), client, wish, output: None }))
        }
        Err(refusal) => done(refusal.response()),
    }
}

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u16,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn no_device() -> Self {
        Self::new(1003, "Device does not exist")
    }

    /// What an outcome other than success says.
    fn of(outcome: &Outcome) -> Option<Self> {
        let refusal = match outcome {
            Outcome::Confirmed { .. } => return None,
            Outcome::Rejected(Rejection::UnknownDevice(_)) => Self::no_device(),
            Outcome::Rejected(
                rejection @ (Rejection::ByDevice(_) | Rejection::Mismatch { .. } | Rejection::Step { .. }),
            ) => Self::new(502, rejection.to_string()),
            Outcome::Rejected(
                rejection @ (Rejection::Expired
                | Rejection::Superseded(_)
                | Rejection::TooSoon { .. }
                | Rejection::TooManyLeases(_)),
            ) => Self::new(429, rejection.to_string()),
            Outcome::Rejected(
                rejection @ (Rejection::UnknownProperty(_)
                | Rejection::ReadOnly(_)
                | Rejection::WriteOnly(_)
                | Rejection::WrongType { .. }
                | Rejection::OutOfRange { .. }
                | Rejection::Lease { .. }
                | Rejection::UnknownFunction(_)
                | Rejection::MissingInput(_)
                | Rejection::UnknownInput(_)
                | Rejection::Empty),
            ) => Self::new(400, rejection.to_string()),
            Outcome::Offline => Self::new(503, "the device is offline"),
            Outcome::TimedOut => Self::new(504, "the device did not answer in time: the result is unknown"),
            Outcome::Busy => Self::new(429, "too many commands wait already"),
            Outcome::Forbidden => Self::new(403, "this token may not write"),
        };
        Some(refusal)
    }

    fn response(&self) -> Response {
        Response::json(200, wire::refusal(self.code, &self.message))
    }
}

/// What was sent in a body: JSON or a form.
#[derive(Debug, Default)]
struct Fields {
    json: Map<String, Json>,
    form: Vec<(String, String)>,
}

impl Fields {
    fn read(request: &Request) -> Result<Self, Refusal> {
        let text = String::from_utf8_lossy(&request.body);
        let named_json = request.header("content-type").is_some_and(|kind| kind.contains("json"));
        // Scripts send JSON under the content type that their tool puts there by itself.
        if !named_json && !text.trim_start().starts_with('{') {
            return Ok(Self { json: Map::new(), form: form::pairs(&text) });
        }
        match lenient::parse(&text) {
            Ok(Json::Object(json)) => Ok(Self { json, form: Vec::new() }),
            Ok(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => {
                Err(Refusal::new(400, "the body is no JSON object"))
            }
            Err(error) => Err(Refusal::new(400, format!("the body is {error}"))),
        }
    }

    fn in_form(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.json.get(name) {
            Some(Json::String(text)) => Some(text.clone()),
            Some(Json::Number(number)) => Some(number.to_string()),
            Some(Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) | None => {
                self.in_form(name).map(str::to_owned)
            }
        }
    }

    /// The values to write: an object, the text of one, or the form fields `data[id]` as jQuery spells an object.
    fn data(&self) -> Result<Map<String, Json>, Refusal> {
        let wrong = || Refusal::new(400, "the parameter data is no JSON object");
        let text = match self.json.get("data") {
            Some(Json::Object(data)) => return Ok(data.clone()),
            Some(Json::String(text)) => Some(text.as_str()),
            Some(Json::Bool(_) | Json::Number(_) | Json::Array(_)) => return Err(wrong()),
            Some(Json::Null) | None => self.in_form("data"),
        };
        if let Some(text) = text {
            return match lenient::parse(text) {
                Ok(Json::Object(data)) => Ok(data),
                Ok(_) | Err(_) => Err(wrong()),
            };
        }
        let spelled = self.form.iter().filter_map(|(name, value)| {
            let id = name.strip_prefix("data[")?.strip_suffix(']')?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value.as_str()));
            Some((id.to_owned(), value))
        });
        Ok(spelled.collect())
    }
}

/// What is to be done, as far as it can be known without the hub.
#[derive(Debug)]
enum Wish {
    List { page: usize },
    Query(Arc<Device>),
    Data(data::Wish),
    Write { command: Command, device: Arc<Device>, operation: Arc<str>, message: &'static str },
}

impl Wish {
    fn of(
        service: Service,
        request: &Request,
        fields: &Fields,
        client: &Client,
        context: &Context,
        now: Now,
    ) -> Result<Self, Refusal> {
        if service == Service::List {
            return Ok(Self::List { page: page(request)? });
        }
        let uuid = fields.text("uuid").or_else(|| request.query("uuid").map(str::to_owned));
        let Some(uuid) = uuid.filter(|uuid| !uuid.is_empty()) else {
            return Err(Refusal::new(1003, "Device does not exist: the parameter uuid is missing"));
        };
        let device = context.directory.by_uuid(&uuid).filter(|device| match service {
            Service::List | Service::Query | Service::Data => client.sees(device),
            // The hub looks at the right to write, which is another than that to see.
            Service::PushData => client.devices.admits(device),
        });
        let device = device.map(Arc::clone).ok_or_else(Refusal::no_device)?;
        if service == Service::Query {
            return Ok(Self::Query(device));
        }
        if service == Service::Data {
            let zone = &context.gateway.timezone;
            return data::Wish::of(request, &device, page(request)?, zone).map(Self::Data);
        }
        let data = fields.data()?;
        if data.is_empty() {
            return Err(Refusal::new(400, "the parameter data is missing or empty"));
        }
        let values = data.iter().map(|(id, value)| (Arc::from(id.as_str()), json::from_json(value)));
        let lease = fields.text("lease").or_else(|| request.query("lease").map(str::to_owned));
        let lease = lease.filter(|text| !text.is_empty()).map(|text| {
            let wrong = || {
                Refusal::new(400, format!("the parameter lease takes {}, found {text:?}", lease::OF_CALLS))
            };
            // A call is a session of its own, and over when it is answered.
            lease::parse(&text, false).ok_or_else(wrong)
        });
        let operation = message_id(now.wall);
        let command = Command {
            device: Arc::clone(&device.id),
            action: Action::Write(values.collect()),
            timeout: WRITE_WITHIN,
            message_id: Some(Arc::clone(&operation)),
            notify_accepted: false,
            lease: lease.transpose()?,
        };
        let asks_callback = fields.text("callback").is_some_and(|address| !address.is_empty());
        let message = if asks_callback { "done; the callback address is not called" } else { "" };
        Ok(Self::Write { command, device, operation, message })
    }
}

/// Which page is asked for; the first where the request does not say.
fn page(request: &Request) -> Result<usize, Refusal> {
    let page = match request.query("page").filter(|page| !page.is_empty()) {
        Some(page) => page.parse().ok().filter(|page| *page > 0),
        None => Some(1),
    };
    page.ok_or_else(|| Refusal::new(400, "the parameter page is no number from 1 on"))
}

/// A call that waits for the hub.
#[derive(Debug)]
struct Call {
    context: Arc<Context>,
    client: Arc<Client>,
    wish: Wish,
    output: Option<Output>,
}

impl Call {
    fn begin(&self) -> Output {
        let (token, client) = (Token(0), Arc::clone(&self.client));
        let question = match &self.wish {
            Wish::List { .. } => Question::Snapshot(Selector::All),
            Wish::Query(device) => Question::Snapshot(Selector::Device(Arc::clone(&device.id))),
            Wish::Data(wish) => Question::History(wish.query.clone()),
            Wish::Write { command, .. } => {
                return Output::Submit { token, client, command: command.clone() };
            }
        };
        Output::Ask { token, client, question }
    }

    fn tell(&self, snapshot: &Snapshot) -> Option<Response> {
        let mut seen = snapshot.devices.iter().filter(|state| self.client.sees(&state.device));
        match &self.wish {
            Wish::List { page } => {
                let seen: Vec<_> = seen.collect();
                let before = (page - 1).saturating_mul(PAGE);
                let shown: Vec<_> = seen.iter().skip(before).take(PAGE).copied().collect();
                Some(Response::json(200, wire::page(seen.len(), *page, &shown)))
            }
            Wish::Query(_) => Some(seen.next().map_or_else(
                || Refusal::no_device().response(),
                |state| Response::json(200, wire::device(state)),
            )),
            Wish::Data(_) | Wish::Write { .. } => None,
        }
    }

    fn tell_past(&self, history: &History) -> Option<Response> {
        let Wish::Data(wish) = &self.wish else { return None };
        if !history.kept {
            return Some(Refusal::new(501, "this gateway keeps no history").response());
        }
        let (zone, form) = (&self.context.gateway.timezone, self.context.settings.janus.time);
        Some(Response::json(200, wire::past(wish.page, history, zone, form)))
    }

    fn written(&self, outcome: &Outcome) -> Option<Response> {
        let Wish::Write { device, operation, message, .. } = &self.wish else { return None };
        if let Some(refusal) = Refusal::of(outcome) {
            return Some(refusal.response());
        }
        let values = match outcome {
            Outcome::Confirmed { values, .. } => values.as_slice(),
            Outcome::Rejected(_)
            | Outcome::Offline
            | Outcome::TimedOut
            | Outcome::Busy
            | Outcome::Forbidden => &[],
        };
        let values = values.iter().map(|(id, value)| (id, value));
        Some(Response::json(200, wire::pushed(message, device, values, operation)))
    }

    fn allowed(&self) -> &'static str {
        match &self.wish {
            Wish::List { .. } | Wish::Query(_) | Wish::Data(_) => Service::List.allowed(),
            Wish::Write { .. } => Service::PushData.allowed(),
        }
    }
}

impl Session for Call {
    fn handle(&mut self, input: Input, _now: Now) {
        let response = match input {
            Input::Open => {
                self.output = Some(self.begin());
                None
            }
            Input::Answer(_, Answer::Snapshot(snapshot)) => self.tell(&snapshot),
            Input::Answer(_, Answer::History(history)) => self.tell_past(&history),
            Input::Outcome(_, outcome) => self.written(&outcome),
            Input::Closing(_) => Some(Refusal::new(503, "the gateway stops").response()),
            Input::Text(_)
            | Input::Binary(_)
            | Input::Message(_)
            | Input::Accepted(_)
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Reconfigured(_)
            | Input::Timeout => None,
        };
        if let Some(response) = response {
            self.output = Some(Output::Respond(readable(response, self.allowed())));
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// The hub keeps the time of a write, and answers questions at once.
    fn timeout(&self) -> Option<Instant> {
        None
    }
}

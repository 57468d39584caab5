//! Payloads of results: replies to commands, and live messages, both as JetLinks device messages.
//!
//! Whatever a payload is about, it names the device and carries `headers.productId`: known clients read it without
//! looking whether it is there.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::Payload;
use crate::dialects::shared::json;
use crate::model::command::{ActionKind, Outcome, Rejection};
use crate::model::device::Device;
use crate::model::message::{Body, CommandNote, DeviceMessage, Report};
use crate::model::product::AlarmRule;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// Members of a reply envelope. A property or output of such a name does not travel flat beside it.
const ENVELOPE: [&str; 15] = [
    "messageType",
    "messageId",
    "deviceId",
    "functionId",
    "success",
    "code",
    "message",
    "timestamp",
    "properties",
    "output",
    "inputs",
    "headers",
    "event",
    "data",
    "thingType",
];

/// Why a command did not do what was asked, in the words of the JetLinks error table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    code: &'static str,
    message: String,
    /// Kind of fault in the request's values, for the `errorType` header.
    fault: Option<&'static str>,
}

impl Failure {
    /// A code of the table with the message that current servers send: the key of its translation.
    fn known(code: &'static str) -> Self {
        Self { code, message: format!("error.code.{}", code.to_ascii_lowercase()), fault: None }
    }

    /// A code with words of our own.
    fn worded(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fault: None }
    }

    fn value(fault: &'static str, message: impl Into<String>) -> Self {
        Self { code: "PARAMETER_ERROR", message: message.into(), fault: Some(fault) }
    }

    /// The request itself lacks something.
    pub(super) fn parameter(message: &str) -> Self {
        Self::value("MissingParameter", message)
    }

    /// The value cannot be leased as the request wants.
    pub(super) fn lease(message: impl Into<String>) -> Self {
        Self::value("WrongLease", message)
    }

    /// The call names no function, or none that the product has.
    pub(super) fn no_function() -> Self {
        Self::known("FUNCTION_UNDEFINED")
    }

    /// Unknown devices and those out of the client's sight are answered like a device that is switched off, which
    /// is what the JetLinks server does and what tells a stranger least.
    pub(super) fn offline() -> Self {
        Self::known("CLIENT_OFFLINE")
    }

    /// What an outcome says, if it is a failure. The table has no code for a missing right or for a refusal by the
    /// device itself, where the real server passes on the device's own code; ours say what happened.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Confirmed { .. } => None,
            Outcome::Offline => Some(Self::offline()),
            Outcome::TimedOut => Some(Self::known("TIME_OUT")),
            Outcome::Busy => Some(Self::known("SYSTEM_BUSY")),
            Outcome::Forbidden => Some(Self::known("ACCESS_DENIED")),
            Outcome::Rejected(rejection) => Some(Self::rejected(rejection)),
        }
    }

    fn rejected(rejection: &Rejection) -> Self {
        let words = rejection.to_string();
        match rejection {
            Rejection::UnknownDevice(_) => Self::offline(),
            Rejection::UnknownProperty(_) => Self::worded("PROPERTY_UNDEFINED", words),
            Rejection::UnknownFunction(_) => Self::no_function(),
            Rejection::UnknownInput(_) => Self::worded("PARAMETER_UNDEFINED", words),
            Rejection::ReadOnly(_) => Self::value("ReadOnly", words),
            Rejection::WriteOnly(_) => Self::value("WriteOnly", words),
            Rejection::WrongType { .. } => Self::value("WrongType", words),
            Rejection::OutOfRange { .. } => Self::value("OutOfRange", words),
            Rejection::Lease { .. } => Self::lease(words),
            Rejection::MissingInput(_) | Rejection::Empty => Self::value("MissingParameter", words),
            Rejection::ByDevice(_) => Self::worded("DEVICE_REFUSED", words),
            Rejection::Mismatch { .. } => Self::worded("DEVICE_MISMATCH", words),
            Rejection::Expired
            | Rejection::Superseded(_)
            | Rejection::TooSoon { .. }
            | Rejection::TooManyLeases(_) => Self::worded("SYSTEM_BUSY", words),
            Rejection::Step { .. } => Self::worded("STEP_FAILED", words),
        }
    }
}

/// Whom a reply is from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Replier<'a> {
    /// A device.
    Device(&'a Device),
    /// An id that is no device's, and the product that the client named with it.
    Unknown { device: &'a str, product: &'a str },
}

impl Replier<'_> {
    fn id(&self) -> &str {
        match self {
            Self::Device(device) => &device.id,
            Self::Unknown { device, .. } => device,
        }
    }

    fn headers(&self) -> Map<String, Json> {
        match self {
            Self::Device(device) => headers(device),
            Self::Unknown { product, .. } => Map::from_iter([("productId".to_owned(), Json::from(*product))]),
        }
    }
}

/// What a reply says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said<'a> {
    /// What became of it.
    Outcome(&'a Outcome),
    /// It is on its way; nothing further will be said.
    Handling,
    /// It never came to a command.
    Failure(&'a Failure),
}

/// Everything that a reply is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) kind: ActionKind,
    pub(super) message_id: &'a str,
    pub(super) function: Option<&'a str>,
    pub(super) from: Replier<'a>,
    pub(super) at: UnixMillis,
    pub(super) said: Said<'a>,
}

impl Reply<'_> {
    /// The reply in a form. A failure and an acknowledgement have no values and are an envelope in every form.
    pub(super) fn render(&self, form: Payload) -> Map<String, Json> {
        let values = self.values();
        match form {
            Payload::Seed if self.succeeded() => values,
            Payload::Seed | Payload::Jetlinks => self.envelope(&values),
            Payload::Merged => {
                let mut payload = self.envelope(&values);
                payload.extend(values.into_iter().filter(|(name, _)| !ENVELOPE.contains(&name.as_str())));
                payload
            }
        }
    }

    /// Where the answer of this one device would be asked for.
    pub(super) fn topic(&self) -> String {
        let product = match self.from {
            Replier::Device(device) => &device.product.id,
            Replier::Unknown { product, .. } => product,
        };
        format!("/device-message-sender/{product}/{}", self.from.id())
    }

    fn succeeded(&self) -> bool {
        matches!(self.said, Said::Outcome(Outcome::Confirmed { .. }))
    }

    /// What was read, written or given back.
    fn values(&self) -> Map<String, Json> {
        match self.said {
            Said::Outcome(Outcome::Confirmed { values, outputs }) => {
                let values = if self.kind == ActionKind::Invoke { outputs } else { values };
                json::object(values.iter().map(|(id, value)| (id, value)))
            }
            Said::Outcome(
                Outcome::Rejected(_)
                | Outcome::Offline
                | Outcome::TimedOut
                | Outcome::Busy
                | Outcome::Forbidden,
            )
            | Said::Handling
            | Said::Failure(_) => Map::new(),
        }
    }

    fn envelope(&self, values: &Map<String, Json>) -> Map<String, Json> {
        let failure = match self.said {
            Said::Outcome(outcome) => Failure::of(outcome),
            Said::Failure(failure) => Some(failure.clone()),
            Said::Handling => None,
        };
        let (message_type, place) = match self.kind {
            ActionKind::Read => ("READ_PROPERTY_REPLY", "properties"),
            ActionKind::Write => ("WRITE_PROPERTY_REPLY", "properties"),
            ActionKind::Invoke => ("INVOKE_FUNCTION_REPLY", "output"),
        };
        let mut payload = Map::new();
        payload.insert("messageType".to_owned(), message_type.into());
        payload.insert("messageId".to_owned(), self.message_id.into());
        payload.insert("deviceId".to_owned(), self.from.id().into());
        if let Some(function) = self.function {
            payload.insert("functionId".to_owned(), function.into());
        }
        payload.insert("success".to_owned(), failure.is_none().into());
        payload.insert("timestamp".to_owned(), self.at.0.into());
        let mut headers = self.from.headers();
        let handling = matches!(self.said, Said::Handling).then(|| Failure::known("REQUEST_HANDLING"));
        if let Some(note) = failure.or(handling) {
            if let Some(fault) = note.fault {
                headers.insert("errorType".to_owned(), fault.into());
                headers.insert("errorMessage".to_owned(), note.message.clone().into());
            }
            payload.insert("code".to_owned(), note.code.into());
            payload.insert("message".to_owned(), note.message.into());
        }
        // A read that found nothing still says so; a write or call that gave nothing back leaves the member out.
        if !values.is_empty() || (self.kind == ActionKind::Read && self.succeeded()) {
            payload.insert(place.to_owned(), Json::Object(values.clone()));
        }
        payload.insert("headers".to_owned(), Json::Object(headers));
        payload
    }
}

fn headers(device: &Device) -> Map<String, Json> {
    let product = &device.product;
    let members = [("productId", &product.id), ("productName", &product.name), ("deviceName", &device.name)];
    members.into_iter().map(|(name, value)| (name.to_owned(), Json::from(&**value))).collect()
}

/// The payload of a live message without its mark.
///
/// Alarms have no topic of their own below a device; they appear as events named like their rule. A raw publish
/// appears as a direct message whose payload is the text itself.
fn unmarked(message: &DeviceMessage) -> Map<String, Json> {
    let device = &message.device;
    match &message.body {
        Body::Properties(reports) => properties(message, reports),
        Body::Event { event, params, .. } => {
            let data = json::object(params.iter().map(|(id, value)| (id, value)));
            fill(message, "EVENT", [("event", Json::from(&**event)), ("data", Json::Object(data))])
        }
        Body::Alarm { rule, property, raised, value, .. } => {
            let data = alarm(device, rule, *property, *raised, value);
            fill(message, "EVENT", [("event", Json::from(&*rule.id)), ("data", data)])
        }
        Body::Presence { online: true, .. } => {
            let mut payload = fill(message, "ONLINE", []);
            if let Some(Json::Object(headers)) = payload.get_mut("headers") {
                headers.insert("connectTime".to_owned(), message.at.0.into());
            }
            payload
        }
        Body::Presence { online: false, reason } => {
            let reason = reason.as_ref().map(|reason| ("message", Json::from(&**reason)));
            fill(message, "OFFLINE", reason)
        }
        Body::Publish { topic, payload } => {
            fill(message, "DIRECT", [("topic", Json::from(&**topic)), ("payload", Json::from(&**payload))])
        }
        Body::Sent { command } => sent(message, command),
        Body::Reply { command, outcome } => Reply {
            kind: command.kind,
            message_id: &command.message_id,
            function: command.function.as_deref(),
            from: Replier::Device(device),
            at: message.at,
            said: Said::Outcome(outcome),
        }
        .render(Payload::Jetlinks),
        Body::Ota { step, detail } => {
            let failed = *step < 0;
            let mut members = vec![
                ("progress", Json::from((*step).max(0))),
                ("complete", Json::from(failed || *step >= 100)),
                ("success", Json::from(!failed)),
            ];
            if failed {
                members.push(("errorReason", Json::from(&**detail)));
            }
            fill(message, "UPGRADE_FIRMWARE_PROGRESS", members)
        }
    }
}

/// A report. Times and states of single values travel only where they are not those of the whole.
fn properties(message: &DeviceMessage, reports: &[Report]) -> Map<String, Json> {
    let values = json::object(reports.iter().map(|report| (&report.id, &report.value)));
    let mut payload = fill(message, "REPORT_PROPERTY", [("properties", Json::Object(values))]);
    if reports.iter().any(|report| report.at != message.at) {
        let times = reports.iter().map(|report| (report.id.as_ref().to_owned(), Json::from(report.at.0)));
        payload.insert("propertySourceTimes".to_owned(), Json::Object(times.collect()));
    }
    let states: Map<String, Json> = reports
        .iter()
        .filter_map(|report| Some((report.id.as_ref().to_owned(), Json::from(state(report.quality)?))))
        .collect();
    if !states.is_empty() {
        payload.insert("propertyStates".to_owned(), Json::Object(states));
    }
    payload
}

/// What an alarm says as the data of an event.
pub(super) fn alarm(device: &Device, rule: &AlarmRule, property: usize, raised: bool, value: &Value) -> Json {
    let property = device.product.properties.get(property).map_or("", |property| &property.id);
    json!({
        "name": &*rule.name,
        "level": rule.level.name(),
        "raised": raised,
        "property": property,
        "value": json::to_json(value),
    })
}

/// How far a value is to be trusted, where that is less than fully.
pub(super) fn state(quality: Quality) -> Option<&'static str> {
    match quality {
        Quality::Good => None,
        Quality::Stale => Some("stale"),
        Quality::Bad => Some("bad"),
    }
}

fn sent(message: &DeviceMessage, command: &CommandNote) -> Map<String, Json> {
    let id = ("messageId", Json::from(&*command.message_id));
    let values = || json::object(command.values.iter().map(|(id, value)| (id, value)));
    match command.kind {
        ActionKind::Read => {
            let ids: Vec<&str> = command.values.iter().map(|(id, _)| &**id).collect();
            fill(message, "READ_PROPERTY", [id, ("properties", Json::from(ids))])
        }
        ActionKind::Write => fill(message, "WRITE_PROPERTY", [id, ("properties", Json::Object(values()))]),
        ActionKind::Invoke => {
            let input =
                |(name, value): &(Arc<str>, Value)| json!({"name": &**name, "value": json::to_json(value)});
            let inputs: Vec<Json> = command.values.iter().map(input).collect();
            let function = Json::from(command.function.as_deref().unwrap_or_default());
            fill(message, "INVOKE_FUNCTION", [id, ("functionId", function), ("inputs", Json::from(inputs))])
        }
    }
}

fn fill(
    message: &DeviceMessage,
    message_type: &str,
    members: impl IntoIterator<Item = (&'static str, Json)>,
) -> Map<String, Json> {
    let mut payload = Map::new();
    payload.insert("messageType".to_owned(), message_type.into());
    payload.insert("deviceId".to_owned(), Json::from(&*message.device.id));
    payload.insert("timestamp".to_owned(), message.at.0.into());
    payload.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
    payload.insert("headers".to_owned(), Json::Object(headers(&message.device)));
    payload
}

/// The payload of a live message; a time that may be wrong is marked by a header of ours, `clock`.
pub(super) fn live(message: &DeviceMessage) -> Map<String, Json> {
    let mut payload = unmarked(message);
    if let (Some(mark), Some(Json::Object(headers))) = (message.clock.mark(), payload.get_mut("headers")) {
        headers.insert("clock".to_owned(), mark.into());
    }
    payload
}

//! Pushes: device messages in the bodies of the vendor's page.
//!
//! A whole message has one push, which is rendered once for all clients; a property report has beside it one push
//! for each property, rendered together and kept as lines. A value that the device could not give is left out, as
//! the real server leaves it out. A value that has become stale is pushed once more with the time that it is of and
//! marked so in a member of ours, `quality`; in a whole report it stands only there.

use serde_json::{Map, Value as Json, json};

use super::Push;
use super::subscription::Subject;
use super::wire;
use crate::model::command::{ActionKind, Outcome, Rejection};
use crate::model::device::Device;
use crate::model::message::{Body, CommandNote, DeviceMessage, Report};
use crate::model::product::Level;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// The mark of a value that is older than it should be.
const STALE: &str = "stale";

/// The subject of a message's one push; for a property report that of the whole report. `None` where it has none.
pub(super) fn subject(message: &DeviceMessage) -> Option<Subject> {
    match &message.body {
        Body::Properties(_) => Some(Subject::PropertyV2),
        Body::Event { .. } | Body::Alarm { .. } => Some(Subject::Event),
        Body::Presence { .. } => Some(Subject::Connection),
        Body::Publish { .. } => Some(Subject::Publish),
        Body::Reply { command, outcome } => answered(command, outcome).then_some(Subject::Action),
        Body::Ota { .. } => Some(Subject::Ota),
        Body::Sent { .. } => None,
    }
}

/// What `identifier` narrows a subscription to, where a message is about one thing.
pub(super) fn identifier(message: &DeviceMessage) -> Option<&str> {
    match &message.body {
        Body::Event { event, .. } => Some(event),
        Body::Alarm { rule, .. } => Some(&rule.id),
        Body::Reply { command, .. } => command.function.as_deref(),
        Body::Properties(_)
        | Body::Presence { .. }
        | Body::Publish { .. }
        | Body::Ota { .. }
        | Body::Sent { .. } => None,
    }
}

/// The one push of a message.
pub(super) fn whole(message: &DeviceMessage, form: Push) -> String {
    let device = &message.device;
    match &message.body {
        Body::Properties(_) => report(message, form, |_| true),
        Body::Event { event, level, params } => {
            let params = wire::values(params.iter().map(|(id, value)| (id, value)));
            render(form, Subject::Event, event_body(message, event, *level, params))
        }
        Body::Alarm { rule, property, raised, value, .. } => {
            let params = alarm_params(device, *property, *raised, value);
            render(form, Subject::Event, event_body(message, &rule.id, rule.level, params))
        }
        Body::Presence { online, .. } => {
            let status = if *online { 1 } else { 2 };
            render(form, Subject::Connection, body(message, message.at, [("status", Json::from(status))]))
        }
        Body::Publish { topic, payload } => render(form, Subject::Publish, publish(message, topic, payload)),
        Body::Reply { command, outcome } => render(form, Subject::Action, action(message, command, outcome)),
        Body::Ota { step, detail } => {
            let status = match step {
                ..0 => 6,
                100.. => 5,
                0..100 => 4,
            };
            let members = [
                ("status", Json::from(status)),
                ("detail", Json::from(&**detail)),
                ("step", Json::from(*step)),
            ];
            render(form, Subject::Ota, body(message, message.at, members))
        }
        Body::Sent { .. } => String::new(),
    }
}

/// A report's one push with only the properties that `takes` admits.
pub(super) fn report(message: &DeviceMessage, form: Push, takes: impl Fn(&str) -> bool) -> String {
    let chosen = || readings(message).filter(|report| takes(&report.id));
    let (stale, good): (Vec<_>, Vec<_>) = chosen().partition(|report| report.quality == Quality::Stale);
    let params = wire::values(good.into_iter().map(|report| (&report.id, &report.value)));
    let marks: Map<String, Json> =
        stale.into_iter().map(|report| (report.id.to_string(), STALE.into())).collect();
    let quality = (!marks.is_empty()).then_some(("quality", Json::Object(marks)));
    let members = [("params", Json::Object(params))].into_iter().chain(quality);
    render(form, Subject::PropertyV2, body(message, message.at, members))
}

/// A report's pushes for single properties, one line each, in the order of [`readings`].
pub(super) fn lines(message: &DeviceMessage, form: Push) -> String {
    let pushes: Vec<String> = readings(message)
        .map(|report| {
            let members = [("identifier", Json::from(&*report.id)), ("param", wire::value(&report.value))];
            let quality = (report.quality == Quality::Stale).then_some(("quality", Json::from(STALE)));
            let members = members.into_iter().chain(quality);
            render(form, Subject::Property, body(message, report.at, members))
        })
        .collect();
    pushes.join("\n")
}

/// The properties of a report that have a value.
pub(super) fn readings(message: &DeviceMessage) -> impl Iterator<Item = &Report> {
    let reports: &[Report] = match &message.body {
        Body::Properties(reports) => reports,
        Body::Event { .. }
        | Body::Alarm { .. }
        | Body::Presence { .. }
        | Body::Publish { .. }
        | Body::Sent { .. }
        | Body::Reply { .. }
        | Body::Ota { .. } => &[],
    };
    reports.iter().filter(|report| report.quality != Quality::Bad && report.value != Value::Null)
}

fn render(form: Push, subject: Subject, body: Map<String, Json>) -> String {
    wire::push(form, subject.code(), body)
}

/// What most bodies begin with. Times are text everywhere in this dialect's pushes.
fn body(
    message: &DeviceMessage,
    at: UnixMillis,
    members: impl IntoIterator<Item = (&'static str, Json)>,
) -> Map<String, Json> {
    let (device, mut body) = (&message.device, Map::new());
    body.insert("device".to_owned(), json!({"productID": &*device.product.id, "deviceName": &*device.id}));
    body.insert("timestamp".to_owned(), Json::from(at.to_string()));
    mark(&mut body, message);
    body.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
    body
}

/// Marks a time that may be wrong, in a member of ours.
fn mark(body: &mut Map<String, Json>, message: &DeviceMessage) {
    if let Some(mark) = message.clock.mark() {
        body.insert("clock".to_owned(), mark.into());
    }
}

fn event_body(
    message: &DeviceMessage,
    identifier: &str,
    level: Level,
    params: Map<String, Json>,
) -> Map<String, Json> {
    let members = [
        ("identifier", Json::from(identifier)),
        ("type", Json::from(level.name())),
        ("params", Json::Object(params)),
    ];
    body(message, message.at, members)
}

/// An alarm has no push of its own; it travels as an event that is named like its rule.
fn alarm_params(device: &Device, property: usize, raised: bool, value: &Value) -> Map<String, Json> {
    let mut params = Map::from_iter([("raised".to_owned(), Json::from(u8::from(raised)))]);
    if let Some(property) = device.product.properties.get(property) {
        params.insert(property.id.as_ref().to_owned(), wire::value(value));
    }
    params
}

/// The only body without a `device`. `action` is the topic's second level where the device publishes by the
/// platform's own topics (`$thing/up/property/...`), and left out elsewhere.
fn publish(message: &DeviceMessage, topic: &str, payload: &str) -> Map<String, Json> {
    let device = &message.device;
    let mut levels = topic.split('/');
    let action = match (levels.next(), levels.next(), levels.next()) {
        (Some(head), Some("up" | "down"), Some(kind)) if head.starts_with('$') => Some(kind),
        _ => None,
    };
    let members = [
        ("productID", Some(&*device.product.id)),
        ("deviceName", Some(&*device.id)),
        ("content", Some(payload)),
        ("topic", Some(topic)),
        ("action", action),
    ];
    let mut body: Map<String, Json> = members
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), Json::from(text.filter(|text| !text.is_empty())?))))
        .collect();
    body.insert("timestamp".to_owned(), Json::from(message.at.to_string()));
    mark(&mut body, message);
    body.insert("resultCode".to_owned(), Json::from(200));
    body
}

/// Only what the device itself answered to a call is pushed; the rest concerns the caller alone.
fn answered(command: &CommandNote, outcome: &Outcome) -> bool {
    let by_device = match outcome {
        Outcome::Confirmed { .. } => true,
        Outcome::Rejected(rejection) => matches!(rejection, Rejection::ByDevice(_)),
        Outcome::Offline | Outcome::TimedOut | Outcome::Busy | Outcome::Forbidden => false,
    };
    command.kind == ActionKind::Invoke && by_device
}

fn action(message: &DeviceMessage, command: &CommandNote, outcome: &Outcome) -> Map<String, Json> {
    let fault = super::fault::Fault::of(outcome);
    let params = match outcome {
        Outcome::Confirmed { outputs, .. } => wire::values(outputs.iter().map(|(id, value)| (id, value))),
        Outcome::Rejected(_) | Outcome::Offline | Outcome::TimedOut | Outcome::Busy | Outcome::Forbidden => {
            Map::new()
        }
    };
    let (code, msg) = fault.map_or_else(|| (200, "成功".to_owned()), |fault| (fault.code, fault.msg));
    let members = [
        ("msgToken", Json::from(&*command.message_id)),
        ("actionID", Json::from(command.function.as_deref().unwrap_or_default())),
        ("params", Json::Object(params)),
        ("code", Json::from(code)),
        ("msg", Json::from(msg)),
        ("dir", Json::from("up")),
        ("reqType", Json::from("resp")),
    ];
    body(message, message.at, members)
}

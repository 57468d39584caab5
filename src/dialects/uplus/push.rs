//! Device messages as pushes.
//!
//! The vendor keeps the payload schemas private; these follow the shapes of its older HTTP push, with typeId under
//! its present name: every value is a string, a bool is "True" or "False", nothing is ever null. A payload always
//! says whose it is (`deviceId`, `typeId`) and when it happened (`ts`), and which values are not good. A `ts` that may
//! be wrong is marked by `clock`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::relation::Topic;
use super::{PushFormat, wire};
use crate::dialects::shared::json;
use crate::model::command::{ActionKind, Outcome};
use crate::model::message::{Body, CommandNote, DeviceMessage, Form, Report};
use crate::model::value::{Quality, Value};
use crate::text::Text;

/// The message buffer that a Tomcat client of the first vendor samples has.
const SMALL_CLIENT_BYTES: usize = 8192;

/// The push of a message, rendered once for all sessions. One that would not fit into the buffer of a small client is several, a line
/// each, where it can be divided: a report of many properties is as good as several of some.
pub(super) fn push(message: &DeviceMessage, format: PushFormat) -> Text {
    let form = match format {
        PushFormat::Flat => Form::UPLUS_FLAT,
        PushFormat::Envelope => Form::UPLUS_ENVELOPE,
    };
    message.form(form, |message| {
        let mut pushes = Vec::new();
        if let Body::Properties(reports) = &message.body {
            divide(message, reports, format, &mut pushes);
        } else {
            pushes.push(render(message, payload(&message.body), format, 0));
        }
        if let Some(large) = pushes.iter().find(|push| push.len() > SMALL_CLIENT_BYTES) {
            tracing::debug!(
                dialect = "uplus",
                device = %message.device.id,
                bytes = large.len(),
                "a push is larger than the buffer of some clients"
            );
        }
        pushes.join("\n")
    })
}

/// Adds the pushes of a report, halved until each of them fits.
fn divide(message: &DeviceMessage, reports: &[Report], format: PushFormat, pushes: &mut Vec<String>) {
    let whole = render(message, (Topic::Status, "status", status(reports)), format, pushes.len());
    let (first, second) = reports.split_at(reports.len() / 2);
    if whole.len() <= SMALL_CLIENT_BYTES || first.is_empty() {
        return pushes.push(whole);
    }
    divide(message, first, format, pushes);
    divide(message, second, format, pushes);
}

/// One push; `place` tells those of one message apart.
fn render(
    message: &DeviceMessage,
    (topic, name, mut data): (Topic, &str, Map<String, Json>),
    format: PushFormat,
    place: usize,
) -> String {
    let device = &message.device;
    let (type_id, device_id) = (device.product.type_id.as_ref(), device.mac.as_ref());
    data.insert("deviceId".to_owned(), device_id.into());
    data.insert("typeId".to_owned(), type_id.into());
    data.insert("ts".to_owned(), message.at.to_string().into());
    if let Some(mark) = message.clock.mark() {
        data.insert("clock".to_owned(), mark.into());
    }
    match format {
        PushFormat::Flat => wire::flat(topic.name(), type_id, data),
        PushFormat::Envelope => wire::envelope(wire::Report {
            topic: topic.name(),
            type_id,
            device_id,
            ts: message.at.0,
            sn: &format!("{place:04x}{:012x}{:016x}", message.at.0 & 0xffff_ffff_ffff, message.seq),
            name,
            args: data,
        }),
    }
}

/// The topic of a body, what it reports, and its payload.
fn payload(body: &Body) -> (Topic, &str, Map<String, Json>) {
    match body {
        Body::Properties(reports) => (Topic::Status, "status", status(reports)),
        Body::Presence { online, reason } => {
            let mut data = members([("online", if *online { "1" } else { "0" })]);
            if let Some(reason) = reason {
                data.insert("reason".to_owned(), reason.as_ref().into());
            }
            (Topic::Event, "online", data)
        }
        Body::Alarm { active, .. } => {
            let faults = active.iter().map(|id| Json::from(id.as_ref())).collect();
            (Topic::Fault, "faults", Map::from_iter([("faults".to_owned(), Json::Array(faults))]))
        }
        Body::Event { event, level, params } => {
            let mut data = members([("event", event.as_ref()), ("level", level.name())]);
            data.insert("params".to_owned(), attributes(params).into());
            (Topic::Custom, event, data)
        }
        Body::Publish { topic, payload } => {
            let mut data = members([("topic", topic.as_ref())]);
            data.insert("bigdata".to_owned(), published(payload).into());
            (Topic::BigData, "bigdata", data)
        }
        Body::Ota { step, detail } => {
            (Topic::Firmware, "firmware", members([("step", step.to_string().as_str()), ("detail", detail)]))
        }
        Body::Sent { command } => {
            let mut data = operation(command);
            data.insert("args".to_owned(), attributes(&command.values).into());
            (Topic::Operation, "sent", data)
        }
        Body::Reply { command, outcome } => {
            let mut data = operation(command);
            data.extend(result(outcome));
            (Topic::Operation, "reply", data)
        }
    }
}

fn status(reports: &[Report]) -> Map<String, Json> {
    let value = |report: &Report| Some((report.id.as_ref().to_owned(), attribute(&report.value)?.into()));
    let quality = |report: &Report| {
        let name = match report.quality {
            Quality::Good => return None,
            Quality::Stale => "stale",
            Quality::Bad => "bad",
        };
        Some((report.id.as_ref().to_owned(), name.into()))
    };
    let values: Map<String, Json> = reports.iter().filter_map(value).collect();
    let doubtful: Map<String, Json> = reports.iter().filter_map(quality).collect();
    let mut data = Map::from_iter([("status".to_owned(), values.into())]);
    if !doubtful.is_empty() {
        data.insert("quality".to_owned(), doubtful.into());
    }
    data
}

/// The members of a payload that is a JSON object, each as text; any other payload as it came, under one name.
fn published(payload: &str) -> Map<String, Json> {
    match serde_json::from_str(payload) {
        Ok(Json::Object(members)) => members
            .iter()
            .filter_map(|(name, member)| Some((name.clone(), attribute(&json::from_json(member))?.into())))
            .collect(),
        Ok(_) | Err(_) => members([("payload", payload)]),
    }
}

fn operation(command: &CommandNote) -> Map<String, Json> {
    let kind = match command.kind {
        ActionKind::Read => "read",
        ActionKind::Write => "write",
        ActionKind::Invoke => "invoke",
    };
    let mut data = members([("operation", kind), ("messageId", &*command.message_id)]);
    if let Some(function) = &command.function {
        data.insert("function".to_owned(), function.as_ref().into());
    }
    data
}

fn result(outcome: &Outcome) -> Map<String, Json> {
    match outcome {
        Outcome::Confirmed { values, outputs } => {
            let mut data = members([("result", "success")]);
            for (name, values) in [("values", values), ("outputs", outputs)] {
                if !values.is_empty() {
                    data.insert(name.to_owned(), attributes(values).into());
                }
            }
            data
        }
        Outcome::Rejected(rejection) => {
            members([("result", "rejected"), ("desc", rejection.to_string().as_str())])
        }
        Outcome::Offline => members([("result", "offline")]),
        Outcome::TimedOut => members([("result", "timeout")]),
        Outcome::Busy => members([("result", "busy")]),
        Outcome::Forbidden => members([("result", "forbidden")]),
    }
}

fn attributes(values: &[(Arc<str>, Value)]) -> Map<String, Json> {
    values
        .iter()
        .filter_map(|(name, value)| Some((name.as_ref().to_owned(), attribute(value)?.into())))
        .collect()
}

/// A value as the vendor's interfaces print it; nothing where there is none.
fn attribute(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Int(_) | Value::Float(_) | Value::Text(_) => Some(value.to_string()),
        Value::List(_) | Value::Object(_) => Some(json::to_json(value).to_string()),
    }
}

fn members<const N: usize>(members: [(&str, &str); N]) -> Map<String, Json> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialects::uplus::tests::{PRESS, context};
    use crate::model::command::Rejection;
    use crate::model::product::{AlarmCondition, AlarmRule, Level};
    use crate::model::time::{Clock, UnixMillis};

    fn pushed(body: Body, format: PushFormat) -> Json {
        let device = Arc::clone(context(None).directory.device("press-1").unwrap());
        let message = DeviceMessage::new(255, UnixMillis(1_700_000_000_000), device, body);
        let text = push(&message, format);
        assert_eq!(push(&message, format), text, "the second session gets the kept form");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_time_that_may_be_wrong_is_marked() {
        let device = Arc::clone(context(None).directory.device("press-1").unwrap());
        let body = Body::Presence { online: true, reason: None };
        let message = DeviceMessage::new(1, UnixMillis(5), device, body).by(Clock::Unsynchronised);
        for format in [PushFormat::Flat, PushFormat::Envelope] {
            let text = push(&message, format);
            assert!(text.contains("unsynchronised"), "{text}");
        }
    }

    fn report(id: &str, value: Value, quality: Quality) -> Report {
        Report { property: 0, id: id.into(), value, at: UnixMillis(0), quality }
    }

    fn note(kind: ActionKind, function: Option<&str>) -> Arc<CommandNote> {
        Arc::new(CommandNote {
            message_id: "m-1".into(),
            kind,
            function: function.map(Arc::from),
            values: vec![("setpoint".into(), Value::Float(20.5))],
            client: "somebody".into(),
        })
    }

    fn alarm(active: &[&str]) -> Body {
        let condition = AlarmCondition::Above(80.0);
        let rule = AlarmRule { level: Level::Fault, ..AlarmRule::new("too-hot", condition) };
        Body::Alarm {
            rule: Arc::new(rule),
            property: 0,
            raised: !active.is_empty(),
            value: Value::Float(81.5),
            active: active.iter().map(|id| Arc::from(*id)).collect(),
        }
    }

    #[test]
    fn what_a_device_reports_has_its_flat_push() {
        let rows = [
            (
                Body::Properties(vec![
                    report("temperature", Value::Float(81.5), Quality::Good),
                    report("running", Value::Bool(true), Quality::Stale),
                    report("count", Value::Int(-3), Quality::Bad),
                    report("name", Value::text("a\"b"), Quality::Good),
                    report("gone", Value::Null, Quality::Good),
                    report("list", Value::List(vec![Value::Int(1), Value::Bool(false)]), Quality::Good),
                ]),
                "DEV_STATUS",
                json!({
                    "status": {
                        "temperature": "81.5", "running": "True", "count": "-3", "name": "a\"b",
                        "list": "[1,false]",
                    },
                    "quality": {"running": "stale", "count": "bad"},
                }),
            ),
            (Body::Presence { online: true, reason: None }, "DEV_EVENT", json!({"online": "1"})),
            (
                Body::Presence { online: false, reason: Some("no answer".into()) },
                "DEV_EVENT",
                json!({"online": "0", "reason": "no answer"}),
            ),
            (alarm(&["too-hot"]), "DEV_FAULT", json!({"faults": ["too-hot"]})),
            (alarm(&[]), "DEV_FAULT", json!({"faults": []})),
            (
                Body::Event {
                    event: "door-opened".into(),
                    level: Level::Alert,
                    params: vec![("door".into(), Value::Bool(false))],
                },
                "DEV_CUSTOM",
                json!({"event": "door-opened", "level": "alert", "params": {"door": "False"}}),
            ),
            (
                Body::Publish { topic: "a/b".into(), payload: "hi".into() },
                "DEV_BIGDATA",
                json!({"topic": "a/b", "bigdata": {"payload": "hi"}}),
            ),
            (
                Body::Publish {
                    topic: "tele/SENSOR".into(),
                    payload: r#"{"Temp":21.5,"Ok":true,"None":null,"AM":{"H":[40]}}"#.into(),
                },
                "DEV_BIGDATA",
                json!({
                    "topic": "tele/SENSOR",
                    "bigdata": {"Temp": "21.5", "Ok": "True", "AM": "{\"H\":[40]}"},
                }),
            ),
            (
                Body::Ota { step: -1, detail: "no space".into() },
                "DEV_FIRMWARE",
                json!({"step": "-1", "detail": "no space"}),
            ),
        ];
        check_flat(rows);
    }

    #[test]
    fn what_clients_do_to_a_device_has_its_flat_push() {
        let reply =
            |outcome| Body::Reply { command: note(ActionKind::Write, None), outcome: Arc::new(outcome) };
        let rows = [
            (
                Body::Sent { command: note(ActionKind::Invoke, Some("reset")) },
                "DEV_OPERATION",
                json!({
                    "operation": "invoke", "messageId": "m-1", "function": "reset", "args": {"setpoint": "20.5"},
                }),
            ),
            (
                reply(Outcome::Confirmed {
                    values: vec![("setpoint".into(), Value::Float(20.5))],
                    outputs: vec![],
                }),
                "DEV_OPERATION",
                json!({
                    "operation": "write", "messageId": "m-1", "result": "success", "values": {"setpoint": "20.5"},
                }),
            ),
            (
                reply(Outcome::Rejected(Rejection::Empty)),
                "DEV_OPERATION",
                json!({
                    "operation": "write", "messageId": "m-1", "result": "rejected", "desc": "no property is named",
                }),
            ),
            (
                reply(Outcome::TimedOut),
                "DEV_OPERATION",
                json!({"operation": "write", "messageId": "m-1", "result": "timeout"}),
            ),
        ];
        check_flat(rows);
    }

    #[test]
    fn a_report_too_large_for_a_small_client_is_told_in_pieces() {
        let reports: Vec<Report> = (0..400)
            .map(|n| report(&format!("a-property-with-a-long-name-{n}"), Value::Int(n), Quality::Stale))
            .collect();
        let device = Arc::clone(context(None).directory.device("press-1").unwrap());
        let body = Body::Properties(reports);
        let message = DeviceMessage::new(255, UnixMillis(1_700_000_000_000), device, body);
        for format in [PushFormat::Flat, PushFormat::Envelope] {
            let text = push(&message, format);
            let (mut told, mut numbers) = (0, std::collections::BTreeSet::new());
            for line in text.split('\n') {
                assert!(line.len() <= SMALL_CLIENT_BYTES, "{} bytes", line.len());
                let push: Json = serde_json::from_str(line).unwrap();
                let data = if format == PushFormat::Flat { &push["data"] } else { &push["body"]["args"] };
                let (values, marks) =
                    (data["status"].as_object().unwrap(), data["quality"].as_object().unwrap());
                assert!(values.keys().eq(marks.keys()));
                told += values.len();
                numbers.insert(push["header"]["sn"].to_string());
            }
            assert_eq!(told, 400);
            let different = if format == PushFormat::Flat { 1 } else { text.split('\n').count() };
            assert_eq!(numbers.len(), different);
        }
        let one = vec![report("x", Value::text("y".repeat(9000)), Quality::Good)];
        assert!(pushed(Body::Properties(one), PushFormat::Flat)["data"]["status"]["x"].is_string());
    }

    fn check_flat<const N: usize>(rows: [(Body, &str, Json); N]) {
        for (body, topic, mut data) in rows {
            data["deviceId"] = "0000000000A1".into();
            data["typeId"] = PRESS.into();
            data["ts"] = "1700000000000".into();
            let expected = json!({"topic": topic, "typeId": PRESS, "qos": "0", "data": data});
            assert_eq!(pushed(body, PushFormat::Flat), expected);
        }
    }

    #[test]
    fn the_envelope_carries_the_same_payload_with_its_number() {
        let body = Body::Presence { online: true, reason: None };
        let sn = "0000018bcfe5680000000000000000ff";
        let expected = json!({
            "header": {
                "ts": 1_700_000_000_000_i64, "sn": sn, "type": "std",
                "keys": {"typeId": PRESS, "deviceId": "0000000000A1"},
                "ver": "v1.0.1", "snd": "m2m", "from": "haier", "topic": "DEV_EVENT", "qos": 0,
            },
            "body": {
                "ts": 1_700_000_000_000_i64, "sn": sn, "typeId": PRESS, "deviceId": "0000000000A1",
                "category": "StdRpt",
                "args": {"online": "1", "deviceId": "0000000000A1", "typeId": PRESS, "ts": "1700000000000"},
                "name": "online",
            },
        });
        assert_eq!(pushed(body, PushFormat::Envelope), expected);
    }
}

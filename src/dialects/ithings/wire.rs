//! The frames of the socket and the bodies of the HTTP calls, as text.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::Push;
use super::fault::Fault;
use crate::model::value::Value;

/// Members of the envelope. A body's member of such a name does not travel flat beside it.
const ENVELOPE: [&str; 6] = ["code", "msg", "handler", "type", "path", "body"];

const OK: u32 = 200;
const SUCCESS: &str = "成功";

/// What every frame to the client is made of, in the server's order. What is empty does not travel.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    handler: Option<Handler<'a>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a Map<String, Json>>,
}

#[derive(Debug, Serialize)]
struct Handler<'a> {
    #[serde(rename = "Traceparent")]
    traceparent: &'a str,
    #[serde(rename = "connectID")]
    connect_id: &'a str,
}

/// What every HTTP answer is made of.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    code: u32,
    msg: &'a str,
    data: &'a Map<String, Json>,
}

const EMPTY: Envelope<'static> =
    Envelope { code: OK, msg: SUCCESS, handler: None, kind: None, path: None, body: None };

/// Nothing that is rendered here can fail to be JSON, so the fallback is never seen.
fn render(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The first frame of every connection.
pub(super) fn greeting(traceparent: &str, connect_id: &str) -> String {
    render(&Envelope { handler: Some(Handler { traceparent, connect_id }), ..EMPTY })
}

/// A request was carried out.
pub(super) fn done(kind: &str) -> String {
    render(&Envelope { kind: Some(kind), ..EMPTY })
}

/// A request was not carried out. The real server names the request's own type and path, as far as it had them.
pub(super) fn error(fault: &Fault, kind: Option<&str>, path: Option<&str>) -> String {
    render(&Envelope { code: fault.code, msg: &fault.msg, kind, path, ..EMPTY })
}

/// A push in the chosen form.
pub(super) fn push(form: Push, path: &str, body: Map<String, Json>) -> String {
    let envelope = Envelope { kind: Some("down.pub"), path: Some(path), body: Some(&body), ..EMPTY };
    match form {
        Push::Envelope => render(&envelope),
        Push::Bare => Json::Object(body).to_string(),
        Push::Merged => {
            let mut text = render(&envelope);
            let beside: Map<String, Json> =
                body.into_iter().filter(|(name, _)| !ENVELOPE.contains(&name.as_str())).collect();
            if !beside.is_empty() {
                // The members follow inside the envelope's own braces.
                let beside = Json::Object(beside).to_string();
                text.pop();
                text.push(',');
                text.push_str(beside.strip_prefix('{').unwrap_or_default());
            }
            text
        }
    }
}

/// An HTTP answer with data. Its message is English, unlike that of the socket.
pub(super) fn answer(data: &Map<String, Json>) -> String {
    render(&Answer { code: OK, msg: "success", data })
}

/// A value as this dialect writes it: a switch is 0 or 1.
pub(super) fn value(value: &Value) -> Json {
    match value {
        Value::Bool(on) => Json::from(u8::from(*on)),
        Value::List(items) => Json::Array(items.iter().map(self::value).collect()),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.as_ref().to_owned(), self::value(member)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
            crate::dialects::shared::json::to_json(value)
        }
    }
}

/// Named values as this dialect writes them.
pub(super) fn values<'a, N: AsRef<str> + 'a>(
    values: impl IntoIterator<Item = (&'a N, &'a Value)>,
) -> Map<String, Json> {
    values.into_iter().map(|(name, member)| (name.as_ref().to_owned(), value(member))).collect()
}

/// A single value as text: what the real server puts where a value must be a string.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(on) => u8::from(*on).to_string(),
        Value::Int(_) | Value::Float(_) | Value::Text(_) => value.to_string(),
        Value::List(_) | Value::Object(_) => self::value(value).to_string(),
    }
}

//! The frames of the socket: requests as clients write them, responses as they read them.
//!
//! Requests are read as the JetLinks server's parser reads them: member names in any case, `type` in any case or as
//! its ordinal, numbers where text is wanted, JSON5. What it answers to each kind of bad frame was reproduced with
//! that parser; nothing else about a request is refused here.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::dialects::shared::json::member;
use crate::dialects::shared::lenient;

/// `type` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Known to the parser, never served.
    Pub,
    /// Begin: a command, or a stream.
    Sub,
    /// End a stream.
    Unsub,
    /// Heartbeat.
    Ping,
}

impl Kind {
    /// In the order of their ordinals.
    const ALL: [Self; 4] = [Self::Pub, Self::Sub, Self::Unsub, Self::Ping];

    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::Unsub => "unsub",
            Self::Ping => "ping",
        }
    }
}

/// One request. Empty and missing text are the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// The client's own; may hold anything.
    pub(super) id: Option<String>,
    /// `None` when missing or unknown.
    pub(super) kind: Option<Kind>,
    /// What it is about.
    pub(super) topic: Option<String>,
    /// What is wanted.
    pub(super) parameter: Option<Map<String, Json>>,
}

/// What a text turns out to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    /// Blank, `null` or `[]`: passed over without an answer.
    Nothing,
    /// No request at all.
    Illegal,
    /// A request.
    Request(Request),
}

/// Reads a text message.
pub(super) fn read(text: &str) -> Frame {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Frame::Nothing;
    }
    match lenient::parse(text) {
        Ok(Json::Null) => Frame::Nothing,
        Ok(Json::Array(items)) if items.is_empty() => Frame::Nothing,
        Ok(Json::Object(members)) => request(members).map_or(Frame::Illegal, Frame::Request),
        Ok(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) | Err(_) => Frame::Illegal,
    }
}

/// `None` where the parser of the real server gives up.
fn request(mut members: Map<String, Json>) -> Option<Request> {
    let kind = match member(&members, "type") {
        None | Some(Json::Null) => None,
        Some(Json::String(name)) => Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)),
        Some(Json::Number(ordinal)) => {
            let ordinal = usize::try_from(ordinal.as_u64()?).ok()?;
            Some(*Kind::ALL.get(ordinal)?)
        }
        Some(Json::Bool(_) | Json::Array(_) | Json::Object(_)) => return None,
    };
    let id = member(&members, "id").and_then(to_text);
    let topic = member(&members, "topic").and_then(to_text);
    let parameter = match take(&mut members, "parameter") {
        None | Some(Json::Null) => None,
        Some(Json::Object(parameter)) => Some(parameter),
        Some(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => return None,
    };
    Some(Request { id, kind, topic, parameter })
}

fn take(members: &mut Map<String, Json>, name: &str) -> Option<Json> {
    if let Some(value) = members.remove(name) {
        return Some(value);
    }
    let found = members.keys().find(|found| found.eq_ignore_ascii_case(name)).cloned()?;
    members.remove(&found)
}

/// A member that is wanted as text; `None` for null and for empty text.
pub(super) fn to_text(json: &Json) -> Option<String> {
    match json {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => Some(json.to_string()),
    }
    .filter(|text| !text.is_empty())
}

/// A response. Members that are `None` do not travel.
#[derive(Debug, Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Map<String, Json>>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl<'a> Response<'a> {
    fn new(kind: &'static str, id: Option<&'a str>) -> Self {
        Self { id, message: None, payload: None, request_id: id, topic: None, kind }
    }

    /// Nothing in it can fail to be JSON, so the fallback is never seen.
    fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The only answer to a bad token.
pub(super) fn auth_error() -> String {
    Response { message: Some("认证失败"), ..Response::new("authError", None) }.render()
}

/// Answer to a ping, with its id if it had one.
pub(super) fn pong(id: Option<&str>) -> String {
    Response::new("pong", id).render()
}

/// End of a request that ends.
pub(super) fn complete(id: &str) -> String {
    Response::new("complete", Some(id)).render()
}

/// The request itself is at fault; never a device.
pub(super) fn error(id: &str, topic: Option<&str>, message: &str) -> String {
    Response { message: Some(message), topic, ..Response::new("error", Some(id)) }.render()
}

/// One result.
pub(super) fn result(id: &str, topic: &str, payload: &Map<String, Json>) -> String {
    Response { payload: Some(payload), topic: Some(topic), ..Response::new("result", Some(id)) }.render()
}

/// What stands before [`live_core`] in the results of one subscription.
pub(super) fn live_head(id: &str) -> String {
    let id = Json::from(id);
    format!(r#"{{"id":{id},"requestId":{id},"#)
}

/// The part of a live result that all subscriptions share.
pub(super) fn live_core(topic: &str, payload: Map<String, Json>) -> String {
    format!(r#""topic":{},"payload":{}"#, Json::from(topic), Json::Object(payload))
}

/// A live result out of its two parts.
pub(super) fn live(head: &str, core: &str) -> String {
    const TAIL: &str = r#","type":"result"}"#;
    let mut text = String::with_capacity(head.len() + core.len() + TAIL.len());
    text.push_str(head);
    text.push_str(core);
    text.push_str(TAIL);
    text
}

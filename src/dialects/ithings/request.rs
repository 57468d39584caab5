//! Frames from the client, read as the real server's decoder reads them: strict JSON, member names in any case,
//! values of exactly the declared type.

use serde_json::{Map, Value as Json};

use super::fault::Fault;
use crate::dialects::shared::json::member;

/// One frame. `kind` is not empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// `type`.
    pub(super) kind: String,
    /// `path`, if not empty.
    pub(super) path: Option<String>,
    /// `method`, if not empty.
    pub(super) method: Option<String>,
    /// `body`, if not null.
    pub(super) body: Option<Json>,
}

/// Why a frame is no request, with as much of its envelope as was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadFrame {
    pub(super) fault: Fault,
    pub(super) kind: Option<String>,
    pub(super) path: Option<String>,
}

/// Reads a frame.
pub(super) fn read(text: &str) -> Result<Request, BadFrame> {
    let bad = |fault: Fault| BadFrame { fault, kind: None, path: None };
    match serde_json::from_str(text) {
        Ok(Json::Object(members)) => envelope(&members),
        Ok(Json::Null) => Err(bad(Fault::PARAMETER.fault())),
        Ok(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) | Err(_) => {
            Err(bad(Fault::TYPE.fault()))
        }
    }
}

fn envelope(members: &Map<String, Json>) -> Result<Request, BadFrame> {
    let kind = text(members, "type");
    let path = text(members, "path");
    let method = text(members, "method");
    let handler = match member(members, "handler") {
        None | Some(Json::Null) => Ok(()),
        Some(Json::Object(headers)) if headers.values().all(|value| value.is_string() || value.is_null()) => {
            Ok(())
        }
        Some(_) => Err(NotText),
    };
    match (kind, path, method, handler) {
        (Ok(Some(kind)), Ok(path), Ok(method), Ok(())) => {
            let body = member(members, "body").filter(|body| !body.is_null()).cloned();
            Ok(Request { kind, path, method, body })
        }
        (kind, path, _, _) => {
            let fault = Fault::PARAMETER.fault();
            Err(BadFrame { fault, kind: kind.ok().flatten(), path: path.ok().flatten() })
        }
    }
}

/// A member is there but no text.
#[derive(Clone, Copy, Debug)]
struct NotText;

/// A member that must be text; empty, null and missing are the same.
fn text(members: &Map<String, Json>, name: &str) -> Result<Option<String>, NotText> {
    match member(members, name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if text.is_empty() => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => Err(NotText),
    }
}

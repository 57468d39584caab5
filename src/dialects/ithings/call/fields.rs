//! The fields of an HTTP call's body. A field of another type than declared is a fault that names it; text and
//! numbers stand in for each other, since clients differ in how they write ids and flags.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::dialects::ithings::fault::Fault;
use crate::dialects::shared::json::member;

/// The members of one object.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    members: Map<String, Json>,
    bytes: usize,
}

impl Fields {
    /// Reads a body.
    pub(super) fn read(body: &[u8]) -> Result<Self, Fault> {
        match serde_json::from_slice(body) {
            Ok(Json::Object(members)) => Ok(Self { members, bytes: body.len() }),
            Ok(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => {
                Err(Fault::FIELD.with("the body is no JSON object"))
            }
            Err(error) => Err(Fault::FIELD.with(&error.to_string())),
        }
    }

    /// How long the text of the whole body is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn get(&self, name: &str) -> Option<&Json> {
        member(&self.members, name).filter(|value| !value.is_null())
    }

    /// Text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => {
                text(value).ok_or_else(|| wrong(name)).map(|text| Some(text).filter(|text| !text.is_empty()))
            }
        }
    }

    /// Text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| Fault::FIELD.with(&format!("field \"{name}\" is not set")))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Fault> {
        self.text(name)?.map(|text| text.trim().parse().map_err(|_| wrong(name))).transpose()
    }

    /// A switch; off when not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None => Ok(false),
            Some(Json::Bool(on)) => Ok(*on),
            Some(value) => match text(value).as_deref().map(str::trim) {
                Some("1" | "true") => Ok(true),
                Some("0" | "false" | "") => Ok(false),
                Some(_) | None => Err(wrong(name)),
            },
        }
    }

    /// How long to wait: `syncTimeout`, or `option.requestTimeout` of an action, in seconds. Zero counts as not given.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Fault> {
        let option = self.get("option").and_then(Json::as_object);
        let given = self.get("syncTimeout").map(|value| ("syncTimeout", value));
        let nested = option.and_then(|option| member(option, "requestTimeout"));
        let nested = nested.filter(|value| !value.is_null()).map(|value| ("requestTimeout", value));
        let Some((name, value)) = given.or(nested) else { return Ok(None) };
        let seconds: f64 =
            text(value).and_then(|text| text.trim().parse().ok()).ok_or_else(|| wrong(name))?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(wrong(name));
        }
        Ok((seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    }

    /// A list of texts.
    pub(super) fn list(&self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Array(items)) => {
                let items = items.iter().map(|item| text(item).ok_or_else(|| wrong(name)));
                items.collect::<Result<_, _>>().map(Some)
            }
            Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => {
                Err(wrong(name))
            }
        }
    }

    /// A list of objects.
    pub(super) fn objects(&self, name: &str) -> Result<Option<Vec<Self>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Array(items)) => {
                let items = items.iter().map(|item| {
                    let members = item.as_object().cloned().ok_or_else(|| wrong(name))?;
                    Ok(Self { members, bytes: self.bytes })
                });
                items.collect::<Result<_, _>>().map(Some)
            }
            Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => {
                Err(wrong(name))
            }
        }
    }

    /// An object, written as such or as the text of its JSON, under the first of these names that is given.
    pub(super) fn embedded(&self, names: &[&str]) -> Result<Option<Map<String, Json>>, Fault> {
        let Some((name, value)) = names.iter().find_map(|name| Some((name, self.get(name)?))) else {
            return Ok(None);
        };
        match value {
            Json::Object(members) => Ok(Some(members.clone())),
            Json::String(text) if text.trim().is_empty() => Ok(None),
            Json::String(text) => match serde_json::from_str(text) {
                Ok(Json::Object(members)) => Ok(Some(members)),
                Ok(_) | Err(_) => Err(wrong(name)),
            },
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => Err(wrong(name)),
        }
    }
}

fn wrong(name: &str) -> Fault {
    Fault::FIELD.with(&format!("field \"{name}\" has a wrong type"))
}

/// A text or number as text; `None` where it is neither.
fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

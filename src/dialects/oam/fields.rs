//! The fields of a request, as clients of the vendor write them: an id or number is text or a number (`"3"` or `3`),
//! and an empty one is as good as none.

use std::str::FromStr;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::api::Reply;
use crate::model::time::UnixMillis;

/// The longest name or template, in characters: the vendor's database takes no more.
const TEXT: usize = 255;

/// The text of a field that is text, a number or a bool; `None` when it is empty or anything else.
pub(super) fn text(payload: &Json, name: &str) -> Option<String> {
    payload.get(name).and_then(scalar)
}

/// The same where it is to be kept.
pub(super) fn kept_text(payload: &Json, name: &str) -> Result<Option<String>, Reply> {
    let text = text(payload, name);
    if text.as_ref().is_some_and(|text| text.chars().count() > TEXT) {
        return Err(Reply::not_stored());
    }
    Ok(text)
}

/// A number; what is there and is none makes the request a bad one.
pub(super) fn number<T: FromStr>(payload: &Json, name: &str) -> Result<Option<T>, Reply> {
    let Some(text) = text(payload, name) else { return Ok(None) };
    // What counts may be written as a fraction of nothing.
    let whole = text.strip_suffix(".0").unwrap_or(&text);
    whole.parse().or_else(|_| text.parse()).map(Some).map_err(|_| Reply::bad_request())
}

/// A moment: milliseconds, or a date as the answers have it.
pub(super) fn moment(payload: &Json, name: &str) -> Result<Option<UnixMillis>, Reply> {
    let Some(text) = text(payload, name) else { return Ok(None) };
    if let Ok(millis) = text.parse() {
        return Ok(Some(UnixMillis(millis)));
    }
    let date: Timestamp = text.parse().map_err(|_| Reply::bad_request())?;
    Ok(Some(UnixMillis(date.as_millisecond())))
}

/// Several ids; one without brackets is a list of one. `None` when the field is not there.
pub(super) fn list(payload: &Json, name: &str) -> Result<Option<Vec<String>>, Reply> {
    match payload.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(items)) => items
            .iter()
            .map(|item| scalar(item).ok_or_else(Reply::bad_request))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(Json::Object(_)) => Err(Reply::bad_request()),
        Some(one @ (Json::String(_) | Json::Number(_) | Json::Bool(_))) => {
            Ok(Some(scalar(one).into_iter().collect()))
        }
    }
}

fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(on) => Some(on.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

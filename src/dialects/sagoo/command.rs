//! The `parameter` of a command: what is to be done, and how the answer is wanted.
//!
//! Three forms meet here: JetLinks (`headers`, `functionId`, `inputs`), SagooIoT's page (`meta`, `properties` even
//! for a function), and what its REST calls and the mobile clients add (`header`, `funcKey`, `serviceId`, `params`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::payload::Failure;
use super::wire::to_text;
use crate::dialects::shared::json::{self, member};
use crate::dialects::shared::lease;
use crate::model::command::{Action, ActionKind, Lease};
use crate::model::product::Product;
use crate::model::value::Value;

/// How long a device may take if the client does not say, as in the JetLinks server.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait that a client can ask for. A longer one would only hold a place among the commands that a
/// session may have under way.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the header bag is looked for; the first bag that has a header decides.
const BAGS: [&str; 3] = ["headers", "meta", "header"];

/// A command before it is known which devices it is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// What is to be done.
    pub(super) wish: Wish,
    /// The client's own id for the command.
    pub(super) message_id: Option<Arc<str>>,
    /// Answer when the command is on its way, not when it is done.
    pub(super) asynchronous: bool,
    /// Do not answer for the devices at all.
    pub(super) forget: bool,
    /// How long each device may take.
    pub(super) timeout: Duration,
    /// How long what is written shall hold, if the request says so, or what it says instead.
    pub(super) lease: Result<Option<Lease>, String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// Property ids; empty for all.
    Read(Vec<Arc<str>>),
    /// Property ids and values; `None` where the request names none.
    Write(Option<Vec<(Arc<str>, Value)>>),
    /// A call.
    Invoke {
        /// Id, if the request names one.
        function: Option<Arc<str>>,
        /// Named inputs.
        inputs: Vec<(Arc<str>, Value)>,
    },
}

impl Wish {
    /// Which of the three.
    pub(super) fn kind(&self) -> ActionKind {
        match self {
            Self::Read(_) => ActionKind::Read,
            Self::Write(_) => ActionKind::Write,
            Self::Invoke { .. } => ActionKind::Invoke,
        }
    }

    /// What this means for a device of the product.
    pub(super) fn action(&self, product: &Product) -> Result<Action, Failure> {
        match self {
            Self::Read(ids) => Ok(Action::Read(ids.clone())),
            Self::Write(None) => Err(Failure::parameter("properties: an object of values is required")),
            Self::Write(Some(values)) if values.is_empty() => {
                Err(Failure::parameter("properties: no property is named"))
            }
            Self::Write(Some(values)) => Ok(Action::Write(values.clone())),
            Self::Invoke { function: Some(function), inputs } => {
                Ok(Action::Invoke { function: Arc::clone(function), inputs: inputs.clone() })
            }
            Self::Invoke { function: None, inputs } => {
                unnamed(product, inputs).ok_or_else(Failure::no_function)
            }
        }
    }
}

/// SagooIoT's page calls a function without naming it. That is followed where only one call can be meant: the one
/// name given is a function's (its value holds the inputs), or the product has one function and it takes every
/// name given.
fn unnamed(product: &Product, given: &[(Arc<str>, Value)]) -> Option<Action> {
    if let [(name, value)] = given {
        if product.function(name).is_some() {
            let inputs = match value {
                Value::Null => Vec::new(),
                Value::Object(inputs) => {
                    inputs.iter().map(|(id, value)| (Arc::clone(id), value.clone())).collect()
                }
                Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
                    return None;
                }
            };
            return Some(Action::Invoke { function: Arc::clone(name), inputs });
        }
    }
    match product.functions.as_slice() {
        [only] if !given.is_empty() => {
            let takes = |id: &Arc<str>| only.inputs.iter().any(|input| input.id == *id);
            let call = || Action::Invoke { function: Arc::clone(&only.id), inputs: given.to_vec() };
            given.iter().all(|(id, _)| takes(id)).then(call)
        }
        _ => None,
    }
}

impl Order {
    /// What this means for a device of the product.
    pub(super) fn action(&self, product: &Product) -> Result<Action, Failure> {
        let wrong = |found: &String| Failure::lease(format!("lease: {}, found {found}", lease::OF_SESSIONS));
        self.lease.as_ref().map_err(wrong)?;
        self.wish.action(product)
    }

    /// Reads a command; `None` when its message type is not one that a client may send.
    pub(super) fn read(parameter: &Map<String, Json>) -> Option<Self> {
        let properties = member(parameter, "properties");
        let wish = match kind(parameter)? {
            ActionKind::Read => Wish::Read(ids(properties)),
            ActionKind::Write => Wish::Write(properties.and_then(Json::as_object).map(named)),
            ActionKind::Invoke => Wish::Invoke { function: function(parameter), inputs: inputs(parameter) },
        };
        Some(Self {
            wish,
            message_id: member(parameter, "messageId").and_then(to_text).map(Arc::from),
            asynchronous: header(parameter, "async").is_some_and(truth),
            forget: header(parameter, "sendAndForget").is_some_and(truth),
            timeout: header(parameter, "timeout").and_then(millis).unwrap_or(DEFAULT_TIMEOUT),
            lease: header(parameter, "lease").map(leased).transpose(),
        })
    }
}

/// The message type, or what the JetLinks server guesses where none is given. It never guesses a write.
fn kind(parameter: &Map<String, Json>) -> Option<ActionKind> {
    match member(parameter, "messageType") {
        Some(Json::String(name)) => match name.as_str() {
            "READ_PROPERTY" | "read_property" => Some(ActionKind::Read),
            "WRITE_PROPERTY" | "write_property" => Some(ActionKind::Write),
            "INVOKE_FUNCTION" | "invoke_function" => Some(ActionKind::Invoke),
            _ => None,
        },
        None | Some(Json::Null) => {
            if member(parameter, "functionId").is_some() && member(parameter, "inputs").is_some() {
                Some(ActionKind::Invoke)
            } else if member(parameter, "properties").is_some_and(Json::is_array) {
                Some(ActionKind::Read)
            } else {
                None
            }
        }
        Some(Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => None,
    }
}

/// Property ids out of a list, the names of an object, or one name.
fn ids(json: Option<&Json>) -> Vec<Arc<str>> {
    match json {
        Some(Json::Array(items)) => items.iter().filter_map(to_text).map(Arc::from).collect(),
        Some(Json::Object(members)) => members.keys().map(|id| Arc::from(id.as_str())).collect(),
        Some(Json::String(id)) if !id.is_empty() => vec![Arc::from(id.as_str())],
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) | None => Vec::new(),
    }
}

fn function(parameter: &Map<String, Json>) -> Option<Arc<str>> {
    let names = ["functionId", "funcKey", "serviceId"];
    names.into_iter().find_map(|name| member(parameter, name).and_then(to_text)).map(Arc::from)
}

/// Inputs as a list of `{name, value}` or as an object, from the first member that has either.
fn inputs(parameter: &Map<String, Json>) -> Vec<(Arc<str>, Value)> {
    let read = |name| match member(parameter, name)? {
        Json::Object(members) => Some(named(members)),
        Json::Array(items) => Some(items.iter().filter_map(input).collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    };
    ["inputs", "params", "properties"].into_iter().find_map(read).unwrap_or_default()
}

fn input(item: &Json) -> Option<(Arc<str>, Value)> {
    let item = item.as_object()?;
    let name = ["name", "id"].into_iter().find_map(|name| member(item, name).and_then(to_text))?;
    Some((Arc::from(name), member(item, "value").map_or(Value::Null, json::from_json)))
}

fn named(members: &Map<String, Json>) -> Vec<(Arc<str>, Value)> {
    members.iter().map(|(name, value)| (Arc::from(name.as_str()), json::from_json(value))).collect()
}

fn header<'a>(parameter: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    let bags = BAGS.into_iter().filter_map(|bag| member(parameter, bag)).filter_map(Json::as_object);
    bags.filter_map(|bag| member(bag, name)).find(|value| !value.is_null())
}

fn leased(json: &Json) -> Result<Lease, String> {
    to_text(json).and_then(|text| lease::parse(&text, true)).ok_or_else(|| json.to_string())
}

fn truth(json: &Json) -> bool {
    match json {
        Json::Bool(on) => *on,
        Json::Number(number) => number.as_i64() == Some(1),
        Json::String(text) => text.eq_ignore_ascii_case("true") || text == "1",
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

/// A time in milliseconds, as a number or as text; anything that is no time above zero counts as not given.
fn millis(json: &Json) -> Option<Duration> {
    let millis = match json {
        Json::Number(number) => number.as_f64()?,
        Json::String(text) => text.trim().parse().ok()?,
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => return None,
    };
    let wait = Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(LONGEST_TIMEOUT);
    (millis > 0.0).then(|| wait.min(LONGEST_TIMEOUT))
}

//! The scripted driver of both stages: words of a transcript to observations, commands to words.

use std::sync::Arc;

use pentad::dialects::shared::json;
use pentad::drivers::{CommandId, DriverAction, DriverCommand, Observation, Sample};
use pentad::model::command::{Outcome, Rejection};
use pentad::model::device::Device;
use pentad::model::directory::Directory;
use pentad::model::time::UnixMillis;
use pentad::model::value::{Value, ValueType};
use serde_json::Value as Json;

use super::bed;
use super::transcript::{Reached, Settle};

fn device(directory: &Directory, id: &str) -> Arc<Device> {
    Arc::clone(directory.device(id).unwrap_or_else(|| panic!("the test bed has no device {id}")))
}

/// What the driver says before a transcript begins.
pub fn beginning(directory: &Directory, at: UnixMillis) -> Vec<Observation> {
    let link = |id: &str| Observation::Link { link: id.into(), at, up: true, reason: None };
    let mut all = vec![link(bed::BUS), link(bed::BROKER)];
    for (id, values) in bed::first_values() {
        let device = device(directory, id);
        all.push(Observation::Presence { device: Arc::clone(&device), at, online: true, reason: None });
        let values = values
            .into_iter()
            .map(|(property, value)| (position(&device, property), Sample::Value(value)))
            .collect();
        all.push(Observation::Values { device, at, values });
    }
    all.push(presence(directory, "dead-1", false, at));
    all
}

fn position(device: &Device, property: &str) -> usize {
    let found = device.product.property(property);
    found.unwrap_or_else(|| panic!("{} has no property {property}", device.id)).0
}

fn typed(kind: ValueType, json: &Json) -> Value {
    match (kind, json) {
        (ValueType::Float, Json::Number(n)) => Value::Float(n.as_f64().expect("a float")),
        _ => json::from_json(json),
    }
}

fn property_value(device: &Device, id: &str, json: &Json) -> Value {
    device
        .product
        .property(id)
        .map_or_else(|| json::from_json(json), |(_, property)| typed(property.kind, json))
}

pub fn values(directory: &Directory, id: &str, values: &[(String, Json)], at: UnixMillis) -> Observation {
    let device = device(directory, id);
    let values = values
        .iter()
        .map(|(name, json)| {
            let sample = if json.is_null() {
                Sample::Unreadable("no reading".into())
            } else {
                Sample::Value(property_value(&device, name, json))
            };
            (position(&device, name), sample)
        })
        .collect();
    Observation::Values { device, at, values }
}

pub fn presence(directory: &Directory, id: &str, online: bool, at: UnixMillis) -> Observation {
    let reason = (!online).then(|| Arc::from("it does not answer"));
    Observation::Presence { device: device(directory, id), at, online, reason }
}

pub fn publish(directory: &Directory, id: &str, topic: &str, payload: &str, at: UnixMillis) -> Observation {
    Observation::Publish { device: device(directory, id), at, topic: topic.into(), payload: payload.into() }
}

pub fn event(directory: &Directory, id: &str, event: &str, params: &Json, at: UnixMillis) -> Observation {
    let params = params.as_object().expect("parameters are an object");
    let params =
        params.iter().map(|(name, json)| (Arc::from(name.as_str()), json::from_json(json))).collect();
    Observation::Event { device: device(directory, id), at, event: event.into(), params }
}

pub fn ota(directory: &Directory, id: &str, step: i32, detail: &str, at: UnixMillis) -> Observation {
    Observation::Ota { device: device(directory, id), at, step, detail: detail.into() }
}

pub fn reached(command: &DriverCommand) -> Reached {
    let product = &command.device.product;
    let name = |at: &usize| product.properties.get(*at).expect("a property").id.to_string();
    let (verb, function, values) = match &command.action {
        DriverAction::Read(positions) => {
            ("read", None, positions.iter().map(|at| (name(at), Json::Null)).collect())
        }
        DriverAction::Write(values) => {
            ("write", None, values.iter().map(|(at, value)| (name(at), json::to_json(value))).collect())
        }
        DriverAction::Invoke { function, inputs } => {
            let function = product.functions.get(*function).expect("a function").id.to_string();
            let inputs = inputs.iter().map(|(id, value)| (id.to_string(), json::to_json(value))).collect();
            ("invoke", Some(function), inputs)
        }
    };
    Reached { device: command.device.id.to_string(), verb: verb.to_owned(), function, values }
}

/// The outcome of a command; confirmed values also travel as a reading, before it.
pub fn settled(
    command: CommandId,
    device: &Arc<Device>,
    settle: &Settle,
    at: UnixMillis,
) -> Vec<Observation> {
    let named = |values: &[(String, Json)]| -> Vec<(Arc<str>, Value)> {
        values.iter().map(|(id, json)| (Arc::from(id.as_str()), property_value(device, id, json))).collect()
    };
    let mut observations = Vec::new();
    let outcome = match settle {
        Settle::Confirmed(values) => {
            let values = named(values);
            if !values.is_empty() {
                let values = values
                    .iter()
                    .map(|(id, value)| (position(device, id), Sample::Value(value.clone())))
                    .collect();
                observations.push(Observation::Values { device: Arc::clone(device), at, values });
            }
            Outcome::Confirmed { values, outputs: Vec::new() }
        }
        Settle::Outputs(outputs) => Outcome::Confirmed { values: Vec::new(), outputs: named(outputs) },
        Settle::Refused(words) => Outcome::Rejected(Rejection::ByDevice(words.clone())),
        Settle::Mismatch(id, expected, found) => Outcome::Rejected(Rejection::Mismatch {
            id: id.as_str().into(),
            expected: property_value(device, id, expected),
            found: property_value(device, id, found),
        }),
        Settle::Expired => Outcome::Rejected(Rejection::Expired),
        Settle::Superseded(id) => Outcome::Rejected(Rejection::Superseded(id.as_str().into())),
        Settle::TooSoon(id, every) => {
            Outcome::Rejected(Rejection::TooSoon { id: id.as_str().into(), every: *every, wait: *every })
        }
        Settle::TimedOut => Outcome::TimedOut,
        Settle::Busy => Outcome::Busy,
    };
    observations.push(Observation::Settled { command, at, outcome });
    observations
}

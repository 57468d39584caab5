//! The alarm calls: alarms of the configuration, which can be listed, and those that clients set, which the hub judges.
//!
//! Both stand in one list. Those of the configuration are numbered by their position in it; those of clients keep
//! the number that they were given, above a million.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::api::{Call, Caller, Pending, Reply};
use super::{catalogue, fields, wire};
use crate::model::client::Client;
use crate::model::directory::Directory;
use crate::model::history::{AlarmAnswer, AlarmAsk, AlarmKind, ClientAlarm};
use crate::model::interest::Selector;
use crate::model::product::Level;
use crate::model::snapshot::Question;

/// What stands before the number of a client's alarm in the id of its rule.
const RULE: &str = "client-";

/// The ids of clients' alarms begin above this.
const FIRST: u64 = 1_000_000;

/// The id by which clients know the alarm of a rule.
pub(super) fn alarm_id(directory: &Directory, product: &str, rule: &str) -> u64 {
    match rule.strip_prefix(RULE).and_then(|number| number.parse::<u64>().ok()) {
        Some(number) => FIRST.saturating_add(number),
        None => catalogue::alarm_id(directory, product, rule),
    }
}

/// The vendor's number for a kind of alarm.
pub(super) fn kind_number(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::Below => 0,
        AlarmKind::Above => 1,
        AlarmKind::Equal => 2,
        AlarmKind::MonotonicRising => 4,
        AlarmKind::MonotonicFalling => 5,
    }
}

fn kind_of(number: &str) -> Option<AlarmKind> {
    Some(match number {
        "0" => AlarmKind::Below,
        "1" => AlarmKind::Above,
        "2" => AlarmKind::Equal,
        "4" => AlarmKind::MonotonicRising,
        "5" => AlarmKind::MonotonicFalling,
        _ => return None,
    })
}

/// `alarm/create`.
pub(super) fn create(payload: &Json, caller: Caller<'_>) -> Call {
    match read(payload, None, caller) {
        Ok(alarm) => Call::Ask(Question::Alarms(AlarmAsk::Put(Box::new(alarm))), Pending::AlarmChange),
        Err(reply) => Call::Done(reply),
    }
}

/// `alarm/update` and `alarm/delete`: the alarm has to be known first.
pub(super) fn change(payload: &Json, deletes: bool, caller: Caller<'_>) -> Call {
    let Some(id) = fields::text(payload, "id") else { return Call::Done(Reply::not_found(400)) };
    let configured = catalogue::alarms(&caller.context.directory, caller.client);
    if configured.iter().any(|entry| entry.id.to_string() == id) {
        // It stands in the configuration, where no client can put anything.
        return Call::Done(Reply::not_stored());
    }
    match id.parse::<u64>().ok().and_then(|id| id.checked_sub(FIRST)).filter(|number| *number > 0) {
        None => Call::Done(Reply::not_found(400)),
        Some(number) if deletes => {
            Call::Ask(Question::Alarms(AlarmAsk::Delete(number)), Pending::AlarmChange)
        }
        Some(number) => {
            let pending = Pending::AlarmUpdate { number, payload: payload.clone() };
            Call::Ask(Question::Alarms(AlarmAsk::List), pending)
        }
    }
}

/// Goes on with `alarm/update`.
pub(super) fn update(number: u64, payload: &Json, known: &[ClientAlarm], caller: Caller<'_>) -> Call {
    let Some(old) = known.iter().find(|alarm| alarm.id == number) else {
        return Call::Done(Reply::not_found(400));
    };
    match read(payload, Some(old), caller) {
        Ok(alarm) => Call::Ask(Question::Alarms(AlarmAsk::Put(Box::new(alarm))), Pending::AlarmChange),
        Err(reply) => Call::Done(reply),
    }
}

/// What the hub made of a change.
pub(super) fn changed(answer: &AlarmAnswer) -> Reply {
    match answer {
        AlarmAnswer::Put(_) | AlarmAnswer::Deleted => Reply::done(),
        AlarmAnswer::Unknown => Reply::not_found(400),
        AlarmAnswer::Forbidden => Reply::forbidden(),
        AlarmAnswer::Taken | AlarmAnswer::Full | AlarmAnswer::Alarms(_) => Reply::not_stored(),
    }
}

/// `alarm/list`: those of the configuration, then those of clients that watch something this client may see.
pub(super) fn list(id: Option<&str>, known: &[ClientAlarm], caller: Caller<'_>) -> Reply {
    let (directory, client) = (&*caller.context.directory, caller.client);
    let configured = catalogue::alarms(directory, client);
    let configured = configured.iter().map(|entry| (entry.id, wire::alarm(entry)));
    let set = known.iter().filter(|alarm| concerns(alarm, directory, client)).map(|alarm| {
        let id = FIRST.saturating_add(alarm.id);
        let metric = catalogue::metric_id(directory, &catalogue::enum_name(&alarm.property));
        let node = alarm.link.as_ref().map(|link| catalogue::node_id(directory, link));
        (id, wire::client_alarm(id, alarm, metric.unwrap_or(0), node))
    });
    let all = configured.chain(set);
    let found: Vec<Json> = all
        .filter(|(known, _)| id.is_none_or(|id| known.to_string() == id))
        .map(|(_, entry)| entry)
        .collect();
    if found.is_empty() && id.is_some() { Reply::not_found(400) } else { Reply::success(found) }
}

fn concerns(alarm: &ClientAlarm, directory: &Directory, client: &Client) -> bool {
    directory.devices().iter().any(|device| {
        let on_link = alarm.link.as_ref().is_none_or(|link| device.link == *link);
        on_link && device.product.property(&alarm.property).is_some() && client.sees(device)
    })
}

/// The alarm that a request describes; what it does not say stays as it was.
fn read(payload: &Json, old: Option<&ClientAlarm>, caller: Caller<'_>) -> Result<ClientAlarm, Reply> {
    let (directory, client) = (&*caller.context.directory, caller.client);
    let name = match fields::kept_text(payload, "name")? {
        Some(name) => name.into(),
        None => old.map(|old| Arc::clone(&old.name)).ok_or_else(Reply::bad_request)?,
    };
    if catalogue::alarms(directory, client).iter().any(|entry| entry.rule.name == name) {
        return Err(Reply::not_stored());
    }
    let kind = match fields::text(payload, "type") {
        Some(number) => kind_of(&number).ok_or_else(Reply::bad_request)?,
        None => old.map(|old| old.kind).ok_or_else(Reply::bad_request)?,
    };
    let property = match fields::text(payload, "metric") {
        Some(metric) => {
            catalogue::property(directory, client, &metric).ok_or_else(|| Reply::not_found(400))?
        }
        None => old.map(|old| Arc::clone(&old.property)).ok_or_else(Reply::bad_request)?,
    };
    let link = match (fields::text(payload, "node"), payload.get("node")) {
        (Some(node), _) => {
            let nodes = catalogue::nodes(directory, client);
            let meant = nodes.iter().find(|known| catalogue::means_node(&node, directory, &known.link.id));
            Some(Arc::clone(&meant.ok_or_else(|| Reply::not_found(400))?.link.id))
        }
        (None, None) => old.and_then(|old| old.link.clone()),
        // There and empty: all nodes.
        (None, Some(_)) => None,
    };
    let monotonic = matches!(kind, AlarmKind::MonotonicRising | AlarmKind::MonotonicFalling);
    let value = match limit(payload)? {
        Some(value) => value,
        None if monotonic => 0.0,
        None => old.map(|old| old.value).ok_or_else(Reply::bad_request)?,
    };
    let hold = fields::number(payload, "time")?.map(Duration::from_millis);
    Ok(ClientAlarm {
        id: old.map_or(0, |old| old.id),
        name,
        kind,
        property,
        link,
        devices: Selector::All,
        value,
        hold: hold.or_else(|| old.map(|old| old.hold)).unwrap_or_default(),
        level: Level::Alert,
    })
}

/// The limit; that of a switch may be written as what it is.
fn limit(payload: &Json) -> Result<Option<f64>, Reply> {
    match fields::text(payload, "value").as_deref() {
        Some("true") => Ok(Some(1.0)),
        Some("false") => Ok(Some(0.0)),
        Some(_) => {
            let value = fields::number::<f64>(payload, "value")?;
            value.filter(|value| value.is_finite()).map(Some).ok_or_else(Reply::bad_request)
        }
        None => Ok(None),
    }
}

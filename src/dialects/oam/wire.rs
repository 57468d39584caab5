//! The JSON of this dialect. Member order is part of it: the vendor's documented content lengths count exactly
//! these members, compact and in this order, nulls written out.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::catalogue::{AlarmEntry, MetricEntry, NodeEntry, alarm_id, enum_name, node_id};
use crate::dialects::shared::json;
use crate::model::directory::Directory;
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::product::AlarmCondition;
use crate::model::value::Quality;

/// The answer to a call. Over STOMP it carries the request's id, whatever JSON that was; over REST none.
pub(super) fn response(
    request_id: Option<&Json>,
    status: u16,
    reason: &str,
    payload: Option<&Json>,
) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a Json>,
        status: u16,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a Json>,
    }
    text(&Response { request_id, status, reason, payload })
}

/// One entry of the metric list.
pub(super) fn metric(entry: &MetricEntry<'_>) -> Json {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Metric<'a> {
        id: u64,
        name: &'a str,
        note: &'a str,
        enum_name: &'a str,
    }
    tree(&Metric { id: entry.id, name: entry.name, note: entry.unit, enum_name: &entry.enum_name })
}

/// One entry of the node list.
pub(super) fn node(entry: &NodeEntry<'_>) -> Json {
    #[derive(Serialize)]
    struct Node<'a> {
        id: u64,
        host: &'a str,
        profiles: [u64; 0],
    }
    tree(&Node { id: entry.id, host: &entry.link.id, profiles: [] })
}

/// One entry of the node status list. `rate` is that of the node's profile, and there are no profiles.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeStatus {
    pub id: u64,
    pub connect_timestamp: Option<i64>,
    pub connect_counter: u64,
    pub connected: bool,
    pub rate: u64,
}

/// One entry of the stream list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stream<'a> {
    pub name: &'a str,
    pub publisher: &'a str,
    pub media_id: &'a str,
    /// Milliseconds since it came into its status.
    pub age: i64,
    pub status: &'static str,
}

/// One entry of the alarm list. Every rule holds for all nodes and at once, so `node` is null and `time` zero.
pub(super) fn alarm(entry: &AlarmEntry<'_>) -> Json {
    #[derive(Serialize)]
    struct Alarm<'a> {
        id: u64,
        #[serde(rename = "type")]
        kind: u8,
        name: &'a str,
        value: Json,
        metric: u64,
        node: Option<u64>,
        time: u64,
    }
    let (kind, value) = condition(&entry.rule.condition);
    tree(&Alarm {
        id: entry.id,
        kind,
        name: &entry.rule.name,
        value,
        metric: entry.metric,
        node: None,
        time: 0,
    })
}

/// The body of an `/alarm` message; `None` for any other device message.
pub(super) fn alarm_message(message: &DeviceMessage, directory: &Directory) -> Option<String> {
    #[derive(Serialize)]
    struct AlarmMessage<'a> {
        id: u64,
        name: &'a str,
        #[serde(rename = "type")]
        kind: u8,
        metric: String,
        node: u64,
        value: Json,
        time: u64,
        level: &'static str,
        state: &'static str,
        observed: Json,
        #[serde(rename = "mediaId")]
        media_id: &'a str,
        timestamp: i64,
    }
    let Body::Alarm { rule, property, raised, value: observed, active: _ } = &message.body else {
        return None;
    };
    let device = &message.device;
    let (kind, value) = condition(&rule.condition);
    Some(text(&AlarmMessage {
        id: alarm_id(directory, &device.product.id, &rule.id),
        name: &rule.name,
        kind,
        metric: device.product.properties.get(*property).map_or_else(String::new, |p| enum_name(&p.id)),
        node: node_id(directory, &device.link),
        value,
        time: 0,
        level: rule.level.name(),
        state: if *raised { "raised" } else { "cleared" },
        observed: json::to_json(observed),
        media_id: &device.id,
        timestamp: message.at.0,
    }))
}

/// A sample: metric names with values, and when. A value that has become stale or cannot be read is null, since the
/// dialect has no word for quality.
pub(super) fn sample(message: &DeviceMessage, reports: &[Report]) -> Option<String> {
    let value = |report: &Report| match report.quality {
        Quality::Good => json::to_json(&report.value),
        Quality::Stale | Quality::Bad => Json::Null,
    };
    let mut members: Map<String, Json> =
        reports.iter().map(|report| (enum_name(&report.id), value(report))).collect();
    if members.is_empty() {
        return None;
    }
    members.extend([("timestamp".to_owned(), message.at.0.into())]);
    Some(Json::Object(members).to_string())
}

/// Any of these shapes as JSON inside a payload.
pub(super) fn tree(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// These shapes hold only text, numbers and maps with text keys, so writing them cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The vendor's number for a condition, and its limit. The vendor's numbers end at 5; those above are ours, for
/// conditions that it does not have.
fn condition(condition: &AlarmCondition) -> (u8, Json) {
    match condition {
        AlarmCondition::Below(limit) => (0, (*limit).into()),
        AlarmCondition::Above(limit) => (1, (*limit).into()),
        AlarmCondition::Equal(value) => (2, json::to_json(value)),
        AlarmCondition::NotEqual(value) => (6, json::to_json(value)),
        AlarmCondition::Rate(rate) => (7, rate.limit.into()),
        AlarmCondition::NoData(silence) => (8, u64::try_from(silence.as_millis()).unwrap_or(u64::MAX).into()),
    }
}

//! The JSON of this dialect. Member order is part of it: the vendor's documented content lengths count exactly
//! these members, compact and in this order, nulls written out.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::alarms::{alarm_id, kind_number};
use super::catalogue::{AlarmEntry, MetricEntry, NodeEntry, enum_name, node_id};
use crate::dialects::shared::json;
use crate::model::directory::Directory;
use crate::model::history::ClientAlarm;
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::product::{AlarmCondition, AlarmRule};
use crate::model::time::UnixMillis;
use crate::model::value::Quality;

/// How a call writes dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dates {
    /// As text, over STOMP.
    Text,
    /// In milliseconds, over REST.
    Millis,
}

impl Dates {
    /// A moment. One that no calendar has is the epoch.
    pub(super) fn write(self, at: UnixMillis) -> Json {
        match self {
            Self::Millis => at.0.into(),
            Self::Text => {
                let moment = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
                let date = moment.to_zoned(TimeZone::UTC);
                format!("{}.{:03}+0000", date.strftime("%Y-%m-%dT%H:%M:%S"), date.millisecond()).into()
            }
        }
    }
}

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

/// One entry of the profile list.
pub(super) fn profile(id: u64, name: &str, rate: u64, metrics: &[u64], rules: &[u64]) -> Json {
    #[derive(Serialize)]
    struct Profile<'a> {
        id: u64,
        name: &'a str,
        rate: u64,
        metrics: &'a [u64],
        rules: &'a [u64],
    }
    tree(&Profile { id, name, rate, metrics, rules })
}

/// One entry of the rule list.
pub(super) fn rule(id: u64, kind: u8, name: &str, value: &str, profiles: &[u64]) -> Json {
    #[derive(Serialize)]
    struct Rule<'a> {
        id: u64,
        #[serde(rename = "type")]
        kind: u8,
        name: &'a str,
        value: &'a str,
        profiles: &'a [u64],
    }
    tree(&Rule { id, kind, name, value, profiles })
}

/// One entry of the node list.
pub(super) fn node(entry: &NodeEntry<'_>, profiles: &[u64]) -> Json {
    #[derive(Serialize)]
    struct Node<'a> {
        id: u64,
        host: &'a str,
        profiles: &'a [u64],
    }
    tree(&Node { id: entry.id, host: &entry.link.id, profiles })
}

/// One entry of the node status list. `rate` is the fastest of the node's profiles, zero without any.
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

/// One entry of the stream history.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryEntry<'a> {
    pub id: i64,
    pub name: &'a str,
    pub status: &'static str,
    pub media_id: &'a str,
    pub create_date: Json,
    pub end_date: Option<Json>,
    pub publisher: &'a str,
    /// In milliseconds.
    pub duration: i64,
    /// Nobody keeps who listened.
    pub subscribers: [u64; 0],
    pub node: u64,
}

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

/// One entry of the alarm list that a client has set.
pub(super) fn client_alarm(id: u64, alarm: &ClientAlarm, metric: u64, node: Option<u64>) -> Json {
    let (kind, value) = (kind_number(alarm.kind), alarm.value.into());
    tree(&Alarm { id, kind, name: &alarm.name, value, metric, node, time: millis(alarm.hold) })
}

/// One entry of the alarm list that the configuration has. Every rule holds for all nodes, so `node` is null.
pub(super) fn alarm(entry: &AlarmEntry<'_>) -> Json {
    let (kind, value, time) = condition(entry.rule);
    tree(&Alarm { id: entry.id, kind, name: &entry.rule.name, value, metric: entry.metric, node: None, time })
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
        /// Ours: marks a time that may be wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        clock: Option<&'static str>,
    }
    let Body::Alarm { rule, property, raised, value: observed, active: _ } = &message.body else {
        return None;
    };
    let device = &message.device;
    let (kind, value, time) = condition(rule);
    Some(text(&AlarmMessage {
        id: alarm_id(directory, &device.product.id, &rule.id),
        name: &rule.name,
        kind,
        metric: device.product.properties.get(*property).map_or_else(String::new, |p| enum_name(&p.id)),
        node: node_id(directory, &device.link),
        value,
        time,
        level: rule.level.name(),
        state: if *raised { "raised" } else { "cleared" },
        observed: json::to_json(observed),
        media_id: &device.id,
        timestamp: message.at.0,
        clock: message.clock.mark(),
    }))
}

/// A sample: metric names with values, and when. A value that has become stale or cannot be read is null, since the
/// dialect has no word for quality.
pub(super) fn sample(message: &DeviceMessage, reports: &[Report]) -> Option<String> {
    let value = |report: &Report| match report.quality {
        Quality::Good => json::to_json(&report.value),
        Quality::Stale | Quality::Bad => Json::Null,
    };
    let members: Map<String, Json> =
        reports.iter().map(|report| (enum_name(&report.id), value(report))).collect();
    (!members.is_empty()).then(|| stamped(members, message.at).to_string())
}

/// The good values of a report by the names of their metrics.
pub(super) fn good(reports: &[Report]) -> Map<String, Json> {
    let good = reports.iter().filter(|report| report.quality == Quality::Good);
    good.map(|report| (enum_name(&report.id), json::to_json(&report.value))).collect()
}

/// Values of metrics as the sample of a moment.
pub(super) fn stamped(mut members: Map<String, Json>, at: UnixMillis) -> Json {
    members.extend([("timestamp".to_owned(), at.0.into())]);
    Json::Object(members)
}

/// Any of these shapes as JSON inside a payload.
pub(super) fn tree(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// These shapes hold only text, numbers and maps with text keys, so writing them cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The vendor's number for a rule's condition, its limit, and how long it has to hold. The vendor's numbers end at 5;
/// those above are ours, for conditions that it does not have.
fn condition(rule: &AlarmRule) -> (u8, Json, u64) {
    let delay = millis(rule.delay);
    match &rule.condition {
        AlarmCondition::Below(limit) => (0, (*limit).into(), delay),
        AlarmCondition::Above(limit) => (1, (*limit).into(), delay),
        AlarmCondition::Equal(value) => (2, json::to_json(value), delay),
        AlarmCondition::NotEqual(value) => (6, json::to_json(value), delay),
        AlarmCondition::Rate(rate) => (7, rate.limit.into(), delay),
        AlarmCondition::NoData(silence) => (8, millis(*silence).into(), delay),
        AlarmCondition::Client { kind, limit, hold } => (kind_number(*kind), (*limit).into(), millis(*hold)),
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

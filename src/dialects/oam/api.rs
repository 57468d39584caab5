//! The calls: one function for STOMP and REST, because both carry the same requests to the same answers.
//!
//! A request's fields are text or numbers as the client likes (`"3"` or `3`), and an empty one is as good as none.
//! Some calls need the hub's knowledge: they are answered in two steps.

use std::sync::Arc;

use serde_json::Value as Json;
use wildmatch::WildMatch;

use super::{catalogue, wire};
use crate::dialects::Context;
use crate::dialects::shared::json;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::interest::Selector;
use crate::model::snapshot::{DeviceSnapshot, Question, Snapshot};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::Quality;

/// How a call went.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// As HTTP counts.
    pub status: u16,
    /// One of the vendor's phrases where there is one.
    pub reason: &'static str,
    /// Absent when the call gives nothing back.
    pub payload: Option<Json>,
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Call {
    /// It is answered.
    Done(Reply),
    /// The hub has to be asked; [`finish`] makes the answer.
    Ask(Question, Pending),
}

/// A call that waits for the hub.
#[derive(Debug)]
pub(super) enum Pending {
    /// `node_status/list`, all or one.
    NodeStatus(Option<String>),
    /// `stream/list`.
    Streams(StreamFilter),
    /// `stream/metrics` of one device.
    Metrics,
}

/// What `stream/list` is narrowed to.
#[derive(Debug)]
pub(super) struct StreamFilter {
    node: Option<String>,
    media_id: Option<String>,
    name: Option<WildMatch>,
    publisher: Option<WildMatch>,
    status: Option<String>,
    show_closed: bool,
    node_ip: Option<String>,
    node_host_name: Option<String>,
}

impl Reply {
    fn success(payload: Vec<Json>) -> Self {
        Self { status: 200, reason: "SUCCESS", payload: Some(Json::Array(payload)) }
    }

    /// A failure has no payload.
    pub(super) fn failure(status: u16, reason: &'static str) -> Self {
        Self { status, reason, payload: None }
    }

    /// Nothing answers to the name.
    pub(super) fn not_found(status: u16) -> Self {
        Self::failure(status, "Object not found")
    }

    /// What came is no request.
    pub(super) fn bad_request() -> Self {
        Self::failure(400, "Bad request")
    }
}

/// Begins a call. `path` is the realm: `/api/metric/list`.
pub(super) fn call(path: &str, payload: &Json, context: &Context, client: &Client) -> Call {
    let directory = &*context.directory;
    if !(payload.is_null() || payload.is_object()) {
        return Call::Done(Reply::bad_request());
    }
    let id = field(payload, "id");
    Call::Done(match path.trim_end_matches('/') {
        "/api/metric/list" => {
            let means = |entry: &catalogue::MetricEntry<'_>, id: &str| {
                entry.id.to_string() == id || entry.enum_name.eq_ignore_ascii_case(id)
            };
            list(&catalogue::metrics(directory, client), id.as_deref(), means, wire::metric, 400)
        }
        "/api/alarm/list" => {
            let means = |entry: &catalogue::AlarmEntry<'_>, id: &str| entry.id.to_string() == id;
            list(&catalogue::alarms(directory, client), id.as_deref(), means, wire::alarm, 400)
        }
        "/api/node/list" => {
            let means = |entry: &catalogue::NodeEntry<'_>, id: &str| {
                catalogue::means_node(id, directory, &entry.link.id)
            };
            list(&catalogue::nodes(directory, client), id.as_deref(), means, wire::node, 404)
        }
        "/api/node_status/list" => {
            return Call::Ask(Question::Snapshot(Selector::All), Pending::NodeStatus(id));
        }
        "/api/stream/list" => {
            let glob = |name| field(payload, name).map(|pattern| WildMatch::new(&pattern));
            let filter = StreamFilter {
                node: field(payload, "node"),
                media_id: field(payload, "mediaId"),
                name: glob("name"),
                publisher: glob("publisher"),
                status: field(payload, "status"),
                show_closed: field(payload, "showClosed").is_some_and(|text| text == "true"),
                node_ip: field(payload, "nodeIp"),
                node_host_name: field(payload, "nodeHostName"),
            };
            return Call::Ask(Question::Snapshot(Selector::All), Pending::Streams(filter));
        }
        "/api/stream/metrics" => {
            let (Some(node), Some(media)) = (field(payload, "node"), field(payload, "mediaId")) else {
                return Call::Done(Reply::bad_request());
            };
            let Some(device) = catalogue::stream(directory, client, &node, &media) else {
                return Call::Done(Reply::not_found(400));
            };
            let question = Question::Snapshot(Selector::Device(Arc::clone(&device.id)));
            return Call::Ask(question, Pending::Metrics);
        }
        // There are none, and none can be made yet.
        "/api/profile/list" | "/api/rule/list" if id.is_none() => Reply::success(Vec::new()),
        "/api/profile/list" | "/api/rule/list" => Reply::not_found(400),
        "/api/profile/create"
        | "/api/profile/update"
        | "/api/profile/delete"
        | "/api/rule/create"
        | "/api/rule/update"
        | "/api/rule/delete"
        | "/api/node/update"
        | "/api/node/delete"
        | "/api/alarm/create"
        | "/api/alarm/update"
        | "/api/alarm/delete"
        | "/api/stream/history" => Reply::failure(500, "Persist exception"),
        _ => Reply::not_found(404),
    })
}

/// Ends a call that the hub was asked for.
pub(super) fn finish(
    pending: &Pending,
    snapshot: &Snapshot,
    context: &Context,
    client: &Client,
    now: Now,
) -> Reply {
    match pending {
        Pending::NodeStatus(id) => node_status(id.as_deref(), snapshot, context, client),
        Pending::Streams(filter) => {
            let streams = snapshot.devices.iter().filter_map(|state| stream(state, filter, context, now));
            Reply::success(streams.collect())
        }
        Pending::Metrics => snapshot
            .devices
            .first()
            .map_or_else(|| Reply::not_found(400), |state| Reply::success(current(state))),
    }
}

/// The text of a field that is text, a number or a bool; `None` when it is empty or anything else.
fn field(payload: &Json, name: &str) -> Option<String> {
    match payload.get(name)? {
        Json::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(on) => Some(on.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// All entries, or the one that is meant.
fn list<T>(
    entries: &[T],
    id: Option<&str>,
    means: impl Fn(&T, &str) -> bool,
    render: impl Fn(&T) -> Json,
    missing: u16,
) -> Reply {
    let found: Vec<Json> =
        entries.iter().filter(|entry| id.is_none_or(|id| means(entry, id))).map(render).collect();
    if found.is_empty() && id.is_some() { Reply::not_found(missing) } else { Reply::success(found) }
}

fn node_status(id: Option<&str>, snapshot: &Snapshot, context: &Context, client: &Client) -> Reply {
    let directory = &*context.directory;
    let entries = catalogue::nodes(directory, client);
    let means =
        |entry: &catalogue::NodeEntry<'_>, id: &str| catalogue::means_node(id, directory, &entry.link.id);
    let render = |entry: &catalogue::NodeEntry<'_>| {
        let state = snapshot.links.iter().find(|state| state.link.id == entry.link.id);
        wire::tree(&wire::NodeStatus {
            id: entry.id,
            connect_timestamp: state
                .filter(|state| state.up)
                .and_then(|state| state.since)
                .map(|UnixMillis(at)| at),
            connect_counter: state.map_or(0, |state| state.connects),
            connected: state.is_some_and(|state| state.up),
            rate: 0,
        })
    };
    list(&entries, id, means, render, 404)
}

/// A device as a stream, if the filter lets it through.
fn stream(state: &DeviceSnapshot, filter: &StreamFilter, context: &Context, now: Now) -> Option<Json> {
    let device = &state.device;
    let (status, closed) = match (state.online, state.since) {
        (true, _) => ("PUBLISHING", false),
        // Nobody has heard of it yet, for good or bad.
        (false, None) => ("PENDING", false),
        (false, Some(_)) => ("FAILED", true),
    };
    // Whoever asks for a stream by name or status wants it whether it is closed or not.
    let wanted = filter.show_closed || filter.status.is_some() || filter.media_id.is_some();
    let shown = (!closed || wanted)
        && filter.status.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(status))
        && admits(filter, device, context);
    shown.then(|| {
        wire::tree(&wire::Stream {
            name: &device.name,
            publisher: &device.product.id,
            media_id: &device.id,
            age: state.since.map_or(0, |since| now.wall.0.saturating_sub(since.0).max(0)),
            status,
        })
    })
}

fn admits(filter: &StreamFilter, device: &Device, context: &Context) -> bool {
    let directory = &*context.directory;
    let address = directory.link(&device.link).map(|link| &*link.address);
    filter.node.as_ref().is_none_or(|node| catalogue::means_node(node, directory, &device.link))
        && filter.media_id.as_ref().is_none_or(|media| **media == *device.id)
        && filter.name.as_ref().is_none_or(|glob| glob.matches(&device.name))
        && filter.publisher.as_ref().is_none_or(|glob| glob.matches(&device.product.id))
        && filter.node_ip.as_ref().is_none_or(|ip| address == Some(ip))
        && filter.node_host_name.as_ref().is_none_or(|host| **host == *device.link)
}

/// The current values as samples: those read at the same time stand together, the oldest first. A value that is
/// out of date is told with the time that it is of.
fn current(state: &DeviceSnapshot) -> Vec<Json> {
    let mut samples: Vec<(UnixMillis, serde_json::Map<String, Json>)> = Vec::new();
    for (property, reading) in state.device.product.properties.iter().zip(&state.readings) {
        let Some(reading) = reading.as_ref().filter(|reading| reading.quality != Quality::Bad) else {
            continue;
        };
        let member = (catalogue::enum_name(&property.id), json::to_json(&reading.value));
        match samples.iter_mut().find(|(at, _)| *at == reading.at) {
            Some((_, sample)) => sample.extend([member]),
            None => samples.push((reading.at, serde_json::Map::from_iter([member]))),
        }
    }
    samples.sort_by_key(|(at, _)| *at);
    let stamped = |(at, mut sample): (UnixMillis, serde_json::Map<String, Json>)| {
        sample.extend([("timestamp".to_owned(), at.0.into())]);
        Json::Object(sample)
    };
    samples.into_iter().map(stamped).collect()
}

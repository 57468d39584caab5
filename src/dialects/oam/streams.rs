//! The stream calls. A stream is a device: it is published while the device is online, and each time that it was
//! so is one entry of the history.
//!
//! The history is made of the presence messages that are kept, and of the present. A device that went offline has
//! FAILED; one that was online when the gateway stopped was UNPUBLISHED with it, at the last moment that its values were
//! heard of. Where no history is kept, only the present is known. An entry's id is made of its beginning and the
//! place of the device in the configuration, so that ids rise with time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value as Json;
use wildmatch::WildMatch;

use super::api::{self, Call, Caller, Reply};
use super::{catalogue, fields, wire};
use crate::dialects::shared::json;
use crate::model::device::Device;
use crate::model::history::{HISTORY_ROWS, Past, PastMessage, PastQuery};
use crate::model::interest::Selector;
use crate::model::message::{Body, Kinds};
use crate::model::snapshot::{Answer, DeviceSnapshot, Question, Snapshot};
use crate::model::time::UnixMillis;
use crate::model::value::Quality;

/// Samples that one answer gives when the request does not say how many, and at most.
const SAMPLES: (usize, usize) = (100, 1000);

/// Entries of the history that one answer gives at most, and when the request does not say how many.
const ENTRIES: usize = 1000;

/// Past messages that one question brings at most, as long as it is about more than one device. Between two of them
/// everybody else has a turn, in the store as in the session's process.
const AT_ONCE: usize = 1000;

/// How many devices' places an id has room for before two devices that came online in one millisecond could share it.
const PLACES: i64 = 1024;

/// A stream call that waits for an answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// `stream/list`.
    List(Filter),
    /// `stream/metrics` of one device: what there is now, if it is not older than this.
    Current(UnixMillis),
    /// `stream/metrics` of one device: what there was.
    Samples(Samples),
    /// `stream/history`, for what is kept of some of the devices.
    Kept(Box<Gathering>),
    /// The same, for the present.
    Present(Box<Gathering>),
}

/// A history on its way: device after device is asked for what is kept of it, then the hub for the present.
#[derive(Debug)]
pub(super) struct Gathering {
    filter: Filter,
    page: Page,
    /// Ids of devices that are not asked for yet.
    left: VecDeque<Arc<str>>,
    /// Messages of each.
    each: usize,
    told: HashMap<Arc<str>, Times>,
}

/// When a device was online, as far as was told.
#[derive(Debug, Default)]
struct Times {
    over: Vec<Entry>,
    /// It came online then and was not heard to go.
    open: Option<UnixMillis>,
}

/// What past samples are wanted.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    device: Arc<str>,
    from: UnixMillis,
    /// Whether each sample is to tell its number, because the request counts by them.
    numbered: bool,
    newest_first: bool,
}

/// Which of the entries are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    offset: usize,
    limit: usize,
}

/// What streams a call is narrowed to.
#[derive(Debug)]
pub(super) struct Filter {
    node: Option<String>,
    media_id: Option<String>,
    name: Option<WildMatch>,
    publisher: Option<WildMatch>,
    status: Option<String>,
    show_closed: bool,
    node_ip: Option<String>,
    node_host_name: Option<String>,
}

/// `stream/list`.
pub(super) fn list(payload: &Json) -> Call {
    let question = Question::Snapshot(Selector::All);
    Call::Ask(question, api::Pending::Stream(Pending::List(Filter::of(payload))))
}

/// `stream/metrics`: the present, or past samples where the request says which.
pub(super) fn metrics(payload: &Json, caller: Caller<'_>) -> Result<Call, Reply> {
    let names = fields::text(payload, "node").zip(fields::text(payload, "mediaId"));
    let (node, media) = names.ok_or_else(Reply::bad_request)?;
    let device = catalogue::stream(&caller.context.directory, caller.client, &node, &media);
    let device = &device.ok_or_else(|| Reply::not_found(400))?.id;
    let limit: Option<usize> = fields::number(payload, "limit")?;
    let offset: Option<u64> = fields::number(payload, "offset")?;
    let time = fields::moment(payload, "time")?;
    let seq: Option<u64> = fields::number(payload, "seq")?;
    let from = time.unwrap_or(UnixMillis(i64::MIN));
    if limit.is_none() && offset.is_none() && time.is_none() && seq.is_none() {
        return Ok(current_of(device, from));
    }
    // Whoever names a point wants what came after it, and otherwise the newest.
    let newest_first = time.is_none() && seq.is_none();
    let samples = Samples { device: Arc::clone(device), from, numbered: seq.is_some(), newest_first };
    let query = PastQuery {
        devices: vec![Arc::clone(device)],
        kind: Kinds::PROPERTIES,
        from,
        after: seq.unwrap_or(0),
        limit: limit.unwrap_or(SAMPLES.0).min(SAMPLES.1),
        offset: offset.unwrap_or(0),
        newest_first,
    };
    Ok(Call::Ask(Question::Past(query), api::Pending::Stream(Pending::Samples(samples))))
}

fn current_of(device: &Arc<str>, from: UnixMillis) -> Call {
    let question = Question::Snapshot(Selector::Device(Arc::clone(device)));
    Call::Ask(question, api::Pending::Stream(Pending::Current(from)))
}

/// `stream/history`.
pub(super) fn history(payload: &Json, caller: Caller<'_>) -> Result<Call, Reply> {
    let filter = Filter::of(payload);
    let page = Page {
        offset: fields::number(payload, "offset")?.unwrap_or(0),
        limit: fields::number(payload, "limit")?.unwrap_or(ENTRIES).min(ENTRIES),
    };
    let devices = caller.context.directory.devices().iter();
    let left: VecDeque<Arc<str>> = devices
        .filter(|device| caller.client.sees(device) && filter.admits(device, caller))
        .map(|device| Arc::clone(&device.id))
        .collect();
    // Each gets its share of what an answer can hold: where there is more, the oldest of each is left out.
    let each = (HISTORY_ROWS / left.len().max(1)).max(1);
    Ok(Box::new(Gathering { filter, page, left, each, told: HashMap::new() }).go_on())
}

impl Gathering {
    /// Asks for the next devices, or for the present when there are none left.
    fn go_on(mut self: Box<Self>) -> Call {
        let count = (AT_ONCE / self.each).max(1).min(self.left.len());
        if count == 0 {
            let pending = api::Pending::Stream(Pending::Present(self));
            return Call::Ask(Question::Snapshot(Selector::All), pending);
        }
        let query = PastQuery {
            devices: self.left.drain(..count).collect(),
            kind: Kinds::PRESENCE,
            from: UnixMillis(i64::MIN),
            after: 0,
            limit: self.each,
            offset: 0,
            newest_first: true,
        };
        Call::Ask(Question::Past(query), api::Pending::Stream(Pending::Kept(self)))
    }

    fn take(mut self: Box<Self>, past: &Past) -> Call {
        if !past.kept {
            self.left.clear();
        }
        // The newest comes first.
        for message in past.messages.iter().rev() {
            self.told.entry(Arc::clone(&message.device)).or_default().take(message);
        }
        self.go_on()
    }
}

impl Pending {
    /// Goes on with a call.
    pub(super) fn advance(self, answer: Answer, caller: Caller<'_>) -> Call {
        match (self, answer) {
            (Self::List(filter), Answer::Snapshot(snapshot)) => {
                let streams = snapshot.devices.iter().filter_map(|state| stream(state, &filter, caller));
                Call::Done(Reply::success(streams.collect()))
            }
            (Self::Current(from), Answer::Snapshot(snapshot)) => {
                let state = snapshot.devices.first();
                Call::Done(
                    state.map_or_else(|| Reply::not_found(400), |state| Reply::success(current(state, from))),
                )
            }
            (Self::Samples(samples), Answer::Past(past)) if past.kept => {
                let mut found: Vec<Json> =
                    past.messages.iter().filter_map(|message| sample(message, samples.numbered)).collect();
                if samples.newest_first {
                    found.reverse();
                }
                Call::Done(Reply::success(found))
            }
            (Self::Samples(samples), Answer::Past(_)) => current_of(&samples.device, samples.from),
            (Self::Kept(gathering), Answer::Past(past)) => gathering.take(&past),
            (Self::Present(gathering), Answer::Snapshot(snapshot)) => {
                Call::Done(Reply::success(entries(*gathering, &snapshot, caller)))
            }
            // Nobody answers another question than the one that was asked.
            (Self::List(_) | Self::Current(_) | Self::Samples(_) | Self::Kept(_) | Self::Present(_), _) => {
                Call::Done(Reply::failure(500, "Internal error"))
            }
        }
    }
}

impl Filter {
    fn of(payload: &Json) -> Self {
        let glob = |name| fields::text(payload, name).map(|pattern| WildMatch::new(&pattern));
        Self {
            node: fields::text(payload, "node"),
            media_id: fields::text(payload, "mediaId"),
            name: glob("name"),
            publisher: glob("publisher"),
            status: fields::text(payload, "status"),
            show_closed: fields::text(payload, "showClosed").is_some_and(|text| text == "true"),
            node_ip: fields::text(payload, "nodeIp"),
            node_host_name: fields::text(payload, "nodeHostName"),
        }
    }

    fn admits(&self, device: &Device, caller: Caller<'_>) -> bool {
        let directory = &*caller.context.directory;
        let address = directory.link(&device.link).map(|link| &*link.address);
        self.node.as_ref().is_none_or(|node| catalogue::means_node(node, directory, &device.link))
            && self.media_id.as_ref().is_none_or(|media| **media == *device.id)
            && self.name.as_ref().is_none_or(|glob| glob.matches(&device.name))
            && self.publisher.as_ref().is_none_or(|glob| glob.matches(&device.product.id))
            && self.node_ip.as_ref().is_none_or(|ip| address == Some(ip))
            && self.node_host_name.as_ref().is_none_or(|host| **host == *device.link)
    }

    fn is_in(&self, status: &str) -> bool {
        self.status.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(status))
    }
}

/// A device as a stream, if the filter lets it through.
fn stream(state: &DeviceSnapshot, filter: &Filter, caller: Caller<'_>) -> Option<Json> {
    let device = &state.device;
    let (status, closed) = match (state.online, state.since) {
        (true, _) => ("PUBLISHING", false),
        // Nobody has heard of it yet, for good or bad.
        (false, None) => ("PENDING", false),
        (false, Some(_)) => ("FAILED", true),
    };
    // Whoever asks for a stream by name or status wants it whether it is closed or not.
    let wanted = filter.show_closed || filter.status.is_some() || filter.media_id.is_some();
    let shown = (!closed || wanted) && filter.is_in(status) && filter.admits(device, caller);
    shown.then(|| {
        wire::tree(&wire::Stream {
            name: &device.name,
            publisher: &device.product.id,
            media_id: &device.id,
            age: state.since.map_or(0, |since| caller.now.wall.0.saturating_sub(since.0).max(0)),
            status,
        })
    })
}

/// The current values as samples: those read at the same time stand together, the oldest first. A value that is
/// out of date is told with the time that it is of.
fn current(state: &DeviceSnapshot, from: UnixMillis) -> Vec<Json> {
    let mut samples: Vec<(UnixMillis, serde_json::Map<String, Json>)> = Vec::new();
    for (property, reading) in state.device.product.properties.iter().zip(&state.readings) {
        let usable = |reading: &&_| -> bool {
            let reading: &crate::model::value::Reading = reading;
            reading.quality != Quality::Bad && reading.at >= from
        };
        let Some(reading) = reading.as_ref().filter(usable) else { continue };
        let member = (catalogue::enum_name(&property.id), json::to_json(&reading.value));
        match samples.iter_mut().find(|(at, _)| *at == reading.at) {
            Some((_, sample)) => sample.extend([member]),
            None => samples.push((reading.at, serde_json::Map::from_iter([member]))),
        }
    }
    samples.sort_by_key(|(at, _)| *at);
    samples.into_iter().map(|(at, sample)| wire::stamped(sample, at)).collect()
}

/// A past report as a sample.
fn sample(message: &PastMessage, numbered: bool) -> Option<Json> {
    let Body::Properties(reports) = &message.body else { return None };
    let mut members = wire::good(reports);
    if members.is_empty() {
        return None;
    }
    if numbered {
        members.extend([("seq".to_owned(), message.seq.into())]);
    }
    Some(wire::stamped(members, message.at))
}

/// A time in which a device was online.
#[derive(Debug)]
struct Entry {
    begin: UnixMillis,
    end: Option<UnixMillis>,
    status: &'static str,
}

fn entries(gathering: Gathering, snapshot: &Snapshot, caller: Caller<'_>) -> Vec<Json> {
    let Gathering { filter, page, mut told, .. } = gathering;
    let directory = &*caller.context.directory;
    let states: HashMap<&str, &DeviceSnapshot> =
        snapshot.devices.iter().map(|state| (&*state.device.id, state)).collect();
    let mut all: Vec<(i64, &Arc<Device>, Entry)> = Vec::new();
    for (place, device) in (0_i64..).zip(directory.devices()) {
        if !(caller.client.sees(device) && filter.admits(device, caller)) {
            continue;
        }
        let times = told.remove(&device.id).unwrap_or_default();
        for entry in times.up_to(states.get(&*device.id).copied()) {
            let id = entry.begin.0.saturating_mul(PLACES).saturating_add(place % PLACES);
            if filter.is_in(entry.status) {
                all.push((id, device, entry));
            }
        }
    }
    all.sort_by_key(|(id, ..)| *id);
    let wanted = all.into_iter().skip(page.offset).take(page.limit);
    wanted
        .map(|(id, device, Entry { begin, end, status })| {
            let until = end.unwrap_or(caller.now.wall);
            wire::tree(&wire::HistoryEntry {
                id,
                name: &device.name,
                status,
                media_id: &device.id,
                create_date: caller.dates.write(begin),
                end_date: end.map(|end| caller.dates.write(end)),
                publisher: &device.product.id,
                duration: until.0.saturating_sub(begin.0).max(0),
                subscribers: [],
                node: catalogue::node_id(directory, &device.link),
            })
        })
        .collect()
}

impl Times {
    /// What happened next.
    fn take(&mut self, message: &PastMessage) {
        let Body::Presence { online, .. } = message.body else { return };
        match (self.open.take(), online) {
            (Some(begin), true) => {
                // The gateway stopped in between.
                let end = message.heard.unwrap_or(begin).max(begin);
                self.over.push(Entry { begin, end: Some(end), status: "UNPUBLISHED" });
                self.open = Some(message.at);
            }
            (None, true) => self.open = Some(message.at),
            (Some(begin), false) => {
                self.over.push(Entry { begin, end: Some(message.at), status: "FAILED" });
            }
            // Its beginning is no longer kept.
            (None, false) => {}
        }
    }

    /// All of it, now that this is the present.
    fn up_to(mut self, state: Option<&DeviceSnapshot>) -> Vec<Entry> {
        let online = state.filter(|state| state.online);
        match (self.open, online.and_then(|state| state.since)) {
            (Some(begin), Some(_)) | (None, Some(begin)) => {
                self.over.push(Entry { begin, end: None, status: "PUBLISHING" });
            }
            // The gateway has started and not heard of it since.
            (Some(begin), None) => self.over.push(Entry { begin, end: None, status: "PENDING" }),
            (None, None) => {}
        }
        self.over
    }
}

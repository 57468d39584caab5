//! The calls: one function for STOMP and REST, because both carry the same requests to the same answers.
//!
//! Most calls need what the hub or the history store knows: they are answered in several steps.

use std::sync::Arc;

use serde_json::Value as Json;

use super::registry::{COLLECTION, Registry, RegistryCall, SET_ASIDE, Scope};
use super::{alarms, catalogue, fields, streams, wire};
use crate::dialects::Context;
use crate::model::client::Client;
use crate::model::history::{AlarmAnswer, AlarmAsk, DocumentAnswer, DocumentAsk};
use crate::model::interest::Selector;
use crate::model::snapshot::{Answer, Question};
use crate::model::time::{Now, UnixMillis};

/// How often a change is begun anew because another client was faster.
const TRIES: u32 = 8;

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
    /// Somebody has to be asked; [`Pending::advance`] goes on with the answer.
    Ask(Question, Pending),
}

/// Who calls, and how answers are written for him.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub context: &'a Context,
    pub client: &'a Client,
    pub dates: wire::Dates,
    pub now: Now,
}

/// A call that waits for an answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// A call on the registry, for its document.
    Registry { call: RegistryCall, payload: Json, tries: u32 },
    /// The same, for a document that cannot be read to be set aside before another takes its place.
    SettingAside { call: RegistryCall, payload: Json, tries: u32, seen: Arc<str> },
    /// The same, for the changed document to be taken.
    Saving { call: RegistryCall, payload: Json, tries: u32 },
    /// `node_status/list`, all or one, for the registry.
    NodeRates(Option<String>),
    /// The same, for the state of links.
    NodeStatus(Option<String>, Registry),
    /// `alarm/list`, all or one.
    Alarms(Option<String>),
    /// `alarm/update`, for what the alarm is now.
    AlarmUpdate { number: u64, payload: Json },
    /// A change of an alarm.
    AlarmChange,
    /// One that is about streams.
    Stream(streams::Pending),
}

impl Reply {
    /// All is well, and this is what was asked for.
    pub(super) fn success(payload: Vec<Json>) -> Self {
        Self { status: 200, reason: "SUCCESS", payload: Some(Json::Array(payload)) }
    }

    /// All is well, and there is nothing to give back.
    pub(super) fn done() -> Self {
        Self { status: 200, reason: "SUCCESS", payload: None }
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

    /// The database takes it not: a name that is taken or too long, or no room.
    pub(super) fn not_stored() -> Self {
        Self::failure(500, "Persist exception")
    }

    /// The client may not do this.
    pub(super) fn forbidden() -> Self {
        Self::failure(403, "Forbidden")
    }
}

/// Begins a call. `path` is the realm: `/api/metric/list`.
pub(super) fn call(path: &str, payload: &Json, caller: Caller<'_>) -> Call {
    let directory = &*caller.context.directory;
    if !(payload.is_null() || payload.is_object()) {
        return Call::Done(Reply::bad_request());
    }
    let path = path.trim_end_matches('/');
    let may_write = caller.client.rights.write;
    if let Some(call) = RegistryCall::named(path) {
        if call.changes() && !may_write {
            return Call::Done(Reply::forbidden());
        }
        return Call::Ask(
            read_registry(),
            Pending::Registry { call, payload: payload.clone(), tries: TRIES },
        );
    }
    let id = fields::text(payload, "id");
    match path {
        "/api/metric/list" => {
            let metrics = catalogue::metrics(directory, caller.client);
            let meant = metrics.iter().filter(|entry| id.as_ref().is_none_or(|id| entry.means(id)));
            let found: Vec<Json> = meant.map(wire::metric).collect();
            let missing = found.is_empty() && id.is_some();
            Call::Done(if missing { Reply::not_found(400) } else { Reply::success(found) })
        }
        "/api/alarm/list" => Call::Ask(Question::Alarms(AlarmAsk::List), Pending::Alarms(id)),
        "/api/alarm/create" | "/api/alarm/update" | "/api/alarm/delete" if !may_write => {
            Call::Done(Reply::forbidden())
        }
        "/api/alarm/create" => alarms::create(payload, caller),
        "/api/alarm/update" => alarms::change(payload, false, caller),
        "/api/alarm/delete" => alarms::change(payload, true, caller),
        "/api/node_status/list" => Call::Ask(read_registry(), Pending::NodeRates(id)),
        "/api/stream/list" => streams::list(payload),
        "/api/stream/metrics" => streams::metrics(payload, caller).unwrap_or_else(Call::Done),
        "/api/stream/history" => streams::history(payload, caller).unwrap_or_else(Call::Done),
        _ => Call::Done(Reply::not_found(404)),
    }
}

/// The question for the document of the registry.
pub(super) fn read_registry() -> Question {
    Question::Documents(DocumentAsk::List { collection: COLLECTION.into() })
}

impl Pending {
    /// Goes on with a call.
    pub(super) fn advance(self, answer: Answer, caller: Caller<'_>) -> Call {
        let scope = Scope { directory: &caller.context.directory, client: caller.client };
        match (self, answer) {
            (
                Self::Registry { call, payload, tries },
                Answer::Documents(DocumentAnswer::Documents(documents)),
            ) => {
                let seen = documents.first().map(|document| Arc::clone(&document.body));
                let damaged = seen.as_ref().filter(|seen| call.changes() && Registry::is_damaged(Some(seen)));
                if let Some(seen) = damaged {
                    let (collection, body, seen) = (SET_ASIDE.into(), Arc::clone(seen), Arc::clone(seen));
                    let put = DocumentAsk::Put { collection, id: None, body };
                    return Call::Ask(
                        Question::Documents(put),
                        Self::SettingAside { call, payload, tries, seen },
                    );
                }
                change_registry(call, payload, tries, seen, scope)
            }
            (Self::SettingAside { call, payload, tries, seen }, Answer::Documents(answer)) => match answer {
                DocumentAnswer::Put(id) => {
                    tracing::error!(
                        document = id,
                        collection = SET_ASIDE,
                        "the profiles and rules of clients are damaged and are set aside in the history, new ones are begun"
                    );
                    change_registry(call, payload, tries, Some(seen), scope)
                }
                DocumentAnswer::Forbidden => Call::Done(Reply::forbidden()),
                DocumentAnswer::Unknown
                | DocumentAnswer::Full
                | DocumentAnswer::Documents(_)
                | DocumentAnswer::Deleted => Call::Done(Reply::not_stored()),
            },
            (Self::Saving { call, payload, tries }, Answer::Documents(answer)) => match answer {
                DocumentAnswer::Put(_) => Call::Done(Reply::done()),
                DocumentAnswer::Unknown if tries > 0 => {
                    Call::Ask(read_registry(), Self::Registry { call, payload, tries: tries - 1 })
                }
                DocumentAnswer::Forbidden => Call::Done(Reply::forbidden()),
                DocumentAnswer::Unknown
                | DocumentAnswer::Full
                | DocumentAnswer::Documents(_)
                | DocumentAnswer::Deleted => Call::Done(Reply::not_stored()),
            },
            (Self::NodeRates(id), Answer::Documents(DocumentAnswer::Documents(documents))) => {
                let registry = Registry::parse(documents.first().map(|document| &*document.body));
                Call::Ask(Question::Snapshot(Selector::All), Self::NodeStatus(id, registry))
            }
            (Self::NodeStatus(id, registry), Answer::Snapshot(snapshot)) => {
                let state = |link: &str| snapshot.links.iter().find(|state| *state.link.id == *link);
                Call::Done(node_status(id.as_deref(), &registry, state, scope))
            }
            (Self::Alarms(id), Answer::Alarms(AlarmAnswer::Alarms(known))) => {
                Call::Done(alarms::list(id.as_deref(), &known, caller))
            }
            (Self::AlarmUpdate { number, payload }, Answer::Alarms(AlarmAnswer::Alarms(known))) => {
                alarms::update(number, &payload, &known, caller)
            }
            (Self::AlarmChange, Answer::Alarms(answer)) => Call::Done(alarms::changed(&answer)),
            (Self::Stream(pending), answer) => pending.advance(answer, caller),
            // Nobody answers another question than the one that was asked.
            (
                Self::Registry { .. }
                | Self::SettingAside { .. }
                | Self::Saving { .. }
                | Self::NodeRates(_)
                | Self::NodeStatus(..)
                | Self::Alarms(_)
                | Self::AlarmUpdate { .. }
                | Self::AlarmChange,
                _,
            ) => Call::Done(Reply::failure(500, "Internal error")),
        }
    }
}

/// Carries a call on the registry out and begins to save what has changed.
fn change_registry(
    call: RegistryCall,
    payload: Json,
    tries: u32,
    seen: Option<Arc<str>>,
    scope: Scope<'_>,
) -> Call {
    let mut registry = Registry::parse(seen.as_deref());
    let reply = match registry.run(call, &payload, scope) {
        Ok(reply) | Err(reply) => reply,
    };
    let body: Arc<str> = registry.to_text().into();
    if !call.changes() || reply.status != 200 || seen.as_ref() == Some(&body) {
        return Call::Done(reply);
    }
    let swap = DocumentAsk::Swap { collection: COLLECTION.into(), seen, body };
    Call::Ask(Question::Documents(swap), Pending::Saving { call, payload, tries })
}

fn node_status<'a>(
    id: Option<&str>,
    registry: &Registry,
    state: impl Fn(&str) -> Option<&'a crate::model::snapshot::LinkSnapshot>,
    scope: Scope<'_>,
) -> Reply {
    let nodes = catalogue::nodes(scope.directory, scope.client);
    let meant = nodes
        .iter()
        .filter(|node| id.is_none_or(|id| catalogue::means_node(id, scope.directory, &node.link.id)));
    let render = |node: &catalogue::NodeEntry<'_>| {
        let state = state(&node.link.id);
        wire::tree(&wire::NodeStatus {
            id: node.id,
            connect_timestamp: state
                .filter(|state| state.up)
                .and_then(|state| state.since)
                .map(|UnixMillis(at)| at),
            connect_counter: state.map_or(0, |state| state.connects),
            connected: state.is_some_and(|state| state.up),
            rate: registry.rate(&node.link.id),
        })
    };
    let found: Vec<Json> = meant.map(render).collect();
    if found.is_empty() && id.is_some() { Reply::not_found(404) } else { Reply::success(found) }
}

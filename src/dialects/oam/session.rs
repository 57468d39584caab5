//! WCS OAM on a STOMP connection: alarms, live samples, and calls with their answers on `/user/service`.
//!
//! An answer goes to every subscription of `/user/service` on the connection that asked, and nowhere when there is
//! none, as with the vendor's server. A call never ends the connection: what is wrong with it is said in its answer.
//!
//! The registry is read when the first stream is subscribed and whenever it changes. Until it is known, a stream is
//! told as it changes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value as Json;
use tracing::debug;

use super::api::{self, Call, Caller, Pending, Reply};
use super::registry::{COLLECTION, Registry};
use super::sampler::TICK;
use super::stream::Stream;
use super::{catalogue, wire};
use crate::dialects::shared::credentials::Credentials;
use crate::dialects::shared::lenient;
use crate::dialects::shared::stomp::{App, Desk};
use crate::dialects::{Context, Token};
use crate::model::client::{Client, Dialect};
use crate::model::device::Device;
use crate::model::history::DocumentAnswer;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{DeviceMessage, Form, Kinds};
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::model::time::Now;
use crate::proto::stomp::Key;

/// What one client hears and has asked.
#[derive(Debug)]
pub(super) struct Monitor {
    context: Arc<Context>,
    client: Option<Arc<Client>>,
    alarms: Vec<Key>,
    service: Vec<Key>,
    streams: Vec<Stream>,
    /// Subscriptions to streams that this client does not see, which a change of the configuration may bring. The
    /// protocol bounds how many there are and how long.
    waiting: Vec<(Key, String)>,
    /// Calls that wait for the hub, with their requestId. The endpoint bounds how many.
    pending: Vec<(Token, Json, Pending)>,
    /// What is known of profiles and rules.
    registry: Registry,
    reading: Reading,
    sampling: Sampling,
}

/// Whether the registry is being read.
#[derive(Debug, Default)]
enum Reading {
    /// Nobody needed it yet.
    #[default]
    Never,
    /// It is known.
    Known,
    /// It was asked for; `again` when it has changed since.
    Asked { token: Token, again: bool },
}

/// The positions of the properties that one subscription is to be told.
type Share = (Key, Vec<usize>);

/// Samples that are being taken.
#[derive(Debug, Default)]
struct Sampling {
    /// The question for the values, and which properties are for whom.
    asked: Option<(Token, Vec<Share>)>,
    /// No more are taken before this.
    not_before: Option<Instant>,
}

impl Monitor {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            client: None,
            alarms: Vec::new(),
            service: Vec::new(),
            streams: Vec::new(),
            waiting: Vec::new(),
            pending: Vec::new(),
            registry: Registry::default(),
            reading: Reading::default(),
            sampling: Sampling::default(),
        }
    }

    /// Says or asks what comes of a call.
    fn step(&mut self, call: Call, request_id: Json, desk: &mut Desk<'_>) {
        match (call, &self.client) {
            (Call::Done(reply), _) => self.answer_call(&request_id, &reply, desk),
            (Call::Ask(question, pending), Some(client)) => {
                let token = desk.ask(client, question);
                self.pending.push((token, request_id, pending));
            }
            (Call::Ask(..), None) => {}
        }
    }

    /// Reads the registry, or reads it again once the answer that is on its way has come.
    fn read_registry(&mut self, desk: &mut Desk<'_>) {
        if let Reading::Asked { again, .. } = &mut self.reading {
            *again = true;
        } else if let Some(client) = &self.client {
            let token = desk.ask(client, api::read_registry());
            self.reading = Reading::Asked { token, again: false };
        }
    }

    /// Takes the registry over, if this is the answer with it.
    fn learn(&mut self, token: Token, answer: &Answer, desk: &mut Desk<'_>) -> bool {
        let Reading::Asked { token: asked, again } = self.reading else { return false };
        if asked != token {
            return false;
        }
        if let Answer::Documents(DocumentAnswer::Documents(documents)) = answer {
            self.registry = Registry::parse(documents.first().map(|document| &*document.body));
        }
        let now = desk.now().instant;
        for stream in &mut self.streams {
            stream.follow(self.registry.plan(&stream.device), now);
        }
        self.reading = Reading::Known;
        if again {
            self.read_registry(desk);
        }
        true
    }

    /// When samples are to be taken.
    fn next_sample(&self) -> Option<Instant> {
        if self.sampling.asked.is_some() {
            return None;
        }
        let due = self.streams.iter().filter_map(Stream::next_sample).min()?;
        Some(self.sampling.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Asks for the values of everything that is due.
    fn begin_sampling(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now().instant;
        let Some(client) = &self.client else { return };
        let mut wanted = Vec::new();
        let mut devices: Vec<&Arc<str>> = Vec::new();
        for stream in &mut self.streams {
            let properties = stream.due_properties(now);
            if !properties.is_empty() {
                wanted.push((stream.key, properties));
                devices.push(&stream.device.id);
            }
        }
        let Some(first) = devices.first() else { return };
        let one = devices.iter().all(|device| device == first);
        let selector = if one { Selector::Device(Arc::clone(first)) } else { Selector::All };
        let token = desk.ask(client, Question::Snapshot(selector));
        self.sampling = Sampling { asked: Some((token, wanted)), not_before: now.checked_add(TICK) };
    }

    /// Makes samples of the values, if this is the answer with them.
    fn sample(&mut self, token: Token, answer: &Answer, desk: &mut Desk<'_>) -> bool {
        let Some((_, wanted)) = self.sampling.asked.take_if(|(asked, _)| *asked == token) else {
            return false;
        };
        let Answer::Snapshot(snapshot) = answer else { return true };
        for (key, properties) in wanted {
            self.sample_one(key, &properties, snapshot, desk);
        }
        true
    }

    fn sample_one(&mut self, key: Key, properties: &[usize], snapshot: &Snapshot, desk: &mut Desk<'_>) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.key == key) else { return };
        let state = snapshot.devices.iter().find(|state| state.device.id == stream.device.id);
        // One that is told by now has said it already.
        let Some(state) = state.filter(|_| !stream.is_told()) else { return };
        let settings = &self.context.settings.oam;
        if let Some(batch) = stream.sample(state, properties, settings, desk.now()) {
            desk.message(key, &batch);
        }
    }

    /// Begins to tell a stream, or keeps its place until there is one.
    fn listen(&mut self, key: Key, destination: String, desk: &mut Desk<'_>) {
        let names = destination.strip_prefix("/stream/").and_then(|rest| rest.split_once('/'));
        let device = names.zip(self.client.as_ref()).and_then(|((node, media), client)| {
            catalogue::stream(&self.context.directory, client, node, media).map(Arc::clone)
        });
        let Some(device) = device else {
            debug!(destination, "subscription to a stream that this client does not see");
            self.waiting.push((key, destination));
            return;
        };
        let mut stream = Stream::new(key, device, &destination);
        match self.reading {
            Reading::Never => self.read_registry(desk),
            Reading::Known => stream.follow(self.registry.plan(&stream.device), desk.now().instant),
            Reading::Asked { .. } => {}
        }
        self.streams.push(stream);
    }

    /// The device of a stream as it is now, if it is still on its node and this client still sees it.
    fn successor(&self, device: &Device) -> Option<Arc<Device>> {
        let next = self.context.directory.device(&device.id)?;
        let sees = self.client.as_ref().is_some_and(|client| client.sees(next));
        (sees && next.link == device.link).then(|| Arc::clone(next))
    }

    fn answer_call(&self, request_id: &Json, reply: &Reply, desk: &mut Desk<'_>) {
        let body = wire::response(Some(request_id), reply.status, reply.reason, reply.payload.as_ref());
        for key in &self.service {
            desk.message(*key, &body);
        }
    }
}

impl App for Monitor {
    fn admit(&mut self, credentials: &Credentials, _now: Now) -> Option<Arc<Client>> {
        // A ticket is another dialect's credential: whoever shows one is not anonymous.
        if credentials.ticket.is_some() && credentials.tokens.is_empty() {
            return None;
        }
        let common = &self.context.settings.oam.common;
        self.client = credentials.admit(&self.context, Dialect::Oam, common);
        self.client.clone()
    }

    /// Streams go on with their devices as they are now. One whose device has gone is looked for again by its name, as
    /// those that were not there before.
    fn reconfigure(&mut self, context: &Arc<Context>, desk: &mut Desk<'_>) {
        self.context = Arc::clone(context);
        // The answer that is on its way counts properties as they were.
        self.sampling.asked = None;
        let mut waiting = std::mem::take(&mut self.waiting);
        for mut stream in std::mem::take(&mut self.streams) {
            if let Some(device) = self.successor(&stream.device) {
                stream.device = device;
                if !matches!(self.reading, Reading::Never) {
                    stream.follow(self.registry.plan(&stream.device), desk.now().instant);
                }
                self.streams.push(stream);
            } else {
                if let Some(batch) = stream.rest() {
                    desk.message(stream.key, &batch);
                }
                waiting.push((stream.key, stream.destination));
            }
        }
        for (key, destination) in waiting {
            self.listen(key, destination, desk);
        }
    }

    fn claims(&self, destination: &str) -> bool {
        matches!(destination, "/alarm" | "/alarms" | "/user/service")
            || ["/app/", "/stream/"].iter().any(|prefix| destination.starts_with(prefix))
    }

    fn subscribe(&mut self, key: Key, destination: &str, desk: &mut Desk<'_>) {
        match destination {
            "/alarm" | "/alarms" => self.alarms.push(key),
            "/user/service" => self.service.push(key),
            _ => self.listen(key, destination.to_owned(), desk),
        }
    }

    fn unsubscribe(&mut self, key: Key) {
        self.alarms.retain(|other| *other != key);
        self.service.retain(|other| *other != key);
        self.streams.retain(|stream| stream.key != key);
        self.waiting.retain(|(waiting, _)| *waiting != key);
    }

    fn send(&mut self, destination: &str, body: &Bytes, desk: &mut Desk<'_>) {
        let (Some(path), Some(client)) = (destination.strip_prefix("/app"), self.client.clone()) else {
            debug!(destination, "message to a destination that takes none");
            return;
        };
        let text = String::from_utf8_lossy(body);
        let Some(request) = lenient::parse(&text).ok().filter(Json::is_object) else {
            return self.answer_call(&Json::Null, &Reply::bad_request(), desk);
        };
        let request_id = request.get("requestId").cloned();
        let payload = request.get("payload").unwrap_or(&Json::Null);
        let context = Arc::clone(&self.context);
        let caller = Caller { context: &context, client: &client, dates: wire::Dates::Text, now: desk.now() };
        match api::call(path, payload, caller) {
            // The vendor's server says nothing to a destination that nobody serves; one that shows that it waits
            // for an answer gets one.
            Call::Done(reply) if reply.status == 404 && request_id.is_none() => {
                debug!(destination, "call of something unknown");
            }
            call @ (Call::Done(_) | Call::Ask(..)) => self.step(call, request_id.unwrap_or_default(), desk),
        }
    }

    fn interests(&self) -> Vec<Interest> {
        let mut interests = Vec::new();
        if !self.alarms.is_empty() {
            interests.push(Interest { selector: Selector::All, kinds: Kinds::ALARM });
        }
        for stream in self.streams.iter().filter(|stream| stream.is_told()) {
            let selector = Selector::Device(Arc::clone(&stream.device.id));
            let interest = Interest { selector, kinds: Kinds::PROPERTIES };
            if !interests.contains(&interest) {
                interests.push(interest);
            }
        }
        interests
    }

    fn message(&mut self, message: &Arc<DeviceMessage>, desk: &mut Desk<'_>) {
        if message.kind().meets(Kinds::ALARM) {
            let directory = &self.context.directory;
            for key in &self.alarms {
                let body = message.form(Form::OAM_ALARM, |message| {
                    wire::alarm_message(message, directory).unwrap_or_default()
                });
                desk.message(*key, &body);
            }
        }
        let now = desk.now().instant;
        for stream in &mut self.streams {
            if let Some(batch) = stream.take(message, &self.context.settings.oam, now) {
                desk.message(stream.key, &batch);
            }
        }
    }

    fn answer(&mut self, token: Token, answer: Answer, desk: &mut Desk<'_>) {
        if self.learn(token, &answer, desk) || self.sample(token, &answer, desk) {
            return;
        }
        let Some(at) = self.pending.iter().position(|(asked, _, _)| *asked == token) else { return };
        let (_, request_id, pending) = self.pending.swap_remove(at);
        let Some(client) = self.client.clone() else { return };
        let changed = matches!(answer, Answer::Documents(DocumentAnswer::Put(_)));
        let context = Arc::clone(&self.context);
        let caller = Caller { context: &context, client: &client, dates: wire::Dates::Text, now: desk.now() };
        let call = pending.advance(answer, caller);
        self.step(call, request_id, desk);
        // Whoever changes the registry is not told that it has changed.
        if changed {
            self.documents_changed(COLLECTION, desk);
        }
    }

    fn documents_changed(&mut self, collection: &str, desk: &mut Desk<'_>) {
        if collection != COLLECTION {
            return;
        }
        if self.streams.is_empty() {
            // It is read again when somebody needs it.
            if !matches!(self.reading, Reading::Asked { .. }) {
                self.reading = Reading::Never;
                return;
            }
        }
        self.read_registry(desk);
    }

    fn timeout(&self) -> Option<Instant> {
        self.streams.iter().filter_map(Stream::timeout).chain(self.next_sample()).min()
    }

    fn handle_timeout(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now().instant;
        for stream in &mut self.streams {
            if let Some(batch) = stream.due(now) {
                desk.message(stream.key, &batch);
            }
        }
        if self.next_sample().is_some_and(|due| due <= now) {
            self.begin_sampling(desk);
        }
    }
}

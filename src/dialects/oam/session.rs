//! WCS OAM on a STOMP connection: alarms, live samples, and calls with their answers on `/user/service`.
//!
//! An answer goes to every subscription of `/user/service` on the connection that asked, and nowhere when there is
//! none, as with the vendor's server. A call never ends the connection: what is wrong with it is said in its answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value as Json;
use tracing::debug;

use super::api::{self, Call, Pending, Reply};
use super::stream::Stream;
use super::{catalogue, wire};
use crate::dialects::shared::credentials::Credentials;
use crate::dialects::shared::lenient;
use crate::dialects::shared::stomp::{App, Desk};
use crate::dialects::{Context, Token};
use crate::model::client::{Client, Dialect};
use crate::model::interest::{Interest, Selector};
use crate::model::message::{DeviceMessage, Form, Kinds};
use crate::model::snapshot::Answer;
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
    /// Calls that wait for the hub, with their requestId. The endpoint bounds how many.
    pending: Vec<(Token, Json, Pending)>,
}

impl Monitor {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            client: None,
            alarms: Vec::new(),
            service: Vec::new(),
            streams: Vec::new(),
            pending: Vec::new(),
        }
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

    fn reconfigure(&mut self, context: &Arc<Context>) {
        self.context = Arc::clone(context);
    }

    fn claims(&self, destination: &str) -> bool {
        matches!(destination, "/alarm" | "/alarms" | "/user/service")
            || ["/app/", "/stream/"].iter().any(|prefix| destination.starts_with(prefix))
    }

    fn subscribe(&mut self, key: Key, destination: &str, _desk: &mut Desk<'_>) {
        match destination {
            "/alarm" | "/alarms" => self.alarms.push(key),
            "/user/service" => self.service.push(key),
            _ => {
                let names = destination.strip_prefix("/stream/").and_then(|rest| rest.split_once('/'));
                let device = names.zip(self.client.as_ref()).and_then(|((node, media), client)| {
                    catalogue::stream(&self.context.directory, client, node, media)
                });
                if let Some(device) = device {
                    self.streams.push(Stream::new(key, Arc::clone(device)));
                } else {
                    debug!(destination, "subscription to a stream that this client does not see");
                }
            }
        }
    }

    fn unsubscribe(&mut self, key: Key) {
        self.alarms.retain(|other| *other != key);
        self.service.retain(|other| *other != key);
        self.streams.retain(|stream| stream.key != key);
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
        match api::call(path, payload, &self.context, &client) {
            // The vendor's server says nothing to a destination that nobody serves; one that shows that it waits
            // for an answer gets one.
            Call::Done(reply) if reply.status == 404 && request_id.is_none() => {
                debug!(destination, "call of something unknown");
            }
            Call::Done(reply) => self.answer_call(&request_id.unwrap_or_default(), &reply, desk),
            Call::Ask(question, pending) => {
                let token = desk.ask(&client, question);
                self.pending.push((token, request_id.unwrap_or_default(), pending));
            }
        }
    }

    fn interests(&self) -> Vec<Interest> {
        let mut interests = Vec::new();
        if !self.alarms.is_empty() {
            interests.push(Interest { selector: Selector::All, kinds: Kinds::ALARM });
        }
        for stream in &self.streams {
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
        let Some(at) = self.pending.iter().position(|(asked, _, _)| *asked == token) else { return };
        let (_, request_id, pending) = self.pending.swap_remove(at);
        let (Answer::Snapshot(snapshot), Some(client)) = (answer, &self.client) else { return };
        let reply = api::finish(&pending, &snapshot, &self.context, client, desk.now());
        self.answer_call(&request_id, &reply, desk);
    }

    fn timeout(&self) -> Option<Instant> {
        self.streams.iter().filter_map(Stream::timeout).min()
    }

    fn handle_timeout(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now().instant;
        for stream in &mut self.streams {
            if let Some(batch) = stream.due(now) {
                desk.message(stream.key, &batch);
            }
        }
    }
}

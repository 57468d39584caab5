//! Janus on a STOMP connection: property reports of single devices, by uuid.
//!
//! Nothing is asked of the device and nothing is written: what a client sends to a topic is received and dropped,
//! as the vendor's server does.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use super::ticket::Ticket;
use super::wire;
use crate::dialects::shared::credentials::Credentials;
use crate::dialects::shared::stomp::{App, Desk};
use crate::dialects::{Context, Token};
use crate::model::client::{Client, Dialect};
use crate::model::device::Device;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Form, Kinds};
use crate::model::snapshot::Answer;
use crate::model::time::Now;
use crate::proto::stomp::Key;

/// What stands before the uuid in a topic: of the WebSocket service, and of the `SockJS` service.
pub(super) const TOPICS: [&str; 2] = ["/websocket/deviceData/", "/ws/deviceData/"];

/// What one client hears.
#[derive(Debug)]
pub(super) struct Telemetry {
    context: Arc<Context>,
    client: Option<Arc<Client>>,
    /// The only device that a ticket opens.
    only: Option<String>,
    subscriptions: Vec<Subscription>,
}

/// A topic that the client hears, and the device behind it. A topic of no device is kept, because a change of the
/// configuration may bring one; the protocol bounds how many there are and how long.
#[derive(Debug)]
struct Subscription {
    key: Key,
    topic: String,
    device: Option<Arc<Device>>,
}

impl Telemetry {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, client: None, only: None, subscriptions: Vec::new() }
    }

    /// The device behind a topic, if this client may hear of it. On an endpoint that it shares, a session goes on when a
    /// reload switches this dialect off.
    fn device(&self, destination: &str) -> Option<Arc<Device>> {
        if !self.context.settings.janus.common.enabled {
            return None;
        }
        let uuid = TOPICS.iter().find_map(|topic| destination.strip_prefix(topic))?;
        let device = self.context.directory.by_uuid(uuid)?;
        let opened = self.only.as_ref().is_none_or(|only| only == uuid);
        let seen = self.client.as_ref().is_some_and(|client| client.sees(device));
        (opened && seen).then(|| Arc::clone(device))
    }
}

impl App for Telemetry {
    fn admit(&mut self, credentials: &Credentials, now: Now) -> Option<Arc<Client>> {
        let context = &self.context;
        let find = |id: &str| context.clients.by_id(Dialect::Janus, id).map(Arc::clone);
        let open = |text| Ticket::open(text, &context.seal, now.instant, find);
        self.client = match credentials.ticket.as_deref().and_then(open) {
            Some((ticket, client)) => {
                self.only = Some(ticket.uuid);
                Some(client)
            }
            // A ticket that is no longer good is a wrong credential, not the lack of one.
            None if credentials.ticket.is_some() && credentials.tokens.is_empty() => None,
            None => credentials.admit(context, Dialect::Janus, &context.settings.janus.common),
        };
        self.client.clone()
    }

    fn reconfigure(&mut self, context: &Arc<Context>, _desk: &mut Desk<'_>) {
        self.context = Arc::clone(context);
        let mut subscriptions = std::mem::take(&mut self.subscriptions);
        for subscription in &mut subscriptions {
            subscription.device = self.device(&subscription.topic);
        }
        self.subscriptions = subscriptions;
    }

    fn claims(&self, destination: &str) -> bool {
        TOPICS.iter().any(|topic| destination.starts_with(topic))
    }

    fn subscribe(&mut self, key: Key, destination: &str, _desk: &mut Desk<'_>) {
        let device = self.device(destination);
        if device.is_none() {
            debug!(destination, "subscription to a device that this client does not see");
        }
        self.subscriptions.push(Subscription { key, topic: destination.to_owned(), device });
    }

    fn unsubscribe(&mut self, key: Key) {
        self.subscriptions.retain(|subscription| subscription.key != key);
    }

    fn send(&mut self, destination: &str, body: &Bytes, _desk: &mut Desk<'_>) {
        debug!(destination, octets = body.len(), "message to a telemetry topic");
    }

    fn interests(&self) -> Vec<Interest> {
        let mut interests: Vec<Interest> = Vec::new();
        for device in self.subscriptions.iter().filter_map(|subscription| subscription.device.as_ref()) {
            let selector = Selector::Device(Arc::clone(&device.id));
            let interest = Interest { selector, kinds: Kinds::PROPERTIES };
            if !interests.contains(&interest) {
                interests.push(interest);
            }
        }
        interests
    }

    fn message(&mut self, message: &Arc<DeviceMessage>, desk: &mut Desk<'_>) {
        let Body::Properties(reports) = &message.body else { return };
        let context = &self.context;
        let (zone, form) = (&context.gateway.timezone, context.settings.janus.time);
        let about = |device: &Arc<Device>| device.id == message.device.id;
        for subscription in self.subscriptions.iter().filter(|each| each.device.as_ref().is_some_and(about)) {
            // An empty form is a message without a good value.
            let body = message
                .form(Form::JANUS, |message| wire::sample(message, reports, zone, form).unwrap_or_default());
            if !body.is_empty() {
                desk.message(subscription.key, &body);
            }
        }
    }

    fn answer(&mut self, _token: Token, _answer: Answer, _desk: &mut Desk<'_>) {}

    fn timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _desk: &mut Desk<'_>) {}
}

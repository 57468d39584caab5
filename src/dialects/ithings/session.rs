//! The conversation on one socket: a greeting, then requests answered one by one, and pushes in between.
//!
//! Promises: a request is answered before the first push that it brings; however many subscriptions admit a message,
//! it is pushed once under each code; no text closes the socket.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::push;
use super::request;
use super::subscription::{Subject, Subscription, Wanted};
use super::wire;
use crate::dialects::{self, Context, Input, Output};
use crate::model::client::Client;
use crate::model::message::{DeviceMessage, Form};
use crate::model::time::Now;
use crate::text::{self, Text};

/// Subscriptions of one socket. A further one is refused.
const SUBSCRIPTIONS: usize = 256;

/// Characters of an unknown code that are logged.
const CODE_SHOWN: usize = 64;

/// The last connect number. Clients quote it to find their connection in a log; it counts from 1 in every run of
/// the process, as in the real server, and means nothing to the session itself.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// One socket.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<Context>,
    client: Arc<Client>,
    connect_id: u64,
    trace: String,
    output: VecDeque<Output>,
    subscriptions: Vec<Subscription>,
    unknown_noted: bool,
}

impl dialects::Session for Session {
    fn handle(&mut self, input: Input, _now: Now) {
        match input {
            Input::Open => self.send(wire::greeting(&self.trace, &self.connect_id.to_string())),
            Input::Text(text) => self.frame(&text),
            Input::Binary(bytes) => self.frame(&String::from_utf8_lossy(&bytes)),
            Input::Message(message) => self.message(&message),
            Input::Reconfigured(context) => self.context = context,
            // Lost reports are followed by the newest values, and the real server says no goodbye.
            Input::Accepted(_)
            | Input::Outcome(..)
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Timeout
            | Input::Closing(_) => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    fn client(&self) -> Option<&Arc<Client>> {
        Some(&self.client)
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }
}

impl Session {
    /// A socket of this client.
    pub(super) fn new(context: Arc<Context>, client: Arc<Client>, now: Now) -> Self {
        let connect_id = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
        let trace = trace(&context, connect_id, now);
        tracing::debug!(connect_id, trace, client = %client.id, "iThings client greeted");
        Self {
            context,
            client,
            connect_id,
            trace,
            output: VecDeque::new(),
            subscriptions: Vec::new(),
            unknown_noted: false,
        }
    }

    fn send(&mut self, text: impl Into<Text>) {
        self.output.push_back(Output::Send(text.into()));
    }

    fn frame(&mut self, text: &str) {
        let request = match request::read(text) {
            Ok(request) => request,
            Err(bad) => {
                return self.send(wire::error(&bad.fault, bad.kind.as_deref(), bad.path.as_deref()));
            }
        };
        let done = match request.kind.as_str() {
            "up.sub" => self.subscribe(request.body.as_ref()).map(|changed| Some(("down.subRet", changed))),
            "up.unSub" => {
                self.unsubscribe(request.body.as_ref()).map(|changed| Some(("down.unSubRet", changed)))
            }
            "up.ping" => Ok(Some(("down.pong", false))),
            // Calls over the socket were only ever checked by the real server, never carried out.
            "up.control" if request.path.is_none() || request.method.is_none() || request.body.is_none() => {
                Err(Fault::PARAMETER.fault())
            }
            "down.pub" => Err(Fault::NOT_IMPLEMENTED.fault()),
            // Headers set by `up.setHandle` decide nothing here; an unknown type is not answered.
            _ => Ok(None),
        };
        match done {
            Ok(Some((kind, changed))) => {
                self.send(wire::done(kind));
                if changed {
                    self.watch();
                }
            }
            Ok(None) => {}
            Err(fault) => self.send(wire::error(&fault, Some(&request.kind), request.path.as_deref())),
        }
    }

    /// Whether that changed anything.
    fn subscribe(&mut self, body: Option<&serde_json::Value>) -> Result<bool, Fault> {
        let subscription = match Subscription::read(body)? {
            Wanted::Known(subscription) => subscription,
            Wanted::Unknown(code) => {
                self.note_unknown(&code);
                return Ok(false);
            }
        };
        subscription.permit(&self.client, &self.context.directory)?;
        if self.subscriptions.contains(&subscription) {
            return Ok(false);
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS {
            return Err(Fault::LIMIT.fault());
        }
        self.subscriptions.push(subscription);
        Ok(true)
    }

    /// Says once for each connection that a client waits for something that never comes.
    fn note_unknown(&mut self, code: &str) {
        if !std::mem::replace(&mut self.unknown_noted, true) {
            let (connect_id, client) = (self.connect_id, &self.client.id);
            let code: String = code.chars().take(CODE_SHOWN).collect();
            tracing::info!(connect_id, %client, code, "iThings subscription accepted that no message feeds");
        }
    }

    /// Ends a subscription with the same parameters. One that was never there, or that names nothing, is ended too.
    fn unsubscribe(&mut self, body: Option<&serde_json::Value>) -> Result<bool, Fault> {
        let Wanted::Known(subscription) = Subscription::read(body)? else { return Ok(false) };
        let before = self.subscriptions.len();
        self.subscriptions.retain(|held| *held != subscription);
        Ok(self.subscriptions.len() != before)
    }

    fn watch(&mut self) {
        let interests = self.subscriptions.iter().map(Subscription::interest).collect();
        self.output.push_back(Output::Watch { client: Arc::clone(&self.client), interests });
    }

    fn message(&mut self, message: &DeviceMessage) {
        let Some(subject) = push::subject(message) else { return };
        if subject == Subject::PropertyV2 {
            return self.report(message);
        }
        let wants =
            |identifier: Option<&str>| identifier.is_none() || identifier == push::identifier(message);
        if self.admitted(subject, message).any(wants) {
            let form = self.context.settings.ithings.push;
            self.send(message.form(Form::ITHINGS, |message| push::whole(message, form)));
        }
    }

    /// A report is pushed property by property under one code and whole under the other.
    fn report(&mut self, message: &DeviceMessage) {
        if push::readings(message).next().is_none() {
            return;
        }
        let form = self.context.settings.ithings.push;
        let wanted = Identifiers::of(self.admitted(Subject::Property, message));
        let mut sends = Vec::new();
        if wanted.some() {
            let lines = message.form(Form::ITHINGS_EACH, |message| push::lines(message, form));
            let admitted = push::readings(message).map(|report| wanted.admit(&report.id));
            sends.extend(
                text::lines(&lines)
                    .into_iter()
                    .zip(admitted)
                    .filter(|(_, admit)| *admit)
                    .map(|(line, _)| line),
            );
        }
        let wanted = Identifiers::of(self.admitted(Subject::PropertyV2, message));
        if wanted.all {
            sends.push(message.form(Form::ITHINGS, |message| push::whole(message, form)));
        } else if push::readings(message).any(|report| wanted.admit(&report.id)) {
            sends.push(push::report(message, form, |id| wanted.admit(id)).into());
        }
        self.output.extend(sends.into_iter().map(Output::Send));
    }

    /// The identifiers that the subscriptions to a subject admit for a message's device.
    fn admitted<'a>(
        &'a self,
        subject: Subject,
        message: &'a DeviceMessage,
    ) -> impl Iterator<Item = Option<&'a str>> {
        let about = move |held: &&Subscription| held.is_about(subject, &message.device);
        self.subscriptions.iter().filter(about).map(Subscription::identifier)
    }
}

/// What several subscriptions admit together.
#[derive(Debug, Default)]
struct Identifiers<'a> {
    all: bool,
    named: BTreeSet<&'a str>,
}

impl<'a> Identifiers<'a> {
    fn of(admitted: impl Iterator<Item = Option<&'a str>>) -> Self {
        admitted.fold(Self::default(), |mut found, identifier| {
            match identifier {
                Some(identifier) => found.named.extend([identifier]),
                None => found.all = true,
            }
            found
        })
    }

    fn some(&self) -> bool {
        self.all || !self.named.is_empty()
    }

    fn admit(&self, identifier: &str) -> bool {
        self.all || self.named.contains(identifier)
    }
}

/// 32 hex digits that name a connection over all runs of the process; the number alone does not.
fn trace(context: &Context, connect_id: u64, now: Now) -> String {
    let mut hash = Sha256::new();
    hash.update(context.seal.key);
    hash.update(connect_id.to_be_bytes());
    hash.update(now.wall.0.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk().map(|half| format!("{:032x}", u128::from_be_bytes(*half))).unwrap_or_default()
}

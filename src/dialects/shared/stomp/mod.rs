//! The STOMP endpoint: one WebSocket session that hosts the applications of the STOMP dialects.
//!
//! It owns the protocol, who the client is, and which application a subscription belongs to. An [`App`] owns what
//! its destinations mean. A destination that no application claims is accepted and never delivers, as with the
//! servers that the clients were made for.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use super::credentials::Credentials;
use crate::dialects::{Closing, Context, Input, Opening, Output, Request, Response, Session, Token, Upgrade};
use crate::model::client::Client;
use crate::model::interest::Interest;
use crate::model::message::DeviceMessage;
use crate::model::snapshot::{Answer, Question};
use crate::model::time::Now;
use crate::proto::stomp::heartbeat::Offer;
use crate::proto::stomp::session::close;
use crate::proto::stomp::{self, Frame, Key};

/// Bodies of both dialects, as Spring writes their content type.
pub const JSON: &str = "application/json;charset=UTF-8";

/// What `server` says in CONNECTED.
const SERVER: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Octets given for sending in one go, above which the session rests until they are written. A client that sends
/// many requests in one message so fills no queue with answers and keeps no other client waiting.
const BURST: usize = 256 * 1024;

/// What a message of the client counts for in a burst: looking for the answer takes time even where it is short.
const BURST_PER_MESSAGE: usize = 4 * 1024;

/// Questions to the hub under way, above which no further frame is looked at.
const QUESTIONS: usize = 16;

/// How many full frames may wait to be looked at. A client that sends more and does not read the answers is cut.
const BACKLOG: usize = 4;

/// Applications that one endpoint can host: a token tells by its lowest digit whose it is.
const APPS: u64 = 8;

/// What an endpoint puts up with or asks for beyond the protocol, off unless it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// A body may be longer than its `content-length`.
    pub lenient_content_length: bool,
    /// A frame may lack its NUL, as those of React Native do.
    pub frames_without_nul: bool,
    /// The interval at which clients are asked for heart-beats.
    pub client_heart_beat: Option<Duration>,
}

/// One dialect's share of a STOMP connection.
pub trait App: Debug + Send {
    /// Who the client is here, if it may come in. Called once, before anything else.
    fn admit(&mut self, credentials: &Credentials, now: Now) -> Option<Arc<Client>>;

    /// The configuration has changed: devices may have come, gone and changed under the subscriptions.
    fn reconfigure(&mut self, context: &Arc<Context>, desk: &mut Desk<'_>);

    /// Whether subscriptions to this destination, and messages sent there, are this application's.
    fn claims(&self, destination: &str) -> bool;

    /// A subscription begins.
    fn subscribe(&mut self, key: Key, destination: &str, desk: &mut Desk<'_>);

    /// A subscription has ended.
    fn unsubscribe(&mut self, key: Key);

    /// The client sends a message.
    fn send(&mut self, destination: &str, body: &Bytes, desk: &mut Desk<'_>);

    /// What the application wants to hear of devices now; looked at after each subscription, its end, and each answer.
    fn interests(&self) -> Vec<Interest>;

    /// A device message that some application on this connection wants to hear.
    fn message(&mut self, message: &Arc<DeviceMessage>, desk: &mut Desk<'_>);

    /// The hub answers a question of this application.
    fn answer(&mut self, token: Token, answer: Answer, desk: &mut Desk<'_>);

    /// Somebody else changed a document of this collection, which some application on this connection has asked about.
    fn documents_changed(&mut self, _collection: &str, _desk: &mut Desk<'_>) {}

    /// When to call [`App::handle_timeout`].
    fn timeout(&self) -> Option<Instant>;

    /// The time has come.
    fn handle_timeout(&mut self, desk: &mut Desk<'_>);
}

/// Answers a request for a path that is a STOMP endpoint, with the applications that stand behind it.
pub fn open(
    request: &Request,
    context: &Arc<Context>,
    tolerance: Tolerance,
    now: Now,
    apps: impl FnOnce() -> Vec<Box<dyn App>>,
) -> Opening {
    if request.method != "GET" {
        return Opening::Respond(Response::text(405, "only GET\n").with("allow", "GET"));
    }
    if !request.upgrade {
        return Opening::Respond(Response::text(400, "this address speaks STOMP over WebSocket\n"));
    }
    let session = session(request, context, tolerance, now, apps());
    Opening::Upgrade(Upgrade { session, subprotocol: subprotocol(request) })
}

/// The session of a client that shows what this request carries.
pub fn session(
    request: &Request,
    context: &Arc<Context>,
    tolerance: Tolerance,
    now: Now,
    apps: Vec<Box<dyn App>>,
) -> Box<dyn Session> {
    Box::new(Endpoint::new(Credentials::of(request), context, tolerance, apps, now))
}

/// The first offered subprotocol that is STOMP, as the client wrote it. It does not bind the version: `stomp.js`
/// offers `v10.stomp` first and then connects with 1.1.
pub fn subprotocol(request: &Request) -> Option<String> {
    let known = |offer: &&str| {
        ["v10.stomp", "v11.stomp", "v12.stomp"].iter().any(|name| name.eq_ignore_ascii_case(offer))
    };
    request.subprotocols().into_iter().find(known).map(str::to_owned)
}

/// What an application can do on its connection.
#[derive(Debug)]
pub struct Desk<'a> {
    core: &'a mut Core,
    app: usize,
}

impl Desk<'_> {
    /// The time.
    pub fn now(&self) -> Now {
        self.core.now
    }

    /// Sends a JSON body to a subscription.
    pub fn message(&mut self, key: Key, body: &str) {
        self.core.stomp.message(key, JSON, body);
    }

    /// Asks the hub; the answer comes with the same token.
    pub fn ask(&mut self, client: &Arc<Client>, question: Question) -> Token {
        let app = u64::try_from(self.app).unwrap_or(0);
        let token = Token(self.core.next_token * APPS + app);
        self.core.next_token += 1;
        self.core.questions += 1;
        let client = Arc::clone(client);
        self.core.queue.push_back(Output::Ask { token, client, question });
        token
    }
}

/// A STOMP connection and its applications.
#[derive(Debug)]
struct Endpoint {
    core: Core,
    apps: Vec<Hosted>,
    credentials: Credentials,
    client: Option<Arc<Client>>,
    /// Whose subscription it is, for the claimed ones; keys rise.
    owners: Vec<(Key, usize)>,
    watched: Vec<Interest>,
    /// See [`BACKLOG`], in octets.
    backlog: usize,
    /// Octets given since the last input, and what counts like them.
    burst: usize,
}

/// What applications reach through their desk.
#[derive(Debug)]
struct Core {
    stomp: stomp::Session,
    /// Wishes to the hub, which go out before what STOMP has to send: so a RECEIPT follows the subscription.
    queue: VecDeque<Output>,
    next_token: u64,
    questions: usize,
    now: Now,
}

#[derive(Debug)]
struct Hosted {
    app: Box<dyn App>,
    admitted: bool,
}

/// Numbers sessions, so that message ids of different connections differ.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl Endpoint {
    fn new(
        credentials: Credentials,
        context: &Context,
        tolerance: Tolerance,
        apps: Vec<Box<dyn App>>,
        now: Now,
    ) -> Self {
        let wants = |every: Duration| u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        let settings = stomp::Settings {
            number: SESSIONS.fetch_add(1, Ordering::Relaxed),
            server: SERVER,
            frame_bytes: context.frame_bytes,
            heart_beat: Offer { wants: tolerance.client_heart_beat.map_or(0, wants), ..Offer::default() },
            lenient_content_length: tolerance.lenient_content_length,
            frames_without_nul: tolerance.frames_without_nul,
        };
        let core = Core {
            stomp: stomp::Session::new(settings, now.instant),
            queue: VecDeque::new(),
            next_token: 0,
            questions: 0,
            now,
        };
        Self {
            core,
            apps: apps.into_iter().map(|app| Hosted { app, admitted: false }).collect(),
            credentials,
            client: None,
            owners: Vec::new(),
            watched: Vec::new(),
            backlog: context.frame_bytes.saturating_mul(BACKLOG),
            burst: 0,
        }
    }

    fn receive(&mut self, octets: &[u8]) {
        self.core.stomp.receive(octets, self.core.now.instant);
        if self.core.stomp.backlog() > self.backlog {
            self.core.stomp.end(Some("Too fast"), close::TRY_AGAIN, "answers are not read fast enough");
        }
    }

    /// Lets the client in where its credentials open an application. All of them see the same client, because the
    /// hub filters by one: an application that takes it for somebody else stays closed. Anonymous clients of two
    /// dialects share a name; each application then holds its own filter against a subscription, and the hub that of
    /// the first.
    fn connect(&mut self, frame: &Frame) {
        let mut credentials = self.credentials.clone();
        let passcode = frame.header("passcode").unwrap_or_default();
        let padded = Some(passcode.trim()).filter(|bare| *bare != passcode);
        let given = [Some(passcode), padded].into_iter().flatten().filter(|passcode| !passcode.is_empty());
        credentials.tokens.splice(0..0, given.map(str::to_owned));
        let now = self.core.now;
        if credentials.logins.blocked(credentials.peer, now.instant).is_some() {
            return self.core.stomp.refuse("Too many failed logins");
        }
        for hosted in &mut self.apps {
            let Some(client) = hosted.app.admit(&credentials, self.core.now) else { continue };
            let known = self.client.get_or_insert_with(|| Arc::clone(&client));
            hosted.admitted = known.id == client.id;
        }
        if let Some(client) = &self.client {
            debug!(client = &*client.id, "STOMP client connected");
            self.core.stomp.accept(self.core.now.instant);
        } else {
            debug!(?credentials, "STOMP client refused");
            credentials.refused("stomp", now);
            self.core.stomp.refuse("Access refused");
        }
    }

    /// The application that a destination belongs to.
    fn owner(&self, destination: &str) -> Option<usize> {
        self.apps.iter().position(|hosted| hosted.admitted && hosted.app.claims(destination))
    }

    fn on_app(&mut self, at: usize, act: impl FnOnce(&mut dyn App, &mut Desk<'_>)) {
        if let Some(hosted) = self.apps.get_mut(at) {
            act(hosted.app.as_mut(), &mut Desk { core: &mut self.core, app: at });
        }
    }

    /// People who write frames by hand pad the values, and no destination has a space at its ends; the messages of the
    /// subscription name it as the client does.
    fn subscribe(&mut self, key: Key, destination: &str) {
        let destination = destination.trim();
        let Some(owner) = self.owner(destination) else {
            debug!(destination, "subscription to a destination that nothing is sent to");
            return;
        };
        self.owners.push((key, owner));
        self.on_app(owner, |app, desk| app.subscribe(key, destination, desk));
        self.watch();
    }

    fn unsubscribe(&mut self, key: Key) {
        let Ok(at) = self.owners.binary_search_by_key(&key, |(key, _)| *key) else { return };
        let (_, owner) = self.owners.remove(at);
        self.on_app(owner, |app, _| app.unsubscribe(key));
        self.watch();
    }

    fn send(&mut self, destination: &str, body: &Bytes) {
        let destination = destination.trim();
        if let Some(owner) = self.owner(destination) {
            self.on_app(owner, |app, desk| app.send(destination, body, desk));
        } else {
            debug!(destination, "message to a destination that nobody serves");
        }
    }

    /// Tells the hub what all applications together want, when that has changed.
    fn watch(&mut self) {
        let Some(client) = &self.client else { return };
        let interests: Vec<Interest> = self
            .apps
            .iter()
            .filter(|hosted| hosted.admitted)
            .flat_map(|hosted| hosted.app.interests())
            .collect();
        if interests != self.watched {
            self.watched.clone_from(&interests);
            self.core.queue.push_back(Output::Watch { client: Arc::clone(client), interests });
        }
    }

    fn on_every_app(&mut self, act: impl Fn(&mut dyn App, &mut Desk<'_>)) {
        for (at, hosted) in self.apps.iter_mut().enumerate() {
            if hosted.admitted {
                act(hosted.app.as_mut(), &mut Desk { core: &mut self.core, app: at });
            }
        }
    }

    fn close(&mut self, closing: Closing) {
        let (code, reason) = match closing {
            Closing::Shutdown => (close::GOING_AWAY, "the gateway stops"),
            Closing::TooSlow => (close::TRY_AGAIN, "messages are not read fast enough"),
            Closing::Silent => (close::GOING_AWAY, "nothing was heard for too long"),
            Closing::Dismissed => (close::POLICY, "the credential is not valid any more"),
        };
        let error = (closing == Closing::Dismissed).then_some("Access refused");
        self.core.stomp.end(error, code, reason);
    }
}

impl Session for Endpoint {
    fn handle(&mut self, input: Input, now: Now) {
        self.core.now = now;
        self.burst = 0;
        match input {
            Input::Open | Input::Accepted(_) | Input::Outcome(..) | Input::GroupEmpty => {}
            Input::DocumentsChanged(collection) => {
                self.on_every_app(|app, desk| app.documents_changed(&collection, desk));
            }
            Input::Text(text) => self.receive(text.as_bytes()),
            Input::Binary(octets) => self.receive(&octets),
            Input::Message(message) => self.on_every_app(|app, desk| app.message(&message, desk)),
            Input::Answer(token, answer) => {
                self.core.questions = self.core.questions.saturating_sub(1);
                let owner = usize::try_from(token.0 % APPS).unwrap_or(0);
                self.on_app(owner, |app, desk| app.answer(token, answer, desk));
                self.watch();
            }
            // The newest values follow by themselves, and these dialects have no word for what was missed.
            Input::Lagged(missed) => debug!(missed, "the client reads too slowly"),
            Input::Reconfigured(context) => {
                for (at, hosted) in self.apps.iter_mut().enumerate() {
                    hosted.app.reconfigure(&context, &mut Desk { core: &mut self.core, app: at });
                }
                self.watch();
            }
            Input::Timeout => {
                self.core.stomp.handle_timeout(now.instant);
                self.on_every_app(|app, desk| {
                    if app.timeout().is_some_and(|timeout| timeout <= now.instant) {
                        app.handle_timeout(desk);
                    }
                });
            }
            Input::Closing(closing) => self.close(closing),
        }
    }

    fn known(&self) -> bool {
        self.client.is_some()
    }

    fn poll(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.core.queue.pop_front() {
                return Some(output);
            }
            if self.burst >= BURST {
                return None;
            }
            let now = self.core.now.instant;
            let output = if self.core.questions < QUESTIONS {
                self.core.stomp.poll(now)?
            } else {
                self.core.stomp.poll_known(now)?
            };
            match output {
                stomp::Output::Connect(frame) => self.connect(&frame),
                stomp::Output::Subscribe(key, destination) => self.subscribe(key, &destination),
                stomp::Output::Unsubscribe(key) => self.unsubscribe(key),
                stomp::Output::Send(destination, body) => {
                    self.burst += BURST_PER_MESSAGE;
                    self.send(&destination, &body);
                }
                stomp::Output::Transmit(text) => {
                    self.burst += text.len();
                    return Some(Output::Send(text.into()));
                }
                stomp::Output::Close(code, reason) => {
                    return Some(Output::Close { code, reason: reason.to_owned() });
                }
            }
        }
    }

    fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    fn timeout(&self) -> Option<Instant> {
        if self.burst >= BURST {
            return Some(self.core.now.instant);
        }
        let apps =
            self.apps.iter().filter(|hosted| hosted.admitted).filter_map(|hosted| hosted.app.timeout());
        apps.chain(self.core.stomp.timeout()).min()
    }
}

#[cfg(test)]
pub(in crate::dialects) mod rig;
#[cfg(test)]
mod tests;

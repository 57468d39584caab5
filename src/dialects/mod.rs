//! Dialects: what the five kinds of client speak, as pure state machines.
//!
//! A [`Session`] is one client's connection or one HTTP call. It is fed [`Input`]s and drained of [`Output`]s; it
//! knows no socket, no task and no clock. The invariant that its driver keeps: after every `handle`, call `poll`
//! until it returns `None` before waiting or handling anything else. Input that makes no sense is answered by the
//! dialect's own error (and a close where the real server closes); it never panics.
//!
//! One folder per dialect, all laid out alike: `mod.rs` (entry: which requests are ours, settings), `wire.rs` (the
//! JSON bodies), `session.rs` (the conversation). No dialect imports another; what they share stands in this file
//! and in `shared/`.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::model::client::{Anonymous, Client, ClientBook, Dialect};
use crate::model::command::{Command, Outcome};
use crate::model::device::Gateway;
use crate::model::directory::Directory;
use crate::model::interest::Interest;
use crate::model::message::DeviceMessage;
use crate::model::snapshot::{Answer, Question};
use crate::model::time::Now;
use crate::proto::sockjs::Form;
use crate::text::Text;
use shared::logins::Logins;

pub mod endpoints;
pub mod ithings;
pub mod janus;
pub mod oam;
pub mod sagoo;
pub mod shared;
pub mod uplus;

/// Commands that one session may have under way. Its driver answers a further one with [`Outcome::Busy`].
pub const COMMANDS_IN_FLIGHT: usize = 256;

/// One client's connection, or one HTTP call, as a state machine.
pub trait Session: Debug + Send {
    /// Takes one thing that happened.
    fn handle(&mut self, input: Input, now: Now);

    /// Gives the next thing to do.
    fn poll(&mut self) -> Option<Output>;

    /// Whether it is known who the client is. Before, its connection may hold only a small message.
    fn known(&self) -> bool {
        true
    }

    /// When to call `handle` with [`Input::Timeout`] if nothing else happens before.
    fn timeout(&self) -> Option<Instant>;

    /// Whose session it is, once that is known. When this client is removed or changed the session is closed.
    fn client(&self) -> Option<&Arc<Client>> {
        None
    }

    /// How many of the messages that were handed to it last it still holds back. They count as not delivered: a
    /// balanced group gives them to another session if this one ends.
    fn holding(&self) -> usize {
        0
    }

    /// Whether each message has to be written before the next one is taken in: where a client stops reading in the middle of
    /// many that were written at once, nobody knows which ones it has, and somebody else is given them again.
    fn one_by_one(&self) -> bool {
        false
    }
}

/// A number by which a session recognises the answer to what it asked; chosen by the session, unique among those
/// that it has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What can happen to a session.
#[derive(Clone, Debug)]
pub enum Input {
    /// The WebSocket is open, or the HTTP call has been read; always first.
    Open,
    /// A text message.
    Text(Text),
    /// A binary message.
    Binary(Bytes),
    /// A device message that one of the session's interests admits.
    Message(Arc<DeviceMessage>),
    /// The driver has begun a command that asked to hear of it.
    Accepted(Token),
    /// A command has its outcome.
    Outcome(Token, Arc<Outcome>),
    /// The hub answers a question.
    Answer(Token, Answer),
    /// The session's balanced group has lost its last relation.
    GroupEmpty,
    /// Somebody else changed a document of this collection, which the session has asked about. Comes once until the
    /// session asks again.
    DocumentsChanged(Arc<str>),
    /// The client reads too slowly and missed this many property reports. The newest values of the devices
    /// concerned follow as ordinary messages.
    Lagged(u64),
    /// The configuration has changed: from now on this holds. Other devices may be there, and the settings may be
    /// others; the session's own client is still what it was.
    Reconfigured(Arc<Context>),
    /// The time that `timeout` named has come.
    Timeout,
    /// The driver is about to close the connection: the last chance to say something. The session answers with
    /// its goodbye and [`Output::Close`]; if it gives no close, the driver closes in its own words.
    Closing(Closing),
}

/// Why a driver closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The gateway stops.
    Shutdown,
    /// The client reads so slowly that something was lost that may not be lost.
    TooSlow,
    /// The peer has been silent for too long.
    Silent,
    /// A reload has removed or changed the session's client, or switched its dialect off.
    Dismissed,
}

/// What a session wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send one text message.
    Send(Text),
    /// Send what was given so far, then close. Nothing follows.
    Close {
        /// RFC 6455 close code.
        code: u16,
        /// At most 123 bytes.
        reason: String,
    },
    /// From now on receive what these interests admit and the client may see, instead of what was wanted before.
    /// A message that several of them admit arrives once.
    Watch {
        /// Whose rights and filter hold.
        client: Arc<Client>,
        /// All interests of the session.
        interests: Vec<Interest>,
    },
    /// Send a command to a device.
    Submit {
        /// Comes back with the outcome.
        token: Token,
        /// Whose rights and filter hold.
        client: Arc<Client>,
        /// What is wanted.
        command: Command,
    },
    /// Ask the hub.
    Ask {
        /// Comes back with the answer.
        token: Token,
        /// Whose rights and filter hold.
        client: Arc<Client>,
        /// What is wanted.
        question: Question,
    },
    /// Answer the HTTP call; ends it. Only sessions opened as [`Opening::Call`] give this.
    Respond(Response),
}

/// What a dialect makes of a request.
#[derive(Debug)]
pub enum Opening {
    /// Another dialect's path.
    NotMine,
    /// Answer at once.
    Respond(Response),
    /// Accept the WebSocket.
    Upgrade(Upgrade),
    /// Run an HTTP call to its [`Output::Respond`].
    Call(Box<dyn Session>),
    /// Take part in a session that HTTP requests carry.
    Carry(Carry),
}

/// What one HTTP request has to do with a session that outlives it (`SockJS` without WebSocket).
#[derive(Debug)]
pub struct Carry {
    /// Which session.
    pub name: SessionName,
    /// What the request is answered with if the session takes it; the body of an [`Errand::Receive`] follows as it
    /// comes.
    pub head: Response,
    /// What it wants.
    pub errand: Errand,
}

/// What a request wants of a session.
#[derive(Debug)]
pub enum Errand {
    /// Receive what the session says.
    Receive {
        /// In which form.
        form: Form,
        /// The session to begin if there is none of this name.
        session: Box<dyn Session>,
    },
    /// Say something.
    Send(Text),
}

/// What a session that outlives requests is known by. Its `Debug` hides both: who knows them can take it over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName {
    /// Chosen by the client.
    pub id: String,
    /// The credentials that each of its requests shows.
    pub shown: Vec<String>,
}

impl Debug for SessionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionName(..)")
    }
}

/// An accepted WebSocket.
#[derive(Debug)]
pub struct Upgrade {
    /// Who serves it.
    pub session: Box<dyn Session>,
    /// The one offered subprotocol that was chosen; `None` sends no such header.
    pub subprotocol: Option<String>,
}

/// An HTTP request as a dialect sees it. Its `Debug` shows neither query nor headers, which carry secrets.
#[derive(Clone)]
pub struct Request {
    /// GET, POST, OPTIONS, ... in upper case.
    pub method: String,
    /// As sent, still percent-encoded, starting with `/`.
    pub path: String,
    /// Decoded pairs in order; the key may repeat.
    pub query: Vec<(String, String)>,
    /// Lower-case names; values that are not text are left out.
    pub headers: Vec<(String, String)>,
    /// The whole body, within the configured limit.
    pub body: Bytes,
    /// Who asks, after trusted proxies.
    pub peer: IpAddr,
    /// How the client reached us, after trusted proxies or `public_url`.
    pub origin: Origin,
    /// Whether this is a well-formed WebSocket upgrade.
    pub upgrade: bool,
    /// Whoever refuses a credential of this request says so here.
    pub logins: Logins,
}

impl Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("peer", &self.peer)
            .field("upgrade", &self.upgrade)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The first query parameter of this name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path's segments, percent-decoded, without empty ones.
    pub fn segments(&self) -> Vec<String> {
        self.path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect()
    }

    /// The WebSocket subprotocols that the client offers, in its order.
    pub fn subprotocols(&self) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(name, _)| name == "sec-websocket-protocol")
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect()
    }
}

/// How a client addresses the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it came by TLS.
    pub secure: bool,
    /// Host and port as the client wrote them.
    pub host: String,
}

impl Origin {
    /// `ws` or `wss` address of a path that starts with `/`.
    pub fn websocket(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.secure { "wss" } else { "ws" }, self.host)
    }

    /// `http` or `https` address of a path that starts with `/`.
    pub fn http(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.secure { "https" } else { "http" }, self.host)
    }
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Names and values; content-length is the server's.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A JSON body with its content type.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json;charset=UTF-8".to_owned())];
        Self { status, headers, body: body.into() }
    }

    /// A plain-text body with its content type.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), "text/plain;charset=UTF-8".to_owned())];
        Self { status, headers, body: body.into() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What every session may look at. Shared, immutable; a reload makes a new one, which sessions that live on are given
/// as [`Input::Reconfigured`].
#[derive(Debug)]
pub struct Context {
    /// What the gateway says of itself.
    pub gateway: Gateway,
    /// Every device.
    pub directory: Arc<Directory>,
    /// Every client.
    pub clients: Arc<ClientBook>,
    /// Every dialect's settings.
    pub settings: Settings,
    /// Random, made at start: seals short-lived tickets.
    pub seal: Seal,
    /// Most bytes in one message of a client; a session may buffer as much, not more.
    pub frame_bytes: usize,
}

impl Context {
    /// Whether this very client may still come in. One that a reload has changed in any way is another one.
    pub fn knows(&self, client: &Arc<Client>) -> bool {
        let anonymous = Dialect::ALL.into_iter().filter_map(|dialect| {
            self.settings.common(dialect).anonymous.as_ref().map(|anonymous| &anonymous.client)
        });
        self.clients.clients().iter().chain(anonymous).any(|known| Arc::ptr_eq(known, client))
    }
}

/// A random key that never shows, and when it was made: how long what it seals is good is counted from then on, since a
/// wall clock may be set.
#[derive(Clone)]
pub struct Seal {
    /// The key.
    pub key: [u8; 32],
    /// When it was made.
    pub made: Instant,
}

impl Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

/// A dialect's door: what the server needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which one.
    pub dialect: Dialect,
    /// What it makes of a request.
    pub open: fn(&Request, &Arc<Context>, Now) -> Opening,
    /// Whether, where and for whom it is served.
    pub common: fn(&Settings) -> &Common,
}

/// Every dialect, in the order in which a request is offered to them: the first whose `open` knows the path has it.
pub const ENTRIES: [Entry; 5] = [
    Entry { dialect: Dialect::Janus, open: janus::open, common: |settings| &settings.janus.common },
    Entry { dialect: Dialect::Sagoo, open: sagoo::open, common: |settings| &settings.sagoo.common },
    Entry { dialect: Dialect::Ithings, open: ithings::open, common: |settings| &settings.ithings.common },
    Entry { dialect: Dialect::Oam, open: oam::open, common: |settings| &settings.oam.common },
    Entry { dialect: Dialect::Uplus, open: uplus::open, common: |settings| &settings.uplus.common },
];

/// The settings of all five.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Janus.
    pub janus: janus::Settings,
    /// SagooIoT / JetLinks.
    pub sagoo: sagoo::Settings,
    /// iThings.
    pub ithings: ithings::Settings,
    /// WCS OAM.
    pub oam: oam::Settings,
    /// Haier U+.
    pub uplus: uplus::Settings,
}

impl Settings {
    /// What one dialect has in common with the others.
    pub fn common(&self, dialect: Dialect) -> &Common {
        match dialect {
            Dialect::Janus => &self.janus.common,
            Dialect::Sagoo => &self.sagoo.common,
            Dialect::Ithings => &self.ithings.common,
            Dialect::Oam => &self.oam.common,
            Dialect::Uplus => &self.uplus.common,
        }
    }
}

/// What can be set for every dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// Whether the dialect is served at all.
    pub enabled: bool,
    /// Its own listeners; when empty it is served on the server's.
    pub listen: Vec<SocketAddr>,
    /// The same with TLS, by the server's certificate.
    pub tls_listen: Vec<SocketAddr>,
    /// Who may come in without a credential.
    pub anonymous: Option<Anonymous>,
}

impl Default for Common {
    fn default() -> Self {
        Self { enabled: true, listen: Vec::new(), tls_listen: Vec::new(), anonymous: None }
    }
}

impl Common {
    /// Whether it is served on listeners of its own, and so not on the server's.
    pub fn is_apart(&self) -> bool {
        !(self.listen.is_empty() && self.tls_listen.is_empty())
    }
}

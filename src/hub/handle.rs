//! The hub's front door for connections: attach, watch, submit, ask.
//!
//! A handle is cheap to clone. Requests travel over one bounded queue; what comes back travels over two bounded
//! queues per session, one for device messages and one for replies.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::dialects::{COMMANDS_IN_FLIGHT, Token};
use crate::drivers::DriverCommand;
use crate::model::client::{Client, DeviceFilter, Dialect, Origin, Rights, Secret};
use crate::model::command::{Command, Outcome};
use crate::model::directory::Directory;
use crate::model::interest::{Interest, Selector};
use crate::model::message::DeviceMessage;
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::store::Archive;

/// Requests of all sessions that wait for the hub. When full the session's driver awaits, so a client that floods
/// commands slows only itself and its peers' commands, never observations.
pub const REQUEST_QUEUE: usize = 256;

/// Room for the replies to commands under way: that work has begun, and the outcome.
const REPLIES_TO_COMMANDS: usize = 2 * COMMANDS_IN_FLIGHT;

/// Room for replies beyond those: answers to questions and notices.
const NOTICES: usize = 64;

/// Room for the last one, [`SessionReply::Evicted`], which the hub keeps free from the beginning.
const FAREWELL: usize = 1;

/// The number of an attached session, unique while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// What a session's driver asks of the hub.
#[derive(Debug)]
pub enum HubRequest {
    /// A session begins.
    Attach {
        /// Its number.
        key: SessionKey,
        /// Where it comes from.
        origin: Arc<Origin>,
        /// Where its device messages go. When full, property reports are dropped, counted and repaired; anything
        /// else that finds no room evicts the session.
        messages: mpsc::Sender<Arc<DeviceMessage>>,
        /// Where its replies go. The session's driver keeps no more under way than fit. Boxed, because a queue has room for
        /// thirty-two from the beginning, and most sessions hardly ever get one.
        replies: mpsc::Sender<Box<Told>>,
        /// How far it is.
        account: Arc<Account>,
    },
    /// A session has ended. Its commands run on; their outcomes go nowhere. What its counter says was not written
    /// of balanced messages goes to another member of its group.
    Detach {
        /// Its number.
        key: SessionKey,
    },
    /// See [`crate::dialects::Output::Watch`].
    Watch {
        /// Its number.
        key: SessionKey,
        /// Whose filter holds.
        client: Arc<Client>,
        /// All interests.
        interests: Vec<Interest>,
    },
    /// See [`crate::dialects::Output::Submit`].
    Submit {
        /// Its number.
        key: SessionKey,
        /// Comes back with the outcome.
        token: Token,
        /// Whose rights hold.
        client: Arc<Client>,
        /// What is wanted.
        command: Command,
    },
    /// See [`crate::dialects::Output::Ask`].
    Ask {
        /// Its number.
        key: SessionKey,
        /// Comes back with the answer.
        token: Token,
        /// Whose rights hold.
        client: Arc<Client>,
        /// What is wanted.
        question: Question,
    },
    /// The configuration has changed, or a driver has found devices. Sent by the owner of all parts, not by sessions.
    Adopt(Adoption),
    /// The gateway is about to end. Sent by the owner of all parts.
    Release {
        /// Told when the safe values of all leases are written whose devices are there.
        done: oneshot::Sender<()>,
    },
}

/// The devices and links that there are from now on.
#[derive(Debug)]
pub struct Adoption {
    /// All of them. A device or link that is as it was is the very same `Arc`.
    pub directory: Arc<Directory>,
    /// The way to each driver that begins, for the first time or anew.
    pub begun: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
    /// Told when it has been done: what is asked of the hub from then on finds the new devices, and the drivers of
    /// links that are no more get no further command.
    pub done: oneshot::Sender<()>,
}

/// What the hub tells one session besides device messages.
#[derive(Debug)]
pub enum SessionReply {
    /// See [`crate::dialects::Input::Accepted`].
    Accepted(Token),
    /// See [`crate::dialects::Input::Outcome`].
    Outcome(Token, Arc<Outcome>),
    /// See [`crate::dialects::Input::Answer`].
    Answer(Token, Answer),
    /// See [`crate::dialects::Input::GroupEmpty`].
    GroupEmpty,
    /// See [`crate::dialects::Input::DocumentsChanged`].
    DocumentsChanged(Arc<str>),
    /// See [`crate::dialects::Input::Lagged`].
    Lagged(u64),
    /// The session is no longer served, because it lost something that may not be lost.
    Evicted,
}

/// What the hub tells one session, and its place among the session's device messages.
#[derive(Debug)]
pub struct Told {
    /// How many device messages it was sent before this, counted from its beginning. The two queues have no common order;
    /// whoever takes so many messages first has the one in which the hub said things.
    pub after: u64,
    /// What it is told.
    pub reply: SessionReply,
}

/// What a session and the hub know of each other beside their queues.
#[derive(Debug, Default)]
pub struct Account {
    /// How many of the device messages that were sent to it the session has written, counted from its beginning. Nobody
    /// else writes it, so it has its last value when the session's ends of the queues are dropped.
    pub written: AtomicU64,
    /// Told when half of the message queue is taken: for a session that lets messages gather there before it takes them.
    pub pressed: Notify,
}

/// Cloneable access to the hub.
#[derive(Clone, Debug)]
pub struct HubHandle {
    requests: mpsc::Sender<HubRequest>,
    next: Arc<AtomicU64>,
    archive: Option<Archive>,
    origin: Arc<Origin>,
}

/// The hub has ended; only seen while the process shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hub has stopped")]
pub struct HubGone;

/// Why [`HubHandle::look`] saw nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The process is about to end.
    #[error("the hub has stopped")]
    Gone,
    /// It is overloaded or stuck.
    #[error("the hub does not answer")]
    Late,
}

impl HubHandle {
    /// A handle that feeds this queue.
    pub fn new(requests: mpsc::Sender<HubRequest>) -> Self {
        Self { requests, next: Arc::new(AtomicU64::new(1)), archive: None, origin: Arc::default() }
    }

    /// The same with a history store, if there is one, to ask for past values.
    #[must_use]
    pub fn with_archive(mut self, archive: Option<Archive>) -> Self {
        self.archive = archive;
        self
    }

    /// The same for sessions that come from there.
    #[must_use]
    pub fn of(mut self, dialect: Dialect, peer: IpAddr) -> Self {
        self.origin = Arc::new(Origin { dialect: Some(dialect), peer: Some(peer) });
        self
    }

    /// The same for sessions that come from where those of another handle do.
    #[must_use]
    pub fn like(mut self, other: &Self) -> Self {
        self.origin = Arc::clone(&other.origin);
        self
    }

    /// The history store, if there is one.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// Begins a session whose message queue holds `queue` messages.
    pub async fn attach(&self, queue: usize) -> Result<Attachment, HubGone> {
        let key = SessionKey(self.next.fetch_add(1, Ordering::Relaxed));
        let (messages, message_queue) = mpsc::channel(queue.max(1));
        let (replies, reply_queue) = mpsc::channel(REPLIES_TO_COMMANDS + NOTICES + FAREWELL);
        let origin = Arc::clone(&self.origin);
        let account = Arc::<Account>::default();
        let own = Arc::clone(&account);
        self.send(HubRequest::Attach { key, origin, messages, replies, account: own }).await?;
        Ok(Attachment { key, messages: message_queue, replies: reply_queue, account })
    }

    /// Sends one request, waiting for room.
    pub async fn send(&self, request: HubRequest) -> Result<(), HubGone> {
        self.requests.send(request).await.map_err(|_| HubGone)
    }

    /// Requests that wait for the hub.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// What the hub knows of some devices and of all links, for the gateway's own use. Fails when the hub has ended or
    /// does not answer in this time.
    pub async fn look(&self, selector: Selector, patience: Duration) -> Result<Arc<Snapshot>, NoAnswer> {
        let gateway = Client {
            id: "gateway".into(),
            secret: Secret::new(""),
            dialects: Vec::new(),
            devices: DeviceFilter::new(["*"]),
            rights: Rights::READ,
        };
        self.look_as(Arc::new(gateway), selector, patience).await
    }

    /// The same for a client, of whose devices alone it tells.
    pub async fn look_as(
        &self,
        client: Arc<Client>,
        selector: Selector,
        patience: Duration,
    ) -> Result<Arc<Snapshot>, NoAnswer> {
        let looking = async {
            let mut attachment = self.attach(1).await?;
            let key = attachment.key;
            let question = Question::Snapshot(selector);
            self.send(HubRequest::Ask { key, token: Token(0), client, question }).await?;
            let snapshot = loop {
                match attachment.replies.recv().await.map(|told| told.reply) {
                    Some(SessionReply::Answer(_, Answer::Snapshot(snapshot))) => break Ok(snapshot),
                    Some(_) => {}
                    None => break Err(HubGone),
                }
            };
            self.detach(key);
            snapshot
        };
        match timeout(patience, looking).await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(HubGone)) => Err(NoAnswer::Gone),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    /// The same for other devices, where the history store is asked. The hub itself is told by [`HubHandle::adopt`].
    pub fn know(&mut self, directory: &Arc<Directory>) {
        if let Some(archive) = &mut self.archive {
            archive.know(directory);
        }
    }

    /// Gives the hub other devices and links, and waits until it has taken them over.
    pub async fn adopt(
        &self,
        directory: Arc<Directory>,
        begun: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
    ) -> Result<(), HubGone> {
        let (done, taken) = oneshot::channel();
        self.send(HubRequest::Adopt(Adoption { directory, begun, done })).await?;
        taken.await.map_err(|_| HubGone)
    }

    /// Lets the hub write the safe values of all leases, since the gateway is about to end, and waits until those are
    /// written whose devices are there. From then on no command is taken.
    pub async fn release(&self) -> Result<(), HubGone> {
        let (done, released) = oneshot::channel();
        self.send(HubRequest::Release { done }).await?;
        released.await.map_err(|_| HubGone)
    }

    /// Ends a session without waiting, for use where nothing can be awaited. When the queue is full the hub hears
    /// of it another way: both queues of the session are closed.
    pub fn detach(&self, key: SessionKey) {
        // A hub that has ended has no sessions either.
        drop(self.requests.try_send(HubRequest::Detach { key }));
    }
}

/// A session's ends of its queues.
#[derive(Debug)]
pub struct Attachment {
    /// Its number.
    pub key: SessionKey,
    /// Its device messages, in order of their numbers.
    pub messages: mpsc::Receiver<Arc<DeviceMessage>>,
    /// Its replies. Closed together with `messages` when the hub ends.
    pub replies: mpsc::Receiver<Box<Told>>,
    /// To be kept up to date by who drives the session.
    pub account: Arc<Account>,
}

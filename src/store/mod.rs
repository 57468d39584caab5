//! The history store: what outlives a moment, a connection or the process.
//!
//! ```text
//!  hub    --- Job: writes and fetches, in order --->  worker thread --- SQLite (WAL) --- history.db
//!         <-- News: past messages -----------------                 \-- tail ----------- history.db-tail
//!  engine --- Query, with where its answer goes --->
//! ```
//!
//! `SQLite` blocks, so one thread owns it and nobody waits for that thread but who asked it something. What is handed
//! over is at once in the tail, a plain file that the kernel keeps when the process is killed, and is committed to
//! the database once in a commit interval, so that the flash is written seldom. A power cut loses at most that
//! interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config;
use crate::dialects::Token;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::history::{
    Events, EventsQuery, History, HistoryQuery, KeptAlarm, Latest, LatestQuery, PastQuery,
};
use crate::model::interest::Interest;
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::snapshot::Answer;
use crate::model::time::{Clock, UnixMillis};

mod bytes;
mod database;
mod opening;
pub mod record;
mod scan;
mod tail;
mod worker;

pub use opening::OpenError;
pub use worker::{Worker, open, wait};

/// Jobs of the hub that wait for the store. When only [`RESERVE`] places are left, messages are no longer kept
/// until there is room again, and counted: the plant goes on, the history has a gap.
pub const JOB_QUEUE: usize = 8192;

/// Places that are left to everything but messages; when even these are taken, the change lives only as long as
/// the process, which is said in the log.
pub const RESERVE: usize = 1024;

/// Queries that wait for the store. When full the session that asks waits, and only that.
const QUERY_QUEUE: usize = 32;

/// News that wait for the hub. When full the store waits: the hub takes them in each turn.
const NEWS_QUEUE: usize = 16;

/// Something that the hub wants kept. Writing the same again changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A device message.
    Message {
        /// Its number.
        seq: u64,
        /// When it happened.
        at: UnixMillis,
        /// Device id.
        device: Arc<str>,
        /// Its kind.
        kind: Kinds,
        /// See [`record::encode`].
        record: Vec<u8>,
    },
    /// The clock was wrong when messages with these numbers were dated: those that are marked are moved by this many
    /// milliseconds and lose their mark.
    Redate {
        /// From this one on,
        from: u64,
        /// to this one.
        upto: u64,
        /// Milliseconds to add.
        step: i64,
    },
    /// A document of a client.
    Document {
        /// Its collection.
        collection: Arc<str>,
        /// Its id.
        id: u64,
        /// Its text.
        body: Arc<str>,
    },
    /// The document is deleted.
    NoDocument(u64),
    /// An alarm that a client set.
    Alarm(KeptAlarm),
    /// The alarm is deleted.
    NoAlarm(u64),
    /// How far a group is.
    Group {
        /// Its name.
        name: Arc<str>,
        /// Everything up to this number was delivered.
        floor: u64,
        /// How long its relations outlive their holders.
        retain: Duration,
    },
    /// A relation of a group, or how far it is.
    Relation(StoredRelation),
    /// The relation has ended.
    NoRelation {
        /// Its group.
        group: Arc<str>,
        /// Its label.
        label: Arc<str>,
    },
    /// The group has ended, with all of its relations.
    NoGroup(Arc<str>),
}

impl Write {
    /// A device message as it is kept.
    pub fn message(message: &DeviceMessage) -> Self {
        Self::Message {
            seq: message.seq,
            at: message.at,
            device: Arc::clone(&message.device.id),
            kind: message.kind(),
            record: record::encode_by(&message.body, message.clock),
        }
    }
}

/// A relation of a balanced group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRelation {
    /// The group's name.
    pub group: Arc<str>,
    /// The relation's label.
    pub label: Arc<str>,
    /// Its place among the group's relations.
    pub order: u64,
    /// What it delivers.
    pub interest: Interest,
    /// It begins after this number.
    pub from: u64,
    /// It has dealt with everything up to this number; `None` where the group's floor says it.
    pub cursor: Option<u64>,
    /// When it ends unless somebody holds it again; `None` while it has holders.
    pub expires: Option<UnixMillis>,
}

/// A wish of the hub for past messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// For whom.
    pub group: Arc<str>,
    /// From the number after this one,
    pub after: u64,
    /// to this one.
    pub until: u64,
    /// Not older than this.
    pub since: UnixMillis,
    /// Which kinds of message of which devices.
    pub wanted: Arc<BTreeMap<Arc<str>, Kinds>>,
    /// Most messages to give.
    pub limit: usize,
}

/// What the store has for the hub.
#[derive(Debug)]
pub enum News {
    /// What it asked for.
    Chunk(Chunk),
    /// The file was damaged and another one begun, which lacks everything.
    Anew,
    /// The file could not be opened at first, and now it is: this is what it had.
    Opened(Box<Recovered>),
}

/// Past messages.
#[derive(Debug)]
pub struct Chunk {
    /// For whom.
    pub group: Arc<str>,
    /// From the number after this one,
    pub after: u64,
    /// to this one, these are all that were wanted.
    pub upto: u64,
    /// By number.
    pub messages: Vec<Stored>,
}

/// A message as it was kept.
#[derive(Debug)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// Whether that time is known to be right.
    pub clock: Clock,
    /// Device id.
    pub device: Arc<str>,
    /// What happened; properties are [`record::UNPLACED`].
    pub body: Body,
}

/// What the store had when it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// The last message number that was given.
    pub seq: u64,
    /// The time of the last message, if there is one.
    pub last: Option<UnixMillis>,
    /// The time of the last message whose time is known to be right, where it is among the newest.
    pub last_right: Option<UnixMillis>,
    /// The last id of a document or alarm that was given.
    pub last_id: u64,
    /// Collection, id and text of each document.
    pub documents: Vec<(Arc<str>, u64, Arc<str>)>,
    /// By id.
    pub alarms: Vec<KeptAlarm>,
    /// Name, floor and retention of each group.
    pub groups: Vec<(Arc<str>, u64, Duration)>,
    /// In the order of groups and of their places in them.
    pub relations: Vec<StoredRelation>,
}

/// What the hub hands over.
#[derive(Debug)]
pub enum Job {
    /// Keep this.
    Write(Write),
    /// Give these.
    Fetch(Fetch),
}

/// The hub's end.
#[derive(Debug)]
pub struct Keeper {
    /// To the store. The store ends when this is dropped.
    pub jobs: mpsc::Sender<Job>,
    /// From the store; chunks in the order of the fetches.
    pub news: mpsc::Receiver<News>,
    /// What there is.
    pub recovered: Recovered,
    /// Whether the file is open. Where it is not, only the number to begin above is known; what is there is told
    /// later, and nothing but messages may be handed over before.
    pub is_open: bool,
}

/// Whose answers go where.
#[derive(Debug)]
pub(crate) struct Asked {
    question: Ask,
    token: Token,
    answers: mpsc::Sender<(Token, Answer)>,
}

/// What can be asked.
#[derive(Debug)]
enum Ask {
    History(HistoryQuery),
    Latest(LatestQuery),
    Events { device: Arc<Device>, count: usize },
    Past(PastQuery),
}

/// A session's way to past values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    queries: mpsc::Sender<Asked>,
    directory: Arc<Directory>,
    limits: watch::Sender<config::History>,
}

impl Archive {
    /// From now on these are the devices that clients may ask for.
    pub fn know(&mut self, directory: &Arc<Directory>) {
        self.directory = Arc::clone(directory);
    }

    /// From now on this is how much is kept, and how often it is written. Where it is kept stays the same.
    pub fn limit(&self, history: &config::History) {
        self.limits.send_replace(history.clone());
    }

    /// Asks for past values on behalf of a client; the answer arrives in `answers`, which must have room for it. Of
    /// a device that does not exist or that the client may not see there are none. Waits while the store has too
    /// much to do.
    pub async fn history(
        &self,
        client: &Client,
        query: HistoryQuery,
        token: Token,
        answers: mpsc::Sender<(Token, Answer)>,
    ) {
        if self.visible(client, &query.device) {
            self.ask(Asked { question: Ask::History(query), token, answers }).await;
        } else {
            let nothing = History { kept: true, ..History::default() };
            drop(answers.try_send((token, Answer::History(Arc::new(nothing)))));
        }
    }

    /// The same for the last values.
    pub async fn latest(
        &self,
        client: &Client,
        query: LatestQuery,
        token: Token,
        answers: mpsc::Sender<(Token, Answer)>,
    ) {
        if self.visible(client, &query.device) {
            self.ask(Asked { question: Ask::Latest(query), token, answers }).await;
        } else {
            let nothing = Latest { kept: true, ..Latest::default() };
            drop(answers.try_send((token, Answer::Latest(Arc::new(nothing)))));
        }
    }

    /// The same for the last events.
    pub async fn events(
        &self,
        client: &Client,
        query: EventsQuery,
        token: Token,
        answers: mpsc::Sender<(Token, Answer)>,
    ) {
        let EventsQuery { device, count } = query;
        let device = self.directory.device(&device).filter(|device| client.sees(device));
        if let Some(device) = device.map(Arc::clone) {
            self.ask(Asked { question: Ask::Events { device, count }, token, answers }).await;
        } else {
            let nothing = Events { kept: true, ..Events::default() };
            drop(answers.try_send((token, Answer::Events(Arc::new(nothing)))));
        }
    }

    /// The same for past messages.
    pub async fn past(
        &self,
        client: &Client,
        mut query: PastQuery,
        token: Token,
        answers: mpsc::Sender<(Token, Answer)>,
    ) {
        query.devices.retain(|device| self.visible(client, device));
        self.ask(Asked { question: Ask::Past(query), token, answers }).await;
    }

    fn visible(&self, client: &Client, device: &str) -> bool {
        self.directory.device(device).is_some_and(|device| client.sees(device))
    }

    /// A store that has ended answers like one that has nothing.
    async fn ask(&self, asked: Asked) {
        if let Err(mpsc::error::SendError(asked)) = self.queries.send(asked).await {
            let answer = match asked.question {
                Ask::History(_) => Answer::History(Arc::default()),
                Ask::Latest(_) => Answer::Latest(Arc::default()),
                Ask::Events { .. } => Answer::Events(Arc::default()),
                Ask::Past(_) => Answer::Past(Arc::default()),
            };
            drop(asked.answers.try_send((asked.token, answer)));
        }
    }
}

#[cfg(test)]
mod tests;

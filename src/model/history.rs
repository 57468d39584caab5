//! What the gateway remembers for its clients: past values, documents that clients create, and alarms that they
//! set.
//!
//! Values come from the history store and are answered without the hub; documents and alarms belong to the hub,
//! which keeps them in the store where there is one.

use std::sync::Arc;
use std::time::Duration;

use super::interest::Selector;
use super::message::{Body, DeviceMessage, Kinds};
use super::product::Level;
use super::time::UnixMillis;
use super::value::Value;

/// Most rows in one answer, whatever the query asks for.
pub const HISTORY_ROWS: usize = 10_000;

/// Most messages in an answer to an [`EventsQuery`].
pub const HISTORY_EVENTS: usize = 512;

/// Past values of one device: a row for each property report that carries one of the properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Device id.
    pub device: Arc<str>,
    /// Property ids; an empty list means all.
    pub properties: Vec<Arc<str>>,
    /// Not before this.
    pub from: UnixMillis,
    /// Not after this.
    pub to: UnixMillis,
    /// Most rows to give; [`HISTORY_ROWS`] at most.
    pub limit: usize,
    /// Rows to pass over first.
    pub offset: u64,
    /// Whether the newest row comes first.
    pub newest_first: bool,
}

/// The answer to a [`HistoryQuery`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Whether the gateway keeps history at all.
    pub kept: bool,
    /// Rows in the asked time, before limit and offset.
    pub total: u64,
    /// In the asked order.
    pub rows: Vec<HistoryRow>,
}

/// Values that were reported together.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// When.
    pub at: UnixMillis,
    /// Good values only, of the properties that were asked for.
    pub values: Vec<(Arc<str>, Value)>,
}

/// The last values of some properties of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestQuery {
    /// Device id.
    pub device: Arc<str>,
    /// Property ids; an empty list means all.
    pub properties: Vec<Arc<str>>,
    /// Values of each; [`HISTORY_ROWS`] over all properties at most.
    pub count: usize,
}

/// The answer to a [`LatestQuery`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// Whether the gateway keeps history at all.
    pub kept: bool,
    /// The number of the last message that was kept then. Values of a later one are not contained.
    pub seq: u64,
    /// For each property that has any: its last good values, oldest first.
    pub values: Vec<(Arc<str>, Series)>,
}

/// Values of one property with their times.
pub type Series = Vec<(UnixMillis, Value)>;

/// The last events and alarms of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// Device id.
    pub device: Arc<str>,
    /// How many; [`HISTORY_EVENTS`] at most.
    pub count: usize,
}

/// The answer to an [`EventsQuery`].
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Whether the gateway keeps history at all.
    pub kept: bool,
    /// The number of the last message that was kept then. A later one is not contained.
    pub seq: u64,
    /// Oldest first; of a rule that the product no longer has there is none.
    pub messages: Vec<Arc<DeviceMessage>>,
}

/// Past messages of one kind about some devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastQuery {
    /// Device ids.
    pub devices: Vec<Arc<str>>,
    /// One kind.
    pub kind: Kinds,
    /// Not before this.
    pub from: UnixMillis,
    /// Only messages with a greater number than this.
    pub after: u64,
    /// Most messages of each device; [`HISTORY_ROWS`] over all of them at most.
    pub limit: usize,
    /// Messages of each device to pass over first.
    pub offset: u64,
    /// Whether the newest message of a device comes first.
    pub newest_first: bool,
}

/// The answer to a [`PastQuery`].
#[derive(Debug, Default)]
pub struct Past {
    /// Whether the gateway keeps history at all.
    pub kept: bool,
    /// Device by device, in the asked order.
    pub messages: Vec<PastMessage>,
}

/// A message as it was kept.
#[derive(Debug)]
pub struct PastMessage {
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// Device id.
    pub device: Arc<str>,
    /// What happened. Positions of properties in it mean nothing.
    pub body: Body,
    /// Of a device that came online: when its values were last heard of before that.
    pub heard: Option<UnixMillis>,
}

/// An alarm that a client set, with what has to outlive the process beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAlarm {
    /// The alarm.
    pub alarm: ClientAlarm,
    /// Id of the client that created it; empty where an older version did not note it.
    pub owner: Arc<str>,
    /// Ids of the devices on which it is raised, each with the limit that its rule had then.
    pub raised: Vec<(Arc<str>, f64)>,
}

impl From<ClientAlarm> for KeptAlarm {
    /// Of nobody, and raised nowhere.
    fn from(alarm: ClientAlarm) -> Self {
        Self { alarm, owner: "".into(), raised: Vec::new() }
    }
}

/// What a session asks of the documents that clients create. A collection is any name that a dialect chooses; it
/// puts its own name first, as in `oam/profile`. A session that asked about a collection hears of a later change
/// to it by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentAsk {
    /// All documents of the collection.
    List {
        /// Its name.
        collection: Arc<str>,
    },
    /// Create a document, or replace one. Needs the right `write`.
    Put {
        /// Its collection.
        collection: Arc<str>,
        /// Which one to replace; `None` creates one with an id that was never used before.
        id: Option<u64>,
        /// Any text.
        body: Arc<str>,
    },
    /// Replace the only document of the collection, or create it, unless somebody has changed it since the session
    /// saw it. Needs the right `write`.
    Swap {
        /// Its collection.
        collection: Arc<str>,
        /// As the session saw it; `None` where there was none.
        seen: Option<Arc<str>>,
        /// Any text.
        body: Arc<str>,
    },
    /// Delete a document. Needs the right `write`.
    Delete {
        /// Its collection.
        collection: Arc<str>,
        /// Which one.
        id: u64,
    },
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Never repeats, over all collections.
    pub id: u64,
    /// As it was put.
    pub body: Arc<str>,
}

/// The answer to a [`DocumentAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentAnswer {
    /// To `List`: by id.
    Documents(Vec<Document>),
    /// To `Put` and `Swap`: the document's id.
    Put(u64),
    /// To `Delete`: done.
    Deleted,
    /// To `Put` with an id and to `Delete`: there is none. To `Swap`: it is another one by now.
    Unknown,
    /// To `Put` and `Swap`: too many documents, or too large.
    Full,
    /// The client's credential does not carry the right `write`.
    Forbidden,
}

/// What a session asks of the alarms that clients set.
#[derive(Clone, Debug, PartialEq)]
pub enum AlarmAsk {
    /// All of them.
    List,
    /// Set an alarm, or replace the one with its id; id 0 sets a new one. Needs the right `write`, and every device
    /// that the alarm covers must be visible to the client.
    Put(Box<ClientAlarm>),
    /// Take an alarm away; what it raised is cleared. Needs the same.
    Delete(u64),
}

/// The answer to an [`AlarmAsk`].
#[derive(Clone, Debug, PartialEq)]
pub enum AlarmAnswer {
    /// To `List`: by id.
    Alarms(Vec<ClientAlarm>),
    /// To `Put`: the alarm's id.
    Put(u64),
    /// To `Delete`: done.
    Deleted,
    /// To `Put` with an id and to `Delete`: there is none.
    Unknown,
    /// To `Put`: another alarm has this name.
    Taken,
    /// To `Put`: too many alarms.
    Full,
    /// The client's credential does not carry the right, or does not cover the devices.
    Forbidden,
}

/// An alarm that a client set. It fires as an ordinary alarm message whose rule has the id `client-` and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAlarm {
    /// Given by the hub.
    pub id: u64,
    /// For people; no two alarms of clients share one.
    pub name: Arc<str>,
    /// What raises it.
    pub kind: AlarmKind,
    /// The property that it watches, by id: on every device that has it.
    pub property: Arc<str>,
    /// Only devices of this bus or broker.
    pub link: Option<Arc<str>>,
    /// Only these devices.
    pub devices: Selector,
    /// The limit; not looked at by the monotonic kinds.
    pub value: f64,
    /// How long the condition must hold before the alarm is raised.
    pub hold: Duration,
    /// How bad it is.
    pub level: Level,
}

/// What raises a client's alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The value is less than the limit.
    Below,
    /// The value is greater than the limit.
    Above,
    /// The value is the limit.
    Equal,
    /// The value should only rise, and has fallen; over when it rises again.
    MonotonicRising,
    /// The value should only fall, and has risen; over when it falls again.
    MonotonicFalling,
}

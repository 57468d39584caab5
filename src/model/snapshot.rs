//! The hub's knowledge at one moment, for sessions that ask for current values.

use std::sync::Arc;

use super::command::Outcome;
use super::device::{Device, Link};
use super::history::{
    AlarmAnswer, AlarmAsk, DocumentAnswer, DocumentAsk, Events, EventsQuery, History, HistoryQuery, Latest,
    LatestQuery, Past, PastQuery,
};
use super::interest::Selector;
use super::message::CommandNote;
use super::time::UnixMillis;
use super::value::Reading;

/// What a session may ask the hub.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// The current state of the devices in a set (those that the client may see) and of all links.
    Snapshot(Selector),
    /// Something about the session's balanced group.
    Group(super::interest::GroupAsk),
    /// Past values of one device. Not answered by the hub; see [`crate::store`].
    History(HistoryQuery),
    /// The last values of some properties. Not answered by the hub; see [`crate::store`].
    Latest(LatestQuery),
    /// The last events of one device. Not answered by the hub; see [`crate::store`].
    Events(EventsQuery),
    /// What became of a command that a session of this client sent under this message id.
    Outcome(Arc<str>),
    /// Past messages of one kind. Not answered by the hub; see [`crate::store`].
    Past(PastQuery),
    /// Something about the documents that clients create.
    Documents(DocumentAsk),
    /// Something about the alarms that clients set.
    Alarms(AlarmAsk),
}

/// What the hub answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Snapshot`].
    Snapshot(Arc<Snapshot>),
    /// To [`Question::Group`].
    Group(super::interest::GroupAnswer),
    /// To [`Question::History`].
    History(Arc<History>),
    /// To [`Question::Latest`].
    Latest(Arc<Latest>),
    /// To [`Question::Events`].
    Events(Arc<Events>),
    /// To [`Question::Outcome`]: nothing while it is under way, when it was settled too long ago, and when there
    /// was none.
    Outcome(Option<Arc<Settled>>),
    /// To [`Question::Past`].
    Past(Arc<Past>),
    /// To [`Question::Documents`].
    Documents(DocumentAnswer),
    /// To [`Question::Alarms`].
    Alarms(AlarmAnswer),
}

/// A command that has its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Device id.
    pub device: Arc<str>,
    /// What was wanted.
    pub command: Arc<CommandNote>,
    /// What became of it.
    pub outcome: Arc<Outcome>,
    /// When.
    pub at: UnixMillis,
}

/// The state of some devices and all links.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The number of the last message that is contained in it.
    pub seq: u64,
    /// In configuration order.
    pub devices: Vec<DeviceSnapshot>,
    /// In configuration order.
    pub links: Vec<LinkSnapshot>,
}

/// The state of one device.
#[derive(Clone, Debug)]
pub struct DeviceSnapshot {
    /// Which one.
    pub device: Arc<Device>,
    /// Whether it answers; a device that was never heard of is offline.
    pub online: bool,
    /// When that last changed; `None` until it is first known.
    pub since: Option<UnixMillis>,
    /// By position in the product's properties; `None` where nothing was read yet.
    pub readings: Vec<Option<Reading>>,
    /// Ids of the alarm rules that are raised, in raising order.
    pub alarms: Vec<Arc<str>>,
}

/// The state of one bus or broker link.
#[derive(Clone, Debug)]
pub struct LinkSnapshot {
    /// Which one.
    pub link: Arc<Link>,
    /// Whether the port is open or the broker connected.
    pub up: bool,
    /// When that last changed.
    pub since: Option<UnixMillis>,
    /// How often it came up.
    pub connects: u64,
}

//! Drivers: what turns hardware into observations and commands into hardware.
//!
//! The contract that every driver keeps:
//!
//! 1. It owns its port or connection alone, and reconnects by itself for ever; a bad world is never an error that
//!    ends its task.
//! 2. It says what it saw as [`Observation`]s, by awaiting room in the hub's queue: when the hub is behind, polling
//!    slows down and nothing is lost.
//! 3. Each [`DriverCommand`] that it takes is answered by exactly one [`Observation::Settled`], also at shutdown. It
//!    does not start a command after its deadline: that one is settled `TimedOut` if it may have been sent, `Busy` if
//!    it certainly was not.
//! 4. It says when a device comes online and goes offline, and when its link goes up and down, once per change.
//! 5. When told to stop it finishes the frame it is in, settles what it holds, and returns.
//!
//! A driver that finds devices by itself makes them known by its [`announce::Announcer`] before it speaks of them.
//!
//! What it may rely on: the hub has checked the values of commands against the product.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::meters::LinkMeters;
use crate::model::command::Outcome;
use crate::model::device::Device;
use crate::model::time::UnixMillis;
use crate::model::value::Value;

pub mod announce;
pub mod modbus;
pub mod mqtt;
pub mod roll;
mod wear;

/// Observations that wait for the hub. When full the driver awaits: a bus polls slower, a broker connection reads
/// slower, nothing is dropped.
pub const OBSERVATION_QUEUE: usize = 1024;

/// Commands that wait for one link: as many as one client may have under way, so that a command to every device of a
/// line finds room. When full the hub settles a further command as busy.
pub const COMMAND_QUEUE: usize = 256;

/// The number of a command, unique while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Something that a driver saw or did.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// Readings of one device, taken together. The positions are those of the product's properties.
    Values {
        /// Whose.
        device: Arc<Device>,
        /// When they were read.
        at: UnixMillis,
        /// Position and sample.
        values: Vec<(usize, Sample)>,
    },
    /// The device came online or went offline.
    Presence {
        /// Which one.
        device: Arc<Device>,
        /// When.
        at: UnixMillis,
        /// Which of the two.
        online: bool,
        /// Why, in words, when offline.
        reason: Option<Arc<str>>,
    },
    /// Nothing is known of the device any more, though it was told as offline: it may be there. Nobody is told, and
    /// commands are tried as they are with one that was never heard of.
    Doubt {
        /// Which one.
        device: Arc<Device>,
    },
    /// The device sent an event itself.
    Event {
        /// Which one.
        device: Arc<Device>,
        /// When.
        at: UnixMillis,
        /// Id in the product.
        event: Arc<str>,
        /// Named parameters.
        params: Vec<(Arc<str>, Value)>,
    },
    /// The device published something raw.
    Publish {
        /// Which one.
        device: Arc<Device>,
        /// When.
        at: UnixMillis,
        /// The topic.
        topic: Arc<str>,
        /// The payload as text.
        payload: Arc<str>,
    },
    /// Progress of a firmware update.
    Ota {
        /// Which one.
        device: Arc<Device>,
        /// When.
        at: UnixMillis,
        /// Percent, or a negative failure code.
        step: i32,
        /// In the device's words.
        detail: Arc<str>,
    },
    /// The port opened or closed, the broker connected or was lost.
    Link {
        /// Id of the bus or broker.
        link: Arc<str>,
        /// When.
        at: UnixMillis,
        /// Which of the two.
        up: bool,
        /// Why, in words, when down.
        reason: Option<Arc<str>>,
    },
    /// Work on a command has begun.
    Accepted {
        /// Which one.
        command: CommandId,
    },
    /// A command has its outcome. Values read or read back travel in the outcome **and** as `Values`.
    Settled {
        /// Which one.
        command: CommandId,
        /// When.
        at: UnixMillis,
        /// What became of it.
        outcome: Outcome,
    },
}

/// One property's reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A value of the property's type.
    Value(Value),
    /// The device answered, but with something that is no reading; says why.
    Unreadable(Arc<str>),
}

/// A checked command for one link.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverCommand {
    /// To settle it by.
    pub id: CommandId,
    /// Whom it is for.
    pub device: Arc<Device>,
    /// What to do.
    pub action: DriverAction,
    /// After this it must not be started any more.
    pub deadline: Instant,
    /// Whether it is written at once though memory wears out by it: the safe value of a lease that was lost.
    pub urgent: bool,
}

/// What to do, by positions in the product.
#[derive(Clone, Debug, PartialEq)]
pub enum DriverAction {
    /// Read these properties now.
    Read(Vec<usize>),
    /// Write these values, in this order.
    Write(Vec<(usize, Value)>),
    /// Run a function with checked inputs; inputs that were not given are absent.
    Invoke {
        /// Position in the product's functions.
        function: usize,
        /// Named inputs.
        inputs: Vec<(Arc<str>, Value)>,
    },
}

/// A driver's side of its connection to the hub.
#[derive(Debug)]
pub struct LinkPort {
    /// Id of the bus or broker.
    pub link: Arc<str>,
    /// What the hub wants done.
    pub commands: mpsc::Receiver<DriverCommand>,
    /// Where observations go.
    pub observations: mpsc::Sender<Observation>,
    /// What it counts.
    pub meters: LinkMeters,
    /// Where the driver makes devices known that it finds by itself; `None` where nobody would take them.
    pub announcer: Option<announce::Announcer>,
}

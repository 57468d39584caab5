//! Commands from clients to devices, and what becomes of them.
//!
//! Every accepted command gets exactly one [`Outcome`], whatever happens to the device, the bus or the client.

use std::sync::Arc;
use std::time::Duration;

use super::value::{Value, ValueType};

/// What a client wants of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Device id as the client gave it; an unknown one is rejected by the hub.
    pub device: Arc<str>,
    /// What to do.
    pub action: Action,
    /// How long the client waits before it wants the outcome `TimedOut`.
    pub timeout: Duration,
    /// The client's own id for it, shown in replies; the hub makes one when absent.
    pub message_id: Option<Arc<str>>,
    /// Whether the session wants to hear when the command is handed to the driver, before the outcome.
    pub notify_accepted: bool,
    /// How long what it writes shall hold; `None` leaves that to the product.
    pub lease: Option<Lease>,
}

/// How long a written value holds without being written again. Then the property's safe value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// For this time.
    For(Duration),
    /// As long as the session that wrote it.
    Session,
    /// For ever.
    Release,
}

/// Read, write or invoke.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Property ids; an empty list means all readable ones.
    Read(Vec<Arc<str>>),
    /// Property ids and their new values, in the client's order; must not be empty.
    Write(Vec<(Arc<str>, Value)>),
    /// A function with its named inputs.
    Invoke {
        /// Id in the product.
        function: Arc<str>,
        /// Named inputs.
        inputs: Vec<(Arc<str>, Value)>,
    },
}

impl Action {
    /// Which of the three.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Read(_) => ActionKind::Read,
            Self::Write(_) => ActionKind::Write,
            Self::Invoke { .. } => ActionKind::Invoke,
        }
    }
}

/// The kind of an [`Action`], for rights and wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Needs the right `read`.
    Read,
    /// Needs the right `write`.
    Write,
    /// Needs the right `invoke`.
    Invoke,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The device did it.
    Confirmed {
        /// Values read, or read back after a write (the written ones where the device cannot be read back).
        values: Vec<(Arc<str>, Value)>,
        /// Named outputs of a function.
        outputs: Vec<(Arc<str>, Value)>,
    },
    /// It was refused, by the gateway's checks or by the device; nothing changed unless the reason says so.
    Rejected(Rejection),
    /// The device is offline; nothing was sent.
    Offline,
    /// It was sent, or may have been, and no answer came in time: the result is unknown.
    TimedOut,
    /// Too many commands wait already; nothing was sent.
    Busy,
    /// The client's credential does not carry the right, or does not cover the device.
    Forbidden,
}

impl Outcome {
    /// A word for it, for figures and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Confirmed { .. } => "confirmed",
            Self::Rejected(Rejection::Mismatch { .. }) => "mismatch",
            Self::Rejected(_) => "rejected",
            Self::Offline => "offline",
            Self::TimedOut => "unknown",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Why a command was refused. `Display` is a sentence for people without a full stop.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// No such device, or none that this client may know of.
    #[error("device {0} does not exist")]
    UnknownDevice(Arc<str>),
    /// Not in the product.
    #[error("property {0} does not exist")]
    UnknownProperty(Arc<str>),
    /// Access is `r`.
    #[error("property {0} is read-only")]
    ReadOnly(Arc<str>),
    /// Access is `w`.
    #[error("property {0} is write-only")]
    WriteOnly(Arc<str>),
    /// The value is of another type.
    #[error("{id} takes {expected}, found {found}", expected = .expected.name())]
    WrongType {
        /// Property or input.
        id: Arc<str>,
        /// What the product says.
        expected: ValueType,
        /// The value as given.
        found: Value,
    },
    /// The value is outside the range, off the step, or not among the labels.
    #[error("{id} takes {allowed}, found {found}")]
    OutOfRange {
        /// Property or input.
        id: Arc<str>,
        /// What the product allows, in words.
        allowed: String,
        /// The value as given.
        found: Value,
    },
    /// Not in the product.
    #[error("function {0} does not exist")]
    UnknownFunction(Arc<str>),
    /// The call lacks a required input.
    #[error("input {0} is required")]
    MissingInput(Arc<str>),
    /// The call names an input that the function does not have.
    #[error("input {0} does not exist")]
    UnknownInput(Arc<str>),
    /// A write without any property.
    #[error("no property is named")]
    Empty,
    /// It waited until its time was over; nothing was sent.
    #[error("its time was over before it could be sent; nothing was changed")]
    Expired,
    /// A later write of the same property came while it waited; nothing was sent.
    #[error("a later write of {0} came before this one was sent")]
    Superseded(Arc<str>),
    /// The property was written a moment ago, and wears out; nothing was sent.
    #[error("{id} may be written once in {} s, and was a moment ago; nothing was changed", .every.as_secs_f64())]
    TooSoon {
        /// Property.
        id: Arc<str>,
        /// Least time between two writes.
        every: Duration,
        /// How long it would still have to wait.
        wait: Duration,
    },
    /// The value cannot be leased as the client wants; nothing was sent.
    #[error("{id} cannot be leased so: {why}")]
    Lease {
        /// Property, or what else was to be leased.
        id: Arc<str>,
        /// Why, in words.
        why: String,
    },
    /// Clients hold as many leases as there may be; nothing was sent.
    #[error("{0} values are leased already, which is the most; nothing was changed")]
    TooManyLeases(usize),
    /// The device itself said no; its words, such as a Modbus exception.
    #[error("the device refused: {0}")]
    ByDevice(String),
    /// A step of a function did not succeed; those before it were done.
    #[error("step {step} of {of} ({what}) failed: {why}")]
    Step {
        /// Counted from 1.
        step: usize,
        /// How many there are.
        of: usize,
        /// What it does, in words.
        what: String,
        /// Why, in words.
        why: String,
    },
    /// The device took the write but reads back something else.
    #[error("{id} was written as {expected} but reads back {found}")]
    Mismatch {
        /// Property.
        id: Arc<str>,
        /// The value written.
        expected: Value,
        /// The value read back.
        found: Value,
    },
}

//! Device messages: the numbered facts that the hub hands to sessions.

use std::sync::{Arc, OnceLock};

use super::command::{ActionKind, Outcome};
use super::device::Device;
use super::product::{AlarmRule, Level};
use super::time::{Clock, UnixMillis};
use super::value::{Quality, Value};
use crate::text::Text;

/// How many dialect forms of one message can be kept beside it; see [`Form`].
const FORMS: usize = 8;

/// One numbered fact about one device, shared by all sessions that receive it.
#[derive(Debug)]
pub struct DeviceMessage {
    /// Rises by one with every message of the gateway.
    pub seq: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// Whether that time, and those in the body, are known to be right.
    pub clock: Clock,
    /// Whom it is about.
    pub device: Arc<Device>,
    /// What happened.
    pub body: Body,
    forms: [OnceLock<Text>; FORMS],
}

impl DeviceMessage {
    /// A message without any rendered form yet, with times that are right.
    pub fn new(seq: u64, at: UnixMillis, device: Arc<Device>, body: Body) -> Self {
        Self { seq, at, clock: Clock::Synchronised, device, body, forms: Default::default() }
    }

    /// The same, with times of this clock.
    #[must_use]
    pub fn by(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// This message in a dialect's form: rendered by the first session that asks, shared by all later ones.
    pub fn form(&self, form: Form, render: impl FnOnce(&Self) -> String) -> Text {
        let render = || Text::from(render(self));
        match self.forms.get(form.slot()) {
            Some(slot) => slot.get_or_init(render).clone(),
            None => render(),
        }
    }

    /// What kind of message it is, for subscriptions.
    pub fn kind(&self) -> Kinds {
        match &self.body {
            Body::Properties(_) => Kinds::PROPERTIES,
            Body::Event { .. } => Kinds::EVENT,
            Body::Alarm { .. } => Kinds::ALARM,
            Body::Presence { .. } => Kinds::PRESENCE,
            Body::Publish { .. } => Kinds::PUBLISH,
            Body::Sent { .. } => Kinds::SENT,
            Body::Reply { .. } => Kinds::REPLY,
            Body::Ota { .. } => Kinds::OTA,
        }
    }
}

/// What happened at a device.
#[derive(Debug)]
pub enum Body {
    /// Properties that changed (or whose heartbeat came round), all read at about the same time.
    Properties(Vec<Report>),
    /// An event of the product fired.
    Event {
        /// Id in the product.
        event: Arc<str>,
        /// How much it matters.
        level: Level,
        /// Named parameters.
        params: Vec<(Arc<str>, Value)>,
    },
    /// An alarm was raised or has cleared.
    Alarm {
        /// The rule that fired.
        rule: Arc<AlarmRule>,
        /// Position in the product's properties.
        property: usize,
        /// true when raised, false when cleared.
        raised: bool,
        /// The value that did it.
        value: Value,
        /// Every alarm that is raised on this device after this message, by rule id, in raising order.
        active: Vec<Arc<str>>,
    },
    /// The device came online or went offline.
    Presence {
        /// Which of the two.
        online: bool,
        /// Why, in words, when it went offline.
        reason: Option<Arc<str>>,
    },
    /// The device published something that is passed on as it came.
    Publish {
        /// Where: a topic for MQTT.
        topic: Arc<str>,
        /// What, as text; undecodable bytes are replaced.
        payload: Arc<str>,
    },
    /// A client's command is on its way to the device.
    Sent {
        /// The command, as all sessions may see it.
        command: Arc<CommandNote>,
    },
    /// A command has its outcome.
    Reply {
        /// The command, as all sessions may see it.
        command: Arc<CommandNote>,
        /// What became of it.
        outcome: Arc<Outcome>,
    },
    /// Progress of a firmware update.
    Ota {
        /// Percent 0..=100, or the device's own negative failure code.
        step: i32,
        /// In the device's words.
        detail: Arc<str>,
    },
}

/// One reported property.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Position in the product's properties.
    pub property: usize,
    /// The property's id, so that a renderer needs no lookup.
    pub id: Arc<str>,
    /// The value.
    pub value: Value,
    /// When the device gave it.
    pub at: UnixMillis,
    /// How good it is.
    pub quality: Quality,
}

/// What sessions other than the sender may know of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandNote {
    /// The sender's message id, or one that the hub made.
    pub message_id: Arc<str>,
    /// Read, write or invoke.
    pub kind: ActionKind,
    /// The function of an invoke.
    pub function: Option<Arc<str>>,
    /// Property values of a write, inputs of an invoke, properties of a read (with null values).
    pub values: Vec<(Arc<str>, Value)>,
    /// Id of the client that sent it.
    pub client: Arc<str>,
}

/// A set of message kinds, as a subscription names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// Property reports.
    pub const PROPERTIES: Self = Self(1);
    /// Events.
    pub const EVENT: Self = Self(2);
    /// Alarms.
    pub const ALARM: Self = Self(4);
    /// Online and offline.
    pub const PRESENCE: Self = Self(8);
    /// Raw publishes.
    pub const PUBLISH: Self = Self(16);
    /// Commands on their way down.
    pub const SENT: Self = Self(32);
    /// Outcomes of commands.
    pub const REPLY: Self = Self(64);
    /// Firmware update progress.
    pub const OTA: Self = Self(128);
    /// Everything.
    pub const ALL: Self = Self(255);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as stored records write it: a bit for each kind, in the order of the constants above.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The set that [`Kinds::bits`] gave; bits without a kind are passed over.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether the sets share a kind.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A rendered form that is kept beside a message. All of them are numbered here, since no two may share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form(usize);

impl Form {
    /// Janus MESSAGE body.
    pub const JANUS: Self = Self(0);
    /// SagooIoT/JetLinks live payload.
    pub const SAGOO: Self = Self(1);
    /// iThings devicePropertyReportV2, or the only push of any other kind of message.
    pub const ITHINGS: Self = Self(2);
    /// OAM alarm body.
    pub const OAM_ALARM: Self = Self(3);
    /// OAM stream samples.
    pub const OAM_STREAM: Self = Self(4);
    /// U+ flat push.
    pub const UPLUS_FLAT: Self = Self(5);
    /// U+ envelope push.
    pub const UPLUS_ENVELOPE: Self = Self(6);
    /// iThings devicePropertyReport: one push for each property, one per line.
    pub const ITHINGS_EACH: Self = Self(7);

    fn slot(self) -> usize {
        self.0
    }
}

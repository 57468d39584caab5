//! What can be subscribed: topics, keys, and a pair of them as a relation of the group.
//!
//! A kind of device message belongs to at most one topic, and the hub gives a group at most one copy of a message,
//! so that a message is pushed once however many relations admit it. A relation's label is all that the group
//! keeps of it; it can be read back.

use std::sync::Arc;

use super::Desc;
use crate::model::client::Client;
use crate::model::directory::Directory;
use crate::model::interest::{self, Interest, Selector};
use crate::model::message::Kinds;

/// The topics of the vendor's table, and the message of its family page. Those that no device here feeds can be
/// subscribed and stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Online and offline.
    Event,
    /// Alarms.
    Fault,
    /// Property reports.
    Status,
    /// Binding of users; never fed.
    Auth,
    /// What a device publishes beside its properties, as it came.
    BigData,
    /// Events of the product.
    Custom,
    /// Firmware updates.
    Firmware,
    /// Commands on their way and their outcomes.
    Operation,
    /// Events common to all products; never fed.
    CommonEvent,
    /// Homes and rooms; never fed.
    Family,
}

impl Topic {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::Event,
        Self::Fault,
        Self::Status,
        Self::Auth,
        Self::BigData,
        Self::Custom,
        Self::Firmware,
        Self::Operation,
        Self::CommonEvent,
        Self::Family,
    ];

    /// As it is written on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Event => "DEV_EVENT",
            Self::Fault => "DEV_FAULT",
            Self::Status => "DEV_STATUS",
            Self::Auth => "DEV_AUTH",
            Self::BigData => "DEV_BIGDATA",
            Self::Custom => "DEV_CUSTOM",
            Self::Firmware => "DEV_FIRMWARE",
            Self::Operation => "DEV_OPERATION",
            Self::CommonEvent => "DEV_COMMON_EVENT",
            Self::Family => "DEV_FAMILY",
        }
    }

    /// By its name, exact.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    fn kinds(self) -> Kinds {
        match self {
            Self::Event => Kinds::PRESENCE,
            Self::Fault => Kinds::ALARM,
            Self::Status => Kinds::PROPERTIES,
            Self::BigData => Kinds::PUBLISH,
            Self::Custom => Kinds::EVENT,
            Self::Firmware => Kinds::OTA,
            Self::Operation => Kinds::SENT.with(Kinds::REPLY),
            Self::Auth | Self::CommonEvent | Self::Family => Kinds::NONE,
        }
    }
}

/// Which devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Those of a typeId, or `*` for all, or `0*`, `1*`, `2*` for those whose typeId starts so.
    Type(Arc<str>),
    /// One.
    Device {
        /// Its product's typeId.
        type_id: Arc<str>,
        /// Its U+ deviceId, in upper case.
        mac: Arc<str>,
    },
}

impl Key {
    /// Whether the typeId part is a full one or a wildcard where one may stand.
    pub(super) fn well_formed(&self) -> bool {
        match self {
            Self::Type(pattern) => is_every(pattern) || prefix(pattern).is_some() || is_type_id(pattern),
            Self::Device { type_id, .. } => is_type_id(type_id),
        }
    }

    /// The devices that the key stands for, if the client may subscribe to it: a typeId or device must exist and be
    /// visible; a wildcard stands for whatever is visible.
    fn selector(&self, client: &Client, directory: &Directory) -> Option<Selector> {
        if !client.rights.read {
            return None;
        }
        match self {
            Self::Type(pattern) if is_every(pattern) => Some(Selector::All),
            Self::Type(pattern) => match prefix(pattern) {
                Some(start) => Some(Selector::TypeIdPrefix(start.into())),
                None => directory
                    .devices()
                    .iter()
                    .any(|device| device.product.type_id == *pattern && client.sees(device))
                    .then(|| Selector::TypeId(Arc::clone(pattern))),
            },
            Self::Device { type_id, mac } => directory
                .by_mac(mac)
                .filter(|device| device.product.type_id == *type_id && client.sees(device))
                .map(|device| Selector::Device(Arc::clone(&device.id))),
        }
    }
}

/// A topic for some devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Relation {
    /// What is told.
    pub(super) topic: Topic,
    /// Of whom.
    pub(super) key: Key,
}

impl Relation {
    /// The relation as the hub's group keeps it, or `None` if the client may not have it.
    pub(super) fn grant(&self, client: &Client, directory: &Directory) -> Option<interest::Relation> {
        let selector = self.key.selector(client, directory)?;
        let interest = Interest { selector, kinds: self.topic.kinds() };
        Some(interest::Relation { label: self.label(), interest })
    }

    /// The relation's name in the group. None of the parts can hold a space.
    pub(super) fn label(&self) -> Arc<str> {
        let topic = self.topic.name();
        match &self.key {
            Key::Type(type_id) => format!("{topic} {type_id}").into(),
            Key::Device { type_id, mac } => format!("{topic} {type_id} {mac}").into(),
        }
    }

    /// Reads a label back.
    pub(super) fn from_label(label: &str) -> Option<Self> {
        let mut parts = label.split(' ');
        let topic = Topic::named(parts.next()?)?;
        let type_id = Arc::from(parts.next()?);
        let key = match parts.next() {
            None => Key::Type(type_id),
            Some(mac) => Key::Device { type_id, mac: mac.into() },
        };
        Some(Self { topic, key })
    }

    /// The name in an ack's `desc`. For a device it has the form of the later pages, which alone know it.
    pub(super) fn described(&self, form: Desc) -> String {
        let topic = self.topic.name();
        match (&self.key, form) {
            (Key::Type(type_id), Desc::Online) => format!("{type_id}_online_{topic}"),
            (Key::Type(type_id), Desc::Plain) => format!("{type_id}_{topic}"),
            (Key::Device { type_id, mac }, _) => format!("{type_id}_{mac}_{topic}"),
        }
    }
}

/// Whether the pattern stands for every device.
pub(super) fn is_every(pattern: &str) -> bool {
    pattern == "*"
}

/// The first character that `0*`, `1*` or `2*` ask for.
pub(super) fn prefix(pattern: &str) -> Option<&str> {
    pattern.strip_suffix('*').filter(|start| ["0", "1", "2"].contains(start))
}

/// The vendor's samples have 33 to 64 characters, mostly hex, and its test ids are not; anything of this form may
/// be configured.
fn is_type_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::uplus::tests::{PRESS, client, context, seeing};

    #[test]
    fn each_kind_of_message_belongs_to_exactly_one_topic() {
        let kinds = [
            Kinds::PROPERTIES,
            Kinds::EVENT,
            Kinds::ALARM,
            Kinds::PRESENCE,
            Kinds::PUBLISH,
            Kinds::SENT,
            Kinds::REPLY,
            Kinds::OTA,
        ];
        for kind in kinds {
            let topics = Topic::ALL.into_iter().filter(|topic| topic.kinds().meets(kind)).count();
            assert_eq!(topics, 1, "{kind:?}");
        }
    }

    #[test]
    fn a_label_reads_back_as_its_relation() {
        for topic in Topic::ALL {
            for key in [
                Key::Type("*".into()),
                Key::Type("0*".into()),
                Key::Type(PRESS.into()),
                Key::Device { type_id: PRESS.into(), mac: "0000000000A1".into() },
            ] {
                let relation = Relation { topic, key };
                assert_eq!(Relation::from_label(&relation.label()), Some(relation));
            }
        }
        assert_eq!(Relation::from_label("DEV_NOTHING x"), None);
        assert_eq!(Relation::from_label("DEV_EVENT"), None);
    }

    #[test]
    fn the_form_of_a_type_id_is_checked() {
        let long = "a".repeat(128);
        for good in ["a", "A.b_c-9", "*", "0*", "1*", "2*", long.as_str()] {
            assert!(Key::Type(good.into()).well_formed(), "{good}");
        }
        let too_long = "a".repeat(129);
        for bad in ["", "3*", "00*", "**", "a b", "ä", "a*", too_long.as_str()] {
            assert!(!Key::Type(bad.into()).well_formed(), "{bad}");
        }
        for wildcard in ["*", "0*"] {
            let key = Key::Device { type_id: wildcard.into(), mac: "0000000000A1".into() };
            assert!(!key.well_formed(), "{wildcard}");
        }
    }

    #[test]
    fn only_what_exists_and_is_visible_is_granted() {
        let context = context(None);
        let grants = |client: &Client, key: Key| {
            Relation { topic: Topic::Event, key }.grant(client, &context.directory).is_some()
        };
        let everything = client();
        let meters = seeing(["meter-*"]);
        let press = || Key::Type(PRESS.into());
        let device = |type_id: &str, mac: &str| Key::Device { type_id: type_id.into(), mac: mac.into() };
        assert!(grants(&everything, press()));
        assert!(!grants(&meters, press()));
        assert!(!grants(&everything, Key::Type("nothing-of-ours".into())));
        assert!(grants(&everything, device(PRESS, "0000000000A1")));
        assert!(!grants(&everything, device("eastron-sdm120", "0000000000A1")));
        assert!(!grants(&everything, device(PRESS, "0000000000FF")));
        assert!(!grants(&meters, device(PRESS, "0000000000A1")));
        assert!(grants(&meters, Key::Type("*".into())));
        let mut blind = everything;
        blind.rights.read = false;
        assert!(!grants(&blind, Key::Type("*".into())));
    }
}

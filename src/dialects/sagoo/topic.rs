//! Live topics: `/device/{product}/{device}/...`, what a subscription's pattern admits and where a message appears.
//!
//! In a pattern `*` and `{name}` stand for one level, `**` for any number, and a level may list names with commas,
//! as in the topics of the JetLinks server.

use std::sync::Arc;

use crate::model::command::ActionKind;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};

/// Most levels of a pattern. The deepest topic that is ever published has seven.
const LEVELS: usize = 16;

/// Most names in one level of a pattern. Each is kept while the pattern is subscribed, and takes many times its text.
const NAMES: usize = 256;

/// Most selectors that one pattern is turned into; a pattern that names more devices is given every message, of
/// which it still admits only its own.
const SELECTORS: usize = 32;

/// First level of every live topic.
const ROOT: &str = "device";

/// The kinds of message and where they appear below their device. `None` stands for any name.
const PLACES: [(Kinds, &[Option<&str>]); 13] = [
    (Kinds::PROPERTIES, &[Some("message"), Some("property"), Some("report")]),
    (Kinds::PRESENCE, &[Some("online")]),
    (Kinds::PRESENCE, &[Some("offline")]),
    (Kinds::EVENT, &[Some("message"), Some("event"), None]),
    (Kinds::ALARM, &[Some("message"), Some("event"), None]),
    (Kinds::PUBLISH, &[Some("message"), Some("direct")]),
    (Kinds::SENT, &[Some("message"), Some("send"), Some("property"), Some("read")]),
    (Kinds::SENT, &[Some("message"), Some("send"), Some("property"), Some("write")]),
    (Kinds::SENT, &[Some("message"), Some("send"), Some("function")]),
    (Kinds::REPLY, &[Some("message"), Some("property"), Some("read"), Some("reply")]),
    (Kinds::REPLY, &[Some("message"), Some("property"), Some("write"), Some("reply")]),
    (Kinds::REPLY, &[Some("message"), Some("function"), Some("reply")]),
    (Kinds::OTA, &[Some("firmware"), Some("progress")]),
];

/// What one subscription admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// `*` or `{name}`.
    One,
    /// `**`.
    Many,
    /// Any of these.
    Names(Vec<Arc<str>>),
}

impl Level {
    /// `None` where it lists more names than it may.
    fn parse(text: &str) -> Option<Self> {
        let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.contains(&"**") {
            Some(Self::Many)
        } else if names.iter().any(|name| *name == "*" || (name.starts_with('{') && name.ends_with('}'))) {
            Some(Self::One)
        } else {
            (names.len() <= NAMES).then(|| Self::Names(names.into_iter().map(Arc::from).collect()))
        }
    }

    /// Whether one level of a topic fits; `None` is a name that is not known yet.
    fn admits(&self, name: Option<&str>) -> bool {
        match self {
            Self::One | Self::Many => true,
            Self::Names(names) => name.is_none_or(|name| names.iter().any(|found| &**found == name)),
        }
    }
}

impl Pattern {
    /// A subscription's topic, if it is one of live messages: at least `/device/{product}/{device}`.
    pub(super) fn parse(topic: &str) -> Option<Self> {
        let mut levels = Vec::new();
        for text in topic.strip_prefix('/')?.split('/').filter(|text| !text.is_empty()) {
            if levels.len() == LEVELS {
                return None;
            }
            levels.push(Level::parse(text)?);
        }
        match levels.as_slice() {
            [Level::Names(root), _, _, ..] if matches!(root.as_slice(), [root] if &**root == ROOT) => {
                Some(Self { levels })
            }
            _ => None,
        }
    }

    /// Whether a message with these levels of its topic appears under the pattern.
    pub(super) fn admits(&self, levels: &[Option<&str>]) -> bool {
        fits(&self.levels, levels)
    }

    /// What the hub must hand over so that nothing is missed.
    pub(super) fn interests(&self) -> Vec<Interest> {
        let kinds = PLACES.iter().fold(Kinds::NONE, |kinds, (kind, place)| {
            let topic: Vec<Option<&str>> =
                [Some(ROOT), None, None].into_iter().chain(place.iter().copied()).collect();
            if fits(&self.levels, &topic) { kinds.with(*kind) } else { kinds }
        });
        if kinds == Kinds::NONE {
            return Vec::new();
        }
        self.selectors().into_iter().map(|selector| Interest { selector, kinds }).collect()
    }

    fn selectors(&self) -> Vec<Selector> {
        match self.levels.as_slice() {
            [_, Level::One | Level::Names(_), Level::Names(devices), ..] if devices.len() <= SELECTORS => {
                devices.iter().map(|device| Selector::Device(Arc::clone(device))).collect()
            }
            [_, Level::Names(products), ..] if products.len() <= SELECTORS => {
                products.iter().map(|product| Selector::Product(Arc::clone(product))).collect()
            }
            _ => vec![Selector::All],
        }
    }
}

/// Few enough steps: a topic has at most seven levels, and every way through it uses one up or passes a `**`.
fn fits(pattern: &[Level], topic: &[Option<&str>]) -> bool {
    match (pattern.split_first(), topic.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((Level::Many, rest)), None) => fits(rest, topic),
        (Some((Level::Many, rest)), Some((_, tail))) => fits(rest, topic) || fits(pattern, tail),
        (Some((Level::One | Level::Names(_), _)), None) => false,
        (Some((level, rest)), Some((name, tail))) => level.admits(*name) && fits(rest, tail),
    }
}

/// The topic that a message appears under.
pub(super) fn of(message: &DeviceMessage) -> String {
    levels(message).into_iter().flatten().fold(String::new(), |mut topic, level| {
        topic.push('/');
        topic.push_str(level);
        topic
    })
}

/// The levels of that topic; all of them are known.
pub(super) fn levels(message: &DeviceMessage) -> Vec<Option<&str>> {
    let below: &[&str] = match &message.body {
        Body::Properties(_) => &["message", "property", "report"],
        Body::Event { event, .. } => &["message", "event", event],
        Body::Alarm { rule, .. } => &["message", "event", &rule.id],
        Body::Presence { online: true, .. } => &["online"],
        Body::Presence { online: false, .. } => &["offline"],
        Body::Publish { .. } => &["message", "direct"],
        Body::Sent { command } => match command.kind {
            ActionKind::Read => &["message", "send", "property", "read"],
            ActionKind::Write => &["message", "send", "property", "write"],
            ActionKind::Invoke => &["message", "send", "function"],
        },
        Body::Reply { command, .. } => match command.kind {
            ActionKind::Read => &["message", "property", "read", "reply"],
            ActionKind::Write => &["message", "property", "write", "reply"],
            ActionKind::Invoke => &["message", "function", "reply"],
        },
        Body::Ota { .. } => &["firmware", "progress"],
    };
    let device = &message.device;
    [ROOT, &*device.product.id, &*device.id].into_iter().chain(below.iter().copied()).map(Some).collect()
}

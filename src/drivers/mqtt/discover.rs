//! Rules by which devices appear by themselves: under which topics, as what, and how many of them.
//!
//! Pure. A rule reads a topic that may come from anybody, so it takes nothing from it but short plain names, and what it
//! makes of them is a device like any other. Who was found, and who may not be, is known in [`super::state`].

use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use super::MqttDevice;
use super::body::{Body, When};
use super::map::MqttMap;
use super::route::is_filter;
use crate::model::device::Device;
use crate::model::identity;
use crate::model::product::Product;

/// Devices of one rule that does not say how many. A flat has fewer; a broker on which somebody makes topics up is
/// noticed before it has cost anything.
pub const USUAL_LIMIT: usize = 64;

/// Longest name that is taken out of a topic, in bytes: as long as the topic of a configured device may be.
pub const LONGEST_NAME: usize = 256;

/// The name in braces that every pattern has.
pub const DEVICE: &str = "device";

/// What else may stand in braces without being in the pattern.
pub const GATEWAY: &str = "gateway";

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Topics that make a device appear.
    pub pattern: Pattern,
    /// Highest QoS that is asked for there.
    pub qos: u8,
    /// Whether messages that the broker had kept count.
    pub retained: bool,
    /// What a message must say besides.
    pub when: Option<When>,
    /// Globs over the device's name, of which one must fit; none lets all in.
    pub allow: Vec<WildMatch>,
    /// Globs over the device's name, of which none may fit.
    pub deny: Vec<WildMatch>,
    /// Most devices.
    pub limit: usize,
    /// Devices that were silent for so long are forgotten; `None` keeps them.
    pub forget_after: Option<Duration>,
    /// Templates of the device's id, its name for people, and what stands for `{topic}` in its product's topics.
    pub id: Arc<str>,
    /// See `id`.
    pub name: Arc<str>,
    /// See `id`.
    pub topic: Arc<str>,
    /// What its devices are.
    pub product: Arc<Product>,
    /// How that travels.
    pub map: Arc<MqttMap>,
    /// The broker link.
    pub link: Arc<str>,
    /// The gateway's id, from which identities derive.
    pub gateway: Arc<str>,
    /// As with a configured device.
    pub project: Arc<str>,
    /// As with a configured device.
    pub area: Arc<str>,
    /// As with a configured device.
    pub tags: Vec<Arc<str>>,
}

/// The names that a topic gave, each with what it stands for.
pub type Captures<'t> = Vec<(Arc<str>, &'t str)>;

impl Rule {
    /// The names in a topic, if a message there makes a device appear.
    pub fn admits<'t>(&self, topic: &'t str, body: &Body<'_>, retained: bool) -> Option<Captures<'t>> {
        if retained && !self.retained {
            return None;
        }
        let captures = self.pattern.captures(topic)?;
        let name = captures.iter().find(|(name, _)| &**name == DEVICE).map(|(_, value)| *value)?;
        let fits = |globs: &[WildMatch]| globs.iter().any(|glob| glob.matches(name));
        let admitted = (self.allow.is_empty() || fits(&self.allow)) && !fits(&self.deny);
        (admitted && self.when.as_ref().is_none_or(|when| when.holds(body))).then_some(captures)
    }

    /// What stands for `{topic}` in the topics of the device of these names.
    pub fn topic_of(&self, captures: &Captures<'_>) -> Arc<str> {
        self.fill(&self.topic, captures).into()
    }

    /// The id of the device of these names.
    pub fn id_of(&self, captures: &Captures<'_>) -> Arc<str> {
        identity::id(&self.fill(&self.id, captures)).into()
    }

    /// The device of these names.
    pub fn device(&self, captures: &Captures<'_>) -> MqttDevice {
        let id = self.id_of(captures);
        let device = Device {
            name: self.fill(&self.name, captures).into(),
            product: Arc::clone(&self.product),
            link: Arc::clone(&self.link),
            project: Arc::clone(&self.project),
            area: Arc::clone(&self.area),
            tags: self.tags.clone(),
            uuid: identity::uuid(&self.gateway, &id).into(),
            mac: identity::mac(&self.gateway, &id).into(),
            id,
        };
        let topic = self.topic_of(captures);
        MqttDevice { device: Arc::new(device), topic, map: Arc::clone(&self.map) }
    }

    fn fill(&self, template: &str, captures: &Captures<'_>) -> String {
        // What is filled in has no braces, so that it is never filled itself.
        let text = template.replace(&format!("{{{GATEWAY}}}"), &self.gateway);
        captures.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }
}

/// A topic with names in braces in the place of some of its parts, such as `zigbee2mqtt/{device}` or
/// `shellies/shellyplug-s-{device}/relay/0`; `+` and `#` as in filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    filter: Arc<str>,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Exact(Box<str>),
    Any,
    Rest,
    Named { before: Box<str>, name: Arc<str>, after: Box<str> },
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No device has a name then.
    #[error("{{device}} must stand in it, once")]
    Nameless,
    /// It could not be told where one ends.
    #[error("only one name in braces can stand between two slashes")]
    Crowded,
    /// The same name for two parts.
    #[error("a name in braces can stand in it only once")]
    Twice,
    /// A brace without the other, or with something else between them.
    #[error("a name in braces has letters, digits, '_' and '-'")]
    Braces,
    /// No broker would take it.
    #[error("+ and # stand alone between slashes, # only at the end")]
    Filter,
    /// Those are the broker's own.
    #[error("topics that begin with $ belong to the broker")]
    System,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut levels = Vec::new();
        let mut filter = Vec::new();
        let mut names: Vec<Arc<str>> = Vec::new();
        for level in text.split('/') {
            let level = Level::parse(level)?;
            if let Level::Named { name, .. } = &level {
                if names.contains(name) {
                    return Err(PatternError::Twice);
                }
                names.push(Arc::clone(name));
            }
            filter.push(level.filter().to_owned());
            levels.push(level);
        }
        let filter = filter.join("/");
        if text.starts_with('$') {
            return Err(PatternError::System);
        }
        if !is_filter(&filter) {
            return Err(PatternError::Filter);
        }
        if !names.iter().any(|name| &**name == DEVICE) {
            return Err(PatternError::Nameless);
        }
        Ok(Self { text: text.into(), filter: filter.into(), levels })
    }

    /// As it was written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What to subscribe to.
    pub fn filter(&self) -> &Arc<str> {
        &self.filter
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.levels.iter().filter_map(|level| match level {
            Level::Named { name, .. } => Some(name),
            Level::Exact(_) | Level::Any | Level::Rest => None,
        })
    }

    /// What its names stand for in a topic that fits.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        if topic.starts_with('$') {
            return None;
        }
        let mut captures = Vec::new();
        let mut given = topic.split('/');
        for level in &self.levels {
            match level {
                Level::Rest => return Some(captures),
                Level::Any => drop(given.next()?),
                Level::Exact(wanted) => {
                    given.next().filter(|level| *level == &**wanted)?;
                }
                Level::Named { before, name, after } => {
                    let value = given.next()?.strip_prefix(&**before)?.strip_suffix(&**after)?;
                    is_name(value).then(|| captures.push((Arc::clone(name), value)))?;
                }
            }
        }
        given.next().is_none().then_some(captures)
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let Some((before, rest)) = text.split_once('{') else {
            return match text {
                "+" => Ok(Self::Any),
                "#" => Ok(Self::Rest),
                _ if text.contains('}') => Err(PatternError::Braces),
                _ => Ok(Self::Exact(text.into())),
            };
        };
        let (name, after) = rest.split_once('}').ok_or(PatternError::Braces)?;
        if after.contains('{') {
            return Err(PatternError::Crowded);
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            return Err(PatternError::Braces);
        }
        if before.contains(['}', '+', '#']) || after.contains(['}', '+', '#']) {
            return Err(PatternError::Filter);
        }
        Ok(Self::Named { before: before.into(), name: name.into(), after: after.into() })
    }

    fn filter(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Any | Self::Named { .. } => "+",
            Self::Rest => "#",
        }
    }
}

/// Whether a part of a topic can be a name: short, and without anything that means something in topics, templates or logs.
fn is_name(text: &str) -> bool {
    let strange =
        |c: char| c.is_control() || matches!(c, '{' | '}' | '+' | '#' | char::REPLACEMENT_CHARACTER);
    (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(strange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::mqtt::route::matches;

    fn found<'t>(pattern: &str, topic: &'t str) -> Option<Vec<(String, &'t str)>> {
        let captures = Pattern::parse(pattern).unwrap().captures(topic)?;
        Some(captures.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    }

    #[test]
    fn names_are_taken_out_of_the_topics_that_fit() {
        let device = |value| Some(vec![("device".to_owned(), value)]);
        for (pattern, topic, expected) in [
            ("zigbee2mqtt/{device}", "zigbee2mqtt/Küche Lampe", device("Küche Lampe")),
            ("zigbee2mqtt/{device}", "zigbee2mqtt/lamp/availability", None),
            ("zigbee2mqtt/{device}", "zigbee2mqtt/", None),
            ("tele/{device}/STATE", "tele/plug/STATE", device("plug")),
            ("tele/{device}/STATE", "tele/plug/SENSOR", None),
            ("shellies/shellyplug-s-{device}/relay/0", "shellies/shellyplug-s-ABC/relay/0", device("ABC")),
            ("shellies/shellyplug-s-{device}/relay/0", "shellies/shellyplug-s-/relay/0", None),
            ("{device}/online", "shelly-1/online", device("shelly-1")),
            ("{device}/online", "$SYS/online", None),
            ("+/{device}/#", "a/b", device("b")),
            ("+/{device}/#", "a/b/c/d", device("b")),
            ("x/{device}", "x/a\u{7}b", None),
            ("x/{device}", "x/a{device}", None),
        ] {
            assert_eq!(found(pattern, topic), expected, "{pattern} {topic:?}");
        }
        let long = format!("x/{}", "a".repeat(LONGEST_NAME + 1));
        assert_eq!(found("x/{device}", &long), None);
        let rooms = found("{site}/{device}/state", "barn/7/state");
        assert_eq!(rooms, Some(vec![("site".to_owned(), "barn"), ("device".to_owned(), "7")]));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for (text, error) in [
            ("a/b", PatternError::Nameless),
            ("a/{room}", PatternError::Nameless),
            ("{device}{room}", PatternError::Crowded),
            ("{device}/{device}", PatternError::Twice),
            ("{device", PatternError::Braces),
            ("{}/{device}", PatternError::Braces),
            ("a}/{device}", PatternError::Braces),
            ("#/{device}", PatternError::Filter),
            ("+a/{device}", PatternError::Filter),
            ("+{device}", PatternError::Filter),
            ("$SYS/{device}", PatternError::System),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_topic_that_fits_a_pattern_comes_by_its_filter_and_gives_each_name_once(
            pattern in "([ab+]|[ab]?\\{(device|room)\\}[ab]?)(/([ab+]|[ab]?\\{(device|room)\\}[ab]?)){0,3}(/#)?",
            topic in "[ab$]{0,3}(/[ab]{0,3}){0,4}",
        ) {
            let Ok(pattern) = Pattern::parse(&pattern) else { return Ok(()) };
            if let Some(captures) = pattern.captures(&topic) {
                prop_assert!(matches(pattern.filter(), &topic), "{} {}", pattern.filter(), topic);
                prop_assert_eq!(captures.len(), pattern.names().count());
                prop_assert!(captures.iter().all(|(_, value)| is_name(value) && topic.contains(value)));
            }
        }

        #[test]
        fn no_text_panics(pattern in any::<String>(), topic in any::<String>()) {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                prop_assert!(is_filter(pattern.filter()));
                pattern.captures(&topic);
            }
            if let Ok(pattern) = Pattern::parse(&format!("{pattern}/{{device}}")) {
                pattern.captures(&topic);
            }
        }
    }
}

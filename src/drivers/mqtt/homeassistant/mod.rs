//! Devices that announce themselves as Home Assistant's MQTT discovery has it: `homeassistant/sensor/plug/power/config` with
//! an entity, or `homeassistant/device/plug/config` with all of a device.
//!
//! Pure: payloads in, products and their maps out. Nothing of a payload is believed further than its form: topics are plain
//! ones, ids are made of what an id can have, and all is bounded by the limits below. What a device announces that is not
//! understood is left out and named, never guessed.
//!
//! ```text
//! payload --keys--> long names, topics   --entity--> properties, functions, events of one entity
//!                                        --product--> one device with one product
//! ```
//!
//! Source: Home Assistant's pages "MQTT" (section "MQTT Discovery") and of each MQTT platform, and the abbreviations that
//! `homeassistant/components/mqtt/abbreviations.py` of home-assistant/core lists. `tests/products/homeassistant` has what
//! programs and devices publish.

use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use crate::model::product::ReportRule;

mod climate;
mod entity;
pub mod jinja;
mod keys;
mod kinds;
mod light;
mod product;

pub use self::entity::{Entity, Fault};
pub use self::product::{Announced, Mode, ParseError, parse};

/// Where devices announce themselves when the configuration does not say.
pub const USUAL_PREFIX: &str = "homeassistant";

/// Largest announcement, in bytes; a larger one is refused like one that cannot be read. Those of an entity have about one
/// thousand, those of a whole device with forty entities some thirty thousand.
pub const LARGEST: usize = 64 << 10;

/// Entities that one device may have; further ones are left out, in the order of their topics.
pub const ENTITIES: usize = 128;

/// Topics of one broker on which something is announced, also if it is left out; of a further one nothing is kept, and it is
/// counted as unwelcome.
pub const TOPICS: usize = 4096;

/// Bytes of all announcements of one broker that are known; see [`TOPICS`] for when there are more.
pub const BYTES: usize = 4 << 20;

/// How a broker's announcements are taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheme {
    /// What their topics begin with.
    pub prefix: Arc<str>,
    /// Globs over ids and names of devices, of which one must fit; none lets all in.
    pub allow: Vec<WildMatch>,
    /// Globs over ids and names of devices, of which none may fit.
    pub deny: Vec<WildMatch>,
    /// Most devices.
    pub limit: usize,
    /// When clients hear of the readings.
    pub report: ReportRule,
    /// When a reading is stale that does not say so itself.
    pub stale_after: Option<Duration>,
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

impl Scheme {
    /// What to subscribe to.
    pub fn filters(&self) -> [Arc<str>; 2] {
        ["+/+/config", "+/+/+/config"].map(|rest| format!("{}/{rest}", self.prefix).into())
    }

    /// Whether a device of this id and name may appear.
    pub fn admits(&self, id: &str, name: &str) -> bool {
        let fits = |globs: &[WildMatch]| globs.iter().any(|glob| glob.matches(id) || glob.matches(name));
        (self.allow.is_empty() || fits(&self.allow)) && !fits(&self.deny)
    }

    /// The parts of a topic on which something is announced.
    pub fn place<'t>(&self, topic: &'t str) -> Option<ConfigTopic<'t>> {
        let rest = topic.strip_prefix(&*self.prefix)?.strip_prefix('/')?.strip_suffix("/config")?;
        let mut levels = rest.split('/');
        let (component, second, third) = (levels.next()?, levels.next()?, levels.next());
        let ended = levels.next().is_none();
        let (node, object) = third.map_or((None, second), |third| (Some(second), third));
        let full = ![component, second, object].contains(&"");
        (ended && full).then_some(ConfigTopic { component, node, object })
    }
}

/// `<component>/[<node>/]<object>` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigTopic<'t> {
    /// What is announced: the kind of entity, or `device`.
    pub component: &'t str,
    /// Where the topics of one device stand together.
    pub node: Option<&'t str>,
    /// The entity's or device's own name there.
    pub object: &'t str,
}

#[cfg(test)]
pub(in crate::drivers::mqtt) mod tests;

//! Devices that appear under a rule's pattern, and are forgotten again.
//!
//! Pure. Whatever arrives, there are never more than the rules allow, and nothing is kept of who is not taken in but its
//! id, which somebody else has: of names that are made up only a count remains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::super::MqttDevice;
use super::super::body::Body;
use super::super::discover::Rule;
use super::super::packet::Message;
use super::super::station::Station;
use super::State;
use crate::drivers::Observation;
use crate::drivers::announce::{FOUND_DEVICES, Unwelcome};
use crate::model::device::Device;
use crate::model::time::Now;

/// How long an id that another device has, or a gateway that has found enough, is taken for granted. Nobody tells the
/// driver when that ends, and asking for each message would disturb everybody.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(600);

/// What is known of the rules.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    rules: Vec<Watch>,
    /// Patterns of rules that were not there before: what the broker has kept under them is wanted again.
    fresh: Vec<Arc<str>>,
    /// Ids that cannot be had, until when. They are those of other devices, and there are not many; when full all are
    /// asked for again.
    refused: BTreeMap<Arc<str>, Instant>,
    /// Until when the gateway takes nobody in.
    full_until: Option<Instant>,
    /// What is to be announced.
    come: Vec<Arc<Device>>,
    gone: Vec<Arc<str>>,
    pub(super) unwelcome: u64,
}

/// A rule at work.
#[derive(Debug)]
struct Watch {
    rule: Arc<Rule>,
    devices: usize,
    /// Whether it was said that there are enough.
    warned: bool,
}

/// How a device came here by itself.
#[derive(Debug)]
pub(in super::super) struct Origin {
    /// By which rule; `None` for one that has announced itself.
    pub(super) rule: Option<Arc<Rule>>,
    /// When there was the last sign of it, on this connection.
    pub(in super::super) heard: Instant,
}

/// What the rest of the gateway is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announcement {
    /// Devices that were found.
    pub come: Vec<Arc<Device>>,
    /// Ids of those that are no more.
    pub gone: Vec<Arc<str>>,
}

impl Discovery {
    /// Whether a device that came by its rule may stay under it.
    pub(super) fn keeps(&self, origin: &mut Origin) -> bool {
        let Some(watch) = self.rules.iter().find(|watch| Some(&watch.rule) == origin.rule.as_ref()) else {
            return false;
        };
        origin.rule = Some(Arc::clone(&watch.rule));
        true
    }

    /// These are all.
    pub(super) fn count(&mut self, stations: &BTreeMap<usize, Station>) {
        self.rules.iter_mut().for_each(|watch| watch.devices = 0);
        for origin in stations.values().filter_map(|station| station.origin.as_ref()) {
            if let Some(watch) = self.rules.iter_mut().find(|watch| origin.is_of(&watch.rule)) {
                watch.devices += 1;
            }
        }
    }

    /// Other rules, without devices at first.
    pub(super) fn begin(&mut self, rules: &[Arc<Rule>]) {
        let is_new = |rule: &&Arc<Rule>| !self.rules.iter().any(|watch| watch.rule == **rule);
        self.fresh.extend(rules.iter().filter(is_new).map(|rule| Arc::clone(rule.pattern.filter())));
        let watch = |rule: &Arc<Rule>| Watch { rule: Arc::clone(rule), devices: 0, warned: false };
        self.rules = rules.iter().map(watch).collect();
        self.refused.clear();
        self.full_until = None;
    }

    /// Filters that the rules want, with their QoS.
    pub(super) fn filters(&self) -> Vec<(Arc<str>, u8)> {
        self.rules.iter().map(|watch| (Arc::clone(watch.rule.pattern.filter()), watch.rule.qos)).collect()
    }

    /// Patterns under which nobody has looked yet.
    pub(super) fn take_fresh(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.fresh)
    }

    /// A device is known again, or no more.
    pub(super) fn announce(&mut self, device: &Arc<Device>) {
        self.come.push(Arc::clone(device));
    }

    /// A device has gone that came by itself.
    pub(super) fn forget(&mut self, origin: &Origin, id: &Arc<str>) {
        if let Some(watch) = self.rules.iter_mut().find(|watch| origin.is_of(&watch.rule)) {
            watch.devices = watch.devices.saturating_sub(1);
            watch.warned = false;
        }
        self.come.retain(|device| device.id != *id);
        self.gone.push(Arc::clone(id));
    }

    /// The rules, in their order.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|watch| &watch.rule)
    }

    /// What the broker has kept under these filters is wanted again.
    pub(super) fn ask_again(&mut self, filters: impl Iterator<Item = Arc<str>>) {
        self.fresh.extend(filters);
    }

    pub(super) fn is_refused(&mut self, id: &str, now: Instant) -> bool {
        if self.full_until.is_some_and(|until| until > now) {
            return true;
        }
        match self.refused.get(id) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.refused.remove(id);
                false
            }
            None => false,
        }
    }

    fn refuse(&mut self, id: &Arc<str>, now: Instant) {
        if self.refused.len() >= FOUND_DEVICES {
            self.refused.clear();
        }
        self.refused.insert(Arc::clone(id), now + REFUSED_FOR);
    }
}

impl Origin {
    /// Whether it has announced itself.
    pub(in super::super) fn is_announced(&self) -> bool {
        self.rule.is_none()
    }

    fn is_of(&self, rule: &Arc<Rule>) -> bool {
        self.rule.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, rule))
    }

    /// When silence will have lasted too long.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        self.heard.checked_add(self.rule.as_ref()?.forget_after?)
    }
}

impl State {
    /// What is to be announced. What [`Self::poll_observation`] has of devices that come may be told only when
    /// [`Self::handle_announced`] has taken the answers.
    pub fn poll_announcement(&mut self) -> Option<Announcement> {
        let discovery = &mut self.discovery;
        let told = Announcement {
            come: std::mem::take(&mut discovery.come),
            gone: std::mem::take(&mut discovery.gone),
        };
        (told != Announcement::default()).then_some(told)
    }

    /// What became of the devices that were announced, in their order. Of those that are not taken in nothing remains.
    pub fn handle_announced(&mut self, come: &[Arc<Device>], answers: &[Result<(), Unwelcome>], now: Now) {
        for (device, answer) in come.iter().zip(answers) {
            let Err(reason) = answer else { continue };
            match reason {
                Unwelcome::Full => self.discovery.full_until = Some(now.instant + REFUSED_FOR),
                Unwelcome::Taken { .. } | Unwelcome::NotNow => self.discovery.refuse(&device.id, now.instant),
            }
            self.announcements.refused(&device.id, now.instant);
            let found = self.stations.iter().find(|(_, station)| station.device.id == device.id);
            if let Some(number) =
                found.filter(|(_, station)| station.origin.is_some()).map(|(number, _)| *number)
            {
                self.remove(number, now);
                // It was never there.
                self.discovery.gone.retain(|id| *id != device.id);
            }
            let is_of = |seen: &Observation| match seen {
                Observation::Values { device: of, .. }
                | Observation::Presence { device: of, .. }
                | Observation::Doubt { device: of }
                | Observation::Event { device: of, .. }
                | Observation::Publish { device: of, .. }
                | Observation::Ota { device: of, .. } => of.id == device.id,
                Observation::Link { .. } | Observation::Accepted { .. } | Observation::Settled { .. } => {
                    false
                }
            };
            self.observations.retain(|seen| !is_of(seen));
        }
    }

    /// Devices here that came by themselves.
    pub fn found(&self) -> usize {
        self.stations.values().filter(|station| station.origin.is_some()).count()
    }

    /// Messages since it was asked last that would have made a device appear, had there been room or another name.
    pub fn take_unwelcome(&mut self) -> u64 {
        std::mem::take(&mut self.discovery.unwelcome)
    }

    /// Looks whether a message makes a device appear: of the rules that it fits, the first counts.
    pub(super) fn discover(&mut self, message: &Message, body: &Body<'_>, now: Now) {
        let topic = message.topic.as_ref();
        // An empty payload only clears a kept message. A topic that a device has by name is nobody else's, and what the
        // gateway says of itself is no device.
        let own = topic.strip_prefix("pentad/").and_then(|rest| rest.strip_prefix(&*self.gateway));
        let is_own = own.is_some_and(|rest| rest.starts_with('/'));
        let is_other = |number| self.stations.get(&number).is_some_and(|station| !station.is_announced());
        let is_known = self.routes.named(topic).any(is_other);
        if self.discovery.rules.is_empty() || body.is_empty() || is_own || is_known {
            return;
        }
        let admits = |watch: &Watch| watch.rule.admits(topic, body, message.retain);
        let found =
            self.discovery.rules.iter().enumerate().find_map(|(at, watch)| Some((at, admits(watch)?)));
        let Some((at, captures)) = found else { return };
        let Some(rule) = self.discovery.rules.get(at).map(|watch| Arc::clone(&watch.rule)) else { return };
        let (place, id) = (rule.topic_of(&captures), rule.id_of(&captures));
        let is_it = |station: &Station| station.is_at(&place, &rule.product.id);
        if self.stations.values().any(is_it) {
            return;
        }
        if self.discovery.is_refused(&id, now.instant) {
            self.discovery.unwelcome += 1;
            return;
        }
        let Some(watch) = self.discovery.rules.get_mut(at) else { return };
        if watch.devices >= rule.limit {
            self.discovery.unwelcome += 1;
            if !std::mem::replace(&mut watch.warned, true) {
                warn!(
                    pattern = %rule.pattern.text(), product = %rule.product.id, limit = rule.limit, topic,
                    "as many devices have appeared as may; further ones are only counted"
                );
            }
            return;
        }
        if let Some(other) = self.stations.values().find(|station| station.device.id == id) {
            let reason = Unwelcome::Taken { what: "id", of: Arc::clone(&other.device.id) };
            warn!(device = %id, topic, %reason, "a device that was found is left out");
            self.discovery.unwelcome += 1;
            self.discovery.refuse(&id, now.instant);
            return;
        }
        watch.devices += 1;
        let member = rule.device(&captures);
        info!(device = %id, product = %rule.product.id, topic = %member.topic, "device found");
        if let Some(twin) = self.twin(&member) {
            warn!(
                device = %id, product = %member.device.product.id, topic = %member.topic, configured = %twin.id,
                of = %twin.product.id,
                "a configured device of another product has the same topic; if it is this one, name it in the rule's deny"
            );
        }
        for error in self.add(&member, Some(Origin { rule: Some(rule), heard: now.instant }), now.instant) {
            debug!(device = %id, %error, "left out");
        }
        self.discovery.announce(&member.device);
        self.take_topic(topic, &id, now);
    }

    /// The configured device that one that is about to appear may be a second time: it speaks at the same topic, as another
    /// product. Products of different makers may well share one, so it is only a suspicion.
    pub(super) fn twin(&self, member: &MqttDevice) -> Option<&Arc<Device>> {
        let twin = self.stations.values().find(|station| station.is_configured_at(&member.topic));
        twin.map(|station| &station.device)
    }

    /// Forgets the devices that were silent for too long.
    pub(super) fn forget_silent(&mut self, now: Now) {
        if self.up != Some(true) {
            return;
        }
        let is_due = |station: &Station| station.forget_deadline().is_some_and(|due| due <= now.instant);
        let due: Vec<usize> =
            self.stations.iter().filter(|(_, station)| is_due(station)).map(|(number, _)| *number).collect();
        for number in due {
            if let Some(station) = self.stations.get(&number) {
                info!(device = %station.device.id, "device forgotten: there was no sign of it for too long");
            }
            self.remove(number, now);
        }
    }
}

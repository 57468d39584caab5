//! Devices that announce themselves, and what is made of them while announcements come, change and go.
//!
//! Pure. Announcements of one device come one by one; it is put together when they have been quiet for a moment, so that a
//! client sees a device and not its growth. A topic that somebody configured, or a rule takes, belongs to that device: one that
//! announces it as well is left out, until the topic is free.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::super::MqttDevice;
use super::super::body::Body;
use super::super::homeassistant::{Announced, BYTES, Scheme, TOPICS, parse};
use super::super::packet::Message;
use super::super::station::Station;
use super::found::{Origin, REFUSED_FOR};
use super::{State, observe};
use crate::model::time::Now;

/// How long announcements of a device must have been quiet before it is put together. They come in one go.
const QUIET: Duration = Duration::from_millis(500);

/// The longest that a device waits for its announcements to become quiet.
const AT_LAST: Duration = Duration::from_secs(5);

/// What is known of announcements.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    scheme: Option<Arc<Scheme>>,
    /// By topic. What is left out is known too, so that it is told once.
    records: BTreeMap<Arc<str>, Record>,
    bytes: usize,
    /// By id.
    devices: BTreeMap<Arc<str>, Known>,
    /// Whether it was said that there are enough announcements, or enough devices.
    full: [bool; 2],
}

#[derive(Debug)]
struct Record {
    /// Tells whether it is the same again.
    print: u64,
    bytes: usize,
    /// `None` for what is left out.
    announced: Option<Announced>,
}

/// A device that is announced, perhaps one that is left out.
#[derive(Debug)]
struct Known {
    topics: BTreeSet<Arc<str>>,
    /// When it is put together anew, and when the first reason for that came.
    due: Option<Instant>,
    since: Instant,
    /// It is left out because of others, and may come when one of those goes.
    waits: bool,
    /// What was said last of it being left out, or of parts of it.
    said: String,
}

impl Known {
    /// Something about it has changed.
    fn touch(&mut self, now: Instant) {
        if self.due.is_none_or(|due| due > now + QUIET) {
            self.since = now;
        }
        self.due = Some((now + QUIET).min(self.since + AT_LAST));
    }
}

impl Announcements {
    /// Another scheme, or the same. Whether all stays as it was; otherwise all is forgotten.
    pub(super) fn begin(&mut self, scheme: Option<&Arc<Scheme>>) -> bool {
        if self.scheme.as_ref() == scheme {
            return true;
        }
        *self = Self { scheme: scheme.map(Arc::clone), ..Self::default() };
        false
    }

    /// Filters that bring announcements, with their QoS.
    pub(super) fn filters(&self) -> Vec<(Arc<str>, u8)> {
        self.scheme.iter().flat_map(|scheme| scheme.filters()).map(|filter| (filter, 1)).collect()
    }

    /// When the next device is to be put together.
    pub(super) fn due(&self) -> Option<Instant> {
        self.devices.values().filter_map(|known| known.due).min()
    }

    /// All of them are looked at again: others may have taken their topics.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.devices.values_mut().for_each(|known| (known.due, known.since) = (Some(now), now));
    }

    /// A place or a topic is free: who waits for it may come.
    pub(super) fn reconsider(&mut self, now: Instant) {
        self.full[1] = false;
        self.devices
            .values_mut()
            .filter(|known| known.waits && known.due.is_none())
            .for_each(|known| known.touch(now));
    }

    /// The gateway does not take it in now.
    pub(super) fn refused(&mut self, id: &str, now: Instant) {
        if let Some(known) = self.devices.get_mut(id) {
            known.due = Some(now + REFUSED_FOR);
            known.waits = false;
        }
    }

    /// Another device has taken its topic.
    fn gives_way(&mut self, id: &str, reason: String) {
        if let Some(known) = self.devices.get_mut(id) {
            known.waits = true;
            known.tell(id, reason);
        }
    }

    fn drop_record(&mut self, topic: &str, now: Instant) {
        let Some(record) = self.records.remove(topic) else { return };
        self.bytes = self.bytes.saturating_sub(record.bytes);
        self.full[0] = false;
        let device = record.announced.and_then(|announced| self.devices.get_mut(&announced.device));
        if let Some(known) = device {
            known.topics.remove(topic);
            known.touch(now);
        }
    }

    /// Takes an announcement in. Whether there was room for it.
    fn hear(&mut self, scheme: &Scheme, message: &Message, now: Instant) -> bool {
        let (topic, payload) = (&message.topic, &*message.payload);
        let mut hasher = DefaultHasher::new();
        payload.hash(&mut hasher);
        let print = hasher.finish();
        if self.records.get(topic).is_some_and(|record| record.print == print) {
            return true;
        }
        self.drop_record(topic, now);
        let Some(place) = scheme.place(topic).filter(|_| !payload.is_empty()) else { return true };
        if self.records.len() >= TOPICS || self.bytes + topic.len() + payload.len() > BYTES {
            if !std::mem::replace(&mut self.full[0], true) {
                warn!(%topic, topics = self.records.len(), bytes = self.bytes, "as much is announced as may be; more is only counted");
            }
            return false;
        }
        let announced = match parse(place, payload) {
            Ok(announced) => announced,
            Err(error) => {
                info!(%topic, %error, "an announcement is left out");
                None
            }
        };
        let bytes = topic.len() + announced.as_ref().map_or(0, |_| payload.len());
        if let Some(announced) = &announced {
            let known = self.devices.entry(Arc::clone(&announced.device)).or_insert_with(|| Known {
                topics: BTreeSet::new(),
                due: None,
                since: now,
                waits: false,
                said: String::new(),
            });
            known.topics.insert(Arc::clone(topic));
            known.touch(now);
        }
        self.bytes += bytes;
        self.records.insert(Arc::clone(topic), Record { print, bytes, announced });
        true
    }
}

impl Known {
    /// Says what is left out of a device, or why all of it, unless it was said before.
    fn tell(&mut self, id: &str, left_out: String) {
        if self.said != left_out {
            if !left_out.is_empty() {
                info!(device = %id, %left_out, "left out of what is announced");
            }
            self.said = left_out;
        }
    }
}

impl State {
    /// Takes an announcement in; says whether the message is one.
    pub(super) fn announcement(&mut self, message: &Message, now: Now) -> bool {
        let Some(scheme) = self.announcements.scheme.clone() else { return false };
        if scheme.place(&message.topic).is_none() {
            return false;
        }
        if !self.announcements.hear(&scheme, message, now.instant) {
            self.discovery.unwelcome += 1;
        }
        true
    }

    /// Puts the devices together whose announcements have become quiet.
    pub(super) fn put_together(&mut self, now: Now) {
        let is_due = |known: &Known| known.due.is_some_and(|due| due <= now.instant);
        let due = self.announcements.devices.iter().filter(|(_, known)| is_due(known));
        for id in due.map(|(id, _)| Arc::clone(id)).collect::<Vec<_>>() {
            self.assemble(&id, now);
        }
    }

    /// Makes a device what its announcements say now.
    fn assemble(&mut self, id: &Arc<str>, now: Now) {
        let Some(scheme) = self.announcements.scheme.clone() else { return };
        let Announcements { devices, records, .. } = &mut self.announcements;
        let Some(known) = devices.get_mut(id) else { return };
        known.due = None;
        known.waits = false;
        let all: Vec<&Announced> =
            known.topics.iter().filter_map(|topic| records.get(topic)?.announced.as_ref()).collect();
        let is_it = |station: &Station| station.device.id == *id && station.is_announced();
        let number = self.stations.iter().find(|(_, station)| is_it(station)).map(|(number, _)| *number);
        if all.is_empty() {
            devices.remove(id);
            if let Some(number) = number {
                info!(device = %id, "device forgotten: it is announced no more");
                self.remove(number, now);
            }
            return;
        }
        let (member, left_out) = scheme.device(id, &all);
        let mut left_out = left_out.join(", ");
        let product = &member.device.product;
        let has_nothing =
            product.properties.is_empty() && product.functions.is_empty() && product.events.is_empty();
        let keeps_out = if !scheme.admits(id, &member.device.name) || has_nothing {
            true
        } else if let Some(reason) = self.conflict(&member) {
            left_out = reason;
            self.wait(id);
            true
        } else {
            number.is_none() && self.is_unwelcome(&scheme, id, &mut left_out, now)
        };
        if let Some(known) = self.announcements.devices.get_mut(id) {
            known.tell(id, left_out);
        }
        match number {
            Some(number) if keeps_out => self.remove(number, now),
            Some(number) => self.change(number, &member, now),
            None if keeps_out => {}
            None => {
                info!(device = %id, name = %member.device.name, product = %member.device.product.name, "device found");
                self.add(&member, Some(Origin { rule: None, heard: now.instant }), now.instant);
                self.discovery.announce(&member.device);
            }
        }
    }

    fn wait(&mut self, id: &str) {
        if let Some(known) = self.announcements.devices.get_mut(id) {
            known.waits = true;
        }
    }

    /// Whether there is no place, or no name, for one more.
    fn is_unwelcome(&mut self, scheme: &Scheme, id: &Arc<str>, left_out: &mut String, now: Now) -> bool {
        if self.discovery.is_refused(id, now.instant) {
            self.announcements.refused(id, now.instant);
        } else if self.stations.values().any(|station| station.device.id == *id) {
            "its id is that of another device".clone_into(left_out);
            self.wait(id);
        } else if self.stations.values().filter(|station| station.is_announced()).count() >= scheme.limit {
            self.wait(id);
            if !std::mem::replace(&mut self.announcements.full[1], true) {
                warn!(
                    device = %id, limit = scheme.limit,
                    "as many devices are announced as may appear; further ones are only counted"
                );
            }
        } else {
            return false;
        }
        self.discovery.unwelcome += 1;
        true
    }

    /// A device whose announcements have changed: what is known of its presence stays where it is told as before.
    fn change(&mut self, number: usize, member: &MqttDevice, now: Now) {
        let Some(station) = self.stations.get_mut(&number) else { return };
        if station.is_same(member) {
            if station.device != member.device {
                station.device = Arc::clone(&member.device);
                self.discovery.announce(&member.device);
            }
            return;
        }
        info!(device = %member.device.id, "what the device announces has changed");
        let Some(mut old) = self.take_out(number, now) else { return };
        let follows = old.follows(member);
        if !follows {
            let change = old.lose("what it announces has changed");
            observe(&mut self.observations, &old, change, now.wall);
        }
        let added = self.next_station;
        self.add(member, Some(Origin { rule: None, heard: now.instant }), now.instant);
        if let Some(station) = self.stations.get_mut(&added).filter(|_| follows) {
            station.follow(old);
        }
        self.discovery.announce(&member.device);
    }

    /// Who has a topic that this device reports on, if it is nobody who is only announced: by name, or by a rule that takes
    /// whatever comes there.
    fn conflict(&self, member: &MqttDevice) -> Option<String> {
        let sources = member.map.properties.iter().flatten().flat_map(|point| &point.sources);
        let events = member.map.events.iter().flatten().map(|event| &event.place.topic);
        let mut topics = sources.map(|source| &source.place.topic).chain(events);
        topics.find_map(|topic| {
            let others =
                self.routes.feeds(topic).filter(|feed| !feed.spots.is_empty() || !feed.triggers.is_empty());
            let mut others = others.filter_map(|feed| self.stations.get(&feed.device));
            if let Some(other) = others.find(|station| !station.is_announced()) {
                return Some(format!("all of it, since {topic} is a topic of device {}", other.device.id));
            }
            let rule = self
                .discovery
                .rules()
                .find(|rule| rule.when.is_none() && rule.admits(topic, &Body::new(b"?"), false).is_some())?;
            Some(format!("all of it, since {topic} belongs to the rule of {}", rule.pattern.text()))
        })
    }

    /// A device that was found by a rule has this topic; those that announce it give way.
    pub(super) fn take_topic(&mut self, topic: &str, taker: &Arc<str>, now: Now) {
        let is_one = |number: &usize| self.stations.get(number).is_some_and(Station::is_announced);
        let ones: Vec<usize> = self.routes.named(topic).filter(is_one).collect();
        for number in ones {
            let Some(id) = self.stations.get(&number).map(|station| Arc::clone(&station.device.id)) else {
                continue;
            };
            debug!(device = %id, by = %taker, "gives way");
            self.remove(number, now);
            self.announcements
                .gives_way(&id, format!("all of it, since {topic} is a topic of device {taker}"));
        }
    }
}

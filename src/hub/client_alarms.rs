//! Alarms that clients set: conditions on a property of some devices that must hold for a while.
//!
//! Only good readings are judged. A device that goes offline, and a reading that is not good, interrupt the wait of an alarm
//! that is not raised yet, and leave a raised one raised, since nothing is known of it. Where an alarm is raised outlives
//! the process: it is told as cleared when the first good reading says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::roster::Roster;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::history::{AlarmAnswer, AlarmAsk, AlarmKind, ClientAlarm, KeptAlarm};
use crate::model::product::{AlarmCondition, AlarmRule};
use crate::model::value::Value;
use crate::store::Write;

/// Alarms of all clients. When full a new one is refused.
const CLIENT_ALARMS: usize = 256;

/// Alarms of one client among them, so that none takes all. When full a new one of this client is refused.
const OF_ONE_CLIENT: usize = 64;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct ClientAlarms {
    alarms: BTreeMap<u64, Entry>,
    /// Slot of the device, property position and alarm: which alarms look at a reading.
    points: BTreeSet<(usize, usize, u64)>,
    /// When a condition will have held long enough.
    timers: BTreeSet<(Instant, u64, usize)>,
}

#[derive(Debug)]
struct Entry {
    alarm: ClientAlarm,
    /// Id of the client that created it.
    owner: Arc<str>,
    /// By slot of the device.
    watches: BTreeMap<usize, Watch>,
}

/// One alarm on one device.
#[derive(Debug)]
struct Watch {
    property: usize,
    last: Option<f64>,
    value: Value,
    /// When the condition began to hold.
    since: Option<Instant>,
    /// The rule as it was raised.
    raised: Option<Arc<AlarmRule>>,
}

/// An alarm was raised or has cleared on a device.
#[derive(Debug)]
pub(super) struct Change {
    /// The alarm's id.
    pub(super) alarm: u64,
    pub(super) device: usize,
    pub(super) property: usize,
    pub(super) rule: Arc<AlarmRule>,
    pub(super) raised: bool,
    pub(super) value: Value,
}

/// What an ask led to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) answer: AlarmAnswer,
    pub(super) write: Option<Write>,
    /// What an alarm that is no more, or no more the same, leaves behind.
    pub(super) changes: Vec<Change>,
}

impl ClientAlarms {
    /// Takes over what the store had. Gives the slots of devices on which something is raised, with the rule's id.
    pub(super) fn restore(
        &mut self,
        alarms: Vec<KeptAlarm>,
        roster: &Roster,
        now: Instant,
    ) -> Vec<(usize, Arc<str>)> {
        let mut told = Vec::new();
        for KeptAlarm { alarm, owner, raised } in alarms {
            let id = alarm.id;
            self.insert(alarm, owner, roster);
            let Some(entry) = self.alarms.get_mut(&id) else { continue };
            for (device, limit) in raised {
                let slot = roster.slot(&device);
                let Some((slot, watch)) = slot.and_then(|slot| Some((slot, entry.watches.get_mut(&slot)?)))
                else {
                    continue;
                };
                let rule = Arc::new(rule(&entry.alarm, Some(limit)));
                told.push((slot, Arc::clone(&rule.id)));
                (watch.since, watch.raised) = (Some(now), Some(rule));
            }
        }
        told
    }

    /// Everything, to be written into a store that was begun anew.
    pub(super) fn all(&self, roster: &Roster) -> impl Iterator<Item = Write> {
        self.alarms.keys().filter_map(|id| self.kept(*id, roster))
    }

    /// An alarm as it is to be kept now, if there is one of this id.
    pub(super) fn kept(&self, id: u64, roster: &Roster) -> Option<Write> {
        let Entry { alarm, owner, watches } = self.alarms.get(&id)?;
        let raised = watches.iter().filter_map(|(slot, watch)| {
            let AlarmCondition::Client { limit, .. } = watch.raised.as_ref()?.condition else { return None };
            Some((Arc::clone(&roster.device(*slot)?.id), limit))
        });
        let raised = raised.collect();
        Some(Write::Alarm(KeptAlarm { alarm: alarm.clone(), owner: Arc::clone(owner), raised }))
    }

    /// Answers one client. `last_id` is the last id that was given to anything.
    pub(super) fn ask(
        &mut self,
        client: &Client,
        ask: AlarmAsk,
        roster: &Roster,
        last_id: &mut u64,
    ) -> Asked {
        let refused = |answer| Asked { answer, write: None, changes: Vec::new() };
        match ask {
            AlarmAsk::List => {
                refused(AlarmAnswer::Alarms(self.alarms.values().map(|entry| entry.alarm.clone()).collect()))
            }
            AlarmAsk::Put(mut alarm) => {
                let known = self.alarms.get(&alarm.id);
                if alarm.id != 0 && known.is_none() {
                    return refused(AlarmAnswer::Unknown);
                }
                let covers = |alarm: &ClientAlarm| may_cover(client, alarm, roster);
                if !covers(&alarm) || known.is_some_and(|known| !covers(&known.alarm)) {
                    return refused(AlarmAnswer::Forbidden);
                }
                let same = |other: &Entry| other.alarm.id != alarm.id && other.alarm.name == alarm.name;
                if self.alarms.values().any(same) {
                    return refused(AlarmAnswer::Taken);
                }
                let owner = known.map_or(&client.id, |known| &known.owner);
                let owner = Arc::clone(owner);
                if alarm.id == 0 {
                    let own = self.alarms.values().filter(|entry| entry.owner == client.id).count();
                    if self.alarms.len() >= CLIENT_ALARMS || own >= OF_ONE_CLIENT {
                        return refused(AlarmAnswer::Full);
                    }
                    *last_id += 1;
                    alarm.id = *last_id;
                }
                let id = alarm.id;
                let changes = self.remove(id);
                self.insert(*alarm, owner, roster);
                Asked { answer: AlarmAnswer::Put(id), write: self.kept(id, roster), changes }
            }
            AlarmAsk::Delete(id) => {
                let Some(known) = self.alarms.get(&id) else { return refused(AlarmAnswer::Unknown) };
                if !may_cover(client, &known.alarm, roster) {
                    return refused(AlarmAnswer::Forbidden);
                }
                let changes = self.remove(id);
                Asked { answer: AlarmAnswer::Deleted, write: Some(Write::NoAlarm(id)), changes }
            }
        }
    }

    /// Whether any alarm looks at this reading.
    pub(super) fn watches(&self, device: usize, property: usize) -> bool {
        self.points.range((device, property, 0)..=(device, property, u64::MAX)).next().is_some()
    }

    /// Judges a good reading.
    pub(super) fn judge(
        &mut self,
        device: usize,
        property: usize,
        value: &Value,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        let Some(number) = value.as_f64().filter(|number| number.is_finite()) else { return };
        let ids: Vec<u64> = self
            .points
            .range((device, property, 0)..=(device, property, u64::MAX))
            .map(|(.., id)| *id)
            .collect();
        for id in ids {
            let Some(entry) = self.alarms.get_mut(&id) else { continue };
            let Some(watch) = entry.watches.get_mut(&device) else { continue };
            let holds = holds(&entry.alarm, number, watch.last, watch.since.is_some());
            let before = watch.last.replace(number);
            watch.value = value.clone();
            match (holds, watch.since) {
                (true, None) => {
                    watch.since = Some(now);
                    let due = now.checked_add(entry.alarm.hold);
                    if entry.alarm.hold.is_zero() {
                        changes.push(watch.raise(&entry.alarm, device, before));
                    } else if let Some(due) = due {
                        self.timers.insert((due, id, device));
                    }
                }
                (false, Some(since)) => {
                    watch.since = None;
                    if let Some(due) = since.checked_add(entry.alarm.hold) {
                        self.timers.remove(&(due, id, device));
                    }
                    changes.extend(watch.clear(id, device));
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
    }

    /// The device does not answer any more.
    pub(super) fn offline(&mut self, device: usize) {
        self.interrupt(device, |_| false);
    }

    /// Ends the waits for properties of a device that have no good reading now: nobody knows whether their condition
    /// still holds.
    pub(super) fn interrupt(&mut self, device: usize, good: impl Fn(usize) -> bool) {
        let points = self.points.range((device, 0, 0)..=(device, usize::MAX, u64::MAX));
        let ids: BTreeSet<u64> =
            points.filter(|(_, property, _)| !good(*property)).map(|(.., id)| *id).collect();
        for id in ids {
            let Some(entry) = self.alarms.get_mut(&id) else { continue };
            let Some(watch) = entry.watches.get_mut(&device) else { continue };
            if watch.raised.is_none() {
                let since = watch.since.take();
                if let Some(due) = since.and_then(|since| since.checked_add(entry.alarm.hold)) {
                    self.timers.remove(&(due, id, device));
                }
            }
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, ..)| *due)
    }

    /// Raises what has held long enough. `good` says whether a property of a device has a good reading now: where it
    /// has none, nobody knows whether the condition still holds, and the wait begins anew with the next one.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        good: impl Fn(usize, usize) -> bool,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((_, id, device)) = self.timers.first().filter(|(due, ..)| *due <= now).copied() {
            self.timers.pop_first();
            let Some(entry) = self.alarms.get_mut(&id) else { continue };
            let Some(watch) = entry.watches.get_mut(&device) else { continue };
            if good(device, watch.property) {
                let last = watch.last;
                changes.push(watch.raise(&entry.alarm, device, last));
            } else {
                watch.since = None;
            }
        }
        changes
    }

    /// A device goes or changes: alarms that do not cover what comes after it, or could not compare what they know of
    /// it, forget it, and those that are raised are cleared. To be called while it is still known as it was, because
    /// that is what is said.
    pub(super) fn withdraw(&mut self, slot: usize, device: &Device, next: Option<&Device>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, entry) in &mut self.alarms {
            let kind = |device: &Device| {
                covered_property(&entry.alarm, device)
                    .and_then(|position| device.product.properties.get(position))
                    .map(|property| property.kind)
            };
            let stays = next.and_then(kind).is_some_and(|next| Some(next) == kind(device));
            if !stays {
                changes.extend(entry.watches.remove(&slot).and_then(|mut watch| watch.clear(*id, slot)));
            }
        }
        changes
    }

    /// Covers the devices that there are now. What an alarm knows of a device that stays is kept.
    pub(super) fn adopt(&mut self, roster: &Roster, gone: &BTreeSet<usize>) {
        self.points.clear();
        for (id, entry) in &mut self.alarms {
            let mut known = std::mem::take(&mut entry.watches);
            known.retain(|slot, _| !gone.contains(slot));
            for (device, property) in covered(&entry.alarm, roster) {
                self.points.insert((device, property, *id));
                let watch = known
                    .remove(&device)
                    .map_or_else(|| Watch::new(property), |watch| Watch { property, ..watch });
                entry.watches.insert(device, watch);
            }
        }
        let (alarms, points) = (&self.alarms, &self.points);
        self.timers.retain(|(_, id, device)| {
            let watch = alarms.get(id).and_then(|entry| entry.watches.get(device));
            watch.is_some_and(|watch| {
                watch.since.is_some() && points.contains(&(*device, watch.property, *id))
            })
        });
    }

    fn insert(&mut self, alarm: ClientAlarm, owner: Arc<str>, roster: &Roster) {
        let id = alarm.id;
        let mut watches = BTreeMap::new();
        for (device, property) in covered(&alarm, roster) {
            self.points.insert((device, property, id));
            watches.insert(device, Watch::new(property));
        }
        self.alarms.insert(id, Entry { alarm, owner, watches });
    }

    fn remove(&mut self, id: u64) -> Vec<Change> {
        let Some(mut entry) = self.alarms.remove(&id) else { return Vec::new() };
        self.points.retain(|(.., each)| *each != id);
        self.timers.retain(|(_, each, _)| *each != id);
        entry.watches.iter_mut().filter_map(|(device, watch)| watch.clear(id, *device)).collect()
    }
}

impl Watch {
    fn new(property: usize) -> Self {
        Self { property, last: None, value: Value::Null, since: None, raised: None }
    }

    fn raise(&mut self, alarm: &ClientAlarm, device: usize, before: Option<f64>) -> Change {
        let rule = Arc::new(rule(alarm, before));
        self.raised = Some(Arc::clone(&rule));
        let value = self.value.clone();
        Change { alarm: alarm.id, device, property: self.property, rule, raised: true, value }
    }

    fn clear(&mut self, alarm: u64, device: usize) -> Option<Change> {
        let (rule, value) = (self.raised.take()?, self.value.clone());
        Some(Change { alarm, device, property: self.property, rule, raised: false, value })
    }
}

/// The slots of the devices that an alarm is about, and the position of its property.
fn covered<'a>(alarm: &'a ClientAlarm, roster: &'a Roster) -> impl Iterator<Item = (usize, usize)> + 'a {
    roster.devices().filter_map(|(slot, device)| Some((slot, covered_property(alarm, device)?)))
}

/// The position of an alarm's property in a device that the alarm is about.
fn covered_property(alarm: &ClientAlarm, device: &Device) -> Option<usize> {
    let on_link = alarm.link.as_ref().is_none_or(|link| device.link == *link);
    let (property, _) = device.product.property(&alarm.property)?;
    (on_link && alarm.devices.admits(device)).then_some(property)
}

fn may_cover(client: &Client, alarm: &ClientAlarm, roster: &Roster) -> bool {
    let sees = |(slot, _)| roster.device(slot).is_some_and(|device| client.sees(device));
    client.rights.write && covered(alarm, roster).all(sees)
}

/// Whether the condition holds with this value. The monotonic kinds stay as they are while the value stays.
#[expect(clippy::float_cmp, reason = "a client that asks for equality means it")]
fn holds(alarm: &ClientAlarm, value: f64, last: Option<f64>, held: bool) -> bool {
    let moved = |wrong: fn(f64, f64) -> bool| match last {
        None => held,
        Some(last) if last == value => held,
        Some(last) => wrong(value, last),
    };
    match alarm.kind {
        AlarmKind::Below => value < alarm.value,
        AlarmKind::Above => value > alarm.value,
        AlarmKind::Equal => value == alarm.value,
        AlarmKind::MonotonicRising => moved(|value, last| value < last),
        AlarmKind::MonotonicFalling => moved(|value, last| value > last),
    }
}

/// The alarm as sessions see it. The limit of a monotonic one is the value that was left in the wrong direction.
fn rule(alarm: &ClientAlarm, before: Option<f64>) -> AlarmRule {
    let limit = match alarm.kind {
        AlarmKind::Below | AlarmKind::Above | AlarmKind::Equal => alarm.value,
        AlarmKind::MonotonicRising | AlarmKind::MonotonicFalling => before.unwrap_or(alarm.value),
    };
    let condition = AlarmCondition::Client { kind: alarm.kind, limit, hold: alarm.hold };
    let id = format!("client-{}", alarm.id);
    AlarmRule { name: Arc::clone(&alarm.name), level: alarm.level, ..AlarmRule::new(id, condition) }
}

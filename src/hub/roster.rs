//! Which device has which slot. A slot is a small number that stands for a device in every table of the hub.
//!
//! A device keeps its slot for as long as it is configured, however often the directory changes around it; a slot
//! whose device has gone is given to the next one that comes. So nothing is ever renumbered, and the tables do not
//! grow with the number of changes. The price is a rule: when a device goes, every table forgets its slot before
//! anything else is taken in ([`super::state::HubState::adopt`] sees to that).

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::drivers::Sample;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::interest::{Interest, Selector};
use crate::model::message::Kinds;

/// The configured devices and their slots.
#[derive(Debug, Default)]
pub(super) struct Roster {
    directory: Arc<Directory>,
    slots: Vec<Option<Arc<Device>>>,
    by_id: HashMap<Arc<str>, usize>,
    /// The slots of the directory's devices, in its order.
    order: Vec<usize>,
}

/// What another directory means for the slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Vacant now, or given to a device that came.
    pub(super) gone: BTreeSet<usize>,
    /// Given to a device.
    pub(super) came: BTreeSet<usize>,
    /// Kept by a device that is not quite what it was.
    pub(super) changed: BTreeSet<usize>,
}

impl Roster {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let mut roster = Self::default();
        roster.adopt(directory);
        roster
    }

    /// Takes over another directory.
    pub(super) fn adopt(&mut self, directory: Arc<Directory>) -> Moves {
        let mut moves = Moves::default();
        self.by_id.retain(|id, slot| {
            let stays = directory.device(id).is_some();
            if !stays {
                moves.gone.insert(*slot);
            }
            stays
        });
        for slot in &moves.gone {
            if let Some(place) = self.slots.get_mut(*slot) {
                *place = None;
            }
        }
        let mut vacant: BTreeSet<usize> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, place)| place.is_none().then_some(slot))
            .collect();
        self.order.clear();
        for device in directory.devices() {
            let kept = self.by_id.get(&device.id).copied();
            let slot = kept.unwrap_or_else(|| vacant.pop_first().unwrap_or(self.slots.len()));
            if kept.is_none() {
                moves.came.insert(slot);
                self.by_id.insert(Arc::clone(&device.id), slot);
            } else if !self.device(slot).is_some_and(|known| Arc::ptr_eq(known, device)) {
                moves.changed.insert(slot);
            }
            match self.slots.get_mut(slot) {
                Some(place) => *place = Some(Arc::clone(device)),
                None => self.slots.push(Some(Arc::clone(device))),
            }
            self.order.push(slot);
        }
        self.directory = directory;
        moves
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Every device with its slot, in configuration order.
    pub(super) fn devices(&self) -> impl Iterator<Item = (usize, &Arc<Device>)> {
        self.order.iter().filter_map(|slot| Some((*slot, self.device(*slot)?)))
    }

    /// The slot of a device.
    pub(super) fn slot(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The slot of a device as a driver knows it. What the driver of a link says of a device that has moved to
    /// another one concerns nobody.
    pub(super) fn slot_of(&self, device: &Device) -> Option<usize> {
        let slot = self.slot(&device.id)?;
        (self.device(slot)?.link == device.link).then_some(slot)
    }

    pub(super) fn device(&self, slot: usize) -> Option<&Arc<Device>> {
        self.slots.get(slot)?.as_ref()
    }

    /// Readings of a device as a driver knows it, by the positions of its product as it is configured now. A driver
    /// learns of a change a little later than the hub.
    pub(super) fn readings<'a>(
        &self,
        device: &Device,
        values: &'a [(usize, Sample)],
    ) -> Cow<'a, [(usize, Sample)]> {
        let known = self.slot(&device.id).and_then(|slot| self.device(slot));
        let Some(known) = known.filter(|known| !Arc::ptr_eq(&known.product, &device.product)) else {
            return Cow::Borrowed(values);
        };
        let translate = |(position, sample): &(usize, Sample)| {
            let meant = device.product.properties.get(*position)?;
            let (position, property) = known.product.property(&meant.id)?;
            (property.kind == meant.kind).then(|| (position, sample.clone()))
        };
        Cow::Owned(values.iter().filter_map(translate).collect())
    }

    /// By slot, whether the client sees the device.
    pub(super) fn seen_by(&self, client: &Client) -> Vec<bool> {
        self.slots.iter().map(|device| device.as_ref().is_some_and(|device| client.sees(device))).collect()
    }

    /// Which kinds of message an interest names of each device, whoever has it.
    pub(super) fn covered(&self, interest: &Interest) -> BTreeMap<usize, Kinds> {
        let admitted = self.devices().filter(|(_, device)| interest.selector.admits(device));
        admitted.map(|(slot, _)| (slot, interest.kinds)).collect()
    }

    /// Which kinds of message these interests want of each device that the client may see, by slot.
    pub(super) fn resolve(
        &self,
        client: &Client,
        interests: impl IntoIterator<Item: Borrow<Interest>>,
    ) -> BTreeMap<usize, Kinds> {
        let mut wanted: BTreeMap<usize, Kinds> = BTreeMap::new();
        let mut want = |slot: usize, device: &Device, kinds: Kinds| {
            if kinds.meets(Kinds::ALL) && client.sees(device) {
                let all = wanted.entry(slot).or_default();
                *all = all.with(kinds);
            }
        };
        for interest in interests {
            let Interest { selector, kinds } = interest.borrow();
            if let Selector::Device(id) = selector {
                let slot = self.slot(id);
                if let Some((slot, device)) = slot.and_then(|at| Some((at, self.device(at)?))) {
                    want(slot, device, *kinds);
                }
            } else {
                for (slot, device) in self.devices() {
                    if selector.admits(device) {
                        want(slot, device, *kinds);
                    }
                }
            }
        }
        wanted
    }
}

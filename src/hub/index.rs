//! The subject index: from a device and a kind of message straight to those who take it.
//!
//! Interests are resolved against the configured devices and the client's filter once, when they are set. A
//! delivery then costs one look-up, and the list of takers is shared by all messages of one subject until somebody's
//! interests change. It knows nothing of sessions or groups: a taker is any ordered key.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::interest::{Interest, Selector};
use crate::model::message::Kinds;

/// The configured devices by position, which stands for a device everywhere in the hub.
#[derive(Debug)]
pub(super) struct Roster {
    directory: Arc<Directory>,
    positions: HashMap<Arc<str>, usize>,
}

impl Roster {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let mut positions = HashMap::new();
        for (position, device) in directory.devices().iter().enumerate() {
            positions.entry(Arc::clone(&device.id)).or_insert(position);
        }
        Self { directory, positions }
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.positions.get(id).copied()
    }

    pub(super) fn device(&self, position: usize) -> Option<&Arc<Device>> {
        self.directory.devices().get(position)
    }

    /// Which kinds of message an interest names of each device, whoever has it.
    pub(super) fn covered(&self, interest: &Interest) -> BTreeMap<usize, Kinds> {
        let devices = self.directory.devices().iter().enumerate();
        let admitted = devices.filter(|(_, device)| interest.selector.admits(device));
        admitted.map(|(position, _)| (position, interest.kinds)).collect()
    }

    /// Which kinds of message these interests want of each device that the client may see, by position.
    pub(super) fn resolve(
        &self,
        client: &Client,
        interests: impl IntoIterator<Item: Borrow<Interest>>,
    ) -> BTreeMap<usize, Kinds> {
        let mut wanted: BTreeMap<usize, Kinds> = BTreeMap::new();
        let mut want = |position: usize, device: &Device, kinds: Kinds| {
            if kinds.meets(Kinds::ALL) && client.sees(device) {
                let all = wanted.entry(position).or_default();
                *all = all.with(kinds);
            }
        };
        for interest in interests {
            let Interest { selector, kinds } = interest.borrow();
            if let Selector::Device(id) = selector {
                let position = self.position(id);
                if let Some((position, device)) = position.and_then(|at| Some((at, self.device(at)?))) {
                    want(position, device, *kinds);
                }
            } else {
                for (position, device) in self.directory.devices().iter().enumerate() {
                    if selector.admits(device) {
                        want(position, device, *kinds);
                    }
                }
            }
        }
        wanted
    }
}

/// Who takes what.
#[derive(Debug)]
pub(super) struct Index<K> {
    slots: Vec<Slot<K>>,
    /// Where each taker stands, to find its entries again.
    takers: BTreeMap<K, Vec<usize>>,
}

/// The takers of one device's messages.
#[derive(Debug)]
struct Slot<K> {
    entries: BTreeMap<K, Kinds>,
    /// Lists that were asked for since the entries last changed; at most one per kind of message.
    lists: Vec<(Kinds, Arc<[K]>)>,
}

impl<K: Copy + Ord + Debug> Index<K> {
    /// An index over so many devices.
    pub(super) fn new(devices: usize) -> Self {
        let slots = (0..devices).map(|_| Slot { entries: BTreeMap::new(), lists: Vec::new() }).collect();
        Self { slots, takers: BTreeMap::new() }
    }

    /// Replaces all that a taker wants.
    pub(super) fn set(&mut self, taker: K, wanted: BTreeMap<usize, Kinds>) {
        self.remove(taker);
        let mut positions = Vec::with_capacity(wanted.len());
        for (position, kinds) in wanted {
            if let Some(slot) = self.slots.get_mut(position) {
                slot.entries.insert(taker, kinds);
                slot.lists.clear();
                positions.push(position);
            }
        }
        if !positions.is_empty() {
            self.takers.insert(taker, positions);
        }
    }

    /// Forgets a taker.
    pub(super) fn remove(&mut self, taker: K) {
        for position in self.takers.remove(&taker).unwrap_or_default() {
            if let Some(slot) = self.slots.get_mut(position) {
                slot.entries.remove(&taker);
                slot.lists.clear();
            }
        }
    }

    /// Everyone who takes this kind of message of this device, in ascending order.
    pub(super) fn takers(&mut self, position: usize, kind: Kinds) -> Arc<[K]> {
        let Some(slot) = self.slots.get_mut(position) else { return Arc::default() };
        if let Some((_, list)) = slot.lists.iter().find(|(listed, _)| *listed == kind) {
            return Arc::clone(list);
        }
        let takes = |(taker, kinds): (&K, &Kinds)| kinds.meets(kind).then_some(*taker);
        let list: Arc<[K]> = slot.entries.iter().filter_map(takes).collect();
        slot.lists.push((kind, Arc::clone(&list)));
        list
    }

    /// Whether one taker takes this kind of message of this device.
    pub(super) fn takes(&self, taker: K, position: usize, kind: Kinds) -> bool {
        let kinds = self.slots.get(position).and_then(|slot| slot.entries.get(&taker));
        kinds.is_some_and(|kinds| kinds.meets(kind))
    }
}

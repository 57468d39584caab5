//! The subject index: from a device and a kind of message straight to those who take it.
//!
//! Interests are resolved against the configured devices and the client's filter when they are set, and again when the
//! devices change. A delivery then costs one look-up, and the list of takers is shared by all messages of one subject
//! until somebody's interests change. It knows nothing of sessions, groups or devices: a taker is any ordered key, and
//! a device is its slot.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::model::message::Kinds;

/// Who takes what.
#[derive(Debug)]
pub(super) struct Index<K> {
    /// As many as the highest slot that anybody wanted needs.
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

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { slots: Vec::new(), takers: BTreeMap::new() }
    }
}

impl<K: Copy + Ord + Debug> Index<K> {
    /// Replaces all that a taker wants. What it wants already is left alone, with the lists that it stands in.
    pub(super) fn set(&mut self, taker: K, wanted: BTreeMap<usize, Kinds>) {
        if self.wants(taker, &wanted) {
            return;
        }
        self.remove(taker);
        let slots: Vec<usize> = wanted.keys().copied().collect();
        if let Some(last) = slots.last().filter(|last| **last >= self.slots.len()) {
            self.slots.resize_with(*last + 1, || Slot { entries: BTreeMap::new(), lists: Vec::new() });
        }
        for (at, kinds) in wanted {
            if let Some(slot) = self.slots.get_mut(at) {
                slot.entries.insert(taker, kinds);
                slot.lists.clear();
            }
        }
        if !slots.is_empty() {
            self.takers.insert(taker, slots);
        }
    }

    /// Whether this is exactly what the taker wants.
    fn wants(&self, taker: K, wanted: &BTreeMap<usize, Kinds>) -> bool {
        let has = |(at, kinds): (&usize, &Kinds)| {
            self.slots.get(*at).and_then(|slot| slot.entries.get(&taker)) == Some(kinds)
        };
        self.takers.get(&taker).map_or(0, Vec::len) == wanted.len() && wanted.iter().all(has)
    }

    /// Forgets a taker.
    pub(super) fn remove(&mut self, taker: K) {
        for at in self.takers.remove(&taker).unwrap_or_default() {
            if let Some(slot) = self.slots.get_mut(at) {
                slot.entries.remove(&taker);
                slot.lists.clear();
            }
        }
    }

    /// Everyone who takes this kind of message of this device, in ascending order.
    pub(super) fn takers(&mut self, at: usize, kind: Kinds) -> Arc<[K]> {
        let Some(slot) = self.slots.get_mut(at) else { return Arc::default() };
        if let Some((_, list)) = slot.lists.iter().find(|(listed, _)| *listed == kind) {
            return Arc::clone(list);
        }
        let takes = |(taker, kinds): (&K, &Kinds)| kinds.meets(kind).then_some(*taker);
        let list: Arc<[K]> = slot.entries.iter().filter_map(takes).collect();
        slot.lists.push((kind, Arc::clone(&list)));
        list
    }

    /// Whether one taker takes this kind of message of this device.
    pub(super) fn takes(&self, taker: K, at: usize, kind: Kinds) -> bool {
        let kinds = self.slots.get(at).and_then(|slot| slot.entries.get(&taker));
        kinds.is_some_and(|kinds| kinds.meets(kind))
    }
}

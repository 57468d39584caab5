//! Messages of a group that wait in memory for somebody to take them.
//!
//! They came back from members that ended, or, where no history is kept, found nobody. What nobody holds a relation for
//! is **parked** beside those that only lack room, so that it keeps nothing else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{BACKLOG, WAITING, WAITING_BYTES};
use crate::hub::outcomes::{named, of_outcome, of_value};
use crate::model::message::{Body, DeviceMessage};

/// A message with the slot of its device.
pub(super) type Placed = (usize, Arc<DeviceMessage>);

/// Waiting messages, by number.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    ready: BTreeMap<u64, Placed>,
    parked: BTreeMap<u64, Placed>,
    bytes: usize,
    /// Whether those that are not parked are worth an attempt.
    pub(super) retry: bool,
}

impl Waiting {
    /// Keeps one that somebody may take as soon as there is room.
    pub(super) fn put(&mut self, device: usize, message: Arc<DeviceMessage>) {
        self.bytes += weight(&message);
        self.ready.insert(message.seq, (device, message));
    }

    /// Keeps one that nobody holds a relation for.
    pub(super) fn park(&mut self, device: usize, message: Arc<DeviceMessage>) {
        self.bytes += weight(&message);
        self.parked.insert(message.seq, (device, message));
    }

    /// Somebody holds something new, which may be what is parked.
    pub(super) fn wake(&mut self) {
        self.ready.append(&mut self.parked);
        self.retry = true;
    }

    /// Takes the oldest that is not parked.
    pub(super) fn pop(&mut self) -> Option<Placed> {
        let (_, placed) = self.ready.pop_first()?;
        self.bytes = self.bytes.saturating_sub(weight(&placed.1));
        Some(placed)
    }

    /// Whether nothing goes before a new message.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// The number of the oldest.
    pub(super) fn first(&self) -> Option<u64> {
        [&self.ready, &self.parked].into_iter().filter_map(|part| part.keys().next().copied()).min()
    }

    /// Drops the oldest until the bounds hold, and says how many: those of a group that the store keeps nothing of, or of
    /// one whose members had all this in their queues.
    pub(super) fn bound(&mut self, kept: bool) -> u64 {
        let mut dropped = 0;
        loop {
            let count = u64::try_from(self.ready.len() + self.parked.len()).unwrap_or(u64::MAX);
            let over = if kept { count > BACKLOG } else { count > WAITING || self.bytes > WAITING_BYTES };
            let Some(oldest) = self.first().filter(|_| over) else { return dropped };
            let gone = self.ready.remove(&oldest).or_else(|| self.parked.remove(&oldest));
            self.bytes = self.bytes.saturating_sub(gone.map_or(0, |(_, message)| weight(&message)));
            dropped += 1;
        }
    }

    /// Forgets what is no longer wanted by anybody.
    pub(super) fn retain(&mut self, wanted: impl Fn(&DeviceMessage) -> bool) {
        for part in [&mut self.ready, &mut self.parked] {
            part.retain(|_, (_, message)| wanted(message));
        }
        self.weigh();
    }

    /// Forgets the messages of devices that have gone.
    pub(super) fn forget(&mut self, gone: &BTreeSet<usize>) {
        for part in [&mut self.ready, &mut self.parked] {
            part.retain(|_, (device, _)| !gone.contains(device));
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        self.bytes =
            self.ready.values().chain(self.parked.values()).map(|(_, message)| weight(message)).sum();
    }
}

/// What a message takes, roughly: a share for what each has, its texts, and a share for each value.
fn weight(message: &DeviceMessage) -> usize {
    const SHARE: usize = 256;
    SHARE
        + match &message.body {
            Body::Properties(reports) => reports.iter().map(|report| of_value(&report.value)).sum(),
            Body::Event { params, .. } => named(params),
            Body::Publish { topic, payload } => topic.len() + payload.len(),
            Body::Alarm { value, active, .. } => of_value(value) + active.len() * size_of::<Arc<str>>(),
            Body::Sent { command } => named(&command.values),
            Body::Reply { command, outcome } => named(&command.values) + of_outcome(outcome),
            Body::Ota { detail, .. } => detail.len(),
            Body::Presence { .. } => 0,
        }
}

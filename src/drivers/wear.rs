//! How often properties may be written: memory that wears out is spared.
//!
//! Remembers only when properties with such a limit may be written again, and only until then, so it never holds more
//! than there are. A restart forgets. Pure: no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When properties may be written again, by the driver's own key of a device and the position of the property.
#[derive(Debug)]
pub(super) struct Wear<K>(BTreeMap<(K, usize), Instant>);

impl<K> Default for Wear<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Clone + Ord> Wear<K> {
    /// These properties are written now, and may be written again after these times.
    pub(super) fn note(
        &mut self,
        device: &K,
        limited: impl IntoIterator<Item = (usize, Duration)>,
        now: Instant,
    ) {
        self.0.retain(|_, at| *at > now);
        let free_at = |(position, limit)| Some(((device.clone(), position), now.checked_add(limit)?));
        self.0.extend(limited.into_iter().filter_map(free_at));
    }

    /// A device has gone.
    pub(super) fn forget(&mut self, device: &K) {
        self.0.retain(|(of, _), _| of != device);
    }

    /// When all of these may be written, and the one that must wait longest; `None` when it is now.
    pub(super) fn free_at(
        &self,
        device: &K,
        positions: impl IntoIterator<Item = usize>,
        now: Instant,
    ) -> Option<(Instant, usize)> {
        let free_at = |position| Some((*self.0.get(&(device.clone(), position))?, position));
        let latest = positions.into_iter().filter_map(free_at).max();
        latest.filter(|(at, _)| *at > now)
    }
}

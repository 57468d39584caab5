//! How often properties may be written: memory that wears out is spared.
//!
//! Remembers only properties that have such a limit, so it never holds more than there are. A restart forgets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::ModbusDevice;

/// When properties were written last.
#[derive(Debug, Default)]
pub(super) struct Wear {
    /// By the number of the device and the position of the property.
    last: BTreeMap<(usize, usize), Instant>,
}

impl Wear {
    /// These properties are written now.
    pub(super) fn note(&mut self, station: usize, device: &ModbusDevice, positions: &[usize], now: Instant) {
        let limited = positions.iter().filter(|position| limit(device, **position).is_some());
        self.last.extend(limited.map(|position| ((station, *position), now)));
    }

    /// A device has gone.
    pub(super) fn forget(&mut self, station: usize) {
        self.last.retain(|(of, _), _| *of != station);
    }

    /// When all of these may be written, and the one that must wait longest; `None` when it is now.
    pub(super) fn free_at(
        &self,
        station: usize,
        device: &ModbusDevice,
        positions: &[usize],
        now: Instant,
    ) -> Option<(Instant, usize)> {
        let free_at = |position: usize| {
            let last = self.last.get(&(station, position))?;
            Some((*last + limit(device, position)?, position))
        };
        let latest = positions.iter().filter_map(|position| free_at(*position)).max();
        latest.filter(|(at, _)| *at > now)
    }
}

/// The least time between two writes of a property.
pub(super) fn limit(device: &ModbusDevice, position: usize) -> Option<Duration> {
    device.map.properties.get(position)?.as_ref()?.write_interval
}

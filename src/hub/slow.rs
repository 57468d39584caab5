//! Sessions that read too slowly: what they missed and how it is made good.
//!
//! From the first property report that finds no room, reports for the session are only counted and their devices
//! remembered, while its queue empties. Once half of it is free, the session is told how much it missed and gets
//! the newest values of those devices. Someone who reads slower than the plant changes thus always sees a recent
//! state instead of an ever older one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::handle::{SessionReply, Told};
use crate::model::message::DeviceMessage;

/// How often slow sessions are looked at: short against what a person notices, long against a turn of the hub.
pub(super) const REPAIR_EVERY: Duration = Duration::from_millis(50);

/// A session that has not caught up after this time does not read at all, and is no longer served.
pub(super) const LONGEST_LAG: Duration = Duration::from_secs(60);

/// What one session missed.
#[derive(Debug)]
pub(super) struct Lag {
    since: Instant,
    /// Reports missed in all.
    missed: u64,
    /// Those that the session was told of.
    told: u64,
    /// Ids of the devices whose newest values it lacks; at most as many as are configured.
    devices: BTreeSet<Arc<str>>,
}

/// How a repair went.
#[derive(Debug)]
pub(super) enum Progress {
    /// There is no room yet, or not enough.
    Waits,
    /// The session knows all again.
    CaughtUp {
        /// Reports that it missed in the meantime.
        missed: u64,
    },
    /// The session cannot be helped; says why.
    Hopeless(&'static str),
    /// The session has ended.
    Gone,
}

impl Lag {
    pub(super) fn new(device: &Arc<str>, now: Instant) -> Self {
        Self { since: now, missed: 1, told: 0, devices: [Arc::clone(device)].into() }
    }

    /// One more report has no place.
    pub(super) fn miss(&mut self, device: &Arc<str>) {
        self.missed += 1;
        if !self.devices.contains(device) {
            self.devices.insert(Arc::clone(device));
        }
    }

    /// Makes good what there is room for. `newest` gives the newest values of a device, or nothing if the session
    /// does not want them any more.
    pub(super) fn repair(
        &mut self,
        messages: &Sender<Arc<DeviceMessage>>,
        replies: &Sender<Box<Told>>,
        given: &mut u64,
        now: Instant,
        newest: impl Fn(&str) -> Option<Arc<DeviceMessage>>,
    ) -> Progress {
        if messages.capacity() < messages.max_capacity().div_ceil(2) {
            let hopeless = now.saturating_duration_since(self.since) > LONGEST_LAG;
            return if hopeless { Progress::Hopeless("no room for a minute") } else { Progress::Waits };
        }
        if self.missed > self.told {
            let reply = SessionReply::Lagged(self.missed - self.told);
            match replies.try_send(Box::new(Told { after: *given, reply })) {
                Ok(()) => self.told = self.missed,
                Err(TrySendError::Full(_)) => return Progress::Hopeless("no room for a reply"),
                Err(TrySendError::Closed(_)) => return Progress::Gone,
            }
        }
        while let Some(device) = self.devices.pop_first() {
            let Some(message) = newest(&device) else { continue };
            match messages.try_send(message) {
                Ok(()) => *given += 1,
                Err(TrySendError::Full(_)) => {
                    self.devices.insert(device);
                    return Progress::Waits;
                }
                Err(TrySendError::Closed(_)) => return Progress::Gone,
            }
        }
        Progress::CaughtUp { missed: self.missed }
    }
}

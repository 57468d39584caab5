//! When the devices at a unit are set up: as it comes online, when a device has started anew without going offline, and when
//! it no longer holds what it was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::warn;

use super::super::ModbusDevice;
use super::super::job::{Job, Setup, Verdict};
use super::{Core, Entry, Sample};
use crate::proto::modbus::breaker::Presence;

/// A set-up that could not be begun for so long is dropped: the unit has gone again, and is set up when it returns.
const SETUP_LIFETIME: Duration = Duration::from_secs(60);

/// Checks in a row that may find a set-up gone. A device that never holds it would be written for ever, which wears its
/// memory out; it is left alone until it returns.
const LOST_IN_A_ROW: u32 = 3;

/// What is known of each station's set-up. At most one entry of each kind for a station.
#[derive(Debug, Default)]
pub(super) struct Tended {
    /// When it is looked at next.
    due: BTreeMap<usize, Instant>,
    /// Checks in a row that found it gone.
    lost: BTreeMap<usize, u32>,
    /// How long the device had been running when it was last read.
    uptimes: BTreeMap<usize, f64>,
}

impl Tended {
    /// A station has gone.
    pub(super) fn forget(&mut self, station: usize) {
        self.due.remove(&station);
        self.lost.remove(&station);
        self.uptimes.remove(&station);
    }

    /// A set-up or a check of one has ended.
    pub(super) fn note(&mut self, station: usize, device: &ModbusDevice, setup: &Setup, now: Instant) {
        let lost = match setup.verdict() {
            // It says nothing of how the device holds it.
            Verdict::SetUp => self.lost.get(&station).copied().unwrap_or_default(),
            Verdict::Held => 0,
            Verdict::Lost => self.lost.get(&station).copied().unwrap_or_default() + 1,
        };
        self.lost.insert(station, lost);
        match device.map.setup_check {
            Some(every) if lost < LOST_IN_A_ROW => {
                self.due.insert(station, now + every);
            }
            Some(_) => {
                self.due.remove(&station);
                warn!(
                    device = &*device.device.id,
                    times = lost,
                    "the device never holds its set-up; it is not looked at again until the device returns"
                );
            }
            None => {}
        }
    }
}

impl Core {
    /// Lets the devices at a unit that has come online be set up before anything else happens to them.
    pub(super) fn set_up(&mut self, unit: usize, now: Instant) {
        let stations: Vec<usize> = self.stations_of(unit).map(|(at, _)| at).collect();
        for station in stations {
            self.tended.forget(station);
            self.set_up_station(station, now);
        }
    }

    /// Lets one device be set up, unless it is about to be.
    pub(super) fn set_up_station(&mut self, station: usize, now: Instant) {
        self.begin_setup(station, Setup::new, now);
    }

    /// Lets the devices be looked at whose time has come.
    pub(super) fn check_setups(&mut self, now: Instant) {
        let due: Vec<usize> =
            self.tended.due.iter().filter(|(_, at)| **at <= now).map(|(station, _)| *station).collect();
        for station in due {
            let every = self.stations.get(&station).and_then(|station| station.device.map.setup_check);
            match every {
                // Counted anew from the end of the check; this is for one that cannot be begun.
                Some(every) => self.tended.due.insert(station, now + every),
                None => self.tended.due.remove(&station),
            };
            self.begin_setup(station, Setup::check, now);
        }
    }

    /// When the next device is looked at.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.tended.due.values().min().copied()
    }

    /// A device whose uptime falls has started anew, though it answered all the while.
    pub(super) fn look_for_restart(&mut self, station: usize, values: &[(usize, Sample)], now: Instant) {
        let Some(device) = self.stations.get(&station).map(|station| &station.device) else { return };
        let Some(uptime) = device.map.uptime else { return };
        let read = values.iter().rev().find(|(position, _)| *position == uptime);
        let Some((_, Sample::Value(value))) = read else { return };
        let Some(ran) = value.as_f64() else { return };
        let before = self.tended.uptimes.insert(station, ran);
        if let Some(before) = before.filter(|before| ran < *before) {
            warn!(device = &*device.device.id, before, now = ran, "the device has started anew");
            self.set_up_station(station, now);
        }
    }

    /// Puts a set-up before everything else of its unit, also before a function that waits between two steps: a device that
    /// has started anew has lost what was done to it.
    fn begin_setup(
        &mut self,
        station: usize,
        make: impl FnOnce(&ModbusDevice) -> Option<Setup>,
        now: Instant,
    ) {
        let Some(known) = self.stations.get(&station) else { return };
        let unit = known.unit;
        let waits = self
            .jobs
            .values()
            .any(|entry| entry.station == station && !entry.started && matches!(entry.job, Job::Setup(_)));
        if waits || self.schedule.presence(unit) != Presence::Online {
            return;
        }
        let Some(setup) = make(&known.device) else { return };
        self.jobs_ever += 1;
        let job = Job::Setup(setup);
        let (writes, worn, deadlines) = (Vec::new(), Vec::new(), Vec::new());
        let entry = Entry { job, station, started: false, urgent: false, writes, worn, deadlines };
        self.jobs.insert(self.jobs_ever, entry);
        self.schedule.push_first(unit, self.jobs_ever, now + SETUP_LIFETIME);
    }
}

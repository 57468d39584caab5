//! A bus whose devices change while it runs: the port stays open, and only the units that are concerned are planned anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Core, Station};
use crate::drivers::Observation;
use crate::drivers::modbus::ModbusDevice;
use crate::model::command::Outcome;
use crate::model::product::Product;
use crate::model::time::Now;
use crate::proto::modbus::breaker::Presence;

impl Core {
    /// From now on these are the devices. One that is where it was keeps its polls and its commands; what waits for one
    /// that has gone is settled as offline, and what has begun as unknown. To be called between two turns.
    pub(in crate::drivers::modbus) fn adopt(&mut self, devices: &[ModbusDevice], now: Now) {
        let mut touched = BTreeSet::new();
        let stays = |station: &Station| devices.iter().any(|device| same_place(&station.device, device));
        let gone: Vec<usize> =
            self.stations.iter().filter(|(_, station)| !stays(station)).map(|(at, _)| *at).collect();
        for at in gone {
            touched.extend(self.remove(at, now));
        }
        for device in devices {
            let same = |station: &&mut Station| station.device.device.id == device.device.id;
            match self.stations.values_mut().find(same) {
                // Its names may be others.
                Some(station) => station.device = device.clone(),
                None => {
                    touched.insert(self.join(device.clone(), now));
                }
            }
        }
        for unit in touched {
            self.replan(unit);
        }
    }

    /// Takes a device away. Gives its unit.
    fn remove(&mut self, at: usize, now: Now) -> Option<usize> {
        let unit = self.stations.remove(&at)?.unit;
        let jobs: Vec<u64> =
            self.jobs.iter().filter(|(_, entry)| entry.station == at).map(|(id, _)| *id).collect();
        self.wear.forget(&at);
        self.tended.forget(at);
        self.later.retain(|(_, id)| !jobs.contains(id));
        self.holder = self.holder.filter(|(_, id)| !jobs.contains(id));
        for id in jobs {
            self.schedule.finish(unit, id);
            let Some(entry) = self.jobs.remove(&id) else { continue };
            let outcome = if entry.started { Outcome::TimedOut } else { Outcome::Offline };
            for command in entry.job.commands() {
                self.settle(command, outcome.clone(), now);
            }
        }
        if self.stations_of(unit).next().is_none() {
            self.learned.remove(&unit);
            self.schedule.forget_unit(unit);
        }
        self.polls.retain(|_, poll| poll.station != at);
        Some(unit)
    }

    /// Adds a device, which shares what is known of its unit. Gives the unit.
    fn join(&mut self, device: ModbusDevice, now: Now) -> usize {
        let unit = self.unit(device.unit);
        let known = Arc::clone(&device.device);
        let at = self.keep_station(Station { device, unit });
        if !self.link_up {
            self.schedule.link_lost(now.instant);
        }
        let (online, reason) = match self.schedule.presence(unit) {
            // Of a device that has moved here the hub may know that it was offline where it was.
            Presence::Unknown => {
                self.out.push(Observation::Doubt { device: known });
                return unit;
            }
            Presence::Online => (true, None),
            Presence::Offline if self.link_up => (false, Some("its unit does not answer")),
            Presence::Offline => (false, Some("the bus is down")),
        };
        let reason = reason.map(Arc::from);
        self.out.push(Observation::Presence { device: known, at: now.wall, online, reason });
        if online {
            self.set_up_station(at, now.instant);
        }
        unit
    }
}

/// Whether a device is asked the same things at the same place. Names and limits may differ.
fn same_place(one: &ModbusDevice, other: &ModbusDevice) -> bool {
    one.device.id == other.device.id
        && one.unit == other.unit
        && one.map == other.map
        && same_shape(&one.device.product, &other.device.product)
}

/// Whether positions and types mean the same in two products.
pub(super) fn same_shape(one: &Arc<Product>, other: &Arc<Product>) -> bool {
    let properties = || one.properties.iter().zip(&other.properties);
    let functions = || one.functions.iter().zip(&other.functions);
    Arc::ptr_eq(one, other)
        || (one.properties.len() == other.properties.len()
            && one.functions.len() == other.functions.len()
            && properties()
                .all(|(one, other)| (&one.id, one.kind, one.access) == (&other.id, other.kind, other.access))
            && functions().all(|(one, other)| one == other))
}

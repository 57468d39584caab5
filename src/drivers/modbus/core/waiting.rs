//! Commands that wait: which are taken in, which are overtaken, and which are given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::ModbusDevice;
use super::super::job::Job;
use super::super::map::Step;
use super::adopt::same_shape;
use super::{Core, Entry, Station};
use crate::drivers::{CommandId, DriverAction, DriverCommand};
use crate::model::command::{Outcome, Rejection};
use crate::model::time::Now;
use crate::proto::modbus::schedule::Lane;

impl Core {
    /// Takes a command in. Gives the waiting writes that it overtakes, each with a property of it.
    pub(super) fn admit(
        &mut self,
        command: &DriverCommand,
        now: Instant,
    ) -> Result<Vec<(CommandId, Arc<str>)>, Outcome> {
        let mut stations = self.stations.iter().map(|(at, station)| (*at, station));
        let found = stations.find(|(_, station)| station.device.device.id == command.device.id);
        let Some((station, Station { device, unit })) = found else {
            return Err(Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&command.device.id))));
        };
        let unit = *unit;
        if command.deadline <= now {
            return Err(Outcome::Rejected(Rejection::Expired));
        }
        // The places that it names are those of a product that has changed since; nothing was sent.
        if !same_shape(&command.device.product, &device.device.product) {
            return Err(Outcome::Busy);
        }
        if !self.link_up || !self.schedule.takes_orders(unit, now) {
            return Err(Outcome::Offline);
        }
        let parts = self.learned_parts(unit, station);
        if let DriverAction::Read(positions) = &command.action {
            // Reads of one device that wait together are made together.
            for entry in self.jobs.values_mut().filter(|entry| entry.takes_reads(station, command.deadline)) {
                if let Job::Fetch(fetch) = &mut entry.job {
                    fetch.join(command.id, device, positions.clone());
                    fetch.keep_apart(device, &parts);
                    entry.deadlines.push((command.id, command.deadline));
                    return Ok(Vec::new());
                }
            }
        }
        let mut job = Job::new(command.id, device, &command.action).map_err(Outcome::Rejected)?;
        if let Job::Fetch(fetch) = &mut job {
            fetch.keep_apart(device, &parts);
        }
        let writes: Vec<usize> = match &command.action {
            DriverAction::Write(values) => values.iter().map(|(position, _)| *position).collect(),
            DriverAction::Read(_) | DriverAction::Invoke { .. } => Vec::new(),
        };
        let worn = worn(device, &command.action);
        let limited = worn.iter().map(|(at, _)| *at).filter(|_| !command.urgent);
        let wait = self.wear.free_at(&station, limited, now);
        if let Some((at, position)) = wait.filter(|(at, _)| *at >= command.deadline) {
            return Err(too_soon(device, position, at - now));
        }
        let overtaken = self.overtake(unit, station, &writes);
        self.jobs_ever += 1;
        let id = self.jobs_ever;
        let deadlines = vec![(command.id, command.deadline)];
        let urgent = command.urgent;
        let entry = Entry { job, station, started: false, urgent, writes, worn, deadlines };
        match wait {
            Some((at, _)) => self.later.push((at, id)),
            None => self.schedule.push(unit, entry.lane(), id, command.deadline),
        }
        self.jobs.insert(id, entry);
        Ok(overtaken)
    }

    /// What the polls of a device read together, where groups of its unit were taken apart; nothing where all is as planned.
    fn learned_parts(&self, unit: usize, station: usize) -> Vec<Vec<usize>> {
        let own = self.polls.values().filter(|poll| self.learned.contains(&unit) && poll.station == station);
        own.map(|poll| poll.group.members().iter().map(|member| member.key).collect()).collect()
    }

    /// Takes out the writes that wait for a device and concern nothing but these properties: the last value wins.
    fn overtake(&mut self, unit: usize, station: usize, writes: &[usize]) -> Vec<(CommandId, Arc<str>)> {
        let overtaken = |entry: &Entry| {
            let known = !entry.writes.is_empty() && entry.writes.iter().all(|at| writes.contains(at));
            entry.station == station && !entry.started && known
        };
        let ids: Vec<u64> =
            self.jobs.iter().filter(|(_, entry)| overtaken(entry)).map(|(id, _)| *id).collect();
        self.later.retain(|(_, id)| !ids.contains(id));
        let mut commands = Vec::new();
        for id in ids {
            self.schedule.finish(unit, id);
            let Some(entry) = self.jobs.remove(&id) else { continue };
            let properties =
                self.stations.get(&station).map(|station| &station.device.device.product.properties);
            let first = entry.writes.first().and_then(|at| properties?.get(*at));
            let name = first.map_or_else(|| "".into(), |property| Arc::clone(&property.id));
            commands.extend(entry.job.commands().into_iter().map(|command| (command, Arc::clone(&name))));
        }
        commands
    }

    /// Hands the schedule the writes whose time has come.
    pub(super) fn release(&mut self, now: Now) {
        let due = self.later.iter().filter(|(at, _)| *at <= now.instant).map(|(_, id)| *id);
        for id in due.collect::<Vec<_>>() {
            self.later.retain(|(_, later)| *later != id);
            // Another write of the same property may have gone ahead meanwhile.
            if self.wait_longer(id, now) {
                continue;
            }
            let Some(entry) = self.jobs.get(&id) else { continue };
            let Some(Station { unit, .. }) = self.stations.get(&entry.station) else { continue };
            let deadline = entry.deadlines.first().map_or(now.instant, |(_, deadline)| *deadline);
            self.schedule.push(*unit, entry.lane(), id, deadline);
        }
    }

    /// Takes a job out of the schedule again whose turn has come, when another one that stood before it has written the
    /// same property a moment ago. Says whether it did.
    pub(super) fn put_off(&mut self, unit: usize, id: u64, now: Now) -> bool {
        let waits = self.wait_longer(id, now);
        if waits {
            self.schedule.finish(unit, id);
        }
        waits
    }

    /// Lets a job that was not begun wait until its properties may be written, or refuses it where its time is over before.
    /// `false` when they may be now.
    fn wait_longer(&mut self, id: u64, now: Now) -> bool {
        let Some(entry) = self.jobs.get(&id).filter(|entry| !entry.started && !entry.urgent) else {
            return false;
        };
        let worn = entry.worn.iter().map(|(at, _)| *at);
        let Some((at, position)) = self.wear.free_at(&entry.station, worn, now.instant) else { return false };
        let deadline = entry.deadlines.first().map_or(now.instant, |(_, deadline)| *deadline);
        if at < deadline {
            self.later.push((at, id));
        } else if let Some(Station { device, .. }) = self.stations.get(&entry.station) {
            let outcome = too_soon(device, position, at - now.instant);
            self.drop_job(id, &outcome, now);
        }
        true
    }

    /// Settles a job that was not begun.
    pub(super) fn drop_job(&mut self, id: u64, outcome: &Outcome, now: Now) {
        for command in self.jobs.remove(&id).map(|entry| entry.job.commands()).unwrap_or_default() {
            self.settle(command, outcome.clone(), now);
        }
    }

    /// Settles commands whose time was up before they were begun.
    pub(super) fn expire(&mut self, now: Now) {
        for id in self.schedule.take_expired(now.instant) {
            let Some(mut entry) = self.jobs.remove(&id) else { continue };
            let (expired, left): (Vec<_>, Vec<_>) =
                entry.deadlines.iter().copied().partition(|(_, deadline)| *deadline <= now.instant);
            for (command, _) in expired {
                if let Job::Fetch(fetch) = &mut entry.job {
                    fetch.leave(command);
                }
                self.settle(command, Outcome::Rejected(Rejection::Expired), now);
            }
            let unit = self.stations.get(&entry.station).map(|station| station.unit);
            if let (Some(deadline), Some(unit)) = (left.iter().map(|(_, deadline)| *deadline).min(), unit) {
                entry.deadlines = left;
                self.schedule.push(unit, entry.lane(), id, deadline);
                self.jobs.insert(id, entry);
            }
        }
    }

    /// Ends every job: unknown when it was begun, otherwise as given.
    pub(super) fn settle_all(&mut self, waiting: &Outcome, now: Now) {
        self.later.clear();
        for (id, entry) in std::mem::take(&mut self.jobs) {
            if let Some(station) = self.stations.get(&entry.station) {
                self.schedule.finish(station.unit, id);
            }
            let outcome = if entry.started { &Outcome::TimedOut } else { waiting };
            for command in entry.job.commands() {
                self.settle(command, outcome.clone(), now);
            }
        }
    }

    /// Whether a job is for a device at this unit.
    pub(super) fn is_for(&self, id: u64, unit: usize) -> bool {
        let station = self.jobs.get(&id).and_then(|entry| self.stations.get(&entry.station));
        station.is_some_and(|station| station.unit == unit)
    }
}

impl Entry {
    pub(super) fn lane(&self) -> Lane {
        match self.job {
            Job::Change(_) | Job::Setup(_) => Lane::Write,
            Job::Fetch(_) => Lane::Read,
        }
    }

    /// Whether another read of the device may join. A command that expires earlier than the first would go unnoticed.
    fn takes_reads(&self, station: usize, deadline: Instant) -> bool {
        let first = self.deadlines.first().is_none_or(|(_, first)| *first <= deadline);
        self.station == station && !self.started && first && matches!(self.job, Job::Fetch(_))
    }
}

/// Why a write cannot wait until its property may be written again.
fn too_soon(device: &ModbusDevice, position: usize, wait: Duration) -> Outcome {
    let property = device.device.product.properties.get(position);
    let id = property.map_or_else(|| position.to_string().into(), |property| Arc::clone(&property.id));
    Outcome::Rejected(Rejection::TooSoon { id, every: limit(device, position).unwrap_or_default(), wait })
}

/// The properties with a least time between two writes that an action writes. A function writes a property when one
/// of its steps writes a register of it.
fn worn(device: &ModbusDevice, action: &DriverAction) -> Vec<(usize, Duration)> {
    let limited = |position: usize| Some((position, limit(device, position)?));
    match action {
        DriverAction::Read(_) => Vec::new(),
        DriverAction::Write(values) => values.iter().filter_map(|(position, _)| limited(*position)).collect(),
        DriverAction::Invoke { function, .. } => {
            let steps = device.map.functions.get(*function).into_iter().flatten();
            device.map.worn_by(&steps.filter_map(Step::point).collect::<Vec<_>>())
        }
    }
}

/// The least time between two writes of a property.
fn limit(device: &ModbusDevice, position: usize) -> Option<Duration> {
    device.map.properties.get(position)?.as_ref()?.write_interval
}

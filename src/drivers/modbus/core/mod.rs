//! What a bus knows and wants, without the port: its units, polls and jobs, and what to tell the hub.
//!
//! Driven like the schedule inside it: take a [`Turn`], do it, report what came of it, collect the observations. Each
//! command that was submitted is settled exactly once. Pure but for log lines: no port, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use setup::Tended;
use tracing::{debug, info, info_span, warn};

use super::ModbusDevice;
use super::job::{Act, Job, grouped, samples};
use crate::drivers::wear::Wear;
use crate::drivers::{COMMAND_QUEUE, CommandId, DriverCommand, Observation, Sample};
use crate::model::command::{Outcome, Rejection};
use crate::model::time::Now;
use crate::proto::modbus::breaker::Presence;
use crate::proto::modbus::frame::{Answer, Request};
use crate::proto::modbus::plan::Group;
use crate::proto::modbus::schedule::{Miss, Next, Schedule};

mod setup;
mod waiting;

/// Commands taken off the queue that are not settled yet, of all units together. The bus takes no more while this many
/// are held, so that the queue fills up and the hub answers busy. A whole queue's worth, since one unit may rest while
/// the others go on.
const COMMANDS_HELD: usize = COMMAND_QUEUE;

/// A property that the device refuses to tell is asked for again after this: a new firmware or option card is found
/// without a restart, and a device is not bothered.
const UNREADABLE_RETRY: Duration = Duration::from_secs(300);

/// A property on which the device keeps silent may also have had bad luck on a noisy line; it is asked for again
/// sooner, at the price of one timeout each time.
const SILENT_RETRY: Duration = Duration::from_secs(30);

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn {
    /// Ask a unit, and report to `completed` or `interrupted`.
    Ask {
        /// Unit address.
        unit: u8,
        /// What to send.
        request: Request,
    },
    /// Nothing before this time, if a time is given.
    Idle { until: Option<Instant> },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    link_up: bool,
    schedule: Schedule,
    /// Unit addresses by the schedule's numbers.
    units: Vec<u8>,
    /// Numbered as they come.
    stations: BTreeMap<usize, Station>,
    stations_ever: usize,
    /// By the schedule's keys.
    polls: BTreeMap<usize, Poll>,
    polls_ever: usize,
    /// Units of which a group was taken apart or given up. What was learned of them is forgotten when they go offline:
    /// what returns may be another device, or the same one with a new firmware.
    learned: BTreeSet<usize>,
    jobs: BTreeMap<u64, Entry>,
    jobs_ever: u64,
    current: Option<Current>,
    /// The job that goes on before anything else, because its next write was made of what has just been read.
    holder: Option<(usize, u64)>,
    wear: Wear<usize>,
    /// Writes that wait because their property was written a moment ago, and until when. At most as many as are held.
    later: Vec<(Instant, u64)>,
    tended: Tended,
    out: Vec<Observation>,
}

#[derive(Debug)]
struct Station {
    device: ModbusDevice,
    unit: usize,
}

#[derive(Debug)]
struct Poll {
    station: usize,
    group: Group,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    station: usize,
    started: bool,
    /// Whether it does not wait until what it writes may be written again.
    urgent: bool,
    /// What it writes; empty for reads and functions.
    writes: Vec<usize>,
    /// What of that, or of what a function writes, wears out, and the least time between two writes of it.
    worn: Vec<(usize, Duration)>,
    /// When each command expires, the first one first.
    deadlines: Vec<(CommandId, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum Current {
    Poll {
        unit: usize,
        key: usize,
    },
    /// Only whether the unit answers is asked, by the first place of a poll.
    Probe {
        unit: usize,
        key: usize,
    },
    Job {
        unit: usize,
        id: u64,
    },
}

impl Core {
    /// The devices of one bus; those at one unit address share its fate.
    pub(super) fn new(devices: Vec<ModbusDevice>, now: Instant) -> Self {
        let mut core = Self {
            link_up: true,
            schedule: Schedule::new(now),
            units: Vec::new(),
            stations: BTreeMap::new(),
            stations_ever: 0,
            polls: BTreeMap::new(),
            polls_ever: 0,
            learned: BTreeSet::new(),
            jobs: BTreeMap::new(),
            jobs_ever: 0,
            current: None,
            holder: None,
            wear: Wear::default(),
            later: Vec::new(),
            tended: Tended::default(),
            out: Vec::new(),
        };
        for device in devices {
            core.add(device);
        }
        core
    }

    /// What the hub must be told, in order.
    pub(super) fn take_observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.out)
    }

    /// Whether another command may be submitted.
    pub(super) fn has_room(&self) -> bool {
        self.jobs.values().map(|entry| entry.deadlines.len()).sum::<usize>() < COMMANDS_HELD
    }

    /// Units that do not answer and are only probed.
    pub(super) fn silent_units(&self) -> usize {
        self.schedule.silent_units()
    }

    /// How far it is behind its plan, see [`Schedule::behind`].
    pub(super) fn behind(&self, now: Instant) -> Duration {
        self.schedule.behind(now)
    }

    /// Takes a command; it may be settled at once.
    pub(super) fn submit(&mut self, command: &DriverCommand, now: Now) {
        match self.admit(command, now.instant) {
            Ok(overtaken) => {
                for (older, property) in overtaken {
                    self.settle(older, Outcome::Rejected(Rejection::Superseded(property)), now);
                }
            }
            Err(outcome) => self.settle(command.id, outcome, now),
        }
    }

    /// Decides what to do next.
    pub(super) fn next(&mut self, now: Now) -> Turn {
        self.expire(now);
        self.release(now);
        self.check_setups(now.instant);
        if let Some(until) = self.holder.and_then(|(unit, _)| self.schedule.rests_until(unit)) {
            // The device wants its pause here too, and the line stays held meanwhile.
            if now.instant < until {
                return Turn::Idle { until: Some(until) };
            }
        }
        loop {
            let held = self.holder.take().map(|(unit, id)| Next::Order { unit, id });
            let (unit, id) = match held.unwrap_or_else(|| self.schedule.next(now.instant)) {
                Next::Idle { until } => {
                    let later = self.later.iter().map(|(at, _)| *at).min();
                    let times = [until, later, self.next_check()];
                    return Turn::Idle { until: times.into_iter().flatten().min() };
                }
                Next::Poll { unit, key } => match self.polls.get(&key) {
                    Some(poll) => {
                        let (span, current) = match poll.group.members() {
                            [first, _, ..] if self.is_probed(unit) => {
                                (first.span, Current::Probe { unit, key })
                            }
                            _ => (poll.group.span(), Current::Poll { unit, key }),
                        };
                        self.current = Some(current);
                        return Turn::Ask { unit: self.address(unit), request: Request::Read(span) };
                    }
                    None => return Turn::Idle { until: Some(now.instant) },
                },
                Next::Order { unit, id } => (unit, id),
            };
            if self.put_off(unit, id, now) {
                continue;
            }
            match self.begin(id, now.instant) {
                Act::Exchange(request) => {
                    self.current = Some(Current::Job { unit, id });
                    return Turn::Ask { unit: self.address(unit), request };
                }
                Act::Pause(pause) => {
                    self.schedule.rest(unit, now.instant + pause);
                    if let Some(entry) = self.jobs.get_mut(&id) {
                        entry.job.paused();
                    }
                }
                Act::Wait(pause) => {
                    self.schedule.park(unit, id, now.instant + pause);
                    if let Some(entry) = self.jobs.get_mut(&id) {
                        entry.job.paused();
                    }
                }
                Act::Finish => self.finish(unit, id, now),
            }
        }
    }

    /// The unit that was asked last answered, or failed to for the reason given.
    pub(super) fn completed(&mut self, result: Result<Answer, String>, now: Now) {
        let Some(current) = self.current.take() else { return };
        let (Current::Poll { unit, .. } | Current::Probe { unit, .. } | Current::Job { unit, .. }) = current;
        let pause =
            self.stations_of(unit).map(|(_, station)| station.device.map.pause).max().unwrap_or_default();
        if !pause.is_zero() {
            self.schedule.rest(unit, now.instant + pause);
        }
        // A gateway that speaks for a unit says nothing of the unit itself.
        let result = result.and_then(|answer| {
            let refusal = if let Answer::Exception(exception) = &answer { Some(*exception) } else { None };
            match refusal.filter(|exception| exception.is_from_gateway()) {
                Some(exception) => Err(exception.to_string()),
                None => Ok(answer),
            }
        });
        match &result {
            Ok(_) => {
                if self.schedule.answered(unit, now.instant) {
                    self.presence(unit, None, now);
                    self.set_up(unit, now.instant);
                }
            }
            Err(reason) => self.unit_failed(unit, reason, now),
        }
        match (current, result) {
            (Current::Poll { unit, key }, Ok(answer)) => self.polled(unit, key, &answer, now),
            // The poll itself is due now.
            (Current::Probe { .. }, Ok(_)) => {}
            (Current::Poll { unit, key } | Current::Probe { unit, key }, Err(reason)) => {
                let refused = self.schedule.missed(unit, key, now.instant) == Miss::Refused;
                // The silence of a unit that has just gone offline says nothing of a single poll.
                if refused && self.schedule.presence(unit) != Presence::Offline {
                    self.refused(unit, key, &reason, SILENT_RETRY, now);
                }
            }
            (Current::Job { unit, id }, Ok(answer)) => {
                let Some(entry) = self.jobs.get_mut(&id) else { return };
                let station = entry.station;
                let Some(device) = self.stations.get(&station).map(|station| &station.device) else { return };
                let known = entry.job.answered(device, &answer);
                self.holder = entry.job.holds_line().then_some((unit, id));
                self.values(station, known, now);
                self.finish_if_done(unit, id, now);
            }
            (Current::Job { unit, id }, Err(_)) => self.job_unanswered(unit, id, now),
        }
    }

    /// The port was lost while the unit was asked, and will be opened again at once. A read is made again; a write may have
    /// arrived, so its result is unknown. A poll is made again in its turn: some peers hang up on a range that they do not
    /// have, and one that does so each time is taken for refused.
    pub(super) fn interrupted(&mut self, now: Now) {
        match self.current.take() {
            Some(Current::Job { unit, id }) => self.job_unanswered(unit, id, now),
            Some(Current::Poll { unit, key }) => {
                let refused = self.schedule.missed(unit, key, now.instant) == Miss::Refused;
                if refused && self.schedule.presence(unit) != Presence::Offline {
                    self.refused(unit, key, "the connection ends instead of an answer", SILENT_RETRY, now);
                }
            }
            Some(Current::Probe { .. }) | None => {}
        }
    }

    /// The port was opened or the connection made: units that need it are left alone for a while.
    pub(super) fn opened(&mut self, now: Instant) {
        for Station { device, unit } in self.stations.values() {
            if !device.map.pause_after_connect.is_zero() {
                self.schedule.rest(*unit, now + device.map.pause_after_connect);
            }
        }
    }

    /// Whether no unit answers any more, so that the port or the connection itself is in doubt.
    pub(super) fn all_silent(&self) -> bool {
        self.schedule.all_silent()
    }

    /// Asks every unit something at once, to find out whether all are silent.
    pub(super) fn ask_everybody(&mut self, now: Instant) {
        self.schedule.ask_everybody(now);
    }

    /// The link is down: all units are offline, and no command can be carried out.
    pub(super) fn link_lost(&mut self, reason: &str, now: Now) {
        self.link_up = false;
        self.current = None;
        self.holder = None;
        for unit in self.schedule.link_lost(now.instant) {
            self.presence(unit, Some(reason), now);
            self.forget_learned(unit);
        }
        self.settle_all(&Outcome::Offline, now);
    }

    /// The link is back.
    pub(super) fn link_found(&mut self, now: Instant) {
        self.link_up = true;
        self.schedule.link_found(now);
        for station in self.stations.values() {
            let (unit, device) = (station.unit, Arc::clone(&station.device.device));
            if self.schedule.presence(unit) == Presence::Offline && !self.schedule.is_polled(unit) {
                self.out.push(Observation::Doubt { device });
            }
        }
    }

    /// Settles everything that is held, at the end.
    pub(super) fn stop(&mut self, now: Now) {
        self.settle_all(&Outcome::Busy, now);
    }

    /// Settles a command that came too late to be taken.
    pub(super) fn turn_away(&mut self, command: CommandId, now: Now) {
        self.settle(command, Outcome::Busy, now);
    }

    fn add(&mut self, device: ModbusDevice) {
        let unit = self.unit(device.unit);
        let station = self.keep_station(Station { device, unit });
        self.plan(station);
    }

    /// The schedule's number of a unit address.
    fn unit(&mut self, address: u8) -> usize {
        self.units.iter().position(|unit| *unit == address).unwrap_or_else(|| {
            self.units.push(address);
            self.schedule.add_unit()
        })
    }

    fn keep_station(&mut self, station: Station) -> usize {
        let at = self.stations_ever;
        self.stations_ever += 1;
        self.stations.insert(at, station);
        at
    }

    /// Adds the polls of a station.
    fn plan(&mut self, station: usize) {
        let Some(Station { device, unit }) = self.stations.get(&station) else { return };
        let unit = *unit;
        let properties = device.map.properties.iter().zip(&device.device.product.properties).enumerate();
        let mut intervals: BTreeMap<Duration, Vec<usize>> = BTreeMap::new();
        for (position, (point, property)) in properties {
            if let Some(point) = point.as_ref().filter(|_| property.access.readable()) {
                intervals.entry(point.every).or_default().push(position);
            }
        }
        let groups: Vec<(Duration, Group)> = intervals
            .into_iter()
            .flat_map(|(every, positions)| {
                grouped(device, positions).into_iter().map(move |group| (every, group))
            })
            .collect();
        for (every, group) in groups {
            let key = self.keep_poll(station, group);
            self.schedule.add_poll(unit, key, every);
        }
    }

    fn keep_poll(&mut self, station: usize, group: Group) -> usize {
        let key = self.polls_ever;
        self.polls_ever += 1;
        self.polls.insert(key, Poll { station, group });
        key
    }

    /// Makes the polls of a unit anew, as if it were asked for the first time.
    fn forget_learned(&mut self, unit: usize) {
        if self.learned.remove(&unit) {
            self.replan(unit);
        }
    }

    fn replan(&mut self, unit: usize) {
        let stations: Vec<usize> = self.stations_of(unit).map(|(at, _)| at).collect();
        self.polls.retain(|_, poll| !stations.contains(&poll.station));
        self.schedule.clear_polls(unit);
        for station in stations {
            self.plan(station);
        }
    }

    /// Whether nothing more than a sign of life should be asked: of a unit that is away, and of one that is to be set up
    /// before its values mean anything.
    fn is_probed(&self, unit: usize) -> bool {
        match self.schedule.presence(unit) {
            Presence::Offline => true,
            Presence::Unknown => {
                self.stations_of(unit).any(|(_, station)| !station.device.map.setup.is_empty())
            }
            Presence::Online => false,
        }
    }

    fn stations_of(&self, unit: usize) -> impl Iterator<Item = (usize, &Station)> {
        let numbered = self.stations.iter().map(|(at, station)| (*at, station));
        numbered.filter(move |(_, station)| station.unit == unit)
    }

    /// Takes a job's next step, and says when it is the first.
    fn begin(&mut self, id: u64, now: Instant) -> Act {
        let Some(entry) = self.jobs.get_mut(&id) else { return Act::Finish };
        if !entry.started {
            entry.started = true;
            self.wear.note(&entry.station, entry.worn.iter().copied(), now);
            self.out
                .extend(entry.job.commands().into_iter().map(|command| Observation::Accepted { command }));
        }
        entry.job.act()
    }

    fn job_unanswered(&mut self, unit: usize, id: u64, now: Now) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.job.unanswered();
        }
        self.finish_if_done(unit, id, now);
    }

    fn finish_if_done(&mut self, unit: usize, id: u64, now: Now) {
        if self.jobs.get(&id).is_some_and(|entry| entry.job.act() == Act::Finish) {
            self.finish(unit, id, now);
        }
    }

    fn finish(&mut self, unit: usize, id: u64, now: Now) {
        self.schedule.finish(unit, id);
        let Some(entry) = self.jobs.remove(&id) else { return };
        let Some(station) = self.stations.get(&entry.station) else { return };
        if let Job::Setup(setup) = &entry.job {
            self.tended.note(entry.station, &station.device, setup, now.instant);
            if setup.wore() {
                let worn = station.device.map.worn_by_setup();
                self.wear.note(&entry.station, worn, now.instant);
            }
        }
        for (command, outcome) in entry.job.outcomes(&station.device) {
            self.settle(command, outcome, now);
        }
    }

    fn polled(&mut self, unit: usize, key: usize, answer: &Answer, now: Now) {
        let Some(poll) = self.polls.get_mut(&key) else { return };
        if let Answer::Exception(exception) = answer {
            // Illegal function, address or value: asking again soon will not help. A device that is busy is asked
            // again in its turn, and whatever else it says makes its values unreadable for now.
            if exception.refuses_places() || exception.0 == 1 {
                return self.refused(unit, key, &exception.to_string(), UNREADABLE_RETRY, now);
            }
            self.schedule.polled(unit, key, now.instant);
            if exception.is_acknowledge() || exception.is_busy() {
                return;
            }
        } else {
            self.schedule.polled(unit, key, now.instant);
        }
        let station = poll.station;
        let Some(device) = self.stations.get(&station).map(|station| &station.device) else { return };
        let known = samples(device, &poll.group, answer);
        self.values(station, known, now);
    }

    /// Takes a refused group apart, or gives a single place up for a while.
    fn refused(&mut self, unit: usize, key: usize, reason: &str, retry: Duration, now: Now) {
        self.learned.insert(unit);
        let Some(poll) = self.polls.get_mut(&key) else { return };
        let station = poll.station;
        let Some(device) = self.stations.get(&station).map(|station| &station.device) else { return };
        let span = poll.group.span();
        if let Some((low, high)) = poll.group.split() {
            info!(device = %device.device.id, %span, reason, "grouped read refused; it is split for good");
            self.polls.remove(&key);
            let parts = [low, high].map(|group| self.keep_poll(station, group));
            self.schedule.split(unit, key, parts, now.instant);
            return;
        }
        let unreadable = |member: &crate::proto::modbus::plan::Member| {
            (member.key, Sample::Unreadable(format!("{span}: {reason}").into()))
        };
        let known = poll.group.members().iter().map(unreadable).collect();
        self.schedule.defer(unit, key, now.instant + retry);
        self.values(station, known, now);
    }

    fn unit_failed(&mut self, unit: usize, reason: &str, now: Now) {
        let offline = self.schedule.failed(unit, now.instant);
        let failures = self.schedule.failures(unit);
        debug!(unit = self.address(unit), failures, reason, "no usable answer");
        if !offline {
            return;
        }
        self.presence(unit, Some(&format!("{reason} ({failures} times in a row)")), now);
        self.forget_learned(unit);
        let later: Vec<u64> =
            self.later.iter().map(|(_, id)| *id).filter(|id| self.is_for(*id, unit)).collect();
        self.later.retain(|(_, id)| !later.contains(id));
        for id in self.schedule.take_waiting(unit).into_iter().chain(later) {
            self.drop_job(id, &Outcome::Offline, now);
        }
    }

    /// Tells the presence of all devices at a unit; offline with a reason. A unit that nothing is read of can only be found
    /// again by a command, which nobody sends to a device that is known to be offline: so of those it is not known.
    fn presence(&mut self, unit: usize, offline: Option<&str>, now: Now) {
        let doubt = offline.is_some() && !self.schedule.is_polled(unit);
        for station in self.stations.values().filter(|station| station.unit == unit) {
            let device = &station.device.device;
            info_span!("device", device = %device.id, unit = station.device.unit).in_scope(
                || match offline {
                    None => info!("device online"),
                    Some(reason) => warn!(reason, "device offline"),
                },
            );
            self.out.push(Observation::Presence {
                device: Arc::clone(device),
                at: now.wall,
                online: offline.is_none(),
                reason: offline.map(Arc::from),
            });
            if doubt {
                self.out.push(Observation::Doubt { device: Arc::clone(device) });
            }
        }
    }

    fn values(&mut self, station: usize, values: Vec<(usize, Sample)>, now: Now) {
        self.look_for_restart(station, &values, now.instant);
        if let (Some(station), false) = (self.stations.get(&station), values.is_empty()) {
            let device = Arc::clone(&station.device.device);
            self.out.push(Observation::Values { device, at: now.wall, values });
        }
    }

    fn settle(&mut self, command: CommandId, outcome: Outcome, now: Now) {
        self.out.push(Observation::Settled { command, at: now.wall, outcome });
    }

    fn address(&self, unit: usize) -> u8 {
        self.units.get(unit).copied().unwrap_or_default()
    }
}

mod adopt;
#[cfg(test)]
mod tests;

//! The drivers of a running gateway: which of them begin, end, begin anew or go on with other devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Broker, Bus, Config, LinkChange};
use crate::drivers::announce::{Announcement, Announcer};
use crate::drivers::modbus::recorder::Recorders;
use crate::drivers::modbus::{self, ModbusDevice};
use crate::drivers::mqtt::{self, Members};
use crate::drivers::roll::{RollKeeper, roll};
use crate::drivers::{COMMAND_QUEUE, DriverCommand, LinkPort, Observation};
use crate::meters::{LinkMeters, Meters};
use crate::supervisor::{Stage, Supervisor};

/// How long a driver that begins waits for the end of those that a reload has stopped: a port can be open only once,
/// and a driver finishes the frame that it is in.
const HAND_OVER: Duration = Duration::from_secs(5);

/// The way to a driver's queue, by the id of its link.
pub(super) type Way = (Arc<str>, mpsc::Sender<DriverCommand>);

/// Every driver that runs.
#[derive(Debug)]
pub(super) struct Links {
    running: BTreeMap<Arc<str>, Running>,
    observations: mpsc::Sender<Observation>,
    announcements: mpsc::Sender<Announcement>,
    /// How the gateway is, for brokers that are told.
    state: watch::Sender<Option<Arc<str>>>,
    meters: Arc<Meters>,
    recorders: Recorders,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    announcer: Option<Announcer>,
    /// Cancelled when the driver has ended, and those whose end it may still have waited for.
    ended: Vec<CancellationToken>,
    /// Where the driver goes on with other devices.
    roll: Keeper,
}

#[derive(Debug)]
enum Keeper {
    Bus(RollKeeper<[ModbusDevice]>),
    Broker(RollKeeper<Members>),
}

/// Other devices for a driver that goes on.
#[derive(Debug)]
enum Others {
    Bus(Vec<ModbusDevice>),
    Broker(Members),
}

/// What is to be done, prepared so far that nothing of it can fail.
#[derive(Debug, Default)]
pub(super) struct Steps {
    stop: Vec<Arc<str>>,
    roll: Vec<(Arc<str>, Others)>,
    start: Vec<Start>,
}

#[derive(Debug)]
enum Start {
    Bus(Bus, LinkPort),
    Broker(Box<Broker>, LinkPort),
}

impl Start {
    fn link(&self) -> &Arc<str> {
        match self {
            Self::Bus(bus, _) => &bus.settings.id,
            Self::Broker(broker, _) => &broker.settings.id,
        }
    }

    fn port(&self) -> &LinkPort {
        match self {
            Self::Bus(_, port) | Self::Broker(_, port) => port,
        }
    }
}

impl Steps {
    /// The links whose drivers end, for good or to begin anew.
    pub(super) fn stopped(&self) -> &[Arc<str>] {
        &self.stop
    }

    /// Those of them that do not begin anew.
    fn gone(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stop.iter().filter(|id| !self.start.iter().any(|start| start.link() == *id))
    }
}

impl Links {
    pub(super) fn new(
        observations: mpsc::Sender<Observation>,
        announcements: mpsc::Sender<Announcement>,
        state: watch::Sender<Option<Arc<str>>>,
        meters: Arc<Meters>,
        recorders: Recorders,
    ) -> Self {
        Self { running: BTreeMap::new(), observations, announcements, state, meters, recorders }
    }

    /// What was on the buses.
    pub(super) fn recorders(&self) -> Recorders {
        self.recorders.clone()
    }

    /// What it takes to get from one configuration to another, and the ways to the drivers that will begin.
    pub(super) fn prepare(&self, old: Option<&Config>, new: &Config) -> (Steps, Vec<Way>) {
        let (mut steps, mut ways) = (Steps::default(), Vec::new());
        let mut port = |link: &Arc<str>, meters: LinkMeters| {
            let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
            ways.push((Arc::clone(link), commands));
            let announcer = Announcer::new(Arc::clone(link), self.announcements.clone());
            LinkPort {
                link: Arc::clone(link),
                commands: queue,
                observations: self.observations.clone(),
                meters,
                announcer: Some(announcer),
            }
        };
        for bus in &new.buses {
            let id = &bus.settings.id;
            let before = old.and_then(|old| old.buses.iter().find(|before| before.settings.id == *id));
            match before.map_or(LinkChange::Restart, |before| before.change(bus)) {
                LinkChange::None => {}
                LinkChange::Devices => steps.roll.push((Arc::clone(id), Others::Bus(bus.devices.clone()))),
                LinkChange::Restart => {
                    steps.start.push(Start::Bus(bus.clone(), port(id, self.meters.bus(id))));
                }
            }
        }
        for broker in &new.brokers {
            let id = &broker.settings.id;
            let before = old.and_then(|old| old.brokers.iter().find(|before| before.settings.id == *id));
            match before.map_or(LinkChange::Restart, |before| before.change(broker)) {
                LinkChange::None if broker.rules.is_empty() => {}
                // What appeared may have lost its name to a device elsewhere, and what may not appear may have won one.
                LinkChange::None | LinkChange::Devices => {
                    steps.roll.push((Arc::clone(id), Others::Broker(members(broker))));
                }
                LinkChange::Restart => {
                    steps
                        .start
                        .push(Start::Broker(Box::new(broker.clone()), port(id, self.meters.broker(id))));
                }
            }
        }
        let stays = |id: &Arc<str>| {
            let begins = ways.iter().any(|(link, _)| link == id);
            !begins && new.links.iter().any(|link| link.id == *id)
        };
        steps.stop = self.running.keys().filter(|id| !stays(id)).map(Arc::clone).collect();
        (steps, ways)
    }

    /// Does it.
    pub(super) fn commit(&mut self, steps: Steps, supervisor: &mut Supervisor) {
        for id in steps.gone() {
            // Its driver may count on for a moment; nobody sees that any more.
            self.meters.forget_bus(id);
            self.meters.forget_broker(id);
            self.recorders.forget(id);
        }
        for (id, others) in steps.roll {
            match (self.running.get(&id).map(|running| &running.roll), others) {
                (Some(Keeper::Bus(roll)), Others::Bus(devices)) => roll.replace(devices),
                (Some(Keeper::Broker(roll)), Others::Broker(members)) => roll.replace(members),
                // An id that was a bus and is a broker now belongs to a driver that begins.
                (Some(Keeper::Bus(_) | Keeper::Broker(_)) | None, _) => {}
            }
        }
        let mut before = Vec::new();
        for id in steps.stop {
            if let Some(running) = self.running.remove(&id) {
                running.stop.cancel();
                // What was found under the old settings has been forgotten already.
                running.announcer.iter().for_each(Announcer::silence);
                before.extend(running.ended);
            }
        }
        before.retain(|ended| !ended.is_cancelled());
        for start in steps.start {
            let stop = supervisor.token(Stage::Drivers).child_token();
            let ended = CancellationToken::new();
            let first = others_end(before.clone(), stop.clone());
            let guard = ended.clone().drop_guard();
            let ended = before.iter().cloned().chain([ended]).collect();
            let announcer = start.port().announcer.clone();
            let (id, roll) = match start {
                Start::Bus(bus, port) => {
                    let id = Arc::clone(&bus.settings.id);
                    // It may have been a broker before, as the other may have been a bus.
                    self.meters.forget_broker(&id);
                    let (keeper, devices) = roll(bus.devices);
                    let token = stop.clone();
                    let recorder = self.recorders.open(&bus.settings);
                    let task = async move {
                        first.await;
                        modbus::bus::run(bus.settings, devices, port, recorder, token).await;
                        drop(guard);
                    };
                    supervisor.spawn_with(Stage::Drivers, format!("bus {id}"), stop.clone(), task);
                    (id, Keeper::Bus(keeper))
                }
                Start::Broker(broker, port) => {
                    let id = Arc::clone(&broker.settings.id);
                    self.meters.forget_bus(&id);
                    self.recorders.forget(&id);
                    let (state, token) = (self.state.subscribe(), stop.clone());
                    let (keeper, devices) = roll(members(&broker));
                    let task = async move {
                        first.await;
                        mqtt::client::run(broker.settings, devices, port, state, token).await;
                        drop(guard);
                    };
                    supervisor.spawn_with(Stage::Drivers, format!("broker {id}"), stop.clone(), task);
                    (id, Keeper::Broker(keeper))
                }
            };
            self.running.insert(id, Running { stop, announcer, ended, roll });
        }
    }
}

/// Who is behind a broker.
fn members(broker: &Broker) -> Members {
    Members { devices: broker.devices.clone(), rules: broker.rules.clone(), scheme: broker.scheme.clone() }
}

/// Waits until these drivers have let go of their ports, unless the one that waits is told to stop: it ends at once then.
async fn others_end(drivers: Vec<CancellationToken>, stop: CancellationToken) {
    let all = async {
        for ended in drivers {
            ended.cancelled().await;
        }
    };
    if let Some(Err(_)) = stop.run_until_cancelled(timeout(HAND_OVER, all)).await {
        warn!("a driver that was stopped takes longer to end than it should");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn a_driver_waits_for_those_before_it_and_no_longer_than_it_may_run_itself() {
        let (begun, stop) = (clock::instant(), CancellationToken::new());
        others_end(vec![CancellationToken::new()], stop.clone()).await;
        assert!(clock::instant() - begun >= HAND_OVER);
        let begun = clock::instant();
        stop.cancel();
        others_end(vec![CancellationToken::new()], stop).await;
        assert!(clock::instant() - begun < HAND_OVER);
    }
}

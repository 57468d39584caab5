//! The task of one bus: it owns the port alone, asks what `core.rs` wants asked, and keeps the port open.
//!
//! Promises: it runs until it is told to stop; a port that is lost is closed at once and opened again for ever, in
//! growing pauses; nothing that a device, an adapter or a peer does ends it; a command is answered even while the
//! port is away.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::core::{Core, Turn};
use super::port::Port;
use super::recorder::Recorder;
use super::silence::{Silence, Verdict};
use super::wire::{Fault, Wire};
use super::{BusSettings, ModbusDevice, Target, adapter};
use crate::backoff::Backoff;
use crate::clock;
use crate::drivers::roll::Roll;
use crate::drivers::{DriverCommand, LinkPort, Observation};
use crate::meters::BusMeters;
use crate::proto::modbus::frame::Answer;
use crate::proto::modbus::late::Debts;
use crate::proto::modbus::reply::Defect;
use crate::report::Chain;

/// First pause before a port is opened again.
const REOPEN_FIRST: Duration = Duration::from_millis(250);

/// Longest pause. Looking for a device node costs nothing, and an adapter that was plugged in again should be back
/// before its installer wonders.
const REOPEN_MAX: Duration = Duration::from_secs(5);

/// Serves one bus until told to stop. See [`crate::drivers`] for what it owes the hub.
///
/// Its devices may change meanwhile; the port stays open.
pub async fn run(
    settings: BusSettings,
    devices: impl Into<Roll<[ModbusDevice]>>,
    port: LinkPort,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let mut roll = devices.into();
    let span = info_span!("bus", bus = %settings.id);
    let now = clock::instant();
    let core = Core::new(roll.now().to_vec(), now);
    let silence = match settings.target {
        Target::Serial(_) => Silence::of_port(now),
        Target::Tcp { .. } => Silence::of_connection(now),
    };
    let LinkPort { link, commands, observations, meters, announcer: _ } = port;
    let backoff = Backoff::new(REOPEN_FIRST, REOPEN_MAX);
    let bus = Bus {
        settings,
        link,
        commands,
        observations,
        meters: meters.bus,
        stop,
        roll,
        core,
        up: None,
        backoff,
        attempts: 0,
        doubted: false,
        debts: None,
        silence,
        recorder,
    };
    bus.run().instrument(span).await;
}

struct Bus {
    settings: BusSettings,
    link: Arc<str>,
    commands: mpsc::Receiver<DriverCommand>,
    observations: mpsc::Sender<Observation>,
    meters: BusMeters,
    stop: CancellationToken,
    roll: Roll<[ModbusDevice]>,
    core: Core,
    /// What the hub was told of the link last.
    up: Option<bool>,
    backoff: Backoff,
    attempts: u64,
    /// The last connection was made and ended without any answer: the next one proves nothing before there is one.
    doubted: bool,
    /// Requests that may still be answered on a serial line, while its port is closed.
    debts: Option<Debts>,
    silence: Silence,
    recorder: Recorder,
}

/// Why a port is not served any more.
enum Ended {
    /// Told to stop, or the hub is gone.
    Stop,
    /// It worked and is lost: most likely it can be had again at once.
    Lost(String),
    /// It never worked: opening it again at once would be a busy loop.
    Useless(String),
}

/// What wakes an idle bus.
enum Wake {
    Stop,
    Time,
    Command(Option<DriverCommand>),
    Devices(Arc<[ModbusDevice]>),
    Lost(io::Error),
}

impl Bus {
    async fn run(mut self) {
        while let Some(mut wire) = self.open().await {
            let ended = self.serve(&mut wire).await;
            if matches!(self.settings.target, Target::Serial(_)) {
                self.debts = Some(wire.into_debts());
            }
            match ended {
                Ended::Stop => break,
                Ended::Lost(reason) => debug!(reason, "port lost; opening it again"),
                Ended::Useless(reason) => {
                    self.doubted = matches!(self.settings.target, Target::Tcp { .. });
                    self.link_down(reason).await;
                    if !self.pause().await {
                        break;
                    }
                }
            }
        }
        self.finish().await;
    }

    /// Opens the port, however long that takes. `None` when told to stop.
    async fn open(&mut self) -> Option<Wire> {
        loop {
            let target = self.settings.target.clone();
            let attempt = Port::open(&target);
            tokio::pin!(attempt);
            let opened = loop {
                let down = self.up == Some(false);
                tokio::select! {
                    biased;
                    // Cancel safe: the token remembers.
                    () = self.stop.cancelled() => return None,
                    // Cancel safe: the attempt lives outside of the loop.
                    opened = &mut attempt => break opened,
                    // Cancel safe by contract of the channel. Before the first attempt has ended commands wait.
                    command = self.commands.recv(), if down => {
                        self.submit(&command?).await;
                    }
                }
            };
            match opened {
                Ok(port) => {
                    if self.doubted {
                        // Its units are asked, and nobody is told before one has answered.
                        self.core.link_found(clock::instant());
                    } else {
                        self.link_up().await;
                    }
                    self.core.opened(clock::instant());
                    return Some(Wire::new(
                        port,
                        &self.settings,
                        self.debts.take(),
                        self.recorder.clone(),
                        clock::instant(),
                    ));
                }
                Err(error) => {
                    let reason = Chain(&error).to_string();
                    self.link_down(reason).await;
                    if !self.pause().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Works on an open port until it is lost.
    async fn serve(&mut self, wire: &mut Wire) -> Ended {
        loop {
            if self.stop.is_cancelled() {
                return Ended::Stop;
            }
            if let Some(devices) = self.roll.news() {
                self.core.adopt(&devices, clock::now());
            }
            while self.core.has_room() {
                match self.commands.try_recv() {
                    Ok(command) => self.core.submit(&command, clock::now()),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return Ended::Stop,
                }
            }
            let now = clock::now();
            self.meters.behind.set(self.core.behind(now.instant).as_secs_f64());
            let turn = self.core.next(now);
            self.meters.silent_units.set(i64::try_from(self.core.silent_units()).unwrap_or(i64::MAX));
            self.tell().await;
            match turn {
                Turn::Ask { unit, request } => {
                    let begun = clock::instant();
                    let asked = wire.exchange(unit, &request).await;
                    let now = clock::now();
                    self.count(&asked, now.instant.duration_since(begun));
                    match asked {
                        Ok(answer) => {
                            self.backoff.reset();
                            if std::mem::take(&mut self.doubted) {
                                self.link_up().await;
                            }
                            self.core.completed(Ok(answer), now);
                        }
                        Err(Fault::Lost(error)) => {
                            self.core.interrupted(now);
                            return ended(wire, &error);
                        }
                        Err(fault @ (Fault::NoAnswer(_) | Fault::Request(_))) => {
                            self.core.completed(Err(Chain(&fault).to_string()), now);
                        }
                    }
                    self.tell().await;
                    if self.is_dead(wire) {
                        return Ended::Lost("nothing is answered any more".to_owned());
                    }
                }
                Turn::Idle { until } => match self.idle(wire, until).await {
                    Wake::Stop | Wake::Command(None) => return Ended::Stop,
                    Wake::Time => {}
                    Wake::Devices(devices) => self.core.adopt(&devices, clock::now()),
                    Wake::Command(Some(command)) => self.core.submit(&command, clock::now()),
                    Wake::Lost(error) => return ended(wire, &error),
                },
            }
        }
    }

    /// Whether the port should be opened anew because nobody behind it answers. While a unit might, it is asked.
    fn is_dead(&mut self, wire: &Wire) -> bool {
        let now = clock::instant();
        match self.silence.judge(wire.silent(), self.core.all_silent(), now) {
            Verdict::Fine => false,
            Verdict::Ask => {
                self.core.ask_everybody(now);
                false
            }
            Verdict::Reset => true,
        }
    }

    /// Waits for the next thing to do, with an eye on the port: a lost one is noticed at once, not at the next poll.
    async fn idle(&mut self, wire: &mut Wire, until: Option<Instant>) -> Wake {
        let room = self.core.has_room();
        let timer = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel safe: the token remembers.
            () = self.stop.cancelled() => Wake::Stop,
            // Cancel safe by contract of the channel.
            command = self.commands.recv(), if room => Wake::Command(command),
            // Cancel safe, see there.
            devices = self.roll.changed() => Wake::Devices(devices),
            // Cancel safe: a new timer is made from the same time.
            () = timer => Wake::Time,
            // Cancel safe, see there.
            error = wire.watch() => Wake::Lost(error),
        }
    }

    /// Waits before the next attempt, settling commands meanwhile. Says whether to go on.
    async fn pause(&mut self) -> bool {
        let until = clock::instant() + self.backoff.next(fastrand::f64());
        loop {
            tokio::select! {
                biased;
                // Cancel safe: the token remembers.
                () = self.stop.cancelled() => return false,
                // Cancel safe by contract of the channel.
                command = self.commands.recv() => match command {
                    Some(command) => self.submit(&command).await,
                    None => return false,
                },
                // Cancel safe, see there.
                devices = self.roll.changed() => self.adopt(&devices).await,
                // Cancel safe: a new timer is made from the same time.
                () = sleep_until(until.into()) => return true,
            }
        }
    }

    fn count(&self, asked: &Result<Answer, Fault>, took: Duration) {
        let meters = &self.meters;
        meters.requests.inc();
        meters.busy.inc_by(took.as_secs_f64());
        match asked {
            Ok(Answer::Exception(_)) => meters.exceptions.inc(),
            Err(Fault::NoAnswer(Defect::Silence)) => meters.timeouts.inc(),
            Err(Fault::NoAnswer(_)) => meters.bad_answers.inc(),
            Ok(
                Answer::Bits(_) | Answer::Registers(_) | Answer::Written | Answer::Data(_) | Answer::Names(_),
            )
            | Err(Fault::Lost(_) | Fault::Request(_)) => return,
        };
    }

    async fn link_up(&mut self) {
        self.attempts = 0;
        if self.up != Some(true) {
            self.up = Some(true);
            self.core.link_found(clock::instant());
            info!("bus up");
            if let Target::Serial(serial) = &self.settings.target {
                let (port, terminals) = (Path::new(&*serial.path), Path::new(adapter::TERMINALS));
                if let Some(advice) = adapter::latency_advice(port, terminals) {
                    warn!("{advice}");
                }
            }
            self.tell_link(true, None).await;
            self.tell().await;
        }
    }

    async fn link_down(&mut self, reason: String) {
        self.attempts += 1;
        if self.up == Some(false) {
            debug!(reason, attempts = self.attempts, "bus still down");
            // What was taken in on a connection that gave no answer is settled.
            self.core.link_lost(&reason, clock::now());
            return self.tell().await;
        }
        self.up = Some(false);
        warn!(reason, "bus down");
        self.core.link_lost(&reason, clock::now());
        self.tell_link(false, Some(reason.into())).await;
        self.tell().await;
    }

    async fn tell_link(&mut self, up: bool, reason: Option<Arc<str>>) {
        let link = Arc::clone(&self.link);
        self.send(Observation::Link { link, at: clock::wall(), up, reason }).await;
    }

    async fn adopt(&mut self, devices: &[ModbusDevice]) {
        self.core.adopt(devices, clock::now());
        self.tell().await;
    }

    async fn submit(&mut self, command: &DriverCommand) {
        self.core.submit(command, clock::now());
        self.tell().await;
    }

    /// Hands the hub what has been seen, waiting for room.
    async fn tell(&mut self) {
        for observation in self.core.take_observations() {
            self.send(observation).await;
        }
    }

    async fn send(&mut self, observation: Observation) {
        if matches!(
            observation,
            Observation::Presence { online: false, .. } | Observation::Link { up: false, .. }
        ) {
            self.recorder.fault();
        }
        if self.observations.send(observation).await.is_err() {
            // Nobody is left to work for.
            self.stop.cancel();
        }
    }

    /// Settles what is held, and what still waits in the queue.
    async fn finish(mut self) {
        self.core.stop(clock::now());
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.core.turn_away(command.id, clock::now());
        }
        for observation in self.core.take_observations() {
            if self.observations.send(observation).await.is_err() {
                break;
            }
        }
    }
}

/// A port that gave answers is worth opening again at once.
fn ended(wire: &Wire, error: &io::Error) -> Ended {
    let reason = format!("the port is lost: {error}");
    if wire.answers() > 0 { Ended::Lost(reason) } else { Ended::Useless(reason) }
}

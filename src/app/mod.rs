//! The wiring: the only place that knows all the parts.
//!
//! `App::build` binds the listeners and connects the parts with queues; nothing runs before `App::run`, and nothing
//! is left running after it. While it runs, [`Control`] changes the configuration under it:
//!
//! ```text
//! SIGHUP -> cli loads files -> Control -> gateway.rs: compare, prepare what can fail, commit what cannot
//!                                              | doors.rs   listeners       | links.rs  drivers
//! a driver that found devices -> Announcer ----+ found.rs   what it found
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::clock;
use crate::config::{Config, History};
use crate::dialects::Seal;
use crate::drivers::OBSERVATION_QUEUE;
use crate::drivers::announce::ANNOUNCEMENT_QUEUE;
use crate::drivers::modbus::captures;
use crate::drivers::modbus::recorder::Recorders;
use crate::drivers::mqtt;
use crate::hub;
use crate::hub::handle::{HubHandle, REQUEST_QUEUE};
use crate::meters::Meters;
use crate::model::directory::Directory;
use crate::model::interest::Selector;
use crate::notify;
use crate::report::Chain;
use crate::serve::admission::Admission;
use crate::serve::inherited;
use crate::serve::listener::BindError;
use crate::serve::{advertise, sockjs};
use crate::status;
use crate::store::{self, Archive, Keeper};
use crate::supervisor::{Ending, Stage, Supervisor};
use crate::telemetry;
use crate::tls::TlsError;

mod control;
mod doors;
mod found;
mod gateway;
mod links;

pub use self::control::{Applied, Control, Refusal};
use self::control::{ORDER_QUEUE, Order};
use self::doors::{Doors, Prepared};
use self::gateway::Gateway;
use self::links::Links;

/// A gateway that is connected but does not run yet.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    config: Config,
    doors: Prepared,
    seal: Seal,
    control: Control,
    orders: mpsc::Receiver<Order>,
}

/// Where clients can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Address and real port.
    pub address: SocketAddr,
    /// Whether it is TLS.
    pub secure: bool,
}

/// Why a gateway cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener.
    #[error("cannot open a listener")]
    Bind(#[source] BindError),
    /// The certificate or its key.
    #[error("cannot serve TLS")]
    Tls(#[source] TlsError),
    /// The kernel's random numbers.
    #[error("cannot make a random key")]
    Random(#[source] getrandom::Error),
}

impl App {
    /// Binds every listener. Must be called inside the runtime.
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let doors = Doors::default().prepare(&config.server, &config.dialects)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(BuildError::Random)?;
        let seal = Seal { key, made: clock::instant() };
        let (control, orders) = Control::new(ORDER_QUEUE);
        Ok(Self { supervisor: Supervisor::default(), config, doors, seal, control, orders })
    }

    /// Where clients can connect, in configuration order.
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.addresses()
    }

    /// The way to change the configuration while the gateway runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Lets a task of the demo's world run along; it is stopped last.
    pub fn add_world<F>(&mut self, name: &str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.supervisor.token(Stage::World);
        self.supervisor.spawn(Stage::World, name, task(token));
    }

    /// Runs the gateway until `stop` is cancelled or a part fails.
    pub async fn run(self, stop: CancellationToken) -> Ending {
        let Self { mut supervisor, config, doors, seal, control, mut orders } = self;
        let notices = control.notices();
        // Whoever wants to change something has a copy; without any, nothing is ever ordered.
        drop(control);
        let directory = Arc::new(Directory::new(config.devices.clone(), config.links.clone()));
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (observations, observation_queue) = mpsc::channel(OBSERVATION_QUEUE);
        let (announcements, mut announced) = mpsc::channel(ANNOUNCEMENT_QUEUE);
        let meters = Arc::new(Meters::default());
        let recorders = record(&mut supervisor);
        let state = watch::Sender::new(None);
        // Before anybody is told a time.
        let (keeper, archive) = keep_time(&mut supervisor, &config, &directory, &meters).unzip();
        let mut links =
            Links::new(observations, announcements, state.clone(), Arc::clone(&meters), recorders);
        let (steps, ways) = links.prepare(None, &config);
        links.commit(steps, &mut supervisor);
        let token = supervisor.token(Stage::Hub);
        let hub = hub::task::run(
            Arc::clone(&directory),
            ways,
            request_queue,
            observation_queue,
            keeper,
            token,
            meters.hub(),
        );
        supervisor.spawn(Stage::Hub, "hub", hub);
        if let Some(interval) = notify::watchdog() {
            let token = supervisor.token(Stage::Hub);
            let fed = notify::feed_watchdog(interval, meters.hub().turns, token);
            supervisor.spawn(Stage::Hub, "watchdog", fed);
        }
        let limits = config.server.limits;
        let (sockjs, desk) = sockjs::desk();
        let admission = Admission::new(
            limits.connections,
            limits.connections_per_address,
            &config.server.trusted_proxies,
        );
        let hub = HubHandle::new(requests).with_archive(archive);
        if notify::wanted() {
            let token = supervisor.token(Stage::Serve);
            let line = status::keep(hub.clone(), admission.clone(), notices, token);
            supervisor.spawn(Stage::Serve, "status", line);
        }
        let token = supervisor.token(Stage::Leases);
        supervisor.spawn(Stage::Leases, "leases", let_go(hub.clone(), token));
        let token = supervisor.token(Stage::Drivers);
        supervisor.spawn(Stage::Drivers, "gateway state", watch_state(hub.clone(), state, token));
        let (mut gateway, live) =
            Gateway::new(config, directory, hub, seal, sockjs, admission, links, meters);
        let token = supervisor.token(Stage::Serve);
        supervisor.spawn(Stage::Serve, "sockjs", desk.run(live.clone(), token));
        let token = supervisor.token(Stage::Serve);
        supervisor.spawn(Stage::Serve, "advertiser", advertise::run(live, token));
        let token = supervisor.token(Stage::Serve);
        supervisor.spawn(Stage::Serve, "log", telemetry::tell_what_was_held_back(token));
        gateway.open(doors, &mut supervisor);
        inherited::warn_of_unclaimed();
        notify::ready(&gateway.status());
        loop {
            tokio::select! {
                // Cancel-safe, see there.
                () = supervisor.watch(&stop) => break,
                // Cancel-safe by its documentation. Likewise below.
                Some(order) = orders.recv() => gateway.obey(order, &mut supervisor).await,
                Some(announcement) = announced.recv() => {
                    let mut all = vec![announcement];
                    while let Ok(another) = announced.try_recv() {
                        all.push(another);
                    }
                    gateway.hear(all).await;
                }
            }
        }
        notify::stopping();
        // Drivers and commands that wait for an answer learn that there will be none.
        drop((orders, announced));
        supervisor.finish().await
    }
}

/// Starts what writes the recordings of the buses into files.
fn record(supervisor: &mut Supervisor) -> Recorders {
    let (recorders, faults) = Recorders::new();
    let token = supervisor.token(Stage::Drivers);
    let task = captures::run(recorders.clone(), faults, captures::folder(), token);
    supervisor.spawn(Stage::Drivers, "captures", task);
    recorders
}

/// Waits until the gateway is told to stop, then until the safe values of leases are written.
async fn let_go(hub: HubHandle, stop: CancellationToken) {
    // Shorter than the stage's own patience, so that a device that does not answer is no overrun.
    const WITHIN: Duration = Duration::from_millis(1_500);
    stop.cancelled().await;
    if !matches!(timeout(WITHIN, hub.release()).await, Ok(Ok(()))) {
        warn!("not every leased value could be made safe before the end");
    }
}

/// Keeps the brokers' drivers told of how the gateway is, while there are any; they are told at most once in this time.
async fn watch_state(hub: HubHandle, state: watch::Sender<Option<Arc<str>>>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(5);
    let watching = async {
        loop {
            // A hub that does not answer in time is asked again; that it is stuck, others say.
            let seen =
                if state.receiver_count() > 0 { hub.look(Selector::All, EVERY).await.ok() } else { None };
            if let Some(snapshot) = seen {
                let text = mqtt::presence::state_text(env!("CARGO_PKG_VERSION"), &snapshot);
                state.send_if_modified(|known| {
                    let differs = known.as_deref() != Some(text.as_str());
                    *known = Some(text.into());
                    differs
                });
            }
            sleep(EVERY).await;
        }
    };
    // It may be dropped anywhere: it holds nothing.
    stop.run_until_cancelled(watching).await;
}

/// Begins to tell the time, and the history, whose last message says how late it is at least.
fn keep_time(
    supervisor: &mut Supervisor,
    config: &Config,
    directory: &Arc<Directory>,
    meters: &Meters,
) -> Option<(Keeper, Archive)> {
    clock::begin(config.gateway.clock);
    let troubled = meters.hub().history_troubled;
    let kept = keep_history(supervisor, config.history.clone(), directory, &troubled);
    if let Some((keeper, _)) = &kept {
        clock::passed(keeper.recovered.last, keeper.recovered.last_right);
    }
    let token = supervisor.token(Stage::Hub);
    supervisor.spawn(Stage::Hub, "clock", clock::watch::run(token));
    kept
}

/// Opens the history store and starts its thread. A gateway whose history cannot be opened serves without one until it
/// can: that somebody sees the present matters more.
fn keep_history(
    supervisor: &mut Supervisor,
    history: Option<History>,
    directory: &Arc<Directory>,
    troubled: &Gauge,
) -> Option<(Keeper, Archive)> {
    let history = history?;
    let (keeper, archive, worker) = match store::open(history.clone(), Arc::clone(directory)) {
        Ok(opened) => opened,
        Err(error) => {
            error!(error = %Chain(&error), "no history is kept until it can be opened; it is tried again");
            store::wait(history, Arc::clone(directory))
        }
    };
    let (runtime, worker) = (Handle::current(), worker.telling(troubled.clone()));
    if let Err(error) = supervisor.spawn_thread(Stage::Hub, "history", move || worker.run(&runtime)) {
        error!(%error, "no history is kept: cannot start its thread");
        troubled.set(1);
        return None;
    }
    Some((keeper, archive))
}

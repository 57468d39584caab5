//! The wiring: the only file that knows all the parts.
//!
//! `App::build` binds the listeners and connects the parts with queues; nothing runs before `App::run`, and nothing
//! is left running after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::clock;
use crate::config::{Broker, Bus, Config, History, Server};
use crate::dialects::{Context, ENTRIES, Entry, Seal, Settings};
use crate::drivers::{COMMAND_QUEUE, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation, modbus, mqtt};
use crate::hub;
use crate::hub::handle::{HubHandle, REQUEST_QUEUE};
use crate::meters::{LinkMeters, Meters};
use crate::model::directory::Directory;
use crate::notify;
use crate::report::Chain;
use crate::serve::admission::Admission;
use crate::serve::listener::{BindError, Listener};
use crate::serve::tls::{self, TlsError};
use crate::serve::{Patience, Shared, sockjs};
use crate::store::{self, Archive, Keeper};
use crate::supervisor::{Ending, Stage, Supervisor};

/// A gateway that is connected but does not run yet.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    config: Config,
    listeners: Vec<Listener>,
    seal: Seal,
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
        let listeners = bind(&config.server, &config.dialects)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(BuildError::Random)?;
        Ok(Self { supervisor: Supervisor::default(), config, listeners, seal: Seal(key) })
    }

    /// Where clients can connect, in configuration order.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|listener| Address { address: listener.address(), secure: listener.secure() })
            .collect()
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
        let Self { mut supervisor, config, listeners, seal } = self;
        let (devices, addresses) = (config.devices.len(), listeners.len());
        let directory = Arc::new(Directory::new(config.devices, config.links));
        let meters = Arc::new(Meters::default());
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (observations, observation_queue) = mpsc::channel(OBSERVATION_QUEUE);
        let links = drive(&mut supervisor, config.buses, config.brokers, &observations, &meters);
        drop(observations);
        let (keeper, archive) = keep_history(&mut supervisor, config.history, &directory).unzip();
        let handle = HubHandle::new(requests).with_archive(archive);
        let token = supervisor.token(Stage::Hub);
        let hub = hub::task::run(
            Arc::clone(&directory),
            links,
            request_queue,
            observation_queue,
            keeper,
            token,
            meters.hub(),
        );
        supervisor.spawn(Stage::Hub, "hub", hub);
        if let Some(interval) = notify::watchdog() {
            let token = supervisor.token(Stage::Hub);
            supervisor.spawn(
                Stage::Hub,
                "watchdog",
                notify::feed_watchdog(interval, meters.hub().turns, token),
            );
        }
        let limits = config.server.limits;
        let (door, desk) = sockjs::desk();
        let shared = Shared {
            context: Arc::new(Context {
                gateway: config.gateway,
                directory,
                clients: config.clients,
                settings: config.dialects,
                seal,
                frame_bytes: limits.frame_bytes,
            }),
            hub: handle,
            admission: Admission::new(
                limits.connections,
                limits.connections_per_address,
                &config.server.trusted_proxies,
            ),
            sockjs: door,
            meters,
            started: clock::instant(),
            server: config.server,
            patience: Patience::default(),
        };
        serve(&mut supervisor, shared, desk, listeners);
        notify::ready(&format!("serving {devices} devices on {addresses} listeners"));
        let stopping = supervisor.token(Stage::Serve);
        let ending = supervisor.run(stop);
        tokio::pin!(ending);
        tokio::select! {
            // Polled again below if the other arm wins.
            ending = &mut ending => return ending,
            // Cancel-safe: a cancelled token stays cancelled. It is the first one that any stop cancels.
            () = stopping.cancelled() => notify::stopping(),
        }
        ending.await
    }
}

/// Starts the drivers, and gives the queues by which the hub reaches them.
fn drive(
    supervisor: &mut Supervisor,
    buses: Vec<Bus>,
    brokers: Vec<Broker>,
    observations: &mpsc::Sender<Observation>,
    meters: &Meters,
) -> Vec<(Arc<str>, mpsc::Sender<DriverCommand>)> {
    let mut links = Vec::new();
    let mut port = |link: &Arc<str>, meters: LinkMeters| {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        links.push((Arc::clone(link), commands));
        LinkPort { link: Arc::clone(link), commands: queue, observations: observations.clone(), meters }
    };
    for bus in buses {
        let id = &bus.settings.id;
        let (port, token) = (port(id, meters.bus(id)), supervisor.token(Stage::Drivers));
        let name = format!("bus {}", bus.settings.id);
        supervisor.spawn(Stage::Drivers, name, modbus::bus::run(bus.settings, bus.devices, port, token));
    }
    for broker in brokers {
        let id = &broker.settings.id;
        let (port, token) = (port(id, meters.broker(id)), supervisor.token(Stage::Drivers));
        let name = format!("broker {}", broker.settings.id);
        supervisor.spawn(
            Stage::Drivers,
            name,
            mqtt::client::run(broker.settings, broker.devices, port, token),
        );
    }
    links
}

/// Starts what clients connect to.
fn serve(supervisor: &mut Supervisor, shared: Shared, desk: sockjs::Desk, listeners: Vec<Listener>) {
    let shared = Arc::new(shared);
    let token = supervisor.token(Stage::Serve);
    supervisor.spawn(Stage::Serve, "sockjs", desk.run(Arc::clone(&shared), token));
    for listener in listeners {
        let (address, secure) = (listener.address(), listener.secure());
        info!(%address, tls = secure, "listening");
        let token = supervisor.token(Stage::Serve);
        let task = listener.run(Arc::clone(&shared), token);
        supervisor.spawn(Stage::Serve, format!("listener {address}"), task);
    }
}

/// Opens the history store and starts its thread. A gateway whose history cannot be opened serves without one: that
/// somebody sees the present matters more.
fn keep_history(
    supervisor: &mut Supervisor,
    history: Option<History>,
    directory: &Arc<Directory>,
) -> Option<(Keeper, Archive)> {
    let (keeper, archive, worker) = match store::open(history?, Arc::clone(directory)) {
        Ok(opened) => opened,
        Err(error) => {
            error!("no history is kept: {}", Chain(&error));
            return None;
        }
    };
    let runtime = Handle::current();
    if let Err(error) = supervisor.spawn_thread(Stage::Hub, "history", move || worker.run(&runtime)) {
        error!(%error, "no history is kept: cannot start its thread");
        return None;
    }
    Some((keeper, archive))
}

/// Binds all listeners. Those of the server serve every dialect that has none of its own.
fn bind(server: &Server, settings: &Settings) -> Result<Vec<Listener>, BuildError> {
    let enabled = || ENTRIES.into_iter().filter(|entry| (entry.common)(settings).enabled);
    let general: Arc<[Entry]> =
        enabled().filter(|entry| (entry.common)(settings).listen.is_empty()).collect();
    let mut own: BTreeMap<SocketAddr, Vec<Entry>> = BTreeMap::new();
    for entry in enabled() {
        for address in &(entry.common)(settings).listen {
            own.entry(*address).or_default().push(entry);
        }
    }
    let mut listeners = Vec::new();
    for address in &server.listen {
        listeners.push(Listener::bind(*address, Arc::clone(&general), None).map_err(BuildError::Bind)?);
    }
    if let Some(tls) = &server.tls {
        let acceptor = tls::acceptor(&tls.certificate, &tls.key).map_err(BuildError::Tls)?;
        for address in &tls.listen {
            let listener = Listener::bind(*address, Arc::clone(&general), Some(acceptor.clone()));
            listeners.push(listener.map_err(BuildError::Bind)?);
        }
    }
    for (address, entries) in own {
        listeners.push(Listener::bind(address, entries.into(), None).map_err(BuildError::Bind)?);
    }
    Ok(listeners)
}

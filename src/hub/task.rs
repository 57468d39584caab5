//! The hub's loop: moves requests and observations into the state and carries out what it wants done.
//!
//! It never waits for a session or a link: what finds no room is dropped, repaired or refused by the rule of its
//! queue. It waits only for something to happen, and each turn takes a bounded batch of requests **and** of
//! observations, so that neither can keep the other, the timers or the end waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError, error::TrySendError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::handle::{HubRequest, SessionKey, SessionReply};
use super::slow::{self, Lag};
use super::state::{Effect, HubState};
use crate::clock;
use crate::drivers::{DriverCommand, OBSERVATION_QUEUE, Observation};
use crate::model::directory::Directory;
use crate::model::message::{Body, DeviceMessage};
use crate::model::time::Now;

/// Requests, and likewise observations, that are taken in one turn: a quarter of the request queue, so that a turn
/// stays far below a millisecond.
const BATCH: usize = 64;

/// The longest time without a turn, so that who watches the progress can tell an idle hub from a stuck one, and how
/// often the hub looks for sessions that vanished.
const PULSE: Duration = Duration::from_secs(2);

/// Runs the hub until it is told to stop, and adds to `progress` with each turn, at least once in two seconds while
/// it is well. At the end every command under way is settled, and the sessions' queues close.
///
/// Stop the drivers first: outcomes that they have sent by then still reach their sessions.
pub async fn run(
    directory: Arc<Directory>,
    links: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
    mut requests: mpsc::Receiver<HubRequest>,
    mut observations: mpsc::Receiver<Observation>,
    stop: CancellationToken,
    progress: Arc<AtomicU64>,
) {
    let mut hub = Hub::new(directory, links, clock::instant());
    let (mut asked, mut seen) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let (mut requests_open, mut observations_open) = (true, true);
    loop {
        progress.fetch_add(1, Ordering::Relaxed);
        let wake = hub.wake(clock::instant());
        tokio::select! {
            biased;
            // Cancel-safe: waiting for a token holds nothing.
            () = stop.cancelled() => break,
            // Cancel-safe: `recv_many` takes nothing out unless it completes. Likewise below.
            count = requests.recv_many(&mut asked, BATCH), if requests_open => requests_open = count > 0,
            count = observations.recv_many(&mut seen, BATCH), if observations_open => observations_open = count > 0,
            // Cancel-safe: a new sleep is made each turn.
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        top_up(&mut requests, &mut asked);
        top_up(&mut observations, &mut seen);
        let now = clock::now();
        for request in asked.drain(..) {
            hub.request(request, now);
        }
        for observation in seen.drain(..) {
            hub.observe(observation, now);
        }
        hub.tick(now);
    }
    requests.close();
    let now = clock::now();
    for _ in 0..OBSERVATION_QUEUE {
        let Ok(observation) = observations.try_recv() else { break };
        hub.observe(observation, now);
    }
    hub.shutdown(now);
    // Everyone who managed to ask gets an answer: a command is refused as busy.
    while let Ok(request) = requests.try_recv() {
        hub.request(request, now);
    }
}

/// Fills a batch with what is there already.
fn top_up<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>) {
    while batch.len() < BATCH {
        match queue.try_recv() {
            Ok(item) => batch.push(item),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
}

/// The state and every queue that leads out of it.
struct Hub {
    state: HubState,
    sessions: HashMap<SessionKey, Queues>,
    links: HashMap<Arc<str>, mpsc::Sender<DriverCommand>>,
    /// Sessions that are no longer served, until the state has been told.
    lost: Vec<SessionKey>,
    /// When slow sessions are looked at again; `None` when there are none.
    next_repair: Option<Instant>,
    /// When sessions that vanished without a word are looked for.
    next_sweep: Instant,
    /// Messages that no member of a group had room for, since one last had.
    overflow: BTreeMap<Arc<str>, u64>,
}

/// What leads to one session.
struct Queues {
    messages: mpsc::Sender<Arc<DeviceMessage>>,
    replies: mpsc::Sender<SessionReply>,
    lag: Option<Lag>,
}

impl Hub {
    fn new(
        directory: Arc<Directory>,
        links: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
        now: Instant,
    ) -> Self {
        Self {
            state: HubState::new(directory),
            sessions: HashMap::new(),
            links: links.into_iter().collect(),
            lost: Vec::new(),
            next_repair: None,
            next_sweep: now + PULSE,
            overflow: BTreeMap::new(),
        }
    }

    /// When the next turn must come at the latest.
    fn wake(&self, now: Instant) -> Instant {
        let pulse = now + PULSE;
        [self.state.timeout(), self.next_repair].into_iter().flatten().fold(pulse, Instant::min)
    }

    fn request(&mut self, request: HubRequest, now: Now) {
        match request {
            HubRequest::Attach { key, messages, replies } => {
                self.sessions.insert(key, Queues { messages, replies, lag: None });
                self.state.attach(key);
            }
            HubRequest::Detach { key } => {
                self.sessions.remove(&key);
                self.state.detach(key);
            }
            HubRequest::Watch { key, client, interests } => self.state.watch(key, &client, interests),
            HubRequest::Submit { key, token, client, command } => {
                self.state.submit(key, token, client, command, now);
            }
            HubRequest::Ask { key, token, client, question } => {
                self.state.ask(key, token, client, question, now);
            }
        }
        self.drain(now);
    }

    fn observe(&mut self, observation: Observation, now: Now) {
        self.state.observe(observation, now);
        self.drain(now);
    }

    fn tick(&mut self, now: Now) {
        if self.state.timeout().is_some_and(|due| due <= now.instant) {
            self.state.handle_timeout(now);
            self.drain(now);
        }
        if self.next_repair.is_some_and(|due| due <= now.instant) {
            self.repair(now);
        }
        if self.next_sweep <= now.instant {
            self.sweep();
            self.next_sweep = now.instant + PULSE;
        }
    }

    fn shutdown(&mut self, now: Now) {
        self.state.shutdown(now);
        self.drain(now);
    }

    /// Carries out everything that the state wants done.
    fn drain(&mut self, now: Now) {
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Deliver { sessions, message } => {
                    for session in sessions.iter() {
                        self.deliver(*session, &message, now);
                    }
                }
                Effect::Balance { group, candidates, message } => self.balance(group, &candidates, &message),
                Effect::Reply { session, reply } => self.reply(session, reply),
                Effect::Route { link, command } => {
                    let id = command.id;
                    let sent = self.links.get(&link).map(|queue| queue.try_send(command));
                    if !matches!(sent, Some(Ok(()))) {
                        debug!(%link, "the link takes no more commands");
                        self.state.refused(id, now);
                    }
                }
            }
        }
        self.bury();
    }

    /// Gives one message to one session. A property report that finds no room is made good later; any other kind
    /// says something that is not said again, so losing it ends the session.
    fn deliver(&mut self, key: SessionKey, message: &Arc<DeviceMessage>, now: Now) {
        let Some(queues) = self.sessions.get_mut(&key) else { return };
        let report = matches!(message.body, Body::Properties(_));
        if report {
            if let Some(lag) = &mut queues.lag {
                lag.miss(&message.device.id);
                return;
            }
        }
        match queues.messages.try_send(Arc::clone(message)) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) if report => {
                debug!(session = key.0, "the client reads too slowly");
                queues.lag = Some(Lag::new(&message.device.id, now.instant));
                self.next_repair.get_or_insert(now.instant + slow::REPAIR_EVERY);
            }
            Err(TrySendError::Full(message)) => {
                self.evict(key, &format!("no room for message {}", message.seq));
            }
            Err(TrySendError::Closed(_)) => self.forget(key),
        }
    }

    fn balance(&mut self, group: Arc<str>, candidates: &[SessionKey], message: &Arc<DeviceMessage>) {
        for (turn, key) in candidates.iter().enumerate() {
            let Some(queues) = self.sessions.get(key) else { continue };
            if queues.messages.try_send(Arc::clone(message)).is_ok() {
                if turn > 0 {
                    self.state.served(&group, *key);
                }
                if let Some(dropped) = self.overflow.remove(&group) {
                    info!(%group, dropped, "the group takes messages again");
                }
                return;
            }
        }
        if !self.overflow.contains_key(&group) {
            warn!(%group, "no member of the group has room, messages are dropped");
        }
        *self.overflow.entry(group).or_default() += 1;
    }

    /// Tells one session something that it cannot do without.
    fn reply(&mut self, key: SessionKey, reply: SessionReply) {
        let Some(queues) = self.sessions.get(&key) else { return };
        match queues.replies.try_send(reply) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.evict(key, "no room for a reply"),
            Err(TrySendError::Closed(_)) => self.forget(key),
        }
    }

    /// Looks after the sessions that missed reports: makes good what there is room for again.
    fn repair(&mut self, now: Now) {
        let mut lagging: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, queues)| queues.lag.is_some()).map(|(key, _)| *key).collect();
        lagging.sort_unstable();
        for key in lagging {
            let Some(queues) = self.sessions.get_mut(&key) else { continue };
            let Some(lag) = &mut queues.lag else { continue };
            let state = &self.state;
            let newest = |device: &str| state.newest(key, device, now);
            match lag.repair(&queues.messages, &queues.replies, now.instant, newest) {
                slow::Progress::Waits => {}
                slow::Progress::CaughtUp { missed } => {
                    info!(session = key.0, missed, "a slow client was brought up to date");
                    queues.lag = None;
                }
                slow::Progress::Hopeless(why) => self.evict(key, why),
                slow::Progress::Gone => self.forget(key),
            }
        }
        self.bury();
        let lags = self.sessions.values().any(|queues| queues.lag.is_some());
        self.next_repair = lags.then(|| now.instant + slow::REPAIR_EVERY);
    }

    /// Forgets the sessions that vanished without a word, so that they do not keep a place in a group.
    fn sweep(&mut self) {
        let mut gone: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, queues)| queues.replies.is_closed())
            .map(|(key, _)| *key)
            .collect();
        gone.sort_unstable();
        for key in gone {
            self.forget(key);
        }
        self.bury();
    }

    /// Tells the state of the sessions that are no longer served.
    fn bury(&mut self) {
        for key in self.lost.drain(..) {
            self.state.detach(key);
        }
    }

    /// Ends a session that lost something, or is about to.
    fn evict(&mut self, key: SessionKey, why: &str) {
        if let Some(queues) = self.sessions.remove(&key) {
            warn!(session = key.0, why, "a session is no longer served because its client reads too slowly");
            // Where even this finds no room, the closed queues say the same.
            drop(queues.replies.try_send(SessionReply::Evicted));
            self.lost.push(key);
        }
    }

    /// Ends a session whose own end came first.
    fn forget(&mut self, key: SessionKey) {
        self.sessions.remove(&key);
        self.lost.push(key);
    }
}

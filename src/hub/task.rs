//! The hub's loop: moves requests and observations into the state and carries out what it wants done.
//!
//! It never waits for a session or a link: what finds no room is dropped, repaired or refused by the rule of its
//! queue. It waits only for something to happen, and each turn takes a bounded batch of requests **and** of
//! observations, so that neither can keep the other, the timers or the end waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError, error::TrySendError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::handle::{Adoption, HubRequest, SessionKey, SessionReply, Told};
use super::queues::{Ledger, Queues};
use super::slow::{self, Lag};
use super::state::{Effect, HubState};
use crate::clock;
use crate::drivers::{DriverCommand, OBSERVATION_QUEUE, Observation};
use crate::meters::HubMeters;
use crate::model::directory::Directory;
use crate::model::message::{Body, DeviceMessage};
use crate::model::time::Now;
use crate::store::{Chunk, Job, Keeper, News, RESERVE, Write};

/// Requests, and likewise observations, that are taken in one turn: a quarter of the request queue, so that a turn
/// stays far below a millisecond.
const BATCH: usize = 64;

/// The longest time without a turn, so that who watches the progress can tell an idle hub from a stuck one, and how
/// often the hub looks for sessions that vanished.
const PULSE: Duration = Duration::from_secs(2);

/// How often groups that are behind and have no room are looked at: short against what a person notices.
const REPLAY_EVERY: Duration = Duration::from_millis(50);

/// How often the store is told how far groups are. What was delivered since then is delivered again when the
/// process is killed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Runs the hub until it is told to stop, and counts each turn, at least one in two seconds while
/// it is well. At the end every command under way is settled, and the sessions' queues close.
///
/// Stop the drivers first: outcomes that they have sent by then still reach their sessions.
pub async fn run(
    directory: Arc<Directory>,
    links: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
    mut requests: mpsc::Receiver<HubRequest>,
    mut observations: mpsc::Receiver<Observation>,
    keeper: Option<Keeper>,
    stop: CancellationToken,
    meters: HubMeters,
) {
    let (mut hub, mut news) = Hub::new(directory, links, keeper, meters, clock::now());
    let mut told = Vec::with_capacity(1);
    let (mut asked, mut seen) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let (mut requests_open, mut observations_open) = (true, true);
    loop {
        hub.meters.turns.inc();
        let wake = hub.wake(clock::instant());
        tokio::select! {
            biased;
            // Cancel-safe: waiting for a token holds nothing.
            () = stop.cancelled() => break,
            // Cancel-safe: `recv_many` takes nothing out unless it completes. Likewise below.
            count = requests.recv_many(&mut asked, BATCH), if requests_open => requests_open = count > 0,
            count = observations.recv_many(&mut seen, BATCH), if observations_open => observations_open = count > 0,
            // Cancel-safe by its documentation.
            Some(one) = next_news(&mut news) => told.push(one),
            // Cancel-safe: a new sleep is made each turn.
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        // In this order: what was asked before something was observed is taken in before it.
        top_up(&mut observations, &mut seen);
        top_up(&mut requests, &mut asked);
        let (now, changes) = clock::turn(&mut hub.clock_changes);
        hub.state.store_is(hub.meters.history_troubled.get() != 0);
        hub.state.tell_time(now, &changes);
        hub.drain(now);
        for request in asked.drain(..) {
            hub.request(request, now);
        }
        for observation in seen.drain(..) {
            hub.observe(observation, now);
        }
        for news in told.drain(..) {
            hub.hear(news, now);
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
    hub.finish(now);
}

/// What the store says; for ever nothing where there is none.
async fn next_news(news: &mut Option<mpsc::Receiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
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
    /// To the history store.
    jobs: Option<mpsc::Sender<Job>>,
    /// Messages that the store had no room for, since it last had.
    unkept: u64,
    /// Sessions that are no longer served, until the state has been told, with what they have not written.
    lost: Vec<(SessionKey, Vec<u64>)>,
    /// Sessions that are no longer served and may still write what they have.
    leaving: BTreeMap<SessionKey, Ledger>,
    /// Sessions with balanced messages that they have not written, as far as is known.
    owing: BTreeSet<SessionKey>,
    /// When groups that are behind are looked at again.
    next_replay: Instant,
    /// When the store is told how far groups are.
    next_checkpoint: Instant,
    /// When slow sessions are looked at again; `None` when there are none.
    next_repair: Option<Instant>,
    /// When sessions that vanished without a word are looked for.
    next_sweep: Instant,
    /// Messages that no member of a group had room for, since one last had.
    overflow: BTreeMap<Arc<str>, u64>,
    /// Who waits until every safe value is written that can be.
    releasing: Option<oneshot::Sender<()>>,
    meters: HubMeters,
    /// The number of the last message that is counted.
    counted: u64,
    /// The number of the last change of the clock that the state was told of.
    clock_changes: u64,
}

impl Hub {
    fn new(
        directory: Arc<Directory>,
        links: Vec<(Arc<str>, mpsc::Sender<DriverCommand>)>,
        keeper: Option<Keeper>,
        meters: HubMeters,
        now: Now,
    ) -> (Self, Option<mpsc::Receiver<News>>) {
        let mut state = HubState::new(directory);
        let (mut jobs, mut news) = (None, None);
        if let Some(keeper) = keeper {
            state.begin_with(keeper.recovered, keeper.is_open, now);
            (jobs, news) = (Some(keeper.jobs), Some(keeper.news));
        }
        let counted = state.last_number();
        let mut clock_changes = 0;
        // Those of before are no changes for a hub that begins.
        drop(clock::turn(&mut clock_changes));
        let hub = Self {
            state,
            sessions: HashMap::new(),
            links: links.into_iter().collect(),
            jobs,
            unkept: 0,
            lost: Vec::new(),
            leaving: BTreeMap::new(),
            owing: BTreeSet::new(),
            next_replay: now.instant,
            next_checkpoint: now.instant + CHECKPOINT_EVERY,
            next_repair: None,
            next_sweep: now.instant + PULSE,
            overflow: BTreeMap::new(),
            releasing: None,
            meters,
            counted,
            clock_changes,
        };
        (hub, news)
    }

    /// When the next turn must come at the latest.
    fn wake(&self, now: Instant) -> Instant {
        let pulse = now + PULSE;
        let replay = self.state.backlogged().then_some(self.next_replay);
        let checkpoint = self.jobs.as_ref().map(|_| self.next_checkpoint);
        [self.state.timeout(), self.next_repair, replay, checkpoint]
            .into_iter()
            .flatten()
            .fold(pulse, Instant::min)
    }

    fn request(&mut self, request: HubRequest, now: Now) {
        match request {
            HubRequest::Attach { key, origin, messages, replies, account } => {
                let ledger = Ledger { given: 0, open: VecDeque::new(), account };
                let farewell = replies.clone().try_reserve_owned().ok();
                self.sessions.insert(key, Queues { messages, replies, farewell, lag: None, ledger });
                self.state.attach(key);
                self.state.came_from(key, origin);
            }
            HubRequest::Detach { key } => {
                if let Some(mut ledger) = self.leaving.remove(&key) {
                    self.close(key, &mut ledger);
                }
                self.forget(key);
            }
            HubRequest::Watch { key, client, interests } => self.state.watch(key, &client, interests),
            HubRequest::Submit { key, token, client, command } => {
                self.state.submit(key, token, client, command, now);
            }
            HubRequest::Ask { key, token, client, question } => {
                self.state.ask(key, token, client, question, now);
            }
            HubRequest::Adopt(adoption) => self.adopt(adoption, now),
            HubRequest::Release { done } => {
                self.state.release(now);
                self.releasing = Some(done);
            }
        }
        self.drain(now);
    }

    fn adopt(&mut self, adoption: Adoption, now: Now) {
        let Adoption { directory, begun, done } = adoption;
        let anew = begun.iter().map(|(link, _)| Arc::clone(link)).collect();
        self.state.retire(&directory, &anew, now);
        self.drain(now);
        self.links.retain(|link, _| directory.link(link).is_some());
        self.links.extend(begun);
        self.state.adopt(directory, now);
        if done.send(()).is_err() {
            debug!("nobody waits to hear that the devices have changed");
        }
    }

    fn observe(&mut self, observation: Observation, now: Now) {
        self.state.observe(observation, now);
        self.drain(now);
    }

    fn hear(&mut self, news: News, now: Now) {
        match news {
            News::Chunk(chunk) => {
                self.state.fetched(chunk);
                // The next one as soon as there is room.
                self.next_replay = now.instant;
            }
            News::Anew => self.state.rewrite(),
            // Numbers that were passed over are no messages.
            News::Opened(recovered) => self.counted += self.state.remember(*recovered, now),
        }
        self.drain(now);
    }

    fn tick(&mut self, now: Now) {
        let last = self.state.last_number();
        self.meters.messages.inc_by(last.saturating_sub(std::mem::replace(&mut self.counted, last)));
        self.settle_ledgers();
        if self.next_replay <= now.instant && self.state.backlogged() {
            self.replay(now);
        }
        if self.jobs.is_some() && self.next_checkpoint <= now.instant {
            self.next_checkpoint = now.instant + CHECKPOINT_EVERY;
            self.state.checkpoint();
            self.drain(now);
        }
        if self.state.timeout().is_some_and(|due| due <= now.instant) {
            self.state.handle_timeout(now);
            self.drain(now);
        }
        if let Some(done) = self.releasing.take_if(|_| self.state.is_released()) {
            if done.send(()).is_err() {
                debug!("nobody waits any more until all is safe");
            }
        }
        if self.next_repair.is_some_and(|due| due <= now.instant) {
            self.repair(now);
        }
        if self.next_sweep <= now.instant {
            self.sweep(now);
            self.next_sweep = now.instant + PULSE;
        }
    }

    fn shutdown(&mut self, now: Now) {
        self.state.shutdown(now);
        self.drain(now);
    }

    /// Hands the store the last account of all groups.
    fn finish(&mut self, now: Now) {
        self.settle_ledgers();
        self.sweep(now);
        self.state.checkpoint();
        self.drain(now);
    }

    /// Takes note of what sessions have written.
    fn settle_ledgers(&mut self) {
        let (sessions, state) = (&mut self.sessions, &mut self.state);
        self.owing.retain(|key| {
            let Some(queues) = sessions.get_mut(key) else { return false };
            let written = queues.ledger.settle();
            if !written.is_empty() {
                state.delivered(*key, &written);
            }
            !queues.ledger.open.is_empty()
        });
    }

    /// Lets groups that are behind go on.
    fn replay(&mut self, now: Now) {
        self.next_replay = now.instant + REPLAY_EVERY;
        let sessions = &self.sessions;
        let room = |key| {
            let open = sessions.get(&key).filter(|queues: &&Queues| !queues.messages.is_closed());
            open.map_or(0, |queues| queues.messages.capacity())
        };
        let fetches = self.state.replay(now, room);
        self.drain(now);
        for fetch in fetches {
            let group = Arc::clone(&fetch.group);
            let after = fetch.after;
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Fetch(fetch)).is_ok());
            if !sent {
                debug!(%group, "the history store takes no question now");
                self.state.fetched(Chunk { group, after, upto: after, messages: Vec::new() });
                self.drain(now);
            }
        }
    }

    /// Hands something to the store. A message is dropped and counted before the last places are taken.
    fn store(&mut self, write: Write) {
        let Some(jobs) = &self.jobs else { return };
        let message = matches!(write, Write::Message { .. });
        if message && jobs.capacity() <= RESERVE {
            if self.unkept == 0 {
                warn!("the history store is too slow, messages are not kept");
            }
            self.unkept += 1;
            self.meters.unkept.inc();
            return;
        }
        match jobs.try_send(Job::Write(write)) {
            Ok(()) if message && self.unkept > 0 => {
                info!(missing = self.unkept, "the history store keeps messages again");
                self.unkept = 0;
            }
            Err(TrySendError::Full(_)) => warn!("the history store is too slow, a change is not kept"),
            // A store that has ended has said why.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
        }
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
                Effect::Store(write) => self.store(write),
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
        if !self.lost.is_empty() {
            self.bury(now);
            self.drain(now);
        }
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
        match queues.give(message) {
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
        let mut gone = Vec::new();
        let mut taker = None;
        for key in candidates {
            let Some(queues) = self.sessions.get_mut(key) else { continue };
            match queues.give(message) {
                Ok(()) => {
                    queues.ledger.open.push_back((queues.ledger.given, message.seq));
                    self.owing.insert(*key);
                    taker = Some(*key);
                    break;
                }
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Closed(_)) => gone.push(*key),
            }
        }
        match taker {
            Some(key) => {
                self.state.served(key);
                if let Some(dropped) = self.overflow.remove(&group) {
                    info!(%group, dropped, "the group takes messages again");
                }
            }
            None if self.state.unserved() => {}
            None => {
                if !self.overflow.contains_key(&group) {
                    warn!(%group, "no member of the group has room, messages are dropped");
                }
                *self.overflow.entry(group).or_default() += 1;
                self.meters.unbalanced.inc();
            }
        }
        for key in gone {
            self.forget(key);
        }
    }

    /// Tells one session something that it cannot do without.
    fn reply(&mut self, key: SessionKey, reply: SessionReply) {
        let Some(queues) = self.sessions.get(&key) else { return };
        match queues.tell(reply) {
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
            match lag.repair(&queues.messages, &queues.replies, &mut queues.ledger.given, now.instant, newest)
            {
                slow::Progress::Waits => {}
                slow::Progress::CaughtUp { missed } => {
                    info!(session = key.0, missed, "a slow client was brought up to date");
                    queues.lag = None;
                }
                slow::Progress::Hopeless(why) => self.evict(key, why),
                slow::Progress::Gone => self.forget(key),
            }
        }
        self.drain(now);
        let lags = self.sessions.values().any(|queues| queues.lag.is_some());
        self.next_repair = lags.then(|| now.instant + slow::REPAIR_EVERY);
    }

    /// Forgets the sessions that vanished without a word, so that they do not keep a place in a group.
    fn sweep(&mut self, now: Now) {
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
        let left = std::mem::take(&mut self.leaving);
        for (key, mut ledger) in left {
            if ledger.is_final() {
                self.close(key, &mut ledger);
            } else {
                self.leaving.insert(key, ledger);
            }
        }
        self.drain(now);
    }

    /// Tells the state of the sessions that are no longer served.
    fn bury(&mut self, now: Now) {
        for (key, unsent) in self.lost.drain(..) {
            self.state.detach(key, &unsent, now);
        }
    }

    /// Ends a session that lost something, or is about to.
    fn evict(&mut self, key: SessionKey, why: &str) {
        if let Some(queues) = self.sessions.remove(&key) {
            // The session itself says in the log whose it was.
            info!(session = key.0, why, "a session is no longer served because its client reads too slowly");
            // Without it the closed queues would say that the gateway ends.
            if let Some(farewell) = queues.farewell {
                farewell.send(Box::new(Told { after: 0, reply: SessionReply::Evicted }));
            }
            let mut ledger = queues.ledger;
            if ledger.open.is_empty() {
                self.close(key, &mut ledger);
            } else {
                // It may still write what it was given; what is left then is known when it has let go of its counter.
                self.leaving.insert(key, ledger);
            }
        }
    }

    /// Ends a session whose own end came first.
    fn forget(&mut self, key: SessionKey) {
        if let Some(mut queues) = self.sessions.remove(&key) {
            self.close(key, &mut queues.ledger);
        }
    }

    /// Takes a session's last account.
    fn close(&mut self, key: SessionKey, ledger: &mut Ledger) {
        let written = ledger.settle();
        self.state.delivered(key, &written);
        let unsent = ledger.open.drain(..).map(|(_, seq)| seq).collect();
        self.lost.push((key, unsent));
    }
}

//! Sessions that HTTP requests carry: who they are, and one task for each.
//!
//! ```text
//! HTTP request --visit--> desk --by name--> session task (engine, downlink) --pieces--> response of the request
//! ```
//!
//! The desk is the only one that knows names. It never waits for a session: a session that has no room for a visit
//! refuses it. A session counts as a connection of its client for as long as it lives, beside the connections that
//! carry it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use super::Shared;
use super::engine::Engine;
use super::live::Live;
use crate::dialects::{Session, SessionName};
use crate::model::client::Dialect;
use crate::proto::sockjs::Form;
use crate::supervisor::panic_message;
use crate::text::Text;

mod carrier;

/// Visits that wait for the desk. When full the HTTP request awaits; the desk itself waits for nobody.
const VISITS: usize = 64;

/// Visits that wait for one session, of each kind. When full the visit is refused; clients make one at a time.
const VISITS_OF_ONE: usize = 4;

/// The way to the desk; cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    visits: mpsc::Sender<Visit>,
}

/// Where the desk receives its visits.
#[derive(Debug)]
pub struct Desk {
    visits: mpsc::Receiver<Visit>,
}

/// A new desk and the way to it.
pub fn desk() -> (Door, Desk) {
    let (sender, visits) = mpsc::channel(VISITS);
    (Door { visits: sender }, Desk { visits })
}

/// What the desk or a session makes of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is taken.
    Taken,
    /// There is no such session.
    Nobody,
    /// There is no room for it.
    Full,
}

/// A request that wants something of a session.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) dialect: Dialect,
    pub(super) peer: IpAddr,
    pub(super) name: SessionName,
    /// Has given what a session that the errand brings was made from.
    pub(super) live: Live,
    pub(super) errand: Errand,
}

/// What it wants.
#[derive(Debug)]
pub(super) enum Errand {
    /// Carry the session; begin it if there is none.
    Receive { session: Box<dyn Session>, receiver: Receiver },
    /// Say something.
    Send(Delivery),
}

/// A response that is to carry a session.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) form: Form,
    /// Its body.
    pub(super) pieces: mpsc::Sender<Bytes>,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// Words of the client.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) text: Text,
    pub(super) reply: oneshot::Sender<Reply>,
}

impl Door {
    /// Hands the visit over, waiting for room. Without a desk it is dropped, and with it the way to reply.
    pub(super) async fn visit(&self, visit: Visit) {
        drop(self.visits.send(visit).await);
    }
}

/// The ways to one session.
#[derive(Debug)]
struct Ways {
    receivers: mpsc::Sender<Receiver>,
    deliveries: mpsc::Sender<Delivery>,
}

type Key = (Dialect, SessionName);

impl Desk {
    /// Receives visits and runs the sessions until told to stop.
    pub async fn run(mut self, live: impl Into<Live>, stop: CancellationToken) {
        let mut live = live.into();
        let mut ways: HashMap<Key, Ways> = HashMap::new();
        let mut keys: HashMap<Id, Key> = HashMap::new();
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                // Cancel-safe: a cancelled token stays cancelled.
                () = stop.cancelled() => break,
                // Cancel-safe by its documentation.
                Some(visit) = self.visits.recv() => {
                    receive(visit, &live.now(), &stop, &mut ways, &mut keys, &mut sessions);
                }
                // Cancel-safe by its documentation.
                Some(ended) = sessions.join_next_with_id() => {
                    if let Some(key) = keys.remove(&note_end(ended)) {
                        ways.remove(&key);
                    }
                }
            }
        }
        // New visits find nobody, sessions say goodbye into the responses that carry them.
        drop((self.visits, ways));
        let all = async {
            while let Some(ended) = sessions.join_next_with_id().await {
                note_end(ended);
            }
        };
        if tokio::time::timeout(live.now().patience.goodbye, all).await.is_err() {
            sessions.shutdown().await;
        }
    }
}

fn receive(
    visit: Visit,
    shared: &Shared,
    stop: &CancellationToken,
    ways: &mut HashMap<Key, Ways>,
    keys: &mut HashMap<Id, Key>,
    sessions: &mut JoinSet<()>,
) {
    let Visit { dialect, peer, name, live, errand } = visit;
    let key = (dialect, name);
    match (ways.get(&key), errand) {
        (Some(ways), Errand::Send(delivery)) => {
            refuse(ways.deliveries.try_send(delivery), |unsent| unsent.reply);
        }
        (Some(ways), Errand::Receive { receiver, .. }) => {
            refuse(ways.receivers.try_send(receiver), |unsent| unsent.reply);
        }
        (None, Errand::Send(delivery)) => answer(delivery.reply, Reply::Nobody),
        (None, Errand::Receive { session, receiver }) => {
            let permit = match shared.admission.admit(peer) {
                Ok(permit) => permit,
                Err(reason) => {
                    debug!(%peer, %reason, "a session is refused");
                    answer(receiver.reply, Reply::Full);
                    return;
                }
            };
            let meters = shared.meters.dialect(dialect);
            let hub = shared.hub.clone().of(dialect, peer);
            let mut engine =
                Engine::new(session, hub, shared.server.limits.send_queue, meters).following(live, dialect);
            engine.count();
            let (to_receivers, receivers) = mpsc::channel(VISITS_OF_ONE);
            let (to_deliveries, deliveries) = mpsc::channel(VISITS_OF_ONE);
            refuse(to_receivers.try_send(receiver), |unsent| unsent.reply);
            let span = info_span!("session", dialect = dialect.name(), %peer, client = tracing::field::Empty);
            let ends = carrier::Ends { receivers, deliveries };
            let (patience, stop) = (Arc::clone(&shared.patience), stop.clone());
            let task = async move {
                carrier::run(engine, ends, patience, stop).await;
                drop(permit);
            };
            let id = sessions.spawn(task.instrument(span)).id();
            keys.insert(id, key.clone());
            ways.insert(key, Ways { receivers: to_receivers, deliveries: to_deliveries });
        }
    }
}

/// Answers a visit that could not be passed on. A session that has just ended is nobody any more.
fn refuse<T>(sent: Result<(), TrySendError<T>>, reply: impl FnOnce(T) -> oneshot::Sender<Reply>) {
    match sent {
        Ok(()) => {}
        Err(TrySendError::Full(unsent)) => answer(reply(unsent), Reply::Full),
        Err(TrySendError::Closed(unsent)) => answer(reply(unsent), Reply::Nobody),
    }
}

/// Whoever made the request may be gone.
fn answer(reply: oneshot::Sender<Reply>, with: Reply) {
    if reply.send(with).is_err() {
        debug!("a request left before its answer");
    }
}

/// A session's panic harms only that session, but it is a fault of ours.
fn note_end(ended: Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => id,
        Err(error) => {
            let id = error.id();
            error!(message = panic_message(error), "a session panicked");
            id
        }
    }
}

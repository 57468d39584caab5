//! The fixed tasks of the process: started by name, watched, and stopped in order under a deadline.
//!
//! Duties: know the name of everything that runs; when one of them panics or ends unasked, say which, stop the
//! others in order and report failure; when told to stop, do the same and report success; when time is up, name
//! what is left and abort it. It never restarts a task: drivers reconnect inside themselves, and for the rest the
//! service manager starts a clean process.
//!
//! What comes and goes (connections) lives in the task that owns it, here a listener, and ends with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, info, warn};

use crate::clock;

/// How long stopping may take in all; systemd's `TimeoutStopSec` is longer.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What is stopped together. Stages stop in this order, each only when those before it have ended or used up their
/// time, so that a goodbye can still be sent and an outcome can still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Listeners and their sessions: no new ones, and a goodbye to those that are there. From then on nobody is
    /// left to give commands.
    Serve,
    /// What leases hold is let go: safe values still find their drivers.
    Leases,
    /// The drivers: the frame under way is finished, and its outcome still finds the hub.
    Drivers,
    /// The hub: what is still unsettled is settled.
    Hub,
    /// What the demo puts in the place of hardware.
    World,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Serve, Self::Leases, Self::Drivers, Self::Hub, Self::World];

    /// How long the next stage waits for this one. A listener cuts its sessions off after two seconds itself, so
    /// its share is a little longer.
    fn patience(self) -> Duration {
        match self {
            Self::Serve => Duration::from_millis(2_500),
            Self::Leases => Duration::from_secs(2),
            Self::Drivers | Self::Hub => Duration::from_secs(3),
            Self::World => Duration::from_secs(1),
        }
    }
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop and did.
    Stopped,
    /// A task panicked, or ended although it was not told to.
    Failed {
        /// Which task.
        task: Arc<str>,
    },
    /// Something did not stop in time and was aborted.
    Overran {
        /// Which tasks.
        tasks: Vec<Arc<str>>,
    },
}

/// The owner of every long-lived task.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    running: HashMap<Id, Running>,
    root: CancellationToken,
    tokens: [(Stage, CancellationToken); 5],
    /// The first task that panicked or ended unasked.
    failed: Option<Arc<str>>,
}

/// A task that runs: its stage and name, and what tells it to stop.
type Running = (Stage, Arc<str>, CancellationToken);

impl Default for Supervisor {
    fn default() -> Self {
        let root = CancellationToken::new();
        let tokens = Stage::ALL.map(|stage| (stage, root.child_token()));
        Self { tasks: JoinSet::new(), running: HashMap::new(), root, tokens, failed: None }
    }
}

impl Supervisor {
    /// The token that tells a stage to stop.
    pub fn token(&self, stage: Stage) -> CancellationToken {
        self.tokens
            .iter()
            .find(|(each, _)| *each == stage)
            .map_or_else(|| self.root.child_token(), |(_, token)| token.clone())
    }

    /// Starts a task that runs until its stage is told to stop. Must be called inside the runtime.
    pub fn spawn(
        &mut self,
        stage: Stage,
        name: impl Into<Arc<str>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.token(stage);
        self.spawn_with(stage, name, stop, task);
    }

    /// The same for a task that may be told to stop before its stage is: by this token, a child of the stage's.
    pub fn spawn_with(
        &mut self,
        stage: Stage,
        name: impl Into<Arc<str>>,
        stop: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let name = name.into();
        // The tasks have spans of their own that say more.
        let span = debug_span!("task", name = &*name);
        let handle = self.tasks.spawn(task.instrument(span));
        self.running.insert(handle.id(), (stage, name, stop));
    }

    /// Starts a thread for work that blocks, watched like a task. It is told to stop by other means than a token:
    /// by the end of the queue that it works off.
    pub fn spawn_thread(
        &mut self,
        stage: Stage,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            work();
            // Dropped by a panic as well, which the panic hook has reported.
            drop(ended);
        })?;
        self.spawn(stage, name, async { drop(end.await) });
        Ok(())
    }

    /// The names of what runs, in the order in which it will be stopped.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.unfinished(Stage::Serve)
    }

    /// Watches the tasks until `stop` is cancelled or one of them ends, then stops all in order.
    pub async fn run(mut self, stop: CancellationToken) -> Ending {
        self.watch(&stop).await;
        self.finish().await
    }

    /// Watches the tasks until `stop` is cancelled or one of them ends that was not told to; everything is then to be
    /// stopped by [`Supervisor::finish`]. Cancel-safe: what has been seen is kept.
    pub async fn watch(&mut self, stop: &CancellationToken) {
        while self.failed.is_none() {
            tokio::select! {
                // Cancel-safe: a cancelled token stays cancelled.
                () = stop.cancelled() => return,
                // Cancel-safe by its documentation: no finished task is lost.
                Some(ended) = self.tasks.join_next_with_id() => self.bury(ended),
            }
        }
    }

    /// Stops all in order.
    pub async fn finish(mut self) -> Ending {
        let leftovers = self.drain().await;
        match self.failed {
            Some(task) => Ending::Failed { task },
            None if leftovers.is_empty() => Ending::Stopped,
            None => Ending::Overran { tasks: leftovers },
        }
    }

    /// Stops stage after stage; gives the names of what had to be aborted.
    async fn drain(&mut self) -> Vec<Arc<str>> {
        let begun = clock::instant();
        let deadline = begun + STOP_DEADLINE;
        for stage in Stage::ALL {
            self.token(stage).cancel();
            let until = deadline.min(clock::instant() + stage.patience());
            if tokio::time::timeout_at(until.into(), self.ended(stage)).await.is_err() {
                warn!(?stage, waiting = ?self.unfinished(stage), "a stage takes longer to stop than it should");
            }
        }
        // Whoever was late in its stage has what is left of the deadline.
        if tokio::time::timeout_at(deadline.into(), self.all_ended()).await.is_err() {
            self.root.cancel();
        }
        let leftovers = self.unfinished(Stage::Serve);
        if leftovers.is_empty() {
            info!(took = ?clock::instant().saturating_duration_since(begun), "everything has stopped");
        } else {
            error!(tasks = ?leftovers, "these tasks did not stop in time and are aborted");
            self.tasks.shutdown().await;
        }
        leftovers
    }

    /// Waits until no task of the stage runs.
    async fn ended(&mut self, stage: Stage) {
        while self.running.values().any(|(each, ..)| *each == stage) {
            match self.tasks.join_next_with_id().await {
                Some(ended) => self.bury(ended),
                None => return,
            }
        }
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.bury(ended);
        }
    }

    /// Takes an ended task off the books and logs how it ended.
    fn bury(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panic) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(panic_message(error))),
        };
        let unknown = || (Stage::World, Arc::from("unknown"), self.root.clone());
        let (_, name, stop) = self.running.remove(&id).unwrap_or_else(unknown);
        match panic {
            Some(message) => error!(task = &*name, message, "a task panicked"),
            None if stop.is_cancelled() => {
                debug!(task = &*name, "a task has stopped");
                return;
            }
            None => error!(task = &*name, "a task ended although it was not told to"),
        }
        self.failed.get_or_insert(name);
    }

    /// The names of what runs in this and later stages, in stopping order.
    fn unfinished(&self, from: Stage) -> Vec<Arc<str>> {
        let all = self.running.values().map(|(stage, name, _)| (*stage, name));
        let mut left: Vec<_> = all.filter(|(stage, _)| *stage >= from).collect();
        left.sort();
        left.into_iter().map(|(_, name)| Arc::clone(name)).collect()
    }
}

/// What a panicking task said.
pub fn panic_message(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "it was aborted".to_owned();
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload
            .downcast::<&'static str>()
            .map_or_else(|_| "no message".to_owned(), |message| (*message).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn supervisor_with_three_stages() -> (Supervisor, mpsc::Receiver<&'static str>) {
        let mut supervisor = Supervisor::default();
        let (log, seen) = mpsc::channel(8);
        for (stage, name) in [(Stage::Hub, "hub"), (Stage::Drivers, "bus"), (Stage::Serve, "listener")] {
            let (token, log) = (supervisor.token(stage), log.clone());
            supervisor.spawn(stage, name, async move {
                token.cancelled().await;
                log.send(name).await.unwrap();
            });
        }
        (supervisor, seen)
    }

    async fn all(mut seen: mpsc::Receiver<&'static str>) -> Vec<&'static str> {
        let mut names = Vec::new();
        while let Some(name) = seen.recv().await {
            names.push(name);
        }
        names
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_stop_in_the_order_of_their_stages() {
        let (supervisor, seen) = supervisor_with_three_stages();
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(supervisor.run(stop).await, Ending::Stopped);
        assert_eq!(all(seen).await, ["listener", "bus", "hub"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_names_its_task_and_stops_the_others_in_order() {
        let (mut supervisor, seen) = supervisor_with_three_stages();
        supervisor.spawn(Stage::Drivers, "broken", async { panic!("on purpose") });
        let ending = supervisor.run(CancellationToken::new()).await;
        assert_eq!(ending, Ending::Failed { task: "broken".into() });
        assert_eq!(all(seen).await, ["listener", "bus", "hub"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_was_told_to_stop_alone_leaves_the_others_running() {
        let (mut supervisor, seen) = supervisor_with_three_stages();
        let alone = supervisor.token(Stage::Drivers).child_token();
        let token = alone.clone();
        supervisor.spawn_with(
            Stage::Drivers,
            "old bus",
            alone.clone(),
            async move { token.cancelled().await },
        );
        alone.cancel();
        let stop = CancellationToken::new();
        let watched = tokio::time::timeout(Duration::from_secs(60), supervisor.watch(&stop)).await;
        assert!(watched.is_err(), "nothing has failed");
        assert_eq!(supervisor.names(), ["listener", "bus", "hub"].map(Arc::from));
        stop.cancel();
        assert_eq!(supervisor.run(stop).await, Ending::Stopped);
        assert_eq!(all(seen).await, ["listener", "bus", "hub"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_is_a_failure() {
        let (mut supervisor, seen) = supervisor_with_three_stages();
        supervisor.spawn(Stage::Hub, "early", async {});
        let ending = supervisor.run(CancellationToken::new()).await;
        assert_eq!(ending, Ending::Failed { task: "early".into() });
        assert_eq!(all(seen).await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_is_named_and_aborted_at_the_deadline() {
        let (mut supervisor, seen) = supervisor_with_three_stages();
        supervisor.spawn(Stage::Hub, "stuck", std::future::pending());
        let (stop, begun) = (CancellationToken::new(), clock::instant());
        stop.cancel();
        assert_eq!(supervisor.run(stop).await, Ending::Overran { tasks: vec!["stuck".into()] });
        assert_eq!(all(seen).await, ["listener", "bus", "hub"]);
        assert_eq!(clock::instant() - begun, STOP_DEADLINE);
    }
}

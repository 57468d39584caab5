//! The running hub: requests, observations and commands through real queues, on a paused clock.

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dialects::COMMANDS_IN_FLIGHT;
use crate::drivers::{COMMAND_QUEUE, OBSERVATION_QUEUE};
use crate::hub::handle::{Attachment, HubHandle, HubRequest, REQUEST_QUEUE};
use crate::hub::task::run;
use crate::meters::HubMeters;
use crate::model::snapshot::Snapshot;

/// The ends of a hub's queues that lie outside of it.
pub(super) struct World {
    pub(super) hub: HubHandle,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) commands: mpsc::Receiver<DriverCommand>,
    pub(super) stop: CancellationToken,
    pub(super) meters: HubMeters,
}

/// Runs a test beside a hub until the test ends and the hub has stopped.
pub(super) async fn beside_a_hub<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let (request_queue, requests) = mpsc::channel(REQUEST_QUEUE);
    let (observations, observed) = mpsc::channel(OBSERVATION_QUEUE);
    let (command_queue, commands) = mpsc::channel(COMMAND_QUEUE);
    let (stop, meters) = (CancellationToken::new(), HubMeters::default());
    let world = World {
        hub: HubHandle::new(request_queue),
        observations,
        commands,
        stop: stop.clone(),
        meters: meters.clone(),
    };
    let links = vec![(Arc::from("rs485"), command_queue)];
    let hub = run(Arc::new(directory()), links, requests, observed, None, stop.clone(), meters);
    let test = async {
        test(world).await;
        stop.cancel();
    };
    tokio::join!(hub, test);
}

/// What comes next out of a queue; nothing is ever waited for longer than this.
pub(super) async fn next<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    timeout(Duration::from_secs(120), queue.recv()).await.expect("something comes in time")
}

impl World {
    /// A session that takes everything.
    pub(super) async fn watcher(&self, queue: usize) -> Attachment {
        let session = self.hub.attach(queue).await.expect("the hub runs");
        let (key, client) = (session.key, all_rights("demo"));
        self.ask(HubRequest::Watch { key, client, interests: vec![everything()] }).await;
        session
    }

    pub(super) async fn ask(&self, request: HubRequest) {
        self.hub.send(request).await.expect("the hub runs");
    }

    pub(super) async fn observe(&self, device: &str, values: &[(usize, Value)]) {
        let values = values.iter().map(|(at, value)| (*at, Sample::Value(value.clone()))).collect();
        let device = directory().device(device).map(Arc::clone).expect("a device of the plant");
        let observation = Observation::Values { device, at: UnixMillis(0), values };
        self.observations.send(observation).await.expect("the hub runs");
    }

    /// What the hub knows once it has taken in all that was observed before: the two queues have no common order,
    /// so it asks until the readings are there.
    pub(super) async fn snapshot_with(
        &self,
        session: &mut Attachment,
        enough: impl Fn(&Snapshot) -> bool,
    ) -> Arc<Snapshot> {
        let client = all_rights("demo");
        for _ in 0..10_000 {
            let question = Question::Snapshot(Selector::All);
            let client = Arc::clone(&client);
            self.ask(HubRequest::Ask { key: session.key, token: Token(1), client, question }).await;
            match next(&mut session.replies).await.map(|told| told.reply) {
                Some(SessionReply::Answer(_, Answer::Snapshot(snapshot))) if enough(&snapshot) => {
                    return snapshot;
                }
                Some(SessionReply::Answer(..)) => tokio::task::yield_now().await,
                other => panic!("no answer but {other:?}"),
            }
        }
        panic!("the hub never knows enough");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_down_and_its_outcome_comes_back() {
    beside_a_hub(async |mut world| {
        let mut session = world.watcher(16).await;
        let (key, client) = (session.key, all_rights("demo"));
        let command = write("press-1", "setpoint", Value::Int(20));
        world.ask(HubRequest::Submit { key, token: Token(1), client, command }).await;
        let routed = next(&mut world.commands).await.expect("a command");
        let settled = Observation::Settled { command: routed.id, at: UnixMillis(0), outcome: confirmed() };
        world.observations.send(settled).await.expect("the hub runs");
        let reply = next(&mut session.replies).await.expect("a reply");
        assert_eq!(reply_line(&reply.reply), "outcome 1 confirmed");
        let sent = next(&mut session.messages).await.expect("a message");
        assert_eq!(line(&sent), "press-1 sent Write m-1 by demo setpoint=20");
        let reply = next(&mut session.messages).await.expect("a message");
        assert_eq!(line(&reply), "press-1 reply Write m-1 by demo setpoint=20: confirmed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_takes_no_commands_means_busy_and_a_silent_one_a_timeout() {
    beside_a_hub(async |world| {
        let mut session = world.hub.attach(16).await.expect("the hub runs");
        for token in 0..=COMMAND_QUEUE {
            let (key, client) = (session.key, all_rights("demo"));
            let token = Token(u64::try_from(token).unwrap());
            let command = write("press-1", "setpoint", Value::Int(20));
            world.ask(HubRequest::Submit { key, token, client, command }).await;
        }
        let reply = next(&mut session.replies).await.expect("a reply");
        assert_eq!(reply_line(&reply.reply), format!("outcome {COMMAND_QUEUE} busy"));
        let start = clock::instant();
        let reply = next(&mut session.replies).await.expect("a reply");
        assert_eq!(reply_line(&reply.reply), "outcome 0 timed out");
        let waited = clock::instant() - start;
        assert!((Duration::from_secs(9)..Duration::from_secs(11)).contains(&waited), "{waited:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_reply_to_as_many_commands_as_a_session_may_have_finds_room() {
    beside_a_hub(async |mut world| {
        let mut session = world.hub.attach(16).await.expect("the hub runs");
        for token in 0..COMMANDS_IN_FLIGHT {
            let (key, client) = (session.key, all_rights("demo"));
            let token = Token(u64::try_from(token).unwrap());
            let command = Command { notify_accepted: true, ..write("press-1", "setpoint", Value::Int(20)) };
            world.ask(HubRequest::Submit { key, token, client, command }).await;
        }
        // The session reads nothing until all of it has been said.
        for _ in 0..COMMANDS_IN_FLIGHT {
            let command = next(&mut world.commands).await.expect("a command").id;
            for said in [
                Observation::Accepted { command },
                Observation::Settled { command, at: UnixMillis(0), outcome: confirmed() },
            ] {
                world.observations.send(said).await.expect("the hub runs");
            }
        }
        for token in 0..COMMANDS_IN_FLIGHT {
            for expected in [format!("accepted {token}"), format!("outcome {token} confirmed")] {
                let reply = next(&mut session.replies).await.expect("a reply");
                assert_eq!(reply_line(&reply.reply), expected);
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_device_behind_a_link_that_does_not_run_is_busy() {
    beside_a_hub(async |world| {
        let mut session = world.hub.attach(16).await.expect("the hub runs");
        let (key, client) = (session.key, all_rights("demo"));
        let command = write("lamp-1", "setpoint", Value::Int(20));
        world.ask(HubRequest::Submit { key, token: Token(1), client, command }).await;
        let reply = next(&mut session.replies).await.expect("a reply");
        assert_eq!(reply_line(&reply.reply), "outcome 1 busy");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_drivers_last_words_count_and_every_queue_closes() {
    let mut session = None;
    beside_a_hub(async |mut world| {
        let attached = world.hub.attach(16).await.expect("the hub runs");
        for token in [1, 2] {
            let (key, client) = (attached.key, all_rights("demo"));
            let command = write("press-1", "setpoint", Value::Int(20));
            world.ask(HubRequest::Submit { key, token: Token(token), client, command }).await;
        }
        let first = next(&mut world.commands).await.expect("a command");
        next(&mut world.commands).await.expect("a command");
        world.stop.cancel();
        let settled = Observation::Settled { command: first.id, at: UnixMillis(0), outcome: confirmed() };
        world.observations.try_send(settled).expect("room");
        let (key, client) = (attached.key, all_rights("demo"));
        let command = write("press-1", "setpoint", Value::Int(20));
        world.ask(HubRequest::Submit { key, token: Token(3), client, command }).await;
        session = Some(attached);
    })
    .await;
    let mut session = session.expect("a session");
    let mut replies = Vec::new();
    while let Some(reply) = next(&mut session.replies).await {
        replies.push(reply_line(&reply.reply));
    }
    assert_eq!(replies, ["outcome 1 confirmed", "outcome 2 timed out", "outcome 3 busy"]);
    assert!(next(&mut session.messages).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_hub_still_shows_progress() {
    beside_a_hub(async |world| {
        let before = world.meters.turns.get();
        tokio::time::advance(Duration::from_secs(3)).await;
        let moved = async {
            while world.meters.turns.get() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), moved).await.expect("progress");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_requests_do_not_keep_an_observation_waiting() {
    beside_a_hub(async |world| {
        let mut session = world.hub.attach(16).await.expect("the hub runs");
        world.observe("press-1", &[(DOOR, Value::Bool(true))]).await;
        // More than the hub takes in one turn, and all there before it has its turn.
        for _ in 0..100 {
            let (key, client) = (session.key, all_rights("demo"));
            let question = Question::Snapshot(Selector::All);
            world.ask(HubRequest::Ask { key, token: Token(1), client, question }).await;
        }
        let mut known = Vec::new();
        for _ in 0..100 {
            let answer = next(&mut session.replies).await.expect("an answer");
            let SessionReply::Answer(_, Answer::Snapshot(snapshot)) = answer.reply else {
                panic!("no snapshot")
            };
            known.push(snapshot.devices[0].online);
        }
        assert_eq!((known[0], known[99]), (false, true));
    })
    .await;
}

//! The running hub with a real store: what members have written and what they have not, over their ends and the
//! hub's own.

use std::path::Path;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::task::next;
use super::*;
use crate::config::History;
use crate::drivers::OBSERVATION_QUEUE;
use crate::hub::handle::{Attachment, HubHandle, HubRequest, REQUEST_QUEUE};
use crate::hub::task::run;
use crate::meters::HubMeters;
use crate::model::interest::Relation;
use crate::store;

/// A gateway's middle: hub and store, without drivers and connections.
struct Gateway {
    hub: HubHandle,
    observations: mpsc::Sender<Observation>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Gateway {
    fn start(path: &Path) -> Self {
        let history = History {
            path: path.to_owned(),
            keep: Duration::from_secs(3600),
            max_bytes: 16 << 20,
            commit_every: Duration::from_millis(100),
        };
        let directory = Arc::new(directory());
        let (keeper, _, worker) = store::open(history, Arc::clone(&directory)).expect("a store");
        let runtime = Handle::current();
        let thread = std::thread::spawn(move || worker.run(&runtime));
        let (request_queue, requests) = mpsc::channel(REQUEST_QUEUE);
        let (observations, observed) = mpsc::channel(OBSERVATION_QUEUE);
        let stop = CancellationToken::new();
        let hub =
            run(directory, Vec::new(), requests, observed, Some(keeper), stop.clone(), HubMeters::default());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(hub);
        let task = Handle::current().spawn(async move { while tasks.join_next().await.is_some() {} });
        Self { hub: HubHandle::new(request_queue), observations, stop, task, thread }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("the hub ends");
        self.thread.join().expect("the store ends");
    }

    /// A member that holds a relation to press-1.
    async fn member(&self, queue: usize) -> Attachment {
        let mut member = self.hub.attach(queue).await.expect("the hub runs");
        let interest = Interest { selector: Selector::Device("press-1".into()), kinds: Kinds::PROPERTIES };
        let relations = vec![Relation { label: "press-1".into(), interest }];
        let retain = Duration::from_secs(3600);
        for ask in [
            GroupAsk::Join { group: "system".into(), limit: 9, retain },
            GroupAsk::Hold { relations, earliest: false },
        ] {
            let (key, client) = (member.key, all_rights("system"));
            let question = Question::Group(ask);
            let ask = HubRequest::Ask { key, token: Token(1), client, question };
            self.hub.send(ask).await.expect("the hub runs");
            next(&mut member.replies).await.expect("an answer");
        }
        member
    }

    async fn observe(&self, values: std::ops::Range<i64>) {
        let device = directory().device("press-1").map(Arc::clone).expect("a device of the plant");
        for value in values {
            let values = vec![(SETPOINT, Sample::Value(Value::Int(value)))];
            let observation = Observation::Values { device: Arc::clone(&device), at: clock::wall(), values };
            self.observations.send(observation).await.expect("the hub runs");
        }
    }
}

/// The values of the next messages; the first `written` of them are written, counted from the session's beginning.
async fn take(member: &mut Attachment, count: usize, written: u64) -> Vec<i64> {
    let mut values = Vec::new();
    for _ in 0..count {
        let message = next(&mut member.messages).await.expect("a message");
        let Body::Properties(reports) = &message.body else { panic!("{message:?}") };
        let Value::Int(value) = reports[0].value else { panic!("{message:?}") };
        values.push(value);
    }
    member.account.written.store(written, std::sync::atomic::Ordering::Release);
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_group_gets_each_message_once_over_slow_dying_and_absent_members_and_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.db");
    let gateway = Gateway::start(&path);
    let mut slow = gateway.member(4).await;
    gateway.observe(0..100).await;
    assert_eq!(take(&mut slow, 30, 20).await, (0..30).collect::<Vec<_>>(), "in order, as there is room");
    gateway.hub.detach(slow.key);
    drop(slow);
    gateway.observe(100..150).await;
    let mut heir = gateway.member(8).await;
    assert_eq!(take(&mut heir, 60, 60).await, (20..80).collect::<Vec<_>>(), "ten were taken and not written");
    gateway.hub.detach(heir.key);
    drop(heir);
    gateway.end().await;

    let gateway = Gateway::start(&path);
    gateway.observe(150..160).await;
    let mut late = gateway.member(1000).await;
    assert_eq!(take(&mut late, 80, 80).await, (80..160).collect::<Vec<_>>());
    gateway.observe(160..161).await;
    assert_eq!(take(&mut late, 1, 81).await, [160]);
    drop(late);
    gateway.end().await;
}

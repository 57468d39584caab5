//! What leaves a connection when, while messages may gather: a session on a pipe, time that stands still unless everybody
//! waits, and the test in the place of the hub.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::Patience;
use super::connection::Connection;
use super::engine::Engine;
use super::socket::Socket;
use crate::clock;
use crate::dialects::shared::fixture;
use crate::dialects::{Closing, Input, Output, Session, Token};
use crate::hub::handle::{Account, HubHandle, HubRequest, SessionReply, Told};
use crate::model::command::Outcome;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::time::{Now, UnixMillis};

const INTERVAL: Duration = Duration::from_millis(5);

/// Says what it hears.
#[derive(Debug, Default)]
struct Echo(VecDeque<Output>);

impl Session for Echo {
    fn handle(&mut self, input: Input, _: Now) {
        let said = match input {
            Input::Text(text) if &*text == "watch" => {
                let context = fixture::context();
                let client = Arc::clone(context.clients.clients().first().unwrap());
                let interests = vec![Interest { selector: Selector::All, kinds: Kinds::ALL }];
                return self.0.push_back(Output::Watch { client, interests });
            }
            Input::Text(text) => text.to_string(),
            Input::Message(message) => message.seq.to_string(),
            Input::Outcome(token, _) => format!("outcome {}", token.0),
            Input::Closing(Closing::Shutdown) => "bye".to_owned(),
            Input::Open
            | Input::Binary(_)
            | Input::Accepted(_)
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Reconfigured(_)
            | Input::Timeout
            | Input::Closing(_) => return,
        };
        self.0.push_back(Output::Send(said.into()));
    }

    fn poll(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }
}

/// A session that watches, its client, and the hub's ends of its queues.
struct Scene {
    client: WebSocketStream<DuplexStream>,
    messages: mpsc::Sender<Arc<DeviceMessage>>,
    replies: mpsc::Sender<Box<Told>>,
    account: Arc<Account>,
    stop: CancellationToken,
    begun: Instant,
    _running: JoinSet<()>,
    _requests: mpsc::Receiver<HubRequest>,
}

impl Scene {
    async fn with(interval: Duration) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (sender, mut requests) = mpsc::channel(16);
        let engine = Engine::new(Box::new(Echo::default()), HubHandle::new(sender), 16, Arc::default());
        let (socket, stop) = (Socket::Memory(far), CancellationToken::new());
        let connection =
            Connection::new(socket, Bytes::new(), engine, 65_536, interval, Arc::new(Patience::default()))
                .await;
        let stopping = stop.clone();
        let mut running = JoinSet::new();
        running.spawn(async move { connection.run(&stopping, tracing::Span::none()).await });
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        client.send(Message::text("watch")).await.unwrap();
        let Some(HubRequest::Attach { messages, replies, account, .. }) = requests.recv().await else {
            panic!("the session does not attach")
        };
        assert!(matches!(requests.recv().await, Some(HubRequest::Watch { .. })));
        let begun = clock::instant();
        Self { client, messages, replies, account, stop, begun, _running: running, _requests: requests }
    }

    /// Sends the session messages of these numbers.
    async fn send(&self, numbers: std::ops::RangeInclusive<u64>) {
        let context = fixture::context();
        for number in numbers {
            let device = context.directory.device("press-1").map(Arc::clone).unwrap();
            let body = Body::Presence { online: true, reason: None };
            self.messages
                .send(Arc::new(DeviceMessage::new(number, UnixMillis(0), device, body)))
                .await
                .unwrap();
        }
    }

    /// Lets everybody do what there is to do now.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// The next texts, and how long after the beginning the last of them came.
    async fn hear(&mut self, count: usize) -> (Vec<String>, Duration) {
        let mut heard = Vec::new();
        while heard.len() < count {
            match self.client.next().await {
                Some(Ok(Message::Text(text))) => heard.push(text.to_string()),
                other => panic!("{other:?} after {heard:?}"),
            }
        }
        (heard, clock::instant() - self.begun)
    }

    /// Whether nothing comes in this time.
    async fn quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.client.next()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_every_message_leaves_at_once() {
    let mut scene = Scene::with(Duration::ZERO).await;
    scene.send(1..=3).await;
    let (heard, after) = scene.hear(3).await;
    assert_eq!((heard.join(" ").as_str(), after), ("1 2 3", Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn messages_leave_together_when_the_first_has_waited_for_the_interval() {
    let mut scene = Scene::with(INTERVAL).await;
    scene.send(1..=1).await;
    assert!(scene.quiet(INTERVAL / 5 * 2).await);
    scene.send(2..=3).await;
    assert!(scene.quiet(INTERVAL / 5 * 2).await, "a later message does not send the first");
    let (heard, after) = scene.hear(3).await;
    assert_eq!(heard, ["1", "2", "3"]);
    // The runtime's timers go by milliseconds.
    assert!((INTERVAL..=INTERVAL + Duration::from_millis(1)).contains(&after), "{after:?}");
    // The next one begins anew.
    scene.begun = clock::instant();
    scene.send(4..=4).await;
    let (heard, after) = scene.hear(1).await;
    assert_eq!(heard, ["4"]);
    assert!(after >= INTERVAL, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_leaves_at_once_behind_what_has_gathered() {
    let mut scene = Scene::with(INTERVAL).await;
    scene.send(1..=1).await;
    scene.settle().await;
    scene.send(2..=3).await;
    scene.client.send(Message::text("hello")).await.unwrap();
    let (heard, after) = scene.hear(4).await;
    assert_eq!((heard.join(" ").as_str(), after), ("1 2 3 hello", Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_stands_where_the_hub_said_it_and_does_not_wait() {
    for interval in [Duration::ZERO, INTERVAL] {
        let mut scene = Scene::with(interval).await;
        scene.send(1..=1).await;
        scene.settle().await;
        scene.send(2..=3).await;
        let reply = SessionReply::Outcome(Token(7), Arc::new(Outcome::Busy));
        scene.replies.send(Box::new(Told { after: 2, reply })).await.unwrap();
        let (heard, after) = scene.hear(3).await;
        assert_eq!((heard.join(" ").as_str(), after), ("1 2 outcome 7", Duration::ZERO));
        assert_eq!(scene.hear(1).await.0, ["3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_half_full_is_emptied_without_anything_being_sent() {
    let mut scene = Scene::with(INTERVAL).await;
    scene.send(1..=1).await;
    scene.settle().await;
    scene.send(2..=9).await;
    scene.settle().await;
    assert_eq!(scene.messages.capacity(), 8, "they gather in the queue");
    // What the hub does when half of it is taken.
    scene.account.pressed.notify_one();
    scene.settle().await;
    assert_eq!(scene.messages.capacity(), 16);
    assert_eq!(scene.account.written.load(std::sync::atomic::Ordering::Acquire), 0);
    let (heard, after) = scene.hear(9).await;
    assert_eq!(heard.join(" "), "1 2 3 4 5 6 7 8 9");
    assert!(after >= INTERVAL, "{after:?}");
    scene.settle().await;
    assert_eq!(scene.account.written.load(std::sync::atomic::Ordering::Acquire), 9);
}

#[tokio::test(start_paused = true)]
async fn what_has_gathered_leaves_before_the_goodbye() {
    let mut scene = Scene::with(INTERVAL).await;
    scene.send(1..=1).await;
    scene.settle().await;
    scene.send(2..=2).await;
    scene.stop.cancel();
    let (heard, after) = scene.hear(3).await;
    assert_eq!((heard.join(" ").as_str(), after), ("1 2 bye", Duration::ZERO));
    assert!(matches!(scene.client.next().await, Some(Ok(Message::Close(_)))));
}

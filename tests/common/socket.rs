//! The socket stage: the real listener, connection driver and hub task on a loopback port, with a scripted driver.
//!
//! Where the pure stage knows that everything has settled, this one waits for a sign of it: a WebSocket pong says that
//! the session has handled what was sent, an emptied queue and an answered question that the hub has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pentad::clock;
use pentad::config::{Limits, Server};
use pentad::dialects::{Context, ENTRIES, Token};
use pentad::drivers::{COMMAND_QUEUE, CommandId, DriverCommand, OBSERVATION_QUEUE, Observation};
use pentad::hub;
use pentad::hub::handle::{HubHandle, HubRequest, REQUEST_QUEUE};
use pentad::meters::HubMeters;
use pentad::model::device::Device;
use pentad::model::interest::Selector;
use pentad::model::snapshot::Question;
use pentad::serve::admission::Admission;
use pentad::serve::listener::Listener;
use pentad::serve::{Shared, sockjs};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::transcript::{Reached, Request, Seen, Settle, Stage};
use super::ws::PATIENCE;
use super::{bed, script};

/// How long silence must last to count as nothing.
const SILENCE: Duration = Duration::from_millis(60);

pub struct SocketStage {
    runtime: Runtime,
    context: Arc<Context>,
    address: std::net::SocketAddr,
    observations: mpsc::Sender<Observation>,
    hub: HubHandle,
    commands: mpsc::Receiver<DriverCommand>,
    clients: BTreeMap<usize, Client>,
    fresh: VecDeque<DriverCommand>,
    unsettled: Vec<(CommandId, Arc<Device>)>,
    stop: CancellationToken,
}

enum Client {
    Socket { socket: Box<WebSocketStream<TcpStream>>, seen: VecDeque<Seen> },
    Call(JoinHandle<Seen>),
    Answered(Seen),
}

impl SocketStage {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let context = Arc::new(bed::context());
        let stop = CancellationToken::new();
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (observations, observation_queue) = mpsc::channel(OBSERVATION_QUEUE);
        let (to_driver, commands) = mpsc::channel(COMMAND_QUEUE);
        let links = vec![(bed::BUS.into(), to_driver.clone()), (bed::BROKER.into(), to_driver)];
        let handle = HubHandle::new(requests);
        let server = Server {
            listen: Vec::new(),
            tls: None,
            public_url: None,
            advertise: false,
            flush_interval: Duration::ZERO,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        };
        let (door, desk) = sockjs::desk();
        let shared = Arc::new(Shared {
            recorders: pentad::drivers::modbus::recorder::Recorders::new().0,
            context: Arc::clone(&context),
            hub: handle.clone(),
            sockjs: door,
            meters: Arc::default(),
            started: clock::instant(),
            admission: Admission::new(100, 100, &[]),
            server,
            patience: Arc::default(),
        });
        let address = {
            let _inside = runtime.enter();
            let any = "127.0.0.1:0".parse().expect("an address");
            let listener = Listener::bind(any, Arc::new(ENTRIES), None).expect("a free port");
            let address = listener.address();
            let directory = Arc::clone(&context.directory);
            runtime.spawn(hub::task::run(
                directory,
                links,
                request_queue,
                observation_queue,
                None,
                stop.clone(),
                HubMeters::default(),
            ));
            runtime.spawn(desk.run(Arc::clone(&shared), stop.clone()));
            runtime.spawn(listener.run(shared, stop.clone()));
            address
        };
        let mut stage = Self {
            runtime,
            context,
            address,
            observations,
            hub: handle,
            commands,
            clients: BTreeMap::new(),
            fresh: VecDeque::new(),
            unsettled: Vec::new(),
            stop,
        };
        for observation in script::beginning(&stage.context.directory, clock::wall()) {
            stage.tell(observation);
        }
        stage
    }

    fn tell(&mut self, observation: Observation) {
        let (observations, hub) = (self.observations.clone(), self.hub.clone());
        let client = Arc::clone(&self.context.clients.clients()[0]);
        self.runtime.block_on(async move {
            observations.send(observation).await.expect("the hub runs");
            while observations.capacity() < OBSERVATION_QUEUE {
                tokio::task::yield_now().await;
            }
            // The hub has taken it; an answer to a question asked now comes after it has been dealt with.
            let mut attachment = hub.attach(1).await.expect("the hub runs");
            let question = Question::Snapshot(Selector::Device("nobody".into()));
            let ask = HubRequest::Ask { key: attachment.key, token: Token(1), client, question };
            hub.send(ask).await.expect("the hub runs");
            timeout(PATIENCE, attachment.replies.recv()).await.expect("an answer in time");
            hub.send(HubRequest::Detach { key: attachment.key }).await.expect("the hub runs");
        });
    }

    /// Takes commands that have reached the driver and says that work on them has begun.
    fn take_commands(&mut self, wait: Duration) {
        let first = self.runtime.block_on(async { timeout(wait, self.commands.recv()).await.ok().flatten() });
        let mut next = first;
        while let Some(command) = next {
            self.unsettled.push((command.id, Arc::clone(&command.device)));
            self.tell(Observation::Accepted { command: command.id });
            self.fresh.push_back(command);
            next = self.commands.try_recv().ok();
        }
    }
}

impl Stage for SocketStage {
    fn open(&mut self, at: usize, request: &Request) {
        self.drop_client(at);
        let (address, spec) = (self.address, request.clone());
        let client = if request.upgrade {
            self.runtime.block_on(upgrade(address, &spec))
        } else {
            Client::Call(self.runtime.spawn(async move { call(address, &spec).await.1 }))
        };
        self.clients.insert(at, client);
    }

    fn accepted(&mut self, at: usize) -> bool {
        matches!(self.clients.get(&at), Some(Client::Socket { .. }))
    }

    fn send(&mut self, at: usize, text: &str) {
        let Some(Client::Socket { socket, seen }) = self.clients.get_mut(&at) else {
            panic!("connection {at} is no WebSocket");
        };
        let text = Message::text(text);
        self.runtime.block_on(async {
            // A close by the server may be on its way; what it is shows when the transcript looks.
            if socket.send(text).await.is_ok() && socket.send(Message::Ping("barrier".into())).await.is_ok() {
                let pong = async {
                    while let Some(message) = socket.next().await {
                        match message {
                            Ok(Message::Pong(_)) | Err(_) => return,
                            Ok(other) => seen.extend(look(other)),
                        }
                    }
                };
                timeout(PATIENCE, pong).await.expect("the server answers a ping in time");
            }
        });
    }

    fn next(&mut self, at: usize, expect_nothing: bool) -> Seen {
        let wait = if expect_nothing { SILENCE } else { PATIENCE };
        if let Some(Client::Call(call)) = self.clients.get_mut(&at) {
            // A call that is still under way stays, to be looked at again.
            let Ok(seen) = self.runtime.block_on(async { timeout(wait, call).await }) else {
                return Seen::Nothing;
            };
            self.clients.remove(&at);
            return seen.expect("the call ends");
        }
        match self.clients.get_mut(&at) {
            Some(Client::Answered(seen)) => std::mem::replace(seen, Seen::Nothing),
            Some(Client::Socket { socket, seen }) => {
                if let Some(seen) = seen.pop_front() {
                    return seen;
                }
                self.runtime.block_on(async {
                    let next = async {
                        loop {
                            match socket.next().await {
                                Some(Ok(message)) => {
                                    if let Some(seen) = look(message) {
                                        return seen;
                                    }
                                }
                                Some(Err(_)) | None => return Seen::Close(1006),
                            }
                        }
                    };
                    timeout(wait, next).await.unwrap_or(Seen::Nothing)
                })
            }
            Some(Client::Call(_)) | None => Seen::Nothing,
        }
    }

    fn drop_client(&mut self, at: usize) {
        let Some(client) = self.clients.remove(&at) else { return };
        if let Client::Socket { mut socket, .. } = client {
            self.runtime.block_on(async {
                // The server's own goodbye says that it has let go of the session.
                if socket.send(Message::Close(None)).await.is_ok() {
                    let gone = async { while let Some(Ok(_)) = socket.next().await {} };
                    drop(timeout(PATIENCE, gone).await);
                }
            });
        }
    }

    fn observe(&mut self, device: &str, values: &[(String, Json)]) {
        self.tell(script::values(&self.context.directory, device, values, clock::wall()));
    }

    fn presence(&mut self, device: &str, online: bool) {
        self.tell(script::presence(&self.context.directory, device, online, clock::wall()));
    }

    fn publish(&mut self, device: &str, topic: &str, payload: &str) {
        self.tell(script::publish(&self.context.directory, device, topic, payload, clock::wall()));
    }

    fn event(&mut self, device: &str, event: &str, params: &Json) {
        self.tell(script::event(&self.context.directory, device, event, params, clock::wall()));
    }

    fn ota(&mut self, device: &str, step: i32, detail: &str) {
        self.tell(script::ota(&self.context.directory, device, step, detail, clock::wall()));
    }

    fn command(&mut self, expect_nothing: bool) -> Option<Reached> {
        if self.fresh.is_empty() {
            self.take_commands(if expect_nothing { SILENCE } else { PATIENCE });
        }
        self.fresh.pop_front().map(|command| script::reached(&command))
    }

    fn settle(&mut self, device: Option<&str>, outcome: &Settle) {
        if self.unsettled.is_empty() {
            self.take_commands(PATIENCE);
        }
        let at = self
            .unsettled
            .iter()
            .position(|(_, of)| device.is_none_or(|device| &*of.id == device))
            .expect("a command waits to be settled");
        let (command, of) = self.unsettled.remove(at);
        for observation in script::settled(command, &of, outcome, clock::wall()) {
            self.tell(observation);
        }
    }

    fn wait(&mut self, _: Duration) {
        panic!("time passes by itself on a socket; the transcript must not be played here");
    }
}

impl Drop for SocketStage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn look(message: Message) -> Option<Seen> {
    match message {
        Message::Text(text) => Some(Seen::Text(text.to_string())),
        Message::Close(frame) => Some(Seen::Close(frame.map_or(1005, |frame| frame.code.into()))),
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
    }
}

async fn upgrade(address: std::net::SocketAddr, request: &Request) -> Client {
    match call(address, request).await {
        (Some(stream), _) => {
            let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
            Client::Socket { socket: Box::new(socket), seen: VecDeque::new() }
        }
        (None, seen) => Client::Answered(seen),
    }
}

/// Makes an HTTP call; an accepted upgrade gives the stream behind it.
async fn call(address: std::net::SocketAddr, request: &Request) -> (Option<TcpStream>, Seen) {
    let mut stream = TcpStream::connect(address).await.expect("the listener listens");
    let mut head = format!("{} {} HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n", request.method, request.target);
    if request.upgrade {
        head += "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    } else {
        head += "connection: close\r\n";
    }
    for (name, value) in &request.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if !request.body.is_empty() {
        head.extend(["content-length: ", &request.body.len().to_string(), "\r\n"]);
    }
    head.extend(["\r\n", &request.body]);
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    // Byte by byte, because the first frames of a WebSocket may follow at once.
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time");
        answer.push(byte.expect("a whole answer"));
    }
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    if status == 101 {
        return (Some(stream), Seen::Nothing);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("a body in time").expect("a whole body");
    (None, Seen::Http(status, String::from_utf8_lossy(&body).into_owned()))
}

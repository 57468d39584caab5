//! A listener on a free port, and the test's hand on what stands behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pentad::config::{Limits, Server};
use pentad::hub::handle::{HubHandle, HubRequest, SessionReply, Told};
use pentad::serve::admission::Admission;
use pentad::serve::listener::Listener;
use pentad::serve::tls::Tls;
use pentad::serve::{Patience, Shared, sockjs};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

use crate::common::bed;
use crate::common::ws::PATIENCE;
use crate::parrot;

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    /// What sessions ask of the hub.
    pub(crate) hub: mpsc::Receiver<HubRequest>,
    pub(crate) shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What a test may change.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) flush_interval: Duration,
    pub(crate) patience: Patience,
    pub(crate) trusted_proxies: Vec<std::net::IpAddr>,
    pub(crate) tls: Option<Tls>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits { frame_bytes: 64 * 1024, ..Limits::default() },
            flush_interval: Duration::ZERO,
            patience: Patience { linger: Duration::from_millis(300), ..Patience::default() },
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let entries = Arc::new([parrot::ENTRY]);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), entries, setup.tls).unwrap();
        let address = listener.address();
        let (requests, hub) = mpsc::channel(1024);
        let limits = setup.limits;
        let (door, desk) = sockjs::desk();
        let shared = Arc::new(Shared {
            recorders: pentad::drivers::modbus::recorder::Recorders::new().0,
            context: Arc::new(bed::context()),
            hub: HubHandle::new(requests),
            sockjs: door,
            meters: Arc::default(),
            started: pentad::clock::instant(),
            admission: Admission::new(
                limits.connections,
                limits.connections_per_address,
                &setup.trusted_proxies,
            ),
            server: Server {
                listen: vec![address],
                tls: None,
                public_url: None,
                advertise: false,
                flush_interval: setup.flush_interval,
                trusted_proxies: setup.trusted_proxies,
                limits,
            },
            patience: Arc::new(setup.patience),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(desk.run(Arc::clone(&shared), stop.clone()));
        tasks.spawn(listener.run(Arc::clone(&shared), stop.clone()));
        Self { address, stop, hub, shared, tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A WebSocket to the parrot.
    pub(crate) async fn parrot(&self) -> Client {
        self.socket("/parrot").await
    }

    /// A WebSocket at a path.
    pub(crate) async fn socket(&self, path: &str) -> Client {
        let request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        let upgrade = tokio_tungstenite::client_async(request, self.tcp().await);
        Client(timeout(PATIENCE, upgrade).await.unwrap().unwrap().0)
    }

    /// The next request of a session to the hub.
    pub(crate) async fn asked(&mut self) -> HubRequest {
        timeout(PATIENCE, self.hub.recv()).await.expect("a request in time").expect("a request")
    }

    /// Waits until the listener has ended.
    pub(crate) async fn ended(mut self) {
        timeout(PATIENCE, self.tasks.join_next()).await.expect("the listener ends in time").unwrap().unwrap();
    }
}

/// What a hub tells a session that was sent no message before.
pub(crate) fn told(reply: SessionReply) -> Told {
    Told { after: 0, reply }
}

/// A WebSocket client that shows what a test looks at.
pub(crate) struct Client(pub(crate) WebSocketStream<TcpStream>);

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next text, or the close as `close CODE REASON`, or `lost`.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a message in time") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return format!("close {} {}", u16::from(frame.code), frame.reason);
                }
                Some(Ok(Message::Close(None))) => return "close".to_owned(),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return "lost".to_owned(),
            }
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let next = self.next().await;
            let end = next == "lost" || next.starts_with("close");
            seen.push(next);
            if end {
                return seen;
            }
        }
    }
}

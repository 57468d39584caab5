//! Listeners: sockets that accept, admit, and own the connections that came in through them.
//!
//! A listener outlives every trouble of its clients. When told to stop it closes its door first, then gives the
//! sessions two seconds for their goodbye, and cuts off what is left.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, error, info, info_span, warn};

use super::Patience;
use super::admission::Permit;
use super::connection::Connection;
use super::engine::Engine;
use super::http::{Accepted, Door};
use super::inherited;
use super::live::Live;
use super::origin::Ends;
use super::socket::Socket;
use super::tls::Tls;
use crate::backoff::Backoff;
use crate::clock;
use crate::dialects::Entry;
use crate::supervisor::panic_message;

/// Connections that the kernel completes before we accept them.
const BACKLOG: u32 = 256;

/// hyper's smallest: our requests have short heads.
const HTTP_BUFFER: usize = 8 * 1024;

/// How often a certificate is looked at: those who renew one do so days before the old one ends.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(30);

/// Connections that are told they are one too many at the same time. Beyond that they are closed without a word.
const REFUSALS: usize = 32;

/// The whole answer to a connection that is one too many.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain;charset=UTF-8\r\n\
    content-length: 30\r\nretry-after: 10\r\nconnection: close\r\n\r\nthere are too many connections";

/// A bound socket, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<TcpListener>,
    address: SocketAddr,
    face: watch::Sender<Face>,
}

/// What a listener shows to those who come: which dialects, and whether behind TLS.
#[derive(Clone, Debug)]
pub struct Face {
    tls: Option<Tls>,
    entries: Arc<[Entry]>,
}

impl Face {
    /// These dialects, behind TLS if there is a certificate.
    pub fn new(entries: Arc<[Entry]>, tls: Option<Tls>) -> Self {
        Self { tls, entries }
    }

    /// Whether it speaks TLS.
    pub fn secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// Gives a listener another face while it listens: connections that come later see it, and so does the next request
/// of those that are there.
#[derive(Debug)]
pub struct FaceKeeper(watch::Sender<Face>);

impl FaceKeeper {
    /// From now on this one.
    pub fn replace(&self, face: Face) {
        self.0.send_replace(face);
    }
}

/// A look at a bound socket, for one that is to be bound beside it on the same port. Holds nothing open.
#[derive(Debug)]
pub struct Neighbour(Weak<TcpListener>);

impl Neighbour {
    /// Whether another socket of this user may be bound beside it.
    fn share(&self, shares: bool) {
        let set = self.0.upgrade().map(|socket| SockRef::from(&*socket).set_reuse_port(shares));
        if let Some(Err(error)) = set {
            debug!(%error, "a port cannot be shared");
        }
    }
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Listener {
    /// Binds a socket through which these dialects are served. Must be called inside the runtime.
    pub fn bind(address: SocketAddr, entries: Arc<[Entry]>, tls: Option<Tls>) -> Result<Self, BindError> {
        Self::bind_with(address, Face::new(entries, tls))
    }

    /// The same with a face.
    pub fn bind_with(address: SocketAddr, face: Face) -> Result<Self, BindError> {
        Self::bind_sharing(address, face, false)
    }

    /// The same beside sockets of ours that have the port by another address, as `0.0.0.0` has that of `127.0.0.1`. They
    /// are to be closed soon: until then whoever connects comes to the one with the narrower address. Nobody else can
    /// come in between, and nothing is lost where it fails.
    pub fn bind_beside(address: SocketAddr, face: Face, others: &[&Neighbour]) -> Result<Self, BindError> {
        for other in others {
            other.share(true);
        }
        let bound = Self::bind_sharing(address, face, true);
        // What is bound stays so; another process finds the port taken as ever.
        for other in others {
            other.share(false);
        }
        if let Ok(listener) = &bound {
            listener.neighbour().share(false);
        }
        bound
    }

    fn bind_sharing(address: SocketAddr, face: Face, shares: bool) -> Result<Self, BindError> {
        let bound = || {
            if let Some(socket) = inherited::socket(address)? {
                return Ok((TcpListener::from_std(socket)?, address));
            }
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Without it a restarted gateway could not bind while old connections time out.
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(shares)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bound().map_err(|source| BindError { address, source })?;
        Ok(Self { socket: Arc::new(socket), address, face: watch::Sender::new(face) })
    }

    /// Where it listens; the port is a real one even if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn secure(&self) -> bool {
        self.face.borrow().secure()
    }

    /// For whoever is to be bound beside it.
    pub fn neighbour(&self) -> Neighbour {
        Neighbour(Arc::downgrade(&self.socket))
    }

    /// The way to give it another face.
    pub fn face(&self) -> FaceKeeper {
        FaceKeeper(self.face.clone())
    }

    /// Accepts connections and runs them until told to stop.
    pub async fn run(self, live: impl Into<Live>, stop: CancellationToken) {
        let Self { socket, address, face } = self;
        let mut live = live.into();
        let faces = face.subscribe();
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        let mut failures = 0_u64;
        let mut certificate = interval_at((clock::instant() + CERTIFICATE_EVERY).into(), CERTIFICATE_EVERY);
        certificate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                // Cancel-safe: a cancelled token stays cancelled.
                () = stop.cancelled() => break,
                // Cancel-safe by its documentation: no accepted connection is lost.
                accepted = socket.accept() => accepted,
                // Cancel-safe: a tick that was not taken comes again.
                _ = certificate.tick() => {
                    refresh(faces.borrow().tls.clone());
                    continue;
                }
                // Cancel-safe by its documentation.
                Some(ended) = connections.join_next() => {
                    note_end(ended);
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        warn!(%address, %error, "cannot accept connections for the moment");
                    }
                    let pause = if is_of_one_connection(&error) {
                        Duration::ZERO
                    } else {
                        backoff.next(fastrand::f64())
                    };
                    tokio::select! {
                        // Cancel-safe: a sleep holds nothing.
                        () = tokio::time::sleep(pause) => continue,
                        // Cancel-safe: a cancelled token stays cancelled.
                        () = stop.cancelled() => break,
                    }
                }
            };
            if failures > 0 {
                info!(%address, failures, "connections are accepted again");
                failures = 0;
                backoff.reset();
            }
            let shared = live.now();
            let tls = faces.borrow().tls.clone();
            match shared.admission.admit(peer.ip()) {
                Ok(permit) => {
                    let guest = Guest {
                        live: live.clone(),
                        faces: faces.clone(),
                        patience: Arc::clone(&shared.patience),
                        peer,
                        stop: stop.clone(),
                        permit,
                    };
                    connections.spawn(guest.serve(stream, tls));
                }
                Err(reason) => {
                    debug!(peer = %peer.ip(), %reason, "a connection is refused");
                    // Without TLS there is no telling a TLS client anything.
                    if let (None, Ok(turn)) = (&tls, Arc::clone(&refusals).try_acquire_owned()) {
                        connections.spawn(async move {
                            refuse(stream).await;
                            drop(turn);
                        });
                    }
                }
            }
        }
        drop(socket);
        farewell(connections, address, live.now().patience.goodbye).await;
    }
}

/// Looks after a certificate that may have been renewed. Reading files may take long on a worn card.
fn refresh(tls: Option<Tls>) {
    if let Some(tls) = tls {
        drop(tokio::task::spawn_blocking(move || tls.refresh()));
    }
}

/// Waits for the connections, then cuts off what is left.
async fn farewell(mut connections: JoinSet<()>, address: SocketAddr, goodbye: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if timeout(goodbye, all).await.is_err() {
        warn!(%address, connections = connections.len(), "connections did not end in time and are cut off");
        connections.shutdown().await;
    }
}

/// A connection's panic harms only that connection, but it is a fault of ours.
fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(message = panic_message(error), "a connection panicked");
    }
}

/// Whether the error is about the one connection that could not be accepted, not about us.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// Tells a client that there is no room.
async fn refuse(mut stream: TcpStream) {
    let words = async {
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        // Unread bytes would turn the close into a reset, which can overtake the answer.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    drop(timeout(Duration::from_secs(1), words).await);
}

/// One admitted connection. It holds on to nothing that a reload replaces.
struct Guest {
    live: Live,
    faces: watch::Receiver<Face>,
    patience: Arc<Patience>,
    peer: SocketAddr,
    stop: CancellationToken,
    permit: Permit,
}

impl Guest {
    /// Everything until the WebSocket begins is boxed and freed again: TLS and HTTP need much more than what stays.
    async fn serve(self, stream: TcpStream, tls: Option<Tls>) {
        let Some((connection, span)) = Box::pin(self.begin(stream, tls)).await else { return };
        connection.run(&self.stop, span).await;
        drop(self.permit);
    }

    /// Serves a connection up to a WebSocket that it becomes, if it does.
    async fn begin(&self, stream: TcpStream, tls: Option<Tls>) -> Option<(Box<Connection>, Span)> {
        // Replies are small and must not wait for more of them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot turn Nagle's algorithm off");
        }
        let socket = match tls {
            None => Socket::Plain(stream),
            Some(tls) => match timeout(self.patience.head, tls.accept(stream)).await {
                Ok(Ok(stream)) => Socket::Tls(Box::new(stream)),
                Ok(Err(error)) => {
                    debug!(peer = %self.peer.ip(), %error, "the TLS handshake failed");
                    return None;
                }
                Err(_) => {
                    debug!(peer = %self.peer.ip(), "the TLS handshake takes too long");
                    return None;
                }
            },
        };
        let accepted = self.speak_http(socket).await?;
        self.upgrade(accepted).await
    }

    /// Serves requests until the connection ends or becomes a WebSocket.
    async fn speak_http(&self, socket: Socket) -> Option<Accepted> {
        let local = socket.local_addr().ok()?;
        let ends = Ends { peer: self.peer, local, secure: socket.secure() };
        let (accepted, mut upgraded) = mpsc::channel(1);
        let (live, faces, stop) = (&self.live, &self.faces, &self.stop);
        let service = service_fn(|request| {
            let mut live = live.clone();
            let door = Door {
                shared: live.now(),
                live,
                entries: Arc::clone(&faces.borrow().entries),
                ends,
                stop: stop.clone(),
                accepted: accepted.clone(),
            };
            Arc::new(door).answer(request)
        });
        let mut connection = Box::pin(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.patience.head)
                .max_buf_size(HTTP_BUFFER)
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades(),
        );
        let served = tokio::select! {
            // Polled again below if another arm wins; nothing is dropped.
            served = &mut connection => Some(served),
            // Cancel-safe: a cancelled token stays cancelled.
            () = self.stop.cancelled() => None,
            // Cancel-safe: a sleep holds nothing.
            () = tokio::time::sleep(self.patience.http) => None,
        };
        let served = if let Some(served) = served {
            served
        } else {
            // The request under way is still answered, a call at most.
            connection.as_mut().graceful_shutdown();
            timeout(self.patience.call + self.patience.head, &mut connection).await.unwrap_or(Ok(()))
        };
        if let Err(error) = served {
            debug!(peer = %self.peer.ip(), %error, "an HTTP connection failed");
        }
        upgraded.try_recv().ok()
    }

    /// Makes the session of an upgrade that was answered.
    async fn upgrade(&self, accepted: Accepted) -> Option<(Box<Connection>, Span)> {
        let Accepted { dialect, peer, session, live, io } = accepted;
        let upgraded = match io.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                debug!(%peer, %error, "an upgrade was not completed");
                return None;
            }
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<Socket>>() else {
            error!("an upgraded connection is not the socket that it was");
            return None;
        };
        let shared = self.live.clone().now();
        let (limits, flush_interval) = (shared.server.limits, shared.server.flush_interval);
        let meters = shared.meters.dialect(dialect);
        let hub = shared.hub.clone().of(dialect, peer);
        let engine = Engine::new(session, hub, limits.send_queue, meters).following(live, dialect);
        drop(shared);
        let span = info_span!("session", dialect = dialect.name(), %peer, client = tracing::field::Empty);
        let patience = Arc::clone(&self.patience);
        let io = parts.io.into_inner();
        let connection =
            Connection::new(io, parts.read_buf, engine, limits.frame_bytes, flush_interval, patience).await;
        Some((connection, span))
    }
}

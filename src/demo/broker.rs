//! The demo's MQTT broker on loopback: rumqttd's router and packets behind a door of our own.
//!
//! rumqttd's own door comes with a console, a bridge, metrics and two HTTP servers, which would be a tenth of the whole
//! program. It runs in threads of its own, which end with the process; nothing of it is used on a gateway with a real
//! broker, and the feature `broker` leaves it out altogether.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Where MQTT clients expect a broker.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The program was built without it.
    #[error("this pentad was built without the feature `broker`, so it has no MQTT broker for the demo")]
    NotBuilt,
    /// Somebody has the port.
    #[error("cannot listen for MQTT on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread of the MQTT broker")]
    Thread(#[source] io::Error),
}

/// Takes the port of the broker: this one, or where nobody has named one the usual one, and any that is free if that is
/// taken. Clients are accepted once the broker has started, and wait until then.
pub fn listen(wanted: Option<SocketAddr>) -> Result<TcpListener, BrokerError> {
    let address = wanted.unwrap_or(USUAL);
    let any = SocketAddr::new(address.ip(), 0);
    let door = TcpListener::bind(address);
    let door = if wanted.is_none() { door.or_else(|_| TcpListener::bind(any)) } else { door };
    door.map_err(|source| BrokerError::Listen { address, source })
}

#[cfg(feature = "broker")]
pub use embedded::start;

/// Without the feature there is nothing to start.
#[cfg(not(feature = "broker"))]
#[expect(clippy::unused_async, reason = "the same form as the one that starts a broker")]
pub async fn start(_door: TcpListener) -> Result<(), BrokerError> {
    Err(BrokerError::NotBuilt)
}

#[cfg(feature = "broker")]
mod embedded {
    use std::io;
    use std::net::TcpListener as Bound;
    use std::thread;
    use std::time::Duration;

    use bytes::BytesMut;
    use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
    use rumqttd::protocol::v4::V4;
    use rumqttd::protocol::{
        Disconnect, DisconnectReasonCode, Error as Malformed, Packet, Protocol, Publish,
    };
    use rumqttd::{Notification, Router, RouterConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::tcp::OwnedReadHalf;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime;
    use tokio::task::JoinSet;
    use tokio::time::{sleep, sleep_until, timeout};
    use tracing::debug;

    use super::BrokerError;
    use crate::clock;

    /// Clients at the same time. A further one is closed.
    const CLIENTS: usize = 64;

    /// Longest packet in bytes. A longer one ends its connection.
    const PACKET: usize = 256 << 10;

    /// For the first packet of a client, and for a client to read what it is sent.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Before a failing socket is asked again for a connection.
    const PAUSE: Duration = Duration::from_millis(100);

    /// What of the router one client is given.
    type Link = (LinkTx, LinkRx, Notification);

    /// Why a connection is over.
    #[derive(Debug, thiserror::Error)]
    enum End {
        #[error("the connection is lost")]
        Lost(#[from] io::Error),
        #[error("a packet is no MQTT 3.1.1")]
        Malformed(#[from] Malformed),
        #[error("nothing was heard for too long")]
        Silent,
        /// Because there are too many, or somebody else came under its name.
        #[error("the router has let go of it")]
        Dismissed,
    }

    /// Starts the broker on a socket of loopback. It accepts connections from then on.
    pub async fn start(door: Bound) -> Result<(), BrokerError> {
        door.set_nonblocking(true).map_err(BrokerError::Thread)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(BrokerError::Thread)?;
        let serve = move || {
            runtime.block_on(async move {
                match TcpListener::from_std(door) {
                    Ok(socket) => accept(socket).await,
                    Err(error) => debug!(%error, "the demo's broker has no socket"),
                }
            });
        };
        thread::Builder::new().name("mqtt-broker".to_owned()).spawn(serve).map_err(BrokerError::Thread)?;
        Ok(())
    }

    async fn accept(socket: TcpListener) {
        let router = Router::new(0, config()).spawn();
        let mut clients = JoinSet::new();
        let mut number = 0_u64;
        loop {
            let stream = tokio::select! {
                // Cancel-safe by its documentation.
                accepted = socket.accept() => accepted,
                // Cancel-safe by its documentation.
                Some(_) = clients.join_next() => continue,
            };
            let Ok((stream, _)) = stream else {
                sleep(PAUSE).await;
                continue;
            };
            if clients.len() >= CLIENTS {
                continue;
            }
            number += 1;
            let nameless = format!("nameless-{number}");
            let router = router.clone();
            let link = move |name: &str, clean: bool| {
                // Any filter may be subscribed to, not only those that were used before.
                LinkBuilder::new(if name.is_empty() { &nameless } else { name }, router)
                    .clean_session(clean || name.is_empty())
                    .dynamic_filters(true)
                    .build()
                    .ok()
            };
            clients.spawn(async move {
                if let Err(error) = serve(stream, link).await {
                    debug!(%error, "a client of the demo's broker is gone");
                }
            });
        }
    }

    fn config() -> RouterConfig {
        RouterConfig {
            max_connections: CLIENTS,
            max_outgoing_packet_count: 200,
            // Each filter keeps a log of its messages in memory, which these two bound.
            max_segment_size: 256 << 10,
            max_segment_count: 2,
            ..RouterConfig::default()
        }
    }

    /// One client, from its first packet to its last will.
    async fn serve(stream: TcpStream, link: impl FnOnce(&str, bool) -> Option<Link>) -> Result<(), End> {
        stream.set_nodelay(true)?;
        let mut wire = Line { input: BytesMut::new(), output: BytesMut::new(), keep_alive: None };
        let (mut from, mut to) = stream.into_split();
        let first = timeout(PATIENCE, wire.read(&mut from)).await.map_err(|_| End::Silent)??;
        let Packet::Connect(connect, _, will, _, _) = first else { return Ok(()) };
        let (mut sender, mut receiver, welcome) =
            link(&connect.client_id, connect.clean_session).ok_or(End::Dismissed)?;
        // Half as long again as the client promised to speak, as the protocol wants it.
        let keep_alive = Duration::from_secs(connect.keep_alive.into()).mul_f32(1.5);
        wire.keep_alive = Some(keep_alive).filter(|time| !time.is_zero());
        let welcomed = wire.say(&mut to, welcome).await;
        let ended = match welcomed {
            Ok(_) => wire.converse(&mut from, &mut to, &mut sender, &mut receiver).await,
            Err(end) => Err(end),
        };
        match ended {
            // The router has forgotten the link already.
            Err(End::Dismissed) => return Err(End::Dismissed),
            Err(_) => {
                if let Some(will) = will {
                    // "At most once", since nobody is left who could take the acknowledgement.
                    let words = Publish::new(will.topic, will.message, will.retain);
                    pass(&mut sender, Packet::Publish(words, None)).await?;
                }
                // A link ends for the router as it does for a client that says goodbye.
                let reason_code = DisconnectReasonCode::NormalDisconnection;
                pass(&mut sender, Packet::Disconnect(Disconnect { reason_code }, None)).await?;
            }
            Ok(()) => {}
        }
        ended
    }

    /// Hands a packet to the router.
    async fn pass(sender: &mut LinkTx, packet: Packet) -> Result<(), End> {
        sender.send(packet).await.map(drop).map_err(|_| End::Dismissed)
    }

    /// What is on its way from a client and to it.
    struct Line {
        input: BytesMut,
        output: BytesMut,
        keep_alive: Option<Duration>,
    }

    impl Line {
        /// Runs until the client says goodbye.
        async fn converse(
            &mut self,
            from: &mut OwnedReadHalf,
            to: &mut (impl AsyncWriteExt + Unpin),
            sender: &mut LinkTx,
            receiver: &mut LinkRx,
        ) -> Result<(), End> {
            let mut heard = clock::instant();
            loop {
                let silent = self.keep_alive.map(|time| heard + time);
                let silence = async {
                    match silent {
                        Some(silent) => sleep_until(silent.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // Cancel-safe: what has been read stays in the buffer.
                    packet = self.read(from) => {
                        let packet = packet?;
                        heard = clock::instant();
                        let last = matches!(packet, Packet::Disconnect(..));
                        pass(sender, packet).await?;
                        if last {
                            return Ok(());
                        }
                    }
                    // Cancel-safe: it takes everything in one go, once there is something.
                    notification = receiver.next() => {
                        let Some(notification) = notification.map_err(|_| End::Dismissed)? else { continue };
                        if !self.say(to, notification).await? {
                            receiver.wake().await.map_err(|_| End::Dismissed)?;
                        }
                    }
                    // Cancel-safe: a sleep holds nothing.
                    () = silence => return Err(End::Silent),
                }
            }
        }

        async fn read(&mut self, from: &mut OwnedReadHalf) -> Result<Packet, End> {
            loop {
                match V4.read_mut(&mut self.input, PACKET) {
                    Ok(packet) => return Ok(packet),
                    Err(Malformed::InsufficientBytes(_)) => {}
                    Err(malformed) => return Err(malformed.into()),
                }
                if from.read_buf(&mut self.input).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }

        /// Passes on what the router says; false if it waits for a word that more can be taken.
        async fn say(
            &mut self,
            to: &mut (impl AsyncWriteExt + Unpin),
            notification: Notification,
        ) -> Result<bool, End> {
            let Some(packet) = Option::<Packet>::from(notification) else { return Ok(false) };
            V4.write(packet, &mut self.output)?;
            timeout(PATIENCE, to.write_all_buf(&mut self.output)).await.map_err(|_| End::Silent)??;
            Ok(true)
        }
    }
}

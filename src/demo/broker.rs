//! The demo's MQTT broker: rumqttd inside the process, on loopback.
//!
//! It runs in threads of its own, which end with the process; nothing of it is used on a gateway with a real broker,
//! and the feature `broker` leaves it out altogether.

use std::io;
use std::net::SocketAddr;

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
    /// It ended, or never came up.
    #[error("the MQTT broker on {address} does not come up")]
    Silent {
        /// Where.
        address: SocketAddr,
    },
}

#[cfg(feature = "broker")]
pub use embedded::start;

/// Without the feature there is nothing to start.
#[cfg(not(feature = "broker"))]
#[expect(clippy::unused_async, reason = "the same form as the one that starts a broker")]
pub async fn start(_address: SocketAddr) -> Result<(), BrokerError> {
    Err(BrokerError::NotBuilt)
}

#[cfg(feature = "broker")]
mod embedded {
    use std::collections::HashMap;
    use std::net::{SocketAddr, TcpListener};
    use std::thread;
    use std::time::Duration;

    use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};
    use tracing::error;

    use super::BrokerError;

    /// How long it may take until it accepts connections; it takes some milliseconds.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts the broker on a loopback address and waits until it accepts connections.
    pub async fn start(address: SocketAddr) -> Result<(), BrokerError> {
        // The broker itself only logs that it cannot bind. The port is free again when this statement ends.
        drop(TcpListener::bind(address).map_err(|source| BrokerError::Listen { address, source })?);
        let (end, mut ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("mqtt-broker".to_owned());
        thread
            .spawn(move || {
                if let Err(error) = Broker::new(config(address)).start() {
                    error!(%error, "the embedded MQTT broker has ended");
                }
                drop(end);
            })
            .map_err(BrokerError::Thread)?;
        let connected = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            // Both arms end the waiting.
            connected = timeout(PATIENCE, connected) => {
                connected.map_err(|_| BrokerError::Silent { address })
            }
            _ = &mut ended => Err(BrokerError::Silent { address }),
        }
    }

    fn config(address: SocketAddr) -> Config {
        let server = ServerSettings {
            name: "mqtt".to_owned(),
            listen: address,
            tls: None,
            next_connection_delay_ms: 1,
            connections: ConnectionSettings {
                connection_timeout_ms: 5_000,
                max_payload_size: 256 << 10,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                // Any filter may be subscribed to, not only those that were used before.
                dynamic_filters: true,
            },
        };
        Config {
            id: 0,
            router: RouterConfig {
                max_connections: 64,
                max_outgoing_packet_count: 200,
                // Each filter keeps a log of its messages in memory, which these two bound.
                max_segment_size: 256 << 10,
                max_segment_count: 2,
                ..RouterConfig::default()
            },
            v4: Some(HashMap::from([("mqtt".to_owned(), server)])),
            ..Config::default()
        }
    }
}

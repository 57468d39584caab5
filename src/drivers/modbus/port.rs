//! The port of a bus: a serial line or a TCP connection, opened, read, written and drained.
//!
//! A serial port is opened exclusively. Anything that shows that it is gone (an error, end of file, a hang-up) is an
//! error here, and the owner then drops the port at once: a descriptor that is kept makes an adapter come back under
//! another name. Opening again is the owner's business.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_serial::{DataBits, SerialPortBuilderExt, SerialStream, StopBits};

use super::{Parity, SerialSettings, Target};

/// How long a TCP connect may take: several retransmissions on a bad network, and less than people wait.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sending one request may take beyond its time on the wire. Only a peer or adapter that takes no more
/// bytes needs longer.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads at most this much at once: more than the longest frame.
pub(super) const READ_SIZE: usize = 512;

/// Discards at most this many pieces before a request. Bytes that keep coming after that are noise, which is skipped
/// when the answer is looked for.
const DRAIN_PIECES: usize = 64;

/// An open port.
#[derive(Debug)]
pub(super) enum Port {
    /// A serial line, or a pseudo-terminal.
    Serial(SerialStream),
    /// A connection.
    Tcp(TcpStream),
}

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The device node is missing, in use, or not a serial port.
    #[error("cannot open serial port {path}")]
    Serial {
        /// As configured.
        path: Arc<str>,
        /// Why.
        source: tokio_serial::Error,
    },
    /// Nobody listens, or the name is unknown.
    #[error("cannot connect to {address}")]
    Connect {
        /// As configured.
        address: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// No answer to the attempt.
    #[error("connecting to {address} took more than {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout {
        /// As configured.
        address: Arc<str>,
    },
}

impl Port {
    /// Opens it. Cancel safe: dropping the future closes what was opened.
    pub(super) async fn open(target: &Target) -> Result<Self, OpenError> {
        match target {
            Target::Serial(settings) => open_serial(settings).map(Self::Serial),
            Target::Tcp { address, socket, framing: _ } => {
                let connect = async {
                    match socket {
                        Some(socket) => TcpStream::connect(socket).await,
                        None => TcpStream::connect(&**address).await,
                    }
                };
                let connected = timeout(CONNECT_TIMEOUT, connect).await;
                let stream =
                    connected.map_err(|_| OpenError::ConnectTimeout { address: Arc::clone(address) })?;
                let ready = stream.and_then(|stream| {
                    // A request is one small segment that must not wait for the next.
                    stream.set_nodelay(true)?;
                    Ok(stream)
                });
                let stream =
                    ready.map_err(|source| OpenError::Connect { address: Arc::clone(address), source })?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Sends a whole frame.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let send = async {
            match self {
                Self::Serial(stream) => stream.write_all(frame).await,
                Self::Tcp(stream) => stream.write_all(frame).await,
            }
        };
        timeout(SEND_TIMEOUT, send)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the port takes no more bytes")))
    }

    /// Waits for bytes; at least one. Cancel safe: nothing is read when the future is dropped while it waits.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self {
            Self::Serial(stream) => stream.read(buffer).await?,
            Self::Tcp(stream) => stream.read(buffer).await?,
        };
        if count == 0 { Err(closed()) } else { Ok(count) }
    }

    /// Throws away what has come in, and says how many bytes that was.
    pub(super) fn drain(&mut self) -> io::Result<usize> {
        let mut buffer = [0; READ_SIZE];
        let mut total = 0;
        for _ in 0..DRAIN_PIECES {
            let piece = match self {
                Self::Serial(stream) => stream.try_read(&mut buffer),
                Self::Tcp(stream) => stream.try_read(&mut buffer),
            };
            match piece {
                Ok(0) => return Err(closed()),
                Ok(count) => total += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side is gone")
}

fn open_serial(settings: &SerialSettings) -> Result<SerialStream, OpenError> {
    let builder = tokio_serial::new(&*settings.path, settings.baud_rate)
        .data_bits(if settings.data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
        .parity(match settings.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One });
    builder
        .open_native_async()
        .map_err(|source| OpenError::Serial { path: Arc::clone(&settings.path), source })
}

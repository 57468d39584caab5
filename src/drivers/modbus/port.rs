//! The port of a bus: a serial line or a TCP connection, opened, read, written and drained.
//!
//! A serial port is opened exclusively. Anything that shows that it is gone (an error, end of file, a hang-up) is an
//! error here, and the owner then drops the port at once: a descriptor that is kept makes an adapter come back under
//! another name. Opening again is the owner's business.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serial2::rs4xx::Rs485Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_serial::{DataBits, SerialPort, SerialPortBuilderExt, SerialStream, StopBits};

use super::pace::Pace;
use super::{Parity, Rs485, SerialSettings, Target, Turn};
use crate::clock;
use crate::proto::modbus::timing::LineTiming;

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
    Serial(Serial),
    /// A connection.
    Tcp(TcpStream),
}

/// An open serial port. Dropping it gives the port back, lock and all.
#[derive(Debug)]
pub(super) struct Serial {
    stream: SerialStream,
    timing: LineTiming,
    pace: Pace,
    /// Who turns the transceiver round, where this program does.
    rts: Option<Rs485>,
    /// The port once more, where its RS-485 mode was set: closing it might set the mode back.
    _rs485: Option<serial2::SerialPort>,
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
    /// Another program has the port, or another bus of this one.
    #[error("serial port {path} is in use by another program; find it with: fuser -v {path}")]
    InUse {
        /// As configured.
        path: Arc<str>,
    },
    /// A file, or a device of another kind.
    #[error("{path} is no serial port; ports are found by: ls -l /dev/serial/by-id /dev/ttyS* /dev/ttyAMA*")]
    NotSerial {
        /// As configured.
        path: Arc<str>,
    },
    /// The driver of the port does not know RS-485.
    #[error(
        "cannot let the kernel turn {path} round; rs485 = \"rts\" or an adapter that does it by itself may help"
    )]
    Kernel {
        /// As configured.
        path: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// The port has no RTS line.
    #[error("cannot turn {path} round by RTS; rs485 = \"kernel\" or \"off\" may fit better")]
    Rts {
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

    /// Waits until then, as exactly as the port deserves: on a line a millisecond is a part of a turn that others could
    /// use. Cancel safe: it only waits.
    pub(super) async fn wait_until(&self, then: Instant) {
        match self {
            Self::Serial(serial) => serial.pace.until(then).await,
            Self::Tcp(_) if clock::instant() < then => sleep_until(then.into()).await,
            Self::Tcp(_) => {}
        }
    }

    /// Sends a whole frame.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let longest = match self {
            Self::Serial(serial) => longest_send(serial.timing, serial.rts, frame),
            Self::Tcp(_) => SEND_TIMEOUT,
        };
        let send = async {
            match self {
                Self::Serial(serial) => serial.send(frame).await,
                Self::Tcp(stream) => stream.write_all(frame).await,
            }
        };
        timeout(longest, send)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the port takes no more bytes")))
    }

    /// Waits for bytes; at least one. Cancel safe: nothing is read when the future is dropped while it waits.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self {
            Self::Serial(serial) => serial.stream.read(buffer).await?,
            Self::Tcp(stream) => stream.read(buffer).await?,
        };
        if count == 0 { Err(closed()) } else { Ok(count) }
    }

    /// Takes out what has come in.
    pub(super) fn drain(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; READ_SIZE];
        let mut drained = Vec::new();
        for _ in 0..DRAIN_PIECES {
            let piece = match self {
                Self::Serial(serial) => serial.stream.try_read(&mut buffer),
                Self::Tcp(stream) => stream.try_read(&mut buffer),
            };
            match piece {
                Ok(0) => return Err(closed()),
                Ok(count) => drained.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(drained)
    }
}

/// How long sending a frame on a line may take: a long one at 300 baud is under way for nine seconds.
fn longest_send(timing: LineTiming, rts: Option<Rs485>, frame: &[u8]) -> Duration {
    let characters = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let turns = rts.map(|rts| rts.before + rts.after).unwrap_or_default();
    SEND_TIMEOUT + timing.characters(characters) + turns
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side is gone")
}

impl Serial {
    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let Some(rts) = self.rts else { return self.stream.write_all(frame).await };
        self.stream.write_request_to_send(rts.high)?;
        self.pace.until(clock::instant() + rts.before).await;
        let begun = clock::instant();
        self.stream.write_all(frame).await?;
        // The queue is empty some characters before the line is; the line's pace tells when the last one has gone.
        let characters = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.pace.until(begun + self.timing.characters(characters)).await;
        while self.stream.bytes_to_write()? > 0 {
            self.pace.until(clock::instant() + self.timing.characters(1)).await;
        }
        self.pace.until(clock::instant() + rts.after).await;
        Ok(self.stream.write_request_to_send(!rts.high)?)
    }
}

fn open_serial(settings: &SerialSettings) -> Result<Serial, OpenError> {
    let path = || Arc::clone(&settings.path);
    let kernel = settings.rs485.filter(|rs485| rs485.by == Turn::Kernel);
    let rs485 = kernel
        .map(|kernel| {
            let port = open_plainly(&settings.path)
                .map_err(|source| OpenError::Serial { path: path(), source: source.into() })?;
            let port = serial2::SerialPort::from(OwnedFd::from(port));
            port.set_rs4xx_mode(kernel_mode(&kernel))
                .map_err(|source| OpenError::Kernel { path: path(), source })?;
            Ok(port)
        })
        .transpose()?;
    let builder = tokio_serial::new(&*settings.path, settings.baud_rate)
        .data_bits(if settings.data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
        .parity(match settings.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One });
    let mut stream = builder.open_native_async().map_err(|source| {
        if is_in_use(&source) {
            OpenError::InUse { path: path() }
        } else if is_something_else(&settings.path) {
            OpenError::NotSerial { path: path() }
        } else {
            OpenError::Serial { path: path(), source }
        }
    })?;
    let rts = settings.rs485.filter(|rs485| rs485.by == Turn::Rts);
    if let Some(rts) = rts {
        stream.write_request_to_send(!rts.high).map_err(|source| OpenError::Rts { path: path(), source })?;
    }
    Ok(Serial { stream, timing: settings.timing(), pace: Pace::new(), rts, _rs485: rs485 })
}

fn kernel_mode(rs485: &Rs485) -> Rs485Config {
    let mut mode = Rs485Config::new();
    mode.set_invert_rts(!rs485.high);
    mode.set_delay_before_send(rs485.before);
    mode.set_delay_after_send(rs485.after);
    mode
}

/// Opens a device node without waiting for a carrier, and without becoming its program.
fn open_plainly(path: &str) -> io::Result<fs::File> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits() | nix::fcntl::OFlag::O_NOCTTY.bits();
    fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Whether a path that could not be opened as a port is there, but no port.
fn is_something_else(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_dir())
        || open_plainly(path).is_ok_and(|found| !found.is_terminal())
}

/// A port that another program holds is refused by the kernel (TIOCEXCL), or, to a program that may do anything, by
/// the lock on it, which the library reports without a number.
fn is_in_use(error: &tokio_serial::Error) -> bool {
    let words = error.to_string();
    error.kind() == tokio_serial::ErrorKind::NoDevice
        && (words.contains("exclusive lock") || words.contains("busy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_frame_on_a_slow_line_has_its_time_on_the_wire_to_be_sent() {
        let rts = Rs485 {
            by: Turn::Rts,
            high: true,
            before: Duration::from_millis(5),
            after: Duration::from_millis(7),
        };
        for (baud, rts, millis) in
            [(300, None, 2000 + 9350), (1200, Some(rts), 2000 + 2337 + 12), (115_200, None, 2000 + 24)]
        {
            let longest = longest_send(LineTiming::serial(baud, 11), rts, &[0; 255]);
            assert_eq!(longest.as_millis(), millis, "{baud} baud");
        }
    }
}

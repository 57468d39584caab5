//! The signals that the process answers: TERM and INT stop it, HUP makes it read its configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The process's signal handlers; from its making on, no signal below kills the process by default.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Stop; by this signal.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
}

impl Signals {
    /// Installs the handlers. Must be called inside the runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel-safe: a signal that has not been returned yet is kept; several of one kind
    /// count as one.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            // All three are cancel-safe: `recv` loses no signal when dropped.
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits for the next signal that asks for a stop, and names it; others change nothing any more. Cancel-safe like
    /// `next`.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Told::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }
}

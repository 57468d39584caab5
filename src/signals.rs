//! The signals that the process answers: TERM and INT stop it, HUP is answered in the log.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The process's signal handlers; from its making on, no signal below kills the process by default.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
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

    /// Waits for the next signal that asks for a stop, and names it. Cancel-safe: a signal that has not been
    /// returned yet is kept.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                // All three are cancel-safe: `recv` loses no signal when dropped.
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP changes nothing: restart the service to apply a changed configuration");
                }
            }
        }
    }
}

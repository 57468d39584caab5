//! What systemd is told: ready, reloading, status, stopping, and that the hub is alive.
//!
//! Outside of systemd all of it does nothing.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use prometheus_client::metrics::counter::Counter;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// The listeners are bound and clients may come, or a reload is over.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A changed configuration is about to be taken over, or refused; [`ready`] says when that is done.
pub fn reloading() {
    // Type=notify-reload wants both in one message, the time on the clock that systemd itself looks at.
    // The library reads that clock too, but its microseconds run over after half an hour where `time_t` has 32 bits.
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(now) => {
            let micros = i128::try_from(Duration::from(now).as_micros()).unwrap_or(i128::MAX);
            tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(micros)]);
        }
        Err(error) => debug!(%error, "cannot read the monotonic clock"),
    }
}

/// The process drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How often systemd wants to hear that we are alive, if it does.
pub fn watchdog() -> Option<Duration> {
    let mut micros = 0;
    let wanted = sd_notify::watchdog_enabled(false, &mut micros);
    (wanted && micros > 0).then(|| Duration::from_micros(micros))
}

/// Tells systemd that we are alive for as long as the hub's counter moves: a stuck hub is a stuck gateway, whatever
/// else still runs. Looks three times in each interval.
pub async fn feed_watchdog(interval: Duration, turns: Counter, stop: CancellationToken) {
    let mut last = None;
    let mut stuck = false;
    loop {
        tokio::select! {
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled() => return,
            // Cancel-safe: a sleep holds nothing.
            () = tokio::time::sleep(interval / 3) => {}
        }
        let now = Some(turns.get());
        if now == last {
            if !stuck {
                error!("the hub makes no progress; the watchdog is no longer fed");
            }
            stuck = true;
        } else {
            stuck = false;
            tell(&[NotifyState::Watchdog]);
        }
        last = now;
    }
}

/// Whether there is a service manager that listens.
pub fn wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How the gateway is, in words.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Kept in the environment: removing it would race with other threads that read theirs.
    if let Err(error) = sd_notify::notify(false, states) {
        debug!(%error, "cannot reach the service manager");
    }
}

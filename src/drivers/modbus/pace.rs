//! Waiting to a fraction of a millisecond, which the runtime's timer does not.
//!
//! The runtime counts whole milliseconds and may fire nearly two late, which is a third of a turn at 115200 bits/s. The
//! kernel's own timers are exact to some microseconds and cost nothing while they run; one of them, as a descriptor that
//! becomes readable, serves one serial port. See docs/decisions/0023.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;
use tracing::debug;

use crate::clock;

/// A timer of the kernel; without one, which only happens where descriptors have run out, the runtime's.
#[derive(Debug)]
pub(super) struct Pace {
    timer: Option<AsyncFd<Timer>>,
}

/// The library's timer with its descriptor's number.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pace {
    /// To be called within the runtime.
    pub(super) fn new() -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(io::Error::from);
        match timer.and_then(watched) {
            Ok(timer) => Self { timer: Some(timer) },
            Err(error) => {
                debug!(%error, "no timer of the kernel; the line is paced by whole milliseconds");
                Self { timer: None }
            }
        }
    }

    /// Waits until then. Cancel safe: it only waits.
    pub(super) async fn until(&self, then: Instant) {
        // Another round only after a timer that was set for an earlier wait.
        while clock::instant() < then {
            let Some(timer) = &self.timer else { return sleep_until(then.into()).await };
            if rings(timer, then).await.is_err() {
                return sleep_until(then.into()).await;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "the other way is unsafe code; the library's timer owns its descriptor and keeps it while it lives"
)]
fn watched(timer: TimerFd) -> io::Result<AsyncFd<Timer>> {
    AsyncFd::with_interest(Timer(timer), Interest::READABLE)
}

async fn rings(timer: &AsyncFd<Timer>, then: Instant) -> io::Result<()> {
    let left = then.saturating_duration_since(clock::instant());
    // Zero would stop the timer.
    let left = TimeSpec::from_duration(left.max(Duration::from_nanos(1)));
    timer.get_ref().0.set(Expiration::OneShot(left), TimerSetTimeFlags::empty())?;
    loop {
        let mut ready = timer.readable().await?;
        if let Ok(rung) = ready.try_io(|timer| timer.get_ref().0.wait().map_err(io::Error::from)) {
            return rung;
        }
    }
}

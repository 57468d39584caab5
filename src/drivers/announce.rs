//! How a driver makes devices known that it has found by itself.
//!
//! It goes the way of a reload: the owner of all parts gives the hub, and through it every session, a directory with
//! these devices in it. A device that was found lives as long as the driver that found it, and gives way to one of the
//! same name that is configured.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::model::device::Device;

/// Announcements that wait for the owner of all parts. When full the driver awaits; nothing is lost.
pub const ANNOUNCEMENT_QUEUE: usize = 16;

/// Devices that drivers may have found, of all links together. A further one is refused as [`Unwelcome::Full`]: a broker
/// with a client that makes topics up must not fill the memory.
pub const FOUND_DEVICES: usize = 1024;

/// What a driver says.
#[derive(Debug)]
pub struct Announcement {
    /// Whose driver.
    pub link: Arc<str>,
    /// Devices that were found, or found to be different. Each must name this link.
    pub come: Vec<Arc<Device>>,
    /// Ids of devices that were found before and are no more.
    pub gone: Vec<Arc<str>>,
    /// Cancelled when the driver is to end. What it still says then is passed over: nobody would ever take it back.
    pub over: CancellationToken,
    /// Told what became of each that came, in their order, when the hub knows them.
    pub reply: oneshot::Sender<Vec<Result<(), Unwelcome>>>,
}

/// Why a device is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// Another device has the id, the uuid or the mac.
    #[error("its {what} is that of device {of}")]
    Taken {
        /// Which of them.
        what: &'static str,
        /// Who has it.
        of: Arc<str>,
    },
    /// See [`FOUND_DEVICES`].
    #[error("there are {FOUND_DEVICES} devices already that were found")]
    Full,
    /// It names another link than the one whose driver found it, or that driver or the gateway is about to stop.
    #[error("it cannot be taken in now")]
    NotNow,
}

/// A driver's way to announce; cheap to clone.
#[derive(Clone, Debug)]
pub struct Announcer {
    link: Arc<str>,
    queue: mpsc::Sender<Announcement>,
    over: CancellationToken,
}

impl Announcer {
    /// For the driver of this link.
    pub fn new(link: Arc<str>, queue: mpsc::Sender<Announcement>) -> Self {
        Self { link, queue, over: CancellationToken::new() }
    }

    /// Its driver is to end: nothing that it says from now on, or has said and was not heard yet, counts.
    pub fn silence(&self) {
        self.over.cancel();
    }

    /// Makes devices known, and others forgotten, and waits until the hub has taken that over: what is observed of the
    /// accepted ones from then on reaches everybody. Many in one call cost hardly more than one.
    ///
    /// Answers for each that came, in their order. One of an id that this link has announced before takes its place.
    pub async fn announce(&self, come: Vec<Arc<Device>>, gone: Vec<Arc<str>>) -> Vec<Result<(), Unwelcome>> {
        let refused = vec![Err(Unwelcome::NotNow); come.len()];
        let (reply, answer) = oneshot::channel();
        let (link, over) = (Arc::clone(&self.link), self.over.clone());
        let announcement = Announcement { link, come, gone, over, reply };
        if self.queue.send(announcement).await.is_err() {
            return refused;
        }
        answer.await.unwrap_or(refused)
    }
}

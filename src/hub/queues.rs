//! What leads from the hub to one session: its two queues, and the account of what it was given and has written.
//!
//! Nothing here waits: what finds no room is the hub's to drop, repair or refuse.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::{self, error::TrySendError};

use super::handle::{Account, SessionReply, Told};
use super::slow::Lag;
use crate::model::message::DeviceMessage;

/// What leads to one session.
pub(super) struct Queues {
    pub(super) messages: mpsc::Sender<Arc<DeviceMessage>>,
    pub(super) replies: mpsc::Sender<Box<Told>>,
    /// Room for the reply that ends the session, kept from its beginning.
    pub(super) farewell: Option<mpsc::OwnedPermit<Box<Told>>>,
    pub(super) lag: Option<Lag>,
    pub(super) ledger: Ledger,
}

impl Queues {
    /// Puts a message into the queue, if there is room.
    pub(super) fn give(
        &mut self,
        message: &Arc<DeviceMessage>,
    ) -> Result<(), TrySendError<Arc<DeviceMessage>>> {
        self.messages.try_send(Arc::clone(message))?;
        self.ledger.given += 1;
        if self.messages.capacity() <= self.messages.max_capacity() / 2 {
            self.ledger.account.pressed.notify_one();
        }
        Ok(())
    }

    /// Tells something, if there is room.
    pub(super) fn tell(&self, reply: SessionReply) -> Result<(), TrySendError<Box<Told>>> {
        self.replies.try_send(Box::new(Told { after: self.ledger.given, reply }))
    }
}

/// Which balanced messages a session was given and has not written.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Messages given in all, balanced or not.
    pub(super) given: u64,
    /// Of the balanced ones: which one it was, and its number.
    pub(super) open: VecDeque<(u64, u64)>,
    pub(super) account: Arc<Account>,
}

impl Ledger {
    /// Takes out the numbers of those that are written.
    pub(super) fn settle(&mut self) -> Vec<u64> {
        let written = self.account.written.load(Ordering::Acquire);
        let settled = self.open.partition_point(|(place, _)| *place <= written);
        self.open.drain(..settled).map(|(_, seq)| seq).collect()
    }

    /// Whether nobody is left who could write anything.
    pub(super) fn is_final(&self) -> bool {
        Arc::strong_count(&self.account) == 1
    }
}

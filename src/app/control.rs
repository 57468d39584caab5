//! Orders to a running gateway, and what becomes of them.

use tokio::sync::{mpsc, oneshot, watch};

use super::BuildError;
use crate::config::Config;

/// Orders that wait. Whoever gives one waits for its end, so there are hardly ever two; when full the next awaits.
pub(super) const ORDER_QUEUE: usize = 4;

/// What the gateway is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Run with this configuration from now on.
    Reload { config: Box<Config>, reply: oneshot::Sender<Result<Applied, Refusal>> },
}

/// The way to a running gateway; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    notices: watch::Sender<Option<String>>,
}

/// A configuration that runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What has changed, in words, one thing a line. Empty where nothing has.
    pub changes: Vec<String>,
    /// The gateway in one line.
    pub status: String,
}

/// Why a configuration does not run; the one before runs on, untouched.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It changes what cannot change under a running gateway.
    #[error("this takes a restart (systemctl restart pentad): {}", .0.join("; "))]
    Restart(Vec<String>),
    /// A listener or its certificate.
    #[error(transparent)]
    Doors(#[from] BuildError),
    /// The gateway is about to end.
    #[error("the gateway stops")]
    Stopping,
}

impl Control {
    pub(super) fn new(queue: usize) -> (Self, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(queue);
        (Self { orders, notices: watch::Sender::new(None) }, queue)
    }

    /// What stands in the service manager's line beside the state of the plant.
    pub(super) fn notices(&self) -> watch::Receiver<Option<String>> {
        self.notices.subscribe()
    }

    /// A reload has ended: refused with these words, which stand in the service manager's line until another ends, or
    /// `None`.
    pub fn reloaded(&self, refused: Option<String>) {
        self.notices.send_replace(refused);
    }

    /// Runs with this configuration from now on, and touches only what it changes. Everything that can fail is tried
    /// before anything is changed.
    pub async fn reload(&self, config: Config) -> Result<Applied, Refusal> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Reload { config: Box::new(config), reply };
        self.orders.send(order).await.map_err(|_| Refusal::Stopping)?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }
}

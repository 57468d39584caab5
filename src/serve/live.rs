//! What every connection needs, as it is at the moment: a reload puts another [`Shared`] in the place of the one before.
//!
//! Whoever serves for long holds a [`Live`]; whoever answers one request takes what there is and keeps it to its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

use super::Shared;

/// A view of what is shared. It remembers what it has given, so that nothing that came after it is missed.
#[derive(Clone, Debug)]
pub struct Live(watch::Receiver<Arc<Shared>>);

/// The other end.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Arc<Shared>>);

/// The first of all, and the way to replace it.
pub fn live(shared: Shared) -> (Publisher, Live) {
    let (sender, receiver) = watch::channel(Arc::new(shared));
    (Publisher(sender), Live(receiver))
}

impl Publisher {
    /// From now on everybody works with this.
    pub fn publish(&self, shared: Shared) {
        self.0.send_replace(Arc::new(shared));
    }
}

impl Live {
    /// What there is now.
    pub fn now(&mut self) -> Arc<Shared> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// Waits for something newer than what was given last; for ever where nothing can come any more. Cancel-safe: what
    /// has not been given is still newer.
    pub async fn changed(&mut self) -> Arc<Shared> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.now()
    }

    /// The same, again and again.
    pub fn coming(mut self) -> Coming {
        Coming(Box::pin(async move { (self.changed().await, self) }))
    }
}

/// A wait that is begun once and kept: to begin and give up one takes a lock that all connections share.
pub struct Coming(Pin<Box<dyn Future<Output = (Arc<Shared>, Live)> + Send>>);

impl Coming {
    /// What has come, each once.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Arc<Shared>> {
        let (shared, live) = ready!(self.0.as_mut().poll(context));
        *self = live.coming();
        Poll::Ready(shared)
    }
}

impl fmt::Debug for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coming")
    }
}

/// What never changes.
impl From<Arc<Shared>> for Live {
    fn from(shared: Arc<Shared>) -> Self {
        Self(watch::channel(shared).1)
    }
}

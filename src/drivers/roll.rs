//! Who is on a link: handed to its driver at the start, and again whenever a reload changes it.

use std::sync::Arc;

use tokio::sync::watch;

/// A driver's view of the devices of its link: a list of them, or a list with more beside it. Only the last one counts: a
/// driver that is busy for a while finds the one that holds then.
#[derive(Debug)]
pub struct Roll<T: ?Sized>(watch::Receiver<Arc<T>>);

/// The other end: puts another list in the place of the one before.
#[derive(Debug)]
pub struct RollKeeper<T: ?Sized>(watch::Sender<Arc<T>>);

/// A roll with its first list.
pub fn roll<T: ?Sized>(devices: impl Into<Arc<T>>) -> (RollKeeper<T>, Roll<T>) {
    let (sender, receiver) = watch::channel(devices.into());
    (RollKeeper(sender), Roll(receiver))
}

impl<T: ?Sized> RollKeeper<T> {
    /// From now on these are the devices of the link.
    pub fn replace(&self, devices: impl Into<Arc<T>>) {
        self.0.send_replace(devices.into());
    }
}

impl<T: ?Sized> Roll<T> {
    /// The devices as they are now.
    pub fn now(&mut self) -> Arc<T> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// The devices, if they are not those that were given last.
    pub fn news(&mut self) -> Option<Arc<T>> {
        // Nobody who could change anything is left where it fails.
        self.0.has_changed().unwrap_or(false).then(|| self.now())
    }

    /// Waits until they change; for ever where nobody is left who could change them. Cancel-safe: a change that has
    /// not been taken stays one.
    pub async fn changed(&mut self) -> Arc<T> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.now()
    }
}

/// A link whose devices never change.
impl<T> From<Vec<T>> for Roll<[T]> {
    fn from(devices: Vec<T>) -> Self {
        roll(devices).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_driver_that_was_busy_finds_the_last_list_only() {
        let (keeper, mut roll) = roll::<[i32]>(vec![1]);
        assert_eq!((&*roll.now(), roll.news()), (&[1][..], None));
        keeper.replace(vec![2]);
        keeper.replace(vec![2, 3]);
        assert_eq!(&*roll.changed().await, [2, 3]);
        assert_eq!(roll.news(), None);
        drop(keeper);
        assert_eq!(roll.news(), None);
    }
}

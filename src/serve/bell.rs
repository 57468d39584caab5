//! Tells a task that was woken by a device message from one that was woken by anything else.
//!
//! A connection waits for its client, for timers, for a reload and for the end, and for messages, of which there are
//! thousands for each of the others. What is rare is given the bell's waker and looked at only after the bell has rung;
//! messages wake the task itself. It knows nothing of what it is rung for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// The task's side.
#[derive(Debug)]
pub(super) struct Bell {
    clapper: Arc<Clapper>,
    waker: Waker,
}

#[derive(Debug)]
struct Clapper {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Bell {
    /// A bell that has rung: whoever is to ring it must be told of it first.
    pub(super) fn new() -> Self {
        let clapper = Arc::new(Clapper { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&clapper)), clapper }
    }

    /// What rings it.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Lets everything be looked at once more.
    pub(super) fn ring(&self) {
        self.clapper.rung.store(true, Ordering::Release);
    }

    /// Whether it rings.
    pub(super) fn rings(&self) -> bool {
        self.clapper.rung.load(Ordering::Acquire)
    }

    /// Whether it has rung since the last time. When it next does, this task is woken.
    pub(super) fn take(&self, task: &Waker) -> bool {
        // In this order, so that nothing rings unheard in between.
        self.clapper.task.register(task);
        self.rings() && self.clapper.rung.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often a task is woken.
    #[derive(Debug, Default)]
    struct Task(std::sync::atomic::AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_ring_wakes_the_task_and_is_heard_once() {
        let (bell, task) = (Bell::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        assert!(bell.take(&waker), "everything is looked at first");
        assert!(!bell.take(&waker));
        bell.waker().wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert!(bell.rings());
        assert!(bell.take(&waker));
        assert!(!bell.rings());
    }

    #[test]
    fn whoever_rings_it_for_itself_wakes_nobody() {
        let (bell, task) = (Bell::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        bell.take(&waker);
        bell.ring();
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
        assert!(bell.take(&waker));
    }
}

//! Whether each bus and broker link is up, since when, and how often it came up.

use std::sync::Arc;

use super::state::dating;
use crate::model::directory::Directory;
use crate::model::snapshot::LinkSnapshot;
use crate::model::time::UnixMillis;

/// Every configured link.
#[derive(Debug)]
pub(super) struct Links {
    /// In configuration order.
    links: Vec<LinkSnapshot>,
}

impl Links {
    /// All down, as they are before their drivers start.
    pub(super) fn new(directory: &Directory) -> Self {
        let down = |link| LinkSnapshot { link: Arc::clone(link), up: false, since: None, connects: 0 };
        Self { links: directory.links().iter().map(down).collect() }
    }

    /// Takes over another directory: what is known of a link stays, a new one is down.
    pub(super) fn adopt(&mut self, directory: &Directory) {
        let mut known = std::mem::replace(self, Self::new(directory)).links;
        for link in &mut self.links {
            if let Some(at) = known.iter().position(|known| known.link.id == link.link.id) {
                *link = LinkSnapshot { link: Arc::clone(&link.link), ..known.swap_remove(at) };
            }
        }
    }

    /// Takes a change over; saying the same again changes nothing.
    pub(super) fn observe(&mut self, id: &str, at: UnixMillis, up: bool) {
        let Some(link) = self.links.iter_mut().find(|link| &*link.link.id == id) else { return };
        if link.up == up && link.since.is_some() {
            return;
        }
        link.up = up;
        link.since = Some(at);
        if up {
            link.connects += 1;
        }
    }

    /// The clock was wrong by this since then.
    pub(super) fn set_clock(&mut self, since: UnixMillis, step: i64) {
        let times = self.links.iter_mut().filter_map(|link| link.since.as_mut());
        times.for_each(|at| dating::move_along(at, since, step));
    }

    pub(super) fn snapshot(&self) -> Vec<LinkSnapshot> {
        self.links.clone()
    }
}

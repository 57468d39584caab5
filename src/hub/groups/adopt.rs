//! A group whose devices change.

use std::collections::BTreeSet;

use super::group::Group;
use crate::hub::roster::Roster;

impl Group {
    /// See [`super::Groups::adopt`].
    pub(super) fn adopt(&mut self, roster: &Roster, gone: &BTreeSet<usize>) {
        for (number, line) in &self.relations {
            self.index.set(*number, roster.covered(&line.interest));
        }
        for member in self.members.values_mut() {
            member.sees = roster.seen_by(&member.client);
        }
        self.in_flight.retain(|_, (_, device, _)| !gone.contains(device));
        self.waiting.forget(gone);
        if let Some((_, messages)) = self.round.as_mut().and_then(|round| round.chunk.as_mut()) {
            messages.retain(|(device, _)| !gone.contains(device));
        }
    }
}

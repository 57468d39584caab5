//! What the store has of groups, taken over: by a hub that begins, or later by one whose store was opened late.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::group::{Ghost, Group, Line};
use super::{Groups, after};
use crate::hub::roster::Roster;
use crate::model::time::Now;
use crate::store::Recovered;

impl Groups {
    /// From now on relations can outlive their holders; these are from before. Each of them looks for what it has
    /// missed. Where the store was opened late there are others already; `head` is the last number that was given.
    pub(in crate::hub) fn restore(&mut self, recovered: &Recovered, roster: &Roster, head: u64, now: Now) {
        self.keeping = true;
        for group in self.by_name.values_mut() {
            group.kept = !group.retain.is_zero();
        }
        for (name, floor, retain) in &recovered.groups {
            let group = self.by_name.entry(Arc::clone(name)).or_insert_with(|| Group::new(*retain, false));
            group.retain = group.retain.max(*retain);
            group.kept = !group.retain.is_zero();
            group.written_floor = *floor;
        }
        let mut known = Vec::new();
        for stored in &recovered.relations {
            let Some(group) = self.by_name.get_mut(&stored.group) else { continue };
            // What is certain may be in the past, so that no relation ends because a clock is wrong; and none outlives its
            // time because that clock was wrong when its end was written down.
            let expires = stored.expires.unwrap_or_else(|| after(now.certain, group.retain));
            let left = u64::try_from(expires.0.saturating_sub(now.certain.0)).unwrap_or(0);
            let left = Duration::from_millis(left).min(group.retain);
            let cursor = stored.cursor.unwrap_or(group.written_floor);
            if group.by_label.contains_key(&stored.label) {
                known.push((stored, cursor));
                continue;
            }
            let number = group.number_of_next;
            group.number_of_next += 1;
            let relation = Line {
                label: Arc::clone(&stored.label),
                interest: stored.interest.clone(),
                holders: BTreeSet::new(),
                from: stored.from,
                cursor: Some(cursor),
                stuck: false,
                expires: Some((now.instant + left, expires)),
                changed: true,
            };
            group.index.set(number, roster.covered(&relation.interest));
            group.by_label.insert(Arc::clone(&relation.label), number);
            group.relations.insert(number, relation);
        }
        // When all others are there, which are not to get again what these have had either.
        for (stored, cursor) in known {
            if let Some(group) = self.by_name.get_mut(&stored.group) {
                group.go_back(&stored.label, stored.from, cursor, head);
            }
        }
        self.find_soonest();
    }
}

impl Group {
    /// A relation goes back to where one of its label was in an earlier run, without getting again what it has dealt with
    /// in this one.
    fn go_back(&mut self, label: &str, from: u64, cursor: u64, head: u64) {
        let line = self.by_label.get(label).and_then(|number| self.relations.get_mut(number));
        let Some(line) = line else { return };
        if line.from < head {
            let (interest, before) = (line.interest.clone(), self.number_of_next);
            self.ghosts.push_back(Ghost { interest, from: line.from, to: head, before });
        }
        (line.from, line.cursor, line.changed) = (from, Some(cursor), true);
    }
}

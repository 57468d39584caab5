//! When messages happened, whatever becomes of the wall clock meanwhile.
//!
//! Numbers order messages, and nothing else does. What is promised of their times:
//!
//! - they do not decrease as numbers rise, but where a clock that is believed was set back;
//! - no message is dated after the moment in which it was made;
//! - messages of a clock that is not known to be right are marked, and when it becomes right their times are corrected in
//!   memory and in the store, by as much as the clock was wrong. What sessions were told stays told.
//!
//! An observation that was dated before a change of the clock and arrives after it is moved along.

use std::time::Duration;

use super::HubState;
use crate::model::time::{Change, Clock, Now, UnixMillis};
use crate::store::Write;

/// How long after a change of the clock something may arrive that was dated before it. Drivers date what they give, and
/// wait for room in the hub's queue.
const LATE: Duration = Duration::from_secs(60);

/// Steps of a clock that is not known to be right that are told apart. When there are more, the messages before the
/// last ones are corrected as one.
const STRETCHES: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dating {
    /// Whether the clock is known to be right.
    pub(super) clock: Clock,
    change: Option<Change>,
    /// The time of the last message.
    last: Option<UnixMillis>,
    unsure: Option<Unsure>,
}

/// What was dated by a clock that is not known to be right.
#[derive(Debug)]
struct Unsure {
    since: UnixMillis,
    /// By number, each up to the next.
    stretches: Vec<Stretch>,
}

/// Messages from this number on are dated too early by so many milliseconds, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: u64,
    step: i64,
}

impl Dating {
    /// When something happened that was dated so.
    pub(super) fn date(&self, at: UnixMillis, now: Now) -> UnixMillis {
        let moved = self.change.filter(|change| {
            let late = now.instant.saturating_duration_since(change.instant) < LATE;
            late && !(change.wall..=now.wall).contains(&at)
        });
        let at = moved.map_or(at, |change| shifted(at, change.step));
        at.min(now.wall)
    }

    /// The time of the next message.
    pub(super) fn number(&mut self, at: UnixMillis) -> UnixMillis {
        *self.last.insert(self.last.map_or(at, |last| last.max(at)))
    }

    fn begin(&mut self, since: UnixMillis, from: u64) {
        self.unsure = Some(Unsure { since, stretches: vec![Stretch { from, step: 0 }] });
    }
}

impl HubState {
    /// What time it is, and what has become of the clock since the last time. To be called before anything else is
    /// taken in at that time.
    pub fn tell_time(&mut self, now: Now, changes: &[Change]) {
        self.announce();
        for change in changes {
            self.change_clock(change);
        }
        self.dating.clock = now.clock;
        if now.clock == Clock::Unsynchronised && self.dating.unsure.is_none() {
            self.dating.begin(now.wall, self.seq + 1);
        }
    }

    fn change_clock(&mut self, change: &Change) {
        let Change { wall, step, from, to, .. } = *change;
        let next = self.seq + 1;
        self.dating.change = Some(*change);
        self.dating.last = self.dating.last.map(|last| last.min(wall));
        self.groups.set_clock(change);
        if from == Clock::Synchronised {
            if to == Clock::Unsynchronised {
                self.dating.begin(wall, next);
            }
            return;
        }
        let Some(mut unsure) = self.dating.unsure.take() else { return };
        for state in self.devices.iter_mut() {
            state.set_clock(unsure.since, step);
        }
        self.links.set_clock(unsure.since, step);
        for stretch in &mut unsure.stretches {
            stretch.step = stretch.step.saturating_add(step);
        }
        if to == Clock::Unsynchronised {
            if unsure.stretches.len() >= STRETCHES {
                unsure.stretches.remove(1);
            }
            unsure.stretches.push(Stretch { from: next, step: 0 });
            self.dating.unsure = Some(unsure);
            return;
        }
        let ends = unsure.stretches.iter().skip(1).map(|next| next.from).chain([next]);
        let corrections: Vec<Write> = unsure
            .stretches
            .iter()
            .zip(ends)
            .filter(|(stretch, end)| stretch.from < *end)
            .map(|(stretch, end)| Write::Redate { from: stretch.from, upto: end - 1, step: stretch.step })
            .collect();
        for correction in corrections {
            self.keep(Some(correction));
        }
    }
}

/// A time that was dated by another clock.
pub(in crate::hub) fn shifted(at: UnixMillis, step: i64) -> UnixMillis {
    UnixMillis(at.0.saturating_add(step))
}

/// Moves a time along that was dated since then by a clock that was wrong.
pub(in crate::hub) fn move_along(at: &mut UnixMillis, since: UnixMillis, step: i64) {
    if *at >= since {
        *at = shifted(*at, step);
    }
}

//! What time it is, on a machine whose clock may be wrong: pure, and told by looks at the world.
//!
//! Between two looks time runs with the monotonic clock. What it promises, whatever the system's clock does:
//!
//! 1. No time is told that is before this program was built.
//! 2. Told times do not decrease, with one exception: a clock that is believed and stands more than [`HOLD`] behind is
//!    followed, and that is a [`Change`] with a negative step.
//! 3. A clock that is not believed is followed forwards only.
//! 4. Every change of whether the clock is believed, and every step of more than [`NOTABLE`], is told as a [`Change`], once.
//!
//! A clock is believed from the moment on when the system says that it was set, or when the configuration says so. That
//! a source of time is lost later does not matter: a clock drifts by seconds a day.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::time::{Change, Clock, Now, Trust, UnixMillis};

/// A believed clock that is set back by less is waited for: the same time is told until it has caught up.
const HOLD: Duration = Duration::from_secs(60);

/// A step that is told. Smaller ones are how a clock is kept right.
const NOTABLE: Duration = Duration::from_secs(2);

/// Changes that are remembered for whoever asks. The hub does so at least every two seconds; when full the oldest is
/// forgotten.
const CHANGES: usize = 64;

/// One look at the system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When.
    pub instant: Instant,
    /// What the system says that the time is.
    pub system: UnixMillis,
    /// Whether the system says that its clock was set from a source of time.
    pub is_set: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Timekeeper {
    trust: Trust,
    built: UnixMillis,
    /// What time it was at an instant; it goes on from there.
    base: (Instant, UnixMillis),
    /// What was told already, while time stands still.
    least: UnixMillis,
    /// What time it certainly was at an instant.
    certain: (Instant, UnixMillis),
    clock: Clock,
    /// Whether the system has said that its clock was set.
    is_set: bool,
    changes: VecDeque<Change>,
    /// Changes in all.
    count: u64,
}

impl Timekeeper {
    /// The first look.
    pub fn new(trust: Trust, built: UnixMillis, look: Look) -> Self {
        let mut keeper = Self {
            trust,
            built,
            base: (look.instant, look.system.max(built)),
            least: built,
            certain: (look.instant, built),
            clock: Clock::Unsynchronised,
            is_set: false,
            changes: VecDeque::new(),
            count: 0,
        };
        keeper.look(look);
        // Nobody was told anything before.
        (keeper.count, keeper.changes) = (0, VecDeque::new());
        keeper
    }

    /// What makes the clock a right one from the next look on.
    pub fn trust(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// It is later than these, as something from an earlier run says: what it told, which its own clock may have got wrong,
    /// and what it knew to be right. No change: it is to be said before anybody is told a time.
    pub fn passed(&mut self, told: Option<UnixMillis>, right: Option<UnixMillis>, instant: Instant) {
        let certain = self.certain(instant);
        self.certain = (instant, right.map_or(certain, |right| right.max(certain)));
        let told = told.max(right).filter(|told| self.wall(instant) < *told);
        if let (Clock::Unsynchronised, Some(told)) = (self.clock, told) {
            self.base = (instant, told);
        }
    }

    /// Whether what the system says of its clock still matters.
    pub fn doubts(&self) -> bool {
        !self.is_set && self.trust == Trust::Auto
    }

    /// What time it is.
    pub fn now(&self, instant: Instant) -> Now {
        Now { instant, wall: self.wall(instant), certain: self.certain(instant), clock: self.clock }
    }

    /// Every change since the one with this number, which is moved on.
    pub fn changes(&self, since: &mut u64) -> Vec<Change> {
        let new = usize::try_from(self.count.saturating_sub(*since)).unwrap_or(usize::MAX);
        *since = self.count;
        self.changes.iter().skip(self.changes.len().saturating_sub(new)).copied().collect()
    }

    /// Takes a look into account.
    pub fn look(&mut self, look: Look) -> Option<Change> {
        let Look { instant, system, is_set } = look;
        let (here, certain) = (self.wall(instant), self.certain(instant));
        let plausible = system >= self.built;
        self.is_set |= is_set && plausible;
        let believed = plausible && (self.is_set || self.trust == Trust::Always);
        let to = if believed { Clock::Synchronised } else { Clock::Unsynchronised };
        let target = if believed { system } else { system.max(here) };
        // Against what was told, and against where the clock went on: while time stands still the two differ.
        let step = target.0.saturating_sub(here.0);
        let moved = target.0.saturating_sub(later(self.base, instant).0);
        let from = std::mem::replace(&mut self.clock, to);
        self.base = (instant, target);
        let waits = step < 0 && step > -millis(HOLD);
        self.least = if waits { here } else { target };
        self.certain = (instant, if believed { self.wall(instant) } else { certain });
        if from == to && moved.saturating_abs() < millis(NOTABLE) && (step >= 0 || waits) {
            return None;
        }
        let wall = self.wall(instant);
        let change = Change { instant, wall, step: wall.0.saturating_sub(here.0), from, to };
        self.count += 1;
        if self.changes.len() >= CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        Some(change)
    }

    fn wall(&self, instant: Instant) -> UnixMillis {
        later(self.base, instant).max(self.least)
    }

    fn certain(&self, instant: Instant) -> UnixMillis {
        match self.clock {
            Clock::Synchronised => self.wall(instant),
            Clock::Unsynchronised => later(self.certain, instant),
        }
    }
}

fn later((base, time): (Instant, UnixMillis), instant: Instant) -> UnixMillis {
    UnixMillis(time.0.saturating_add(millis(instant.saturating_duration_since(base))))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUILT: i64 = 1_780_000_000_000;
    const YEAR: i64 = 31_557_600_000;

    /// A keeper and the instant of its last look.
    struct World {
        keeper: Timekeeper,
        instant: Instant,
    }

    impl World {
        fn new(trust: Trust, system: i64) -> Self {
            let instant = crate::clock::instant();
            let look = Look { instant, system: UnixMillis(system), is_set: false };
            Self { keeper: Timekeeper::new(trust, UnixMillis(BUILT), look), instant }
        }

        fn look(&mut self, after: i64, system: i64, is_set: bool) -> Option<Change> {
            self.instant += Duration::from_millis(u64::try_from(after).unwrap());
            self.keeper.look(Look { instant: self.instant, system: UnixMillis(system), is_set })
        }

        /// An earlier run has told this time, and knew it to be right.
        fn passed(&mut self, time: i64) {
            self.keeper.passed(None, Some(UnixMillis(time)), self.instant);
        }

        fn told(&self) -> (i64, Clock) {
            let now = self.keeper.now(self.instant);
            (now.wall.0, now.clock)
        }
    }

    #[test]
    fn a_machine_that_wakes_up_in_1970_tells_estimates_until_its_clock_is_set() {
        let mut world = World::new(Trust::Auto, 5_000);
        assert_eq!(world.told(), (BUILT, Clock::Unsynchronised));
        // The history says that it was later when the machine went off.
        world.passed(BUILT + YEAR);
        assert_eq!(world.told(), (BUILT + YEAR, Clock::Unsynchronised));
        assert_eq!(world.look(1_000, 6_000, false), None);
        assert_eq!(world.told().0, BUILT + YEAR + 1_000);
        // What the system says of a clock that cannot be right counts for nothing.
        assert_eq!(world.look(1_000, 7_000, true), None);
        assert_eq!(world.told(), (BUILT + YEAR + 2_000, Clock::Unsynchronised));
        let change = world.look(1_000, BUILT + 2 * YEAR, true).unwrap();
        assert_eq!((change.step, change.wall.0), (YEAR - 3_000, BUILT + 2 * YEAR));
        assert_eq!((change.from, change.to), (Clock::Unsynchronised, Clock::Synchronised));
        assert_eq!(world.told(), (BUILT + 2 * YEAR, Clock::Synchronised));
        // The source of time is lost, which changes nothing.
        assert_eq!(world.look(1_000, BUILT + 2 * YEAR + 1_000, false), None);
        assert_eq!(world.told().1, Clock::Synchronised);
    }

    #[test]
    fn a_clock_with_a_battery_and_no_source_of_time_is_followed_and_marked_unless_it_is_trusted() {
        for (trust, clock) in [(Trust::Auto, Clock::Unsynchronised), (Trust::Always, Clock::Synchronised)] {
            let mut world = World::new(trust, BUILT + 5);
            assert_eq!(world.told(), (BUILT + 5, clock));
            world.passed(BUILT + 3);
            assert_eq!(world.look(1_000, BUILT + 1_006, false), None, "it runs a little fast");
            assert_eq!(world.told(), (BUILT + 1_006, clock));
            let change = world.look(1_000, BUILT + YEAR, false).unwrap();
            assert_eq!((change.from, change.to, change.wall.0), (clock, clock, BUILT + YEAR));
        }
    }

    #[test]
    fn a_trusted_clock_that_cannot_be_right_is_not_trusted() {
        let mut world = World::new(Trust::Always, 0);
        assert_eq!(world.told(), (BUILT, Clock::Unsynchronised));
        world.look(1_000, BUILT + YEAR, false).unwrap();
        assert_eq!(world.told(), (BUILT + YEAR, Clock::Synchronised));
    }

    #[test]
    fn a_believed_clock_that_is_set_back_a_little_is_waited_for_and_otherwise_followed() {
        let mut world = World::new(Trust::Always, BUILT + YEAR);
        let change = world.look(1_000, BUILT + YEAR - 9_000, false).unwrap();
        assert_eq!((change.step, change.wall.0), (0, BUILT + YEAR + 1_000));
        assert_eq!(
            world.look(5_000, BUILT + YEAR - 4_000, false),
            None,
            "it is still behind, and not set again"
        );
        assert_eq!(world.told().0, BUILT + YEAR + 1_000);
        world.look(7_000, BUILT + YEAR + 3_000, false);
        assert_eq!(world.told().0, BUILT + YEAR + 3_000);
        let change = world.look(1_000, BUILT + 4_000, false).unwrap();
        assert_eq!((change.step, change.wall.0), (-YEAR, BUILT + 4_000));
        assert_eq!(world.told().0, BUILT + 4_000);
    }

    #[test]
    fn while_nobody_knows_the_time_nothing_is_certain_but_what_has_passed() {
        let mut world = World::new(Trust::Auto, BUILT + 70 * YEAR);
        world.passed(BUILT + YEAR);
        let certain = |world: &World| world.keeper.now(world.instant).certain.0;
        assert_eq!(certain(&world), BUILT + YEAR);
        world.look(1_000, BUILT + 70 * YEAR + 1_000, false);
        assert_eq!(certain(&world), BUILT + YEAR + 1_000);
        world.look(1_000, BUILT + 2 * YEAR, true);
        assert_eq!(certain(&world), BUILT + 2 * YEAR);
        world.look(1_000, 0, true);
        assert_eq!(certain(&world), BUILT + 2 * YEAR + 1_000, "the clock is lost, and time goes on");
    }

    #[test]
    fn what_an_earlier_run_only_estimated_is_no_reason_to_call_anything_too_old() {
        let mut world = World::new(Trust::Auto, 0);
        let [told, right] = [70, 1].map(|years| Some(UnixMillis(BUILT + years * YEAR)));
        world.keeper.passed(told, right, world.instant);
        let now = world.keeper.now(world.instant);
        assert_eq!((Some(now.wall), Some(now.certain)), (told, right));
    }

    #[test]
    fn whoever_asks_for_changes_gets_each_once() {
        let mut world = World::new(Trust::Auto, 0);
        let mut seen = 0;
        assert_eq!(world.keeper.changes(&mut seen), []);
        let first = world.look(1_000, BUILT + YEAR, false);
        let second = world.look(1_000, BUILT + YEAR + 1_000, true);
        assert_eq!(world.keeper.changes(&mut seen), [first.unwrap(), second.unwrap()]);
        assert_eq!(world.keeper.changes(&mut seen), []);
    }

    proptest! {
        #[test]
        fn no_step_of_any_clock_breaks_the_promise(
            trust in prop_oneof![Just(Trust::Auto), Just(Trust::Always)],
            first in -YEAR..BUILT + 90 * YEAR,
            passed in proptest::option::of(0..BUILT + 90 * YEAR),
            looks in proptest::collection::vec(
                (
                    0_i64..100_000,
                    // Where the system's clock goes: on, by a small step, or anywhere.
                    prop_oneof![
                        Just(None),
                        (-200_000_i64..200_000).prop_map(|step| Some((true, step))),
                        (-YEAR..BUILT + 90 * YEAR).prop_map(|at| Some((false, at))),
                    ],
                    any::<bool>(),
                ),
                1..40,
            ),
        ) {
            let mut world = World::new(trust, first);
            if let Some(passed) = passed {
                world.passed(passed);
            }
            let (mut system, mut last, mut certain) = (first, world.told(), i64::MIN);
            for (after, moved, is_set) in looks {
                system += after;
                match moved {
                    Some((true, step)) => system += step,
                    Some((false, at)) => system = at,
                    None => {}
                }
                let before = world.keeper.now(world.instant + Duration::from_millis(u64::try_from(after).unwrap()));
                prop_assert!(before.wall.0 >= last.0, "between two looks");
                let change = world.look(after, system, is_set);
                let told = world.told();
                prop_assert!(told.0 >= BUILT);
                if told.0 < before.wall.0 {
                    let change = change.expect("a step back is told");
                    prop_assert_eq!(change.to, Clock::Synchronised);
                    prop_assert!(change.step <= -millis(HOLD));
                }
                if told.1 != last.1 {
                    prop_assert!(change.is_some());
                }
                if let Some(change) = change {
                    prop_assert_eq!((change.wall.0, change.to), told);
                }
                let now = world.keeper.now(world.instant);
                prop_assert!(now.certain <= now.wall || now.clock == Clock::Unsynchronised);
                if now.clock == Clock::Unsynchronised {
                    prop_assert!(now.certain.0 >= certain, "what has passed has passed");
                }
                (last, certain) = (told, now.certain.0);
            }
        }
    }
}

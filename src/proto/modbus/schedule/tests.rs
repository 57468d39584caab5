//! The schedule against a simulated bus, whose turns take simulated time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::proto::modbus::breaker::{OFFLINE_SILENCE, PROBE_PAUSE_MAX};

const TURN: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_millis(300);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// A bus whose units answer in `TURN`, or not at all in `TIMEOUT`.
struct Bus {
    schedule: Schedule,
    start: Instant,
    now: Instant,
    dead: Vec<usize>,
    silent_polls: Vec<usize>,
    log: Vec<(Duration, Next)>,
    events: Vec<(Duration, usize, bool)>,
    refused: Vec<usize>,
}

impl Bus {
    fn new(units: usize, polls: &[(usize, usize, u64)]) -> Self {
        let now = start();
        let mut schedule = Schedule::new(now);
        for _ in 0..units {
            schedule.add_unit();
        }
        for (unit, key, every) in polls {
            schedule.add_poll(*unit, *key, Duration::from_millis(*every));
        }
        let (dead, silent_polls) = (Vec::new(), Vec::new());
        Self { schedule, start: now, now, dead, silent_polls, log: vec![], events: vec![], refused: vec![] }
    }

    fn at(&self) -> Duration {
        self.now - self.start
    }

    /// One turn, or a sleep until the next or `until`.
    fn turn(&mut self, until: Duration) -> Next {
        let next = self.schedule.next(self.now);
        match next {
            Next::Idle { until: wake } => {
                let end = self.start + until;
                assert!(wake.is_none_or(|wake| wake > self.now), "idle until a time that is past");
                self.now = wake.map_or(end, |wake| wake.min(end));
            }
            Next::Poll { unit, key } => {
                self.log.push((self.at(), next));
                let silent = self.dead.contains(&unit) || self.silent_polls.contains(&key);
                self.now += if silent { TIMEOUT } else { TURN };
                if silent {
                    self.failed(unit);
                    let miss = self.schedule.missed(unit, key, self.now);
                    self.refused.extend((miss == Miss::Refused).then_some(key));
                } else {
                    self.answered(unit);
                    self.schedule.polled(unit, key, self.now);
                }
            }
            Next::Order { unit, id } => {
                self.log.push((self.at(), next));
                let silent = self.dead.contains(&unit);
                self.now += if silent { TIMEOUT } else { TURN };
                self.schedule.finish(unit, id);
                if silent { self.failed(unit) } else { self.answered(unit) }
            }
        }
        next
    }

    fn answered(&mut self, unit: usize) {
        if self.schedule.answered(unit, self.now) {
            self.events.push((self.at(), unit, true));
        }
    }

    fn failed(&mut self, unit: usize) {
        if self.schedule.failed(unit, self.now) {
            self.events.push((self.at(), unit, false));
        }
    }

    fn run_until(&mut self, millis: u64) {
        let until = Duration::from_millis(millis);
        while self.at() < until {
            self.turn(until);
        }
    }

    fn polls_of(&self, unit: usize) -> Vec<Duration> {
        let of = |(at, next): &(Duration, Next)| match next {
            Next::Poll { unit: polled, .. } if *polled == unit => Some(*at),
            Next::Poll { .. } | Next::Order { .. } | Next::Idle { .. } => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    fn order(&mut self, unit: usize, lane: Lane, id: u64) {
        self.schedule.push(unit, lane, id, self.now + Duration::from_secs(10));
    }
}

#[test]
fn every_poll_is_made_at_once_and_then_keeps_its_interval() {
    let mut bus = Bus::new(3, &[(0, 0, 1000), (1, 1, 1000), (2, 2, 250)]);
    bus.run_until(10_000);
    assert!(bus.log[..3].iter().all(|(at, _)| *at < TURN * 3));
    for (unit, expected) in [(0, 10), (1, 10), (2, 40)] {
        let count = bus.polls_of(unit).len();
        assert!((expected..=expected + 2).contains(&count), "unit {unit} was polled {count} times");
    }
}

#[test]
fn polls_of_one_interval_are_spread_over_it() {
    let polls: Vec<(usize, usize, u64)> = (0..10).map(|at| (at, at, 1000)).collect();
    let mut bus = Bus::new(10, &polls);
    bus.run_until(3000);
    let late = bus.log.iter().filter(|(at, _)| at.as_millis() >= 2000);
    let per_half =
        late.fold([0, 0], |[a, b], (at, _)| if at.as_millis() < 2500 { [a + 1, b] } else { [a, b + 1] });
    assert!(per_half.into_iter().all(|count| (4..=6).contains(&count)), "{per_half:?}");
}

#[test]
fn polls_that_fall_due_soon_are_made_together_and_none_twice() {
    let polls: Vec<(usize, usize, u64)> = (0..50).map(|at| (at, at, 1000)).collect();
    let mut bus = Bus::new(50, &polls);
    bus.run_until(2000);
    let mut wakes = 0;
    while bus.at() < Duration::from_secs(12) {
        wakes += u32::from(matches!(bus.turn(Duration::from_secs(12)), Next::Idle { .. }));
    }
    assert!(wakes <= 200, "500 polls were made in {wakes} wakes");
    for unit in 0..50 {
        let at: Vec<Duration> = bus.polls_of(unit).into_iter().filter(|at| at.as_millis() >= 2000).collect();
        assert!((9..=11).contains(&at.len()), "unit {unit}: {at:?}");
        let apart = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let (least, most) = (Duration::from_millis(940), Duration::from_millis(1060));
        assert!(apart.into_iter().all(|apart| (least..=most).contains(&apart)), "unit {unit}: {at:?}");
    }
}

#[test]
fn a_bus_that_cannot_keep_up_serves_all_units_alike_and_is_never_idle() {
    let polls: Vec<(usize, usize, u64)> = (0..10).map(|at| (at, at, if at == 0 { 0 } else { 20 })).collect();
    let mut bus = Bus::new(10, &polls);
    bus.run_until(10_000);
    assert_eq!(bus.log.len(), 1000, "each turn takes ten milliseconds");
    for unit in 0..10 {
        assert!((95..=105).contains(&bus.polls_of(unit).len()));
    }
    // Ten units that take ten milliseconds each, of which nine want to be asked five times as often.
    let behind = bus.schedule.behind(bus.now);
    assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&behind), "{behind:?}");
}

#[test]
fn a_bus_that_keeps_up_is_behind_by_a_few_turns_at_most_and_a_silent_unit_does_not_count() {
    let mut bus = Bus::new(3, &[(0, 0, 1000), (1, 1, 1000), (2, 2, 1000)]);
    bus.dead.push(2);
    bus.run_until(60_000);
    for _ in 0..100 {
        bus.turn(Duration::from_secs(70));
        assert!(bus.schedule.behind(bus.now) <= TIMEOUT + 2 * TURN, "{:?}", bus.schedule.behind(bus.now));
    }
}

#[test]
fn a_quick_poll_goes_before_slow_ones_that_fell_due_with_it() {
    let mut polls: Vec<(usize, usize, u64)> = (0..20).map(|key| (0, key, 60_000)).collect();
    polls.push((1, 20, 50));
    let mut bus = Bus::new(2, &polls);
    bus.run_until(300);
    assert!(bus.polls_of(1).len() >= 6, "polled at {:?}", bus.polls_of(1));
    assert_eq!(bus.polls_of(0).len(), 20, "and the slow ones have what is left");
}

#[test]
fn slow_polls_are_made_in_their_time_on_a_bus_that_quick_ones_fill() {
    let mut bus = Bus::new(2, &[(0, 0, 0), (1, 1, 1000)]);
    bus.run_until(10_000);
    assert!((9..=11).contains(&bus.polls_of(1).len()), "{:?}", bus.polls_of(1));
}

#[test]
fn a_unit_that_wants_more_than_there_is_does_not_starve_another() {
    let mut polls: Vec<(usize, usize, u64)> = (0..200).map(|key| (0, key, 20)).collect();
    polls.push((1, 200, 100));
    let mut bus = Bus::new(2, &polls);
    bus.run_until(10_000);
    assert!(bus.polls_of(1).len() >= 90, "{} of 100", bus.polls_of(1).len());
    let each = |key| bus.log.iter().filter(|(_, next)| *next == Next::Poll { unit: 0, key }).count();
    assert!((0..200).all(|key| (3..=6).contains(&each(key))), "its own polls come round alike");
}

#[test]
fn a_dead_port_is_told_from_a_dead_unit_by_asking_everybody() {
    let mut bus = Bus::new(3, &[(0, 0, 100), (1, 1, 60_000)]);
    assert!(!bus.schedule.all_silent(), "nothing was asked yet");
    bus.run_until(1000);
    bus.dead = vec![0];
    bus.run_until(3000);
    assert!(!bus.schedule.all_silent());
    bus.schedule.ask_everybody(bus.now);
    bus.run_until(4000);
    assert!(!bus.schedule.all_silent(), "the other one has answered");
    bus.dead = vec![0, 1];
    bus.schedule.ask_everybody(bus.now);
    bus.run_until(5000);
    assert!(bus.schedule.all_silent(), "a unit without polls cannot be asked");
}

#[test]
fn a_bus_that_only_writes_is_judged_by_its_time_outs() {
    let bus = Bus::new(2, &[]);
    assert!(bus.schedule.all_silent(), "there is nobody who could be asked");
}

#[test]
fn what_waits_between_two_steps_holds_up_writes_only_and_what_comes_first_passes_it() {
    let mut bus = Bus::new(1, &[(0, 0, 100)]);
    bus.run_until(50);
    bus.order(0, Lane::Write, 1);
    let order = |id| Next::Order { unit: 0, id };
    assert_eq!(bus.schedule.next(bus.now), order(1));
    let (now, until) = (bus.now, bus.now + Duration::from_secs(1));
    bus.schedule.park(0, 1, until);
    bus.order(0, Lane::Write, 2);
    bus.order(0, Lane::Read, 3);
    assert_eq!(bus.schedule.next(now), order(3), "reads go on");
    bus.schedule.finish(0, 3);
    let now = now + Duration::from_millis(500);
    assert_eq!(bus.schedule.next(now), Next::Poll { unit: 0, key: 0 }, "and polls");
    bus.schedule.answered(0, now);
    bus.schedule.polled(0, 0, now);
    assert!(matches!(bus.schedule.next(now), Next::Idle { until: Some(wake) } if wake <= until));
    bus.schedule.push_first(0, 4, until);
    assert_eq!(bus.schedule.next(now), order(4));
    bus.schedule.finish(0, 4);
    assert!(!matches!(bus.schedule.next(now), Next::Order { .. }));
    assert_eq!(bus.schedule.next(until), order(1), "the steps go on");
    bus.schedule.finish(0, 1);
    assert_eq!(bus.schedule.next(until), order(2));
}

#[test]
fn orders_go_before_polls_and_writes_before_reads() {
    let mut bus = Bus::new(2, &[(0, 0, 0), (1, 1, 0)]);
    bus.run_until(100);
    bus.order(0, Lane::Read, 1);
    bus.order(1, Lane::Write, 2);
    bus.order(1, Lane::Write, 3);
    let next: Vec<Next> = (0..3).map(|_| bus.turn(Duration::MAX / 2)).collect();
    let order = |unit, id| Next::Order { unit, id };
    assert_eq!(next, [order(1, 2), order(1, 3), order(0, 1)]);
}

#[test]
fn a_flood_of_orders_leaves_polls_their_share() {
    let mut bus = Bus::new(2, &[(0, 0, 0)]);
    for id in 0..900 {
        bus.order(1, Lane::Write, id);
        bus.turn(Duration::MAX / 2);
    }
    assert!((90..=110).contains(&bus.polls_of(0).len()), "{}", bus.polls_of(0).len());
}

#[test]
fn units_take_turns_with_their_orders() {
    let mut bus = Bus::new(2, &[]);
    for id in 0..4 {
        bus.order(0, Lane::Write, id);
    }
    bus.order(1, Lane::Write, 100);
    let ids: Vec<u64> = (0..3)
        .filter_map(|_| match bus.turn(Duration::MAX / 2) {
            Next::Order { id, .. } => Some(id),
            Next::Poll { .. } | Next::Idle { .. } => None,
        })
        .collect();
    assert_eq!(ids, [0, 100, 1]);
}

#[test]
fn a_resting_unit_lets_the_others_pass() {
    let mut bus = Bus::new(2, &[(0, 0, 0), (1, 1, 0)]);
    bus.order(0, Lane::Write, 1);
    let first = bus.schedule.next(bus.now);
    assert_eq!(first, Next::Order { unit: 0, id: 1 });
    let until = bus.now + Duration::from_millis(100);
    bus.schedule.rest(0, until);
    while bus.now < until {
        assert_eq!(bus.turn(Duration::MAX / 2), Next::Poll { unit: 1, key: 1 });
    }
    assert_eq!(bus.turn(Duration::MAX / 2), Next::Order { unit: 0, id: 1 }, "the same order goes on");
}

#[test]
fn a_dead_unit_goes_offline_within_seconds_and_its_neighbours_keep_their_rate() {
    let polls: Vec<(usize, usize, u64)> = (0..10).map(|at| (at, at, 100)).collect();
    let mut bus = Bus::new(10, &polls);
    bus.dead = vec![4];
    bus.run_until(60_000);
    let [(at, 4, false)] =
        bus.events.iter().filter(|(_, _, online)| !online).copied().collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", bus.events);
    };
    assert!(at >= OFFLINE_SILENCE && at < OFFLINE_SILENCE + Duration::from_millis(2500), "{at:?}");
    for unit in (0..10).filter(|unit| *unit != 4) {
        let count = bus.polls_of(unit).len();
        assert!(count >= 540, "unit {unit} was polled {count} times of 600");
    }
    let probes = bus.polls_of(4);
    let longest = probes.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
    assert!(longest <= PROBE_PAUSE_MAX + TIMEOUT + TURN * 10, "{longest:?}");
}

#[test]
fn however_many_units_are_dead_the_live_ones_keep_most_of_a_busy_bus() {
    let polls: Vec<(usize, usize, u64)> = (0..20).map(|at| (at, at, 0)).collect();
    let mut bus = Bus::new(20, &polls);
    bus.dead = (1..20).collect();
    bus.run_until(30_000);
    let before = bus.polls_of(0).len();
    bus.run_until(130_000);
    let share = bus.polls_of(0).len() - before;
    assert!(share >= 8_500, "{share} turns of 10000");
    for unit in 1..20 {
        assert!(bus.polls_of(unit).last().unwrap().as_secs() >= 60, "unit {unit} is still probed");
    }
}

#[test]
fn a_unit_that_returns_is_polled_completely_at_once() {
    let mut bus = Bus::new(1, &[(0, 0, 60_000), (0, 1, 60_000), (0, 2, 60_000)]);
    bus.run_until(100);
    bus.dead = vec![0];
    bus.run_until(200_000);
    assert_eq!(bus.events.last().map(|(_, _, online)| *online), Some(false));
    bus.dead.clear();
    let before = bus.log.len();
    bus.run_until(200_000 + 11_000);
    assert_eq!(bus.events.last().map(|(_, _, online)| *online), Some(true));
    let burst: Vec<Duration> = bus.log[before..].iter().map(|(at, _)| *at).collect();
    assert_eq!(burst.len(), 3, "one probe and the two other polls");
    assert!(burst[2] <= burst[0] + TURN * 3);
}

#[test]
fn one_lost_answer_changes_nothing_for_anybody() {
    let mut bus = Bus::new(1, &[(0, 0, 1000)]);
    bus.run_until(1500);
    bus.dead = vec![0];
    bus.run_until(2400);
    let misses = bus.schedule.failures(0);
    assert!(misses > 0);
    bus.dead.clear();
    bus.run_until(6000);
    assert_eq!(bus.events.iter().filter(|(_, _, online)| !online).count(), 0);
    assert_eq!(bus.schedule.failures(0), 0);
}

#[test]
fn silence_on_one_range_is_a_refusal_and_not_the_end_of_the_unit() {
    let mut bus = Bus::new(1, &[(0, 0, 100), (0, 1, 100)]);
    bus.silent_polls = vec![1];
    bus.run_until(20_000);
    assert!(bus.refused.contains(&1) && !bus.refused.contains(&0));
    assert_eq!(bus.events, [(TURN, 0, true)]);
    let answered = bus.log.iter().filter(|(_, next)| *next == Next::Poll { unit: 0, key: 0 }).count();
    assert!(answered >= 130, "{answered}");
}

#[test]
fn what_a_unit_did_not_answer_while_it_was_away_makes_one_lost_answer_no_refusal() {
    let mut bus = Bus::new(1, &[(0, 0, 1000), (0, 1, 1000)]);
    bus.run_until(1500);
    bus.dead = vec![0];
    bus.run_until(100_000);
    assert_eq!(bus.events.last().map(|(_, _, online)| *online), Some(false));
    bus.dead.clear();
    while bus.schedule.presence(0) != Presence::Online {
        bus.turn(Duration::from_secs(200));
    }
    // It is back, and the very next answer, which is about the other range, is lost.
    bus.silent_polls = vec![0, 1];
    while bus.schedule.failures(0) == 0 {
        bus.turn(Duration::from_secs(200));
    }
    bus.silent_polls.clear();
    bus.run_until(210_000);
    assert_eq!(bus.refused, Vec::<usize>::new());
}

#[test]
fn a_refused_poll_is_taken_apart_and_a_single_place_is_put_off() {
    let mut bus = Bus::new(1, &[(0, 0, 100)]);
    bus.turn(Duration::MAX / 2);
    bus.schedule.split(0, 0, [1, 2], bus.now);
    let far = bus.now + Duration::from_secs(300);
    bus.schedule.defer(0, 2, far);
    bus.run_until(2000);
    assert!(!bus.log.contains(&(bus.at(), Next::Poll { unit: 0, key: 2 })));
    let of = |key| bus.log.iter().filter(|(_, next)| *next == Next::Poll { unit: 0, key }).count();
    assert_eq!((of(0), of(2)), (1, 0));
    assert!(of(1) >= 19);
}

#[test]
fn orders_expire_only_before_they_begin() {
    let mut bus = Bus::new(2, &[]);
    let deadline = bus.now + TURN;
    bus.schedule.push(0, Lane::Write, 1, deadline);
    bus.schedule.push(0, Lane::Write, 2, deadline);
    bus.schedule.push(1, Lane::Read, 3, deadline + TURN);
    assert_eq!(bus.schedule.next(bus.now), Next::Order { unit: 0, id: 1 });
    assert!(bus.schedule.take_expired(bus.now).is_empty());
    assert_eq!(bus.schedule.take_expired(deadline), [2]);
    assert_eq!(bus.schedule.take_waiting(1), [3]);
}

#[test]
fn an_offline_unit_without_polls_is_probed_by_its_orders() {
    let mut bus = Bus::new(1, &[]);
    bus.dead = vec![0];
    let mut id = 0;
    while bus.schedule.presence(0) != Presence::Offline {
        bus.order(0, Lane::Write, id);
        bus.turn(Duration::MAX / 2);
        bus.now += Duration::from_millis(500);
        id += 1;
    }
    let offline_at = bus.now;
    bus.now = offline_at + PROBE_PAUSE_MAX;
    assert!(bus.schedule.takes_orders(0, bus.now));
    bus.dead.clear();
    bus.order(0, Lane::Write, id);
    bus.turn(Duration::MAX / 2);
    assert_eq!(bus.schedule.presence(0), Presence::Online);
}

#[test]
fn a_lost_link_takes_all_units_offline_once_and_its_return_probes_them_all() {
    let mut bus = Bus::new(2, &[(0, 0, 60_000), (1, 1, 60_000)]);
    bus.run_until(100);
    assert_eq!(bus.schedule.link_lost(bus.now), [0, 1]);
    assert!(bus.schedule.link_lost(bus.now).is_empty());
    bus.now += Duration::from_secs(30);
    bus.schedule.link_found(bus.now);
    let before = bus.log.len();
    bus.run_until(31_000);
    assert_eq!(bus.log.len() - before, 2);
    assert_eq!(bus.schedule.presence(1), Presence::Online);
}

proptest! {
    #[test]
    fn every_order_is_given_exactly_once_whatever_else_happens(
        units in 1..5_usize,
        dead in prop::collection::vec(0..5_usize, 0..4),
        orders in prop::collection::vec((0..5_usize, any::<bool>()), 0..30),
        every in 0..300_u64,
    ) {
        let polls: Vec<(usize, usize, u64)> = (0..units).map(|at| (at, at, every)).collect();
        let mut bus = Bus::new(units, &polls);
        bus.dead = dead;
        let mut expected: BTreeMap<u64, u32> = BTreeMap::new();
        for (id, (unit, write)) in (0..).zip(&orders) {
            if *unit < units && bus.schedule.takes_orders(*unit, bus.now) {
                let lane = if *write { Lane::Write } else { Lane::Read };
                bus.schedule.push(*unit, lane, id, bus.now + Duration::from_secs(3600));
                expected.insert(id, 1);
            }
            bus.turn(bus.at() + TURN);
        }
        let mut taken: BTreeMap<u64, u32> = BTreeMap::new();
        let end = bus.at() + Duration::from_secs(30);
        while bus.at() < end {
            for unit in 0..units {
                if bus.schedule.presence(unit) == Presence::Offline {
                    for id in bus.schedule.take_waiting(unit) {
                        *taken.entry(id).or_default() += 1;
                    }
                }
            }
            bus.turn(end);
        }
        for (_, next) in &bus.log {
            if let Next::Order { id, .. } = next {
                *taken.entry(*id).or_default() += 1;
            }
        }
        prop_assert_eq!(taken, expected);
    }
}

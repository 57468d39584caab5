//! The schedule of one bus: what is asked next, and when.
//!
//! One thing travels at a time, in this order: orders (writes and functions), reads on demand, polls by deadline.
//! A poll's deadline is half its interval after it fell due, so a quick property goes before a slow one that fell due with it. When
//! the bus cannot keep up, the units take turns, so that none starves another by wanting more than there is.
//! Polls of one interval are spread over it, so that they do not all fall due together; when the bus has just been used and
//! has nothing to do, those that fall due next are made a little early, so that it is woken less often. A unit that does not answer
//! is probed in growing pauses (see `breaker.rs`), and a unit that rests between two steps lets the others pass.
//! An order that waits between two steps lets polls and reads pass.
//!
//! How it is driven: ask [`Schedule::next`]; do what it says; report what came of it, first with `answered` or
//! `failed` for the unit, then with `polled`, `missed`, `defer` or `split` for a poll, or `finish` or `rest` for an
//! order; ask again.
//! Numbers of polls and orders are the caller's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::proto::modbus::breaker::{Breaker, Presence, pause_after};

/// Turns that orders and demanded reads may take in a row while a poll is due. A client that writes without pause
/// then leaves a ninth of the bus to polling, and a write waits for at most one poll.
const TURNS_BEFORE_A_POLL: u32 = 8;

/// Silence on one poll, while its unit answers others, that counts as a refusal: some devices say nothing where the
/// protocol wants an exception. On a line that loses every tenth frame this happens by chance once in 100000 polls.
const MISSES_THAT_REFUSE: u32 = 5;

/// So many of them must come after a unit has returned. A range on which it keeps silent may be what took it away, and is
/// found soon; one answer that is lost while it starts says nothing, however much it missed before.
const MISSES_AFTER_RETURN: u32 = 3;

/// An unsuccessful probe of an offline unit is followed by this many times its own length without another one, as
/// long as polls of live units are due. However many units are dead, probing takes at most a tenth of a busy bus.
const PROBE_REST: u32 = 9;

/// The part of its interval by which a poll may be made early. What costs a processor that has little to do is being woken,
/// far more than what it then does; a twentieth saves most of the timers of a bus with many units, and no reading is
/// older for it than it was meant to be.
const EARLY: u32 = 20;

/// The most that this may come to: enough for what waking costs, and a slow poll is no nearer to others for it.
const EARLIEST: Duration = Duration::from_millis(50);

/// Which queue an order waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Writes and functions: first of all, and in order for one unit.
    Write,
    /// Reads on demand: before polls.
    Read,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step of an order.
    Order {
        /// Which unit it is for.
        unit: usize,
        /// The caller's number.
        id: u64,
    },
    /// A poll; for a unit in doubt it is the probe.
    Poll {
        /// Which unit it is for.
        unit: usize,
        /// The caller's number.
        key: usize,
    },
    /// Nothing before this time; `None`: nothing at all until something is added.
    Idle {
        /// Ask again then.
        until: Option<Instant>,
    },
}

/// What a poll without an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It will be tried again.
    Again,
    /// The unit answers other requests but has kept silent on this one several times: take it for refused.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    units: Vec<Unit>,
    polls_ever: u32,
    /// Orders that are not finished, of all units, so that a bus without any need not look for them.
    orders: usize,
    turn: u64,
    streak: u32,
    handed_at: Instant,
    probes_rest_until: Instant,
}

#[derive(Debug, Default)]
struct Unit {
    breaker: Breaker,
    polls: Vec<Poll>,
    writes: VecDeque<Order>,
    reads: VecDeque<Order>,
    rest_until: Option<Instant>,
    last_turn: u64,
    last_poll: u64,
    last_answer: Option<Instant>,
    probe: usize,
}

#[derive(Debug)]
struct Poll {
    key: usize,
    every: Duration,
    phase: Duration,
    due: Instant,
    deferred: bool,
    misses: u32,
    missed_since: Option<Instant>,
}

#[derive(Debug)]
struct Order {
    id: u64,
    deadline: Instant,
    started: bool,
    parked_until: Option<Instant>,
}

impl Schedule {
    /// Nothing to do yet.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            units: Vec::new(),
            polls_ever: 0,
            orders: 0,
            turn: 0,
            streak: 0,
            handed_at: now,
            probes_rest_until: now,
        }
    }

    /// Adds a unit and gives its number.
    pub fn add_unit(&mut self) -> usize {
        self.units.push(Unit::default());
        self.units.len() - 1
    }

    /// Adds a poll, due at once and then every interval.
    pub fn add_poll(&mut self, unit: usize, key: usize, every: Duration) {
        let due = self.start;
        self.insert_poll(unit, key, every, due);
    }

    /// Adds an order, which `next` will give until `finish`.
    pub fn push(&mut self, unit: usize, lane: Lane, id: u64, deadline: Instant) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.lane(lane).push_back(Order { id, deadline, started: false, parked_until: None });
            self.orders += 1;
        }
    }

    /// Adds an order that is made before all other ones of its unit, also before one that is between two steps.
    pub fn push_first(&mut self, unit: usize, id: u64, deadline: Instant) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.writes.push_front(Order { id, deadline, started: false, parked_until: None });
            self.orders += 1;
        }
    }

    /// Lets an order that was begun wait. What stands behind it waits too: for the device its steps are one thing, and a
    /// write between them might undo what they rest on. Reads and polls go on.
    pub fn park(&mut self, unit: usize, id: u64, until: Instant) {
        let orders = self.units.get_mut(unit).map(|unit| unit.writes.iter_mut().chain(&mut unit.reads));
        if let Some(order) = orders.and_then(|mut orders| orders.find(|order| order.id == id)) {
            order.parked_until = Some(until);
        }
    }

    /// Decides. What it gives counts as begun.
    pub fn next(&mut self, now: Instant) -> Next {
        self.turn += 1;
        let poll = self.poll_due(now).or_else(|| self.poll_soon(now));
        let orders_wait = self.streak >= TURNS_BEFORE_A_POLL && poll.is_some();
        let order = if orders_wait { None } else { self.order_due(now) };
        self.handed_at = now;
        match (order, poll) {
            (Some((unit, id)), _) => {
                self.streak = self.streak.saturating_add(1);
                Next::Order { unit, id }
            }
            (None, Some((unit, key))) => {
                self.streak = 0;
                if let Some(unit) = self.units.get_mut(unit) {
                    unit.last_poll = self.turn;
                }
                Next::Poll { unit, key }
            }
            (None, None) => Next::Idle { until: self.wake_at(now) },
        }
    }

    /// The unit answered, with whatever. Says whether that makes it online; then everything of it is due at once.
    pub fn answered(&mut self, unit: usize, now: Instant) -> bool {
        let Some(unit) = self.units.get_mut(unit) else { return false };
        unit.last_answer = Some(now);
        let online = unit.breaker.answered();
        if online {
            for poll in &mut unit.polls {
                poll.misses = poll.misses.min(MISSES_THAT_REFUSE - MISSES_AFTER_RETURN);
            }
            for poll in unit.polls.iter_mut().filter(|poll| !poll.deferred) {
                poll.due = poll.due.min(now);
            }
        }
        online
    }

    /// The unit did not answer. Says whether that makes it offline.
    pub fn failed(&mut self, unit: usize, now: Instant) -> bool {
        let took = now.saturating_duration_since(self.handed_at);
        let Some(unit) = self.units.get_mut(unit) else { return false };
        unit.probe = unit.probe.wrapping_add(1);
        if unit.breaker.presence() == Presence::Offline {
            self.probes_rest_until = now + took.saturating_mul(PROBE_REST);
        }
        unit.breaker.failed(now)
    }

    /// The link is down. Gives the units that this makes offline.
    pub fn link_lost(&mut self, now: Instant) -> Vec<usize> {
        let tripped =
            self.units.iter_mut().enumerate().filter_map(|(at, unit)| unit.breaker.trip(now).then_some(at));
        tripped.collect()
    }

    /// The link is back: every unit in doubt is probed at once.
    pub fn link_found(&mut self, now: Instant) {
        self.probes_rest_until = now;
        for unit in &mut self.units {
            unit.breaker.revive(now);
        }
    }

    /// What is known of a unit.
    pub fn presence(&self, unit: usize) -> Presence {
        self.units.get(unit).map_or(Presence::Unknown, |unit| unit.breaker.presence())
    }

    /// Whether a unit is asked anything without an order.
    pub fn is_polled(&self, unit: usize) -> bool {
        self.units.get(unit).is_some_and(|unit| !unit.polls.is_empty())
    }

    /// Units that do not answer and are only probed.
    pub fn silent_units(&self) -> usize {
        self.units.iter().filter(|unit| unit.breaker.presence() == Presence::Offline).count()
    }

    /// Failures of a unit since its last answer.
    pub fn failures(&self, unit: usize) -> u32 {
        self.units.get(unit).map_or(0, |unit| unit.breaker.failures())
    }

    /// Whether an order for the unit makes sense now. An offline unit takes none; but where there is nothing to poll,
    /// an order is itself the probe, or a unit that can only be written would never come back.
    pub fn takes_orders(&self, unit: usize, now: Instant) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.takes_orders(now))
    }

    /// Whether every unit that is polled has failed to answer what it was asked last: then it is the port or the
    /// connection that is dead, and no single unit. Where nothing is polled nobody can be asked, so this says nothing against it.
    pub fn all_silent(&self) -> bool {
        let mut polled = self.units.iter().filter(|unit| !unit.polls.is_empty());
        polled.all(|unit| unit.breaker.failures() > 0)
    }

    /// Lets every unit that is not in doubt be asked something at once, to tell a dead port from a dead unit.
    pub fn ask_everybody(&mut self, now: Instant) {
        for unit in self.units.iter_mut().filter(|unit| unit.breaker.failures() == 0) {
            let usable = unit.polls.iter_mut().filter(|poll| !poll.deferred);
            if let Some(poll) = usable.min_by_key(|poll| poll.due) {
                poll.due = poll.due.min(now);
            }
        }
    }

    /// Forgets everything of a unit; its number may be used again.
    pub fn forget_unit(&mut self, unit: usize) {
        if let Some(unit) = self.units.get_mut(unit) {
            *unit = Unit::default();
        }
        self.count_orders();
    }

    /// Takes all polls of a unit out, so that others can be added.
    pub fn clear_polls(&mut self, unit: usize) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.polls.clear();
        }
    }

    /// A poll was answered.
    pub fn polled(&mut self, unit: usize, key: usize, now: Instant) {
        let start = self.start;
        if let Some(poll) = self.poll(unit, key) {
            // One that was made early is not due again for it.
            poll.due = poll.after(start, if poll.deferred { now } else { now.max(poll.due) });
            poll.deferred = false;
            poll.misses = 0;
            poll.missed_since = None;
        }
    }

    /// A poll was not answered.
    pub fn missed(&mut self, unit: usize, key: usize, now: Instant) -> Miss {
        let start = self.start;
        let last_answer = self.units.get(unit).and_then(|unit| unit.last_answer);
        let Some(poll) = self.poll(unit, key) else { return Miss::Again };
        let since = *poll.missed_since.get_or_insert(now);
        // A range on which the unit keeps silent would cost a whole timeout each time.
        poll.due = poll.after(start, now.max(poll.due)).max(now + pause_after(poll.misses));
        poll.misses = poll.misses.saturating_add(1);
        let alive = last_answer.is_some_and(|answer| answer > since);
        if alive && poll.misses >= MISSES_THAT_REFUSE { Miss::Refused } else { Miss::Again }
    }

    /// A poll cannot be read for now; nothing asks for it before `until`.
    pub fn defer(&mut self, unit: usize, key: usize, until: Instant) {
        if let Some(poll) = self.poll(unit, key) {
            poll.due = until;
            poll.deferred = true;
        }
    }

    /// A poll was taken apart; both parts are due at once.
    pub fn split(&mut self, unit: usize, key: usize, parts: [usize; 2], now: Instant) {
        let Some(every) = self.poll(unit, key).map(|poll| poll.every) else { return };
        if let Some(unit) = self.units.get_mut(unit) {
            unit.polls.retain(|poll| poll.key != key);
        }
        for part in parts {
            self.insert_poll(unit, part, every, now);
        }
    }

    /// An order is done with.
    pub fn finish(&mut self, unit: usize, id: u64) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.writes.retain(|order| order.id != id);
            unit.reads.retain(|order| order.id != id);
        }
        self.count_orders();
    }

    /// The unit is left alone until then, or longer if it rests already.
    pub fn rest(&mut self, unit: usize, until: Instant) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.rest_until = Some(unit.rest_until.map_or(until, |other| other.max(until)));
        }
    }

    /// Until when the unit is left alone; may be past.
    pub fn rests_until(&self, unit: usize) -> Option<Instant> {
        self.units.get(unit)?.rest_until
    }

    /// How long the poll of a unit that answers and is free has been due that has waited longest.
    pub fn behind(&self, now: Instant) -> Duration {
        let asked = self.units.iter().filter(|unit| unit.is_free(now) && unit.breaker.retry_at().is_none());
        let due = asked.flat_map(|unit| &unit.polls).map(|poll| poll.due).min();
        due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due))
    }

    /// Takes out the orders that were not begun before their deadline.
    pub fn take_expired(&mut self, now: Instant) -> Vec<u64> {
        self.take_orders(|_, order| order.deadline <= now)
    }

    /// Takes out the orders of a unit that were not begun.
    pub fn take_waiting(&mut self, unit: usize) -> Vec<u64> {
        self.take_orders(|at, _| at == unit)
    }

    fn take_orders(&mut self, wanted: impl Fn(usize, &Order) -> bool) -> Vec<u64> {
        let mut taken = Vec::new();
        if self.orders == 0 {
            return taken;
        }
        for (at, unit) in self.units.iter_mut().enumerate() {
            for lane in [&mut unit.writes, &mut unit.reads] {
                lane.retain(|order| {
                    let take = !order.started && wanted(at, order);
                    if take {
                        taken.push(order.id);
                    }
                    !take
                });
            }
        }
        self.count_orders();
        taken
    }

    fn count_orders(&mut self) {
        self.orders = self.units.iter().map(|unit| unit.orders().count()).sum();
    }

    fn insert_poll(&mut self, unit: usize, key: usize, every: Duration, due: Instant) {
        // Multiples of the golden section spread any number of polls evenly over their interval.
        let share = self.polls_ever.wrapping_mul(618) % 1000;
        self.polls_ever = self.polls_ever.wrapping_add(1);
        let phase = every / 1000 * share;
        if let Some(unit) = self.units.get_mut(unit) {
            let poll = Poll { key, every, phase, due, deferred: false, misses: 0, missed_since: None };
            unit.polls.push(poll);
        }
    }

    fn poll(&mut self, unit: usize, key: usize) -> Option<&mut Poll> {
        self.units.get_mut(unit)?.polls.iter_mut().find(|poll| poll.key == key)
    }

    /// The order whose turn it is: writes before reads, and among units the one that waited longest for a turn.
    fn order_due(&mut self, now: Instant) -> Option<(usize, u64)> {
        if self.orders == 0 {
            return None;
        }
        let turn = self.turn;
        for lane in [Lane::Write, Lane::Read] {
            let ready = self.units.iter_mut().enumerate().filter_map(|(at, unit)| {
                let free = unit.is_free(now)
                    && unit.takes_orders(now)
                    && unit.lane(lane).front().is_some_and(|order| order.is_free(now));
                free.then_some((at, unit))
            });
            if let Some((at, unit)) = ready.min_by_key(|(_, unit)| unit.last_turn) {
                unit.last_turn = turn;
                let order = unit.lane(lane).front_mut()?;
                order.started = true;
                return Some((at, order.id));
            }
        }
        None
    }

    /// The poll or probe that is most urgent: by deadline, or by turns of the units once a deadline has passed; a probe
    /// of an offline unit only out of its share.
    fn poll_due(&self, now: Instant) -> Option<(usize, usize)> {
        let rests = now < self.probes_rest_until;
        let due = || {
            let free = self.units.iter().enumerate().filter(|(_, unit)| unit.is_free(now));
            free.filter_map(|(at, unit)| {
                let (deadline, key) = unit.most_urgent(now)?;
                Some((
                    rests && unit.breaker.presence() == Presence::Offline,
                    deadline,
                    at,
                    key,
                    unit.last_poll,
                ))
            })
        };
        let late = due().any(|(gated, deadline, ..)| !gated && deadline < now);
        let best = due().min_by_key(|(gated, deadline, at, key, last_poll)| {
            (*gated, if late { *last_poll } else { 0 }, *deadline, *at, *key)
        });
        best.map(|(_, _, at, key, _)| (at, key))
    }

    /// The poll that falls due next, if that is so soon that it may be made now. Only what its unit answers as it should.
    fn poll_soon(&self, now: Instant) -> Option<(usize, usize)> {
        let free = self
            .units
            .iter()
            .enumerate()
            .filter(|(_, unit)| unit.is_free(now) && unit.breaker.retry_at().is_none());
        let soon = free.flat_map(|(at, unit)| {
            let usable = unit.polls.iter().filter(|poll| !poll.deferred && poll.misses == 0);
            usable
                .filter(|poll| poll.due <= now + (poll.every / EARLY).min(EARLIEST))
                .map(move |poll| (poll.due, at, poll.key))
        });
        soon.min().map(|(_, at, key)| (at, key))
    }

    /// When something changes by the passing of time alone.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let unit_wakes = self.units.iter().filter_map(|unit| {
            let poll = unit.next_due();
            let work = [poll, unit.order_at(now)].into_iter().flatten().min();
            let rested = work.map(|work| unit.rest_until.map_or(work, |rest| rest.max(work)));
            let waiting = unit.orders().filter(|order| !order.started);
            [rested, waiting.map(|order| order.deadline).min()].into_iter().flatten().min()
        });
        unit_wakes.min()
    }
}

impl Unit {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Order> {
        match lane {
            Lane::Write => &mut self.writes,
            Lane::Read => &mut self.reads,
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        self.rest_until.is_none_or(|until| until <= now)
    }

    fn takes_orders(&self, now: Instant) -> bool {
        let may_probe = self.polls.is_empty() && self.breaker.retry_at().is_none_or(|at| at <= now);
        let begun = self.orders().any(|order| order.started);
        self.breaker.presence() != Presence::Offline || may_probe || begun
    }

    fn orders(&self) -> impl Iterator<Item = &Order> {
        self.writes.iter().chain(&self.reads)
    }

    /// When its next order may go, apart from rests.
    fn order_at(&self, now: Instant) -> Option<Instant> {
        let fronts = [self.writes.front(), self.reads.front()].into_iter().flatten();
        let first = fronts.map(|order| order.parked_until.map_or(now, |until| until.max(now))).min()?;
        if self.takes_orders(now) { Some(first) } else { self.breaker.retry_at() }
    }

    /// When its next poll or probe may go.
    fn next_due(&self) -> Option<Instant> {
        match self.breaker.retry_at() {
            None => self.polls.iter().map(|poll| poll.due).min(),
            Some(at) => self.polls.first().map(|_| at),
        }
    }

    /// The poll to make now, with its deadline; for a unit in doubt its probe.
    fn most_urgent(&self, now: Instant) -> Option<(Instant, usize)> {
        match self.breaker.retry_at() {
            None => {
                let due = self.polls.iter().filter(|poll| poll.due <= now);
                due.map(|poll| (poll.deadline(poll.due), poll.key)).min()
            }
            Some(at) if at <= now => self.next_probe().map(|probe| (probe.deadline(at), probe.key)),
            Some(_) => None,
        }
    }

    /// Probes take turns among the polls, lest a range on which the unit keeps silent hides that it is alive.
    fn next_probe(&self) -> Option<&Poll> {
        let usable = || self.polls.iter().filter(|poll| !poll.deferred);
        let turns = usable().count().max(1);
        usable().nth(self.probe % turns).or_else(|| self.polls.first())
    }
}

impl Order {
    fn is_free(&self, now: Instant) -> bool {
        self.parked_until.is_none_or(|until| until <= now)
    }
}

impl Poll {
    /// Until when it should be made that fell due at this time. Half an interval later it would still be in time for the
    /// next, but a reading would be older than anybody expects, and one turn more would lose that next one.
    fn deadline(&self, due: Instant) -> Instant {
        due + self.every / 2
    }

    /// The next time on the poll's own grid. Times that were missed are skipped, not made up for.
    fn after(&self, start: Instant, now: Instant) -> Instant {
        let first = start + self.phase;
        let Some(gone) = now.checked_duration_since(first) else { return first };
        let every = self.every.as_nanos();
        let turns = gone.as_nanos().checked_div(every).map_or(0, |turns| turns + 1);
        let next = if every == 0 { gone.as_nanos() } else { turns * every };
        first + Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;

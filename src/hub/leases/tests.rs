//! Leases alone: what becomes of them, whatever happens in which order.

use proptest::prelude::*;

use super::*;
use crate::model::product::{Access, LeaseRule};
use crate::model::value::ValueType;

const SESSION: SessionKey = SessionKey(7);
const PLACE: Place = (0, 1);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn confirmed() -> Outcome {
    Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A property that is safe at 0.
fn property(id: &str, default: Option<u64>) -> Property {
    let rule =
        LeaseRule { safe: Value::Int(0), default: default.map(Duration::from_secs), longest: seconds(600) };
    Property { access: Access::ReadWrite, lease: Some(rule), ..Property::new(id, ValueType::Int) }
}

fn product(properties: Vec<Property>) -> Product {
    let id = || "p".into();
    let (functions, events) = (Vec::new(), Vec::new());
    Product { id: id(), name: id(), type_id: id(), properties, functions, events }
}

fn plain(id: &str) -> Property {
    Property::new(id, ValueType::Int)
}

/// Leases, a clock, and who is there.
struct Bed {
    leases: Leases,
    now: Instant,
    next: u64,
}

impl Bed {
    fn new() -> Self {
        Self { leases: Leases::default(), now: start(), next: 0 }
    }

    fn begin(&mut self, grant: Grant) -> CommandId {
        self.next += 1;
        let brought = Brought { grants: vec![(PLACE, grant)], several: false };
        self.leases.begin(CommandId(self.next), &"c".into(), brought);
        CommandId(self.next)
    }

    fn settle(&mut self, id: CommandId, outcome: &Outcome) -> Option<Returned> {
        self.leases.settled(id, outcome, self.now, |_| true)
    }

    fn write(&mut self, grant: Grant, outcome: &Outcome) {
        let id = self.begin(grant);
        assert_eq!(self.settle(id, outcome), None);
    }

    /// Sends the safe values that are due. Gives their commands.
    fn send(&mut self) -> Vec<CommandId> {
        let mut sent = Vec::new();
        while let Some(due) = self.leases.due(self.now) {
            self.next += 1;
            sent.push(CommandId(self.next));
            self.leases.writing(CommandId(self.next), due);
        }
        sent
    }
}

#[test]
fn a_lease_that_nobody_renews_is_lost_and_tried_until_it_is_safe() {
    let mut bed = Bed::new();
    let lease = Grant::For(seconds(30));
    bed.write(lease, &confirmed());
    bed.now += seconds(20);
    bed.write(lease, &confirmed());
    bed.now += seconds(29);
    // What did not reach the device renews nothing.
    bed.write(lease, &Outcome::Offline);
    assert_eq!(bed.send(), []);
    bed.now += seconds(1);
    let sent = bed.send();
    assert_eq!(sent.len(), 1);
    bed.now += seconds(10);
    assert_eq!(bed.send(), [], "it is under way");
    let returned = bed.settle(sent[0], &Outcome::TimedOut);
    assert_eq!(returned, Some(Returned { place: PLACE, safe: false, tries: 1 }));
    assert_eq!(bed.leases.timeout(), Some(bed.now + seconds(1)));
    bed.now += seconds(1);
    let sent = bed.send();
    assert_eq!(bed.settle(sent[0], &confirmed()), Some(Returned { place: PLACE, safe: true, tries: 2 }));
    assert_eq!(bed.leases.timeout(), None);
}

#[test]
fn pauses_between_tries_grow_to_a_bound() {
    let refused = Outcome::Rejected(Rejection::ByDevice("no".to_owned()));
    let pauses = |outcome| (1..12).map(|tries| pause(tries, outcome).as_secs()).collect::<Vec<u64>>();
    assert_eq!(pauses(&refused), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(pauses(&Outcome::TimedOut), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    assert_eq!(pause(u32::MAX, &refused), RETRY_REFUSED);
}

#[test]
fn a_device_that_may_be_back_is_tried_soon_and_with_pauses_that_grow_anew() {
    let mut bed = Bed::new();
    bed.write(Grant::Session(SESSION), &confirmed());
    bed.leases.detached(SESSION, bed.now);
    // Long silence: the pauses are as long as they get.
    for _ in 0..10 {
        let sent = bed.send();
        bed.settle(sent[0], &Outcome::TimedOut);
        bed.now += RETRY_SILENT;
    }
    let due = bed.leases.due(bed.now).unwrap();
    bed.leases.unsent(due, bed.now);
    bed.leases.doubted(0, bed.now);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let due = bed.leases.timeout().unwrap();
        pauses.push((due - bed.now).as_secs());
        bed.now = due;
        let sent = bed.send();
        bed.settle(sent[0], &Outcome::TimedOut);
    }
    assert_eq!(pauses, [1, 1, 2, 4]);
    // Being told so again and again does not make it more often than that.
    let due = bed.leases.timeout();
    bed.leases.doubted(0, bed.now);
    bed.leases.doubted(0, bed.now);
    assert!(bed.leases.timeout() <= due && bed.leases.timeout() >= Some(bed.now + RETRY));
}

#[test]
fn what_is_written_too_soon_is_written_as_soon_as_it_may_be() {
    let mut bed = Bed::new();
    bed.write(Grant::Session(SESSION), &confirmed());
    bed.leases.detached(SESSION, bed.now);
    let sent = bed.send();
    bed.settle(sent[0], &Outcome::TimedOut);
    bed.now += RETRY;
    let sent = bed.send();
    let (every, wait) = (seconds(600), seconds(599));
    let too_soon = Outcome::Rejected(Rejection::TooSoon { id: "p".into(), every, wait });
    let returned = bed.settle(sent[0], &too_soon);
    assert_eq!(returned, Some(Returned { place: PLACE, safe: false, tries: 1 }), "it was not tried");
    assert_eq!(bed.leases.timeout(), Some(bed.now + wait));
}

#[test]
fn what_leaves_open_what_the_device_holds_takes_no_lease_off() {
    let mismatch = Rejection::Mismatch { id: "p".into(), expected: Value::Int(1), found: Value::Int(2) };
    for outcome in [Outcome::TimedOut, Outcome::Rejected(mismatch), Outcome::Busy] {
        let mut bed = Bed::new();
        bed.write(Grant::For(seconds(30)), &confirmed());
        bed.write(Grant::Free, &outcome);
        bed.write(Grant::For(seconds(300)), &outcome);
        bed.now += seconds(30);
        assert_eq!(bed.send().len(), 1, "{outcome:?}");
    }
    // It brings one where there was none, since it may have had its effect.
    let mut bed = Bed::new();
    bed.write(Grant::For(seconds(30)), &Outcome::TimedOut);
    bed.now += seconds(30);
    assert_eq!(bed.send().len(), 1);
}

#[test]
fn a_lease_ends_with_its_session() {
    let mut bed = Bed::new();
    bed.write(Grant::Session(SESSION), &confirmed());
    bed.leases.detached(SessionKey(8), bed.now);
    assert_eq!(bed.leases.timeout(), None);
    bed.leases.detached(SESSION, bed.now);
    assert_eq!(bed.send().len(), 1);
    // One whose session has gone while the write was under way.
    let mut bed = Bed::new();
    let id = bed.begin(Grant::Session(SESSION));
    bed.leases.settled(id, &confirmed(), bed.now, |_| false);
    assert_eq!(bed.send().len(), 1);
}

#[test]
fn a_write_that_renews_is_waited_for_a_moment() {
    let mut bed = Bed::new();
    bed.write(Grant::For(seconds(30)), &confirmed());
    bed.now += seconds(30);
    let renewal = bed.begin(Grant::For(seconds(30)));
    assert_eq!(bed.send(), []);
    bed.now += seconds(1);
    bed.settle(renewal, &confirmed());
    bed.now += seconds(1);
    assert_eq!(bed.send(), [], "it was renewed");
    bed.now += seconds(28);
    bed.begin(Grant::For(seconds(30)));
    bed.now += seconds(1);
    assert_eq!(bed.send(), []);
    bed.now += GRACE;
    assert_eq!(bed.send().len(), 1, "but not for ever");
}

#[test]
fn a_write_that_comes_while_the_safe_value_is_under_way_holds() {
    let mut bed = Bed::new();
    bed.write(Grant::Session(SESSION), &confirmed());
    bed.leases.detached(SESSION, bed.now);
    let sent = bed.send();
    bed.write(Grant::For(seconds(5)), &confirmed());
    let gone = Outcome::Rejected(Rejection::Superseded("p".into()));
    assert_eq!(bed.settle(sent[0], &gone), None);
    assert_eq!(bed.leases.timeout(), Some(bed.now + seconds(5)));
}

#[test]
fn a_write_that_took_the_place_of_a_safe_value_is_waited_for_like_one_that_renews() {
    let mut bed = Bed::new();
    bed.write(Grant::Session(SESSION), &confirmed());
    bed.leases.detached(SESSION, bed.now);
    let sent = bed.send();
    bed.begin(Grant::For(seconds(5)));
    bed.settle(sent[0], &Outcome::Rejected(Rejection::Superseded("p".into())));
    bed.now += RETRY;
    assert_eq!(bed.send(), []);
    bed.now += GRACE;
    assert_eq!(bed.send().len(), 1);
}

#[test]
fn a_product_that_changes_keeps_what_still_has_a_safe_value() {
    let mut bed = Bed::new();
    let old = product(vec![plain("a"), property("b", None), property("c", None)]);
    bed.write(Grant::For(seconds(30)), &confirmed());
    let brought = Brought { grants: vec![((0, 2), Grant::For(seconds(30)))], several: false };
    bed.leases.begin(CommandId(90), &"c".into(), brought);
    bed.leases.settled(CommandId(90), &confirmed(), bed.now, |_| true);
    let new = product(vec![property("b", None), plain("c")]);
    assert_eq!(bed.leases.changed(0, &old, &new), ["c".into()]);
    bed.now += seconds(30);
    let due = bed.leases.due(bed.now).unwrap();
    assert_eq!(due.place, (0, 0), "it has moved with its property");
    bed.leases.done(&due);
    assert_eq!(bed.leases.due(bed.now), None);
}

#[test]
fn leases_beyond_the_bound_are_refused_but_those_that_are_held_are_renewed() {
    let mut leases = Leases::default();
    let now = start();
    let grants = (0..LEASES).map(|slot| ((slot, 0), Grant::For(seconds(30)))).collect();
    leases.begin(CommandId(1), &"c".into(), Brought { grants, several: true });
    leases.settled(CommandId(1), &confirmed(), now, |_| true);
    let wish = Some(Lease::For(seconds(5)));
    let grant =
        |slot, value| leases.grant((slot, 0), &property("p", None), &Value::Int(value), wish, SESSION);
    assert_eq!(grant(0, 5), Ok(Grant::For(seconds(5))));
    assert_eq!(grant(LEASES, 5), Err(Rejection::TooManyLeases(LEASES)));
    assert_eq!(grant(LEASES, 0), Ok(Grant::Free), "what is safe needs no lease");
}

#[test]
fn so_many_safe_values_travel_at_once_and_the_rest_follows() {
    let mut bed = Bed::new();
    let grants = (0..200).map(|at| ((0, at), Grant::Session(SESSION))).collect();
    bed.leases.begin(CommandId(1000), &"c".into(), Brought { grants, several: true });
    bed.leases.settled(CommandId(1000), &confirmed(), bed.now, |_| true);
    bed.leases.detached(SESSION, bed.now);
    let mut written = 0;
    loop {
        let sent = bed.send();
        if sent.is_empty() {
            break;
        }
        assert!(sent.len() <= AT_ONCE);
        assert!(
            sent.len() < AT_ONCE || bed.leases.timeout().is_none(),
            "nothing is due while so many travel"
        );
        written += sent.len();
        for id in sent {
            bed.settle(id, &confirmed());
        }
    }
    assert_eq!(written, 200);
}

/// What may happen to one property.
#[derive(Clone, Copy, Debug)]
enum Event {
    Write(u8),
    /// Settles the oldest command that is under way.
    Settle(u8),
    Leave,
    Return,
    Doubt,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Event::Write),
        4 => (0..6_u8).prop_map(Event::Settle),
        1 => Just(Event::Leave),
        1 => Just(Event::Return),
        1 => Just(Event::Doubt),
        2 => (0..40_u64).prop_map(Event::Pass),
    ]
}

/// A model of the device, as far as leases are concerned.
#[derive(Default)]
struct Taker {
    /// The lease of what it took last, if that is leased, and since when.
    holds: Option<(Grant, Instant)>,
    /// How many safe values it took.
    safe: u32,
    /// How many leased ones.
    leased: u32,
}

impl Taker {
    /// Takes what a client wrote, or a safe value.
    fn take(&mut self, grant: Option<Grant>, now: Instant) {
        self.holds = match grant {
            Some(Grant::Free) => None,
            Some(grant) => {
                self.leased += 1;
                Some((grant, now))
            }
            None => {
                self.safe += 1;
                None
            }
        };
    }
}

proptest! {
    /// Against a model of the device: at the end of any story, when everything that travels has arrived and all
    /// sessions are gone, the device holds its safe value unless the last write that it took was free; and while a lease
    /// holds, no safe value is sent.
    #[test]
    fn every_lost_lease_leads_to_the_safe_value_and_none_that_is_kept(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut bed = Bed::new();
        let product = product(vec![plain("a"), property("b", None)]);
        // What travels, in order: its command, and `Some` for what a client wrote.
        let mut under_way: Vec<(CommandId, Option<Grant>)> = Vec::new();
        let mut device = Taker::default();
        // The session that is there, if one is; none comes back under its old number.
        let (mut there, mut last) = (true, 1_u64);
        // A result was unknown: then the device may hold anything that was leased.
        let mut unsure = false;
        for event in events {
            match event {
                Event::Write(kind) => {
                    let grant = match kind {
                        0 => Grant::Free,
                        1 => Grant::For(seconds(10)),
                        _ => Grant::Session(SessionKey(last)),
                    };
                    if there || !matches!(grant, Grant::Session(_)) {
                        under_way.push((bed.begin(grant), Some(grant)));
                    }
                }
                Event::Settle(detail) if !under_way.is_empty() => {
                    let (id, grant) = under_way.remove(0);
                    let outcome = match detail {
                        0 | 1 => confirmed(),
                        2 => Outcome::Offline,
                        3 => Outcome::Busy,
                        _ => Outcome::TimedOut,
                    };
                    unsure |= outcome == Outcome::TimedOut;
                    bed.leases.settled(id, &outcome, bed.now, |session| there && session == SessionKey(last));
                    // Of the unknown ones, some had their effect.
                    if matches!(detail, 0 | 1 | 4) {
                        device.take(grant, bed.now);
                    }
                }
                Event::Settle(_) => {}
                Event::Leave => {
                    there = false;
                    bed.leases.detached(SessionKey(last), bed.now);
                }
                Event::Return => {
                    last += u64::from(!there);
                    there = true;
                    bed.leases.online(0, &product, bed.now);
                }
                Event::Doubt => bed.leases.doubted(0, bed.now),
                Event::Pass(time) => bed.now += seconds(time),
            }
            let kept = match device.holds {
                Some((Grant::For(time), since)) => since + time > bed.now,
                Some((Grant::Session(session), _)) => there && session == SessionKey(last),
                Some((Grant::Free, _)) | None => false,
            };
            let only_this = under_way.is_empty();
            let sent = bed.send();
            // While something else travels, what the device will hold is not known.
            prop_assert!(!kept || !only_this || unsure || sent.is_empty(), "a lease that is kept was written over");
            under_way.extend(sent.into_iter().map(|id| (id, None)));
            let timed = bed.leases.held.values().filter(|held| matches!(held.phase, Phase::Until(_) | Phase::Lost { .. }));
            prop_assert_eq!(bed.leases.timers.len(), timed.count());
        }
        // Everything arrives, and time goes on.
        bed.leases.detached(SessionKey(last), bed.now);
        for _ in 0..100 {
            for (id, grant) in std::mem::take(&mut under_way) {
                bed.leases.settled(id, &confirmed(), bed.now, |_| false);
                device.take(grant, bed.now);
            }
            bed.now += seconds(10);
            under_way.extend(bed.send().into_iter().map(|id| (id, None)));
        }
        prop_assert_eq!(device.holds.map(|(grant, _)| grant), None, "a lost lease was left without its safe value");
        prop_assert!(unsure || device.safe <= device.leased, "{} safe values for {} leases", device.safe, device.leased);
        prop_assert!(bed.leases.held.is_empty() && bed.leases.begun.is_empty() && bed.leases.writing.is_empty());
    }
}

//! The bus without a port, against units that answer as a random plan says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::fixture::{device, holding};
use super::super::map::{Bits, Operand, Point, Step};
use super::*;
use crate::drivers::DriverAction;
use crate::model::time::UnixMillis;
use crate::model::value::Value;
use crate::proto::modbus::frame::Exception;

#[path = "field_tests.rs"]
mod field;
#[path = "safe_tests.rs"]
mod safe;
#[path = "setup_tests.rs"]
mod setup;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

struct Rig {
    core: Core,
    start: Instant,
    now: Instant,
    seen: Vec<Observation>,
    asked: Vec<(u8, Request)>,
}

impl Rig {
    fn new(devices: Vec<ModbusDevice>) -> Self {
        let now = start();
        Self { core: Core::new(devices, now), start: now, now, seen: Vec::new(), asked: Vec::new() }
    }

    fn now(&self) -> Now {
        let millis = self.now.duration_since(self.start).as_millis();
        Now::new(self.now, UnixMillis(i64::try_from(millis).unwrap()))
    }

    fn submit(&mut self, id: u64, device: &ModbusDevice, action: DriverAction, timeout: Duration) {
        self.order(id, device, action, timeout, false);
    }

    fn order(
        &mut self,
        id: u64,
        device: &ModbusDevice,
        action: DriverAction,
        timeout: Duration,
        urgent: bool,
    ) {
        let (id, device) = (CommandId(id), Arc::clone(&device.device));
        let command = DriverCommand { id, device, action, deadline: self.now + timeout, urgent };
        self.core.submit(&command, self.now());
        self.collect();
    }

    /// One turn; `answer` says what the unit answers, if anything. Sleeps at most `longest`.
    fn turn(&mut self, longest: Duration, answer: impl Fn(u8, &Request) -> Option<Answer>) {
        match self.core.next(self.now()) {
            Turn::Ask { unit, request } => {
                let answer = answer(unit, &request);
                self.now +=
                    if answer.is_some() { Duration::from_millis(10) } else { Duration::from_millis(300) };
                self.asked.push((unit, request));
                self.core.completed(answer.ok_or_else(|| "no answer".to_owned()), self.now());
            }
            Turn::Idle { until } => {
                let end = self.now + longest;
                self.now = until.map_or(end, |until| until.clamp(self.now, end));
            }
        }
        self.collect();
    }

    fn run(&mut self, seconds: u64, answer: impl Fn(u8, &Request) -> Option<Answer>) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            let longest = end.saturating_duration_since(self.now);
            self.turn(longest, &answer);
        }
    }

    fn collect(&mut self) {
        self.seen.extend(self.core.take_observations());
    }

    fn presences(&self) -> Vec<(String, bool)> {
        let told = |seen: &Observation| {
            let Observation::Presence { device, online, .. } = seen else { return None };
            Some((device.id.to_string(), *online))
        };
        self.seen.iter().filter_map(told).collect()
    }

    fn outcomes(&self) -> BTreeMap<u64, Vec<Outcome>> {
        let mut outcomes: BTreeMap<u64, Vec<Outcome>> = BTreeMap::new();
        for seen in &self.seen {
            if let Observation::Settled { command, outcome, .. } = seen {
                outcomes.entry(command.0).or_default().push(outcome.clone());
            }
        }
        outcomes
    }
}

/// A right answer out of a memory in which each register holds its address.
fn right(request: &Request) -> Answer {
    match request {
        Request::Read(span) => {
            Answer::Registers((span.address()..).take(usize::from(span.count())).collect())
        }
        Request::WriteCoil { .. }
        | Request::WriteRegister { .. }
        | Request::WriteCoils { .. }
        | Request::WriteRegisters { .. }
        | Request::MaskRegister { .. } => Answer::Written,
        Request::ReportServerId | Request::ReadIdentification => Answer::Data(Vec::new()),
    }
}

/// Units that all answer rightly, or not at all.
fn answering(alive: bool) -> impl Fn(u8, &Request) -> Option<Answer> {
    move |_, request| alive.then(|| right(request))
}

fn patient() -> Duration {
    Duration::from_secs(3600)
}

#[test]
fn a_device_is_neither_online_nor_offline_before_it_is_known() {
    let mut rig = Rig::new(vec![device(1, 1, vec![holding(10)], vec![])]);
    rig.run(2, answering(false));
    assert!(rig.presences().is_empty());
    rig.run(5, answering(false));
    assert_eq!(rig.presences(), [("dev-1".to_owned(), false)]);
    rig.run(20, answering(true));
    assert_eq!(rig.presences().last(), Some(&("dev-1".to_owned(), true)));
}

#[test]
fn devices_at_one_unit_share_its_fate() {
    let devices = vec![device(1, 7, vec![holding(10)], vec![]), device(2, 7, vec![holding(20)], vec![])];
    let mut rig = Rig::new(devices);
    rig.run(1, answering(true));
    assert_eq!(rig.presences(), [("dev-1".to_owned(), true), ("dev-2".to_owned(), true)]);
}

#[test]
fn a_gateway_that_cannot_reach_its_unit_is_a_silent_unit() {
    for code in [10, 11] {
        let mut rig = Rig::new(vec![device(1, 1, vec![holding(10)], vec![])]);
        rig.run(30, |_, _| Some(Answer::Exception(Exception(code))));
        assert_eq!(rig.presences(), [("dev-1".to_owned(), false)]);
    }
}

#[test]
fn a_refusal_is_an_answer_and_makes_the_device_online() {
    let mut rig = Rig::new(vec![device(1, 1, vec![holding(10)], vec![])]);
    rig.run(60, |_, _| Some(Answer::Exception(Exception(2))));
    assert_eq!(rig.presences(), [("dev-1".to_owned(), true)]);
    assert_eq!(rig.asked.len(), 1, "what is refused is asked for rarely");
    rig.run(600, answering(true));
    let values = rig.seen.iter().filter(|seen| {
        matches!(seen, Observation::Values { values, .. }
        if matches!(values.as_slice(), [(0, Sample::Value(_))]))
    });
    assert!(values.count() > 100, "and works again once it is told");
}

#[test]
fn a_busy_device_is_asked_again_in_its_turn() {
    let mut rig = Rig::new(vec![device(1, 1, vec![holding(10)], vec![])]);
    rig.run(10, |_, _| Some(Answer::Exception(Exception(6))));
    assert!(rig.asked.len() >= 9);
    assert!(!rig.seen.iter().any(|seen| matches!(seen, Observation::Values { .. })));
}

fn set(position: usize, value: i64) -> DriverAction {
    DriverAction::Write(vec![(position, Value::Int(value))])
}

/// What was written where, in order.
fn writes(asked: &[(u8, Request)]) -> Vec<(u16, u16)> {
    let write = |(_, request): &(u8, Request)| {
        let Request::WriteRegister { address, value } = request else { return None };
        Some((*address, *value))
    };
    asked.iter().filter_map(write).collect()
}

fn superseded(property: &str) -> [Outcome; 1] {
    [Outcome::Rejected(Rejection::Superseded(property.into()))]
}

/// Answers as a memory that keeps what is written.
fn remembering() -> impl Fn(u8, &Request) -> Option<Answer> {
    let memory = std::cell::RefCell::new(BTreeMap::<u16, u16>::new());
    move |_, request| {
        if let Request::WriteRegister { address, value } = request {
            memory.borrow_mut().insert(*address, *value);
        }
        let Request::Read(span) = request else { return Some(right(request)) };
        let word = |address| memory.borrow().get(&address).copied().unwrap_or(address);
        Some(Answer::Registers((span.address()..).take(span.count().into()).map(word).collect()))
    }
}

#[test]
fn of_writes_that_wait_the_last_value_wins() {
    let thing = device(1, 1, vec![holding(10), holding(11)], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    rig.submit(1, &thing, set(0, 1), patient());
    rig.submit(2, &thing, set(0, 2), patient());
    let both = DriverAction::Write(vec![(0, Value::Int(3)), (1, Value::Int(4))]);
    rig.submit(3, &thing, both, patient());
    // This one does not cover what waits, so both are made in order.
    rig.submit(4, &thing, set(1, 5), patient());
    rig.run(1, &answer);
    assert_eq!(writes(&rig.asked), [(10, 3), (11, 4), (11, 5)]);
    let outcomes = rig.outcomes();
    assert_eq!((&outcomes[&1][..], &outcomes[&2][..]), (&superseded("p0")[..], &superseded("p0")[..]));
    assert!(matches!(outcomes[&3][..], [Outcome::Confirmed { .. }]));
    assert!(matches!(outcomes[&4][..], [Outcome::Confirmed { .. }]));
}

#[test]
fn what_wears_out_is_written_no_more_often_than_it_may() {
    let worn = Point { write_interval: Some(Duration::from_secs(10)), ..holding(10) };
    let thing = device(1, 1, vec![worn, holding(11)], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    rig.submit(1, &thing, set(0, 1), patient());
    rig.run(1, &answer);
    // A write that can wait does, and others go ahead; the last of those that wait is made.
    rig.submit(2, &thing, set(0, 2), Duration::from_secs(30));
    rig.submit(3, &thing, set(0, 3), Duration::from_secs(30));
    rig.submit(4, &thing, set(1, 9), patient());
    // One that cannot is refused.
    rig.submit(5, &thing, set(0, 4), Duration::from_secs(2));
    rig.run(7, &answer);
    assert_eq!(writes(&rig.asked), [(10, 1), (11, 9)]);
    rig.run(3, &answer);
    assert_eq!(writes(&rig.asked), [(10, 1), (11, 9), (10, 3)]);
    let outcomes = rig.outcomes();
    assert_eq!(outcomes[&2], superseded("p0"));
    assert!(matches!(outcomes[&3][..], [Outcome::Confirmed { .. }]));
    let Outcome::Rejected(rejection) = &outcomes[&5][0] else { panic!("{:?}", outcomes[&5]) };
    let words = "p0 may be written once in 10 s, and was a moment ago; nothing was changed";
    assert_eq!(rejection.to_string(), words);
}

#[test]
fn a_function_that_writes_what_wears_out_counts_as_a_write_of_it() {
    let worn = Point { write_interval: Some(Duration::from_secs(10)), ..holding(10) };
    let step = |address| Step::Write { point: holding(address), value: Operand::Constant(Value::Int(5)) };
    let thing = device(1, 1, vec![worn, holding(11)], vec![vec![step(10)], vec![step(11)]]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    let call = |function| DriverAction::Invoke { function, inputs: Vec::new() };
    rig.submit(1, &thing, call(0), patient());
    rig.run(1, &answer);
    rig.submit(2, &thing, set(0, 2), Duration::from_secs(2));
    rig.submit(3, &thing, call(0), Duration::from_secs(2));
    // Another register is nobody's.
    rig.submit(4, &thing, call(1), patient());
    rig.run(1, &answer);
    assert_eq!(writes(&rig.asked), [(10, 5), (11, 5)]);
    let outcomes = rig.outcomes();
    for id in [2, 3] {
        assert!(matches!(outcomes[&id][..], [Outcome::Rejected(Rejection::TooSoon { .. })]), "{outcomes:?}");
    }
}

#[test]
fn nothing_comes_between_the_read_and_the_write_of_a_bit() {
    let bit = Point { bits: Some(Bits { first: 3, count: 1 }), ..holding(10) };
    let busy = Point { every: Duration::from_millis(10), ..holding(20) };
    let thing = device(1, 1, vec![bit, busy.clone()], vec![]);
    let other = device(2, 2, vec![busy], vec![]);
    let mut rig = Rig::new(vec![thing.clone(), other.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    for id in 0..20 {
        rig.submit(2 * id, &thing, set(0, i64::try_from(id % 2).unwrap()), patient());
        rig.submit(2 * id + 1, &other, set(0, 7), patient());
        rig.run(1, &answer);
    }
    let reads = |at: usize| matches!(&rig.asked[at], (1, Request::Read(span)) if span.address() == 10);
    let mut seen = 0;
    for at in 0..rig.asked.len() {
        if matches!(rig.asked[at], (1, Request::WriteRegister { address: 10, .. })) {
            assert!(reads(at - 1), "{:?}", &rig.asked[at - 1..=at]);
            seen += 1;
        }
    }
    assert_eq!(seen, 20);
    // Register 10 held 10, which has bit 3; what is around it stays.
    assert_eq!(
        writes(&rig.asked).into_iter().filter(|(at, _)| *at == 10).map(|(_, word)| word).min(),
        Some(2)
    );
}

#[test]
fn a_device_keeps_its_pause_between_the_read_and_the_write_of_a_bit() {
    let pause = Duration::from_millis(50);
    let bit = Point { bits: Some(Bits { first: 3, count: 1 }), ..holding(10) };
    let mut thing = device(1, 1, vec![bit], vec![]);
    thing.map = Arc::new(super::super::map::ModbusMap { pause, ..(*thing.map).clone() });
    let other = device(2, 2, vec![Point { every: Duration::from_millis(10), ..holding(20) }], vec![]);
    let mut rig = Rig::new(vec![thing.clone(), other]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.submit(1, &thing, set(0, 0), patient());
    let mut asked: Vec<(Instant, u8, bool)> = Vec::new();
    let end = rig.now + Duration::from_secs(1);
    while rig.now < end {
        let (before, now) = (rig.asked.len(), rig.now);
        rig.turn(Duration::from_millis(500), &answer);
        asked.extend(rig.asked[before..].iter().map(|(unit, request)| (now, *unit, request.is_read())));
    }
    let write = asked.iter().position(|(_, _, is_read)| !is_read).expect("the bit was written");
    let (read_at, unit, is_read) = asked[write - 1];
    assert_eq!((unit, is_read), (1, true), "nothing comes between");
    let (write_at, ..) = asked[write];
    // The answer takes ten milliseconds.
    assert_eq!(write_at - read_at, Duration::from_millis(10) + pause);
    let own: Vec<Instant> = asked.iter().filter(|(_, unit, _)| *unit == 1).map(|(at, ..)| *at).collect();
    assert!(own.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(10) + pause), "{own:?}");
}

#[test]
fn reads_that_wait_together_are_one_request_and_expire_apart() {
    let thing = device(1, 1, vec![holding(10)], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    rig.run(1, answering(true));
    rig.asked.clear();
    rig.submit(1, &thing, DriverAction::Read(vec![0]), Duration::from_millis(1));
    rig.submit(2, &thing, DriverAction::Read(vec![0]), patient());
    rig.submit(3, &thing, DriverAction::Read(vec![0]), patient());
    rig.now += Duration::from_millis(1);
    rig.turn(patient(), answering(true));
    let outcomes = rig.outcomes();
    assert_eq!(outcomes[&1], [Outcome::Rejected(Rejection::Expired)]);
    for id in [2, 3] {
        assert!(matches!(outcomes[&id][..], [Outcome::Confirmed { .. }]));
    }
    assert_eq!(rig.asked.len(), 1);
}

#[test]
fn a_flood_of_commands_is_not_taken_beyond_a_limit() {
    let thing = device(1, 1, vec![holding(10)], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let mut id = 0;
    while rig.core.has_room() {
        rig.submit(id, &thing, DriverAction::Read(vec![0]), patient());
        id += 1;
    }
    assert_eq!(usize::try_from(id), Ok(COMMANDS_HELD));
}

/// Answers like a device that does not have register 11.
fn without_register_11(request: &Request) -> Answer {
    let asks = matches!(request, Request::Read(span) if span.address() <= 11 && span.end() > 11);
    if asks { Answer::Exception(Exception(2)) } else { right(request) }
}

fn spans(asked: &[(u8, Request)]) -> Vec<String> {
    asked.iter().map(|(_, request)| request.to_string()).collect()
}

#[test]
fn what_was_learned_of_a_unit_is_forgotten_when_it_goes() {
    let thing = || device(1, 1, vec![holding(10), holding(11), holding(12)], vec![]);
    let mut rig = Rig::new(vec![thing()]);
    rig.run(3, |_, request| Some(without_register_11(request)));
    let whole = "read of holding registers 10 to 12".to_owned();
    assert_eq!(spans(&rig.asked).iter().filter(|asked| **asked == whole).count(), 1, "split for good");
    rig.run(10, answering(false));
    rig.asked.clear();
    rig.run(20, answering(true));
    assert!(spans(&rig.asked).contains(&whole), "{:?}", spans(&rig.asked));
    assert_eq!(rig.core.polls.len(), 1);
    // However often it goes and returns, nothing is left behind.
    for _ in 0..5 {
        rig.run(20, |_, request| Some(without_register_11(request)));
        rig.core.link_lost("unplugged", rig.now());
        rig.core.link_found(rig.now);
    }
    assert_eq!(rig.core.polls.len(), 1);
}

#[test]
fn an_offline_unit_is_probed_by_a_single_place() {
    let mut rig = Rig::new(vec![device(1, 1, vec![holding(10), holding(11)], vec![])]);
    rig.run(10, answering(false));
    assert_eq!(rig.presences(), [("dev-1".to_owned(), false)]);
    rig.asked.clear();
    rig.run(30, answering(false));
    assert!(rig.asked.len() > 2);
    assert!(spans(&rig.asked).iter().all(|asked| asked == "read of holding register 10"), "{:?}", rig.asked);
    rig.asked.clear();
    rig.run(10, answering(true));
    assert_eq!(spans(&rig.asked)[..2], ["read of holding register 10", "read of holding registers 10 to 11"]);
}

#[derive(Clone, Debug)]
enum Event {
    Command { device: usize, kind: u8, timeout_ms: u64 },
    Turns(u8),
    LinkLost,
    Interrupt,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_usize, 0..5_u8, 0..5000_u64)
            .prop_map(|(device, kind, timeout_ms)| Event::Command { device, kind, timeout_ms }),
        6 => (1..20_u8).prop_map(Event::Turns),
        1 => Just(Event::LinkLost),
        1 => Just(Event::Interrupt),
    ]
}

/// A device that wants a pause, is set up and looked after, and says how long it has been running.
fn particulars(thing: ModbusDevice, setup: &[Step]) -> ModbusDevice {
    let map = super::super::map::ModbusMap {
        setup: setup.to_vec(),
        setup_check: Some(Duration::from_secs(1)),
        uptime: Some(0),
        pause: Duration::from_millis(30),
        ..(*thing.map).clone()
    };
    ModbusDevice { map: Arc::new(map), ..thing }
}

proptest! {
    #[test]
    fn whatever_happens_each_command_is_settled_once_and_presence_alternates(
        events in prop::collection::vec(any_event(), 0..40),
        answers in prop::collection::vec(0..12_u8, 1..40),
        particular in any::<bool>(),
    ) {
        let steps = vec![
            Step::Write { point: holding(30), value: Operand::Constant(Value::Int(1)) },
            Step::Wait(Duration::from_millis(200)),
            Step::Write { point: holding(31), value: Operand::Constant(Value::Int(2)) },
        ];
        let things: Vec<ModbusDevice> = (0..3)
            .map(|at| {
                let bit = Point { bits: Some(Bits { first: 3, count: 1 }), ..holding(40) };
                let points = vec![holding(10), holding(11), holding(20), bit];
                let thing = device(at, u8::try_from(at / 2).unwrap(), points, vec![steps.clone()]);
                if particular { particulars(thing, &steps) } else { thing }
            })
            .collect();
        let mut rig = Rig::new(things.clone());
        let mut commands = 0;
        let turn = |rig: &mut Rig| {
            let plan = answers[rig.asked.len() % answers.len()];
            rig.turn(Duration::from_millis(500), |_, request| match plan {
                0..=5 => Some(right(request)),
                6 => Some(Answer::Exception(Exception(2))),
                7 => Some(Answer::Exception(Exception(5))),
                8 => Some(Answer::Exception(Exception(11))),
                _ => None,
            });
        };
        for event in events {
            match event {
                Event::Command { device, kind, timeout_ms } => {
                    let action = match kind {
                        0 => DriverAction::Read(vec![0, 2]),
                        1 => DriverAction::Write(vec![(0, Value::Int(10)), (1, Value::Int(99))]),
                        2 => DriverAction::Write(vec![(0, Value::Int(-1))]),
                        3 => DriverAction::Write(vec![(3, Value::Int(1))]),
                        _ => DriverAction::Invoke { function: 0, inputs: vec![] },
                    };
                    rig.submit(commands, &things[device], action, Duration::from_millis(timeout_ms));
                    commands += 1;
                }
                Event::Turns(count) => (0..count).for_each(|_| turn(&mut rig)),
                Event::LinkLost => {
                    rig.core.link_lost("unplugged", rig.now());
                    rig.submit(commands, &things[0], DriverAction::Read(vec![0]), patient());
                    commands += 1;
                    rig.core.link_found(rig.now);
                }
                Event::Interrupt => {
                    drop(rig.core.next(rig.now()));
                    rig.core.interrupted(rig.now());
                }
            }
        }
        rig.core.stop(rig.now());
        rig.collect();

        let outcomes = rig.outcomes();
        prop_assert_eq!(outcomes.len(), usize::try_from(commands).unwrap());
        prop_assert!(outcomes.values().all(|outcomes| outcomes.len() == 1), "{:?}", outcomes);

        let mut online: BTreeMap<String, bool> = BTreeMap::new();
        let mut accepted: Vec<CommandId> = Vec::new();
        for seen in &rig.seen {
            match seen {
                Observation::Presence { device, online: now, .. } => {
                    prop_assert_ne!(online.insert(device.id.to_string(), *now), Some(*now));
                }
                Observation::Values { device, .. } => {
                    prop_assert_eq!(online.get(&*device.id), Some(&true), "values of a device that is not online");
                }
                Observation::Accepted { command } => {
                    prop_assert!(!accepted.contains(command));
                    accepted.push(*command);
                }
                Observation::Settled { command, outcome, .. } => {
                    let sent = accepted.contains(command);
                    match outcome {
                        Outcome::Confirmed { .. } | Outcome::TimedOut => prop_assert!(sent),
                        Outcome::Busy | Outcome::Offline | Outcome::Forbidden => prop_assert!(!sent),
                        Outcome::Rejected(
                            Rejection::Expired | Rejection::Superseded(_) | Rejection::TooSoon { .. },
                        ) => prop_assert!(!sent),
                        Outcome::Rejected(_) => {}
                    }
                }
                Observation::Event { .. }
                | Observation::Doubt { .. }
                | Observation::Publish { .. }
                | Observation::Ota { .. }
                | Observation::Link { .. } => {}
            }
        }
    }
}

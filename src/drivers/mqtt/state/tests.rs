//! Tests of presence, readings and commands, in simulated time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::drivers::mqtt::MqttDevice;
use crate::drivers::mqtt::ledger::COMMANDS_IN_FLIGHT;
use crate::drivers::mqtt::map::{Availability, Call, MqttMap, Part, Place, Point, Publish, Reply, Source};
use crate::drivers::mqtt::plan::ACKNOWLEDGE_WITHIN;
use crate::model::device::Device;
use crate::model::product::{Access, Function, Product, Property};
use crate::model::value::ValueType;

const POWER: usize = 0;
const LEVEL: usize = 1;
const FIXED: usize = 2;

const REPLY: Duration = Duration::from_secs(3);

#[path = "announced_tests.rs"]
mod announced;
#[path = "back_tests.rs"]
mod back;
#[path = "found_tests.rs"]
mod found;
#[path = "members_tests.rs"]
mod members;
#[path = "reads_tests.rs"]
mod reads;
#[path = "worn_tests.rs"]
mod worn;

/// A state with a simulated clock.
struct Bed {
    state: State,
    now: Now,
    device: Arc<Device>,
    next: u64,
}

impl Bed {
    fn new(change: impl Fn(&mut MqttMap)) -> Self {
        let mut map = map();
        change(&mut map);
        let device = device();
        let mqtt = MqttDevice { device: Arc::clone(&device), topic: "d".into(), map: Arc::new(map) };
        let (now, members) = (crate::clock::now(), Members { devices: vec![mqtt], ..Members::default() });
        let (state, errors) = State::new("local".into(), &"g".into(), &members, now);
        assert_eq!(errors, []);
        Self { state, now, device, next: 0 }
    }

    fn connected(change: impl Fn(&mut MqttMap)) -> Self {
        let mut bed = Self::new(change);
        bed.state.handle_connected(bed.now);
        assert!(matches!(bed.seen().as_slice(), [Observation::Link { up: true, .. }]));
        bed
    }

    fn wait(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
        if self.state.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.state.handle_timeout(self.now);
        }
    }

    fn message(&mut self, topic: &str, payload: &str) {
        self.receive(topic, payload.as_bytes(), false);
    }

    fn retained(&mut self, topic: &str, payload: &str) {
        self.receive(topic, payload.as_bytes(), true);
    }

    fn receive(&mut self, topic: &str, payload: &[u8], retain: bool) {
        let payload = payload.to_vec().into();
        let message = Message { topic: topic.into(), payload, retain, ..Message::default() };
        self.state.handle_message(&message, self.now);
    }

    fn lose(&mut self) {
        self.state.handle_disconnected("gone: why", "gone", self.now);
    }

    fn write(&mut self, values: &[(usize, Value)]) -> CommandId {
        self.command(DriverAction::Write(values.to_vec()))
    }

    fn command(&mut self, action: DriverAction) -> CommandId {
        self.next += 1;
        let id = CommandId(self.next);
        let deadline = self.now.instant + Duration::from_secs(5);
        let device = Arc::clone(&self.device);
        self.state.handle_command(&DriverCommand { id, device, action, deadline, urgent: false }, self.now);
        id
    }

    /// The next message, written by the connection.
    fn sent(&mut self) -> Outgoing {
        let message = self.state.poll_publish().expect("a message to send");
        if message.qos == 0 {
            self.state.handle_acknowledged(message.ticket, self.now);
        }
        message
    }

    fn seen(&mut self) -> Vec<Observation> {
        std::iter::from_fn(|| self.state.poll_observation()).collect()
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        let outcome = |seen| {
            let Observation::Settled { outcome, .. } = seen else { return None };
            Some(outcome)
        };
        self.seen().into_iter().filter_map(outcome).collect()
    }

    fn presence(&mut self) -> Vec<bool> {
        let online = |seen| {
            let Observation::Presence { online, .. } = seen else { return None };
            Some(online)
        };
        self.seen().into_iter().filter_map(online).collect()
    }
}

fn confirmed(values: &[(&str, Value)]) -> Outcome {
    let values = values.iter().map(|(id, value)| ((*id).into(), value.clone())).collect();
    Outcome::Confirmed { values, outputs: vec![] }
}

fn with_availability(map: &mut MqttMap) {
    map.availability = vec![Availability {
        place: Place::of("{topic}/lwt"),
        part: Part::Path("state".into()),
        online: vec![Value::text("online")],
        offline: vec![Value::text("offline")],
    }];
}

#[test]
fn without_an_availability_topic_any_message_means_online() {
    let mut bed = Bed::connected(|_| ());
    bed.retained("d/state", r#"{"power":true}"#);
    assert_eq!(bed.presence(), [true]);
    bed.message("d/state", r#"{"power":true}"#);
    assert!(bed.presence().is_empty(), "said once");
}

#[test]
fn the_availability_topic_outweighs_values() {
    let mut bed = Bed::connected(with_availability);
    bed.retained("d/state", r#"{"power":true}"#);
    assert!(bed.presence().is_empty(), "a kept value may outlive its device");
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(bed.presence(), [true], "a fresh one counts until the topic has spoken");
    bed.retained("d/lwt", r#"{"state":"Offline"}"#);
    assert_eq!(bed.presence(), [false]);
    bed.message("d/state", r#"{"power":true}"#);
    assert!(bed.presence().is_empty(), "a bridge may answer for a device that is gone");
    bed.message("d/lwt", r#"{"state":"something else"}"#);
    bed.message("d/lwt", "no json");
    bed.message("d/lwt", "");
    assert!(bed.presence().is_empty());
    bed.message("d/lwt", r#"{"state":"online"}"#);
    assert_eq!(bed.presence(), [true]);
}

#[test]
fn silence_takes_a_device_offline_and_a_message_brings_it_back() {
    let mut bed = Bed::connected(|map| {
        with_availability(map);
        map.offline_after = Some(Duration::from_secs(60));
    });
    assert_eq!(bed.state.poll_timeout(), None);
    bed.retained("d/lwt", r#"{"state":"online"}"#);
    bed.wait(Duration::from_secs(59));
    assert_eq!(bed.presence(), [true]);
    bed.wait(Duration::from_secs(1));
    let seen = bed.seen();
    let [Observation::Presence { online: false, reason: Some(reason), .. }] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!(&**reason, "nothing was heard of it for 60 s");
    assert_eq!(bed.state.poll_timeout(), None);
    bed.message("d/state", r#"{"level":1}"#);
    assert_eq!(bed.presence(), [true]);
}

#[test]
fn a_lost_broker_is_said_once_for_the_link_and_each_device() {
    let mut bed = Bed::new(|_| ());
    bed.lose();
    bed.lose();
    let seen = bed.seen();
    assert!(
        matches!(
            seen.as_slice(),
            [Observation::Link { up: false, .. }, Observation::Presence { online: false, .. }]
        ),
        "{seen:?}"
    );
    assert!(bed.state.is_down());
}

#[test]
fn what_the_gateway_itself_publishes_proves_nothing() {
    let mut bed = Bed::connected(|map| {
        map.publish = vec![Place::of("{topic}/#")];
        map.properties[LEVEL].as_mut().unwrap().sources =
            vec![Source { place: Place::of("{topic}/level/set"), part: Part::Whole }];
    });
    bed.message("d/level/set", "7");
    let seen = bed.seen();
    assert!(matches!(seen.as_slice(), [Observation::Values { .. }]), "{seen:?}");
    bed.message("d/level/else", "7");
    let seen = bed.seen();
    assert!(
        matches!(seen.as_slice(), [Observation::Presence { online: true, .. }, Observation::Publish { .. }]),
        "{seen:?}"
    );
}

#[test]
fn a_message_without_any_of_the_members_is_no_reading_and_a_broken_one_is() {
    let mut bed = Bed::connected(|_| ());
    bed.message("d/state", r#"{"linkquality":3}"#);
    bed.message("d/state", "");
    assert_eq!(bed.seen(), []);
    bed.message("d/state", "{");
    let seen = bed.seen();
    let [_, Observation::Values { values, .. }] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(values.len(), 2);
    assert!(values.iter().all(|(_, sample)| matches!(sample, Sample::Unreadable(_))));
}

#[test]
fn a_raw_message_beyond_the_bound_is_not_passed_on() {
    let mut bed = Bed::connected(|map| map.publish = vec![Place::of("{topic}/raw")]);
    bed.message("d/raw", &"x".repeat(LARGEST_RAW + 1));
    assert!(!bed.seen().iter().any(|seen| matches!(seen, Observation::Publish { .. })));
    bed.receive("d/raw", b"\xff ok", false);
    let seen = bed.seen();
    assert!(matches!(seen.as_slice(), [Observation::Publish { payload, .. }] if &**payload == "\u{fffd} ok"));
}

#[test]
fn several_values_are_confirmed_together() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(POWER, Value::Bool(true)), (LEVEL, Value::Int(7))]);
    assert!(matches!(bed.seen().as_slice(), [Observation::Accepted { .. }]));
    let (power, level) = (bed.sent(), bed.sent());
    assert_eq!((power.payload.as_str(), &*level.topic, level.payload.as_str()), ("true", "d/level/set", "7"));
    bed.state.handle_acknowledged(power.ticket, bed.now);
    bed.state.handle_acknowledged(level.ticket, bed.now);
    assert_eq!(bed.outcomes(), [], "the power is confirmed by its own report alone");
    bed.message("d/state", r#"{"power":false}"#);
    bed.message("d/state", r#"{"power":"on"}"#);
    assert_eq!(bed.outcomes(), [confirmed(&[("power", Value::Bool(true)), ("level", Value::Int(7))])]);
    assert_eq!(bed.state.poll_timeout(), None);
}

#[test]
fn a_report_before_the_message_left_confirms_nothing() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(POWER, Value::Bool(true))]);
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(bed.outcomes(), []);
}

#[test]
fn another_value_is_a_mismatch_only_when_time_is_over() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(POWER, Value::Bool(true))]);
    bed.sent();
    bed.message("d/state", r#"{"power":false}"#);
    bed.wait(Duration::from_millis(2_999));
    assert_eq!(bed.outcomes(), []);
    bed.wait(Duration::from_millis(1));
    let mismatch =
        Rejection::Mismatch { id: "power".into(), expected: Value::Bool(true), found: Value::Bool(false) };
    assert_eq!(bed.outcomes(), [Outcome::Rejected(mismatch)]);
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(bed.outcomes(), [], "settled once");
}

#[test]
fn a_broker_that_does_not_acknowledge_leaves_the_result_unknown() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(LEVEL, Value::Int(7))]);
    bed.sent();
    bed.wait(ACKNOWLEDGE_WITHIN);
    assert_eq!(bed.outcomes(), [Outcome::TimedOut]);
}

#[test]
fn quality_zero_is_done_when_it_is_written() {
    let mut bed =
        Bed::connected(|map| map.properties[LEVEL].as_mut().unwrap().write.as_mut().unwrap().qos = 0);
    bed.write(&[(LEVEL, Value::Int(7))]);
    bed.sent();
    assert_eq!(bed.outcomes(), [confirmed(&[("level", Value::Int(7))])]);
}

#[test]
fn what_could_not_be_sent_by_its_deadline_is_never_sent() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(LEVEL, Value::Int(7))]);
    bed.wait(Duration::from_secs(5));
    assert_eq!(bed.outcomes(), [Outcome::Busy]);
    assert_eq!(bed.state.poll_publish(), None);
    let late = bed.now.instant;
    let action = DriverAction::Write(vec![(LEVEL, Value::Int(7))]);
    let device = Arc::clone(&bed.device);
    bed.state.handle_command(
        &DriverCommand { id: CommandId(9), device, action, deadline: late, urgent: false },
        bed.now,
    );
    assert_eq!(bed.outcomes(), [Outcome::Busy]);
}

#[test]
fn a_lost_broker_settles_what_was_sent_as_unknown_and_the_rest_as_offline() {
    let mut bed = Bed::connected(|_| ());
    bed.write(&[(LEVEL, Value::Int(1))]);
    bed.sent();
    bed.write(&[(LEVEL, Value::Int(2))]);
    bed.lose();
    assert_eq!(bed.outcomes(), [Outcome::TimedOut, Outcome::Offline]);
    bed.state.handle_connected(bed.now);
    assert_eq!(bed.state.poll_publish(), None, "nothing outlives its connection");
}

#[test]
fn commands_beyond_the_bound_are_busy() {
    let mut bed = Bed::connected(|_| ());
    for _ in 0..=COMMANDS_IN_FLIGHT {
        bed.write(&[(LEVEL, Value::Int(1))]);
    }
    assert_eq!(bed.outcomes(), [Outcome::Busy]);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let mut bed = Bed::connected(|_| ());
    let long = Value::text("x".repeat(LARGEST_PAYLOAD + 1));
    for (action, outcome) in [
        (DriverAction::Read(vec![POWER]), by_device("it reports by itself and cannot be asked")),
        (
            DriverAction::Write(vec![(LEVEL, Value::Int(1)), (FIXED, Value::Int(1))]),
            Outcome::Rejected(Rejection::ReadOnly("fixed".into())),
        ),
        (DriverAction::Write(vec![]), Outcome::Rejected(Rejection::Empty)),
        (DriverAction::Write(vec![(LEVEL, long)]), by_device("the message would be too large")),
        (
            DriverAction::Invoke { function: 1, inputs: vec![] },
            by_device("the function is not bound to a topic"),
        ),
    ] {
        bed.command(action.clone());
        assert_eq!(bed.outcomes(), [outcome], "{action:?}");
        assert_eq!(bed.state.poll_publish(), None, "{action:?}");
    }
}

fn with_reads(map: &mut MqttMap) {
    for (property, topic) in [(POWER, "{topic}/power/get"), (LEVEL, "{topic}/level/get")] {
        let read = Publish {
            topic: topic.into(),
            payload: "".into(),
            template: None,
            reply: Some(Reply { timeout: REPLY, answer: None }),
            qos: 1,
            retain: false,
            user: vec![],
        };
        map.properties[property].as_mut().unwrap().read = Some(read);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(usize),
    Read(usize),
    Send,
    Acknowledge(usize),
    Report(bool),
    Wait(u64),
    Lose,
    Connect,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0_usize..2).prop_map(Act::Write),
        2 => (0_usize..2).prop_map(Act::Read),
        3 => Just(Act::Send),
        2 => (0_usize..8).prop_map(Act::Acknowledge),
        2 => any::<bool>().prop_map(Act::Report),
        1 => (0_u64..6_000).prop_map(Act::Wait),
        1 => Just(Act::Lose),
        1 => Just(Act::Connect),
    ];
    proptest::collection::vec(act, 0..60)
}

proptest! {
    #[test]
    fn every_command_is_settled_exactly_once(acts in acts()) {
        let mut bed = Bed::connected(with_reads);
        let mut sent = Vec::new();
        let mut given = Vec::new();
        let mut settled = Vec::new();
        for act in acts {
            match act {
                Act::Write(POWER) => given.push(bed.write(&[(POWER, Value::Bool(true)), (LEVEL, Value::Int(1))])),
                Act::Write(property) => given.push(bed.write(&[(property, Value::Int(1))])),
                Act::Read(POWER) => given.push(bed.command(DriverAction::Read(vec![POWER, LEVEL]))),
                Act::Read(property) => given.push(bed.command(DriverAction::Read(vec![property]))),
                Act::Send => if let Some(message) = bed.state.poll_publish() {
                    if message.qos == 0 {
                        bed.state.handle_acknowledged(message.ticket, bed.now);
                    }
                    sent.push(message.ticket);
                },
                Act::Acknowledge(at) => if let Some(ticket) = sent.get(at) {
                    bed.state.handle_acknowledged(*ticket, bed.now);
                },
                Act::Report(on) => bed.message("d/state", &format!(r#"{{"power":{on}}}"#)),
                Act::Wait(time) => bed.wait(Duration::from_millis(time)),
                Act::Lose => bed.lose(),
                Act::Connect => bed.state.handle_connected(bed.now),
            }
            settled.extend(bed.seen());
        }
        bed.state.handle_stop(bed.now);
        settled.extend(bed.seen());
        let mut ids: Vec<_> = settled.iter().filter_map(|seen| { let Observation::Settled { command, .. } = seen else { return None }; Some(*command) }).collect();
        ids.sort();
        prop_assert_eq!(ids, given);
        prop_assert_eq!(bed.state.poll_publish(), None, "nobody wants anything any more");
        prop_assert_eq!(bed.state.ledger.unanswered(0).count(), 0);
    }
}

fn device() -> Arc<Device> {
    let property = |id: &str, kind| Property { access: Access::ReadWrite, ..Property::new(id, kind) };
    let function = |id: &str| Function::new(id);
    let product = Product {
        id: "p".into(),
        name: "p".into(),
        type_id: "p".into(),
        properties: vec![
            property("power", ValueType::Bool),
            property("level", ValueType::Int),
            property("fixed", ValueType::Int),
        ],
        functions: vec![function("reset"), function("unbound")],
        events: vec![],
    };
    Arc::new(Device {
        id: "d-1".into(),
        name: "d-1".into(),
        product: Arc::new(product),
        link: "local".into(),
        project: "1".into(),
        area: "1".into(),
        tags: vec![],
        uuid: "0000-0000-0000-0001".into(),
        mac: "000000000001".into(),
    })
}

fn map() -> MqttMap {
    let publish = |topic: &str, reply| Publish {
        topic: topic.into(),
        payload: "{value}".into(),
        template: None,
        qos: 1,
        retain: false,
        user: vec![],
        reply,
    };
    let point = |path: &str, write| {
        let sources = vec![Source { place: Place::of("{topic}/state"), part: Part::Path(path.into()) }];
        Some(Point {
            sources,
            scale: 1.0,
            offset: 0.0,
            on: None,
            off: None,
            write,
            write_interval: None,
            read: None,
        })
    };
    let mut fixed = point("fixed", None);
    fixed.as_mut().unwrap().sources.clear();
    MqttMap {
        properties: vec![
            point("power", Some(publish("{topic}/power/set", Some(Reply { timeout: REPLY, answer: None })))),
            point("level", Some(publish("{topic}/level/set", None))),
            fixed,
        ],
        functions: vec![Some(Call { publish: publish("{topic}/reset", None), answer: None }), None],
        ..MqttMap::default()
    }
}

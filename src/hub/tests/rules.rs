//! Time in the rules of a product: stale readings, the kinds of report, alarms with delays, rates and silence, events of
//! bits. The rig here has one device of a product that each test makes.

use proptest::prelude::*;

use super::*;
use crate::drivers::DriverAction;
use crate::model::expression::{Kind, Name, parse};
use crate::model::product::{Direction, Edge, Operand, Rate, ReportOn, Step};

const VALUE: usize = 0;

/// A rig with the device `d` of a product with these properties and events, which session 1 watches.
fn rig(properties: Vec<Property>, events: Vec<EventType>) -> Rig {
    let product = Product { events, functions: Vec::new(), ..press_with(properties) };
    let devices = vec![device("d", &Arc::new(product), "rs485", "1")];
    let link = Arc::new(Link { id: "rs485".into(), address: "?".into(), readable: true });
    let mut rig = Rig::of(Directory::new(devices, vec![link]));
    rig.watcher(1, &all_rights("demo"));
    rig.presence("d", true);
    assert_eq!(rig.heard(1), ["d online"]);
    rig
}

fn float(id: &str) -> Property {
    property(id, ValueType::Float, Access::Read)
}

fn alarmed(rules: Vec<AlarmRule>) -> Vec<Property> {
    vec![Property { alarms: rules.into_iter().map(Arc::new).collect(), ..float("value") }]
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn read(rig: &mut Rig, value: f64) -> Vec<String> {
    rig.values("d", &[(VALUE, Value::Float(value))]);
    rig.heard(1)
}

/// What was heard of alarms while a value was read again every second.
fn hold(rig: &mut Rig, value: f64, times: u64) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..times {
        heard.extend(read(rig, value));
        rig.pass(seconds(1));
        heard.extend(rig.heard(1));
    }
    heard.retain(|line| line.contains("alarm"));
    heard
}

#[test]
fn a_reading_that_is_not_renewed_is_told_as_stale_once_and_good_again_with_the_next() {
    let mut rig =
        rig(vec![Property { stale_after: Some(seconds(10)), ..float("value") }, float("other")], vec![]);
    rig.values("d", &[(VALUE, Value::Float(1.0)), (1, Value::Float(2.0))]);
    assert_eq!(rig.heard(1), ["d value=1 other=2"]);
    rig.pass(seconds(9));
    assert_eq!(read(&mut rig, 1.0), [""; 0], "an unchanged reading renews it");
    rig.pass(Duration::from_millis(9_999));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.heard(1), ["d value=1 (stale)"]);
    rig.pass(seconds(1000));
    assert_eq!(rig.heard(1), [""; 0]);
    assert_eq!(read(&mut rig, 1.0), ["d value=1"]);
}

#[test]
fn a_device_that_comes_back_is_given_its_time_anew_before_old_readings_are_told_as_stale() {
    let mut rig = rig(vec![Property { stale_after: Some(seconds(10)), ..float("value") }], vec![]);
    read(&mut rig, 1.0);
    rig.presence("d", false);
    assert_eq!(rig.heard(1), ["d offline: no answer"]);
    rig.pass(seconds(60));
    rig.presence("d", true);
    rig.pass(seconds(9));
    assert_eq!(rig.heard(1), ["d online"]);
    rig.pass(seconds(1));
    assert_eq!(rig.heard(1), ["d value=1 (stale)"]);
}

#[test]
fn that_a_reading_is_stale_does_not_wait_for_the_minimum_interval_and_ends_the_heartbeat() {
    let report =
        ReportRule { min_interval: Some(seconds(100)), heartbeat: Some(seconds(5)), ..ReportRule::default() };
    let mut rig = rig(vec![Property { stale_after: Some(seconds(12)), report, ..float("value") }], vec![]);
    read(&mut rig, 1.0);
    rig.pass(seconds(50));
    assert_eq!(rig.heard(1), ["d value=1", "d value=1", "d value=1 (stale)"]);
}

#[test]
fn every_reading_is_told_where_the_rule_says_so_and_none_where_only_the_heartbeat_tells() {
    let on = |on, heartbeat| ReportRule { on, heartbeat, ..ReportRule::default() };
    let each = Property { report: on(ReportOn::Reading, None), ..float("value") };
    let beat = Property { report: on(ReportOn::Heartbeat, Some(seconds(60))), ..float("beat") };
    let mut rig = rig(vec![each, beat], vec![]);
    let both = |rig: &mut Rig, value: f64| {
        rig.values("d", &[(VALUE, Value::Float(1.0)), (1, Value::Float(value))]);
        rig.heard(1)
    };
    assert_eq!(both(&mut rig, 5.0), ["d value=1 beat=5"]);
    assert_eq!(both(&mut rig, 6.0), ["d value=1"]);
    rig.pass(seconds(60));
    assert_eq!(rig.heard(1), ["d beat=6"]);
}

#[test]
fn an_alarm_waits_for_its_delay_and_a_value_that_came_back_meanwhile_raises_nothing() {
    let rule = AlarmRule {
        delay: seconds(10),
        clear_delay: seconds(5),
        hysteresis: 2.0,
        ..AlarmRule::new("high", AlarmCondition::Above(80.0))
    };
    let mut rig = rig(alarmed(vec![rule]), vec![]);
    assert_eq!(hold(&mut rig, 81.0, 9), [""; 0]);
    assert_eq!(hold(&mut rig, 79.0, 1), [""; 0], "between limit and hysteresis interrupts");
    assert_eq!(hold(&mut rig, 85.0, 9), [""; 0]);
    rig.pass(seconds(1));
    assert_eq!(rig.heard(1), ["d alarm high raised at 85, active [high]"]);
    assert_eq!(hold(&mut rig, 78.0, 4), [""; 0]);
    assert_eq!(hold(&mut rig, 79.0, 1), [""; 0]);
    assert_eq!(hold(&mut rig, 70.0, 5), ["d alarm high cleared at 70, active []"]);
}

#[test]
fn nothing_known_interrupts_a_delay_and_leaves_a_raised_alarm_raised() {
    let rule = AlarmRule {
        delay: seconds(10),
        clear_delay: seconds(10),
        ..AlarmRule::new("high", AlarmCondition::Above(80.0))
    };
    let mut rig = rig(alarmed(vec![rule]), vec![]);
    hold(&mut rig, 81.0, 5);
    rig.unreadable("d", VALUE);
    rig.pass(seconds(60));
    assert_eq!(hold(&mut rig, 81.0, 9), [""; 0], "it counts anew");
    assert_eq!(hold(&mut rig, 81.0, 1), ["d alarm high raised at 81, active [high]"]);
    read(&mut rig, 20.0);
    rig.presence("d", false);
    rig.pass(seconds(60));
    assert_eq!(rig.heard(1), ["d offline: no answer"]);
    assert_eq!(hold(&mut rig, 20.0, 10), ["d alarm high cleared at 20, active []"]);
}

#[test]
fn a_rate_is_judged_over_its_window_and_not_before_the_readings_fill_it() {
    let rate = Rate { direction: Direction::Up, limit: 60.0, per: seconds(60), over: seconds(10) };
    let rule = AlarmRule { hysteresis: 30.0, ..AlarmRule::new("fast", AlarmCondition::Rate(rate)) };
    let mut rig = rig(alarmed(vec![rule]), vec![]);
    let mut ramp = |from: f64, step: f64, times: u32| {
        let mut heard = Vec::new();
        for at in 0..times {
            heard.extend(read(&mut rig, from + step * f64::from(at)));
            rig.pass(seconds(1));
        }
        heard.retain(|line| line.contains("alarm"));
        heard
    };
    // 120 a minute, seen over ten seconds for the first time with the eleventh reading.
    assert_eq!(ramp(0.0, 2.0, 10), [""; 0]);
    assert_eq!(ramp(20.0, 2.0, 1), ["d alarm fast raised at 20, active [fast]"]);
    // 48 a minute is below the limit but within the hysteresis.
    assert_eq!(ramp(20.8, 0.8, 20), [""; 0]);
    let cleared = ramp(36.8, 0.0, 10);
    assert_eq!(cleared.len(), 1);
    assert!(cleared[0].starts_with("d alarm fast cleared"), "{cleared:?}");
}

#[test]
fn silence_is_an_alarm_also_of_a_device_that_was_never_heard_of() {
    let rule =
        AlarmRule { delay: seconds(5), ..AlarmRule::new("silent", AlarmCondition::NoData(seconds(60))) };
    let mut rig = rig(alarmed(vec![rule]), vec![]);
    rig.pass(seconds(64));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(seconds(1));
    assert_eq!(rig.heard(1), ["d alarm silent raised at null, active [silent]"]);
    rig.presence("d", false);
    assert_eq!(rig.heard(1), ["d offline: no answer"]);
    let heard = read(&mut rig, 1.0);
    assert_eq!(heard, ["d online", "d value=1", "d alarm silent cleared at 1, active []"]);
    rig.presence("d", false);
    rig.pass(seconds(65));
    assert_eq!(rig.heard(1), ["d offline: no answer", "d alarm silent raised at 1, active [silent]"]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn a_rule_that_is_switched_off_is_never_raised_and_one_for_another_value_is() {
    let off = AlarmRule { enabled: false, ..AlarmRule::new("off", AlarmCondition::Above(0.0)) };
    let other = AlarmRule::new("other", AlarmCondition::NotEqual(Value::Float(3.0)));
    let mut rig = rig(alarmed(vec![off, other]), vec![]);
    assert_eq!(read(&mut rig, 3.0), ["d value=3"]);
    assert_eq!(read(&mut rig, 4.0), ["d value=4", "d alarm other raised at 4, active [other]"]);
    assert_eq!(read(&mut rig, 3.0), ["d value=3", "d alarm other cleared at 3, active []"]);
}

fn event(id: &str, change: Change, initial: bool) -> EventType {
    EventType {
        id: id.into(),
        name: id.into(),
        level: Level::Fault,
        params: Vec::new(),
        when: Some(EventTrigger { property: VALUE, change, initial, carries: vec![("load".into(), 1)] }),
    }
}

#[test]
fn each_bit_of_a_word_is_an_event_of_its_own_with_its_label_and_what_else_it_carries() {
    let labels = vec![(0, "over-voltage".into()), (3, "over-current".into())];
    let bits = Change::Bits { labels, edge: Edge::Both };
    let word = property("faults", ValueType::Int, Access::Read);
    let mut rig = rig(vec![word, float("load")], vec![event("fault", bits, false)]);
    let mut faults = |word: i64| {
        rig.values("d", &[(VALUE, Value::Int(word)), (1, Value::Float(0.5))]);
        let mut heard = rig.heard(1);
        heard.retain(|line| line.contains("event"));
        heard
    };
    assert_eq!(faults(0b0001), [""; 0], "the state at the start is no event");
    let rising = "d event fault fault bit=3 label=over-current active=true load=0.5";
    let falling = "d event fault fault bit=0 label=over-voltage active=false load=0.5";
    assert_eq!(faults(0b1010), [falling, rising]);
    assert_eq!(faults(0b1000), [""; 0], "a bit without a label is nobody's");
}

#[test]
fn rising_falling_and_any_change_are_told_apart() {
    let events = [("up", Change::Rises), ("down", Change::Falls), ("any", Change::Differs)]
        .map(|(id, change)| event(id, change, false));
    let mut rig = rig(vec![float("value"), float("load")], events.into());
    let mut fired = |value: f64| {
        let heard = read(&mut rig, value);
        heard.iter().filter_map(|line| line.split(" event ").nth(1)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(fired(1.0), [""; 0]);
    assert_eq!(fired(2.0), ["up fault", "any fault"]);
    assert_eq!(fired(2.0), [""; 0]);
    assert_eq!(fired(1.5), ["down fault", "any fault"]);
}

#[test]
fn the_first_reading_fires_where_the_trigger_says_so() {
    let bits = Change::Bits { labels: vec![(1, "two".into())], edge: Edge::Rising };
    let events = vec![event("bits", bits, true), event("is", Change::Becomes(Value::Int(2)), true)];
    let mut rig = rig(vec![property("word", ValueType::Int, Access::Read), float("load")], events);
    rig.values("d", &[(VALUE, Value::Int(2))]);
    let heard = ["d word=2", "d event bits fault bit=1 label=two active=true", "d event is fault"];
    assert_eq!(rig.heard(1), heard);
}

fn computed(id: &str, text: &str, inputs: &[&str]) -> Property {
    let lookup = |name: &str| {
        let at = inputs.iter().position(|input| *input == name);
        at.map_or(Name::Unknown, |at| Name::Input(at, Kind::Number))
    };
    let expression = parse(text, &lookup).unwrap_or_else(|error| panic!("{text}: {error}"));
    Property { compute: Some(Arc::new(expression)), ..float(id) }
}

#[test]
fn a_computed_property_follows_its_inputs_and_is_as_good_as_the_worst_of_them() {
    let names = ["u", "i", "p"];
    let stale = Property { stale_after: Some(seconds(10)), ..float("i") };
    let loud = AlarmRule::new("loud", AlarmCondition::Above(500.0));
    let power = Property { alarms: vec![Arc::new(loud)], ..computed("p", "u * i", &names) };
    let mut rig = rig(vec![float("u"), stale, power, computed("kilo", "p / 1000", &names)], vec![]);
    assert_eq!(read(&mut rig, 230.0), ["d u=230"], "one input is not known yet");
    let current = |rig: &mut Rig, value: f64| {
        rig.values("d", &[(1, Value::Float(value))]);
        rig.heard(1)
    };
    assert_eq!(current(&mut rig, 2.0), ["d i=2 p=460 kilo=0.46"]);
    let raised = "d alarm loud raised at 690, active [loud]";
    assert_eq!(current(&mut rig, 3.0), ["d i=3 p=690 kilo=0.69", raised]);
    rig.unreadable("d", VALUE);
    assert_eq!(rig.heard(1), ["d u=230 (bad) p=690 (bad) kilo=0.69 (bad)"]);
    let cleared = "d alarm loud cleared at 330, active []";
    assert_eq!(read(&mut rig, 110.0), ["d u=110 p=330 kilo=0.33", cleared]);
    rig.pass(seconds(10));
    assert_eq!(rig.heard(1), ["d i=3 (stale) p=330 (stale) kilo=0.33 (stale)"]);
    assert_eq!(read(&mut rig, 120.0), ["d u=120"], "not from an old input");
    assert_eq!(current(&mut rig, 1.0), ["d i=1 p=120 kilo=0.12"]);
}

#[test]
fn a_read_of_a_computed_property_fetches_its_inputs_and_answers_with_what_they_give() {
    let names = ["u", "i"];
    let mut rig = rig(vec![float("u"), float("i"), computed("p", "u * i", &names)], vec![]);
    rig.submit(1, 7, &all_rights("demo"), super::read("d", &["p", "u"]));
    let routed = rig.routed.pop().expect("a command for the driver");
    assert_eq!(routed.action, DriverAction::Read(vec![0, 1]));
    rig.values("d", &[(0, Value::Float(230.0)), (1, Value::Float(2.0))]);
    rig.heard(1);
    let values = vec![("u".into(), Value::Float(230.0)), ("i".into(), Value::Float(2.0))];
    rig.settle(routed.id, Outcome::Confirmed { values, outputs: Vec::new() });
    assert_eq!(rig.heard(1)[0], "outcome 7 confirmed p=460 u=230");
}

/// A rig whose device has the function `start`: write, call `beep`, wait a second, wait for `speed > 10`, read `speed`.
pub(super) fn stepwise(link: &str) -> Rig {
    stepwise_asked(link, false)
}

/// The same; the speed can be asked for over a broker, or not.
pub(super) fn stepwise_asked(link: &str, on_request: bool) -> Rig {
    let names = ["setpoint", "speed"];
    let lookup = |name: &str| {
        let at = names.iter().position(|known| *known == name);
        at.map_or(Name::Unknown, |at| Name::Input(at, Kind::Number))
    };
    let condition = Arc::new(parse("speed > 10", &lookup).expect("a condition"));
    let target = Parameter { id: "target".into(), kind: ValueType::Float, required: true, range: None };
    let start = Function {
        inputs: vec![target],
        steps: vec![
            Step::Write(vec![(0, Operand::Input("target".into()))]),
            Step::Call { function: 0, inputs: vec![("n".into(), Operand::Constant(Value::Int(2)))] },
            Step::Wait(seconds(1)),
            Step::Until { condition, within: seconds(3) },
        ],
        reads: vec![("reached".into(), 1)],
        ..Function::new("start")
    };
    let setpoint =
        Property { range: Some((0.0, 100.0)), ..property("setpoint", ValueType::Float, Access::ReadWrite) };
    let functions = vec![Function::new("beep"), start];
    let speed = Property { on_request, ..float("speed") };
    let product = Product { events: vec![], functions, ..press_with(vec![setpoint, speed]) };
    let devices = vec![device("d", &Arc::new(product), link, "1")];
    let link = |id: &str, readable| Arc::new(Link { id: id.into(), address: "?".into(), readable });
    let mut rig = Rig::of(Directory::new(devices, vec![link("rs485", true), link("local", false)]));
    rig.attach(SessionKey(1));
    rig.presence("d", true);
    rig
}

pub(super) fn start(rig: &mut Rig, token: u64, target: f64) {
    let inputs = vec![("target".into(), Value::Float(target))];
    let action = Action::Invoke { function: "start".into(), inputs };
    rig.submit(1, token, &all_rights("demo"), command("d", action));
}

/// Settles the only command that reached the driver, which must be this one.
pub(super) fn step(rig: &mut Rig, action: &DriverAction, outcome: Outcome) {
    assert_eq!(rig.routed.len(), 1, "{:?}", rig.routed);
    let routed = rig.routed.pop().expect("a command");
    assert_eq!(routed.action, *action);
    rig.settle(routed.id, outcome);
}

#[test]
fn a_function_in_steps_does_one_after_the_other_and_tells_what_it_reads_at_the_end() {
    let mut rig = stepwise("rs485");
    start(&mut rig, 7, 50.0);
    step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), confirmed());
    let beep = DriverAction::Invoke { function: 0, inputs: vec![("n".into(), Value::Int(2))] };
    step(&mut rig, &beep, confirmed());
    rig.pass(Duration::from_millis(999));
    assert!(rig.routed.is_empty(), "it waits");
    rig.pass(Duration::from_millis(1));
    let look = DriverAction::Read(vec![1]);
    rig.values("d", &[(1, Value::Float(5.0))]);
    step(&mut rig, &look, confirmed());
    rig.pass(Duration::from_millis(500));
    rig.values("d", &[(1, Value::Float(11.0))]);
    step(&mut rig, &look, confirmed());
    step(&mut rig, &look, confirmed());
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=11"]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn the_step_that_fails_ends_the_function_and_is_named() {
    let mut rig = stepwise("rs485");
    start(&mut rig, 1, 50.0);
    step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), Outcome::Offline);
    start(&mut rig, 2, 500.0);
    start(&mut rig, 3, 50.0);
    step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), confirmed());
    rig.routed.clear();
    rig.pass(seconds(10));
    let heard = [
        "outcome 1 offline",
        "outcome 2 rejected: step 1 of 4 (write setpoint) failed: setpoint takes 0 to 100, found 500",
        "outcome 3 timed out",
    ];
    assert_eq!(rig.heard(1), heard);
}

#[test]
fn a_condition_that_does_not_hold_in_time_fails_and_one_over_a_broker_waits_for_what_the_device_tells() {
    for reached in [false, true] {
        let mut rig = stepwise("local");
        start(&mut rig, 7, 50.0);
        step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), confirmed());
        let routed = rig.routed.pop().expect("a call");
        rig.settle(routed.id, confirmed());
        rig.pass(seconds(2));
        assert!(rig.routed.is_empty(), "a broker cannot be asked");
        if reached {
            rig.values("d", &[(1, Value::Float(12.0))]);
            assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=12"]);
        } else {
            rig.pass(seconds(2));
            let failed = "outcome 7 rejected: step 4 of 4 (wait for a condition) failed: the condition did not hold within 3s";
            assert_eq!(rig.heard(1), [failed]);
        }
    }
}

#[test]
fn a_function_in_steps_ends_with_its_device_and_never_goes_on_at_the_one_that_has_its_slot() {
    let mut rig = stepwise("rs485");
    start(&mut rig, 7, 50.0);
    let write = rig.routed.pop().expect("the first step");
    // A reload gives the machine another name: for the hub one device goes and another one of its product comes.
    let product = Arc::clone(&rig.device("d").product);
    rig.adopt(vec![device("e", &product, "rs485", "1")]);
    rig.settle(write.id, confirmed());
    rig.presence("e", true);
    rig.pass(seconds(20));
    let to: Vec<&DriverAction> = rig.routed.iter().map(|command| &command.action).collect();
    assert!(to.is_empty(), "nobody called anything of e: {to:?}");
    let why = "the configuration of the device has changed meanwhile";
    let ended = format!("outcome 7 rejected: step 1 of 4 (write setpoint) failed: {why}");
    assert_eq!(rig.heard(1), [ended]);
}

#[test]
fn a_function_that_waits_when_its_product_changes_ends_and_leaves_no_timer_behind() {
    let mut rig = stepwise("rs485");
    start(&mut rig, 7, 50.0);
    for _ in 0..2 {
        let routed = rig.routed.pop().expect("a command");
        rig.settle(routed.id, confirmed());
    }
    let mut product = (*rig.device("d").product).clone();
    product.name = "another".into();
    rig.adopt(vec![device("d", &Arc::new(product), "rs485", "1")]);
    // A timer that stays due would let the hub turn without a pause; `pass` looks for that.
    rig.pass(seconds(20));
    assert!(rig.heard(1)[0].starts_with("outcome 7 rejected: step 3 of 4 (wait) failed: the configuration"));
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn a_fifth_function_in_steps_on_one_device_is_busy() {
    let mut rig = stepwise("rs485");
    for token in 1..=5 {
        start(&mut rig, token, 50.0);
    }
    assert_eq!(rig.heard(1), ["outcome 5 busy"]);
}

proptest! {
    /// Whatever becomes of its steps and when: a function has one outcome.
    #[test]
    fn a_function_in_steps_has_one_outcome(
        readable in any::<bool>(),
        fates in prop::collection::vec((0..8_u8, 0..4_u64, 0.0..20.0_f64), 0..20),
    ) {
        let mut rig = stepwise(if readable { "rs485" } else { "local" });
        start(&mut rig, 7, 50.0);
        for (fate, wait, speed) in fates {
            let outcome = match fate {
                0 => Outcome::TimedOut,
                1 => Outcome::Busy,
                2 => Outcome::Offline,
                _ => confirmed(),
            };
            if let Some(routed) = rig.routed.pop() {
                rig.values("d", &[(1, Value::Float(speed))]);
                rig.settle(routed.id, outcome);
            }
            rig.pass(seconds(wait));
        }
        rig.pass(seconds(60));
        for routed in std::mem::take(&mut rig.routed) {
            rig.settle(routed.id, confirmed());
        }
        prop_assert_eq!(rig.heard(1).len(), 1);
        prop_assert_eq!(rig.state.timeout(), None);
    }

    /// Whatever comes in whatever order, a good computed value is what its newest inputs give.
    #[test]
    fn a_computed_value_is_what_its_newest_inputs_give(
        steps in prop::collection::vec((0..3_usize, prop::option::weighted(0.8, -50..50_i32)), 1..40),
    ) {
        let names = ["a", "b", "c", "sum"];
        let both = computed("both", "sum / c", &names);
        let mut rig = rig(vec![float("a"), float("b"), float("c"), computed("sum", "a + b", &names), both], vec![]);
        let (mut inputs, mut told) = ([None; 3], [None; 5]);
        for (at, value) in steps {
            inputs[at] = value.map(|value| f64::from(value) / 2.0).or_else(|| inputs[at].map(|_| f64::NAN));
            match value {
                Some(value) => rig.values("d", &[(at, Value::Float(f64::from(value) / 2.0))]),
                None => rig.unreadable("d", at),
            }
            rig.heard(1);
            let Some(message) = rig.state.newest(SessionKey(1), "d", rig.now) else { continue };
            let Body::Properties(reports) = &message.body else { panic!("not a report") };
            told = [None; 5];
            for report in reports.iter().filter(|report| report.quality == Quality::Good) {
                told[report.property] = report.value.as_f64();
            }
            let good = |at: usize| inputs[at].filter(|n: &f64| !n.is_nan());
            let sum = good(0).zip(good(1)).map(|(a, b)| a + b);
            let both = sum.zip(good(2)).map(|(sum, c)| sum / c).filter(|n: &f64| n.is_finite());
            prop_assert_eq!(told[3], sum);
            prop_assert_eq!(told[4], both);
        }
        prop_assert!(told.len() == 5);
    }

    /// With any delays and whatever happens to the readings, an alarm is raised and cleared in turn.
    #[test]
    fn an_alarm_with_delays_is_raised_and_cleared_in_turn(
        delay in 0..4_u64,
        clear_delay in 0..4_u64,
        steps in prop::collection::vec((0..5_u8, 70.0..90.0_f64, 0..3_u64), 0..80),
    ) {
        let rules = [AlarmCondition::Above(80.0), AlarmCondition::NoData(seconds(2))]
            .into_iter()
            .enumerate()
            .map(|(at, condition)| AlarmRule {
                delay: seconds(delay),
                clear_delay: seconds(clear_delay),
                hysteresis: 3.0,
                ..AlarmRule::new(format!("rule-{at}"), condition)
            });
        let mut rig = rig(alarmed(rules.collect()), vec![]);
        let mut raised = [false; 2];
        for (what, value, wait) in steps {
            match what {
                0 => rig.presence("d", false),
                1 => rig.unreadable("d", VALUE),
                _ => rig.values("d", &[(VALUE, Value::Float(value))]),
            }
            rig.pass(seconds(wait));
            for line in rig.heard(1).iter().filter(|line| line.contains("alarm")) {
                let at = usize::from(line.contains("alarm rule-1"));
                prop_assert_eq!(line.contains("raised"), !raised[at], "{}", line);
                raised[at] = !raised[at];
            }
        }
    }

    /// Whatever the rule: the newest good value is told at the latest when interval and heartbeat have passed, unless
    /// it is within the deadband of what was told.
    #[test]
    fn no_report_rule_loses_the_newest_value(
        deadband in prop_oneof![Just(0.0), 0.1..2.0_f64],
        percent in prop_oneof![Just(0.0), 0.5..20.0_f64],
        min_interval in prop::option::of(1..20_u64),
        on_reading in any::<bool>(),
        steps in prop::collection::vec((-20..20_i32, 0..10_u64), 1..40),
    ) {
        let on = if on_reading { ReportOn::Reading } else { ReportOn::Change };
        let report =
            ReportRule { on, deadband, percent, heartbeat: None, min_interval: min_interval.map(seconds) };
        let mut rig = rig(vec![Property { report, ..float("value") }], vec![]);
        let (mut told, mut newest) = (f64::NAN, 0.0);
        for (value, wait) in steps {
            newest = f64::from(value) / 4.0;
            let mut heard = read(&mut rig, newest);
            rig.pass(seconds(wait));
            heard.extend(rig.heard(1));
            if let Some(line) = heard.last() {
                told = line.strip_prefix("d value=").expect("a report").parse().expect("a number");
            }
        }
        rig.pass(seconds(20));
        if let Some(line) = rig.heard(1).last() {
            told = line.strip_prefix("d value=").expect("a report").parse().expect("a number");
        }
        let far = if on_reading { 0.0 } else { f64::max(deadband, told.abs() * percent / 100.0) };
        prop_assert!((told - newest).abs() <= far, "told {told}, newest {newest}");
    }
}

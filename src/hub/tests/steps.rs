//! Functions in steps on devices behind a broker: what is asked, what is awaited, and what counts when nothing comes.

use super::rules::{start, step, stepwise, stepwise_asked};
use super::*;
use crate::drivers::DriverAction;

const SPEED: usize = 1;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn speed(rig: &mut Rig, speed: f64) {
    rig.values("d", &[(SPEED, Value::Float(speed))]);
}

/// A rig whose function has written, called and waited, so that it is at its condition, `speed > 10` within 3 s.
fn at_the_condition(mut rig: Rig) -> Rig {
    start(&mut rig, 7, 50.0);
    step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), confirmed());
    let beep = DriverAction::Invoke { function: 0, inputs: vec![("n".into(), Value::Int(2))] };
    step(&mut rig, &beep, confirmed());
    rig.pass(seconds(1));
    rig
}

fn look() -> DriverAction {
    DriverAction::Read(vec![SPEED])
}

#[test]
fn a_condition_asks_a_device_behind_a_broker_where_it_can_be_asked() {
    let mut rig = at_the_condition(stepwise_asked("local", true));
    speed(&mut rig, 5.0);
    step(&mut rig, &look(), confirmed());
    rig.pass(Duration::from_millis(1999));
    assert!(rig.routed.is_empty(), "not as often as a bus");
    rig.pass(Duration::from_millis(1));
    speed(&mut rig, 11.0);
    // It has reported before it answered, which is enough; then the output is asked for.
    assert_eq!(rig.routed.len(), 2, "{:?}", rig.routed);
    let (condition, output) = (rig.routed.remove(0), rig.routed.remove(0));
    assert_eq!((condition.action, &output.action), (look(), &look()));
    rig.settle(condition.id, confirmed());
    assert_eq!(rig.heard(1), [""; 0]);
    speed(&mut rig, 12.0);
    rig.settle(output.id, confirmed());
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=12"]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn a_device_that_does_not_answer_holds_no_condition_up_and_fails_none() {
    for answer in [Some(Outcome::TimedOut), Some(Outcome::Busy), None] {
        let mut rig = at_the_condition(stepwise_asked("local", true));
        let asked = rig.routed.pop().expect("it is asked");
        if let Some(answer) = answer {
            rig.settle(asked.id, answer);
            assert_eq!(rig.heard(1), [""; 0], "it may still report");
        }
        rig.pass(seconds(3));
        let failed = "outcome 7 rejected: step 4 of 4 (wait for a condition) failed: the condition did not hold within 3s";
        assert_eq!(rig.heard(1), [failed]);
    }
}

#[test]
fn a_condition_is_not_met_by_what_was_reported_before_the_step_that_changes_it() {
    let mut rig = stepwise("local");
    speed(&mut rig, 20.0);
    let mut rig = at_the_condition(rig);
    rig.pass(Duration::from_millis(999));
    assert_eq!(rig.heard(1), [""; 0], "the device has not told yet what the write has changed");
    // It has had its time, and has nothing to tell.
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=20"]);

    let mut rig = stepwise("local");
    speed(&mut rig, 20.0);
    let mut rig = at_the_condition(rig);
    speed(&mut rig, 5.0);
    rig.pass(seconds(2));
    assert_eq!(rig.heard(1), [""; 0], "it slowed down");
    speed(&mut rig, 15.0);
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=15"]);
}

/// A function that writes the set-point, and reads the speed at its end.
fn boost(on_request: bool) -> Rig {
    let product = Arc::clone(&stepwise_asked("local", on_request).device("d").product);
    let mut product = Product::clone(&product);
    product.functions[1].steps.truncate(1);
    let link = Arc::new(Link { id: "local".into(), address: "?".into(), readable: false });
    let mut rig = Rig::of(Directory::new(vec![device("d", &Arc::new(product), "local", "1")], vec![link]));
    rig.attach(SessionKey(1));
    rig.presence("d", true);
    speed(&mut rig, 1.0);
    start(&mut rig, 7, 50.0);
    step(&mut rig, &DriverAction::Write(vec![(0, Value::Float(50.0))]), confirmed());
    rig
}

#[test]
fn outputs_are_what_a_device_reports_after_the_last_step_or_what_it_last_reported() {
    let mut rig = boost(false);
    assert_eq!(rig.heard(1), [""; 0], "its report is awaited");
    rig.pass(Duration::from_millis(300));
    speed(&mut rig, 2.0);
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=2"]);

    let mut rig = boost(false);
    rig.pass(seconds(2));
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=1"]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn outputs_are_asked_for_where_that_is_possible_and_what_is_known_counts_otherwise() {
    let mut rig = boost(true);
    speed(&mut rig, 2.0);
    step(&mut rig, &look(), confirmed());
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=2"]);

    let mut rig = boost(true);
    rig.pass(seconds(5));
    step(&mut rig, &look(), Outcome::TimedOut);
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=1"]);

    // The device keeps silent for longer than the client waits: all steps were done, and that is told.
    let mut rig = boost(true);
    rig.pass(seconds(60));
    assert_eq!(rig.heard(1), ["outcome 7 confirmed reached=1"]);
    rig.routed.clear();
    assert_eq!(rig.state.timeout(), None);
}

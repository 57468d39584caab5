//! Leases through the whole state: from a client's write to the safe value.

use super::*;
use crate::drivers::DriverAction;
use crate::hub::leases::LEASES;
use crate::model::command::Lease;
use crate::model::product::{LeaseRule, Operand, Step};

/// Some lease rule: the setpoint of a press is safe at 20.
fn leasable(default: Option<u64>) -> Product {
    let mut product = press();
    product.properties[SETPOINT].lease = Some(LeaseRule {
        safe: Value::Float(20.0),
        default: default.map(Duration::from_secs),
        longest: Duration::from_secs(600),
    });
    product
}

fn plant(product: Product) -> Directory {
    let link = Arc::new(Link { id: "rs485".into(), address: "?".into(), readable: true });
    Directory::new(vec![device("press-1", &Arc::new(product), "rs485", "1")], vec![link])
}

/// press-1, online and safe since the start.
fn rig(default: Option<u64>) -> Rig {
    let mut rig = Rig::of(plant(leasable(default)));
    rig.attach(SessionKey(1));
    rig.presence("press-1", true);
    rig.values("press-1", &[(SETPOINT, Value::Float(20.0))]);
    rig.pass(seconds(60));
    assert_eq!(take(&mut rig), [], "what is safe already is not written");
    rig
}

fn leased(value: f64, lease: Option<Lease>) -> Command {
    Command { lease, ..write("press-1", "setpoint", Value::Float(value)) }
}

/// Confirms what was routed, and tells what it wrote.
fn take(rig: &mut Rig) -> Vec<Value> {
    let mut written = Vec::new();
    for command in std::mem::take(&mut rig.routed) {
        if let DriverAction::Write(values) = &command.action {
            written.extend(values.iter().map(|(_, value)| value.clone()));
        }
        rig.settle(command.id, confirmed());
    }
    written
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn float(value: f64) -> [Value; 1] {
    [Value::Float(value)]
}

/// A device that has gone with a value that is leased for half a minute.
fn leased_and_away() -> Rig {
    let mut rig = rig(None);
    rig.submit(1, 1, &all_rights("demo"), leased(50.0, Some(Lease::For(seconds(30)))));
    take(&mut rig);
    rig.presence("press-1", false);
    rig
}

#[test]
fn a_leased_value_falls_back_when_its_time_is_over() {
    let mut rig = rig(None);
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, Some(Lease::For(seconds(30)))));
    assert_eq!(take(&mut rig), float(50.0));
    rig.pass(seconds(25));
    // Writing again renews.
    rig.submit(1, 2, &demo, leased(60.0, Some(Lease::For(seconds(30)))));
    assert_eq!(take(&mut rig), float(60.0));
    rig.pass(seconds(29));
    assert_eq!(take(&mut rig), []);
    rig.heard(0);
    rig.pass(seconds(1));
    assert_eq!(take(&mut rig), float(20.0));
    let told = rig.heard(0).join("; ");
    assert!(told.contains("by lease of demo setpoint=20"), "{told}");
    rig.pass(seconds(3600));
    assert_eq!(take(&mut rig), [], "once is enough");
}

#[test]
fn clients_that_know_nothing_of_leases_are_covered_by_the_product() {
    let mut rig = rig(Some(30));
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, None));
    take(&mut rig);
    rig.pass(seconds(30));
    assert_eq!(take(&mut rig), float(20.0));
    // The safe value itself needs nobody.
    rig.submit(1, 2, &demo, leased(20.0, None));
    take(&mut rig);
    rig.pass(seconds(60));
    assert_eq!(take(&mut rig), []);
}

#[test]
fn a_value_tied_to_a_session_falls_back_with_it() {
    let mut rig = rig(None);
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, Some(Lease::Session)));
    take(&mut rig);
    rig.pass(seconds(3600));
    assert_eq!(take(&mut rig), []);
    rig.state.detach(SessionKey(1), &[], rig.now);
    rig.drain();
    assert_eq!(take(&mut rig), float(20.0));
}

#[test]
fn another_write_takes_the_lease_off() {
    for plain in [None, Some(Lease::Release)] {
        let mut rig = rig(None);
        let demo = all_rights("demo");
        rig.attach(SessionKey(2));
        rig.submit(1, 1, &demo, leased(50.0, Some(Lease::Session)));
        take(&mut rig);
        rig.submit(2, 1, &demo, leased(55.0, plain));
        take(&mut rig);
        rig.state.detach(SessionKey(1), &[], rig.now);
        rig.pass(seconds(60));
        assert_eq!(take(&mut rig), []);
    }
}

#[test]
fn a_step_of_a_function_is_a_write_like_any_other() {
    let product = || {
        let mut product = leasable(None);
        let steps = vec![Step::Write(vec![(SETPOINT, Operand::Constant(Value::Float(70.0)))])];
        product.functions.push(Function { steps, ..Function::new("boost") });
        product
    };
    for (default, written) in [(None, vec![]), (Some(30), vec![Value::Float(20.0)])] {
        let mut product = product();
        product.properties[SETPOINT].lease.as_mut().unwrap().default = default.map(seconds);
        let mut rig = Rig::of(plant(product));
        let demo = all_rights("demo");
        rig.attach(SessionKey(1));
        rig.presence("press-1", true);
        rig.submit(1, 1, &demo, leased(50.0, Some(Lease::Session)));
        take(&mut rig);
        rig.submit(
            1,
            2,
            &demo,
            command("press-1", Action::Invoke { function: "boost".into(), inputs: vec![] }),
        );
        assert_eq!(take(&mut rig), float(70.0));
        rig.state.detach(SessionKey(1), &[], rig.now);
        rig.pass(seconds(30));
        assert_eq!(take(&mut rig), written);
    }
}

#[test]
fn a_device_that_is_away_gets_its_safe_value_when_it_returns() {
    let mut rig = rig(None);
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, Some(Lease::For(seconds(30)))));
    take(&mut rig);
    rig.presence("press-1", false);
    rig.pass(seconds(3000));
    assert_eq!(take(&mut rig), [], "nothing can be sent");
    rig.presence("press-1", true);
    rig.pass(seconds(0));
    let command = rig.routed.remove(0);
    rig.settle(command.id, Outcome::TimedOut);
    rig.pass(seconds(10));
    assert_eq!(take(&mut rig), float(20.0), "it is tried until it is done");
    rig.pass(seconds(3000));
    assert_eq!(take(&mut rig), []);
}

#[test]
fn what_is_found_set_after_a_start_falls_back_unless_somebody_stands_behind_it() {
    for (default, time) in [(None, 30), (Some(10), 10)] {
        let begun = || {
            let mut rig = Rig::of(plant(leasable(default)));
            rig.attach(SessionKey(1));
            rig.presence("press-1", true);
            rig.values("press-1", &[(SETPOINT, Value::Float(70.0))]);
            rig
        };
        let mut rig = begun();
        rig.pass(seconds(time - 1));
        assert_eq!(take(&mut rig), []);
        rig.pass(seconds(1));
        let told = rig.heard(0).join("; ");
        assert!(told.contains("by start of the gateway setpoint=20"), "{told}");
        assert_eq!(take(&mut rig), float(20.0));
        // Later changes at the device itself are its own business.
        rig.values("press-1", &[(SETPOINT, Value::Float(71.0))]);
        rig.pass(seconds(60));
        assert_eq!(take(&mut rig), []);

        let mut rig = begun();
        rig.submit(1, 1, &all_rights("demo"), leased(70.0, Some(Lease::Session)));
        assert_eq!(take(&mut rig), float(70.0));
        rig.pass(seconds(60));
        assert_eq!(take(&mut rig), [], "its client has come back");
    }
}

#[test]
fn a_device_that_comes_and_goes_after_a_start_is_made_safe_all_the_same() {
    let mut rig = Rig::of(plant(leasable(None)));
    let mut written = Vec::new();
    // Never there when its time is over.
    for _ in 0..4 {
        rig.presence("press-1", true);
        rig.values("press-1", &[(SETPOINT, Value::Float(70.0))]);
        rig.pass(seconds(5));
        written.extend(take(&mut rig));
        rig.presence("press-1", false);
        rig.pass(seconds(35));
    }
    assert_eq!(written, float(20.0));
}

#[test]
fn clients_have_their_time_from_the_first_moment_in_which_they_can_write() {
    for away in [29, 600] {
        let mut rig = Rig::of(plant(leasable(None)));
        rig.presence("press-1", false);
        rig.pass(seconds(away));
        rig.presence("press-1", true);
        rig.values("press-1", &[(SETPOINT, Value::Float(70.0))]);
        rig.pass(seconds(29));
        assert_eq!(take(&mut rig), [], "away for {away} s");
        rig.pass(seconds(1));
        assert_eq!(take(&mut rig), float(20.0), "away for {away} s");
    }
}

#[test]
fn a_device_that_returns_with_a_reading_gets_its_safe_value_at_once() {
    let mut rig = leased_and_away();
    rig.pass(seconds(40));
    rig.values("press-1", &[(SETPOINT, Value::Float(50.0))]);
    rig.pass(seconds(0));
    assert_eq!(take(&mut rig), float(20.0));
}

#[test]
fn what_was_read_before_a_write_without_an_answer_does_not_say_that_the_value_is_safe() {
    let mut rig = Rig::of(plant(leasable(None)));
    rig.attach(SessionKey(1));
    rig.presence("press-1", true);
    rig.values("press-1", &[(SETPOINT, Value::Float(20.0))]);
    rig.submit(1, 1, &all_rights("demo"), leased(50.0, Some(Lease::For(seconds(10)))));
    let command = rig.routed.remove(0);
    rig.settle(command.id, Outcome::TimedOut);
    rig.pass(seconds(30));
    assert_eq!(take(&mut rig), float(20.0));
}

#[test]
fn a_leased_write_that_is_under_way_when_the_gateway_ends_is_followed_by_the_safe_value() {
    // With a lease that it renews, whose safe value travels behind it, and without.
    for before in [true, false] {
        let mut rig = rig(None);
        let demo = all_rights("demo");
        let lease = Some(Lease::For(seconds(300)));
        if before {
            rig.submit(1, 1, &demo, leased(40.0, lease));
            take(&mut rig);
        }
        rig.submit(1, 2, &demo, leased(50.0, lease));
        let renewal = rig.routed.remove(0);
        rig.state.release(rig.now);
        rig.drain();
        assert!(!rig.state.is_released(), "it may have a lease yet");
        rig.settle(renewal.id, confirmed());
        assert!(!rig.state.is_released(), "its safe value is not written");
        rig.pass(seconds(0));
        assert_eq!(take(&mut rig), float(20.0));
        assert!(rig.state.is_released());
    }
}

#[test]
fn leases_that_the_product_does_not_allow_are_refused() {
    let mut rig = rig(Some(30));
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, Some(Lease::For(seconds(601)))));
    rig.submit(1, 2, &demo, leased(50.0, Some(Lease::Release)));
    let running = write("press-1", "running", Value::Bool(true));
    rig.submit(1, 3, &demo, Command { lease: Some(Lease::Session), ..running });
    rig.submit(1, 4, &demo, Command { lease: Some(Lease::Session), ..read("press-1", &[]) });
    assert_eq!(
        rig.heard(1),
        [
            "outcome 1 rejected: setpoint cannot be leased so: at most 600 s are allowed, found 601 s",
            "outcome 2 rejected: setpoint cannot be leased so: its product wants every value leased",
            "outcome 3 rejected: running cannot be leased so: its product names no value that is safe",
            "outcome 4 rejected: a reading cannot be leased so: only what is written can be",
        ]
    );
    assert!(rig.routed.is_empty());
}

#[test]
fn the_end_of_the_gateway_makes_safe_what_is_leased() {
    let mut rig = rig(None);
    let demo = all_rights("demo");
    rig.submit(1, 1, &demo, leased(50.0, Some(Lease::For(seconds(300)))));
    take(&mut rig);
    rig.state.release(rig.now);
    rig.drain();
    assert!(!rig.state.is_released());
    rig.submit(1, 2, &demo, leased(60.0, None));
    assert_eq!(rig.heard(1).last().unwrap(), "outcome 2 busy");
    assert_eq!(take(&mut rig), float(20.0));
    assert!(rig.state.is_released());
    rig.state.shutdown(rig.now);
    rig.pass(seconds(600));
    assert_eq!(take(&mut rig), []);
}

#[test]
fn the_end_of_the_gateway_does_not_wait_for_a_device_that_is_away() {
    let mut rig = rig(None);
    rig.submit(1, 1, &all_rights("demo"), leased(50.0, Some(Lease::For(seconds(300)))));
    take(&mut rig);
    rig.presence("press-1", false);
    rig.state.release(rig.now);
    assert!(rig.state.is_released());
    assert_eq!(take(&mut rig), []);
}

#[test]
fn a_plain_value_stays_when_the_gateway_ends() {
    let mut rig = rig(None);
    rig.submit(1, 1, &all_rights("demo"), leased(50.0, None));
    take(&mut rig);
    rig.state.release(rig.now);
    rig.drain();
    assert!(rig.state.is_released());
    assert_eq!(take(&mut rig), []);
}

#[test]
fn a_safe_value_that_a_reload_brings_holds_for_what_the_device_has_already() {
    let mut rig = Rig::of(plant(press()));
    rig.presence("press-1", true);
    rig.values("press-1", &[(SETPOINT, Value::Float(70.0))]);
    rig.pass(seconds(3600));
    rig.adopt(vec![device("press-1", &Arc::new(leasable(None)), "rs485", "1")]);
    rig.pass(seconds(29));
    assert_eq!(take(&mut rig), [], "clients have the time that they have after a start");
    rig.pass(seconds(1));
    assert_eq!(take(&mut rig), float(20.0));
    // Whoever wrote it for good meanwhile does not lose it by the next reload.
    rig.attach(SessionKey(1));
    rig.submit(1, 1, &all_rights("demo"), leased(50.0, None));
    assert_eq!(take(&mut rig), float(50.0));
    let renamed = Product { name: "another".into(), ..leasable(None) };
    rig.adopt(vec![device("press-1", &Arc::new(renamed), "rs485", "1")]);
    rig.pass(seconds(3600));
    assert_eq!(take(&mut rig), []);
}

#[test]
fn a_reload_keeps_leases_of_devices_that_stay_and_forgets_those_of_others() {
    let product = Arc::new(leasable(None));
    let both = || ["press-1", "press-2"].map(|id| device(id, &product, "rs485", "1")).to_vec();
    let link = Arc::new(Link { id: "rs485".into(), address: "?".into(), readable: true });
    let mut rig = Rig::of(Directory::new(both(), vec![link]));
    rig.attach(SessionKey(1));
    for (token, id) in (1..).zip(["press-1", "press-2"]) {
        rig.presence(id, true);
        let lease = Some(Lease::For(seconds(30)));
        let command = Command { lease, ..write(id, "setpoint", Value::Float(50.0)) };
        rig.submit(1, token, &all_rights("demo"), command);
    }
    take(&mut rig);
    // Its properties stand in another order, and it has another name.
    let mut other = leasable(None);
    other.properties.insert(0, Property::new("new", ValueType::Int));
    let mut changed = Device::clone(&device("press-1", &Arc::new(other), "rs485", "1"));
    changed.name = "renamed".into();
    rig.adopt(vec![Arc::new(changed)]);
    rig.pass(seconds(30));
    let [command] = &rig.routed[..] else { panic!("{:?}", rig.routed) };
    let DriverAction::Write(values) = &command.action else { panic!("{command:?}") };
    assert_eq!(values[..], [(SETPOINT + 1, Value::Float(20.0))]);
    assert_eq!(&*command.device.id, "press-1");
}

#[test]
fn a_device_that_keeps_silent_gets_its_safe_value_soon_after_its_broker_is_back() {
    let mut rig = leased_and_away();
    rig.pass(seconds(3000));
    assert_eq!(take(&mut rig), [], "nothing can be sent");
    let device = rig.device("press-1");
    rig.observe(Observation::Doubt { device });
    rig.pass(seconds(1));
    let first = rig.routed.pop().expect("it is tried within a second");
    assert!(first.urgent);
    rig.settle(first.id, Outcome::TimedOut);
    // And then ever more rarely.
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = rig.now.instant;
        rig.pass(rig.state.timeout().unwrap() - before);
        pauses.push((rig.now.instant - before).as_secs());
        let again = rig.routed.pop().expect("it is tried again");
        assert!(!again.urgent, "only the first one goes before its time");
        rig.settle(again.id, Outcome::TimedOut);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_link_that_begins_anew_has_the_safe_values_that_were_due_tried_soon() {
    let mut rig = leased_and_away();
    rig.pass(seconds(3000));
    let devices = vec![rig.device("press-1")];
    rig.adopt_anew(devices, &["rs485"]);
    rig.pass(seconds(1));
    assert_eq!(take(&mut rig), float(20.0));
}

#[test]
fn a_function_whose_step_could_not_be_leased_is_refused_before_anything_is_written() {
    let mut product = leasable(Some(30));
    let write = |at, value| Step::Write(vec![(at, Operand::Constant(value))]);
    product.properties.push(Property { access: Access::ReadWrite, ..Property::new("note", ValueType::Int) });
    let note = product.properties.len() - 1;
    let steps = vec![write(note, Value::Int(1)), write(SETPOINT, Value::Float(70.0))];
    product.functions.push(Function { steps, ..Function::new("boost") });
    let mut rig = Rig::of(plant(product));
    rig.attach(SessionKey(1));
    rig.presence("press-1", true);
    rig.values("press-1", &[(SETPOINT, Value::Float(20.0))]);
    rig.pass(seconds(60));
    rig.state.fill_leases(rig.now);
    let call = command("press-1", Action::Invoke { function: "boost".into(), inputs: vec![] });
    rig.submit(1, 1, &all_rights("demo"), call);
    let words = format!(
        "outcome 1 rejected: {LEASES} values are leased already, which is the most; nothing was changed"
    );
    assert_eq!(rig.heard(1), [words]);
    assert!(rig.routed.is_empty(), "{:?}", rig.routed);
}

#[test]
fn a_step_that_cannot_be_leased_any_more_is_not_made() {
    let mut product = leasable(Some(30));
    let steps =
        vec![Step::Wait(seconds(5)), Step::Write(vec![(SETPOINT, Operand::Constant(Value::Float(70.0)))])];
    product.functions.push(Function { steps, ..Function::new("boost") });
    let mut rig = Rig::of(plant(product));
    rig.attach(SessionKey(1));
    rig.presence("press-1", true);
    rig.values("press-1", &[(SETPOINT, Value::Float(20.0))]);
    rig.pass(seconds(60));
    rig.submit(
        1,
        1,
        &all_rights("demo"),
        command("press-1", Action::Invoke { function: "boost".into(), inputs: vec![] }),
    );
    rig.state.fill_leases(rig.now);
    rig.pass(seconds(5));
    let told = rig.heard(1).join("; ");
    assert!(told.contains("step 2 of 2 (write setpoint) failed: 4096 values are leased already"), "{told}");
    assert!(rig.routed.is_empty(), "{:?}", rig.routed);
}

#[test]
fn the_journal_tells_a_device_that_was_added_from_a_start_of_the_gateway() {
    let product = Arc::new(leasable(None));
    let both = || ["press-1", "press-2"].map(|id| device(id, &product, "rs485", "1")).to_vec();
    let link = Arc::new(Link { id: "rs485".into(), address: "?".into(), readable: true });
    let mut rig = Rig::of(Directory::new(both()[..1].to_vec(), vec![link]));
    rig.presence("press-1", true);
    rig.adopt(both());
    rig.presence("press-2", true);
    rig.values("press-2", &[(SETPOINT, Value::Float(70.0))]);
    rig.pass(seconds(30));
    let told = rig.heard(0).join("; ");
    assert!(told.contains("by addition of the device setpoint=20"), "{told}");
    assert!(told.contains("by start of the gateway setpoint=20"), "{told}");
}

#[test]
fn the_bound_is_more_than_a_plant_of_this_kind_has() {
    const { assert!(LEASES >= crate::hub::commands::COMMANDS) }
}

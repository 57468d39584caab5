//! Tests of what is known of devices when a broker is back.

use super::*;

/// Writes something, and sees it acknowledged.
fn reach(bed: &mut Bed) {
    bed.write(&[(LEVEL, Value::Int(7))]);
    let message = bed.sent();
    bed.state.handle_acknowledged(message.ticket, bed.now);
    assert!(matches!(bed.outcomes().as_slice(), [Outcome::Confirmed { .. }]));
}

#[test]
fn a_device_that_never_speaks_is_tried_again_when_its_broker_is_back() {
    let mut bed = Bed::connected(|_| ());
    reach(&mut bed);
    for _ in 0..2 {
        bed.lose();
        bed.write(&[(LEVEL, Value::Int(7))]);
        assert_eq!(bed.outcomes(), [Outcome::Offline]);
        bed.state.handle_connected(bed.now);
        let seen = bed.seen();
        assert!(
            matches!(seen.as_slice(), [Observation::Link { up: true, .. }, Observation::Doubt { device }] if device.id == bed.device.id),
            "{seen:?}"
        );
        reach(&mut bed);
    }
}

#[test]
fn a_broker_that_comes_later_than_the_gateway_is_like_one_that_was_there_first() {
    let mut bed = Bed::new(|_| ());
    bed.lose();
    bed.state.handle_connected(bed.now);
    assert!(matches!(bed.seen().last(), Some(Observation::Doubt { .. })));
    reach(&mut bed);
}

#[test]
fn what_an_availability_topic_says_ends_the_doubt() {
    let mut bed = Bed::connected(with_availability);
    bed.retained("d/lwt", r#"{"state":"offline"}"#);
    assert_eq!(bed.presence(), [false]);
    bed.lose();
    bed.state.handle_connected(bed.now);
    bed.seen();
    bed.retained("d/lwt", r#"{"state":"offline"}"#);
    assert_eq!(bed.presence(), [false], "the hub is told, which does not repeat it to clients");
    bed.write(&[(LEVEL, Value::Int(7))]);
    assert_eq!(bed.outcomes(), [Outcome::Offline]);
}

#[test]
fn a_write_that_only_the_broker_confirms_waits_for_what_is_said_of_the_device() {
    for (said, outcome) in [("online", None), ("offline", Some(Outcome::Offline))] {
        let mut bed = Bed::connected(with_availability);
        bed.lose();
        bed.state.handle_connected(bed.now);
        bed.seen();
        bed.write(&[(LEVEL, Value::Int(7))]);
        assert_eq!(bed.state.poll_publish(), None, "nothing is known of the device yet");
        bed.wait(Duration::from_millis(300));
        bed.retained("d/lwt", &format!(r#"{{"state":"{said}"}}"#));
        if let Some(outcome) = outcome {
            assert_eq!(bed.outcomes(), [outcome]);
            assert_eq!(bed.state.poll_publish(), None, "and nothing was sent");
        } else {
            let message = bed.sent();
            bed.state.handle_acknowledged(message.ticket, bed.now);
            assert!(matches!(bed.outcomes().as_slice(), [Outcome::Confirmed { .. }]));
        }
    }
}

#[test]
fn where_nothing_is_said_of_the_device_the_write_goes_after_a_moment() {
    // Half of its own time, where that is less.
    for (patience, pause) in [(Duration::from_secs(60), 2000), (Duration::from_secs(1), 500)] {
        let mut bed = Bed::connected(with_availability);
        bed.next += 1;
        let (id, device) = (CommandId(bed.next), Arc::clone(&bed.device));
        let action = DriverAction::Write(vec![(LEVEL, Value::Int(7))]);
        let deadline = bed.now.instant + patience;
        bed.state.handle_command(&DriverCommand { id, device, action, deadline, urgent: false }, bed.now);
        bed.wait(Duration::from_millis(pause - 1));
        assert_eq!(bed.state.poll_publish(), None);
        bed.wait(Duration::from_millis(1));
        bed.sent();
        // And the next one at once: what was kept is told by now, if there is any.
        bed.wait(Duration::from_secs(2));
        reach(&mut bed);
    }
}

#[test]
fn a_device_that_has_just_spoken_is_not_waited_for_and_neither_is_one_that_answers_itself() {
    let mut bed = Bed::connected(with_availability);
    bed.message("d/state", r#"{"power":true}"#);
    reach(&mut bed);
    let mut bed = Bed::connected(with_availability);
    bed.write(&[(POWER, Value::Bool(true))]);
    assert_eq!(&*bed.sent().topic, "d/power/set", "its report says what became of it");
}

#[test]
fn of_the_writes_that_wait_for_a_device_the_last_value_wins() {
    let mut bed = Bed::connected(with_availability);
    bed.write(&[(LEVEL, Value::Int(1))]);
    bed.write(&[(LEVEL, Value::Int(2))]);
    assert_eq!(bed.outcomes(), [Outcome::Rejected(Rejection::Superseded("level".into()))]);
    bed.retained("d/lwt", r#"{"state":"online"}"#);
    assert_eq!(bed.sent().payload, "2");
    assert_eq!(bed.state.poll_publish(), None);
}

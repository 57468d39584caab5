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

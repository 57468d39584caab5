//! Tests of reads on demand, and of what is dropped.

use super::*;

#[test]
fn all_who_ask_at_once_share_one_request_and_one_deadline() {
    let mut bed = Bed::connected(with_reads);
    let read = |bed: &mut Bed| bed.command(DriverAction::Read(vec![POWER]));
    read(&mut bed);
    let request = bed.sent();
    assert_eq!(&*request.topic, "d/power/get");
    bed.wait(Duration::from_secs(2));
    read(&mut bed);
    assert_eq!(bed.state.poll_publish(), None, "the request is under way already");
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(
        bed.outcomes(),
        [confirmed(&[("power", Value::Bool(true))]), confirmed(&[("power", Value::Bool(true))])]
    );
    // The next one asks anew, and a late joiner is not kept waiting for longer than the first.
    read(&mut bed);
    assert_ne!(bed.sent().ticket, request.ticket);
    bed.wait(Duration::from_secs(2));
    read(&mut bed);
    bed.wait(Duration::from_secs(1));
    assert_eq!(bed.outcomes(), [Outcome::TimedOut, Outcome::TimedOut]);
}

#[test]
fn a_shared_request_that_is_refused_is_refused_for_all() {
    let mut bed = Bed::connected(with_reads);
    bed.command(DriverAction::Read(vec![POWER, LEVEL]));
    bed.command(DriverAction::Read(vec![POWER]));
    bed.command(DriverAction::Read(vec![LEVEL]));
    let (power, level) = (bed.sent(), bed.sent());
    bed.state.handle_refused(power.ticket, "not allowed", bed.now);
    let refused = || by_device("the broker refuses the message: not allowed");
    assert_eq!(bed.outcomes(), [refused(), refused()]);
    bed.state.handle_acknowledged(level.ticket, bed.now);
    assert_eq!(bed.outcomes(), [], "an acknowledgement is no reading");
    bed.message("d/state", r#"{"level":7}"#);
    assert_eq!(bed.outcomes(), [confirmed(&[("level", Value::Int(7))])]);
}

#[test]
fn a_read_that_cannot_begin_leaves_the_shared_request_to_the_others() {
    let mut bed = Bed::connected(with_reads);
    bed.command(DriverAction::Read(vec![POWER]));
    bed.command(DriverAction::Read(vec![POWER, FIXED]));
    assert_eq!(bed.outcomes(), [by_device("it reports by itself and cannot be asked")]);
    bed.sent();
    bed.message("d/state", r#"{"power":false}"#);
    assert_eq!(bed.outcomes(), [confirmed(&[("power", Value::Bool(false))])]);
    assert_eq!(bed.state.ledger.unanswered(0).count(), 0, "nothing is left behind");
}

#[test]
fn a_reading_that_comes_before_the_request_has_left_makes_it_needless() {
    let mut bed = Bed::connected(with_reads);
    bed.command(DriverAction::Read(vec![LEVEL]));
    bed.retained("d/state", r#"{"level":1}"#);
    assert_eq!(bed.outcomes(), [], "what the broker had kept is of unknown age");
    bed.message("d/state", r#"{"level":2}"#);
    assert_eq!(bed.outcomes(), [confirmed(&[("level", Value::Int(2))])]);
    assert_eq!(bed.state.poll_publish(), None);
}

#[test]
fn a_reading_that_is_none_is_refused_with_its_reason() {
    let mut bed = Bed::connected(with_reads);
    bed.command(DriverAction::Read(vec![LEVEL]));
    bed.sent();
    bed.message("d/state", r#"{"level":[]}"#);
    let outcomes = bed.outcomes();
    let [Outcome::Rejected(Rejection::ByDevice(words))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert!(words.starts_with("level: "), "{words}");
}

#[test]
fn what_is_dropped_is_counted_by_its_reason() {
    let mut bed = Bed::connected(|map| {
        map.publish = vec![Place::of("{topic}/log")];
        with_availability(map);
    });
    let counts = |bed: &mut Bed| bed.state.take_dropped();
    assert_eq!(
        Dropped::ALL,
        [Dropped::Unmatched, Dropped::Unreadable, Dropped::TooLarge, Dropped::QueueFull]
    );
    for (topic, payload) in [("d/other", "x"), ("d/state", r#"{"unknown":1}"#), ("d/lwt", r#"{"state":"?"}"#)]
    {
        bed.message(topic, payload);
        assert_eq!(counts(&mut bed), [1, 0, 0, 0], "{topic}");
    }
    for payload in ["no json", r#"{"level":"x"}"#, r#"{"power":true,"level":[]}"#] {
        bed.message("d/state", payload);
        assert_eq!(counts(&mut bed), [0, 1, 0, 0], "{payload}");
    }
    bed.message("d/log", &"x".repeat(LARGEST_RAW + 1));
    assert_eq!(counts(&mut bed), [0, 0, 1, 0]);
    for (topic, payload) in [
        ("d/state", r#"{"power":true}"#),
        ("d/lwt", r#"{"state":"online"}"#),
        ("d/log", "x"),
        ("d/state", ""),
    ] {
        bed.message(topic, payload);
        assert_eq!(counts(&mut bed), [0; 4], "{topic}");
    }
    bed.write(&[(LEVEL, Value::text("x".repeat(LARGEST_PAYLOAD + 1)))]);
    counts(&mut bed);
    for _ in 0..COMMANDS_IN_FLIGHT + 3 {
        bed.write(&[(LEVEL, Value::Int(1))]);
    }
    assert_eq!(counts(&mut bed), [0, 0, 0, 3]);
    let ticket = bed.sent().ticket;
    bed.outcomes();
    bed.state.handle_too_large(ticket, 100, bed.now);
    assert_eq!(counts(&mut bed), [0, 0, 1, 0]);
    assert_eq!(bed.outcomes(), [by_device("the broker takes no message of more than 100 bytes")]);
}

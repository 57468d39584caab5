//! What happens in the field: devices that only listen, writes in a crowd, peers that hang up.

use super::*;

#[test]
fn a_device_with_nothing_to_poll_may_be_told_something_again_after_it_was_offline() {
    let step = Step::Write { point: holding(10), value: Operand::Constant(Value::Int(5)) };
    let thing = device(1, 1, vec![], vec![vec![step]]);
    let call = || DriverAction::Invoke { function: 0, inputs: Vec::new() };
    // Nobody sends a command to a device that is known to be offline, and without one this unit is never asked anything.
    let is_in_doubt = |rig: &Rig| matches!(rig.seen.last(), Some(Observation::Doubt { .. }));
    let mut rig = Rig::new(vec![thing.clone()]);
    rig.core.link_lost("unplugged", rig.now());
    rig.collect();
    assert_eq!(rig.presences(), [("dev-1".to_owned(), false)]);
    assert!(is_in_doubt(&rig), "{:?}", rig.seen);
    rig.core.link_found(rig.now);
    rig.submit(1, &thing, call(), patient());
    rig.run(1, answering(true));
    assert_eq!(rig.presences().last(), Some(&("dev-1".to_owned(), true)));
    // The same where it is the unit that does not answer.
    for id in 2..20 {
        rig.submit(id, &thing, call(), patient());
        rig.run(1, answering(false));
    }
    assert_eq!(rig.presences().last(), Some(&("dev-1".to_owned(), false)));
    let doubts = rig.seen.iter().filter(|seen| matches!(seen, Observation::Doubt { .. })).count();
    // When it was lost, when its link was back, and when it kept silent itself.
    assert_eq!(doubts, 3, "{:?}", rig.seen);
}

#[test]
fn writes_that_wait_for_the_line_together_wear_memory_out_no_faster() {
    let worn = Point { write_interval: Some(Duration::from_secs(10)), ..holding(10) };
    let step = Step::Write { point: holding(10), value: Operand::Constant(Value::Int(5)) };
    let thing = device(1, 1, vec![worn, holding(11)], vec![vec![step]]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    // None of these covers another, so all of them stand in the queue before the first is begun.
    let call = DriverAction::Invoke { function: 0, inputs: Vec::new() };
    let both = DriverAction::Write(vec![(0, Value::Int(1)), (1, Value::Int(2))]);
    rig.submit(1, &thing, call.clone(), patient());
    rig.submit(2, &thing, call, Duration::from_secs(2));
    rig.submit(3, &thing, both, patient());
    rig.run(5, &answer);
    assert_eq!(writes(&rig.asked), [(10, 5)]);
    let outcomes = rig.outcomes();
    assert!(matches!(outcomes[&2][..], [Outcome::Rejected(Rejection::TooSoon { .. })]), "{outcomes:?}");
    rig.run(10, &answer);
    assert_eq!(writes(&rig.asked), [(10, 5), (10, 1), (11, 2)]);
    assert!(matches!(rig.outcomes()[&3][..], [Outcome::Confirmed { .. }]));
}

/// Answers like a device that keeps silent where it is asked for register 11, which it does not have.
fn silent_at_register_11(request: &Request) -> Option<Answer> {
    let asks = matches!(request, Request::Read(span) if span.address() <= 11 && span.end() > 11);
    (!asks).then(|| right(request))
}

#[test]
fn a_peer_that_hangs_up_on_a_range_is_asked_for_the_rest_all_the_same() {
    let thing = device(1, 1, vec![holding(10), holding(11), holding(12), holding(100)], vec![]);
    let mut rig = Rig::new(vec![thing]);
    let end = rig.now + Duration::from_secs(120);
    let mut hung_up = 0;
    while rig.now < end {
        rig.now += Duration::from_millis(10);
        match rig.core.next(rig.now()) {
            Turn::Ask { request, .. } => {
                if let Some(answer) = silent_at_register_11(&request) {
                    rig.core.completed(Ok(answer), rig.now());
                } else {
                    hung_up += 1;
                    rig.core.interrupted(rig.now());
                    rig.core.opened(rig.now);
                }
            }
            Turn::Idle { until } => rig.now = until.map_or(end, |until| until.clamp(rig.now, end)),
        }
        rig.collect();
    }
    let read = |position: usize| {
        let has = |(at, sample): &(usize, Sample)| *at == position && matches!(sample, Sample::Value(_));
        rig.seen
            .iter()
            .any(|seen| matches!(seen, Observation::Values { values, .. } if values.iter().any(has)))
    };
    assert_eq!([0, 1, 2, 3].map(read), [true, false, true, true]);
    assert!(hung_up < 30, "{hung_up} connections were lost");
}

#[test]
fn a_unit_whose_only_range_has_a_hole_is_read_around_it() {
    let mut rig = Rig::new(vec![device(1, 1, vec![holding(10), holding(12)], vec![])]);
    rig.run(120, |_, request| silent_at_register_11(request));
    assert_eq!(rig.presences().last(), Some(&("dev-1".to_owned(), true)));
    assert!(rig.presences().len() <= 3, "{:?}", rig.presences());
    rig.asked.clear();
    rig.run(10, |_, request| silent_at_register_11(request));
    assert!(spans(&rig.asked).iter().all(|asked| !asked.contains("to")), "{:?}", spans(&rig.asked));
}

#[test]
fn a_read_on_demand_goes_by_what_the_polls_have_learned() {
    let thing = device(1, 1, vec![holding(10), holding(12), holding(100)], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    rig.run(60, |_, request| silent_at_register_11(request));
    rig.asked.clear();
    rig.submit(1, &thing, DriverAction::Read(vec![0, 1]), patient());
    rig.run(5, |_, request| silent_at_register_11(request));
    let values = vec![("p0".into(), Value::Int(10)), ("p1".into(), Value::Int(12))];
    assert_eq!(rig.outcomes()[&1], [Outcome::Confirmed { values, outputs: Vec::new() }]);
    assert!(!spans(&rig.asked).contains(&"read of holding registers 10 to 12".to_owned()));
}

#[test]
fn a_function_that_waits_lets_its_device_be_read_and_other_writes_wait_behind_it() {
    let step =
        |address, value| Step::Write { point: holding(address), value: Operand::Constant(Value::Int(value)) };
    let steps = vec![step(30, 1), Step::Wait(Duration::from_secs(30)), step(31, 9)];
    let thing = device(1, 1, vec![holding(10)], vec![steps]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.asked.clear();
    rig.submit(1, &thing, DriverAction::Invoke { function: 0, inputs: Vec::new() }, patient());
    rig.submit(2, &thing, set(0, 5), patient());
    rig.submit(3, &thing, DriverAction::Read(vec![0]), patient());
    rig.run(20, &answer);
    assert_eq!(writes(&rig.asked), [(30, 1)]);
    let polls = rig.asked.len() - 1;
    assert!((20..=22).contains(&polls), "{polls} polls in 20 s, and the read on demand");
    assert!(matches!(rig.outcomes()[&3][..], [Outcome::Confirmed { .. }]));
    rig.run(15, &answer);
    assert_eq!(writes(&rig.asked), [(30, 1), (31, 9), (10, 5)]);
}

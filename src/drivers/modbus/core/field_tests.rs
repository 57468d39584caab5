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
    assert_eq!(doubts, 2, "{:?}", rig.seen);
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

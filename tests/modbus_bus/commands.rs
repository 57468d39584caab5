//! Writes, reads on demand and functions: order, outcomes, read-back.

use std::collections::BTreeSet;
use std::time::Duration;

use pentad::drivers::modbus::map::{Data, Operand, Step, Table, WritePolicy};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::{Outcome, Rejection};
use pentad::model::value::Value;

use crate::rig::{PATIENCE, Rig, TIMEOUT, device, holding, point, serial, write};
use crate::slave::{Deed, Line, World, exception, read_answer, rtu};

fn set(values: &[(usize, i64)]) -> DriverAction {
    DriverAction::Write(values.iter().map(|(at, value)| (*at, Value::Int(*value))).collect())
}

fn confirmed(values: &[(&str, i64)]) -> Outcome {
    let values = values.iter().map(|(id, value)| ((*id).into(), Value::Int(*value))).collect();
    Outcome::Confirmed { values, outputs: Vec::new() }
}

#[tokio::test]
async fn a_write_is_read_back_and_told_to_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1, 2]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let coil = point(Table::Coil, 3, Data::Bool, 60_000);
    let points = vec![holding(10, 60_000), holding(11, 60_000), coil];
    let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(1)).await;
    rig.value(1, 2, Value::Bool(false)).await;
    rig.forget();

    assert_eq!(rig.command(1, set(&[(0, 7), (1, 8)])).await, confirmed(&[("p0", 7), ("p1", 8)]));
    assert_eq!((world.get(1, 10), world.get(1, 11)), (Some(7), Some(8)));
    assert_eq!(rig.all_samples(1, 0), [Sample::Value(Value::Int(7))]);
    let functions: Vec<u8> = world.log().iter().rev().take(4).rev().map(|asked| asked.function).collect();
    assert_eq!(functions, [6, 3, 6, 3]);

    let on = DriverAction::Write(vec![(2, Value::Bool(true))]);
    let told = Outcome::Confirmed { values: vec![("p2".into(), Value::Bool(true))], outputs: vec![] };
    assert_eq!(rig.command(1, on).await, told);
    assert!(world.coil(1, 3));
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Accepted { .. })), 2);
    rig.stop().await;
}

#[tokio::test]
async fn adjacent_registers_that_go_by_function_16_anyway_travel_together() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[0; 6]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let points = [10, 12, 14].map(|address| point(Table::Holding, address, Data::U32, 60_000)).to_vec();
    let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(0)).await;
    let from = world.log().len();
    let outcome = rig.command(1, set(&[(0, 1), (1, 2), (2, 0x0003_0004)])).await;
    assert_eq!(outcome, confirmed(&[("p0", 1), ("p1", 2), ("p2", 0x0003_0004)]));
    let asked: Vec<_> =
        world.log()[from..].iter().map(|asked| (asked.function, asked.address, asked.second)).collect();
    assert_eq!(asked, [(16, 10, 6), (3, 10, 6)]);
    rig.stop().await;
}

#[tokio::test]
async fn a_refusal_carries_the_words_of_the_device_and_what_was_written_before() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1, 2]);
    world.script(|asked| {
        (asked.function == 6 && asked.address == 11).then(|| vec![Deed::Send(rtu(&exception(asked, 2)))])
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let points = vec![holding(10, 60_000), holding(11, 60_000)];
    let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(1)).await;
    let refused = |words: &str| Outcome::Rejected(Rejection::ByDevice(words.to_owned()));
    assert_eq!(rig.command(1, set(&[(1, 5)])).await, refused("illegal data address (exception 2) at p1"));
    assert_eq!(
        rig.command(1, set(&[(0, 5), (1, 5)])).await,
        refused("illegal data address (exception 2) at p1; p0 had been written before")
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_value_that_the_registers_cannot_hold_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1, 2]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let points = vec![holding(10, 60_000), holding(11, 60_000)];
    let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
    let outcome = rig.command(1, set(&[(0, 5), (1, 70_000)])).await;
    assert!(matches!(outcome, Outcome::Rejected(Rejection::OutOfRange { .. })), "{outcome:?}");
    assert_eq!(world.get(1, 10), Some(1));
    rig.stop().await;
}

#[tokio::test]
async fn a_device_that_keeps_another_value_is_a_mismatch_and_one_that_is_slow_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[50, 1]);
    let mut reads = 0;
    let seen = world.clone();
    world.script(move |asked| match (asked.function, asked.address) {
        // Register 10 keeps its value; register 11 shows the new one only at the second look.
        (6, 10) => Some(vec![Deed::Send(rtu(&[
            asked.unit,
            6,
            0,
            10,
            asked.second.to_be_bytes()[0],
            asked.second.to_be_bytes()[1],
        ]))]),
        (3, 11) if asked.second == 1 => {
            reads += 1;
            (reads == 1).then(|| vec![Deed::Send(rtu(&read_answer(asked, &[1])))])
        }
        _ => None,
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let points = vec![holding(10, 60_000), holding(11, 60_000)];
    let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(50)).await;
    let (expected, found) = (Value::Int(80), Value::Int(50));
    let mismatch = Outcome::Rejected(Rejection::Mismatch { id: "p0".into(), expected, found });
    assert_eq!(rig.command(1, set(&[(0, 80)])).await, mismatch);
    assert_eq!(rig.command(1, set(&[(1, 9)])).await, confirmed(&[("p1", 9)]));
    assert_eq!(seen.log().iter().filter(|asked| (asked.function, asked.address) == (3, 11)).count(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_and_is_not_sent_twice() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1]);
    world.script(|asked| (asked.function == 6).then(Vec::new));
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 60_000)], vec![])]);
    rig.value(1, 0, Value::Int(1)).await;
    assert_eq!(rig.command(1, set(&[(0, 2)])).await, Outcome::TimedOut);
    assert_eq!(world.log().iter().filter(|asked| asked.function == 6).count(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_write_overtakes_the_polls_of_a_busy_bus() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    for unit in 1..=5 {
        world.set(unit, 10, &[0]);
    }
    let memory = world.clone();
    world.script(move |asked| {
        let _unused = &memory;
        (asked.function == 3 && asked.unit != 5)
            .then(|| vec![Deed::Wait(Duration::from_millis(20)), Deed::Send(rtu(&read_answer(asked, &[0])))])
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let devices = (1..=5).map(|unit| device(unit, vec![holding(10, 0)], vec![])).collect();
    let mut rig = Rig::start(serial(&line.path), devices);
    rig.value(5, 0, Value::Int(0)).await;
    for value in 1..=5 {
        let before = world.log().len();
        assert_eq!(rig.command(5, set(&[(0, value)])).await, confirmed(&[("p0", value)]));
        let waited = world.log()[before..].iter().position(|asked| asked.function == 6).unwrap();
        // The request under way, and the next if the write came between two.
        assert!(waited <= 2, "{waited} requests went before the write");
    }
    rig.stop().await;
}

#[tokio::test]
async fn reads_on_demand_that_wait_together_are_made_together() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1, 2, 3]);
    world.set(2, 10, &[9]);
    world.script(|asked| {
        (asked.unit == 2).then(|| vec![Deed::Wait(TIMEOUT / 2), Deed::Send(rtu(&read_answer(asked, &[9])))])
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let points = [10, 11, 12].map(|address| holding(address, 60_000)).to_vec();
    let devices = vec![device(1, points, vec![]), device(2, vec![holding(10, 0)], vec![])];
    let mut rig = Rig::start(serial(&line.path), devices);
    rig.value(1, 0, Value::Int(1)).await;
    rig.value(2, 0, Value::Int(9)).await;
    let from = world.log().len();
    let mut ids = Vec::new();
    for positions in [vec![0], vec![2, 1], vec![0, 1, 2]] {
        ids.push(rig.submit(1, DriverAction::Read(positions), PATIENCE).await);
    }
    let expected: [&[(&str, i64)]; 3] =
        [&[("p0", 1)], &[("p2", 3), ("p1", 2)], &[("p0", 1), ("p1", 2), ("p2", 3)]];
    for (id, expected) in ids.into_iter().zip(expected) {
        assert_eq!(rig.outcome(id).await, confirmed(expected));
    }
    let reads = world.log()[from..].iter().filter(|asked| asked.unit == 1).count();
    assert!(reads <= 2, "{reads} reads for three commands");
    rig.stop().await;
}

#[tokio::test]
async fn a_function_runs_its_steps_in_order_and_others_are_served_while_it_waits() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 200, &[0, 0]);
    world.set(2, 10, &[0]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let pause = Duration::from_secs(1);
    let steps = vec![
        write(200, Operand::Input("code".into())),
        Step::Wait(pause),
        write(201, Operand::Constant(Value::Int(5))),
        write(201, Operand::Input("absent".into())),
    ];
    let devices = vec![device(1, vec![], vec![steps]), device(2, vec![holding(10, 20)], vec![])];
    let mut rig = Rig::start(serial(&line.path), devices);
    rig.value(2, 0, Value::Int(0)).await;
    let inputs = vec![("code".into(), Value::Int(77))];
    let outcome = rig.command(1, DriverAction::Invoke { function: 0, inputs }).await;
    assert_eq!(outcome, confirmed(&[]));
    assert_eq!((world.get(1, 200), world.get(1, 201)), (Some(77), Some(5)));
    let log = world.log();
    let steps: Vec<usize> = (0..log.len()).filter(|at| log[*at].unit == 1).collect();
    assert_eq!(steps.len(), 2, "a step without its input is left out");
    assert!(log[steps[1]].at >= log[steps[0]].at + pause);
    assert!(steps[1] - steps[0] > 3, "the other unit was asked only {} times", steps[1] - steps[0] - 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_command_that_came_too_late_is_busy_and_stopping_settles_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1]);
    world.set(2, 10, &[1]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let steps = vec![vec![write(10, Operand::Constant(Value::Int(1))), Step::Wait(PATIENCE * 2)]];
    let devices =
        vec![device(1, vec![holding(10, 60_000)], steps), device(2, vec![holding(10, 60_000)], vec![])];
    let mut rig = Rig::start(serial(&line.path), devices);
    rig.value(1, 0, Value::Int(1)).await;
    let begun = rig.submit(1, DriverAction::Invoke { function: 0, inputs: vec![] }, PATIENCE).await;
    let expired = rig.submit(1, set(&[(0, 2)]), Duration::from_millis(50)).await;
    assert_eq!(rig.outcome(expired).await, Outcome::Rejected(Rejection::Expired));
    let past = rig.submit(2, set(&[(0, 2)]), Duration::ZERO).await;
    assert_eq!(rig.outcome(past).await, Outcome::Rejected(Rejection::Expired));
    let waiting: Vec<_> =
        [rig.submit(1, set(&[(0, 3)]), PATIENCE).await, rig.submit(1, set(&[(0, 4)]), PATIENCE).await].into();
    let superseded = Outcome::Rejected(Rejection::Superseded("p0".into()));
    assert_eq!(rig.outcome(waiting[0]).await, superseded);
    rig.stop().await;
    assert_eq!(rig.outcome(begun).await, Outcome::TimedOut, "it may have had its effect");
    assert_eq!(rig.outcome(waiting[1]).await, Outcome::Busy);
    let settled: Vec<u64> = rig
        .seen
        .iter()
        .filter_map(
            |seen| if let Observation::Settled { command, .. } = seen { Some(command.0) } else { None },
        )
        .collect();
    assert_eq!(settled.len(), settled.iter().collect::<BTreeSet<_>>().len(), "each is settled once");
}

#[tokio::test]
async fn the_single_policy_writes_a_wide_value_register_by_register() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[0, 0]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut wide = point(Table::Holding, 10, Data::U32, 60_000);
    wide.write = WritePolicy::Single;
    wide.verify = false;
    let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![wide], vec![])]);
    rig.value(1, 0, Value::Int(0)).await;
    let from = world.log().len();
    assert_eq!(rig.command(1, set(&[(0, 0x0001_0002)])).await, confirmed(&[("p0", 0x0001_0002)]));
    let asked: Vec<_> =
        world.log()[from..].iter().map(|asked| (asked.function, asked.address, asked.second)).collect();
    assert_eq!(asked, [(6, 10, 1), (6, 11, 2)]);
    rig.stop().await;
}

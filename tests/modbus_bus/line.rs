//! What a serial line does to a bus: late, damaged and missing answers, foreign traffic, lost adapters.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pentad::drivers::modbus::ModbusDevice;
use pentad::drivers::modbus::map::{ModbusMap, Operand};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::value::Value;

use crate::rig::{PATIENCE, Rig, TIMEOUT, device, holding, serial, write};
use crate::slave::{Asked, Deed, Line, World, exception, now, read_answer, rtu};

#[tokio::test]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    // Behind the timeout: while the line settles, after the next request, and much later.
    join_all([TIMEOUT * 11 / 10, TIMEOUT * 3 / 2, TIMEOUT * 5 / 2, TIMEOUT * 4].map(|delay| async move {
        let folder = tempfile::tempdir().unwrap();
        let world = World::default();
        world.set(1, 100, &[111]);
        world.set(1, 200, &[222]);
        let mut first = true;
        world.script(move |asked| {
            if asked.address != 100 || !std::mem::take(&mut first) {
                return None;
            }
            Some(vec![Deed::Wait(delay), Deed::Send(rtu(&read_answer(asked, &[111])))])
        });
        let line = Line::plug(&world, &folder.path().join("port"));
        let points = vec![holding(100, 300), holding(200, 300)];
        let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
        rig.value(1, 0, Value::Int(111)).await;
        rig.value(1, 1, Value::Int(222)).await;
        rig.watch(TIMEOUT * 6).await;
        for (position, value) in [(0, 111), (1, 222)] {
            for sample in rig.all_samples(1, position) {
                assert_eq!(sample, Sample::Value(Value::Int(value)), "p{position} after {delay:?}");
            }
        }
        rig.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_silent_unit_does_not_slow_its_neighbours_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    for unit in [1, 2, 9] {
        world.set(unit, 10, &[u16::from(unit)]);
    }
    world.kill(9);
    let line = Line::plug(&world, &folder.path().join("port"));
    let devices = [1, 2, 9].map(|unit| device(unit, vec![holding(10, 50)], vec![])).to_vec();
    let mut rig = Rig::start_with(serial(&line.path), devices, TIMEOUT / 2);
    rig.presence(9, false).await;
    // Counted in turns of the bus and not by the clock, since the machine may be busy.
    let from = world.log().len();
    let asked = |unit: u8| world.log()[from..].iter().filter(|asked| asked.unit == unit).count();
    let deadline = now() + PATIENCE;
    while asked(9) < 2 {
        assert!(now() < deadline, "the silent unit is asked now and then");
        rig.watch(Duration::from_millis(50)).await;
    }
    for unit in [1, 2] {
        let of = asked(unit);
        assert!(of >= 10, "unit {unit} was asked {of} times, the silent one {}", asked(9));
    }
    let outcome = rig.command(9, DriverAction::Read(vec![0])).await;
    assert_eq!(outcome, Outcome::Offline, "an offline unit is not asked for a client either");

    world.revive(9);
    rig.presence(9, true).await;
    rig.value(9, 0, Value::Int(9)).await;
    rig.stop().await;
    let told = |unit: u8| {
        rig.count(|seen| matches!(seen, Observation::Presence { device, .. } if *device.id == *format!("dev-{unit}")))
    };
    assert_eq!((told(1), told(2), told(9)), (1, 1, 2), "each change is told once");
}

/// Makes a bad answer.
type Bad = fn(&Asked) -> Vec<u8>;

#[tokio::test]
async fn bad_answers_cost_one_poll_and_not_the_device() {
    let cases: [(&str, Bad); 7] = [
        ("damaged", |asked| damaged(rtu(&read_answer(asked, &[7])))),
        ("truncated", |asked| rtu(&read_answer(asked, &[7]))[..4].to_vec()),
        ("of another unit", |asked| rtu(&[asked.unit + 1, 3, 2, 0, 7])),
        ("of another function", |asked| rtu(&[asked.unit, 4, 2, 0, 7])),
        ("too long", |asked| rtu(&read_answer(asked, &[7, 8]))),
        ("noise", |_| vec![0xFF; 300]),
        ("none", |_| vec![]),
    ];
    join_all(cases.map(|(name, bad)| async move {
        let folder = tempfile::tempdir().unwrap();
        let world = World::default();
        world.set(1, 10, &[42]);
        let mut left = 1;
        world.script(move |asked| {
            left -= 1;
            (left >= 0).then(|| vec![Deed::Send(bad(asked))])
        });
        let line = Line::plug(&world, &folder.path().join("port"));
        let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 100)], vec![])]);
        rig.value(1, 0, Value::Int(42)).await;
        rig.watch(TIMEOUT).await;
        let samples = rig.all_samples(1, 0);
        assert!(samples.iter().all(|sample| *sample == Sample::Value(Value::Int(42))), "{name}: {samples:?}");
        assert_eq!(
            rig.count(|seen| matches!(seen, Observation::Presence { online: false, .. })),
            0,
            "{name}"
        );
        rig.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn answers_in_single_bytes_and_behind_foreign_traffic_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    let mut turn = 0;
    world.script(move |asked| {
        turn += 1;
        let good = rtu(&read_answer(asked, &[turn]));
        let foreign = [rtu(&[5, 3, 0, 10, 0, 1]), rtu(&[5, 3, 2, 0, 99]), vec![0, 1, 3]].concat();
        Some(match turn % 2 {
            0 => vec![Deed::Send([foreign, good].concat())],
            _ => good
                .into_iter()
                .flat_map(|byte| [Deed::Send(vec![byte]), Deed::Wait(Duration::from_millis(5))])
                .collect(),
        })
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 20)], vec![])]);
    for turn in 1..=4 {
        rig.value(1, 0, Value::Int(turn)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_group_is_split_until_only_the_refused_property_is_unreadable() {
    for code in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let world = World::default();
        world.script(move |asked| {
            let asked_for = asked.address..asked.address + asked.second;
            let answer = if asked_for.contains(&12) {
                exception(asked, code)
            } else {
                read_answer(asked, &asked_for.collect::<Vec<_>>())
            };
            Some(vec![Deed::Send(rtu(&answer))])
        });
        let line = Line::plug(&world, &folder.path().join("port"));
        let points = [10, 11, 12, 13, 15].map(|address| holding(address, 50)).to_vec();
        let mut rig = Rig::start(serial(&line.path), vec![device(1, points, vec![])]);
        for (position, value) in [(0, 10), (1, 11), (3, 13), (4, 15)] {
            rig.value(1, position, Value::Int(value)).await;
        }
        let Sample::Unreadable(why) = rig.sample(1, 2).await else { panic!("register 12 cannot be read") };
        assert!(why.contains(&format!("exception {code}")), "{why}");
        let from = world.log().len();
        rig.watch(Duration::from_millis(300)).await;
        let again = world.log()[from..]
            .iter()
            .filter(|asked| (asked.address..=asked.address + asked.second - 1).contains(&12))
            .count();
        assert_eq!(again, 0, "what was refused is not asked again soon");
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_adapter_that_is_pulled_out_and_put_back_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    let world = World::default();
    world.set(1, 10, &[1]);
    let line = Line::plug(&world, &path);
    let mut rig = Rig::start(serial(&path), vec![device(1, vec![holding(10, 50)], vec![])]);
    rig.link(true).await;
    rig.value(1, 0, Value::Int(1)).await;

    rig.forget();
    line.unplug().await;
    let reason = rig.link(false).await.unwrap();
    assert!(reason.contains("cannot open serial port"), "{reason}");
    rig.presence(1, false).await;
    assert_eq!(rig.command(1, DriverAction::Write(vec![(0, Value::Int(5))])).await, Outcome::Offline);

    rig.forget();
    world.set(1, 10, &[2]);
    let _line = Line::plug(&world, &path);
    rig.link(true).await;
    rig.presence(1, true).await;
    rig.value(1, 0, Value::Int(2)).await;
    rig.stop().await;
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Link { .. })), 1, "each change is told once");
}

#[tokio::test]
async fn a_port_that_is_not_there_at_the_start_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    let world = World::default();
    world.set(1, 10, &[1]);
    let mut rig = Rig::start(serial(&path), vec![device(1, vec![holding(10, 50)], vec![])]);
    let reason = rig.link(false).await.unwrap();
    assert!(reason.contains("port"), "{reason}");
    let _line = Line::plug(&world, &path);
    rig.link(true).await;
    rig.value(1, 0, Value::Int(1)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_unit_that_has_lost_its_set_up_is_given_it_again_while_it_goes_on_answering() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[5]);
    world.set(1, 100, &[0]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut thing = device(1, vec![holding(10, 50)], vec![]);
    thing.map = Arc::new(ModbusMap {
        setup: vec![write(100, Operand::Constant(Value::Int(3)))],
        setup_check: Some(Duration::from_millis(200)),
        ..(*thing.map).clone()
    });
    let mut rig = Rig::start(serial(&line.path), vec![thing]);
    rig.value(1, 0, Value::Int(5)).await;
    for _ in 0..2 {
        let deadline = now() + PATIENCE;
        while world.get(1, 100) != Some(3) {
            assert!(now() < deadline, "waited in vain for the set-up");
            rig.watch(Duration::from_millis(20)).await;
        }
        // As if its power had been away for a moment.
        world.set(1, 100, &[0]);
    }
    rig.stop().await;
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Presence { .. })), 1, "it was never missed");
}

/// Waits until a world was asked something.
async fn asked(rig: &mut Rig, world: &World) {
    let deadline = now() + PATIENCE;
    while world.log().is_empty() {
        assert!(now() < deadline, "waited in vain for a request; seen: {:#?}", rig.seen);
        rig.watch(Duration::from_millis(20)).await;
    }
}

/// Units 1 to 12 that are silent, each read every so often.
fn silent(world: &World, every_ms: u64) -> Vec<ModbusDevice> {
    (1..=12)
        .map(|unit| {
            world.kill(unit);
            device(unit, vec![holding(10, every_ms)], vec![])
        })
        .collect()
}

#[tokio::test]
async fn a_port_on_which_everybody_is_silent_is_opened_anew_once_and_then_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    let (first, second, third) = (World::default(), World::default(), World::default());
    let devices = silent(&first, 1000);
    silent(&second, 1000);
    let _first = Line::plug(&first, &path);
    let mut rig = Rig::start_with(serial(&path), devices, Duration::from_millis(50));
    asked(&mut rig, &first).await;
    // The name leads to another line now, which only a port that is opened anew reaches.
    let _second = Line::plug(&second, &path);
    asked(&mut rig, &second).await;
    assert!(first.log().len() >= 12, "only after everybody was asked in vain");
    let _third = Line::plug(&third, &path);
    let before = second.log().len();
    rig.watch(Duration::from_secs(5)).await;
    assert_eq!(third.log().len(), 0, "the port is opened anew once in a minute");
    assert!(second.log().len() > before + 3, "the units are asked all the same");
    rig.stop().await;
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Link { .. })), 1, "the bus was up all the while");
}

#[tokio::test]
async fn a_port_on_which_one_unit_answers_is_not_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    let (first, second) = (World::default(), World::default());
    let mut devices = silent(&first, 100);
    // It is asked rarely, so that many timeouts come between its answers.
    first.set(13, 10, &[13]);
    devices.push(device(13, vec![holding(10, 600_000)], vec![]));
    let _first = Line::plug(&first, &path);
    // The one that answers must not seem silent on a busy machine.
    let mut rig = Rig::start_with(serial(&path), devices, TIMEOUT / 2);
    rig.value(13, 0, Value::Int(13)).await;
    let _second = Line::plug(&second, &path);
    let alive = || first.log().iter().filter(|asked| asked.unit == 13).count();
    let deadline = now() + PATIENCE;
    while alive() < 3 {
        assert!(now() < deadline, "the one that answers is asked whether all are silent");
        rig.watch(Duration::from_millis(50)).await;
    }
    assert!(first.log().len() > 20);
    assert_eq!(second.log().len(), 0);
    rig.stop().await;
}

fn damaged(mut frame: Vec<u8>) -> Vec<u8> {
    frame[3] ^= 1;
    frame
}

#[tokio::test]
async fn the_echo_of_a_two_wire_adapter_is_not_taken_for_the_answer_to_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[5]);
    // Everything is heard back; the write itself is never answered.
    world.script(|asked| {
        let echo = Deed::Send(asked.frame.clone());
        Some(if asked.function == 3 {
            vec![echo, Deed::Send(rtu(&read_answer(asked, &[5])))]
        } else {
            vec![echo]
        })
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut point = holding(10, 60_000);
    point.verify = false;
    let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![point], vec![])]);
    rig.value(1, 0, Value::Int(5)).await;
    assert_eq!(rig.command(1, DriverAction::Write(vec![(0, Value::Int(6))])).await, Outcome::TimedOut);
    rig.stop().await;
}

//! ASCII lines, the port's lock, transceivers that cannot be turned, and pauses after opening.

use std::time::Duration;

use pentad::drivers::modbus::{BusSettings, Rs485, SerialFraming, SerialSettings, Target, Turn};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::value::Value;

use crate::rig::{Rig, TIMEOUT, device, holding, serial};
use crate::slave::{Deed, Line, World, ascii, raw, read_answer, rtu};

fn settings(line: &Line, change: impl FnOnce(&mut SerialSettings)) -> BusSettings {
    let mut serial = SerialSettings::at(line.path.to_str().unwrap(), 115_200);
    change(&mut serial);
    BusSettings {
        id: "bus".into(),
        target: Target::Serial(serial),
        timeout: TIMEOUT,
        pause: Duration::ZERO,
        pause_after_connect: Duration::ZERO,
    }
}

fn in_ascii(line: &Line) -> BusSettings {
    settings(line, |serial| serial.framing = SerialFraming::Ascii)
}

#[tokio::test]
async fn an_ascii_line_is_read_and_written_with_seven_data_bits() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[0x0D0A, 0xFF3A]);
    let line = Line::plug_ascii(&world, &folder.path().join("port"));
    let points = vec![holding(10, 50), holding(11, 50)];
    let seven = settings(&line, |serial| {
        serial.framing = SerialFraming::Ascii;
        serial.data_bits = 7;
    });
    let mut rig = Rig::start_as(seven, vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(0x0D0A)).await;
    rig.value(1, 1, Value::Int(0xFF3A)).await;
    let outcome = rig.command(1, DriverAction::Write(vec![(0, Value::Int(0x3A3A))])).await;
    assert!(matches!(outcome, Outcome::Confirmed { .. }), "{outcome:?}");
    assert_eq!(world.get(1, 10), Some(0x3A3A));
    rig.stop().await;
}

#[tokio::test]
async fn noise_damage_and_late_answers_on_an_ascii_line_never_become_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 100, &[111]);
    world.set(1, 200, &[222]);
    let mut turn = 0;
    world.script(move |asked| {
        turn += 1;
        let value = if asked.address == 100 { 111 } else { 222 };
        let good = read_answer(asked, &[value]);
        let frame = ascii(&good);
        match turn {
            // Later than the timeout.
            1 => Some(vec![Deed::Wait(TIMEOUT * 3 / 2), Deed::Send(raw(&frame))]),
            // A digit is wrong.
            4 => Some(vec![Deed::Send(raw(&[&frame[..8], b"7", &frame[9..]].concat()))]),
            // Cut off, then whole behind noise and another unit's frame.
            6 => Some(vec![Deed::Send(raw(&frame[..7]))]),
            8 => {
                let foreign = ascii(&[2, 3, 2, 0, 9]);
                Some(vec![Deed::Send(raw(&[b"\xFF:01", &foreign[..], &frame].concat()))])
            }
            // One character at a time.
            10 => Some(
                frame
                    .iter()
                    .flat_map(|byte| [Deed::Send(raw(&[*byte])), Deed::Wait(Duration::from_millis(2))])
                    .collect(),
            ),
            _ => None,
        }
    });
    let line = Line::plug_ascii(&world, &folder.path().join("port"));
    let points = vec![holding(100, 100), holding(200, 100)];
    let mut rig = Rig::start_as(in_ascii(&line), vec![device(1, points, vec![])]);
    while world.log().len() < 14 {
        rig.watch(TIMEOUT / 4).await;
    }
    for (position, value) in [(0, 111), (1, 222)] {
        rig.value(1, position, Value::Int(value)).await;
        for sample in rig.all_samples(1, position) {
            assert_eq!(sample, Sample::Value(Value::Int(value)), "p{position}");
        }
    }
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Presence { online: false, .. })), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_port_that_another_program_has_is_not_shared_and_is_taken_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut first = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 50)], vec![])]);
    first.value(1, 0, Value::Int(1)).await;
    let mut second = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 50)], vec![])]);
    let reason = second.link(false).await.unwrap();
    assert!(reason.contains("in use by another program"), "{reason}");
    first.forget();
    first.watch(TIMEOUT).await;
    assert_eq!(
        first.count(|seen| matches!(seen, Observation::Link { .. })),
        0,
        "the first one is not disturbed"
    );
    first.stop().await;
    second.link(true).await;
    second.value(1, 0, Value::Int(1)).await;
    second.stop().await;
}

#[tokio::test]
async fn a_port_that_cannot_turn_a_transceiver_round_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    let line = Line::plug(&world, &folder.path().join("port"));
    for (by, words) in [(Turn::Kernel, "let the kernel turn"), (Turn::Rts, "by RTS")] {
        let rs485 = Rs485 { by, high: true, before: Duration::ZERO, after: Duration::ZERO };
        let settings = settings(&line, |serial| serial.rs485 = Some(rs485));
        let mut rig = Rig::start_as(settings, vec![device(1, vec![holding(10, 50)], vec![])]);
        let reason = rig.link(false).await.unwrap();
        assert!(reason.contains(words) && reason.contains("rs485 ="), "{reason}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_device_that_restarts_when_the_port_is_opened_is_given_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[1]);
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut patient = settings(&line, |_| {});
    patient.pause_after_connect = TIMEOUT * 2;
    let begun = crate::slave::now();
    let mut rig = Rig::start_as(patient, vec![device(1, vec![holding(10, 50)], vec![])]);
    rig.value(1, 0, Value::Int(1)).await;
    assert!(world.log()[0].at - begun >= TIMEOUT * 2, "asked after {:?}", world.log()[0].at - begun);
    let frame = &world.log()[0].frame;
    assert_eq!(frame, &rtu(&[1, 3, 0, 10, 0, 1]));
    rig.stop().await;
}

//! Modbus over TCP: transaction ids, lost connections, peers that are none.

use std::net::SocketAddr;
use std::time::Duration;

use pentad::drivers::modbus::map::Operand;
use pentad::drivers::modbus::{Target, TcpFraming};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::value::Value;

use crate::port::Port;
use crate::rig::{Rig, TIMEOUT, device, holding, write};
use crate::slave::{Deed, Server, World, mbap, raw, read_answer, rtu};

fn target(address: SocketAddr) -> Target {
    Target::Tcp { address: address.to_string().into(), socket: Some(address), framing: TcpFraming::Tcp }
}

#[tokio::test]
async fn a_stale_transaction_is_not_taken_for_the_present_one() {
    let world = World::default();
    let mut first = true;
    world.script(move |asked| {
        let value = if asked.address == 100 { 111 } else { 222 };
        let answer = Deed::Send(rtu(&read_answer(asked, &[value])));
        let late = asked.address == 100 && std::mem::take(&mut first);
        Some(if late { vec![Deed::Wait(TIMEOUT * 3 / 2), answer] } else { vec![answer] })
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let points = vec![holding(100, 100), holding(200, 100)];
    let mut rig = Rig::start(target(server.address), vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(111)).await;
    rig.value(1, 1, Value::Int(222)).await;
    rig.watch(TIMEOUT * 2).await;
    for (position, value) in [(0, 111), (1, 222)] {
        let samples = rig.all_samples(1, position);
        assert!(samples.iter().all(|sample| *sample == Sample::Value(Value::Int(value))), "{samples:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_peer_closes_is_made_again_without_a_word() {
    let world = World::default();
    world.set(1, 10, &[5]);
    let mut turn = 0;
    world.script(move |_| {
        turn += 1;
        (turn % 3 == 0).then(|| vec![Deed::HangUp])
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![holding(10, 20)], vec![])]);
    while world.log().len() < 20 {
        rig.watch(TIMEOUT / 4).await;
    }
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Link { .. })), 1, "up, once");
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Presence { .. })), 1, "online, once");
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_takes_its_devices_offline_until_it_returns() {
    let world = World::default();
    world.set(1, 10, &[5]);
    let port = Port::free();
    let address = port.address();
    let server = Server::start(&world, &address.to_string()).await;
    let mut rig = Rig::start(target(address), vec![device(1, vec![holding(10, 20)], vec![])]);
    rig.presence(1, true).await;
    server.stop().await;
    let reason = rig.link(false).await.unwrap();
    assert!(reason.contains("cannot connect to 127.0.0.1"), "{reason}");
    rig.presence(1, false).await;
    rig.forget();
    let _server = Server::start(&world, &address.to_string()).await;
    rig.link(true).await;
    rig.presence(1, true).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_answered_is_made_anew() {
    let world = World::default();
    world.set(1, 10, &[5]);
    let mut connection = 0;
    // A peer that has lost the connection without knowing: it answers only after a new one.
    world.script(move |_| {
        connection += 1;
        (connection <= 3).then(Vec::new)
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![holding(10, 20)], vec![])]);
    rig.value(1, 0, Value::Int(5)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_hangs_up_is_not_told_as_up_before_it_answers() {
    let world = World::default();
    world.set(1, 10, &[5]);
    let mut connections = 0;
    world.script(move |_| {
        connections += 1;
        (connections <= 3).then(|| vec![Deed::HangUp])
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![holding(10, 20)], vec![])]);
    rig.value(1, 0, Value::Int(5)).await;
    let told = |seen: &Observation| if let Observation::Link { up, .. } = seen { Some(*up) } else { None };
    let links: Vec<bool> = rig.seen.iter().filter_map(told).collect();
    assert_eq!(links, [true, false, true], "{:?}", rig.seen);
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_connection_with_devices_that_are_only_written_is_made_anew() {
    let world = World::default();
    world.set(1, 30, &[0]);
    let mut asked = 0;
    // A peer that has lost the connection without knowing: it answers only after a new one.
    world.script(move |_| {
        asked += 1;
        (asked <= 3).then(Vec::new)
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let steps = vec![write(30, Operand::Constant(Value::Int(1)))];
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![], vec![steps])]);
    let call = || DriverAction::Invoke { function: 0, inputs: Vec::new() };
    for _ in 0..3 {
        assert_eq!(rig.command(1, call()).await, Outcome::TimedOut);
    }
    let outcome = rig.command(1, call()).await;
    assert!(matches!(outcome, Outcome::Confirmed { .. }), "{outcome:?}");
    assert_eq!(world.connections(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_dead_unit_behind_a_gateway_does_not_cost_the_others_their_connection() {
    let world = World::default();
    world.set(1, 10, &[5]);
    world.kill(9);
    let server = Server::start(&world, "127.0.0.1:0").await;
    // The live one is asked so rarely that several timeouts of the dead one come in a row.
    let devices =
        vec![device(1, vec![holding(10, 60_000)], vec![]), device(9, vec![holding(10, 20)], vec![])];
    let mut rig = Rig::start(target(server.address), devices);
    rig.presence(9, false).await;
    rig.watch(TIMEOUT * 5).await;
    assert_eq!(world.connections(), 1);
    assert_eq!(rig.count(|seen| matches!(seen, Observation::Presence { online: false, .. })), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_peer_that_does_not_speak_modbus_is_not_hammered() {
    let world = World::default();
    world.script(|_| Some(vec![Deed::Send(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))]));
    let server = Server::start(&world, "127.0.0.1:0").await;
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![holding(10, 0)], vec![])]);
    let reason = rig.link(false).await.unwrap();
    assert!(reason.contains("does not speak Modbus TCP"), "{reason}");
    rig.watch(Duration::from_secs(1)).await;
    let asked = world.log().len();
    assert!(asked <= 8, "asked {asked} times in a second");
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_in_two_segments_with_the_next_behind_it_is_understood() {
    let world = World::default();
    let mut transaction = 0_u16;
    world.script(move |asked| {
        transaction += 1;
        let frame = mbap(transaction.to_be_bytes(), &read_answer(asked, &[transaction]));
        let stale = mbap([0xAA, 0xAA], &read_answer(asked, &[9999]));
        let all = [stale, frame].concat();
        let (head, tail) = all.split_at(14);
        Some(vec![Deed::Send(raw(head)), Deed::Wait(TIMEOUT / 20), Deed::Send(raw(tail))])
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let mut rig = Rig::start(target(server.address), vec![device(1, vec![holding(10, 20)], vec![])]);
    for value in 1..=4 {
        rig.value(1, 0, Value::Int(value)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn rtu_frames_over_tcp_are_told_apart_by_order() {
    let world = World::default();
    world.set(1, 100, &[111]);
    world.set(1, 200, &[222]);
    let mut first = true;
    world.script(move |asked| {
        let late = asked.address == 100 && std::mem::take(&mut first);
        late.then(|| vec![Deed::Wait(TIMEOUT * 5 / 2), Deed::Send(rtu(&read_answer(asked, &[111])))])
    });
    let server = Server::start_rtu(&world).await;
    let Target::Tcp { address, socket, .. } = target(server.address) else { unreachable!() };
    let target = Target::Tcp { address, socket, framing: TcpFraming::Rtu };
    let points = vec![holding(100, 300), holding(200, 300)];
    let mut rig = Rig::start(target, vec![device(1, points, vec![])]);
    rig.value(1, 0, Value::Int(111)).await;
    rig.value(1, 1, Value::Int(222)).await;
    for (position, value) in [(0, 111), (1, 222)] {
        let samples = rig.all_samples(1, position);
        assert!(samples.iter().all(|sample| *sample == Sample::Value(Value::Int(value))), "{samples:?}");
    }
    rig.stop().await;
}

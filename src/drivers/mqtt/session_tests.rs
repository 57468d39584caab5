//! Tests of the client's side of a connection.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::drivers::mqtt::packet::Extra;

fn hello() -> Hello {
    Hello { client_id: "c".into(), keep_alive: 20, clean: true, login: None, will: None }
}

fn message(qos: u8) -> Message {
    Message { topic: "t".into(), payload: Bytes::new(), qos, retain: false, extra: Extra::default() }
}

/// A session that the broker has welcomed.
fn welcome(told: Welcome) -> (Session<u32>, Instant) {
    let now = clock::instant();
    let mut session = Session::new(hello(), now);
    assert!(matches!(session.poll_packet(now), Some(Outbound::Connect(_))));
    assert!(!session.has_room());
    session.handle_packet(Inbound::Welcome(told), now).unwrap();
    assert_eq!(session.poll_event(), Some(Event::Connected(told)));
    (session, now)
}

fn packets(session: &mut Session<u32>, now: Instant) -> Vec<Outbound> {
    std::iter::from_fn(|| session.poll_packet(now)).collect()
}

fn events(session: &mut Session<u32>) -> Vec<Event<u32>> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

#[test]
fn each_quality_of_service_has_its_own_exchange() {
    let (mut session, now) = welcome(Welcome::default());
    for (name, qos) in [(10, 0), (11, 1), (12, 2)] {
        session.publish(name, message(qos));
    }
    let numbers: Vec<u16> = packets(&mut session, now)
        .into_iter()
        .map(|packet| {
            let Outbound::Publish(number, _) = packet else { panic!("{packet:?}") };
            number
        })
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    session.handle_packet(Inbound::Acknowledged(1, Ok(())), now).unwrap();
    session.handle_packet(Inbound::Received(2, Ok(())), now).unwrap();
    assert_eq!(events(&mut session), [Event::Acknowledged(11)], "the second half of QoS 2 is still to come");
    assert_eq!(packets(&mut session, now), [Outbound::Release(2)]);
    session.handle_packet(Inbound::Completed(2), now).unwrap();
    assert_eq!(events(&mut session), [Event::Acknowledged(12)]);
}

#[test]
fn a_message_that_comes_twice_with_qos_2_is_taken_once() {
    let (mut session, now) = welcome(Welcome::default());
    for _ in 0..2 {
        session.handle_packet(Inbound::Publish(9, message(2)), now).unwrap();
    }
    assert_eq!(events(&mut session).len(), 1);
    assert_eq!(packets(&mut session, now), [Outbound::Received(9), Outbound::Received(9)]);
    session.handle_packet(Inbound::Released(9), now).unwrap();
    assert_eq!(packets(&mut session, now), [Outbound::Complete(9)]);
    session.handle_packet(Inbound::Publish(9, message(2)), now).unwrap();
    assert_eq!(events(&mut session).len(), 1, "the number is free again");
}

#[test]
fn a_refused_message_is_named_with_its_reason() {
    let (mut session, now) = welcome(Welcome::default());
    session.publish(5, message(1));
    session.handle_packet(Inbound::Acknowledged(1, Err("not authorized".into())), now).unwrap();
    assert_eq!(events(&mut session), [Event::Refused(5, "not authorized".into())]);
}

#[test]
fn no_more_is_under_way_than_the_broker_takes() {
    let (mut session, now) = welcome(Welcome { in_flight: Some(2), ..Welcome::default() });
    session.publish(1, message(1));
    assert!(session.has_room());
    session.publish(2, message(1));
    assert!(!session.has_room());
    session.handle_packet(Inbound::Acknowledged(1, Ok(())), now).unwrap();
    assert!(session.has_room());
}

#[test]
fn many_filters_are_asked_for_in_several_packets_and_each_is_answered() {
    let (mut session, now) = welcome(Welcome::default());
    let filters: Vec<(Arc<str>, u8)> = (0..9).map(|at| (format!("f{at}").into(), 1)).collect();
    session.subscribe(&filters);
    let asked = packets(&mut session, now);
    assert!(
        matches!(asked.as_slice(), [Outbound::Subscribe(1, eight), Outbound::Subscribe(2, one)]
        if eight.len() == 8 && one.len() == 1),
        "{asked:?}"
    );
    session.handle_packet(Inbound::Subscribed(2, vec![Err("not authorized".into())]), now).unwrap();
    assert_eq!(events(&mut session), [Event::Subscribed("f8".into(), Err("not authorized".into()))]);
}

#[test]
fn a_quiet_connection_is_pinged_and_a_silent_one_is_given_up() {
    let (mut session, now) = welcome(Welcome::default());
    let due = session.poll_timeout().unwrap();
    assert_eq!(due, now + Duration::from_secs(15));
    session.handle_timeout(due).unwrap();
    assert_eq!(packets(&mut session, due), [Outbound::Ping]);
    session.handle_packet(Inbound::Pong, due).unwrap();
    let next = session.poll_timeout().unwrap();
    assert_eq!(next, due + Duration::from_secs(15));
    session.handle_timeout(next).unwrap();
    let end = session.poll_timeout().unwrap();
    assert_eq!(end, next + Duration::from_secs(10));
    assert_eq!(session.handle_timeout(end), Err(Fault::Silent));
}

#[test]
fn a_broker_that_only_listens_is_found_silent_although_much_is_said_to_it() {
    let (mut session, now) = welcome(Welcome::default());
    for second in 1..15 {
        session.publish(second, message(0));
        packets(&mut session, now + Duration::from_secs(second.into()));
    }
    let due = now + Duration::from_secs(15);
    session.handle_timeout(due).unwrap();
    assert_eq!(packets(&mut session, due), [Outbound::Ping]);
}

#[test]
fn the_broker_may_insist_on_another_keep_alive() {
    let (session, now) = welcome(Welcome { keep_alive: Some(4), ..Welcome::default() });
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(3)));
}

#[test]
fn what_comes_before_the_welcome_is_no_broker() {
    let now = clock::instant();
    let mut session = Session::<u32>::new(hello(), now);
    assert_eq!(session.handle_packet(Inbound::Pong, now), Err(Fault::Foreign));
    assert_eq!(session.handle_packet(Inbound::Refused("no".into()), now), Err(Fault::Refused("no".into())));
}

proptest! {
    #[test]
    fn each_message_is_settled_at_most_once_and_numbers_under_way_differ(
        steps in proptest::collection::vec((0_u8..4, 0_u16..6), 1..60),
    ) {
        let (mut session, now) = welcome(Welcome { in_flight: Some(4), ..Welcome::default() });
        let (mut name, mut settled) = (0, Vec::new());
        for (step, number) in steps {
            match step {
                0 | 1 if session.has_room() => {
                    session.publish(name, message(step + 1));
                    name += 1;
                }
                2 => session.handle_packet(Inbound::Acknowledged(number, Ok(())), now).unwrap(),
                3 => session.handle_packet(Inbound::Completed(number), now).unwrap(),
                _ => {}
            }
            let mut under_way: Vec<u16> = session.publishing.keys().copied().collect();
            under_way.dedup();
            prop_assert_eq!(under_way.len(), session.publishing.len());
            prop_assert!(session.publishing.len() <= 4);
            for event in events(&mut session) {
                if let Event::Acknowledged(name) = event {
                    prop_assert!(!settled.contains(&name));
                    settled.push(name);
                }
            }
        }
        prop_assert_eq!(settled.len() + session.publishing.len(), usize::try_from(name).unwrap());
    }
}

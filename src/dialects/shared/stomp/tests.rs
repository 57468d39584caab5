//! What the endpoint owes its applications and the connection, whatever the dialect.

use proptest::prelude::*;

use super::rig::{Rig, context, upgrade};
use super::*;
use crate::dialects::{Closing, endpoints};
use crate::model::client::Dialect;
use crate::model::interest::Selector;
use crate::model::message::Kinds;

const CONNECT: &str = "CONNECT\naccept-version:1.2\n\n\0";
const SERVICE: &str = "SUBSCRIBE\nid:s\ndestination:/user/service\n\n\0";
const CALL: &str = "SEND\ndestination:/app/api/metric/list\n\n{}\0";

fn connected(frame_bytes: usize) -> Rig {
    let context = context(|context| context.frame_bytes = frame_bytes);
    let request = upgrade("/ws", &[("token", "demo")]);
    let mut rig = Rig::upgraded(ws(&request, &context));
    rig.send(CONNECT);
    rig
}

fn ws(request: &Request, context: &Arc<Context>) -> Opening {
    endpoints::ws(request, context, super::super::fixture::now(), Dialect::Oam, true)
}

#[test]
fn the_first_known_subprotocol_is_echoed_as_it_was_offered() {
    for (offer, chosen) in [
        (Some("v10.stomp, v11.stomp"), Some("v10.stomp")),
        (Some("wss, V12.STOMP"), Some("V12.STOMP")),
        (Some("ws, http"), None),
        (None, None),
    ] {
        let mut request = upgrade("/ws", &[]);
        request.headers.extend(offer.map(|offer| ("sec-websocket-protocol".to_owned(), offer.to_owned())));
        let context = context(|_| {});
        let opening = ws(&request, &context);
        let Opening::Upgrade(upgrade) = opening else { panic!("not accepted") };
        assert_eq!(upgrade.subprotocol.as_deref(), chosen, "{offer:?}");
    }
}

#[test]
fn the_hub_hears_of_a_subscription_before_the_client_gets_its_receipt() {
    let mut rig = connected(1 << 20);
    let said = rig.send("SUBSCRIBE\nid:a\ndestination:/alarm\nreceipt:1\n\n\0");
    assert_eq!(said, ["watch", "RECEIPT\nreceipt-id:1\n\n\0"]);
    assert_eq!(rig.watched, [Interest { selector: Selector::All, kinds: Kinds::ALARM }]);
    assert_eq!(rig.send("SUBSCRIBE\nid:b\ndestination:/alarms\n\n\0"), [""; 0], "nothing new to want");
    assert_eq!(rig.send("UNSUBSCRIBE\nid:a\n\n\0UNSUBSCRIBE\nid:b\n\n\0"), ["watch"]);
    assert_eq!(rig.watched, []);
}

#[test]
fn both_applications_of_a_path_are_wanted_together() {
    let mut rig = connected(1 << 20);
    rig.send("SUBSCRIBE\nid:a\ndestination:/alarm\n\n\0");
    rig.send("SUBSCRIBE\nid:b\ndestination:/websocket/deviceData/press-1\n\n\0");
    assert_eq!(rig.watched.len(), 2);
}

#[test]
fn many_requests_in_one_message_are_answered_in_bursts() {
    let mut rig = connected(1 << 20);
    rig.send(SERVICE);
    let mut answers = rig.send(&CALL.repeat(5000)).len();
    assert!(answers < 2000, "{answers} answers in one burst");
    let mut bursts = 1;
    while rig.rests() {
        answers += rig.wait(Duration::ZERO).len();
        bursts += 1;
    }
    assert_eq!(answers, 5000);
    assert!(bursts > 3);
}

#[test]
fn a_client_that_only_sends_is_cut_in_the_end() {
    let mut rig = connected(64 * 1024);
    rig.send(SERVICE);
    let flood = CALL.repeat(64 * 1024 / CALL.len());
    let closes = |rig: &mut Rig| rig.send(&flood).contains(&"close 1013".to_owned());
    assert!((0..100).any(|_| closes(&mut rig)));
}

#[test]
fn only_so_many_questions_are_under_way() {
    let mut rig = connected(1 << 20);
    rig.send(SERVICE);
    rig.send(&"SEND\ndestination:/app/api/node_status/list\n\n{}\0".repeat(100));
    assert_eq!(rig.asked.len(), QUESTIONS);
    let mut answered = 0;
    while !rig.asked.is_empty() {
        rig.answer(Vec::new());
        answered += 1;
        assert!(rig.asked.len() <= QUESTIONS);
    }
    assert_eq!((answered, rig.said.len()), (100, 100));
}

#[test]
fn the_drivers_reason_decides_the_close() {
    for (closing, code) in
        [(Closing::Shutdown, "close 1001"), (Closing::TooSlow, "close 1013"), (Closing::Silent, "close 1001")]
    {
        let mut rig = connected(1 << 20);
        rig.input(Input::Closing(closing));
        assert_eq!(rig.said, [code]);
    }
}

#[test]
fn binary_and_text_may_be_mixed_within_a_frame() {
    let mut rig = connected(1 << 20);
    rig.input(Input::Binary(Bytes::from_static(b"SUBSCRIBE\nid:\xc3")));
    rig.input(Input::Binary(Bytes::from_static(b"\xbc\ndestination:/nowhere\nrec")));
    assert_eq!(rig.send("eipt:1\n\n\0"), ["RECEIPT\nreceipt-id:1\n\n\0"]);
}

/// Sessions of both dialects with the same setting, the other one's left alone.
fn tolerant(tolerance: Tolerance) -> [Rig; 2] {
    let janus = context(|context| context.settings.janus.stomp = tolerance);
    let janus = endpoints::websocket(
        &upgrade("/websocket", &[("token", "demo")]),
        &janus,
        super::super::fixture::now(),
    );
    let oam = context(|context| context.settings.oam.stomp = tolerance);
    [Rig::upgraded(janus), Rig::upgraded(ws(&upgrade("/ws", &[("token", "demo")]), &oam))]
}

#[test]
fn heart_beats_of_clients_are_asked_for_by_setting_only() {
    let connect = "CONNECT\naccept-version:1.2\nheart-beat:10000,0\n\n\0";
    for mut rig in tolerant(Tolerance::default()) {
        assert!(rig.send(connect)[0].contains("\nheart-beat:10000,0\n"));
        assert_eq!(rig.wait(Duration::from_secs(86_400)), [""; 0], "silence is no fault");
    }
    let asked = Tolerance { client_heart_beat: Some(Duration::from_secs(20)), ..Tolerance::default() };
    for mut rig in tolerant(asked) {
        assert!(rig.send(connect)[0].contains("\nheart-beat:10000,20000\n"));
        assert_eq!(rig.wait(Duration::from_secs(89)), [""; 0]);
        rig.send("\n");
        assert_eq!(rig.wait(Duration::from_secs(89)), [""; 0]);
        let said = rig.wait(Duration::from_secs(1));
        assert!(said[0].starts_with("ERROR\nmessage:No heart-beat\n"), "{said:?}");
        assert_eq!(said[1], "close 1002");
    }
}

#[test]
fn what_is_put_up_with_is_each_dialects_own_setting() {
    let subscribe = "SUBSCRIBE\nid:a\ndestination:/x\nreceipt:1\n\n";
    let without_nul = Tolerance { frames_without_nul: true, ..Tolerance::default() };
    for mut rig in tolerant(without_nul) {
        assert_eq!(rig.send("CONNECT\naccept-version:1.2\n\n"), [""; 0]);
        assert!(rig.send(subscribe)[0].starts_with("CONNECTED\n"), "the next frame ends the one before");
        assert_eq!(rig.wait(Duration::from_millis(250)), ["RECEIPT\nreceipt-id:1\n\n\0"]);
    }
    let counted_short = "SEND\ndestination:/x\nreceipt:2\ncontent-length:1\n\nabc\0";
    let lenient = Tolerance { lenient_content_length: true, ..Tolerance::default() };
    for (tolerance, answer) in
        [(lenient, "RECEIPT\n"), (without_nul, "ERROR\n"), (Tolerance::default(), "ERROR\n")]
    {
        for mut rig in tolerant(tolerance) {
            rig.send(CONNECT);
            let said = rig.send(counted_short);
            assert!(said[0].starts_with(answer), "{tolerance:?}: {said:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_session_panic_and_each_drain_ends(
        texts in prop::collection::vec(any::<String>(), 0..4),
        body in any::<String>(),
        known in any::<bool>(),
    ) {
        let mut rig = connected(1 << 20);
        rig.send(SERVICE);
        let destination = if known { "/app/api/stream/list" } else { "/app/x" };
        let octets = body.len();
        let said = rig.send(&format!("SEND\ndestination:{destination}\ncontent-length:{octets}\n\n{body}\0"));
        prop_assert!(said.len() <= 1);
        for text in &texts {
            rig.send(text);
        }
    }
}

//! Whole conversations: what a client sends, what the server does.

use proptest::prelude::*;

use super::*;
use crate::proto::stomp::subscriptions::SUBSCRIPTIONS;

const SETTINGS: Settings = Settings {
    number: 3,
    server: "pentad/0",
    frame_bytes: 1 << 16,
    heart_beat: Offer { sends: 10_000, wants: 0 },
    lenient_content_length: false,
    frames_without_nul: false,
};

/// A session with a short notation for what it gives.
struct Rig {
    session: Session,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self::of(SETTINGS)
    }

    fn of(settings: Settings) -> Self {
        let now = crate::clock::instant();
        Self { session: Session::new(settings, now), now }
    }

    fn connected(version: &str) -> Self {
        let mut rig = Self::new();
        rig.send(&format!("CONNECT\naccept-version:{version}\n\n\0"));
        rig
    }

    /// Feeds text, lets everybody in, and gives what comes out, one line each.
    fn send(&mut self, text: &str) -> Vec<String> {
        self.session.receive(text.as_bytes(), self.now);
        self.drain()
    }

    fn wait(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(output) = self.session.poll(self.now) {
            said.push(match output {
                Output::Connect(_) => {
                    self.session.accept(self.now);
                    continue;
                }
                Output::Subscribe(key, destination) => format!("subscribe {} {destination}", key.0),
                Output::Unsubscribe(key) => format!("unsubscribe {}", key.0),
                Output::Send(destination, body) => {
                    format!("send {destination} {}", String::from_utf8_lossy(&body))
                }
                Output::Transmit(text) => text,
                Output::Close(code, _) => format!("close {code}"),
            });
        }
        said
    }

    #[track_caller]
    fn ends(&mut self, text: &str, message: &str, code: u16) -> String {
        let said = self.send(text);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with(&format!("ERROR\nmessage:{message}\n")), "{said:?}");
        assert_eq!(said[1], format!("close {code}"));
        assert_eq!(self.send("SEND\ndestination:/a\n\n\0"), [""; 0], "nothing follows a close");
        assert_eq!(self.session.timeout(), None);
        said[0].clone()
    }
}

#[test]
fn the_newest_common_version_is_taken_from_a_list_in_any_order() {
    for (accept, version) in [
        ("accept-version:1.1,1.0\n", "1.1"),
        ("accept-version:1.0,1.1,1.2\n", "1.2"),
        ("accept-version:1.2 , 1.1\n", "1.2"),
        ("accept-version:2.0,1.0\n", "1.0"),
        ("accept-version: \n", "1.0"),
        ("", "1.0"),
    ] {
        let mut rig = Rig::new();
        let said = rig.send(&format!("CONNECT\n{accept}\n\0"));
        let expected = match version {
            "1.0" => "CONNECTED\nversion:1.0\nsession:3\nserver:pentad/0\n\n\0".to_owned(),
            newer => {
                format!("CONNECTED\nversion:{newer}\nheart-beat:10000,0\nsession:3\nserver:pentad/0\n\n\0")
            }
        };
        assert_eq!(said, [expected]);
    }
}

#[test]
fn no_common_version_is_an_error_that_lists_ours() {
    let error = Rig::new().ends("STOMP\naccept-version:2.0\nreceipt:1\n\n\0", "Version mismatch", 1002);
    assert!(error.contains("\nversion:1.0,1.1,1.2\n"), "{error}");
    assert!(!error.contains("receipt-id"), "CONNECT has no receipt");
}

#[test]
fn anything_before_connect_is_an_error() {
    Rig::new().ends("SUBSCRIBE\nid:1\ndestination:/a\n\n\0", "Illegal command", 1002);
    Rig::new().ends("GET / HTTP/1.1\r\n\r\n", "Bad command", 1002);
}

#[test]
fn a_second_connect_is_an_error() {
    Rig::connected("1.2").ends("CONNECT\naccept-version:1.2\n\n\0", "Illegal command", 1002);
}

#[test]
fn a_refused_client_learns_why_and_is_closed() {
    let mut rig = Rig::new();
    rig.session.receive(b"CONNECT\npasscode: x \n\n\0SUBSCRIBE\nid:0\ndestination:/a\n\n\0", rig.now);
    let Some(Output::Connect(frame)) = rig.session.poll(rig.now) else { panic!("no Connect") };
    assert_eq!(frame.header("passcode"), Some("x"), "1.0 clients pad");
    rig.session.refuse("Access refused");
    let said = rig.drain();
    assert_eq!(
        said[0],
        "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\ncontent-length:14\n\nAccess refused\0"
    );
    assert_eq!(said[1..], ["close 1008"]);
}

#[test]
fn a_client_that_never_connects_is_closed_after_ten_seconds() {
    let mut rig = Rig::new();
    assert_eq!(rig.send("\n\nCONN"), [""; 0]);
    assert_eq!(rig.wait(9), [""; 0]);
    assert_eq!(rig.wait(1)[1..], ["close 1002"]);
}

#[test]
fn a_message_names_subscription_destination_and_itself() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(rig.send("SUBSCRIBE\nid:sub-0\ndestination:/a\n\n\0"), ["subscribe 0 /a"]);
    rig.session.message(Key(0), "application/json", "{}");
    assert_eq!(
        rig.drain(),
        ["MESSAGE\ndestination:/a\ncontent-type:application/json\nsubscription:sub-0\nmessage-id:3-1\n\
          content-length:2\n\n{}\0"],
    );
    assert_eq!(rig.send("UNSUBSCRIBE\nid:sub-0\n\n\0"), ["unsubscribe 0"]);
    rig.session.message(Key(0), "application/json", "{}");
    assert_eq!(rig.drain(), [""; 0]);
}

#[test]
fn a_subscription_without_id_gets_messages_without_one() {
    for (version, destination) in [("1.0", " /a"), ("1.1", "/a"), ("1.2", "/a")] {
        let mut rig = Rig::connected(version);
        let subscribe = format!("SUBSCRIBE\ndestination:{destination}\n\n\0");
        assert_eq!(rig.send(&subscribe), ["subscribe 0 /a"]);
        assert_eq!(rig.send(&subscribe), [""; 0], "the client has it already");
        rig.session.message(Key(0), "text/plain", "x");
        assert_eq!(
            rig.drain(),
            ["MESSAGE\ndestination:/a\ncontent-type:text/plain\nmessage-id:3-1\ncontent-length:1\n\nx\0"]
        );
        assert_eq!(rig.send("UNSUBSCRIBE\ndestination:/a\n\n\0"), ["unsubscribe 0"]);
    }
}

#[test]
fn subscriptions_that_make_no_sense_end_the_session() {
    let subscribe = |headers: &str| format!("SUBSCRIBE\n{headers}\n\0");
    Rig::connected("1.1").ends(&subscribe("id:1\n"), "Missing header", 1002);
    Rig::connected("1.1").ends(&subscribe("id:1\ndestination:/a\nack:maybe\n"), "Bad header", 1002);
    let long = format!("id:1\ndestination:/{}\n", "a".repeat(NAME_BYTES));
    Rig::connected("1.1").ends(&subscribe(&long), "Bad header", 1002);
    let error = Rig::connected("1.2").ends(&subscribe("id:1\nreceipt:r-1\n"), "Missing header", 1002);
    assert!(error.contains("\nreceipt-id:r-1\n"), "{error}");
    let mut rig = Rig::connected("1.2");
    for n in 0..SUBSCRIPTIONS {
        rig.send(&subscribe(&format!("id:{n}\ndestination:/a\n")));
    }
    rig.ends(&subscribe("id:more\ndestination:/a\n"), "Bad SUBSCRIBE", 1002);
}

#[test]
fn an_id_that_is_used_again_takes_the_place_of_its_subscription() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(rig.send("SUBSCRIBE\nid:1\ndestination:/a\n\n\0"), ["subscribe 0 /a"]);
    let again = "SUBSCRIBE\nid:1\ndestination:/a\nreceipt:r\n\n\0";
    assert_eq!(rig.send(again), ["RECEIPT\nreceipt-id:r\n\n\0"], "nothing has changed");
    assert_eq!(rig.send("SUBSCRIBE\nid:1\ndestination:/b\n\n\0"), ["unsubscribe 0", "subscribe 1 /b"]);
    rig.session.message(Key(0), "text/plain", "x");
    assert_eq!(rig.drain(), [""; 0]);
    rig.session.message(Key(1), "text/plain", "x");
    assert!(rig.drain()[0].contains("\nsubscription:1\n"));
}

#[test]
fn a_client_reads_its_ids_as_it_wrote_them() {
    for (version, id) in [("1.1", "press:1"), ("1.1", "press\\c1"), ("1.2", "press:1"), ("1.2", "press\\c1")]
    {
        let mut rig = Rig::connected(version);
        rig.send(&format!("SUBSCRIBE\nid:{id}\ndestination:/a\n\n\0"));
        rig.session.message(Key(0), "text/plain", "x");
        let message = rig.drain().remove(0);
        assert!(message.contains(&format!("\nsubscription:{id}\n")), "{message}");
        let receipt = rig.send(&format!("UNSUBSCRIBE\nid:{id}\nreceipt:{id}\n\n\0"));
        assert_eq!(receipt, ["unsubscribe 0".to_owned(), format!("RECEIPT\nreceipt-id:{id}\n\n\0")]);
    }
}

#[test]
fn unsubscribing_from_nothing_is_no_error_but_needs_a_name() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(rig.send("UNSUBSCRIBE\nid:9\nreceipt:1\n\n\0"), ["RECEIPT\nreceipt-id:1\n\n\0"]);
    rig.ends("UNSUBSCRIBE\n\n\0", "Missing header", 1002);
}

#[test]
fn the_receipt_comes_after_what_the_frame_caused() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(
        rig.send("SUBSCRIBE\nid:1\ndestination:/a\nreceipt:r\\c1\n\n\0SEND\ndestination:/b\n\nhi\0"),
        ["subscribe 0 /a", "RECEIPT\nreceipt-id:r\\c1\n\n\0", "send /b hi"],
    );
}

#[test]
fn disconnect_with_a_receipt_leaves_the_close_to_the_client_for_a_second() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(rig.send("DISCONNECT\nreceipt:bye\n\n\0"), ["RECEIPT\nreceipt-id:bye\n\n\0"]);
    assert_eq!(rig.send("SEND\ndestination:/a\n\n\0"), [""; 0]);
    assert_eq!(rig.wait(1), ["close 1000"]);
    assert_eq!(Rig::connected("1.1").send("DISCONNECT\n\n\0"), ["close 1000"]);
}

#[test]
fn what_a_transaction_holds_happens_at_its_commit() {
    let mut rig = Rig::connected("1.2");
    let send = |body: &str| format!("SEND\ndestination:/a\ntransaction:t\n\n{body}\0");
    assert_eq!(rig.send("BEGIN\ntransaction:t\nreceipt:1\n\n\0"), ["RECEIPT\nreceipt-id:1\n\n\0"]);
    assert_eq!(rig.send(&send("1")), [""; 0]);
    assert_eq!(rig.send("SEND\ndestination:/a\n\n0\0"), ["send /a 0"]);
    assert_eq!(rig.send(&send("2")), [""; 0]);
    assert_eq!(rig.send("COMMIT\ntransaction:t\n\n\0"), ["send /a 1", "send /a 2"]);
    rig.send("BEGIN\ntransaction:t\n\n\0");
    rig.send(&send("3"));
    assert_eq!(rig.send("ABORT\ntransaction:t\n\n\0"), [""; 0]);
    rig.ends(&send("4"), "Bad transaction", 1002);
}

#[test]
fn transaction_frames_need_an_open_transaction() {
    for frame in ["COMMIT\ntransaction:t\n\n\0", "ABORT\ntransaction:t\n\n\0"] {
        Rig::connected("1.2").ends(frame, "Bad transaction", 1002);
    }
    Rig::connected("1.2").ends("BEGIN\n\n\0", "Missing header", 1002);
    let mut rig = Rig::connected("1.2");
    rig.send("BEGIN\ntransaction:t\n\n\0");
    rig.ends("BEGIN\ntransaction:t\n\n\0", "Bad transaction", 1002);
}

#[test]
fn each_version_acknowledges_in_its_own_way() {
    let subscribe = "SUBSCRIBE\nid:s\ndestination:/a\nack:client-individual\n\n\0";
    for (version, ack) in [
        ("1.0", "ACK\nmessage-id:3-1\n\n\0"),
        ("1.1", "ACK\nmessage-id:3-1\nsubscription:s\n\n\0"),
        ("1.1", "NACK\nmessage-id:3-1\n\n\0"),
        ("1.2", "ACK\nid:3-1\nsubscription:s\n\n\0"),
        ("1.2", "BEGIN\ntransaction:t\n\n\0ACK\nid:3-1\ntransaction:t\n\n\0COMMIT\ntransaction:t\n\n\0"),
    ] {
        let mut rig = Rig::connected(version);
        rig.send(subscribe);
        rig.session.message(Key(0), "text/plain", "x");
        let message = rig.drain().remove(0);
        assert_eq!(message.contains("\nack:3-1\n"), version == "1.2", "{message}");
        assert_eq!(rig.session.subscriptions.get_mut(Key(0)).unwrap().unacknowledged(), 1);
        assert_eq!(rig.send(ack), [""; 0]);
        assert_eq!(rig.session.subscriptions.get_mut(Key(0)).unwrap().unacknowledged(), 0, "{version}");
    }
}

#[test]
fn an_unknown_acknowledgement_is_passed_over_and_a_nameless_one_is_not() {
    let mut rig = Rig::connected("1.2");
    assert_eq!(rig.send("ACK\nid:whatever\n\n\0NACK\nid:3-77\n\n\0"), [""; 0]);
    rig.ends("ACK\nmessage-id:3-1\n\n\0", "Missing header", 1002);
}

#[test]
fn a_frame_of_the_servers_kind_is_an_error() {
    Rig::connected("1.2").ends("MESSAGE\n\n\0", "Bad command", 1002);
}

#[test]
fn a_frame_over_the_limit_is_closed_as_too_big() {
    Rig::connected("1.2").ends("SEND\ncontent-length:9999999\n\n", "Malformed frame", 1009);
    Rig::new().ends(&format!("CONNECT\n{}", "a:b\n".repeat(20_000)), "Malformed frame", 1009);
}

#[test]
fn an_idle_session_beats_with_one_line_feed() {
    let mut rig = Rig::new();
    rig.send("CONNECT\naccept-version:1.1,1.0\nheart-beat:10000,10000\n\n\0");
    assert_eq!(rig.wait(9), [""; 0]);
    assert_eq!(rig.wait(1), ["\n"]);
    rig.send("SUBSCRIBE\nid:s\ndestination:/a\n\n\0");
    rig.now += Duration::from_secs(9);
    rig.session.message(Key(0), "text/plain", "x");
    rig.drain();
    assert_eq!(rig.wait(9), [""; 0], "a message is as good as a beat");
    assert_eq!(rig.wait(1), ["\n"]);
}

#[test]
fn a_client_that_was_asked_for_heart_beats_and_falls_silent_is_closed() {
    let mut rig = Rig::of(Settings { heart_beat: Offer { sends: 0, wants: 10_000 }, ..SETTINGS });
    let said = rig.send("CONNECT\naccept-version:1.2\nheart-beat:10000,0\n\n\0");
    assert!(said[0].contains("\nheart-beat:0,10000\n"), "{said:?}");
    for beat in ["\n", "\r\n", "SEND\ndestination:/a\n\n\0"] {
        assert_eq!(rig.wait(89), [""; 0]);
        rig.send(beat);
    }
    let said = rig.wait(90);
    assert!(said[0].starts_with("ERROR\nmessage:No heart-beat\n"), "{said:?}");
    assert_eq!(said[1], "close 1002");
}

#[test]
fn the_server_can_end_it_with_and_without_a_word() {
    let mut rig = Rig::connected("1.2");
    rig.session.end(None, close::GOING_AWAY, "the gateway stops");
    assert_eq!(rig.drain(), ["close 1001"]);
    let mut rig = Rig::connected("1.2");
    rig.session.end(Some("Too slow"), close::TRY_AGAIN, "the client reads too slowly");
    assert_eq!(rig.drain()[1..], ["close 1013"]);
}

/// Frames that a client might send in any order, sensible or not.
fn frames() -> impl Strategy<Value = String> {
    let command = prop::sample::select(Command::ALL.map(Command::name).to_vec());
    let header = prop::sample::select(vec![
        "id:1",
        "id:2",
        "destination:/a",
        "ack:client",
        "transaction:t",
        "receipt:r",
        "message-id:3-1",
        "accept-version:1.2",
        "heart-beat:1,1",
    ]);
    (command, prop::collection::vec(header, 0..5), "[a-z]{0,3}").prop_map(|(command, headers, body)| {
        let body = if command == "SEND" { body } else { String::new() };
        format!("{command}\n{}\n\n{body}\0", headers.join("\n"))
    })
}

proptest! {
    #[test]
    fn no_order_of_frames_makes_it_panic_or_speak_after_its_close(
        frames in prop::collection::vec(frames(), 0..20),
        connect in any::<bool>(),
    ) {
        let mut rig = if connect { Rig::connected("1.2") } else { Rig::new() };
        let mut said = Vec::new();
        for frame in &frames {
            said.extend(rig.send(frame));
            rig.session.message(Key(0), "text/plain", "x");
            said.extend(rig.wait(1));
        }
        let closes = said.iter().position(|line| line.starts_with("close "));
        prop_assert!(closes.is_none_or(|at| at + 1 == said.len()), "{:?}", said);
    }
}

fn tolerant(frames_without_nul: bool) -> Rig {
    let lenient_content_length = !frames_without_nul;
    let mut rig = Rig::of(Settings { lenient_content_length, frames_without_nul, ..SETTINGS });
    rig.send("CONNECT\naccept-version:1.2\n\n\0");
    rig
}

#[test]
fn a_body_that_was_counted_short_is_taken_whole_where_that_is_allowed() {
    let frame = "SEND\ndestination:/a\ncontent-length:3\n\nabcde\0";
    let mut rig = tolerant(false);
    assert_eq!(rig.send(frame), ["send /a abcde"]);
    let (first, second) = frame.split_at(frame.len() - 3);
    assert_eq!(rig.send(first), [""; 0]);
    assert_eq!(rig.send(second), ["send /a abcde"], "cut behind what was counted");
    assert_eq!(
        rig.send("SEND\ndestination:/a\ncontent-length:3\n\na\0b\0"),
        ["send /a a\0b"],
        "a right count"
    );
    let endless = format!("SEND\ndestination:/a\ncontent-length:3\n\n{}", "x".repeat(1 << 16));
    rig.ends(&endless, "Malformed frame", 1009);
    Rig::connected("1.2").ends(frame, "Malformed frame", 1002);
}

#[test]
fn frames_without_nul_end_with_their_message_where_that_is_allowed() {
    let quarter = Duration::from_millis(250);
    let mut rig = tolerant(true);
    assert_eq!(rig.send("SEND\ndestination:/a\n\none"), [""; 0]);
    assert_eq!(rig.session.timeout(), Some(rig.now + quarter));
    rig.now += quarter;
    assert_eq!(rig.wait(0), ["send /a one"], "nothing followed");
    rig.send("SEND\ndestination:/a\ncontent-length:3\n\ntwo");
    assert_eq!(rig.send("SEND\ndestination:/a\n\nthree"), ["send /a two"], "a frame followed");
    assert_eq!(rig.send("\n"), ["send /a three"], "a heart-beat followed");
    assert_eq!(rig.send("SEND\ndestination:/a\n\nfour\0"), ["send /a four"], "a whole frame");
    assert_eq!(rig.session.timeout(), None);
}

#[test]
fn a_connection_without_any_nul_can_be_made() {
    let mut rig = Rig::of(Settings { frames_without_nul: true, ..SETTINGS });
    assert_eq!(rig.send("CONNECT\naccept-version:1.2\n\n"), [""; 0]);
    assert!(rig.wait(1)[0].starts_with("CONNECTED\n"));
    rig.send("SUBSCRIBE\nid:0\ndestination:/a\n\n");
    assert_eq!(rig.wait(1), ["subscribe 0 /a"]);
}

#[test]
fn pieces_of_a_large_frame_are_never_taken_for_frames() {
    let mut rig = tolerant(true);
    let head = "SEND\ndestination:/a\n\n";
    let piece = format!("{head}{}", "x".repeat(8192 - head.len()));
    rig.send(&piece);
    assert_eq!(rig.wait(5), [""; 0], "a message of just that length");
    assert_eq!(rig.send("y\0")[0].len(), "send /a ".len() + 8193 - head.len());
    rig.send("SEND\ndestination:/a\n\none");
    assert_eq!(rig.send(" and more"), [""; 0]);
    assert_eq!(rig.wait(5), [""; 0], "more came");
    assert_eq!(rig.send("\0"), ["send /a one and more"]);
    rig.send("SEND\ndestination:/a\ncontent-length:9\n\nhalf");
    assert_eq!(rig.wait(5), [""; 0], "more was counted");
    assert_eq!(rig.send(" full\0"), ["send /a half full"]);
}

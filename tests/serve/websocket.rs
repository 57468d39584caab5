//! WebSockets: limits, closes, slow and silent clients, shutdown.

use std::time::Duration;

use futures_util::SinkExt;
use pentad::config::Limits;
use pentad::dialects::{COMMANDS_IN_FLIGHT, Token};
use pentad::hub::handle::{HubRequest, SessionReply};
use pentad::model::command::Outcome;
use pentad::serve::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::common::ws::PATIENCE;
use crate::rig::{Rig, Setup, told};

const UPGRADE: &str = "GET /parrot HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn impatient() -> Setup {
    let patience = Patience {
        write: Duration::from_millis(200),
        linger: Duration::from_millis(100),
        goodbye: Duration::from_secs(3),
        ..Patience::default()
    };
    Setup { patience, ..Setup::default() }
}

#[tokio::test]
async fn text_and_binary_reach_the_session_and_its_words_the_client() {
    let rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send("hello").await;
    assert_eq!(client.next().await, "hello");
    client.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.next().await, "3 bytes");
    client.send("tick").await;
    assert_eq!(client.next().await, "tick");
}

#[tokio::test]
async fn the_chosen_subprotocol_and_the_accept_key_are_in_the_answer() {
    let rig = Rig::start();
    let mut stream = rig.tcp().await;
    let request = UPGRADE.replace("\r\n\r\n", "\r\nsec-websocket-protocol: v12.stomp, v11.stomp\r\n\r\n");
    // The first frame comes on the heels of the upgrade, in the same packet.
    let mut bytes = request.into_bytes();
    bytes.extend([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.ends_with(b"\x81\x02hi") {
        let count = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer in time").unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..count]);
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: v12.stomp\r\n"), "{answer}");
}

#[tokio::test]
async fn a_close_keeps_its_code_and_as_much_of_its_reason_as_fits() {
    let rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send("before").await;
    client.send("close 4500 60").await;
    assert_eq!(client.rest().await, ["before".to_owned(), format!("close 4500 {}", "\u{4f60}".repeat(41))]);
}

#[tokio::test]
async fn a_message_over_the_limit_is_closed_with_1009() {
    let rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send(&"x".repeat(64 * 1024)).await;
    assert_eq!(client.next().await.len(), 64 * 1024);
    client.send(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(client.next().await, "close 1009 a message that is too large");
}

#[tokio::test]
async fn a_message_in_fragments_is_held_to_the_same_limit() {
    let rig = Rig::start();
    let mut client = rig.parrot().await;
    let part = |opcode| Message::Frame(Frame::message(vec![b'x'; 40_000], OpCode::Data(opcode), false));
    client.0.send(part(Data::Text)).await.unwrap();
    client.0.send(part(Data::Continue)).await.unwrap();
    assert_eq!(client.next().await, "close 1009 a message that is too large");
}

#[tokio::test]
async fn a_stranger_may_send_only_small_messages_until_it_has_said_who_it_is() {
    let limits = Limits { frame_bytes: 1 << 20, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let small = "x".repeat(60_000);
    let large = "x".repeat(500_000);
    let mut client = rig.socket("/stranger").await;
    for _ in 0..3 {
        client.send(&small).await;
        assert_eq!(client.next().await, small);
    }
    client.send("login").await;
    client.send(&large).await;
    assert_eq!(client.next().await, large);

    let mut client = rig.socket("/stranger").await;
    // The rest finds the connection closed.
    drop(client.0.send(Message::text(large)).await);
    assert_eq!(client.next().await, "close 1009 a message that is too large before a login");

    let mut client = rig.socket("/stranger").await;
    let part = |opcode| Message::Frame(Frame::message(vec![b'x'; 40_000], OpCode::Data(opcode), false));
    client.0.send(part(Data::Text)).await.unwrap();
    client.0.send(Message::Ping("no end of a message".into())).await.unwrap();
    client.0.send(part(Data::Continue)).await.unwrap();
    assert_eq!(client.next().await, "close 1009 a message that is too large before a login");
}

#[tokio::test]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    let rig = Rig::start();
    let mut client = rig.parrot().await;
    let bad = Frame::message(vec![0xc3, 0x28], OpCode::Data(Data::Text), true);
    client.0.send(Message::Frame(bad)).await.unwrap();
    assert_eq!(client.next().await, "close 1007 text that is not UTF-8");
}

#[tokio::test]
async fn an_unmasked_frame_is_closed_with_1002() {
    let rig = Rig::start();
    let mut stream = rig.tcp().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    stream.write_all(b"\x81\x02hi").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let close = answer.windows(4).rposition(|bytes| bytes[0] == 0x88).expect("a close frame");
    assert_eq!(u16::from_be_bytes([answer[close + 2], answer[close + 3]]), 1002);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_delays_nobody() {
    let mut rig = Rig::with(impatient());
    let mut slow = rig.parrot().await;
    let mut brisk = rig.parrot().await;
    // More than the buffers of both kernels' ends hold.
    slow.send("flood 500 60000").await;
    slow.send("watch").await;
    for turn in 0..20 {
        brisk.send(&format!("turn {turn}")).await;
        assert_eq!(brisk.next().await, format!("turn {turn}"));
    }
    let gone = async {
        while rig.shared.admission.count() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the slow one is cut off");
    brisk.send("still here").await;
    assert_eq!(brisk.next().await, "still here");
    assert!(rig.hub.try_recv().is_err(), "a client that was cut off is not listened to");
}

#[tokio::test]
async fn a_client_that_pings_without_reading_the_answers_is_cut_off() {
    let rig = Rig::with(impatient());
    let mut stream = rig.tcp().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let pings = [&b"\x89\xfd\0\0\0\0"[..], &[b'p'; 125]].concat().repeat(500);
    // Ends with the connection only.
    let flood = async { while stream.write_all(&pings).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("it is cut off");
}

#[tokio::test]
async fn commands_beyond_the_limit_are_answered_busy_without_the_hub() {
    let mut rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send(&format!("submit {}", COMMANDS_IN_FLIGHT + 2)).await;
    let HubRequest::Attach { replies, messages: _messages, .. } = rig.asked().await else {
        panic!("no attach")
    };
    for expected in (0_u64..).take(COMMANDS_IN_FLIGHT) {
        let HubRequest::Submit { token, .. } = rig.asked().await else { panic!("no command") };
        assert_eq!(token, Token(expected));
    }
    assert_eq!(client.next().await, format!("outcome {COMMANDS_IN_FLIGHT} Busy"));
    assert_eq!(client.next().await, format!("outcome {} Busy", COMMANDS_IN_FLIGHT + 1));
    // One outcome makes room for one command.
    replies.send(Box::new(told(SessionReply::Outcome(Token(0), Outcome::Offline.into())))).await.unwrap();
    assert_eq!(client.next().await, "outcome 0 Offline");
    client.send("submit 1").await;
    assert!(matches!(rig.asked().await, HubRequest::Submit { token: Token(0), .. }));
}

#[tokio::test]
async fn a_client_that_leaves_is_detached() {
    let mut rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send("watch").await;
    let HubRequest::Attach { key, messages: _messages, replies: _replies, .. } = rig.asked().await else {
        panic!("no attach")
    };
    assert!(matches!(rig.asked().await, HubRequest::Watch { .. }));
    drop(client);
    assert!(matches!(rig.asked().await, HubRequest::Detach { key: left } if left == key));
}

#[tokio::test]
async fn an_evicted_session_says_goodbye() {
    let mut rig = Rig::start();
    let mut client = rig.parrot().await;
    client.send("watch").await;
    let HubRequest::Attach { messages: _messages, replies, .. } = rig.asked().await else {
        panic!("no attach")
    };
    replies.send(Box::new(told(SessionReply::Lagged(3)))).await.unwrap();
    replies.send(Box::new(told(SessionReply::Evicted))).await.unwrap();
    assert_eq!(client.rest().await, ["lagged 3", "bye TooSlow", "close 4001 bye"]);
}

#[tokio::test]
async fn a_panic_in_a_session_harms_only_its_connection() {
    let rig = Rig::start();
    let (mut doomed, mut other) = (rig.parrot().await, rig.parrot().await);
    doomed.send("panic").await;
    assert_eq!(doomed.next().await, "lost");
    other.send("fine").await;
    assert_eq!(other.next().await, "fine");
}

#[tokio::test]
async fn a_client_that_answers_pings_may_be_silent_and_one_that_does_not_is_dropped() {
    let patience = Patience {
        ping: Duration::from_millis(100),
        silence: Duration::from_secs(3),
        ..impatient().patience
    };
    let rig = Rig::with(Setup { patience, ..Setup::default() });
    let mut listening = rig.parrot().await;
    let mut dead = rig.tcp().await;
    dead.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        tokio::select! {
            read = dead.read_to_end(&mut answer) => drop(read.unwrap()),
            // Reading answers pings.
            text = listening.next() => panic!("got {text}"),
        }
    };
    timeout(PATIENCE, reading).await.expect("the dead one is dropped");
    assert!(answer.windows(2).any(|bytes| bytes == [0x89, 0]), "it was pinged");
    assert!(String::from_utf8_lossy(&answer).contains("bye Silent"));
    listening.send("still here").await;
    assert_eq!(listening.next().await, "still here");
}

/// The network vanishes without a word: what the hub hears then ends the leases of the session.
#[tokio::test]
async fn a_session_that_a_value_is_tied_to_is_found_dead_sooner_than_others() {
    let (ping, silence) = (Duration::from_millis(40), Duration::from_secs(1));
    let patience = Patience {
        leased_ping: ping,
        leased_silence: silence,
        // As long as the whole test.
        ping: PATIENCE,
        silence: PATIENCE,
        ..impatient().patience
    };
    let mut rig = Rig::with(Setup { patience, ..Setup::default() });
    let mut held = Vec::new();
    for order in ["submit 1", "lease 1"] {
        // A raw socket that never answers a ping, nor says that it goes.
        let mut dead = rig.tcp().await;
        dead.write_all(UPGRADE.as_bytes()).await.unwrap();
        dead.write_all(&masked(order)).await.unwrap();
        let HubRequest::Attach { key, messages, replies, .. } = rig.asked().await else {
            panic!("no session")
        };
        let HubRequest::Submit { .. } = rig.asked().await else { panic!("no command") };
        held.push((key, dead, messages, replies));
    }
    let begun = pentad::clock::instant();
    let HubRequest::Detach { key } = rig.asked().await else { panic!("the session does not end") };
    assert_eq!(key, held[1].0, "the one that a value is tied to");
    assert!(pentad::clock::instant() - begun + ping * 2 >= silence, "it had its time");
    // One that answers keeps its session, and with it the lease.
    let mut alive = rig.parrot().await;
    alive.send("lease 1").await;
    let HubRequest::Attach { messages: _messages, replies: _replies, .. } = rig.asked().await else {
        panic!("no session")
    };
    let HubRequest::Submit { .. } = rig.asked().await else { panic!("no command") };
    // Reading answers pings.
    timeout(silence * 2, alive.next()).await.expect_err("nothing is said to it");
    alive.send("still here").await;
    assert_eq!(alive.next().await, "still here");
}

/// A text frame of a client; a mask of zeros changes nothing.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn at_shutdown_every_session_says_goodbye_and_who_does_not_read_is_cut_off() {
    let rig = Rig::with(impatient());
    let (polite, mut stuck) = (rig.parrot().await, rig.parrot().await);
    // It is being written to and does not read when the stop comes.
    stuck.send("flood 500 60000").await;
    let idle = rig.tcp().await;
    let stop = rig.stop.clone();
    stop.cancel();
    assert_eq!(polite.rest().await, ["bye Shutdown", "close 4001 bye"]);
    let address = rig.address;
    rig.ended().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the door is closed");
    drop((stuck, idle));
}

#[tokio::test]
async fn many_clients_at_once_are_all_served() {
    let limits = Limits { connections_per_address: 300, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(rig.parrot().await);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("number {number}")).await;
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.next().await, format!("number {number}"));
    }
    assert_eq!(rig.shared.admission.count(), 200);
}

#[tokio::test]
async fn an_upgrade_of_another_path_is_not_accepted() {
    let rig = Rig::start();
    let request = format!("ws://{}/elsewhere", rig.address).into_client_request().unwrap();
    let error = tokio_tungstenite::client_async(request, rig.tcp().await).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

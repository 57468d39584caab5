//! Requests: dispatch, limits, proxies, and clients that dawdle.

use std::time::Duration;

use futures_util::future::select_all;
use pentad::config::Limits;
use pentad::hub::handle::{HubRequest, SessionReply};
use pentad::model::snapshot::{Answer, Snapshot};
use pentad::serve::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::common::ws::{PATIENCE, http};
use crate::rig::{Rig, Setup, told};

/// Sends raw bytes and gives the status line and everything else up to the end of the connection.
async fn raw(rig: &Rig, request: &str) -> String {
    let mut stream = rig.tcp().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_page_for_people_is_served_and_only_by_get() {
    let rig = Rig::start();
    let (status, page) = http(rig.port(), "GET", "/", &[], "").await;
    assert_eq!(status, 200);
    assert!(page.contains("pentad"), "{page}");
    assert_eq!(http(rig.port(), "HEAD", "/", &[], "").await, (200, String::new()));
    assert_eq!(http(rig.port(), "POST", "/", &[], "").await.0, 405);
}

#[tokio::test]
async fn an_unknown_path_is_404_in_the_form_that_the_client_reads() {
    let rig = Rig::start();
    let (status, body) = http(rig.port(), "GET", "/nothing/here", &[], "").await;
    assert_eq!((status, body.as_str()), (404, "no such path\n"));
    let (status, body) = http(rig.port(), "GET", "/api/nothing", &[], "").await;
    let expected = concat!(
        r#"{"code":404,"msg":"no such path","message":"no such path","#,
        r#""status":404,"reason":"Object not found"}"#
    );
    assert_eq!((status, body.as_str()), (404, expected));
}

#[tokio::test]
async fn a_dialect_sees_the_request_as_it_was_sent() {
    let rig = Rig::start();
    let (status, body) = http(rig.port(), "POST", "/seen?q=a%20b", &[], "12345").await;
    assert_eq!(status, 200);
    assert_eq!(body, format!("POST 127.0.0.1 http://127.0.0.1:{}/seen a b 5", rig.port()));
}

#[tokio::test]
async fn forwarded_headers_count_from_a_trusted_proxy_only() {
    let headers =
        [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "barn")];
    let rig = Rig::with(Setup { trusted_proxies: vec![[127, 0, 0, 1].into()], ..Setup::default() });
    assert_eq!(http(rig.port(), "GET", "/seen", &headers, "").await.1, "GET 192.0.2.7 https://barn/seen  0");
    let rig = Rig::start();
    let body = http(rig.port(), "GET", "/seen", &headers, "").await.1;
    assert_eq!(body, format!("GET 127.0.0.1 http://127.0.0.1:{}/seen  0", rig.port()));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let rig = Rig::start();
    let (status, _) = http(rig.port(), "POST", "/seen", &[], &"x".repeat(64 * 1024)).await;
    assert_eq!(status, 200);
    let (status, _) = http(rig.port(), "POST", "/seen", &[], &"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn large_bodies_take_turns_and_small_ones_do_not_wait_for_them() {
    // Long for a body that is there as a whole, on a busy machine as well.
    let patience = Patience { body: Duration::from_secs(3), ..Patience::default() };
    let limits = Limits { frame_bytes: 64 * 1024, ..Limits::default() };
    let rig = Rig::with(Setup { limits, patience, ..Setup::default() });
    let large = "x".repeat(50_000);
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = rig.tcp().await;
        let head = "POST /seen HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n";
        stream.write_all(format!("{head}{}", "x".repeat(40_000)).as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // Waits until the slow ones have run out of their time, at most.
    assert_eq!(http(rig.port(), "POST", "/seen", &[], &"x".repeat(10_000)).await.0, 200);
    assert!([200, 408].contains(&http(rig.port(), "POST", "/seen", &[], &large).await.0));
    for mut stream in slow {
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408"));
    }
    for _ in 0..20 {
        assert_eq!(http(rig.port(), "POST", "/seen", &[], &large).await.0, 200);
    }
}

#[tokio::test]
async fn an_address_that_guesses_is_answered_429_at_every_path_of_a_dialect() {
    let limits = Limits { failed_logins: 3, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let guess = |guess: &str| {
        let logins = rig.shared.admission.logins(3);
        logins.failed([127, 0, 0, 1].into(), "parrot", guess, pentad::clock::instant());
    };
    for _ in 0..9 {
        guess("the same mistake");
    }
    guess("another");
    assert_eq!(http(rig.port(), "GET", "/seen", &[], "").await.0, 200);
    guess("a third");
    let answer = raw(&rig, "GET /seen HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    for part in ["retry-after: 60", "access-control-allow-origin: *", "too many failed logins"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert_eq!(http(rig.port(), "POST", "/call", &[], "").await.0, 429);
    assert_eq!(http(rig.port(), "GET", "/", &[], "").await.0, 200, "the own pages are no dialect");
}

#[tokio::test]
async fn guessing_at_the_pages_for_probes_counts_too() {
    let limits = Limits { failed_logins: 2, ..Limits::default() };
    let rig = Rig::with(Setup { limits, trusted_proxies: vec![[127, 0, 0, 1].into()], ..Setup::default() });
    let ask = async |from: &str, path: &str, guess: &str| {
        let token = format!("Bearer {guess}");
        let headers = [("x-forwarded-for", from), ("authorization", token.as_str())];
        http(rig.port(), "GET", path, &headers, "").await.0
    };
    for _ in 0..5 {
        assert_eq!(ask("192.0.2.7", "/metrics", "the same mistake").await, 401);
    }
    assert_eq!(ask("192.0.2.7", "/readyz", "another").await, 401);
    assert_eq!(ask("192.0.2.7", "/readyz", "a third").await, 429);
    assert_eq!(ask("192.0.2.7", "/seen", "").await, 429);
    assert_eq!(ask("192.0.2.8", "/metrics", "the first").await, 401);
}

#[tokio::test]
async fn a_malformed_upgrade_is_told_what_is_wrong() {
    let rig = Rig::start();
    let upgrade =
        |extra: &str| format!("GET /parrot HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n{extra}\r\n");
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (request, expected) in [
        (upgrade("connection: close\r\n"), "HTTP/1.1 400"),
        (
            upgrade(&format!("connection: upgrade, close\r\nsec-websocket-version: 8\r\n{key}")),
            "HTTP/1.1 426",
        ),
        (upgrade("connection: upgrade, close\r\nsec-websocket-version: 13\r\n"), "HTTP/1.1 400"),
        (
            upgrade(&format!("connection: upgrade\r\nsec-websocket-version: 13\r\n{key}"))
                .replace("1.1", "1.0"),
            "HTTP/1.0 400",
        ),
        ("GET /parrot HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = raw(&rig, &request).await;
        assert!(answer.starts_with(expected), "{request} gave {answer}");
    }
}

#[tokio::test]
async fn a_call_asks_the_hub_and_detaches_when_answered() {
    let mut rig = Rig::start();
    let port = rig.port();
    let hub = async {
        let HubRequest::Attach { key, messages, replies, .. } = rig.asked().await else {
            panic!("no attach")
        };
        let HubRequest::Ask { key: asking, token, .. } = rig.asked().await else { panic!("no question") };
        assert_eq!(asking, key);
        let answer = Answer::Snapshot(Snapshot::default().into());
        replies.send(Box::new(told(SessionReply::Answer(token, answer)))).await.unwrap();
        let HubRequest::Detach { key: leaving } = rig.asked().await else { panic!("no detach") };
        assert_eq!(leaving, key);
        drop(messages);
    };
    let (answer, ()) = tokio::join!(http(port, "GET", "/call", &[], ""), hub);
    assert_eq!(answer, (200, "answer 7".to_owned()));
}

#[tokio::test]
async fn a_client_that_hangs_up_during_a_call_leaves_nothing_behind() {
    let mut rig = Rig::start();
    let mut stream = rig.tcp().await;
    stream.write_all(b"GET /call HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let HubRequest::Attach { key, messages: _messages, replies: _replies, .. } = rig.asked().await else {
        panic!("no attach")
    };
    let HubRequest::Ask { .. } = rig.asked().await else { panic!("no question") };
    drop(stream);
    let HubRequest::Detach { key: leaving } = rig.asked().await else { panic!("no detach") };
    assert_eq!(leaving, key);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let patience = Patience { call: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::with(Setup { patience, ..Setup::default() });
    assert_eq!(http(rig.port(), "GET", "/silent", &[], "").await.0, 504);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_cut_off() {
    let patience = Patience { head: Duration::from_millis(100), ..Patience::default() };
    let rig = Rig::with(Setup { patience, ..Setup::default() });
    assert_eq!(raw(&rig, "GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await, "");
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let patience = Patience { body: Duration::from_millis(100), ..Patience::default() };
    let rig = Rig::with(Setup { patience, ..Setup::default() });
    let answer = raw(&rig, "POST /seen HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn large_bodies_that_never_end_keep_no_other_address_waiting() {
    let rig = Rig::with(Setup { trusted_proxies: vec![[127, 0, 0, 1].into()], ..Setup::default() });
    let mut stalled = Vec::new();
    for _ in 0..9 {
        let mut stream = rig.tcp().await;
        let head =
            "POST /seen HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\ncontent-length: 40000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all("x".repeat(20_000).as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    let large = "x".repeat(40_000);
    for other in ["192.0.2.2", "192.0.2.3"] {
        let answer = http(rig.port(), "POST", "/seen", &[("x-forwarded-for", other)], &large).await;
        assert_eq!(answer.0, 200, "{other}");
    }
}

#[tokio::test]
async fn large_bodies_that_stall_in_every_place_give_way_to_one_that_comes() {
    let patience = Patience { grace: Duration::from_millis(80), ..Patience::default() };
    let trusted_proxies = vec![[127, 0, 0, 1].into()];
    let rig = Rig::with(Setup { patience, trusted_proxies, ..Setup::default() });
    let mut stalled = Vec::new();
    for address in [1, 1, 2, 2, 3, 3, 4, 4] {
        let mut stream = rig.tcp().await;
        let head = format!(
            "POST /seen HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.{address}\r\ncontent-length: 40000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all("x".repeat(20_000).as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    let large = "x".repeat(40_000);
    for other in 5..=16 {
        let from = format!("192.0.2.{other}");
        let answer = http(rig.port(), "POST", "/seen", &[("x-forwarded-for", &from)], &large).await;
        assert_eq!(answer.0, 200, "{other}");
    }
    let told = stalled.iter_mut().map(|stream| {
        Box::pin(async {
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            start
        })
    });
    let (first, ..) = timeout(PATIENCE, select_all(told)).await.expect("who had to go is told");
    assert_eq!(&first, b"HTTP/1.1 408");
}

#[tokio::test]
async fn one_connection_too_many_is_told_503_and_room_is_made_again() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let mut first = rig.parrot().await;
    let _second = rig.parrot().await;
    let (status, body) = http(rig.port(), "GET", "/", &[], "").await;
    assert_eq!((status, body.as_str()), (503, "there are too many connections"));
    first.send("close 1000 0").await;
    assert_eq!(first.next().await, "close 1000 ");
    drop(first);
    let retry = async {
        while http(rig.port(), "GET", "/", &[], "").await.0 == 503 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, retry).await.expect("room is made");
}

#[tokio::test]
async fn garbage_is_answered_400_and_the_listener_lives_on() {
    let rig = Rig::start();
    assert!(raw(&rig, "\x16\x03\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_eq!(http(rig.port(), "GET", "/", &[], "").await.0, 200);
}

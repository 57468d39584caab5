//! Sessions that HTTP requests carry: transports, limits, clients that leave, dawdle or come twice, shutdown.

use std::time::Duration;

use pentad::config::Limits;
use pentad::hub::handle::{HubRequest, SessionReply};
use pentad::proto::sockjs::Pace;
use pentad::serve::Patience;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::ws::{PATIENCE, http};
use crate::rig::{Rig, Setup, told};

const ABC: &str = "/sockjs/000/abc";

/// A response that is read as it comes.
struct Stream {
    socket: BufReader<TcpStream>,
    head: String,
}

impl Stream {
    async fn open(rig: &Rig, method: &str, path: &str) -> Self {
        let mut socket = rig.tcp().await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { socket: BufReader::new(socket), head: String::new() };
        loop {
            let line = stream.line().await;
            stream.head += &line.to_lowercase();
            if line == "\r\n" {
                return stream;
            }
        }
    }

    async fn streaming(rig: &Rig) -> Self {
        let mut stream = Self::open(rig, "POST", &format!("{ABC}/xhr_streaming")).await;
        assert!(stream.head.starts_with("http/1.1 200"), "{}", stream.head);
        assert_eq!(stream.piece().await, format!("{}\no\n", "h".repeat(2048)));
        stream
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.socket.read_line(&mut line)).await.expect("a line in time");
        assert_ne!(read.unwrap(), 0, "the connection ended");
        line
    }

    /// The next piece of the body; empty at its end.
    async fn piece(&mut self) -> String {
        let line = self.line().await;
        let size = usize::from_str_radix(line.trim(), 16).expect("the size of a piece");
        let mut piece = vec![0; size + 2];
        timeout(PATIENCE, self.socket.read_exact(&mut piece)).await.expect("a piece in time").unwrap();
        piece.truncate(size);
        String::from_utf8(piece).unwrap()
    }
}

async fn poll(rig: &Rig) -> (u16, String) {
    let (status, body) = http(rig.port(), "POST", &format!("{ABC}/xhr"), &[], "").await;
    // The plain client of the tests leaves pieces as they are: size, piece, end.
    let piece = body.split_once("\r\n").and_then(|(_, rest)| rest.split_once("\r\n0\r\n\r\n"));
    (status, piece.map_or(body.clone(), |(piece, _)| piece.to_owned()))
}

async fn send(rig: &Rig, texts: &[&str]) -> u16 {
    let body = serde_json::to_string(texts).unwrap();
    http(rig.port(), "POST", &format!("{ABC}/xhr_send"), &[], &body).await.0
}

fn took(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

fn at_pace(pace: Pace) -> Setup {
    let patience = Patience { sockjs: pace, linger: Duration::from_millis(300), ..Patience::default() };
    Setup { patience, ..Setup::default() }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

#[tokio::test]
async fn polling_gives_one_frame_for_each_response() {
    let rig = Rig::start();
    assert_eq!(poll(&rig).await, took("o\n"));
    assert_eq!(send(&rig, &["x"]).await, 204);
    assert_eq!(send(&rig, &["y", "z"]).await, 204);
    assert_eq!(poll(&rig).await, took("a[\"x\",\"yz\"]\n"));
}

#[tokio::test]
async fn a_poll_waits_for_something_to_say_and_keeps_its_connection() {
    let rig = Rig::start();
    let mut waiting = Stream::open(&rig, "POST", &format!("{ABC}/xhr")).await;
    assert!(waiting.head.contains("content-type: application/javascript;charset=utf-8"), "{}", waiting.head);
    assert_eq!([waiting.piece().await, waiting.piece().await], ["o\n", ""]);
    let request = format!("POST {ABC}/xhr HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    waiting.socket.write_all(request.as_bytes()).await.unwrap();
    while waiting.line().await != "\r\n" {}
    assert_eq!(send(&rig, &["x"]).await, 204);
    assert_eq!([waiting.piece().await, waiting.piece().await], ["a[\"x\"]\n", ""]);
}

#[tokio::test]
async fn a_stream_gives_frames_until_its_limit_and_the_next_goes_on() {
    let rig = Rig::with(at_pace(Pace { stream_octets: 4096, ..Pace::default() }));
    let mut stream = Stream::streaming(&rig).await;
    let text = "x".repeat(128);
    let mut frames = 0;
    loop {
        assert_eq!(send(&rig, &[&text]).await, 204);
        frames += 1;
        assert_eq!(stream.piece().await, format!("a[\"{text}\"]\n"));
        if 2051 + frames * 133 >= 4096 {
            break;
        }
    }
    assert_eq!(stream.piece().await, "");
    assert_eq!(send(&rig, &["late"]).await, 204);
    assert_eq!(poll(&rig).await, took("a[\"late\"]\n"));
}

#[tokio::test]
async fn events_are_lines_that_browsers_read_themselves() {
    let rig = Rig::start();
    let mut stream = Stream::open(&rig, "GET", &format!("{ABC}/eventsource")).await;
    assert!(stream.head.contains("content-type: text/event-stream;charset=utf-8"), "{}", stream.head);
    assert_eq!(stream.piece().await, "\r\ndata: o\r\n\r\n");
    assert_eq!(send(&rig, &["  \0\n\r "]).await, 204);
    assert_eq!(stream.piece().await, "data: a[\"  \\u0000\\n\\r \"]\r\n\r\n");
}

#[tokio::test]
async fn what_the_hub_says_reaches_the_response_at_once() {
    let mut rig = Rig::start();
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!(send(&rig, &["submit 1"]).await, 204);
    let HubRequest::Attach { replies, messages: _messages, .. } = rig.asked().await else {
        panic!("no attach")
    };
    let HubRequest::Submit { token, .. } = rig.asked().await else { panic!("no command") };
    let outcome = pentad::model::command::Outcome::Offline;
    replies.send(Box::new(told(SessionReply::Outcome(token, outcome.into())))).await.unwrap();
    assert_eq!(stream.piece().await, "a[\"outcome 0 Offline\"]\n");
}

#[tokio::test]
async fn timers_of_the_session_run_without_a_request() {
    let rig = Rig::start();
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!(send(&rig, &["tick"]).await, 204);
    assert_eq!(stream.piece().await, "a[\"tick\"]\n");
}

#[tokio::test]
async fn quiet_streams_beat_and_end_after_their_time() {
    let rig = Rig::with(at_pace(Pace { heart_beat: Duration::from_millis(40), ..Pace::default() }));
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!([stream.piece().await, stream.piece().await], ["h\n", "h\n"]);
    let rig = Rig::with(at_pace(Pace { stream_time: Duration::from_millis(100), ..Pace::default() }));
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!(stream.piece().await, "");
    assert_eq!(send(&rig, &["x"]).await, 204);
    assert_eq!(poll(&rig).await, took("a[\"x\"]\n"), "the session goes on");
}

#[tokio::test]
async fn a_session_of_nobody_cannot_be_spoken_to() {
    let rig = Rig::start();
    assert_eq!(send(&rig, &["x"]).await, 404);
    assert_eq!(poll(&rig).await, took("o\n"));
    let with_token = format!("{ABC}/xhr_send?token=other");
    assert_eq!(
        http(rig.port(), "POST", &with_token, &[], "[\"x\"]").await.0,
        404,
        "a name without its credential"
    );
}

#[tokio::test]
async fn only_one_response_carries_a_session() {
    let rig = Rig::start();
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!(poll(&rig).await, took("c[2010,\"Another connection still open\"]\n"));
    assert_eq!(send(&rig, &["x"]).await, 204);
    assert_eq!(stream.piece().await, "a[\"x\"]\n", "the first one stays");
}

#[tokio::test]
async fn a_close_comes_last_and_is_told_to_whoever_still_asks() {
    let rig = Rig::start();
    let mut stream = Stream::streaming(&rig).await;
    assert_eq!(send(&rig, &["before"]).await, 204);
    assert_eq!(stream.piece().await, "a[\"before\"]\n");
    assert_eq!(send(&rig, &["close 3000 1"]).await, 204);
    assert_eq!([stream.piece().await, stream.piece().await], ["c[3000,\"\u{4f60}\"]\n", ""]);
    assert_eq!(send(&rig, &["too late"]).await, 204);
    for _ in 0..2 {
        assert_eq!(poll(&rig).await, took("c[3000,\"\u{4f60}\"]\n"));
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_ends_the_session_and_the_hub_hears_of_it() {
    for transport in ["xhr_streaming", "xhr"] {
        let mut rig = Rig::start();
        assert_eq!(poll(&rig).await, took("o\n"));
        let stream = Stream::open(&rig, "POST", &format!("{ABC}/{transport}")).await;
        assert_eq!(send(&rig, &["watch"]).await, 204);
        let HubRequest::Attach { key, messages: _messages, replies: _replies, .. } = rig.asked().await else {
            panic!("no attach")
        };
        assert!(matches!(rig.asked().await, HubRequest::Watch { .. }));
        drop(stream);
        assert!(matches!(rig.asked().await, HubRequest::Detach { key: left } if left == key), "{transport}");
        assert_eq!(poll(&rig).await, took("c[1002,\"Connection interrupted\"]\n"), "{transport}");
    }
}

#[tokio::test]
async fn a_session_without_a_response_ends_and_makes_room() {
    let rig = Rig::with(at_pace(Pace { disconnect: Duration::from_millis(50), ..Pace::default() }));
    assert_eq!(poll(&rig).await, took("o\n"));
    until("the end of the session", || rig.shared.admission.count() == 0).await;
    assert_eq!(send(&rig, &["x"]).await, 404);
    assert_eq!(poll(&rig).await, took("o\n"), "a new session of the same name");
}

#[tokio::test]
async fn sessions_count_as_connections() {
    let limits = Limits { connections_per_address: 3, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let stream = Stream::streaming(&rig).await;
    assert_eq!(rig.shared.admission.count(), 2, "the session and its response");
    let (status, _) = http(rig.port(), "POST", "/sockjs/000/other/xhr", &[], "").await;
    assert_eq!(status, 503, "no room for another session");
    assert_eq!(send(&rig, &["x"]).await, 204);
    drop(stream);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_and_delays_nobody() {
    // Without the limit of a response the buffers of the kernel fill up.
    let pace = Pace { stream_octets: usize::MAX, ..Pace::default() };
    let patience = Patience { write: Duration::from_millis(200), ..at_pace(pace).patience };
    let mut rig = Rig::with(Setup { patience, ..Setup::default() });
    let stuck = Stream::streaming(&rig).await;
    assert_eq!(send(&rig, &["watch"]).await, 204);
    let HubRequest::Attach { messages: _messages, replies: _replies, .. } = rig.asked().await else {
        panic!("no attach")
    };
    let mut brisk = rig.parrot().await;
    // More than the buffers of both kernels' ends hold.
    assert_eq!(send(&rig, &["flood 500 60000"]).await, 204);
    for turn in 0..20 {
        brisk.send(&format!("turn {turn}")).await;
        assert_eq!(brisk.next().await, format!("turn {turn}"));
    }
    let gone = async { while !matches!(rig.asked().await, HubRequest::Detach { .. }) {} };
    timeout(PATIENCE, gone).await.expect("the stuck one is given up");
    assert_eq!(
        poll(&rig).await,
        took("c[4001,\"bye\"]\n"),
        "it is told why, and not what stood behind the gap"
    );
    drop(stuck);
}

#[tokio::test]
async fn a_panic_in_a_session_harms_only_that_session() {
    let rig = Rig::start();
    let mut other = rig.parrot().await;
    assert_eq!(poll(&rig).await, took("o\n"));
    assert_eq!(send(&rig, &["panic"]).await, 404);
    until("the end of the session", || rig.shared.admission.count() == 1).await;
    other.send("fine").await;
    assert_eq!(other.next().await, "fine");
    assert_eq!(poll(&rig).await, took("o\n"));
}

#[tokio::test]
async fn at_shutdown_the_goodbye_goes_into_the_response() {
    let rig = Rig::start();
    let mut stream = Stream::streaming(&rig).await;
    let stop = rig.stop.clone();
    stop.cancel();
    let mut rest = String::new();
    loop {
        let piece = stream.piece().await;
        if piece.is_empty() {
            break;
        }
        rest += &piece;
    }
    assert_eq!(rest, "a[\"bye Shutdown\"]\nc[4001,\"bye\"]\n");
    rig.ended().await;
}

#[tokio::test]
async fn many_sessions_at_once_are_all_served() {
    let limits = Limits { connections_per_address: 400, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() });
    let path = |number: u32, end: &str| format!("/sockjs/000/s{number}/{end}");
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut stream = Stream::open(&rig, "POST", &path(number, "xhr_streaming")).await;
        assert!(stream.piece().await.ends_with("h\no\n"));
        streams.push(stream);
    }
    for (number, stream) in (0..).zip(&mut streams) {
        let body = format!("[\"number {number}\"]");
        assert_eq!(http(rig.port(), "POST", &path(number, "xhr_send"), &[], &body).await.0, 204);
        assert_eq!(stream.piece().await, format!("a[\"number {number}\"]\n"));
    }
}

//! Clients that stop reading while the gateway has much to say: the built binary, a real broker, real sockets.
//!
//! Three rules are shown, each where it holds: property reports are dropped and made good, until a write takes too long (Janus,
//! SagooIoT, iThings); alarms and events may not be lost, so a full queue ends the session with the dialect's own close (SagooIoT,
//! iThings, OAM, whose samples are too few to fill anything); what a balanced group has for one member goes to another one (U+).
//! Beside each such client another one goes on as if nothing were. The log and the figures tell who was cut off.

#![cfg(test)]

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pentad::clock;
use pentad::config::{Source, resolve};
use pentad::dialects::uplus;
use pentad::model::client::Dialect;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[path = "common/mosquitto.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod mosquitto;
#[path = "common/port.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod port;
#[path = "common/ws.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod ws;

use mosquitto::Mosquitto;
use port::Port;
use ws::{PATIENCE, Ws, http};

/// What `serve::Patience` gives one write, so long that nothing else here lasts as long.
const WRITE: Duration = Duration::from_secs(10);

/// A client that does not read is noticed when its write has taken too long.
const NOTICED: Duration = Duration::from_secs(40);

/// Large reports that are told to everybody.
const REPORTS: usize = 200;

/// Events of a balanced group, of which one member alone could not keep half in the buffers on its way.
const EVENTS: usize = 400;

/// Octets that make a message large, so that a few dozen of them fill every buffer on the way.
const LARGE: usize = 4 << 10;

struct Gateway {
    child: Child,
    port: u16,
    log: PathBuf,
    text: String,
    _kept: Port,
}

impl Gateway {
    async fn start(folder: &Path, broker: &Mosquitto, send_queue: usize) -> Self {
        let kept = Port::free();
        let port = kept.number;
        let text = format!(
            r#"
[gateway]
id = "barn"
[server]
listen = ["127.0.0.1:{port}"]
[server.limits]
send_queue = {send_queue}
[[mqtt]]
id = "local"
url = "mqtt://127.0.0.1:{}"
[[product]]
id = "gauge"
type_id = "1gauge"
[[product.property]]
id = "note"
type = "string"
report = {{ on = "reading" }}
mqtt = {{ topic = "gauges/{{topic}}/note" }}
[[product.property]]
id = "level"
type = "int"
mqtt = {{ topic = "gauges/{{topic}}/level" }}
[[product.property.alarm]]
id = "high"
above = 10.0
[[product.event]]
id = "spark"
params = [{{ id = "text", type = "string" }}]
mqtt = {{ topic = "gauges/{{topic}}/spark", params = {{ text = "$.text" }} }}
[[device]]
id = "gauge-1"
product = "gauge"
mqtt = "local"
uuid = "0000-0000-0000-0A01"
mac = "0000000000A1"
[[client]]
id = "slow"
secret = "secret-of-the-slow-one"
[[client]]
id = "quick"
secret = "secret-of-the-quick-one"
"#,
            broker.port()
        );
        let (configuration, log) = (folder.join("pentad.toml"), folder.join("log"));
        fs::write(&configuration, &text).expect("a folder of our own");
        let child = Command::new(env!("CARGO_BIN_EXE_pentad"))
            .args(["run", "--config"])
            .arg(&configuration)
            .env_remove("JOURNAL_STREAM")
            .env_remove("PENTAD_LOG")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("a folder of our own"))
            .spawn()
            .expect("the gateway starts");
        let mut gateway = Self { child, port, log, text, _kept: kept };
        let connected = async {
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
                || !gateway.metrics().await.contains("pentad_link_up{link=\"local\"} 1\n")
            {
                assert!(gateway.child.try_wait().expect("our own child").is_none(), "{}", gateway.log());
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, connected).await.expect("the gateway comes up in time");
        gateway
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn metrics(&self) -> String {
        http(self.port, "GET", "/metrics", &[], "").await.1
    }

    async fn figure(&self, name: &str, dialect: &str) -> u32 {
        let head = format!("{name}{{dialect=\"{dialect}\"}} ");
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&head));
        line.unwrap_or_else(|| panic!("{head} is missing in\n{metrics}")).parse().expect("a number")
    }

    /// Until the figures and the log say that the client was cut off in a dialect, and another one was not.
    async fn cuts_off(&self, client: &str, dialect: &str) {
        let told = async {
            while self.figure("pentad_sessions_evicted_total", dialect).await != 1
                || self.figure("pentad_sessions", dialect).await != 1
                || !self.says_who(client, dialect)
            {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(NOTICED, told).await.unwrap_or_else(|_| panic!("{client} is not cut off in {dialect}"));
    }

    fn says_who(&self, client: &str, dialect: &str) -> bool {
        let log = self.log();
        let mut lines = log.lines().filter(|line| line.contains("does not read fast enough and is cut off"));
        lines.any(|line| {
            line.contains(&format!("client={client:?}")) && line.contains(&format!("dialect={dialect:?}"))
        })
    }

    /// The slow one has next to no room for what it does not read, and tells the kernel on the other side to keep little for it.
    async fn connect(&self, client: &str, path: &str) -> Ws {
        if client != "slow" {
            return Ws::connect(self.port, path).await;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        socket.set_tcp_mss(536).expect("small packets");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], self.port)).into()).expect("the gateway listens");
        socket.set_nonblocking(true).expect("a socket for tokio");
        let stream = TcpStream::from_std(socket.into()).expect("a socket for tokio");
        Ws::over(stream, self.port, path).await
    }

    async fn stomp(&self, path: &str, client: &str, destination: &str) -> Ws {
        let mut ws = self.connect(client, &format!("{path}?token=secret-of-the-{client}-one")).await;
        ws.send("CONNECT\naccept-version:1.2\nhost:h\n\n\0").await;
        ws.wait_for("the STOMP greeting", |text| text.starts_with("CONNECTED")).await;
        ws.send(&format!("SUBSCRIBE\nid:s\ndestination:{destination}\nreceipt:r\n\n\0")).await;
        ws.wait_for("the receipt", |text| text.starts_with("RECEIPT")).await;
        ws
    }

    async fn sagoo(&self, client: &str, topic: &str) -> Ws {
        let mut ws = self.connect(client, &format!("/messaging/secret-of-the-{client}-one")).await;
        ws.send(&json!({"id": "live", "type": "sub", "topic": topic}).to_string()).await;
        ws
    }

    async fn ithings(&self, client: &str, code: &str) -> Ws {
        let token = format!("secret-of-the-{client}-one");
        let path =
            format!("/api/v1/system/common/websocket/connect?token={token}&app-code=core&project-id=1");
        let mut ws = self.connect(client, &path).await;
        let params = json!({"productID": "gauge", "deviceName": "gauge-1"});
        ws.send(&json!({"type": "up.sub", "body": {"code": code, "params": params}}).to_string()).await;
        ws.wait_json("the answer to the subscription", |frame| frame["type"] == "down.subRet").await;
        ws
    }

    /// Both are of the same system, and so members of the same group.
    async fn uplus(&self, client: &str, topic: &str) -> Ws {
        let source = Source { name: "pentad.toml".into(), text: self.text.clone() };
        let config = resolve(&[source]).expect("the gateway runs with it").config;
        let system = config.clients.by_id(Dialect::Uplus, "quick").expect("a client of ours");
        let query = uplus::signed_query(system, clock::wall());
        let mut ws = self.connect(client, &format!("{}?{query}", uplus::PATH)).await;
        ws.wait_json("the login's answer", |frame| frame["data"]["code"] == "00000").await;
        let relation = json!({"topic": topic, "keys": {"typeId": ["1gauge"]}});
        ws.send(&json!({"cmd": "subscribe", "data": {"subdata": [relation]}}).to_string()).await;
        ws.wait_for("the answer to the subscription", |text| text.contains("subscribe-ack")).await;
        ws
    }
}

/// A device that says one line after the other on a topic.
struct Publisher(Child);

impl Publisher {
    fn on(topic: &str, broker: &Mosquitto) -> Self {
        let port = broker.port().to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-l"]);
        Self(command.stdin(Stdio::piped()).spawn().expect("mosquitto-clients is installed"))
    }

    fn say(&mut self, line: &str) {
        let pipe = self.0.stdin.as_mut().expect("a pipe");
        pipe.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}

/// A text that is large and says which one it is.
fn large(number: usize) -> String {
    format!("<{number}>{}", "x".repeat(LARGE))
}

/// Reads what is left, up to the end of the connection: every text, and the close code.
async fn rest(ws: &mut Ws) -> (Vec<String>, u16) {
    let mut texts = Vec::new();
    loop {
        match ws.next().await {
            Ok(text) => texts.push(text),
            Err(code) => return (texts, code),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_reports_is_cut_off_by_time_and_others_are_not_delayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Mosquitto::start().await;
    let gateway = Gateway::start(folder.path(), &broker, 16).await;
    let topic = "/websocket/deviceData/0000-0000-0000-0A01";
    let report = "/device/*/*/message/property/report";
    let mut slow = [
        ("janus", gateway.stomp("/websocket", "slow", topic).await),
        ("sagoo", gateway.sagoo("slow", report).await),
        ("ithings", gateway.ithings("slow", "devicePropertyReportV2").await),
    ];
    let mut quick = [
        ("janus", gateway.stomp("/websocket", "quick", topic).await),
        ("sagoo", gateway.sagoo("quick", report).await),
        ("ithings", gateway.ithings("quick", "devicePropertyReportV2").await),
    ];
    broker.publish("gauges/gauge-1/note", "the beginning").await;
    for (dialect, ws) in slow.iter_mut().chain(&mut quick) {
        ws.wait_for(&format!("the first report of {dialect}"), |text| text.contains("the beginning")).await;
    }
    // From here on the slow ones do not read. Each step waits for everybody else, so nobody else has a reason to miss one.
    let mut notes = Publisher::on("gauges/gauge-1/note", &broker);
    let mut longest = Duration::ZERO;
    for number in 0..REPORTS {
        let begun = clock::instant();
        notes.say(&large(number));
        for (dialect, ws) in &mut quick {
            ws.wait_for(&format!("report {number} of {dialect}"), |text| {
                text.contains(&format!("<{number}>"))
            })
            .await;
        }
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < WRITE, "somebody waited {longest:?} for somebody else");
    for (dialect, ws) in &mut slow {
        gateway.cuts_off("slow", dialect).await;
        let (texts, code) = rest(ws).await;
        assert_eq!(code, 1006, "who does not read hears no goodbye: {dialect}");
        assert!(texts.len() < REPORTS, "{dialect} has missed reports, or nothing here was too much");
    }
    // The others have stayed.
    notes.say("the end");
    for (dialect, ws) in &mut quick {
        ws.wait_for(&format!("the last report of {dialect}"), |text| text.contains("the end")).await;
    }
}

/// A subscription to alarms and events.
async fn alarms(gateway: &Gateway, dialect: &str, client: &str) -> Ws {
    match dialect {
        "oam" => gateway.stomp("/ws", client, "/alarm").await,
        "sagoo" => gateway.sagoo(client, "/device/*/*/message/event/*").await,
        _ => gateway.ithings(client, "deviceEventReport").await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_room_for_an_alarm_is_closed_with_1013_and_others_miss_none() {
    let broker = Mosquitto::start().await;
    for dialect in ["oam", "sagoo", "ithings"] {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = Gateway::start(folder.path(), &broker, 16).await;
        let mut slow = alarms(&gateway, dialect, "slow").await;
        let mut quick = alarms(&gateway, dialect, "quick").await;
        let mut levels = Publisher::on("gauges/gauge-1/level", &broker);
        let is_alarm = |text: &str| text.contains("\"high\"");
        let mut told = 0_usize;
        while !gateway.log().contains("no longer served because its client reads too slowly") {
            assert!(told < 20_000, "nothing was too much for {dialect}");
            // As many as fit into the queue of whoever reads: every second time it is raised, every other time it is over.
            for level in ["20", "0", "20", "0", "20", "0", "20", "0"] {
                levels.say(level);
            }
            for number in told + 1..=told + 8 {
                quick.wait_for(&format!("alarm {number} of {dialect}"), is_alarm).await;
            }
            told += 8;
        }
        // It reads on in time, and finds what was for it, and at last why there is no more.
        let (texts, code) = rest(&mut slow).await;
        assert_eq!(code, 1013, "{dialect}");
        let heard = texts.iter().filter(|text| is_alarm(text)).count();
        assert!((1..told).contains(&heard), "{dialect} has {heard} of {told}");
        gateway.cuts_off("slow", dialect).await;
        // The other one has stayed.
        levels.say("20");
        quick.wait_for(&format!("one more alarm of {dialect}"), is_alarm).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_balanced_group_had_for_a_member_that_stops_reading_reaches_another_one_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Mosquitto::start().await;
    let gateway = Gateway::start(folder.path(), &broker, 2 * EVENTS).await;
    let mut members = [gateway.uplus("slow", "DEV_CUSTOM").await, gateway.uplus("quick", "DEV_CUSTOM").await];
    let mut sparks = Publisher::on("gauges/gauge-1/spark", &broker);
    for number in 0..EVENTS {
        sparks.say(&json!({ "text": large(number) }).to_string());
    }
    let [slow, quick] = &mut members;
    let numbers = |text: &str| -> Vec<usize> {
        let parts = text.split('<').skip(1);
        parts.filter_map(|part| part.split_once('>').and_then(|(number, _)| number.parse().ok())).collect()
    };
    // Whatever was not written to the slow one, which may be more than one message behind its cut.
    let mut by_quick = Vec::new();
    let noticed = async {
        gateway.cuts_off("quick", "uplus").await;
    };
    tokio::pin!(noticed);
    loop {
        tokio::select! {
            () = &mut noticed => break,
            text = quick.next() => by_quick.extend(numbers(&text.expect("it stays"))),
        }
    }
    let (texts, code) = rest(slow).await;
    assert_eq!(code, 1006, "who does not read hears no goodbye");
    let by_slow: Vec<usize> = texts.iter().flat_map(|text| numbers(text)).collect();
    assert!(!by_slow.is_empty() && by_slow.len() < EVENTS);
    while by_quick.len() + by_slow.len() < EVENTS {
        by_quick.extend(numbers(&quick.next().await.expect("it stays")));
    }
    let mut all: Vec<usize> = by_quick.into_iter().chain(by_slow).collect();
    all.sort_unstable();
    assert_eq!(all, (0..EVENTS).collect::<Vec<_>>(), "each once");
}

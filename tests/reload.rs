//! A running gateway whose configuration changes under it: the real parts, real sockets, and slaves on
//! pseudo-terminals. What is said of a change stands in `reload_plans.rs`, and the signal in `cli.rs`.

#![cfg(test)]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value as Json, json};
use tokio_rustls::TlsConnector;

#[path = "common/certificate.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod certificate;
#[path = "common/gateway.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod gateway;
#[path = "common/port.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod port;
#[path = "common/slave.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod slave;
#[path = "common/ws.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod ws;

use gateway::Gateway;
use port::Port;
use slave::{Line, World};
use ws::{PATIENCE, Ws, http};

/// How often devices are polled here.
const EVERY: Duration = Duration::from_millis(100);

/// The head of every configuration here: two lines, two clients, one product.
fn head(plant: &Plant) -> String {
    let (a, b) = (plant.path("a"), plant.path("b"));
    format!(
        r#"
[gateway]
id = "barn"
timezone = "UTC"

[[serial]]
id = "a"
port = "{a}"
baud_rate = 115200
timeout = "2000ms"

[[serial]]
id = "b"
port = "{b}"
baud_rate = 115200
timeout = "2000ms"

[[product]]
id = "gauge"
type_id = "1gauge"
[[product.property]]
id = "level"
type = "int"
access = "rw"
modbus = {{ table = "holding", address = 10, type = "u16", every = "100ms" }}

[[client]]
id = "demo"
secret = "demo-secret"
rights = ["read", "write"]
"#
    )
}

const OTHER: &str = "\n[[client]]\nid = \"other\"\nsecret = \"other-secret\"\n";

/// A gauge of its own number on a line.
fn gauge(line: &str, unit: u8) -> String {
    format!(
        "\n[[device]]\nid = \"{line}-{unit}\"\nproduct = \"gauge\"\nbus = \"{line}\"\nunit = {unit}\n\
         uuid = \"0000-0000-0000-{:04X}\"\nmac = \"0000000000{:02X}\"\n",
        u16::from(unit) + if line == "a" { 0xA00 } else { 0xB00 },
        u16::from(unit) + if line == "a" { 0xA0 } else { 0xB0 },
    )
}

/// Two lines with slaves at every address that is set.
struct Plant {
    folder: tempfile::TempDir,
    a: World,
    b: World,
}

impl Plant {
    fn new() -> Self {
        let plant = Self { folder: tempfile::tempdir().unwrap(), a: World::default(), b: World::default() };
        for unit in 1..9 {
            plant.a.set(unit, 10, &[100 + u16::from(unit)]);
            plant.b.set(unit, 10, &[200 + u16::from(unit)]);
        }
        plant
    }

    fn path(&self, line: &str) -> String {
        self.folder.path().join(line).to_string_lossy().into_owned()
    }

    fn plug(&self, line: &str) -> Line {
        let world = if line == "a" { &self.a } else { &self.b };
        Line::plug(world, &self.folder.path().join(line))
    }
}

fn is_of(frame: &Json, device: &str) -> bool {
    frame["payload"]["deviceId"] == device
        && frame["topic"].as_str().is_some_and(|topic| topic.ends_with("/report"))
}

/// Moves the value of a gauge until the session hears of it: only changes are reported.
async fn hears(ws: &mut Ws, world: &World, unit: u8, device: &str) {
    for value in 1000..1200 {
        world.set(unit, 10, &[value]);
        let heard = ws.wait_json("a report", |frame| is_of(frame, device));
        if tokio::time::timeout(4 * EVERY, heard).await.is_ok() {
            return;
        }
    }
    panic!("no report of {device} in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_all_five_dialects_stay_and_receive_a_device_that_comes() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1) + &gauge("b", 1);
    let gateway = Gateway::start(&text);
    let mut sagoo = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    let mut ithings = gateway.ithings("demo-secret").await;
    let connections = json!({"type": "up.sub", "body": {"code": "deviceConn", "params": {"projectID": "1"}}});
    ithings.send(&connections.to_string()).await;
    let mut oam = gateway.stomp("/ws?token=demo-secret").await;
    let mut janus = gateway.stomp("/websocket?token=demo-secret").await;
    let mut uplus = gateway.uplus_statuses(&text, "demo", "1gauge").await;
    hears(&mut sagoo, &plant.a, 1, "a-1").await;
    ithings.wait_json("the answer to the subscription", |frame| frame["type"] == "down.subRet").await;

    let applied = gateway.reload(&(text.clone() + &gauge("a", 2))).await.unwrap();
    assert_eq!(applied.changes, ["device a-2 is added on a"]);
    assert_eq!(applied.status, "serving 3 devices on 1 listeners");
    hears(&mut sagoo, &plant.a, 2, "a-2").await;
    ithings.wait_json("the news that it is there", |frame| frame["device"]["deviceName"] == "a-2").await;
    // These two name the device, which they could not before.
    oam.send("SUBSCRIBE\nid:s\ndestination:/stream/a/a-2\n\n\0").await;
    let topic = "/websocket/deviceData/0000-0000-0000-0A02";
    janus.send(&format!("SUBSCRIBE\nid:s\ndestination:{topic}\nreceipt:r\n\n\0")).await;
    janus.wait_for("the receipt", |text| text.starts_with("RECEIPT")).await;
    oam.send("SUBSCRIBE\nid:t\ndestination:/user/service\nreceipt:r\n\n\0").await;
    oam.wait_for("the receipt", |text| text.starts_with("RECEIPT")).await;
    plant.a.set(2, 10, &[777]);
    janus.wait_body("its value", topic, |body| body["data"]["level"] == 777).await;
    oam.wait_for("its sample", |text| text.contains("/stream/a/a-2") && text.contains("777")).await;
    uplus
        .wait_json("its status", |frame| {
            frame["data"]["deviceId"] == "0000000000A2" && frame["data"]["status"]["level"] == "777"
        })
        .await;

    // A device that goes is told as gone, and a named one that comes back works again.
    gateway.reload(&text).await.unwrap();
    let gone = |frame: &Json| frame["device"]["deviceName"] == "a-2" && frame["status"] == 2;
    ithings.wait_json("the news that it is gone", gone).await;
    gateway.reload(&(text.clone() + &gauge("a", 2))).await.unwrap();
    plant.a.set(2, 10, &[888]);
    janus.wait_body("its value", topic, |body| body["data"]["level"] == 888).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_client_that_goes_or_changes_are_closed_in_every_dialect_and_others_stay() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1);
    let with_other = text.clone() + OTHER;
    let gateway = Gateway::start(&with_other);
    let mut stays = gateway.sagoo("demo-secret", "/device/*/*/**").await;
    // One way in that has said nothing yet, and one for each dialect.
    for after in [
        text.clone(),
        with_other.replace("other-secret", "another-secret"),
        with_other.clone() + "devices = [\"b-*\"]\n",
    ] {
        let mut there = vec![
            ("sagoo", Ws::connect(gateway.port, "/messaging/other-secret").await, 1008),
            ("ithings", gateway.ithings("other-secret").await, 1008),
            ("oam", gateway.stomp("/ws?token=other-secret").await, 1008),
            ("janus", gateway.stomp("/websocket?token=other-secret").await, 1008),
            ("uplus", gateway.uplus(&with_other, "other").await, 1008),
        ];
        gateway.reload(&after).await.unwrap();
        for (dialect, ws, code) in &mut there {
            let mut said = String::new();
            let closed = loop {
                match ws.next().await {
                    Ok(text) => said += &text,
                    Err(code) => break code,
                }
            };
            assert_eq!(closed, *code, "{dialect}: {said}");
            if ["oam", "janus"].contains(dialect) {
                assert!(said.contains("ERROR"), "{dialect}: {said}");
            }
        }
        gateway.reload(&with_other).await.unwrap();
    }
    hears(&mut stays, &plant.a, 1, "a-1").await;
    let mut again = gateway.sagoo("other-secret", "/device/*/*/message/property/report").await;
    hears(&mut again, &plant.a, 1, "a-1").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_not_concerned_goes_on_while_another_begins_anew() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1) + &gauge("b", 1);
    let gateway = Gateway::start(&text);
    let mut news = gateway.sagoo("demo-secret", "/device/*/*/**").await;
    hears(&mut news, &plant.a, 1, "a-1").await;
    hears(&mut news, &plant.b, 1, "b-1").await;
    let changed = text.replacen("2000ms", "2001ms", 2).replacen("2001ms", "2000ms", 1);
    let applied = gateway.reload(&changed).await.unwrap();
    assert_eq!(applied.changes, ["bus b begins anew: timeout or pause"]);
    plant.a.set(1, 10, &[4242]);
    // A bus that begins anew loses its devices for a moment, as the other one does.
    let mut wanted = vec!["4242", "b-1/online", "b-1/offline"];
    while let Some(&what) = wanted.last() {
        let is_wanted = |text: &str| {
            assert!(!text.contains("a-1/offline"), "{text}");
            wanted.iter().any(|what| text.contains(what))
        };
        let text = news.wait_for(what, is_wanted).await;
        wanted.retain(|what| !text.contains(what));
    }
    hears(&mut news, &plant.a, 1, "a-1").await;
    hears(&mut news, &plant.b, 1, "b-1").await;
    gateway.stop().await;
}

async fn wait_for_polls(world: &World, count: usize) {
    let enough = async {
        while world.log().len() < count {
            tokio::time::sleep(EVERY / 4).await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.expect("the bus is polled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_come_to_a_bus_and_go_while_the_others_on_it_stay_online() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1);
    let gateway = Gateway::start(&text);
    let mut stays = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    let mut losses = gateway.sagoo("demo-secret", "/device/*/*/offline").await;
    hears(&mut stays, &plant.a, 1, "a-1").await;
    gateway.reload(&(text.clone() + &gauge("a", 2) + &gauge("a", 3))).await.unwrap();
    hears(&mut stays, &plant.a, 2, "a-2").await;
    // Another unit, and a name that only people see.
    let moved = text.replace("id = \"a-1\"", "id = \"a-1\"\nname = \"First\"")
        + &gauge("a", 2).replace("unit = 2", "unit = 5");
    gateway.reload(&moved).await.unwrap();
    losses
        .wait_for("the loss of the third", |text| {
            assert!(!text.contains("a-1/offline") && !text.contains("a-2/offline"), "{text}");
            text.contains("a-3/offline")
        })
        .await;
    hears(&mut stays, &plant.a, 5, "a-2").await;
    hears(&mut stays, &plant.a, 1, "a-1").await;
    let before = plant.a.log().len();
    wait_for_polls(&plant.a, before + 10).await;
    let units: std::collections::BTreeSet<u8> =
        plant.a.log().iter().skip(before + 2).map(|asked| asked.unit).collect();
    assert_eq!(units, [1, 5].into(), "nobody else is asked");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_away_can_be_changed_and_comes_back_with_its_new_devices() {
    let plant = Plant::new();
    let _a = plant.plug("a");
    let text = head(&plant) + &gauge("a", 1) + &gauge("b", 1);
    let gateway = Gateway::start(&text);
    let mut news = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    hears(&mut news, &plant.a, 1, "a-1").await;
    gateway.reload(&(text.clone() + &gauge("b", 2))).await.unwrap();
    let _b = plant.plug("b");
    hears(&mut news, &plant.b, 1, "b-1").await;
    hears(&mut news, &plant.b, 2, "b-2").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_to_a_device_that_goes_is_answered() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1) + &gauge("a", 2);
    let gateway = Gateway::start(&text);
    let mut ws = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    hears(&mut ws, &plant.a, 2, "a-2").await;
    // The slave keeps the line busy, so that the write waits.
    plant.a.script(|_| Some(vec![slave::Deed::Wait(Duration::from_millis(250))]));
    let write = json!({
        "id": "w", "type": "sub", "topic": "/device-message-sender/gauge/a-2",
        "parameter": {"messageType": "WRITE_PROPERTY", "properties": {"level": 5}, "headers": {"timeout": 60000}},
    });
    ws.send(&write.to_string()).await;
    gateway.reload(&(head(&plant) + &gauge("a", 1))).await.unwrap();
    ws.wait_json("the end of the command", |frame| frame["id"] == "w" && frame["type"] == "complete").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_open_and_close_and_one_that_cannot_open_leaves_everything_as_it_was() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let body = head(&plant) + &gauge("a", 1);
    let port = Port::free();
    let second = port.address();
    let taken = std::net::TcpListener::bind(second).unwrap();
    let only = body.clone() + "\n[server]\nlisten = [\"127.0.0.1:0\"]\n";
    let both =
        body.clone() + &gauge("a", 2) + &format!("\n[server]\nlisten = [\"127.0.0.1:0\", \"{second}\"]\n");
    let gateway = Gateway::start(&only);
    let mut stays = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    hears(&mut stays, &plant.a, 1, "a-1").await;
    let refusal = gateway.reload(&both).await.unwrap_err();
    let words = pentad::report::Chain(&refusal).to_string();
    assert!(words.contains(&second.to_string()), "{words}");
    assert!(plant.a.log().iter().all(|asked| asked.unit == 1), "nothing was changed");
    drop(taken);
    let applied = gateway.reload(&both).await.unwrap();
    assert_eq!(
        applied.changes,
        ["device a-2 is added on a".to_owned(), format!("listener {second} is opened")]
    );
    let (status, _) = http(second.port(), "GET", "/healthz", &[], "").await;
    assert_eq!(status, 200);
    let mut leaves = Ws::connect(second.port(), "/messaging/demo-secret").await;
    gateway.reload(&only).await.unwrap();
    assert_eq!(leaves.next().await, Err(1001));
    let refused = async {
        while tokio::net::TcpStream::connect(second).await.is_ok() {
            tokio::time::sleep(EVERY / 4).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the listener closes");
    hears(&mut stays, &plant.a, 1, "a-1").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_takes_the_port_of_one_that_goes_and_gives_it_back() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let body = head(&plant) + &gauge("a", 1);
    let port = Port::free();
    let free = port.address();
    let (wide, narrow) = (format!("0.0.0.0:{}", free.port()), free.to_string());
    let on =
        |address: &str| body.clone() + &format!("\n[server]\nlisten = [\"127.0.0.1:0\", \"{address}\"]\n");
    let gateway = Gateway::start(&on(&wide));
    for (next, before) in [(&narrow, &wide), (&wide, &narrow)] {
        let mut leaves = Ws::connect(free.port(), "/messaging/demo-secret").await;
        let applied = gateway.reload(&on(next)).await.unwrap();
        let changes = [format!("listener {before} is closed"), format!("listener {next} is opened")];
        assert!(changes.iter().all(|change| applied.changes.contains(change)), "{:?}", applied.changes);
        assert_eq!(leaves.next().await, Err(1001), "connections go with the listener that they came through");
        let (status, _) = http(free.port(), "GET", "/healthz", &[], "").await;
        assert_eq!(status, 200);
        assert!(std::net::TcpListener::bind(next.as_str()).is_err(), "nobody shares the port");
    }
    // What is refused for another reason leaves the wide one as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = on(&format!("{narrow}\", \"{}", taken.local_addr().unwrap()));
    gateway.reload(&both).await.unwrap_err();
    let (status, _) = http(free.port(), "GET", "/healthz", &[], "").await;
    assert_eq!(status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_restart_can_change_is_refused_whole() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1);
    let gateway = Gateway::start(&text);
    let mut other = text.replace("id = \"barn\"", "id = \"shed\"") + &gauge("a", 2);
    write!(other, "\n[history]\npath = \"{}\"\n", plant.path("history.db")).unwrap();
    let refusal = gateway.reload(&other).await.unwrap_err().to_string();
    for part in ["restart", "gateway.id", "[history]"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    let same = gateway.reload(&text).await.unwrap();
    assert_eq!((same.changes.len(), &*same.status), (0, "serving 1 devices on 1 listeners"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_a_dialect_hold_for_old_sessions_too_and_one_that_is_switched_off_lets_go() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1);
    let gateway = Gateway::start(&text);
    let mut ithings = gateway.ithings("demo-secret").await;
    let connections = json!({"type": "up.sub", "body": {"code": "deviceConn", "params": {"projectID": "1"}}});
    ithings.send(&connections.to_string()).await;
    ithings.wait_json("the answer", |frame| frame["type"] == "down.subRet").await;
    let bare = text.clone() + "\n[dialects.ithings]\npush = \"bare\"\n";
    gateway.reload(&bare).await.unwrap();
    gateway.reload(&(bare.clone() + &gauge("a", 2))).await.unwrap();
    let push = |frame: &Json| frame["device"]["deviceName"] == "a-2";
    let frame = ithings.wait_json("a push", push).await;
    assert!(frame.get("type").is_none(), "{frame}");
    let off = text.clone() + &gauge("a", 2) + "\n[dialects.ithings]\nenabled = false\n";
    gateway.reload(&off).await.unwrap();
    let closed = loop {
        if let Err(code) = ithings.next().await {
            break code;
        }
    };
    assert_eq!(closed, 1008);
    let connect = "/api/v1/system/common/websocket/connect?token=demo-secret";
    assert_eq!(http(gateway.port, "GET", connect, &[], "").await.0, 404);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_renewed_is_shown_after_a_reload_and_a_damaged_one_is_not() {
    let plant = Plant::new();
    let folder = plant.folder.path();
    certificate::make(folder);
    let (chain, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let text = head(&plant)
        + &format!(
            "\n[server]\nlisten = []\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
             certificate = \"{}\"\nkey = \"{}\"\n",
            chain.display(),
            key.display()
        );
    let gateway = Gateway::start(&text);
    let shown = async || shown_certificate(gateway.port, &[&chain, &folder.join("old.pem")]).await;
    let first = CertificateDer::from_pem_file(&chain).unwrap();
    std::fs::copy(&chain, folder.join("old.pem")).unwrap();
    assert_eq!(shown().await, first);

    certificate::make(folder);
    let second = CertificateDer::from_pem_file(&chain).unwrap();
    assert_ne!(first, second);
    assert_eq!(shown().await, first, "it is looked for every half minute only");
    let applied = gateway.reload(&text).await.unwrap();
    assert_eq!(applied.changes, [""; 0], "the configuration names the same files");
    assert_eq!(shown().await, second);

    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let refusal = gateway.reload(&(text.clone() + &gauge("a", 1))).await.unwrap_err();
    let words = pentad::report::Chain(&refusal).to_string();
    assert!(words.contains("key.pem"), "{words}");
    assert_eq!(shown().await, second);
    std::fs::write(&key, good).unwrap();
    assert_eq!(gateway.reload(&text).await.unwrap().status, "serving 0 devices on 1 listeners");
    gateway.stop().await;
}

/// The certificate that the gateway shows to a client that trusts these.
async fn shown_certificate(port: u16, trusted: &[&Path]) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    for path in trusted {
        roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let handshake =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream);
    let tls = tokio::time::timeout(PATIENCE, handshake).await.unwrap().unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_and_the_recording_of_a_bus_go_with_it() {
    let plant = Plant::new();
    let (_a, _b) = (plant.plug("a"), plant.plug("b"));
    let text = head(&plant) + &gauge("a", 1) + &gauge("b", 1);
    let gateway = Gateway::start(&text);
    let mut news = gateway.sagoo("demo-secret", "/device/*/*/message/property/report").await;
    hears(&mut news, &plant.b, 1, "b-1").await;
    let figures = async || http(gateway.port, "GET", "/metrics", &[], "").await.1;
    let of_b = "pentad_bus_requests_total{link=\"b\"}";
    let text_of_b = figures().await;
    assert!(text_of_b.contains(of_b), "{text_of_b}");
    let line_b = text.split("[[serial]]").nth(2).unwrap().split("[[product]]").next().unwrap();
    let without = text.replace(&format!("[[serial]]{line_b}"), "").replace(&gauge("b", 1), "");
    gateway.reload(&without).await.unwrap();
    let left = figures().await;
    assert!(!left.contains("link=\"b\"") && left.contains("link=\"a\""), "{left}");
    // A bus that begins anew goes on counting.
    gateway.reload(&without.replace("2000ms", "2001ms")).await.unwrap();
    assert!(figures().await.contains("pentad_bus_requests_total{link=\"a\"}"));
    gateway.stop().await;
}

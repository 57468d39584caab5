//! Many reloads leave nothing behind: neither tasks nor file descriptors. Alone in its process, so that it can count.

#![cfg(test)]

use std::fmt::Write as _;
use std::time::Duration;

use pentad::app::App;
use pentad::config::{Config, Source, resolve};
use pentad::supervisor::Ending;
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

#[path = "common/slave.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod slave;
#[path = "common/ws.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod ws;

use slave::{Line, World};
use ws::{PATIENCE, Ws};

const RELOADS: usize = 100;

fn config(port: &str, at: usize) -> Config {
    let mut text = format!(
        r#"
[gateway]
id = "barn"
name = "Barn {at}"
[[serial]]
id = "line"
port = "{port}"
baud_rate = 115200
timeout = "{timeout}ms"
[[product]]
id = "gauge"
[[product.property]]
id = "level"
type = "int"
modbus = {{ table = "holding", address = 10, type = "u16", every = "100ms" }}
[[client]]
id = "demo"
secret = "demo-secret"
[[client]]
id = "guest-{at}"
secret = "guest-secret-{at}"
[[device]]
id = "always"
product = "gauge"
bus = "line"
unit = 1
"#,
        timeout = if at % 10 < 5 { 2000 } else { 2001 },
    );
    let mut listen = "listen = [\"127.0.0.1:0\"".to_owned();
    if at % 3 == 1 {
        text += "[[modbus_tcp]]\nid = \"plc\"\naddress = \"127.0.0.1:1\"\n";
        text += "[[mqtt]]\nid = \"local\"\nurl = \"mqtt://127.0.0.1:1\"\n";
        listen += ", \"127.0.0.1:0\"";
    }
    for unit in 2..(2 + at % 4) {
        write!(
            text,
            "[[device]]\nid = \"d-{at}-{unit}\"\nproduct = \"gauge\"\nbus = \"line\"\nunit = {unit}\n"
        )
        .unwrap();
    }
    writeln!(text, "[server]\n{listen}]").unwrap();
    let source = Source { name: "pentad.toml".into(), text };
    resolve(&[source]).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until what was stopped is gone.
async fn settled(expected: impl Fn() -> usize, bound: usize) -> usize {
    let few = async {
        while expected() > bound {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    drop(tokio::time::timeout(PATIENCE, few).await);
    expected()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test that runs the whole application is its supervisor")]
async fn a_hundred_reloads_leave_neither_tasks_nor_descriptors_behind() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    for unit in 1..6 {
        world.set(unit, 10, &[u16::from(unit)]);
    }
    let line = Line::plug(&world, &folder.path().join("port"));
    let port = line.path.to_string_lossy().into_owned();
    let app = App::build(config(&port, 0)).unwrap();
    let listening = app.addresses()[0].address.port();
    let (control, stop) = (app.control(), CancellationToken::new());
    let ending = tokio::spawn(app.run(stop.clone()));
    let mut ws = Ws::connect(listening, "/messaging/demo-secret").await;
    let all = json!({"id": "live", "type": "sub", "topic": "/device/*/*/message/property/report"});
    ws.send(&all.to_string()).await;
    let mut level = 0;
    let first = async {
        loop {
            level += 1;
            world.set(1, 10, &[level]);
            let report = ws.wait_for("a first report", |text| text.contains("always"));
            if tokio::time::timeout(Duration::from_millis(400), report).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, first).await.expect("a first report");
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (tasks_before, descriptors_before) = (tasks(), descriptors());
    for at in 1..=RELOADS {
        // The last one is as the first.
        let next = config(&port, if at == RELOADS { 0 } else { at });
        let applied = tokio::time::timeout(PATIENCE, control.reload(next)).await.unwrap().unwrap();
        assert!(!applied.changes.is_empty());
    }
    // Before may have been a moment with more of them.
    let (tasks, descriptors) =
        (settled(tasks, tasks_before).await, settled(descriptors, descriptors_before).await);
    assert!(tasks <= tasks_before, "{tasks} tasks after {tasks_before}");
    assert!(descriptors <= descriptors_before, "{descriptors} descriptors after {descriptors_before}");
    world.set(1, 10, &[4242]);
    ws.wait_for("a report after all that", |text| text.contains("4242")).await;
    stop.cancel();
    assert_eq!(tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap(), Ending::Stopped);
}

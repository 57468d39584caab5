//! The built binary on a machine that wakes up in 1970, by libfaketime: what it tells until its clock is right, and after.

#![cfg(test)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::port::Port;
use common::until_logged;
use common::ws::{PATIENCE, Ws, http};
use serde_json::json;

/// 2026-01-01, in milliseconds: no version of this program is older.
const WRITTEN: i64 = 1_767_225_600_000;

/// What a clock without a battery shows.
const WAKING: &str = "1970-01-01 00:00:10";

/// 2031-05-05 05:05:05 UTC, in milliseconds.
const LATER: i64 = 1_935_723_905_000;

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a Debian machine").flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("the Debian package faketime, which tests/run installs")
}

struct Gateway {
    child: Child,
    port: u16,
    log: PathBuf,
    time: PathBuf,
    _kept: Port,
}

impl Gateway {
    fn start(folder: &Path, clock: &str, now: &str) -> Self {
        let kept = Port::free();
        let port = kept.number;
        let (log, time) = (folder.join("log"), folder.join("time"));
        let history = folder.join("history.db");
        let text = format!(
            "[gateway]\nid = \"gw\"\nclock = \"{clock}\"\n[server]\nlisten = [\"127.0.0.1:{port}\"]\n\
             [history]\npath = \"{}\"\n[[modbus_tcp]]\nid = \"plc\"\naddress = \"127.0.0.1:1\"\n\
             [[product]]\nid = \"valve\"\n[[product.property]]\nid = \"open\"\ntype = \"bool\"\n\
             modbus = {{ table = \"coil\", address = 3 }}\n\
             [[device]]\nid = \"valve-1\"\nproduct = \"valve\"\nbus = \"plc\"\nunit = 1\n\
             [[client]]\nid = \"c\"\nsecret = \"a-secret-that-never-shows\"\ndialects = [\"sagoo\"]\n\
             rights = [\"read\"]\ndevices = [\"*\"]\n",
            history.display()
        );
        let configuration = folder.join("pentad.toml");
        fs::write(&configuration, text).expect("a folder of our own");
        fs::write(&time, format!("{now}\n")).expect("a folder of our own");
        let binary = std::env::var_os("PENTAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pentad").into());
        let child = Command::new(binary)
            .args(["run", "--config"])
            .arg(&configuration)
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &time)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC")
            .env_remove("JOURNAL_STREAM")
            .env_remove("PENTAD_LOG")
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("a folder of our own"))
            .spawn()
            .expect("the gateway starts");
        Self { child, port, log, time, _kept: kept }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn ready(&mut self) {
        let listens = async {
            while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                assert!(self.child.try_wait().expect("our own child").is_none(), "{}", self.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("the gateway listens in time");
    }

    /// The time that an answer carries.
    async fn told(&self) -> i64 {
        let mut ws = Ws::connect(self.port, "/messaging/a-secret-that-never-shows").await;
        let parameter = json!({"messageType": "READ_PROPERTY", "properties": ["open"]});
        let topic = "/device-message-sender/valve/valve-1";
        let request = json!({"id": "a", "type": "sub", "topic": topic, "parameter": parameter});
        ws.send(&request.to_string()).await;
        let result = ws.wait_json("the result", |frame| frame["type"] == "result").await;
        result["payload"]["timestamp"].as_i64().expect("a time")
    }

    async fn page(&self, path: &str) -> String {
        http(self.port, "GET", path, &[], "").await.1
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

#[tokio::test]
async fn a_machine_that_wakes_up_in_1970_tells_no_time_of_that_year_and_the_right_one_once_it_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gateway = Gateway::start(folder.path(), "trusted", WAKING);
    gateway.ready().await;
    let told = gateway.told().await;
    assert!((WRITTEN..LATER).contains(&told), "{told}");
    assert!(gateway.page("/metrics").await.contains("\npentad_clock_synchronised 0\n"));
    assert!(gateway.page("/readyz").await.contains("the clock is unsynchronised"));
    until_logged(&gateway.log, "nobody has set the clock").await;

    fs::write(&gateway.time, "2031-05-05 05:05:05\n").expect("a folder of our own");
    let right = async {
        while !gateway.page("/metrics").await.contains("\npentad_clock_synchronised 1\n") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, right).await.expect("the clock is noticed in time");
    let told = gateway.told().await;
    assert!((LATER - 1_000..LATER + 600_000).contains(&told), "{told}");
    assert!(!gateway.page("/readyz").await.contains("the clock"));
    until_logged(&gateway.log, "the clock is right from now on").await;
    assert_eq!(gateway.log().matches("the clock is right from now on").count(), 1, "{}", gateway.log());
}

#[tokio::test]
async fn after_a_restart_in_1970_time_goes_on_from_the_last_message_of_the_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gateway = Gateway::start(folder.path(), "auto", "2031-05-05 05:05:05");
    gateway.ready().await;
    // Nobody has set the clock that the gateway would know, so it is followed, and marked.
    let told = gateway.told().await;
    assert!((LATER - 1_000..LATER + 600_000).contains(&told), "{told}");
    let kept = async {
        while gateway.page("/metrics").await.contains("\npentad_messages_total 0\n") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("the valve is found offline in time");
    let status = Command::new("kill").arg(gateway.child.id().to_string()).status().expect("kill");
    assert!(status.success() && gateway.child.wait().expect("our own child").success());
    drop(gateway);
    let mut gateway = Gateway::start(folder.path(), "auto", WAKING);
    gateway.ready().await;
    let told = gateway.told().await;
    assert!((LATER - 1_000..LATER + 600_000).contains(&told), "{told}");
}

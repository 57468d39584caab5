//! The world of the end-to-end tests: the built binary, a real mosquitto, and pymodbus units on a pseudo-terminal.
//!
//! Everything runs in a folder of its own on free ports and ends with the value.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::port::Port;
use super::ws::{PATIENCE, http};

/// The token and U+ key of the client that may do everything.
pub const SECRET: &str = "a-secret-that-never-shows";
/// Its id, and U+ systemId.
pub const SYSTEM: &str = "SV-EDGE-0001";
/// The credential that may only read presses.
pub const READER: &str = "readers-secret";

/// Dropped in this order: the folder must outlive the log in it.
pub struct World {
    pub pentad: Pentad,
    pub line: Slave,
    pub broker: Mosquitto,
    pub port: u16,
    pub folder: tempfile::TempDir,
    timeout: &'static str,
    _kept: Port,
}

impl World {
    /// Starts all three and waits until the gateway has read every device once. The units share the machine with much
    /// else, so they are given long to answer.
    pub async fn start() -> Self {
        Self::start_with("2s").await
    }

    /// The same with so much time for an answer on the line.
    pub async fn start_with(timeout: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = Slave::start(&folder.path().join("tty"));
        seed(&line);
        let broker = Mosquitto::start(folder.path());
        broker.publish("tele/plug-1/LWT", "Online", true);
        let kept = Port::free();
        let port = kept.number;
        let pentad =
            Pentad::start(folder.path(), &configuration(folder.path(), port, broker.port.number, timeout));
        let mut world = Self { pentad, line, broker, port, folder, timeout, _kept: kept };
        world.ready().await;
        world
    }

    /// The gateway's address for HTTP.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets what press-1 measures, in tenths of a degree.
    pub fn heat(&self, tenths: u16) {
        self.line.set(2, "input", 10, &[tenths]);
    }

    /// The same, and waits until the gateway has read it.
    pub async fn heated(&self, tenths: u16) {
        self.heat(tenths);
        let expected = f64::from(tenths) / 10.0;
        let now = json!({"node": "rs485", "mediaId": "press-1"});
        self.samples_have(&now, &[expected]).await;
    }

    /// Waits until the history gives all these temperatures of press-1: what was told to sessions may still be on its
    /// way there.
    pub async fn stored(&self, temperatures: &[f64]) {
        let past = json!({"node": "rs485", "mediaId": "press-1", "time": 0, "limit": 1000});
        self.samples_have(&past, temperatures).await;
    }

    async fn samples_have(&self, asked: &Json, temperatures: &[f64]) {
        let had = async {
            loop {
                let answer: Json = serde_json::from_str(&self.samples(asked).await).unwrap_or_default();
                let samples = answer["payload"].as_array().into_iter().flatten();
                let found: Vec<f64> = samples.filter_map(|sample| sample["TEMPERATURE"].as_f64()).collect();
                if temperatures.iter().all(|expected| found.contains(expected)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, had).await.unwrap_or_else(|_| panic!("never there: {temperatures:?}"));
    }

    /// Ends the gateway by a signal and starts it again on the same port.
    pub async fn restart(&mut self, signal: &str) {
        self.pentad.signal(signal);
        self.pentad.exit_code().await;
        let folder = self.folder.path();
        self.pentad =
            Pentad::start(folder, &configuration(folder, self.port, self.broker.port.number, self.timeout));
        self.ready().await;
    }

    /// Waits until every device is there and every property of the presses was read.
    pub async fn ready(&mut self) {
        let read = async |press: &str| {
            let known = self.current(press).await;
            ["TEMPERATURE", "SETPOINT", "RUNNING", "LIMIT"].iter().all(|metric| known.contains(metric))
        };
        let wait = async {
            while !self.listens() || !self.everybody_is_online().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while !read("press-1").await || !read("press-2").await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the gateway comes up and reads its devices in time");
    }

    /// The plug is online by a message that its broker had kept, so the subscriptions stand then.
    async fn everybody_is_online(&self) -> bool {
        let (_, figures) = http(self.port, "GET", "/metrics", &[], "").await;
        figures.lines().any(|line| line == "pentad_devices_online 4")
    }

    fn listens(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Current values of a device by the OAM call, as text.
    async fn current(&self, device: &str) -> String {
        self.samples(&json!({"node": "rs485", "mediaId": device})).await
    }

    /// What the OAM call for samples answers.
    async fn samples(&self, asked: &Json) -> String {
        let bearer = format!("Bearer {SECRET}");
        let headers = [("authorization", bearer.as_str())];
        http(self.port, "POST", "/api/stream/metrics", &headers, &asked.to_string()).await.1
    }
}

/// Registers that every test begins with.
fn seed(line: &Slave) {
    // Voltage 230.5 as f32, big-endian words.
    line.set(1, "input", 0, &[0x4366, 0x8000]);
    for unit in [2, 3] {
        line.set(unit, "input", 10, &[235]);
        // Setpoint 50.0 as f32 with swapped words.
        line.set(unit, "holding", 100, &[0x0000, 0x4248]);
    }
}

/// The configuration of every test.
fn configuration(folder: &Path, port: u16, broker: u16, timeout: &str) -> String {
    include_str!("../counterparts/end_to_end.toml")
        .replace("TTY", &folder.join("tty").display().to_string())
        .replace("HISTORY", &folder.join("history.db").display().to_string())
        .replace("PORT", &port.to_string())
        .replace("BROKER", &broker.to_string())
        .replace("TIMEOUT", timeout)
}

const CLIENTS: &str = r#"
[[client]]
id = "SV-EDGE-0001"
secret = "a-secret-that-never-shows"
rights = ["read", "write", "invoke"]
[[client]]
id = "reader"
secret = "readers-secret"
devices = ["press-*"]
"#;

/// The program under test: the one that was built with the tests, or one of another processor (tests/system/foreign).
fn binary() -> OsString {
    std::env::var_os("PENTAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pentad").into())
}

/// The gateway under test.
pub struct Pentad {
    child: Child,
    log: PathBuf,
}

impl Pentad {
    fn start(folder: &Path, configuration: &str) -> Self {
        let config = folder.join("pentad.toml");
        std::fs::write(&config, configuration).expect("a writable folder");
        std::fs::write(folder.join("clients.toml"), CLIENTS).expect("a writable folder");
        let log = folder.join("pentad.log");
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(&config)
            .env("PENTAD_LOG", "pentad=debug,info")
            .env("STATE_DIRECTORY", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a writable folder"))
            .spawn()
            .expect("the built binary starts");
        Self { child, log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log holds this.
    pub async fn until_logged(&self, text: &str) {
        super::until_logged(&self.log, text).await;
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} works");
    }

    /// The exit code, once it has ended.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the gateway ends in time")
    }
}

impl Drop for Pentad {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}

/// pymodbus units on a pseudo-terminal; see counterparts/slave.py.
pub struct Slave {
    child: Child,
    to: std::cell::RefCell<ChildStdin>,
    from: Receiver<String>,
}

impl Slave {
    fn start(link: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let python = root.join(".venv/bin/python");
        assert!(python.exists(), "{} is missing; tests/run makes it", python.display());
        let mut child = Command::new(python)
            .arg(root.join("counterparts/slave.py"))
            .arg(link)
            .arg("1,2,3")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let to = std::cell::RefCell::new(child.stdin.take().expect("a pipe"));
        let from = lines(child.stdout.take().expect("a pipe"));
        let slave = Self { child, to, from };
        assert!(slave.answer().get("ready").is_some(), "the slave is ready");
        slave
    }

    /// Gives one command and returns its answer.
    pub fn tell(&self, command: &Json) -> Json {
        let mut line = String::new();
        writeln!(line, "{command}").expect("a string takes all");
        let mut to = self.to.borrow_mut();
        to.write_all(line.as_bytes()).and_then(|()| to.flush()).expect("the slave listens");
        self.answer()
    }

    fn answer(&self) -> Json {
        let line = self.from.recv_timeout(PATIENCE).expect("the slave answers in time");
        serde_json::from_str(&line).expect("the slave answers JSON")
    }

    pub fn set(&self, unit: u8, table: &str, address: u16, values: &[u16]) {
        let command =
            json!({"do": "set", "unit": unit, "table": table, "address": address, "values": values});
        assert_eq!(self.tell(&command), json!({"ok": true}));
    }

    pub fn get(&self, unit: u8, table: &str, address: u16, count: u16) -> Vec<u64> {
        let command = json!({"do": "get", "unit": unit, "table": table, "address": address, "count": count});
        let answer = self.tell(&command);
        let values = answer.get("values").and_then(Json::as_array).expect("values");
        values.iter().filter_map(Json::as_u64).collect()
    }

    /// `mute`, `unmute`, `garble`, `unplug`, `plug`.
    pub fn fault(&self, what: &str, unit: u8) {
        assert_eq!(self.tell(&json!({"do": what, "unit": unit})), json!({"ok": true}));
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A real broker.
pub struct Mosquitto {
    child: Option<Child>,
    folder: PathBuf,
    port: Port,
}

impl Mosquitto {
    fn start(folder: &Path) -> Self {
        let mut broker = Self { child: None, folder: folder.to_owned(), port: Port::free() };
        broker.restart();
        broker
    }

    /// Starts it (again) and waits until it listens.
    pub fn restart(&mut self) {
        let config = self.folder.join("mosquitto.conf");
        std::fs::write(&config, format!("listener {} 127.0.0.1\nallow_anonymous true\n", self.port.number))
            .expect("a writable folder");
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed (Debian package mosquitto; tests/run installs it)");
        self.child = Some(child);
        let mut tries = 0;
        while std::net::TcpStream::connect(self.port.address()).is_err() {
            tries += 1;
            assert!(tries < 800, "mosquitto does not listen on {}", self.port.address());
            pause();
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    pub fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-p", &self.port.number.to_string(), "-t", topic, "-m", payload, "-q", "1"]);
        if retain {
            command.arg("-r");
        }
        assert!(command.status().is_ok_and(|status| status.success()), "mosquitto_pub works");
    }

    /// Everything that is published to a topic from now on, as `topic payload` lines.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut child = Command::new("mosquitto_sub")
            .args(["-p", &self.port.number.to_string(), "-t", topic, "-t", "test/ready", "-v"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is installed (Debian package mosquitto-clients)");
        let lines = lines(child.stdout.take().expect("a pipe"));
        let subscription = Subscription { child, lines };
        // The subscription stands once a marker comes through.
        let mut tries = 0;
        loop {
            self.publish("test/ready", "1", false);
            if subscription.lines.recv_timeout(Duration::from_millis(200)).is_ok() {
                return subscription;
            }
            tries += 1;
            assert!(tries < 50, "mosquitto_sub does not subscribe");
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running `mosquitto_sub`.
pub struct Subscription {
    child: Child,
    lines: Receiver<String>,
}

impl Subscription {
    pub fn next(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a publish arrives in time");
            if !line.starts_with("test/ready") {
                return line;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Lines of a pipe, read by a thread so that waiting can have a deadline.
pub fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (to, from) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

fn end(child: &mut Child) {
    let (killed, waited) = (child.kill(), child.wait());
    drop((killed, waited));
}

#[expect(clippy::disallowed_methods, reason = "a probe of another process has nothing to wait on")]
fn pause() {
    std::thread::sleep(Duration::from_millis(25));
}

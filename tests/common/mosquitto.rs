//! A real broker and independent clients for tests: mosquitto, `mosquitto_pub` and `mosquitto_sub`.
//!
//! The broker listens on a free port of 127.0.0.1, keeps nothing on disk and dies with its handle.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::port::Port;

/// Longest wait for anything that should happen at once; generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A broker that can be stopped, killed and started again on the same port.
pub struct Mosquitto {
    port: Port,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Mosquitto {
    /// A broker that is not running yet, with its port.
    pub fn absent() -> Self {
        Self { port: Port::free(), folder: tempfile::tempdir().unwrap(), process: None }
    }

    /// A running broker.
    pub async fn start() -> Self {
        let mut broker = Self::absent();
        broker.run().await;
        broker
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Starts it and waits until it accepts connections.
    pub async fn run(&mut self) {
        self.run_with("allow_anonymous true").await;
    }

    /// The same with these lines about its listener and who may come in.
    pub async fn run_with(&mut self, access: &str) {
        let file = self.folder.path().join("mosquitto.conf");
        let port = self.port();
        // Started by root it would change to a user that cannot read the folder.
        let log = if access.contains("log_dest") { "" } else { "log_dest none" };
        let config = format!("listener {port} 127.0.0.1\n{access}\npersistence false\n{log}\nuser root\n");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(tool("mosquitto", "mosquitto"));
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.process = Some(command.spawn().unwrap());
        let connected = async {
            while TcpStream::connect(self.port.address()).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, connected).await.expect("mosquitto did not start listening");
    }

    /// A password file with one entry, for `password_file`.
    pub async fn password_file(&self, user: &str, password: &str) -> PathBuf {
        let file = self.folder.path().join("passwords");
        let mut command = Command::new(tool("mosquitto_passwd", "mosquitto"));
        let done = command.args(["-b", "-c"]).arg(&file).args([user, password]).status().await.unwrap();
        assert!(done.success());
        file
    }

    /// The broker's own folder, for certificates.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it without a goodbye.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.unwrap();
        }
    }

    /// Stops it from answering, with all its connections open, as a broken network does; `thaw` ends that.
    pub async fn freeze(&self) {
        self.signal("-STOP").await;
    }

    /// See [`Self::freeze`].
    pub async fn thaw(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let id = self.process.as_ref().and_then(Child::id).expect("the broker runs").to_string();
        let done = Command::new("kill").args([signal, &id]).status().await.unwrap();
        assert!(done.success());
    }

    /// Publishes one message as a device would.
    pub async fn publish(&self, topic: &str, payload: &str) {
        self.send(topic, payload, &[]).await;
    }

    /// The same, kept by the broker.
    pub async fn publish_retained(&self, topic: &str, payload: &str) {
        self.send(topic, payload, &["-r"]).await;
    }

    async fn send(&self, topic: &str, payload: &str, more: &[&str]) {
        let mut command = Command::new(tool("mosquitto_pub", "mosquitto-clients"));
        command.args([
            "-h",
            "127.0.0.1",
            "-q",
            "1",
            "-p",
            &self.port().to_string(),
            "-t",
            topic,
            "-m",
            payload,
        ]);
        let done = timeout(DEADLINE, command.args(more).status()).await.expect("mosquitto_pub ends").unwrap();
        assert!(done.success(), "mosquitto_pub failed");
    }

    /// Begins to listen as a device would; the subscription stands when this returns.
    pub async fn subscribe(&self, filter: &str) -> Subscriber {
        subscribe(self.port.address(), filter).await
    }
}

/// What an independent client receives.
pub struct Subscriber {
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Subscriber {
    /// The next message as topic and payload.
    pub async fn next(&mut self) -> (String, String) {
        let line =
            timeout(DEADLINE, self.matching(|line| line.starts_with(MARK))).await.expect("a message in time");
        let (topic, payload) = line.trim_start_matches(MARK).split_once(' ').expect("topic and payload");
        (topic.to_owned(), payload.to_owned())
    }

    async fn matching(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap().expect("mosquitto_sub goes on");
            if wanted(&line) {
                return line;
            }
        }
    }
}

/// Tells messages from the rest of what the subscriber prints.
const MARK: &str = "message: ";

/// Subscribes at any broker.
pub async fn subscribe(broker: SocketAddr, filter: &str) -> Subscriber {
    // Its diagnostics say when the subscription stands, but only a line-buffered pipe says so in time.
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(tool("mosquitto_sub", "mosquitto-clients"));
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    command.args(["-d", "-h", &host, "-p", &port, "-q", "1", "-t", filter, "-F", &format!("{MARK}%t %p")]);
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("stdbuf (coreutils)");
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut subscriber = Subscriber { lines, _process: process };
    timeout(DEADLINE, subscriber.matching(|line| line.starts_with("Subscribed")))
        .await
        .expect("a SUBACK in time");
    subscriber
}

fn tool(name: &str, package: &str) -> PathBuf {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `apt-get install {package}` and test again"))
}

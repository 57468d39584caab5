//! The built binary from outside: arguments, exit codes, signals.

#![cfg(test)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything that is waited for on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

const GOOD: &str = r#"
[gateway]
id = "barn-1"

[server]
listen = ["127.0.0.1:0"]

[[modbus_tcp]]
id = "plc"
address = "127.0.0.1:1"

[[product]]
id = "valve"
[[product.property]]
id = "open"
type = "bool"
access = "rw"
modbus = { table = "coil", address = 3 }

[[device]]
id = "valve-1"
product = "valve"
bus = "plc"
unit = 1

[[client]]
id = "scada"
secret = "a-secret-that-never-shows"
dialects = ["sagoo", "uplus"]
rights = ["read", "write"]
devices = ["*"]
"#;

fn pentad(arguments: &[&str]) -> Command {
    // Another one than was built with the tests, for another processor: see tests/system/foreign.
    let binary = std::env::var_os("PENTAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pentad").into());
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("PENTAD_LOG").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = pentad(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("not killed"), text(stdout), text(stderr))
}

/// A configuration folder with one main file; its path.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    configured_in(&std::env::temp_dir(), text)
}

fn configured_in(parent: &Path, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir_in(parent).unwrap();
    let path = folder.path().join("pentad.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_string_lossy().into_owned();
    (folder, path)
}

#[test]
fn help_and_version_are_no_failures() {
    let (code, stdout, _) = output(&["--help"]);
    assert_eq!(code, 0);
    for command in ["run", "check", "demo", "url", "token", "completions", "man", "scan"] {
        assert!(stdout.contains(command), "{command} is missing in {stdout}");
    }
    let (code, stdout, _) = output(&["--version"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with(concat!("pentad ", env!("CARGO_PKG_VERSION"))), "{stdout}");
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for (arguments, part) in [
        (&["completions", "bash"][..], "complete -F _pentad"),
        (&["completions", "zsh"], "#compdef pentad"),
        (&["completions", "fish"], "complete -c pentad"),
        (&["man"], ".SH \"EXIT STATUS\""),
        (&["man", "pentad.toml"], ".SH DIALECTS"),
    ] {
        let (code, stdout, stderr) = output(arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains(part), "{part} is missing in {stdout}");
    }
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [
        &[][..],
        &["walk"],
        &["run", "--speed", "9"],
        &["demo", "--listen", "here"],
        &["url", "mqtt", "--client", "x"],
        &["run", "--log-level", "pentad=loud"],
    ] {
        let (code, stdout, stderr) = output(arguments);
        assert_eq!(code, 64, "{arguments:?}: {stderr}");
        assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_good_configuration_is_checked_with_its_plan() {
    let (_folder, path) = configured(GOOD);
    let (code, stdout, stderr) = output(&["check", "--config", &path]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("plc") && stdout.contains("1 devices, 1 buses"), "{stdout}");
}

#[test]
fn every_problem_of_a_bad_configuration_is_told_and_the_code_is_78() {
    let bad = GOOD.replace("unit = 1", "unit = 400").replace("product = \"valve\"", "product = \"valv\"");
    let (_folder, path) = configured(&format!("{bad}\n[sever]\n"));
    for arguments in [["check", "--config", &path], ["run", "--config", &path]] {
        let (code, stdout, stderr) = output(&arguments);
        assert_eq!(code, 78, "{stderr}");
        assert!(stdout.is_empty(), "{stdout}");
        for expected in ["400", "valv", "sever"] {
            assert!(stderr.contains(expected), "{expected} is missing in {stderr}");
        }
        assert!(!stderr.contains("a-secret-that-never-shows"), "{stderr}");
    }
}

#[test]
fn a_missing_configuration_is_78_and_named() {
    let (code, _, stderr) = output(&["run", "--config", "/nonexistent/pentad.toml"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("/nonexistent/pentad.toml"), "{stderr}");
}

#[test]
fn addresses_are_printed_ready_to_paste() {
    let (_folder, path) = configured(GOOD);
    let url = ["url", "all", "--client", "scada", "--config", &path, "--host", "barn:8080"];
    let (code, stdout, stderr) = output(&url);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("ws://barn:8080/messaging/a-secret-that-never-shows"), "{stdout}");
    assert!(stdout.contains("systemId=scada&timestamp=") && stdout.contains("&sign="), "{stdout}");
    assert!(!stdout.contains("janus"), "the client may not use it: {stdout}");
    let (code, _, stderr) = output(&["url", "sagoo", "--client", "nobody", "--config", &path]);
    assert_eq!(code, 1);
    assert!(stderr.contains("nobody") && stderr.contains("scada"), "{stderr}");
}

#[test]
fn two_tokens_are_never_the_same() {
    let (first, second) = (output(&["token"]), output(&["token"]));
    assert_eq!((first.0, first.1.trim().len()), (0, 40));
    assert_ne!(first.1, second.1);
}

#[test]
fn a_taken_port_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_folder, path) = configured(&GOOD.replace("127.0.0.1:0", &address));
    let (code, _, stderr) = output(&["run", "--config", &path]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[test]
fn a_certificate_that_is_missing_is_78_and_named() {
    let tls =
        "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"/nonexistent/c.pem\"\nkey = \"/k\"\n";
    let (_folder, path) = configured(&format!("{GOOD}\n{tls}"));
    let (code, _, stderr) = output(&["run", "--config", &path]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("/nonexistent/c.pem"), "{stderr}");
}

/// A gateway that is killed when the test ends early.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a gateway logs. A thread takes it in, so that the gateway never waits for the test to read.
struct Log(Receiver<String>);

impl Log {
    fn of(stderr: ChildStderr) -> Self {
        let (to, from) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Self(from)
    }

    /// Reads up to a line with the word. Gives what was read.
    fn up_to(&self, word: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(word) {
            let line = self.0.recv_timeout(PATIENCE);
            seen += &line.unwrap_or_else(|error| panic!("no {word} in the log ({error}): {seen}"));
            seen.push('\n');
        }
        seen
    }

    /// Reads to the end.
    fn rest(&self) -> String {
        self.0.iter().map(|line| line + "\n").collect()
    }
}

/// Starts a gateway and reads its log up to the line that has the word.
fn started(config: &str, word: &str) -> (Running, Log) {
    let (running, log, _) = started_at("info", config, word);
    (running, log)
}

/// The same with a log level, and with what was read.
fn started_at(level: &str, config: &str, word: &str) -> (Running, Log, String) {
    let mut child = pentad(&["run", "--config", config, "--log-level", level])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Log::of(child.stderr.take().unwrap());
    let running = Running(child);
    let seen = log.up_to(word);
    (running, log, seen)
}

fn signal(running: &Running, name: &str) {
    let status = Command::new("kill").arg(name).arg(running.0.id().to_string()).status().unwrap();
    assert!(status.success());
}

/// The exit code, within a deadline.
fn ended(running: &mut Running) -> Option<i32> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if let Some(status) = running.0.try_wait().unwrap() {
            return status.code();
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("the gateway does not end");
}

#[test]
fn a_signal_drains_and_ends_with_0() {
    for name in ["-TERM", "-INT"] {
        let (_folder, path) = configured(GOOD);
        let (mut running, log) = started(&path, "listening");
        signal(&running, name);
        assert_eq!(ended(&mut running), Some(0));
        let rest = log.rest();
        assert!(rest.contains("everything has stopped"), "{rest}");
        assert!(!rest.contains("a-secret-that-never-shows"), "{rest}");
    }
}

#[test]
fn not_even_a_trace_of_everything_shows_a_credential() {
    let (_folder, path) = configured(&GOOD.replace("\"uplus\"]", "\"uplus\", \"oam\"]"));
    let level = "trace,tungstenite=trace,hyper=trace";
    let (mut running, log, said) = started_at(level, &path, "listening");
    let address = said.split_once("listening address=").unwrap().1.split([' ', '\n']).next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let upgrade = format!("GET /ws?token=a-secret-that-never-shows HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n");
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut received = String::new();
    receive(&mut stream, &mut received, "\r\n\r\n");
    let connect = "CONNECT\naccept-version:1.2\nhost:x\npasscode:a-secret-that-never-shows\n\n\0";
    // A text frame, masked with zeros.
    let mut frame = vec![0x81, 0x80 | u8::try_from(connect.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(connect.as_bytes());
    stream.write_all(&frame).unwrap();
    receive(&mut stream, &mut received, "CONNECTED");
    signal(&running, "-TERM");
    let rest = said + &log.rest();
    assert_eq!(ended(&mut running), Some(0));
    assert!(rest.contains("STOMP client connected"), "{rest}");
    assert!(!rest.contains("a-secret-that-never-shows"), "{rest}");
}

#[test]
fn the_demo_prints_addresses_of_all_five_dialects_that_can_be_used_as_they_are() {
    let mut child = pentad(&["demo", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut banner = BufReader::new(child.stdout.take().unwrap());
    let mut running = Running(child);
    let (mut lines, mut addresses) = (banner.by_ref().lines(), Vec::new());
    while addresses.len() < 8 {
        let line = lines.next().expect("eight addresses").unwrap();
        let word = |word: &&str| ["http://", "ws://"].iter().any(|scheme| word.starts_with(scheme));
        let address = line.split(['\'', ' ', '#']).find(word);
        addresses.extend(address.map(|address| address.trim_end_matches(':').to_owned()));
    }
    for address in addresses {
        let (scheme, rest) = address.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let call = path.starts_with("api/metric") || path.contains("interact");
        let (method, more, expected) = match (scheme, call) {
            ("ws", _) => ("GET", UPGRADE, "HTTP/1.1 101"),
            (_, true) => ("POST", "content-length: 2\r\n", "HTTP/1.1 200"),
            (_, false) => ("GET", "", "HTTP/1.1 200"),
        };
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\ntoken: demo\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        if call {
            stream.write_all(b"{}").unwrap();
        }
        let mut received = String::new();
        receive(&mut stream, &mut received, "\r\n\r\n");
        assert!(received.starts_with(expected), "{address}: {received}");
    }
    signal(&running, "-TERM");
    assert_eq!(ended(&mut running), Some(0));
}

/// What makes a request a WebSocket's.
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Reads on until the words have come. What comes may hold bytes that are no text.
fn receive(stream: &mut TcpStream, received: &mut String, words: &str) {
    let mut buffer = [0; 1024];
    while !received.contains(words) {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "closed after {received}");
        received.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn a_hangup_ends_nothing() {
    let (_folder, path) = configured(GOOD);
    let (mut running, log) = started(&path, "listening");
    signal(&running, "-HUP");
    log.up_to("the configuration is what it was");
    assert!(running.0.try_wait().unwrap().is_none());
    signal(&running, "-TERM");
    assert_eq!(ended(&mut running), Some(0));
}

#[test]
fn a_changed_configuration_runs_after_a_hangup_and_a_broken_one_does_not() {
    let (_folder, path) = configured(GOOD);
    let (mut running, log) = started(&path, "listening");
    let good = std::fs::read_to_string(&path).unwrap();
    let more =
        good.clone() + "\n[[device]]\nid = \"valve-2\"\nproduct = \"valve\"\nbus = \"plc\"\nunit = 2\n";
    let broken =
        more.replace("unit = 2", "unit = 999").replace("product = \"valve\"\nbus", "product = \"valv\"\nbus");
    for (text, words) in [
        (&broken, &["pentad.toml:", "999", "valv", "refused", "the old one runs on"][..]),
        (&more, &["reload: device valve-2 is added on plc", "the changed configuration runs"]),
        (&good.replace("barn-1", "barn-2"), &["this takes a restart", "gateway.id", "the old one runs on"]),
    ] {
        std::fs::write(&path, text).unwrap();
        signal(&running, "-HUP");
        let seen = log.up_to(words.last().unwrap());
        for word in words {
            assert!(seen.contains(word), "{word} is missing in {seen}");
        }
        assert!(running.0.try_wait().unwrap().is_none());
    }
    signal(&running, "-TERM");
    assert_eq!(ended(&mut running), Some(0));
}

#[test]
fn the_service_manager_hears_of_a_reload_and_of_its_end() {
    let (folder, path) = configured(GOOD);
    let socket = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let child = pentad(&["run", "--config", &path])
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let told = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let count = manager.recv(&mut buffer).expect("the service manager is told in time");
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
    };
    assert!(told("READY=1").contains("serving 1 devices on 1 listeners"));
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "[sever]\n").unwrap();
    signal(&running, "-HUP");
    let reloading = told("RELOADING=1");
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect(&reloading);
    assert!(since.parse::<u64>().unwrap() > 0);
    let over = told("READY=1");
    assert!(over.contains("STATUS=reload refused") && over.contains("sever"), "{over}");
    // The refusal stays in the line that tells of the plant.
    let line = told("reload refused");
    assert!(line.contains("of 1 devices online") && line.contains("sever"), "{line}");
    std::fs::write(&path, good + "\n[server.limits]\nconnections = 99\n").unwrap();
    signal(&running, "-HUP");
    assert!(told("READY=1").contains("STATUS=serving 1 devices on 1 listeners"));
    // One line of the time before may come in between.
    assert!((0..3).any(|_| !told("devices online").contains("refused")), "the refusal stays for ever");
    signal(&running, "-TERM");
    told("STOPPING=1");
    assert_eq!(ended(&mut running), Some(0));
}

#[test]
fn a_hangup_while_the_configuration_is_read_does_not_kill() {
    // Below /dev a pipe is not refused.
    let (folder, path) = configured_in(Path::new("/dev/shm"), GOOD);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Reading a pipe lasts until somebody writes, so the process stands in the middle of its start.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut child =
        pentad(&["run", "--config", &path]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = Log::of(child.stderr.take().unwrap());
    let mut running = Running(child);
    let status = format!("/proc/{}/status", running.0.id());
    let catches = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        // SIGHUP is 1, the lowest bit.
        u64::from_str_radix(caught, 16).unwrap() & 1 == 1
    };
    let pause = Duration::from_millis(5);
    let installed = (0..PATIENCE.as_millis() / 5).any(|_| {
        let there = catches();
        if !there {
            std::thread::park_timeout(pause);
        }
        there
    });
    assert!(installed, "the handler is never installed");
    signal(&running, "-HUP");
    let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, &text).unwrap();
    std::fs::rename(&plain, &path).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    log.up_to("listening");
    log.up_to("the configuration is what it was");
    assert!(running.0.try_wait().unwrap().is_none());
    signal(&running, "-TERM");
    assert_eq!(ended(&mut running), Some(0));
}

#[test]
fn the_folder_of_products_can_be_named() {
    let (head, rest) = GOOD.split_once("[[product]]").unwrap();
    let (product, devices) = rest.split_once("[[device]]").unwrap();
    let (folder, path) = configured(&format!("{head}[[device]]{devices}"));
    let products = folder.path().join("shipped");
    std::fs::create_dir(&products).unwrap();
    std::fs::write(products.join("valve.toml"), format!("[[product]]{product}")).unwrap();
    assert_eq!(output(&["check", "--config", &path]).0, 78, "the product is not found by itself");
    let check = ["check", "--config", &path, "--products", &products.to_string_lossy()];
    let (code, _, stderr) = output(&check);
    assert_eq!(code, 0, "{stderr}");
}

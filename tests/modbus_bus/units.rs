//! Units that others have written (pymodbus, libmodbus), and mbpoll, which asks them beside the driver.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::rig::PATIENCE;

/// A running unit; killed when dropped.
pub(crate) struct Unit(#[expect(dead_code, reason = "it is killed when it is dropped")] Child);

impl Unit {
    async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("the unit is ready in time");
        assert_eq!(ready.unwrap().as_deref(), Some("ready"));
        Self(child)
    }

    /// `place` is a path for a serial line, or a port.
    pub(crate) async fn pymodbus(framing: &str, place: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(root.join(".venv/bin/python"));
        command.arg(root.join("counterparts/pymodbus_slave.py")).args([framing, place]);
        Self::start(command).await
    }

    /// The same for `rtu` and `tcp`.
    pub(crate) async fn libmodbus(folder: &Path, framing: &str, place: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts/libmodbus_slave.c");
        let program = folder.join("libmodbus_slave");
        if !program.exists() {
            let built = Command::new("cc")
                .arg(source)
                .arg("-o")
                .arg(&program)
                .arg("-lmodbus")
                .status()
                .await
                .unwrap();
            assert!(
                built.success(),
                "cc and libmodbus are installed (Debian package libmodbus-dev; tests/run does it)"
            );
        }
        let mut command = Command::new(program);
        command.args([framing, place, "1"]);
        Self::start(command).await
    }
}

/// What mbpoll reads of unit 1, one text for each value: `kind` is one of its types, as `4:hex`, `address` as it
/// travels. `place` is a path for a serial line, or a port.
pub(crate) async fn mbpoll(place: &str, kind: &[&str], address: u16, count: u16) -> Vec<String> {
    let (way, host): (&[&str], _) = if place.starts_with('/') {
        (&["-m", "rtu", "-b", "115200", "-P", "none"], place)
    } else {
        (&["-m", "tcp", "-p", place], "127.0.0.1")
    };
    let mut command = Command::new("mbpoll");
    // -0: addresses as they travel; -1: once; -o: how long it waits for the answer.
    command.args(way).args([
        "-a",
        "1",
        "-0",
        "-1",
        "-o",
        "5",
        "-r",
        &address.to_string(),
        "-c",
        &count.to_string(),
    ]);
    let output = command.arg("-t").args(kind).arg(host).output().await;
    let output = output.expect("mbpoll is installed (Debian package mbpoll; tests/run installs it)");
    let text = String::from_utf8_lossy(&output.stdout);
    let values = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]:"));
    let values: Vec<String> = values.map(|(_, value)| value.trim().to_owned()).collect();
    assert_eq!(values.len(), usize::from(count), "{text}{}", String::from_utf8_lossy(&output.stderr));
    values
}

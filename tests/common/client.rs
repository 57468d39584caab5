//! Real client programs as children of a test: what they saw comes as JSON lines, what they are to do goes as JSON
//! lines, and everything has a deadline.
//!
//! The programs stand in tests/clients; tests/run installs the libraries that they use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::Value as Json;

use super::world::lines;

/// Longer than a heart-beat interval, a browser's start and a reconnection together on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running client.
pub struct Client {
    child: Child,
    to: ChildStdin,
    from: Receiver<String>,
    /// Everything that it has said so far.
    pub said: Vec<Json>,
    /// How much of it a wait has passed.
    passed: usize,
}

impl Client {
    /// Starts a script of tests/clients by Node or, if its name ends in `.py`, by the tests' Python.
    pub fn start(script: &str, options: &Json) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let python = Path::new(script).extension().is_some_and(|extension| extension == "py");
        let program = if python { tests.join(".venv/bin/python") } else { PathBuf::from("node") };
        let needs =
            if python { tests.join(".venv/installed") } else { tests.join("clients/node_modules/installed") };
        assert!(needs.exists(), "{} is missing; tests/run makes it", needs.display());
        let mut child = Command::new(&program)
            .arg(tests.join("clients").join(script))
            .arg(options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let to = child.stdin.take().expect("a pipe");
        let from = lines(child.stdout.take().expect("a pipe"));
        Self { child, to, from, said: Vec::new(), passed: 0 }
    }

    /// Gives it one command.
    pub fn tell(&mut self, command: &Json) {
        let line = format!("{command}\n");
        self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush()).expect("the client listens");
    }

    /// The next thing of this name that it saw; passes over others.
    pub fn saw(&mut self, name: &str) -> Json {
        self.saw_where(name, |_| true)
    }

    /// Does something again and again until the client has seen what it is to lead to.
    pub fn saw_by(&mut self, name: &str, mut act: impl FnMut(u16)) -> Json {
        for round in 0..200 {
            act(round);
            while let Ok(line) = self.from.recv_timeout(Duration::from_millis(200)) {
                self.said.push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")));
            }
            if self.said[self.passed..].iter().any(|said| said["saw"] == name) {
                break;
            }
        }
        self.saw(name)
    }

    /// The next thing of this name that the predicate picks.
    pub fn saw_where(&mut self, name: &str, pick: impl Fn(&Json) -> bool) -> Json {
        loop {
            if self.passed == self.said.len() {
                let Ok(line) = self.from.recv_timeout(PATIENCE) else {
                    panic!("waited in vain for {name:?}; the client saw {}", list(&self.said))
                };
                self.said.push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")));
            }
            let said = self.said[self.passed].clone();
            self.passed += 1;
            assert!(said["saw"] != "failure", "the client failed: {said}");
            if said["saw"] == name && pick(&said) {
                return said;
            }
        }
    }

    /// Whether it has seen this already; else waits for it. For things that come in any order.
    pub fn said_or_saw(&mut self, name: &str, pick: impl Fn(&Json) -> bool) -> bool {
        self.all(name).into_iter().any(&pick) || !self.saw_where(name, pick).is_null()
    }

    /// Whatever of this name it has said up to now, waited for or not.
    pub fn all(&self, name: &str) -> Vec<&Json> {
        self.said.iter().filter(|said| said["saw"] == name).collect()
    }

    /// Waits until it ends by itself, and takes in the rest of what it said.
    pub fn ends(&mut self) {
        while let Ok(line) = self.from.recv_timeout(PATIENCE) {
            self.said.push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")));
        }
        // Its output has ended, so it is ending; a client that hangs there is found by the test's own deadline.
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the client ended with {status} after {}", list(&self.said));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let (killed, waited) = (self.child.kill(), self.child.wait());
        drop((killed, waited));
    }
}

fn list(said: &[Json]) -> String {
    said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

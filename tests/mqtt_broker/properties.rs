//! What only MQTT 5 carries, and QoS 2, between the driver and a device that speaks by another library (paho-mqtt), with a
//! real broker in between. The product is the one whose conversation is tested as data.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pentad::config::{Config, Source, resolve};
use pentad::drivers::{DriverAction, Observation, Sample};
use pentad::model::command::{Outcome, Rejection};
use pentad::model::value::Value;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::mosquitto::{DEADLINE, Mosquitto};
use crate::rig::{Rig, confirmed};

const LEVEL: usize = 0;
const TEMPERATURE: usize = 1;
const TARGET: usize = 2;
const MEASURE: usize = 0;

/// See tests/counterparts/tank.py.
struct Tank {
    lines: Lines<BufReader<ChildStdout>>,
    to: ChildStdin,
    _process: Child,
}

impl Tank {
    async fn start(broker: &Mosquitto) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let python = tests.join(".venv/bin/python");
        assert!(python.exists(), "{} is missing; tests/run makes it", python.display());
        let mut process = Command::new(python)
            .arg(tests.join("counterparts/tank.py"))
            .arg(broker.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let to = process.stdin.take().expect("a pipe");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut tank = Self { lines, to, _process: process };
        assert_eq!(tank.received().await, json!({"ready": true}));
        tank
    }

    /// The next message that it got.
    async fn received(&mut self) -> Json {
        let line = timeout(DEADLINE, self.lines.next_line()).await.expect("a line in time").unwrap();
        serde_json::from_str(&line.expect("the tank runs; is paho-mqtt there? tests/run installs it"))
            .unwrap()
    }

    async fn publishes(&mut self, message: Json) {
        self.to.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
}

/// The gateway's side of it, as the configuration gives it.
fn config(broker: &Mosquitto, version: &str) -> Config {
    let product = include_str!("../products/mqtt/answers-by-properties.toml");
    // The older version carries no properties, and what needs them is left out there.
    let plain = "[[product]]\nid = \"answers\"\n[[product.property]]\nid = \"level\"\ntype = \"int\"\naccess = \"rw\"\n\
         [product.property.mqtt]\ntopic = \"{topic}/level\"\ntext = \"level={value} %\"\nqos = 2\n\
         write = { topic = \"{topic}/level/set\", qos = 2 }\n";
    let plant = format!(
        "[gateway]\nid = \"gw\"\n[[mqtt]]\nid = \"b\"\nurl = \"mqtt://127.0.0.1:{}\"\nversion = \"{version}\"\n\
         [[device]]\nid = \"d-1\"\nproduct = \"answers\"\nmqtt = \"b\"\ntopic = \"tank\"\n\
         [[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n",
        broker.port()
    );
    let product = if version == "5" { product } else { plain };
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.to_owned() };
    let loaded = resolve(&[source("products/answers.toml", product), source("pentad.toml", &plant)]);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).config
}

async fn rig(broker: &Mosquitto, version: &str) -> Rig {
    let broker = config(broker, version).brokers.remove(0);
    let mut rig = Rig::serve(broker.settings, broker.devices);
    assert!(rig.link().await.0);
    rig
}

fn refused(words: &str) -> Outcome {
    Outcome::Rejected(Rejection::ByDevice(words.to_owned()))
}

#[tokio::test]
async fn writes_reads_and_calls_are_answered_by_correlation_data() {
    let broker = Mosquitto::start().await;
    let mut tank = Tank::start(&broker).await;
    let mut rig = rig(&broker, "5").await;

    rig.write(&[(TARGET, Value::Int(40))]).await;
    let asked = tank.received().await;
    let number = asked["correlation"].as_str().unwrap().to_owned();
    assert!(number.parse::<u64>().is_ok(), "{asked}");
    let expected = json!({"topic": "tank/target/set", "payload": "40", "qos": 1, "user": {"asked-by": "gw"},
        "response": "pentad/gw/reply/d-1", "correlation": number});
    assert_eq!(asked, expected);
    assert_eq!(rig.outcome().await, confirmed(&[("target", Value::Int(40))]));
    // Retained as the product says, for whoever comes later.
    assert_eq!(broker.subscribe("tank/target/set").await.next().await.1, "40");

    rig.write(&[(TARGET, Value::Int(400))]).await;
    assert_ne!(tank.received().await["correlation"], json!(number), "each has a number of its own");
    assert_eq!(rig.outcome().await, refused("400 is too hot"));

    rig.command(DriverAction::Read(vec![TARGET])).await;
    let asked = tank.received().await;
    assert_eq!(
        (&asked["topic"], &asked["qos"], &asked["user"]),
        (&json!("tank/target/get"), &json!(0), &json!({"for": "d-1"}))
    );
    assert_eq!(rig.outcome().await, confirmed(&[("target", Value::Int(40))]));

    let measure =
        |times| DriverAction::Invoke { function: MEASURE, inputs: vec![("times".into(), Value::Int(times))] };
    rig.command(measure(3)).await;
    let asked = tank.received().await;
    assert_eq!((&asked["qos"], &asked["user"]), (&json!(2), &json!({"asked-by": "gw", "for": "d-1"})));
    let outputs = vec![
        ("result".into(), Value::Float(4.5)),
        ("unit".into(), Value::text("l")),
        ("by".into(), Value::text("tank")),
    ];
    assert_eq!(rig.outcome().await, Outcome::Confirmed { values: vec![], outputs });
    rig.command(measure(-1)).await;
    assert_eq!(rig.outcome().await, refused(r#"{"status": "no such number of times"}"#));
}

#[tokio::test]
async fn a_value_that_travels_beside_the_payload_is_read() {
    let broker = Mosquitto::start().await;
    let mut tank = Tank::start(&broker).await;
    let mut rig = rig(&broker, "5").await;
    subscribed(&broker, &mut rig).await;
    let probe = |place: &str, value: &str| json!({"topic": "tank/probe", "user": {"probe": place, "temperature": value}});
    tank.publishes(probe("roof", "999")).await;
    tank.publishes(probe("floor-2", "215")).await;
    assert_eq!(rig.values().await, [(TEMPERATURE, Sample::Value(Value::Float(21.5)))]);
    tank.publishes(
        json!({"topic": "tank/probe", "payload": "x", "user": {"probe": "lid", "temperature": "-5"}}),
    )
    .await;
    assert_eq!(rig.values().await, [(TEMPERATURE, Sample::Value(Value::Float(-0.5)))]);
}

#[tokio::test]
async fn an_event_has_what_travels_beside_its_payload() {
    let broker = Mosquitto::start().await;
    let mut tank = Tank::start(&broker).await;
    let mut rig = rig(&broker, "5").await;
    subscribed(&broker, &mut rig).await;
    let alarm = json!({"topic": "tank/alarm", "payload": "{\"code\":7}", "user": {"floor": "-2"}});
    tank.publishes(alarm).await;
    let told = rig
        .find(|seen| {
            let Observation::Event { event, params, .. } = seen else { return None };
            Some((event.to_string(), params.clone()))
        })
        .await;
    let params = vec![("code".into(), Value::Int(7)), ("floor".into(), Value::Int(-2))];
    assert_eq!(told, ("alarm".to_owned(), params));
}

/// Waits until the subscriptions stand, by a message that arrives.
async fn subscribed(broker: &Mosquitto, rig: &mut Rig) {
    broker.publish_retained("tank/log", "begun").await;
    rig.find(|seen| matches!(seen, Observation::Publish { .. }).then_some(())).await;
}

#[tokio::test]
async fn messages_of_quality_2_come_and_go_once_each_and_in_order() {
    for version in ["5", "3.1.1"] {
        let mut broker = Mosquitto::absent();
        let log = broker.folder().join("log");
        broker
            .run_with(&format!("allow_anonymous true\nlog_dest file {}\nlog_type all", log.display()))
            .await;
        let mut rig = rig(&broker, version).await;
        let mut tank = Tank::start(&broker).await;
        // The broker answers in order, so the subscription stands when a message of ours has come back.
        let mut own = broker.subscribe("tank/#").await;
        let sent = match version {
            "5" => DriverAction::Invoke { function: MEASURE, inputs: vec![("times".into(), Value::Int(1))] },
            _ => DriverAction::Write(vec![(LEVEL, Value::Int(7))]),
        };
        rig.command(sent).await;
        own.next().await;
        assert!(matches!(rig.outcome().await, Outcome::Confirmed { .. }));
        for level in 0..50 {
            tank.publishes(json!({"topic": "tank/level", "payload": format!("level={level} %"), "qos": 2}))
                .await;
        }
        for level in 0..50 {
            assert_eq!(rig.values().await, [(LEVEL, Sample::Value(Value::Int(level)))], "MQTT {version}");
        }
        // The whole exchange in both directions, as the broker's log has it in the end.
        let id = "pentad-gw-b";
        let exchange = [
            ("Received PUBREL from", 1),
            ("Sending PUBCOMP to", 1),
            ("Sending PUBREL to", 50),
            ("Received PUBCOMP from", 50),
        ];
        let count = |words: &str| {
            let words = format!("{words} {id}");
            std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(&words)).count()
        };
        let complete = async {
            while count("Received PUBCOMP from") < 50 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, complete).await.expect("every message is completed");
        assert_eq!(
            exchange.map(|(words, _)| count(words)),
            exchange.map(|(_, times)| times),
            "MQTT {version}"
        );
    }
}

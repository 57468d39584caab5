//! The MQTT driver against a real broker, with independent clients in the place of devices.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "the module is shared and each test binary uses a part of it")]
#[allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses a part of it"
)]
#[path = "common/mosquitto.rs"]
mod mosquitto;

use std::sync::Arc;
use std::time::Duration;

use mosquitto::{DEADLINE, Mosquitto};
use pentad::clock;
use pentad::drivers::mqtt::map::{Availability, MqttMap, Point, Publish, Reply, Source};
use pentad::drivers::mqtt::{BrokerSettings, MqttDevice, client};
use pentad::drivers::{
    COMMAND_QUEUE, CommandId, DriverAction, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation, Sample,
};
use pentad::meters::LinkMeters;
use pentad::model::client::Secret;
use pentad::model::command::{Outcome, Rejection};
use pentad::model::device::Device;
use pentad::model::product::{Access, Function, Parameter, Product, Property};
use pentad::model::value::{Value, ValueType};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Positions of the properties of the product below.
const POWER: usize = 0;
const WATTS: usize = 1;
const LEVEL: usize = 2;

#[tokio::test]
async fn a_report_becomes_one_observation_with_all_its_values() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    broker.publish("plug-1/state", r#"{"power":"ON","meter":{"watts":"12.5"},"other":1}"#).await;
    assert!(rig.presence().await.0);
    assert_eq!(rig.values().await, [(POWER, on()), (WATTS, Sample::Value(Value::Float(12.5)))]);
    broker.publish("plug-1/state", r#"{"meter":{"watts":true}}"#).await;
    let values = rig.values().await;
    assert!(matches!(values.as_slice(), [(WATTS, Sample::Unreadable(_))]), "{values:?}");
}

#[tokio::test]
async fn what_the_broker_kept_is_there_after_the_connect() {
    let broker = Mosquitto::start().await;
    broker.publish_retained("plug-1/state", r#"{"power":"OFF"}"#).await;
    broker.publish_retained("plug-1/online", "true").await;
    let mut rig = Rig::with(&broker, true);
    assert_eq!(rig.values().await, [(POWER, Sample::Value(Value::Bool(false)))]);
}

#[tokio::test]
async fn a_write_reaches_the_command_topic_and_is_confirmed_by_the_broker() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    let mut device = broker.subscribe("plug-1/set/#").await;
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    assert_eq!(device.next().await, ("plug-1/set/level".to_owned(), r#"{"level":40}"#.to_owned()));
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(40))]));
}

#[tokio::test]
async fn a_function_reaches_its_topic_with_its_inputs() {
    let broker = Mosquitto::start().await;
    let mut device = broker.subscribe("plug-1/do").await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    let inputs = vec![("text".into(), Value::text("say \"hi\""))];
    rig.command(DriverAction::Invoke { function: 0, inputs }).await;
    assert_eq!(device.next().await.1, r#"{"text":"say \"hi\"","times":null}"#);
    assert_eq!(rig.outcome().await, confirmed(&[]));
}

#[tokio::test]
async fn a_write_with_a_reply_is_confirmed_by_the_device_alone() {
    let broker = Mosquitto::start().await;
    let mut device = broker.subscribe("plug-1/set/power").await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(POWER, Value::Bool(true))]).await;
    assert_eq!(device.next().await.1, "ON");
    broker.publish("plug-1/state", r#"{"power":"OFF"}"#).await;
    broker.publish("plug-1/state", r#"{"power":"ON"}"#).await;
    assert_eq!(rig.outcome().await, confirmed(&[("power", Value::Bool(true))]));

    rig.write(&[(POWER, Value::Bool(true))]).await;
    device.next().await;
    broker.publish("plug-1/state", r#"{"power":"OFF"}"#).await;
    let mismatch =
        Rejection::Mismatch { id: "power".into(), expected: Value::Bool(true), found: Value::Bool(false) };
    assert_eq!(rig.outcome().await, Outcome::Rejected(mismatch));

    rig.write(&[(POWER, Value::Bool(true))]).await;
    assert_eq!(rig.outcome().await, Outcome::TimedOut, "the device said nothing");
}

#[tokio::test]
async fn the_availability_topic_decides_who_is_there() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::with(&broker, true);
    rig.connected().await;
    broker.publish_retained("plug-1/online", "true").await;
    assert!(rig.presence().await.0);
    broker.publish_retained("plug-1/online", "false").await;
    let (online, reason) = rig.presence().await;
    assert!(!online && reason.is_some(), "{reason:?}");
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    assert_eq!(rig.outcome().await, Outcome::Offline);
}

#[tokio::test]
async fn a_broker_that_is_absent_at_start_is_found_when_it_comes() {
    let mut broker = Mosquitto::absent();
    let mut rig = Rig::new(&broker);
    let (up, reason) = rig.link().await;
    assert!(!up && reason.unwrap().contains("is not reachable"));
    assert_eq!(rig.presence().await, (false, Some(format!("broker {} is not reachable", rig.display))));
    rig.write(&[(LEVEL, Value::Int(1))]).await;
    assert_eq!(rig.outcome().await, Outcome::Offline);
    broker.run().await;
    assert!(rig.link().await.0);
    // Kept, because nothing tells when the new subscription stands.
    broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
    assert!(rig.presence().await.0);
    assert_eq!(rig.values().await, [(POWER, on())]);
}

#[tokio::test]
async fn a_broker_that_is_killed_takes_its_devices_offline_once_and_brings_them_back() {
    let mut broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    assert!(rig.link().await.0);
    for round in 0..2 {
        broker.publish_retained("plug-1/state", r#"{"power":"ON"}"#).await;
        assert!(rig.presence().await.0, "round {round}");
        assert_eq!(rig.values().await, [(POWER, on())]);
        broker.kill().await;
        assert!(!rig.link().await.0);
        assert!(!rig.presence().await.0);
        broker.run().await;
        // Had anything been said twice, it would stand in the way of this.
        assert!(matches!(rig.next().await, Observation::Link { up: true, .. }));
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed() {
    let broker = Mosquitto::start().await;
    // Short enough for a test, long enough for a broker that waits for its turn on a busy machine.
    let mut rig =
        Rig::start(BrokerSettings { keep_alive: Duration::from_secs(2), ..settings(&broker) }, false);
    rig.connected().await;
    broker.freeze().await;
    let (up, reason) = rig.link().await;
    assert!(!up, "{reason:?}");
    broker.thaw().await;
    assert!(rig.link().await.0);
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_shown() {
    let mut broker = Mosquitto::absent();
    let file = broker.password_file("pentad", "right").await;
    broker.run_with(&format!("allow_anonymous false\npassword_file {}", file.display())).await;
    let login = |password: &str| Some(("pentad".into(), Secret::new(password)));
    let mut rig = Rig::start(BrokerSettings { login: login("wr0ng"), ..settings(&broker) }, false);
    let reason = rig.link().await.1.unwrap();
    assert!(reason.contains("user name and password") && !reason.contains("wr0ng"), "{reason}");
    let mut rig = Rig::start(BrokerSettings { login: login("right"), ..settings(&broker) }, false);
    assert!(rig.link().await.0);
}

#[tokio::test]
async fn raw_topics_are_passed_on_but_never_the_gateways_own_commands() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(LEVEL, Value::Int(3))]).await;
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(3))]));
    broker.publish("plug-1/log/boot", "hello").await;
    let raw = rig.find(|seen| {
        let Observation::Publish { topic, payload, .. } = seen else { return None };
        Some((topic.to_string(), payload.to_string()))
    });
    assert_eq!(raw.await, ("plug-1/log/boot".to_owned(), "hello".to_owned()));
}

#[tokio::test]
async fn when_told_to_stop_it_settles_what_it_holds_and_ends() {
    let broker = Mosquitto::start().await;
    let mut rig = Rig::new(&broker);
    rig.connected().await;
    rig.write(&[(POWER, Value::Bool(true))]).await;
    rig.find(|seen| matches!(seen, Observation::Accepted { .. }).then_some(())).await;
    rig.stop.cancel();
    assert_eq!(rig.outcome().await, Outcome::TimedOut);
    timeout(DEADLINE, rig.tasks.join_next()).await.expect("it ends").unwrap().unwrap();
}

/// A driver with one device, and the hub's ends of its queues.
struct Rig {
    display: Arc<str>,
    device: Arc<Device>,
    commands: mpsc::Sender<DriverCommand>,
    observations: mpsc::Receiver<Observation>,
    /// Everything seen, for the message of a failure.
    seen: Vec<Observation>,
    next_command: u64,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Rig {
    fn new(broker: &Mosquitto) -> Self {
        Self::with(broker, false)
    }

    fn with(broker: &Mosquitto, availability: bool) -> Self {
        Self::start(settings(broker), availability)
    }

    fn start(settings: BrokerSettings, availability: bool) -> Self {
        let device = device();
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (observations, observed) = mpsc::channel(OBSERVATION_QUEUE);
        let stop = CancellationToken::new();
        let display = Arc::clone(&settings.display);
        let port = LinkPort {
            link: Arc::clone(&settings.id),
            commands,
            observations,
            meters: LinkMeters::default(),
            announcer: None,
        };
        let mqtt = MqttDevice {
            device: Arc::clone(&device),
            topic: "plug-1".into(),
            map: Arc::new(map(availability)),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(client::run(settings, vec![mqtt], port, stop.clone()));
        let seen = Vec::new();
        Self {
            display,
            device,
            commands: command_sender,
            observations: observed,
            seen,
            next_command: 1,
            stop,
            tasks,
        }
    }

    /// The link is up, and the subscriptions stand.
    async fn connected(&mut self) {
        assert!(self.link().await.0);
        // The subscriptions were asked for before this write, and a broker answers in order.
        self.command(DriverAction::Write(vec![(LEVEL, Value::Int(0))])).await;
        assert_eq!(self.outcome().await, confirmed(&[("level", Value::Int(0))]));
    }

    async fn write(&mut self, values: &[(usize, Value)]) {
        self.command(DriverAction::Write(values.to_vec())).await;
    }

    async fn command(&mut self, action: DriverAction) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        let deadline = clock::instant() + DEADLINE;
        self.commands
            .send(DriverCommand { id, device: Arc::clone(&self.device), action, deadline })
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Observation {
        let next = timeout(DEADLINE, self.observations.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more was seen after {:#?}", self.seen));
        let observation = next.unwrap_or_else(|| panic!("the driver ended after {:#?}", self.seen));
        self.seen.push(observation.clone());
        observation
    }

    async fn find<T>(&mut self, wanted: impl Fn(&Observation) -> Option<T>) -> T {
        loop {
            let observation = self.next().await;
            if let Some(found) = wanted(&observation) {
                return found;
            }
        }
    }

    async fn link(&mut self) -> (bool, Option<String>) {
        self.find(|seen| {
            let Observation::Link { up, reason, .. } = seen else { return None };
            Some((*up, reason.as_ref().map(ToString::to_string)))
        })
        .await
    }

    async fn presence(&mut self) -> (bool, Option<String>) {
        self.find(|seen| {
            let Observation::Presence { online, reason, .. } = seen else { return None };
            Some((*online, reason.as_ref().map(ToString::to_string)))
        })
        .await
    }

    async fn values(&mut self) -> Vec<(usize, Sample)> {
        self.find(|seen| {
            let Observation::Values { values, .. } = seen else { return None };
            Some(values.clone())
        })
        .await
    }

    async fn outcome(&mut self) -> Outcome {
        self.find(|seen| {
            let Observation::Settled { outcome, .. } = seen else { return None };
            Some(outcome.clone())
        })
        .await
    }
}

fn on() -> Sample {
    Sample::Value(Value::Bool(true))
}

fn confirmed(values: &[(&str, Value)]) -> Outcome {
    let values = values.iter().map(|(id, value)| ((*id).into(), value.clone())).collect();
    Outcome::Confirmed { values, outputs: vec![] }
}

fn settings(broker: &Mosquitto) -> BrokerSettings {
    BrokerSettings {
        id: "local".into(),
        host: "127.0.0.1".into(),
        port: broker.port(),
        display: format!("mqtt://127.0.0.1:{}", broker.port()).into(),
        client_id: "pentad-test".into(),
        login: None,
        keep_alive: Duration::from_secs(30),
    }
}

fn device() -> Arc<Device> {
    let property = |id: &str, kind, access| Property { access, ..Property::new(id, kind) };
    let input = |id: &str, kind| Parameter { id: id.into(), kind, required: false, range: None };
    let product = Product {
        id: "plug".into(),
        name: "plug".into(),
        type_id: "plug".into(),
        properties: vec![
            property("power", ValueType::Bool, Access::ReadWrite),
            property("watts", ValueType::Float, Access::Read),
            property("level", ValueType::Int, Access::Write),
        ],
        functions: vec![Function {
            id: "say".into(),
            name: "say".into(),
            inputs: vec![input("text", ValueType::Text), input("times", ValueType::Int)],
            outputs: vec![],
            ..Function::new("")
        }],
        events: vec![],
    };
    Arc::new(Device {
        id: "plug-1".into(),
        name: "plug-1".into(),
        product: Arc::new(product),
        link: "local".into(),
        project: "1".into(),
        area: "1".into(),
        tags: vec![],
        uuid: "0000-0000-0000-0001".into(),
        mac: "000000000001".into(),
    })
}

fn map(availability: bool) -> MqttMap {
    let source = |path: &str| Source { topic: "{topic}/state".into(), path: Some(path.into()) };
    let publish = |topic: &str, payload: &str| Publish {
        topic: topic.into(),
        payload: payload.into(),
        qos: 1,
        retain: false,
        reply: None,
    };
    let point = |sources, write| Point { sources, scale: 1.0, offset: 0.0, on: None, off: None, write };
    let reply = Some(Reply { timeout: Duration::from_millis(1500) });
    let power = Publish { reply, ..publish("{topic}/set/power", "{value}") };
    MqttMap {
        properties: vec![
            Some(Point {
                on: Some("ON".into()),
                off: Some("OFF".into()),
                ..point(vec![source("$.power")], Some(power))
            }),
            Some(point(vec![source("meter.watts")], None)),
            Some(point(vec![], Some(publish("{topic}/set/level", r#"{"level":{value}}"#)))),
        ],
        functions: vec![Some(publish("{topic}/do", r#"{"text":"{text}","times":{times}}"#))],
        availability: availability.then(|| Availability {
            topic: "{topic}/online".into(),
            path: None,
            online: Value::Bool(true),
            offline: Value::Bool(false),
        }),
        offline_after: None,
        publish: vec!["{topic}/log/+".into(), "{topic}/set/#".into()],
    }
}

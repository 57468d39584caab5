//! A driver with one device, on a broker of the test's own.

use std::sync::Arc;
use std::time::Duration;

use pentad::clock;
use pentad::drivers::mqtt::map::{
    Availability, AvailabilityMode, Call, MqttMap, Part, Place, Point, Publish, Reply, Source,
};
use pentad::drivers::mqtt::packet::Version;
use pentad::drivers::mqtt::{BrokerSettings, MqttDevice, Transport, client};
use pentad::drivers::{
    COMMAND_QUEUE, CommandId, DriverAction, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation, Sample,
};
use pentad::meters::Meters;
use pentad::model::command::Outcome;
use pentad::model::device::Device;
use pentad::model::product::{Access, Function, Parameter, Product, Property};
use pentad::model::value::{Value, ValueType};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::mosquitto::{DEADLINE, Mosquitto};

/// Positions of the properties of the product below.
pub(crate) const POWER: usize = 0;
pub(crate) const WATTS: usize = 1;
pub(crate) const LEVEL: usize = 2;

/// A driver with one device, and the hub's ends of its queues.
pub(crate) struct Rig {
    pub(crate) display: Arc<str>,
    pub(crate) device: Arc<Device>,
    pub(crate) commands: mpsc::Sender<DriverCommand>,
    pub(crate) observations: mpsc::Receiver<Observation>,
    /// Everything seen, for the message of a failure.
    pub(crate) seen: Vec<Observation>,
    pub(crate) next_command: u64,
    /// The gateway's state, as the hub would tell it.
    pub(crate) gateway: watch::Sender<Option<Arc<str>>>,
    /// What it counts, as `/metrics` has it.
    pub(crate) meters: Meters,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
}

impl Rig {
    pub(crate) fn new(broker: &Mosquitto) -> Self {
        Self::with(broker, false)
    }

    pub(crate) fn with(broker: &Mosquitto, availability: bool) -> Self {
        Self::start(settings(broker), availability)
    }

    pub(crate) fn start(settings: BrokerSettings, availability: bool) -> Self {
        let mqtt = MqttDevice { device: device(), topic: "plug-1".into(), map: Arc::new(map(availability)) };
        Self::serve(settings, vec![mqtt])
    }

    /// The driver of these devices; commands go to the first.
    pub(crate) fn serve(settings: BrokerSettings, devices: Vec<MqttDevice>) -> Self {
        let meters = Meters::default();
        let device = Arc::clone(&devices[0].device);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (observations, observed) = mpsc::channel(OBSERVATION_QUEUE);
        let stop = CancellationToken::new();
        let display = Arc::clone(&settings.display);
        let port = LinkPort {
            link: Arc::clone(&settings.id),
            commands,
            observations,
            meters: meters.broker(&settings.id),
            announcer: None,
        };
        let gateway = watch::Sender::new(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(client::run(settings, devices, port, gateway.subscribe(), stop.clone()));
        let seen = Vec::new();
        Self {
            display,
            device,
            commands: command_sender,
            observations: observed,
            seen,
            next_command: 1,
            gateway,
            meters,
            stop,
            tasks,
        }
    }

    /// The link is up, and the subscriptions stand.
    pub(crate) async fn connected(&mut self) {
        assert!(self.link().await.0);
        // The subscriptions were asked for before this write, and a broker answers in order.
        self.command(DriverAction::Write(vec![(LEVEL, Value::Int(0))])).await;
        assert_eq!(self.outcome().await, confirmed(&[("level", Value::Int(0))]));
    }

    pub(crate) async fn write(&mut self, values: &[(usize, Value)]) {
        self.command(DriverAction::Write(values.to_vec())).await;
    }

    pub(crate) async fn command(&mut self, action: DriverAction) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        let deadline = clock::instant() + DEADLINE;
        let device = Arc::clone(&self.device);
        self.commands.send(DriverCommand { id, device, action, deadline, urgent: false }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Observation {
        let next = timeout(DEADLINE, self.observations.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing more was seen after {:#?}", self.seen));
        let observation = next.unwrap_or_else(|| panic!("the driver ended after {:#?}", self.seen));
        self.seen.push(observation.clone());
        observation
    }

    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(&Observation) -> Option<T>) -> T {
        loop {
            let observation = self.next().await;
            if let Some(found) = wanted(&observation) {
                return found;
            }
        }
    }

    pub(crate) async fn link(&mut self) -> (bool, Option<String>) {
        self.find(|seen| {
            let Observation::Link { up, reason, .. } = seen else { return None };
            Some((*up, reason.as_ref().map(ToString::to_string)))
        })
        .await
    }

    pub(crate) async fn presence(&mut self) -> (bool, Option<String>) {
        self.find(|seen| {
            let Observation::Presence { online, reason, .. } = seen else { return None };
            Some((*online, reason.as_ref().map(ToString::to_string)))
        })
        .await
    }

    pub(crate) async fn values(&mut self) -> Vec<(usize, Sample)> {
        self.find(|seen| {
            let Observation::Values { values, .. } = seen else { return None };
            Some(values.clone())
        })
        .await
    }

    pub(crate) async fn outcome(&mut self) -> Outcome {
        self.find(|seen| {
            let Observation::Settled { outcome, .. } = seen else { return None };
            Some(outcome.clone())
        })
        .await
    }
}

pub(crate) fn on() -> Sample {
    Sample::Value(Value::Bool(true))
}

pub(crate) fn confirmed(values: &[(&str, Value)]) -> Outcome {
    let values = values.iter().map(|(id, value)| ((*id).into(), value.clone())).collect();
    Outcome::Confirmed { values, outputs: vec![] }
}

pub(crate) fn settings(broker: &Mosquitto) -> BrokerSettings {
    BrokerSettings {
        id: "local".into(),
        gateway: "g".into(),
        host: "127.0.0.1".into(),
        port: broker.port(),
        display: format!("mqtt://127.0.0.1:{}", broker.port()).into(),
        client_id: "pentad-test".into(),
        login: None,
        keep_alive: Duration::from_secs(30),
        transport: Transport::default(),
        version: Version::V3,
        clean_session: true,
        presence: None,
    }
}

pub(crate) fn device() -> Arc<Device> {
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

pub(crate) fn map(availability: bool) -> MqttMap {
    let source = |path: &str| Source { place: Place::of("{topic}/state"), part: Part::Path(path.into()) };
    let publish = |topic: &str, payload: &str| Publish {
        topic: topic.into(),
        payload: payload.into(),
        template: None,
        qos: 1,
        retain: false,
        user: vec![],
        reply: None,
    };
    let point = |sources, write| Point {
        sources,
        scale: 1.0,
        offset: 0.0,
        on: None,
        off: None,
        write,
        write_interval: None,
        read: None,
    };
    let reply = Some(Reply { timeout: Duration::from_millis(1500), answer: None });
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
        functions: vec![Some(Call {
            publish: publish("{topic}/do", r#"{"text":"{text}","times":{times}}"#),
            answer: None,
        })],
        availability: if availability {
            vec![Availability {
                place: Place::of("{topic}/online"),
                part: Part::Whole,
                online: vec![Value::Bool(true)],
                offline: vec![Value::Bool(false)],
            }]
        } else {
            vec![]
        },
        availability_mode: AvailabilityMode::All,
        publish: vec![Place::of("{topic}/log/+"), Place::of("{topic}/set/#")],
        ..MqttMap::default()
    }
}

//! Broker, devices and the real driver together, with the demo's own configuration and the products as shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::demo::{broker, configuration, gadgets};
use crate::drivers::mqtt::{MqttDevice, client};
use crate::drivers::{
    COMMAND_QUEUE, CommandId, DriverAction, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation, Sample,
};
use crate::meters::LinkMeters;
use crate::model::command::Outcome;
use crate::model::device::Device;
use crate::model::value::Value;
use tokio_util::sync::CancellationToken;

/// Longest wait for the next observation.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

struct Rig {
    devices: Vec<MqttDevice>,
    commands: mpsc::Sender<DriverCommand>,
    observed: mpsc::Receiver<Observation>,
    gadgets: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn start() -> Self {
        let door = broker::listen(Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = door.local_addr().unwrap();
        broker::start(door).await.unwrap();
        let broker = configuration(Path::new("/dev/null"), address).unwrap().brokers.remove(0);
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (observations, observed) = mpsc::channel(OBSERVATION_QUEUE);
        let port = LinkPort {
            link: Arc::clone(&broker.settings.id),
            commands: command_queue,
            observations,
            meters: LinkMeters::default(),
            announcer: None,
        };
        let gadgets = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(gadgets::run(address, gadgets.clone()));
        let state = tokio::sync::watch::Sender::new(None).subscribe();
        tasks.spawn(client::run(
            broker.settings,
            broker.devices.clone(),
            port,
            state,
            CancellationToken::new(),
        ));
        Self { devices: broker.devices, commands, observed, gadgets, _tasks: tasks }
    }

    async fn next(&mut self) -> Observation {
        timeout(DEADLINE, self.observed.recv()).await.expect("something in time").expect("the driver runs")
    }

    /// Reads until nothing is missing any more: pairs of a device and what is awaited of it.
    async fn await_all(
        &mut self,
        mut missing: BTreeSet<(String, String)>,
        found: impl Fn(&Observation) -> Vec<(String, String)>,
    ) {
        while !missing.is_empty() {
            let Ok(Some(seen)) = timeout(DEADLINE, self.observed.recv()).await else {
                panic!("still missing: {missing:?}")
            };
            for pair in found(&seen) {
                missing.remove(&pair);
            }
        }
    }

    async fn write(&mut self, device: &str, property: &str, value: Value) -> Outcome {
        let device = &self.devices.iter().find(|mqtt| *mqtt.device.id == *device).unwrap().device;
        let (position, _) = device.product.property(property).unwrap();
        self.command(&Arc::clone(device), DriverAction::Write(vec![(position, value)])).await
    }

    async fn command(&mut self, device: &Arc<Device>, action: DriverAction) -> Outcome {
        let deadline = clock::instant() + DEADLINE;
        let (id, device) = (CommandId(1), Arc::clone(device));
        let command = DriverCommand { id, device, action, deadline, urgent: false };
        self.commands.send(command).await.unwrap();
        loop {
            if let Observation::Settled { outcome, .. } = self.next().await {
                return outcome;
            }
        }
    }
}

#[tokio::test]
async fn the_driver_reads_every_property_writes_what_can_be_written_and_sees_them_go() {
    let mut rig = Rig::start().await;
    let all: Vec<_> = rig.devices.iter().map(|mqtt| Arc::clone(&mqtt.device)).collect();
    let properties = all.iter().flat_map(|device| {
        let ids = device.product.properties.iter().map(|property| property.id.to_string());
        ids.map(|id| (device.id.to_string(), id)).collect::<Vec<_>>()
    });
    let online = all.iter().map(|device| (device.id.to_string(), "online".to_owned()));
    rig.await_all(properties.chain(online).collect(), |seen| match seen {
        Observation::Values { device, values, .. } => {
            let name = |(at, sample): &(usize, Sample)| {
                assert!(matches!(sample, Sample::Value(_)), "{sample:?} of {}", device.id);
                (device.id.to_string(), device.product.properties[*at].id.to_string())
            };
            values.iter().map(name).collect()
        }
        Observation::Presence { device, online: true, .. } => {
            vec![(device.id.to_string(), "online".to_owned())]
        }
        Observation::Presence { online: false, .. }
        | Observation::Event { .. }
        | Observation::Doubt { .. }
        | Observation::Publish { .. }
        | Observation::Ota { .. }
        | Observation::Link { .. }
        | Observation::Accepted { .. }
        | Observation::Settled { .. } => vec![],
    })
    .await;

    let writes = BTreeMap::from([
        (("plug-1", "power"), Value::Bool(false)),
        (("lamp-1", "state"), Value::Bool(false)),
        (("lamp-1", "brightness"), Value::Int(17)),
        (("shelly-1", "switch"), Value::Bool(true)),
    ]);
    for ((device, property), value) in writes {
        let outcome = rig.write(device, property, value.clone()).await;
        let values = vec![(property.into(), value)];
        assert_eq!(outcome, Outcome::Confirmed { values, outputs: vec![] }, "{property} of {device}");
    }

    for device in &all {
        let properties = device.product.properties.iter().enumerate();
        let asked: Vec<usize> = properties.filter(|(_, it)| it.on_request).map(|(at, _)| at).collect();
        assert!(asked.len() >= 2, "{} can be asked for {asked:?}", device.id);
        let outcome = rig.command(device, DriverAction::Read(asked.clone())).await;
        let Outcome::Confirmed { values, .. } = &outcome else { panic!("{}: {outcome:?}", device.id) };
        assert_eq!(values.len(), asked.len(), "{values:?} of {}", device.id);
    }

    rig.gadgets.cancel();
    let gone = all.iter().map(|device| (device.id.to_string(), "offline".to_owned())).collect();
    rig.await_all(gone, |seen| {
        let Observation::Presence { device, online: false, .. } = seen else { return vec![] };
        vec![(device.id.to_string(), "offline".to_owned())]
    })
    .await;
}

//! A running bus driver with the hub's ends in the test's hands.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pentad::drivers::modbus::bus::run;
use pentad::drivers::modbus::map::{Data, ModbusMap, Operand, Point, Step, Table};
use pentad::drivers::modbus::recorder::Recorder;
use pentad::drivers::modbus::{BusSettings, ModbusDevice, SerialSettings, Target};
use pentad::drivers::{
    COMMAND_QUEUE, CommandId, DriverAction, DriverCommand, LinkPort, OBSERVATION_QUEUE, Observation, Sample,
};
use pentad::meters::LinkMeters;
use pentad::model::command::Outcome;
use pentad::model::device::Device;
use pentad::model::product::{Access, Function, Product, Property};
use pentad::model::value::{Value, ValueType};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::slave::now;

/// Long enough for a slave that shares two cores with much else, short enough for tests.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(500);

/// How long a test waits for something before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn point(table: Table, address: u16, data: Data, every_ms: u64) -> Point {
    Point { every: Duration::from_millis(every_ms), ..Point::new(table, address, data) }
}

pub(crate) fn holding(address: u16, every_ms: u64) -> Point {
    point(Table::Holding, address, Data::U16, every_ms)
}

pub(crate) fn write(address: u16, value: Operand) -> Step {
    Step::Write { point: holding(address, 1000), value }
}

/// What a place holds, as a product would say.
fn kind(point: &Point) -> ValueType {
    let one_bit = point.table.is_bits() || point.bits.is_some_and(|bits| bits.count == 1);
    if one_bit || matches!(point.data, Data::Bool | Data::Switch { .. }) {
        ValueType::Bool
    } else if matches!(point.data, Data::F32 | Data::F64) {
        ValueType::Float
    } else if matches!(point.data, Data::Text { .. }) {
        ValueType::Text
    } else {
        ValueType::Int
    }
}

/// A device `dev-<unit>` with properties `p0`, `p1`, ... and functions `f0`, ...
pub(crate) fn device(unit: u8, points: Vec<Point>, functions: Vec<Vec<Step>>) -> ModbusDevice {
    let property = |(at, point): (usize, &Point)| Property {
        access: Access::ReadWrite,
        ..Property::new(format!("p{at}"), kind(point))
    };
    let function = |at: usize| Function::new(format!("f{at}"));
    let product = Product {
        id: "thing".into(),
        name: "thing".into(),
        type_id: "thing".into(),
        properties: points.iter().enumerate().map(property).collect(),
        functions: (0..functions.len()).map(function).collect(),
        events: Vec::new(),
    };
    let device = Device {
        id: format!("dev-{unit}").into(),
        name: format!("dev-{unit}").into(),
        product: Arc::new(product),
        link: "bus".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
        uuid: format!("0000-0000-0000-{unit:04X}").into(),
        mac: format!("{unit:012X}").into(),
    };
    let map = ModbusMap { max_gap: 4, ..ModbusMap::new(points.into_iter().map(Some).collect(), functions) };
    ModbusDevice { device: Arc::new(device), unit, map: Arc::new(map) }
}

pub(crate) fn serial(path: &Path) -> Target {
    Target::Serial(SerialSettings::at(path.to_str().unwrap(), 115_200))
}

pub(crate) struct Rig {
    pub(crate) recorder: Recorder,
    commands: mpsc::Sender<DriverCommand>,
    observations: mpsc::Receiver<Observation>,
    devices: Vec<ModbusDevice>,
    stop: CancellationToken,
    task: JoinSet<()>,
    meters: LinkMeters,
    next: u64,
    /// Everything seen so far.
    pub(crate) seen: Vec<Observation>,
}

impl Rig {
    pub(crate) fn start(target: Target, devices: Vec<ModbusDevice>) -> Self {
        Self::start_with(target, devices, TIMEOUT)
    }

    pub(crate) fn start_with(target: Target, devices: Vec<ModbusDevice>, timeout: Duration) -> Self {
        let settings = BusSettings {
            id: "bus".into(),
            target,
            timeout,
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        Self::start_as(settings, devices)
    }

    pub(crate) fn start_as(settings: BusSettings, devices: Vec<ModbusDevice>) -> Self {
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (observation_queue, observations) = mpsc::channel(OBSERVATION_QUEUE);
        let meters = LinkMeters::default();
        let port = LinkPort {
            link: "bus".into(),
            commands: command_queue,
            observations: observation_queue,
            meters: meters.clone(),
            announcer: None,
        };
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let recorder = Recorder::new(&settings, None);
        task.spawn(run(settings, devices.clone(), port, recorder.clone(), stop.clone()));
        Self { recorder, commands, observations, devices, stop, task, meters, next: 1, seen: Vec::new() }
    }

    pub(crate) async fn submit(&mut self, unit: u8, action: DriverAction, timeout: Duration) -> CommandId {
        let id = CommandId(self.next);
        self.next += 1;
        let device = self.devices.iter().find(|device| device.unit == unit).unwrap();
        let device = Arc::clone(&device.device);
        let deadline = now() + timeout;
        self.commands.send(DriverCommand { id, device, action, deadline, urgent: false }).await.unwrap();
        id
    }

    /// Submits a command and waits for what becomes of it.
    pub(crate) async fn command(&mut self, unit: u8, action: DriverAction) -> Outcome {
        let id = self.submit(unit, action, PATIENCE).await;
        self.outcome(id).await
    }

    pub(crate) async fn outcome(&mut self, id: CommandId) -> Outcome {
        self.until("an outcome", |observation| {
            let Observation::Settled { command, outcome, .. } = observation else { return None };
            (*command == id).then(|| outcome.clone())
        })
        .await
    }

    /// The first observation, from the beginning on, that the question finds something in.
    pub(crate) async fn until<T>(&mut self, what: &str, question: impl Fn(&Observation) -> Option<T>) -> T {
        let mut from = 0;
        let deadline = now() + PATIENCE;
        loop {
            if let Some(found) = self.seen[from..].iter().find_map(&question) {
                return found;
            }
            from = self.seen.len();
            let next = tokio::time::timeout_at(deadline.into(), self.observations.recv()).await;
            let Ok(Some(observation)) = next else {
                panic!("waited in vain for {what}; seen: {:#?}", self.seen);
            };
            self.seen.push(observation);
        }
    }

    /// Forgets what was seen, so that `until` waits for something new.
    pub(crate) fn forget(&mut self) {
        while let Ok(observation) = self.observations.try_recv() {
            self.seen.push(observation);
        }
        self.seen.clear();
    }

    /// Collects observations for some time.
    pub(crate) async fn watch(&mut self, time: Duration) {
        let end = now() + time;
        while let Ok(Some(observation)) = tokio::time::timeout_at(end.into(), self.observations.recv()).await
        {
            self.seen.push(observation);
        }
    }

    pub(crate) async fn sample(&mut self, unit: u8, position: usize) -> Sample {
        self.until("a sample", |observation| samples(observation, unit, position).next()).await
    }

    pub(crate) async fn value(&mut self, unit: u8, position: usize, value: Value) {
        let wanted = Sample::Value(value);
        self.until("a value", |observation| {
            samples(observation, unit, position).any(|sample| sample == wanted).then_some(())
        })
        .await;
    }

    pub(crate) async fn presence(&mut self, unit: u8, wanted: bool) {
        let id = format!("dev-{unit}");
        self.until("a presence", |observation| {
            let Observation::Presence { device, online, .. } = observation else { return None };
            (*device.id == *id && *online == wanted).then_some(())
        })
        .await;
    }

    pub(crate) async fn link(&mut self, wanted: bool) -> Option<Arc<str>> {
        self.until("a link change", |observation| {
            let Observation::Link { up, reason, .. } = observation else { return None };
            (*up == wanted).then(|| reason.clone())
        })
        .await
    }

    pub(crate) fn all_samples(&self, unit: u8, position: usize) -> Vec<Sample> {
        self.seen.iter().flat_map(|observation| samples(observation, unit, position)).collect()
    }

    pub(crate) fn count(&self, question: impl Fn(&Observation) -> bool) -> usize {
        self.seen.iter().filter(|observation| question(observation)).count()
    }

    /// Requests so far that had no answer that could be believed.
    pub(crate) fn failures(&self) -> u64 {
        self.meters.bus.timeouts.get() + self.meters.bus.bad_answers.get()
    }

    /// Tells the driver to stop and collects its last words.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        let stopped = tokio::time::timeout(PATIENCE, self.task.join_next()).await;
        stopped.expect("the driver stops").unwrap().expect("the driver does not panic");
        while let Some(observation) = self.observations.recv().await {
            self.seen.push(observation);
        }
    }
}

fn samples(observation: &Observation, unit: u8, position: usize) -> impl Iterator<Item = Sample> + use<> {
    let mut found = Vec::new();
    if let Observation::Values { device, values, .. } = observation {
        if *device.id == *format!("dev-{unit}") {
            found.extend(values.iter().filter(|(at, _)| *at == position).map(|(_, sample)| sample.clone()));
        }
    }
    found.into_iter()
}

//! A rig around the pure hub state: a plant of four devices, a clock that tests move, and what each session heard
//! as lines of text. A witness session that may see everything checks in every test that numbers rise by one.

mod adopt;
mod commands;
mod dating;
mod devices;
mod groups;
mod index;
mod leases;
mod ledger;
mod memory;
mod retention;
mod rules;
mod slow;
mod steps;
mod task;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::{SessionKey, SessionReply};
use super::state::{Effect, HubState};
use crate::clock;
use crate::dialects::Token;
use crate::drivers::{CommandId, DriverCommand, Observation, Sample};
use crate::model::client::{Client, DeviceFilter, Dialect, Rights, Secret};
use crate::model::command::{Action, Command, Outcome};
use crate::model::device::{Device, Link};
use crate::model::directory::Directory;
use crate::model::interest::{GroupAsk, Interest, Selector};
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::product::{
    Access, AlarmCondition, AlarmRule, Change, EventTrigger, EventType, Function, Level, Parameter, Product,
    Property, ReportRule,
};
use crate::model::snapshot::{Answer, Question};
use crate::model::time::{Clock, Now, UnixMillis};
use crate::model::value::{Quality, Value, ValueType};

/// Positions in the product `press`.
const TEMPERATURE: usize = 0;
const SETPOINT: usize = 1;
const RUNNING: usize = 2;
const DOOR: usize = 3;
const PRESSURE: usize = 4;

const WITNESS: SessionKey = SessionKey(0);

struct Rig {
    directory: Arc<Directory>,
    state: HubState,
    now: Now,
    heard: Vec<(SessionKey, String)>,
    routed: Vec<DriverCommand>,
    /// While set, every link is full.
    links_full: bool,
    last_seq: u64,
    /// Time and mark of each message, by number.
    dated: Vec<(UnixMillis, Clock)>,
}

impl Rig {
    fn new() -> Self {
        Self::of(directory())
    }

    fn of(directory: Directory) -> Self {
        let now = Now::new(clock::instant(), UnixMillis(1_000_000));
        let directory = Arc::new(directory);
        let state = HubState::new(Arc::clone(&directory));
        let mut rig = Self {
            directory,
            state,
            now,
            heard: Vec::new(),
            routed: Vec::new(),
            links_full: false,
            last_seq: 0,
            dated: Vec::new(),
        };
        rig.attach(WITNESS);
        rig.watch(WITNESS, &all_rights("witness"), vec![everything()]);
        rig
    }

    fn attach(&mut self, key: SessionKey) {
        self.state.attach(key);
    }

    fn watch(&mut self, key: SessionKey, client: &Arc<Client>, interests: Vec<Interest>) {
        self.state.watch(key, client, interests);
        self.drain();
    }

    /// A session that takes everything its client may see.
    fn watcher(&mut self, key: u64, client: &Arc<Client>) {
        self.attach(SessionKey(key));
        self.watch(SessionKey(key), client, vec![everything()]);
    }

    fn submit(&mut self, key: u64, token: u64, client: &Arc<Client>, command: Command) {
        self.state.submit(SessionKey(key), Token(token), Arc::clone(client), command, self.now);
        self.drain();
    }

    fn ask(&mut self, key: u64, client: &Arc<Client>, question: Question) {
        self.state.ask(SessionKey(key), Token(0), Arc::clone(client), question, self.now);
        self.drain();
    }

    fn group(&mut self, key: u64, client: &Arc<Client>, ask: GroupAsk) {
        self.ask(key, client, Question::Group(ask));
    }

    fn values(&mut self, device: &str, values: &[(usize, Value)]) {
        let values = values.iter().map(|(at, value)| (*at, Sample::Value(value.clone()))).collect();
        self.samples(device, values);
    }

    fn unreadable(&mut self, device: &str, position: usize) {
        self.samples(device, vec![(position, Sample::Unreadable("no number".into()))]);
    }

    fn samples(&mut self, device: &str, values: Vec<(usize, Sample)>) {
        let device = self.device(device);
        self.observe(Observation::Values { device, at: self.now.wall, values });
    }

    fn presence(&mut self, device: &str, online: bool) {
        let device = self.device(device);
        let reason = Some("no answer".into());
        self.observe(Observation::Presence { device, at: self.now.wall, online, reason });
    }

    fn settle(&mut self, command: CommandId, outcome: Outcome) {
        self.observe(Observation::Settled { command, at: self.now.wall, outcome });
    }

    fn observe(&mut self, observation: Observation) {
        self.state.observe(observation, self.now);
        self.drain();
    }

    /// Gives the hub other devices on the same links.
    fn adopt(&mut self, devices: Vec<Arc<Device>>) {
        self.adopt_anew(devices, &[]);
    }

    /// The same, where the drivers of these links begin anew.
    fn adopt_anew(&mut self, devices: Vec<Arc<Device>>, anew: &[&str]) {
        let directory = Arc::new(Directory::new(devices, self.directory.links().to_vec()));
        let anew = anew.iter().map(|link| Arc::from(*link)).collect();
        self.state.retire(&directory, &anew, self.now);
        self.drain();
        self.state.adopt(Arc::clone(&directory), self.now);
        self.drain();
        self.directory = directory;
    }

    fn device(&self, id: &str) -> Arc<Device> {
        self.directory.device(id).map(Arc::clone).expect("a device of the plant")
    }

    /// Lets time pass, stopping at every timeout on the way.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(due) = self.state.timeout().filter(|due| *due <= end) {
            let due = due.max(self.now.instant);
            self.jump(due);
            self.state.handle_timeout(self.now);
            self.drain();
            assert!(self.state.timeout().is_none_or(|next| next > due), "a timeout is handled for good");
        }
        self.jump(end);
    }

    fn jump(&mut self, to: Instant) {
        let passed = i64::try_from((to - self.now.instant).as_millis()).unwrap();
        let later = UnixMillis(self.now.wall.0 + passed);
        self.now =
            Now { instant: to, wall: later, certain: UnixMillis(self.now.certain.0 + passed), ..self.now };
    }

    fn drain(&mut self) {
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Deliver { sessions, message } => {
                    assert!(sessions.is_sorted_by(|a, b| a < b), "each session once, in order");
                    if sessions.contains(&WITNESS) {
                        assert_eq!(message.seq, self.last_seq + 1, "numbers rise by one");
                        self.last_seq = message.seq;
                        self.dated.push((message.at, message.clock));
                    }
                    for session in sessions.iter() {
                        self.heard.push((*session, line(&message)));
                    }
                }
                Effect::Balance { candidates, message, .. } => {
                    self.heard.push((candidates[0], line(&message)));
                }
                Effect::Reply { session, reply } => self.heard.push((session, reply_line(&reply))),
                Effect::Store(_) => {}
                Effect::Route { command, .. } if self.links_full => {
                    self.state.refused(command.id, self.now);
                }
                Effect::Route { command, .. } => self.routed.push(command),
            }
        }
    }

    /// What a session heard since the last time it was asked.
    fn heard(&mut self, key: u64) -> Vec<String> {
        let (own, rest) = self.heard.drain(..).partition(|(session, _)| *session == SessionKey(key));
        self.heard = rest;
        own.into_iter().map(|(_, line)| line).collect()
    }
}

fn everything() -> Interest {
    Interest { selector: Selector::All, kinds: Kinds::ALL }
}

fn client(id: &str, rights: Rights, devices: &[&str]) -> Arc<Client> {
    Arc::new(Client {
        id: id.into(),
        secret: Secret::new("secret"),
        dialects: Dialect::ALL.to_vec(),
        devices: DeviceFilter::new(devices),
        rights,
    })
}

fn all_rights(id: &str) -> Arc<Client> {
    client(id, Rights::ALL, &["*"])
}

fn command(device: &str, action: Action) -> Command {
    Command {
        device: device.into(),
        action,
        timeout: Duration::from_secs(10),
        message_id: Some("m-1".into()),
        notify_accepted: false,
        lease: None,
    }
}

fn write(device: &str, property: &str, value: Value) -> Command {
    command(device, Action::Write(vec![(property.into(), value)]))
}

fn read(device: &str, properties: &[&str]) -> Command {
    command(device, Action::Read(properties.iter().map(|id| Arc::from(*id)).collect()))
}

fn confirmed() -> Outcome {
    Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() }
}

fn line(message: &DeviceMessage) -> String {
    let device = &message.device.id;
    match &message.body {
        Body::Properties(reports) => {
            let one = |report: &crate::model::message::Report| {
                let mark = match report.quality {
                    Quality::Good => "",
                    Quality::Stale => " (stale)",
                    Quality::Bad => " (bad)",
                };
                format!("{}={}{mark}", report.id, report.value)
            };
            format!("{device} {}", reports.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        Body::Event { event, level, params } => {
            format!("{device} event {event} {}{}", level.name(), named(params))
        }
        Body::Alarm { rule, raised, value, active, .. } => {
            let change = if *raised { "raised" } else { "cleared" };
            format!("{device} alarm {} {change} at {value}, active [{}]", rule.id, active.join(" "))
        }
        Body::Presence { online: true, reason } => {
            assert_eq!(*reason, None, "being online needs no reason");
            format!("{device} online")
        }
        Body::Presence { online: false, reason } => {
            format!("{device} offline: {}", reason.as_deref().unwrap_or("?"))
        }
        Body::Publish { topic, payload } => format!("{device} publish {topic} {payload}"),
        Body::Sent { command } => format!("{device} sent {}", note(command)),
        Body::Reply { command, outcome } => format!("{device} reply {}: {}", note(command), told(outcome)),
        Body::Ota { step, detail } => format!("{device} ota {step} {detail}"),
    }
}

fn note(note: &crate::model::message::CommandNote) -> String {
    let function = note.function.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
    format!("{:?} {} by {}{function}{}", note.kind, note.message_id, note.client, named(&note.values))
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Confirmed { values, outputs } => {
            format!("confirmed{}{}", named(values), named(outputs))
        }
        Outcome::Rejected(rejection) => format!("rejected: {rejection}"),
        Outcome::Offline => "offline".to_owned(),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Busy => "busy".to_owned(),
        Outcome::Forbidden => "forbidden".to_owned(),
    }
}

/// Each with a space before it.
fn named(values: &[(Arc<str>, Value)]) -> String {
    values.iter().fold(String::new(), |text, (id, value)| format!("{text} {id}={value}"))
}

fn reply_line(reply: &SessionReply) -> String {
    match reply {
        SessionReply::Accepted(token) => format!("accepted {}", token.0),
        SessionReply::Outcome(token, outcome) => format!("outcome {} {}", token.0, told(outcome)),
        SessionReply::Answer(_, Answer::Group(answer)) => format!("{answer:?}"),
        SessionReply::Answer(_, Answer::Snapshot(snapshot)) => {
            format!("snapshot of {}", snapshot.devices.len())
        }
        SessionReply::Answer(_, answer) => format!("{answer:?}"),
        SessionReply::DocumentsChanged(collection) => format!("changed {collection}"),
        SessionReply::GroupEmpty => "group empty".to_owned(),
        SessionReply::Lagged(missed) => format!("lagged {missed}"),
        SessionReply::Evicted => "evicted".to_owned(),
    }
}

/// press-1 and press-2 on a bus, lamp-1 (same product) behind a broker, meter-1 of another product.
fn directory() -> Directory {
    let press = Arc::new(press());
    let meter = Product { id: "meter".into(), type_id: "2meter".into(), ..press_with(Vec::new()) };
    let devices = vec![
        device("press-1", &press, "rs485", "1"),
        device("press-2", &press, "rs485", "2"),
        device("lamp-1", &press, "local", "1"),
        device("meter-1", &Arc::new(meter), "rs485", "2"),
    ];
    let link = |id: &str, readable| Arc::new(Link { id: id.into(), address: "?".into(), readable });
    Directory::new(devices, vec![link("rs485", true), link("local", false)])
}

fn device(id: &str, product: &Arc<Product>, link: &str, area: &str) -> Arc<Device> {
    Arc::new(Device {
        id: id.into(),
        name: id.into(),
        product: Arc::clone(product),
        link: link.into(),
        project: "1".into(),
        area: area.into(),
        tags: Vec::new(),
        uuid: format!("uuid of {id}").into(),
        mac: format!("mac of {id}").into(),
    })
}

fn press() -> Product {
    let rule = |id: &str, condition, hysteresis| {
        Arc::new(AlarmRule { hysteresis, level: Level::Fault, ..AlarmRule::new(id, condition) })
    };
    let second = Duration::from_secs(1);
    press_with(vec![
        Property {
            alarms: vec![
                rule("too-hot", AlarmCondition::Above(80.0), 5.0),
                rule("too-cold", AlarmCondition::Below(5.0), 1.0),
            ],
            ..property("temperature", ValueType::Float, Access::Read)
        },
        Property { range: Some((0.0, 100.0)), ..property("setpoint", ValueType::Float, Access::ReadWrite) },
        Property {
            alarms: vec![rule("stopped", AlarmCondition::Equal(Value::Bool(false)), 0.0)],
            ..property("running", ValueType::Bool, Access::ReadWrite)
        },
        property("door", ValueType::Bool, Access::Read),
        Property {
            report: ReportRule {
                deadband: 0.2,
                heartbeat: Some(60 * second),
                min_interval: Some(10 * second),
                ..ReportRule::default()
            },
            ..property("pressure", ValueType::Float, Access::Read)
        },
        property("pin", ValueType::Text, Access::Write),
    ])
}

fn press_with(properties: Vec<Property>) -> Product {
    let code = Parameter { id: "code".into(), kind: ValueType::Int, required: true, range: None };
    let opened = EventTrigger {
        property: DOOR,
        change: Change::Becomes(Value::Bool(true)),
        initial: false,
        carries: Vec::new(),
    };
    Product {
        id: "press".into(),
        name: "Press".into(),
        type_id: "1press".into(),
        properties,
        functions: vec![Function {
            id: "reset".into(),
            name: "Reset".into(),
            inputs: vec![code],
            outputs: Vec::new(),
            ..Function::new("")
        }],
        events: vec![EventType {
            id: "door-opened".into(),
            name: "Door opened".into(),
            level: Level::Alert,
            params: Vec::new(),
            when: Some(opened),
        }],
    }
}

fn property(id: &str, kind: ValueType, access: Access) -> Property {
    Property { access, ..Property::new(id, kind) }
}

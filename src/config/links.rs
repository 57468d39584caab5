//! Reads the ways to devices: `[[mqtt]]` here, `[[serial]]` and `[[modbus_tcp]]` in `buses.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Surroundings;
use super::buses::{modbus_tcp, serial};
use super::node::Node;
use super::problem::{Problem, Spot};
use super::reader::Table;
use super::scalar::{self, Endpoint};
use super::server::file;
use crate::drivers::modbus::{BusSettings, Target};
use crate::drivers::mqtt::BrokerSettings;
use crate::model::client::Secret;
use crate::model::device::Link;

const MQTT_PORT: u16 = 1883;

/// A bus or broker with its place.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub(super) id: Arc<str>,
    pub(super) spot: Spot,
    /// `None` when its id is known but the rest could not be read.
    pub(super) kind: Option<LinkKind>,
}

#[derive(Debug)]
pub(super) enum LinkKind {
    Bus(BusSettings),
    Broker(BrokerSettings),
}

impl LinkEntry {
    /// As clients see it.
    pub(super) fn link(&self) -> Option<Link> {
        let (address, readable) = match self.kind.as_ref()? {
            LinkKind::Bus(settings) => match &settings.target {
                Target::Serial(serial) => (Arc::clone(&serial.path), true),
                Target::Tcp { address, .. } => (Arc::clone(address), true),
            },
            LinkKind::Broker(settings) => (Arc::clone(&settings.display), false),
        };
        Some(Link { id: Arc::clone(&self.id), address, readable })
    }
}

/// Every bus and broker, in the order serial, TCP, MQTT.
pub(super) fn links(root: &Table<'_>, gateway: &str, surroundings: &dyn Surroundings) -> Vec<LinkEntry> {
    let mut links: Vec<LinkEntry> = Vec::new();
    let mut ports: Vec<(PathBuf, Spot)> = Vec::new();
    let mut endpoints: Vec<(String, Spot)> = Vec::new();
    for table in root.tables("serial") {
        let port = table.key("port").spot();
        let (id, settings) = serial(table, surroundings);
        if let Some(settings) = &settings {
            if let Target::Serial(serial) = &settings.target {
                let path = PathBuf::from(&*serial.path);
                let real = surroundings.canonical(&path).unwrap_or(path);
                check_port(root, &mut ports, real, port);
            }
        }
        links.extend(id.map(|(id, spot)| LinkEntry { id, spot, kind: settings.map(LinkKind::Bus) }));
    }
    for table in root.tables("modbus_tcp") {
        let spot = table.key("address").spot();
        let (id, settings) = modbus_tcp(table);
        if let Some(BusSettings { target: Target::Tcp { address, .. }, .. }) = &settings {
            if let Some((_, earlier)) = endpoints.iter().find(|(other, _)| **other == **address) {
                let found = format!("{address} is a bus of its own already ({})", earlier.reference());
                let hint = "many gateways take one connection only; put their units on one bus";
                root.report().add(Problem::warning(&spot, found).hint(hint));
            }
            endpoints.push((address.to_string(), spot));
        }
        links.extend(id.map(|(id, spot)| LinkEntry { id, spot, kind: settings.map(LinkKind::Bus) }));
    }
    for table in root.tables("mqtt") {
        let (id, settings) = mqtt(table, gateway, surroundings);
        links.extend(id.map(|(id, spot)| LinkEntry { id, spot, kind: settings.map(LinkKind::Broker) }));
    }
    check_ids(root, &links);
    links
}

/// An id with its place.
pub(super) type Id = Option<(Arc<str>, Spot)>;

fn mqtt(table: Table<'_>, gateway: &str, surroundings: &dyn Surroundings) -> (Id, Option<BrokerSettings>) {
    let id = id(&table);
    let endpoint = broker_address(&table);
    let version = table.key("version");
    if version.read(|node| node.word(&[("3.1.1", false), ("5", true)])) == Some(true) {
        let found = "this version speaks MQTT 3.1.1 only, which brokers for 5 understand as well";
        table.report().add(Problem::warning(&version.spot(), found).allowed("\"3.1.1\""));
    }
    let username = table.key("username").read(Node::line);
    let password = password(&table, surroundings);
    let client_id = table.key("client_id").read(|node| {
        node.parse("1 to 64 characters without control characters", |text| {
            let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            fits.then(|| Arc::<str>::from(text))
        })
    });
    let range = Duration::from_secs(5)..=Duration::from_secs(3600);
    let keep_alive =
        table.key("keep_alive").read(|node| node.duration(range)).unwrap_or(Duration::from_secs(30));
    let spot = table.key("username").spot();
    if username.is_none() && password.is_some() {
        table.report().add(Problem::error(&spot, "missing, but there is a password").allowed("a user name"));
    }
    table.finish();
    let settings = id.as_ref().zip(endpoint).map(|((id, _), endpoint)| BrokerSettings {
        id: Arc::clone(id),
        host: endpoint.host.as_str().into(),
        port: endpoint.port,
        display: format!("mqtt://{}", endpoint.show()).into(),
        client_id: client_id.unwrap_or_else(|| format!("pentad-{gateway}-{id}").into()),
        login: username.map(|name| (name.into(), password.unwrap_or_else(|| Secret::new("")))),
        keep_alive,
    });
    (id, settings)
}

/// The address of a broker. Nothing of an address that may hold credentials is shown.
fn broker_address(table: &Table<'_>) -> Option<Endpoint> {
    const ALLOWED: &str = "mqtt://, a host and perhaps a port, as in \"mqtt://127.0.0.1:1883\"";
    let url = table.key("url").required(ALLOWED);
    let hides = url.node().is_some_and(|node| node.holds('@'));
    let url = if hides { url.secret() } else { url };
    url.read(|node| {
        let text = node.text()?;
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme {
            "mqtts" | "ws" | "wss" => {
                let found = format!("{scheme} is not available in this version");
                table.report().add(Problem::error(&url.spot(), found).allowed(ALLOWED));
                None
            }
            "mqtt" if !hides => {
                node.parse(ALLOWED, |_| Endpoint::parse(rest.strip_suffix('/').unwrap_or(rest), MQTT_PORT))
            }
            _ => {
                let hint = hides.then(|| "credentials go into username and password_file".to_owned());
                node.wrong_with(ALLOWED, hint);
                None
            }
        }
    })
}

fn password(table: &Table<'_>, surroundings: &dyn Surroundings) -> Option<Secret> {
    let inline = table.key("password").secret();
    let from = table.key("password_file");
    if inline.given() && from.given() {
        let problem = Problem::error(&from.spot(), "password and password_file are both given");
        table.report().add(problem.allowed("one of them"));
    }
    let path = file(&from, surroundings);
    let read = path.and_then(|path| match surroundings.read(&path) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            let found = format!("{} cannot be read: {error}", path.display());
            table.report().add(Problem::error(&from.spot(), found));
            None
        }
    });
    inline.read(Node::text).map(Secret::new).or(read)
}

pub(super) fn id(table: &Table<'_>) -> Id {
    let entry = table.key("id").required(scalar::ID_RULE);
    entry.read(Node::id).map(|id| (id, entry.spot()))
}

fn check_port(root: &Table<'_>, ports: &mut Vec<(PathBuf, Spot)>, real: PathBuf, spot: Spot) {
    if let Some((_, earlier)) = ports.iter().find(|(other, _)| *other == real) {
        let found = format!("{} is used already by {}", real.display(), earlier.path);
        let problem = Problem::error(&spot, found).allowed("one bus for each serial port");
        root.report().add(problem.hint(format!("see {}", earlier.reference())));
    }
    ports.push((real, spot));
}

fn check_ids(root: &Table<'_>, links: &[LinkEntry]) {
    for (at, link) in links.iter().enumerate() {
        if let Some(earlier) = links.iter().take(at).find(|earlier| earlier.id == link.id) {
            let found = format!("{} is the id of {} already", link.id, earlier.spot.path);
            let problem =
                Problem::error(&link.spot, found).allowed("an id of its own among all buses and brokers");
            root.report().add(problem.hint(format!("see {}", earlier.spot.reference())));
        }
    }
}

//! Puts the ways to devices together: `[[serial]]` and `[[modbus_tcp]]` from `buses.rs`, `[[mqtt]]` from `broker.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use super::Surroundings;
use super::broker;
use super::buses::{modbus_tcp, serial};
use super::discovery::{Stock, Ways};
use super::node::Node;
use super::problem::{Problem, Spot};
use super::reader::Table;
use super::scalar;
use crate::drivers::modbus::{BusSettings, Target};
use crate::drivers::mqtt::BrokerSettings;
use crate::model::device::Link;

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
    /// With how devices appear there.
    Broker(Box<BrokerSettings>, Ways),
}

impl LinkEntry {
    /// How devices appear there, if they do.
    pub(super) fn ways(&self) -> Option<&Ways> {
        match &self.kind {
            Some(LinkKind::Broker(_, ways)) => Some(ways).filter(|ways| !ways.is_empty()),
            Some(LinkKind::Bus(_)) | None => None,
        }
    }

    /// As clients see it.
    pub(super) fn link(&self) -> Option<Link> {
        let (address, readable) = match self.kind.as_ref()? {
            LinkKind::Bus(settings) => match &settings.target {
                Target::Serial(serial) => (Arc::clone(&serial.path), true),
                Target::Tcp { address, .. } => (Arc::clone(address), true),
            },
            LinkKind::Broker(settings, _) => (Arc::clone(&settings.display), false),
        };
        Some(Link { id: Arc::clone(&self.id), address, readable })
    }
}

/// Every bus and broker, in the order serial, TCP, MQTT.
pub(super) fn links(root: &Table<'_>, stock: Stock<'_>, surroundings: &dyn Surroundings) -> Vec<LinkEntry> {
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
        let (id, settings, ways) = broker::broker(table, stock, surroundings);
        let kind = settings.map(|settings| LinkKind::Broker(Box::new(settings), ways));
        links.extend(id.map(|(id, spot)| LinkEntry { id, spot, kind }));
    }
    check_ids(root, &links);
    links
}

/// An id with its place.
pub(super) type Id = Option<(Arc<str>, Spot)>;

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

//! The gateway in the vendor's words: metrics, alarms and nodes with their numbers.
//!
//! Numbers count from 1 over everything there is, whoever asks, so that two clients with different rights mean the
//! same by the same number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::client::Client;
use crate::model::device::{Device, Link};
use crate::model::directory::Directory;
use crate::model::product::{AlarmRule, Product, Property};

/// A metric: properties of one id in all products are one metric.
#[derive(Debug)]
pub(super) struct MetricEntry<'a> {
    pub id: u64,
    /// The name that all of them bear, else their id: the oil of a press has no say in what a lamp measures.
    pub name: &'a str,
    /// The unit that all of them are measured in, else nothing.
    pub unit: &'a str,
    pub enum_name: String,
    /// Id of the first property that it stands for.
    property: &'a Arc<str>,
}

impl MetricEntry<'_> {
    /// Whether a client means this metric: by its number or its name.
    pub(super) fn means(&self, text: &str) -> bool {
        self.id.to_string() == text || self.enum_name.eq_ignore_ascii_case(text)
    }
}

/// An alarm rule of a product.
#[derive(Debug)]
pub(super) struct AlarmEntry<'a> {
    pub id: u64,
    pub rule: &'a AlarmRule,
    /// Number of its metric.
    pub metric: u64,
}

/// A bus or broker link.
#[derive(Debug)]
pub(super) struct NodeEntry<'a> {
    pub id: u64,
    pub link: &'a Arc<Link>,
}

/// The name that clients look a metric up by.
pub(super) fn enum_name(property: &str) -> String {
    property.to_uppercase()
}

/// Every metric of a product that the client sees a device of.
pub(super) fn metrics<'a>(directory: &'a Directory, client: &Client) -> Vec<MetricEntry<'a>> {
    let visible = visible_products(directory, client);
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut entries: Vec<MetricEntry<'a>> = Vec::new();
    for (id, product, property, enum_name) in numbered(directory) {
        if !visible.contains(&*product.id) {
            continue;
        }
        let unit = property.unit.as_deref().unwrap_or_default();
        let place = *places.entry(id).or_insert(entries.len());
        if let Some(entry) = entries.get_mut(place) {
            if entry.name != &*property.name {
                entry.name = &property.id;
            }
            if entry.unit != unit {
                entry.unit = "";
            }
        } else {
            let name = &property.name;
            entries.push(MetricEntry { id, name, unit, enum_name, property: &property.id });
        }
    }
    entries
}

/// The number of a metric; `None` when the configuration no longer has it.
pub(super) fn metric_id(directory: &Directory, enum_name: &str) -> Option<u64> {
    numbered(directory).into_iter().find(|(.., name)| name == enum_name).map(|(id, ..)| id)
}

/// The property behind a metric that the client sees, by number or name.
pub(super) fn property(directory: &Directory, client: &Client, metric: &str) -> Option<Arc<str>> {
    metrics(directory, client)
        .iter()
        .find(|entry| entry.means(metric))
        .map(|entry| Arc::clone(entry.property))
}

/// Every alarm rule of a product that the client sees a device of.
pub(super) fn alarms<'a>(directory: &'a Directory, client: &Client) -> Vec<AlarmEntry<'a>> {
    let visible = visible_products(directory, client);
    let rules = numbered(directory).into_iter().flat_map(|(metric, product, property, _)| {
        property.alarms.iter().map(move |rule| (metric, product, rule))
    });
    (1..)
        .zip(rules)
        .filter(|(_, (_, product, _))| visible.contains(&*product.id))
        .map(|(id, (metric, _, rule))| AlarmEntry { id, rule, metric })
        .collect()
}

/// The number of a product's alarm rule; zero when there is none.
pub(super) fn alarm_id(directory: &Directory, product: &str, rule: &str) -> u64 {
    let rules = directory.products().flat_map(|product| {
        let rules = product.properties.iter().flat_map(|property| &property.alarms);
        rules.map(move |rule| (&product.id, &rule.id))
    });
    (1..).zip(rules).find(|(_, (p, r))| ***p == *product && ***r == *rule).map_or(0, |(id, _)| id)
}

/// Every link that the client sees a device on.
pub(super) fn nodes<'a>(directory: &'a Directory, client: &Client) -> Vec<NodeEntry<'a>> {
    let seen: HashSet<&str> = visible_devices(directory, client).map(|device| &*device.link).collect();
    let entries = (1..).zip(directory.links()).map(|(id, link)| NodeEntry { id, link });
    entries.filter(|entry| seen.contains(&*entry.link.id)).collect()
}

/// The number of a link; zero when there is none.
pub(super) fn node_id(directory: &Directory, link: &str) -> u64 {
    (1..).zip(directory.links()).find(|(_, known)| *known.id == *link).map_or(0, |(id, _)| id)
}

/// Whether a client means this node: by its number or its name.
pub(super) fn means_node(text: &str, directory: &Directory, link: &str) -> bool {
    text == link || text.parse().is_ok_and(|id: u64| id != 0 && id == node_id(directory, link))
}

/// The device behind a node and a mediaId, if the client sees it.
pub(super) fn stream<'a>(
    directory: &'a Directory,
    client: &Client,
    node: &str,
    media: &str,
) -> Option<&'a Arc<Device>> {
    let device = directory.device(media)?;
    (client.sees(device) && means_node(node, directory, &device.link)).then_some(device)
}

/// Every property with the number of its metric.
fn numbered(directory: &Directory) -> Vec<(u64, &Product, &Property, String)> {
    let mut numbers: HashMap<String, u64> = HashMap::new();
    let mut next = 1;
    let mut all = Vec::new();
    for product in directory.products() {
        for property in &product.properties {
            let name = enum_name(&property.id);
            let number = *numbers.entry(name.clone()).or_insert(next);
            next += u64::from(number == next);
            all.push((number, &**product, property, name));
        }
    }
    all
}

fn visible_devices<'a>(directory: &'a Directory, client: &Client) -> impl Iterator<Item = &'a Arc<Device>> {
    directory.devices().iter().filter(move |device| client.sees(device))
}

fn visible_products<'a>(directory: &'a Directory, client: &Client) -> HashSet<&'a str> {
    visible_devices(directory, client).map(|device| &*device.product.id).collect()
}

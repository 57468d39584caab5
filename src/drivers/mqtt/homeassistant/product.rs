//! What an announcement says, and how all of one device's become one device with one product.
//!
//! Pure. Ids are the same for the same announcements, in whichever order they come: those of a device are taken in the order of
//! their topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::super::MqttDevice;
use super::super::map::{Availability, AvailabilityMode, MqttMap};
use super::entity::{Entity, Fault, left_out};
use super::keys::Keys;
use super::{ConfigTopic, ENTITIES, LARGEST, Scheme, kinds};
use crate::model::device::Device;
use crate::model::identity;
use crate::model::product::Product;

pub use super::super::map::AvailabilityMode as Mode;

/// What stands on one topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announced {
    /// The device's id in the gateway.
    pub device: Arc<str>,
    /// The device's name for people, if it has one.
    pub name: Option<Arc<str>>,
    /// Maker and model, if they are said.
    pub model: Option<Arc<str>>,
    /// What it has.
    pub entities: Vec<Entity>,
    /// What is left out, each with its reason.
    pub left_out: Vec<String>,
}

/// Why nothing can be made of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// See [`LARGEST`].
    #[error("it has more than {LARGEST} bytes")]
    Large,
    /// Neither JSON nor an object.
    #[error("it is no JSON object")]
    NoObject,
    /// A whole device must say who it is.
    #[error("it does not say by which identifiers its device is known")]
    Nobody,
}

/// Reads an announcement. `None` for one that only says that it will be told under another topic from now on.
pub fn parse(place: ConfigTopic<'_>, payload: &[u8]) -> Result<Option<Announced>, ParseError> {
    if payload.len() > LARGEST {
        return Err(ParseError::Large);
    }
    let json: Json = serde_json::from_slice(payload).map_err(|_| ParseError::NoObject)?;
    let shared = Keys::of(json.as_object().ok_or(ParseError::NoObject)?);
    if shared.is_only("migrate_discovery") {
        return Ok(None);
    }
    let whole = place.component == "device";
    let device = shared.device().unwrap_or_default();
    let mut known = device.list("identifiers");
    known.extend(device.get("connections").into_iter().flat_map(connections));
    let own = shared.text("unique_id").unwrap_or_else(|| place.object.to_owned());
    let identifier = match known.first() {
        Some(first) => first.clone(),
        None if whole => return Err(ParseError::Nobody),
        None => own,
    };
    let model: Vec<Arc<str>> = ["manufacturer", "model"].iter().filter_map(|key| device.name(key)).collect();
    let mut announced = Announced {
        device: identity::id(&identifier).into(),
        name: device.name("name"),
        model: (!model.is_empty()).then(|| model.join(" ").into()),
        ..Announced::default()
    };
    known.extend(place.node.map(str::to_owned));
    known.extend(announced.name.as_deref().map(str::to_owned));
    known.push(identifier);
    if !whole {
        announced.take(place.component, &short(place.object, &known, place.component), &shared);
        return Ok(Some(announced));
    }
    for (name, keys) in shared.named("components") {
        let Some(component) = keys.text("platform") else {
            announced.left_out.push(left_out("?", name, &"it does not say of which platform it is"));
            continue;
        };
        // With nothing else it says that the component is no more.
        if keys.is_only("platform") || announced.entities.len() >= ENTITIES {
            continue;
        }
        announced.take(&component, &short(name, &known, &component), &keys.over(&shared));
    }
    Ok(Some(announced))
}

impl Announced {
    fn take(&mut self, component: &str, id: &str, keys: &Keys) {
        let (entity, faults) = kinds::make(component, id.to_owned(), keys);
        let named = |fault: &Fault| left_out(component, id, fault);
        self.left_out.extend(faults.iter().map(named));
        self.entities.extend(entity);
    }
}

/// The values of pairs such as `["mac", "02:5b:..."]`.
fn connections(json: &Json) -> Vec<String> {
    let pairs = json.as_array().into_iter().flatten();
    pairs.filter_map(|pair| pair.get(1)?.as_str().map(str::to_owned)).collect()
}

/// The name of an entity without the device's own in front of it; the kind where nothing else is left.
fn short(name: &str, known: &[String], component: &str) -> String {
    let mut rest = name;
    for prefix in known {
        let prefix = identity::id(prefix);
        let cut = rest.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(&prefix));
        let after = cut.and_then(|_| rest.get(prefix.len()..));
        if let Some(after) = after.filter(|after| after.is_empty() || after.starts_with(['_', '-', '.'])) {
            rest = after.trim_start_matches(['_', '-', '.']);
        }
    }
    if rest.is_empty() { component.to_owned() } else { identity::id(rest) }
}

impl Scheme {
    /// The device that these announcements are of, in the order of their topics, and what is left out of it.
    pub fn device(&self, id: &Arc<str>, announced: &[&Announced]) -> (MqttDevice, Vec<String>) {
        let mut left: Vec<String> = announced.iter().flat_map(|each| each.left_out.iter().cloned()).collect();
        let all = announced.iter().flat_map(|each| &each.entities);
        let (entities, over): (Vec<_>, Vec<_>) = all.enumerate().partition(|(at, _)| *at < ENTITIES);
        if !over.is_empty() {
            left.push(format!("{} entities beyond the first {ENTITIES}", over.len()));
        }
        let entities: Vec<&Entity> = entities.into_iter().map(|(_, entity)| entity).collect();
        let name = announced.iter().find_map(|each| each.name.clone()).unwrap_or_else(|| Arc::clone(id));
        let model = announced.iter().find_map(|each| each.model.clone());
        let product = identity::id(&format!("ha-{id}"));
        let mut built = Product {
            name: model.unwrap_or_else(|| Arc::clone(&name)),
            type_id: identity::type_id(&product).into(),
            id: product.into(),
            properties: Vec::new(),
            functions: Vec::new(),
            events: Vec::new(),
        };
        let (availability, availability_mode) = availability(&entities);
        let mut map = MqttMap { availability, availability_mode, ..MqttMap::default() };
        let (mut values, mut calls, mut events) = (Names::default(), Names::default(), Names::default());
        for entity in entities {
            for (property, point) in &entity.properties {
                let mut property = property.clone();
                property.id = values.take(entity, &property.id);
                property.report = self.report.clone();
                property.stale_after = property.stale_after.or(self.stale_after);
                built.properties.push(property);
                map.properties.push(Some(point.clone()));
            }
            for (function, call) in &entity.functions {
                let mut function = function.clone();
                function.id = calls.take(entity, &function.id);
                built.functions.push(function);
                map.functions.push(Some(call.clone()));
            }
            for (event, occurrence) in &entity.events {
                let mut event = event.clone();
                event.id = events.take(entity, &event.id);
                built.events.push(event);
                map.events.push(Some(occurrence.clone()));
            }
        }
        let device = Device {
            name,
            product: Arc::new(built),
            link: Arc::clone(&self.link),
            project: Arc::clone(&self.project),
            area: Arc::clone(&self.area),
            tags: self.tags.clone(),
            uuid: identity::uuid(&self.gateway, id).into(),
            mac: identity::mac(&self.gateway, id).into(),
            id: Arc::clone(id),
        };
        (MqttDevice { device: Arc::new(device), topic: Arc::clone(id), map: Arc::new(map) }, left)
    }
}

/// Ids that are taken.
#[derive(Debug, Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    /// An id of its own: the entity's, with the part's behind it; where that is taken, also with the kind, and a number.
    fn take(&mut self, entity: &Entity, part: &str) -> Arc<str> {
        let join = |name: &str, part: &str| {
            identity::id(&if part.is_empty() { name.to_owned() } else { format!("{name}_{part}") })
        };
        let plain = join(&entity.id, part);
        let sorted = join(&join(&entity.id, &entity.component), part);
        let numbered = (2_usize..).map(|number| join(&sorted, &number.to_string()));
        let free =
            [plain, sorted.clone()].into_iter().chain(numbered).find(|id| !self.0.contains(id.as_str()));
        let id: Arc<str> = free.unwrap_or(sorted).into();
        self.0.insert(Arc::clone(&id));
        id
    }
}

/// What says of the whole device that it is there: the topics that all entities share which have any. What only one of them
/// has says nothing of the others. Where they share none, the device is there as long as one of them is.
fn availability(entities: &[&Entity]) -> (Vec<Availability>, Mode) {
    let mut all = entities.iter().map(|entity| &entity.availability).filter(|(_, topics)| !topics.is_empty());
    let Some((mode, first)) = all.next() else { return (Vec::new(), Mode::All) };
    let mut shared = first.clone();
    let mut every: BTreeMap<Arc<str>, Availability> = BTreeMap::new();
    let by_topic = |topics: &[Availability]| -> Vec<(Arc<str>, Availability)> {
        topics.iter().map(|each| (Arc::clone(&each.place.topic), each.clone())).collect()
    };
    every.extend(by_topic(first));
    for (_, topics) in all {
        shared.retain(|each| topics.contains(each));
        every.extend(by_topic(topics));
    }
    if shared.is_empty() { (every.into_values().collect(), AvailabilityMode::Any) } else { (shared, *mode) }
}

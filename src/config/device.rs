//! Reads `[[device]]` and puts devices, products and links together.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use super::links::{LinkEntry, LinkKind};
use super::node::Node;
use super::problem::{Problem, Report, Spot};
use super::product::{ProductEntry, Products};
use super::reader::Table;
use super::{scalar, tuning};
use crate::drivers::modbus::{ModbusDevice, Target};
use crate::drivers::mqtt::MqttDevice;
use crate::drivers::mqtt::map::{MqttMap, Part};
use crate::drivers::mqtt::packet::Version;
use crate::model::device::{Device, Gateway};
use crate::model::identity;
use crate::model::product::Product;

/// A device on its link.
#[derive(Debug)]
pub(super) enum Attached {
    Modbus(ModbusDevice),
    Mqtt(MqttDevice),
}

impl Attached {
    pub(super) fn device(&self) -> &Arc<Device> {
        match self {
            Self::Modbus(device) => &device.device,
            Self::Mqtt(device) => &device.device,
        }
    }
}

/// What a device is put together from.
#[derive(Debug)]
pub(super) struct Parts<'p> {
    pub(super) gateway: &'p Gateway,
    pub(super) products: &'p Products,
    pub(super) links: &'p [LinkEntry],
    /// The first link of each id.
    pub(super) by_id: HashMap<&'p str, &'p LinkEntry>,
}

/// Every device, in the order of the configuration.
pub(super) fn devices(root: &Table<'_>, parts: &Parts<'_>) -> Vec<Attached> {
    let mut attached: Vec<(Attached, Spot)> = Vec::new();
    let mut ids: HashMap<Arc<str>, Spot> = HashMap::new();
    for table in root.tables("device") {
        let spot = table.spot();
        let entry = table.key("id").required(scalar::ID_RULE);
        let id = entry.read(Node::id);
        if let Some(id) = &id {
            match ids.entry(Arc::clone(id)) {
                Slot::Vacant(free) => drop(free.insert(entry.spot())),
                Slot::Occupied(earlier) => {
                    let problem = Problem::error(&entry.spot(), format!("device {id} exists already"));
                    root.report().add(problem.hint(format!("see {}", earlier.get().reference())));
                }
            }
        }
        attached.extend(device(table, id, parts).map(|device| (device, spot)));
    }
    check_identities(root, &attached);
    check_places(root, &attached);
    attached.into_iter().map(|(device, _)| device).collect()
}

fn device(table: Table<'_>, id: Option<Arc<str>>, parts: &Parts<'_>) -> Option<Attached> {
    let name = table.key("name").read(Node::line);
    let product = known_product(&table, parts.products);
    let bus = table.key("bus");
    let mqtt = table.key("mqtt");
    match (bus.given(), mqtt.given()) {
        (false, false) => {
            let problem = Problem::error(&table.spot(), "neither bus nor mqtt");
            table.report().add(
                problem.allowed("bus with the id of a serial or modbus_tcp, or mqtt with that of a broker"),
            );
        }
        (true, true) => {
            let problem = Problem::error(&mqtt.spot(), "bus and mqtt are both given");
            table.report().add(problem.allowed("one of them"));
        }
        (true, false) | (false, true) => {}
    }
    let bus = bus.read(|node| link(node, parts, true));
    let mqtt = mqtt.read(|node| link(node, parts, false));
    let on_bus = bus.is_some();
    let model =
        tuning::tuned(&table, product.map(|entry| if on_bus { &entry.polled } else { &entry.product }));
    let unit = unit(&table, bus);
    let topic = topic(&table, mqtt.is_some());
    let uuid = table.key("uuid").read(|node| {
        node.parse("four groups of four hex digits, as in \"E07E-8972-925A-C99B\"", scalar::uuid)
    });
    let mac =
        table.key("mac").read(|node| node.parse("twelve hex digits, as in \"0000000000A1\"", scalar::mac));
    let project = table.key("project").read(Node::digits);
    let area = table.key("area").read(Node::digits);
    let tags = table.key("tags").read(|node| node.list_of(|item| item.line().map(Arc::from)));
    let spot = table.key("product").spot();
    let report = table.report();
    table.finish();

    let (id, product, model, link, gateway) = (id?, product?, model?, bus.or(mqtt)?, parts.gateway);
    let device = Arc::new(Device {
        name: name.map_or_else(|| Arc::clone(&id), Arc::from),
        product: model,
        link: Arc::clone(&link.id),
        project: project.unwrap_or_else(|| Arc::clone(&gateway.project)),
        area: area.unwrap_or_else(|| Arc::clone(&gateway.area)),
        tags: tags.unwrap_or_default(),
        uuid: uuid.unwrap_or_else(|| identity::uuid(&gateway.id, &id)).into(),
        mac: mac.unwrap_or_else(|| identity::mac(&gateway.id, &id)).into(),
        id,
    });
    match link.kind.as_ref()? {
        LinkKind::Bus(_) => {
            let Some(map) = &product.modbus else {
                unbound("Modbus", &device.product.id, report, &spot);
                return None;
            };
            let bound = |at: usize| map.functions.get(at).is_some_and(|steps| !steps.is_empty());
            check_functions("Modbus", &device.product, bound, report, &spot);
            Some(Attached::Modbus(ModbusDevice { map: Arc::clone(map), unit: unit?, device }))
        }
        LinkKind::Broker(settings, _) => {
            let map = bound_to_mqtt(product, settings.version, report, &spot)?;
            let topic = topic.unwrap_or_else(|| Arc::clone(&device.id));
            Some(Attached::Mqtt(MqttDevice { device, topic, map }))
        }
    }
}

/// How a product travels over a broker of this version, if it can.
pub(super) fn bound_to_mqtt(
    entry: &ProductEntry,
    version: Version,
    report: &Report,
    spot: &Spot,
) -> Option<Arc<MqttMap>> {
    let product = &entry.product;
    let Some(map) = &entry.mqtt else {
        unbound("MQTT", &product.id, report, spot);
        return None;
    };
    let bound = |at: usize| matches!(map.functions.get(at), Some(Some(_)));
    check_functions("MQTT", product, bound, report, spot);
    check_version(version, map, &product.id, report, spot);
    Some(Arc::clone(map))
}

/// What only MQTT 5 carries needs a broker that is spoken to in it.
fn check_version(version: Version, map: &MqttMap, product: &str, report: &Report, spot: &Spot) {
    if version == Version::V5 {
        return;
    }
    let wrong = |what: &str| {
        let found = format!("product {product} has {what} properties of MQTT 5");
        report.add(Problem::error(spot, found).allowed("a broker with version = \"5\""));
    };
    let points = || map.properties.iter().flatten();
    let calls = map.functions.iter().flatten().filter_map(|call| call.answer.as_ref());
    let requests = || points().flat_map(|point| [point.write.as_ref(), point.read.as_ref()]).flatten();
    let replies = requests().filter_map(|request| request.reply.as_ref()?.answer.as_ref());
    if calls.chain(replies).any(|answer| answer.properties) {
        wrong("answers that are known by");
    }
    let is_user = |part: &Part| matches!(part, Part::User(_));
    let answers = map.functions.iter().flatten().filter_map(|call| call.answer.as_ref());
    let outputs = answers.flat_map(|answer| &answer.outputs);
    let params = map.events.iter().flatten().flat_map(|event| &event.params);
    let values = points().flat_map(|point| &point.sources).map(|source| &source.part);
    if values.chain(outputs.chain(params).flatten()).any(is_user) {
        wrong("values that travel as");
    }
    let calls = map.functions.iter().flatten().map(|call| &call.publish);
    if requests().chain(calls).any(|publish| !publish.user.is_empty()) {
        wrong("requests that carry");
    }
    if map.places().filter_map(|place| place.when.as_ref()).any(|when| matches!(when.part, Part::User(_))) {
        wrong("conditions on");
    }
}

fn unbound(kind: &str, product: &str, report: &Report, spot: &Spot) {
    let found = format!("product {product} has nothing on {kind}");
    report.add(Problem::error(spot, found).allowed(format!("a product that is bound to {kind}")));
}

/// Warns of functions that do nothing on this kind of link.
fn check_functions(
    kind: &str,
    product: &Product,
    bound: impl Fn(usize) -> bool,
    report: &Report,
    spot: &Spot,
) {
    for (at, function) in product.functions.iter().enumerate() {
        if !bound(at) && function.steps.is_empty() {
            let found = format!("function {} of {} has nothing on {kind}", function.id, product.id);
            report.add(Problem::warning(spot, found).hint("a call of it does nothing"));
        }
    }
}

/// What is said where no product at all was found.
const WITHOUT_PRODUCTS: &str = "none: there is no product, neither in products/ beside the configuration nor in the folder that --products names";

/// The product that a table names.
pub(super) fn known_product<'p>(table: &Table<'_>, products: &'p Products) -> Option<&'p ProductEntry> {
    let entry = table.key("product").required("the id of a product");
    entry.read(|node| {
        let id = node.text()?;
        let product = products.get(id);
        if product.is_none() {
            let known: Vec<&str> = products.keys().map(|id| &**id).collect();
            unknown(node, "product", id, &known, WITHOUT_PRODUCTS);
        }
        product?.as_ref()
    })
}

fn link<'p>(node: &Node<'_>, parts: &Parts<'p>, bus: bool) -> Option<&'p LinkEntry> {
    let id = node.text()?;
    let is_bus = |link: &LinkEntry| match &link.kind {
        Some(LinkKind::Bus(_)) => Some(true),
        Some(LinkKind::Broker(..)) => Some(false),
        None => None,
    };
    let (what, other) = if bus { ("bus", "mqtt") } else { ("broker", "bus") };
    match parts.by_id.get(id).copied() {
        Some(link) if is_bus(link).is_none_or(|is| is == bus) => Some(link),
        Some(_) => {
            let problem = Problem::error(&node.spot(), format!("{id:?} is no {what}"));
            node.report().add(problem.hint(format!("did you mean {other} = {id:?}?")));
            None
        }
        None => {
            let known: Vec<&str> =
                parts.links.iter().filter(|link| is_bus(link) == Some(bus)).map(|link| &*link.id).collect();
            unknown(node, what, id, &known, &format!("none: there is no {what}"));
            None
        }
    }
}

/// Most names that are listed where one of them was probably meant: the shipped products would fill a screen for each slip.
const LISTED: usize = 12;

fn unknown(node: &Node<'_>, what: &str, id: &str, known: &[&str], without: &str) {
    if node.report().is_incomplete() {
        return;
    }
    let mut problem = Problem::error(&node.spot(), format!("unknown {what} {id:?}")).meant(id, known);
    if known.is_empty() {
        problem.allowed = Some(without.to_owned());
    } else if problem.hint.is_none() || known.len() <= LISTED {
        problem.allowed = Some(known.join(", "));
    }
    node.report().add(problem);
}

/// The unit address; on a serial line 0 is the broadcast, and 248 to 255 are reserved.
fn unit(table: &Table<'_>, bus: Option<&LinkEntry>) -> Option<u8> {
    let entry = table.key("unit");
    if !table.key("bus").given() {
        if entry.given() {
            let problem = Problem::error(&entry.spot(), "a unit without a bus");
            table.report().add(problem.allowed("bus with it"));
        }
        return None;
    }
    let serial = match bus.and_then(|bus| bus.kind.as_ref()) {
        Some(LinkKind::Bus(settings)) => matches!(settings.target, Target::Serial(_)),
        Some(LinkKind::Broker(..)) | None => false,
    };
    let (range, allowed) = if serial { (1..=247, "1 to 247") } else { (0..=255, "0 to 255") };
    entry.required(allowed).read(|node| node.int(range))
}

fn topic(table: &Table<'_>, broker: bool) -> Option<Arc<str>> {
    let entry = table.key("topic");
    if entry.given() && !broker && !table.key("mqtt").given() {
        let problem = Problem::error(&entry.spot(), "a topic without a broker");
        table.report().add(problem.allowed("mqtt with it"));
    }
    entry.read(|node| {
        node.parse("part of a topic, without +, # and braces", |text| {
            let plain = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
            (plain && !text.contains(['+', '#', '{', '}'])).then(|| text.into())
        })
    })
}

/// No two devices may share a name that a client knows them by. Each is told once, with the first that has the name.
fn check_identities(root: &Table<'_>, attached: &[(Attached, Spot)]) {
    let mut taken: HashMap<(&str, &str), (&Device, &Spot)> = HashMap::new();
    for (device, spot) in attached {
        let device = &**device.device();
        for (key, identity) in [("uuid", &*device.uuid), ("mac", &*device.mac)] {
            let (earlier, place) = match taken.entry((key, identity)) {
                Slot::Vacant(free) => {
                    free.insert((device, spot));
                    continue;
                }
                Slot::Occupied(earlier) => *earlier.get(),
            };
            // Devices of the same id are reported as such, and derive the same identities.
            if device.id != earlier.id {
                let found = format!("{identity} is the {key} of {} as well", earlier.id);
                let spot = Spot { path: format!("{}.{key}", spot.path), ..spot.clone() };
                let problem = Problem::error(&spot, found).hint(format!("see {}", place.reference()));
                root.report().add(problem);
            }
        }
    }
}

/// What makes two devices the same thing on their link.
#[derive(PartialEq, Eq, Hash)]
enum Place<'a> {
    Unit(u8),
    /// With the product.
    Topic(&'a str, &'a str),
}

/// No two devices should be the same thing on a bus, or the same topics of a broker. Each is told once, with the first
/// that is there: of many with one unit, all pairs would bury everything else.
fn check_places(root: &Table<'_>, attached: &[(Attached, Spot)]) {
    let mut taken: HashMap<(&str, Place<'_>), (&Device, &Spot)> = HashMap::new();
    for (attached, spot) in attached {
        let device = &**attached.device();
        let place = match attached {
            Attached::Modbus(device) => Place::Unit(device.unit),
            Attached::Mqtt(mqtt) => Place::Topic(&mqtt.topic, &device.product.id),
        };
        let (earlier, there) = match taken.entry((&device.link, place)) {
            Slot::Vacant(free) => {
                free.insert((device, spot));
                continue;
            }
            Slot::Occupied(earlier) => *earlier.get(),
        };
        let see = format!("see {}", there.reference());
        root.report().add(match attached {
            Attached::Modbus(mine) => {
                let found = format!("unit {} of this bus is device {} already", mine.unit, earlier.id);
                Problem::warning(spot, found).hint(see)
            }
            Attached::Mqtt(mine) => {
                let found =
                    format!("topic {:?} of this product is device {} already", &*mine.topic, earlier.id);
                Problem::error(spot, found).allowed("a topic of its own").hint(see)
            }
        });
    }
}

//! Reads `[[product]]`: the thing model. How it is bound to hardware is read beside it, in `binding`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::binding::{modbus, mqtt};
use super::formula;
use super::node::{Lapse, Node};
use super::problem::{Problem, Report, Spot};
use super::reader::Table;
use super::rules::{self, ReportLayer};
use super::scalar;
use super::sequence::{self, Scope};
use crate::drivers::modbus::map::ModbusMap;
use crate::drivers::mqtt::map::{MqttMap, Publish};
use crate::model::check::property_value;
use crate::model::identity;
use crate::model::product::{Access, Function, LeaseRule, Parameter, Product, Property, ReportRule};
use crate::model::value::{Value, ValueType};

const TYPES: [(&str, ValueType); 6] = [
    ("bool", ValueType::Bool),
    ("int", ValueType::Int),
    ("float", ValueType::Float),
    ("string", ValueType::Text),
    ("enum", ValueType::Enum),
    ("object", ValueType::Object),
];

/// The longest lease that a client may ask for, where the product does not say.
const LONGEST_LEASE: Duration = Duration::from_secs(86_400);

/// A product with its bindings.
#[derive(Debug)]
pub(super) struct ProductEntry {
    pub(super) product: Arc<Product>,
    /// The same for a device that is polled: what is not read in time is stale where nothing else is said.
    pub(super) polled: Arc<Product>,
    /// `None` when nothing of it is on Modbus.
    pub(super) modbus: Option<Arc<ModbusMap>>,
    /// `None` when nothing of it is on MQTT.
    pub(super) mqtt: Option<Arc<MqttMap>>,
    pub(super) spot: Spot,
    layer: PathBuf,
}

/// Products by id; `None` for one whose id is known but which could not be read.
pub(super) type Products = BTreeMap<Arc<str>, Option<ProductEntry>>;

/// Every product; one of a later folder replaces one of the same id of an earlier folder.
pub(super) fn products(root: &Table<'_>) -> Products {
    let mut products = Products::new();
    for table in root.tables("product") {
        let layer = layer(table.file()).to_owned();
        let id = table.key("id").required(scalar::ID_RULE);
        let spot = id.spot();
        let id = id.read(Node::id);
        let entry = product(table, id.clone(), layer);
        let Some(id) = id else { continue };
        if let Some(Some(earlier)) = products.get(&id) {
            if entry.as_ref().is_some_and(|entry| entry.layer == earlier.layer) {
                let problem = Problem::error(&spot, format!("product {id} exists already"));
                root.report().add(problem.hint(format!("see {}", earlier.spot.reference())));
            }
        }
        products.insert(id, entry);
    }
    products
}

/// The files of one folder are a layer; a `conf.d` belongs to the folder that it stands in.
fn layer(file: &Path) -> &Path {
    let folder = file.parent().unwrap_or(Path::new(""));
    if folder.file_name().is_some_and(|name| name == "conf.d") {
        folder.parent().unwrap_or(Path::new(""))
    } else {
        folder
    }
}

fn product(table: Table<'_>, id: Option<Arc<str>>, layer: PathBuf) -> Option<ProductEntry> {
    let name = table.key("name").read(Node::line);
    let type_id = table.key("type_id").read(|node| {
        node.parse("1 to 128 letters, digits, '.', '_' or '-'", |text| {
            let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            ((1..=128).contains(&text.len()) && fits).then(|| Arc::<str>::from(text))
        })
    });
    let modbus_settings = modbus::settings(table.table("modbus"));
    let mqtt_settings = mqtt::settings(table.table("mqtt"));

    let Read { names, properties, unsaid, formulas, modbus_points, mqtt_points } =
        properties(&table, &modbus_settings, mqtt_settings.read.as_ref());

    let rows = table.tables("function");
    unique(&table, &rows, "function");
    let mut functions = Vec::new();
    let mut steps = Vec::new();
    let mut publishes = Vec::new();
    for row in rows {
        let scope = Scope { properties: &properties, names: &names, functions: &functions };
        if let Some((function, step, publish)) = function(row, &modbus_settings, scope) {
            functions.push(function);
            steps.push(step);
            publishes.push(publish);
        }
    }
    let rows = table.tables("event");
    unique(&table, &rows, "event");
    let (events, occurrences): (Vec<_>, Vec<_>) =
        rows.into_iter().filter_map(|row| rules::event(row, &properties, &names)).unzip();
    let spot = table.spot();
    let report_to = table.report();
    table.finish();

    let id = id?;
    let on_modbus = modbus_points.iter().any(Option::is_some) || steps.iter().any(|steps| !steps.is_empty());
    let on_mqtt = mqtt_points.iter().any(Option::is_some)
        || publishes.iter().any(Option::is_some)
        || occurrences.iter().any(Option::is_some)
        || !mqtt_settings.publish.is_empty();
    let modbus = on_modbus
        .then(|| Arc::new(modbus_settings.map(report_to, &properties, modbus_points.clone(), steps)));
    let product = Arc::new(Product {
        name: name.map_or_else(|| Arc::clone(&id), Arc::from),
        type_id: type_id.unwrap_or_else(|| identity::type_id(&id).into()),
        id,
        properties,
        functions,
        events,
    });
    let spots: Vec<(usize, Spot)> = formulas.iter().map(|(at, node)| (*at, node.spot())).collect();
    formula::check_cycles(report_to, &product, &spots);
    let intervals = modbus_points.iter().map(|point| point.as_ref().map(|point| point.every));
    let polled = polled(&product, intervals, &unsaid);
    Some(ProductEntry {
        product,
        polled,
        modbus,
        mqtt: on_mqtt.then(|| Arc::new(mqtt_settings.map(mqtt_points, publishes, occurrences))),
        spot,
        layer,
    })
}

/// The properties of a product with what else is said of them.
struct Read<'a> {
    /// The ids of all, also of those that could not be read.
    names: Vec<&'a str>,
    properties: Vec<Property>,
    /// Those of which nothing says when they are stale.
    unsaid: Vec<usize>,
    formulas: Vec<(usize, Node<'a>)>,
    modbus_points: Vec<Option<crate::drivers::modbus::map::Point>>,
    mqtt_points: Vec<Option<crate::drivers::mqtt::map::Point>>,
}

fn properties<'a>(table: &Table<'a>, settings: &modbus::Settings, read: Option<&Publish>) -> Read<'a> {
    let report = table.table("report").map(rules::report).unwrap_or_default();
    let stale_after = table.key("stale_after").read(rules::stale_after);
    let rows = table.tables("property");
    unique(table, &rows, "property");
    let mut all = Read {
        names: rows.iter().filter_map(|row| row.key("id").node()?.quiet_text()).collect(),
        properties: Vec::new(),
        unsaid: Vec::new(),
        formulas: Vec::new(),
        modbus_points: Vec::new(),
        mqtt_points: Vec::new(),
    };
    let mut drafts = Vec::new();
    for row in rows {
        let compute = row.key("compute");
        let own_entry = row.key("stale_after");
        let own = own_entry.read(rules::stale_after);
        let Some((mut property, point, topic)) = property(row, settings, read, &report) else { continue };
        let said = own.or(stale_after);
        property.stale_after = said.and_then(Lapse::time);
        let every = point.as_ref().map(modbus::Draft::every);
        rules::check_stale(table, &own_entry.spot(), property.stale_after, every);
        let position = all.properties.len();
        all.unsaid.extend(said.is_none().then_some(position));
        all.formulas.extend(compute.node().map(|node| (position, node.clone())));
        all.properties.push(property);
        drafts.push(point);
        all.mqtt_points.push(topic);
    }
    formula::compute(&all.formulas, &mut all.properties, &all.names);
    check_alarm_ids(table, &all.properties);
    all.modbus_points = modbus::points(table, &all.properties, drafts);
    all
}

/// The product with a time after which a polled property is stale, for each that nothing is said of.
fn polled(
    product: &Arc<Product>,
    intervals: impl Iterator<Item = Option<Duration>>,
    unsaid: &[usize],
) -> Arc<Product> {
    let mut changed = Product::clone(product);
    for (at, (property, every)) in changed.properties.iter_mut().zip(intervals).enumerate() {
        if unsaid.contains(&at) && property.access.readable() {
            property.stale_after = every.map(rules::stale_by_default);
        }
    }
    if changed == **product { Arc::clone(product) } else { Arc::new(changed) }
}

type BoundProperty = (Property, Option<modbus::Draft>, Option<crate::drivers::mqtt::map::Point>);

fn property(
    table: Table<'_>,
    settings: &modbus::Settings,
    read: Option<&Publish>,
    product_report: &ReportLayer,
) -> Option<BoundProperty> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let name = table.key("name").read(Node::line);
    let kind =
        table.key("type").required("bool, int, float, string, enum, object").read(|node| node.word(&TYPES));
    let kind_or_float = kind.unwrap_or(ValueType::Float);
    let unit = table.key("unit").read(Node::line);
    let words = [("r", Access::Read), ("w", Access::Write), ("rw", Access::ReadWrite)];
    let access = table.key("access").read(|node| node.word(&words)).unwrap_or(Access::Read);
    let range = range(&table, kind);
    let step = table.key("step").read(|node| node.float("a number above 0", |step| step > 0.0));
    let labels = labels(&table, kind);
    let lease = table.table("lease").map(|table| lease(table, kind_or_float, access));
    let report_to = table.report();
    let mut report = ReportRule::default();
    product_report.over(&mut report);
    table.table("report").map(rules::report).unwrap_or_default().over(&mut report);
    let alarms =
        table.tables("alarm").into_iter().filter_map(|row| rules::alarm(row, kind_or_float)).collect();
    let modbus = table.table("modbus");
    let mqtt = table.table("mqtt");
    if table.key("compute").given() {
        let bound = [modbus.as_ref().map(Table::spot), mqtt.as_ref().map(Table::spot)];
        formula::check_unbound(&table, bound, access);
    } else if modbus.is_none() && mqtt.is_none() {
        let problem = Problem::warning(&table.spot(), "bound to nothing, so it never has a value");
        table.report().add(problem.allowed("modbus = { ... }, mqtt = { ... } or compute = \"...\""));
    }
    let point = modbus.and_then(|table| modbus::point(table, settings, kind_or_float, access));
    let topic = mqtt.map(|table| mqtt::point(table, access, read));
    table.finish();
    let id = id?;
    let mut property = Property {
        name: name.map_or_else(|| Arc::clone(&id), Arc::from),
        id,
        kind: kind?,
        unit: unit.map(Arc::from),
        access,
        range,
        step,
        lease: None,
        labels,
        report,
        stale_after: None,
        alarms,
        compute: None,
        on_request: topic.as_ref().is_some_and(|topic| topic.read.is_some()),
    };
    if let Some((Some(rule), spot)) = lease {
        property.lease = Some(checked(&property, rule, &spot, report_to));
    }
    Some((property, point, topic))
}

/// What a property falls back to: `{ safe = 0, default = "30s", longest = "10m" }`.
pub(super) fn lease(table: Table<'_>, kind: ValueType, access: Access) -> (Option<LeaseRule>, Spot) {
    let times = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
    if !access.writable() {
        let problem = Problem::error(&table.spot(), "a lease of a property that cannot be written");
        table.report().add(problem.allowed("access rw or w with it"));
    }
    let safe = table.key("safe").required("the value that is written when a lease is lost");
    let spot = safe.spot();
    let safe = safe.read(|node| node.value(kind));
    let default = table.key("default").read(|node| node.duration(times.clone()));
    let longest = table.key("longest");
    let longest_spot = longest.spot();
    let longest = longest.read(|node| node.duration(times));
    if default.zip(longest).is_some_and(|(default, longest)| default > longest) {
        table.report().add(Problem::error(&longest_spot, "shorter than the default"));
    }
    table.finish();
    let longest = longest.unwrap_or(LONGEST_LEASE.max(default.unwrap_or_default()));
    (safe.map(|safe| LeaseRule { safe, default, longest }), spot)
}

/// The lease with its safe value as it is written; says where it cannot be.
pub(super) fn checked(property: &Property, rule: LeaseRule, spot: &Spot, report: &Report) -> LeaseRule {
    match property_value(property, &rule.safe) {
        Ok(safe) => LeaseRule { safe, ..rule },
        Err(rejection) => {
            report.add(Problem::error(spot, format!("a safe value that cannot be written: {rejection}")));
            rule
        }
    }
}

fn range(table: &Table<'_>, kind: Option<ValueType>) -> Option<(f64, f64)> {
    let entry = table.key("range");
    let range = entry.read(Node::range);
    let numeric = kind.is_none_or(|kind| matches!(kind, ValueType::Int | ValueType::Float));
    if range.is_some() && !numeric {
        let problem = Problem::error(&entry.spot(), "a range for something that is no number");
        table.report().add(problem.allowed("type int or float with it"));
    }
    range
}

/// Names of an enumeration's numbers: `{ 0 = "off", 1 = "on" }`.
fn labels(table: &Table<'_>, kind: Option<ValueType>) -> Vec<(i64, Arc<str>)> {
    const ALLOWED: &str = "whole numbers with their names, as in { 0 = \"off\", 1 = \"on\" }";
    let Some(given) = table.table("labels") else {
        if kind == Some(ValueType::Enum) {
            table.report().add(Problem::error(&table.key("labels").spot(), "missing").allowed(ALLOWED));
        }
        return Vec::new();
    };
    if kind.is_some_and(|kind| kind != ValueType::Enum) {
        let problem = Problem::error(&given.spot(), "labels for something that is no enum");
        table.report().add(problem.allowed("type enum with them"));
    }
    let mut labels: Vec<(i64, Arc<str>)> = Vec::new();
    for (key, node) in given.pairs() {
        match key.parse() {
            Ok(number) => labels.extend(node.line().map(|name| (number, name.into()))),
            Err(_) => node.report().add(Problem::error(&node.spot(), "no whole number").allowed(ALLOWED)),
        }
    }
    labels.sort_by_key(|(number, _)| *number);
    labels
}

type BoundFunction =
    (Function, Vec<crate::drivers::modbus::map::Step>, Option<crate::drivers::mqtt::map::Call>);

fn function(table: Table<'_>, settings: &modbus::Settings, scope: Scope<'_>) -> Option<BoundFunction> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let name = table.key("name").read(Node::line);
    let inputs = parameters(&table, "inputs");
    let stepwise = table.key("steps").given();
    let refusal = (!stepwise).then_some(("an output with a property without steps", "steps with it"));
    let (outputs, reads) = rules::carrying(&table, "outputs", scope.properties, scope.names, refusal);
    let sequence = sequence::steps(&table, &inputs, scope);
    let modbus = table.key("modbus").given();
    let steps: Vec<_> =
        table.tables("modbus").into_iter().filter_map(|row| modbus::step(row, settings, &inputs)).collect();
    let mqtt = table.table("mqtt");
    if !modbus && mqtt.is_none() && !stepwise {
        let problem = Problem::error(&table.spot(), "bound to nothing");
        table.report().add(problem.allowed("modbus = [{ ... }], mqtt = { ... } or steps = [{ ... }]"));
    } else if stepwise && (modbus || mqtt.is_some()) {
        let problem = Problem::error(&table.key("steps").spot(), "steps and a binding stand together");
        table.report().add(problem.allowed("one of them; a step may call a function with a binding"));
    }
    let publish = mqtt.and_then(|table| mqtt::function(table, &inputs, &outputs));
    table.finish();
    let id = id?;
    let name = name.map_or_else(|| Arc::clone(&id), Arc::from);
    Some((Function { id, name, inputs, outputs, steps: sequence, reads }, steps, publish))
}

fn parameters(table: &Table<'_>, key: &'static str) -> Vec<Parameter> {
    let rows = table.tables(key);
    unique(table, &rows, key);
    rows.into_iter().filter_map(parameter).collect()
}

pub(super) fn parameter(table: Table<'_>) -> Option<Parameter> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let types: Vec<_> = TYPES.into_iter().filter(|(_, kind)| *kind != ValueType::Enum).collect();
    let kind = table.key("type").required("bool, int, float, string, object").read(|node| node.word(&types));
    let required = table.key("required").read(Node::bool).unwrap_or_default();
    let range = range(&table, kind);
    table.finish();
    Some(Parameter { id: id?, kind: kind?, required, range })
}

/// Reports rows whose id an earlier row has.
pub(super) fn unique(table: &Table<'_>, rows: &[Table<'_>], what: &str) {
    let mut seen: Vec<(&str, Spot)> = Vec::new();
    for row in rows {
        let entry = row.key("id");
        let Some(id) = entry.node().and_then(Node::quiet_text) else { continue };
        if let Some((_, earlier)) = seen.iter().find(|(other, _)| *other == id) {
            let problem = Problem::error(&entry.spot(), format!("{id:?} stands twice in {what}"));
            table.report().add(problem.hint(format!("see {}", earlier.reference())));
        } else {
            seen.push((id, entry.spot()));
        }
    }
}

fn check_alarm_ids(table: &Table<'_>, properties: &[Property]) {
    let mut seen: Vec<&str> = Vec::new();
    for alarm in properties.iter().flat_map(|property| &property.alarms) {
        if seen.contains(&&*alarm.id) {
            let found = format!("alarm {:?} stands twice", &*alarm.id);
            table
                .report()
                .add(Problem::error(&table.spot(), found).allowed("alarm ids that are unique in a product"));
        }
        seen.push(&alarm.id);
    }
}

/// Whether a value of this type is one that a binding can carry as a number or bit.
pub(super) fn is_numeric(kind: ValueType) -> bool {
    matches!(kind, ValueType::Bool | ValueType::Int | ValueType::Float | ValueType::Enum)
}

/// What a constant of a binding may be.
pub(super) fn constant(node: &Node<'_>) -> Option<Value> {
    node.scalar().filter(|value| {
        let numeric = matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        if !numeric {
            node.wrong("a number, true, false, or an input as in \"{code}\"");
        }
        numeric
    })
}

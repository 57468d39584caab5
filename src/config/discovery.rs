//! Reads `[[mqtt.discover]]`, under which topics devices appear by themselves, and `[mqtt.homeassistant]`, how those are taken
//! that announce themselves.

use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use super::binding::mqtt;
use super::device::{bound_to_mqtt, known_product};
use super::node::{Lapse, Node};
use super::problem::Problem;
use super::product::Products;
use super::reader::{Entry, Table};
use super::{rules, scalar, tuning};
use crate::drivers::announce::FOUND_DEVICES;
use crate::drivers::mqtt::body::When;
use crate::drivers::mqtt::discover::{DEVICE, GATEWAY, Pattern, Rule, USUAL_LIMIT};
use crate::drivers::mqtt::homeassistant::{Scheme, USUAL_PREFIX};
use crate::drivers::mqtt::packet::Version;
use crate::drivers::mqtt::route::{Names, is_topic};
use crate::model::device::Gateway;
use crate::model::product::ReportRule;

const PATTERN: &str = "a topic with {device} in it for the device's name, as in \"zigbee2mqtt/{device}\"";

/// What rules are put together from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock<'p> {
    pub(super) gateway: &'p Gateway,
    pub(super) products: &'p Products,
}

/// How devices appear at a broker.
#[derive(Debug)]
pub(super) struct Ways {
    /// By topics that they report on; the first that fits counts.
    pub(super) rules: Vec<Arc<Rule>>,
    /// By what they announce.
    pub(super) scheme: Option<Arc<Scheme>>,
}

impl Ways {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.scheme.is_none()
    }
}

/// How those are taken that announce themselves: `homeassistant = true`, or a table with what differs from the usual.
fn scheme(broker: &Table<'_>, link: Arc<str>, gateway: &Gateway) -> Option<Scheme> {
    let entry = broker.key("homeassistant");
    let mut scheme = Scheme {
        prefix: USUAL_PREFIX.into(),
        allow: Vec::new(),
        deny: Vec::new(),
        limit: USUAL_LIMIT,
        report: ReportRule::default(),
        stale_after: None,
        link,
        gateway: Arc::clone(&gateway.id),
        project: Arc::clone(&gateway.project),
        area: Arc::clone(&gateway.area),
        tags: Vec::new(),
    };
    if entry.node().is_some_and(Node::is_bool) {
        return entry.read(Node::bool).filter(|on| *on).map(|_| scheme);
    }
    let table = broker.table("homeassistant")?;
    let prefix = |node: &Node<'_>| {
        node.parse("the beginning of topics without wildcards, as in \"homeassistant\"", |text| {
            let plain = is_topic(text) && !text.starts_with('$') && !text.ends_with('/');
            plain.then(|| Arc::<str>::from(text))
        })
    };
    scheme.prefix = table.key("prefix").read(prefix).unwrap_or(scheme.prefix);
    scheme.limit = limit(&table);
    (scheme.allow, scheme.deny) = (globs(&table, "allow"), globs(&table, "deny"));
    if let Some(report) = table.table("report").map(rules::report) {
        report.over(&mut scheme.report);
    }
    scheme.stale_after = table.key("stale_after").read(rules::stale_after).and_then(Lapse::time);
    scheme.project = table.key("project").read(Node::digits).unwrap_or(scheme.project);
    scheme.area = table.key("area").read(Node::digits).unwrap_or(scheme.area);
    let tags = table.key("tags").read(|node| node.list_of(|item| item.line().map(Arc::from)));
    scheme.tags = tags.unwrap_or_default();
    table.finish();
    Some(scheme)
}

fn limit(table: &Table<'_>) -> usize {
    let most = i64::try_from(FOUND_DEVICES).unwrap_or(i64::MAX);
    table.key("limit").read(|node| node.int(1..=most)).unwrap_or(USUAL_LIMIT)
}

/// Texts with `*` and `?`.
fn globs(table: &Table<'_>, key: &'static str) -> Vec<WildMatch> {
    let glob = |item: &Node<'_>| Some(WildMatch::new(item.line()?));
    table.key(key).read(|node| node.list_of(glob)).unwrap_or_default()
}

/// How devices appear at this broker.
pub(super) fn ways(broker: &Table<'_>, link: Option<&Arc<str>>, version: Version, stock: Stock<'_>) -> Ways {
    let scheme = scheme(broker, link.cloned().unwrap_or_default(), stock.gateway).map(Arc::new);
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for table in broker.tables("discover") {
        let spot = table.key("pattern").spot();
        let Some(rule) = rule(table, link, version, stock) else { continue };
        let takes_all = |earlier: &&Arc<Rule>| {
            let wide = earlier.allow.is_empty() && earlier.deny.is_empty() && earlier.when.is_none();
            wide && earlier.pattern.text() == rule.pattern.text() && (earlier.retained || !rule.retained)
        };
        if rules.iter().any(|earlier| takes_all(&earlier)) {
            let found = format!("a rule before takes everything of {} already", rule.pattern.text());
            let problem = Problem::warning(&spot, found);
            broker
                .report()
                .add(problem.hint("give that one a when, allow or deny, or put this one before it"));
        }
        rules.push(Arc::new(rule));
    }
    Ways { rules, scheme }
}

fn rule(table: Table<'_>, link: Option<&Arc<str>>, version: Version, stock: Stock<'_>) -> Option<Rule> {
    let gateway = &stock.gateway.id;
    let pattern = table.key("pattern").required(PATTERN).read(|node| {
        let text = node.text()?.replace(&format!("{{{GATEWAY}}}"), gateway);
        match Pattern::parse(&text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                node.wrong_with(PATTERN, Some(error.to_string()));
                None
            }
        }
    });
    let mut names: Vec<String> =
        pattern.iter().flat_map(Pattern::names).map(|name| format!("{{{name}}}")).collect();
    names.push(format!("{{{GATEWAY}}}"));
    // Of a pattern that cannot be read it is not known what stands in it.
    let names = pattern.is_some().then_some(names.as_slice());
    let product = known_product(&table, stock.products);
    let model = tuning::tuned(&table, product.map(|entry| &entry.product));
    let id = template(&table.key("id"), names, true);
    let name = template(&table.key("name"), names, false);
    let topic = template(&table.key("topic"), names, true);
    let limit = limit(&table);
    let (allow, deny) = (globs(&table, "allow"), globs(&table, "deny"));
    let retained = table.key("retained").read(Node::bool).unwrap_or(true);
    let qos = table.key("qos").read(|node| node.int(0..=2)).unwrap_or(1);
    let when = table.table("when").and_then(|table| mqtt::condition(table, false)).and_then(|condition| {
        // Names in braces stand for nothing here: there is no device yet.
        let names =
            Names { topic: "{topic}".into(), device: "{device}".into(), gateway: Arc::clone(gateway) };
        When::parse(&condition, &names).ok()
    });
    let range = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
    let forget_after =
        table.key("forget_after").read(|node| node.duration_or_off(range)).and_then(Lapse::time);
    let project = table.key("project").read(Node::digits);
    let area = table.key("area").read(Node::digits);
    let tags = table.key("tags").read(|node| node.list_of(|item| item.line().map(Arc::from)));
    let spot = table.key("product").spot();
    let report = table.report();
    table.finish();

    let map = bound_to_mqtt(product?, version, report, &spot)?;
    Some(Rule {
        pattern: pattern?,
        qos,
        retained,
        when,
        allow,
        deny,
        limit,
        forget_after,
        id: id?,
        name: name?,
        topic: topic?,
        product: model?,
        map,
        link: Arc::clone(link?),
        gateway: Arc::clone(gateway),
        project: project.unwrap_or_else(|| Arc::clone(&stock.gateway.project)),
        area: area.unwrap_or_else(|| Arc::clone(&stock.gateway.area)),
        tags: tags.unwrap_or_default(),
    })
}

/// Text with names in braces; the device's name when none is given. `own`: no two devices may share it.
fn template(entry: &Entry<'_>, names: Option<&[String]>, own: bool) -> Option<Arc<str>> {
    let device = format!("{{{DEVICE}}}");
    if !entry.given() {
        return Some(device.into());
    }
    entry.read(|node| {
        let text = node.line()?;
        let Some(names) = names else { return Some(text.into()) };
        let known = scalar::placeholders(text).into_iter().all(|name| names.contains(&format!("{{{name}}}")));
        if !known || (own && !text.contains(&device)) || !is_topic(text) {
            let must = if own { format!("{device} and perhaps ") } else { String::new() };
            let others: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| !own || *name != device).collect();
            node.wrong(format!("text without + and #, with {must}{}", others.join(", ")));
            return None;
        }
        Some(text.into())
    })
}

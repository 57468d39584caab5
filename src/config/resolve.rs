//! From the text of all files to one checked [`Config`], collecting every problem on the way.
//!
//! Does no IO itself: what has to be asked of the machine goes through [`Surroundings`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use super::access::{self, Plant};
use super::device::{self, Attached, Parts};
use super::discovery::{Stock, Ways};
use super::links::{self, LinkEntry, LinkKind};
use super::plan::{self, Plan};
use super::problem::{Problem, Problems, Report};
use super::product;
use super::reader::{Document, Table};
use super::server;
use super::{Broker, Bus, Config, Loaded, Source};
use crate::model::client::ClientBook;

/// What resolving asks of the machine it runs on.
pub(super) trait Surroundings: fmt::Debug {
    /// Where the service manager puts credentials; `None` where that cannot be known.
    fn credentials(&self) -> Option<&Path>;
    /// The text of a file that the configuration names.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Whether it is certain that there is no such file.
    fn missing(&self, path: &Path) -> bool;
    /// The path without symbolic links, if the file exists.
    fn canonical(&self, path: &Path) -> Option<PathBuf>;
    /// What to take instead of the name of a serial port that may mean another adapter after a restart.
    fn stable_name(&self, port: &str) -> Option<String>;
    /// The machine's own time zone.
    fn timezone(&self) -> jiff::tz::TimeZone;
}

/// No machine at all: nothing can be read, nothing is known to be missing, and the time is UTC.
#[derive(Debug)]
struct Nowhere;

impl Surroundings for Nowhere {
    fn credentials(&self) -> Option<&Path> {
        None
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "files are out of reach here"))
    }

    fn missing(&self, _path: &Path) -> bool {
        false
    }

    fn canonical(&self, _path: &Path) -> Option<PathBuf> {
        None
    }

    fn stable_name(&self, _port: &str) -> Option<String> {
        None
    }

    fn timezone(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::UTC
    }
}

/// Resolves sources without looking at any file: the later ones hold where two set the same key, and a product
/// replaces one of the same id that stands in another folder before it.
pub fn resolve(sources: &[Source]) -> Result<Loaded, Problems> {
    resolve_in(sources, &Nowhere, Report::default())
}

/// The same on a machine, with what was found wrong already.
pub(super) fn resolve_in(
    sources: &[Source],
    surroundings: &dyn Surroundings,
    report: Report,
) -> Result<Loaded, Problems> {
    let (config, plan) = build(sources, surroundings, &report);
    let warnings = report.into_result()?;
    Ok(Loaded { config, warnings, plan })
}

/// Builds as much as can be read. It is the whole configuration only if the report stays without errors.
pub(super) fn build(sources: &[Source], surroundings: &dyn Surroundings, report: &Report) -> (Config, Plan) {
    let documents: Vec<Document<'_>> =
        sources.iter().enumerate().filter_map(|(at, source)| Document::parse(at, source, report)).collect();
    let root = Table::root(&documents, report);

    let gateway = server::gateway(&root, surroundings);
    let (server, mut listeners) = server::server(&root, surroundings);
    let history = server::history(&root);
    let products = product::products(&root);
    let stock = Stock { gateway: &gateway, products: &products };
    let links = links::links(&root, stock, surroundings);
    // Of two links of one id, which is a problem already, the first is meant.
    let by_id: HashMap<&str, &LinkEntry> = links.iter().rev().map(|link| (&*link.id, link)).collect();
    let parts = Parts { gateway: &gateway, products: &products, links: &links, by_id };
    let attached = device::devices(&root, &parts);
    let devices: Vec<_> = attached.iter().map(|device| Arc::clone(device.device())).collect();
    let ways: Vec<_> = links.iter().filter_map(LinkEntry::ways).collect();
    let plant = Plant { devices: &devices, ways: &ways };
    let dialects = access::dialects(&root, plant, &mut listeners);
    let clients = access::clients(&root, plant, &listeners);
    server::check_listeners(&root, &listeners);
    server::check_certificate(&root, &server, &dialects);
    access::check_proxies(&root, &server, &dialects);
    access::check_entry(&root, &clients, &dialects);
    check_devices(&root, &links, &attached);
    root.finish();

    let (buses, brokers) = distribute(&links, attached);
    let plan = Plan::of(&buses);
    check_plan(report, &links, &buses, &plan);
    let links = links.iter().filter_map(LinkEntry::link).map(Arc::new).collect();
    let clients = Arc::new(ClientBook::new(clients));
    let config = Config { gateway, server, dialects, history, buses, brokers, devices, links, clients };
    (config, plan)
}

/// Gives every bus and broker its devices.
fn distribute(links: &[LinkEntry], attached: Vec<Attached>) -> (Vec<Bus>, Vec<Broker>) {
    let mut buses = Vec::new();
    let mut brokers = Vec::new();
    for link in links {
        match &link.kind {
            Some(LinkKind::Bus(settings)) => {
                buses.push(Bus { settings: settings.clone(), devices: Vec::new() });
            }
            Some(LinkKind::Broker(settings, Ways { rules, scheme })) => {
                let (settings, rules, scheme) = ((**settings).clone(), rules.clone(), scheme.clone());
                brokers.push(Broker { settings, devices: Vec::new(), rules, scheme });
            }
            None => {}
        }
    }
    let mut of_bus: HashMap<Arc<str>, &mut Vec<_>> =
        buses.iter_mut().rev().map(|bus| (Arc::clone(&bus.settings.id), &mut bus.devices)).collect();
    let mut of_broker: HashMap<Arc<str>, &mut Vec<_>> = brokers
        .iter_mut()
        .rev()
        .map(|broker| (Arc::clone(&broker.settings.id), &mut broker.devices))
        .collect();
    for device in attached {
        match device {
            Attached::Modbus(device) => {
                if let Some(devices) = of_bus.get_mut(&device.device.link) {
                    devices.push(device);
                }
            }
            Attached::Mqtt(device) => {
                if let Some(devices) = of_broker.get_mut(&device.device.link) {
                    devices.push(device);
                }
            }
        }
    }
    (buses, brokers)
}

/// A gateway without devices, or a bus without any, is probably not finished.
fn check_devices(root: &Table<'_>, links: &[LinkEntry], attached: &[Attached]) {
    let report = root.report();
    if report.failed() {
        return;
    }
    if attached.is_empty() && links.iter().all(|link| link.ways().is_none()) {
        report.add(Problem::warning(&root.spot(), "no device is configured"));
        return;
    }
    let used: HashSet<&str> = attached.iter().map(|device| &*device.device().link).collect();
    for link in links {
        if link.ways().is_none() && !used.contains(&*link.id) {
            report.add(Problem::warning(&link.spot, format!("no device uses {}", link.id)));
        }
    }
}

fn check_plan(report: &Report, links: &[LinkEntry], buses: &[Bus], plan: &Plan) {
    let by_id: HashMap<&str, &LinkEntry> = links.iter().rev().map(|link| (&*link.id, link)).collect();
    for (bus, plan) in buses.iter().zip(&plan.buses) {
        let Some(link) = by_id.get(&*plan.bus) else { continue };
        let (wire, expected) = (plan.wire_utilisation(), plan.utilisation());
        if wire > 100.0 {
            let found = format!("reading everything in time takes {wire:.0} % of the line");
            let problem = Problem::error(&link.spot, found).allowed("up to 100 %, better 80 %");
            report.add(problem.hint(plan::remedy(bus, plan)));
        } else if expected > plan::BUSY {
            let found = format!("the bus is expected to be busy {expected:.0} % of the time");
            let problem = Problem::warning(&link.spot, found).allowed("80 % leaves room for writes");
            report.add(problem.hint(plan::remedy(bus, plan)));
        }
    }
}

//! Reads what a device has otherwise than its product: report rules, times after which readings are stale, alarms, leases.
//!
//! A device keeps the shape of its product; only the rules of its properties change, key by key.

use std::sync::Arc;

use super::node::{Lapse, Node};
use super::problem::Problem;
use super::product::{checked, lease, unique};
use super::reader::Table;
use super::rules::{self, ReportLayer};
use crate::model::product::{AlarmRule, Product};

/// The product as this device has it: the same one where the device says nothing of its own.
pub(super) fn tuned(table: &Table<'_>, product: Option<&Arc<Product>>) -> Option<Arc<Product>> {
    let report = table.table("report").map(rules::report);
    let stale_after = table.key("stale_after").read(rules::stale_after);
    let properties = table.tables("property");
    unique(table, &properties, "property of the device");
    let alarms = table.tables("alarm");
    unique(table, &alarms, "alarm of the device");

    let mut changed = product.map(|product| Product::clone(product));
    if let Some(changed) = &mut changed {
        for property in &mut changed.properties {
            report.clone().unwrap_or_default().over(&mut property.report);
            property.stale_after = stale_after.map_or(property.stale_after, Lapse::time);
        }
    }
    for row in properties {
        property(row, changed.as_mut());
    }
    for row in alarms {
        alarm(row, changed.as_mut());
    }
    let changed = changed.filter(|changed| product.is_none_or(|product| *changed != **product));
    changed.map(Arc::new).or_else(|| product.cloned())
}

/// `[[device.property]]`
fn property(table: Table<'_>, product: Option<&mut Product>) {
    let report: Option<ReportLayer> = table.table("report").map(rules::report);
    let stale_after = table.key("stale_after").read(rules::stale_after);
    if let Some(product) = product {
        let ids: Vec<Arc<str>> = product.properties.iter().map(|known| Arc::clone(&known.id)).collect();
        let id = named(&table, "property", &product.id, &ids);
        let found = product.properties.iter_mut().find(|known| Some(&known.id) == id.as_ref());
        let own = table.table("lease");
        if let Some(property) = found {
            report.unwrap_or_default().over(&mut property.report);
            property.stale_after = stale_after.map_or(property.stale_after, Lapse::time);
            if let Some((Some(rule), spot)) = own.map(|own| lease(own, property.kind, property.access)) {
                property.lease = Some(checked(property, rule, &spot, table.report()));
            }
        }
    } else {
        // Its product is reported as missing.
        table.key("lease");
    }
    table.finish();
}

/// `[[device.alarm]]`
fn alarm(table: Table<'_>, product: Option<&mut Product>) {
    let Some(product) = product else {
        // Nothing can be said of it; the product is reported as missing.
        for key in ["id", "hysteresis", "delay", "clear_delay", "level", "enabled"] {
            table.key(key);
        }
        return;
    };
    let known = product.properties.iter().flat_map(|property| &property.alarms);
    let ids: Vec<Arc<str>> = known.map(|rule| Arc::clone(&rule.id)).collect();
    let id = named(&table, "alarm", &product.id, &ids);
    for property in &mut product.properties {
        for rule in property.alarms.iter_mut().filter(|rule| Some(&rule.id) == id.as_ref()) {
            let mut own = AlarmRule::clone(rule);
            rules::alarm_layer(&table, property.kind, false).over(&mut own);
            *rule = Arc::new(own);
        }
    }
    if id.is_some() {
        table.finish();
    }
}

/// Which of its product's things a row is about.
fn named(table: &Table<'_>, what: &str, product: &str, ids: &[Arc<str>]) -> Option<Arc<str>> {
    let entry = table.key("id").required(&format!("the id of a {what} of {product}"));
    let id = entry.read(Node::id)?;
    if ids.contains(&id) {
        return Some(id);
    }
    let known: Vec<&str> = ids.iter().map(|id| &**id).collect();
    let allowed = if known.is_empty() { "none: it has no such thing".to_owned() } else { known.join(", ") };
    let found = format!("{product} has no {what} {:?}", &*id);
    table.report().add(Problem::error(&entry.spot(), found).allowed(allowed).meant(&id, &known));
    None
}

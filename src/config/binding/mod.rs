//! How products are bound to hardware, as the configuration writes it: one file for each kind of driver.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problem;
use super::reader::{Entry, Table};
use crate::model::product::Access;

pub(super) mod modbus;
pub(super) mod mqtt;

/// How often something may be polled, and how seldom something may be written.
const EVERY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(7 * 86_400);

/// The least time between two writes of a property.
fn write_interval(table: &Table<'_>, access: Access) -> Option<Duration> {
    let interval = table.key("min_write_interval");
    warn_unless_written(&interval, access);
    interval.read(|node| node.duration(EVERY))
}

/// Says that a key which concerns writes stands at a property that cannot be written.
fn warn_unless_written(entry: &Entry<'_>, access: Access) {
    if entry.given() && !access.writable() {
        let problem = Problem::warning(&entry.spot(), "has no effect on a property that is only read");
        entry.report().add(problem.hint("did you mean access = \"rw\"?"));
    }
}

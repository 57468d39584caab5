//! Stored messages as the running configuration knows their devices.

use std::sync::Arc;

use super::index::Roster;
use crate::model::message::{Body, DeviceMessage};
use crate::model::product::Property;
use crate::store::Stored;

/// A stored message with its device as it is configured now.
pub(super) fn revive(roster: &Roster, stored: Stored) -> Option<(usize, Arc<DeviceMessage>)> {
    let Stored { seq, at, device, mut body } = stored;
    let position = roster.position(&device)?;
    let device = Arc::clone(roster.device(position)?);
    match &mut body {
        Body::Properties(reports) => {
            reports.retain_mut(|report| {
                let found = device.product.property(&report.id);
                report.property = found.map_or(report.property, |(position, _)| position);
                found.is_some()
            });
            if reports.is_empty() {
                return None;
            }
        }
        Body::Alarm { rule, property, .. } => {
            let has = |known: &Property| known.alarms.iter().any(|each| each.id == rule.id);
            *property = device.product.properties.iter().position(has).unwrap_or(*property);
            device.product.properties.get(*property)?;
        }
        Body::Event { .. }
        | Body::Presence { .. }
        | Body::Publish { .. }
        | Body::Sent { .. }
        | Body::Reply { .. }
        | Body::Ota { .. } => {}
    }
    Some((position, Arc::new(DeviceMessage::new(seq, at, device, body))))
}

//! Stored messages as the running configuration knows their devices.

use std::sync::Arc;

use super::roster::Roster;
use crate::model::message::DeviceMessage;
use crate::store::{Stored, record};

/// A stored message with its device as it is configured now.
pub(super) fn revive(roster: &Roster, stored: Stored) -> Option<(usize, Arc<DeviceMessage>)> {
    let Stored { seq, at, clock, device, mut body } = stored;
    let slot = roster.slot(&device)?;
    let device = Arc::clone(roster.device(slot)?);
    record::place(&mut body, &device.product)
        .then(|| (slot, Arc::new(DeviceMessage::new(seq, at, device, body).by(clock))))
}

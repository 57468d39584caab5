//! Readings held against the alarms that clients have set, and the lack of readings.

use std::time::Instant;

use super::HubState;
use crate::hub::client_alarms::Change;
use crate::model::device::Device;
use crate::model::message::Body;
use crate::model::time::UnixMillis;
use crate::model::value::Value;

impl HubState {
    /// The time begins from which the lack of readings counts, and of leases: with the first thing that is heard of
    /// anybody.
    pub(super) fn begin(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.begun, true) {
            let slots: Vec<usize> = self.roster.devices().map(|(slot, _)| slot).collect();
            for slot in slots {
                if let Some(state) = self.devices.get_mut(slot) {
                    state.begin(now);
                    self.leases.found(slot, &state.device().product, now);
                }
                self.arm(slot);
            }
        }
    }

    /// Lets alarms of clients look at good readings.
    pub(super) fn judge(&mut self, device: &Device, read: &[(usize, Value)], at: UnixMillis, now: Instant) {
        let Some(slot) = self.roster.slot_of(device) else { return };
        let mut changes = Vec::new();
        for (property, value) in read {
            if self.alarms.watches(slot, *property) {
                self.alarms.judge(slot, *property, value, now, &mut changes);
            }
        }
        self.alarm(changes, at);
    }

    /// Publishes what alarms of clients did.
    pub(super) fn alarm(&mut self, changes: Vec<Change>, at: UnixMillis) {
        for Change { device, property, rule, raised, value } in changes {
            let Some(state) = self.devices.get_mut(device) else { continue };
            let active = state.alarm(&rule.id, raised);
            self.publish(device, at, vec![Body::Alarm { rule, property, raised, value, active }]);
        }
    }
}

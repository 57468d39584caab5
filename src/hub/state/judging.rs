//! Readings held against the alarms that clients have set, and the lack of readings.

use std::collections::BTreeSet;
use std::time::Instant;

use super::HubState;
use crate::hub::client_alarms::Change;
use crate::hub::leases::Holder;
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
                    self.leases.found(slot, &state.device().product, &Holder::Start, now);
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
        let mut touched = BTreeSet::new();
        for Change { alarm, device, property, rule, raised, value } in changes {
            touched.insert(alarm);
            let Some(state) = self.devices.get_mut(device) else { continue };
            let active = state.alarm(&rule.id, raised);
            self.publish(device, at, vec![Body::Alarm { rule, property, raised, value, active }]);
        }
        // Where it is raised is kept, so that it can be cleared after a restart.
        for alarm in touched {
            let kept = self.alarms.kept(alarm, &self.roster);
            self.keep(kept);
        }
    }

    /// Alarms of clients wait no longer for what has no good reading.
    pub(super) fn interrupt_alarms(&mut self, slot: usize) {
        let state = self.devices.get(slot);
        self.alarms.interrupt(slot, |at| state.is_some_and(|state| state.good(at).is_some()));
    }
}

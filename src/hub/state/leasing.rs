//! Leases in the hub's state: what a write brings, and the safe values of leases that are lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::HubState;
#[cfg(test)]
use super::LONGEST_WAIT;
use super::orders::Order;
use crate::dialects::Token;
use crate::drivers::CommandId;
use crate::hub::device::DeviceState;
use crate::hub::handle::SessionKey;
use crate::hub::leases::{Brought, Due, Holder, Place};
#[cfg(test)]
use crate::hub::leases::{Grant, LEASES};
use crate::model::check::{Checked, same};
use crate::model::command::{ActionKind, Lease, Outcome, Rejection};
use crate::model::device::Device;
use crate::model::message::CommandNote;
use crate::model::product::Property;
use crate::model::time::Now;
use crate::model::value::Value;

/// How long a safe value may take before it counts as failed and is tried again.
const FALL_BACK_WITHIN: Duration = Duration::from_secs(10);

/// Stands for the gateway itself among the sessions, whose numbers are counted from 1.
const NOBODY: SessionKey = SessionKey(u64::MAX);

/// Who wrote, in the journal, where nobody had leased the value since the start.
const START: &str = "start of the gateway";

/// Who wrote, in the journal, where nobody had leased the value since the device was added.
const ADDED: &str = "addition of the device";

/// Who wrote, in the journal, where nobody had leased the value since a reload gave the property its safe value.
const GAINED: &str = "addition of its lease";

impl HubState {
    /// The leases that a command of a session brings, or why it cannot have the one that it asks for.
    pub(super) fn brought(
        &self,
        slot: usize,
        checked: &Checked,
        wish: Option<Lease>,
        session: SessionKey,
    ) -> Result<Brought, Rejection> {
        let Some(device) = self.roster.device(slot) else { return Ok(Brought::default()) };
        let only_writes = |id: &str| match wish {
            None => Ok(Brought::default()),
            Some(_) => Err(Rejection::Lease { id: id.into(), why: "only what is written can be".to_owned() }),
        };
        match checked {
            Checked::Read(_) => only_writes("a reading"),
            Checked::Invoke { function, inputs } => {
                let Some(function) = device.product.functions.get(*function) else {
                    return only_writes("a call");
                };
                // Its steps bring their leases themselves; here it is told before the first is made that one cannot.
                self.leases_of_steps(slot, &device.product, function, inputs, session)?;
                only_writes(&function.id)
            }
            Checked::Write(values) => self.brought_by(slot, values, wish, session),
        }
    }

    /// The leases that written values bring.
    pub(super) fn brought_by(
        &self,
        slot: usize,
        values: &[(usize, Value)],
        wish: Option<Lease>,
        session: SessionKey,
    ) -> Result<Brought, Rejection> {
        let Some(device) = self.roster.device(slot) else { return Ok(Brought::default()) };
        let mut brought = Brought { grants: Vec::new(), several: values.len() > 1 };
        for (at, value) in values {
            let Some(property) = device.product.properties.get(*at) else { continue };
            let grant = self.leases.grant((slot, *at), property, value, wish, session)?;
            if property.lease.is_some() {
                brought.grants.push(((slot, *at), grant));
            }
        }
        Ok(brought)
    }

    /// A command has its outcome, late or not.
    pub(super) fn lease_settled(&mut self, id: CommandId, outcome: &Outcome, now: Instant) {
        let attached = |session| self.sessions.contains(session);
        let Some(returned) = self.leases.settled(id, outcome, now, attached) else { return };
        let Some((device, property)) = self.leased(returned.place) else { return };
        let (device, property, tries) = (&*device.id, &*property.id, returned.tries);
        if let Outcome::Rejected(Rejection::TooSoon { wait, .. }) = outcome {
            debug!(device, property, tries, ?wait, "the safe value waits until the property may be written");
            return;
        }
        match (returned.safe, tries) {
            (true, 1) => {}
            (true, _) => info!(device, property, tries, "the device has taken the safe value"),
            (false, 1) => {
                let outcome = outcome.name();
                warn!(
                    device,
                    property, outcome, "the safe value was not taken; it is written again until it is"
                );
            }
            (false, _) => debug!(device, property, tries, ?outcome, "the safe value was not taken again"),
        }
    }

    /// Whether a device is known to be there.
    pub(super) fn is_online(&self, device: &Device) -> bool {
        let state = self.roster.slot_of(device).and_then(|slot| self.devices.get(slot));
        state.is_some_and(DeviceState::known_online)
    }

    /// Something was heard of a device: if it is there now and was not, it can take what it is owed.
    pub(super) fn returned(&mut self, device: &Device, was_online: bool, now: Instant) {
        if let (false, true, Some(slot)) = (was_online, self.is_online(device), self.roster.slot_of(device)) {
            if let Some(known) = self.roster.device(slot) {
                self.leases.online(slot, &known.product, now);
            }
        }
    }

    /// Writes the safe values of leases that are lost.
    pub(super) fn fall_back(&mut self, now: Now) {
        while let Some(due) = self.leases.due(now.instant) {
            self.write_safe(due, now);
        }
    }

    fn write_safe(&mut self, due: Due, now: Now) {
        let (slot, at) = due.place;
        let Some((device, property)) = self.leased(due.place) else { return self.leases.done(&due) };
        let (device, property) = (Arc::clone(device), property.clone());
        let Some(rule) = &property.lease else { return self.leases.done(&due) };
        let state = self.devices.get(slot);
        let known = state.and_then(|state| state.good_value(at));
        let first = due.tries.all == 0;
        if due.holder.is_found() && first && known.is_some_and(|value| same(value, &rule.safe)) {
            return self.leases.done(&due);
        }
        if state.is_none_or(DeviceState::known_offline) {
            debug!(device = %device.id, property = %property.id, "a safe value waits for its device");
            return self.leases.unsent(due, now.instant);
        }
        let client: Arc<str> = match &due.holder {
            Holder::Client(holder) => format!("lease of {holder}").into(),
            Holder::Start => START.into(),
            Holder::Added => ADDED.into(),
            Holder::Gained => GAINED.into(),
        };
        if first {
            let (device, property, value) = (&*device.id, &*property.id, rule.safe.to_string());
            if let Holder::Client(client) = &due.holder {
                warn!(device, property, value, %client, why = %due.why, "a lease is lost; the safe value is written");
            } else {
                info!(device, property, value, since = %client, "nobody has leased it; the safe value is written");
            }
        }
        let id = self.commands.number();
        let note = CommandNote {
            message_id: format!("lease-{}", id.0).into(),
            kind: ActionKind::Write,
            function: None,
            values: vec![(Arc::clone(&property.id), rule.safe.clone())],
            client,
        };
        let checked = Checked::Write(vec![(at, rule.safe.clone())]);
        self.leases.writing(id, due);
        let order = Order {
            id,
            session: NOBODY,
            token: Token(0),
            timeout: FALL_BACK_WITHIN,
            notify: false,
            // Each follows a write that waited for its turn, so that the memory wears at most twice as fast; what is
            // tried again waits like any other write.
            urgent: first,
            note,
        };
        self.route(order, slot, checked, now);
    }

    /// The device and the property at a place.
    fn leased(&self, (slot, at): Place) -> Option<(&Arc<Device>, &Property)> {
        let device = self.roster.device(slot)?;
        Some((device, device.product.properties.get(at)?))
    }

    /// The gateway is about to end: nobody stands behind anything any more. No further command is taken, and the safe
    /// values of all leases are written while the drivers still run.
    pub fn release(&mut self, now: Now) {
        self.announce();
        self.stopping = true;
        self.leases.release(now.instant);
        self.fall_back(now);
    }

    /// Whether every safe value is written that can be; the others' devices are away. A write that is under way and brings
    /// a lease may have one yet.
    pub fn is_released(&self) -> bool {
        let mut owed = self.leases.owed().chain(self.leases.coming());
        owed.all(|(slot, _)| self.devices.get(slot).is_none_or(DeviceState::known_offline))
    }

    /// As many values are leased as may be, none of them of a device that is there.
    #[cfg(test)]
    pub(in crate::hub) fn fill_leases(&mut self, now: Now) {
        let grants = (0..LEASES).map(|at| ((usize::MAX, at), Grant::For(LONGEST_WAIT))).collect();
        let id = self.commands.number();
        self.leases.begin(id, &"many".into(), Brought { grants, several: true });
        self.lease_settled(id, &Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() }, now.instant);
    }

    /// Says what is left, at the very end.
    pub(super) fn tell_what_is_owed(&self) {
        for (device, property) in self.leases.owed().filter_map(|place| self.leased(place)) {
            let (device, property) = (&*device.id, &*property.id);
            warn!(device, property, "the safe value is not written; it will be after the next start");
        }
    }
}

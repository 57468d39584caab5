//! Another directory under a running hub: devices that come, go and change while sessions and commands live on.
//!
//! In two steps, because what is said of a device that goes has to be delivered while everybody still knows it:
//! [`HubState::retire`], then everything that `poll` gives, then [`HubState::adopt`]. What holds afterwards:
//!
//! - A device that stayed has its slot, its readings, its presence and its raised alarms.
//! - A device that has gone was told as offline, with its alarms cleared, and its slot stands in no table.
//! - Commands to it are still under way: its driver settles them, or their deadline does. Functions with steps on it, and on
//!   a device of another product, have ended: no further step begins.
//! - What is leased of a device that stayed is leased still, and has its safe value written when the lease is lost;
//!   what is leased of one that has gone, or of a property that has no safe value any more, is forgotten, which the
//!   log says.
//! - What sessions, groups and alarms of clients want is resolved anew: whoever wants all devices of a kind has those
//!   that came, and whoever wants one by its name has it once it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::HubState;
use crate::hub::device::DeviceState;
use crate::hub::leases::Holder;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::message::Body;
use crate::model::time::Now;

/// Why a device is offline that is configured no more.
const REMOVED: &str = "it is no longer configured";

/// Why a device is offline whose driver begins anew.
const RESTARTED: &str = "its link begins anew";

impl HubState {
    /// Says goodbye for the devices that the next directory does not have, and loses sight of those whose link begins
    /// anew. To be followed by [`HubState::adopt`] of the same directory.
    pub fn retire(&mut self, next: &Directory, anew: &BTreeSet<Arc<str>>, now: Now) {
        self.announce();
        let known: Vec<(usize, Arc<Device>)> =
            self.roster.devices().map(|(slot, device)| (slot, Arc::clone(device))).collect();
        for (slot, device) in known {
            let successor = next.device(&device.id);
            if successor.is_none_or(|next| next.product != device.product) {
                self.abandon_steps(slot, now);
            }
            if successor.is_none_or(|next| !Arc::ptr_eq(next, &device)) {
                let changes = self.alarms.withdraw(slot, &device, successor.map(|next| &**next));
                self.alarm(changes, now.wall);
            }
            let moved = successor.is_some_and(|next| next.link != device.link);
            let mut facts = Vec::new();
            let Some(state) = self.devices.get_mut(slot) else { continue };
            match successor {
                None => {
                    state.withdraw_alarms(None, &mut facts);
                    state.presence(now.wall, false, Some(REMOVED.into()), now.instant, &mut facts);
                }
                Some(next) => {
                    state.withdraw_alarms(Some(&next.product), &mut facts);
                    if moved || anew.contains(&device.link) {
                        state.lose(now.wall, &RESTARTED.into(), now.instant, &mut facts);
                        self.leases.doubted(slot, now.instant);
                    }
                }
            }
            if facts.iter().any(|fact| matches!(fact, Body::Presence { .. })) {
                self.alarms.offline(slot);
            }
            self.publish(slot, now.wall, facts);
            self.arm(slot);
        }
    }

    /// Takes over another directory.
    pub fn adopt(&mut self, directory: Arc<Directory>, now: Now) {
        self.announce();
        let before: BTreeMap<usize, Arc<Device>> =
            self.roster.devices().map(|(slot, device)| (slot, Arc::clone(device))).collect();
        let moves = self.roster.adopt(directory);
        for ((slot, at), _) in self.leases.forget(&moves.gone) {
            let Some(device) = before.get(&slot) else { continue };
            let property = device.product.properties.get(at).map_or("?", |property| &property.id);
            warn!(device = %device.id, property, "its device has gone; a lease is forgotten without its safe value");
        }
        for slot in &moves.changed {
            let (Some(old), Some(new)) = (before.get(slot), self.roster.device(*slot)) else { continue };
            for property in self.leases.changed(*slot, &old.product, &new.product) {
                warn!(device = %new.id, %property, "it has no safe value any more; its lease is forgotten");
            }
            if self.begun {
                self.leases.gained(*slot, &old.product, &new.product, now.instant);
            }
        }
        for slot in &moves.gone {
            self.devices.remove(*slot);
            self.arm(*slot);
        }
        self.commands.forget(&moves.gone, &moves.changed);
        for slot in &moves.came {
            if let Some(device) = self.roster.device(*slot) {
                let mut state = DeviceState::new(Arc::clone(device));
                if self.begun {
                    state.begin(now.instant);
                    self.leases.found(*slot, &device.product, &Holder::Added, now.instant);
                }
                self.devices.insert(*slot, state);
            }
        }
        for slot in &moves.came {
            self.arm(*slot);
        }
        for (key, watching) in self.sessions.watching() {
            self.index.set(key, self.roster.resolve(&watching.client, &watching.interests));
        }
        self.groups.adopt(&self.roster, &moves.gone);
        self.links.adopt(self.roster.directory());
        self.alarms.adopt(&self.roster, &moves.gone);
        for slot in &moves.changed {
            let mut facts = Vec::new();
            if let (Some(state), Some(device)) = (self.devices.get_mut(*slot), self.roster.device(*slot)) {
                state.adopt(Arc::clone(device), now.instant, &mut facts);
            }
            self.publish(*slot, now.wall, facts);
            self.arm(*slot);
        }
    }
}

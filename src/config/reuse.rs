//! A new configuration that shares with the running one whatever the two have in common.
//!
//! Afterwards "the same" can be told by the pointer: a device, product or client that has not changed is the very
//! `Arc` that sessions, hub and drivers hold already.

use std::collections::HashMap;
use std::sync::Arc;

use super::Config;
use crate::dialects::Common;
use crate::drivers::mqtt::discover::Rule;
use crate::model::client::{Client, ClientBook};
use crate::model::device::Device;
use crate::model::product::Product;

impl Config {
    /// The same configuration, made of parts of the running one where they are equal.
    #[must_use]
    pub fn reusing(mut self, running: &Self) -> Self {
        let devices = Parts::of(running);
        for device in &mut self.devices {
            *device = devices.device(device);
        }
        let by_id: HashMap<Arc<str>, Arc<Device>> =
            self.devices.iter().map(|device| (Arc::clone(&device.id), Arc::clone(device))).collect();
        let settle = |device: &mut Arc<Device>| {
            if let Some(settled) = by_id.get(&device.id) {
                *device = Arc::clone(settled);
            }
        };
        self.buses.iter_mut().flat_map(|bus| &mut bus.devices).for_each(|each| settle(&mut each.device));
        self.brokers
            .iter_mut()
            .flat_map(|broker| &mut broker.devices)
            .for_each(|each| settle(&mut each.device));
        let known: Vec<&Arc<Rule>> = running.brokers.iter().flat_map(|broker| &broker.rules).collect();
        for rule in self.brokers.iter_mut().flat_map(|broker| &mut broker.rules) {
            if let Some(known) = known.iter().find(|known| **known == rule) {
                *rule = Arc::clone(known);
            } else if let Some(product) =
                known.iter().map(|known| &known.product).find(|known| **known == rule.product)
            {
                *rule = Arc::new(Rule { product: Arc::clone(product), ..Rule::clone(rule) });
            }
        }
        for link in &mut self.links {
            if let Some(known) = running.links.iter().find(|known| *known == link) {
                *link = Arc::clone(known);
            }
        }
        let settled = |client: &Arc<Client>| {
            let known = running.clients.clients().iter().find(|known| *known == client);
            Arc::clone(known.unwrap_or(client))
        };
        self.clients = Arc::new(ClientBook::new(self.clients.clients().iter().map(settled).collect()));
        let (mine, theirs) = (&mut self.dialects, &running.dialects);
        reuse_anonymous(&mut mine.janus.common, &theirs.janus.common);
        reuse_anonymous(&mut mine.sagoo.common, &theirs.sagoo.common);
        reuse_anonymous(&mut mine.ithings.common, &theirs.ithings.common);
        reuse_anonymous(&mut mine.oam.common, &theirs.oam.common);
        reuse_anonymous(&mut mine.uplus.common, &theirs.uplus.common);
        self
    }
}

/// What the running configuration is made of.
struct Parts<'c> {
    devices: HashMap<&'c str, &'c Arc<Device>>,
    products: HashMap<&'c str, &'c Arc<Product>>,
}

impl<'c> Parts<'c> {
    fn of(config: &'c Config) -> Self {
        Self {
            devices: config.devices.iter().map(|device| (&*device.id, device)).collect(),
            products: config.devices.iter().map(|device| (&*device.product.id, &device.product)).collect(),
        }
    }

    fn device(&self, device: &Arc<Device>) -> Arc<Device> {
        if let Some(known) = self.devices.get(&*device.id).filter(|known| **known == device) {
            return Arc::clone(known);
        }
        match self.products.get(&*device.product.id).filter(|known| **known == &device.product) {
            Some(product) => Arc::new(Device { product: Arc::clone(product), ..(**device).clone() }),
            None => Arc::clone(device),
        }
    }
}

/// Whoever came without a credential came because of a network: where those are others now, so is the client, and sessions of
/// the old one have to come in again.
fn reuse_anonymous(mine: &mut Common, theirs: &Common) {
    if let (Some(mine), Some(theirs)) = (&mut mine.anonymous, &theirs.anonymous) {
        if mine == theirs {
            mine.client = Arc::clone(&theirs.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, resolve};

    fn config(networks: &str) -> Config {
        let text = format!(
            "gateway = {{ id = \"g\" }}\n\
             [dialects.oam]\nanonymous = {{ networks = [{networks}], rights = [\"read\"] }}\n\
             [[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n"
        );
        let source = Source { name: "pentad.toml".into(), text };
        resolve(&[source]).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    #[test]
    fn anonymous_clients_stay_the_same_only_while_their_networks_do() {
        let anonymous = |config: &Config| {
            Arc::clone(&config.dialects.oam.common.anonymous.as_ref().expect("some").client)
        };
        let both = r#""127.0.0.0/8", "192.168.1.0/24""#;
        let running = config(both);
        let before = anonymous(&running);
        assert!(Arc::ptr_eq(&anonymous(&config(both).reusing(&running)), &before));
        let narrower = config(r#""127.0.0.0/8""#).reusing(&running);
        assert!(!Arc::ptr_eq(&anonymous(&narrower), &before), "a network that is gone lets nobody stay");
    }
}

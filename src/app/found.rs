//! Devices that drivers have found by themselves, beside the configured ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::drivers::announce::{FOUND_DEVICES, Unwelcome};
use crate::model::device::Device;
use crate::model::directory::Directory;

/// What was found on each link, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<Arc<str>, Vec<Arc<Device>>>);

impl Found {
    /// All of them, in the order of their links' ids.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.0.values().flatten()
    }

    /// Takes a device in beside the configured ones, if it shares no name with anybody. One of the same id that the same
    /// link had found gives way.
    pub(super) fn insert(
        &mut self,
        link: &Arc<str>,
        device: Arc<Device>,
        configured: &Directory,
    ) -> Result<(), Unwelcome> {
        if device.link != *link || configured.link(link).is_none() {
            return Err(Unwelcome::NotNow);
        }
        let known = |other: &&Arc<Device>| other.link != *link || other.id != device.id;
        let mut others = configured.devices().iter().chain(self.devices().filter(known));
        let clash = others.find_map(|other| Some((shared(&device, other)?, Arc::clone(&other.id))));
        drop(others);
        // Clients know a product by its id: it must not be two.
        let differs =
            |other: &&Arc<Device>| other.product.id == device.product.id && other.product != device.product;
        let other = configured.devices().iter().find(differs);
        let clash = clash.or_else(|| Some(("product", Arc::clone(&other?.id))));
        if let Some((what, of)) = clash {
            return Err(Unwelcome::Taken { what, of });
        }
        let count = self.devices().count();
        let of_link = self.0.entry(Arc::clone(link)).or_default();
        match of_link.iter_mut().find(|known| known.id == device.id) {
            Some(known) if *known == device => {}
            Some(known) => *known = device,
            None if count >= FOUND_DEVICES => return Err(Unwelcome::Full),
            None => of_link.push(device),
        }
        Ok(())
    }

    /// Forgets a device of a link.
    pub(super) fn remove(&mut self, link: &str, id: &str) {
        if let Some(of_link) = self.0.get_mut(link) {
            of_link.retain(|device| &*device.id != id);
        }
    }

    /// What remains beside another configuration: nothing of links that are no more or begin anew, and nothing that
    /// shares a name with a configured device. Gives what had to give way.
    pub(super) fn settle(&mut self, configured: &Directory, anew: &[Arc<str>]) -> Vec<Arc<Device>> {
        self.0.retain(|link, _| configured.link(link).is_some() && !anew.contains(link));
        let mut gone = Vec::new();
        for of_link in self.0.values_mut() {
            of_link.retain(|device| {
                let stays = !configured.devices().iter().any(|other| shared(device, other).is_some());
                if !stays {
                    gone.push(Arc::clone(device));
                }
                stays
            });
        }
        gone
    }
}

/// The name that two devices share.
fn shared(one: &Device, other: &Device) -> Option<&'static str> {
    let names = [("id", &one.id, &other.id), ("uuid", &one.uuid, &other.uuid), ("mac", &one.mac, &other.mac)];
    names.into_iter().find(|(_, mine, theirs)| mine == theirs).map(|(what, ..)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::Link;
    use crate::model::product::Product;

    fn device(id: &str, link: &str) -> Arc<Device> {
        let product = Product {
            id: "p".into(),
            name: "p".into(),
            type_id: "p".into(),
            properties: Vec::new(),
            functions: Vec::new(),
            events: Vec::new(),
        };
        Arc::new(Device {
            id: id.into(),
            name: id.into(),
            product: Arc::new(product),
            link: link.into(),
            project: "1".into(),
            area: "1".into(),
            tags: Vec::new(),
            uuid: format!("uuid {id}").into(),
            mac: format!("mac {id}").into(),
        })
    }

    fn configured(ids: &[&str]) -> Directory {
        let link = |id: &str| Arc::new(Link { id: id.into(), address: "?".into(), readable: false });
        Directory::new(ids.iter().map(|id| device(id, "a")).collect(), vec![link("a"), link("b")])
    }

    fn ids(found: &Found) -> Vec<&str> {
        found.devices().map(|device| &*device.id).collect()
    }

    #[test]
    fn a_name_belongs_to_whoever_had_it_first_and_to_the_configuration_before_all() {
        let (mut found, plant) = (Found::default(), configured(&["x"]));
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        assert_eq!(
            found.insert(&a, device("x", "a"), &plant),
            Err(Unwelcome::Taken { what: "id", of: "x".into() })
        );
        assert_eq!(found.insert(&a, device("y", "a"), &plant), Ok(()));
        assert_eq!(
            found.insert(&b, device("y", "b"), &plant),
            Err(Unwelcome::Taken { what: "id", of: "y".into() })
        );
        assert_eq!(found.insert(&a, device("y", "a"), &plant), Ok(()), "its own finder may say it again");
        assert_eq!(found.insert(&a, device("z", "b"), &plant), Err(Unwelcome::NotNow));
        assert_eq!(found.insert(&b, device("z", "b"), &plant), Ok(()));
        assert_eq!(ids(&found), ["y", "z"]);
        let gone = found.settle(&configured(&["y"]), &[]);
        assert_eq!((gone.len(), ids(&found)), (1, vec!["z"]));
        found.settle(&plant, &[b]);
        assert_eq!(ids(&found), [""; 0]);
    }

    #[test]
    fn a_product_of_a_configured_device_is_never_another_one() {
        let (mut found, plant, link) = (Found::default(), configured(&["x"]), Arc::from("a"));
        let other = |id: &str| {
            let device = device("y", "a");
            let product = Product { id: id.into(), name: "other".into(), ..(*device.product).clone() };
            Arc::new(Device { product: Arc::new(product), ..(*device).clone() })
        };
        let taken = Err(Unwelcome::Taken { what: "product", of: "x".into() });
        assert_eq!(found.insert(&link, other("p"), &plant), taken);
        assert_eq!(found.insert(&link, other("q"), &plant), Ok(()));
    }

    #[test]
    fn there_is_an_end_to_what_may_be_found() {
        let (mut found, plant, link) = (Found::default(), configured(&[]), Arc::from("a"));
        for at in 0..FOUND_DEVICES {
            assert_eq!(found.insert(&link, device(&at.to_string(), "a"), &plant), Ok(()));
        }
        assert_eq!(found.insert(&link, device("more", "a"), &plant), Err(Unwelcome::Full));
        found.remove("a", "7");
        assert_eq!(found.insert(&link, device("more", "a"), &plant), Ok(()));
    }
}

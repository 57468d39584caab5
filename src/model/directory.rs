//! Who is who: every device and link of the running configuration, found by any of its names.
//!
//! Built from a resolved configuration and what drivers have found, and shared read-only; a change builds a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::device::{Device, Link};
use super::product::Product;

/// An immutable index over devices, products and links. Iteration is always in configuration order.
#[derive(Debug, Default)]
pub struct Directory {
    devices: Vec<Arc<Device>>,
    links: Vec<Arc<Link>>,
    by_id: HashMap<Arc<str>, Arc<Device>>,
    by_uuid: HashMap<Arc<str>, Arc<Device>>,
    by_mac: HashMap<Arc<str>, Arc<Device>>,
    products: BTreeMap<Arc<str>, Arc<Product>>,
}

impl Directory {
    /// Builds the index. Where two devices share an identity the first one keeps it; configuration checks refuse
    /// such a pair before it comes here.
    pub fn new(devices: Vec<Arc<Device>>, links: Vec<Arc<Link>>) -> Self {
        let mut directory = Self::default();
        for device in &devices {
            directory.by_id.entry(Arc::clone(&device.id)).or_insert_with(|| Arc::clone(device));
            directory.by_uuid.entry(Arc::clone(&device.uuid)).or_insert_with(|| Arc::clone(device));
            directory.by_mac.entry(Arc::clone(&device.mac)).or_insert_with(|| Arc::clone(device));
            directory
                .products
                .entry(Arc::clone(&device.product.id))
                .or_insert_with(|| Arc::clone(&device.product));
        }
        directory.devices = devices;
        directory.links = links;
        directory
    }

    /// Whether the other one holds the very same devices and links in the same order.
    pub fn same(&self, other: &Self) -> bool {
        fn same<T>(one: &[Arc<T>], other: &[Arc<T>]) -> bool {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
        }
        same(&self.devices, &other.devices) && same(&self.links, &other.links)
    }

    /// Every device.
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// Every bus and broker link.
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// Every product that a device uses, by id.
    pub fn products(&self) -> impl Iterator<Item = &Arc<Product>> {
        self.products.values()
    }

    /// By device id.
    pub fn device(&self, id: &str) -> Option<&Arc<Device>> {
        self.by_id.get(id)
    }

    /// By Janus uuid, exact.
    pub fn by_uuid(&self, uuid: &str) -> Option<&Arc<Device>> {
        self.by_uuid.get(uuid)
    }

    /// By U+ device id, exact.
    pub fn by_mac(&self, mac: &str) -> Option<&Arc<Device>> {
        self.by_mac.get(mac)
    }

    /// By product id; only products that a device uses.
    pub fn product(&self, id: &str) -> Option<&Arc<Product>> {
        self.products.get(id)
    }

    /// By link id.
    pub fn link(&self, id: &str) -> Option<&Arc<Link>> {
        self.links.iter().find(|link| &*link.id == id)
    }

    /// The devices of one product.
    pub fn of_product<'a>(&'a self, product: &'a str) -> impl Iterator<Item = &'a Arc<Device>> {
        self.devices.iter().filter(move |device| &*device.product.id == product)
    }
}

//! What a changed configuration changes: computed from the old and the new one alone, and said in words.
//!
//! The words are what the log shows and what an administrator compares with what was meant; no secret is in them. What
//! cannot be changed while the gateway runs is told apart, since such a change is refused as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Broker, Bus, Config, Server};
use crate::dialects::{Common, Settings};
use crate::drivers::modbus::{BusSettings, ModbusDevice, Target};
use crate::drivers::mqtt::MqttDevice;
use crate::drivers::mqtt::discover::Rule;
use crate::drivers::mqtt::homeassistant::Scheme;
use crate::model::client::{Anonymous, Client};
use crate::model::device::Device;

/// What happens to a bus or broker link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing.
    None,
    /// Its driver goes on with another list of devices.
    Devices,
    /// Its driver ends and a new one begins.
    Restart,
}

/// From one configuration to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What changes, one thing a line.
    pub lines: Vec<String>,
    /// What only a restart can change, one thing a line. If there is any, nothing can be changed.
    pub restart: Vec<String>,
}

impl Difference {
    /// Compares.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut difference = Self::default();
        difference.gateway(old, new);
        difference.links(old, new);
        difference.products(old, new);
        difference.devices(old, new);
        difference.clients(old, new);
        difference.server(&old.server, &new.server);
        difference.dialects(&old.dialects, &new.dialects);
        difference
    }

    /// Whether the two are the same.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.restart.is_empty()
    }

    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Says what was added and removed, and what changed where there is anything to say of it.
    fn each<'c, K: Ord + Display, V>(
        &mut self,
        what: &str,
        (old, new): (&BTreeMap<K, &'c V>, &BTreeMap<K, &'c V>),
        told: impl Fn(&V) -> String,
        change: impl Fn(&V, &V) -> Option<String>,
    ) {
        for id in old.keys().filter(|id| !new.contains_key(id)) {
            self.say(format!("{what} {id} is removed"));
        }
        for (id, new) in new {
            match old.get(id) {
                None => self.say(format!("{what} {id} is added{}", told(new))),
                Some(old) => {
                    if let Some(change) = change(old, new) {
                        self.say(format!("{what} {id} {change}"));
                    }
                }
            }
        }
    }

    fn gateway(&mut self, old: &Config, new: &Config) {
        let (before, after) = (&old.gateway, &new.gateway);
        if before.id != after.id {
            self.restart.push(format!(
                "gateway.id changes from {} to {}, and the identities of all devices with it",
                before.id, after.id
            ));
        }
        let path = |config: &Config| config.history.as_ref().map(|history| history.path.clone());
        if path(old) != path(new) {
            self.restart.push("[history] changes".to_owned());
        } else if let (Some(before), Some(after)) = (&old.history, &new.history) {
            let parts = [
                ("keep", before.keep != after.keep),
                ("max_bytes", before.max_bytes != after.max_bytes),
                ("commit_every", before.commit_every != after.commit_every),
            ];
            if let Some(parts) = named(&parts) {
                self.say(format!("history changes: {parts}"));
            }
        }
        let parts = [
            ("name", before.name != after.name),
            ("project", before.project != after.project),
            ("area", before.area != after.area),
            ("timezone", before.timezone != after.timezone),
            ("clock", before.clock != after.clock),
        ];
        if let Some(parts) = named(&parts) {
            self.say(format!("gateway changes: {parts}"));
        }
    }

    fn links(&mut self, old: &Config, new: &Config) {
        let buses = |config: &'_ Config| -> BTreeMap<Arc<str>, BusSettings> {
            config.buses.iter().map(|bus| (Arc::clone(&bus.settings.id), bus.settings.clone())).collect()
        };
        let (before, after) = (buses(old), buses(new));
        self.each(
            "bus",
            (&by_ref(&before), &by_ref(&after)),
            |settings| format!(" at {}", place(&settings.target)),
            |before, after| {
                let parts = bus_parts(before, after)?;
                Some(format!("begins anew: {parts}"))
            },
        );
        let brokers = |config: &'_ Config| -> BTreeMap<Arc<str>, Broker> {
            config.brokers.iter().map(|broker| (Arc::clone(&broker.settings.id), broker.clone())).collect()
        };
        let (before, after) = (brokers(old), brokers(new));
        self.each(
            "broker",
            (&by_ref(&before), &by_ref(&after)),
            |broker| format!(" at {}", broker.settings.display),
            |before, after| {
                (before.settings != after.settings).then(|| "begins anew: its settings".to_owned())
            },
        );
        let rules = |config: &'_ Config| -> BTreeMap<String, Arc<Rule>> {
            let rules = config.brokers.iter().flat_map(|broker| &broker.rules);
            let named = |rule: &Arc<Rule>| {
                format!("of {} at {} as {}", rule.pattern.text(), rule.link, rule.product.id)
            };
            let mut known = BTreeMap::new();
            for rule in rules {
                let name = named(rule);
                // Rules may differ in their filters alone.
                let numbered = (2_usize..).map(|number| format!("{name}, number {number}"));
                let free =
                    std::iter::once(name.clone()).chain(numbered).find(|name| !known.contains_key(name));
                known.insert(free.unwrap_or(name), Arc::clone(rule));
            }
            known
        };
        let schemes = |config: &'_ Config| -> BTreeMap<String, Arc<Scheme>> {
            let schemes = config.brokers.iter().filter_map(|broker| broker.scheme.as_ref());
            let named = |scheme: &Arc<Scheme>| format!("of announcements at {}", scheme.link);
            schemes.map(|scheme| (named(scheme), Arc::clone(scheme))).collect()
        };
        let (before, after) = (schemes(old), schemes(new));
        self.each(
            "discovery",
            (&by_ref(&before), &by_ref(&after)),
            |_| String::new(),
            |before, after| (before != after).then(|| "changes".to_owned()),
        );
        let (before, after) = (rules(old), rules(new));
        self.each(
            "discovery",
            (&by_ref(&before), &by_ref(&after)),
            |_| String::new(),
            |before, after| (before != after).then(|| "changes".to_owned()),
        );
    }

    /// Products as devices use them; one that nobody uses changes nothing.
    fn products(&mut self, old: &Config, new: &Config) {
        let products = |config: &Config| -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
            let mut products: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
            for device in &config.devices {
                products.entry(Arc::clone(&device.product.id)).or_default().insert(Arc::clone(&device.id));
            }
            products
        };
        let (before, after) = (places(old), places(new));
        for (id, users) in products(new) {
            let changed = users.iter().filter(|user| {
                let (Some(before), Some(after)) = (before.get(&**user), after.get(&**user)) else {
                    return false;
                };
                before.device().product.id == id && !before.same_product(after)
            });
            let changed: Vec<&str> = changed.map(|user| &**user).collect();
            if !changed.is_empty() {
                self.say(format!("product {id} changes, with {}", changed.join(", ")));
            }
        }
    }

    fn devices(&mut self, old: &Config, new: &Config) {
        let (before, after) = (places(old), places(new));
        self.each(
            "device",
            (&by_ref(&before), &by_ref(&after)),
            |place| format!(" on {}", place.device().link),
            |before, after| {
                let (one, other) = (before.device(), after.device());
                let parts = [
                    ("name", one.name != other.name),
                    ("product", one.product.id != other.product.id),
                    ("link", one.link != other.link),
                    ("unit or topic", one.link == other.link && !before.same_address(after)),
                    ("project", one.project != other.project),
                    ("area", one.area != other.area),
                    ("tags", one.tags != other.tags),
                    ("uuid", one.uuid != other.uuid),
                    ("mac", one.mac != other.mac),
                ];
                named(&parts).map(|parts| format!("changes: {parts}"))
            },
        );
        let order =
            |config: &Config| config.devices.iter().map(|device| Arc::clone(&device.id)).collect::<Vec<_>>();
        let (before, after) = (order(old), order(new));
        let stay = |one: &[Arc<str>], other: &[Arc<str>]| {
            one.iter().filter(|id| other.contains(id)).map(Arc::clone).collect::<Vec<_>>()
        };
        if stay(&before, &after) != stay(&after, &before) {
            self.say("devices stand in another order");
        }
    }

    fn clients(&mut self, old: &Config, new: &Config) {
        let clients = |config: &Config| -> BTreeMap<Arc<str>, Client> {
            config
                .clients
                .clients()
                .iter()
                .map(|client| (Arc::clone(&client.id), (**client).clone()))
                .collect()
        };
        let (before, after) = (clients(old), clients(new));
        self.each(
            "client",
            (&by_ref(&before), &by_ref(&after)),
            |_| String::new(),
            |before, after| {
                let parts = [
                    ("secret", before.secret != after.secret),
                    ("dialects", before.dialects != after.dialects),
                    ("devices", before.devices != after.devices),
                    ("rights", before.rights != after.rights),
                ];
                named(&parts).map(|parts| format!("changes: {parts}"))
            },
        );
    }

    fn server(&mut self, old: &Server, new: &Server) {
        let tls = |server: &Server| server.tls.as_ref().map(|tls| tls.listen.clone()).unwrap_or_default();
        self.listeners("listener", &old.listen, &new.listen);
        self.listeners("TLS listener", &tls(old), &tls(new));
        if let (Some(old), Some(new)) = (&old.tls, &new.tls) {
            if (&old.certificate, &old.key) != (&new.certificate, &new.key) {
                self.say("the TLS certificate comes from other files");
            }
            if old.clients != new.clients {
                self.say("what certificates clients must show changes");
            }
        }
        let (before, after) = (&old.limits, &new.limits);
        let limits = [
            ("connections", before.connections, after.connections),
            ("connections_per_address", before.connections_per_address, after.connections_per_address),
            ("frame_bytes", before.frame_bytes, after.frame_bytes),
            ("send_queue", before.send_queue, after.send_queue),
            ("failed_logins", before.failed_logins, after.failed_logins),
        ];
        for (name, before, after) in limits {
            if before != after {
                self.say(format!("limit {name} changes from {before} to {after}"));
            }
        }
        if old.flush_interval != new.flush_interval {
            let (before, after) = (old.flush_interval.as_millis(), new.flush_interval.as_millis());
            self.say(format!("server.flush_interval changes from {before}ms to {after}ms"));
        }
        if old.public_url != new.public_url {
            self.say("server.public_url changes");
        }
        if old.trusted_proxies != new.trusted_proxies {
            self.say("server.trusted_proxies changes");
        }
        if old.advertise != new.advertise {
            self.say("server.advertise changes");
        }
    }

    fn listeners(&mut self, what: &str, old: &[SocketAddr], new: &[SocketAddr]) {
        for address in old.iter().filter(|address| !new.contains(address)) {
            self.say(format!("{what} {address} is closed"));
        }
        for address in new.iter().filter(|address| !old.contains(address)) {
            self.say(format!("{what} {address} is opened"));
        }
    }

    fn dialects(&mut self, old: &Settings, new: &Settings) {
        let alone = |settings: &Settings| {
            let mut settings = settings.clone();
            for common in commons_mut(&mut settings) {
                *common = Common::default();
            }
            settings
        };
        let (one, other) = (alone(old), alone(new));
        let own = [
            one.janus != other.janus,
            one.sagoo != other.sagoo,
            one.ithings != other.ithings,
            one.oam != other.oam,
            one.uplus != other.uplus,
        ];
        for ((old, new), own) in commons(old).into_iter().zip(commons(new)).zip(own) {
            let ((name, before), (_, after)) = (old, new);
            if before.enabled != after.enabled {
                self.say(format!("dialect {name} is switched {}", if after.enabled { "on" } else { "off" }));
            }
            let parts = [
                ("settings", own),
                ("anonymous", !same_anonymous(before.anonymous.as_ref(), after.anonymous.as_ref())),
            ];
            if let Some(parts) = named(&parts) {
                self.say(format!("dialect {name} changes: {parts}"));
            }
            self.listeners(&format!("{name} listener"), &before.listen, &after.listen);
            self.listeners(&format!("{name} TLS listener"), &before.tls_listen, &after.tls_listen);
        }
    }
}

/// Each line with its end.
impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.restart {
            writeln!(f, "needs a restart: {line}")?;
        }
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl Bus {
    /// What it takes to get from this bus to its successor.
    pub fn change(&self, next: &Self) -> LinkChange {
        let devices = same(&self.devices, &next.devices, |device| &device.device);
        LinkChange::of(self.settings == next.settings, devices)
    }
}

impl Broker {
    /// What it takes to get from this broker to its successor.
    pub fn change(&self, next: &Self) -> LinkChange {
        let devices = same(&self.devices, &next.devices, |device| &device.device);
        LinkChange::of(
            self.settings == next.settings,
            devices && self.rules == next.rules && self.scheme == next.scheme,
        )
    }
}

impl LinkChange {
    fn of(same_settings: bool, same_devices: bool) -> Self {
        match (same_settings, same_devices) {
            (false, _) => Self::Restart,
            (true, true) => Self::None,
            (true, false) => Self::Devices,
        }
    }
}

/// Whether the same devices stand behind a link, bound alike and in the same order.
fn same<T: PartialEq>(old: &[T], new: &[T], device: impl Fn(&T) -> &Arc<Device>) -> bool {
    let alike = |(old, new): (&T, &T)| Arc::ptr_eq(device(old), device(new)) && old == new;
    old.len() == new.len() && old.iter().zip(new).all(alike)
}

/// A device with its place on its link.
#[derive(Debug)]
enum Place<'c> {
    Modbus(&'c ModbusDevice),
    Mqtt(&'c MqttDevice),
}

impl Place<'_> {
    fn device(&self) -> &Arc<Device> {
        match self {
            Self::Modbus(device) => &device.device,
            Self::Mqtt(device) => &device.device,
        }
    }

    fn same_product(&self, other: &Self) -> bool {
        let map = match (self, other) {
            (Self::Modbus(one), Self::Modbus(other)) => one.map == other.map,
            (Self::Mqtt(one), Self::Mqtt(other)) => one.map == other.map,
            // On another kind of link it is read in another way, which is said of the device.
            (Self::Modbus(_), Self::Mqtt(_)) | (Self::Mqtt(_), Self::Modbus(_)) => true,
        };
        map && self.device().product == other.device().product
    }

    fn same_address(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Modbus(one), Self::Modbus(other)) => one.unit == other.unit,
            (Self::Mqtt(one), Self::Mqtt(other)) => one.topic == other.topic,
            (Self::Modbus(_), Self::Mqtt(_)) | (Self::Mqtt(_), Self::Modbus(_)) => false,
        }
    }
}

fn places(config: &Config) -> BTreeMap<Arc<str>, Place<'_>> {
    let modbus = config.buses.iter().flat_map(|bus| &bus.devices).map(Place::Modbus);
    let mqtt = config.brokers.iter().flat_map(|broker| &broker.devices).map(Place::Mqtt);
    modbus.chain(mqtt).map(|place| (Arc::clone(&place.device().id), place)).collect()
}

fn by_ref<K: Ord + Clone, V>(map: &BTreeMap<K, V>) -> BTreeMap<K, &V> {
    map.iter().map(|(key, value)| (key.clone(), value)).collect()
}

/// The names of those that differ.
fn named(parts: &[(&str, bool)]) -> Option<String> {
    let differing: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    (!differing.is_empty()).then(|| differing.join(", "))
}

fn bus_parts(old: &BusSettings, new: &BusSettings) -> Option<String> {
    let line = match (&old.target, &new.target) {
        (Target::Serial(old), Target::Serial(new)) => old.path == new.path && old != new,
        (Target::Serial(_) | Target::Tcp { .. }, _) => false,
    };
    let timing = old.timeout != new.timeout || old.pause != new.pause;
    let known = [
        ("place", place(&old.target) != place(&new.target)),
        ("line settings", line),
        ("timeout or pause", timing),
    ];
    match named(&known) {
        None if old != new => Some("its settings".to_owned()),
        parts => parts,
    }
}

fn place(target: &Target) -> String {
    match target {
        Target::Serial(serial) => serial.path.to_string(),
        Target::Tcp { address, .. } => address.to_string(),
    }
}

fn same_anonymous(old: Option<&Anonymous>, new: Option<&Anonymous>) -> bool {
    old == new
}

fn commons(settings: &Settings) -> [(&'static str, &Common); 5] {
    [
        ("janus", &settings.janus.common),
        ("sagoo", &settings.sagoo.common),
        ("ithings", &settings.ithings.common),
        ("oam", &settings.oam.common),
        ("uplus", &settings.uplus.common),
    ]
}

fn commons_mut(settings: &mut Settings) -> [&mut Common; 5] {
    [
        &mut settings.janus.common,
        &mut settings.sagoo.common,
        &mut settings.ithings.common,
        &mut settings.oam.common,
        &mut settings.uplus.common,
    ]
}

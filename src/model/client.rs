//! Clients: who may come in, by which dialect, to which devices, and to do what.
//!
//! Secrets are compared in constant time and have no `Display`; their `Debug` says nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use subtle::ConstantTimeEq;
use wildmatch::WildMatch;

use super::command::ActionKind;
use super::device::Device;

/// One credential and what it opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The U+ systemId; the name in logs.
    pub id: Arc<str>,
    /// The token of four dialects and the U+ systemKey.
    pub secret: Secret,
    /// Where it may be used.
    pub dialects: Vec<Dialect>,
    /// What it can see.
    pub devices: DeviceFilter,
    /// What it can do.
    pub rights: Rights,
}

impl Client {
    /// Whether the client may do this to the device.
    pub fn may(&self, action: ActionKind, device: &Device) -> bool {
        let right = match action {
            ActionKind::Read => self.rights.read,
            ActionKind::Write => self.rights.write,
            ActionKind::Invoke => self.rights.invoke,
        };
        right && self.devices.admits(device)
    }

    /// Whether the client may see the device's messages.
    pub fn sees(&self, device: &Device) -> bool {
        self.rights.read && self.devices.admits(device)
    }
}

/// Where a session comes from, for the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// What it speaks.
    pub dialect: Option<Dialect>,
    /// The client's address.
    pub peer: Option<IpAddr>,
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps it.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(secret.into())
    }

    /// The raw text, for signing only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its time where the difference is; only the length can be told.
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The five dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Janus: HTTP call, then STOMP.
    Janus,
    /// SagooIoT / JetLinks `/messaging/{token}`.
    Sagoo,
    /// iThings.
    Ithings,
    /// WCS OAM: STOMP and REST.
    Oam,
    /// Haier U+ data subscription.
    Uplus,
}

impl Dialect {
    /// All five, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Janus, Self::Sagoo, Self::Ithings, Self::Oam, Self::Uplus];

    /// The name in configurations and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Janus => "janus",
            Self::Sagoo => "sagoo",
            Self::Ithings => "ithings",
            Self::Oam => "oam",
            Self::Uplus => "uplus",
        }
    }
}

/// What a credential lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// See messages and read properties.
    pub read: bool,
    /// Write properties.
    pub write: bool,
    /// Invoke functions.
    pub invoke: bool,
}

impl Rights {
    /// Only `read`, the default.
    pub const READ: Self = Self { read: true, write: false, invoke: false };
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, invoke: true };
}

/// Which devices a client may know of: globs (`*`, `?`) over device ids, or `product:` and a glob over products.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFilter(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    Device(WildMatch),
    Product(WildMatch),
}

impl DeviceFilter {
    /// From patterns as a configuration writes them.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let parse = |pattern: &str| match pattern.strip_prefix("product:") {
            Some(product) => Pattern::Product(WildMatch::new(product)),
            None => Pattern::Device(WildMatch::new(pattern)),
        };
        Self(patterns.into_iter().map(|pattern| parse(pattern.as_ref())).collect())
    }

    /// Whether the device is among them.
    pub fn admits(&self, device: &Device) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Device(glob) => glob.matches(&device.id),
            Pattern::Product(glob) => glob.matches(&device.product.id),
        })
    }
}

/// Lets clients of one dialect in without a credential, from named networks only.
#[derive(Clone, Debug, PartialEq)]
pub struct Anonymous {
    /// Networks that it holds for.
    pub networks: Vec<IpNet>,
    /// What such a client is.
    pub client: Arc<Client>,
}

impl Anonymous {
    /// The client that a peer without a credential is, if any.
    pub fn admit(&self, peer: IpAddr) -> Option<&Arc<Client>> {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer)).then_some(&self.client)
    }
}

/// Every client of the gateway.
#[derive(Clone, Debug, Default)]
pub struct ClientBook {
    clients: Vec<Arc<Client>>,
}

impl ClientBook {
    /// From a resolved configuration, which has checked that ids and secrets are unique.
    pub fn new(clients: Vec<Arc<Client>>) -> Self {
        Self { clients }
    }

    /// Every client.
    pub fn clients(&self) -> &[Arc<Client>] {
        &self.clients
    }

    /// The client whose secret this token is, if it may use the dialect. Looks at every client each time, so that
    /// the time tells nothing of which one matched.
    pub fn by_token(&self, dialect: Dialect, token: &str) -> Option<&Arc<Client>> {
        let mut found = None;
        for client in &self.clients {
            if client.secret.matches(token) && client.dialects.contains(&dialect) {
                found = Some(client);
            }
        }
        found
    }

    /// The client whose secret this token is, whatever dialects it may use. Looks at every client each time.
    pub fn by_secret(&self, token: &str) -> Option<&Arc<Client>> {
        let mut found = None;
        for client in &self.clients {
            if client.secret.matches(token) {
                found = Some(client);
            }
        }
        found
    }

    /// By id, if it may use the dialect.
    pub fn by_id(&self, dialect: Dialect, id: &str) -> Option<&Arc<Client>> {
        self.clients.iter().find(|client| &*client.id == id && client.dialects.contains(&dialect))
    }
}

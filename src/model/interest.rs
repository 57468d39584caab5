//! What a session wants to hear: selectors over devices, kinds of message, and balanced groups of sessions.

use std::sync::Arc;
use std::time::Duration;

use super::device::Device;
use super::message::Kinds;

/// Some devices and some kinds of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Which devices.
    pub selector: Selector,
    /// Which kinds of message.
    pub kinds: Kinds,
}

/// A set of devices, resolved by the hub against the running configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Every device.
    All,
    /// One, by id.
    Device(Arc<str>),
    /// Those of a product, by product id.
    Product(Arc<str>),
    /// Those of an iThings project.
    Project(Arc<str>),
    /// Those of an area in an iThings project.
    Area {
        /// Project id.
        project: Arc<str>,
        /// Area id.
        area: Arc<str>,
    },
    /// Those of the product with this U+ typeId.
    TypeId(Arc<str>),
    /// Those of products whose U+ typeId starts so.
    TypeIdPrefix(Arc<str>),
}

impl Selector {
    /// Whether the device belongs to the set.
    pub fn admits(&self, device: &Device) -> bool {
        match self {
            Self::All => true,
            Self::Device(id) => device.id == *id,
            Self::Product(id) => device.product.id == *id,
            Self::Project(project) => device.project == *project,
            Self::Area { project, area } => device.project == *project && device.area == *area,
            Self::TypeId(type_id) => device.product.type_id == *type_id,
            Self::TypeIdPrefix(prefix) => device.product.type_id.starts_with(&**prefix),
        }
    }
}

/// One subscription that a whole group of sessions shares: each matching message goes to one of its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// What the dialect calls it; equal labels in one group are one relation.
    pub label: Arc<str>,
    /// What it delivers.
    pub interest: Interest,
}

/// What a session asks of its group. Asks of one session are answered in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAsk {
    /// Become a member of the named group, unless it has `limit` members already. Must come first.
    Join {
        /// The group: for U+ the systemId.
        group: Arc<str>,
        /// Most members at a time.
        limit: usize,
        /// How long a relation without a connected holder lives on and gathers what it would have delivered; without a
        /// history store an hour at most, and not much. Zero: it ends with its last holder.
        retain: Duration,
    },
    /// Hold these relations too. Holding one that the session holds already changes nothing; one that the group
    /// has already goes on where it stands.
    Hold {
        /// Which ones.
        relations: Vec<Relation>,
        /// Where a relation begins that is new to the group: with everything that is still kept (within the
        /// group's `retain`), or with the next message.
        earliest: bool,
    },
    /// No longer hold the relations with these labels. One without any other holder ends, with what it gathered.
    Release(Vec<Arc<str>>),
    /// Which relations this session holds.
    Mine,
    /// Which relations the group has, with a connected holder or without.
    All,
}

/// The answer to a [`GroupAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// To `Join`: the session is a member.
    Joined,
    /// To `Join`: the group has as many members as it may.
    Full,
    /// To `Hold` and `Release`: done. When a release leaves the group without any relation, every member that
    /// ever held one is told `GroupEmpty` afterwards.
    Done,
    /// To `Mine` and `All`: labels in the order in which they were first held.
    Relations(Vec<Arc<str>>),
    /// To anything before `Join`.
    NotJoined,
}

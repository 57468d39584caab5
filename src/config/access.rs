//! Reads who may come in: `[dialects.*]` with their anonymous networks, and `[[client]]`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::discovery::Ways;
use super::node::Node;
use super::problem::{Problem, Spot};
use super::reader::{Entry, Table};
use super::server::{Listener, addresses, read_listeners, set};
use super::{Server, scalar};
use crate::dialects::shared::stomp::Tolerance;
use crate::dialects::{self, Common, ithings, janus, oam, sagoo, uplus};
use crate::drivers::mqtt::discover::Rule;
use crate::model::client::{Anonymous, Client, DeviceFilter, Dialect, Rights, Secret};
use crate::model::device::Device;

/// What clients may be let see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plant<'c> {
    pub(super) devices: &'c [Arc<Device>],
    /// How others appear.
    pub(super) ways: &'c [&'c Ways],
}

impl Plant<'_> {
    /// Whether a pattern of a filter may mean somebody. What the ids of devices will be that appear is not known yet.
    fn has(&self, pattern: &str) -> bool {
        let filter = DeviceFilter::new([pattern]);
        let by_id = !pattern.starts_with("product:");
        // Of those that announce themselves nothing is known.
        let nobody = self.devices.is_empty() && self.ways.is_empty();
        let unknown = nobody || self.ways.iter().any(|ways| ways.scheme.is_some());
        let appears = |rule: &Arc<Rule>| by_id || filter.admits(&rule.device(&Vec::new()).device);
        let mut rules = self.ways.iter().flat_map(|ways| &ways.rules);
        unknown || self.devices.iter().any(|device| filter.admits(device)) || rules.any(appears)
    }
}

/// Secrets shorter than this can be guessed over a network.
const SHORT_SECRET: usize = 8;

/// Every dialect's settings; adds the dialects' own listeners to the list.
pub(super) fn dialects(
    root: &Table<'_>,
    plant: Plant<'_>,
    listeners: &mut Vec<Listener>,
) -> dialects::Settings {
    let all = root.table("dialects");
    let table = |name| all.as_ref().and_then(|all| all.table(name));
    let mut common =
        |table: Option<&Table<'_>>| table.map_or_else(Common::default, |t| common(t, plant, listeners));

    let given = table("janus");
    let mut janus = janus::Settings { common: common(given.as_ref()), ..janus::Settings::default() };
    if let Some(table) = given {
        let range = Duration::from_secs(10)..=Duration::from_secs(86_400);
        set(&mut janus.ticket_lifetime, table.key("ticket_lifetime").read(|node| node.duration(range)));
        let words = [("colon", janus::TimeForm::Colon), ("dot", janus::TimeForm::Dot)];
        set(&mut janus.time, table.key("time").read(|node| node.word(&words)));
        janus.stomp = stomp(&table);
        table.finish();
    }
    let given = table("sagoo");
    let mut sagoo = sagoo::Settings { common: common(given.as_ref()), payload: sagoo::Payload::default() };
    if let Some(table) = given {
        use sagoo::Payload::{Jetlinks, Merged, Seed};
        let words = [("merged", Merged), ("seed", Seed), ("jetlinks", Jetlinks)];
        set(&mut sagoo.payload, table.key("payload").read(|node| node.word(&words)));
        table.finish();
    }
    let given = table("ithings");
    let mut ithings = ithings::Settings { common: common(given.as_ref()), push: ithings::Push::default() };
    if let Some(table) = given {
        use ithings::Push::{Bare, Envelope, Merged};
        let words = [("merged", Merged), ("envelope", Envelope), ("bare", Bare)];
        set(&mut ithings.push, table.key("push").read(|node| node.word(&words)));
        table.finish();
    }
    let given = table("oam");
    let oam = oam(common(given.as_ref()), given);
    let given = table("uplus");
    let uplus = uplus(common(given.as_ref()), given);
    if let Some(all) = all {
        all.finish();
    }
    dialects::Settings { janus, sagoo, ithings, oam, uplus }
}

fn oam(common: Common, table: Option<Table<'_>>) -> oam::Settings {
    let mut settings = oam::Settings { common, ..oam::Settings::default() };
    if let Some(table) = table {
        // A plain number of milliseconds, as in the configuration that the dialect's users know.
        let millis = table.key("stomp_max_timeout").read(|node| node.int(1..=60_000));
        set(&mut settings.stomp_max_timeout, millis.map(Duration::from_millis));
        set(&mut settings.stomp_max_metrics, table.key("stomp_max_metrics").read(|node| node.int(1..=1000)));
        let origin = table.key("access_control_allow_origin").read(|node| node.line().map(Arc::from));
        set(&mut settings.access_control_allow_origin, origin);
        set(&mut settings.rest_always_200, table.key("rest_always_200").read(Node::bool));
        settings.stomp = stomp(&table);
        table.finish();
    }
    settings
}

/// What both STOMP dialects have.
fn stomp(table: &Table<'_>) -> Tolerance {
    let heart_beat = table.key("client_heart_beat").read(|node| {
        if node.is_word("off") {
            return None;
        }
        node.duration(Duration::from_secs(1)..=Duration::from_secs(3600))
    });
    let switch = |key| table.key(key).read(Node::bool).unwrap_or(false);
    Tolerance {
        lenient_content_length: switch("lenient_content_length"),
        frames_without_nul: switch("frames_without_nul"),
        client_heart_beat: heart_beat,
    }
}

fn uplus(common: Common, table: Option<Table<'_>>) -> uplus::Settings {
    let mut settings = uplus::Settings { common, ..uplus::Settings::default() };
    if let Some(table) = table {
        let words = [("flat", uplus::PushFormat::Flat), ("envelope", uplus::PushFormat::Envelope)];
        set(&mut settings.push_format, table.key("push_format").read(|node| node.word(&words)));
        let words = [("online", uplus::Desc::Online), ("plain", uplus::Desc::Plain)];
        set(&mut settings.desc, table.key("desc").read(|node| node.word(&words)));
        let connections = table.key("connections_per_system").read(|node| node.int(1..=1024));
        set(&mut settings.connections_per_system, connections);
        let window = table.key("timestamp_window");
        settings.timestamp_window = window.read(|node| {
            if node.is_word("off") {
                return None;
            }
            node.duration(Duration::from_secs(1)..=Duration::from_secs(86_400))
        });
        let range = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
        set(&mut settings.retention, table.key("retention").read(|node| node.duration(range)));
        table.finish();
    }
    settings
}

/// What every dialect has.
fn common(table: &Table<'_>, plant: Plant<'_>, listeners: &mut Vec<Listener>) -> Common {
    let enabled = table.key("enabled").read(Node::bool).unwrap_or(true);
    let mut own = read_listeners(&table.key("listen"), true, false);
    let listen = addresses(&own);
    let secure = read_listeners(&table.key("tls_listen"), true, true);
    let tls_listen = addresses(&secure);
    own.extend(secure);
    if enabled {
        listeners.append(&mut own);
    }
    let anonymous = table.table("anonymous").map(|table| anonymous(table, plant));
    Common { enabled, listen, tls_listen, anonymous }
}

fn anonymous(table: Table<'_>, plant: Plant<'_>) -> Anonymous {
    let entry = table.key("networks").required("a list of networks, as in [\"192.168.1.0/24\"]");
    let networks = entry.read(|node| {
        node.list_of(|item| {
            item.parse("a network, as in \"192.168.1.0/24\" or \"::1/128\"", |text| {
                text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            })
        })
    });
    let networks = networks.unwrap_or_default();
    let rights = rights(&table.key("rights"));
    let filter = devices_filter(&table.key("devices"), plant);
    let open: Vec<String> =
        networks.iter().filter(|network| !is_loopback(network)).map(ToString::to_string).collect();
    if !open.is_empty() {
        let mut may = vec!["read"];
        may.extend(rights.write.then_some("write"));
        may.extend(rights.invoke.then_some("invoke"));
        let found = format!("anyone in {} may {} without a credential", open.join(", "), may.join(", "));
        table.report().add(Problem::warning(&entry.spot(), found));
    }
    table.finish();
    let client = Client {
        id: "anonymous".into(),
        secret: Secret::new(""),
        dialects: Vec::new(),
        devices: filter,
        rights,
    };
    Anonymous { networks, client: Arc::new(client) }
}

fn is_loopback(network: &IpNet) -> bool {
    network.network().is_loopback() && network.broadcast().is_loopback()
}

fn rights(entry: &Entry<'_>) -> Rights {
    #[derive(Clone, Copy, PartialEq)]
    enum Right {
        Read,
        Write,
        Invoke,
    }
    let words = [("read", Right::Read), ("write", Right::Write), ("invoke", Right::Invoke)];
    entry.read(|node| node.list_of(|item| item.word(&words))).map_or(Rights::READ, |rights| Rights {
        read: rights.contains(&Right::Read),
        write: rights.contains(&Right::Write),
        invoke: rights.contains(&Right::Invoke),
    })
}

fn devices_filter(entry: &Entry<'_>, plant: Plant<'_>) -> DeviceFilter {
    let patterns = entry.read(|node| {
        node.list_of(|item| {
            let pattern = item.line()?;
            if !plant.has(pattern) {
                let found = format!("{pattern:?} matches no device");
                let allowed = "device ids or \"product:\" and a product id, both with * and ?";
                item.report().add(Problem::warning(&item.spot(), found).allowed(allowed));
            }
            Some(pattern)
        })
    });
    DeviceFilter::new(patterns.unwrap_or_else(|| vec!["*"]))
}

/// One `[[client]]` with its place.
struct Entrant {
    client: Client,
    spot: Spot,
}

/// Every client; ids and secrets are each one's own.
pub(super) fn clients(root: &Table<'_>, plant: Plant<'_>, listeners: &[Listener]) -> Vec<Arc<Client>> {
    let local = listeners.iter().all(|listener| listener.address.ip().is_loopback());
    let mut entrants: Vec<Entrant> = Vec::new();
    let (mut ids, mut secrets) = (HashMap::new(), HashMap::new());
    for table in root.tables("client") {
        let id_spot = table.key("id").spot();
        let secret = table.key("secret").secret();
        let secret_spot = secret.spot();
        let Some(client) = client(table, plant) else { continue };
        let length = client.secret.reveal().chars().count();
        if length < SHORT_SECRET && !local {
            let found = format!("a secret of {length} characters can be guessed");
            root.report().add(
                Problem::warning(&secret_spot, found)
                    .allowed(format!("{SHORT_SECRET} characters and more"))
                    .hint("`pentad token` makes a good one"),
            );
        }
        let (number, secret) = (entrants.len(), client.secret.reveal().to_owned());
        let same_id = first_of(&mut ids, Arc::clone(&client.id), number);
        if let Some(earlier) = same_id.and_then(|at| entrants.get(at)) {
            let found = format!("client {} exists already", client.id);
            let see = format!("see {}", earlier.spot.reference());
            root.report().add(Problem::error(&id_spot, found).hint(see));
        }
        let same_secret = first_of(&mut secrets, secret, number).filter(|at| Some(*at) != same_id);
        if let Some(earlier) = same_secret.and_then(|at| entrants.get(at)) {
            let found = format!("the secret is that of client {} as well", earlier.client.id);
            let allowed = "a secret of its own, since most dialects know a client by nothing else";
            let see = format!("see {}", earlier.spot.reference());
            root.report().add(Problem::error(&secret_spot, found).allowed(allowed).hint(see));
        }
        entrants.push(Entrant { client, spot: id_spot });
    }
    entrants.into_iter().map(|entrant| Arc::new(entrant.client)).collect()
}

/// The number of the first that has this, if it is not this one.
fn first_of<K: Hash + Eq>(known: &mut HashMap<K, usize>, key: K, number: usize) -> Option<usize> {
    let first = *known.entry(key).or_insert(number);
    (first != number).then_some(first)
}

fn client(table: Table<'_>, plant: Plant<'_>) -> Option<Client> {
    let id = table.key("id").required(scalar::ID_RULE).read(Node::id);
    let secret = table.key("secret").secret().required("the client's secret").read(Node::line);
    let words = Dialect::ALL.map(|dialect| (dialect.name(), dialect));
    let dialects = table.key("dialects").read(|node| node.list_of(|item| item.word(&words)));
    let devices = devices_filter(&table.key("devices"), plant);
    let rights = rights(&table.key("rights"));
    table.finish();
    Some(Client {
        id: id?,
        secret: Secret::new(secret?),
        dialects: dialects.unwrap_or_else(|| Dialect::ALL.to_vec()),
        devices,
        rights,
    })
}

/// Warns when nobody can come in at all.
pub(super) fn check_entry(root: &Table<'_>, clients: &[Arc<Client>], settings: &dialects::Settings) {
    let anonymous = commons(settings).iter().any(|(_, common)| common.anonymous.is_some());
    if clients.is_empty() && !anonymous && !root.report().failed() {
        let problem = Problem::warning(&root.spot(), "no client is configured, so nobody can come in");
        root.report().add(problem.hint("`pentad token` makes a credential for clients.toml"));
    }
}

/// Warns where a reverse proxy would make every client look like a trusted neighbour.
pub(super) fn check_proxies(root: &Table<'_>, server: &Server, settings: &dialects::Settings) {
    if server.public_url.is_none() || !server.trusted_proxies.is_empty() {
        return;
    }
    for (name, common) in commons(settings) {
        let networks = common.anonymous.iter().flat_map(|anonymous| &anonymous.networks);
        if networks.into_iter().any(is_loopback) {
            let spot =
                root.table("server").map_or_else(|| root.spot(), |table| table.key("public_url").spot());
            let found = format!(
                "behind a proxy on this machine every client comes from loopback, where {name} asks for no credential"
            );
            let hint = "name the proxy in server.trusted_proxies";
            root.report().add(Problem::warning(&spot, found).hint(hint));
        }
    }
}

fn commons(settings: &dialects::Settings) -> [(&'static str, &Common); 5] {
    [
        ("janus", &settings.janus.common),
        ("sagoo", &settings.sagoo.common),
        ("ithings", &settings.ithings.common),
        ("oam", &settings.oam.common),
        ("uplus", &settings.uplus.common),
    ]
}

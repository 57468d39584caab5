//! Reads `[gateway]`, `[server]` and `[history]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::problem::{Problem, Spot};
use super::reader::{Entry, Table};
use super::{History, Limits, Server, Surroundings, Tls, scalar};
use crate::dialects::{ENTRIES, Settings};
use crate::model::device::Gateway;
use crate::model::time::Trust;
use crate::serve::tls::ClientCertificates;

/// The gateway's id when none is configured; the same everywhere, so that it is plainly no real one.
const DEFAULT_ID: &str = "pentad";

/// Where clients come in when nothing is configured.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The longest that messages may gather: what a person calls at once.
const LONGEST_FLUSH: Duration = Duration::from_millis(500);

/// A listener and where it was configured.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) spot: Spot,
    /// Whether it serves single dialects and not all.
    pub(super) of_dialect: bool,
    /// Whether it speaks TLS.
    pub(super) secure: bool,
}

pub(super) fn gateway(root: &Table<'_>, surroundings: &dyn Surroundings) -> Gateway {
    let mut gateway = Gateway {
        id: DEFAULT_ID.into(),
        name: "".into(),
        project: "1".into(),
        area: "1".into(),
        timezone: surroundings.timezone(),
        clock: Trust::Auto,
    };
    let given = root.table("gateway");
    let unnamed = given.as_ref().is_none_or(|table| !table.key("id").given());
    if unnamed && !root.report().is_incomplete() {
        let spot = given.as_ref().map_or_else(|| root.spot(), Table::spot);
        let spot = Spot { path: "gateway.id".to_owned(), ..spot };
        let found = format!("missing, {DEFAULT_ID:?} is used");
        let hint = "device identities derive from it, so give every gateway its own and keep it";
        root.report().add(Problem::warning(&spot, found).allowed(scalar::ID_RULE).hint(hint));
    }
    if let Some(table) = given {
        set(&mut gateway.id, table.key("id").read(Node::id));
        set(&mut gateway.name, table.key("name").read(|node| node.line().map(Arc::from)));
        set(&mut gateway.project, table.key("project").read(Node::digits));
        set(&mut gateway.area, table.key("area").read(Node::digits));
        let timezone = table.key("timezone").read(|node| {
            node.parse("a time zone of this system, as in \"Europe/Berlin\" or \"UTC\"", |name| {
                jiff::tz::TimeZone::get(name).ok()
            })
        });
        set(&mut gateway.timezone, timezone);
        let clock = table.key("clock");
        set(
            &mut gateway.clock,
            clock.read(|node| node.word(&[("auto", Trust::Auto), ("trusted", Trust::Always)])),
        );
        table.finish();
    }
    if gateway.name.is_empty() {
        gateway.name = Arc::clone(&gateway.id);
    }
    gateway
}

/// The server's settings, and its listeners with their places.
pub(super) fn server(root: &Table<'_>, surroundings: &dyn Surroundings) -> (Server, Vec<Listener>) {
    let mut server = Server {
        listen: vec![DEFAULT_LISTEN],
        tls: None,
        public_url: None,
        trusted_proxies: Vec::new(),
        advertise: false,
        flush_interval: Duration::ZERO,
        limits: Limits::default(),
    };
    let mut listeners = Vec::new();
    let Some(table) = root.table("server") else {
        listeners.push(Listener {
            address: DEFAULT_LISTEN,
            spot: root.key("server").spot(),
            of_dialect: false,
            secure: false,
        });
        return (server, listeners);
    };
    let listen = table.key("listen");
    if listen.given() {
        listeners = read_listeners(&listen, false, false);
        server.listen = addresses(&listeners);
    } else {
        let (address, spot) = (DEFAULT_LISTEN, listen.spot());
        listeners.push(Listener { address, spot, of_dialect: false, secure: false });
    }
    server.public_url = table.key("public_url").read(|node| {
        node.parse("http:// or https://, a host and perhaps a port, without a path", scalar::origin)
    });
    let proxies = table.key("trusted_proxies").read(|node| {
        node.list_of(|item| {
            let address = item.ip()?;
            if address.is_unspecified() {
                item.wrong_with(
                    "the address that the proxy connects from",
                    Some("this one is nobody's".to_owned()),
                );
            }
            Some(address)
        })
    });
    server.trusted_proxies = proxies.unwrap_or_default();
    if let Some(tls) = table.table("tls") {
        let (tls, mut more) = read_tls(tls, surroundings);
        listeners.append(&mut more);
        server.tls = tls;
    }
    set(&mut server.advertise, table.key("advertise").read(Node::bool));
    let gathering = table.key("flush_interval").read(|node| node.duration(Duration::ZERO..=LONGEST_FLUSH));
    set(&mut server.flush_interval, gathering);
    if let Some(limits) = table.table("limits") {
        server.limits = read_limits(limits);
    }
    if listeners.is_empty() && !table.report().failed() {
        let problem = Problem::error(&listen.spot(), "nothing to listen on");
        table.report().add(problem.allowed("at least one address here or in server.tls.listen"));
    }
    table.finish();
    (server, listeners)
}

/// The list of addresses at a key.
pub(super) fn read_listeners(entry: &Entry<'_>, of_dialect: bool, secure: bool) -> Vec<Listener> {
    let read =
        |item: &Node<'_>| Some(Listener { address: item.socket()?, spot: item.spot(), of_dialect, secure });
    entry.read(|node| node.list_of(read)).unwrap_or_default()
}

pub(super) fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().map(|listener| listener.address).collect()
}

/// What stands before the name of a credential in the place of a path.
const CREDENTIAL: &str = "credential:";

fn read_tls(table: Table<'_>, surroundings: &dyn Surroundings) -> (Option<Tls>, Vec<Listener>) {
    let listen = table.key("listen").required("a list of addresses, as in [\"0.0.0.0:8443\"]");
    let listeners = read_listeners(&listen, false, true);
    let certificate = file(&table.key("certificate").required("the path of a PEM file"), surroundings);
    let key = file(&table.key("key").required("the path of a PEM file"), surroundings);
    let authorities = file(&table.key("client_ca"), surroundings);
    let demanded = table.key("client_certificates");
    if demanded.given() && !table.key("client_ca").given() {
        let problem = Problem::error(&demanded.spot(), "nobody signs the certificates of clients");
        table.report().add(problem.allowed("client_ca, the path of a PEM file, beside it"));
    }
    let required = demanded.read(|node| node.word(&[("required", true), ("optional", false)]));
    let clients =
        authorities.map(|authorities| ClientCertificates { authorities, required: required.unwrap_or(true) });
    table.finish();
    let tls = certificate.zip(key).map(|(certificate, key)| Tls {
        listen: addresses(&listeners),
        certificate,
        key,
        clients,
    });
    (tls, listeners)
}

/// The path of a file that has to be there; a relative one counts from the file that it is written in, and
/// `credential:NAME` is what the service manager hands over under that name.
pub(super) fn file(entry: &Entry<'_>, surroundings: &dyn Surroundings) -> Option<PathBuf> {
    entry.read(|node| {
        let line = node.line()?;
        let credential = line.strip_prefix(CREDENTIAL);
        if credential.is_some_and(|name| name.is_empty() || name.contains('/')) {
            node.wrong("credential: and a name without a slash");
            return None;
        }
        let folder = if credential.is_some() { surroundings.credentials() } else { node.file().parent() };
        let path = folder.unwrap_or(Path::new("")).join(credential.unwrap_or(line));
        if surroundings.missing(&path) {
            let (allowed, hint) = match credential {
                None => ("the path of a file", ""),
                Some(_) => ("a credential", "; LoadCredential= hands it over while the service runs"),
            };
            node.wrong_with(allowed, Some(format!("{} does not exist{hint}", path.display())));
            return None;
        }
        Some(path)
    })
}

fn read_limits(table: Table<'_>) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits.connections, table.key("connections").read(|node| node.int(1..=65_535)));
    set(
        &mut limits.connections_per_address,
        table.key("connections_per_address").read(|node| node.int(1..=65_535)),
    );
    set(&mut limits.frame_bytes, table.key("frame_bytes").read(|node| node.int(1024..=16_777_216)));
    set(&mut limits.send_queue, table.key("send_queue").read(|node| node.int(16..=65_536)));
    set(&mut limits.failed_logins, table.key("failed_logins").read(|node| node.int(0..=65_535)));
    table.finish();
    limits
}

pub(super) fn history(root: &Table<'_>) -> Option<History> {
    const DAY: u64 = 86_400;
    let mut history = History {
        path: "/var/lib/pentad/history.db".into(),
        keep: Duration::from_secs(7 * DAY),
        max_bytes: 256 << 20,
        commit_every: Duration::from_secs(5),
    };
    let table = root.table("history")?;
    set(&mut history.path, table.key("path").read(|node| node.line().map(PathBuf::from)));
    let keep = Duration::from_secs(60)..=Duration::from_secs(3650 * DAY);
    set(&mut history.keep, table.key("keep").read(|node| node.duration(keep)));
    set(&mut history.max_bytes, table.key("max_bytes").read(|node| node.int(1_048_576..=1_099_511_627_776)));
    let commit = Duration::from_millis(100)..=Duration::from_secs(3600);
    set(&mut history.commit_every, table.key("commit_every").read(|node| node.duration(commit)));
    table.finish();
    Some(history)
}

/// Overwrites a default by what was configured.
pub(super) fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Reports dialects that want TLS where there is no certificate.
pub(super) fn check_certificate(root: &Table<'_>, server: &Server, dialects: &Settings) {
    let wanted = ENTRIES.iter().find(|entry| !(entry.common)(dialects).tls_listen.is_empty());
    if let (Some(entry), None) = (wanted, &server.tls) {
        let name = entry.dialect.name();
        let spot = Spot { path: format!("dialects.{name}.tls_listen"), ..root.spot() };
        let problem = Problem::error(&spot, "there is no certificate for it");
        root.report().add(problem.allowed("only beside [server.tls] with certificate and key"));
    }
}

/// Reports listeners that cannot be bound side by side: the same port on the same address, or on all addresses.
pub(super) fn check_listeners(root: &Table<'_>, listeners: &[Listener]) {
    for (at, listener) in listeners.iter().enumerate() {
        // Dialects may share a port of their own, where all of them speak TLS there or none.
        let shared = |earlier: &Listener| {
            earlier.of_dialect
                && listener.of_dialect
                && earlier.secure == listener.secure
                && earlier.address == listener.address
        };
        let earlier = listeners
            .iter()
            .take(at)
            .find(|earlier| clash(earlier.address, listener.address) && !shared(earlier));
        if let Some(earlier) = earlier {
            let found = format!("{} is used already by {}", listener.address, earlier.spot.path);
            let problem = Problem::error(&listener.spot, found);
            root.report().add(problem.hint(format!("see {}", earlier.spot.reference())));
        }
    }
}

fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    // The system gives every listener on port 0 a free port of its own.
    if one.port() == 0 {
        return false;
    }
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    let shared = one.ip() == other.ip() || everywhere(one.ip()) || everywhere(other.ip());
    // An IPv6 wildcard also takes IPv4 connections on Linux; an IPv4 wildcard leaves IPv6 addresses alone.
    let separate = match (one.ip(), other.ip()) {
        (IpAddr::V4(four), IpAddr::V6(six)) | (IpAddr::V6(six), IpAddr::V4(four)) => {
            four.is_unspecified() && !six.is_unspecified()
        }
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => false,
    };
    one.port() == other.port() && shared && !separate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_takes_the_port_of_every_other() {
        let clash = |one: &str, other: &str| clash(one.parse().unwrap(), other.parse().unwrap());
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("[::]:80", "127.0.0.1:80"));
        assert!(clash("[::]:80", "0.0.0.0:80"));
        assert!(!clash("0.0.0.0:80", "[::1]:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash("0.0.0.0:80", "0.0.0.0:81"));
    }
}

//! Reads `[[mqtt]]`: the way to a broker.

use std::sync::Arc;
use std::time::Duration;

use super::Surroundings;
use super::discovery::{self, Stock, Ways};
use super::links::{self, Id};
use super::node::Node;
use super::problem::Problem;
use super::reader::Table;
use super::scalar::{self, Endpoint};
use super::server::file;
use crate::drivers::mqtt::packet::Version;
use crate::drivers::mqtt::presence::PresenceSettings;
use crate::drivers::mqtt::route::{Names, is_topic};
use crate::drivers::mqtt::tls::TlsSettings;
use crate::drivers::mqtt::{BrokerSettings, Transport};
use crate::model::client::Secret;

/// How a broker may be reached: scheme, port when none is given, TLS, WebSocket.
const SCHEMES: [(&str, u16, bool, bool); 4] = [
    ("mqtt", 1883, false, false),
    ("mqtts", 8883, true, false),
    ("ws", 80, false, true),
    ("wss", 443, true, true),
];

/// Where brokers have their WebSocket when the address does not say.
const WEB_PATH: &str = "/mqtt";

/// A broker's address, taken apart.
struct Address {
    endpoint: Endpoint,
    encrypted: bool,
    web: Option<Arc<str>>,
    display: String,
}

/// One broker, and how devices appear there.
pub(super) fn broker(
    table: Table<'_>,
    stock: Stock<'_>,
    surroundings: &dyn Surroundings,
) -> (Id, Option<BrokerSettings>, Ways) {
    let gateway = &*stock.gateway.id;
    let id = links::id(&table);
    let address = address(&table);
    let words = [("3.1.1", Version::V3), ("5", Version::V5)];
    let version = table.key("version").read(|node| node.word(&words)).unwrap_or_default();
    let tls = tls(&table, address.as_ref(), surroundings);
    let ways = discovery::ways(&table, id.as_ref().map(|(id, _)| id), version, stock);
    let username = table.key("username").read(Node::line);
    let password = password(&table, surroundings);
    let client_id = table.key("client_id").read(|node| {
        node.parse("1 to 64 characters without control characters", |text| {
            let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            fits.then(|| Arc::<str>::from(text))
        })
    });
    let range = Duration::from_secs(5)..=Duration::from_secs(3600);
    let keep_alive =
        table.key("keep_alive").read(|node| node.duration(range)).unwrap_or(Duration::from_secs(30));
    let clean_session = table.key("clean_session").read(Node::bool).unwrap_or(true);
    let presence = presence(&table, gateway);
    let spot = table.key("username").spot();
    if username.is_none() && password.is_some() {
        table.report().add(Problem::error(&spot, "missing, but there is a password").allowed("a user name"));
    }
    if let Some(login) = username.filter(|_| address.as_ref().is_some_and(exposes)) {
        let found = format!("the password of {login} travels readable for everybody on the way");
        let problem = Problem::warning(&spot, found);
        table.report().add(problem.hint("use mqtts:// or wss:// where the broker has it"));
    }
    table.finish();
    let settings = id.as_ref().zip(address).map(|((id, _), address)| BrokerSettings {
        id: Arc::clone(id),
        gateway: gateway.into(),
        host: address.endpoint.host.as_str().into(),
        port: address.endpoint.port,
        transport: Transport { tls, web: address.web },
        version,
        display: address.display.into(),
        client_id: client_id.unwrap_or_else(|| format!("pentad-{gateway}-{id}").into()),
        login: username.map(|name| (name.into(), password.unwrap_or_else(|| Secret::new("")))),
        keep_alive,
        clean_session,
        presence,
    });
    (id, settings, ways)
}

/// What the gateway says of itself: `presence = false`, or a table with what differs from the usual.
fn presence(table: &Table<'_>, gateway: &str) -> Option<PresenceSettings> {
    let names = Names { gateway: gateway.into(), ..Names::default() };
    let given = table.key("presence");
    let given = if given.node().is_some_and(Node::is_bool) {
        if given.read(Node::bool) == Some(false) {
            return None;
        }
        None
    } else {
        table.table("presence")
    };
    let usual = |kind: &str| Arc::<str>::from(format!("pentad/{gateway}/{kind}"));
    let mut settings = PresenceSettings {
        topic: usual("status"),
        online: "online".into(),
        offline: "offline".into(),
        state: Some(usual("state")),
    };
    let Some(given) = given else { return Some(settings) };
    let topic = |node: &Node<'_>| {
        node.parse("a topic without + and #, in which {gateway} stands for the gateway's id", |text| {
            let known = scalar::placeholders(text).into_iter().all(|name| name == "gateway");
            Some(names.fill(text)).filter(|topic| known && is_topic(topic))
        })
    };
    settings.topic = given.key("topic").read(topic).unwrap_or(settings.topic);
    settings.online = given.key("online").read(Node::line).map_or(settings.online, Arc::from);
    settings.offline = given.key("offline").read(Node::line).map_or(settings.offline, Arc::from);
    let state = given.key("state");
    if state.node().is_some_and(Node::is_bool) {
        settings.state = settings.state.filter(|_| state.read(Node::bool) == Some(true));
    } else {
        settings.state = state.read(topic).or(settings.state);
    }
    if settings.online == settings.offline {
        given.report().add(Problem::error(&given.spot(), "online and offline are the same payload"));
    }
    if settings.state.as_ref() == Some(&settings.topic) {
        given.report().add(Problem::error(&given.spot(), "status and state have the same topic"));
    }
    given.finish();
    Some(settings)
}

/// Whether what travels there can be read by others: neither encrypted nor within this machine.
fn exposes(address: &Address) -> bool {
    let local = address.endpoint.host == "localhost"
        || address.endpoint.socket().is_some_and(|socket| socket.ip().is_loopback());
    !address.encrypted && !local
}

/// The address of a broker. Nothing of an address that may hold credentials is shown.
fn address(table: &Table<'_>) -> Option<Address> {
    const ALLOWED: &str = "mqtt://, mqtts://, ws:// or wss://, a host, perhaps a port, and with ws and wss a path, as \
                           in \"mqtt://127.0.0.1:1883\" or \"wss://broker.example/mqtt\"";
    let url = table.key("url").required(ALLOWED);
    let hides = url.node().is_some_and(|node| node.holds('@') || node.holds('?'));
    let url = if hides { url.secret() } else { url };
    url.read(|node| {
        let text = node.text()?;
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
        let Some((_, port, encrypted, web)) = known.filter(|_| !hides) else {
            let hint = hides.then(|| "credentials go into username and password_file".to_owned());
            node.wrong_with(ALLOWED, hint);
            return None;
        };
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let plain = path.bytes().all(|b| b.is_ascii_graphic()) && (*web || path.len() <= 1);
        let endpoint = Endpoint::parse(host, *port).filter(|_| plain);
        let Some(endpoint) = endpoint else {
            node.wrong(ALLOWED);
            return None;
        };
        let path = if path.len() <= 1 { WEB_PATH } else { path };
        let shown = if *web { path } else { "" };
        let display = format!("{scheme}://{}{shown}", endpoint.show());
        Some(Address { endpoint, encrypted: *encrypted, web: web.then(|| path.into()), display })
    })
}

/// `tls = { ... }`, which only means something where the address says so.
fn tls(table: &Table<'_>, address: Option<&Address>, surroundings: &dyn Surroundings) -> Option<TlsSettings> {
    let given = table.table("tls");
    let encrypted = address.is_some_and(|address| address.encrypted);
    let Some(given) = given else {
        return encrypted.then(|| TlsSettings { verify: true, ..TlsSettings::default() });
    };
    if address.is_some() && !encrypted {
        let problem = Problem::error(&given.spot(), "tls for an address without it");
        given.report().add(problem.allowed("an url that begins with mqtts:// or wss://"));
    }
    let ca = file(&given.key("ca"), surroundings);
    let certificate = file(&given.key("certificate"), surroundings);
    let key = file(&given.key("key"), surroundings);
    for (mine, other, name) in [("certificate", "key", "key"), ("key", "certificate", "certificate")] {
        if given.key(mine).given() && !given.key(other).given() {
            let problem = Problem::error(&given.key(other).spot(), "missing");
            given.report().add(problem.allowed(format!("a {name} to go with the {mine}")));
        }
    }
    let server_name = given.key("server_name").read(Node::line).map(Arc::from);
    let verify = given.key("verify");
    let verifies = verify.read(Node::bool).unwrap_or(true);
    if !verifies {
        let found =
            "the broker's certificate is not verified: anybody on the way can read and change everything";
        let problem = Problem::warning(&verify.spot(), found);
        given.report().add(problem.hint("name the broker's own authority as ca instead"));
    }
    given.finish();
    let identity = certificate.zip(key);
    encrypted.then_some(TlsSettings { ca, identity, server_name, verify: verifies })
}

fn password(table: &Table<'_>, surroundings: &dyn Surroundings) -> Option<Secret> {
    let inline = table.key("password").secret();
    let from = table.key("password_file");
    if inline.given() && from.given() {
        let problem = Problem::error(&from.spot(), "password and password_file are both given");
        table.report().add(problem.allowed("one of them"));
    }
    let path = file(&from, surroundings);
    let read = path.and_then(|path| match surroundings.read(&path) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            let found = format!("{} cannot be read: {error}", path.display());
            table.report().add(Problem::error(&from.spot(), found));
            None
        }
    });
    inline.read(Node::text).map(Secret::new).or(read)
}

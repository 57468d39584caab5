//! The pages for whoever watches the gateway: is it alive, is it ready, and what does it count.
//!
//! `/healthz` answers anybody, and says only whether the hub answers. `/readyz` and `/metrics` tell ids of buses and
//! devices: they answer loopback without a credential, unless a proxy has passed the request on, and everybody else with the
//! secret of any client that may read, as `Authorization: Bearer`. Such a client is told of the devices that it may see, and of
//! links only if these are all.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, header};
use serde_json::json;

use super::Shared;
use super::http::not_listened_to;
use crate::clock;
use crate::dialects::Response;
use crate::meters::process;
use crate::model::client::Client;
use crate::model::interest::Selector;
use crate::model::snapshot::Snapshot;
use crate::model::time::Clock;

/// Reasons that a page names. What is left out is counted.
const REASONS: usize = 50;

/// What stands in the lines that count something of a bus or broker.
const OF_A_LINK: &str = "{link=\"";

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Ready,
    Metrics,
}

/// The page of a path.
pub(super) fn page(path: &str) -> Option<Page> {
    match path {
        "/healthz" => Some(Page::Health),
        "/readyz" => Some(Page::Ready),
        "/metrics" => Some(Page::Metrics),
        _ => None,
    }
}

/// Answers a request for it.
pub(super) async fn answer(
    page: Page,
    method: &Method,
    headers: &HeaderMap,
    peer: IpAddr,
    shared: &Shared,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return Response::text(405, "only GET is answered here\n").with("allow", "GET, HEAD");
    }
    let (mut viewer, mut whole) = (None, true);
    if page != Page::Health && !is_local(headers, peer) {
        match admit(headers, peer, shared, |client| client.rights.read) {
            Ok(client) => {
                whole = shared.context.directory.devices().iter().all(|device| client.sees(device));
                viewer = Some(client);
            }
            Err(refusal) => return refusal,
        }
    }
    // Health looks at nobody in particular, so that it costs the hub next to nothing.
    let selector = if page == Page::Health { Selector::Device("".into()) } else { Selector::All };
    let seen = match viewer {
        Some(client) => shared.hub.look_as(client, selector, shared.patience.hub).await,
        None => shared.hub.look(selector, shared.patience.hub).await,
    };
    let seen = seen.map(|snapshot| if whole { snapshot } else { without_links(snapshot) });
    let response = match (page, seen) {
        (Page::Health, Ok(_)) => Response::text(200, "ok\n"),
        (Page::Health, Err(error)) => Response::text(503, format!("{error}\n")),
        (Page::Ready, Ok(snapshot)) => ready(&snapshot, shared),
        (Page::Ready, Err(error)) => {
            let body = json!({ "ready": false, "reasons": [error.to_string()] });
            Response::json(503, format!("{body}\n"))
        }
        (Page::Metrics, seen) => metrics(seen.ok().as_deref(), whole, shared),
    };
    response.with("cache-control", "no-store")
}

/// What a client is shown that may not see everything behind the links.
fn without_links(snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
    Arc::new(Snapshot { links: Vec::new(), ..Arc::unwrap_or_clone(snapshot) })
}

/// Lets a client in of which this holds, unless somebody guesses at its address.
pub(super) fn admit(
    headers: &HeaderMap,
    peer: IpAddr,
    shared: &Shared,
    may: impl Fn(&Client) -> bool,
) -> Result<Arc<Client>, Response> {
    let logins = shared.admission.logins(shared.server.limits.failed_logins);
    let now = clock::instant();
    if let Some(wait) = logins.blocked(peer, now) {
        return Err(not_listened_to(wait));
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim());
    let client = token.and_then(|token| shared.context.clients.by_secret(token));
    match (client, token) {
        (Some(client), _) if may(client) => return Ok(Arc::clone(client)),
        (None, Some(token)) => logins.failed(peer, "monitor", token, now),
        (Some(_) | None, _) => {}
    }
    let refusal = Response::text(401, "send the secret of a client that may read as Authorization: Bearer\n");
    Err(refusal.with("www-authenticate", "Bearer"))
}

/// Whether the request comes from this machine, and not through a proxy on it that the administrator has not named: whom
/// such a proxy speaks for is anybody's guess.
pub(super) fn is_local(headers: &HeaderMap, peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
        && !headers.contains_key(header::FORWARDED)
        && !headers.contains_key("x-forwarded-for")
}

/// A gateway is ready when its hub answers: what is wrong with the plant is for the clients to see, and no reason to
/// take them away. It is told all the same.
fn ready(snapshot: &Snapshot, shared: &Shared) -> Response {
    let down =
        snapshot.links.iter().filter(|link| !link.up).map(|link| format!("link {} is down", link.link.id));
    let silent = snapshot.devices.iter().filter(|device| !device.online);
    let silent = silent.map(|device| format!("device {} is offline", device.device.id));
    let unsure = clock::state().mark().map(|mark| format!("the clock is {mark}"));
    let troubled = shared.meters.hub().history_troubled.get() != 0;
    let unkept = troubled.then(|| "the history cannot be written".to_owned());
    let mut reasons: Vec<String> = unkept.into_iter().chain(unsure).chain(down).chain(silent).collect();
    let left_out = reasons.len().saturating_sub(REASONS);
    reasons.truncate(REASONS);
    if left_out > 0 {
        reasons.push(format!("and {left_out} more"));
    }
    let body = json!({
        "ready": true,
        "devices": { "online": online(snapshot), "total": snapshot.devices.len() },
        "links": { "up": up(snapshot), "total": snapshot.links.len() },
        "connections": shared.admission.count(),
        "degraded": reasons,
    });
    Response::json(200, format!("{body}\n"))
}

fn online(snapshot: &Snapshot) -> usize {
    snapshot.devices.iter().filter(|device| device.online).count()
}

fn up(snapshot: &Snapshot) -> usize {
    snapshot.links.iter().filter(|link| link.up).count()
}

fn metrics(snapshot: Option<&Snapshot>, whole: bool, shared: &Shared) -> Response {
    let mut text = shared.meters.text();
    if !whole {
        text = text
            .lines()
            .filter(|line| !line.contains(OF_A_LINK))
            .fold(String::new(), |kept, line| kept + line + "\n");
    }
    write!(
        text,
        "# HELP pentad_build_info Which version runs\n# TYPE pentad_build_info gauge\npentad_build_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    )
    .ok();
    let mut gauge = |name: &str, help: &str, value: usize| {
        // Writing into a string cannot fail.
        write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n").ok();
    };
    gauge("pentad_hub_answers", "Whether the hub answers", usize::from(snapshot.is_some()));
    gauge("pentad_hub_requests_waiting", "Requests of sessions in the hub's queue", shared.hub.waiting());
    let synchronised = usize::from(clock::state() == Clock::Synchronised);
    gauge("pentad_clock_synchronised", "Whether the wall clock is known to be right", synchronised);
    gauge("pentad_connections", "Open connections", shared.admission.count());
    if let Some(snapshot) = snapshot {
        gauge("pentad_devices", "Devices in the configuration", snapshot.devices.len());
        gauge("pentad_devices_online", "Devices that answer", online(snapshot));
        let alarms = snapshot.devices.iter().map(|device| device.alarms.len()).sum();
        gauge("pentad_alarms_raised", "Alarms that are raised", alarms);
        let links = || snapshot.links.iter();
        let family = |text: &mut String, name: &str, kind: &str, help: &str| {
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
        };
        family(&mut text, "pentad_link_up", "gauge", "Whether the port is open or the broker connected");
        for link in links() {
            writeln!(text, "pentad_link_up{{link=\"{}\"}} {}", link.link.id, u8::from(link.up)).ok();
        }
        family(&mut text, "pentad_link_connects_total", "counter", "How often the link came up");
        for link in links() {
            writeln!(text, "pentad_link_connects_total{{link=\"{}\"}} {}", link.link.id, link.connects).ok();
        }
    }
    text.push_str(&process::text(clock::instant().saturating_duration_since(shared.started)));
    let mut response = Response::text(200, text);
    response.headers.retain(|(name, _)| name != "content-type");
    response.with("content-type", "text/plain; version=0.0.4; charset=utf-8")
}

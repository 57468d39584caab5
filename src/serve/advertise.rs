//! Tells the local network where the gateway is: DNS-SD over multicast DNS (RFC 6763, RFC 6762), if it is configured.
//!
//! One service, `_pentad._tcp`, for each way in. It is called by the gateway's name; its text says the gateway's id, which
//! dialects are served there, and whether by TLS. Nothing secret is told, and nothing of the devices. Where the network
//! cannot be spoken to, the gateway serves all the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mdns_sd::{Error, ServiceDaemon, ServiceInfo};
use nix::unistd::gethostname;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Shared;
use super::live::Live;
use crate::dialects::{ENTRIES, Settings};

/// The service type. Not registered with IANA; nobody else uses the name.
const KIND: &str = "_pentad._tcp.local.";

/// Longest instance name in bytes (RFC 6763 section 4.1.1).
const NAME_BYTES: usize = 63;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    name: String,
    port: u16,
    text: Vec<(&'static str, String)>,
}

/// Advertises what is configured until told to stop, and something else as soon as that is configured.
pub async fn run(mut live: Live, stop: CancellationToken) {
    let mut told: Option<Told> = None;
    let mut shared = live.now();
    loop {
        let wanted = if shared.server.advertise { ways(&shared) } else { Vec::new() };
        if told.as_ref().map_or(&[][..], |told| &told.ways) != wanted {
            if let Some(told) = told.take() {
                told.goodbye().await;
            }
            if !wanted.is_empty() {
                told = tell(wanted);
            }
        }
        tokio::select! {
            // Cancel-safe: a cancelled token stays cancelled.
            () = stop.cancelled() => break,
            // Cancel-safe, see there.
            newer = live.changed() => shared = newer,
        }
    }
    if let Some(told) = told {
        told.goodbye().await;
    }
}

/// What the network was told.
struct Told {
    daemon: ServiceDaemon,
    ways: Vec<Way>,
    names: Vec<String>,
}

fn tell(ways: Vec<Way>) -> Option<Told> {
    match register(&ways) {
        Ok((daemon, names)) => {
            info!(services = names.len(), "the gateway is advertised on the local network");
            Some(Told { daemon, ways, names })
        }
        Err(error) => {
            warn!(%error, "the gateway cannot be advertised on the local network");
            None
        }
    }
}

fn register(ways: &[Way]) -> Result<(ServiceDaemon, Vec<String>), Error> {
    let daemon = ServiceDaemon::new()?;
    let host = gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("pentad").to_owned();
    let mut names = Vec::new();
    for way in ways {
        let service =
            ServiceInfo::new(KIND, &way.name, &format!("{host}.local."), "", way.port, &way.text[..])?
                .enable_addr_auto();
        names.push(service.get_fullname().to_owned());
        daemon.register(service)?;
    }
    Ok((daemon, names))
}

impl Told {
    /// Takes everything back, so that nobody finds a gateway that is gone.
    async fn goodbye(self) {
        for name in &self.names {
            if let Ok(done) = self.daemon.unregister(name) {
                drop(tokio::time::timeout(GOODBYE, done.recv_async()).await);
            }
        }
        if let Err(error) = self.daemon.shutdown() {
            debug!(%error, "the advertiser does not stop");
        }
    }
}

/// Every way in that others can reach, in the order of the configuration.
fn ways(shared: &Shared) -> Vec<Way> {
    let settings = &shared.context.settings;
    let mut doors: Vec<(SocketAddr, bool, String)> = Vec::new();
    let common = dialects(settings, None);
    let tls = shared.server.tls.iter().flat_map(|tls| &tls.listen);
    doors.extend(shared.server.listen.iter().map(|address| (*address, false, common.clone())));
    doors.extend(tls.map(|address| (*address, true, common.clone())));
    let mut own: BTreeMap<(SocketAddr, bool), String> = BTreeMap::new();
    for entry in ENTRIES {
        let common = (entry.common)(settings);
        let plain = common.listen.iter().map(|address| (*address, false));
        for door in plain.chain(common.tls_listen.iter().map(|address| (*address, true))) {
            own.entry(door).or_insert_with(|| dialects(settings, Some(door.0)));
        }
    }
    doors.extend(own.into_iter().map(|((address, secure), dialects)| (address, secure, dialects)));
    let gateway = &shared.context.gateway;
    let reachable = doors.into_iter().filter(|(address, _, dialects)| {
        !address.ip().is_loopback() && address.port() != 0 && !dialects.is_empty()
    });
    reachable
        .enumerate()
        .map(|(at, (address, secure, dialects))| Way {
            name: name(&gateway.name, at),
            port: address.port(),
            text: vec![
                ("id", gateway.id.to_string()),
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("dialects", dialects),
                ("tls", if secure { "1" } else { "0" }.to_owned()),
            ],
        })
        .collect()
}

/// The dialects that are served at an address of their own, or at the common ones.
fn dialects(settings: &Settings, own: Option<SocketAddr>) -> String {
    let served = ENTRIES.iter().filter(|entry| {
        let common = (entry.common)(settings);
        let here = |address| common.listen.contains(&address) || common.tls_listen.contains(&address);
        common.enabled && own.map_or(!common.is_apart(), here)
    });
    served.map(|entry| entry.dialect.name()).collect::<Vec<_>>().join(",")
}

/// The gateway's name, with a number where it has several ways in, cut to what fits.
fn name(gateway: &str, at: usize) -> String {
    let suffix = if at == 0 { String::new() } else { format!(" {}", at + 1) };
    let mut room = NAME_BYTES - suffix.len().min(NAME_BYTES);
    while !gateway.is_char_boundary(room.min(gateway.len())) {
        room -= 1;
    }
    format!("{}{suffix}", gateway.get(..room.min(gateway.len())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_whatever_its_letters_are() {
        assert_eq!(name("Barn", 0), "Barn");
        assert_eq!(name("Barn", 1), "Barn 2");
        let long = name(&"\u{e4}".repeat(40), 9);
        assert!(long.len() <= NAME_BYTES && long.ends_with(" 10"), "{long}");
    }
}

//! The commands that answer and end: check, url, token, completions.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap_complete::Shell;

use super::{Files, complain, complain_of_all, say};
use crate::addresses::entrances;
use crate::clock;
use crate::config::Config;
use crate::dialects::{Common, ENTRIES, Origin};
use crate::model::client::Dialect;
use crate::model::directory::Directory;

/// Random bytes in a fresh secret: 160 bits.
const SECRET_BYTES: usize = 20;

pub(super) fn check(files: &Files) -> ExitCode {
    let loaded = match files.load() {
        Ok(loaded) => loaded,
        Err(problems) => return complain_of_all(&problems),
    };
    let config = &loaded.config;
    let mut lines: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    if !config.buses.is_empty() {
        lines.push(loaded.plan.to_string());
    }
    lines.push(format!(
        "{}: {} devices, {} buses, {} brokers, {} clients; it can be run",
        files.config.display(),
        config.devices.len(),
        config.buses.len(),
        config.brokers.len(),
        config.clients.clients().len(),
    ));
    say(&lines.join("\n"))
}

pub(super) fn url(dialects: &[Dialect], client: &str, host: Option<&str>, files: &Files) -> ExitCode {
    let config = match files.load() {
        Ok(loaded) => loaded.config,
        Err(problems) => return complain_of_all(&problems),
    };
    let Some(client) = config.clients.clients().iter().find(|each| &*each.id == client) else {
        let known: Vec<_> = config.clients.clients().iter().map(|client| &*client.id).collect();
        complain(&format!("there is no client {client}; there are: {}", known.join(", ")));
        return ExitCode::FAILURE;
    };
    let directory = Directory::new(config.devices.clone(), config.links.clone());
    let mut lines = Vec::new();
    for dialect in dialects {
        if !client.dialects.contains(dialect) {
            continue;
        }
        let Some(origin) = origin(&config, *dialect, host) else { continue };
        for entrance in entrances(*dialect, client, &origin, &directory, clock::wall()) {
            lines.push(format!("{:<8} {:<12} {}", dialect.name(), entrance.purpose, entrance.address));
        }
    }
    if lines.is_empty() {
        complain(&format!("client {} may not use this dialect, or it is not served", client.id));
        return ExitCode::FAILURE;
    }
    say(&lines.join("\n"))
}

pub(super) fn token() -> ExitCode {
    let mut bytes = [0; SECRET_BYTES];
    if let Err(error) = getrandom::fill(&mut bytes) {
        complain(&format!("cannot make a random secret: {error}"));
        return ExitCode::FAILURE;
    }
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    say(&digits.concat())
}

pub(super) fn completions(shell: Shell, command: &mut clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "pentad", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

/// How clients reach a dialect, as far as the configuration tells; `None` when it is not served.
pub(super) fn origin(config: &Config, dialect: Dialect, host: Option<&str>) -> Option<Origin> {
    let common: &Common = ENTRIES
        .iter()
        .find(|entry| entry.dialect == dialect)
        .map(|entry| (entry.common)(&config.dialects))?;
    if !common.enabled {
        return None;
    }
    if let (Some(public), None) = (&config.server.public_url, host) {
        return Some(public.clone());
    }
    let tls = config.server.tls.as_ref().and_then(|tls| tls.listen.first());
    let (plain, secure) = if common.is_apart() {
        (common.listen.first(), common.tls_listen.first())
    } else {
        (config.server.listen.first(), tls)
    };
    let (address, secure) =
        plain.map(|address| (*address, false)).or_else(|| secure.map(|address| (*address, true)))?;
    let host = host.map_or_else(|| reachable(address).to_string(), str::to_owned);
    Some(Origin { secure, host })
}

/// The address itself, or loopback for one that stands for all.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    };
    SocketAddr::new(ip, address.port())
}

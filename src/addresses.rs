//! Ready-made addresses: what to paste into a client of each dialect.
//!
//! They carry the client's secret in the clear, because that is what the dialects' clients are configured with; they
//! are printed for whoever asks on the command line and go into no log.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::dialects::{Origin, uplus};
use crate::model::client::{Client, Dialect};
use crate::model::directory::Directory;
use crate::model::time::UnixMillis;

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// What it is for, in a word or two.
    pub purpose: &'static str,
    /// What to connect to or fetch.
    pub address: String,
}

/// The ways into a dialect for a client, through a listener that is reached as `origin`.
pub fn entrances(
    dialect: Dialect,
    client: &Client,
    origin: &Origin,
    directory: &Directory,
    now: UnixMillis,
) -> Vec<Entrance> {
    let token = escape(client.secret.reveal());
    let device = directory.devices().iter().find(|device| client.sees(device));
    let websocket = |path: &str| Entrance { purpose: "WebSocket", address: origin.websocket(path) };
    match dialect {
        Dialect::Janus => {
            let call = device.map(|device| Entrance {
                purpose: "HTTP call",
                address: origin.http(&format!("/api/janus/websocket?token={token}&uuid={}", device.uuid)),
            });
            let stomp = Entrance {
                purpose: "STOMP",
                address: origin.websocket(&format!("/websocket?token={token}")),
            };
            call.into_iter().chain([stomp]).collect()
        }
        Dialect::Sagoo => vec![websocket(&format!("/messaging/{token}"))],
        Dialect::Ithings => {
            let project = device.map_or("1", |device| &*device.project);
            let connect = format!(
                "/api/v1/system/common/websocket/connect?token={token}&app-code=core&project-id={}",
                escape(project)
            );
            vec![websocket(&connect)]
        }
        Dialect::Oam => vec![
            Entrance { purpose: "STOMP", address: origin.websocket(&format!("/ws?token={token}")) },
            Entrance { purpose: "REST", address: origin.http(&format!("/api/node/list?token={token}")) },
        ],
        Dialect::Uplus => {
            vec![websocket(&format!("{}?{}", uplus::PATH, uplus::signed_query(client, now)))]
        }
    }
}

/// Everything but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::shared::fixture;
    use crate::dialects::{ENTRIES, Opening};
    use crate::model::client::{DeviceFilter, Rights, Secret};

    #[test]
    fn every_address_leads_somewhere() {
        let (context, now) = (fixture::context(), fixture::now());
        let client = context.clients.by_id(Dialect::Oam, "demo").unwrap();
        let origin = Origin { secure: false, host: "127.0.0.1:8080".to_owned() };
        for entry in ENTRIES {
            for entrance in entrances(entry.dialect, client, &origin, &context.directory, now.wall) {
                let address = &entrance.address;
                let upgrade = address.starts_with("ws:");
                let method = if entrance.purpose == "REST" { "POST" } else { "GET" };
                let (_, target) = address.split_once("8080").unwrap();
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let mut request = fixture::request(method, path, upgrade);
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                request.query = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                let arrives = match (entry.open)(&request, &context, now) {
                    Opening::Upgrade(_) => upgrade,
                    Opening::Respond(response) => !upgrade && response.status == 200,
                    Opening::Call(_) => !upgrade,
                    Opening::NotMine | Opening::Carry(_) => false,
                };
                assert!(arrives, "{address}");
            }
        }
    }

    #[test]
    fn every_dialect_has_an_address_and_secrets_are_escaped() {
        let client = Client {
            id: "SV 1".into(),
            secret: Secret::new("a/b c"),
            dialects: Dialect::ALL.to_vec(),
            devices: DeviceFilter::new(["*"]),
            rights: Rights::ALL,
        };
        let origin = Origin { secure: true, host: "barn:8443".to_owned() };
        let directory = Directory::new(Vec::new(), Vec::new());
        for dialect in Dialect::ALL {
            let found = entrances(dialect, &client, &origin, &directory, UnixMillis(1));
            assert!(!found.is_empty(), "{dialect:?}");
            for Entrance { address, .. } in found {
                assert!(address.starts_with("wss://barn:8443/") || address.starts_with("https://barn:8443/"));
                assert!(!address.contains(' '), "{address}");
            }
        }
        let oam = entrances(Dialect::Oam, &client, &origin, &directory, UnixMillis(1));
        assert_eq!(oam.last().unwrap().address, "https://barn:8443/api/node/list?token=a%2Fb%20c");
        let sagoo = entrances(Dialect::Sagoo, &client, &origin, &directory, UnixMillis(1));
        assert_eq!(sagoo.first().unwrap().address, "wss://barn:8443/messaging/a%2Fb%20c");
    }
}

//! Tickets: what a returned WebSocket address carries so that STOMP without a login is still safe.
//!
//! A ticket opens one device's topic for one client until it expires. It is sealed, not stored: nothing is kept for
//! tickets that are never used, and all of them end with the process that sealed them. The client's secret is a part of
//! the seal: whoever is given another one has no tickets any more. Their time is counted from the making of the seal's
//! key, so that setting the wall clock neither ends nor prolongs it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::dialects::Seal;
use crate::model::client::{Client, Secret};

/// Octets of the seal.
const MAC: usize = 32;

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// From then on it opens nothing: milliseconds since the seal was made.
    pub expires: u64,
    /// Id of the client that the HTTP call was made by.
    pub client: String,
    /// The device whose topic it opens.
    pub uuid: String,
}

/// When a ticket that is made now ends.
pub(super) fn expiry(seal: &Seal, now: Instant, lifetime: Duration) -> u64 {
    since(seal, now).saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
}

fn since(seal: &Seal, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(seal.made).as_millis()).unwrap_or(u64::MAX)
}

impl Ticket {
    /// The ticket as text that needs no escaping in an address: hexadecimal, first the content, then its seal. The secret
    /// is that of its client.
    pub(super) fn seal(&self, seal: &Seal, secret: &Secret) -> String {
        // A line feed stands in neither a client id nor a uuid.
        let content = format!("{}\n{}\n{}", self.expires, self.client, self.uuid);
        let tag = mac(seal, secret, content.as_bytes()).finalize().into_bytes();
        let octets = content.as_bytes().iter().copied().chain(tag);
        octets.fold(String::with_capacity(2 * (content.len() + MAC)), |mut text, octet| {
            // Writing to a string cannot fail.
            write!(text, "{octet:02x}").unwrap_or_default();
            text
        })
    }

    /// Reads a ticket that this seal made and that has not expired, and gives its client, as `find` finds it by id.
    pub(super) fn open(
        text: &str,
        seal: &Seal,
        now: Instant,
        find: impl FnOnce(&str) -> Option<Arc<Client>>,
    ) -> Option<(Self, Arc<Client>)> {
        let octets = from_hex(text)?;
        let (content, tag) = octets.split_at_checked(octets.len().checked_sub(MAC)?)?;
        let mut parts = std::str::from_utf8(content).ok()?.splitn(3, '\n');
        let (expires, client, uuid) = (parts.next()?, parts.next()?, parts.next()?);
        let client = find(client)?;
        // Compares in constant time. Nothing of the content counts before.
        mac(seal, &client.secret, content).verify_slice(tag).ok()?;
        let expires = expires.parse().ok()?;
        let ticket = Self { expires, client: client.id.to_string(), uuid: uuid.to_owned() };
        (since(seal, now) < ticket.expires).then_some((ticket, client))
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn mac(seal: &Seal, secret: &Secret, content: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&seal.key).expect("HMAC takes a key of any length");
    // What else is ever sealed with the same key must not pass for a ticket.
    mac.update(b"janus ticket\n");
    // With its length, so that no end of a secret passes for the beginning of a content.
    mac.update(&secret.reveal().len().to_le_bytes());
    mac.update(secret.reveal().as_bytes());
    mac.update(content);
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect::<Option<_>>()?;
    digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(high << 4 | low),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::client::{DeviceFilter, Dialect, Rights};

    fn client(secret: &str) -> Arc<Client> {
        Arc::new(Client {
            id: "demo".into(),
            secret: Secret::new(secret),
            dialects: vec![Dialect::Janus],
            devices: DeviceFilter::new(["*"]),
            rights: Rights::READ,
        })
    }

    fn open(text: &str, seal: &Seal, now: Instant, secret: &str) -> Option<Ticket> {
        let find = |id: &str| (id == "demo").then(|| client(secret));
        Ticket::open(text, seal, now, find).map(|(ticket, _)| ticket)
    }

    fn seal(byte: u8, made: Instant) -> Seal {
        Seal { key: [byte; 32], made }
    }

    fn after(made: Instant, millis: u64) -> Instant {
        made + Duration::from_millis(millis)
    }

    fn ticket() -> Ticket {
        Ticket { expires: 1000, client: "demo".to_owned(), uuid: "E07E-8972".to_owned() }
    }

    #[test]
    fn a_ticket_opens_until_it_expires_and_only_for_its_own_seal() {
        let made = crate::clock::instant();
        let (own, other) = (seal(7, made), seal(8, made));
        let text = ticket().seal(&own, &Secret::new("s"));
        assert_eq!(open(&text, &own, after(made, 999), "s"), Some(ticket()));
        assert_eq!(open(&text, &own, after(made, 1000), "s"), None);
        assert_eq!(open(&text, &other, after(made, 999), "s"), None);
        assert_eq!(open(&text, &own, after(made, 999), "another"), None);
    }

    #[test]
    fn no_digit_of_a_ticket_can_be_changed_or_left_out() {
        let made = crate::clock::instant();
        let seal = seal(7, made);
        let text = ticket().seal(&seal, &Secret::new("s"));
        for at in 0..text.len() {
            let mut digits: Vec<char> = text.chars().collect();
            digits[at] = if digits[at] == '0' { '1' } else { '0' };
            let changed: String = digits.iter().collect();
            assert_eq!(open(&changed, &seal, made, "s"), None, "{at}");
            assert_eq!(open(text.get(..at).unwrap(), &seal, made, "s"), None, "{at}");
        }
    }

    #[test]
    fn an_endless_lifetime_does_no_harm() {
        let made = crate::clock::instant();
        assert_eq!(expiry(&seal(7, made), after(made, 5), Duration::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_opens_anything(text in any::<String>()) {
            let made = crate::clock::instant();
            prop_assert_eq!(open(&text, &seal(7, made), made, "s"), None);
        }
    }
}

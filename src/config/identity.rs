//! The identities that a device or product has when the configuration gives none.
//!
//! Each is cut from a SHA-256 of ids alone, so that it stays the same over restarts, renamed displays and moved
//! devices, and a product has the same U+ typeId on every gateway.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Janus uuid: four groups of four upper-case hex digits.
pub(super) fn uuid(gateway: &str, device: &str) -> String {
    let digits = hex(&format!("{gateway}/{device}")).to_ascii_uppercase();
    let group = |start: usize| digits.get(start..start + 4).unwrap_or_default();
    [group(0), group(4), group(8), group(12)].join("-")
}

/// U+ device id: twelve upper-case hex digits. They are cut from another part of the same digest as the uuid, so
/// that neither gives the other away; the first octet is marked as locally administered, unicast, so that it can
/// not be the address of a real network card.
pub(super) fn mac(gateway: &str, device: &str) -> String {
    let digest = Sha256::digest(format!("{gateway}/{device}"));
    let mut octets = digest.iter().skip(16).copied();
    let first = octets.next().unwrap_or_default();
    let mut text = format!("{:02X}", (first | 0x02) & 0xFE);
    for octet in octets.take(5) {
        push_hex(&mut text, octet);
    }
    text.to_ascii_uppercase()
}

/// U+ typeId: sixty-four lower-case hex digits.
pub(super) fn type_id(product: &str) -> String {
    hex(&format!("product/{product}"))
}

fn hex(text: &str) -> String {
    let mut digits = String::with_capacity(64);
    for octet in Sha256::digest(text) {
        push_hex(&mut digits, octet);
    }
    digits
}

fn push_hex(text: &mut String, octet: u8) {
    write!(text, "{octet:02x}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `printf barn-1/meter-1 | sha256sum` and `printf product/press | sha256sum`; clients store
    /// these, so a change here would orphan every one of them.
    #[test]
    fn derived_identities_never_change() {
        assert_eq!(uuid("barn-1", "meter-1"), "DD84-25C7-8D99-1677");
        assert_eq!(mac("barn-1", "meter-1"), "E22311CA619E");
        assert_eq!(type_id("press"), "56bfc3e7e56c0dfba9c67139b6f722ab7bea82159268cafc494674da527e955b");
    }

    #[test]
    fn each_device_has_its_own() {
        assert_ne!(uuid("barn-1", "meter-1"), uuid("barn-1", "meter-2"));
        assert_ne!(uuid("barn-1", "meter-1"), uuid("barn-2", "meter-1"));
        assert_ne!(mac("barn-1", "meter-1"), mac("barn-2", "meter-1"));
    }
}

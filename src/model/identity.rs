//! The identities that a device or product has when nobody gives it any.
//!
//! Each is cut from a SHA-256 of ids alone, so that it stays the same over restarts, renamed displays and moved
//! devices, and a product has the same U+ typeId on every gateway.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Janus uuid: four groups of four upper-case hex digits.
pub fn uuid(gateway: &str, device: &str) -> String {
    let digits = hex(&format!("{gateway}/{device}")).to_ascii_uppercase();
    let group = |start: usize| digits.get(start..start + 4).unwrap_or_default();
    [group(0), group(4), group(8), group(12)].join("-")
}

/// U+ device id: twelve upper-case hex digits. They are cut from another part of the same digest as the uuid, so
/// that neither gives the other away; the first octet is marked as locally administered, unicast, so that it can
/// not be the address of a real network card.
pub fn mac(gateway: &str, device: &str) -> String {
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
pub fn type_id(product: &str) -> String {
    hex(&format!("product/{product}"))
}

/// Longest id.
const LONGEST_ID: usize = 64;

/// Ids travel in topics, paths and host-like names, so they keep to what needs no escape in any of them: 1 to 64 letters,
/// digits, '.', '_' or '-'.
pub fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.chars().all(is_plain)
}

/// The id for somebody of this name. What an id cannot have becomes one `_` for each run of it. Of a name that says too
/// much to be told apart by the rest, since it is long or not in Latin letters, eight digits of its digest follow.
pub fn id(name: &str) -> String {
    let mut id = String::with_capacity(name.len().min(LONGEST_ID));
    for c in name.chars() {
        let c = if is_plain(c) { c } else { '_' };
        if c != '_' || !id.ends_with('_') {
            id.push(c);
        }
    }
    if !name.is_ascii() || !is_id(&id) {
        let digest = hex(name);
        id.truncate(LONGEST_ID - 9);
        id.push('-');
        id.push_str(digest.get(..8).unwrap_or_default());
    }
    id
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
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
    use proptest::prelude::*;

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

    #[test]
    fn a_name_becomes_an_id_that_can_be_recognised() {
        for (name, expected) in [
            ("plug-1", "plug-1"),
            ("Living Room / Lamp", "Living_Room_Lamp"),
            ("a__b", "a_b"),
            // printf 'Küche' | sha256sum, and so on.
            ("Küche", "K_che-a9ec872e"),
            ("客厅灯", "_-aee0423f"),
        ] {
            assert_eq!(id(name), expected);
        }
        assert_ne!(id("客厅灯"), id("卧室灯"));
        let long = "a".repeat(65);
        assert_eq!(id(&long).len(), 64);
    }

    proptest! {
        #[test]
        fn every_name_becomes_an_id_and_an_id_stays_what_it_is(name in any::<String>()) {
            let made = id(&name);
            prop_assert!(is_id(&made), "{}", made);
            if !made.contains("__") {
                prop_assert_eq!(id(&made), made);
            }
        }
    }
}

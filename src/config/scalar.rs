//! What single configuration values look like as text: durations, ids, addresses.
//!
//! Pure functions from text to value; the caller knows where the text stands and reports what is wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dialects::Origin;
pub(super) use crate::model::identity::is_id;

/// `300ms`, `5s`, `10m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A duration as a configuration would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= size && millis % size == 0 {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// What an id may be, in words.
pub(super) const ID_RULE: &str = "1 to 64 letters, digits, '.', '_' or '-'";

/// A Janus uuid in its one spelling: four groups of four upper-case hex digits.
pub(super) fn uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let fits = groups.len() == 4 && groups.iter().all(|group| group.len() == 4 && is_hex(group));
    fits.then(|| text.to_ascii_uppercase())
}

/// A U+ device id in its one spelling: twelve upper-case hex digits; colons or dashes between pairs are read over.
pub(super) fn mac(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
    (digits.len() == 12 && is_hex(&digits)).then(|| digits.to_ascii_uppercase())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Host and port; IPv6 addresses stand in brackets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => default_port,
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || b"._-:".contains(&b);
        (!host.is_empty() && host.bytes().all(named)).then(|| Self { host: host.to_owned(), port })
    }

    /// The address, when no name has to be looked up.
    pub(super) fn socket(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Host and port as one word.
    pub(super) fn show(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// `http` or `https`, a host, perhaps a port, and nothing else.
pub(super) fn origin(text: &str) -> Option<Origin> {
    let (secure, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    Endpoint::parse(host, 80)?;
    Some(Origin { secure, host: host.to_owned() })
}

/// Names in braces that stand in a template, such as `value` in `{"state":"{value}"}`: braces around anything that
/// is not a plain name are JSON's own.
pub(super) fn placeholders(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        rest = after;
        if let Some((name, _)) = after.split_once('}') {
            if is_id(name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        for wrong in
            ["", "5", "s", "1.5s", "-1s", "5 s", "5S", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_identity_has_one_spelling() {
        assert_eq!(uuid("e07e-8972-925a-c99b").as_deref(), Some("E07E-8972-925A-C99B"));
        assert_eq!(uuid("E07E-8972-925A"), None);
        assert_eq!(mac("00:00:00:00:00:a1").as_deref(), Some("0000000000A1"));
        assert_eq!(mac("0000000000A"), None);
    }

    #[test]
    fn endpoints_take_names_and_both_kinds_of_address() {
        let parse = |text| Endpoint::parse(text, 502).map(|endpoint| endpoint.show());
        assert_eq!(parse("plc.local").as_deref(), Some("plc.local:502"));
        assert_eq!(parse("10.0.0.1:1502").as_deref(), Some("10.0.0.1:1502"));
        assert_eq!(parse("[fe80::1]:502").as_deref(), Some("[fe80::1]:502"));
        for wrong in ["", ":502", "plc:0", "plc:70000", "fe80::1", "[fe80::1", "a b", "user@host"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn braces_of_json_are_no_placeholders() {
        assert_eq!(placeholders(r#"{"id":1,"params":{"on":{value}}}"#), ["value"]);
        assert_eq!(placeholders("tele/{topic}/SENSOR"), ["topic"]);
        assert!(placeholders("{}").is_empty());
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(millis in 0_u64..100_000_000_000) {
            let shown = show_duration(Duration::from_millis(millis));
            prop_assert_eq!(duration(&shown), Some(Duration::from_millis(millis)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            drop((duration(&text), uuid(&text), mac(&text), origin(&text), Endpoint::parse(&text, 1)));
            drop(placeholders(&text));
        }
    }
}

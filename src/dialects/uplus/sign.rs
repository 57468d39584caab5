//! Who logs in: the signed query of the address.
//!
//! `sign` is the hex SHA-256 of systemId + K + timestamp, where K is the systemKey after Java's `trim()` and then
//! without any `"` (the vendor's sample code, in this order). The same address is used for every reconnect of a
//! vendor client and by its parallel connections, so a login is never single-use. Nothing here logs or keeps the
//! sign, the key or the query.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::dialects::{Context, Request};
use crate::model::client::{Client, Dialect};
use crate::model::time::{Clock, Now, UnixMillis};

/// The longer of the two lengths that the vendor's page gives for a systemId.
const SYSTEM_ID_CHARS: usize = 50;

/// Digits of the largest 64-bit time.
const TIMESTAMP_DIGITS: usize = 19;

/// Skew that is worth a line in the log where no window is enforced: what comparable services refuse.
const NOTABLE_SKEW: Duration = Duration::from_secs(300);

/// Signed against when the system is unknown, so that an unknown one takes as long as a known one. Knowing it opens
/// nothing.
const NOBODYS_KEY: &str = "not-a-systemKey";

/// The one reason that is given for everything that has to do with the credential.
const REFUSED: &str = "authentication failed";

/// A login whose sign is right.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// Who it is; its id is the systemId.
    pub(super) client: Arc<Client>,
    /// Whether the address asked for messages from the earliest kept one on.
    pub(super) earliest: bool,
}

/// A login that is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The systemId to answer with; empty where the request has no usable one.
    pub(super) system: String,
    /// In words. Tells apart mistakes of form only, never an unknown system from a wrong sign or a stale time.
    pub(super) why: String,
}

/// Judges the query of a connection request.
pub(super) fn log_in(request: &Request, context: &Context, now: Now) -> Result<Login, Refusal> {
    let mut system = String::new();
    judge(request, context, now, &mut system).map_err(|why| {
        tracing::debug!(dialect = "uplus", peer = %request.peer, reason = why, "login refused");
        Refusal { system, why }
    })
}

/// The query of an address that logs this client in, for people to copy: it is as secret as the key itself.
pub fn signed_query(client: &Client, now: UnixMillis) -> String {
    let timestamp = now.to_string();
    let sign = hex(&digest(&client.id, client.secret.reveal(), &timestamp));
    let system = utf8_percent_encode(&client.id, UNRESERVED);
    format!("systemId={system}&timestamp={timestamp}&sign={sign}&isSubscribeEarliestMessage=false")
}

/// What need not be escaped in a query (RFC 3986, unreserved).
const UNRESERVED: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn judge(request: &Request, context: &Context, now: Now, answer_as: &mut String) -> Result<Login, String> {
    let system = required(request, "systemId")?;
    if system.chars().count() > SYSTEM_ID_CHARS {
        return Err(format!("systemId takes at most {SYSTEM_ID_CHARS} characters"));
    }
    system.clone_into(answer_as);
    let timestamp = required(request, "timestamp")?;
    let sign = required(request, "sign")?;
    let earliest = single(request, "isSubscribeEarliestMessage")?;
    if timestamp.len() > TIMESTAMP_DIGITS || !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("timestamp takes Unix milliseconds".to_owned());
    }

    let known = context.clients.by_id(Dialect::Uplus, system);
    let key = known.map_or(NOBODYS_KEY, |client| client.secret.reveal());
    let genuine = matches(&digest(system, key, timestamp), sign);
    let Some(client) = known.filter(|_| genuine) else {
        // A vendor client comes back with the same address, which so counts once.
        let shown = format!("{system}\n{timestamp}\n{sign}");
        request.logins.failed(request.peer, "uplus", &shown, now.instant);
        return Err(REFUSED.to_owned());
    };

    let skew = skew(timestamp, now.wall);
    match context.settings.uplus.timestamp_window {
        // Whose clock is wrong cannot be told: clients of a gateway that does not know the time would stay outside.
        Some(window) if skew > window && now.clock == Clock::Unsynchronised => tracing::warn!(
            dialect = "uplus",
            client = %client.id,
            skew_s = skew.as_secs(),
            "login with a timestamp far from now is let in, since the gateway's clock is not synchronised"
        ),
        Some(window) if skew > window => return Err(REFUSED.to_owned()),
        None if skew > NOTABLE_SKEW => tracing::warn!(
            dialect = "uplus",
            client = %client.id,
            skew_s = skew.as_secs(),
            "login with a timestamp far from now is let in, since no timestamp_window is set"
        ),
        Some(_) | None => {}
    }
    let earliest = earliest.is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    Ok(Login { client: Arc::clone(client), earliest })
}

fn required<'a>(request: &'a Request, name: &str) -> Result<&'a str, String> {
    single(request, name)?.filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is missing"))
}

/// A repeated parameter is refused, so that nobody between the client and us can read another one than we do.
fn single<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, String> {
    let mut values = request.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let first = values.next();
    match values.next() {
        Some(_) => Err(format!("{name} is given twice")),
        None => Ok(first),
    }
}

fn digest(system: &str, raw_key: &str, timestamp: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(system)
        .chain_update(effective_key(raw_key))
        .chain_update(timestamp)
        .finalize()
        .into()
}

fn hex(digest: &[u8; 32]) -> String {
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

/// Java's `trim()` takes everything up to U+0020 off both ends and no other white space; the quotes go after it.
fn effective_key(raw: &str) -> String {
    raw.trim_matches(|c: char| c <= ' ').replace('"', "")
}

/// Compares 64 hex digits of either case with a digest, in a time that does not tell where they differ.
fn matches(digest: &[u8; 32], sign: &str) -> bool {
    let mut given = [0_u8; 32];
    if sign.len() != 2 * given.len() || !sign.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    for (at, nibble) in sign.chars().filter_map(|digit| digit.to_digit(16)).enumerate() {
        if let Some(byte) = given.get_mut(at / 2) {
            *byte = (*byte << 4) | u8::try_from(nibble).unwrap_or_default();
        }
    }
    digest.ct_eq(&given).into()
}

/// How far a timestamp of at most 19 digits is from now; one beyond all clocks is as far as can be.
fn skew(timestamp: &str, now: UnixMillis) -> Duration {
    timestamp.parse::<i64>().map_or(Duration::MAX, |then| Duration::from_millis(now.0.abs_diff(then)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialects::uplus::tests::{client, context, now_at, request};

    const AT: &str = "1700000000000";
    const SIGN: &str = "1d190fbf1a423c8f10275103cb2b911b0967cef0326e7407ac4480c8099353cd";

    #[test]
    fn a_sign_is_what_the_vendors_recipe_gives_for_every_kind_of_key() {
        let kept_spaces = "cf39458faabae1c0b15230a283536aa7683418c94445eca959c287314fc54183";
        let rows = [
            ("k3y-Secret", SIGN),
            ("  \"k3y-Secret\"\n", SIGN),
            ("\tk3y-Secret\r\n", SIGN),
            ("k3y\"-Secret", SIGN),
            ("\" k3y-Secret \"", kept_spaces),
            ("\u{a0}k3y-Secret", "15ef57c7631ad17ba97df75cc0bf4f1bf1d42f31383b8fd15df565c56e837591"),
            ("'k3y-Secret'", "472e9b482debe26cfa73b7d2192bd53d3d73efe1605c93dced9fb7bb8dbcc7a5"),
            ("密钥-k3y", "9ed8c1e673b530c885d1091e1f1e68e74f7f60df5cfa80ee2a3be099d79d7116"),
            ("", "9cb089a94429d22888327219dd05f969bab1187c249caaf219cd364c1831c3b6"),
        ];
        for (key, sign) in rows {
            assert_eq!(hex(&digest("SV-EDGE-0001", key, AT)), sign, "{key:?}");
        }
        assert_eq!(
            hex(&digest("SV-BLKALPHA21-0001-123", "k3y-Secret", "1491013448629")),
            "cbfef8692ec20ef624e97c0fbf83d9e2187b88e68843fb6e66cefa428281f4ad"
        );
    }

    fn verdict(query: &[(&str, &str)]) -> Result<Arc<str>, Refusal> {
        let context = context(None);
        log_in(&request(query), &context, now_at(1_700_000_000_000)).map(|login| Arc::clone(&login.client.id))
    }

    #[test]
    fn the_right_sign_opens_in_either_case() {
        for sign in [SIGN.to_owned(), SIGN.to_uppercase()] {
            let verdict = verdict(&[("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", &sign)]);
            assert_eq!(verdict.as_deref(), Ok("SV-EDGE-0001"));
        }
    }

    #[test]
    fn an_unknown_system_and_a_wrong_sign_are_refused_in_the_same_words() {
        let wrong = SIGN.replace('1', "2");
        let rows = [
            [("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", wrong.as_str())],
            [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000001"), ("sign", SIGN)],
            [("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", "short")],
            [("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", "ä".repeat(32).leak())],
            [("systemId", "SV-NOBODY"), ("timestamp", AT), ("sign", SIGN)],
            // Knows the dialect's secret but may not use this dialect.
            [("systemId", "janus-only"), ("timestamp", AT), ("sign", SIGN)],
        ];
        for query in rows {
            let refusal = verdict(&query).unwrap_err();
            assert_eq!(refusal.why, REFUSED, "{query:?}");
            assert_eq!(refusal.system, query[0].1);
        }
    }

    #[test]
    fn the_key_of_nobody_opens_nothing() {
        let sign = hex(&digest("SV-NOBODY", NOBODYS_KEY, AT));
        assert!(verdict(&[("systemId", "SV-NOBODY"), ("timestamp", AT), ("sign", &sign)]).is_err());
    }

    #[test]
    fn mistakes_of_form_are_named() {
        let long = "x".repeat(51);
        let good = [("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", SIGN)];
        let twice = |name| [good.as_slice(), &[(name, "1")], &[(name, "1")]].concat();
        let rows = [
            (vec![], "systemId is missing"),
            (vec![("systemId", "")], "systemId is missing"),
            (vec![good[0], good[2]], "timestamp is missing"),
            (vec![good[0], good[1]], "sign is missing"),
            (vec![("systemId", long.as_str()), good[1], good[2]], "systemId takes at most 50 characters"),
            (vec![good[0], ("timestamp", "12a"), good[2]], "timestamp takes Unix milliseconds"),
            (vec![good[0], ("timestamp", "-1"), good[2]], "timestamp takes Unix milliseconds"),
            (
                vec![good[0], ("timestamp", "12345678901234567890"), good[2]],
                "timestamp takes Unix milliseconds",
            ),
            (twice("systemId"), "systemId is given twice"),
            (twice("timestamp"), "timestamp is given twice"),
            (twice("sign"), "sign is given twice"),
            (twice("isSubscribeEarliestMessage"), "isSubscribeEarliestMessage is given twice"),
        ];
        for (query, why) in rows {
            assert_eq!(verdict(&query).unwrap_err().why, why, "{query:?}");
        }
    }

    #[test]
    fn a_stale_timestamp_is_let_in_unless_a_window_is_set() {
        let query = [("systemId", "SV-EDGE-0001"), ("timestamp", AT), ("sign", SIGN)];
        let window = Some(Duration::from_secs(300));
        let rows = [
            (None, 1_900_000_000_000, true),
            (window, 1_700_000_300_000, true),
            (window, 1_700_000_300_001, false),
            (window, 1_699_999_700_000, true),
            (window, 1_699_999_699_999, false),
        ];
        for (window, now, lets_in) in rows {
            let verdict = log_in(&request(&query), &context(window), now_at(now));
            assert_eq!(verdict.is_ok(), lets_in, "{window:?} {now}");
            // A gateway that does not know the time locks nobody out.
            let unsure = Now { clock: Clock::Unsynchronised, ..now_at(now) };
            assert!(log_in(&request(&query), &context(window), unsure).is_ok(), "{window:?} {now}");
        }
    }

    #[test]
    fn the_earliest_flag_is_true_only_when_it_says_so() {
        for (flag, earliest) in [("true", true), ("TRUE", true), ("false", false), ("", false), ("1", false)]
        {
            let query = [
                ("systemId", "SV-EDGE-0001"),
                ("timestamp", AT),
                ("sign", SIGN),
                ("isSubscribeEarliestMessage", flag),
            ];
            let login = log_in(&request(&query), &context(None), now_at(0)).unwrap();
            assert_eq!(login.earliest, earliest, "{flag:?}");
        }
    }

    #[test]
    fn a_signed_query_logs_its_client_in() {
        let query = signed_query(&client(), UnixMillis(1_700_000_000_000));
        assert_eq!(
            query,
            format!("systemId=SV-EDGE-0001&timestamp={AT}&sign={SIGN}&isSubscribeEarliestMessage=false")
        );
    }

    proptest! {
        #[test]
        fn no_query_opens_by_chance_or_makes_it_panic(
            system in any::<String>(), timestamp in "[0-9]{0,21}|.*", sign in "[0-9a-fA-F]{60,68}|.*",
        ) {
            let query = [("systemId", system.as_str()), ("timestamp", &timestamp), ("sign", &sign)];
            prop_assert!(verdict(&query).is_err());
        }
    }
}

//! Failed logins, by address: who guesses is not listened to for a while.
//!
//! Only different wrong credentials count. A client with a mistyped token that tries again and again guesses nothing,
//! and must not shut out its neighbours behind the same address. What is counted is the same for all dialects, for
//! sockets and for calls; right credentials change nothing, so nobody can clear the slate with one of them.
//!
//! It keeps no credential, only numbers that a random key makes of the last few.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Addresses that are remembered. When full the one that was quiet for longest is forgotten.
pub const ADDRESSES: usize = 1024;

/// Wrong credentials of one address that are recognised when they come again: as many as are too many, so that fewer never
/// are, however often they come; at most so many.
const RECENT: usize = 64;

/// The time in which failures add up, and how long the first block lasts.
const WINDOW: Duration = Duration::from_secs(60);

/// Each block in a row is twice as long as the one before, this often: up to sixteen minutes.
const DOUBLINGS: u32 = 4;

/// After this time without a failure an address is forgotten, with its blocks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Everybody's failed logins, and how many are too many. Cheap to clone; all clones know the same. The default
/// counts nothing and blocks nobody.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    book: Option<Arc<Book>>,
    limit: usize,
}

/// Who failed where; outlives each change of the limit.
#[derive(Debug, Default)]
pub struct Book {
    key: RandomState,
    addresses: Mutex<HashMap<IpAddr, Account>>,
}

/// What is known of one address.
#[derive(Debug)]
struct Account {
    recent: VecDeque<u64>,
    /// Different wrong credentials since then.
    failures: usize,
    since: Instant,
    /// The last failure.
    last: Instant,
    /// All failed logins, also those with a credential that came before; told with each change.
    all: u64,
    blocked: Option<Instant>,
    /// Blocks in a row.
    blocks: u32,
    /// What came while it was blocked.
    turned_away: u64,
}

impl Logins {
    /// Blocks an address after this many different wrong credentials within a minute; never where that is zero.
    pub fn new(book: &Arc<Book>, limit: usize) -> Self {
        Self { book: (limit > 0).then(|| Arc::clone(book)), limit }
    }

    /// How long this address has still to wait before anything that it shows is looked at.
    pub fn blocked(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let book = self.book.as_ref()?;
        let mut addresses = book.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let account = addresses.get_mut(&network(peer))?;
        let until = account.blocked?;
        if until > now {
            account.turned_away += 1;
            return Some(until - now);
        }
        account.blocked = None;
        let turned_away = std::mem::take(&mut account.turned_away);
        info!(%peer, turned_away, "logins from this address are looked at again");
        None
    }

    /// Somebody at this address has shown a credential that opens nothing. `door` is the dialect, for the log.
    pub fn failed(&self, peer: IpAddr, door: &'static str, credential: &str, now: Instant) {
        let Some(book) = &self.book else { return };
        let mark = book.key.hash_one(credential);
        let mut addresses = book.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(peer);
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&network) {
            let quiet = addresses.iter().min_by_key(|(_, account)| account.last).map(|(address, _)| *address);
            quiet.and_then(|quiet| addresses.remove(&quiet));
        }
        let account = addresses.entry(network).or_insert_with(|| Account::new(now));
        if now.saturating_duration_since(account.last) >= FORGOTTEN_AFTER {
            *account = Account::new(now);
        }
        account.last = now;
        account.all += 1;
        if account.recent.contains(&mark) {
            return;
        }
        account.recent.truncate(self.limit.min(RECENT).saturating_sub(1));
        account.recent.push_front(mark);
        if now.saturating_duration_since(account.since) >= WINDOW {
            account.since = now;
            account.failures = 0;
        }
        account.failures += 1;
        if account.all == 1 {
            warn!(%peer, door, "a login was refused; more from this address are counted");
        }
        if account.failures >= self.limit {
            let pause = WINDOW * 2_u32.pow(account.blocks.min(DOUBLINGS));
            account.blocked = Some(now + pause);
            account.blocks = account.blocks.saturating_add(1);
            account.failures = 0;
            let (failures, seconds) = (account.all, pause.as_secs());
            warn!(%peer, failures, seconds, "too many failed logins; this address is not listened to for a while");
        }
    }
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            recent: VecDeque::new(),
            failures: 0,
            since: now,
            last: now,
            all: 0,
            blocked: None,
            blocks: 0,
            turned_away: 0,
        }
    }
}

/// Whoever has an IPv6 address has the other 2^64 of its network too.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::shared::fixture;
    use crate::dialects::{Context, ENTRIES, Input, Opening, Output, Request};

    fn limit(limit: usize) -> Logins {
        Logins::new(&Arc::default(), limit)
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn guess(logins: &Logins, peer: IpAddr, guesses: std::ops::Range<u32>, now: Instant) {
        for guess in guesses {
            logins.failed(peer, "sagoo", &guess.to_string(), now);
        }
    }

    #[test]
    fn whoever_guesses_is_blocked_for_longer_each_time() {
        let (logins, me, start) = (limit(10), peer("192.0.2.1"), fixture::now().instant);
        guess(&logins, me, 0..9, start);
        assert_eq!(logins.blocked(me, start), None);
        guess(&logins, me, 9..10, start);
        assert_eq!(logins.blocked(me, start), Some(Duration::from_secs(60)));
        assert_eq!(logins.blocked(peer("192.0.2.2"), start), None, "others are not concerned");
        let mut now = at(start, 60);
        for (round, pause) in [(1, 120), (2, 240), (3, 480), (4, 960), (5, 960)] {
            assert_eq!(logins.blocked(me, now), None);
            guess(&logins, me, round * 10..round * 10 + 10, now);
            assert_eq!(logins.blocked(me, now), Some(Duration::from_secs(pause)));
            now = at(now, pause);
        }
        assert_eq!(logins.blocked(me, now), None);
        now = at(now, 3600);
        guess(&logins, me, 100..110, now);
        assert_eq!(logins.blocked(me, now), Some(Duration::from_secs(60)), "an hour later all is forgotten");
    }

    #[test]
    fn the_same_mistake_again_and_again_is_no_guess() {
        let (logins, me, start) = (limit(3), peer("192.0.2.1"), fixture::now().instant);
        for second in 0..1000 {
            let typo = if second % 2 == 0 { "demp" } else { "dmeo" };
            logins.failed(me, "ithings", typo, at(start, second / 100));
        }
        assert_eq!(logins.blocked(me, at(start, 10)), None);
    }

    #[test]
    fn fewer_mistakes_than_are_too_many_stay_so_however_often_they_are_made() {
        let (logins, me, start) = (limit(10), peer("192.0.2.1"), fixture::now().instant);
        // Nine machines behind one address whose tokens were exchanged, each trying every five seconds.
        for second in 0..600 {
            guess(&logins, me, 0..9, at(start, second * 5));
        }
        assert_eq!(logins.blocked(me, at(start, 3000)), None);
    }

    #[test]
    fn few_wrong_credentials_over_a_long_time_are_no_guesses() {
        let (logins, me, start) = (limit(3), peer("192.0.2.1"), fixture::now().instant);
        for guess in 0..100 {
            logins.failed(me, "oam", &guess.to_string(), at(start, guess * 31));
        }
        assert_eq!(logins.blocked(me, at(start, 3100)), None);
    }

    #[test]
    fn an_address_is_the_same_in_other_clothes_and_in_its_whole_network() {
        let (logins, start) = (limit(2), fixture::now().instant);
        guess(&logins, peer("::ffff:192.0.2.1"), 0..1, start);
        guess(&logins, peer("192.0.2.1"), 1..2, start);
        assert!(logins.blocked(peer("192.0.2.1"), start).is_some());
        guess(&logins, peer("2001:db8::1"), 0..1, start);
        guess(&logins, peer("2001:db8::ffff:1"), 1..2, start);
        assert!(logins.blocked(peer("2001:db8::2"), start).is_some());
        assert!(logins.blocked(peer("2001:db8:0:1::2"), start).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_the_quietest_goes() {
        let (logins, start) = (limit(1), fixture::now().instant);
        let address = |at: usize| IpAddr::from(u32::try_from(at).unwrap().to_be_bytes());
        for place in 0..=ADDRESSES {
            guess(
                &logins,
                address(place),
                0..1,
                start + Duration::from_millis(u64::try_from(place).unwrap()),
            );
        }
        assert_eq!(logins.book.as_ref().unwrap().addresses.lock().unwrap().len(), ADDRESSES);
        assert!(logins.blocked(address(0), at(start, 2)).is_none());
        assert!(logins.blocked(address(ADDRESSES), at(start, 2)).is_some());
    }

    #[test]
    fn a_limit_of_zero_blocks_nobody() {
        let (logins, me, start) = (limit(0), peer("192.0.2.1"), fixture::now().instant);
        guess(&logins, me, 0..1000, start);
        assert_eq!(logins.blocked(me, start), None);
    }

    /// Shows one credential wherever the request has a place for it, and says what STOMP clients say.
    fn show(context: &Arc<Context>, request: &Request) {
        let now = fixture::now();
        let opening = ENTRIES
            .iter()
            .map(|entry| (entry.open)(request, context, now))
            .find(|opening| !matches!(opening, Opening::NotMine));
        let Some(Opening::Upgrade(mut upgrade)) = opening else { return };
        for input in [Input::Open, Input::Text("CONNECT\naccept-version:1.2\n\n\0".to_owned().into())] {
            upgrade.session.handle(input, now);
            while let Some(output) = upgrade.session.poll() {
                if matches!(output, Output::Close { .. }) {
                    return;
                }
            }
        }
    }

    #[test]
    fn pages_whose_tickets_ended_with_the_last_run_shut_nobody_out() {
        let (context, logins) = (fixture::context(), limit(10));
        // A page with a connection, and so a ticket, for each of five devices; all of them connect again and again.
        for _ in 0..20 {
            for device in 0..5 {
                let mut request = fixture::request("GET", "/websocket", true);
                request.query.push(("ticket".to_owned(), format!("{device:064x}")));
                show(&context, &Request { logins: logins.clone(), ..request });
            }
        }
        let (peer, now) = (fixture::request("GET", "/", false).peer, fixture::now().instant);
        assert_eq!(logins.blocked(peer, now), None);
    }

    #[test]
    fn wrong_credentials_count_at_every_door_and_right_ones_at_none() {
        let uplus = "/wssubscriber/msgplatform/websocket";
        let doors = [
            ("GET", "/api/janus/websocket", false, "token"),
            ("GET", "/api/device/list", false, "token"),
            ("POST", "/api/device/pushdata", false, "token"),
            ("GET", "/websocket", true, "token"),
            ("GET", "/ws", true, "token"),
            ("GET", "/messaging/", true, ""),
            ("GET", "/api/v1/system/common/websocket/connect", true, "token"),
            ("POST", "/api/v1/things/device/msg/property-latest/index", false, "token"),
            ("POST", "/api/node/list", false, "token"),
            ("GET", uplus, true, "sign"),
        ];
        for (method, path, upgrade, parameter) in doors {
            let request = |credential: &str| {
                let mut request = fixture::request(method, path, upgrade);
                if parameter.is_empty() {
                    request.path.push_str(credential);
                } else {
                    request.query.push((parameter.to_owned(), credential.to_owned()));
                }
                if path == uplus {
                    request.query.push(("systemId".to_owned(), "demo".to_owned()));
                    request.query.push(("timestamp".to_owned(), "1700000000000".to_owned()));
                }
                request
            };
            let (context, logins) = (fixture::context(), limit(10));
            let request = |credential: &str| Request { logins: logins.clone(), ..request(credential) };
            let (peer, now) = (request("").peer, fixture::now().instant);
            for _ in 0..20 {
                show(&context, &request(""));
                if parameter != "sign" {
                    show(&context, &request("demo"));
                }
            }
            for guess in 0..9 {
                show(&context, &request(&format!("wrong-{guess}")));
            }
            assert_eq!(logins.blocked(peer, now), None, "{method} {path} {parameter}");
            show(&context, &request("wrong-9"));
            assert!(logins.blocked(peer, now).is_some(), "{method} {path} {parameter}");
        }
    }
}

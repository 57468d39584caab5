//! Admission: how many connections there may be, in all and from one address, how many of them may hold much before it
//! is known who they are, and who has failed to say so.
//!
//! One count for all listeners, so that neither TLS nor a dialect's own port is a way around the limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bodies::{Body, Place, Places};
use crate::dialects::shared::logins::{self, Logins};

/// Bytes of a request's body that every connection may hold before its client is known.
pub(super) const SMALL_BODY: usize = 16 * 1024;

/// The book of who is connected.
#[derive(Clone, Debug)]
pub struct Admission {
    book: Arc<Mutex<Book>>,
    total: usize,
    per_address: usize,
    /// Addresses that many clients share, so that the limit per address would be meaningless.
    shared: Arc<[IpAddr]>,
    large_bodies: Places,
}

#[derive(Debug, Default)]
struct Book {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    logins: Arc<logins::Book>,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The limit over all addresses.
    #[error("there are {0} connections already")]
    Total(usize),
    /// The limit of one address.
    #[error("there are {0} connections from this address already")]
    Address(usize),
}

impl Admission {
    /// At most `total` connections, and `per_address` from each address that is not among `shared` (proxies).
    pub fn new(total: usize, per_address: usize, shared: &[IpAddr]) -> Self {
        let shared = shared.iter().map(IpAddr::to_canonical).collect();
        Self { book: Arc::default(), total, per_address, shared, large_bodies: Places::default() }
    }

    /// Failed logins, of which so many are too many.
    pub fn logins(&self, limit: usize) -> Logins {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        Logins::new(&book.logins, limit)
    }

    /// Waits for a place for a body that is larger than [`SMALL_BODY`]: `whole` bytes, of which `read` are there. It may have
    /// to give way once it has had the place for `grace`.
    pub(super) async fn large_body(
        &self,
        peer: IpAddr,
        (read, whole): (usize, usize),
        deadline: Instant,
        grace: Duration,
    ) -> Place {
        let address = (!self.shared.contains(&peer.to_canonical())).then(|| logins::network(peer));
        self.large_bodies.take(Body { address, whole, read, deadline }, grace).await
    }

    /// The same book with other limits. Who is in stays in.
    #[must_use]
    pub fn with(&self, total: usize, per_address: usize, shared: &[IpAddr]) -> Self {
        let (book, large_bodies) = (Arc::clone(&self.book), self.large_bodies.clone());
        Self { book, large_bodies, ..Self::new(total, per_address, shared) }
    }

    /// Lets one connection in for as long as the permit lives.
    pub fn admit(&self, peer: IpAddr) -> Result<Permit, Refused> {
        let peer = peer.to_canonical();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.total >= self.total {
            return Err(Refused::Total(self.total));
        }
        let here = book.by_address.get(&peer).copied().unwrap_or(0);
        if here >= self.per_address && !self.shared.contains(&peer) {
            return Err(Refused::Address(self.per_address));
        }
        book.by_address.insert(peer, here + 1);
        book.total += 1;
        Ok(Permit { book: Arc::clone(&self.book), peer })
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// One admitted connection; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    book: Arc<Mutex<Book>>,
    peer: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.total = book.total.saturating_sub(1);
        match book.by_address.get_mut(&self.peer) {
            Some(here) if *here > 1 => *here -= 1,
            // The last one takes the entry along, so that the table holds only who is here.
            Some(_) | None => drop(book.by_address.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_cannot_take_all_the_room() {
        let admission = Admission::new(3, 2, &[]);
        let _held = [admission.admit(address(1)).unwrap(), admission.admit(address(1)).unwrap()];
        assert_eq!(admission.admit(address(1)).unwrap_err(), Refused::Address(2));
        let _third = admission.admit(address(2)).unwrap();
        assert_eq!(admission.admit(address(3)).unwrap_err(), Refused::Total(3));
    }

    #[test]
    fn a_closed_connection_makes_room_and_leaves_no_entry() {
        let admission = Admission::new(1, 1, &[]);
        drop(admission.admit(address(1)).unwrap());
        assert_eq!(admission.count(), 0);
        assert!(admission.book.lock().unwrap().by_address.is_empty());
        assert!(admission.admit(address(1)).is_ok());
    }

    #[test]
    fn an_address_in_ipv6_clothes_is_the_same_address() {
        let admission = Admission::new(9, 1, &[]);
        let _held = admission.admit(address(1)).unwrap();
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201]);
        assert_eq!(admission.admit(mapped).unwrap_err(), Refused::Address(1));
    }

    #[test]
    fn a_proxy_may_bring_as_many_clients_as_fit() {
        let admission = Admission::new(3, 1, &[address(1)]);
        let held: Vec<_> = (0..3).map(|_| admission.admit(address(1)).unwrap()).collect();
        assert_eq!(held.len(), 3);
        assert_eq!(admission.admit(address(1)).unwrap_err(), Refused::Total(3));
    }

    /// Whether there is room for a large body at once; it is kept in `held` then.
    async fn at_once(admission: &Admission, peer: IpAddr, held: &mut Vec<Place>) -> bool {
        let grace = Duration::from_secs(2);
        let room = admission.large_body(peer, (0, 1), crate::clock::instant() + 10 * grace, grace);
        tokio::select! {
            biased;
            room = room => held.push(room),
            () = std::future::ready(()) => return false,
        }
        true
    }

    #[tokio::test]
    async fn one_address_cannot_hold_all_places_for_large_bodies() {
        let admission = Admission::new(99, 99, &[address(99)]);
        let mut held = Vec::new();
        let mut got = Vec::new();
        for peer in [1, 1, 1, 2, 1, 2, 2, 99, 99, 99, 99, 3] {
            got.push(at_once(&admission, address(peer), &mut held).await);
        }
        // Two each, any number for a proxy, eight together.
        let expected = [true, true, false, true, false, true, false, true, true, true, true, false];
        assert_eq!(got, expected);
        held.remove(0);
        assert!(
            at_once(&admission.with(9, 9, &[]), address(3), &mut held).await,
            "a reload makes no new places"
        );
        assert!(!at_once(&admission, address(1), &mut held).await, "all are taken");
        held.clear();
        assert!(at_once(&admission, address(1), &mut held).await);
    }

    #[tokio::test]
    async fn an_ipv6_network_is_one_address_for_large_bodies() {
        let admission = Admission::new(99, 99, &[]);
        let mut held = Vec::new();
        let host = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        for last in 1..=2 {
            assert!(at_once(&admission, host(last), &mut held).await);
        }
        assert!(!at_once(&admission, host(3), &mut held).await);
    }
}

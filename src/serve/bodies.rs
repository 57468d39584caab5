//! Places for the large bodies of HTTP requests, which are read before it is known who sends them.
//!
//! A place is asked for once a body grows large, and held until the body has been read and dealt with. Who waits is let in
//! by turns, as soon as there is a place and its address has not got its share of them. A body that comes so slowly that
//! it would not be whole by its deadline holds its place only as long as nobody waits for it: the slowest of these gives
//! way. So places go to those who really send, and whoever stalls keeps nobody else waiting for longer than a moment.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// Bodies that are read at the same time, each up to the limit of a message. When there is no place the request waits, and
/// is answered 408 if that takes too long.
const PLACES: usize = 8;

/// Of those, how many one address may have. When it has so many the next waits in the same way.
const PLACES_OF_ONE: usize = 2;

/// All places.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    table: Arc<Mutex<Table>>,
    /// Somebody has left.
    left: Arc<Notify>,
}

/// A body that wants a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    /// Whose share it counts for; `None` for one that many clients share.
    pub(super) address: Option<IpAddr>,
    /// Bytes that it will have, or may have where it does not say.
    pub(super) whole: usize,
    /// Bytes that are there.
    pub(super) read: usize,
    /// When it is given up in any case.
    pub(super) deadline: Instant,
}

/// A place, or a turn in the queue for one; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    ticket: u64,
    gives_way: CancellationToken,
}

impl Places {
    /// Waits for a place. A body that has had one for `grace` may have to give way.
    pub(super) async fn take(&self, body: Body, grace: Duration) -> Place {
        let ticket = self.table().enter(body);
        let place = Place { places: self.clone(), ticket, gives_way: CancellationToken::new() };
        loop {
            let mut left = pin!(self.left.notified());
            // From here on, so that nobody leaves unnoticed between the look at the table and the wait.
            left.as_mut().enable();
            if self.table().turn(&place, clock::instant(), grace) {
                return place;
            }
            tokio::select! {
                // Cancel-safe by its documentation.
                () = left => {}
                // Cancel-safe: a sleep holds nothing. Somebody may have become too slow meanwhile.
                () = sleep(grace / 8) => {}
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// So many bytes of the body are there now.
    pub(super) fn read(&self, bytes: usize) {
        if let Some(held) = self.places.table().held.iter_mut().find(|held| held.ticket == self.ticket) {
            held.body.read = bytes;
        }
    }

    /// Waits until the body has to give way.
    pub(super) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().leave(self.ticket);
        self.places.left.notify_waiters();
    }
}

/// Who has a place and who waits, in their order.
#[derive(Debug, Default)]
struct Table {
    held: Vec<Held>,
    waiting: Vec<(u64, Body)>,
    last: u64,
}

#[derive(Debug)]
struct Held {
    ticket: u64,
    body: Body,
    since: Instant,
    /// Bytes that were there when the place was given.
    begun: usize,
    gives_way: CancellationToken,
}

impl Held {
    /// Bytes in a second, if it would not be whole in time at this pace.
    fn too_slow(&self, now: Instant, grace: Duration) -> Option<u128> {
        let held = now.saturating_duration_since(self.since);
        if held < grace {
            return None;
        }
        let wide = |bytes: usize| u128::try_from(bytes).unwrap_or(u128::MAX);
        let (got, wanting) =
            (self.body.read.saturating_sub(self.begun), self.body.whole.saturating_sub(self.body.read));
        let left = self.body.deadline.saturating_duration_since(now);
        let in_time = wide(got).saturating_mul(left.as_millis());
        let needed = wide(wanting).saturating_mul(held.as_millis());
        (in_time < needed).then(|| wide(got).saturating_mul(1000) / held.as_millis().max(1))
    }
}

impl Table {
    fn enter(&mut self, body: Body) -> u64 {
        self.last += 1;
        self.waiting.push((self.last, body));
        self.last
    }

    fn leave(&mut self, ticket: u64) {
        self.held.retain(|held| held.ticket != ticket);
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    fn has_share(&self, address: Option<IpAddr>) -> bool {
        let own = self.held.iter().filter(|held| held.body.address == address).count();
        address.is_none() || own < PLACES_OF_ONE
    }

    /// Gives a place to who waits for it, if it is its turn; otherwise sees to it that there will be one.
    fn turn(&mut self, place: &Place, now: Instant, grace: Duration) -> bool {
        let Some(at) = self.waiting.iter().position(|(ticket, _)| *ticket == place.ticket) else {
            return false;
        };
        let Some((ticket, body)) = self.waiting.get(at).copied() else { return false };
        let mut before = self.waiting.iter().take(at);
        let is_next = !before.any(|(_, other)| self.has_share(other.address));
        if is_next && self.held.len() < PLACES && self.has_share(body.address) {
            self.waiting.remove(at);
            let gives_way = place.gives_way.clone();
            self.held.push(Held { ticket, body, since: now, begun: body.read, gives_way });
            return true;
        }
        self.make_way(body.address, now, grace);
        false
    }

    /// Has the slowest of those give way that are in the way of this address, one for each who waits.
    fn make_way(&mut self, address: Option<IpAddr>, now: Instant, grace: Duration) {
        let full = self.held.len() >= PLACES;
        let own_only = !self.has_share(address);
        if !full && !own_only {
            return;
        }
        let concerned = |body: &Body| !own_only || body.address == address;
        let waiting = self.waiting.iter().filter(|(_, body)| concerned(body)).count();
        let held = || self.held.iter().filter(|held| concerned(&held.body));
        if held().filter(|held| held.gives_way.is_cancelled()).count() >= waiting {
            return;
        }
        let slow = held().filter(|held| !held.gives_way.is_cancelled());
        let slow = slow.filter_map(|held| Some((held.too_slow(now, grace)?, held)));
        if let Some((_, slowest)) = slow.min_by_key(|(pace, _)| *pace) {
            slowest.gives_way.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);
    const WHOLE: usize = 1_000_000;

    /// The table with time as an argument, driven by hand.
    struct Rig {
        places: Places,
        start: Instant,
        entered: Vec<Place>,
    }

    impl Rig {
        fn new() -> Self {
            Self { places: Places::default(), start: clock::instant(), entered: Vec::new() }
        }

        /// A body of an address comes after so many seconds; gives its number.
        fn enter(&mut self, address: u8, second: u64) -> usize {
            let deadline = self.start + Duration::from_secs(second + 30);
            let address = (address > 0).then(|| IpAddr::from([192, 0, 2, address]));
            let ticket = self.places.table().enter(Body { address, whole: WHOLE, read: 0, deadline });
            let gives_way = CancellationToken::new();
            self.entered.push(Place { places: self.places.clone(), ticket, gives_way });
            self.entered.len() - 1
        }

        fn turn(&self, number: usize, second: u64) -> bool {
            let now = self.start + Duration::from_secs(second);
            self.places.table().turn(&self.entered[number], now, GRACE)
        }

        fn has_to_go(&self) -> Vec<usize> {
            (0..self.entered.len()).filter(|at| self.entered[*at].gives_way.is_cancelled()).collect()
        }

        fn leave(&self, number: usize) {
            self.places.table().leave(self.entered[number].ticket);
        }

        /// Two bodies each of four addresses, all of which get a place.
        fn full() -> Self {
            let mut rig = Self::new();
            for address in [1, 1, 2, 2, 3, 3, 4, 4] {
                let number = rig.enter(address, 0);
                assert!(rig.turn(number, 0));
            }
            rig
        }
    }

    #[test]
    fn who_waits_gets_the_place_of_the_slowest_after_a_moment() {
        let mut rig = Rig::full();
        for (number, place) in rig.entered.iter().enumerate() {
            place.read(1000 * (8 - number));
        }
        let late = rig.enter(5, 0);
        assert!(!rig.turn(late, 1));
        assert_eq!(rig.has_to_go(), [0_usize; 0], "nobody is judged at once");
        assert!(!rig.turn(late, 2));
        assert_eq!(rig.has_to_go(), [7]);
        assert!(!rig.turn(late, 3));
        assert_eq!(rig.has_to_go(), [7], "one place for one who waits");
        rig.leave(7);
        assert!(rig.turn(late, 3));
        let later = rig.enter(6, 3);
        assert!(!rig.turn(later, 3));
        assert_eq!(rig.has_to_go(), [6, 7]);
    }

    #[test]
    fn a_body_that_will_be_whole_in_time_stays() {
        let mut rig = Rig::full();
        for place in &rig.entered {
            place.read(WHOLE / 10);
        }
        let late = rig.enter(5, 0);
        assert!(!rig.turn(late, 2));
        assert_eq!(rig.has_to_go(), [0_usize; 0], "a tenth in two of thirty seconds");
        assert!(!rig.turn(late, 4));
        assert_eq!(rig.has_to_go(), [0], "nothing since then");
    }

    #[test]
    fn a_slow_body_keeps_its_place_as_long_as_nobody_waits() {
        let mut rig = Rig::new();
        let slow = rig.enter(1, 0);
        assert!(rig.turn(slow, 0));
        let other = rig.enter(2, 25);
        assert!(rig.turn(other, 25));
        assert_eq!(rig.has_to_go(), [0_usize; 0]);
    }

    #[test]
    fn an_address_makes_way_for_itself_alone_when_it_has_its_share() {
        let mut rig = Rig::new();
        for address in [2, 1, 1] {
            let number = rig.enter(address, 0);
            assert!(rig.turn(number, 0));
        }
        rig.entered[1].read(10);
        let third = rig.enter(1, 0);
        assert!(!rig.turn(third, 5));
        assert_eq!(rig.has_to_go(), [2]);
        let other = rig.enter(3, 5);
        assert!(rig.turn(other, 5), "who waits for its own share keeps nobody waiting");
        rig.leave(2);
        assert!(rig.turn(third, 5));
    }

    #[test]
    fn whoever_came_first_is_let_in_first() {
        let mut rig = Rig::full();
        let (first, second) = (rig.enter(5, 0), rig.enter(6, 0));
        rig.leave(3);
        assert!(!rig.turn(second, 0));
        assert!(rig.turn(first, 0));
        assert!(!rig.turn(second, 0));
        rig.leave(first);
        assert!(rig.turn(second, 0));
    }

    #[test]
    fn a_shared_address_may_have_all_places() {
        let mut rig = Rig::new();
        let all: Vec<usize> = (0..=PLACES).map(|_| rig.enter(0, 0)).collect();
        let got: Vec<bool> = all.iter().map(|number| rig.turn(*number, 0)).collect();
        assert_eq!(got, [vec![true; PLACES], vec![false]].concat());
    }
}

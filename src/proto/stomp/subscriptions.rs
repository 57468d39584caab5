//! The subscriptions of one connection and what they have not yet acknowledged.

use std::collections::VecDeque;

/// Most subscriptions at a time on one connection; one more is an error that ends it.
pub const SUBSCRIPTIONS: usize = 256;

/// Most messages per subscription whose acknowledgement is awaited. When full the oldest counts as acknowledged:
/// a client that never acknowledges still gets everything and takes no more memory.
pub const UNACKNOWLEDGED: usize = 256;

/// What the application knows a subscription by. Never reused on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// How a subscription acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// Not at all.
    #[default]
    Auto,
    /// Each ACK stands for all messages before it too.
    Client,
    /// Each message on its own.
    Individual,
}

impl AckMode {
    /// From the `ack` header; `None` when there is no such mode.
    pub fn parse(header: Option<&str>) -> Option<Self> {
        match header {
            None | Some("auto") => Some(Self::Auto),
            Some("client") => Some(Self::Client),
            Some("client-individual") => Some(Self::Individual),
            Some(_) => None,
        }
    }
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// The application's name for it.
    pub key: Key,
    /// The client's name for it; some go without.
    pub id: Option<String>,
    /// What was subscribed, as the client wrote it.
    pub destination: String,
    /// How it acknowledges.
    pub mode: AckMode,
    /// Numbers of messages whose acknowledgement is awaited, rising.
    unacknowledged: VecDeque<u64>,
}

impl Subscription {
    /// Notes that a message was sent and its acknowledgement is awaited.
    pub fn sent(&mut self, number: u64) {
        if self.mode == AckMode::Auto {
            return;
        }
        if self.unacknowledged.len() == UNACKNOWLEDGED {
            let _ = self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(number);
    }

    /// How many messages are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Settles one message, and with it the earlier ones where the mode says so. False when it was not awaited.
    fn settle(&mut self, number: u64) -> bool {
        let Ok(at) = self.unacknowledged.binary_search(&number) else { return false };
        match self.mode {
            AckMode::Auto | AckMode::Individual => {
                let _ = self.unacknowledged.remove(at);
            }
            AckMode::Client => {
                drop(self.unacknowledged.drain(..=at));
            }
        }
        true
    }
}

/// Why a SUBSCRIBE is refused: there are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {SUBSCRIPTIONS} subscriptions")]
pub struct TooMany;

/// What a SUBSCRIBE comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// A subscription.
    New(Key),
    /// A subscription in the place of one whose id it takes over.
    Instead {
        /// The one that is gone.
        old: Key,
        /// The one that is there.
        new: Key,
    },
    /// The client has it already.
    Known,
}

/// All subscriptions of a connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Keys rise, because new ones come last.
    entries: Vec<Subscription>,
    next: u32,
}

impl Subscriptions {
    /// Adds one. Whoever repeats a subscription has it once, under its first key and with its last mode; an id that is used
    /// again for another destination goes over to that. Without an id it is known by its destination, in every version.
    pub fn add(&mut self, id: Option<&str>, destination: &str, mode: AckMode) -> Result<Added, TooMany> {
        let full = self.entries.len() == SUBSCRIPTIONS;
        let known = self.entries.iter_mut().find(|entry| match id {
            Some(id) => entry.id.as_deref() == Some(id),
            None => entry.id.is_none() && entry.destination == destination,
        });
        let old = match known {
            Some(entry) if entry.destination == destination => {
                entry.mode = mode;
                return Ok(Added::Known);
            }
            Some(entry) => Some(entry.key),
            None if full => return Err(TooMany),
            None => None,
        };
        self.entries.retain(|entry| Some(entry.key) != old);
        let new = Key(self.next);
        self.next = self.next.wrapping_add(1);
        self.entries.push(Subscription {
            key: new,
            id: id.map(str::to_owned),
            destination: destination.to_owned(),
            mode,
            unacknowledged: VecDeque::new(),
        });
        Ok(old.map_or(Added::New(new), |old| Added::Instead { old, new }))
    }

    /// Removes by id, or else all of a destination. Gives what is gone; nothing when there was no such one.
    pub fn remove(&mut self, id: Option<&str>, destination: Option<&str>) -> Vec<Key> {
        let meant = |entry: &Subscription| match id {
            Some(id) => entry.id.as_deref() == Some(id),
            None => destination == Some(entry.destination.as_str()),
        };
        let gone = self.entries.iter().filter(|entry| meant(entry)).map(|entry| entry.key).collect();
        self.entries.retain(|entry| !meant(entry));
        gone
    }

    /// By key, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Subscription> {
        let at = self.entries.binary_search_by_key(&key, |entry| entry.key).ok()?;
        self.entries.get_mut(at)
    }

    /// Settles the message of this number, on the named subscription or on whichever awaits it. False when none
    /// does: it was settled before, or its subscription needs no acknowledgement.
    pub fn settle(&mut self, number: u64, subscription: Option<&str>) -> bool {
        self.entries
            .iter_mut()
            .filter(|entry| subscription.is_none() || entry.id.as_deref() == subscription)
            .any(|entry| entry.settle(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(mode: AckMode) -> (Subscriptions, Key) {
        let mut all = Subscriptions::default();
        let key = Key(0);
        assert_eq!(all.add(Some("a"), "/x", mode), Ok(Added::New(key)));
        for number in 1..=3 {
            all.get_mut(key).unwrap().sent(number);
        }
        (all, key)
    }

    #[test]
    fn a_cumulative_ack_settles_the_earlier_ones_too() {
        let (mut all, key) = with(AckMode::Client);
        assert!(all.settle(2, None));
        assert_eq!(all.get_mut(key).unwrap().unacknowledged(), 1);
        assert!(!all.settle(1, None));
    }

    #[test]
    fn an_individual_ack_settles_only_itself() {
        let (mut all, key) = with(AckMode::Individual);
        assert!(all.settle(2, Some("a")));
        assert_eq!(all.get_mut(key).unwrap().unacknowledged(), 2);
        assert!(!all.settle(3, Some("b")), "of another subscription");
    }

    #[test]
    fn a_client_that_never_acknowledges_takes_no_more_than_its_share() {
        let (mut all, key) = with(AckMode::Individual);
        for number in 4..5000 {
            all.get_mut(key).unwrap().sent(number);
        }
        assert_eq!(all.get_mut(key).unwrap().unacknowledged(), UNACKNOWLEDGED);
        assert!(all.settle(4999, None));
    }

    #[test]
    fn an_automatic_subscription_awaits_nothing() {
        let (mut all, key) = with(AckMode::Auto);
        assert_eq!(all.get_mut(key).unwrap().unacknowledged(), 0);
    }

    #[test]
    fn an_id_that_is_used_again_goes_over_to_its_new_destination() {
        let mut all = Subscriptions::default();
        assert_eq!(all.add(Some("a"), "/x", AckMode::Auto), Ok(Added::New(Key(0))));
        assert_eq!(all.add(Some("b"), "/x", AckMode::Auto), Ok(Added::New(Key(1))));
        assert_eq!(all.add(Some("a"), "/y", AckMode::Auto), Ok(Added::Instead { old: Key(0), new: Key(2) }));
        assert!(all.get_mut(Key(0)).is_none());
        assert_eq!(all.remove(Some("a"), None), [Key(2)]);
        assert_eq!(all.add(Some("a"), "/y", AckMode::Auto), Ok(Added::New(Key(3))));
    }

    #[test]
    fn a_repeated_subscription_is_one_with_its_last_mode() {
        let mut all = Subscriptions::default();
        for id in [Some("a"), None] {
            let Ok(Added::New(key)) = all.add(id, "/x", AckMode::Auto) else { panic!("{id:?} is new") };
            assert_eq!(all.add(id, "/x", AckMode::Client), Ok(Added::Known));
            assert_eq!(all.get_mut(key).unwrap().mode, AckMode::Client);
        }
        assert_eq!(all.remove(None, Some("/x")), [Key(0), Key(1)]);
        assert_eq!(all.remove(None, Some("/x")), []);
    }

    #[test]
    fn there_is_a_last_subscription() {
        let mut all = Subscriptions::default();
        for n in 0..SUBSCRIPTIONS {
            assert!(all.add(Some(&n.to_string()), "/x", AckMode::Auto).is_ok());
        }
        assert_eq!(all.add(Some("more"), "/x", AckMode::Auto), Err(TooMany));
        assert_eq!(all.add(Some("7"), "/x", AckMode::Auto), Ok(Added::Known));
        assert!(matches!(all.add(Some("7"), "/y", AckMode::Auto), Ok(Added::Instead { .. })));
    }
}

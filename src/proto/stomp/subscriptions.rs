//! The subscriptions of one connection and what they have not yet acknowledged.

use std::collections::VecDeque;

use super::frame::Version;

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
    /// The client's name for it; 1.0 clients may go without.
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

/// Why a SUBSCRIBE is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// 1.1 and 1.2 need an id.
    #[error("SUBSCRIBE needs the header id")]
    NoId,
    /// The id belongs to a live subscription.
    #[error("a subscription with this id exists already")]
    Duplicate,
    /// There are as many as there may be.
    #[error("more than {SUBSCRIPTIONS} subscriptions")]
    TooMany,
}

/// All subscriptions of a connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Keys rise, because new ones come last.
    entries: Vec<Subscription>,
    next: u32,
}

impl Subscriptions {
    /// Adds one. A 1.0 client that repeats a subscription without id has it once, under its first key.
    pub fn add(
        &mut self,
        id: Option<&str>,
        destination: &str,
        mode: AckMode,
        version: Version,
    ) -> Result<Option<Key>, SubscribeError> {
        match id {
            None if version != Version::V1_0 => return Err(SubscribeError::NoId),
            None => {
                let same = |entry: &Subscription| entry.id.is_none() && entry.destination == destination;
                if self.entries.iter().any(same) {
                    return Ok(None);
                }
            }
            Some(id) => {
                if self.entries.iter().any(|entry| entry.id.as_deref() == Some(id)) {
                    return Err(SubscribeError::Duplicate);
                }
            }
        }
        if self.entries.len() == SUBSCRIPTIONS {
            return Err(SubscribeError::TooMany);
        }
        let key = Key(self.next);
        self.next = self.next.wrapping_add(1);
        self.entries.push(Subscription {
            key,
            id: id.map(str::to_owned),
            destination: destination.to_owned(),
            mode,
            unacknowledged: VecDeque::new(),
        });
        Ok(Some(key))
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
        let key = all.add(Some("a"), "/x", mode, Version::V1_2).unwrap().unwrap();
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
    fn ids_are_unique_among_the_living() {
        let mut all = Subscriptions::default();
        assert_eq!(all.add(Some("a"), "/x", AckMode::Auto, Version::V1_2), Ok(Some(Key(0))));
        assert_eq!(all.add(Some("a"), "/y", AckMode::Auto, Version::V1_1), Err(SubscribeError::Duplicate));
        assert_eq!(all.remove(Some("a"), None), [Key(0)]);
        assert_eq!(all.add(Some("a"), "/y", AckMode::Auto, Version::V1_1), Ok(Some(Key(1))));
        assert!(all.get_mut(Key(0)).is_none());
    }

    #[test]
    fn only_1_0_subscribes_without_an_id() {
        let mut all = Subscriptions::default();
        assert_eq!(all.add(None, "/x", AckMode::Auto, Version::V1_1), Err(SubscribeError::NoId));
        assert_eq!(all.add(None, "/x", AckMode::Auto, Version::V1_0), Ok(Some(Key(0))));
        assert_eq!(all.add(None, "/x", AckMode::Auto, Version::V1_0), Ok(None));
        assert_eq!(all.remove(None, Some("/x")), [Key(0)]);
        assert_eq!(all.remove(None, Some("/x")), []);
    }

    #[test]
    fn there_is_a_last_subscription() {
        let mut all = Subscriptions::default();
        for n in 0..SUBSCRIPTIONS {
            assert!(all.add(Some(&n.to_string()), "/x", AckMode::Auto, Version::V1_2).is_ok());
        }
        assert_eq!(all.add(Some("more"), "/x", AckMode::Auto, Version::V1_2), Err(SubscribeError::TooMany));
    }
}

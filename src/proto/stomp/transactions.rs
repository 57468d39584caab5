//! Open transactions: what a client has sent inside them waits here until it commits.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Most transactions open at a time on one connection.
pub const TRANSACTIONS: usize = 16;

/// Most frames in one transaction.
pub const ACTIONS: usize = 1024;

/// What can stand inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A message of the client.
    Send {
        /// Where to.
        destination: String,
        /// What.
        body: Bytes,
    },
    /// An acknowledgement, positive or negative.
    Settle {
        /// The number of the message.
        number: u64,
        /// The subscription, if the client named one.
        subscription: Option<String>,
    },
}

impl Action {
    /// Octets that it keeps in memory.
    fn weight(&self) -> usize {
        match self {
            Self::Send { destination, body } => destination.len() + body.len(),
            Self::Settle { subscription, .. } => subscription.as_ref().map_or(0, String::len),
        }
    }
}

/// Why a frame about a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// BEGIN of one that is open.
    #[error("the transaction is open already")]
    Open,
    /// Anything else about one that is not.
    #[error("no such transaction")]
    Unknown,
    /// BEGIN beyond the limit.
    #[error("more than {TRANSACTIONS} transactions")]
    TooMany,
    /// A frame beyond the limit.
    #[error("more than {ACTIONS} frames in a transaction")]
    TooLong,
    /// All open transactions together take too much memory.
    #[error("more than {0} octets in open transactions")]
    TooLarge(usize),
}

/// All open transactions of a connection.
#[derive(Debug, Default)]
pub struct Transactions {
    open: BTreeMap<String, Vec<Action>>,
    weight: usize,
}

impl Transactions {
    /// Opens one.
    pub fn begin(&mut self, id: &str) -> Result<(), TransactionError> {
        if self.open.contains_key(id) {
            return Err(TransactionError::Open);
        }
        if self.open.len() == TRANSACTIONS {
            return Err(TransactionError::TooMany);
        }
        drop(self.open.insert(id.to_owned(), Vec::new()));
        Ok(())
    }

    /// Adds to one, as long as all of them together hold no more than `limit` octets.
    pub fn add(&mut self, id: &str, action: Action, limit: usize) -> Result<(), TransactionError> {
        let actions = self.open.get_mut(id).ok_or(TransactionError::Unknown)?;
        if actions.len() == ACTIONS {
            return Err(TransactionError::TooLong);
        }
        let weight = self.weight + action.weight();
        if weight > limit {
            return Err(TransactionError::TooLarge(limit));
        }
        self.weight = weight;
        actions.push(action);
        Ok(())
    }

    /// Closes one and gives what it holds, in order.
    pub fn end(&mut self, id: &str) -> Result<Vec<Action>, TransactionError> {
        let actions = self.open.remove(id).ok_or(TransactionError::Unknown)?;
        self.weight -= actions.iter().map(Action::weight).sum::<usize>();
        Ok(actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(body: &'static str) -> Action {
        Action::Send { destination: "/x".to_owned(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_transaction_keeps_its_order_and_is_gone_after_its_end() {
        let mut all = Transactions::default();
        all.begin("t").unwrap();
        assert_eq!(all.begin("t"), Err(TransactionError::Open));
        all.add("t", send("1"), 100).unwrap();
        all.add("t", send("2"), 100).unwrap();
        assert_eq!(all.end("t"), Ok(vec![send("1"), send("2")]));
        assert_eq!(all.end("t"), Err(TransactionError::Unknown));
        assert_eq!(all.add("t", send("3"), 100), Err(TransactionError::Unknown));
    }

    #[test]
    fn transactions_frames_and_octets_are_bounded() {
        let mut all = Transactions::default();
        for n in 0..TRANSACTIONS {
            all.begin(&n.to_string()).unwrap();
        }
        assert_eq!(all.begin("more"), Err(TransactionError::TooMany));
        for _ in 0..ACTIONS {
            all.add("0", send("x"), 1 << 20).unwrap();
        }
        assert_eq!(all.add("0", send("x"), 1 << 20), Err(TransactionError::TooLong));
        assert_eq!(all.add("1", send("x"), ACTIONS * 3), Err(TransactionError::TooLarge(ACTIONS * 3)));
        assert_eq!(all.end("0").map(|actions| actions.len()), Ok(ACTIONS));
        assert_eq!(all.add("1", send("x"), 3), Ok(()));
    }
}

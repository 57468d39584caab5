//! Which sessions there are, and what each of them wants to hear.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hub::handle::SessionKey;
use crate::model::client::Client;
use crate::model::interest::Interest;

/// Every attached session. What it wants is kept as it said it, since it means something else when devices change.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<SessionKey, Option<Watching>>);

#[derive(Debug)]
pub(super) struct Watching {
    pub(super) client: Arc<Client>,
    pub(super) interests: Box<[Interest]>,
}

impl Sessions {
    pub(super) fn attach(&mut self, key: SessionKey) {
        self.0.entry(key).or_default();
    }

    pub(super) fn detach(&mut self, key: SessionKey) {
        self.0.remove(&key);
    }

    pub(super) fn contains(&self, key: SessionKey) -> bool {
        self.0.contains_key(&key)
    }

    /// Takes note of what an attached session wants.
    pub(super) fn watch(&mut self, key: SessionKey, client: &Arc<Client>, interests: Vec<Interest>) {
        if let Some(watching) = self.0.get_mut(&key) {
            *watching = Some(Watching { client: Arc::clone(client), interests: interests.into() });
        }
    }

    /// Who wants what.
    pub(super) fn watching(&self) -> impl Iterator<Item = (SessionKey, &Watching)> {
        self.0.iter().filter_map(|(key, watching)| Some((*key, watching.as_ref()?)))
    }
}

//! Documents that clients create: any text, in collections that dialects name.
//!
//! They are kept in the history store where there is one, and otherwise as long as the process runs. Who asked
//! about a collection hears when somebody else changes it, once until it asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::handle::SessionKey;
use crate::model::history::{Document, DocumentAnswer, DocumentAsk};
use crate::store::Write;

/// Documents over all collections. When full a new one is refused.
const DOCUMENTS: usize = 1000;

/// Bytes of all documents together. When full a longer one is refused.
const DOCUMENT_BYTES: usize = 4 << 20;

/// All documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    collections: BTreeMap<Arc<str>, BTreeMap<u64, Arc<str>>>,
    count: usize,
    bytes: usize,
    watchers: BTreeMap<Arc<str>, BTreeSet<SessionKey>>,
}

/// What an ask led to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) answer: DocumentAnswer,
    pub(super) change: Option<Write>,
    /// Who else is to hear of it, and the collection.
    pub(super) told: Vec<(SessionKey, Arc<str>)>,
}

impl Documents {
    /// Takes over what the store had.
    pub(super) fn restore(&mut self, documents: Vec<(Arc<str>, u64, Arc<str>)>) {
        for (collection, id, body) in documents {
            self.count += 1;
            self.bytes += body.len();
            self.collections.entry(collection).or_default().insert(id, body);
        }
    }

    /// Who has asked about any collection, since all may have changed.
    pub(super) fn tell_all(&mut self) -> Vec<(SessionKey, Arc<str>)> {
        let watchers = std::mem::take(&mut self.watchers).into_iter();
        let of_one = |(collection, keys): (Arc<str>, BTreeSet<SessionKey>)| {
            keys.into_iter().map(move |key| (key, Arc::clone(&collection)))
        };
        watchers.flat_map(of_one).collect()
    }

    /// Everything, to be written into a store that was begun anew.
    pub(super) fn all(&self) -> impl Iterator<Item = Write> {
        self.collections.iter().flat_map(|(collection, documents)| {
            documents.iter().map(|(id, body)| Write::Document {
                collection: Arc::clone(collection),
                id: *id,
                body: Arc::clone(body),
            })
        })
    }

    /// Answers one session. `last_id` is the last id that was given to anything.
    pub(super) fn ask(
        &mut self,
        key: SessionKey,
        may_write: bool,
        ask: DocumentAsk,
        last_id: &mut u64,
    ) -> Asked {
        let (DocumentAsk::List { collection }
        | DocumentAsk::Put { collection, .. }
        | DocumentAsk::Swap { collection, .. }
        | DocumentAsk::Delete { collection, .. }) = &ask;
        let collection = Arc::clone(collection);
        let changes = !matches!(ask, DocumentAsk::List { .. });
        let (answer, change) = if changes && !may_write {
            (DocumentAnswer::Forbidden, None)
        } else {
            self.watchers.entry(Arc::clone(&collection)).or_default().insert(key);
            match ask {
                DocumentAsk::List { collection } => (self.list(&collection), None),
                DocumentAsk::Put { collection, id, body } => self.put(collection, id, body, last_id),
                DocumentAsk::Swap { collection, seen, body } => {
                    let only =
                        self.collections.get(&collection).and_then(|documents| documents.iter().next());
                    let (id, now) = only.map(|(id, body)| (*id, body)).unzip();
                    if now == seen.as_ref() {
                        self.put(collection, id, body, last_id)
                    } else {
                        (DocumentAnswer::Unknown, None)
                    }
                }
                DocumentAsk::Delete { collection, id } => self.delete(&collection, id),
            }
        };
        let mut told = Vec::new();
        if change.is_some() {
            // Each hears it once until it asks again: many changes make one notice, which always finds room.
            let watchers = self.watchers.insert(Arc::clone(&collection), [key].into()).unwrap_or_default();
            told = watchers
                .into_iter()
                .filter(|each| *each != key)
                .map(|each| (each, Arc::clone(&collection)))
                .collect();
        }
        Asked { answer, change, told }
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.watchers.retain(|_, watchers| {
            watchers.remove(&key);
            !watchers.is_empty()
        });
    }

    fn list(&self, collection: &str) -> DocumentAnswer {
        let documents = self.collections.get(collection).into_iter().flatten();
        DocumentAnswer::Documents(
            documents.map(|(id, body)| Document { id: *id, body: Arc::clone(body) }).collect(),
        )
    }

    fn put(
        &mut self,
        collection: Arc<str>,
        id: Option<u64>,
        body: Arc<str>,
        last_id: &mut u64,
    ) -> (DocumentAnswer, Option<Write>) {
        let before = id.and_then(|id| self.collections.get(&collection)?.get(&id)).map(|body| body.len());
        if id.is_some() && before.is_none() {
            return (DocumentAnswer::Unknown, None);
        }
        let bytes = self.bytes - before.unwrap_or(0) + body.len();
        if bytes > DOCUMENT_BYTES || (before.is_none() && self.count >= DOCUMENTS) {
            return (DocumentAnswer::Full, None);
        }
        let id = id.unwrap_or_else(|| {
            *last_id += 1;
            self.count += 1;
            *last_id
        });
        self.bytes = bytes;
        self.collections.entry(Arc::clone(&collection)).or_default().insert(id, Arc::clone(&body));
        (DocumentAnswer::Put(id), Some(Write::Document { collection, id, body }))
    }

    fn delete(&mut self, collection: &str, id: u64) -> (DocumentAnswer, Option<Write>) {
        let documents = self.collections.get_mut(collection);
        let Some(body) = documents.and_then(|documents| documents.remove(&id)) else {
            return (DocumentAnswer::Unknown, None);
        };
        self.count -= 1;
        self.bytes -= body.len();
        (DocumentAnswer::Deleted, Some(Write::NoDocument(id)))
    }
}

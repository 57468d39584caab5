//! Balanced groups: sessions that share their subscriptions, each message going to one of them.
//!
//! A group lives while it has members. Each member holds relations; a message that any of them admits goes to the
//! holders in strict rotation, in the order in which they joined, one copy per group however many relations match.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::handle::SessionKey;
use super::index::{Index, Roster};
use crate::model::client::Client;
use crate::model::interest::{GroupAnswer, GroupAsk, Interest, Relation};
use crate::model::message::Kinds;

/// Every group.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<Arc<str>, Group>,
    /// Which group a session is in.
    membership: HashMap<SessionKey, Arc<str>>,
}

/// The answer to an ask, and who is to hear that the group lost its last relation.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) answer: GroupAnswer,
    pub(super) emptied: Vec<SessionKey>,
}

impl Groups {
    /// Answers one ask of one session.
    pub(super) fn ask(
        &mut self,
        key: SessionKey,
        client: Arc<Client>,
        ask: GroupAsk,
        roster: &Roster,
    ) -> Answered {
        let mut emptied = Vec::new();
        if let GroupAsk::Join { group, limit } = ask {
            let answer = self.join(key, client, group, limit, roster);
            return Answered { answer, emptied };
        }
        let group = self.membership.get(&key).and_then(|group| self.groups.get_mut(group));
        let Some(group) = group else { return Answered { answer: GroupAnswer::NotJoined, emptied } };
        let answer = match ask {
            GroupAsk::Hold(relations) => {
                group.hold(key, client, relations, roster);
                GroupAnswer::Done
            }
            GroupAsk::Release(labels) => {
                if group.release(key, &labels, roster) {
                    emptied = group.ever_held();
                }
                GroupAnswer::Done
            }
            GroupAsk::Mine => GroupAnswer::Relations(group.mine(key)),
            GroupAsk::All | GroupAsk::Join { .. } => GroupAnswer::Relations(group.all()),
        };
        Answered { answer, emptied }
    }

    /// Ends a session's membership. Its relations go with it, and nobody is told: a lost connection is no
    /// unsubscription.
    pub(super) fn leave(&mut self, key: SessionKey) {
        let Some(name) = self.membership.remove(&key) else { return };
        if let Some(group) = self.groups.get_mut(&name) {
            group.leave(key);
            if group.members.is_empty() {
                self.groups.remove(&name);
            }
        }
    }

    /// For each group that takes such a message: its name and the holders, whose turn it is first.
    pub(super) fn candidates(&mut self, device: usize, kind: Kinds) -> Vec<(Arc<str>, Vec<SessionKey>)> {
        let of_group = |(name, group): (&Arc<str>, &mut Group)| {
            let holders = group.rotate(device, kind);
            (!holders.is_empty()).then(|| (Arc::clone(name), holders))
        };
        self.groups.iter_mut().filter_map(of_group).collect()
    }

    /// A message went to this member, because those before it had no room.
    pub(super) fn served(&mut self, name: &str, key: SessionKey) {
        if let Some(group) = self.groups.get_mut(name) {
            if let Some(number) = group.number(key) {
                group.last = number;
            }
        }
    }

    fn join(
        &mut self,
        key: SessionKey,
        client: Arc<Client>,
        name: Arc<str>,
        limit: usize,
        roster: &Roster,
    ) -> GroupAnswer {
        if self.membership.get(&key) == Some(&name) {
            return GroupAnswer::Joined;
        }
        if self.groups.get(&name).map_or(0, |group| group.members.len()) >= limit {
            return GroupAnswer::Full;
        }
        self.leave(key);
        let devices = roster.directory().devices().len();
        let group = self.groups.entry(Arc::clone(&name)).or_insert_with(|| Group::new(devices));
        group.joined += 1;
        let member = Member { key, client, held: Held::default(), ever_held: false };
        group.members.insert(group.joined, member);
        self.membership.insert(key, name);
        GroupAnswer::Joined
    }
}

/// One group. Members are numbered as they join, and the number stands for the member in the index.
#[derive(Debug)]
struct Group {
    members: BTreeMap<u64, Member>,
    /// The number of the member that joined last.
    joined: u64,
    /// The number of the member that was served last.
    last: u64,
    index: Index<u64>,
    /// How many members hold each relation.
    relations: Held<usize>,
}

/// One session in a group.
#[derive(Debug)]
struct Member {
    key: SessionKey,
    client: Arc<Client>,
    held: Held<Interest>,
    ever_held: bool,
}

impl Group {
    fn new(devices: usize) -> Self {
        let index = Index::new(devices);
        Self { members: BTreeMap::new(), joined: 0, last: 0, index, relations: Held::default() }
    }

    fn number(&self, key: SessionKey) -> Option<u64> {
        self.members.iter().find(|(_, member)| member.key == key).map(|(number, _)| *number)
    }

    fn hold(&mut self, key: SessionKey, client: Arc<Client>, relations: Vec<Relation>, roster: &Roster) {
        let Some(number) = self.number(key) else { return };
        let Some(member) = self.members.get_mut(&number) else { return };
        member.client = client;
        for Relation { label, interest } in relations {
            if member.held.get_mut(&label).is_some() {
                continue;
            }
            member.ever_held = true;
            member.held.insert(Arc::clone(&label), interest);
            match self.relations.get_mut(&label) {
                Some(holders) => *holders += 1,
                None => self.relations.insert(label, 1),
            }
        }
        self.index.set(number, roster.resolve(&member.client, member.held.values()));
    }

    /// Whether that took the group's last relation.
    fn release(&mut self, key: SessionKey, labels: &[Arc<str>], roster: &Roster) -> bool {
        let Some(number) = self.number(key) else { return false };
        let Some(member) = self.members.get_mut(&number) else { return false };
        let had_any = !self.relations.is_empty();
        for label in labels {
            if member.held.remove(label).is_some() {
                drop_holder(&mut self.relations, label);
            }
        }
        self.index.set(number, roster.resolve(&member.client, member.held.values()));
        had_any && self.relations.is_empty()
    }

    fn leave(&mut self, key: SessionKey) {
        let Some(number) = self.number(key) else { return };
        self.index.remove(number);
        if let Some(member) = self.members.remove(&number) {
            for label in member.held.labels() {
                drop_holder(&mut self.relations, &label);
            }
        }
    }

    fn ever_held(&self) -> Vec<SessionKey> {
        self.members.values().filter(|member| member.ever_held).map(|member| member.key).collect()
    }

    fn mine(&self, key: SessionKey) -> Vec<Arc<str>> {
        let member = self.members.values().find(|member| member.key == key);
        member.map(|member| member.held.labels()).unwrap_or_default()
    }

    fn all(&self) -> Vec<Arc<str>> {
        self.relations.labels()
    }

    /// The holders of a matching relation, beginning after the one that was served last; the first is taken for
    /// served.
    fn rotate(&mut self, device: usize, kind: Kinds) -> Vec<SessionKey> {
        let numbers = self.index.takers(device, kind);
        let turn = numbers.partition_point(|number| *number <= self.last);
        let (before, after) = numbers.split_at_checked(turn).unwrap_or_default();
        if let Some(first) = after.first().or(before.first()) {
            self.last = *first;
        }
        let key = |number: &u64| self.members.get(number).map(|member| member.key);
        after.iter().chain(before).filter_map(key).collect()
    }
}

fn drop_holder(relations: &mut Held<usize>, label: &Arc<str>) {
    if let Some(holders) = relations.get_mut(label) {
        *holders -= 1;
        if *holders == 0 {
            relations.remove(label);
        }
    }
}

/// Labelled things that remember the order in which they were first put in.
#[derive(Debug)]
struct Held<T> {
    entries: BTreeMap<Arc<str>, (u64, T)>,
    next: u64,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> Held<T> {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, label: Arc<str>, thing: T) {
        self.entries.insert(label, (self.next, thing));
        self.next += 1;
    }

    fn get_mut(&mut self, label: &Arc<str>) -> Option<&mut T> {
        self.entries.get_mut(label).map(|(_, thing)| thing)
    }

    fn remove(&mut self, label: &Arc<str>) -> Option<T> {
        self.entries.remove(label).map(|(_, thing)| thing)
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.values().map(|(_, thing)| thing)
    }

    fn labels(&self) -> Vec<Arc<str>> {
        let mut labels: Vec<_> = self.entries.iter().map(|(label, (order, _))| (*order, label)).collect();
        labels.sort_unstable();
        labels.into_iter().map(|(_, label)| Arc::clone(label)).collect()
    }
}

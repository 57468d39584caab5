//! Balanced groups: sessions that share their subscriptions, each message going to one of them.
//!
//! A relation stands at a place in the sequence of messages: it begins after `from` and has dealt with everything
//! up to its cursor. One without a cursor is **live**: it has dealt with everything there was. A live relation whose
//! message finds nobody falls **behind**, which is all that is remembered of the message here; it is read from the
//! store again when a holder has room. So a backlog costs no memory, and a group that comes back after a day reads
//! its day at its own pace.
//!
//! At most one copy of a message reaches a group: a relation that is behind skips what another one has dealt with
//! in the meantime, also when that one has ended since (a [`group::Ghost`]). What a session had not written when it ended
//! goes to another, before anything newer.
//!
//! Where no history is kept, relations are always live, and what finds nobody waits in memory in the same place as what
//! came back: a little, and not for long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::SessionKey;
use super::roster::Roster;
use crate::model::client::Client;
use crate::model::interest::{GroupAnswer, GroupAsk};
use crate::model::message::{DeviceMessage, Kinds};
use crate::model::time::{Change, Now, UnixMillis};
use crate::store::{Fetch, Write};

mod adopt;
mod group;
mod restore;
mod waiting;

use group::{Due, Group, Member};
use waiting::Placed;

/// Messages that a group may be behind. When it is more, the oldest are passed over and counted. The store's own
/// bounds in bytes and age come on top.
const BACKLOG: u64 = 100_000;

/// Messages of a group that wait in memory where no history is kept, and the bytes that they may come to, about. When
/// there are more, the oldest are dropped and counted.
const WAITING: u64 = 1024;
const WAITING_BYTES: usize = 1 << 20;

/// How long a relation outlives its holders at most where no history is kept: longer than the pauses of clients that come
/// back by themselves (five seconds to fifty minutes), and no more of the memory than that.
const IN_MEMORY: Duration = Duration::from_secs(3600);

/// Past messages that are in memory for a group at a time.
const CHUNK: usize = 256;

/// Relations that ended and are remembered per group so that nothing is delivered twice. When full the oldest is
/// forgotten, and a relation that is far behind may repeat something.
const GHOSTS: usize = 1024;

/// Every group.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_name: BTreeMap<Arc<str>, Group>,
    /// Which group a session is in.
    membership: HashMap<SessionKey, Arc<str>>,
    /// Whether there is a store, so that anything can be retained.
    keeping: bool,
    /// The message that is offered to one group after the other.
    sharing: Option<Sharing>,
    /// The message whose fate the hub's owner is to tell.
    balancing: Option<Balancing>,
    /// What the store is to be told.
    writes: VecDeque<Write>,
    /// No relation ends before this.
    soonest: Option<Instant>,
}

#[derive(Debug)]
struct Sharing {
    message: Arc<DeviceMessage>,
    device: usize,
    kind: Kinds,
    /// The group that was asked last.
    asked: Option<Arc<str>>,
}

/// A message between its being given out and the news of where it went.
#[derive(Debug)]
struct Balancing {
    group: Arc<str>,
    device: usize,
    message: Arc<DeviceMessage>,
    /// Relations that fall behind if nobody takes it; `None` for one that has come back.
    due: Option<Vec<u64>>,
    first: Option<SessionKey>,
}

/// A message to be given to the first of these that has room.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) group: Arc<str>,
    pub(super) candidates: Vec<SessionKey>,
    pub(super) message: Arc<DeviceMessage>,
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
        client: &Arc<Client>,
        ask: GroupAsk,
        roster: &Roster,
        head: u64,
        now: Now,
    ) -> Answered {
        let mut emptied = Vec::new();
        if let GroupAsk::Join { group, limit, retain } = ask {
            let retain = if self.keeping { retain } else { retain.min(IN_MEMORY) };
            let answer = self.join(key, client, group, limit, retain, roster, now);
            return Answered { answer, emptied };
        }
        let name = self.membership.get(&key).map(Arc::clone);
        let found = name.and_then(|name| Some((Arc::clone(&name), self.by_name.get_mut(&name)?)));
        let Some((name, group)) = found else { return Answered { answer: GroupAnswer::NotJoined, emptied } };
        let answer = match ask {
            GroupAsk::Hold { relations, earliest } => {
                let earliest = earliest && group.kept;
                for label in group.hold(key, client, relations, earliest, roster, head) {
                    self.writes.extend(group.stored(&name, &label).map(Write::Relation));
                }
                GroupAnswer::Done
            }
            GroupAsk::Release(labels) => {
                let had_any = !group.relations.is_empty();
                for label in group.release(key, &labels, head) {
                    if group.kept {
                        self.writes.push_back(Write::NoRelation { group: Arc::clone(&name), label });
                    }
                }
                if had_any && group.relations.is_empty() {
                    emptied = group.ever_held();
                }
                GroupAnswer::Done
            }
            GroupAsk::Mine => GroupAnswer::Relations(group.mine(key)),
            GroupAsk::All | GroupAsk::Join { .. } => GroupAnswer::Relations(group.all()),
        };
        Answered { answer, emptied }
    }

    /// The devices have changed. Relations mean those that there are now; messages of devices that have gone are
    /// passed over, as they are when they come from the store.
    pub(super) fn adopt(&mut self, roster: &Roster, gone: &BTreeSet<usize>) {
        for group in self.by_name.values_mut() {
            group.adopt(roster, gone);
        }
    }

    /// Ends a session's membership; `unsent` are the messages that it was given and has not written. Nobody is
    /// told: a lost connection is no unsubscription.
    pub(super) fn leave(&mut self, key: SessionKey, unsent: &[u64], now: Now) {
        let Some(name) = self.membership.remove(&key) else { return };
        if let Some(group) = self.by_name.get_mut(&name) {
            group.leave(key, unsent, now);
            if !group.retain.is_zero() {
                let due = now.instant + group.retain;
                self.soonest = Some(self.soonest.map_or(due, |soonest| soonest.min(due)));
            }
        }
        self.end_if_empty(&name);
    }

    /// A session has written these messages.
    pub(super) fn delivered(&mut self, key: SessionKey, messages: &[u64]) {
        let group = self.membership.get(&key).and_then(|name| self.by_name.get_mut(name));
        if let Some(group) = group {
            for seq in messages {
                group.in_flight.remove(seq);
            }
        }
    }

    /// Begins to offer a new message to the groups.
    pub(super) fn share(&mut self, message: Arc<DeviceMessage>, device: usize) {
        let kind = message.kind();
        self.sharing = Some(Sharing { message, device, kind, asked: None });
    }

    /// Whether any group could take a message.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The message that was offered last went to this session, or found nobody. Whether nothing is lost by that.
    pub(super) fn settle(&mut self, taker: Option<SessionKey>) -> bool {
        let Some(Balancing { group, device, message, due, .. }) = self.balancing.take() else { return true };
        let Some(group) = self.by_name.get_mut(&group) else { return true };
        match (taker, due) {
            (Some(key), _) => {
                if let Some(number) = group.number(key) {
                    group.last = number;
                }
                group.in_flight.insert(message.seq, (key, device, message));
            }
            (None, None) => {
                group.waiting.put(device, message);
                group.waiting.retry = false;
            }
            // What is lost the owner counts.
            (None, Some(due)) => return group.keep(&due, device, message),
        }
        true
    }

    /// As `settle`, where the owner has not said otherwise.
    pub(super) fn settle_as_usual(&mut self) {
        if let Some(first) = self.balancing.as_ref().map(|balancing| balancing.first) {
            self.settle(first);
        }
    }

    /// Whether there is something old to deliver and somebody to deliver it to.
    pub(super) fn backlogged(&self) -> bool {
        self.by_name.values().any(Group::backlogged)
    }

    /// Asks the store for what groups are behind with, as much as their members have room for.
    pub(super) fn replay(
        &mut self,
        head: u64,
        now: Now,
        roster: &Roster,
        room: impl Fn(SessionKey) -> usize,
    ) -> Vec<Fetch> {
        let of_group = |(name, group): (&Arc<str>, &mut Group)| group.fetch(name, head, now, roster, &room);
        self.by_name.iter_mut().filter_map(of_group).collect()
    }

    /// What the store had for a group, each with its device's position.
    pub(super) fn fetched(&mut self, name: &str, upto: u64, messages: Vec<Placed>) {
        if let Some(group) = self.by_name.get_mut(name) {
            if let Some(round) = &mut group.round {
                round.chunk = Some((upto, messages.into()));
            }
        }
    }

    /// The clock was set: when relations end does not change by that, only how it is written.
    pub(super) fn set_clock(&mut self, change: &Change) {
        let lines = self.by_name.values_mut().flat_map(|group| group.relations.values_mut());
        for line in lines {
            if let Some((due, at)) = &mut line.expires {
                *at = after(change.wall, due.saturating_duration_since(change.instant));
                line.changed = true;
            }
        }
    }

    /// When to call `handle_timeout`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.soonest
    }

    /// Ends the relations that nobody has come back for.
    pub(super) fn handle_timeout(&mut self, now: Instant, head: u64) {
        let names: Vec<Arc<str>> = self.by_name.keys().map(Arc::clone).collect();
        for name in names {
            let Some(group) = self.by_name.get_mut(&name) else { continue };
            let kept = group.kept;
            for label in group.expire(now, head) {
                let write = Write::NoRelation { group: Arc::clone(&name), label };
                self.writes.extend(kept.then_some(write));
            }
            self.end_if_empty(&name);
        }
        self.find_soonest();
    }

    fn find_soonest(&mut self) {
        let relations = self.by_name.values().flat_map(|group| group.relations.values());
        self.soonest = relations.filter_map(|relation| relation.expires.map(|(due, _)| due)).min();
    }

    /// Notes for the store how far each group is, where that has changed.
    pub(super) fn checkpoint(&mut self, head: u64) {
        for (name, group) in &mut self.by_name {
            if !group.kept {
                continue;
            }
            let floor = group.floor(head);
            // First who has fallen behind: once the floor has risen, it speaks for those that have not.
            for number in group.changed() {
                self.writes.extend(group.stored_by(name, number, floor).map(Write::Relation));
            }
            let matters = group.relations.values().any(|relation| relation.cursor.is_none());
            if matters && floor > group.written_floor {
                group.written_floor = floor;
                self.writes.push_back(group.row(name));
            }
        }
    }

    /// Everything, to be written into a store that was begun anew.
    pub(super) fn all(&mut self, head: u64) {
        for (name, group) in &mut self.by_name {
            if group.kept {
                group.written_floor = group.floor(head);
                self.writes.push_back(group.row(name));
                for relation in group.relations.values_mut() {
                    relation.changed = true;
                }
            }
        }
        self.checkpoint(head);
    }

    /// The next thing that the store is to be told.
    pub(super) fn write(&mut self) -> Option<Write> {
        self.writes.pop_front()
    }

    #[expect(clippy::too_many_arguments, reason = "one ask, taken apart")]
    fn join(
        &mut self,
        key: SessionKey,
        client: &Arc<Client>,
        name: Arc<str>,
        limit: usize,
        retain: Duration,
        roster: &Roster,
        now: Now,
    ) -> GroupAnswer {
        if self.membership.get(&key) == Some(&name) {
            return GroupAnswer::Joined;
        }
        if self.by_name.get(&name).map_or(0, |group| group.members.len()) >= limit {
            return GroupAnswer::Full;
        }
        self.leave(key, &[], now);
        let kept = self.keeping && !retain.is_zero();
        let group = self.by_name.entry(Arc::clone(&name)).or_insert_with(|| Group::new(retain, kept));
        if kept && (group.members.is_empty() || group.retain != retain) {
            self.writes.push_back(Write::Group {
                name: Arc::clone(&name),
                floor: group.written_floor,
                retain,
            });
        }
        (group.retain, group.kept) = (retain, kept);
        group.joined += 1;
        let sees = roster.seen_by(client);
        let member = Member {
            key,
            client: Arc::clone(client),
            sees,
            held: BTreeMap::new(),
            holds: 0,
            ever_held: false,
        };
        group.members.insert(group.joined, member);
        self.membership.insert(key, name);
        GroupAnswer::Joined
    }

    fn end_if_empty(&mut self, name: &Arc<str>) {
        let Some(group) = self.by_name.get(name) else { return };
        if group.members.is_empty() && group.relations.is_empty() {
            if group.kept {
                self.writes.push_back(Write::NoGroup(Arc::clone(name)));
            }
            self.by_name.remove(name);
        }
    }

    /// The next offer of the message that is being shared. Its fate is to be told by `settle`.
    pub(super) fn offer_shared(&mut self) -> Option<Offer> {
        let mut sharing = self.sharing.take()?;
        loop {
            let from = sharing.asked.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.by_name.range_mut::<Arc<str>, _>((from, Bound::Unbounded)).next();
            let (name, group) = next?;
            let name = Arc::clone(name);
            sharing.asked = Some(Arc::clone(&name));
            let message = Arc::clone(&sharing.message);
            if let Some((due, candidates)) = group.share(sharing.device, sharing.kind, message.seq) {
                let device = sharing.device;
                self.sharing = Some(sharing);
                return Some(self.put(name, candidates, device, message, Some(due)));
            }
        }
    }

    /// The next offer of what came back or was fetched. Its fate is to be told by `settle`.
    pub(super) fn offer_old(&mut self, head: u64) -> Option<Offer> {
        let names: Vec<Arc<str>> = self
            .by_name
            .iter()
            .filter(|(_, group)| group.has_old())
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in names {
            let Some(group) = self.by_name.get_mut(&name) else { continue };
            if let Some((candidates, device, message)) = group.give_back() {
                return Some(self.put(name, candidates, device, message, None));
            }
            if let Some(Due { relations, candidates, device, message }) = group.next_fetched(head) {
                return Some(self.put(name, candidates, device, message, Some(relations)));
            }
        }
        None
    }

    fn put(
        &mut self,
        group: Arc<str>,
        candidates: Vec<SessionKey>,
        device: usize,
        message: Arc<DeviceMessage>,
        due: Option<Vec<u64>>,
    ) -> Offer {
        let first = candidates.first().copied();
        let offered = Arc::clone(&message);
        self.balancing = Some(Balancing { group: Arc::clone(&group), device, message: offered, due, first });
        Offer { group, candidates, message }
    }
}

fn after(at: UnixMillis, time: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

fn before(at: UnixMillis, time: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

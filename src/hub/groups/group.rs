//! One group: its members, its relations with their places, and what is on its way to whom.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::waiting::{Placed, Waiting};
use super::{BACKLOG, CHUNK, GHOSTS, after, before};
use crate::hub::handle::SessionKey;
use crate::hub::index::Index;
use crate::hub::roster::Roster;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::interest::{Interest, Relation};
use crate::model::message::{DeviceMessage, Kinds};
use crate::model::time::{Now, UnixMillis};
use crate::store::{Fetch, StoredRelation, Write};

/// A past message that relations are due for, and who may have it.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) relations: Vec<u64>,
    pub(super) candidates: Vec<SessionKey>,
    pub(super) device: usize,
    pub(super) message: Arc<DeviceMessage>,
}

/// One group. Members and relations are numbered as they come, and the number of a relation stands for it in the
/// index.
#[derive(Debug)]
pub(super) struct Group {
    /// How long a relation outlives its holders; zero keeps nothing.
    pub(super) retain: Duration,
    /// Whether the store keeps its relations and messages. Otherwise what is retained is in memory.
    pub(super) kept: bool,
    pub(super) members: BTreeMap<u64, Member>,
    /// The number of the member that joined last.
    pub(super) joined: u64,
    /// The number of the member that was served last.
    pub(super) last: u64,
    pub(super) relations: BTreeMap<u64, Line>,
    pub(super) by_label: HashMap<Arc<str>, u64>,
    pub(super) number_of_next: u64,
    pub(super) index: Index<u64>,
    pub(super) ghosts: VecDeque<Ghost>,
    /// Given to a member that has not written it yet; at most what the members' queues hold.
    pub(super) in_flight: BTreeMap<u64, (SessionKey, usize, Arc<DeviceMessage>)>,
    /// Come back from members that ended, or kept in memory because nobody took it; given out before anything else.
    pub(super) waiting: Waiting,
    /// What is being read from the store.
    pub(super) round: Option<Round>,
    /// Messages that relations fell behind with and that were not given out since.
    pub(super) backlog: u64,
    /// Messages that were passed over because the backlog was too long, since the group last caught up.
    pub(super) skipped: u64,
    /// The floor that the store knows.
    pub(super) written_floor: u64,
}

/// One session in a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: SessionKey,
    pub(super) client: Arc<Client>,
    /// By slot of the device.
    pub(super) sees: Vec<bool>,
    /// Numbers of relations, with their order.
    pub(super) held: BTreeMap<u64, u64>,
    pub(super) holds: u64,
    pub(super) ever_held: bool,
}

/// One relation.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) label: Arc<str>,
    pub(super) interest: Interest,
    /// Numbers of members.
    pub(super) holders: BTreeSet<u64>,
    pub(super) from: u64,
    pub(super) cursor: Option<u64>,
    /// Whether it found nobody in this round.
    pub(super) stuck: bool,
    /// When it ends, on both clocks; `None` while it has holders.
    pub(super) expires: Option<(Instant, UnixMillis)>,
    /// Whether the store should hear of it.
    pub(super) changed: bool,
}

/// What an ended relation had dealt with.
#[derive(Debug)]
pub(super) struct Ghost {
    pub(super) interest: Interest,
    pub(super) from: u64,
    pub(super) to: u64,
    /// It counts for relations with lower numbers: those that were there when it ended.
    pub(super) before: u64,
}

/// A stretch of the past that some relations go through together.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) relations: BTreeSet<u64>,
    /// The number up to which it is complete, and what is left of it; `None` until the store has answered.
    pub(super) chunk: Option<(u64, VecDeque<Placed>)>,
}

impl Line {
    /// Whether the message is this relation's, whether it has dealt with it or not.
    pub(super) fn wants(&self, message: &DeviceMessage, seq: u64) -> bool {
        self.from < seq
            && self.interest.kinds.meets(message.kind())
            && self.interest.selector.admits(&message.device)
    }

    pub(super) fn has_dealt_with(&self, seq: u64) -> bool {
        self.from < seq && self.cursor.is_none_or(|cursor| cursor >= seq)
    }
}

impl Ghost {
    pub(super) fn covers(&self, relation: u64, device: &Device, kind: Kinds, seq: u64) -> bool {
        relation < self.before
            && (self.from < seq && seq <= self.to)
            && self.interest.kinds.meets(kind)
            && self.interest.selector.admits(device)
    }
}

impl Group {
    pub(super) fn new(retain: Duration, kept: bool) -> Self {
        Self {
            retain,
            kept,
            members: BTreeMap::new(),
            joined: 0,
            last: 0,
            relations: BTreeMap::new(),
            by_label: HashMap::new(),
            number_of_next: 0,
            index: Index::default(),
            ghosts: VecDeque::new(),
            in_flight: BTreeMap::new(),
            waiting: Waiting::default(),
            round: None,
            backlog: 0,
            skipped: 0,
            written_floor: 0,
        }
    }

    pub(super) fn number(&self, key: SessionKey) -> Option<u64> {
        self.members.iter().find(|(_, member)| member.key == key).map(|(number, _)| *number)
    }

    /// Gives the labels that are new to the group.
    pub(super) fn hold(
        &mut self,
        key: SessionKey,
        client: &Arc<Client>,
        relations: Vec<Relation>,
        earliest: bool,
        roster: &Roster,
        head: u64,
    ) -> Vec<Arc<str>> {
        let mut created = Vec::new();
        let Some(holder) = self.number(key) else { return created };
        let Some(member) = self.members.get_mut(&holder) else { return created };
        member.sees = roster.seen_by(client);
        member.client = Arc::clone(client);
        for Relation { label, interest } in relations {
            let number = self.by_label.get(&label).copied().unwrap_or_else(|| {
                let number = self.number_of_next;
                self.number_of_next += 1;
                self.index.set(number, roster.covered(&interest));
                let line = Line {
                    label: Arc::clone(&label),
                    interest,
                    holders: BTreeSet::new(),
                    from: if earliest { 0 } else { head },
                    cursor: (earliest && head > 0).then_some(0),
                    stuck: false,
                    expires: None,
                    changed: false,
                };
                self.relations.insert(number, line);
                self.by_label.insert(Arc::clone(&label), number);
                created.push(label);
                number
            });
            member.ever_held = true;
            if let Entry::Vacant(place) = member.held.entry(number) {
                place.insert(member.holds);
                member.holds += 1;
            }
            if let Some(line) = self.relations.get_mut(&number) {
                line.holders.insert(holder);
                line.changed |= line.expires.take().is_some();
            }
        }
        self.waiting.wake();
        created
    }

    /// Gives the labels that have ended. One that somebody else holds goes on; one that nobody holds is anybody's
    /// to end.
    pub(super) fn release(&mut self, key: SessionKey, labels: &[Arc<str>], head: u64) -> Vec<Arc<str>> {
        let mut ended = Vec::new();
        let Some(holder) = self.number(key) else { return ended };
        for label in labels {
            let Some(number) = self.by_label.get(label).copied() else { continue };
            if let Some(member) = self.members.get_mut(&holder) {
                member.held.remove(&number);
            }
            let Some(line) = self.relations.get_mut(&number) else { continue };
            line.holders.remove(&holder);
            if line.holders.is_empty() {
                self.end(number, head);
                ended.push(Arc::clone(label));
            }
        }
        self.tidy();
        ended
    }

    pub(super) fn end(&mut self, number: u64, head: u64) {
        let Some(line) = self.relations.remove(&number) else { return };
        self.index.remove(number);
        self.by_label.remove(&line.label);
        let to = line.cursor.unwrap_or(head);
        let before = self.number_of_next;
        if line.from < to {
            self.ghosts.push_back(Ghost { interest: line.interest, from: line.from, to, before });
        }
    }

    /// Forgets what only mattered to relations that have ended.
    pub(super) fn tidy(&mut self) {
        let relations = &self.relations;
        self.waiting.retain(|message| relations.values().any(|line| line.wants(message, message.seq)));
        self.bury_ghosts();
    }

    pub(super) fn bury_ghosts(&mut self) {
        let relations = &self.relations;
        let haunts = |ghost: &Ghost| {
            relations
                .range(..ghost.before)
                .any(|(_, line)| line.cursor.is_some_and(|cursor| cursor < ghost.to))
        };
        self.ghosts.retain(haunts);
        while self.ghosts.len() > GHOSTS {
            self.ghosts.pop_front();
        }
    }

    pub(super) fn leave(&mut self, key: SessionKey, unsent: &[u64], now: Now) {
        let Some(holder) = self.number(key) else { return };
        let held = self.members.remove(&holder).map(|member| member.held).unwrap_or_default();
        for number in held.into_keys() {
            let Some(line) = self.relations.get_mut(&number) else { continue };
            line.holders.remove(&holder);
            if !line.holders.is_empty() {
                continue;
            }
            if self.retain.is_zero() {
                self.end(number, u64::MAX);
            } else {
                line.expires = Some((now.instant + self.retain, after(now.wall, self.retain)));
                line.changed = true;
            }
        }
        let unsent: BTreeSet<u64> = unsent.iter().copied().collect();
        let (of_member, others) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, (taker, ..))| *taker == key);
        self.in_flight = others;
        for (seq, (_, device, message)) in of_member {
            if unsent.contains(&seq) {
                self.waiting.put(device, message);
                self.waiting.retry = true;
            }
        }
        self.tidy();
        let dropped = self.waiting.bound(self.kept);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "a group has too much that nobody takes, its oldest messages are dropped"
            );
        }
    }

    pub(super) fn ever_held(&self) -> Vec<SessionKey> {
        self.members.values().filter(|member| member.ever_held).map(|member| member.key).collect()
    }

    pub(super) fn mine(&self, key: SessionKey) -> Vec<Arc<str>> {
        let Some(member) = self.members.values().find(|member| member.key == key) else { return Vec::new() };
        let mut held: Vec<(u64, u64)> = member.held.iter().map(|(number, order)| (*order, *number)).collect();
        held.sort_unstable();
        let label = |(_, number): &(u64, u64)| Some(Arc::clone(&self.relations.get(number)?.label));
        held.iter().filter_map(label).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<str>> {
        self.relations.values().map(|line| Arc::clone(&line.label)).collect()
    }

    /// The holders of these relations that may see the device, beginning after the one that was served last; and
    /// whether the relations have any holder at all.
    pub(super) fn rotate(&mut self, relations: &[u64], device: usize) -> (Vec<SessionKey>, bool) {
        let lines = relations.iter().filter_map(|number| self.relations.get(number));
        let holders: BTreeSet<u64> = lines.flat_map(|line| line.holders.iter().copied()).collect();
        let held = !holders.is_empty();
        let sees = |number: &u64| {
            let member = self.members.get(number)?;
            member.sees.get(device).copied().unwrap_or(false).then_some((*number, member.key))
        };
        let after = holders.range((Bound::Excluded(self.last), Bound::Unbounded));
        let turns: Vec<(u64, SessionKey)> =
            after.chain(holders.range(..=self.last)).filter_map(sees).collect();
        (turns.into_iter().map(|(_, key)| key).collect(), held)
    }

    /// A new message: the relations that it is due for and whom to offer it to, if it concerns the group. Nobody is to be
    /// offered what can only be kept.
    pub(super) fn share(
        &mut self,
        device: usize,
        kind: Kinds,
        seq: u64,
    ) -> Option<(Vec<u64>, Vec<SessionKey>)> {
        let takers = self.index.takers(device, kind);
        if takers.is_empty() {
            return None;
        }
        let live = |number: &&u64| self.relations.get(number).is_some_and(|line| line.cursor.is_none());
        let due: Vec<u64> = takers.iter().filter(live).copied().collect();
        if due.is_empty() {
            self.backlog += 1;
            return None;
        }
        let (candidates, any) = self.rotate(&due, device);
        let retains = !self.retain.is_zero();
        // What waits is older and goes first.
        if !(retains && (!any || !self.waiting.is_idle())) {
            // Who holds a relation and may not see the device makes nothing wait.
            return (!candidates.is_empty()).then_some((due, candidates));
        }
        if self.kept {
            self.fall_behind(&due, seq);
            return None;
        }
        Some((due, Vec::new()))
    }

    /// Nobody took a new message that is due for these relations. Whether nothing is lost by that.
    pub(super) fn keep(&mut self, due: &[u64], device: usize, message: Arc<DeviceMessage>) -> bool {
        if self.kept {
            self.fall_behind(due, message.seq);
            return true;
        }
        if self.retain.is_zero() {
            return false;
        }
        let held = |number| self.relations.get(number).is_some_and(|line| !line.holders.is_empty());
        if due.iter().any(held) {
            self.waiting.put(device, message);
        } else {
            self.waiting.park(device, message);
        }
        self.waiting.bound(false) == 0
    }

    /// These relations did not get rid of a message.
    pub(super) fn fall_behind(&mut self, due: &[u64], seq: u64) {
        self.backlog += 1;
        for number in due {
            if let Some(line) = self.relations.get_mut(number) {
                line.cursor = Some(seq.saturating_sub(1).max(line.from));
                line.stuck = true;
                line.changed = true;
            }
        }
    }

    pub(super) fn has_old(&self) -> bool {
        (self.waiting.retry && !self.waiting.is_idle())
            || self.round.as_ref().is_some_and(|round| round.chunk.is_some())
    }

    pub(super) fn backlogged(&self) -> bool {
        let waits = |line: &Line| line.cursor.is_some() && !line.holders.is_empty();
        (!self.waiting.is_idle() && !self.members.is_empty()) || self.relations.values().any(waits)
    }

    /// The oldest message that waits, if somebody is there for it.
    pub(super) fn give_back(&mut self) -> Option<(Vec<SessionKey>, usize, Arc<DeviceMessage>)> {
        while self.waiting.retry {
            let Some((device, message)) = self.waiting.pop() else {
                self.waiting.retry = false;
                break;
            };
            let wants = |(number, line): (&u64, &Line)| line.wants(&message, message.seq).then_some(*number);
            let wanting: Vec<u64> = self.relations.iter().filter_map(wants).collect();
            let (candidates, held) = self.rotate(&wanting, device);
            if !candidates.is_empty() {
                return Some((candidates, device, message));
            }
            if !wanting.is_empty() && !held {
                self.waiting.park(device, message);
            }
        }
        None
    }

    /// The next message of the stretch that is being gone through, and in the end what follows from it.
    pub(super) fn next_fetched(&mut self, head: u64) -> Option<Due> {
        loop {
            let (upto, messages) = self.round.as_mut()?.chunk.as_mut()?;
            let upto = *upto;
            let Some((device, message)) = messages.pop_front() else {
                self.finish_round(upto, head);
                return None;
            };
            let due = self.due_again(device, &message);
            if due.is_empty() {
                continue;
            }
            self.backlog = self.backlog.saturating_sub(1);
            if self.backlog >= BACKLOG {
                self.skipped += 1;
                continue;
            }
            let (candidates, any) = self.rotate(&due, device);
            if !candidates.is_empty() {
                return Some(Due { relations: due, candidates, device, message });
            }
            if !any {
                self.fall_behind(&due, message.seq);
            }
        }
    }

    /// The relations of the round that still want this message: that have not come by it, and nobody else has.
    pub(super) fn due_again(&mut self, device: usize, message: &DeviceMessage) -> Vec<u64> {
        let (seq, kind) = (message.seq, message.kind());
        let takers = self.index.takers(device, kind);
        let Some(round) = &self.round else { return Vec::new() };
        let dealt_with =
            |number: &u64| self.relations.get(number).is_some_and(|line| line.has_dealt_with(seq));
        if takers.iter().any(dealt_with) {
            return Vec::new();
        }
        let wants = |number: &&u64| {
            let line = self.relations.get(number);
            round.relations.contains(number)
                && line.is_some_and(|line| !line.stuck && line.from < seq)
                && !self.ghosts.iter().any(|ghost| ghost.covers(**number, &message.device, kind, seq))
        };
        takers.iter().filter(wants).copied().collect()
    }

    pub(super) fn finish_round(&mut self, upto: u64, head: u64) {
        let Some(round) = self.round.take() else { return };
        for number in &round.relations {
            let Some(line) = self.relations.get_mut(number) else { continue };
            if line.stuck {
                continue;
            }
            line.cursor = match line.cursor {
                Some(cursor) if cursor.max(upto) >= head => None,
                Some(cursor) => Some(cursor.max(upto)),
                None => None,
            };
            line.changed = true;
        }
        self.bury_ghosts();
        if self.relations.values().all(|line| line.cursor.is_none()) {
            if self.skipped > 0 {
                tracing::warn!(
                    skipped = self.skipped,
                    "a group was too far behind, its oldest messages were left out"
                );
            }
            (self.backlog, self.skipped) = (0, 0);
        }
    }

    /// Begins a round if somebody who is behind has room.
    pub(super) fn fetch(
        &mut self,
        name: &Arc<str>,
        head: u64,
        now: Now,
        roster: &Roster,
        room: impl Fn(SessionKey) -> usize,
    ) -> Option<Fetch> {
        if !self.waiting.is_idle() {
            self.waiting.retry = true;
            return None;
        }
        if self.round.is_some() {
            return None;
        }
        let mut holders = BTreeSet::new();
        let mut relations = BTreeSet::new();
        let mut after = head;
        let members = &self.members;
        let has_room = |number: &u64| members.get(number).is_some_and(|member| room(member.key) > 0);
        for (number, line) in &mut self.relations {
            line.stuck = false;
            let Some(cursor) = line.cursor else { continue };
            if cursor >= head {
                line.cursor = None;
            } else if line.holders.iter().any(has_room) {
                relations.insert(*number);
                holders.extend(line.holders.iter().copied());
                after = after.min(cursor);
            }
        }
        if relations.is_empty() {
            return None;
        }
        let limit: usize =
            holders.iter().filter_map(|number| members.get(number)).map(|member| room(member.key)).sum();
        let mut wanted: BTreeMap<Arc<str>, Kinds> = BTreeMap::new();
        for line in relations.iter().filter_map(|number| self.relations.get(number)) {
            for (position, kinds) in roster.covered(&line.interest) {
                let Some(device) = roster.device(position) else { continue };
                let all = wanted.entry(Arc::clone(&device.id)).or_default();
                *all = all.with(kinds);
            }
        }
        self.round = Some(Round { relations, chunk: None });
        Some(Fetch {
            group: Arc::clone(name),
            after,
            until: head,
            since: before(now.certain, self.retain),
            wanted: Arc::new(wanted),
            limit: limit.clamp(1, CHUNK),
        })
    }

    pub(super) fn expire(&mut self, now: Instant, head: u64) -> Vec<Arc<str>> {
        let over = |line: &Line| line.expires.is_some_and(|(due, _)| due <= now);
        let numbers: Vec<u64> =
            self.relations.iter().filter(|(_, line)| over(line)).map(|(number, _)| *number).collect();
        let mut labels = Vec::new();
        for number in numbers {
            labels.extend(self.relations.get(&number).map(|line| Arc::clone(&line.label)));
            self.end(number, head);
        }
        self.tidy();
        labels
    }

    /// Everything up to this number was written to somebody, as far as live relations are concerned.
    pub(super) fn floor(&self, head: u64) -> u64 {
        let open = [self.in_flight.keys().next().copied(), self.waiting.first()];
        open.into_iter().flatten().min().map_or(head, |seq| seq.saturating_sub(1))
    }

    pub(super) fn row(&self, name: &Arc<str>) -> Write {
        Write::Group { name: Arc::clone(name), floor: self.written_floor, retain: self.retain }
    }

    /// Relations that the store should hear of, once.
    pub(super) fn changed(&mut self) -> Vec<u64> {
        let changed =
            |(number, line): (&u64, &mut Line)| std::mem::take(&mut line.changed).then_some(*number);
        self.relations.iter_mut().filter_map(changed).collect()
    }

    /// A new relation as it is kept; nothing is kept of a group that retains nothing.
    pub(super) fn stored(&self, name: &Arc<str>, label: &Arc<str>) -> Option<StoredRelation> {
        self.stored_by(name, *self.by_label.get(label)?, u64::MAX)
    }

    pub(super) fn stored_by(&self, name: &Arc<str>, number: u64, floor: u64) -> Option<StoredRelation> {
        let line = self.relations.get(&number).filter(|_| self.kept)?;
        Some(StoredRelation {
            group: Arc::clone(name),
            label: Arc::clone(&line.label),
            order: number,
            interest: line.interest.clone(),
            from: line.from,
            cursor: line.cursor.map(|cursor| cursor.min(floor)),
            expires: line.expires.map(|(_, at)| at),
        })
    }
}

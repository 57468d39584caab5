//! What balanced groups retain: relations that outlive their holders, and who gets what was missed. The store is a
//! list here, sessions have queues of a few places, and what a session takes out of its queue it has written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::model::interest::Relation;
use crate::store::{Chunk, Fetch, Recovered, Stored, StoredRelation, Write, record};

mod late;
mod unkept;

const DAY: Duration = Duration::from_secs(86_400);
const PLACES: usize = 3;

/// A hub with one group whose relations are named after what they select: a device, or `*`.
struct World {
    directory: Arc<Directory>,
    state: HubState,
    now: Now,
    client: Arc<Client>,
    /// Everything that was stored, as the store would have it.
    messages: Vec<Write>,
    groups: BTreeMap<Arc<str>, (u64, Duration)>,
    relations: BTreeMap<Arc<str>, StoredRelation>,
    /// Connected sessions: what waits in their queues.
    queues: BTreeMap<u64, VecDeque<Arc<DeviceMessage>>>,
    /// Numbers of messages that the group has got, in the order of writing.
    got: Vec<u64>,
    next: u64,
    counter: i64,
    /// Number and device of each message that was published.
    published: Vec<(u64, &'static str)>,
    lost: usize,
}

impl World {
    fn new() -> Self {
        Self::with(Some(Recovered::default()))
    }

    /// With a store, or without one.
    fn with(recovered: Option<Recovered>) -> Self {
        let now = Now::new(clock::instant(), UnixMillis(1_000_000_000_000));
        let directory = Arc::new(directory());
        let mut state = HubState::new(Arc::clone(&directory));
        let known = recovered.clone().unwrap_or_default();
        let groups = known.groups.iter().map(|(name, floor, retain)| (Arc::clone(name), (*floor, *retain)));
        let (groups, relations) = (groups.collect(), known.relations.clone());
        if let Some(recovered) = recovered {
            state.remember(recovered, now);
        }
        let mut world = Self {
            directory,
            state,
            now,
            client: all_rights("demo"),
            messages: Vec::new(),
            groups,
            relations: relations
                .into_iter()
                .map(|relation| (Arc::clone(&relation.label), relation))
                .collect(),
            queues: BTreeMap::new(),
            got: Vec::new(),
            next: 1,
            counter: 0,
            published: Vec::new(),
            lost: 0,
        };
        for device in ["press-1", "press-2", "lamp-1", "meter-1"] {
            world.publish(device);
        }
        world.published.clear();
        world
    }

    /// One property report.
    fn publish(&mut self, device: &'static str) {
        self.counter += 1;
        let values = vec![(SETPOINT.min(self.properties(device)), Sample::Value(Value::Int(self.counter)))];
        let known = self.directory.device(device).map(Arc::clone).unwrap();
        let (before, head) = (self.messages.len(), self.state.last_number());
        self.state.observe(Observation::Values { device: known, at: self.now.wall, values }, self.now);
        self.drain();
        if self.messages.is_empty() && self.state.last_number() > head {
            self.published.push((self.state.last_number(), device));
        }
        for write in &self.messages[before..] {
            if let Write::Message { seq, kind, .. } = write {
                if kind.meets(Kinds::PROPERTIES) {
                    self.published.push((*seq, device));
                }
            }
        }
    }

    fn properties(&self, device: &str) -> usize {
        self.directory.device(device).unwrap().product.properties.len().saturating_sub(1)
    }

    fn connect(&mut self) -> u64 {
        let key = self.next;
        self.next += 1;
        self.state.attach(SessionKey(key));
        self.queues.insert(key, VecDeque::new());
        self.ask(key, GroupAsk::Join { group: "system".into(), limit: 100, retain: DAY });
        key
    }

    fn ask(&mut self, key: u64, ask: GroupAsk) {
        let question = Question::Group(ask);
        self.state.ask(SessionKey(key), Token(0), Arc::clone(&self.client), question, self.now);
        self.drain();
    }

    fn hold(&mut self, key: u64, label: &str, earliest: bool) {
        let selector = if label == "*" { Selector::All } else { Selector::Device(label.into()) };
        let interest = Interest { selector, kinds: Kinds::PROPERTIES };
        let relations = vec![Relation { label: label.into(), interest }];
        self.ask(key, GroupAsk::Hold { relations, earliest });
    }

    fn release(&mut self, key: u64, label: &str) {
        self.ask(key, GroupAsk::Release(vec![label.into()]));
    }

    /// The session writes so many of what waits for it.
    fn read(&mut self, key: u64, count: usize) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let written: Vec<u64> = queue.drain(..count.min(queue.len())).map(|message| message.seq).collect();
        self.got.extend(&written);
        self.state.delivered(SessionKey(key), &written);
        self.drain();
    }

    fn die(&mut self, key: u64) {
        let Some(queue) = self.queues.remove(&key) else { return };
        let unsent: Vec<u64> = queue.iter().map(|message| message.seq).collect();
        self.state.detach(SessionKey(key), &unsent, self.now);
        self.drain();
    }

    fn replay(&mut self) {
        let queues = &self.queues;
        let room = |key: SessionKey| queues.get(&key.0).map_or(0, |queue| PLACES - queue.len());
        let fetches = self.state.replay(self.now, room);
        self.drain();
        for fetch in fetches {
            let chunk = self.fetch(&fetch);
            self.state.fetched(chunk);
            self.drain();
        }
    }

    /// As the store does, three looks at a time.
    fn fetch(&self, fetch: &Fetch) -> Chunk {
        let mut messages = Vec::new();
        let (mut upto, mut looks) = (fetch.until, 0);
        for write in &self.messages {
            let Write::Message { seq, at, device, kind, record } = write else { continue };
            if *seq <= fetch.after || *seq > fetch.until {
                continue;
            }
            looks += 1;
            if fetch.wanted.get(device).is_some_and(|kinds| kinds.meets(*kind)) && *at >= fetch.since {
                let body = record::decode(record).unwrap();
                let (clock, device) = (record::clock(record), Arc::clone(device));
                messages.push(Stored { seq: *seq, at: *at, clock, device, body });
            }
            if messages.len() >= fetch.limit || looks >= 3 {
                upto = *seq;
                break;
            }
        }
        Chunk { group: Arc::clone(&fetch.group), after: fetch.after, upto, messages }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Balance { candidates, message, .. } => {
                    let queues = &mut self.queues;
                    let free =
                        |key: &&SessionKey| queues.get(&key.0).is_some_and(|queue| queue.len() < PLACES);
                    let taker = candidates.iter().find(free).copied();
                    match taker {
                        Some(key) => {
                            queues.get_mut(&key.0).unwrap().push_back(message);
                            self.state.served(key);
                        }
                        None => self.lost += usize::from(!self.state.unserved()),
                    }
                }
                Effect::Store(write) => self.store(write),
                Effect::Reply { .. } | Effect::Deliver { .. } => {}
                Effect::Route { .. } => unreachable!("no commands here"),
            }
        }
    }

    fn store(&mut self, write: Write) {
        match write {
            Write::Message { .. } => self.messages.push(write),
            Write::Group { name, floor, retain } => {
                self.groups.insert(name, (floor, retain));
            }
            Write::NoGroup(name) => {
                self.groups.remove(&name);
                self.relations.clear();
            }
            Write::Relation(relation) => {
                self.relations.insert(Arc::clone(&relation.label), relation);
            }
            Write::NoRelation { label, .. } => {
                self.relations.remove(&label);
            }
            Write::Redate { .. }
            | Write::Document { .. }
            | Write::NoDocument(_)
            | Write::Alarm(_)
            | Write::NoAlarm(_) => {}
        }
    }

    /// What the store has.
    fn recovered(&self) -> Recovered {
        let seq = self.messages.iter().filter_map(|write| match write {
            Write::Message { seq, .. } => Some(*seq),
            Write::Redate { .. }
            | Write::Document { .. }
            | Write::NoDocument(_)
            | Write::Alarm(_)
            | Write::NoAlarm(_)
            | Write::Group { .. }
            | Write::Relation(_)
            | Write::NoRelation { .. }
            | Write::NoGroup(_) => None,
        });
        Recovered {
            seq: seq.max().unwrap_or(0),
            groups: self
                .groups
                .iter()
                .map(|(name, (floor, retain))| (Arc::clone(name), *floor, *retain))
                .collect(),
            relations: self.relations.values().cloned().collect(),
            ..Recovered::default()
        }
    }

    /// The process is killed and started again.
    fn restart(mut self) -> Self {
        let recovered = self.recovered();
        let before = std::mem::take(&mut self.messages);
        let mut after = Self::with(Some(recovered));
        after.messages.splice(0..0, before);
        after.counter += 1_000_000;
        after
    }

    /// Reads until nothing comes any more; gives what was got since.
    fn settle(&mut self) -> Vec<u64> {
        let before = self.got.len();
        for _ in 0..10_000 {
            self.replay();
            let keys: Vec<u64> = self.queues.keys().copied().collect();
            for key in keys {
                self.read(key, PLACES);
            }
            if !self.state.backlogged() && self.queues.values().all(VecDeque::is_empty) {
                return self.got.split_off(before);
            }
        }
        panic!("the group never catches up");
    }

    fn numbers(&self, device: &str) -> Vec<u64> {
        self.published.iter().filter(|(_, each)| *each == device).map(|(seq, _)| *seq).collect()
    }
}

#[test]
fn what_nobody_was_there_for_is_delivered_in_order_to_who_comes_back() {
    let mut world = World::new();
    let first = world.connect();
    world.hold(first, "press-1", false);
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1"));
    world.die(first);
    for _ in 0..10 {
        world.publish("press-1");
        world.publish("press-2");
    }
    let second = world.connect();
    assert_eq!(world.settle(), [0; 0], "only a holder gets anything");
    world.hold(second, "press-1", false);
    assert_eq!(world.settle(), world.numbers("press-1")[1..], "whatever the flag says");
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1")[11..]);
}

#[test]
fn a_new_relation_begins_with_everything_that_is_kept_or_with_the_next_message() {
    let mut world = World::new();
    for _ in 0..5 {
        world.publish("press-1");
    }
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1")[5..]);
    world.release(key, "press-1");
    world.hold(key, "press-1", true);
    let got = world.settle();
    assert!(got.ends_with(&world.numbers("press-1")), "{got:?}");
    world.hold(key, "*", true);
    let got = world.settle();
    assert!(world.numbers("press-1").iter().all(|seq| !got.contains(seq)), "one copy for the group: {got:?}");
}

#[test]
fn nothing_older_than_the_retention_is_replayed() {
    let mut world = World::new();
    world.publish("press-1");
    world.now.wall.0 += 2 * 86_400_000;
    world.now.certain = world.now.wall;
    world.publish("press-1");
    let key = world.connect();
    world.hold(key, "press-1", true);
    assert_eq!(world.settle(), world.numbers("press-1")[1..]);
}

#[test]
fn what_a_dead_connection_did_not_write_goes_to_another_before_anything_newer() {
    let mut world = World::new();
    let slow = world.connect();
    world.hold(slow, "press-1", false);
    for _ in 0..5 {
        world.publish("press-1");
    }
    world.read(slow, 1);
    world.die(slow);
    let other = world.connect();
    world.hold(other, "press-1", false);
    let rest = world.settle();
    assert_eq!([world.got.clone(), rest].concat(), world.numbers("press-1"));
}

/// Releases one of two relations that nobody holds any more and holds both again: what waited for it is gone.
fn release_of_what_nobody_holds(mut world: World) {
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.hold(key, "press-2", false);
    world.die(key);
    world.publish("press-1");
    world.publish("press-2");
    let other = world.connect();
    world.release(other, "press-1");
    world.hold(other, "press-1", false);
    world.hold(other, "press-2", false);
    assert_eq!(world.settle(), world.numbers("press-2"));
}

#[test]
fn a_release_by_the_last_holder_or_by_anyone_when_there_is_none_ends_a_relation() {
    release_of_what_nobody_holds(World::new());
}

#[test]
fn a_relation_that_nobody_comes_back_for_ends_with_its_time_and_so_does_the_group() {
    let mut world = World::new();
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.die(key);
    let due = world.state.timeout().unwrap();
    assert_eq!(due, world.now.instant + DAY);
    world.now.instant = due;
    world.state.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.relations.len() + world.groups.len(), 0, "the store has forgotten it too");
    assert!(world.state.timeout().is_none_or(|next| next > due));
}

#[test]
fn relations_and_their_places_outlive_the_process() {
    let mut world = World::new();
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.publish("press-1");
    world.publish("press-1");
    world.settle();
    world.state.checkpoint();
    world.drain();
    for _ in 0..4 {
        world.publish("press-1");
    }
    // Three wait in the queue, one behind it; none was written when the process is killed.
    let missed = world.numbers("press-1")[2..].to_vec();
    let mut world = world.restart();
    let key = world.connect();
    world.ask(key, GroupAsk::All);
    world.hold(key, "press-1", false);
    let got = world.settle();
    assert!(got.starts_with(&missed), "{got:?} begins with {missed:?}");
}

#[test]
fn a_group_that_was_killed_before_its_last_checkpoint_repeats_and_loses_nothing() {
    let mut world = World::new();
    let key = world.connect();
    world.hold(key, "press-1", false);
    for _ in 0..6 {
        world.publish("press-1");
        world.settle();
    }
    let all = world.numbers("press-1");
    let mut world = world.restart();
    let key = world.connect();
    world.hold(key, "press-1", false);
    let got = world.settle();
    assert!(got.starts_with(&all), "{got:?} begins with {all:?}");
}

#[test]
fn a_full_member_does_not_keep_another_relations_messages_waiting() {
    let mut world = World::new();
    let (full, free) = (world.connect(), world.connect());
    world.hold(full, "press-1", false);
    world.hold(free, "press-2", false);
    for _ in 0..10 {
        world.publish("press-1");
        world.publish("press-2");
        world.read(free, 1);
        world.replay();
    }
    world.read(free, PLACES);
    assert_eq!(world.got, world.numbers("press-2"));
    world.got.clear();
    assert_eq!(world.settle(), world.numbers("press-1"));
}

#[test]
fn what_nobody_holds_any_more_keeps_no_other_relation_waiting() {
    let mut world = World::new();
    let (dying, other) = (world.connect(), world.connect());
    world.hold(dying, "press-1", false);
    world.hold(other, "press-2", false);
    world.publish("press-1");
    world.die(dying);
    for _ in 0..10 {
        world.publish("press-2");
    }
    assert_eq!(world.settle(), world.numbers("press-2"));
    world.hold(other, "press-1", false);
    assert_eq!(world.settle(), world.numbers("press-1"));
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Connect,
    Hold(usize, usize, bool),
    Release(usize, usize),
    Read(usize, usize),
    Die(usize),
    Replay,
    Checkpoint,
}

const DEVICES: [&str; 3] = ["press-1", "press-2", "lamp-1"];
const LABELS: [&str; 3] = ["press-1", "press-2", "*"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Step::Publish),
        2 => Just(Step::Connect),
        3 => (0..8_usize, 0..3_usize, any::<bool>()).prop_map(|(at, label, early)| Step::Hold(at, label, early)),
        1 => (0..8_usize, 0..3_usize).prop_map(|(at, label)| Step::Release(at, label)),
        3 => (0..8_usize, 1..4_usize).prop_map(|(at, count)| Step::Read(at, count)),
        2 => (0..8_usize).prop_map(Step::Die),
        2 => Just(Step::Replay),
        1 => Just(Step::Checkpoint),
    ]
}

/// What the group should have got, kept beside the hub.
#[derive(Default)]
struct Oracle {
    /// Each existing relation: the messages that are its own.
    relations: BTreeMap<&'static str, BTreeSet<u64>>,
    /// Messages of which a relation was released: they may come or not.
    freed: BTreeSet<u64>,
    /// Those of them that a relation asked for which began with everything: they may come again.
    again: BTreeSet<u64>,
}

fn concerns(label: &str, device: &str) -> bool {
    label == "*" || label == device
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]
    #[test]
    fn each_message_of_a_lasting_relation_reaches_the_group_exactly_once(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        let mut oracle = Oracle::default();
        let mut sessions: Vec<u64> = Vec::new();
        let mut holders: BTreeMap<&'static str, BTreeSet<u64>> = BTreeMap::new();
        let pick = |sessions: &Vec<u64>, at: usize| sessions.get(at % sessions.len().max(1)).copied();
        for step in steps {
            match step {
                Step::Publish(device) => {
                    let before = world.published.len();
                    world.publish(DEVICES[device]);
                    for (seq, device) in &world.published[before..] {
                        for (label, own) in &mut oracle.relations {
                            if concerns(label, device) {
                                own.insert(*seq);
                            }
                        }
                    }
                }
                Step::Connect => sessions.push(world.connect()),
                Step::Hold(at, label, earliest) => {
                    let Some(key) = pick(&sessions, at) else { continue };
                    let label = LABELS[label];
                    world.hold(key, label, earliest);
                    holders.entry(label).or_default().insert(key);
                    if oracle.relations.contains_key(label) {
                        continue;
                    }
                    let all = world.published.iter().filter(|(_, device)| earliest && concerns(label, device));
                    let own: BTreeSet<u64> = all.map(|(seq, _)| *seq).collect();
                    oracle.again.extend(own.intersection(&oracle.freed));
                    oracle.relations.insert(label, own);
                }
                Step::Release(at, label) => {
                    let Some(key) = pick(&sessions, at) else { continue };
                    let label = LABELS[label];
                    world.release(key, label);
                    let holders = holders.entry(label).or_default();
                    holders.remove(&key);
                    if holders.is_empty() {
                        oracle.freed.extend(oracle.relations.remove(label).unwrap_or_default());
                    }
                }
                Step::Read(at, count) => {
                    if let Some(key) = pick(&sessions, at) {
                        world.read(key, count);
                    }
                }
                Step::Die(at) => {
                    if let Some(key) = pick(&sessions, at) {
                        world.die(key);
                        sessions.retain(|each| *each != key);
                        for holders in holders.values_mut() {
                            holders.remove(&key);
                        }
                    }
                }
                Step::Replay => world.replay(),
                Step::Checkpoint => {
                    world.state.checkpoint();
                    world.drain();
                }
            }
        }
        // Somebody takes all that there still is.
        let last = world.connect();
        let labels: Vec<&str> = oracle.relations.keys().copied().collect();
        for label in labels {
            world.hold(last, label, false);
        }
        let rest = world.settle();
        world.got.extend(rest);
        let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
        for seq in &world.got {
            *copies.entry(*seq).or_default() += 1;
        }
        for (label, own) in &oracle.relations {
            for seq in own {
                let got = copies.get(seq).copied().unwrap_or(0);
                prop_assert!(got >= 1, "{label} never got {seq}");
                prop_assert!(got == 1 || oracle.again.contains(seq), "{label} got {seq} {got} times");
            }
        }
        for (seq, copies) in &copies {
            let known = world.published.iter().any(|(each, _)| each == seq);
            prop_assert!(*copies == 1 || oracle.again.contains(seq) || !known, "{seq} came {copies} times");
        }
        prop_assert_eq!(world.lost, 0);
    }
}

//! Balanced groups: who holds what, whose turn it is, and who is told of the end.

use proptest::prelude::*;

use super::*;
use crate::model::interest::{GroupAnswer, Relation};

fn join(rig: &mut Rig, key: u64, client: &Arc<Client>) -> String {
    rig.attach(SessionKey(key));
    rig.group(key, client, GroupAsk::Join { group: "system".into(), limit: 3, retain: Duration::ZERO });
    rig.heard(key).pop().expect("an answer")
}

fn relation(label: &str, selector: Selector) -> Relation {
    Relation { label: label.into(), interest: Interest { selector, kinds: Kinds::PROPERTIES } }
}

/// A relation that is labelled as its device.
fn of_device(id: &str) -> Relation {
    relation(id, Selector::Device(id.into()))
}

fn hold(rig: &mut Rig, key: u64, client: &Arc<Client>, relations: Vec<Relation>) {
    rig.group(key, client, GroupAsk::Hold { relations, earliest: false });
    assert_eq!(rig.heard(key), ["Done"]);
}

fn release(rig: &mut Rig, key: u64, client: &Arc<Client>, labels: &[&str]) -> Vec<String> {
    rig.group(key, client, GroupAsk::Release(labels.iter().map(|label| Arc::from(*label)).collect()));
    rig.heard(key)
}

/// How many of so many messages of a device each of the first sessions got.
fn shares(rig: &mut Rig, device: &str, messages: u32, sessions: u64) -> Vec<usize> {
    for step in 0..messages {
        let value = Value::Float(f64::from(step) + f64::from(u32::try_from(rig.last_seq).unwrap()) * 1e-3);
        rig.values(device, &[(SETPOINT, value)]);
    }
    (1..=sessions).map(|key| rig.heard(key).len()).collect()
}

fn relations(labels: &[&str]) -> String {
    format!("{:?}", GroupAnswer::Relations(labels.iter().map(|label| Arc::from(*label)).collect()))
}

/// A rig whose devices are all online, so that only readings follow.
fn rig() -> (Rig, Arc<Client>) {
    let mut rig = Rig::new();
    for device in ["press-1", "press-2", "lamp-1", "meter-1"] {
        rig.presence(device, true);
    }
    (rig, all_rights("demo"))
}

#[test]
fn a_group_takes_no_more_members_than_it_may_and_joining_again_changes_nothing() {
    let (mut rig, demo) = rig();
    for key in 1..=3 {
        assert_eq!(join(&mut rig, key, &demo), "Joined");
    }
    assert_eq!(join(&mut rig, 4, &demo), "Full");
    assert_eq!(join(&mut rig, 1, &demo), "Joined");
    rig.state.detach(SessionKey(2), &[], rig.now);
    assert_eq!(join(&mut rig, 4, &demo), "Joined");
}

#[test]
fn nothing_can_be_asked_of_a_group_before_joining_it() {
    let (mut rig, demo) = rig();
    rig.attach(SessionKey(1));
    for ask in [
        GroupAsk::Hold { relations: Vec::new(), earliest: false },
        GroupAsk::Release(Vec::new()),
        GroupAsk::Mine,
        GroupAsk::All,
    ] {
        rig.group(1, &demo, ask);
        assert_eq!(rig.heard(1), ["NotJoined"]);
    }
}

#[test]
fn relations_are_listed_in_the_order_in_which_they_were_first_held() {
    let (mut rig, demo) = rig();
    join(&mut rig, 1, &demo);
    join(&mut rig, 2, &demo);
    hold(&mut rig, 1, &demo, vec![of_device("press-2"), of_device("meter-1"), of_device("press-2")]);
    hold(&mut rig, 2, &demo, vec![of_device("press-1"), of_device("meter-1")]);
    rig.group(2, &demo, GroupAsk::Mine);
    rig.group(2, &demo, GroupAsk::All);
    let expected = [relations(&["press-1", "meter-1"]), relations(&["press-2", "meter-1", "press-1"])];
    assert_eq!(rig.heard(2), expected);
    release(&mut rig, 1, &demo, &["meter-1", "press-2", "unheard-of"]);
    rig.group(1, &demo, GroupAsk::Mine);
    rig.group(1, &demo, GroupAsk::All);
    assert_eq!(rig.heard(1), [relations(&[]), relations(&["meter-1", "press-1"])]);
}

#[test]
fn messages_go_round_the_holders_in_the_order_in_which_they_joined() {
    let (mut rig, demo) = rig();
    for key in [3, 1, 2] {
        join(&mut rig, key, &demo);
        hold(&mut rig, key, &demo, vec![of_device("press-1")]);
    }
    let mut turns = Vec::new();
    for step in 0..6 {
        rig.values("press-1", &[(SETPOINT, Value::Int(step))]);
        turns.extend((1..=3).filter(|key| !rig.heard(*key).is_empty()));
    }
    assert_eq!(turns, [3, 1, 2, 3, 1, 2]);
}

#[test]
fn only_holders_of_a_matching_relation_take_part_and_several_matches_are_one_copy() {
    let (mut rig, demo) = rig();
    for key in 1..=3 {
        join(&mut rig, key, &demo);
    }
    let press = relation("press", Selector::TypeId("1press".into()));
    hold(&mut rig, 1, &demo, vec![of_device("press-1"), press.clone(), relation("*", Selector::All)]);
    hold(&mut rig, 2, &demo, vec![press]);
    hold(&mut rig, 3, &demo, vec![of_device("meter-1")]);
    assert_eq!(shares(&mut rig, "press-1", 10, 3), [5, 5, 0]);
}

#[test]
fn the_filter_of_a_members_client_holds() {
    let (mut rig, demo) = rig();
    let reader = client("reader", Rights::READ, &["meter-1"]);
    join(&mut rig, 1, &demo);
    join(&mut rig, 2, &reader);
    hold(&mut rig, 1, &demo, vec![relation("*", Selector::All)]);
    hold(&mut rig, 2, &reader, vec![relation("*", Selector::All)]);
    assert_eq!(shares(&mut rig, "press-1", 4, 2), [4, 0]);
}

#[test]
fn when_a_release_empties_the_group_everyone_who_ever_held_a_relation_is_told_after_the_answer() {
    let (mut rig, demo) = rig();
    for key in 1..=3 {
        join(&mut rig, key, &demo);
    }
    hold(&mut rig, 1, &demo, vec![of_device("press-1")]);
    hold(&mut rig, 2, &demo, vec![of_device("press-1"), of_device("press-2")]);
    assert_eq!(release(&mut rig, 1, &demo, &["press-1"]), ["Done"]);
    assert_eq!(release(&mut rig, 2, &demo, &["press-1", "press-2"]), ["Done", "group empty"]);
    assert_eq!(rig.heard(1), ["group empty"]);
    assert_eq!(rig.heard(3), [""; 0], "it never held any");
    assert_eq!(release(&mut rig, 2, &demo, &["press-1"]), ["Done"], "an empty group cannot be emptied");
}

#[test]
fn a_relation_that_ends_with_its_session_empties_the_group_in_silence() {
    let (mut rig, demo) = rig();
    join(&mut rig, 1, &demo);
    join(&mut rig, 2, &demo);
    hold(&mut rig, 1, &demo, vec![of_device("press-1")]);
    hold(&mut rig, 2, &demo, vec![of_device("press-1")]);
    release(&mut rig, 2, &demo, &["press-1"]);
    rig.state.detach(SessionKey(1), &[], rig.now);
    rig.drain();
    rig.group(2, &demo, GroupAsk::All);
    assert_eq!(rig.heard(2), [relations(&[])]);
    assert_eq!(release(&mut rig, 2, &demo, &["press-1"]), ["Done"]);
}

#[test]
fn each_group_gets_its_own_copy_and_ordinary_watchers_theirs() {
    let (mut rig, demo) = rig();
    join(&mut rig, 1, &demo);
    rig.attach(SessionKey(2));
    rig.group(2, &demo, GroupAsk::Join { group: "other".into(), limit: 1, retain: Duration::ZERO });
    rig.heard(2);
    rig.watcher(3, &demo);
    for key in [1, 2] {
        hold(&mut rig, key, &demo, vec![of_device("press-1")]);
    }
    assert_eq!(shares(&mut rig, "press-1", 3, 3), [3, 3, 3]);
}

#[test]
fn a_member_that_takes_the_turn_of_a_full_one_is_not_asked_again_at_once() {
    let (mut rig, demo) = rig();
    for key in 1..=3 {
        join(&mut rig, key, &demo);
        hold(&mut rig, key, &demo, vec![of_device("press-1")]);
    }
    let device = rig.device("press-1");
    let mut turns = Vec::new();
    for step in 0..4 {
        let values = vec![(SETPOINT, Sample::Value(Value::Int(step)))];
        let observation = Observation::Values { device: Arc::clone(&device), at: rig.now.wall, values };
        rig.state.observe(observation, rig.now);
        while let Some(effect) = rig.state.poll() {
            if let Effect::Balance { candidates, .. } = effect {
                // Session 1 is always full.
                let taker = *candidates.iter().find(|key| key.0 != 1).expect("another");
                if taker != candidates[0] {
                    rig.state.served(taker);
                }
                turns.push(taker.0);
            }
        }
    }
    assert_eq!(turns, [2, 3, 2, 3]);
}

proptest! {
    #[test]
    fn the_shares_of_equal_holders_differ_by_at_most_one(
        holders in prop::collection::vec(prop::collection::vec(0..3_usize, 1..4), 1..4),
        messages in 0..40_u32,
    ) {
        let (mut rig, demo) = rig();
        let devices = ["press-1", "press-2", "meter-1"];
        for (key, held) in (1..).zip(&holders) {
            join(&mut rig, key, &demo);
            // All hold press-1, and some more that matches it as well or not at all.
            let mut relations = vec![of_device("press-1")];
            relations.extend(held.iter().map(|at| of_device(devices[*at])));
            relations.extend(held.contains(&1).then(|| relation("*", Selector::All)));
            hold(&mut rig, key, &demo, relations);
        }
        let shares = shares(&mut rig, "press-1", messages, u64::try_from(holders.len()).unwrap());
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", shares);
        prop_assert_eq!(shares.iter().sum::<usize>(), usize::try_from(messages).unwrap());
    }
}

//! Groups where no history is kept: what finds nobody waits in memory, a little and for a while.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// What waits in memory at most.
const WAITING: usize = 1024;

fn world() -> World {
    World::with(None)
}

#[test]
fn without_history_what_a_dead_connection_did_not_write_goes_to_another_before_anything_newer() {
    let mut world = world();
    let (slow, other) = (world.connect(), world.connect());
    world.hold(slow, "press-1", false);
    for _ in 0..PLACES {
        world.publish("press-1");
    }
    world.read(slow, 1);
    world.hold(other, "press-1", false);
    for _ in 0..PLACES {
        world.publish("press-1");
    }
    world.die(slow);
    world.publish("press-1");
    let rest = world.settle();
    let mut got = [world.got.clone(), rest].concat();
    got.sort_unstable();
    assert_eq!(got, world.numbers("press-1"), "each once");
    assert_eq!(world.lost, 0);
}

#[test]
fn without_history_what_nobody_was_there_for_waits_for_who_comes_back() {
    let mut world = world();
    let first = world.connect();
    world.hold(first, "press-1", false);
    // Three wait in the queue, two for room in it, and the others come when nobody is there.
    for _ in 0..PLACES + 2 {
        world.publish("press-1");
    }
    world.die(first);
    for _ in 0..5 {
        world.publish("press-1");
        world.publish("press-2");
    }
    let second = world.connect();
    assert_eq!(world.settle(), [0; 0], "only a holder gets anything");
    world.hold(second, "press-1", true);
    assert_eq!(world.settle(), world.numbers("press-1"), "all of it, in order");
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1")[PLACES + 7..]);
    assert_eq!((world.lost, world.messages.len(), world.relations.len()), (0, 0, 0));
}

#[test]
fn without_history_a_relation_ends_an_hour_after_its_last_holder_with_all_that_waits() {
    let mut world = world();
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.publish("press-1");
    world.die(key);
    let due = world.state.timeout().unwrap();
    assert_eq!(due, world.now.instant + HOUR);
    world.now.instant = due;
    world.state.handle_timeout(world.now);
    world.drain();
    let key = world.connect();
    world.hold(key, "press-1", true);
    assert_eq!(world.settle(), [0; 0]);
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1")[1..]);
}

#[test]
fn without_history_the_oldest_go_when_too_many_wait_and_are_counted() {
    let mut world = world();
    let key = world.connect();
    world.hold(key, "press-1", false);
    world.die(key);
    for _ in 0..WAITING + 7 {
        world.publish("press-1");
    }
    assert_eq!(world.lost, 7);
    let key = world.connect();
    world.hold(key, "press-1", false);
    assert_eq!(world.settle(), world.numbers("press-1")[7..]);
}

#[test]
fn without_history_the_bytes_that_wait_are_bounded() {
    let mut world = world();
    let key = world.connect();
    let interest = Interest { selector: Selector::All, kinds: Kinds::PUBLISH };
    let relations = vec![Relation { label: "*".into(), interest }];
    world.ask(key, GroupAsk::Hold { relations: relations.clone(), earliest: false });
    world.die(key);
    let payload: Arc<str> = "x".repeat(300_000).into();
    for _ in 0..5 {
        let device = world.directory.device("lamp-1").map(Arc::clone).unwrap();
        let payload = Arc::clone(&payload);
        let at = world.now.wall;
        let observation = Observation::Publish { device, at, topic: "t".into(), payload };
        world.state.observe(observation, world.now);
        world.drain();
    }
    assert_eq!(world.lost, 2, "three fit into a mebibyte");
    let key = world.connect();
    world.ask(key, GroupAsk::Hold { relations, earliest: false });
    assert_eq!(world.settle().len(), 3);
}

#[test]
fn without_history_an_unsubscription_takes_what_waits_along() {
    release_of_what_nobody_holds(world());
}

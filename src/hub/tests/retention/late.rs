//! Groups whose store could not be opened when the process began, and is later.

use super::*;
use crate::model::history::DocumentAsk;

/// A world that has begun without its store, after another one.
fn begun_without(before: &World) -> World {
    let mut world = World::with(None);
    let number = Recovered { seq: 5_000, ..Recovered::default() };
    world.state.begin_with(number, false, world.now);
    world.messages.clone_from(&before.messages);
    world.counter += 1_000_000;
    world
}

#[test]
fn a_store_that_is_opened_late_gives_each_what_it_missed_and_nothing_twice() {
    let mut before = World::new();
    let first = before.connect();
    before.hold(first, "press-1", false);
    before.hold(first, "press-2", false);
    before.publish("press-1");
    assert_eq!(before.settle().len(), 1);
    before.die(first);
    for _ in 0..3 {
        before.publish("press-1");
        before.publish("press-2");
    }
    before.state.checkpoint();
    before.drain();
    let missed = before.numbers("press-1").split_off(1);

    let mut world = begun_without(&before);
    let second = world.connect();
    world.hold(second, "press-1", false);
    for _ in 0..2 {
        world.publish("press-1");
        world.publish("press-2");
    }
    assert_eq!(world.settle(), world.numbers("press-1"), "it goes on without");
    world.state.remember(before.recovered(), world.now);
    world.drain();
    assert_eq!(world.settle(), missed);
    world.publish("press-1");
    assert_eq!(world.settle(), world.numbers("press-1")[2..]);
    let others = [before.numbers("press-2"), world.numbers("press-2")].concat();
    world.hold(second, "press-2", false);
    assert_eq!(world.settle(), others, "also of the time between, when nobody held it");
    world.state.checkpoint();
    world.drain();
    assert_eq!(
        (world.lost, world.relations.len(), world.groups.len()),
        (0, 2, 1),
        "both are kept from now on"
    );
}

#[test]
fn while_the_store_is_closed_clients_leave_nothing_and_hear_when_it_is_opened() {
    let mut world = World::with(None);
    world.state.begin_with(Recovered { seq: 5_000, ..Recovered::default() }, false, world.now);
    world.state.store_is(false);
    world.state.attach(SessionKey(1));
    let collection = || Arc::from("oam/rule");
    let put = DocumentAsk::Put { collection: collection(), id: None, body: "{}".into() };
    let list = DocumentAsk::List { collection: collection() };
    let mut heard = Vec::new();
    for ask in [put.clone(), list] {
        world.state.ask(SessionKey(1), Token(0), all_rights("demo"), Question::Documents(ask), world.now);
    }
    let documents = vec![(collection(), 3, "kept".into())];
    let recovered = Recovered { seq: 6_000, last_id: 7, documents, ..Recovered::default() };
    let before = world.state.last_number();
    assert_eq!(world.state.remember(recovered, world.now), 6_000 - before);
    world.state.ask(SessionKey(1), Token(0), all_rights("demo"), Question::Documents(put), world.now);
    while let Some(effect) = world.state.poll() {
        if let Effect::Reply { reply, .. } = effect {
            heard.push(format!("{reply:?}"));
        }
    }
    for (at, part) in ["Full", "[]", "DocumentsChanged(\"oam/rule\")", "Put(8)"].iter().enumerate() {
        assert!(heard[at].contains(part), "{heard:?}");
    }
}

//! What clients leave with the hub: documents and alarms.

use super::*;
use crate::model::history::{
    AlarmAnswer, AlarmAsk, AlarmKind, ClientAlarm, DocumentAnswer, DocumentAsk, KeptAlarm,
};
use crate::store::{Recovered, Write};

fn list() -> Question {
    Question::Documents(DocumentAsk::List { collection: "oam/rule".into() })
}

fn put(id: Option<u64>, body: &str) -> Question {
    Question::Documents(DocumentAsk::Put { collection: "oam/rule".into(), id, body: body.into() })
}

fn delete(id: u64) -> Question {
    Question::Documents(DocumentAsk::Delete { collection: "oam/rule".into(), id })
}

fn said(answer: &DocumentAnswer) -> String {
    format!("Documents({answer:?})")
}

fn alarm(kind: AlarmKind, value: f64, hold: u64) -> ClientAlarm {
    ClientAlarm {
        id: 0,
        name: "mine".into(),
        kind,
        property: "setpoint".into(),
        link: None,
        devices: Selector::Device("press-1".into()),
        value,
        hold: Duration::from_secs(hold),
        level: Level::Alert,
    }
}

fn set(alarm: ClientAlarm) -> Question {
    Question::Alarms(AlarmAsk::Put(Box::new(alarm)))
}

/// A rig with press-1 online and a session of a client with all rights, which hears everything.
fn rig() -> (Rig, Arc<Client>) {
    let mut rig = Rig::new();
    rig.presence("press-1", true);
    let demo = all_rights("demo");
    rig.watcher(1, &demo);
    rig.heard(1);
    (rig, demo)
}

fn told(rig: &mut Rig, value: f64) -> Vec<String> {
    rig.values("press-1", &[(SETPOINT, Value::Float(value))]);
    rig.heard(1).into_iter().filter(|line| line.contains("alarm")).collect()
}

#[test]
fn documents_are_created_replaced_and_deleted_under_ids_that_never_repeat() {
    let (mut rig, demo) = rig();
    let asks =
        [put(None, "a"), put(None, "b"), delete(2), put(None, "c"), put(Some(1), "d"), put(Some(2), "e")];
    for ask in asks {
        rig.ask(1, &demo, ask);
    }
    rig.ask(1, &demo, delete(2));
    rig.ask(1, &demo, list());
    let heard = rig.heard(1);
    let expected = [
        DocumentAnswer::Put(1),
        DocumentAnswer::Put(2),
        DocumentAnswer::Deleted,
        DocumentAnswer::Put(3),
        DocumentAnswer::Put(1),
        DocumentAnswer::Unknown,
        DocumentAnswer::Unknown,
    ];
    assert_eq!(heard[..7], expected.iter().map(said).collect::<Vec<_>>());
    assert!(heard[7].contains("id: 1, body: \"d\" }, Document { id: 3, body: \"c\""), "{}", heard[7]);
}

#[test]
fn those_who_asked_about_a_collection_hear_of_changes_by_others() {
    let (mut rig, demo) = rig();
    let reader = client("reader", Rights::READ, &["*"]);
    for key in 2..=4 {
        rig.attach(SessionKey(key));
    }
    rig.ask(2, &reader, list());
    rig.ask(4, &reader, list());
    rig.state.detach(SessionKey(4), &[], rig.now);
    rig.heard(2);
    rig.ask(1, &demo, put(None, "a"));
    rig.ask(1, &demo, put(Some(9), "a"));
    assert_eq!(rig.heard(2), ["changed oam/rule"]);
    assert_eq!(rig.heard(1), [said(&DocumentAnswer::Put(1)), said(&DocumentAnswer::Unknown)]);
    assert_eq!(rig.heard(3), [""; 0]);
    rig.ask(2, &reader, delete(1));
    assert_eq!(rig.heard(2), [said(&DocumentAnswer::Forbidden)]);
}

#[test]
fn documents_are_bounded_in_count_and_bytes() {
    let (mut rig, demo) = rig();
    rig.ask(1, &demo, put(None, &"x".repeat(5 << 20)));
    assert_eq!(rig.heard(1), [said(&DocumentAnswer::Full)]);
    for _ in 0..1000 {
        rig.ask(1, &demo, put(None, "x"));
    }
    assert!(rig.heard(1).iter().all(|answer| answer.contains("Put")));
    rig.ask(1, &demo, put(None, "x"));
    rig.ask(1, &demo, delete(500));
    rig.ask(1, &demo, put(None, "x"));
    let expected = [DocumentAnswer::Full, DocumentAnswer::Deleted, DocumentAnswer::Put(1001)];
    assert_eq!(rig.heard(1), expected.iter().map(said).collect::<Vec<_>>());
}

#[test]
fn a_store_is_told_of_every_change_and_its_memory_is_taken_over() {
    let directory = Arc::new(directory());
    let mut state = HubState::new(Arc::clone(&directory));
    let now = Now::new(clock::instant(), UnixMillis(1_000_000));
    let recovered = Recovered {
        seq: 41,
        last_id: 7,
        documents: vec![("oam/rule".into(), 3, "old".into())],
        alarms: vec![ClientAlarm { id: 5, ..alarm(AlarmKind::Above, 10.0, 0) }.into()],
        ..Recovered::default()
    };
    state.remember(recovered, now);
    state.attach(SessionKey(1));
    let demo = all_rights("demo");
    let mut writes = Vec::new();
    let mut answers = Vec::new();
    for question in [list(), put(None, "new"), delete(3), Question::Alarms(AlarmAsk::Delete(5))] {
        state.ask(SessionKey(1), Token(0), Arc::clone(&demo), question, now);
        while let Some(effect) = state.poll() {
            match effect {
                Effect::Store(write) => writes.push(write),
                Effect::Reply { reply, .. } => answers.push(reply_line(&reply)),
                Effect::Deliver { .. } | Effect::Balance { .. } | Effect::Route { .. } => {}
            }
        }
    }
    let document = Write::Document { collection: "oam/rule".into(), id: 8, body: "new".into() };
    assert_eq!(writes, [document.clone(), Write::NoDocument(3), Write::NoAlarm(5)]);
    assert!(answers[0].contains("old"), "{answers:?}");
    state.rewrite();
    assert!(matches!(state.poll(), Some(Effect::Store(write)) if write == document));
    let device = Arc::clone(directory.device("press-1").unwrap());
    state.observe(Observation::Presence { device, at: now.wall, online: true, reason: None }, now);
    assert!(matches!(state.poll(), Some(Effect::Store(Write::Message { seq: 42, .. }))));
}

#[test]
fn an_alarm_of_a_client_fires_and_clears_like_any_other() {
    let rows = [
        (AlarmKind::Above, 50.0, vec![50.0, 51.0, 60.0, 50.0], ["raised at 51", "cleared at 50"]),
        (AlarmKind::Below, 50.0, vec![50.0, 49.0, 40.0, 50.0], ["raised at 49", "cleared at 50"]),
        (AlarmKind::Equal, 50.0, vec![49.0, 50.0, 50.0, 51.0], ["raised at 50", "cleared at 51"]),
        (AlarmKind::MonotonicRising, 0.0, vec![5.0, 6.0, 4.0, 4.0, 4.5], ["raised at 4", "cleared at 4.5"]),
        (AlarmKind::MonotonicFalling, 0.0, vec![5.0, 4.0, 6.0, 6.0, 5.5], ["raised at 6", "cleared at 5.5"]),
    ];
    for (kind, limit, values, expected) in rows {
        let (mut rig, demo) = rig();
        rig.ask(1, &demo, set(alarm(kind, limit, 0)));
        rig.heard(1);
        let told: Vec<String> = values.into_iter().flat_map(|value| told(&mut rig, value)).collect();
        assert_eq!(told.len(), 2, "{kind:?}: {told:?}");
        assert!(told[0].contains(&format!("alarm client-1 {}, active [client-1]", expected[0])), "{told:?}");
        assert!(told[1].contains(&format!("alarm client-1 {}, active []", expected[1])), "{told:?}");
    }
}

#[test]
fn a_condition_must_hold_for_its_time_without_a_break() {
    let (mut rig, demo) = rig();
    rig.ask(1, &demo, set(alarm(AlarmKind::Above, 50.0, 10)));
    rig.heard(1);
    assert_eq!(told(&mut rig, 60.0), [""; 0]);
    rig.pass(Duration::from_secs(9));
    assert_eq!(told(&mut rig, 40.0), [""; 0]);
    assert_eq!(told(&mut rig, 61.0), [""; 0]);
    rig.pass(Duration::from_secs(9));
    rig.presence("press-1", false);
    rig.pass(Duration::from_secs(9));
    rig.presence("press-1", true);
    rig.heard(1);
    assert_eq!(told(&mut rig, 62.0), [""; 0], "nobody knows what was while it was offline");
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.heard(1), ["press-1 alarm client-1 raised at 62, active [client-1]"]);
    rig.ask(1, &demo, Question::Alarms(AlarmAsk::Delete(1)));
    let heard = rig.heard(1);
    assert_eq!(heard[1], "press-1 alarm client-1 cleared at 62, active []");
}

#[test]
fn a_wait_that_ends_without_a_good_reading_begins_anew() {
    let (mut rig, demo) = rig();
    rig.ask(1, &demo, set(alarm(AlarmKind::Above, 50.0, 10)));
    rig.heard(1);
    assert_eq!(told(&mut rig, 60.0), [""; 0]);
    rig.unreadable("press-1", SETPOINT);
    rig.pass(Duration::from_secs(60));
    assert!(rig.heard(1).iter().all(|line| !line.contains("alarm")), "nobody knows what the value is");
    assert_eq!(told(&mut rig, 61.0), [""; 0]);
    rig.pass(Duration::from_secs(9));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.heard(1), ["press-1 alarm client-1 raised at 61, active [client-1]"]);
}

#[test]
fn a_client_sets_alarms_only_where_it_may_write_and_see() {
    let (mut rig, demo) = rig();
    let everywhere =
        ClientAlarm { devices: Selector::All, name: "all".into(), ..alarm(AlarmKind::Above, 1.0, 0) };
    let reader = client("reader", Rights::READ, &["*"]);
    let partial = client("partial", Rights::ALL, &["press-1"]);
    for key in 2..=3 {
        rig.attach(SessionKey(key));
    }
    let answer = |answer: AlarmAnswer| format!("Alarms({answer:?})");
    rig.ask(2, &reader, set(alarm(AlarmKind::Above, 1.0, 0)));
    assert_eq!(rig.heard(2), [answer(AlarmAnswer::Forbidden)]);
    rig.ask(3, &partial, set(everywhere.clone()));
    rig.ask(3, &partial, set(alarm(AlarmKind::Above, 1.0, 0)));
    rig.ask(1, &demo, set(everywhere));
    assert_eq!(rig.heard(3), [answer(AlarmAnswer::Forbidden), answer(AlarmAnswer::Put(1))]);
    rig.ask(3, &partial, Question::Alarms(AlarmAsk::Delete(2)));
    rig.ask(3, &partial, Question::Alarms(AlarmAsk::Delete(9)));
    rig.ask(3, &partial, set(ClientAlarm { id: 9, ..alarm(AlarmKind::Above, 1.0, 0) }));
    let refused = [AlarmAnswer::Forbidden, AlarmAnswer::Unknown, AlarmAnswer::Unknown];
    assert_eq!(rig.heard(3), refused.map(answer));
}

#[test]
fn no_two_alarms_of_clients_share_a_name() {
    let (mut rig, demo) = rig();
    let named =
        |id, name: &str| set(ClientAlarm { id, name: name.into(), ..alarm(AlarmKind::Above, 1000.0, 0) });
    for ask in [named(0, "a"), named(0, "a"), named(0, "b"), named(2, "a"), named(2, "b"), named(2, "c")] {
        rig.ask(1, &demo, ask);
    }
    let expected = [
        AlarmAnswer::Put(1),
        AlarmAnswer::Taken,
        AlarmAnswer::Put(2),
        AlarmAnswer::Taken,
        AlarmAnswer::Put(2),
        AlarmAnswer::Put(2),
    ];
    assert_eq!(rig.heard(1), expected.map(|answer| format!("Alarms({answer:?})")));
}

#[test]
fn a_time_to_hold_without_end_is_never_over() {
    let (mut rig, demo) = rig();
    let endless = ClientAlarm { hold: Duration::MAX, ..alarm(AlarmKind::Above, 50.0, 0) };
    rig.ask(1, &demo, set(endless));
    rig.heard(1);
    for value in [60.0, 40.0, 61.0] {
        assert_eq!(told(&mut rig, value), [""; 0]);
    }
    rig.presence("press-1", false);
    rig.pass(Duration::from_secs(3600));
    assert!(rig.heard(1).iter().all(|line| !line.contains("alarm")));
}

#[test]
fn a_document_is_swapped_only_by_who_has_seen_it_as_it_is() {
    let (mut rig, demo) = rig();
    rig.attach(SessionKey(2));
    rig.ask(2, &demo, list());
    rig.heard(2);
    let swap = |seen: Option<&str>, body: &str| {
        let (collection, seen) = ("oam/rule".into(), seen.map(Into::into));
        Question::Documents(DocumentAsk::Swap { collection, seen, body: body.into() })
    };
    let asks = [swap(Some("x"), "a"), swap(None, "a"), swap(None, "b"), swap(Some("a"), "b"), list()];
    for ask in asks {
        rig.ask(1, &demo, ask);
    }
    let heard = rig.heard(1);
    let expected =
        [DocumentAnswer::Unknown, DocumentAnswer::Put(1), DocumentAnswer::Unknown, DocumentAnswer::Put(1)];
    assert_eq!(heard[..4], expected.iter().map(said).collect::<Vec<_>>());
    assert!(heard[4].contains("[Document { id: 1, body: \"b\" }]"), "{}", heard[4]);
    // Once for all changes: it has not asked again since.
    assert_eq!(rig.heard(2), ["changed oam/rule"]);
    let reader = client("reader", Rights::READ, &["*"]);
    rig.ask(2, &reader, swap(Some("b"), "c"));
    assert_eq!(rig.heard(2), [said(&DocumentAnswer::Forbidden)]);
}

#[test]
fn a_bad_reading_interrupts_the_wait_even_if_a_good_one_follows_in_time() {
    let (mut rig, demo) = rig();
    rig.ask(1, &demo, set(alarm(AlarmKind::Above, 50.0, 10)));
    rig.heard(1);
    assert_eq!(told(&mut rig, 60.0), [""; 0]);
    rig.pass(Duration::from_secs(5));
    rig.unreadable("press-1", SETPOINT);
    assert_eq!(told(&mut rig, 61.0), [""; 0]);
    rig.heard(1);
    rig.pass(Duration::from_secs(9));
    assert_eq!(
        rig.heard(1),
        [""; 0],
        "ten seconds after the first good reading, four after the last bad one"
    );
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.heard(1), ["press-1 alarm client-1 raised at 61, active [client-1]"]);
}

#[test]
fn an_alarm_that_was_raised_before_a_restart_is_cleared_after_it() {
    for (value, expected) in [(60.0, None), (40.0, Some("press-1 alarm client-5 cleared at 40, active []"))] {
        let mut rig = Rig::new();
        let alarm = ClientAlarm { id: 5, ..alarm(AlarmKind::Above, 50.0, 0) };
        let raised = vec![("press-1".into(), 50.0), ("press-9".into(), 50.0)];
        let kept = KeptAlarm { alarm, owner: "demo".into(), raised };
        rig.state.remember(Recovered { last_id: 5, alarms: vec![kept], ..Recovered::default() }, rig.now);
        let demo = all_rights("demo");
        rig.watcher(1, &demo);
        rig.presence("press-1", true);
        rig.ask(1, &demo, Question::Snapshot(Selector::Device("press-1".into())));
        assert_eq!(told(&mut rig, value), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn where_an_alarm_is_raised_is_kept() {
    let mut state = HubState::new(Arc::new(directory()));
    let now = Now::new(clock::instant(), UnixMillis(1_000_000));
    let kept = KeptAlarm {
        alarm: ClientAlarm { id: 5, ..alarm(AlarmKind::Above, 50.0, 0) },
        owner: "demo".into(),
        raised: Vec::new(),
    };
    state.remember(Recovered { last_id: 5, alarms: vec![kept.clone()], ..Recovered::default() }, now);
    for (value, raised) in [(60.0, vec![("press-1".into(), 50.0)]), (40.0, Vec::new())] {
        let device = Arc::clone(directory().device("press-1").unwrap());
        let values = vec![(SETPOINT, Sample::Value(Value::Float(value)))];
        state.observe(Observation::Values { device, at: now.wall, values }, now);
        let mut alarms = Vec::new();
        while let Some(effect) = state.poll() {
            if let Effect::Store(Write::Alarm(alarm)) = effect {
                alarms.push(alarm);
            }
        }
        assert_eq!(alarms, [KeptAlarm { raised, ..kept.clone() }]);
    }
}

#[test]
fn no_client_takes_all_places_for_alarms() {
    let (mut rig, demo) = rig();
    let other = all_rights("other");
    rig.attach(SessionKey(2));
    let named =
        |at: usize| set(ClientAlarm { name: format!("{at}").into(), ..alarm(AlarmKind::Above, 1.0, 0) });
    for at in 0..64 {
        rig.ask(1, &demo, named(at));
    }
    assert!(rig.heard(1).iter().all(|answer| answer.contains("Put")));
    rig.ask(1, &demo, named(64));
    rig.ask(2, &other, named(64));
    let answer = |answer: AlarmAnswer| format!("Alarms({answer:?})");
    assert_eq!(rig.heard(1), [answer(AlarmAnswer::Full)]);
    assert_eq!(rig.heard(2), [answer(AlarmAnswer::Put(65))]);
}

#[test]
fn nothing_is_taken_from_clients_while_the_store_cannot_write() {
    let (mut rig, demo) = rig();
    rig.state.remember(Recovered::default(), rig.now);
    rig.state.store_is(true);
    rig.ask(1, &demo, put(None, "a"));
    rig.ask(1, &demo, set(alarm(AlarmKind::Above, 1.0, 0)));
    rig.ask(1, &demo, list());
    let heard = rig.heard(1);
    assert_eq!(heard[0], said(&DocumentAnswer::Full));
    assert_eq!(heard[1], format!("Alarms({:?})", AlarmAnswer::Full));
    assert!(heard[2].contains("Documents([])"), "{heard:?}");
    rig.state.store_is(false);
    rig.ask(1, &demo, put(None, "a"));
    assert_eq!(rig.heard(1), [said(&DocumentAnswer::Put(1))]);
}

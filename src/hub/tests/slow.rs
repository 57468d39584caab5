//! Slow sessions against the running hub: gaps are made good, and what may not be lost ends the session.

use tokio::time::timeout;

use super::task::{World, beside_a_hub, next};
use super::*;
use crate::hub::handle::{Attachment, HubRequest};
use crate::model::interest::Relation;
use crate::model::snapshot::Snapshot;

/// Room for messages of the slow session.
const QUEUE: usize = 4;

/// Makes the devices come online and lets both sessions hear of it.
async fn begin(world: &World, slow: &mut Attachment, quick: &mut Attachment) {
    for device in ["press-1", "press-2"] {
        world.observe(device, &[(SETPOINT, Value::Float(0.0))]).await;
        for session in [&mut *slow, &mut *quick] {
            assert_eq!(line(&next(&mut session.messages).await.unwrap()), format!("{device} online"));
            assert_eq!(line(&next(&mut session.messages).await.unwrap()), format!("{device} setpoint=0"));
        }
    }
}

/// Lets a device report so many values; the quick session hears each.
async fn report(world: &World, device: &str, values: std::ops::RangeInclusive<i32>, quick: &mut Attachment) {
    for value in values {
        world.observe(device, &[(SETPOINT, Value::Float(f64::from(value)))]).await;
        let message = next(&mut quick.messages).await.expect("a message");
        assert_eq!(line(&message), format!("{device} setpoint={value}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_session_is_told_what_it_missed_and_gets_the_newest_values() {
    beside_a_hub(async |world| {
        let mut slow = world.watcher(QUEUE).await;
        let mut quick = world.watcher(64).await;
        begin(&world, &mut slow, &mut quick).await;
        report(&world, "press-1", 1..=20, &mut quick).await;
        report(&world, "press-2", 1..=10, &mut quick).await;
        let mut heard = Vec::new();
        for _ in 0..QUEUE {
            heard.push(line(&next(&mut slow.messages).await.unwrap()));
        }
        let before = ["setpoint=1", "setpoint=2", "setpoint=3", "setpoint=4"];
        assert_eq!(heard, before.map(|report| format!("press-1 {report}")));
        assert_eq!(reply_line(&next(&mut slow.replies).await.unwrap().reply), "lagged 26");
        let mut newest = Vec::new();
        for _ in 0..2 {
            let message = next(&mut slow.messages).await.unwrap();
            assert_eq!(message.seq, 34, "the number of the last message");
            newest.push(line(&message));
        }
        assert_eq!(newest, ["press-1 setpoint=20", "press-2 setpoint=10"]);
        report(&world, "press-2", 11..=11, &mut quick).await;
        let message = next(&mut slow.messages).await.unwrap();
        assert_eq!(
            (line(&message).as_str(), message.seq),
            ("press-2 setpoint=11", 35),
            "and goes on as before"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_larger_than_the_queue_is_made_good_bit_by_bit() {
    beside_a_hub(async |world| {
        let (mut slow, mut quick) = (world.watcher(1).await, world.watcher(64).await);
        let client = all_rights("demo");
        let interests = vec![Interest { selector: Selector::All, kinds: Kinds::PROPERTIES }];
        world.ask(HubRequest::Watch { key: slow.key, client, interests }).await;
        world.snapshot_with(&mut quick, |_| true).await;
        for device in ["press-1", "press-2", "lamp-1"] {
            world.observe(device, &[(SETPOINT, Value::Float(0.0))]).await;
            next(&mut quick.messages).await.expect("online");
            next(&mut quick.messages).await.expect("a report");
        }
        assert_eq!(line(&next(&mut slow.messages).await.unwrap()), "press-1 setpoint=0");
        assert_eq!(reply_line(&next(&mut slow.replies).await.unwrap().reply), "lagged 2");
        report(&world, "press-1", 1..=4, &mut quick).await;
        let mut newest = Vec::new();
        for _ in 0..3 {
            newest.push(line(&next(&mut slow.messages).await.unwrap()));
        }
        newest.sort_unstable();
        assert_eq!(newest, ["lamp-1 setpoint=0", "press-1 setpoint=4", "press-2 setpoint=0"]);
        assert_eq!(
            reply_line(&next(&mut slow.replies).await.unwrap().reply),
            "lagged 4",
            "nothing is told twice"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_session_does_not_want_any_more_is_not_made_good() {
    beside_a_hub(async |world| {
        let mut slow = world.watcher(QUEUE).await;
        let mut quick = world.watcher(64).await;
        begin(&world, &mut slow, &mut quick).await;
        report(&world, "press-1", 1..=20, &mut quick).await;
        report(&world, "press-2", 1..=2, &mut quick).await;
        let interests = vec![Interest { selector: Selector::Device("press-2".into()), kinds: Kinds::ALL }];
        let client = all_rights("demo");
        world.ask(HubRequest::Watch { key: slow.key, client, interests }).await;
        world.snapshot_with(&mut quick, |_| true).await;
        for _ in 0..QUEUE {
            next(&mut slow.messages).await.unwrap();
        }
        assert_eq!(reply_line(&next(&mut slow.replies).await.unwrap().reply), "lagged 18");
        assert_eq!(line(&next(&mut slow.messages).await.unwrap()), "press-2 setpoint=2");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_no_room_for_an_alarm_is_no_longer_served() {
    beside_a_hub(async |world| {
        let mut slow = world.watcher(QUEUE).await;
        let mut quick = world.watcher(64).await;
        begin(&world, &mut slow, &mut quick).await;
        report(&world, "press-1", 1..=20, &mut quick).await;
        world.observe("press-1", &[(TEMPERATURE, Value::Float(81.0))]).await;
        assert_eq!(reply_line(&next(&mut slow.replies).await.unwrap().reply), "evicted");
        assert!(next(&mut slow.replies).await.is_none(), "and its queues close");
        for _ in 0..QUEUE {
            assert!(next(&mut slow.messages).await.is_some(), "what was in the queue is still there");
        }
        assert!(next(&mut slow.messages).await.is_none());
        assert_eq!(line(&next(&mut quick.messages).await.unwrap()), "press-1 temperature=81");
        let alarm = next(&mut quick.messages).await.unwrap();
        assert!(line(&alarm).contains("alarm too-hot raised"), "others are not harmed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_read_for_a_minute_is_no_longer_served() {
    beside_a_hub(async |world| {
        let mut slow = world.watcher(QUEUE).await;
        let mut quick = world.watcher(64).await;
        begin(&world, &mut slow, &mut quick).await;
        report(&world, "press-1", 1..=20, &mut quick).await;
        let start = clock::instant();
        assert_eq!(reply_line(&next(&mut slow.replies).await.unwrap().reply), "evicted");
        let waited = clock::instant() - start;
        assert!((Duration::from_secs(60)..Duration::from_secs(61)).contains(&waited), "{waited:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_vanished_without_a_word_is_forgotten() {
    beside_a_hub(async |world| {
        let mut quick = world.watcher(64).await;
        let gone = world.watcher(QUEUE).await;
        drop(gone);
        world.observe("press-1", &[(SETPOINT, Value::Float(1.0))]).await;
        assert_eq!(line(&next(&mut quick.messages).await.unwrap()), "press-1 online");
        assert_eq!(line(&next(&mut quick.messages).await.unwrap()), "press-1 setpoint=1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_vanished_without_a_word_leaves_its_place_in_the_group() {
    beside_a_hub(async |world| {
        let start = clock::instant();
        drop([member(&world, 4).await, member(&world, 4).await]);
        let mut session = world.hub.attach(4).await.expect("the hub runs");
        loop {
            let (key, client) = (session.key, all_rights("demo"));
            let question =
                Question::Group(GroupAsk::Join { group: "system".into(), limit: 2, retain: Duration::ZERO });
            world.ask(HubRequest::Ask { key, token: Token(1), client, question }).await;
            match reply_line(&next(&mut session.replies).await.expect("an answer").reply).as_str() {
                "Joined" => break,
                other => assert_eq!(other, "Full"),
            }
            assert!(clock::instant() < start + Duration::from_secs(10), "the place is never free");
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_member_of_a_group_is_passed_over() {
    beside_a_hub(async |world| {
        let (mut full, mut free) = (member(&world, 1).await, member(&world, 64).await);
        for value in 0..6 {
            world.observe("press-1", &[(SETPOINT, Value::Int(value))]).await;
        }
        let enough = |snapshot: &Snapshot| {
            let reading = snapshot.devices[0].readings[SETPOINT].as_ref();
            reading.is_some_and(|reading| reading.value == Value::Int(5))
        };
        world.snapshot_with(&mut free, enough).await;
        assert_eq!(line(&next(&mut full.messages).await.unwrap()), "press-1 setpoint=0");
        for value in 1..6 {
            assert_eq!(line(&next(&mut free.messages).await.unwrap()), format!("press-1 setpoint={value}"));
        }
        assert!(full.messages.is_empty());
    })
    .await;
}

/// A member of a group that holds the readings of press-1.
async fn member(world: &World, queue: usize) -> Attachment {
    let mut session = world.hub.attach(queue).await.expect("the hub runs");
    let interest = Interest { selector: Selector::Device("press-1".into()), kinds: Kinds::PROPERTIES };
    let asks = [
        GroupAsk::Join { group: "system".into(), limit: 2, retain: Duration::ZERO },
        GroupAsk::Hold { relations: vec![Relation { label: "press-1".into(), interest }], earliest: false },
    ];
    for ask in asks {
        let (key, client) = (session.key, all_rights("demo"));
        world.ask(HubRequest::Ask { key, token: Token(1), client, question: Question::Group(ask) }).await;
        next(&mut session.replies).await.expect("an answer");
    }
    session
}

#[tokio::test(start_paused = true)]
async fn somebody_who_changes_documents_all_the_time_ends_nobody_who_looks_at_them() {
    use crate::model::history::DocumentAsk;
    beside_a_hub(async |world| {
        let mut reader = world.hub.attach(16).await.expect("the hub runs");
        let mut writer = world.hub.attach(16).await.expect("the hub runs");
        let client = all_rights("demo");
        let ask = |key, ask| {
            let (client, question) = (Arc::clone(&client), Question::Documents(ask));
            world.ask(HubRequest::Ask { key, token: Token(0), client, question })
        };
        ask(reader.key, DocumentAsk::List { collection: "c".into() }).await;
        for _ in 0..600 {
            ask(writer.key, DocumentAsk::Put { collection: "c".into(), id: None, body: "x".into() }).await;
            next(&mut writer.replies).await.expect("an answer");
        }
        // All that time the reader's connection was busy.
        let mut heard = Vec::new();
        while let Ok(reply) = reader.replies.try_recv() {
            heard.push(reply_line(&reply.reply));
        }
        assert_eq!(heard.len(), 2, "the list, and that it has changed: {} replies", heard.len());
        ask(reader.key, DocumentAsk::List { collection: "c".into() }).await;
        assert!(next(&mut reader.replies).await.is_some(), "it is still served");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_without_room_for_a_reply_is_told_that_it_was_too_slow() {
    beside_a_hub(async |world| {
        let mut slow = world.hub.attach(16).await.expect("the hub runs");
        for _ in 0..700 {
            let (client, question) = (all_rights("demo"), Question::Snapshot(Selector::All));
            world.ask(HubRequest::Ask { key: slow.key, token: Token(0), client, question }).await;
        }
        let mut last = String::new();
        while let Some(reply) = next(&mut slow.replies).await {
            last = reply_line(&reply.reply);
        }
        assert_eq!(last, "evicted");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_hears_when_half_of_its_queue_is_taken_and_where_its_replies_stand() {
    beside_a_hub(async |world| {
        let mut slow = world.watcher(QUEUE).await;
        let mut quick = world.watcher(64).await;
        begin(&world, &mut slow, &mut quick).await;
        let moment = Duration::from_millis(1);
        // Four messages were in the queue at times, and all are taken: what was noticed of that is no news any more.
        drop(timeout(moment, slow.account.pressed.notified()).await);
        report(&world, "press-1", 1..=1, &mut quick).await;
        assert!(timeout(moment, slow.account.pressed.notified()).await.is_err(), "a quarter is taken");
        report(&world, "press-1", 2..=2, &mut quick).await;
        assert!(timeout(moment, slow.account.pressed.notified()).await.is_ok());
        let (key, client) = (slow.key, all_rights("demo"));
        let question = Question::Snapshot(Selector::All);
        world.ask(HubRequest::Ask { key, token: Token(1), client, question }).await;
        assert_eq!(next(&mut slow.replies).await.unwrap().after, 6, "behind all that it was sent");
    })
    .await;
}

//! Times that were wrong, and times from which on nothing is kept.

use super::*;

#[tokio::test]
async fn a_history_that_is_to_keep_less_forgets_with_its_next_commit() {
    let (_folder, path) = folder();
    let (now, day) = (clock::wall().0, 86_400_000);
    let keeping = |days: u64| config::History { keep: Duration::from_secs(86_400 * days), ..settings(&path) };
    let store = start(keeping(7));
    store.write(temperature(1, now - 2 * day)).await;
    store.archive.limit(&keeping(1));
    store.write(temperature(2, now)).await;
    store.end();
    let mut store = start(keeping(7));
    assert_eq!(store.stored().await, [2]);
    store.end();
}

#[tokio::test]
async fn marked_times_are_corrected_once_and_all_others_are_left() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let marked = |seq, at| {
        let record = record::encode_by(&body(&[("temperature", 1.0)], Quality::Good), Clock::Unsynchronised);
        Write::Message { seq, at: UnixMillis(at), device: "press-1".into(), kind: Kinds::PROPERTIES, record }
    };
    let store = start(settings(&path));
    store.write(temperature(1, now)).await;
    for seq in 2..=4 {
        store.write(marked(seq, now + 2)).await;
    }
    // Once more, as it is when the tail is read after a killed process.
    for _ in 0..2 {
        store.write(Write::Redate { from: 1, upto: 3, step: 1000 }).await;
    }
    store.end();
    let mut store = start(settings(&path));
    assert_eq!(store.keeper.recovered.last, Some(UnixMillis(now + 2)));
    assert_eq!(
        store.keeper.recovered.last_right,
        Some(UnixMillis(now + 1002)),
        "that of 3, which was corrected"
    );
    let chunk = store.fetch(0, 10, 100).await;
    let found: Vec<_> = chunk
        .messages
        .iter()
        .map(|stored| {
            let Body::Properties(reports) = &stored.body else { panic!("only reports were kept") };
            (stored.seq, stored.at.0 - now, stored.clock, reports[0].at.0)
        })
        .collect();
    let expected = [
        (1, 0, Clock::Synchronised, 0),
        (2, 1002, Clock::Synchronised, 1000),
        (3, 1002, Clock::Synchronised, 1000),
        (4, 2, Clock::Unsynchronised, 0),
    ];
    assert_eq!(found, expected);
    store.end();
}

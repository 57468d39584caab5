//! Past messages of one kind, device by device.

use super::*;
use crate::model::history::PastMessage;

impl Store {
    async fn past(&self, client: &Client, query: PastQuery) -> Vec<(String, u64, Option<i64>)> {
        let (sender, mut answers) = mpsc::channel(1);
        self.archive.past(client, query, Token(7), sender).await;
        match timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap() {
            (Token(7), Answer::Past(past)) => {
                assert!(past.kept);
                let row = |message: &PastMessage| {
                    (message.device.to_string(), message.seq, message.heard.map(|at| at.0))
                };
                past.messages.iter().map(row).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn past_messages_are_given_device_by_device_with_what_was_heard_before() {
    let (_folder, path) = folder();
    // The messages are of 1970, and a commit in the middle of the test would take what is too old away.
    let century = Duration::from_secs(100 * 365 * 86_400);
    let store = start(config::History { keep: century, ..settings(&path) });
    let presence = |online| Body::Presence { online, reason: None };
    for write in [
        message(1, 1000, "press-2", &presence(true)),
        message(2, 1000, "press-1", &presence(true)),
        temperature(3, 1500),
        message(4, 2000, "press-1", &presence(false)),
        message(5, 2500, "press-1", &presence(true)),
        temperature(6, 2600),
        message(7, 4000, "press-1", &presence(true)),
    ] {
        store.write(write).await;
    }
    let query = |kind, devices: &[&str], limit, offset, newest_first| PastQuery {
        devices: devices.iter().map(|id| Arc::from(*id)).collect(),
        kind,
        from: UnixMillis(0),
        after: 0,
        limit,
        offset,
        newest_first,
    };
    let (all, both) = (client(&["*"]), ["press-2", "press-1"]);
    let row = |device: &str, seq, heard| (device.to_owned(), seq, heard);
    let came = [row("press-1", 7, Some(2600)), row("press-1", 5, Some(1500)), row("press-1", 4, None)];
    let asked = query(Kinds::PRESENCE, &both, 3, 0, true);
    assert_eq!(store.past(&all, asked.clone()).await, [&[row("press-2", 1, None)], &came[..]].concat());
    assert_eq!(store.past(&client(&["press-1"]), asked).await, came, "only what the client sees");
    let nobody = query(Kinds::PRESENCE, &[], 3, 0, true);
    assert_eq!(store.past(&all, nobody).await, []);
    let asked = query(Kinds::PRESENCE, &both, 1, 1, false);
    assert_eq!(store.past(&all, asked).await, [row("press-1", 4, None)], "each device passes over one");
    let reports = PastQuery { after: 3, ..query(Kinds::PROPERTIES, &["press-1"], 9, 0, false) };
    assert_eq!(store.past(&all, reports.clone()).await, [row("press-1", 6, None)]);
    let later = PastQuery { from: UnixMillis(2601), after: 0, ..reports };
    assert_eq!(store.past(&all, later).await, []);
}

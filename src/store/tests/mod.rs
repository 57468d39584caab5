//! The store as the hub and the sessions meet it: on real files, with its own thread.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::*;
use crate::clock;
use crate::config;
use crate::model::client::{Client, DeviceFilter, Dialect, Rights, Secret};
use crate::model::history::{AlarmKind, ClientAlarm};
use crate::model::interest::Selector;
use crate::model::message::Report;
use crate::model::product::{AlarmCondition, AlarmRule, Level, Product, Property};
use crate::model::value::{Quality, Value, ValueType};

mod dating;
mod opening;
mod past;

/// Where the child of the kill test keeps its history.
const CHILD: &str = "PENTAD_TEST_HISTORY";

struct Store {
    keeper: Keeper,
    archive: Archive,
    thread: JoinHandle<()>,
}

fn settings(path: &Path) -> config::History {
    config::History {
        path: path.to_owned(),
        keep: Duration::from_secs(3600),
        max_bytes: 64 << 20,
        commit_every: Duration::from_millis(20),
    }
}

fn start(settings: config::History) -> Store {
    let (keeper, archive, worker) = open(settings, Arc::new(directory())).unwrap();
    let runtime = Handle::current();
    let thread = std::thread::spawn(move || worker.run(&runtime));
    Store { keeper, archive, thread }
}

/// press-1 and press-2; nobody looks into their product here.
fn directory() -> Directory {
    let product = Arc::new(Product {
        id: "press".into(),
        name: "Press".into(),
        type_id: "press".into(),
        properties: vec![Property {
            name: "Temperature".into(),
            ..Property::new("temperature", ValueType::Float)
        }],
        functions: Vec::new(),
        events: Vec::new(),
    });
    let device = |id: &str| {
        Arc::new(Device {
            id: id.into(),
            name: id.into(),
            product: Arc::clone(&product),
            link: "rs485".into(),
            project: "1".into(),
            area: "1".into(),
            tags: Vec::new(),
            uuid: id.into(),
            mac: id.into(),
        })
    };
    Directory::new(vec![device("press-1"), device("press-2")], Vec::new())
}

fn body(values: &[(&str, f64)], quality: Quality) -> Body {
    let report = |(id, value): &(&str, f64)| Report {
        property: 0,
        id: (*id).into(),
        value: Value::Float(*value),
        at: UnixMillis(0),
        quality,
    };
    Body::Properties(values.iter().map(report).collect())
}

fn message(seq: u64, at: i64, device: &str, body: &Body) -> Write {
    let kind = if matches!(body, Body::Properties(_)) { Kinds::PROPERTIES } else { Kinds::PRESENCE };
    Write::Message { seq, at: UnixMillis(at), device: device.into(), kind, record: record::encode(body) }
}

fn temperature(seq: u64, at: i64) -> Write {
    let value = f64::from(u32::try_from(seq).unwrap());
    message(seq, at, "press-1", &body(&[("temperature", value)], Quality::Good))
}

impl Store {
    async fn write(&self, write: Write) {
        self.keeper.jobs.send(Job::Write(write)).await.unwrap();
    }

    async fn fetch(&mut self, after: u64, until: u64, limit: usize) -> Chunk {
        let wanted = [("press-1".into(), Kinds::PROPERTIES)].into();
        let fetch =
            Fetch { group: "g".into(), after, until, since: UnixMillis(0), wanted: Arc::new(wanted), limit };
        self.ask(fetch).await
    }

    async fn ask(&mut self, fetch: Fetch) -> Chunk {
        self.keeper.jobs.send(Job::Fetch(fetch)).await.unwrap();
        loop {
            let news = timeout(Duration::from_secs(60), self.keeper.news.recv()).await.unwrap();
            if let News::Chunk(chunk) = news.unwrap() {
                return chunk;
            }
        }
    }

    async fn stored(&mut self) -> Vec<u64> {
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let chunk = self.fetch(after, 1_000_000, 1000).await;
            all.extend(chunk.messages.iter().map(|stored| stored.seq));
            if chunk.upto >= 1_000_000 {
                return all;
            }
            after = chunk.upto;
        }
    }

    async fn history(&self, client: &Client, query: HistoryQuery) -> Arc<History> {
        let (sender, mut answers) = mpsc::channel(1);
        self.archive.history(client, query, Token(7), sender).await;
        match timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap() {
            (Token(7), Answer::History(history)) => history,
            other => panic!("{other:?}"),
        }
    }

    async fn latest(&self, device: &str, properties: &[&str], count: usize) -> Arc<Latest> {
        let (sender, mut answers) = mpsc::channel(1);
        let properties = properties.iter().map(|id| Arc::from(*id)).collect();
        let query = LatestQuery { device: device.into(), properties, count };
        self.archive.latest(&client(&["*"]), query, Token(7), sender).await;
        match timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap() {
            (Token(7), Answer::Latest(latest)) => latest,
            other => panic!("{other:?}"),
        }
    }

    async fn events(&self, client: &Client, count: usize) -> Arc<Events> {
        let (sender, mut answers) = mpsc::channel(1);
        let query = EventsQuery { device: "press-1".into(), count };
        self.archive.events(client, query, Token(7), sender).await;
        match timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap() {
            (Token(7), Answer::Events(events)) => events,
            other => panic!("{other:?}"),
        }
    }

    /// Ends as the process does in good order.
    fn end(self) {
        let Self { keeper, archive, thread } = self;
        drop((keeper, archive));
        thread.join().unwrap();
    }
}

fn client(devices: &[&str]) -> Client {
    Client {
        id: "demo".into(),
        secret: Secret::new("secret"),
        dialects: Dialect::ALL.to_vec(),
        devices: DeviceFilter::new(devices),
        rights: Rights::READ,
    }
}

fn query(properties: &[&str], limit: usize, offset: u64, newest_first: bool) -> HistoryQuery {
    HistoryQuery {
        device: "press-1".into(),
        properties: properties.iter().map(|id| Arc::from(*id)).collect(),
        from: UnixMillis(0),
        to: UnixMillis(i64::MAX),
        limit,
        offset,
        newest_first,
    }
}

fn times(history: &History) -> Vec<i64> {
    history.rows.iter().map(|row| row.at.0).collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/history.db");
    (folder, path)
}

fn set_aside(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.to_string_lossy().contains(".damaged-")).collect()
}

#[tokio::test]
async fn past_values_are_found_by_time_property_and_page_before_they_are_committed() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let store = start(config::History { commit_every: Duration::from_secs(3600), ..settings(&path) });
    for step in 0..1500 {
        let seq = u64::try_from(step).unwrap() + 1;
        let (id, quality) =
            if step % 3 == 0 { ("setpoint", Quality::Bad) } else { ("temperature", Quality::Good) };
        store.write(message(seq, now + step, "press-1", &body(&[(id, 1.5)], quality))).await;
    }
    store.write(message(1501, now, "press-2", &body(&[("temperature", 9.0)], Quality::Good))).await;
    let me = client(&["*"]);
    // What was written is found as soon as the store has taken it; the two queues have no common order.
    let deadline = clock::instant() + Duration::from_secs(30);
    while store.history(&me, query(&[], 1, 0, false)).await.total < 1000 {
        assert!(clock::instant() < deadline);
    }
    let page = store.history(&me, query(&["temperature"], 3, 2, false)).await;
    assert!(page.kept);
    assert_eq!((page.total, times(&page)), (1000, vec![now + 4, now + 5, now + 7]));
    assert_eq!(page.rows[0].values, [("temperature".into(), Value::Float(1.5))]);
    let newest = store.history(&me, query(&[], 2, 0, true)).await;
    assert_eq!((newest.total, times(&newest)), (1000, vec![now + 1499, now + 1498]));
    assert_eq!(
        store.history(&me, query(&["setpoint"], 9, 0, true)).await.total,
        0,
        "bad values are no values"
    );
    let middle =
        HistoryQuery { from: UnixMillis(now + 10), to: UnixMillis(now + 13), ..query(&[], 9, 0, false) };
    assert_eq!(times(&*store.history(&me, middle).await), [now + 10, now + 11, now + 13]);
    let hidden = store.history(&client(&["meter-*"]), query(&[], 9, 0, false)).await;
    assert_eq!(*hidden, History { kept: true, ..History::default() });
    let latest = store.latest("press-1", &["temperature", "setpoint"], 2).await;
    let value = |at| (UnixMillis(now + at), Value::Float(1.5));
    assert_eq!(latest.values, [("temperature".into(), vec![value(1498), value(1499)])]);
    store.end();
}

#[tokio::test]
async fn the_last_events_and_alarms_are_found_together() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let store = start(settings(&path));
    let event = || Body::Event { event: "door".into(), level: Level::Info, params: Vec::new() };
    let condition = AlarmCondition::Above(80.0);
    let rule = AlarmRule { level: Level::Fault, ..AlarmRule::new("hot", condition) };
    let alarm = || Body::Alarm {
        rule: Arc::new(rule.clone()),
        property: 0,
        raised: true,
        value: Value::Float(81.0),
        active: vec!["hot".into()],
    };
    for seq in 1..=8 {
        let (kind, body) = if seq % 2 == 0 { (Kinds::EVENT, event()) } else { (Kinds::ALARM, alarm()) };
        let (device, record) = ("press-1".into(), record::encode(&body));
        store.write(Write::Message { seq, at: UnixMillis(now), device, kind, record }).await;
    }
    store.write(temperature(9, now)).await;
    let me = client(&["*"]);
    let deadline = clock::instant() + Duration::from_secs(30);
    while store.events(&me, 1).await.seq < 9 {
        assert!(clock::instant() < deadline);
    }
    let found = store.events(&me, 3).await;
    assert!(found.kept);
    assert_eq!(found.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [6, 7, 8]);
    let hidden = store.events(&client(&["meter-*"]), 3).await;
    assert_eq!((hidden.kept, hidden.messages.len()), (true, 0));
    store.end();
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_numbers_go_on() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let alarm = ClientAlarm {
        id: 9,
        name: "hot".into(),
        kind: AlarmKind::Above,
        property: "temperature".into(),
        link: None,
        devices: Selector::All,
        value: 80.0,
        hold: Duration::from_secs(1),
        level: Level::Fault,
    };
    let relation = StoredRelation {
        group: "g".into(),
        label: "l".into(),
        order: 0,
        interest: Interest { selector: Selector::All, kinds: Kinds::ALL },
        from: 3,
        cursor: Some(5),
        expires: Some(UnixMillis(now)),
    };
    let store = start(settings(&path));
    for seq in 1..=5 {
        store.write(temperature(seq, now)).await;
    }
    for id in [7, 8] {
        store.write(Write::Document { collection: "oam/rule".into(), id, body: "{}".into() }).await;
    }
    store.write(Write::NoDocument(8)).await;
    let alarm = KeptAlarm { alarm, owner: "demo".into(), raised: vec![("press-1".into(), 3.0)] };
    store.write(Write::Alarm(alarm.clone())).await;
    store.write(Write::Group { name: "g".into(), floor: 4, retain: Duration::from_secs(60) }).await;
    store.write(Write::Relation(relation.clone())).await;
    store.end();
    let mut store = start(settings(&path));
    let expected = Recovered {
        seq: 5,
        last: Some(UnixMillis(now)),
        last_right: Some(UnixMillis(now)),
        last_id: 9,
        documents: vec![("oam/rule".into(), 7, "{}".into())],
        alarms: vec![alarm],
        groups: vec![("g".into(), 4, Duration::from_secs(60))],
        relations: vec![relation],
    };
    assert_eq!(store.keeper.recovered, expected);
    assert_eq!(store.stored().await, [1, 2, 3, 4, 5]);
    store.write(Write::NoAlarm(9)).await;
    store.write(Write::NoGroup("g".into())).await;
    store.end();
    let store = start(settings(&path));
    let expected = Recovered { alarms: vec![], groups: vec![], relations: vec![], ..expected };
    assert_eq!(store.keeper.recovered, expected, "ids and numbers never repeat");
    store.end();
}

#[tokio::test]
async fn a_fetch_gives_what_is_wanted_in_order_and_says_how_far_it_got() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let mut store = start(settings(&path));
    for seq in 1..=100 {
        let device = if seq % 2 == 0 { "press-1" } else { "press-2" };
        let at = now - 10_000 + i64::try_from(seq).unwrap() * 100;
        store.write(message(seq, at, device, &body(&[("temperature", 1.0)], Quality::Good))).await;
    }
    store.write(message(101, now, "press-1", &Body::Presence { online: false, reason: None })).await;
    let chunk = store.fetch(10, 101, 3).await;
    assert_eq!(chunk.messages.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [12, 14, 16]);
    assert_eq!((chunk.after, chunk.upto), (10, 16));
    let chunk = store.fetch(90, 97, 50).await;
    assert_eq!(chunk.messages.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [92, 94, 96]);
    assert_eq!(chunk.upto, 97);
    let wanted = Arc::new([("press-1".into(), Kinds::PROPERTIES)].into());
    for (since, first) in [(now - 5_000, 50), (now - 4_999, 52), (now - 20_000, 2)] {
        let fetch = Fetch {
            group: "g".into(),
            after: 0,
            until: 101,
            since: UnixMillis(since),
            wanted: Arc::clone(&wanted),
            limit: 1,
        };
        assert_eq!(store.ask(fetch).await.messages[0].seq, first, "since {since}");
    }
    let fetch =
        Fetch { group: "g".into(), after: 0, until: 101, since: UnixMillis(now + 1), wanted, limit: 1 };
    let nothing = store.ask(fetch).await;
    assert_eq!((nothing.messages.len(), nothing.upto), (0, 101));
    store.end();
}

#[tokio::test]
async fn messages_go_when_they_are_too_old() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let mut store = start(settings(&path));
    for seq in 1..=2000 {
        let at = if seq <= 1990 { now - 4_000_000 } else { now };
        store.write(temperature(seq, at)).await;
    }
    let deadline = clock::instant() + Duration::from_secs(30);
    let mut seq = 2001;
    while store.stored().await.first().is_some_and(|first| *first <= 1990) {
        assert!(clock::instant() < deadline);
        store.write(temperature(seq, now)).await;
        seq += 1;
    }
    assert_eq!(store.stored().await[..10], (1991..=2000).collect::<Vec<_>>());
    store.end();
}

#[tokio::test]
async fn the_file_stays_below_its_bound_and_the_newest_messages_stay_in_it() {
    const MOST: u64 = 1 << 20;
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let mut store = start(config::History { max_bytes: MOST, ..settings(&path) });
    let payload = "x".repeat(1000);
    let mut largest = 0;
    for seq in 1..=6000_u64 {
        let body = Body::Properties(vec![Report {
            property: 0,
            id: "temperature".into(),
            value: Value::text(payload.as_str()),
            at: UnixMillis(0),
            quality: Quality::Good,
        }]);
        store.write(message(seq, now, "press-1", &body)).await;
        if seq % 100 == 0 {
            store.fetch(seq - 1, seq, 1).await;
            let length =
                |part: &str| fs::metadata(format!("{}{part}", path.display())).map_or(0, |file| file.len());
            largest = largest.max(length(""));
        }
    }
    // What is read in several pieces has holes while it is still trimmed.
    let mut stored = Vec::new();
    let deadline = clock::instant() + Duration::from_secs(30);
    loop {
        let before = std::mem::replace(&mut stored, store.stored().await);
        if stored == before {
            break;
        }
        assert!(clock::instant() < deadline, "it is trimmed for ever");
    }
    assert_eq!(stored.last(), Some(&6000));
    assert!(stored.len() > 300, "most of the allowance is used: {}", stored.len());
    assert_eq!(stored.len(), usize::try_from(6000 - stored[0] + 1).unwrap(), "without holes");
    store.end();
    let length = fs::metadata(&path).unwrap().len();
    assert!(length <= MOST && length > MOST / 4, "{length} bytes");
    assert!(largest <= 3 * MOST, "{largest} bytes while it was written at full speed");
}

#[tokio::test]
async fn damage_that_shows_later_costs_the_past_and_not_the_present() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let store = start(settings(&path));
    for seq in 1..=3000 {
        store.write(temperature(seq, now)).await;
    }
    store.end();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(12 * 4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 12 * 4096]).unwrap();
    drop(file);
    let mut store = start(settings(&path));
    let mut anew = !set_aside(&path).is_empty();
    for seq in 3001..=3100 {
        store.write(temperature(seq, now)).await;
    }
    let fetch = Fetch {
        group: "g".into(),
        after: 0,
        until: 3000,
        since: UnixMillis(0),
        wanted: Arc::new([("press-1".into(), Kinds::PROPERTIES)].into()),
        limit: 10_000,
    };
    store.keeper.jobs.send(Job::Fetch(fetch)).await.unwrap();
    let deadline = clock::instant() + Duration::from_secs(30);
    while !anew {
        assert!(clock::instant() < deadline);
        let news = timeout(Duration::from_secs(30), store.keeper.news.recv()).await.unwrap().unwrap();
        anew = matches!(news, News::Anew);
    }
    assert_eq!(set_aside(&path).iter().filter(|file| !file.to_string_lossy().contains("-wal")).count(), 1);
    store.write(temperature(3101, now)).await;
    while store.stored().await.last() != Some(&3101) {
        assert!(clock::instant() < deadline);
    }
    store.end();
    let mut store = start(settings(&path));
    let stored: BTreeSet<u64> = store.stored().await.into_iter().collect();
    assert!(stored.contains(&3101), "{stored:?}");
    store.end();
}

#[tokio::test]
async fn nothing_that_was_handed_over_is_lost_when_the_process_is_killed() {
    if let Ok(path) = std::env::var(CHILD) {
        write_until_killed(Path::new(&path)).await;
    }
    let (_folder, path) = folder();
    let name = "store::tests::nothing_that_was_handed_over_is_lost_when_the_process_is_killed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let numbers =
        lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("taken ")?.parse::<u64>().ok());
    let mut taken = 0;
    for number in numbers {
        taken = number;
        if taken >= 3000 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(taken >= 3000, "the child has written something");
    let mut store = start(settings(&path));
    assert!(store.keeper.recovered.seq >= taken);
    let stored: BTreeSet<u64> = store.stored().await.into_iter().collect();
    assert!((1..=taken).all(|seq| stored.contains(&seq)), "up to {taken}");
    store.end();
}

/// Writes and says what the store has taken over. A commit is an hour away.
async fn write_until_killed(path: &Path) {
    let mut store = start(config::History { commit_every: Duration::from_secs(3600), ..settings(path) });
    let now = clock::wall().0;
    for seq in 1.. {
        store.write(temperature(seq, now)).await;
        if seq % 50 == 0 {
            store.fetch(seq - 1, seq, 1).await;
            println!("taken {seq}");
        }
    }
}

//! The conversation as a whole, against hub answers given by hand, and what the tests of the other files share.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::clock;
use crate::dialects::shared::logins::Logins;
use crate::dialects::{Closing, Input, Origin, Output, Seal, Session, Token};
use crate::model::client::{Client, ClientBook, DeviceFilter, Dialect, Rights, Secret};
use crate::model::device::{Device, Gateway};
use crate::model::directory::Directory;
use crate::model::interest::{GroupAnswer, GroupAsk, Selector};
use crate::model::message::{Body, DeviceMessage};
use crate::model::product::Product;
use crate::model::snapshot::{Answer, Question};
use crate::model::time::UnixMillis;
use crate::text::Text;

/// The typeId of the vendor's example.
pub(super) const PRESS: &str = "101c1200240008101e0a00000141414100000000020000000000000000000000";

const SIGN: &str = "1d190fbf1a423c8f10275103cb2b911b0967cef0326e7407ac4480c8099353cd";

/// The client of the worked signs.
pub(super) fn client() -> Client {
    seeing(["*"])
}

/// The same client with another device filter.
pub(super) fn seeing<const N: usize>(devices: [&str; N]) -> Client {
    Client {
        id: "SV-EDGE-0001".into(),
        secret: Secret::new("k3y-Secret"),
        dialects: Dialect::ALL.to_vec(),
        devices: DeviceFilter::new(devices),
        rights: Rights::ALL,
    }
}

/// A gateway with one meter and two presses.
pub(super) fn context(timestamp_window: Option<Duration>) -> Arc<Context> {
    let product = |id: &str, type_id: &str| {
        Arc::new(Product {
            id: id.into(),
            name: id.into(),
            type_id: type_id.into(),
            properties: Vec::new(),
            functions: Vec::new(),
            events: Vec::new(),
        })
    };
    let (meter, press) = (product("eastron-sdm120", "eastron-sdm120"), product("press", PRESS));
    let device = |id: &str, product: &Arc<Product>, mac: &str| {
        Arc::new(Device {
            id: id.into(),
            name: id.into(),
            product: Arc::clone(product),
            link: "rs485".into(),
            project: "1".into(),
            area: "1".into(),
            tags: Vec::new(),
            uuid: format!("AAAA-BBBB-CCCC-00{}", mac.trim_start_matches('0')).into(),
            mac: mac.into(),
        })
    };
    let devices = vec![
        device("meter-1", &meter, "0000000000B1"),
        device("press-1", &press, "0000000000A1"),
        device("press-2", &press, "0000000000A2"),
    ];
    let mut janus_only = client();
    janus_only.id = "janus-only".into();
    janus_only.dialects = vec![Dialect::Janus];
    Arc::new(Context {
        gateway: Gateway {
            id: "demo".into(),
            name: "demo".into(),
            project: "1".into(),
            area: "1".into(),
            timezone: jiff::tz::TimeZone::UTC,
            clock: crate::model::time::Trust::Auto,
        },
        directory: Arc::new(Directory::new(devices, Vec::new())),
        clients: Arc::new(ClientBook::new(vec![Arc::new(client()), Arc::new(janus_only)])),
        settings: crate::dialects::Settings {
            uplus: Settings { timestamp_window, ..Settings::default() },
            ..crate::dialects::Settings::default()
        },
        seal: Seal { key: [7; 32], made: epoch() },
        frame_bytes: 1 << 20,
    })
}

/// An upgrade request with this query.
pub(super) fn request(query: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".to_owned(),
        path: PATH.to_owned(),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        headers: Vec::new(),
        body: Bytes::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        origin: Origin { secure: false, host: "localhost".to_owned() },
        upgrade: true,
        logins: Logins::default(),
    }
}

/// This wall-clock time.
pub(super) fn now_at(millis: i64) -> Now {
    Now::new(epoch(), UnixMillis(millis))
}

fn epoch() -> Instant {
    clock::instant()
}

/// A session and what it wants of the hub.
struct Rig {
    session: Box<dyn Session>,
    sent: Vec<String>,
    asks: Vec<(Token, GroupAsk)>,
    closed: Option<u16>,
}

impl Rig {
    fn arrive(query: &[(&str, &str)]) -> Self {
        Self::at(&context(None), query)
    }

    fn at(context: &Arc<Context>, query: &[(&str, &str)]) -> Self {
        let Opening::Upgrade(upgrade) = open(&request(query), context, now_at(1_700_000_000_000)) else {
            panic!("not upgraded");
        };
        let mut rig = Self { session: upgrade.session, sent: Vec::new(), asks: Vec::new(), closed: None };
        rig.feed(Input::Open);
        rig
    }

    fn logged_in() -> Self {
        let query = [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000000"), ("sign", SIGN)];
        let mut rig = Self::arrive(&query);
        rig.answer(GroupAnswer::Joined);
        rig.sent.clear();
        rig
    }

    fn feed(&mut self, input: Input) {
        self.session.handle(input, now_at(1_700_000_000_000));
        while let Some(output) = self.session.poll() {
            assert_eq!(self.closed, None, "nothing follows a close: {output:?}");
            match output {
                Output::Send(text) => self.sent.push(text.to_string()),
                Output::Close { code, reason } => {
                    assert!(reason.len() <= 123, "{reason}");
                    self.closed = Some(code);
                }
                Output::Ask { token, question: Question::Group(ask), .. } => self.asks.push((token, ask)),
                Output::Ask { .. } | Output::Watch { .. } | Output::Submit { .. } | Output::Respond(_) => {
                    panic!("not for this dialect: {output:?}");
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.feed(Input::Text(Text::from(text.to_owned())));
    }

    /// Answers the oldest ask.
    fn answer(&mut self, answer: GroupAnswer) -> GroupAsk {
        let (token, ask) = self.asks.remove(0);
        self.feed(Input::Answer(token, Answer::Group(answer)));
        ask
    }

    fn message(&mut self, seq: u64) {
        let device = Arc::clone(context(None).directory.device("press-1").unwrap());
        let body = Body::Presence { online: true, reason: None };
        self.feed(Input::Message(Arc::new(DeviceMessage::new(seq, UnixMillis(0), device, body))));
    }

    /// The `cmd` or `topic` of everything sent, with the code where there is one.
    fn said(&mut self) -> Vec<String> {
        let name = |text: String| {
            let json: Json = serde_json::from_str(&text).unwrap();
            let name = json["cmd"].as_str().or(json["topic"].as_str()).unwrap().to_owned();
            json["data"]["code"].as_str().map_or(name.clone(), |code| format!("{name} {code}"))
        };
        self.sent.drain(..).map(name).collect()
    }
}

fn change(cmd: &str, topic: &str, type_id: &str) -> String {
    format!(
        "{{'cmd':'{cmd}','data':{{'subdata':[{{'topic':'{topic}','keys':{{'typeId':['{type_id}']}}}}]}}}}"
    )
}

#[test]
fn only_its_own_path_is_taken_and_only_a_websocket_is_served() {
    let respond = |path: &str, method: &str, upgrade: bool| {
        let request = Request { path: path.to_owned(), method: method.to_owned(), upgrade, ..request(&[]) };
        match open(&request, &context(None), now_at(0)) {
            Opening::NotMine => 404,
            Opening::Respond(response) => response.status,
            Opening::Upgrade(_) => 101,
            Opening::Call(_) | Opening::Carry(_) => 200,
        }
    };
    let slash = format!("{PATH}/");
    assert_eq!(respond(PATH, "GET", true), 101);
    assert_eq!(respond(&slash, "GET", true), 101);
    assert_eq!(respond(PATH, "GET", false), 426);
    assert_eq!(respond(PATH, "POST", false), 405);
    for other in ["/", "/wssubscriber", "/wsserver/websocket", &format!("{slash}/"), &format!("{PATH}x")] {
        assert_eq!(respond(other, "GET", true), 404, "{other}");
    }
}

#[test]
fn a_failed_login_hears_why_and_is_closed() {
    let mut rig = Rig::arrive(&[("systemId", "SV-EDGE-0001"), ("timestamp", "1"), ("sign", SIGN)]);
    rig.say("{'cmd':'keepAlive'}");
    let expected = json!({
        "cmd": "authenticate-ack",
        "data": {
            "code": "00001", "result": "fail", "systemId": "SV-EDGE-0001", "desc": "authentication failed",
        },
    });
    assert_eq!(rig.sent.len(), 1);
    assert_eq!(serde_json::from_str::<Json>(&rig.sent[0]).unwrap(), expected);
    assert_eq!(rig.closed, Some(1008));
    assert!(rig.asks.is_empty());
}

#[test]
fn the_login_ack_is_the_first_message_whatever_the_client_has_sent_before() {
    let query = [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000000"), ("sign", SIGN)];
    let mut rig = Rig::arrive(&query);
    rig.say(&change("subscribe", "DEV_EVENT", PRESS));
    rig.say("{'cmd':'keepAlive'}");
    rig.message(1);
    assert!(rig.sent.is_empty());
    let join = rig.answer(GroupAnswer::Joined);
    assert_eq!(
        join,
        GroupAsk::Join { group: "SV-EDGE-0001".into(), limit: 16, retain: Duration::from_secs(86_400) }
    );
    let hold = rig.answer(GroupAnswer::Done);
    let GroupAsk::Hold { relations, .. } = hold else { panic!("{hold:?}") };
    assert_eq!(relations[0].interest.selector, Selector::TypeId(PRESS.into()));
    assert_eq!(
        rig.said(),
        ["authenticate-ack 00000", "DEV_EVENT", "subscribe-ack 00000", "keepAlive-ack 00000"]
    );
}

#[test]
fn an_ack_about_a_type_id_has_the_form_that_is_set() {
    let query = [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000000"), ("sign", SIGN)];
    let by_device = format!("{PRESS}_0000000000A1_DEV_STATUS");
    for (desc, by_type) in
        [(Desc::Online, format!("{PRESS}_online_DEV_STATUS")), (Desc::Plain, format!("{PRESS}_DEV_STATUS"))]
    {
        let mut context = context(None);
        Arc::get_mut(&mut context).unwrap().settings.uplus.desc = desc;
        let mut rig = Rig::at(&context, &query);
        rig.answer(GroupAnswer::Joined);
        for (cmd, done) in [("subscribe", "subscribed"), ("unsubscribe", "unsubscribed")] {
            let device = json!([{"typeId": PRESS, "mac": ["0000000000A1"]}]);
            let subdata = json!([
                {"topic": "DEV_STATUS", "keys": {"typeId": [PRESS]}},
                {"topic": "DEV_STATUS", "keys": {"deviceId": device}},
            ]);
            rig.say(&json!({"cmd": cmd, "data": {"subdata": subdata}}).to_string());
            rig.answer(GroupAnswer::Done);
            let ack: Json = serde_json::from_str(rig.sent.last().unwrap()).unwrap();
            let expected = format!("Topic [{by_type}] {done} ok,Topic [{by_device}] {done} ok");
            assert_eq!(ack["data"]["desc"], expected.as_str());
        }
    }
}

#[test]
fn a_full_group_turns_the_newcomer_away() {
    let query = [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000000"), ("sign", SIGN)];
    let mut rig = Rig::arrive(&query);
    rig.answer(GroupAnswer::Full);
    assert_eq!(rig.said(), ["authenticate-ack 00001"]);
    assert_eq!(rig.closed, Some(4500));
}

#[test]
fn the_example_of_the_vendors_page_is_answered_word_for_word() {
    let mut rig = Rig::logged_in();
    let request = |cmd: &str| {
        json!({
            "cmd": cmd, "data": {"subdata": [{"topic": "DEV_EVENT", "keys": {"typeId": [PRESS]}}]},
        })
        .to_string()
    };
    let change = |cmd: &str, done: &str| {
        format!(
            "{{\"cmd\":\"{cmd}-ack\",\"data\":{{\"code\":\"00000\",\"result\":\"success\",\
             \"systemId\":\"SV-EDGE-0001\",\"desc\":\"Topic [{PRESS}_online_DEV_EVENT] {done} ok\"}}}}"
        )
    };
    let search = |cmd: &str| {
        format!(
            "{{\"cmd\":\"{cmd}-ack\",\"data\":{{\"code\":\"00000\",\"result\":\"success\",\
             \"retdata\":[{{\"topic\":\"DEV_EVENT\",\"keys\":{{\"typeId\":[\"{PRESS}\"]}}}}]}}}}"
        )
    };
    rig.say(&request("subscribe"));
    rig.answer(GroupAnswer::Done);
    rig.say("{\"cmd\": \"searchSystem\"}");
    let label = format!("DEV_EVENT {PRESS}");
    assert_eq!(rig.answer(GroupAnswer::Relations(vec![label.as_str().into()])), GroupAsk::All);
    rig.say("{\"cmd\": \"searchClient\"}");
    assert_eq!(rig.answer(GroupAnswer::Relations(vec![label.as_str().into()])), GroupAsk::Mine);
    rig.say(&request("unsubscribe"));
    assert_eq!(rig.answer(GroupAnswer::Done), GroupAsk::Release(vec![label.as_str().into()]));
    assert_eq!(
        rig.sent,
        [
            change("subscribe", "subscribed"),
            search("searchSystem"),
            search("searchClient"),
            change("unsubscribe", "unsubscribed"),
        ]
    );
}

#[test]
fn acks_come_in_the_order_of_the_requests() {
    let mut rig = Rig::logged_in();
    rig.say(&change("subscribe", "DEV_EVENT", PRESS));
    rig.say("{'cmd':'keepAlive'}");
    rig.say("{'cmd':");
    rig.say("{'cmd':'searchClient'}");
    rig.say("{'cmd':'keepAlive'}");
    assert_eq!(rig.asks.len(), 1, "one command is under way at a time");
    rig.answer(GroupAnswer::Done);
    rig.answer(GroupAnswer::Relations(Vec::new()));
    assert_eq!(
        rig.said(),
        [
            "subscribe-ack 00000",
            "keepAlive-ack 00000",
            "error-ack 34001",
            "searchClient-ack 00000",
            "keepAlive-ack 00000",
        ]
    );
}

#[test]
fn a_push_never_overtakes_the_ack_of_its_subscription() {
    let mut rig = Rig::logged_in();
    rig.say(&change("subscribe", "DEV_EVENT", PRESS));
    rig.message(1);
    rig.message(2);
    assert!(rig.sent.is_empty());
    rig.answer(GroupAnswer::Done);
    assert_eq!(rig.said(), ["subscribe-ack 00000", "DEV_EVENT", "DEV_EVENT"]);
}

#[test]
fn an_empty_group_closes_after_the_ack() {
    let mut rig = Rig::logged_in();
    rig.say(&change("unsubscribe", "DEV_EVENT", PRESS));
    rig.answer(GroupAnswer::Done);
    assert_eq!(rig.closed, None);
    rig.feed(Input::GroupEmpty);
    assert_eq!(rig.said(), ["unsubscribe-ack 00000"]);
    assert_eq!(rig.closed, Some(1000));
}

#[test]
fn a_subscription_that_follows_at_once_keeps_the_session_open() {
    let mut rig = Rig::logged_in();
    rig.say(&change("unsubscribe", "DEV_EVENT", PRESS));
    rig.say(&change("subscribe", "DEV_STATUS", PRESS));
    rig.answer(GroupAnswer::Done);
    rig.feed(Input::GroupEmpty);
    rig.answer(GroupAnswer::Done);
    assert_eq!(rig.said(), ["unsubscribe-ack 00000", "subscribe-ack 00000"]);
    assert_eq!(rig.closed, None);
}

#[test]
fn searches_have_one_entry_per_topic_in_order() {
    let mut rig = Rig::logged_in();
    rig.say("{'cmd':'searchSystem'}");
    let labels = [
        "DEV_STATUS a".to_owned(),
        "DEV_EVENT *".to_owned(),
        format!("DEV_STATUS {PRESS} 0000000000A1"),
        "DEV_STATUS b".to_owned(),
        format!("DEV_STATUS {PRESS} 0000000000A2"),
    ];
    rig.answer(GroupAnswer::Relations(labels.into_iter().map(Arc::from).collect()));
    let answer: Json = serde_json::from_str(&rig.sent[0]).unwrap();
    let devices = json!([{"typeId": PRESS, "mac": ["0000000000A1", "0000000000A2"]}]);
    assert_eq!(
        answer["data"],
        json!({
            "code": "00000", "result": "success",
            "retdata": [
                {"topic": "DEV_STATUS", "keys": {"typeId": ["a", "b"], "deviceId": devices}},
                {"topic": "DEV_EVENT", "keys": {"typeId": ["*"]}},
            ],
        })
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_the_dialects_own_error() {
    let rows = [
        (change("subscribe", "DEV_EVENT", "*"), GroupAnswer::NotJoined, "subscribe-ack 34006"),
        (change("unsubscribe", "DEV_EVENT", "*"), GroupAnswer::NotJoined, "unsubscribe-ack 34006"),
        ("{'cmd':'searchSystem'}".to_owned(), GroupAnswer::NotJoined, "searchSystem-ack 34006"),
        ("{'cmd':'searchClient'}".to_owned(), GroupAnswer::Done, "searchClient-ack 34005"),
        (
            "{'cmd':'searchClient'}".to_owned(),
            GroupAnswer::Relations(vec!["?".into()]),
            "searchClient-ack 34005",
        ),
        (change("subscribe", "DEV_EVENT", "*"), GroupAnswer::Full, "subscribe-ack 34999"),
    ];
    for (text, answer, expected) in rows {
        let mut rig = Rig::logged_in();
        rig.say(&text);
        rig.answer(answer);
        assert_eq!(rig.said(), [expected]);
        assert_eq!(rig.closed, None);
    }
}

#[test]
fn a_stale_answer_is_not_taken_for_the_one_under_way() {
    let mut rig = Rig::logged_in();
    rig.say("{'cmd':'searchClient'}");
    rig.feed(Input::Answer(Token(999), Answer::Group(GroupAnswer::Relations(Vec::new()))));
    assert!(rig.sent.is_empty());
}

#[test]
fn a_flood_of_commands_closes_the_connection() {
    let mut rig = Rig::logged_in();
    rig.say(&change("subscribe", "DEV_EVENT", "*"));
    for _ in 0..10_000 {
        rig.say("{'cmd':'keepAlive'}");
    }
    assert_eq!(rig.closed, Some(4500));
}

#[test]
fn binary_messages_are_text_or_close_the_connection() {
    let mut rig = Rig::logged_in();
    rig.feed(Input::Binary(Bytes::from_static(b"{'cmd':'keepAlive'}")));
    assert_eq!(rig.said(), ["keepAlive-ack 00000"]);
    rig.feed(Input::Binary(Bytes::from_static(b"\xff")));
    assert_eq!(rig.closed, Some(1007));
}

#[test]
fn a_driver_that_closes_sends_its_clients_the_code_to_come_again() {
    for closing in [Closing::Shutdown, Closing::TooSlow, Closing::Silent] {
        let mut rig = Rig::logged_in();
        rig.feed(Input::Closing(closing));
        assert_eq!(rig.closed, Some(4500), "{closing:?}");
        rig.message(1);
        rig.say("{'cmd':'keepAlive'}");
        rig.feed(Input::GroupEmpty);
        rig.feed(Input::Closing(closing));
    }
}

#[test]
fn nothing_secret_shows_in_a_debug_print() {
    let query = [("systemId", "SV-EDGE-0001"), ("timestamp", "1700000000000"), ("sign", SIGN)];
    let text = format!("{:?} {:?}", request(&query), Rig::arrive(&query).session);
    assert!(
        !text.contains(SIGN) && !text.contains("k3y-Secret") && !text.contains("1700000000000"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn no_text_ends_a_session_or_makes_it_panic(texts in prop::collection::vec(any::<String>(), 0..4)) {
        let mut rig = Rig::logged_in();
        for text in &texts {
            rig.say(text);
        }
        prop_assert_eq!(rig.sent.len(), texts.len());
        prop_assert_eq!(rig.closed, None);
    }
}

//! What no transcript can show: that no text upsets a session, and what a pattern admits in every position.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::Payload;
use super::command::{Order, Wish};
use super::payload::{self, Replier, Reply, Said};
use super::topic::{self, Pattern};
use super::wire::{self, Frame};
use crate::dialects::shared::fixture;
use crate::dialects::{Input, Opening, Output, Session};
use crate::model::client::{Client, ClientBook, Secret};
use crate::model::command::{ActionKind, Outcome};
use crate::model::interest::Selector;
use crate::model::message::{Body, DeviceMessage, Kinds};
use crate::model::time::{Clock, UnixMillis};
use crate::model::value::Value;

fn session() -> Box<dyn Session> {
    let request = fixture::request("GET", "/messaging/demo", true);
    match super::open(&request, &fixture::context(), fixture::now()) {
        Opening::Upgrade(upgrade) => upgrade.session,
        Opening::NotMine | Opening::Respond(_) | Opening::Call(_) | Opening::Carry(_) => {
            panic!("the upgrade was not accepted")
        }
    }
}

fn drain(session: &mut dyn Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

/// Every text that the session has to say.
fn said(session: &mut dyn Session) -> Vec<Json> {
    let text = |output| match output {
        Output::Send(text) => Some(serde_json::from_str(&text).expect("the session sends JSON")),
        Output::Close { .. }
        | Output::Watch { .. }
        | Output::Submit { .. }
        | Output::Ask { .. }
        | Output::Respond(_) => None,
    };
    drain(session).into_iter().filter_map(text).collect()
}

fn tell(session: &mut dyn Session, text: &str) -> Vec<Json> {
    session.handle(Input::Text(text.to_owned().into()), fixture::now());
    said(session)
}

fn message(body: Body) -> DeviceMessage {
    DeviceMessage::new(1, UnixMillis(1), fixture::press(&fixture::context()), body)
}

#[test]
fn a_path_is_ours_by_its_last_two_segments_only() {
    let context = fixture::context();
    for (path, ours) in [
        ("/messaging/demo", true),
        ("/api/edge/device/1/_ws/messaging/demo/", true),
        ("/messaging", true),
        ("/messaging/demo/more", false),
        ("/api/janus/websocket", false),
        ("/", false),
    ] {
        let opening = super::open(&fixture::request("GET", path, true), &context, fixture::now());
        assert_eq!(matches!(opening, Opening::Upgrade(_)), ours, "{path}");
    }
}

#[test]
fn a_token_can_stand_in_a_path_whatever_the_secret_is() {
    let secret = "a/b c%?#\u{4f60}";
    let mut context = fixture::context();
    let inside = Arc::get_mut(&mut context).expect("a fresh context has one owner");
    let client =
        Client { secret: Secret::new(secret), ..(**inside.clients.clients().first().unwrap()).clone() };
    inside.clients = Arc::new(ClientBook::new(vec![Arc::new(client.clone())]));
    let mut request = fixture::request("POST", "/authorize/login", false);
    request.body = json!({"username": &*client.id, "password": secret}).to_string().into();
    let opening = super::open(&request, &context, fixture::now());
    let Opening::Respond(response) = opening else { panic!("no answer") };
    let answer: Json = serde_json::from_slice(&response.body).unwrap();
    let path = format!("/messaging/{}", answer["result"]["token"].as_str().unwrap());
    assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/%-._~".contains(&byte)), "{path}");
    let opening = super::open(&fixture::request("GET", &path, true), &context, fixture::now());
    let Opening::Upgrade(mut upgrade) = opening else { panic!("not accepted") };
    upgrade.session.handle(Input::Open, fixture::now());
    assert_eq!(said(upgrade.session.as_mut()), [Json::Null; 0], "no authError");
}

#[test]
fn a_call_that_is_no_upgrade_is_told_so() {
    let request = fixture::request("GET", "/messaging/demo", false);
    let opening = super::open(&request, &fixture::context(), fixture::now());
    assert!(matches!(opening, Opening::Respond(response) if response.status == 426));
}

#[test]
fn a_type_is_read_in_any_case_and_as_its_ordinal() {
    for text in [r#"{"ID":7,"Type":"SUB"}"#, r#"{"id":"7","type":1}"#, "{id:'7',type:'Sub',}"] {
        let Frame::Request(request) = wire::read(text) else { panic!("{text} is a request") };
        assert_eq!((request.id.as_deref(), request.kind), (Some("7"), Some(wire::Kind::Sub)), "{text}");
    }
    assert_eq!(wire::read(r#"{"id":"7","type":4}"#), Frame::Illegal);
}

#[test]
fn a_pattern_admits_what_it_says() {
    let report = message(Body::Properties(Vec::new()));
    let online = message(Body::Presence { online: true, reason: None });
    for (pattern, admits_report, admits_online) in [
        ("/device/press/press-1/**", true, true),
        ("/device/*/*/**", true, true),
        ("/device/{p}/{d}/**", true, true),
        ("/device/press/press-2, press-1/online", false, true),
        ("/device/press/press-1/message/property/report", true, false),
        ("/device/*/press-1/message/*/report", true, false),
        ("/device/**/report", true, false),
        ("/device/press/**/**/online,offline", false, true),
        ("/device/other/press-1/**", false, false),
        ("/device/press/press-1", false, false),
        ("/device/press/press-1/message", false, false),
    ] {
        let read = Pattern::parse(pattern).expect(pattern);
        assert_eq!(read.admits(&topic::levels(&report)), admits_report, "{pattern} on a report");
        assert_eq!(read.admits(&topic::levels(&online)), admits_online, "{pattern} on online");
    }
}

#[test]
fn other_topics_are_no_patterns() {
    let deep = format!("/device/p/d{}", "/**".repeat(20));
    let names = |count: usize| format!("/device/p/{}", vec!["d"; count].join(","));
    for topic in ["", "/", "device/p/d/**", "/device", "/device/p", "/devices/p/d/**", "/*/p/d/**", &deep] {
        assert_eq!(Pattern::parse(topic), None, "{topic}");
    }
    assert!(Pattern::parse(&names(256)).is_some());
    assert_eq!(Pattern::parse(&names(257)), None);
}

#[test]
fn a_pattern_asks_for_no_more_kinds_and_devices_than_it_can_admit() {
    let interests = Pattern::parse("/device/press/a,b/message/property/report").unwrap().interests();
    let selectors: Vec<_> = interests.iter().map(|interest| interest.selector.clone()).collect();
    assert_eq!(selectors, [Selector::Device("a".into()), Selector::Device("b".into())]);
    assert!(interests.iter().all(|interest| interest.kinds == Kinds::PROPERTIES));

    let interests = Pattern::parse("/device/press/*/message/**").unwrap().interests();
    assert_eq!(interests[0].selector, Selector::Product("press".into()));
    assert!(!interests[0].kinds.meets(Kinds::PRESENCE.with(Kinds::OTA)));
    assert!(interests[0].kinds.meets(Kinds::EVENT));

    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let interests = Pattern::parse(&format!("/device/*/{}/**", many.join(","))).unwrap().interests();
    assert_eq!(interests.len(), 1);
}

#[test]
fn a_message_appears_under_the_topic_that_its_pattern_matched() {
    let report = message(Body::Properties(Vec::new()));
    assert_eq!(topic::of(&report), "/device/press/press-1/message/property/report");
}

#[test]
fn headers_decide_before_meta_before_header() {
    let read = |parameter: Json| {
        let Json::Object(parameter) = parameter else { panic!("an object") };
        Order::read(&parameter).expect("a command")
    };
    let order = read(json!({
        "messageType": "READ_PROPERTY",
        "header": {"async": true, "timeout": 1},
        "meta": {"async": "true", "timeout": "2500"},
        "headers": {"async": false},
    }));
    assert!(!order.asynchronous);
    assert_eq!(order.timeout.as_millis(), 2500);
    let order = read(json!({"messageType": "read_property", "headers": {"timeout": 1e300}}));
    assert_eq!(order.timeout.as_secs(), 60);
    let order = read(json!({"messageType": "read_property", "headers": {"timeout": -5}}));
    assert_eq!(order.timeout.as_secs(), 10);
}

#[test]
fn a_message_type_is_guessed_only_where_the_real_server_does() {
    for (parameter, reads) in [
        (json!({"properties": ["a"]}), true),
        (json!({"functionId": "f", "inputs": []}), true),
        (json!({"properties": {"a": 1}}), false),
        (json!({"messageType": "Read_Property", "properties": ["a"]}), false),
        (json!({"messageType": 3}), false),
        (json!({}), false),
    ] {
        let Json::Object(members) = &parameter else { panic!("an object") };
        assert_eq!(Order::read(members).is_some(), reads, "{parameter}");
    }
}

#[test]
fn an_unnamed_call_is_followed_only_where_one_call_can_be_meant() {
    let product = &fixture::press(&fixture::context()).product;
    for (properties, follows) in [
        (json!({"reset": {"code": 7}}), true),
        (json!({"code": 7}), true),
        (json!({"reset": 7}), false),
        (json!({"code": 7, "speed": 1}), false),
        (json!({}), false),
    ] {
        let parameter = json!({"messageType": "INVOKE_FUNCTION", "properties": properties});
        let Json::Object(members) = &parameter else { panic!("an object") };
        let wish: Wish = Order::read(members).expect("a command").wish;
        assert_eq!(wish.action(product).is_ok(), follows, "{parameter}");
    }
}

#[test]
fn the_payload_setting_decides_what_stands_beside_or_instead_of_the_envelope() {
    let context = fixture::context();
    let press = fixture::press(&context);
    let confirmed = Outcome::Confirmed {
        values: vec![("temperature".into(), Value::Float(20.0)), ("success".into(), Value::Int(7))],
        outputs: Vec::new(),
    };
    let rendered = |outcome: &Outcome, form| {
        let reply = Reply {
            kind: ActionKind::Read,
            message_id: "m",
            function: None,
            from: Replier::Device(&press),
            at: UnixMillis(1),
            said: Said::Outcome(outcome),
        };
        Json::Object(reply.render(form))
    };
    let values = json!({"temperature": 20.0, "success": 7});
    assert_eq!(rendered(&confirmed, Payload::Seed), values);
    let envelope = rendered(&confirmed, Payload::Jetlinks);
    assert_eq!(envelope["properties"], values);
    assert_eq!(envelope.get("temperature"), None);
    let merged = rendered(&confirmed, Payload::Merged);
    assert_eq!(merged["temperature"], 20.0);
    assert_eq!(merged["success"], true, "the envelope goes before a property of the same name");
    for form in [Payload::Seed, Payload::Jetlinks, Payload::Merged] {
        assert_eq!(rendered(&Outcome::TimedOut, form)["code"], "TIME_OUT");
    }
}

#[test]
fn a_flat_payload_is_told_apart_by_its_topic() {
    let mut context = Arc::into_inner(fixture::context()).expect("nobody else holds it");
    context.settings.sagoo.payload = Payload::Seed;
    let request = fixture::request("GET", "/messaging/demo", true);
    let Opening::Upgrade(mut upgrade) = super::open(&request, &Arc::new(context), fixture::now()) else {
        panic!("the upgrade was not accepted");
    };
    let topic = "/device-message-sender/any/press-1,press-2";
    let request =
        json!({"id": "r", "type": "sub", "topic": topic, "parameter": {"messageType": "READ_PROPERTY"}});
    upgrade.session.handle(Input::Text(request.to_string().into()), fixture::now());
    let done = Arc::new(Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() });
    for output in drain(upgrade.session.as_mut()) {
        if let Output::Submit { token, .. } = output {
            upgrade.session.handle(Input::Outcome(token, Arc::clone(&done)), fixture::now());
        }
    }
    let topics: Vec<_> = said(upgrade.session.as_mut()).iter().map(|frame| frame["topic"].clone()).collect();
    assert_eq!(
        topics,
        [
            json!("/device-message-sender/press/press-1"),
            json!("/device-message-sender/press/press-2"),
            Json::Null,
        ]
    );
}

#[test]
fn a_long_command_is_not_copied_for_many_devices() {
    let mut session = session();
    let value = "x".repeat(100_000);
    let devices = vec!["press-1"; 30].join(",");
    let topic = format!("/device-message-sender/press/{devices}");
    let parameter = json!({"messageType": "WRITE_PROPERTY", "properties": {"setpoint": value}});
    let request = json!({"id": "r", "type": "sub", "topic": topic, "parameter": parameter});
    let said = tell(session.as_mut(), &request.to_string());
    assert_eq!(said.iter().map(|frame| &frame["type"]).collect::<Vec<_>>(), ["error", "complete"]);
}

#[test]
fn a_command_with_an_endless_id_of_its_own_reaches_no_device() {
    let mut session = session();
    let read = |message_id: &str| {
        let parameter = json!({"messageType": "READ_PROPERTY", "messageId": message_id});
        let topic = "/device-message-sender/press/press-1";
        json!({"id": "r", "type": "sub", "topic": topic, "parameter": parameter}).to_string()
    };
    session.handle(Input::Text(read(&"m".repeat(1025)).into()), fixture::now());
    let outputs = drain(session.as_mut());
    assert!(outputs.iter().all(|output| matches!(output, Output::Send(_))), "{outputs:?}");
    assert_eq!(outputs.len(), 2, "an error, and the end of the request");
    session.handle(Input::Text(read(&"m".repeat(1024)).into()), fixture::now());
    assert!(matches!(drain(session.as_mut()).as_slice(), [Output::Submit { .. }]));
}

#[test]
fn a_socket_takes_no_more_open_requests_than_its_limit() {
    let mut session = session();
    for at in 0..256 {
        let text = format!(r#"{{"id":{at},"type":"sub","topic":"/device/*/*/**"}}"#);
        assert!(tell(session.as_mut(), &text).is_empty());
    }
    let said = tell(session.as_mut(), r#"{"id":"more","type":"sub","topic":"/device/*/*/**"}"#);
    assert_eq!(said.iter().map(|frame| &frame["type"]).collect::<Vec<_>>(), ["error", "complete"]);
    assert!(tell(session.as_mut(), r#"{"id":"3","type":"unsub"}"#).is_empty());
    assert!(tell(session.as_mut(), r#"{"id":"more","type":"sub","topic":"/device/*/*/**"}"#).is_empty());
}

#[test]
fn a_list_of_too_many_devices_is_refused_whole() {
    let mut session = session();
    let devices = vec!["press-1"; 257].join(",");
    let parameter = json!({"messageType": "READ_PROPERTY"});
    let topic = format!("/device-message-sender/press/{devices}");
    let request = json!({"id": "r", "type": "sub", "topic": topic, "parameter": parameter});
    session.handle(Input::Text(request.to_string().into()), fixture::now());
    let outputs = drain(session.as_mut());
    assert!(!outputs.iter().any(|output| matches!(output, Output::Submit { .. })));
    assert_eq!(outputs.len(), 2);
}

#[test]
fn an_outcome_that_nobody_waits_for_is_passed_over() {
    let mut session = session();
    let topic = "/device-message-sender/press/press-1";
    let request =
        json!({"id": "r", "type": "sub", "topic": topic, "parameter": {"messageType": "READ_PROPERTY"}});
    session.handle(Input::Text(request.to_string().into()), fixture::now());
    let tokens = drain(session.as_mut()).into_iter().find_map(|output| match output {
        Output::Submit { token, .. } => Some(token),
        Output::Send(_)
        | Output::Close { .. }
        | Output::Watch { .. }
        | Output::Ask { .. }
        | Output::Respond(_) => None,
    });
    let token = tokens.expect("the command is submitted");
    assert!(tell(session.as_mut(), r#"{"id":"r","type":"unsub"}"#).is_empty());
    session.handle(Input::Outcome(token, Arc::new(Outcome::Offline)), fixture::now());
    session.handle(Input::Accepted(token), fixture::now());
    assert!(said(session.as_mut()).is_empty());
}

/// JSON as a client might send it: any shape, with the names and values of requests among the strings.
fn any_json() -> impl Strategy<Value = Json> {
    let word = prop_oneof![
        3 => prop::sample::select(vec![
            "sub", "unsub", "ping", "pub", "id", "type", "topic", "parameter", "headers", "meta", "async",
            "messageType", "READ_PROPERTY", "WRITE_PROPERTY", "INVOKE_FUNCTION", "properties", "inputs",
            "functionId", "/device/*/*/**", "/device-message-sender/press/*", "/device-current-state",
            "/dashboard/device/press/properties/realTime", "/device-message-sender/press/press-1,none", "deviceId", "press-1", "reset", "code", "timeout",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        word.clone().prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A request that makes sense.
fn sound_request() -> impl Strategy<Value = Json> {
    let topic = prop::sample::select(vec![
        "/device-message-sender/press/press-1",
        "/device-message-sender/press/*",
        "/device-message-sender/press/press-1,press-2,none",
        "/device/press/*/**",
        "/device-current-state",
        "/dashboard/device/press/properties/realTime",
        "/dashboard/device/status/change/realTime",
    ]);
    let kind = prop::sample::select(vec!["READ_PROPERTY", "WRITE_PROPERTY", "INVOKE_FUNCTION"]);
    (topic, kind, any::<bool>(), 0..4_u8).prop_map(|(topic, kind, asynchronous, id)| {
        json!({
            "id": id.to_string(), "type": "sub", "topic": topic,
            "parameter": {
                "messageType": kind, "headers": {"async": asynchronous}, "deviceId": ["press-1"],
                "functionId": "reset", "inputs": [{"name": "code", "value": 7}],
                "properties": {"setpoint": 20.0},
            },
        })
    })
}

/// Feeds a text and then answers all that the session asks for, twice over; every frame must be JSON with a type,
/// and what the session keeps must stay within its limits.
fn survive(session: &mut dyn Session, text: &str) {
    let now = fixture::now();
    session.handle(Input::Text(text.to_owned().into()), now);
    let done = Arc::new(Outcome::Confirmed {
        values: vec![("setpoint".into(), Value::Float(20.0))],
        outputs: Vec::new(),
    });
    for output in drain(session) {
        match output {
            Output::Submit { token, .. } => {
                session.handle(Input::Accepted(token), now);
                session.handle(Input::Outcome(token, Arc::clone(&done)), now);
                session.handle(Input::Outcome(token, Arc::clone(&done)), now);
            }
            Output::Send(text) => {
                let frame: Json = serde_json::from_str(&text).expect("the session sends JSON");
                assert!(frame["type"].is_string(), "{frame}");
            }
            Output::Close { .. } | Output::Respond(_) => panic!("no text closes the socket"),
            Output::Watch { .. } | Output::Ask { .. } => {}
        }
    }
    let report = Arc::new(message(Body::Properties(Vec::new())));
    session.handle(Input::Message(report), now);
    for frame in said(session) {
        assert!(frame["type"].is_string(), "{frame}");
    }
}

proptest! {
    #[test]
    fn no_text_upsets_a_session(texts in prop::collection::vec(any::<String>(), 1..8)) {
        let mut session = session();
        for text in &texts {
            survive(session.as_mut(), text);
        }
    }

    #[test]
    fn no_json_upsets_a_session(texts in prop::collection::vec(any_json(), 1..8)) {
        let mut session = session();
        for text in &texts {
            survive(session.as_mut(), &text.to_string());
        }
    }

    #[test]
    fn no_damaged_request_upsets_a_session(
        requests in prop::collection::vec(
            (sound_request(), any::<prop::sample::Index>(), any::<char>(), any::<bool>()), 1..8),
    ) {
        let mut session = session();
        for (request, at, with, cut) in requests {
            let mut chars: Vec<char> = request.to_string().chars().collect();
            let at = at.index(chars.len());
            if cut { chars.truncate(at) } else { chars[at] = with }
            survive(session.as_mut(), &String::from_iter(chars));
        }
    }

    #[test]
    fn every_request_that_ends_is_completed_once(requests in prop::collection::vec(sound_request(), 1..6)) {
        let mut session = session();
        for (at, mut request) in requests.into_iter().enumerate() {
            request["id"] = Json::from(at.to_string());
            let ends = request["topic"].as_str().is_some_and(|topic| topic.starts_with("/device-message"));
            session.handle(Input::Text(request.to_string().into()), fixture::now());
            let mut completed = 0;
            let mut outputs = drain(session.as_mut());
            while !outputs.is_empty() {
                for output in std::mem::take(&mut outputs) {
                    match output {
                        Output::Submit { token, .. } => {
                            session.handle(Input::Outcome(token, Arc::new(Outcome::TimedOut)), fixture::now());
                        }
                        Output::Send(text) => completed += usize::from(text.contains(r#""type":"complete""#)),
                        Output::Close { .. } | Output::Respond(_) | Output::Watch { .. }
                        | Output::Ask { .. } => {}
                    }
                }
                outputs = drain(session.as_mut());
            }
            prop_assert_eq!(completed, usize::from(ends));
        }
    }
}

#[test]
fn a_time_that_may_be_wrong_is_marked_among_the_headers() {
    let body = Body::Presence { online: true, reason: None };
    let message = DeviceMessage::new(1, UnixMillis(1), fixture::press(&fixture::context()), body);
    assert!(!payload::live(&message)["headers"].to_string().contains("clock"));
    assert_eq!(payload::live(&message.by(Clock::Unsynchronised))["headers"]["clock"], "unsynchronised");
}

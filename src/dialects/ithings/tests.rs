//! What no transcript can show: that no text and no body upsets a session, and how parameters are compared.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::subscription::{Subject, Subscription, Wanted};
use super::wire;
use super::{Push, push};
use crate::dialects::shared::fixture;
use crate::dialects::{Closing, Context, Input, Opening, Output, Request, Response, Session};
use crate::model::command::{Command, Outcome, Rejection};
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::snapshot::Answer;
use crate::model::time::{Clock, UnixMillis};
use crate::model::value::{Quality, Value};

const CONTROL: &str = "/api/v1/things/device/interact/property-control-send";
const PATHS: [&str; 6] = [
    CONTROL,
    "/api/v1/things/device/interact/property-control-multi-send",
    "/api/v1/things/device/interact/property-get-report-send",
    "/api/v1/things/device/interact/property-get-report-multi-send",
    "/api/v1/things/device/interact/action-send",
    "/api/v1/things/device/msg/property-latest/index",
];

fn request(method: &str, path: &str, upgrade: bool) -> Request {
    let mut request = fixture::request(method, path, upgrade);
    request.query.push(("token".to_owned(), "demo".to_owned()));
    request
}

fn open(request: &Request, context: &Arc<Context>) -> Opening {
    super::open(request, context, fixture::now())
}

fn session() -> Box<dyn Session> {
    let mut session = match open(&request("GET", super::CONNECT, true), &fixture::context()) {
        Opening::Upgrade(upgrade) => upgrade.session,
        Opening::NotMine | Opening::Respond(_) | Opening::Call(_) | Opening::Carry(_) => {
            panic!("the upgrade was not accepted")
        }
    };
    session.handle(Input::Open, fixture::now());
    assert_eq!(drain(session.as_mut()).len(), 1, "a greeting");
    session
}

fn drain(session: &mut dyn Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn tell(session: &mut dyn Session, text: &str) -> Vec<Output> {
    session.handle(Input::Text(text.to_owned().into()), fixture::now());
    drain(session)
}

fn frame(output: &Output) -> Option<Json> {
    match output {
        Output::Send(text) => Some(serde_json::from_str(text).expect("the session sends JSON")),
        Output::Watch { .. } => None,
        Output::Close { .. } | Output::Submit { .. } | Output::Ask { .. } | Output::Respond(_) => {
            panic!("a socket only sends and watches")
        }
    }
}

fn report(context: &Context) -> Arc<DeviceMessage> {
    let value = |property, id: &str, value, quality| {
        let (id, at) = (id.into(), UnixMillis(1));
        Report { property, id, value, at, quality }
    };
    let reports = vec![
        value(0, "temperature", Value::Float(40.0), Quality::Good),
        value(1, "setpoint", Value::Null, Quality::Bad),
        value(2, "running", Value::Bool(true), Quality::Good),
    ];
    Arc::new(DeviceMessage::new(1, UnixMillis(1), fixture::press(context), Body::Properties(reports)))
}

/// Runs a call to its answer, with every command settled like this.
fn answer(opening: Opening, outcome: &Arc<Outcome>) -> (Vec<Command>, Response) {
    let mut session = match opening {
        Opening::Call(session) => session,
        Opening::Respond(response) => return (Vec::new(), response),
        Opening::NotMine | Opening::Upgrade(_) | Opening::Carry(_) => panic!("no call"),
    };
    let now = fixture::now();
    session.handle(Input::Open, now);
    let (mut commands, mut response) = (Vec::new(), None);
    loop {
        let outputs = drain(session.as_mut());
        if outputs.is_empty() {
            break;
        }
        for output in outputs {
            match output {
                Output::Submit { token, command, .. } => {
                    if command.notify_accepted {
                        session.handle(Input::Accepted(token), now);
                    }
                    session.handle(Input::Outcome(token, Arc::clone(outcome)), now);
                    commands.push(command);
                }
                Output::Ask { token, .. } => {
                    session.handle(Input::Answer(token, Answer::Snapshot(Arc::default())), now);
                }
                Output::Respond(answer) => assert!(response.replace(answer).is_none(), "answered twice"),
                Output::Send(_) | Output::Close { .. } | Output::Watch { .. } => {
                    panic!("a call only answers")
                }
            }
        }
    }
    (commands, response.expect("every call is answered"))
}

fn body(response: &Response) -> Json {
    serde_json::from_slice(&response.body).expect("an answer is JSON")
}

#[test]
fn a_parameter_is_compared_by_what_it_says() {
    let press = fixture::press(&fixture::context());
    let read = |params: Json| {
        let body = json!({"CODE": "devicePropertyReport", "Params": params});
        match Subscription::read(Some(&body)) {
            Ok(Wanted::Known(subscription)) => subscription,
            other => panic!("{other:?}"),
        }
    };
    for (params, admits) in [
        (json!({"projectID": 1}), true),
        (json!({"projectID": "1", "areaID": 1, "unknown": []}), true),
        (json!({"areaID": "1", "projectID": "1", "productID": "press", "deviceName": "press-1"}), true),
        (json!({"projectID": 1, "productID": "meter"}), false),
        (json!({"productID": "press", "deviceName": "press-2"}), false),
        (json!({"projectID": "1786838173980422144"}), false),
    ] {
        assert_eq!(read(params.clone()).is_about(Subject::Property, &press), admits, "{params}");
    }
    assert_eq!(
        read(json!({"projectID": 1_786_838_173_980_422_144_u64})),
        read(json!({"projectID": "1786838173980422144"}))
    );
}

#[test]
fn a_merged_push_keeps_the_envelope_where_a_body_has_the_same_names() {
    let body = Map::from_iter([("code".to_owned(), json!(2_000_004)), ("dir".to_owned(), json!("up"))]);
    let text = wire::push(Push::Merged, "deviceActionReport", body.clone());
    let merged: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(merged["code"], 200);
    assert_eq!(merged["body"]["code"], 2_000_004);
    assert_eq!(merged["dir"], "up");
    let bare: Json = serde_json::from_str(&wire::push(Push::Bare, "deviceActionReport", body)).unwrap();
    assert_eq!(bare, json!({"code": 2_000_004, "dir": "up"}));
    let empty: Json = serde_json::from_str(&wire::push(Push::Merged, "x", Map::new())).unwrap();
    assert_eq!(empty["path"], "x");
}

#[test]
fn overlapping_subscriptions_bring_one_copy_under_each_code() {
    let (context, mut session) = (fixture::context(), session());
    for body in [
        json!({"code": "devicePropertyReport", "params": {"projectID": "1"}}),
        json!({"code": "devicePropertyReport", "params": {"deviceName": "press-1", "identifier": "running"}}),
        json!({"code": "devicePropertyReportV2", "params": {"projectID": "1"}}),
        json!({"code": "devicePropertyReportV2", "params": {"projectID": "1", "areaID": "1"}}),
    ] {
        let outputs = tell(session.as_mut(), &json!({"type": "up.sub", "body": body}).to_string());
        assert!(matches!(outputs.as_slice(), [Output::Send(_), Output::Watch { .. }]), "{outputs:?}");
    }
    session.handle(Input::Message(report(&context)), fixture::now());
    let frames: Vec<_> = drain(session.as_mut()).iter().filter_map(frame).collect();
    let seen: Vec<_> = frames.iter().map(|push| (push["path"].as_str(), &push["identifier"])).collect();
    assert_eq!(
        seen,
        [
            (Some("devicePropertyReport"), &json!("temperature")),
            (Some("devicePropertyReport"), &json!("running")),
            (Some("devicePropertyReportV2"), &Json::Null),
        ]
    );
    assert_eq!(frames[2]["params"], json!({"temperature": 40.0, "running": 1}));
}

#[test]
fn a_socket_takes_no_more_subscriptions_than_its_limit() {
    let mut session = session();
    let subscribe = |at: u32| {
        let params = json!({"deviceName": "press-1", "identifier": at});
        json!({"type": "up.sub", "body": {"code": "devicePropertyReport", "params": params}}).to_string()
    };
    for at in 0..256 {
        assert_eq!(frame(&tell(session.as_mut(), &subscribe(at))[0]).unwrap()["code"], 200);
    }
    assert_eq!(frame(&tell(session.as_mut(), &subscribe(256))[0]).unwrap()["code"], 100_027);
    assert_eq!(frame(&tell(session.as_mut(), &subscribe(0))[0]).unwrap()["code"], 200, "one that is held");
}

#[test]
fn connections_have_different_numbers_and_traces() {
    let context = fixture::context();
    let greeting = || {
        let Opening::Upgrade(mut upgrade) = open(&request("GET", super::CONNECT, true), &context) else {
            panic!("the upgrade was not accepted");
        };
        upgrade.session.handle(Input::Open, fixture::now());
        frame(&upgrade.session.poll().unwrap()).unwrap()
    };
    let (one, other) = (greeting(), greeting());
    assert_ne!(one["handler"]["connectID"], other["handler"]["connectID"]);
    assert_ne!(one["handler"]["Traceparent"], other["handler"]["Traceparent"]);
    let trace = one["handler"]["Traceparent"].as_str().unwrap();
    assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace}");
}

#[test]
fn every_outcome_has_its_number() {
    let context = fixture::context();
    let id = || Arc::<str>::from("setpoint");
    let (expected, found) = (Value::Float(1.0), Value::Float(2.0));
    for (outcome, code) in [
        (Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() }, 200),
        (Outcome::Offline, 2_000_003),
        (Outcome::TimedOut, 2_000_002),
        (Outcome::Busy, 100_017),
        (Outcome::Forbidden, 100_012),
        (Outcome::Rejected(Rejection::UnknownDevice(id())), 100_009),
        (Outcome::Rejected(Rejection::ReadOnly(id())), 100_006),
        (Outcome::Rejected(Rejection::ByDevice("no".to_owned())), 2_000_004),
        (Outcome::Rejected(Rejection::Mismatch { id: id(), expected, found }), 2_000_001),
    ] {
        let mut request = request("POST", CONTROL, false);
        let asked = json!({"productID": "press", "deviceName": "press-1", "data": "{\"setpoint\":1}"});
        request.body = asked.to_string().into();
        let (commands, response) = answer(open(&request, &context), &Arc::new(outcome.clone()));
        assert_eq!(commands.len(), 1);
        assert_eq!(body(&response)["code"], code, "{outcome:?}");
        assert_eq!(response.status, 200);
    }
}

#[test]
fn a_call_that_the_gateways_end_cuts_off_is_answered() {
    let mut request = request("POST", CONTROL, false);
    let asked = json!({"productID": "press", "deviceName": "press-1", "data": {"setpoint": 1}});
    request.body = asked.to_string().into();
    let Opening::Call(mut session) = open(&request, &fixture::context()) else { panic!("a call") };
    session.handle(Input::Open, fixture::now());
    session.handle(Input::Closing(Closing::Shutdown), fixture::now());
    let outputs = drain(session.as_mut());
    assert!(
        matches!(outputs.as_slice(), [Output::Submit { .. }, Output::Respond(response)] if response.status == 503)
    );
}

#[test]
fn a_call_for_too_many_devices_is_refused_whole() {
    let mut request = request("POST", PATHS[1], false);
    let names = vec!["press-1"; 257];
    request.body =
        json!({"productID": "press", "deviceNames": names, "data": {"setpoint": 1}}).to_string().into();
    let (commands, response) = answer(open(&request, &fixture::context()), &Arc::new(Outcome::Offline));
    assert!(commands.is_empty());
    assert_eq!(body(&response)["code"], 100_027);
}

/// JSON as a client might send it: any shape, with the names and values of requests among the strings.
fn any_json() -> impl Strategy<Value = Json> {
    let word = prop_oneof![
        3 => prop::sample::select(vec![
            "type", "body", "code", "params", "path", "method", "handler", "up.sub", "up.unSub", "up.ping",
            "up.control", "down.pub", "devicePropertyReport", "devicePropertyReportV2", "deviceConn", "productID",
            "deviceName", "projectID", "areaID", "identifier", "press", "press-1", "1", "data", "dataIDs",
            "devices", "deviceNames", "isAsync", "syncTimeout", "option", "requestTimeout", "actionID", "reset",
            "inputParams", "shadowControl", "setpoint", "{\"setpoint\":1}",
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

/// A frame that makes sense.
fn sound_frame() -> impl Strategy<Value = Json> {
    let kind = prop::sample::select(vec!["up.sub", "up.unSub", "up.ping", "up.control"]);
    let code = prop::sample::select(vec![
        "devicePropertyReport",
        "devicePropertyReportV2",
        "deviceConn",
        "devicePublish",
        "deviceActionReport",
        "deviceOtaReport",
        "deviceEventReport",
        "somethingNew",
    ]);
    let params = prop::sample::select(vec![
        json!({"productID": "press", "deviceName": "press-1"}),
        json!({"productID": "press", "deviceName": "press-1", "identifier": "running"}),
        json!({"projectID": 1}),
        json!({"projectID": "1", "areaID": "1"}),
    ]);
    (kind, code, params)
        .prop_map(|(kind, code, params)| json!({"type": kind, "body": {"code": code, "params": params}}))
}

fn damaged(json: &Json, at: prop::sample::Index, with: char, cut: bool) -> String {
    let mut chars: Vec<char> = json.to_string().chars().collect();
    let at = at.index(chars.len());
    if cut {
        chars.truncate(at);
    } else {
        chars[at] = with;
    }
    chars.into_iter().collect()
}

/// Feeds a text and then a report; every frame must be JSON with a code.
fn survive(session: &mut dyn Session, context: &Context, text: &str) {
    let mut outputs = tell(session, text);
    session.handle(Input::Message(report(context)), fixture::now());
    outputs.extend(drain(session));
    for frame in outputs.iter().filter_map(frame) {
        assert!(frame["code"].is_number(), "{frame}");
    }
}

proptest! {
    #[test]
    fn no_text_upsets_a_session(texts in prop::collection::vec(any::<String>(), 1..8)) {
        let (context, mut session) = (fixture::context(), session());
        for text in &texts {
            survive(session.as_mut(), &context, text);
        }
    }

    #[test]
    fn no_json_upsets_a_session(texts in prop::collection::vec(any_json(), 1..8)) {
        let (context, mut session) = (fixture::context(), session());
        for text in &texts {
            survive(session.as_mut(), &context, &text.to_string());
        }
    }

    #[test]
    fn no_damaged_request_upsets_a_session(
        frames in prop::collection::vec(
            (sound_frame(), any::<prop::sample::Index>(), any::<char>(), any::<bool>()), 1..8),
    ) {
        let (context, mut session) = (fixture::context(), session());
        for (frame, at, with, cut) in frames {
            survive(session.as_mut(), &context, &frame.to_string());
            survive(session.as_mut(), &context, &damaged(&frame, at, with, cut));
        }
    }

    #[test]
    fn every_call_is_answered_once_whatever_its_body(
        path in prop::sample::select(PATHS.to_vec()),
        json in any_json(),
        named in any::<bool>(),
    ) {
        let mut request = request("POST", path, false);
        let mut json = json;
        if named {
            if let Json::Object(members) = &mut json {
                members.insert("productID".to_owned(), "press".into());
                members.insert("deviceName".to_owned(), "press-1".into());
            }
        }
        request.body = json.to_string().into();
        let (_, response) = answer(open(&request, &fixture::context()), &Arc::new(Outcome::TimedOut));
        prop_assert_eq!(response.status, 200);
        prop_assert!(body(&response)["code"].is_number());
    }

    #[test]
    fn every_call_is_answered_once_whatever_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut request = request("POST", CONTROL, false);
        request.body = bytes.into();
        let (_, response) = answer(open(&request, &fixture::context()), &Arc::new(Outcome::TimedOut));
        prop_assert_eq!(&body(&response)["code"], 100_006);
    }
}

#[test]
fn a_time_that_may_be_wrong_is_marked_in_every_body() {
    let context = fixture::context();
    let bodies = [
        Body::Presence { online: true, reason: None },
        Body::Publish { topic: "t".into(), payload: "p".into() },
    ];
    for body in bodies {
        let message = DeviceMessage::new(1, UnixMillis(1), fixture::press(&context), body);
        assert!(!push::whole(&message, Push::Bare).contains("clock"));
        let marked = push::whole(&message.by(Clock::Unsynchronised), Push::Bare);
        let body: serde_json::Value = serde_json::from_str(&marked).unwrap();
        assert_eq!(body["clock"], "unsynchronised", "{marked}");
    }
}

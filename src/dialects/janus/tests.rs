//! What transcripts cannot show: the ticket's way from the call into the session, headers, settings.

use serde_json::Value as Json;

use super::*;
use crate::dialects::shared::fixture;
use crate::dialects::shared::stomp::rig::{Rig, context, report, upgrade};
use crate::dialects::{Input, Token};
use crate::model::client::{Anonymous, Client, ClientBook, DeviceFilter, Rights, Secret};
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::history::{History, HistoryRow};
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::snapshot::{Answer, Question};
use crate::model::time::{Clock, UnixMillis};
use crate::model::value::{Quality, Value};

const CONNECT: &str = "CONNECT\naccept-version:1.1,1.0\nheart-beat:10000,10000\n\n\0";
const CALL: &str = "/api/janus/websocket";

fn subscribe(id: &str, uuid: &str) -> String {
    format!("SUBSCRIBE\nid:{id}\ndestination:/websocket/deviceData/{uuid}\n\n\0")
}

fn respond(request: &Request, context: &Arc<Context>) -> Response {
    let opening = open(request, context, fixture::now());
    let Opening::Respond(response) = opening else { panic!("no response: {opening:?}") };
    response
}

fn get(query: &[(&str, &str)]) -> Request {
    Request { method: "GET".to_owned(), upgrade: false, ..upgrade(CALL, query) }
}

/// The path and query of the address that the call returns.
fn address(context: &Arc<Context>, query: &[(&str, &str)]) -> String {
    let response = respond(&get(query), context);
    let answer: Json = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(answer["code"], 200, "{answer}");
    let address = answer["data"]["websocket"].as_str().unwrap();
    address.strip_prefix("ws://127.0.0.1:8080").expect("the host that the client used").to_owned()
}

fn ticket(context: &Arc<Context>, token: &str, uuid: &str) -> String {
    let address = address(context, &[("token", token), ("uuid", uuid)]);
    address.strip_prefix("/websocket?ticket=").expect("an address with a ticket").to_owned()
}

fn connect(context: &Arc<Context>, query: &[(&str, &str)], now: Now) -> (Rig, bool) {
    let mut rig = Rig::upgraded(open(&upgrade("/websocket", query), context, now));
    rig.now = now;
    let accepted = rig.send(CONNECT)[0].starts_with("CONNECTED\n");
    (rig, accepted)
}

#[test]
fn a_ticket_opens_its_own_topic_and_no_other() {
    let context = fixture::context();
    let ticket = ticket(&context, "demo", "press-1");
    let (mut rig, accepted) = connect(&context, &[("ticket", &ticket)], fixture::now());
    assert!(accepted);
    assert_eq!(rig.send(&subscribe("0", "press-1")), ["watch"]);
    assert_eq!(rig.send(&subscribe("1", "press-2")), [""; 0]);
    assert_eq!(rig.watched.len(), 1);
}

#[test]
fn a_ticket_is_good_until_its_time_is_over() {
    let context = fixture::context();
    let ticket = ticket(&context, "demo", "press-1");
    for (later, accepted) in [(590, true), (600, false)] {
        for years in [-50, 0, 50] {
            let mut now = fixture::now();
            now.instant += Duration::from_secs(later);
            // The wall clock is set meanwhile.
            now.wall = UnixMillis(now.wall.0 + years * 31_557_600_000);
            assert_eq!(connect(&context, &[("ticket", &ticket)], now).1, accepted, "{later} s later");
        }
    }
}

#[test]
fn a_ticket_opens_its_topic_on_the_path_that_is_shared_too() {
    let context = fixture::context();
    let ticket = ticket(&context, "demo", "press-1");
    let request = upgrade("/ws", &[("ticket", &ticket)]);
    let shared = crate::dialects::endpoints::ws(&request, &context, fixture::now(), Dialect::Oam, true);
    let mut rig = Rig::upgraded(shared);
    assert!(rig.send(CONNECT)[0].starts_with("CONNECTED\n"));
    assert_eq!(rig.send("SUBSCRIBE\nid:a\ndestination:/alarm\n\n\0"), [""; 0], "a ticket opens no alarms");
    assert_eq!(rig.send("SUBSCRIBE\nid:b\ndestination:/ws/deviceData/press-1\n\n\0"), ["watch"]);
}

#[test]
fn a_token_helps_where_a_ticket_has_expired() {
    let context = fixture::context();
    let (_, accepted) = connect(&context, &[("ticket", "00"), ("token", "demo")], fixture::now());
    assert!(accepted);
}

#[test]
fn a_ticket_of_a_client_that_is_gone_opens_nothing() {
    let full = fixture::context();
    let ticket = ticket(&full, "reader", "press-1");
    let without = context(|context| context.clients = Arc::default());
    assert!(!connect(&without, &[("ticket", &ticket)], fixture::now()).1);
}

#[test]
fn a_ticket_ends_with_the_secret_of_its_client() {
    let before = fixture::context();
    let ticket = ticket(&before, "demo", "press-1");
    let after = context(|context| {
        let anew = |client: &Arc<Client>| {
            let secret = Secret::new(format!("{}, another one", client.secret.reveal()));
            Arc::new(Client { secret, ..Client::clone(client) })
        };
        context.clients = Arc::new(ClientBook::new(context.clients.clients().iter().map(anew).collect()));
    });
    assert!(connect(&before, &[("ticket", &ticket)], fixture::now()).1);
    assert!(!connect(&after, &[("ticket", &ticket)], fixture::now()).1);
}

fn with_anonymous(network: &str) -> Arc<Context> {
    context(|context| {
        context.settings.janus.common.anonymous = Some(Anonymous {
            networks: vec![network.parse().unwrap()],
            client: Arc::new(Client {
                id: "anonymous".into(),
                secret: Secret::new(""),
                dialects: vec![Dialect::Janus],
                devices: DeviceFilter::new(["press-1"]),
                rights: Rights::READ,
            }),
        });
    })
}

#[test]
fn an_anonymous_client_comes_in_from_its_network_only() {
    let context = with_anonymous("127.0.0.0/8");
    assert_eq!(address(&context, &[("uuid", "press-1")]), "/websocket");
    let (mut rig, accepted) = connect(&context, &[], fixture::now());
    assert!(accepted);
    assert_eq!(rig.send(&subscribe("0", "press-2")), [""; 0], "its filter holds");
    assert_eq!(rig.send(&subscribe("1", "press-1")), ["watch"]);
    for bad in ["ticket", "token"] {
        assert!(!connect(&context, &[(bad, "00")], fixture::now()).1, "a wrong {bad} is not anonymous");
    }
    assert!(!connect(&with_anonymous("10.0.0.0/8"), &[], fixture::now()).1);
}

#[test]
fn the_answer_can_be_read_from_any_page_and_is_not_cached() {
    let context = fixture::context();
    let response = respond(&get(&[("token", "demo"), ("uuid", "press-1")]), &context);
    let header =
        |name: &str| response.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(header("access-control-allow-origin"), Some("*"));
    assert_eq!(header("cache-control"), Some("no-store"));
}

#[test]
fn the_address_is_secure_where_the_client_came_securely() {
    let context = fixture::context();
    let mut request = get(&[("token", "demo"), ("uuid", "press-1")]);
    request.origin = crate::dialects::Origin { secure: true, host: "barn.local".to_owned() };
    let body = respond(&request, &context).body;
    assert!(String::from_utf8_lossy(&body).contains("\"wss://barn.local/websocket?ticket="));
}

#[test]
fn a_value_that_is_not_good_is_null() {
    let context = fixture::context();
    let (mut rig, _) = connect(&context, &[("token", "demo")], fixture::now());
    rig.send(&subscribe("0", "press-1"));
    let device = fixture::press(&context);
    let stale = ("setpoint", Value::Float(1.0), Quality::Stale);
    rig.input(report(&device, &[("temperature", Value::Float(20.0), Quality::Good), stale]));
    let body =
        r#"{"uuid":"press-1","time":"2023-11-14 22:13:20:000","data":{"temperature":20.0,"setpoint":null}}"#;
    assert!(rig.said[0].ends_with(&format!("\n\n{body}\0")), "{:?}", rig.said);
    rig.said.clear();
    rig.input(report(&device, &[("temperature", Value::Float(20.0), Quality::Bad)]));
    assert!(rig.said[0].ends_with("\"data\":{\"temperature\":null}}\0"), "{:?}", rig.said);
}

#[test]
fn a_dialect_that_is_off_owns_no_path() {
    let context = context(|context| context.settings.janus.common.enabled = false);
    for path in [CALL, "/websocket"] {
        assert!(matches!(open(&upgrade(path, &[]), &context, fixture::now()), Opening::NotMine));
    }
}

#[test]
fn other_paths_are_others() {
    let context = fixture::context();
    for path in ["/", "/api", "/ws", "/api/metric/list", "/websocket/x"] {
        assert!(matches!(open(&upgrade(path, &[]), &context, fixture::now()), Opening::NotMine), "{path}");
    }
}

#[test]
fn a_page_of_any_origin_may_make_the_device_calls() {
    let context = fixture::context();
    let calls = [
        ("OPTIONS", "/api/device/pushdata", "POST, OPTIONS"),
        ("POST", "/api/device/pushdata", "POST, OPTIONS"),
        ("OPTIONS", "/api/device/list", "GET, OPTIONS"),
        ("GET", "/api/device/query", "GET, OPTIONS"),
    ];
    for (method, path, methods) in calls {
        let mut request = Request { method: method.to_owned(), upgrade: false, ..upgrade(path, &[]) };
        request.headers.push(("access-control-request-headers".to_owned(), "x-of-a-framework".to_owned()));
        let response = respond(&request, &context);
        let header = |name: &str| {
            response.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(header("access-control-allow-origin"), Some("*"), "{method} {path}");
        assert_eq!(header("access-control-allow-methods"), Some(methods), "{method} {path}");
        let names = (method == "OPTIONS").then_some("x-of-a-framework");
        assert_eq!(header("access-control-allow-headers"), names, "{method} {path}");
    }
}

#[test]
fn past_values_are_told_page_by_page() {
    let context = context(|context| context.settings.janus.time = TimeForm::Dot);
    let mut request = get(&[("token", "demo"), ("uuid", "press-1"), ("page", "2"), ("fields", "setpoint")]);
    request.path = "/api/device/data".to_owned();
    let Opening::Call(session) = open(&request, &context, fixture::now()) else { panic!("no call") };
    let mut call = Rig::of(session);
    let Question::History(query) = &call.asked[0].1 else { panic!("asked {:?}", call.asked) };
    assert_eq!((&*query.device, query.limit, query.offset), ("press-1", 100, 100));
    let values = vec![(Arc::from("setpoint"), Value::Float(50.0))];
    let row = |at| HistoryRow { at: UnixMillis(at), values: values.clone() };
    let history = History { kept: true, total: 102, rows: vec![row(0), row(1500)] };
    call.input(Input::Answer(Token(0), Answer::History(Arc::new(history))));
    assert_eq!(
        call.said,
        ["200 {\"code\":200,\"message\":\"\",\"data\":{\"total\":102,\"page\":2,\"count\":2,\"datas\":[\
          {\"time\":\"1970-01-01 00:00:00.000\",\"data\":{\"setpoint\":50.0}},\
          {\"time\":\"1970-01-01 00:00:01.500\",\"data\":{\"setpoint\":50.0}}]}}"]
    );
}

fn reported(context: &Arc<Context>, uuid: &str) -> Input {
    let device = context.directory.by_uuid(uuid).expect("a device of the context");
    report(device, &[("setpoint", Value::Float(1.0), Quality::Good)])
}

#[test]
fn a_topic_finds_its_device_when_a_reload_brings_changes_or_takes_it() {
    let both = fixture::context();
    let devices = both.directory.devices().to_vec();
    let with = |devices: Vec<Arc<Device>>| {
        context(|context| context.directory = Arc::new(Directory::new(devices, Vec::new())))
    };
    let first = with(devices.get(..1).unwrap().to_vec());
    let (mut rig, _) = connect(&first, &[("token", "demo")], fixture::now());
    assert_eq!(rig.send(&subscribe("0", "press-2")), [""; 0], "there is none yet");
    rig.input(Input::Reconfigured(Arc::clone(&both)));
    assert_eq!((std::mem::take(&mut rig.said), rig.watched.len()), (vec!["watch".to_owned()], 1));
    rig.input(reported(&both, "press-2"));
    assert!(std::mem::take(&mut rig.said)[0].contains("\"uuid\":\"press-2\""));
    // Another device has the uuid now.
    let renamed = Device { id: "other".into(), ..(*devices[1]).clone() };
    let renamed = with(vec![Arc::new(renamed)]);
    rig.input(Input::Reconfigured(Arc::clone(&renamed)));
    rig.input(reported(&both, "press-2"));
    assert_eq!(std::mem::take(&mut rig.said), ["watch"]);
    rig.input(reported(&renamed, "press-2"));
    assert_eq!(std::mem::take(&mut rig.said).len(), 1);
    rig.input(Input::Reconfigured(first));
    assert_eq!((std::mem::take(&mut rig.said), rig.watched.len()), (vec!["watch".to_owned()], 0));
    assert_eq!(rig.send("UNSUBSCRIBE\nid:0\n\n\0"), [""; 0]);
    rig.input(Input::Reconfigured(both));
    assert_eq!(rig.said, [""; 0], "it is not subscribed any more");
}

#[test]
fn on_a_shared_path_topics_are_silent_while_a_reload_has_switched_this_dialect_off() {
    let on = fixture::context();
    let off = context(|context| context.settings.janus.common.enabled = false);
    let request = upgrade("/ws", &[("token", "demo")]);
    let shared = crate::dialects::endpoints::ws(&request, &on, fixture::now(), Dialect::Oam, true);
    let mut rig = Rig::upgraded(shared);
    assert!(rig.send(CONNECT)[0].starts_with("CONNECTED\n"));
    assert_eq!(rig.send("SUBSCRIBE\nid:b\ndestination:/ws/deviceData/press-1\n\n\0"), ["watch"]);
    rig.input(Input::Reconfigured(off));
    assert_eq!((std::mem::take(&mut rig.said), rig.watched.len()), (vec!["watch".to_owned()], 0));
    rig.input(reported(&on, "press-1"));
    assert_eq!(rig.said, [""; 0]);
    rig.input(Input::Reconfigured(Arc::clone(&on)));
    assert_eq!((std::mem::take(&mut rig.said), rig.watched.len()), (vec!["watch".to_owned()], 1));
    rig.input(reported(&on, "press-1"));
    assert_eq!(rig.said.len(), 1);
}

#[test]
fn a_ticket_opens_no_other_device_after_a_reload() {
    let context = fixture::context();
    let ticket = ticket(&context, "demo", "press-1");
    let (mut rig, _) = connect(&context, &[("ticket", &ticket)], fixture::now());
    rig.send(&subscribe("0", "press-2"));
    rig.input(Input::Reconfigured(context));
    assert_eq!((rig.said.len(), rig.watched.len()), (0, 0));
}

/// A ticket is as good as a token for as long as it lives, so no word of the log or of a panic may hold one.
#[test]
fn a_ticket_is_in_no_debug_text() {
    let context = fixture::context();
    let ticket = ticket(&context, "demo", "press-1");
    let request = upgrade("/websocket", &[("ticket", &ticket)]);
    let credentials = Credentials::of(&request);
    let opening = open(&request, &context, fixture::now());
    for text in [format!("{request:?}"), format!("{credentials:?}"), format!("{opening:?}")] {
        assert!(!text.contains(&ticket) && !text.contains(&key_of(&context)), "{text}");
    }
}

/// The key of the seals as its `Debug` would write it.
fn key_of(context: &Context) -> String {
    format!("{:?}", context.seal.key)
}

#[test]
fn a_time_that_may_be_wrong_is_marked() {
    let body = Body::Presence { online: true, reason: None };
    let message = DeviceMessage::new(1, UnixMillis(0), fixture::press(&fixture::context()), body);
    let value = Value::Int(1);
    let reports = [Report { property: 0, id: "a".into(), value, at: UnixMillis(0), quality: Quality::Good }];
    let (zone, form) = (jiff::tz::TimeZone::UTC, TimeForm::Colon);
    let sample = |message: &DeviceMessage| wire::sample(message, &reports, &zone, form).unwrap();
    assert!(!sample(&message).contains("clock"));
    assert!(sample(&message.by(Clock::Unsynchronised)).ends_with(",\"clock\":\"unsynchronised\"}"));
}

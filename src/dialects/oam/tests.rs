//! What transcripts cannot show: member order to the octet, headers, origins, questions by REST.

use proptest::prelude::*;

use super::*;
use crate::dialects::shared::fixture;
use crate::dialects::shared::stomp::rig::{Rig, context, report, upgrade};
use crate::dialects::{Closing, Input, Response};
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::snapshot::DeviceSnapshot;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Reading, Value};

fn connected(context: &Arc<Context>, token: &str) -> Rig {
    let mut rig = Rig::upgraded(open(&upgrade("/ws", &[("token", token)]), context, fixture::now()));
    rig.send("CONNECT\naccept-version:1.2\nhost:hostname\n\n\0");
    rig
}

fn post(path: &str, body: &str) -> Request {
    let mut request = fixture::request("POST", path, false);
    request.headers.push(("authorization".to_owned(), "Bearer demo".to_owned()));
    request.body = body.to_owned().into();
    request
}

fn respond(request: &Request, context: &Arc<Context>) -> Response {
    let opening = open(request, context, fixture::now());
    let Opening::Respond(response) = opening else { panic!("no response: {opening:?}") };
    response
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn an_answer_has_its_members_in_the_documented_order() {
    let mut rig = connected(&fixture::context(), "demo");
    rig.send("SUBSCRIBE\nid:sub-1\ndestination:/user/service\n\n\0");
    let said = rig.send(
        "SEND\ndestination:/app/api/metric/list\n\n\
         {\"payload\":{\"id\":\"setpoint\"},\"realm\":\"/api/metric/list\",\"requestId\":\"r\"}\0",
    );
    let body = "{\"requestId\":\"r\",\"status\":200,\"reason\":\"SUCCESS\",\
                \"payload\":[{\"id\":2,\"name\":\"setpoint\",\"note\":\"\",\"enumName\":\"SETPOINT\"}]}";
    let (head, text) = said[0].trim_end_matches('\0').split_once("\n\n").unwrap();
    assert_eq!(text, body);
    let names: Vec<&str> = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names, ["destination", "content-type", "subscription", "message-id", "content-length"]);
}

#[test]
fn a_metric_that_products_describe_differently_bears_only_what_they_agree_on() {
    let usual = fixture::context();
    let press = fixture::press(&usual);
    let devices =
        [("a", "Oil temperature", Some("C")), ("b", "Lamp temperature", Some("C")), ("c", "Oil", None)];
    let devices = devices.map(|(id, name, unit)| {
        let mut product = (*press.product).clone();
        product.id = id.into();
        for property in &mut product.properties {
            (property.name, property.unit) = (name.into(), unit.map(Into::into));
        }
        Arc::new(Device { id: id.into(), product: Arc::new(product), ..(*press).clone() })
    });
    let client = usual.clients.by_id(Dialect::Oam, "demo").unwrap();
    for (seen, name, unit) in [(1, "Oil temperature", "C"), (2, "temperature", "C"), (3, "temperature", "")] {
        let directory = Directory::new(devices[..seen].to_vec(), Vec::new());
        let metrics = catalogue::metrics(&directory, client);
        assert_eq!((metrics[0].name, metrics[0].unit, metrics.len()), (name, unit, 3));
    }
}

/// The documented length of a void answer: an id of 36 characters makes 84 octets.
#[test]
fn a_void_answer_is_as_long_as_the_vendors() {
    let id = serde_json::Value::from("eb2c2807-8c2f-4418-aebe-03622404e4bb");
    assert_eq!(wire::response(Some(&id), 200, "SUCCESS", None).len(), 84);
}

#[test]
fn rest_asks_the_hub_and_answers_when_it_has_answered() {
    let context = fixture::context();
    let request = post("/api/stream/metrics", r#"{"node":"rs485","mediaId":"press-1"}"#);
    let begin = || {
        let Opening::Call(session) = open(&request, &context, fixture::now()) else { panic!("no call") };
        Rig::of(session)
    };
    let mut call = begin();
    let reading = |value, at| Some(Reading { value, at: UnixMillis(at), quality: Quality::Good });
    call.answer(vec![DeviceSnapshot {
        device: fixture::press(&context),
        online: true,
        since: None,
        readings: vec![reading(Value::Float(20.5), 2000), reading(Value::Float(50.0), 1000), None],
        alarms: Vec::new(),
    }]);
    assert_eq!(
        call.said,
        ["200 {\"status\":200,\"reason\":\"SUCCESS\",\"payload\":[{\"SETPOINT\":50.0,\"timestamp\":1000},\
          {\"TEMPERATURE\":20.5,\"timestamp\":2000}]}"]
    );
    let mut call = begin();
    call.input(Input::Closing(Closing::Shutdown));
    assert_eq!(call.said, [r#"503 {"status":503,"reason":"Service unavailable"}"#]);
}

#[test]
fn rest_says_who_may_read_it_on_every_answer() {
    let anybody = fixture::context();
    for method in ["POST", "GET", "OPTIONS"] {
        let request = Request { method: method.to_owned(), ..post("/api/rule/list", "{}") };
        let response = respond(&request, &anybody);
        assert_eq!(header(&response, "access-control-allow-origin"), Some("*"), "{method}");
        assert_eq!(header(&response, "access-control-allow-methods"), Some("POST, OPTIONS"));
        let allow = (method != "POST").then_some("POST, OPTIONS");
        assert_eq!(header(&response, "allow"), allow, "{method}");
    }
}

fn with_origins() -> Arc<Context> {
    context(|context| {
        context.settings.oam.access_control_allow_origin = "https://a.example, https://b.example".into();
    })
}

#[test]
fn only_allowed_origins_are_named() {
    let context = with_origins();
    for (origin, allowed) in [
        (Some("https://b.example"), Some("https://b.example")),
        (Some("https://c.example"), None),
        (None, None),
    ] {
        let mut request = post("/api/rule/list", "{}");
        request.headers.extend(origin.map(|origin| ("origin".to_owned(), origin.to_owned())));
        let response = respond(&request, &context);
        assert_eq!(header(&response, "access-control-allow-origin"), allowed, "{origin:?}");
        assert_eq!(header(&response, "vary"), Some("origin"));
    }
}

#[test]
fn a_page_of_another_origin_gets_no_socket() {
    let context = with_origins();
    for (origin, accepted) in [
        (Some("https://a.example"), true),
        (Some("http://127.0.0.1:8080"), true),
        (Some("https://c.example"), false),
        (None, true),
    ] {
        let mut request = upgrade("/ws", &[]);
        request.headers.extend(origin.map(|origin| ("origin".to_owned(), origin.to_owned())));
        let opening = open(&request, &context, fixture::now());
        assert_eq!(matches!(opening, Opening::Upgrade(_)), accepted, "{origin:?}");
    }
}

#[test]
fn a_stranger_is_told_how_to_authenticate() {
    let mut request = post("/api/rule/list", "{}");
    request.headers.clear();
    let response = respond(&request, &fixture::context());
    assert_eq!((response.status, header(&response, "www-authenticate")), (401, Some("Bearer")));
}

#[test]
fn a_value_that_is_not_good_is_null() {
    let context = fixture::context();
    let mut rig = connected(&context, "demo");
    rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
    rig.input(report(&fixture::press(&context), &[("setpoint", Value::Float(1.0), Quality::Bad)]));
    let said = rig.wait(Duration::from_secs(2));
    assert!(said[0].ends_with("\n\n[{\"SETPOINT\":null,\"timestamp\":1700000000000}]\0"), "{said:?}");
}

#[test]
fn without_a_wait_every_sample_is_sent_at_once() {
    let context = context(|context| context.settings.oam.stomp_max_timeout = Duration::ZERO);
    let mut rig = connected(&context, "demo");
    rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
    rig.input(report(&fixture::press(&context), &[("running", Value::Bool(true), Quality::Good)]));
    assert!(
        rig.said[0].ends_with("\n\n[{\"RUNNING\":true,\"timestamp\":1700000000000}]\0"),
        "{:?}",
        rig.said
    );
}

#[test]
fn a_batch_never_outgrows_a_clients_buffer() {
    let context = context(|context| context.settings.oam.stomp_max_metrics = usize::MAX);
    let mut rig = connected(&context, "demo");
    rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
    for _ in 0..1000 {
        rig.input(report(&fixture::press(&context), &[("running", Value::Bool(true), Quality::Good)]));
    }
    assert!(rig.said.len() > 3);
    assert!(rig.said.iter().all(|frame| frame.len() < 8 * 1024));
}

#[test]
fn a_dialect_that_is_off_owns_no_path() {
    let context = context(|context| context.settings.oam.common.enabled = false);
    for path in ["/ws", "/api/metric/list"] {
        assert!(matches!(open(&upgrade(path, &[]), &context, fixture::now()), Opening::NotMine));
    }
}

#[test]
fn calls_of_other_dialects_are_theirs() {
    let context = fixture::context();
    for path in ["/api/janus/websocket", "/api/v1/x", "/api", "/api/metrics/list", "/wss"] {
        assert!(matches!(open(&post(path, "{}"), &context, fixture::now()), Opening::NotMine), "{path}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_a_call_panic(body in any::<String>(), id in any::<String>(), at in 0_usize..6) {
        let paths = ["metric/list", "alarm/list", "node/list", "stream/list", "stream/metrics", "rule/list"];
        let context = fixture::context();
        let path = format!("/api/{}", paths[at]);
        let payload = serde_json::json!({"id": id, "node": id, "mediaId": id, "name": id}).to_string();
        for body in [&body, &payload] {
            match open(&post(&path, body), &context, fixture::now()) {
                Opening::Respond(response) => prop_assert!(response.status >= 200),
                Opening::Call(session) => Rig::of(session).answer(Vec::new()),
                other @ (Opening::NotMine | Opening::Upgrade(_) | Opening::Carry(_)) => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

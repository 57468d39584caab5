//! What transcripts cannot show: member order to the octet, headers, origins, questions by REST.

use proptest::prelude::*;

use super::*;
use crate::dialects::shared::fixture;
use crate::dialects::shared::stomp::rig::{Rig, context, report, upgrade};
use crate::dialects::{Closing, Input, Response};
use crate::model::client::{Client, DeviceFilter, Rights, Secret};
use crate::model::device::{Device, Link};
use crate::model::directory::Directory;
use crate::model::history::{AlarmAnswer, Document, DocumentAnswer, DocumentAsk, Past, PastMessage};
use crate::model::message::{Body, DeviceMessage, Kinds, Report};
use crate::model::product::{AlarmCondition, AlarmRule};
use crate::model::snapshot::{Answer, DeviceSnapshot, Question, Snapshot};
use crate::model::time::{Clock, UnixMillis};
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
        let mut request = Request { method: method.to_owned(), ..post("/api/metric/list", "{}") };
        request.headers.push(("access-control-request-headers".to_owned(), "x-asked".to_owned()));
        let response = respond(&request, &anybody);
        assert_eq!(header(&response, "access-control-allow-origin"), Some("*"), "{method}");
        let preflight = |name| (method == "OPTIONS").then_some(name);
        assert_eq!(header(&response, "access-control-allow-methods"), preflight("POST, OPTIONS"));
        assert_eq!(header(&response, "access-control-allow-headers"), preflight("x-asked"));
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
        let mut request = post("/api/metric/list", "{}");
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
    let mut request = post("/api/metric/list", "{}");
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
    let long = Value::text("x".repeat(3000));
    for (value, batches) in [(Value::Bool(true), 3), (long, 400)] {
        let mut rig = connected(&context, "demo");
        rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
        for _ in 0..1000 {
            rig.input(report(&fixture::press(&context), &[("running", value.clone(), Quality::Good)]));
        }
        assert!(rig.said.len() > batches);
        assert!(rig.said.iter().all(|frame| frame.len() < 8 * 1024));
    }
}

#[test]
fn a_sample_that_makes_room_and_fills_the_next_batch_is_due_at_once() {
    let context = context(|context| context.settings.oam.stomp_max_metrics = 2);
    let mut rig = connected(&context, "demo");
    rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
    let long = || ("running", Value::text("x".repeat(6000)), Quality::Good);
    rig.input(report(&fixture::press(&context), &[long()]));
    assert!(rig.said.is_empty());
    let also = ("temperature", Value::Float(1.0), Quality::Good);
    rig.input(report(&fixture::press(&context), &[long(), also]));
    assert_eq!(rig.said.len(), 1, "the first goes before the second");
    rig.input(Input::Timeout);
    assert_eq!(rig.said.len(), 2, "the second does not wait");
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

/// Begins a REST call.
fn begin(context: &Arc<Context>, path: &str, body: &str) -> Rig {
    let Opening::Call(session) = open(&post(path, body), context, fixture::now()) else { panic!("no call") };
    Rig::of(session)
}

fn answer(rig: &mut Rig, answer: Answer) {
    let (token, _) = rig.asked.remove(0);
    rig.input(Input::Answer(token, answer));
}

/// Answers the question for the registry.
fn registry(rig: &mut Rig, body: Option<&Arc<str>>) {
    assert!(matches!(rig.asked[0].1, Question::Documents(DocumentAsk::List { .. })));
    let documents = body.map(|body| Document { id: 1, body: Arc::clone(body) }).into_iter().collect();
    answer(rig, Answer::Documents(DocumentAnswer::Documents(documents)));
}

/// What the call wants the registry to be.
fn swapped(rig: &Rig) -> Arc<str> {
    let Question::Documents(DocumentAsk::Swap { body, .. }) = &rig.asked[0].1 else { panic!("no swap") };
    Arc::clone(body)
}

#[test]
fn two_clients_that_change_at_once_lose_nothing() {
    let context = fixture::context();
    let create = |name: &str| {
        let body = format!(r#"{{"name":"{name}","rate":30,"metrics":["setpoint"],"rules":[]}}"#);
        begin(&context, "/api/profile/create", &body)
    };
    let (mut first, mut second, mut third) = (create("a"), create("b"), create("a"));
    for rig in [&mut first, &mut second, &mut third] {
        registry(rig, None);
    }
    let by_first = swapped(&first);
    answer(&mut first, Answer::Documents(DocumentAnswer::Put(1)));
    assert_eq!(first.said, [r#"200 {"status":200,"reason":"SUCCESS"}"#]);
    answer(&mut second, Answer::Documents(DocumentAnswer::Unknown));
    registry(&mut second, Some(&by_first));
    let by_second = swapped(&second);
    assert!(by_second.contains(r#""name":"a""#) && by_second.contains(r#""name":"b""#), "{by_second}");
    answer(&mut second, Answer::Documents(DocumentAnswer::Put(1)));
    assert_eq!(second.said, [r#"200 {"status":200,"reason":"SUCCESS"}"#]);
    answer(&mut third, Answer::Documents(DocumentAnswer::Unknown));
    registry(&mut third, Some(&by_second));
    assert_eq!(
        third.said,
        [r#"500 {"status":500,"reason":"Persist exception"}"#],
        "the name is taken by now"
    );
}

#[test]
fn a_change_that_is_overtaken_for_ever_is_given_up() {
    let mut rig = begin(&fixture::context(), "/api/rule/create", r#"{"type":0,"name":"r","value":"*"}"#);
    for _ in 0..100 {
        if rig.asked.is_empty() {
            break;
        }
        registry(&mut rig, None);
        answer(&mut rig, Answer::Documents(DocumentAnswer::Unknown));
    }
    assert_eq!(rig.said, [r#"500 {"status":500,"reason":"Persist exception"}"#]);
}

#[test]
fn what_is_stored_and_cannot_be_read_is_as_good_as_nothing() {
    let mut rig = begin(&fixture::context(), "/api/profile/list", "{}");
    registry(&mut rig, Some(&"{\"profiles\":7".into()));
    assert_eq!(rig.said, [r#"200 {"status":200,"reason":"SUCCESS","payload":[]}"#]);
}

/// The fixture with its link, and a client that may write and sees one of the link's two presses.
fn with_partial_client() -> Arc<Context> {
    context(|context| {
        let link = Link { id: "rs485".into(), address: "/dev/pts/0".into(), readable: true };
        let devices = context.directory.devices().to_vec();
        context.directory = Arc::new(Directory::new(devices, vec![Arc::new(link)]));
        let demo = Client {
            id: "demo".into(),
            secret: Secret::new("demo"),
            dialects: vec![Dialect::Oam],
            devices: DeviceFilter::new(["press-1"]),
            rights: Rights::ALL,
        };
        context.clients = Arc::new(crate::model::client::ClientBook::new(vec![Arc::new(demo)]));
    })
}

#[test]
fn who_sets_a_nodes_profiles_must_see_all_of_it() {
    let context = with_partial_client();
    for path in ["/api/node/update", "/api/node/delete"] {
        let mut rig = begin(&context, path, r#"{"id":"1","profiles":[]}"#);
        registry(&mut rig, None);
        assert_eq!(rig.said, [r#"403 {"status":403,"reason":"Forbidden"}"#], "{path}");
    }
    let mut rig = begin(&context, "/api/node/list", "{}");
    registry(&mut rig, None);
    assert!(rig.said[0].contains(r#"[{"id":1,"host":"rs485","profiles":[]}]"#), "{:?}", rig.said);
    let alarm = r#"{"type":"1","name":"a","value":"1","metric":"setpoint"}"#;
    let mut rig = begin(&context, "/api/alarm/create", alarm);
    answer(&mut rig, Answer::Alarms(AlarmAnswer::Forbidden));
    assert_eq!(rig.said, [r#"403 {"status":403,"reason":"Forbidden"}"#]);
}

fn past(messages: Vec<PastMessage>) -> Answer {
    Answer::Past(Arc::new(Past { kept: true, messages }))
}

fn presence(at: i64, online: bool, heard: Option<i64>) -> PastMessage {
    let body = Body::Presence { online, reason: None };
    PastMessage { seq: 1, at: UnixMillis(at), device: "press-1".into(), body, heard: heard.map(UnixMillis) }
}

fn present(context: &Context, since: Option<i64>) -> Answer {
    let state = DeviceSnapshot {
        device: fixture::press(context),
        online: since.is_some(),
        since: since.map(UnixMillis),
        readings: vec![None, None, None],
        alarms: Vec::new(),
    };
    Answer::Snapshot(Arc::new(Snapshot { seq: 1, devices: vec![state], links: Vec::new() }))
}

#[test]
fn a_stream_is_each_time_in_which_a_device_was_online() {
    let context = fixture::context();
    let entry = |id: i64, status: &str, begin: i64, end: Option<i64>, duration: i64| {
        let end = end.map_or("null".to_owned(), |end| end.to_string());
        format!(
            "{{\"id\":{id},\"name\":\"Press\",\"status\":\"{status}\",\"mediaId\":\"press-1\",\"createDate\":{begin},\
             \"endDate\":{end},\"publisher\":\"press\",\"duration\":{duration},\"subscribers\":[],\"node\":0}}"
        )
    };
    // The newest first: online, lost, online until the gateway stopped, online again, lost before anything was kept.
    let kept = || {
        vec![
            presence(9000, true, Some(7500)),
            presence(7000, true, Some(6500)),
            presence(6000, false, None),
            presence(5000, true, None),
            presence(4000, false, None),
        ]
    };
    let all = [
        entry(5_120_000, "FAILED", 5000, Some(6000), 1000),
        entry(7_168_000, "UNPUBLISHED", 7000, Some(7500), 500),
        entry(9_216_000, "PUBLISHING", 9000, None, 1_699_999_991_000),
    ];
    for (body, wanted) in [
        (r#"{"mediaId":"press-1"}"#, &all[..]),
        (r#"{"mediaId":"press-1","limit":"1","offset":"1"}"#, &all[1..2]),
        (r#"{"mediaId":"press-1","status":"FAILED"}"#, &all[..1]),
        (r#"{"mediaId":"press-1","name":"X*"}"#, &[]),
    ] {
        let mut rig = begin(&context, "/api/stream/history", body);
        // Where no device is meant the store is asked for none.
        if matches!(rig.asked[0].1, Question::Past(_)) {
            answer(&mut rig, past(kept()));
        }
        answer(&mut rig, present(&context, Some(9000)));
        let payload = wanted.join(",");
        assert_eq!(rig.said, [format!(r#"200 {{"status":200,"reason":"SUCCESS","payload":[{payload}]}}"#)]);
    }
    // Just started, and nothing heard of the device yet; online for longer than anything is kept.
    for (kept, since, status) in [(kept(), None, "PENDING"), (Vec::new(), Some(3000), "PUBLISHING")] {
        let mut rig = begin(&context, "/api/stream/history", r#"{"mediaId":"press-1"}"#);
        answer(&mut rig, past(kept));
        answer(&mut rig, present(&context, since));
        assert!(rig.said[0].contains(status), "{:?}", rig.said);
    }
}

/// Ten thousand messages of four hundred devices: the store is asked ten times for a thousand, the hub once.
#[test]
fn a_history_of_many_devices_is_gathered_in_bounded_steps() {
    const DEVICES: usize = 400;
    let id = |at: usize| -> Arc<str> { format!("press-{at:03}").into() };
    let context = context(|context| {
        let press = fixture::press(context);
        let devices = (0..DEVICES).map(|at| Arc::new(Device { id: id(at), ..(*press).clone() })).collect();
        context.directory = Arc::new(Directory::new(devices, Vec::new()));
    });
    let mut rig = begin(&context, "/api/stream/history", "{}");
    let mut asked = Vec::new();
    while let Question::Past(query) = &rig.asked[0].1 {
        assert!(query.devices.len() * query.limit <= 1000, "{} of {}", query.limit, query.devices.len());
        assert_eq!(query.kind, Kinds::PRESENCE);
        let (devices, each) = (query.devices.clone(), i64::try_from(query.limit).unwrap());
        let of = |device: &Arc<str>| {
            let device = Arc::clone(device);
            let message = move |back: i64| {
                // Online in every odd second, the newest first.
                let presence = presence((each - back) * 1000, (each - back) % 2 == 1, None);
                PastMessage { device: Arc::clone(&device), ..presence }
            };
            (0..each).map(message)
        };
        let messages = devices.iter().flat_map(of).collect();
        asked.extend(devices);
        answer(&mut rig, past(messages));
    }
    assert_eq!(asked, (0..DEVICES).map(id).collect::<Vec<_>>(), "each device once");
    answer(&mut rig, Answer::Snapshot(Arc::default()));
    let (_, body) = rig.said[0].split_once(' ').unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let entries = body["payload"].as_array().unwrap();
    assert_eq!(entries.len(), 1000);
    // The oldest of all devices come first.
    assert!(entries.iter().take(DEVICES).all(|entry| entry["createDate"] == 1000), "{:?}", entries[0]);
    assert_eq!(entries[DEVICES]["createDate"], 3000);
}

#[test]
fn dates_are_written_as_on_the_vendors_page() {
    let date = wire::Dates::Text.write(UnixMillis(1_560_503_300_560));
    assert_eq!(date, "2019-06-14T09:08:20.560+0000");
    assert_eq!(wire::Dates::Text.write(UnixMillis(i64::MAX)), "1970-01-01T00:00:00.000+0000");
}

#[test]
fn past_samples_are_counted_by_time_and_number() {
    let context = fixture::context();
    let message = |seq, at, quality| {
        let report = Report {
            property: 0,
            id: "setpoint".into(),
            value: Value::Float(50.0),
            at: UnixMillis(at),
            quality,
        };
        let body = Body::Properties(vec![report]);
        PastMessage { seq, at: UnixMillis(at), device: "press-1".into(), body, heard: None }
    };
    let messages = || {
        vec![message(8, 2000, Quality::Good), message(7, 1500, Quality::Bad), message(6, 1000, Quality::Good)]
    };
    let old = r#"{"SETPOINT":50.0,"timestamp":1000}"#;
    let new = r#"{"SETPOINT":50.0,"timestamp":2000}"#;
    for (fields, from, after, newest_first, limit, payload) in [
        (r#""limit":"2","offset":"1""#, i64::MIN, 0, true, 2, format!("{old},{new}")),
        (r#""time":"1000""#, 1000, 0, false, 100, format!("{new},{old}")),
        (
            r#""seq":5,"limit":99999"#,
            i64::MIN,
            5,
            false,
            1000,
            r#"{"SETPOINT":50.0,"seq":8,"timestamp":2000},{"SETPOINT":50.0,"seq":6,"timestamp":1000}"#
                .to_owned(),
        ),
    ] {
        let body = format!(r#"{{"node":"rs485","mediaId":"press-1",{fields}}}"#);
        let mut rig = begin(&context, "/api/stream/metrics", &body);
        let Question::Past(query) = &rig.asked[0].1 else { panic!("asked {:?}", rig.asked) };
        assert_eq!((query.from.0, query.after, query.newest_first), (from, after, newest_first), "{fields}");
        assert_eq!(query.limit, limit);
        answer(&mut rig, past(messages()));
        assert_eq!(rig.said, [format!(r#"200 {{"status":200,"reason":"SUCCESS","payload":[{payload}]}}"#)]);
    }
}

#[test]
fn an_alarm_of_the_configuration_says_how_long_it_waits() {
    let context = context(|context| {
        let mut product = (*fixture::press(context).product).clone();
        let rule = AlarmRule {
            delay: Duration::from_secs(5),
            ..AlarmRule::new("too-hot", AlarmCondition::Above(80.0))
        };
        product.properties[0].alarms.push(Arc::new(rule));
        let device = Device { product: Arc::new(product), ..(*fixture::press(context)).clone() };
        context.directory = Arc::new(Directory::new(vec![Arc::new(device)], Vec::new()));
    });
    let press = fixture::press(&context);
    let client = context.clients.by_id(Dialect::Oam, "demo").unwrap();
    let listed = wire::alarm(&catalogue::alarms(&context.directory, client)[0]);
    assert_eq!(listed["time"], 5000, "{listed}");
    let body = Body::Alarm {
        rule: Arc::clone(&press.product.properties[0].alarms[0]),
        property: 0,
        raised: true,
        value: Value::Float(81.0),
        active: Vec::new(),
    };
    let message = DeviceMessage::new(1, UnixMillis(0), press, body);
    let told = wire::alarm_message(&message, &context.directory).unwrap();
    assert!(told.contains("\"value\":80.0,\"time\":5000,"), "{told}");
    assert!(told.ends_with(",\"timestamp\":0}"), "{told}");
    let told = wire::alarm_message(&message.by(Clock::Unsynchronised), &context.directory).unwrap();
    assert!(told.ends_with(",\"timestamp\":0,\"clock\":\"unsynchronised\"}"), "{told}");
}

#[test]
fn rest_keeps_statuses_in_the_body_alone_where_that_is_set() {
    let forced = context(|context| context.settings.oam.rest_always_200 = true);
    for (body, status) in [("{", "400"), (r#"{"id":"nothing"}"#, "400"), ("{}", "200")] {
        let response = respond(&post("/api/metric/list", body), &forced);
        assert_eq!(response.status, 200, "{body}");
        let text = String::from_utf8_lossy(&response.body);
        assert!(text.starts_with(&format!("{{\"status\":{status},")), "{text}");
    }
    assert_eq!(respond(&post("/api/metric/list", "{"), &fixture::context()).status, 400);
}

proptest! {
    #[test]
    fn no_body_makes_a_call_panic(body in any::<String>(), id in any::<String>(), at in 0_usize..13) {
        let paths = [
            "metric/list", "alarm/list", "node/list", "stream/list", "stream/metrics", "rule/list", "stream/history",
            "profile/create", "profile/update", "rule/create", "node/update", "alarm/create", "alarm/update",
        ];
        let context = fixture::context();
        let path = format!("/api/{}", paths[at]);
        let payload = serde_json::json!({
            "id": id, "node": id, "mediaId": id, "name": id, "rate": id, "type": id, "value": id, "time": id,
            "limit": id, "offset": id, "seq": id, "metrics": [id], "profiles": id, "rules": [id, id],
        })
        .to_string();
        for body in [&body, &payload] {
            match open(&post(&path, body), &context, fixture::now()) {
                Opening::Respond(response) => prop_assert!(response.status >= 200),
                Opening::Call(session) => {
                    let mut rig = Rig::of(session);
                    while let Some((_, question)) = rig.asked.first() {
                        let nothing = match question {
                            Question::Documents(DocumentAsk::List { .. }) => {
                                Answer::Documents(DocumentAnswer::Documents(Vec::new()))
                            }
                            Question::Documents(_) => Answer::Documents(DocumentAnswer::Put(1)),
                            Question::Alarms(_) => Answer::Alarms(AlarmAnswer::Alarms(Vec::new())),
                            Question::Past(_) => Answer::Past(Arc::default()),
                            Question::Snapshot(_)
                            | Question::Group(_)
                            | Question::History(_)
                            | Question::Latest(_)
                            | Question::Events(_)
                            | Question::Outcome(_) => Answer::Snapshot(Arc::default()),
                        };
                        answer(&mut rig, nothing);
                    }
                    prop_assert_eq!(rig.said.len(), 1);
                }
                other @ (Opening::NotMine | Opening::Upgrade(_) | Opening::Carry(_)) => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

mod registry;
mod reload;

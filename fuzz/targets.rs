//! What must hold for any bytes at all, one function per parser.
//!
//! The fuzzer searches for bytes that break one of these; `tests/corpora.rs` replays what it has found, and the seeds,
//! with every ordinary test run. A target fails by panicking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pentad::config::{Source, resolve};
use pentad::dialects::uplus::signed_query;
use pentad::drivers::mqtt::body::{Body, Part};
use pentad::drivers::mqtt::discover::{LONGEST_NAME, Pattern};
use pentad::drivers::mqtt::homeassistant::jinja::Scope;
use pentad::drivers::mqtt::homeassistant::{Announced, Scheme, parse};
use pentad::drivers::mqtt::packet::{self, Hello, Version as Mqtt};
use pentad::drivers::mqtt::path::Path;
use pentad::drivers::mqtt::payload::Form;
use pentad::drivers::mqtt::route::{is_filter, is_topic, matches};
use pentad::drivers::mqtt::session as mqtt;
use pentad::model::client::{Client, DeviceFilter, Dialect, Rights, Secret};
use pentad::model::expression::{self, Kind, Name};
use pentad::model::identity;
use pentad::model::product::ReportRule;
use pentad::model::time::UnixMillis;
use pentad::model::value::ValueType;
use pentad::proto::modbus::frame::{Framing, Request};
use pentad::proto::modbus::reply::Reply;
use pentad::proto::modbus::{Span, Table};
use pentad::proto::sockjs::frame;
use pentad::proto::stomp::frame::{Decoder, Frame, FrameError, Version};
use pentad::proto::stomp::heartbeat::Offer;
use pentad::proto::stomp::session::{Output, Session, Settings};
use pentad::proto::stomp::subscriptions::Key;

use super::common::pure::{PureStage, to_request};
use super::common::transcript::{Request as Opening, Seen, Stage};

/// Any text as an expression: refused at a place that it has, or evaluated to a finite number or to nothing.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lookup = |name: &str| match name {
        "a" | "active-power" => Name::Input(0, Kind::Number),
        "b" => Name::Input(1, Kind::Number),
        "on" => Name::Input(2, Kind::Truth),
        "label" => Name::Unusable(ValueType::Text),
        _ => Name::Unknown,
    };
    match expression::parse(text, &lookup) {
        Ok(expression) => {
            assert!(!expression.inputs().is_empty() && expression.inputs().is_sorted());
            for inputs in [[0.0, 0.0, 0.0], [-2.5, 1e300, 1.0], [f64::MAX, f64::MIN, 1.0]] {
                for kind in [ValueType::Bool, ValueType::Int, ValueType::Float, ValueType::Text] {
                    let value = expression.evaluate(kind, &|at| inputs.get(at).copied());
                    let number = value.map(|value| value.as_f64().expect("a number or a truth"));
                    assert!(number.is_none_or(f64::is_finite));
                }
            }
        }
        Err(error) => assert!((1..=text.chars().count().max(expression::LONGEST) + 1).contains(&error.at)),
    }
}

/// Any text as the pattern of a rule, and any topics under it: names come only out of topics that its filter brings, are
/// short and plain, and become ids.
pub fn mqtt_discover(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split(char::from(NEXT));
    let Ok(pattern) = Pattern::parse(parts.next().unwrap_or_default()) else { return };
    assert!(is_filter(pattern.filter()));
    for topic in parts {
        let Some(captures) = pattern.captures(topic) else { continue };
        assert!(matches(pattern.filter(), topic));
        assert_eq!(captures.len(), pattern.names().count());
        for (_, name) in captures {
            assert!(topic.contains(name) && name.len() <= LONGEST_NAME && !name.contains(char::is_control));
            assert!(identity::is_id(&identity::id(name)));
        }
    }
}

/// Any payloads announced under any topics, and any payload for what they make: products hold together, ids are ids, topics are
/// plain, and no message or template breaks anything.
pub fn homeassistant(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let scheme = Scheme {
        prefix: "ha".into(),
        allow: Vec::new(),
        deny: Vec::new(),
        limit: 1,
        report: ReportRule::default(),
        stale_after: None,
        link: "l".into(),
        gateway: "g".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
    };
    let mut parts = text.split(char::from(NEXT));
    let payload = parts.next().unwrap_or_default();
    let announced: Vec<Announced> = parts
        .filter_map(|part| {
            let (topic, announcement) = part.split_once(' ')?;
            parse(scheme.place(topic)?, announcement.as_bytes()).ok()?
        })
        .collect();
    let (member, _) = scheme.device(&"d".into(), &announced.iter().collect::<Vec<_>>());
    let (product, map) = (&member.device.product, &member.map);
    assert_eq!(product.properties.len(), map.properties.len());
    let mut ids: Vec<_> = product.properties.iter().map(|property| &*property.id).collect();
    assert!(ids.iter().all(|id| identity::is_id(id)));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), product.properties.len());
    let body = Body::new(payload.as_bytes());
    for (property, point) in product.properties.iter().zip(map.properties.iter().flatten()) {
        let form = Form::of(property, point);
        for source in &point.sources {
            assert!(is_topic(&source.place.topic));
            let part = Part::parse(&source.part).expect("what is announced can be looked for");
            part.read(&body, &form);
        }
        if let Some(template) = point.write.as_ref().and_then(|write| write.template.as_ref()) {
            drop(template.render(Scope::sent(payload.into())));
        }
    }
}

/// Separates the messages of a conversation in the input of a session target.
pub const NEXT: u8 = 0x1e;

/// A stream cut anywhere gives the frames of the whole stream. The first byte is the size of the pieces.
pub fn stomp_frames(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    for version in [Version::V1_0, Version::V1_1, Version::V1_2] {
        let whole = frames(version, stream.chunks(stream.len().max(1)));
        let pieces = frames(version, stream.chunks(usize::from(*size).max(1)));
        assert_eq!(whole, pieces, "cut into pieces of {size}");
    }
}

fn frames(version: Version, pieces: std::slice::Chunks<'_, u8>) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    decoder.connected(version, 1 << 16);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.poll() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Any octets to the STOMP session itself, cut into messages anywhere: what it says does not depend on the cuts, stops
/// with its close, and is one heart-beat or one whole frame a message. The first byte is the size of the pieces.
pub fn stomp_session(data: &[u8]) {
    let Some((size, octets)) = data.split_first() else { return };
    for lenient in [false, true] {
        let whole = stomp_conversation(octets.chunks(octets.len().max(1)), lenient, false);
        let pieces = stomp_conversation(octets.chunks(usize::from(*size).max(1)), lenient, false);
        assert_eq!(whole, pieces, "cut into pieces of {size}");
    }
    // Where messages end frames, the cuts count.
    stomp_conversation(octets.chunks(usize::from(*size).max(1)), false, true);
}

/// Everything that a session wants done while the client sends these messages and every subscription gets a message
/// for each thing that the client sends.
fn stomp_conversation(
    messages: std::slice::Chunks<'_, u8>,
    lenient_content_length: bool,
    frames_without_nul: bool,
) -> Vec<String> {
    let start = fixed_now();
    let settings = Settings {
        number: 7,
        server: "pentad/fuzz",
        frame_bytes: 1 << 16,
        heart_beat: Offer { sends: 10_000, wants: 10_000 },
        lenient_content_length,
        frames_without_nul,
    };
    let mut session = Session::new(settings, start);
    let mut said = Vec::new();
    let mut keys = Vec::new();
    for message in messages {
        session.receive(message, start);
        stomp_answers(&mut session, start, &mut keys, &mut said);
    }
    while let Some(at) = session.timeout().filter(|at| *at < start + Duration::from_secs(120)) {
        session.handle_timeout(at);
        stomp_answers(&mut session, at, &mut keys, &mut said);
    }
    session.end(Some("Session closed."), 1001, "the gateway stops");
    stomp_answers(&mut session, start + Duration::from_secs(120), &mut keys, &mut said);
    let closes = said.iter().filter(|each| each.starts_with("close ")).count();
    assert_eq!(closes, 1, "a session closes once: {said:?}");
    assert!(said.last().is_some_and(|last| last.starts_with("close ")), "nothing follows a close: {said:?}");
    said
}

fn stomp_answers(session: &mut Session, now: Instant, keys: &mut Vec<Key>, said: &mut Vec<String>) {
    while let Some(output) = session.poll(now) {
        match output {
            Output::Connect(frame) if frame.header("passcode") == Some("wrong") => session.refuse("no"),
            Output::Connect(_) => session.accept(now),
            Output::Subscribe(key, destination) => {
                said.push(format!("subscribe {destination}"));
                keys.push(key);
            }
            Output::Unsubscribe(key) => {
                said.push("unsubscribe".to_owned());
                keys.retain(|each| *each != key);
            }
            Output::Send(destination, body) => {
                said.push(format!("send {destination} {body:?}"));
                for key in keys.iter() {
                    session.message(*key, "text/plain", "a colon: and a \\ backslash");
                }
            }
            Output::Transmit(text) => {
                let frame = text.strip_suffix('\0');
                assert!(text == "\n" || frame.is_some_and(|frame| !frame.contains('\0')), "{text:?}");
                said.push(text);
            }
            Output::Close(code, reason) => {
                assert!(reason.len() <= 123, "a reason fits into a close frame");
                said.push(format!("close {code}"));
            }
        }
    }
}

/// The monotonic clock of this process at its first use: a place to count from, the same for every run of a target.
fn fixed_now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(pentad::clock::instant)
}

/// Any bytes on the line are digested, and what they are not has a name.
pub fn modbus_reply(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let table = match choice & 3 {
        0 => Table::Coil,
        1 => Table::Discrete,
        2 => Table::Input,
        _ => Table::Holding,
    };
    let count = 1 + u16::from(choice >> 3);
    let Some(span) = Span::new(table, 100, count) else { return };
    for framing in
        [if choice & 4 == 0 { Framing::Rtu } else { Framing::Tcp { transaction: 1 } }, Framing::Ascii]
    {
        digest(Reply::new(7, &Request::Read(span), framing), bytes);
    }
}

fn digest(mut reply: Reply, bytes: &[u8]) {
    for piece in bytes.chunks(5) {
        let progress = reply.feed(piece);
        assert!(!format!("{progress:?}").is_empty());
    }
    assert!(!reply.defect().to_string().is_empty());
}

/// Any payload is read as every type; the first line is a JSON path.
pub fn mqtt_payload(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, payload) = text.split_once('\n').unwrap_or(("$.a[0]", &text));
    let json = serde_json::from_str::<serde_json::Value>(payload).ok();
    for kind in [
        ValueType::Bool,
        ValueType::Int,
        ValueType::Float,
        ValueType::Text,
        ValueType::Enum,
        ValueType::Object,
    ] {
        let form = Form::plain(kind);
        assert!(!format!("{:?}", form.read_text(payload)).is_empty());
        if let (Ok(path), Some(json)) = (Path::parse(path), &json) {
            assert!(path.find(json).is_none_or(|found| !format!("{:?}", form.read_json(found)).is_empty()));
        }
    }
}

/// Whatever a broker sends is digested by both versions' codecs and by the session above them. The first byte is the
/// version.
pub fn mqtt_packet(data: &[u8]) {
    let Some((version, bytes)) = data.split_first() else { return };
    let version = if version & 1 == 0 { Mqtt::V3 } else { Mqtt::V5 };
    let hello = Hello { client_id: "c".into(), keep_alive: 30, clean: true, login: None, will: None };
    let now = pentad::clock::instant();
    let mut session = mqtt::Session::new(hello, now);
    let mut arrived = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    while let Ok(Some(packet)) = packet::decode(version, &mut arrived) {
        if session.handle_packet(packet, now).is_err() {
            return;
        }
        while let Some(event) = session.poll_event() {
            if let mqtt::Event::Message(message) = event {
                session.publish((), message);
            }
        }
        while let Some(packet) = session.poll_packet(now) {
            // What is answered to a broker can be written, unless it is more than the broker takes.
            drop(packet::encode(version, packet, session.largest(), &mut out));
        }
    }
}

/// Any text is a configuration or has problems that can be told.
pub fn config(data: &[u8]) {
    let source = Source { name: "fuzz.toml".into(), text: String::from_utf8_lossy(data).into_owned() };
    match resolve(&[source]) {
        Ok(loaded) => assert!(!loaded.plan.to_string().contains("NaN")),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// Any conversation with a Janus session, and device calls beside it.
pub fn janus(data: &[u8]) {
    converse(Dialect::Janus, "/websocket?token=demo", data);
}

/// Any conversation with a SagooIoT / JetLinks session.
pub fn sagoo(data: &[u8]) {
    converse(Dialect::Sagoo, "/messaging/demo", data);
}

/// Any conversation with an iThings session.
pub fn ithings(data: &[u8]) {
    converse(Dialect::Ithings, "/api/v1/system/common/websocket/connect?token=demo", data);
}

/// Any conversation with a WCS OAM session, and calls by REST beside it.
pub fn oam(data: &[u8]) {
    converse(Dialect::Oam, "/ws?token=demo", data);
}

/// Any payload is read as JSON reads it or refused, what is read is written so that it comes back, and any conversation
/// in frames with a STOMP session.
pub fn sockjs(data: &[u8]) {
    let payload = String::from_utf8_lossy(data);
    let texts = frame::decode(&payload);
    if let Ok(expected) = serde_json::from_str::<Vec<String>>(&payload) {
        assert_eq!(texts.as_ref(), Ok(&expected));
    }
    if let Ok(texts) = texts {
        let frame = frame::messages(&texts);
        assert_eq!(frame::decode(frame.trim_start_matches('a')), Ok(texts));
    }
    converse(Dialect::Oam, "/ws/000/abc/websocket?token=demo", data);
}

/// Any conversation with a U+ session.
pub fn uplus(data: &[u8]) {
    let target = "/wssubscriber/msgplatform/websocket?systemId=SV-EDGE-0001&timestamp=1700000000000&sign=\
                  1d190fbf1a423c8f10275103cb2b911b0967cef0326e7407ac4480c8099353cd";
    converse(Dialect::Uplus, target, data);
}

/// Any query of the U+ login: only the sign that belongs to the system and its timestamp opens the session, and
/// everybody else is answered and shut out.
pub fn uplus_query(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    let target = format!("/wssubscriber/msgplatform/websocket?{query}");
    let mut stage = PureStage::new(Dialect::Uplus);
    stage.open(1, &opening(&target));
    assert!(stage.accepted(1), "a login is judged on the open socket");
    let Seen::Text(ack) = stage.next(1, false) else { panic!("a login is answered first") };
    let ack: serde_json::Value = serde_json::from_str(&ack).expect("an answer is JSON");
    if ack["data"]["code"] == "00000" {
        let request = to_request(&opening(&target));
        let key = match request.query("systemId") {
            Some("demo") => "demo",
            Some("reader") => "reader-secret",
            Some("SV-EDGE-0001") => "k3y-Secret",
            other => panic!("{other:?} is no system of the test bed"),
        };
        // The digits are signed as they are written, so only a number in its own form can be signed again here.
        let written = request.query("timestamp").unwrap_or_default();
        let Some(at) = written.parse::<i64>().ok().filter(|at| at.to_string() == written) else { return };
        let sign = request.query("sign").unwrap_or_default().to_lowercase();
        let genuine =
            signed_query(&system(request.query("systemId").unwrap_or_default(), key), UnixMillis(at));
        assert!(genuine.contains(&format!("&sign={sign}&")), "let in by another sign");
    } else {
        assert!(matches!(stage.next(1, false), Seen::Close(1008)), "and shut out");
    }
}

/// Any system, key and time: the query that is made for them opens the session of that system, and one with another
/// sign does not. Lines: systemId, systemKey, milliseconds.
pub fn uplus_sign(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let id: String = lines.next().unwrap_or_default().chars().take(50).collect();
    let key = lines.next().unwrap_or_default();
    let at: i64 = lines.next().and_then(|at| at.trim().parse().ok()).unwrap_or_default();
    if id.is_empty() || at < 0 {
        return;
    }
    let client = system(&id, key);
    let query = signed_query(&client, UnixMillis(at));
    let (before, after) = query.split_once("sign=").expect("a query with a sign");
    let (first, rest) = after.split_at(1);
    let forged = format!("{before}sign={}{rest}", if first == "0" { "1" } else { "0" });
    for (query, genuine) in [(&query, true), (&forged, false)] {
        let mut stage = PureStage::with_clients(Dialect::Uplus, vec![Arc::new(client.clone())]);
        stage.open(1, &opening(&format!("/wssubscriber/msgplatform/websocket?{query}")));
        let Seen::Text(ack) = stage.next(1, false) else { panic!("a login is answered first") };
        let ack: serde_json::Value = serde_json::from_str(&ack).expect("an answer is JSON");
        assert_eq!(ack["data"]["code"] == "00000", genuine, "{id:?} {key:?} {at}: {ack}");
    }
}

/// A U+ system that may do everything.
fn system(id: &str, key: &str) -> Client {
    Client {
        id: id.into(),
        secret: Secret::new(key),
        dialects: vec![Dialect::Uplus],
        devices: DeviceFilter::new(["*"]),
        rights: Rights::ALL,
    }
}

fn opening(target: &str) -> Opening {
    Opening {
        method: "GET".to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: String::new(),
        upgrade: true,
    }
}

/// Calls beside the socket, with what has to stand before their parameters.
const CALLS: [(Dialect, &str, &str); 20] = [
    (Dialect::Janus, "GET", "/api/device/list?token=demo&"),
    (Dialect::Janus, "GET", "/api/device/query?token=demo&"),
    (Dialect::Janus, "GET", "/api/device/data?token=demo&"),
    (Dialect::Janus, "POST", "/api/device/pushdata?token=demo&"),
    (Dialect::Janus, "GET", "/api/janus/websocket?token=demo&"),
    (Dialect::Oam, "POST", "/api/metric/list?token=demo"),
    (Dialect::Oam, "POST", "/api/profile/create?token=demo"),
    (Dialect::Oam, "POST", "/api/profile/update?token=demo"),
    (Dialect::Oam, "POST", "/api/profile/list?token=demo"),
    (Dialect::Oam, "POST", "/api/rule/create?token=demo"),
    (Dialect::Oam, "POST", "/api/rule/update?token=demo"),
    (Dialect::Oam, "POST", "/api/rule/list?token=demo"),
    (Dialect::Oam, "POST", "/api/node/update?token=demo"),
    (Dialect::Oam, "POST", "/api/node/delete?token=demo"),
    (Dialect::Oam, "POST", "/api/stream/list?token=demo"),
    (Dialect::Oam, "POST", "/api/stream/metrics?token=demo"),
    (Dialect::Oam, "POST", "/api/stream/history?token=demo"),
    (Dialect::Oam, "POST", "/api/alarm/create?token=demo"),
    (Dialect::Oam, "POST", "/api/alarm/update?token=demo"),
    (Dialect::Oam, "POST", "/api/alarm/list?token=demo"),
];

/// The call that a message stands for: one that begins with its path, a line with more of the query, and the body.
fn call(dialect: Dialect, message: &str) -> Option<Opening> {
    let mut known = CALLS.iter().filter(|(whose, ..)| *whose == dialect);
    let (method, target, rest) = known.find_map(|(_, method, target)| {
        let path = target.split('?').next().unwrap_or_default();
        Some((method, target, message.strip_prefix(path)?.strip_prefix('?')?))
    })?;
    let (query, body) = rest.split_once('\n').unwrap_or((rest, ""));
    let query = if dialect == Dialect::Janus { query } else { "" };
    let (method, target) = ((*method).to_owned(), format!("{target}{query}"));
    Some(Opening { method, target, headers: Vec::new(), body: body.to_owned(), upgrade: false })
}

/// Sends the messages while the plant goes on reporting and time passes.
fn converse(dialect: Dialect, target: &str, data: &[u8]) {
    let mut stage = PureStage::new(dialect);
    stage.open(1, &opening(target));
    assert!(stage.accepted(1), "the login of the target is good");
    for (round, message) in data.split(|byte| *byte == NEXT).take(64).enumerate() {
        let message = String::from_utf8_lossy(message);
        let call = call(dialect, &message);
        match &call {
            Some(call) => stage.open(2, call),
            None => stage.send(1, &message),
        }
        let temperature = serde_json::json!(if round % 2 == 0 { 81.5 } else { 20.0 });
        stage.observe("press-1", &[("temperature".to_owned(), temperature)]);
        while stage.command(true).is_some() {
            stage.settle(None, &super::common::transcript::Settle::TimedOut);
        }
        stage.wait(Duration::from_millis(300));
        if call.is_some() {
            assert!(matches!(stage.next(2, false), Seen::Http(..)), "a call is answered");
        }
    }
    stage.presence("press-1", false);
    stage.wait(Duration::from_secs(90));
}

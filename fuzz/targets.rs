//! What must hold for any bytes at all, one function per parser.
//!
//! The fuzzer searches for bytes that break one of these; `tests/corpora.rs` replays what it has found, and the seeds,
//! with every ordinary test run. A target fails by panicking.

use std::time::Duration;

use pentad::config::{Source, resolve};
use pentad::drivers::mqtt::path::Path;
use pentad::drivers::mqtt::payload::Form;
use pentad::model::client::Dialect;
use pentad::model::value::ValueType;
use pentad::proto::modbus::frame::{Framing, Request};
use pentad::proto::modbus::reply::Reply;
use pentad::proto::modbus::{Span, Table};
use pentad::proto::stomp::frame::{Decoder, Frame, FrameError, Version};

use super::common::pure::PureStage;
use super::common::transcript::{Request as Opening, Stage};

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
    let framing = if choice & 4 == 0 { Framing::Rtu } else { Framing::Tcp { transaction: 1 } };
    let mut reply = Reply::new(7, &Request::Read(span), framing);
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

/// Any text is a configuration or has problems that can be told.
pub fn config(data: &[u8]) {
    let source = Source { name: "fuzz.toml".into(), text: String::from_utf8_lossy(data).into_owned() };
    match resolve(&[source]) {
        Ok(loaded) => assert!(!loaded.plan.to_string().contains("NaN")),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// Any conversation with a Janus session.
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

/// Any conversation with a WCS OAM session.
pub fn oam(data: &[u8]) {
    converse(Dialect::Oam, "/ws?token=demo", data);
}

/// Any conversation with a U+ session.
pub fn uplus(data: &[u8]) {
    let target = "/wssubscriber/msgplatform/websocket?systemId=SV-EDGE-0001&timestamp=1700000000000&sign=\
                  1d190fbf1a423c8f10275103cb2b911b0967cef0326e7407ac4480c8099353cd";
    converse(Dialect::Uplus, target, data);
}

/// Sends the messages while the plant goes on reporting and time passes.
fn converse(dialect: Dialect, target: &str, data: &[u8]) {
    let mut stage = PureStage::new(dialect);
    let opening = Opening {
        method: "GET".to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: String::new(),
        upgrade: true,
    };
    stage.open(1, &opening);
    assert!(stage.accepted(1), "the login of the target is good");
    for (round, message) in data.split(|byte| *byte == NEXT).take(64).enumerate() {
        stage.send(1, &String::from_utf8_lossy(message));
        let temperature = serde_json::json!(if round % 2 == 0 { 81.5 } else { 20.0 });
        stage.observe("press-1", &[("temperature".to_owned(), temperature)]);
        while stage.command(true).is_some() {
            stage.settle(None, &super::common::transcript::Settle::TimedOut);
        }
        stage.wait(Duration::from_millis(300));
    }
    stage.presence("press-1", false);
    stage.wait(Duration::from_secs(90));
}

//! The acks, as the vendor's pages print them: member order, names, and which ack carries which member.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::relation::{Key, Relation};

/// Success in every ack.
const OK: &str = "00000";

/// Failure of a login.
pub(super) const LOGIN_FAILED: &str = "00001";

/// An answer that tells how it went and, in most cases, of which system and in words.
pub(super) fn done(ack: &str, system: &str, desc: Option<&str>) -> String {
    let data = Data { code: OK, result: "success", system_id: Some(system), desc, retdata: None };
    render(&Ack { cmd: ack, data })
}

/// An answer that tells why not. The vendor shows no such body; its members are those of the others.
pub(super) fn failed(ack: &str, system: &str, code: &str, desc: &str) -> String {
    let data = Data { code, result: "fail", system_id: Some(system), desc: Some(desc), retdata: None };
    render(&Ack { cmd: ack, data })
}

/// The answer to a search; carries no systemId.
pub(super) fn found(ack: &str, relations: &[Relation]) -> String {
    let data =
        Data { code: OK, result: "success", system_id: None, desc: None, retdata: Some(grouped(relations)) };
    render(&Ack { cmd: ack, data })
}

#[derive(Serialize)]
struct Ack<'a> {
    cmd: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    code: &'a str,
    result: &'a str,
    #[serde(rename = "systemId", skip_serializing_if = "Option::is_none")]
    system_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retdata: Option<Vec<Found<'a>>>,
}

/// All relations of one topic.
#[derive(Serialize)]
struct Found<'a> {
    topic: &'static str,
    keys: FoundKeys<'a>,
}

#[derive(Default, Serialize)]
struct FoundKeys<'a> {
    #[serde(rename = "typeId", skip_serializing_if = "Vec::is_empty")]
    type_ids: Vec<&'a str>,
    #[serde(rename = "deviceId", skip_serializing_if = "Vec::is_empty")]
    devices: Vec<FoundDevices<'a>>,
}

#[derive(Serialize)]
struct FoundDevices<'a> {
    #[serde(rename = "typeId")]
    type_id: &'a str,
    mac: Vec<&'a str>,
}

/// One entry per topic, in the order in which topics were first subscribed.
fn grouped(relations: &[Relation]) -> Vec<Found<'_>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    for relation in relations {
        let topic = relation.topic.name();
        let at = found.iter().position(|entry| entry.topic == topic).unwrap_or_else(|| {
            found.push(Found { topic, keys: FoundKeys::default() });
            found.len() - 1
        });
        let Some(Found { keys, .. }) = found.get_mut(at) else { continue };
        match &relation.key {
            Key::Type(type_id) => keys.type_ids.push(type_id),
            Key::Device { type_id, mac } => {
                match keys.devices.iter_mut().find(|entry| entry.type_id == &**type_id) {
                    Some(entry) => entry.mac.push(mac),
                    None => keys.devices.push(FoundDevices { type_id, mac: vec![mac] }),
                }
            }
        }
    }
    found
}

/// The flat push of the first page.
pub(super) fn flat(topic: &str, type_id: &str, data: Map<String, Json>) -> String {
    render(&Flat { topic, type_id, qos: "0", data })
}

#[derive(Serialize)]
struct Flat<'a> {
    topic: &'a str,
    #[serde(rename = "typeId")]
    type_id: &'a str,
    qos: &'static str,
    data: Map<String, Json>,
}

/// What the envelope of the later pages needs to be told.
pub(super) struct Report<'a> {
    /// Subscribed topic.
    pub(super) topic: &'a str,
    /// The product's typeId.
    pub(super) type_id: &'a str,
    /// The device's mac.
    pub(super) device_id: &'a str,
    /// Unix milliseconds.
    pub(super) ts: i64,
    /// 32 hex digits, one of a kind.
    pub(super) sn: &'a str,
    /// What is reported.
    pub(super) name: &'a str,
    /// The payload.
    pub(super) args: Map<String, Json>,
}

/// The envelope of the later pages.
pub(super) fn envelope(report: Report<'_>) -> String {
    let Report { topic, type_id, device_id, ts, sn, name, args } = report;
    let keys = Keys { type_id, device_id };
    let header =
        Header { ts, sn, kind: "std", keys, ver: "v1.0.1", snd: "m2m", from: "haier", topic, qos: 0 };
    let body = Body { ts, sn, type_id, device_id, category: "StdRpt", args, name };
    render(&Envelope { header, body })
}

#[derive(Serialize)]
struct Envelope<'a> {
    header: Header<'a>,
    body: Body<'a>,
}

#[derive(Serialize)]
struct Header<'a> {
    ts: i64,
    sn: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    keys: Keys<'a>,
    ver: &'static str,
    snd: &'static str,
    from: &'static str,
    topic: &'a str,
    qos: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Keys<'a> {
    type_id: &'a str,
    device_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    ts: i64,
    sn: &'a str,
    type_id: &'a str,
    device_id: &'a str,
    category: &'static str,
    args: Map<String, Json>,
    name: &'a str,
}

/// None of these types can fail to serialise: every map has text for keys and every number is finite.
fn render(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

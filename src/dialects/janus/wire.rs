//! The JSON of this dialect: the answers of the HTTP calls and the body of a MESSAGE.
//!
//! Names and form are the vendor's page's; its examples have unquoted names, which is no JSON, so ours are quoted.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::TimeForm;
use crate::dialects::shared::json;
use crate::model::device::Device;
use crate::model::history::{History, HistoryRow};
use crate::model::message::{DeviceMessage, Report};
use crate::model::snapshot::DeviceSnapshot;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// The answer when all is well.
pub(super) fn address(websocket: &str, topic: &str) -> String {
    answer("", Address { websocket, topic })
}

/// The answer when it is not.
pub(super) fn refusal(code: u16, message: &str) -> String {
    text(&Answer::<()> { code, message, data: None })
}

/// One page of the device list: `count` is how many devices stand on it, `total` how many there are.
pub(super) fn page(total: usize, page: usize, devices: &[&DeviceSnapshot]) -> String {
    let devices: Vec<Listed<'_>> = devices.iter().map(|state| Listed::of(state)).collect();
    answer("", Listing { total, page, count: devices.len(), devices })
}

/// One device.
pub(super) fn device(state: &DeviceSnapshot) -> String {
    let device = &*state.device;
    let queried = Queried {
        uuid: &device.uuid,
        name: &device.name,
        remarks: &device.product.name,
        tag: tags(device),
        create_date: (),
        online: state.online,
    };
    answer("", queried)
}

/// One page of past values, the oldest first: `count` is how many rows stand on it, `total` how many there are.
pub(super) fn past(page: usize, history: &History, zone: &TimeZone, form: TimeForm) -> String {
    #[derive(Serialize)]
    struct Rows {
        total: u64,
        page: usize,
        count: usize,
        datas: Vec<Row>,
    }
    #[derive(Serialize)]
    struct Row {
        time: String,
        data: Map<String, Json>,
    }
    let row = |row: &HistoryRow| Row {
        time: time(row.at, zone, form),
        data: json::object(row.values.iter().map(|(id, value)| (id, value))),
    };
    let datas: Vec<Row> = history.rows.iter().map(row).collect();
    answer("", Rows { total: history.total, page, count: datas.len(), datas })
}

/// What a write has set, with the number of the operation among it as the vendor has it there.
pub(super) fn pushed<'a>(
    message: &str,
    device: &Device,
    values: impl IntoIterator<Item = (&'a Arc<str>, &'a Value)>,
    operation: &str,
) -> String {
    let mut data = json::object(values);
    data.insert("operation_id".to_owned(), operation.into());
    answer(message, Pushed { uuid: &device.uuid, action: "update", data })
}

fn answer(message: &str, data: impl Serialize) -> String {
    text(&Answer { code: 200, message, data: Some(data) })
}

fn tags(device: &Device) -> Vec<&str> {
    device.tags.iter().map(|tag| &**tag).collect()
}

/// The body of a MESSAGE; `None` when there is nothing to say. The dialect has no word for quality: a value that has
/// become stale or cannot be read is told as null. A time that may be wrong is marked by a member of ours, `clock`.
pub(super) fn sample(
    message: &DeviceMessage,
    reports: &[Report],
    zone: &TimeZone,
    form: TimeForm,
) -> Option<String> {
    let value = |report: &Report| match report.quality {
        Quality::Good => json::to_json(&report.value),
        Quality::Stale | Quality::Bad => Json::Null,
    };
    let data: Map<String, Json> =
        reports.iter().map(|report| (report.id.to_string(), value(report))).collect();
    if data.is_empty() {
        return None;
    }
    let (uuid, time) = (&*message.device.uuid, time(message.at, zone, form));
    Some(text(&Sample { uuid, time, data, clock: message.clock.mark() }))
}

/// A wall-clock time as the vendor writes it. One that no calendar has is the epoch.
fn time(at: UnixMillis, zone: &TimeZone, form: TimeForm) -> String {
    let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
    let separator = match form {
        TimeForm::Colon => ':',
        TimeForm::Dot => '.',
    };
    format!("{}{separator}{:03}", at.strftime("%Y-%m-%d %H:%M:%S"), at.millisecond())
}

#[derive(Serialize)]
struct Answer<'a, T> {
    code: u16,
    message: &'a str,
    data: Option<T>,
}

#[derive(Serialize)]
struct Listing<'a> {
    total: usize,
    page: usize,
    count: usize,
    devices: Vec<Listed<'a>>,
}

/// A device in the list. The gateway keeps no date at which a device was made, and the manual does not say what
/// kinds of uuid there are, so both members are there and null.
#[derive(Serialize)]
struct Listed<'a> {
    uuid: &'a str,
    uuid_type: (),
    tag: Vec<&'a str>,
    #[serde(rename = "baseInfo")]
    base_info: BaseInfo<'a>,
    create_date: (),
    online: bool,
    id: &'a str,
}

impl<'a> Listed<'a> {
    fn of(state: &'a DeviceSnapshot) -> Self {
        let device = &*state.device;
        Self {
            uuid: &device.uuid,
            uuid_type: (),
            tag: tags(device),
            base_info: BaseInfo { name: &device.name, remarks: &device.product.name },
            create_date: (),
            online: state.online,
            id: &device.id,
        }
    }
}

#[derive(Serialize)]
struct BaseInfo<'a> {
    name: &'a str,
    remarks: &'a str,
}

#[derive(Serialize)]
struct Queried<'a> {
    uuid: &'a str,
    name: &'a str,
    remarks: &'a str,
    tag: Vec<&'a str>,
    create_date: (),
    online: bool,
}

#[derive(Serialize)]
struct Pushed<'a> {
    uuid: &'a str,
    action: &'a str,
    data: Map<String, Json>,
}

#[derive(Serialize)]
struct Address<'a> {
    websocket: &'a str,
    topic: &'a str,
}

#[derive(Serialize)]
struct Sample<'a> {
    uuid: &'a str,
    time: String,
    data: Map<String, Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'static str>,
}

/// These shapes hold only text, numbers and maps with text keys, so writing them cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_gateways_own_in_either_form() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let at = UnixMillis(1_523_514_320_034);
        assert_eq!(time(at, &zone, TimeForm::Colon), "2018-04-12 14:25:20:034");
        assert_eq!(time(at, &zone, TimeForm::Dot), "2018-04-12 14:25:20.034");
        assert_eq!(time(UnixMillis(i64::MAX), &TimeZone::UTC, TimeForm::Dot), "1970-01-01 00:00:00.000");
    }

    #[test]
    fn answers_are_the_vendors_shapes() {
        assert_eq!(
            address("ws://h/websocket", "/t"),
            r#"{"code":200,"message":"","data":{"websocket":"ws://h/websocket","topic":"/t"}}"#
        );
        assert_eq!(refusal(401, "no"), r#"{"code":401,"message":"no","data":null}"#);
    }
}

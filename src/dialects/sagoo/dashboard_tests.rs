//! What a dashboard shows of the past: everything once and in order, whatever overtakes what.

use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::dashboard::{Dashboard, Found, find};
use crate::dialects::shared::fixture;
use crate::model::history::{Events, EventsQuery, Latest, LatestQuery};
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::product::Level;
use crate::model::snapshot::{DeviceSnapshot, Question, Snapshot};
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Reading, Value};

fn dashboard(measurement: &str, parameter: &Json) -> Dashboard {
    let topic = format!("/dashboard/device/press/{measurement}/realTime");
    match find(&topic, parameter.as_object()) {
        Found::Stream(dashboard) => dashboard,
        Found::Other | Found::Nothing | Found::TooLong => panic!("{topic} is a dashboard"),
    }
}

fn message(seq: u64, body: Body) -> Arc<DeviceMessage> {
    let at = UnixMillis(i64::try_from(seq).unwrap());
    Arc::new(DeviceMessage::new(seq, at, fixture::press(&fixture::context()), body))
}

fn report(seq: u64, value: f64) -> Arc<DeviceMessage> {
    let (at, quality) = (UnixMillis(i64::try_from(seq).unwrap()), Quality::Good);
    let value = Value::Float(value);
    message(seq, Body::Properties(vec![Report { property: 0, id: "temperature".into(), value, at, quality }]))
}

fn event(seq: u64) -> Arc<DeviceMessage> {
    message(seq, Body::Event { event: format!("e{seq}").into(), level: Level::Info, params: Vec::new() })
}

/// The hub's values at message 10: temperature 41, set-point 50.
fn current() -> Arc<Snapshot> {
    snapshot(10, 41.0)
}

fn snapshot(seq: u64, temperature: f64) -> Arc<Snapshot> {
    let reading = |value| Some(Reading { value, at: UnixMillis(1), quality: Quality::Good });
    let device = DeviceSnapshot {
        device: fixture::press(&fixture::context()),
        online: true,
        since: None,
        readings: vec![reading(Value::Float(temperature)), reading(Value::Float(50.0)), None],
        alarms: Vec::new(),
    };
    Arc::new(Snapshot { seq, devices: vec![device], ..Snapshot::default() })
}

fn latest(seq: u64, values: &[f64]) -> Latest {
    let series = (2..).map(UnixMillis).zip(values.iter().map(|value| Value::Float(*value))).collect();
    Latest { kept: true, seq, values: vec![("temperature".into(), series)] }
}

fn shown(payloads: &[Map<String, Json>]) -> Vec<Json> {
    let what = |payload: &Map<String, Json>| {
        let value = &payload["value"];
        value.get("value").or(value.get("event")).unwrap().clone()
    };
    payloads.iter().map(what).collect()
}

#[test]
fn a_stream_keeps_no_more_names_than_a_device_can_have_properties() {
    let found = |parameter: Json| find("/dashboard/device/press/properties/realTime", parameter.as_object());
    let names = |count: usize| (0..count).map(|at| format!("property-{at}")).collect::<Vec<_>>();
    let usual = json!({"deviceId": "press-1", "properties": names(500)});
    assert!(matches!(found(usual), Found::Stream(_)));
    for long in [
        json!({"deviceId": "press-1", "properties": names(100_000)}),
        json!({"deviceId": "press-1", "properties": ["x".repeat(100_000)]}),
        json!({"deviceId": "x".repeat(100_000)}),
    ] {
        assert!(matches!(found(long), Found::TooLong));
    }
}

#[test]
fn the_past_is_followed_by_what_came_meanwhile_without_gap_or_repetition() {
    let mut dashboard = dashboard("properties", &json!({"deviceId": "press-1", "history": 3}));
    let utc = TimeZone::UTC;
    assert!(dashboard.message(&report(10, 40.0), &utc).is_empty(), "waits for the past");
    let question = dashboard.current(&current());
    let expected = LatestQuery { device: "press-1".into(), properties: Vec::new(), count: 3 };
    assert_eq!(question, Some(Question::Latest(expected)));
    for (seq, value) in [(11, 42.0), (12, 43.0)] {
        assert!(dashboard.message(&report(seq, value), &utc).is_empty());
    }
    // The store had taken message 11 when it looked. Of the set-point it has nothing.
    let payloads = dashboard.values(&latest(11, &[39.0, 40.0, 42.0]), &utc);
    assert_eq!(shown(&payloads), [json!(50.0), json!(39.0), json!(40.0), json!(42.0), json!(43.0)]);
    assert!(dashboard.message(&report(11, 42.0), &utc).is_empty(), "is in the past already");
    assert_eq!(shown(&dashboard.message(&report(13, 44.0), &utc)), [json!(44.0)]);
}

#[test]
fn current_values_stand_in_where_nothing_is_kept() {
    let mut dashboard = dashboard("properties", &json!({"deviceId": "press-1", "history": "1"}));
    let utc = TimeZone::UTC;
    assert!(dashboard.current(&current()).is_some());
    for (seq, value) in [(10, 41.0), (11, 42.0)] {
        assert!(dashboard.message(&report(seq, value), &utc).is_empty());
    }
    let payloads = dashboard.values(&Latest::default(), &utc);
    assert_eq!(shown(&payloads), [json!(41.0), json!(50.0), json!(42.0)]);
}

#[test]
fn past_events_come_before_new_ones() {
    let mut dashboard = dashboard("events", &json!({"deviceId": "press-1", "history": 2}));
    let utc = TimeZone::UTC;
    let question = dashboard.current(&current());
    assert_eq!(question, Some(Question::Events(EventsQuery { device: "press-1".into(), count: 2 })));
    for seq in [11, 12] {
        assert!(dashboard.message(&event(seq), &utc).is_empty());
    }
    let events = Events { kept: true, seq: 11, messages: vec![event(7), event(11)] };
    assert_eq!(shown(&dashboard.events(&events, &utc)), ["e7", "e11", "e12"]);
    assert_eq!(shown(&dashboard.message(&event(13), &utc)), ["e13"]);
}

#[test]
fn a_stream_goes_on_without_the_past_when_too_much_waits() {
    let mut dashboard = dashboard("properties", &json!({"deviceId": "press-1", "history": 1}));
    let utc = TimeZone::UTC;
    let payloads: Vec<_> = (11..=266).flat_map(|seq| dashboard.message(&report(seq, 1.0), &utc)).collect();
    assert_eq!(payloads.len(), 256, "nothing is lost");
    assert_eq!(dashboard.current(&current()), None);
    assert!(dashboard.values(&latest(266, &[1.0]), &utc).is_empty());
}

proptest! {
    /// Message `n` carries the value `n`. The hub has sent from `watched` on, knew `known` messages when it gave its
    /// values, and the store had `stored` when it looked; both answers arrive anywhere among the messages, the store's
    /// second.
    #[test]
    fn every_value_is_shown_once_and_in_order(
        watched in 1_u64..20,
        known in 0_u64..20,
        stored in 0_u64..20,
        first in 0_usize..40,
        second in 0_usize..40,
        count in 1_u64..30,
        kept: bool,
    ) {
        let known = watched + known;
        let stored = known + stored;
        let last = stored + 5;
        let (first, second) = (first.min(second), first.max(second));
        let utc = TimeZone::UTC;
        let parameter = json!({"deviceId": "press-1", "properties": ["temperature"], "history": count});
        let mut dashboard = dashboard("properties", &parameter);
        let value = |seq: u64| f64::from(u32::try_from(seq).unwrap());
        let answer = if kept {
            let oldest = (stored + 1).saturating_sub(count).max(1);
            let at = |seq| UnixMillis(i64::try_from(seq).unwrap());
            let series = (oldest..=stored).map(|seq| (at(seq), Value::Float(value(seq)))).collect();
            Latest { kept, seq: stored, values: vec![("temperature".into(), series)] }
        } else {
            Latest::default()
        };
        let mut payloads = Vec::new();
        let messages: Vec<u64> = (watched..=last).collect();
        for at in 0..=messages.len().max(second) {
            if at == first {
                prop_assert!(dashboard.current(&snapshot(known, value(known))).is_some());
            }
            if at == second {
                payloads.extend(dashboard.values(&answer, &utc));
            }
            if let Some(seq) = messages.get(at) {
                payloads.extend(dashboard.message(&report(*seq, value(*seq)), &utc));
            }
        }
        let begin = if kept { (stored + 1).saturating_sub(count).max(1) } else { known };
        let expected: Vec<Json> = (begin..=last).map(|seq| json!(value(seq))).collect();
        prop_assert_eq!(shown(&payloads), expected);
    }
}

#[test]
fn a_wish_for_history_is_read_in_every_form() {
    for (history, wanted) in [
        (json!(3), true),
        (json!("3"), true),
        (json!(true), true),
        (json!(0), false),
        (json!("0"), false),
        (json!(false), false),
        (json!(-1), false),
        (json!(null), false),
    ] {
        let dashboard = dashboard("properties", &json!({"deviceId": "press-1", "history": history}));
        assert_eq!(dashboard.history().is_some(), wanted, "{history}");
    }
}

#[test]
fn a_dashboard_shows_the_name_of_an_enumerations_number() {
    let mut device = (*fixture::press(&fixture::context())).clone();
    let mut product = (*device.product).clone();
    product.properties[0].labels = vec![(1, "low".into()), (2, "high".into())];
    device.product = Arc::new(product);
    let device = Arc::new(device);
    let mut dashboard = dashboard("properties", &json!({"deviceId": &*device.id}));
    for (number, shown) in [(2, "high"), (3, "3")] {
        let (at, quality, value) = (UnixMillis(1), Quality::Good, Value::Int(number));
        let report = Report { property: 0, id: "temperature".into(), value, at, quality };
        let message = DeviceMessage::new(1, at, Arc::clone(&device), Body::Properties(vec![report]));
        let payloads = dashboard.message(&Arc::new(message), &TimeZone::UTC);
        assert_eq!(payloads[0]["value"]["formatValue"], shown);
        assert_eq!(payloads[0]["value"]["value"], number);
    }
}

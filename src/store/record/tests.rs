//! Every record reads back as what it was made from, and no bytes make reading panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::value::Value;

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,8}".prop_map(Arc::from)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        text().prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(Value::Object),
        ]
    })
}

fn named() -> impl Strategy<Value = Vec<(Arc<str>, Value)>> {
    vec((text(), value()), 0..4)
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![Just(Level::Info), Just(Level::Alert), Just(Level::Fault)]
}

fn note() -> impl Strategy<Value = Arc<CommandNote>> {
    let kind = prop_oneof![Just(ActionKind::Read), Just(ActionKind::Write), Just(ActionKind::Invoke)];
    (text(), kind, prop::option::of(text()), named(), text()).prop_map(
        |(message_id, kind, function, values, client)| {
            Arc::new(CommandNote { message_id, kind, function, values, client })
        },
    )
}

fn rejection() -> impl Strategy<Value = Rejection> {
    let types = prop_oneof![
        Just(ValueType::Bool),
        Just(ValueType::Int),
        Just(ValueType::Float),
        Just(ValueType::Text),
        Just(ValueType::Enum),
        Just(ValueType::Object),
    ];
    prop_oneof![
        text().prop_map(Rejection::UnknownDevice),
        text().prop_map(Rejection::UnknownProperty),
        text().prop_map(Rejection::ReadOnly),
        text().prop_map(Rejection::WriteOnly),
        (text(), types, value()).prop_map(|(id, expected, found)| Rejection::WrongType {
            id,
            expected,
            found
        }),
        (text(), ".{0,8}", value()).prop_map(|(id, allowed, found)| Rejection::OutOfRange {
            id,
            allowed,
            found
        }),
        text().prop_map(Rejection::UnknownFunction),
        text().prop_map(Rejection::MissingInput),
        text().prop_map(Rejection::UnknownInput),
        Just(Rejection::Empty),
        Just(Rejection::Expired),
        (any::<usize>(), any::<usize>(), ".{0,8}", ".{0,8}")
            .prop_map(|(step, of, what, why)| Rejection::Step { step, of, what, why }),
        text().prop_map(Rejection::Superseded),
        (text(), ".{0,8}").prop_map(|(id, why)| Rejection::Lease { id, why }),
        any::<usize>().prop_map(Rejection::TooManyLeases),
        (text(), any::<u32>()).prop_map(|(id, millis)| {
            Rejection::TooSoon { id, every: Duration::from_millis(millis.into()), wait: Duration::ZERO }
        }),
        ".{0,8}".prop_map(Rejection::ByDevice),
        (text(), value(), value()).prop_map(|(id, expected, found)| Rejection::Mismatch {
            id,
            expected,
            found
        }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (named(), named()).prop_map(|(values, outputs)| Outcome::Confirmed { values, outputs }),
        rejection().prop_map(Outcome::Rejected),
        Just(Outcome::Offline),
        Just(Outcome::TimedOut),
        Just(Outcome::Busy),
        Just(Outcome::Forbidden),
    ]
}

fn rule() -> impl Strategy<Value = Arc<AlarmRule>> {
    let number = || prop::num::f64::NORMAL;
    let condition = prop_oneof![
        number().prop_map(AlarmCondition::Above),
        number().prop_map(AlarmCondition::Below),
        value().prop_map(AlarmCondition::Equal),
        value().prop_map(AlarmCondition::NotEqual),
        (number(), 1..1_000_000_u64, 1..1_000_000_u64).prop_map(|(limit, per, over)| {
            let (per, over) = (Duration::from_millis(per), Duration::from_millis(over));
            AlarmCondition::Rate(Rate { direction: Direction::Down, limit, per, over })
        }),
        any::<u32>().prop_map(|ms| AlarmCondition::NoData(Duration::from_millis(ms.into()))),
        (kind(), number(), any::<u32>()).prop_map(|(kind, limit, hold)| AlarmCondition::Client {
            kind,
            limit,
            hold: Duration::from_millis(hold.into()),
        }),
    ];
    (text(), text(), condition, number(), level()).prop_map(|(id, name, condition, hysteresis, level)| {
        Arc::new(AlarmRule { name, hysteresis, level, ..AlarmRule::new(id, condition) })
    })
}

fn report() -> impl Strategy<Value = Report> {
    let quality = prop_oneof![Just(Quality::Good), Just(Quality::Stale), Just(Quality::Bad)];
    (text(), value(), any::<i64>(), quality).prop_map(|(id, value, at, quality)| Report {
        property: UNPLACED,
        id,
        value,
        at: UnixMillis(at),
        quality,
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        vec(report(), 0..4).prop_map(Body::Properties),
        (text(), level(), named()).prop_map(|(event, level, params)| Body::Event { event, level, params }),
        (rule(), any::<bool>(), value(), vec(text(), 0..3)).prop_map(|(rule, raised, value, active)| {
            Body::Alarm { rule, property: UNPLACED, raised, value, active }
        }),
        (any::<bool>(), prop::option::of(text()))
            .prop_map(|(online, reason)| Body::Presence { online, reason }),
        (text(), text()).prop_map(|(topic, payload)| Body::Publish { topic, payload }),
        note().prop_map(|command| Body::Sent { command }),
        (note(), outcome())
            .prop_map(|(command, outcome)| Body::Reply { command, outcome: Arc::new(outcome) }),
        (any::<i32>(), text()).prop_map(|(step, detail)| Body::Ota { step, detail }),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::All),
        text().prop_map(Selector::Device),
        text().prop_map(Selector::Product),
        text().prop_map(Selector::Project),
        (text(), text()).prop_map(|(project, area)| Selector::Area { project, area }),
        text().prop_map(Selector::TypeId),
        text().prop_map(Selector::TypeIdPrefix),
    ]
}

fn kind() -> impl Strategy<Value = AlarmKind> {
    prop_oneof![
        Just(AlarmKind::Below),
        Just(AlarmKind::Above),
        Just(AlarmKind::Equal),
        Just(AlarmKind::MonotonicRising),
        Just(AlarmKind::MonotonicFalling),
    ]
}

fn alarm() -> impl Strategy<Value = ClientAlarm> {
    let what = (kind(), text(), prop::option::of(text()), selector());
    (any::<u64>(), text(), what, prop::num::f64::NORMAL, any::<u32>(), level()).prop_map(
        |(id, name, (kind, property, link, devices), value, hold, level)| ClientAlarm {
            id,
            name,
            kind,
            property,
            link,
            devices,
            value,
            hold: Duration::from_millis(u64::from(hold)),
            level,
        },
    )
}

proptest! {
    #[test]
    fn a_body_reads_back_as_what_it_was(body in body()) {
        let record = encode(&body);
        let back = decode(&record).unwrap();
        let marked = encode_by(&body, Clock::Unsynchronised);
        prop_assert_eq!((clock(&record), clock(&marked)), (Clock::Synchronised, Clock::Unsynchronised));
        prop_assert_eq!(redate(&marked, 0), Some(record.clone()));
        prop_assert_eq!(redate(&record, 0), None);
        prop_assert_eq!(format!("{back:?}"), format!("{body:?}"));
    }

    #[test]
    fn an_interest_and_an_alarm_read_back(selector in selector(), bits in 0..=255_u16, alarm in alarm()) {
        let interest = Interest { selector, kinds: Kinds::from_bits(bits) };
        prop_assert_eq!(decode_interest(&encode_interest(&interest)), Ok(interest));
        let raised = vec![("press-1".into(), 8.5), ("press-2".into(), -1.0)];
        let kept = KeptAlarm { alarm: alarm.clone(), owner: "somebody".into(), raised };
        prop_assert_eq!(decode_alarm(&encode_alarm(&kept)), Ok(kept));
        // As a version wrote it that did not know whose it is.
        let mut old = encode_alarm(&alarm.clone().into());
        old[0] = VERSION;
        old.truncate(old.len() - 2);
        prop_assert_eq!(decode_alarm(&old), Ok(alarm.into()));
    }

    #[test]
    fn a_cut_or_altered_record_is_refused_or_read_but_never_panics(
        body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut record = encode(&body);
        let at = at.index(record.len());
        prop_assert!(decode(&record[..at]).is_err(), "a record without its end is no record");
        record[at] = byte;
        drop(decode(&record));
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in vec(any::<u8>(), 0..64)) {
        drop(decode(&bytes));
        drop(decode_interest(&bytes));
        drop(decode_alarm(&bytes));
    }
}

#[test]
fn a_record_of_a_later_version_is_refused() {
    let mut record = encode(&Body::Ota { step: 1, detail: "x".into() });
    record[0] = 3;
    assert_eq!(decode(&record).unwrap_err().expected, "a version that this program knows");
}

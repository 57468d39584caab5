//! Tests of reading and writing payloads.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::drivers::mqtt::template::Template;

fn scaled(kind: ValueType, scale: f64, offset: f64) -> Form {
    Form { scale, offset, ..Form::plain(kind) }
}

fn switch(on: &str, off: &str) -> Form {
    Form { on: Some(on.into()), off: Some(off.into()), ..Form::plain(ValueType::Bool) }
}

fn labelled() -> Form {
    Form {
        labels: vec![(0, "Off".into()), (1, "heat".into()), (7, "2".into())],
        ..Form::plain(ValueType::Enum)
    }
}

/// The value, or `None` for an unreadable one.
fn value(sample: Sample) -> Option<Value> {
    match sample {
        Sample::Value(value) => Some(value),
        Sample::Unreadable(reason) => {
            assert!(!reason.is_empty());
            None
        }
    }
}

#[test]
fn plain_text_is_read_by_type() {
    for (form, text, read) in [
        (Form::plain(ValueType::Bool), "on", Some(Value::Bool(true))),
        (Form::plain(ValueType::Bool), " OFF\n", Some(Value::Bool(false))),
        (Form::plain(ValueType::Bool), "True", Some(Value::Bool(true))),
        (Form::plain(ValueType::Bool), "0", Some(Value::Bool(false))),
        (Form::plain(ValueType::Bool), "maybe", None),
        (Form::plain(ValueType::Bool), "", None),
        (switch("OPEN", "CLOSED"), "open", Some(Value::Bool(true))),
        (switch("OPEN", "CLOSED"), "1", Some(Value::Bool(true))),
        (switch("0", "1"), "1", Some(Value::Bool(false))),
        (switch("off", "on"), "off", Some(Value::Bool(true))),
        (Form::plain(ValueType::Int), " 42 ", Some(Value::Int(42))),
        (Form::plain(ValueType::Int), "42.0", Some(Value::Int(42))),
        (Form::plain(ValueType::Int), "42.5", None),
        (Form::plain(ValueType::Int), "9223372036854775807", Some(Value::Int(i64::MAX))),
        (Form::plain(ValueType::Int), "9223372036854775808", None),
        (Form::plain(ValueType::Float), "23.5", Some(Value::Float(23.5))),
        (Form::plain(ValueType::Float), "-1e3", Some(Value::Float(-1000.0))),
        (Form::plain(ValueType::Float), "nan", None),
        (Form::plain(ValueType::Float), "inf", None),
        (Form::plain(ValueType::Float), "1e999", None),
        (Form::plain(ValueType::Float), "23,5", None),
        (scaled(ValueType::Float, 0.1, -5.0), "250", Some(Value::Float(20.0))),
        (scaled(ValueType::Int, 100.0 / 254.0, 0.0), "127", Some(Value::Int(50))),
        (Form::plain(ValueType::Text), " as it is ", Some(Value::text(" as it is "))),
        (labelled(), "off", Some(Value::Int(0))),
        (labelled(), "HEAT", Some(Value::Int(1))),
        (labelled(), "1", Some(Value::Int(1))),
        (labelled(), "2", Some(Value::Int(7))),
        (labelled(), "3", None),
        (labelled(), "cool", None),
        (
            Form::plain(ValueType::Object),
            r#"{"a":[1,null]}"#,
            Some(Value::Object([("a".into(), Value::List(vec![Value::Int(1), Value::Null]))].into())),
        ),
        (Form::plain(ValueType::Object), "[1]", None),
        (Form::plain(ValueType::Object), "{", None),
    ] {
        assert_eq!(value(form.read_text(text)), read, "{text} as {:?}", form.kind);
    }
}

#[test]
fn json_is_read_by_type() {
    for (form, payload, read) in [
        (Form::plain(ValueType::Bool), json!(true), Some(Value::Bool(true))),
        (Form::plain(ValueType::Bool), json!(0), Some(Value::Bool(false))),
        (Form::plain(ValueType::Bool), json!(1.0), Some(Value::Bool(true))),
        (Form::plain(ValueType::Bool), json!(2), None),
        (Form::plain(ValueType::Bool), json!("On"), Some(Value::Bool(true))),
        (switch("true", "false"), json!(false), Some(Value::Bool(false))),
        (switch("false", "true"), json!(false), Some(Value::Bool(true))),
        (switch("255", "0"), json!(255), Some(Value::Bool(true))),
        (Form::plain(ValueType::Bool), json!({}), None),
        (Form::plain(ValueType::Int), json!(7), Some(Value::Int(7))),
        (Form::plain(ValueType::Int), json!(7.0), Some(Value::Int(7))),
        (Form::plain(ValueType::Int), json!(7.5), None),
        (Form::plain(ValueType::Int), json!("7"), Some(Value::Int(7))),
        (Form::plain(ValueType::Int), json!(u64::MAX), None),
        (Form::plain(ValueType::Int), json!(true), None),
        (Form::plain(ValueType::Float), json!(7), Some(Value::Float(7.0))),
        (Form::plain(ValueType::Float), json!("23.5"), Some(Value::Float(23.5))),
        (Form::plain(ValueType::Float), json!([1]), None),
        (Form::plain(ValueType::Text), json!("x"), Some(Value::text("x"))),
        (Form::plain(ValueType::Text), json!(1.5), Some(Value::text("1.5"))),
        (Form::plain(ValueType::Text), json!({"a": 1}), Some(Value::text("{\"a\":1}"))),
        (labelled(), json!("heat"), Some(Value::Int(1))),
        (labelled(), json!(1), Some(Value::Int(1))),
        (labelled(), json!(2), None),
        (labelled(), json!("2"), Some(Value::Int(7))),
        (
            Form::plain(ValueType::Object),
            json!({"a": "b"}),
            Some(Value::Object([("a".into(), Value::text("b"))].into())),
        ),
        (Form::plain(ValueType::Object), json!("{}"), None),
        (Form::plain(ValueType::Text), json!(null), None),
    ] {
        assert_eq!(value(form.read_json(&payload)), read, "{payload} as {:?}", form.kind);
    }
}

#[test]
fn a_reason_never_carries_the_payload() {
    for kind in [ValueType::Bool, ValueType::Int, ValueType::Float, ValueType::Enum, ValueType::Object] {
        for sample in [Form::plain(kind).read_text("s3cret"), Form::plain(kind).read_json(&json!(["s3cret"]))]
        {
            let Sample::Unreadable(reason) = sample else { panic!("s3cret is no {}", kind.name()) };
            assert!(!reason.contains("s3cret"), "{reason}");
        }
    }
}

#[test]
fn a_written_number_carries_no_noise_of_its_scale() {
    let tenths = scaled(ValueType::Float, 0.1, 0.0);
    assert_eq!(tenths.write(&Value::Float(2.3), Place::Plain).unwrap(), "23");
    assert_eq!(tenths.write(&Value::Float(23.45), Place::Bare).unwrap(), "234.5");
    assert_eq!(scaled(ValueType::Int, 0.01, 0.0).write(&Value::Int(3), Place::Plain).unwrap(), "300");
    assert_eq!(scaled(ValueType::Float, 0.0, 0.0).write(&Value::Float(1.0), Place::Plain), None);
}

#[test]
fn words_are_json_in_a_bare_place_only_when_they_are() {
    assert_eq!(switch("ON", "OFF").write(&Value::Bool(true), Place::Bare).unwrap(), "\"ON\"");
    assert_eq!(switch("1", "0").write(&Value::Bool(false), Place::Bare).unwrap(), "0");
    assert_eq!(labelled().write(&Value::Int(1), Place::Bare).unwrap(), "1");
    assert_eq!(labelled().write(&Value::Int(1), Place::Quoted).unwrap(), "heat");
    assert_eq!(labelled().write(&Value::Int(1), Place::Plain).unwrap(), "heat");
}

#[test]
fn a_read_back_may_differ_by_the_rounding_of_the_device_only() {
    let percent = scaled(ValueType::Float, 100.0 / 254.0, 0.0);
    assert!(percent.same(&Value::Float(50.1), &Value::Float(50.0)));
    assert!(!percent.same(&Value::Float(51.0), &Value::Float(50.0)));
    let plain = Form::plain(ValueType::Float);
    assert!(plain.same(&Value::Float(21.3), &Value::Float(21.300_000_2)));
    assert!(!plain.same(&Value::Float(21.3), &Value::Float(21.5)));
    assert!(!Form::plain(ValueType::Bool).same(&Value::Bool(true), &Value::Bool(false)));
}

fn kinds() -> impl Strategy<Value = ValueType> {
    prop_oneof![
        Just(ValueType::Bool),
        Just(ValueType::Int),
        Just(ValueType::Float),
        Just(ValueType::Text),
        Just(ValueType::Enum),
        Just(ValueType::Object),
    ]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        any::<i32>().prop_map(|n| json!(f64::from(n) / 64.0)),
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// A form and a value of its type that a write may carry.
fn writable() -> impl Strategy<Value = (Form, Value)> {
    prop_oneof![
        any::<bool>().prop_map(|on| (Form::plain(ValueType::Bool), Value::Bool(on))),
        ("[a-zA-Z0-9 ]{1,6}", "[a-zA-Z0-9 ]{1,6}", any::<bool>())
            .prop_filter("two words", |(on, off, _)| !on.trim().eq_ignore_ascii_case(off.trim())
                && !on.trim().is_empty()
                && !off.trim().is_empty())
            .prop_map(|(on, off, value)| (switch(&on, &off), Value::Bool(value))),
        any::<i64>().prop_map(|n| (Form::plain(ValueType::Int), Value::Int(n))),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(|n| (Form::plain(ValueType::Float), Value::Float(n))),
        (-1_000_000_i32..1_000_000, 1_i32..10_000, -100_i32..100).prop_map(|(n, scale, offset)| (
            scaled(ValueType::Float, f64::from(scale) / 1000.0, f64::from(offset)),
            Value::Float(f64::from(n) / 100.0)
        )),
        any::<String>().prop_map(|text| (Form::plain(ValueType::Text), Value::text(text))),
        prop_oneof![Just(0_i64), Just(1), Just(7)].prop_map(|n| (labelled(), Value::Int(n))),
        any_json().prop_map(|json| (
            Form::plain(ValueType::Object),
            Value::Object([("a".into(), from_json(&json))].into())
        )),
    ]
}

proptest! {
    #[test]
    fn no_payload_panics(kind in kinds(), text in any::<String>(), json in any_json(), scale in any::<f64>(), offset in any::<f64>()) {
        for form in [Form::plain(kind), scaled(kind, scale, offset), Form { labels: labelled().labels, ..switch("ON", "OFF") }] {
            for sample in [form.read_text(&text), form.read_json(&json)] {
                if let Sample::Value(Value::Float(n)) = sample {
                    prop_assert!(n.is_finite());
                }
            }
        }
    }

    #[test]
    fn what_a_template_writes_the_reader_reads_back((form, value) in writable()) {
        let render = |text: &str| Template::parse(text, &["value".into()]).render(|_| Some((&form, &value))).unwrap();
        let mut samples = vec![form.read_text(&render("{value}"))];
        let bare: Json = serde_json::from_str(&render(r#"{"v":{value}}"#)).unwrap();
        samples.push(form.read_json(&bare["v"]));
        // An object inside quotes is a text of JSON, which only a plain payload would be read as.
        if form.kind != ValueType::Object {
            let quoted: Json = serde_json::from_str(&render(r#"{"v":"{value}"}"#)).unwrap();
            samples.push(form.read_json(&quoted["v"]));
        }
        for sample in samples {
            let Sample::Value(read) = &sample else { panic!("{sample:?} for {value:?}") };
            prop_assert!(read == &value || form.same(&value, read), "{:?} read back as {:?}", value, read);
        }
    }
}

#[test]
fn a_word_that_is_a_number_is_known_however_json_writes_it() {
    let form = switch("A", "1e0");
    assert_eq!(form.read_json(&json!(1.0)), Sample::Value(Value::Bool(false)));
}

#[test]
fn what_is_too_large_to_travel_to_every_client_is_no_reading() {
    let most = "x".repeat(64 << 10);
    let long = format!("{most}x");
    let object = format!(r#"{{"a":{{"b":["{long}"]}}}}"#);
    for (kind, text) in [(ValueType::Text, &long), (ValueType::Object, &object)] {
        let Sample::Unreadable(why) = Form::plain(kind).read_text(text) else { panic!("{kind:?} is read") };
        assert_eq!(&*why, "it is larger than 64 KiB");
    }
    let Sample::Value(_) = Form::plain(ValueType::Text).read_text(&most) else { panic!("too small") };
}

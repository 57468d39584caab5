//! What is taken over, what is refused, and in which words.

use proptest::prelude::*;

use super::*;
use crate::model::product::Access;

fn property(id: &str, kind: ValueType, access: Access) -> Property {
    Property { access, ..Property::new(id, kind) }
}

fn parameter(id: &str, kind: ValueType, required: bool) -> Parameter {
    Parameter { id: id.into(), kind, required, range: None }
}

fn product() -> Product {
    let mode = Property {
        labels: vec![(0, "Off".into()), (2, "Auto".into())],
        ..property("mode", ValueType::Enum, Access::ReadWrite)
    };
    let setpoint = Property {
        range: Some((0.0, 100.0)),
        step: Some(0.1),
        ..property("setpoint", ValueType::Float, Access::ReadWrite)
    };
    Product {
        id: "press".into(),
        name: "Press".into(),
        type_id: "t".into(),
        properties: vec![
            property("temperature", ValueType::Float, Access::Read),
            setpoint,
            property("running", ValueType::Bool, Access::ReadWrite),
            mode,
            property("pin", ValueType::Text, Access::Write),
            property("count", ValueType::Int, Access::ReadWrite),
        ],
        functions: vec![Function {
            id: "reset".into(),
            name: "Reset".into(),
            inputs: vec![
                Parameter { range: Some((0.0, 9.0)), ..parameter("code", ValueType::Int, true) },
                parameter("why", ValueType::Text, false),
            ],
            outputs: Vec::new(),
            ..Function::new("")
        }],
        events: Vec::new(),
    }
}

fn read_of(ids: &[&str]) -> Result<Checked, Rejection> {
    check(&product(), &Action::Read(ids.iter().map(|id| Arc::from(*id)).collect()))
}

fn write_of(values: &[(&str, Value)]) -> Result<Checked, Rejection> {
    let values = values.iter().map(|(id, value)| (Arc::from(*id), value.clone())).collect();
    check(&product(), &Action::Write(values))
}

fn call_of(function: &str, inputs: &[(&str, Value)]) -> Result<Checked, Rejection> {
    let inputs = inputs.iter().map(|(id, value)| (Arc::from(*id), value.clone())).collect();
    check(&product(), &Action::Invoke { function: function.into(), inputs })
}

/// What a write of one property takes over, or the sentence that refuses it.
fn one(id: &str, value: Value) -> Result<Value, String> {
    match write_of(&[(id, value)]) {
        Ok(Checked::Write(mut values)) => Ok(values.remove(0).1),
        Ok(other) => panic!("a write became {other:?}"),
        Err(rejection) => Err(rejection.to_string()),
    }
}

#[test]
fn a_switch_is_taken_in_every_way_that_clients_write_it() {
    let on = [
        Value::Bool(true),
        Value::Int(1),
        Value::Float(1.0),
        "true".into_text(),
        "ON".into_text(),
        "1".into_text(),
    ];
    for value in on {
        assert_eq!(one("running", value.clone()), Ok(Value::Bool(true)), "{value:?}");
    }
    let off =
        [Value::Bool(false), Value::Int(0), Value::Float(0.0), "False".into_text(), " off ".into_text()];
    for value in off {
        assert_eq!(one("running", value.clone()), Ok(Value::Bool(false)), "{value:?}");
    }
    for value in [Value::Int(2), Value::Float(0.5), "yes".into_text(), Value::Null, Value::List(Vec::new())] {
        let told = one("running", value.clone()).unwrap_err();
        assert_eq!(told, format!("running takes bool, found {value}"));
    }
}

#[test]
fn a_whole_number_is_taken_from_integral_floats_and_text() {
    for (given, taken) in [
        (Value::Int(-7), -7),
        (Value::Float(20.0), 20),
        ("42".into_text(), 42),
        (" 42.0 ".into_text(), 42),
        ("9223372036854775807".into_text(), i64::MAX),
        (Value::Float(-9_223_372_036_854_775_808.0), i64::MIN),
    ] {
        assert_eq!(one("count", given.clone()), Ok(Value::Int(taken)), "{given:?}");
    }
    for value in
        [Value::Float(20.5), Value::Float(9.3e18), "x".into_text(), "".into_text(), Value::Bool(true)]
    {
        assert_eq!(one("count", value.clone()), Err(format!("count takes int, found {value}")));
    }
}

#[test]
fn a_number_is_taken_from_whole_numbers_and_text_but_must_be_finite() {
    assert_eq!(one("setpoint", Value::Int(20)), Ok(Value::Float(20.0)));
    assert_eq!(one("setpoint", "20.5".into_text()), Ok(Value::Float(20.5)));
    for text in ["NaN", "inf", "1e999", "twenty"] {
        assert_eq!(one("setpoint", text.into_text()), Err(format!("setpoint takes float, found {text}")));
    }
}

#[test]
fn a_number_outside_its_range_or_off_its_step_is_refused_with_what_is_allowed() {
    assert_eq!(one("setpoint", Value::Float(0.0)), Ok(Value::Float(0.0)));
    assert_eq!(one("setpoint", Value::Float(100.0)), Ok(Value::Float(100.0)));
    assert_eq!(
        one("setpoint", Value::Float(0.1 + 0.2)),
        Ok(Value::Float(0.1 + 0.2)),
        "a rounding error is no fault"
    );
    assert_eq!(one("setpoint", Value::Int(250)), Err("setpoint takes 0 to 100, found 250".to_owned()));
    assert_eq!(
        one("setpoint", Value::Float(1.25)),
        Err("setpoint takes steps of 0.1 from 0, found 1.25".to_owned())
    );
}

#[test]
fn an_enumeration_is_taken_by_number_or_by_label() {
    for given in [Value::Int(2), Value::Float(2.0), "Auto".into_text(), "auto".into_text(), "2".into_text()] {
        assert_eq!(one("mode", given.clone()), Ok(Value::Int(2)), "{given:?}");
    }
    assert_eq!(one("mode", Value::Int(1)), Err("mode takes one of 0 (Off), 2 (Auto), found 1".to_owned()));
    assert_eq!(
        one("mode", "Turbo".into_text()),
        Err("mode takes one of 0 (Off), 2 (Auto), found Turbo".to_owned())
    );
    assert_eq!(one("mode", Value::Bool(true)), Err("mode takes enum, found true".to_owned()));
}

#[test]
fn text_is_taken_only_as_text() {
    assert_eq!(one("pin", "0000".into_text()), Ok("0000".into_text()));
    assert_eq!(one("pin", Value::Int(0)), Err("pin takes string, found 0".to_owned()));
}

#[test]
fn access_and_existence_are_checked_before_values() {
    let null = Value::Null;
    assert_eq!(write_of(&[("temperature", null.clone())]), Err(Rejection::ReadOnly("temperature".into())));
    assert_eq!(write_of(&[("colour", null)]), Err(Rejection::UnknownProperty("colour".into())));
    assert_eq!(read_of(&["pin"]), Err(Rejection::WriteOnly("pin".into())));
    assert_eq!(read_of(&["temperature", "colour"]), Err(Rejection::UnknownProperty("colour".into())));
}

#[test]
fn an_empty_write_is_refused_and_an_empty_read_means_all_that_can_be_read() {
    assert_eq!(write_of(&[]), Err(Rejection::Empty));
    assert_eq!(read_of(&[]), Ok(Checked::Read(vec![0, 1, 2, 3, 5])));
}

#[test]
fn of_a_property_named_twice_the_last_value_counts() {
    let written = write_of(&[("count", Value::Int(1)), ("running", Value::Int(1)), ("count", Value::Int(3))]);
    assert_eq!(written, Ok(Checked::Write(vec![(2, Value::Bool(true)), (5, Value::Int(3))])));
    assert_eq!(read_of(&["count", "running", "count"]), Ok(Checked::Read(vec![5, 2])));
}

#[test]
fn a_call_needs_its_required_inputs_and_no_others() {
    let ok = call_of("reset", &[("code", "7".into_text()), ("why", Value::Null)]);
    assert_eq!(ok, Ok(Checked::Invoke { function: 0, inputs: vec![("code".into(), Value::Int(7))] }));
    assert_eq!(call_of("reset", &[]), Err(Rejection::MissingInput("code".into())));
    assert_eq!(call_of("reset", &[("code", Value::Null)]), Err(Rejection::MissingInput("code".into())));
    assert_eq!(call_of("reset", &[("codes", Value::Int(7))]), Err(Rejection::UnknownInput("codes".into())));
    assert_eq!(call_of("explode", &[]), Err(Rejection::UnknownFunction("explode".into())));
    let told = call_of("reset", &[("code", Value::Int(10))]).unwrap_err().to_string();
    assert_eq!(told, "code takes 0 to 9, found 10");
    let told = call_of("reset", &[("code", "x".into_text())]).unwrap_err().to_string();
    assert_eq!(told, "code takes int, found x");
}

#[test]
fn numbers_of_different_types_are_the_same_and_numbers_and_text_are_not() {
    assert!(same(&Value::Int(1), &Value::Bool(true)));
    assert!(same(&Value::Float(0.0), &Value::Float(-0.0)));
    assert!(!same(&Value::Int(i64::MAX), &Value::Int(i64::MAX - 1)));
    assert!(!same(&Value::Int(1), &"1".into_text()));
}

/// Short for text values.
trait IntoText {
    fn into_text(self) -> Value;
}

impl IntoText for &str {
    fn into_text(self) -> Value {
        Value::text(self)
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        "[0-9a-zA-Z.+-]{0,8}".prop_map(Value::text),
        Just(Value::List(Vec::new())),
        Just(Value::Object(std::collections::BTreeMap::new())),
    ]
}

proptest! {
    #[test]
    fn what_is_taken_over_is_of_the_products_type_and_is_taken_over_again_unchanged(
        at in 0..6_usize, value in any_value(),
    ) {
        let product = product();
        let property = &product.properties[at];
        if let Ok(taken) = property_value(property, &value) {
            let fits = match property.kind {
                ValueType::Bool => matches!(taken, Value::Bool(_)),
                ValueType::Int | ValueType::Enum => matches!(taken, Value::Int(_)),
                ValueType::Float => matches!(taken, Value::Float(n) if n.is_finite()),
                ValueType::Text => matches!(taken, Value::Text(_)),
                ValueType::Object => matches!(taken, Value::Object(_)),
            };
            prop_assert!(fits, "{:?} became {:?}", value, taken);
            prop_assert_eq!(property_value(property, &taken), Ok(taken));
        }
    }
}

//! Model values to JSON and back, in the one way that all dialects agree on.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use crate::model::value::Value;

/// A value as JSON. A float without a fraction stays a float (`20.0`).
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(on) => Json::Bool(*on),
        Value::Int(n) => Json::Number((*n).into()),
        Value::Float(n) => Number::from_f64(*n).map_or(Json::Null, Json::Number),
        Value::Text(text) => Json::String(text.as_ref().to_owned()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Object(members) => Json::Object(
            members.iter().map(|(name, value)| (name.as_ref().to_owned(), to_json(value))).collect(),
        ),
    }
}

/// JSON as a value. A number beyond 64 bits becomes a float.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(on) => Value::Bool(*on),
        Json::Number(n) => {
            n.as_i64().map_or_else(|| n.as_f64().map_or(Value::Null, Value::Float), Value::Int)
        }
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (Arc::from(name.as_str()), from_json(value))).collect(),
        ),
    }
}

/// Named values as a JSON object, in their order.
pub fn object<'a>(members: impl IntoIterator<Item = (&'a Arc<str>, &'a Value)>) -> Map<String, Json> {
    members.into_iter().map(|(name, value)| (name.as_ref().to_owned(), to_json(value))).collect()
}

/// The member of this name, in any case if not exactly so, as the parsers of several real servers find it.
pub fn member<'a>(members: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    members.get(name).or_else(|| {
        members.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_way_to_json_and_back() {
        let value = Value::Object(
            [
                (Arc::from("a"), Value::List(vec![Value::Int(-3), Value::Float(20.0), Value::Null])),
                (Arc::from("b"), Value::text("\u{0}\"\\")),
                (Arc::from("c"), Value::Bool(true)),
            ]
            .into(),
        );
        assert_eq!(from_json(&to_json(&value)), value);
    }

    #[test]
    fn the_exact_name_goes_before_another_case_of_it() {
        let json: Json = serde_json::from_str(r#"{"ID": 1, "id": 2, "Type": 3}"#).unwrap();
        let members = json.as_object().unwrap();
        assert_eq!(member(members, "id"), Some(&Json::from(2)));
        assert_eq!(member(members, "type"), Some(&Json::from(3)));
        assert_eq!(member(members, "topic"), None);
    }

    #[test]
    fn a_number_beyond_64_bits_becomes_a_float() {
        let json: Json = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(from_json(&json), Value::Float(18_446_744_073_709_551_615.0));
    }
}

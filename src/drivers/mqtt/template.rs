//! Payload templates of writes and function calls: `ON`, `{value}`, `{"state":"{value}"}`.
//!
//! Pure. Parsed once when the routes are built. Only the names that are given count as slots, so that the braces of
//! a JSON template need no escaping.

use std::sync::Arc;

use super::payload::{Form, Place};
use crate::model::value::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Slot { name: Arc<str>, place: Place },
}

/// A value has no form on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {0} cannot be written as a number with the scale that is configured")]
pub struct Unwritable(pub Arc<str>);

impl Template {
    /// Reads a template whose slots are `{name}` for each of the names; everything else stands for itself.
    ///
    /// A slot inside double quotes is filled with escaped text. Outside, it is filled with JSON when the template is
    /// a JSON object or list, and with the bare text otherwise.
    pub fn parse(text: &str, names: &[Arc<str>]) -> Self {
        let slot_at = |rest: &str| {
            let inner = rest.strip_prefix('{')?;
            names
                .iter()
                .find(|name| inner.strip_prefix(name.as_ref()).is_some_and(|rest| rest.starts_with('}')))
        };
        let is_json = text.trim_start().starts_with(['{', '[']) && slot_at(text.trim_start()).is_none();
        let mut parts = Vec::new();
        let mut literal = String::new();
        let (mut quoted, mut escaping) = (false, false);
        let mut characters = text.chars();
        loop {
            if let Some(name) = slot_at(characters.as_str()) {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let place = match (quoted, is_json) {
                    (true, _) => Place::Quoted,
                    (false, true) => Place::Bare,
                    (false, false) => Place::Plain,
                };
                parts.push(Part::Slot { name: Arc::clone(name), place });
                // The name and its two braces are read; `nth` counts from zero.
                characters.nth(name.chars().count() + 1);
                escaping = false;
                continue;
            }
            let Some(character) = characters.next() else { break };
            quoted ^= character == '"' && !escaping;
            escaping = quoted && character == '\\' && !escaping;
            literal.push(character);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self(parts)
    }

    /// The names of the slots, in order, as often as they stand there.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Slot { name, .. } => Some(name),
        })
    }

    /// The message with every slot filled. A slot without a value is empty, or `null` bare in JSON.
    pub fn render<'value>(
        &self,
        value_of: impl Fn(&str) -> Option<(&'value Form, &'value Value)>,
    ) -> Result<String, Unwritable> {
        let mut message = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => message.push_str(text),
                Part::Slot { name, place } => match value_of(name) {
                    Some((form, value)) => {
                        let text = form.write(value, *place).ok_or_else(|| Unwritable(Arc::clone(name)))?;
                        message.push_str(&text);
                    }
                    None if *place == Place::Bare => message.push_str("null"),
                    None => {}
                },
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::value::ValueType;

    fn fill(template: &str, value: &Value) -> String {
        let form = Form::plain(match value {
            Value::Bool(_) => ValueType::Bool,
            Value::Int(_) => ValueType::Int,
            Value::Float(_) => ValueType::Float,
            Value::Null | Value::Text(_) | Value::List(_) | Value::Object(_) => ValueType::Text,
        });
        Template::parse(template, &["value".into()]).render(|_| Some((&form, value))).unwrap()
    }

    #[test]
    fn a_slot_takes_the_form_of_its_place() {
        for (template, value, message) in [
            ("{value}", Value::Int(7), "7"),
            ("{value}", Value::Float(20.0), "20"),
            ("{value}", Value::Float(20.5), "20.5"),
            ("{value}", Value::text("a\"b"), "a\"b"),
            (r#"{"state":"{value}"}"#, Value::text("a\"b\\\n"), r#"{"state":"a\"b\\\n"}"#),
            (r#"{"state":{value}}"#, Value::text("1,\"x\":2"), r#"{"state":"1,\"x\":2"}"#),
            (r#"{"state":{value}}"#, Value::Bool(true), r#"{"state":true}"#),
            (r#"{"brightness": {value}}"#, Value::Int(254), r#"{"brightness": 254}"#),
            ("[{value},{value}]", Value::Int(1), "[1,1]"),
            (r#" {"a\"{value}":1}"#, Value::text("\n"), r#" {"a\"\n":1}"#),
            ("level {value} %", Value::Int(3), "level 3 %"),
            ("{other} {value", Value::Int(3), "{other} {value"),
            ("", Value::Int(3), ""),
        ] {
            assert_eq!(fill(template, &value), message, "{template}");
        }
    }

    #[test]
    fn an_input_that_was_not_given_is_empty_or_null() {
        let names = ["a".into(), "b".into()];
        let form = Form::plain(ValueType::Int);
        let render = |text| {
            Template::parse(text, &names)
                .render(|name| (name == "a").then_some((&form, &Value::Int(1))))
                .unwrap()
        };
        assert_eq!(render("{a} {b}."), "1 .");
        assert_eq!(render(r#"{"a":{a},"b":{b},"c":"{b}"}"#), r#"{"a":1,"b":null,"c":""}"#);
    }

    proptest! {
        #[test]
        fn no_template_panics_and_without_slots_it_stands_for_itself(text in any::<String>()) {
            let template = Template::parse(&text, &["value".into()]);
            if template.slots().next().is_none() {
                prop_assert_eq!(template.render(|_| None).unwrap(), text);
            }
        }

        #[test]
        fn text_in_a_json_template_is_always_json_and_reads_back(text in any::<String>()) {
            for template in [r#"{"v":"{value}"}"#, r#"{"v":{value}}"#] {
                let json: serde_json::Value = serde_json::from_str(&fill(template, &Value::text(text.as_str()))).unwrap();
                prop_assert_eq!(json.get("v").and_then(|v| v.as_str()), Some(text.as_str()));
            }
        }
    }
}

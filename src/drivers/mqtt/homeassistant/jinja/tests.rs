//! Tests of templates.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What a template gives for a message; `-` for nothing.
fn given(template: &str, payload: &str) -> String {
    let json = serde_json::from_str(payload).ok();
    let template = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
    match template.render(Scope::of(payload, json.as_ref())) {
        Ok(Some(text)) => text,
        Ok(None) => "-".to_owned(),
        Err(error) => format!("! {error}"),
    }
}

/// Jinja 3.1, with Home Assistant's filters written after their documentation, gives the same for all but one: there a default
/// does not help a member that is missing (`float(0)` of `t`), and here it does.
#[test]
fn templates_give_what_home_assistant_makes_of_them() {
    for (template, payload, expected) in [
        ("{{ value }}", "ON", "ON"),
        ("{{value_json.POWER}}", r#"{"POWER":"ON"}"#, "ON"),
        ("{{ value_json['ENERGY'].Power }}", r#"{"ENERGY":{"Power":3.5}}"#, "3.5"),
        ("{{ value_json.a[1] }}", r#"{"a":[1,2]}"#, "2"),
        ("{{ value_json.a.1 }}", r#"{"a":[1,2]}"#, "2"),
        ("{{ value_json.missing }}", "{}", "-"),
        ("{{ value_json.missing.deeper }}", "{}", "-"),
        ("{{ value_json.x | is_defined }}", "{}", "-"),
        ("{{ value_json.x }}", "plain", "! the payload is not JSON"),
        ("{{ value | float }}", " 21.50 ", "21.5"),
        ("{{ value | float / 10 }}", "215", "21.5"),
        ("{{ (value | float) * 1.8 + 32 }}", "10", "50.0"),
        ("{{ value | int }}", "21.9", "21"),
        ("{{ value | int(0) }}", "none", "0"),
        ("{{ value | float }}", "none", "! the template calculates with something that is no number"),
        ("{{ value_json.t | float(0) }}", "{}", "0"),
        ("{{ value_json.t | round(1) }}", r#"{"t":21.456}"#, "21.5"),
        ("{{ value_json.t | round }}", r#"{"t":21.5}"#, "22"),
        ("{{ value_json.t | round(1, 'floor') }}", r#"{"t":21.48}"#, "21.4"),
        ("{{ value_json.x | default('None') }}", "{}", "None"),
        ("{{ value_json.x | default('a', true) }}", r#"{"x":""}"#, "a"),
        ("{{ value | upper }}", "on", "ON"),
        ("{{ value_json.x }}", r#"{"x":true}"#, "True"),
        ("{{ value_json.x | lower }}", r#"{"x":true}"#, "true"),
        ("{{ value_json.x }}", r#"{"x":null}"#, "None"),
        ("{{ 'ON' if value_json.x else 'OFF' }}", r#"{"x":true}"#, "ON"),
        ("{{ 'ON' if value_json.x == 'open' else 'OFF' }}", r#"{"x":"shut"}"#, "OFF"),
        ("{{ 'on' if value|int > 5 else 'off' }}", "6", "on"),
        ("{{ iif(value_json.a, 1, 2) }}", r#"{"a":0}"#, "2"),
        (
            "{% if value_json.child_lock %} true {% else %} false {% endif %}",
            r#"{"child_lock":false}"#,
            "false",
        ),
        (
            r#"{% if "moving" in value_json and value_json.moving %} {{ value_json.moving }} {% else %} STOP {% endif %}"#,
            r#"{"moving":"UP"}"#,
            "UP",
        ),
        (
            r#"{% if "running" in value_json and value_json.running %} {% if value_json.position > 0 %} closing {% else %} opening {% endif %} {% else %} stopped {% endif %}"#,
            r#"{"running":true,"position":0}"#,
            "opening",
        ),
        (
            "{% set values = {None:None,'idle':'idle','heat':'heating'} %}{{ values[value_json.state] }}",
            r#"{"state":"heat"}"#,
            "heating",
        ),
        ("{{ {'off':0, 'low':1}[value_json.mode] | default('None') }}", r#"{"mode":"low"}"#, "1"),
        ("{{ {'off':0, 'low':1}[value_json.mode] | default('None') }}", r#"{"mode":"x"}"#, "None"),
        (
            "{{ value_json.m if value_json.m in ['on', 'auto'] else 'None' | default('None') }}",
            r#"{"m":"low"}"#,
            "None",
        ),
        ("{% if value == 'a' %}1{% elif value == 'b' %}2{% else %}3{% endif %}", "b", "2"),
        ("a {{- value -}} b", "1", "a1b"),
        ("{# nothing #}{{ value.split(',')[1] }}", "1,2", "2"),
        ("{{ value_json.get('x', 7) }}", "{}", "7"),
        ("{{ value_json.x is defined }}", "{}", "False"),
        ("{{ value_json.x is not none and not value_json.y }}", r#"{"x":1}"#, "True"),
        ("{{ -value_json.x }}", r#"{"x":3}"#, "-3"),
        ("{{ 7 // 2 ~ '/' ~ 7 % 2 }}", "", "3/1"),
        ("{{ 1 / 0 }}", "", "! the template calculates with something that is no number"),
        ("{{ value | replace('a', 'b') | tojson }}", "cat", r#""cbt""#),
        ("{ \"tilt\": {{ value }} }", "5", r#"{ "tilt": 5 }"#),
        ("plain", "", "plain"),
    ] {
        assert_eq!(given(template, payload), expected, "{template} of {payload}");
    }
}

#[test]
fn what_goes_beyond_is_refused_with_the_word_that_is_not_known() {
    for (template, error) in [
        ("{{ states('sensor.x') }}", "it uses states, which is not known here"),
        ("{{ value | regex_replace('a') }}", "it uses regex_replace, which is not known here"),
        ("{% for x in value %}{% endfor %}", "it uses for, which is not known here"),
        ("{{ this.state }}", "it uses this, which is not known here"),
        ("{{ value is odd }}", "it uses odd, which is not known here"),
        ("{{ value", "{{ is not closed"),
        ("{{ 'a }}", "a quote is not closed"),
        ("{% if value %}", "if is not closed"),
        ("{% endif %}", "endif cannot stand there"),
        ("{% if a %}{% else %}{% else %}{% endif %}", "it uses a, which is not known here"),
        ("{{ }}", "the end cannot stand there"),
        ("{{ value value }}", "value cannot stand there"),
        ("{{ value.1.5x }}", "1.5 cannot stand there"),
        ("{{ value ? 1 : 2 }}", "? cannot stand there"),
    ] {
        assert_eq!(Template::parse(template).unwrap_err().to_string(), error, "{template}");
    }
    let deep = format!("{{{{ {}value{} }}}}", "(".repeat(30), ")".repeat(30));
    assert_eq!(Template::parse(&deep), Err(TemplateError::Deep));
    assert_eq!(Template::parse(&"x".repeat(LONGEST + 1)), Err(TemplateError::Long));
    let grows = format!("{{{{ value{} }}}}", "|replace('a','aaaaaaaa')".repeat(20));
    assert_eq!(given(&grows, "aaaa"), "! the template makes a text that is too long");
}

#[test]
fn a_plain_member_is_known_as_a_path() {
    let path = |text| Template::parse(text).unwrap().path();
    assert_eq!(path("{{ value_json.a['b c'][0] }}").as_deref(), Some("$['a']['b c'][0]"));
    assert_eq!(path("{{ value }}").as_deref(), Some(""));
    for other in ["{{ value_json.a | float }}", "x{{ value }}", "{{ value_json[value] }}", "{{ value.a }}"] {
        assert_eq!(path(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_as_a_template(text in any::<String>(), payload in any::<String>()) {
        for text in [text.clone(), format!("{{{{ {text} }}}}"), format!("{{% {text} %}}")] {
            if let Ok(template) = Template::parse(&text) {
                drop(template.render(Scope::of(&payload, Some(&json!({"a": [1, {"b": null}]})))));
            }
        }
    }

    #[test]
    fn anything_out_of_known_pieces_is_read_and_rendered_without_a_panic(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "value", "value_json", ".a", "[0]", "|float", "|round(1)", "|replace('a','aa')",
                " if ", " else ", "==", "+", "*", "//", "%", "~", "not ", "in", "is defined", "(", ")", "'a'", "1", "-", "{", "}",
                ":", ",", "set x =", "x", "endif", "|int(0)", "|length", ".split('a')", " ", "and ", "or ",
            ]),
            0..24,
        ),
        payload in "[a0-9.\"]{0,4}",
    ) {
        let text = pieces.concat();
        if let Ok(template) = Template::parse(&text) {
            let json = serde_json::from_str(&payload).ok();
            if let Ok(Some(said)) = template.render(Scope::of(&payload, json.as_ref())) {
                prop_assert_eq!(said.trim(), &said);
            }
            if let Some(path) = template.path().filter(|path| !path.is_empty()) {
                prop_assert!(crate::drivers::mqtt::path::Path::parse(&path).is_ok());
            }
        }
    }
}

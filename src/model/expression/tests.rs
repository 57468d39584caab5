//! What expressions mean, and what is said of those that mean nothing.

use proptest::prelude::*;

use super::*;

const NAMES: [(&str, Kind); 4] =
    [("a", Kind::Number), ("b", Kind::Number), ("on", Kind::Truth), ("active-power", Kind::Number)];

fn lookup(name: &str) -> Name {
    if name == "label" {
        return Name::Unusable(ValueType::Text);
    }
    let found = NAMES.iter().position(|(known, _)| *known == name);
    found.map_or(Name::Unknown, |at| Name::Input(at, NAMES[at].1))
}

/// With a = 7, b = -2.5, on = true and active-power = 100.
fn value(text: &str) -> Option<Value> {
    let expression = parse(text, &lookup).unwrap_or_else(|error| panic!("{text}: {error}"));
    let kind = if expression.kind() == Kind::Truth { ValueType::Bool } else { ValueType::Float };
    expression.evaluate(kind, &|at| [7.0, -2.5, 1.0, 100.0].get(at).copied())
}

fn error(text: &str) -> String {
    parse(text, &lookup).expect_err(text).to_string()
}

#[test]
fn operators_bind_as_in_school() {
    for (text, expected) in [
        ("a + b * 2", 2.0),
        ("(a + b) * 2", 9.0),
        ("a - 1 - 1", 5.0),
        ("-a + 10 % 4", -5.0),
        ("- -a", 7.0),
        ("{active-power}/a*7", 100.0),
        ("round(a / 3)", 2.0),
        ("round(a / 3, 2)", 2.33),
        ("min(a, b, 0) + max(a, b)", 4.5),
        ("abs(b) + floor(b) + ceil(b)", -2.5),
        ("if(on and a > b, a, b)", 7.0),
        ("if(a == 0, 0, 14 / a)", 2.0),
        ("1e3 + .5 + a - 7", 1000.5),
    ] {
        assert_eq!(value(text), Some(Value::Float(expected)), "{text}");
    }
    for (text, expected) in [
        ("on or a < b and on", true),
        ("not on || a != 7", false),
        ("!(a <= 7)", false),
        ("(a >= 7) == on", true),
        ("if(on, a > 0, false)", true),
    ] {
        assert_eq!(value(text), Some(Value::Bool(expected)), "{text}");
    }
}

#[test]
fn what_is_no_number_is_no_value() {
    for text in ["a / 0", "0 * a / 0", "min(a, 0 / 0)", "a % 0"] {
        assert_eq!(value(text), None, "{text}");
    }
    let expression = parse("a * 1e300", &lookup).unwrap();
    assert_eq!(expression.evaluate(ValueType::Int, &|_| Some(7.0)), None, "no whole number holds it");
    assert_eq!(expression.evaluate(ValueType::Float, &|_| None), None, "an input without a value");
    let expression = parse("a / 2", &lookup).unwrap();
    assert_eq!(expression.evaluate(ValueType::Int, &|_| Some(7.0)), Some(Value::Int(4)));
}

#[test]
fn inputs_are_named_once_in_order() {
    let expression = parse("b + a * b + {active-power}", &lookup).unwrap();
    assert_eq!(expression.inputs(), [0, 1, 3]);
}

#[test]
fn a_fault_is_told_with_its_place() {
    for (text, expected) in [
        ("", "at character 1: a number or a property should stand here, found the end"),
        ("a +", "at character 4: a number or a property should stand here, found the end"),
        ("a b", "at character 3: an operator or the end should stand here, found \"b\""),
        ("(a", "at character 3: \")\" should stand here, found the end"),
        ("min(a b)", "at character 7: \",\" or \")\" should stand here, found \"b\""),
        ("if a", "at character 4: \"(\" should stand here, found \"a\""),
        ("a = 1", "at character 3: '=' has no meaning here"),
        ("a ° b", "at character 3: '°' has no meaning here"),
        ("{a", "at character 1: '{' has no meaning here"),
        ("1.2.3 * a", "at character 4: an operator or the end should stand here, found 0.3"),
        ("1e999 * a", "at character 1: \"1e999\" is no number"),
        ("a * c", "at character 5: there is no property \"c\""),
        (
            "a * label",
            "at character 5: label is of type string, and only numbers, true and false can be computed with",
        ),
        (
            "sin(a)",
            "at character 1: there is no function \"sin\", only min, max, abs, round, floor, ceil, if",
        ),
        ("abs(a, b)", "at character 1: abs takes one argument, found 2"),
        ("if(a, 1, 2)", "at character 4: true or false is needed here, found a number"),
        ("if(on, 1, on)", "at character 11: a number is needed here, found true or false"),
        ("a + on", "at character 5: a number is needed here, found true or false"),
        ("on and a", "at character 8: true or false is needed here, found a number"),
        ("a == on", "at character 6: a number is needed here, found true or false"),
        ("a < b < 1", "at character 7: an operator or the end should stand here, found \"<\""),
        ("1 + 2", "at character 1: nothing to compute from: it names no property"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(DEEPEST), &lookup).is_ok());
    assert_eq!(error(&nested(DEEPEST + 1)), "at character 33: nested deeper than 32");
    assert!(error(&format!("{}a", "-".repeat(DEEPEST + 1))).contains("nested deeper"));
    assert!(error(&format!("{}a{}", "abs(".repeat(40), ")".repeat(40))).contains("nested deeper"));
    assert!(error(&format!("a{}", "+a".repeat(LARGEST))).contains("more than 200"));
    assert!(error(&" ".repeat(LONGEST + 1)).contains("longer than 1000"));
}

/// Text of a number with its value, computed beside the parser and the evaluation.
fn number() -> impl Strategy<Value = (String, f64)> {
    let leaf = prop_oneof![
        Just(("a".to_owned(), 7.0)),
        Just(("b".to_owned(), -2.5)),
        Just(("{active-power}".to_owned(), 100.0)),
        (0..1000_u32).prop_map(|n| (format!("{n}"), f64::from(n))),
        (0..1000_u32).prop_map(|n| (format!("{n}.5"), f64::from(n) + 0.5)),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|((l, x), (r, y))| (format!("({l} + {r})"), x + y)),
            (inner.clone(), inner.clone()).prop_map(|((l, x), (r, y))| (format!("({l}-{r})"), x - y)),
            (inner.clone(), inner.clone()).prop_map(|((l, x), (r, y))| (format!("({l} * {r})"), x * y)),
            (inner.clone(), inner.clone()).prop_map(|((l, x), (r, y))| (format!("({l} / {r})"), x / y)),
            (inner.clone(), inner.clone()).prop_map(|((l, x), (r, y))| {
                (format!("max({l}, {r})"), if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) })
            }),
            inner.clone().prop_map(|(text, n)| (format!("-{text}"), -n)),
            (inner.clone(), inner.clone(), inner.clone(), inner).prop_map(
                |((l, x), (r, y), (t, m), (e, n))| {
                    (format!("if({l} < {r}, {t}, {e})"), if x < y { m } else { n })
                }
            ),
        ]
    })
}

proptest! {
    #[test]
    fn an_expression_is_worth_what_a_plain_computation_gives((text, expected) in number()) {
        // One property always, so that it is one.
        let text = format!("{text} + 0 * a");
        if let Ok(expression) = parse(&text, &lookup) {
            let found = expression.evaluate(ValueType::Float, &|at| [7.0, -2.5, 1.0, 100.0].get(at).copied());
            let expected = Some(expected).filter(|n: &f64| n.is_finite()).map(|n| Value::Float(n + 0.0));
            prop_assert_eq!(found, expected);
        } else {
            prop_assert!(text.len() > 200, "{} is refused", text);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,60}", words in "[ab(){}+*/<>=!&|.,0-9 -]{0,60}") {
        for text in [&text, &words] {
            match parse(text, &lookup) {
                Ok(expression) => drop(expression.evaluate(ValueType::Float, &|_| Some(0.5))),
                Err(error) => prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1),
            }
        }
    }
}

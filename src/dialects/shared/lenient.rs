//! JSON as clients really write it: single quotes, unquoted names, comments, trailing commas.
//!
//! Strict JSON is tried first, because nearly all input is strict and that parser is many times faster and smaller.
//! The lenient parser recurses without a limit of its own and takes much memory for each byte, so the nesting and the
//! length of what it sees are bounded before.

use serde_json::Value as Json;

/// Deepest nesting of objects and lists that is read.
pub const DEPTH: usize = 32;

/// Longest text in bytes that is read if it is not strict: the frame limit of the servers whose clients write so. A
/// text of a megabyte would take the lenient parser a second and a hundred megabytes on a small gateway.
pub const LENIENT_BYTES: usize = 64 * 1024;

/// Why a text is not JSON in any form that is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// Neither parser takes it; says where the lenient one stopped.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// Too many levels.
    #[error("nested deeper than {DEPTH} levels")]
    TooDeep,
    /// Not strict, and too long for the lenient parser.
    #[error("neither strict JSON nor shorter than {LENIENT_BYTES} bytes")]
    TooLong,
}

/// Parses strict JSON, or else JSON5. A byte order mark and white space around it are passed over.
pub fn parse(text: &str) -> Result<Json, NotJson> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if deepest(text) > DEPTH {
        return Err(NotJson::TooDeep);
    }
    serde_json::from_str(text).or_else(|_| {
        if text.len() > LENIENT_BYTES {
            return Err(NotJson::TooLong);
        }
        json5::from_str(text).map_err(|error| NotJson::Syntax(brief(&error)))
    })
}

/// Where the parser stopped, without the line that it quotes: that is the client's own and may be long.
fn brief(error: &json5::Error) -> String {
    let json5::Error::Message { msg, location } = error;
    match location {
        Some(location) => format!("line {} column {}", location.line, location.column),
        None => msg.lines().next().unwrap_or_default().to_owned(),
    }
}

/// The deepest level of brackets outside of strings and comments.
///
/// Up to the place where the text stops being JSON5 this sees exactly the strings and comments that the parser sees,
/// so the parser never goes deeper than what is found here. What comes after that place does not matter.
fn deepest(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {
                while let Some(inside) = chars.next() {
                    if inside == c {
                        break;
                    }
                    if inside == '\\' {
                        chars.next();
                    }
                }
            }
            '/' if chars.next_if_eq(&'/').is_some() => {
                chars.by_ref().find(|c| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}'));
            }
            '/' if chars.next_if_eq(&'*').is_some() => {
                let mut star = false;
                chars.by_ref().find(|c| std::mem::replace(&mut star, *c == '*') && *c == '/');
            }
            '{' | '[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn single_quotes_unquoted_names_and_trailing_commas_are_read() {
        let text = "\u{feff} {'cmd':'subscribe', data: {\"list\": [1, 2,],}, /* why */ }";
        assert_eq!(parse(text), Ok(json!({"cmd": "subscribe", "data": {"list": [1, 2]}})));
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_in_both_forms() {
        let strict = format!("{}{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert_eq!(parse(&strict), Err(NotJson::TooDeep));
        let lenient = format!("{}'a'{}", "{a:".repeat(100_000), "}".repeat(100_000));
        assert_eq!(parse(&lenient), Err(NotJson::TooDeep));
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        let text = format!("{{\"a\": \"{}\"}}", "[".repeat(100));
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn quotes_in_comments_and_comments_in_strings_hide_no_brackets() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for before in ["/*'*/", "//'\n", "//\"\u{2028}", "//'\r", "/***/", "/*/'*/"] {
            assert_eq!(parse(&format!("{before}{deep}")), Err(NotJson::TooDeep), "{before}");
        }
        for first in ["'//'", "'/*'", "'\\''", "'\\\r\n'", "\"'\"", "'\\\\'"] {
            assert_eq!(parse(&format!("[{first}, {deep}]")), Err(NotJson::TooDeep), "{first}");
        }
    }

    #[test]
    fn a_long_text_is_read_only_if_it_is_strict() {
        let long = "1,".repeat(LENIENT_BYTES);
        assert!(parse(&format!("[{long}1]")).is_ok());
        assert_eq!(parse(&format!("[{long}]")), Err(NotJson::TooLong));
    }

    #[test]
    fn an_error_says_where_and_quotes_nothing() {
        let NotJson::Syntax(message) = parse("{'a': 1,\n 'secret' 2}").unwrap_err() else {
            panic!("a syntax error")
        };
        assert!(message.starts_with("line 2 column") && !message.contains("secret"), "{message}");
    }

    fn depth(json: &Json) -> usize {
        match json {
            Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
        }
    }

    /// JSON5 in which everything that could be taken for something else is.
    fn json5() -> impl Strategy<Value = String> {
        let gap = prop::sample::select(vec![
            "",
            " ",
            "/*'*/",
            "/*\"[*/",
            "//'{\n",
            "// */\u{2029}",
            "/**/",
            "\n",
            "/*//*/",
        ]);
        let leaf = prop::sample::select(vec![
            "1",
            "'[[['",
            "\"'\"",
            "'\\''",
            "'//'",
            "'/*'",
            "\"]]]\"",
            "null",
            "'\\\r\n['",
            "'\\\\'",
            "+.5e1",
        ]);
        leaf.prop_map(str::to_owned).prop_recursive(6, 48, 4, move |inner| {
            let item =
                (gap.clone(), inner, gap.clone()).prop_map(|(before, value, after)| (before, value, after));
            let name = prop::sample::select(vec!["a", "'{'", "$_", "\"//\""]);
            prop_oneof![
                prop::collection::vec(item.clone(), 0..4).prop_map(|items| {
                    let items =
                        items.into_iter().map(|(before, value, after)| format!("{before}{value}{after},"));
                    format!("[{}]", items.collect::<String>())
                }),
                prop::collection::vec((name, item), 0..4).prop_map(|items| {
                    let pair = |(name, (before, value, after))| format!("{before}{name}:{value}{after},");
                    format!("{{{}}}", items.into_iter().map(pair).collect::<String>())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_parser_never_goes_deeper_than_was_found(text in json5()) {
            let json: Json = json5::from_str(&text).expect("it is JSON5");
            prop_assert!(deepest(&text) >= depth(&json), "{}", text);
            prop_assert_eq!(parse(&text), Ok(json));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let outcome = parse(&text);
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }
    }
}

//! JSON as clients really write it: single quotes, unquoted names, comments, trailing commas.
//!
//! Strict JSON is tried first, because nearly all input is strict and that parser is many times faster. Nesting is
//! bounded before the lenient parser sees the text, since that one recurses without a limit of its own.

use serde_json::Value as Json;

/// Deepest nesting of objects and lists that is read.
pub const DEPTH: usize = 32;

/// Why a text is not JSON in any form that is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// Neither parser takes it.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// Too many levels.
    #[error("nested deeper than {DEPTH} levels")]
    TooDeep,
}

/// Parses strict JSON, or else JSON5. A byte order mark and white space around it are passed over.
pub fn parse(text: &str) -> Result<Json, NotJson> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if deepest(text) > DEPTH {
        return Err(NotJson::TooDeep);
    }
    serde_json::from_str(text).or_else(|_| {
        json5::from_str(text).map_err(|error| NotJson::Syntax(error.to_string().replace('\n', " ")))
    })
}

/// The deepest level of brackets outside of strings; at least the true one where the text is no JSON at all.
fn deepest(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut quote = None;
    let mut escaped = false;
    for byte in text.bytes() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open || byte == b'\n' => quote = None,
            Some(_) => {}
            None => match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            },
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

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let outcome = parse(&text);
            prop_assert!(outcome.is_ok() || outcome.is_err());
        }
    }
}

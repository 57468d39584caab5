//! Paths into a JSON payload: `$.ENERGY.Power`, `a.b[0].c`, `switch:0`, `['odd.key'][2]`.
//!
//! Parsed once when the routes are built, walked for each message. Pure.

use serde_json::Value as Json;

/// A parsed path. The whole document is `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(Box<str>),
    Index(usize),
}

/// Why a text is no path. `Display` is a sentence for people without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all; the whole document is `$`.
    #[error("the path is empty; the whole payload is written $")]
    Empty,
    /// Two dots in a row, or a dot at the end.
    #[error("a key is missing beside a dot")]
    EmptyKey,
    /// Text directly after a closing bracket.
    #[error("a dot or a bracket must follow a closing bracket")]
    NoSeparator,
    /// `[` without its `]`, or a quote that is not closed.
    #[error("a bracket or the quote in it is not closed")]
    Unclosed,
    /// Something between brackets that is neither a number nor quoted.
    #[error("between brackets stands a number, or a key in quotes")]
    BadIndex,
}

impl Path {
    /// Reads a path. The leading `$` may be left out; a key may contain anything but a dot and an opening bracket,
    /// and anything at all when it is quoted in brackets, where a backslash takes the next character literally.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        // A key may itself begin with a dollar sign, so only a lone one is the root.
        let rooted = text.strip_prefix('$').filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let mut first = rooted.is_none();
        let mut rest = rooted.unwrap_or(text);
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, tail) = if let Some(inner) = rest.strip_prefix('[') {
                bracketed(inner)?
            } else {
                let named = match rest.strip_prefix('.') {
                    Some(named) => named,
                    None if first => rest,
                    None => return Err(PathError::NoSeparator),
                };
                let end = named.find(['.', '[']).unwrap_or(named.len());
                let (key, tail) = named.split_at(end);
                if key.is_empty() {
                    return Err(PathError::EmptyKey);
                }
                (Segment::Key(key.into()), tail)
            };
            segments.push(segment);
            rest = tail;
            first = false;
        }
        Ok(Self(segments))
    }

    /// What stands there, if anything does. A numeric key also names an element of a list (`a.0.b`).
    pub fn find<'json>(&self, document: &'json Json) -> Option<&'json Json> {
        self.0.iter().try_fold(document, |json, segment| match segment {
            Segment::Index(index) => json.get(index),
            Segment::Key(key) => match json {
                Json::Array(items) => items.get(key.parse::<usize>().ok()?),
                Json::Object(members) => members.get(key.as_ref()),
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
            },
        })
    }
}

/// What stands between brackets, and the text after the closing one.
fn bracketed(inner: &str) -> Result<(Segment, &str), PathError> {
    let Some(quote) = inner.chars().next().filter(|first| matches!(first, '\'' | '"')) else {
        let (index, tail) = inner.split_once(']').ok_or(PathError::Unclosed)?;
        return Ok((Segment::Index(index.trim().parse().map_err(|_| PathError::BadIndex)?), tail));
    };
    let mut key = String::new();
    let mut characters = inner.chars();
    characters.next();
    loop {
        match characters.next().ok_or(PathError::Unclosed)? {
            '\\' => key.push(characters.next().ok_or(PathError::Unclosed)?),
            end if end == quote => break,
            other => key.push(other),
        }
    }
    let tail = characters.as_str().strip_prefix(']').ok_or(PathError::Unclosed)?;
    Ok((Segment::Key(key.into()), tail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let document = json!({
            "ENERGY": {"Power": 12, "Phases": [{"V": 230.5}, {"V": 231.0}]},
            "switch:0": {"output": true},
            "odd.key": {"it's [here]": 1},
            "$price": 3,
            "naïve": "é",
        });
        for (path, found) in [
            ("$", Some(document.clone())),
            ("$.ENERGY.Power", Some(json!(12))),
            ("ENERGY.Power", Some(json!(12))),
            ("ENERGY.Phases[1].V", Some(json!(231.0))),
            ("ENERGY.Phases.0.V", Some(json!(230.5))),
            ("$['ENERGY'][\"Power\"]", Some(json!(12))),
            ("switch:0", Some(json!({"output": true}))),
            ("$.switch:0.output", Some(json!(true))),
            (r"['odd.key']['it\'s [here]']", Some(json!(1))),
            ("$price", Some(json!(3))),
            ("naïve", Some(json!("é"))),
            ("ENERGY.Power.deeper", None),
            ("ENERGY.Phases[2]", None),
            ("ENERGY[0]", None),
            ("absent", None),
        ] {
            assert_eq!(Path::parse(path).unwrap().find(&document), found.as_ref(), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_its_reason() {
        for (path, error) in [
            ("", PathError::Empty),
            ("  ", PathError::Empty),
            ("a..b", PathError::EmptyKey),
            ("a.", PathError::EmptyKey),
            ("$.", PathError::EmptyKey),
            ("a[0]b", PathError::NoSeparator),
            ("a[0", PathError::Unclosed),
            ("a['b]", PathError::Unclosed),
            ("a['b'", PathError::Unclosed),
            ("a[b]", PathError::BadIndex),
            ("a[]", PathError::BadIndex),
            ("a[-1]", PathError::BadIndex),
        ] {
            assert_eq!(Path::parse(path), Err(error), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Ok(path) = Path::parse(&text) {
                path.find(&json!({"a": [1, {"b": null}]}));
            }
        }

        #[test]
        fn any_key_can_be_named_in_quotes(key in any::<String>()) {
            let quoted = format!("$['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"));
            let mut document = serde_json::Map::new();
            document.insert(key, json!(7));
            let document = Json::Object(document);
            prop_assert_eq!(Path::parse(&quoted).unwrap().find(&document), Some(&json!(7)));
        }
    }
}

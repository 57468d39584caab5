//! Frames: what the server sends, one letter and then JSON, and the JSON that the client sends.
//!
//! Only text travels. What some browser or proxy changes on its way is escaped, so no frame holds a line end. What
//! comes in is read leniently where JavaScript is: a lone half of a surrogate pair, which a client makes when it cuts
//! a text, is replaced.

use std::fmt::Write as _;
use std::str::Chars;

/// The first frame of every session.
pub const OPEN: &str = "o";

/// The frame that says only that the session lives.
pub const HEART_BEAT: &str = "h";

/// What the client sent is no SockJS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing at all where something is due.
    #[error("Payload expected.")]
    Empty,
    /// Neither an array of strings nor one string.
    #[error("Broken JSON encoding.")]
    Broken,
}

/// A frame of messages, in order.
pub fn messages<T: AsRef<str>>(texts: &[T]) -> String {
    let mut frame = String::from("a[");
    for text in texts {
        if frame.len() > 2 {
            frame.push(',');
        }
        quote(text.as_ref(), &mut frame);
    }
    frame.push(']');
    frame
}

/// The last frame of a session.
pub fn close(code: u16, reason: &str) -> String {
    let mut frame = format!("c[{code},");
    quote(reason, &mut frame);
    frame.push(']');
    frame
}

/// The messages that a client sends in one go: an array of strings, or one string.
pub fn decode(payload: &str) -> Result<Vec<String>, FrameError> {
    let mut reader = Reader { rest: payload.chars() };
    let mut texts = Vec::new();
    match reader.token() {
        None => return Err(FrameError::Empty),
        Some('"') => texts.push(reader.string()?),
        Some('[') => reader.array(&mut texts)?,
        Some(_) => return Err(FrameError::Broken),
    }
    if reader.token().is_some() { Err(FrameError::Broken) } else { Ok(texts) }
}

/// Appends the text as a JSON string.
fn quote(text: &str, into: &mut String) {
    into.reserve(text.len() + 2);
    into.push('"');
    for letter in text.chars() {
        match letter {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            letter if is_mangled(letter) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    write!(into, "\\u{unit:04x}").unwrap_or_default();
                }
            }
            letter => into.push(letter),
        }
    }
    into.push('"');
}

/// Whether some client changes the letter unless it is escaped: control characters, invisible ones of direction and
/// layout, the specials at the end of the basic plane, and all that JavaScript holds as a surrogate pair.
fn is_mangled(letter: char) -> bool {
    matches!(
        letter,
        '\0'..='\x1f'
            | '\u{200c}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff0}'..='\u{10ffff}'
    )
}

/// Reads the little of JSON that SockJS uses.
struct Reader<'a> {
    rest: Chars<'a>,
}

impl Reader<'_> {
    /// The next letter that is no white space.
    fn token(&mut self) -> Option<char> {
        self.rest.find(|letter| !matches!(letter, ' ' | '\t' | '\r' | '\n'))
    }

    /// The rest of an array of strings whose bracket has been read.
    fn array(&mut self, texts: &mut Vec<String>) -> Result<(), FrameError> {
        match self.token() {
            Some(']') => return Ok(()),
            Some('"') => texts.push(self.string()?),
            Some(_) | None => return Err(FrameError::Broken),
        }
        loop {
            match self.token() {
                Some(']') => return Ok(()),
                Some(',') if self.token() == Some('"') => texts.push(self.string()?),
                Some(_) | None => return Err(FrameError::Broken),
            }
        }
    }

    /// The rest of a string whose quote has been read.
    fn string(&mut self) -> Result<String, FrameError> {
        let mut text = String::new();
        // The first half of a surrogate pair, until the second comes.
        let mut high: Option<u16> = None;
        loop {
            let letter = self.rest.next().ok_or(FrameError::Broken)?;
            let unit = match letter {
                '\\' => match self.escape()? {
                    Escaped::Unit(unit) => Some(unit),
                    Escaped::Letter(letter) => {
                        flush(high.take(), &mut text);
                        text.push(letter);
                        None
                    }
                },
                '"' => {
                    flush(high.take(), &mut text);
                    return Ok(text);
                }
                '\0'..='\x1f' => return Err(FrameError::Broken),
                letter => {
                    flush(high.take(), &mut text);
                    text.push(letter);
                    None
                }
            };
            let Some(unit) = unit else { continue };
            match (high.take(), unit) {
                (first, 0xd800..=0xdbff) => {
                    flush(first, &mut text);
                    high = Some(unit);
                }
                (Some(first), 0xdc00..=0xdfff) => text.extend(utf16(&[first, unit])),
                (first, _) => {
                    flush(first, &mut text);
                    text.extend(utf16(&[unit]));
                }
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<Escaped, FrameError> {
        let letter = match self.rest.next().ok_or(FrameError::Broken)? {
            letter @ ('"' | '\\' | '/') => letter,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut unit = 0_u16;
                for _ in 0..4 {
                    let digit = self.rest.next().and_then(|digit| digit.to_digit(16));
                    let digit = digit.and_then(|digit| u16::try_from(digit).ok());
                    unit = (unit << 4) | digit.ok_or(FrameError::Broken)?;
                }
                return Ok(Escaped::Unit(unit));
            }
            _ => return Err(FrameError::Broken),
        };
        Ok(Escaped::Letter(letter))
    }
}

/// What an escape stands for.
enum Escaped {
    Letter(char),
    /// Of UTF-16, perhaps half of a pair.
    Unit(u16),
}

/// Replaces a first half that stays alone.
fn flush(high: Option<u16>, text: &mut String) {
    if high.is_some() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
}

fn utf16(units: &[u16]) -> impl Iterator<Item = char> {
    char::decode_utf16(units.iter().copied()).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_as_the_protocol_shows_them() {
        assert_eq!(messages(&["x"]), r#"a["x"]"#);
        assert_eq!(messages(&["a\0\n", "\u{4f60}"]), "a[\"a\\u0000\\n\",\"\u{4f60}\"]");
        assert_eq!(close(3000, "Go away!"), r#"c[3000,"Go away!"]"#);
    }

    #[test]
    fn what_browsers_change_is_escaped() {
        let text = "\u{200c}\u{2028}\u{2060}\u{fff0}\u{ffff}\u{1f600}";
        assert_eq!(messages(&[text]), r#"a["\u200c\u2028\u2060\ufff0\uffff\ud83d\ude00"]"#);
    }

    #[test]
    fn a_client_sends_an_array_or_one_string() {
        let texts = |payload| decode(payload).unwrap();
        assert_eq!(texts(r#"["a","b"]"#), ["a", "b"]);
        assert_eq!(texts(" [ \"a\" , \"\\u0000\\/\\b\" ] \n"), ["a", "\0/\x08"]);
        assert_eq!(texts(r#""bare""#), ["bare"]);
        assert!(texts("[]").is_empty());
    }

    #[test]
    fn a_lone_half_of_a_pair_is_replaced_and_a_whole_pair_is_one_letter() {
        let text = |payload| decode(payload).unwrap().concat();
        assert_eq!(text(r#""\ud83d\ude00""#), "\u{1f600}");
        assert_eq!(text(r#""\ud83d""#), "\u{fffd}");
        assert_eq!(text(r#""\ude00x""#), "\u{fffd}x");
        assert_eq!(text(r#""\ud83d\ud83d\ude00""#), "\u{fffd}\u{1f600}");
        assert_eq!(text(r#""\ud83dA\u0041""#), "\u{fffd}AA");
        assert_eq!(text(r#""\ud83d\n""#), "\u{fffd}\n");
    }

    #[test]
    fn anything_else_is_broken() {
        for payload in [
            "[\"a",
            "[\"a\",]",
            "[,\"a\"]",
            "[1]",
            "{}",
            "\"a\"b",
            "[\"a\" \"b\"]",
            "[\"\n\"]",
            "\"\\x\"",
            "\"\\u12g4\"",
        ] {
            assert_eq!(decode(payload), Err(FrameError::Broken), "{payload}");
        }
        assert_eq!(decode(" "), Err(FrameError::Empty));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_no_frame_has_a_line_end(texts in proptest::collection::vec(any::<String>(), 0..4)) {
            let frame = messages(&texts);
            prop_assert!(!frame.contains(['\n', '\r', '\0']));
            prop_assert_eq!(decode(frame.strip_prefix('a').unwrap()), Ok(texts.clone()));
            let json: Vec<String> = serde_json::from_str(frame.strip_prefix('a').unwrap()).unwrap();
            prop_assert_eq!(json, texts);
        }

        #[test]
        fn what_json_takes_as_strings_is_taken_alike(payload in "\\[?(\"[a\\\\u0d8c\"]{0,9}\"?,?){0,3}\\]?") {
            if let Ok(expected) = serde_json::from_str::<Vec<String>>(&payload) {
                prop_assert_eq!(decode(&payload), Ok(expected));
            }
        }

        #[test]
        fn no_text_makes_it_panic(payload in any::<String>()) {
            drop(decode(&payload));
        }
    }
}

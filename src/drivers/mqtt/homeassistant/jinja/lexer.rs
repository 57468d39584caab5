//! Takes a template apart: text, expressions, statements, and the tokens in those.
//!
//! Pure.

use serde_json::{Number, Value as Json};

use super::TemplateError;

/// A part of a template. Comments are none.
#[derive(Debug)]
pub(super) enum Chunk {
    Text(String),
    /// `{{ ... }}`
    Say(Vec<Token>),
    /// `{% ... %}`
    Tag(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Literal(Json),
    Sign(&'static str),
}

/// Longer signs before those that begin them.
const SIGNS: [&str; 23] = [
    "==", "!=", "<=", ">=", "//", "<", ">", "+", "-", "*", "/", "%", "~", "|", "(", ")", "[", "]", "{", "}",
    ",", ":", ".",
];

impl Token {
    /// Whether it is this sign or word.
    pub(super) fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Sign(sign) => *sign == wanted,
            Self::Word(word) => word == wanted,
            Self::Literal(_) => false,
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Sign(sign) => (*sign).to_owned(),
            Self::Word(word) => word.clone(),
            Self::Literal(literal) => literal.to_string(),
        }
    }
}

/// The parts of a template. A minus sign beside a brace takes the blanks away on that side, as in Jinja.
pub(super) fn chunks(text: &str) -> Result<Vec<Chunk>, TemplateError> {
    let mut chunks = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let begin = ["{{", "{%", "{#"].iter().filter_map(|sign| rest.find(sign)).min();
        let (before, tail) = rest.split_at(begin.unwrap_or(rest.len()));
        let before = if trim { before.trim_start() } else { before };
        let inner = tail.get(2..).unwrap_or_default();
        let cut = inner.strip_prefix('-');
        let before = if cut.is_some() { before.trim_end() } else { before };
        if !before.is_empty() {
            chunks.push(Chunk::Text(before.to_owned()));
        }
        if begin.is_none() {
            return Ok(chunks);
        }
        if tail.starts_with("{#") {
            let (comment, after) = inner.split_once("#}").ok_or(TemplateError::Unclosed("{#"))?;
            (rest, trim) = (after, comment.ends_with('-'));
            continue;
        }
        let say = tail.starts_with("{{");
        let (tokens, after, cut) = tokens(cut.unwrap_or(inner), if say { "}}" } else { "%}" })?;
        (rest, trim) = (after, cut);
        chunks.push(if say { Chunk::Say(tokens) } else { Chunk::Tag(tokens) });
    }
}

/// The tokens up to the closing braces, what follows, and whether blanks there are to be taken away.
fn tokens<'t>(text: &'t str, end: &'static str) -> Result<(Vec<Token>, &'t str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    let mut open = 0_usize;
    loop {
        if open == 0 {
            if let Some(after) = rest.strip_prefix(end) {
                return Ok((tokens, after, false));
            }
            if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
                return Ok((tokens, after, true));
            }
        }
        let Some(first) = rest.chars().next() else {
            return Err(TemplateError::Unclosed(if end == "}}" { "{{" } else { "{%" }));
        };
        let (token, after) = if first == '\'' || first == '"' {
            quoted(rest, first)?
        } else if first.is_ascii_digit() {
            number(rest)?
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            (Token::Word(word.to_owned()), after)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            match *sign {
                "(" | "[" | "{" => open += 1,
                ")" | "]" | "}" => open = open.saturating_sub(1),
                _ => {}
            }
            (Token::Sign(sign), rest.get(sign.len()..).unwrap_or_default())
        } else if let Some(after) = rest.strip_prefix('=') {
            (Token::Sign("="), after)
        } else {
            return Err(TemplateError::Unexpected(first.to_string()));
        };
        tokens.push(token);
        rest = after.trim_start();
    }
}

fn quoted(text: &str, quote: char) -> Result<(Token, &str), TemplateError> {
    let mut said = String::new();
    let mut characters = text.chars();
    characters.next();
    loop {
        match characters.next().ok_or(TemplateError::Unclosed("a quote"))? {
            '\\' => match characters.next().ok_or(TemplateError::Unclosed("a quote"))? {
                'n' => said.push('\n'),
                't' => said.push('\t'),
                other => said.push(other),
            },
            end if end == quote => return Ok((Token::Literal(Json::String(said)), characters.as_str())),
            other => said.push(other),
        }
    }
}

/// A number. `1.x` is the member of a list, and no fraction.
fn number(text: &str) -> Result<(Token, &str), TemplateError> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(text);
    let fraction = text.get(whole..).and_then(|rest| rest.strip_prefix('.')).map_or(0, digits);
    let end = if fraction > 0 { whole + 1 + fraction } else { whole };
    let (number, after) = text.split_at(end);
    let read = if fraction > 0 { None } else { number.parse().ok().map(|number: i64| number.into()) };
    let read = read.or_else(|| Number::from_f64(number.parse().ok()?));
    let read = read.ok_or_else(|| TemplateError::Unexpected(number.to_owned()))?;
    Ok((Token::Literal(Json::Number(read)), after))
}

//! The templates of Home Assistant's discovery, as far as devices use them: a small part of Jinja.
//!
//! Text with `{{ expression }}`, `{% if %}`, `{% set %}` and `{# comments #}` in it. There are members, lists, dictionaries,
//! arithmetic, comparisons, `and or not in is`, `a if b else c`, and the filters of [`Filter`]; no loops, macros or states of
//! other entities. What goes beyond that is refused when it is read, with the word that is not known, so that nothing is
//! ever half understood. What a template gives is decided in [`eval`].
//!
//! Pure. Source: Jinja's "Template Designer Documentation", Home Assistant's page "Templating".

use serde_json::Value as Json;

mod eval;
mod lexer;

pub use self::eval::{RenderError, Scope};
use self::lexer::{Chunk, Token, chunks};

/// Longest template, in bytes. The longest that Zigbee2MQTT sends have some five hundred.
pub const LONGEST: usize = 4096;

/// How deep expressions and branches may stand in each other.
const DEEPEST: usize = 24;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

/// Why a template is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// See [`LONGEST`].
    #[error("it has more than {LONGEST} bytes")]
    Long,
    /// Expressions in expressions.
    #[error("it has more than {DEEPEST} levels")]
    Deep,
    /// A brace, quote or block without its end.
    #[error("{0} is not closed")]
    Unclosed(&'static str),
    /// What cannot stand there.
    #[error("{0} cannot stand there")]
    Unexpected(String),
    /// A name, filter, test or statement that is not known here.
    #[error("it uses {0}, which is not known here")]
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(Box<str>),
    Say(Term),
    Set(Box<str>, Term),
    If(Vec<(Term, Vec<Self>)>, Vec<Self>),
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Literal(Json),
    Name(Box<str>),
    Member(Box<Self>, Box<Self>),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    Not(Box<Self>),
    Negative(Box<Self>),
    Both(Op, Box<Self>, Box<Self>),
    Filter(Filter, Vec<Self>),
    Is(Test, Box<Self>),
    /// The condition, what holds if it is so, and what otherwise.
    Choice(Box<[Self; 3]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Or,
    And,
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Plus,
    Minus,
    Join,
    Times,
    Divided,
    Whole,
    Rest,
}

/// What may stand behind `|`, or in front of parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Float,
    Int,
    Round,
    Default,
    IsDefined,
    Upper,
    Lower,
    Capitalize,
    Trim,
    Abs,
    Text,
    Bool,
    Replace,
    Split,
    Json,
    FromJson,
    Multiply,
    Add,
    Choose,
    Get,
    First,
    Last,
    Length,
}

const FILTERS: [(&str, Filter); 27] = [
    ("float", Filter::Float),
    ("int", Filter::Int),
    ("round", Filter::Round),
    ("default", Filter::Default),
    ("d", Filter::Default),
    ("is_defined", Filter::IsDefined),
    ("upper", Filter::Upper),
    ("lower", Filter::Lower),
    ("capitalize", Filter::Capitalize),
    ("trim", Filter::Trim),
    ("strip", Filter::Trim),
    ("abs", Filter::Abs),
    ("string", Filter::Text),
    ("bool", Filter::Bool),
    ("replace", Filter::Replace),
    ("split", Filter::Split),
    ("tojson", Filter::Json),
    ("to_json", Filter::Json),
    ("from_json", Filter::FromJson),
    ("multiply", Filter::Multiply),
    ("add", Filter::Add),
    ("iif", Filter::Choose),
    ("get", Filter::Get),
    ("first", Filter::First),
    ("last", Filter::Last),
    ("length", Filter::Length),
    ("count", Filter::Length),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Defined,
    Undefined,
    None,
    Number,
    Text,
}

const TESTS: [(&str, Test); 5] = [
    ("defined", Test::Defined),
    ("undefined", Test::Undefined),
    ("none", Test::None),
    ("number", Test::Number),
    ("string", Test::Text),
];

/// What a template is given: `position` and `tilt_position` are other words for the value in commands of covers.
const NAMES: [&str; 4] = ["value", "value_json", "position", "tilt_position"];

/// Operators by how strongly they bind, the weakest first. Between them stand `not`, and what `parse_unary` reads.
const LEVELS: [&[(&str, Op)]; 6] = [
    &[("or", Op::Or)],
    &[("and", Op::And)],
    &[
        ("==", Op::Equal),
        ("!=", Op::Different),
        ("<", Op::Less),
        ("<=", Op::LessOrEqual),
        (">", Op::Greater),
        (">=", Op::GreaterOrEqual),
        ("in", Op::In),
    ],
    &[("+", Op::Plus), ("-", Op::Minus)],
    &[("~", Op::Join)],
    &[("*", Op::Times), ("/", Op::Divided), ("//", Op::Whole), ("%", Op::Rest)],
];

/// Where comparisons stand in [`LEVELS`]; `not` stands before them.
const COMPARISONS: usize = 2;

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > LONGEST {
            return Err(TemplateError::Long);
        }
        let mut parser = Parser { set: Vec::new(), depth: 0 };
        let mut chunks = chunks(text)?.into_iter();
        match parser.nodes(&mut chunks)? {
            (nodes, None) => Ok(Self(nodes)),
            (_, Some(end)) => Err(TemplateError::Unexpected(end.word.to_owned())),
        }
    }

    /// A text that stands for itself.
    pub fn literal(text: &str) -> Self {
        Self(vec![Node::Text(text.into())])
    }

    /// The JSON path that it is, if it is nothing else: `{{ value_json.a['b'] }}`. The value itself is the empty path.
    pub fn path(&self) -> Option<String> {
        let [Node::Say(term)] = self.0.as_slice() else { return None };
        if matches!(term, Term::Name(name) if **name == *"value") { Some(String::new()) } else { path(term) }
    }
}

fn path(term: &Term) -> Option<String> {
    if let Term::Name(name) = term {
        return (**name == *"value_json").then(|| "$".to_owned());
    }
    let Term::Member(of, key) = term else { return None };
    let Term::Literal(key) = &**key else { return None };
    let of = path(of)?;
    match (key.as_str(), key.as_u64()) {
        (Some(key), _) => Some(format!("{of}['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"))),
        (None, Some(at)) => Some(format!("{of}[{at}]")),
        (None, None) => None,
    }
}

struct Parser {
    /// Names that `set` has made.
    set: Vec<String>,
    depth: usize,
}

/// The statement that ends a block, with what stands in it.
struct End {
    word: &'static str,
    condition: Option<Term>,
}

/// The tokens of one expression or statement.
struct Tokens(std::iter::Peekable<std::vec::IntoIter<Token>>);

impl Tokens {
    fn of(tokens: Vec<Token>) -> Self {
        Self(tokens.into_iter().peekable())
    }

    fn take(&mut self, sign: &str) -> bool {
        self.0.next_if(|token| token.is(sign)).is_some()
    }

    fn want(&mut self, sign: &str) -> Result<(), TemplateError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn word(&mut self) -> Result<String, TemplateError> {
        match self.0.next_if(|token| matches!(token, Token::Word(_))) {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&mut self) -> TemplateError {
        TemplateError::Unexpected(self.0.peek().map_or_else(|| "the end".to_owned(), Token::shown))
    }

    fn end(mut self) -> Result<(), TemplateError> {
        if self.0.peek().is_none() { Ok(()) } else { Err(self.unexpected()) }
    }
}

impl Parser {
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth >= DEEPEST {
            return Err(TemplateError::Deep);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn nodes(
        &mut self,
        chunks: &mut std::vec::IntoIter<Chunk>,
    ) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(chunk) = chunks.next() {
            match chunk {
                Chunk::Text(text) => nodes.push(Node::Text(text.into())),
                Chunk::Say(tokens) => {
                    let mut tokens = Tokens::of(tokens);
                    let term = self.term(&mut tokens)?;
                    tokens.end()?;
                    nodes.push(Node::Say(term));
                }
                Chunk::Tag(tokens) => {
                    let mut tokens = Tokens::of(tokens);
                    let word = tokens.word()?;
                    match word.as_str() {
                        "set" => {
                            let name = tokens.word()?;
                            tokens.want("=")?;
                            let term = self.term(&mut tokens)?;
                            tokens.end()?;
                            nodes.push(Node::Set(name.as_str().into(), term));
                            self.set.push(name);
                        }
                        "if" => {
                            let first = self.term(&mut tokens)?;
                            tokens.end()?;
                            nodes.push(self.deeper(|parser| parser.branches(first, chunks))?);
                        }
                        "elif" => {
                            let condition = Some(self.term(&mut tokens)?);
                            tokens.end()?;
                            return Ok((nodes, Some(End { word: "elif", condition })));
                        }
                        "else" | "endif" => {
                            tokens.end()?;
                            let word = if word == "else" { "else" } else { "endif" };
                            return Ok((nodes, Some(End { word, condition: None })));
                        }
                        _ => return Err(TemplateError::Unknown(word)),
                    }
                }
            }
        }
        Ok((nodes, None))
    }

    fn branches(
        &mut self,
        first: Term,
        chunks: &mut std::vec::IntoIter<Chunk>,
    ) -> Result<Node, TemplateError> {
        let (mut branches, mut condition) = (Vec::new(), Some(first));
        loop {
            let (nodes, end) = self.nodes(chunks)?;
            let end = end.ok_or(TemplateError::Unclosed("if"))?;
            match (condition.take(), end.word) {
                (Some(known), "endif") => {
                    branches.push((known, nodes));
                    return Ok(Node::If(branches, Vec::new()));
                }
                (None, "endif") => return Ok(Node::If(branches, nodes)),
                (Some(known), _) => {
                    branches.push((known, nodes));
                    condition = end.condition;
                }
                (None, word) => return Err(TemplateError::Unexpected(word.to_owned())),
            }
        }
    }

    /// `a if b else c`, or less.
    fn term(&mut self, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        self.deeper(|parser| {
            let mut term = parser.level(0, tokens)?;
            while tokens.take("if") {
                let condition = parser.level(0, tokens)?;
                let other = if tokens.take("else") {
                    parser.term(tokens)?
                } else {
                    Term::Literal(Json::String(String::new()))
                };
                term = Term::Choice(Box::new([condition, term, other]));
            }
            Ok(term)
        })
    }

    fn level(&mut self, at: usize, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        let Some(level) = LEVELS.get(at) else { return self.unary(tokens) };
        if at == COMPARISONS && tokens.take("not") {
            return self.deeper(|parser| Ok(Term::Not(Box::new(parser.level(at, tokens)?))));
        }
        let mut left = self.level(at + 1, tokens)?;
        loop {
            let op = level.iter().find(|(sign, _)| tokens.take(sign)).map(|(_, op)| *op);
            let negated = op.is_none() && at == COMPARISONS && tokens.take("not");
            if negated {
                tokens.want("in")?;
            }
            let Some(op) = op.or(negated.then_some(Op::In)) else { return Ok(left) };
            let right = self.level(at + 1, tokens)?;
            left = Term::Both(op, Box::new(left), Box::new(right));
            if negated {
                left = Term::Not(Box::new(left));
            }
        }
    }

    /// A sign, or what begins with a plain term, with the filters and tests behind it.
    fn unary(&mut self, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        let mut term = if tokens.take("-") {
            self.deeper(|parser| Ok(Term::Negative(Box::new(parser.postfix(tokens)?))))?
        } else {
            self.postfix(tokens)?
        };
        loop {
            if tokens.take("|") {
                let name = tokens.word()?;
                let filter = filter(&name)?;
                let mut terms = vec![term];
                if tokens.take("(") {
                    self.arguments(&mut terms, ")", tokens)?;
                }
                term = Term::Filter(filter, terms);
            } else if tokens.take("is") {
                let negated = tokens.take("not");
                let name = tokens.word()?.to_lowercase();
                let known = TESTS.iter().find(|(known, _)| *known == name);
                let (_, test) = known.ok_or(TemplateError::Unknown(name))?;
                term = Term::Is(*test, Box::new(term));
                if negated {
                    term = Term::Not(Box::new(term));
                }
            } else {
                return Ok(term);
            }
        }
    }

    /// A plain term with its members and calls.
    fn postfix(&mut self, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        let mut term = self.plain(tokens)?;
        loop {
            if tokens.take(".") {
                let name = match tokens.0.next() {
                    Some(Token::Word(word)) => Json::String(word),
                    Some(Token::Literal(Json::Number(number))) if number.is_u64() => Json::Number(number),
                    Some(other) => return Err(TemplateError::Unexpected(other.shown())),
                    None => return Err(tokens.unexpected()),
                };
                if tokens.take("(") {
                    let mut terms = vec![term];
                    self.arguments(&mut terms, ")", tokens)?;
                    term = Term::Filter(filter(name.as_str().unwrap_or_default())?, terms);
                } else {
                    term = Term::Member(Box::new(term), Box::new(Term::Literal(name)));
                }
            } else if tokens.take("[") {
                let key = self.term(tokens)?;
                tokens.want("]")?;
                term = Term::Member(Box::new(term), Box::new(key));
            } else {
                return Ok(term);
            }
        }
    }

    fn plain(&mut self, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        if tokens.take("(") {
            let term = self.term(tokens)?;
            tokens.want(")")?;
            return Ok(term);
        }
        if tokens.take("[") {
            let mut terms = Vec::new();
            self.arguments(&mut terms, "]", tokens)?;
            return Ok(Term::List(terms));
        }
        if tokens.take("{") {
            return self.dict(tokens);
        }
        match tokens.0.next_if(|token| matches!(token, Token::Word(_) | Token::Literal(_))) {
            Some(Token::Literal(literal)) => Ok(Term::Literal(literal)),
            Some(Token::Word(word)) => self.named(word, tokens),
            _ => Err(tokens.unexpected()),
        }
    }

    fn named(&mut self, word: String, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        let literal = match word.as_str() {
            "true" | "True" => Json::Bool(true),
            "false" | "False" => Json::Bool(false),
            "none" | "None" => Json::Null,
            _ if self.set.contains(&word) || NAMES.contains(&word.as_str()) => {
                return Ok(Term::Name(word.into()));
            }
            _ if tokens.take("(") => {
                let mut terms = Vec::new();
                self.arguments(&mut terms, ")", tokens)?;
                let filter = filter(&word)?;
                return if terms.is_empty() {
                    Err(TemplateError::Unexpected(")".to_owned()))
                } else {
                    Ok(Term::Filter(filter, terms))
                };
            }
            _ => return Err(TemplateError::Unknown(word)),
        };
        Ok(Term::Literal(literal))
    }

    fn dict(&mut self, tokens: &mut Tokens) -> Result<Term, TemplateError> {
        let mut pairs = Vec::new();
        while !tokens.take("}") {
            let key = self.term(tokens)?;
            tokens.want(":")?;
            pairs.push((key, self.term(tokens)?));
            if !tokens.take(",") {
                tokens.want("}")?;
                break;
            }
        }
        Ok(Term::Dict(pairs))
    }

    /// Terms up to the closing sign. Their names, as in `default(value=0)`, say nothing that their order does not.
    fn arguments(
        &mut self,
        terms: &mut Vec<Term>,
        end: &str,
        tokens: &mut Tokens,
    ) -> Result<(), TemplateError> {
        while !tokens.take(end) {
            terms.push(self.term(tokens)?);
            if !tokens.take(",") {
                return tokens.want(end);
            }
        }
        Ok(())
    }
}

fn filter(name: &str) -> Result<Filter, TemplateError> {
    let known = FILTERS.iter().find(|(known, _)| *known == name);
    known.map(|(_, filter)| *filter).ok_or_else(|| TemplateError::Unknown(name.to_owned()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

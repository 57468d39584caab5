//! From the text of an expression to its checked form. Every fault is told with its place.

use super::{DEEPEST, Expression, Function, Kind, LARGEST, LONGEST, Name, Node, Operator};
use crate::model::value::ValueType;

/// Why a text is no expression that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {fault}")]
pub struct ExpressionError {
    /// The character that it is about, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else should stand there.
    #[error("{expected} should stand here, found {found}", expected = .expected.name())]
    Unexpected {
        /// What should.
        expected: Expected,
        /// What does, in words.
        found: String,
    },
    /// A character that is in no expression.
    #[error("{0:?} has no meaning here")]
    Stray(char),
    /// Digits that are no number.
    #[error("{0:?} is no number")]
    Number(String),
    /// No property of that name.
    #[error("there is no property {0:?}")]
    UnknownName(String),
    /// A property that cannot be computed with.
    #[error("{name} is of type {kind}, and only numbers, true and false can be computed with", kind = .kind.name())]
    Unusable {
        /// Its id.
        name: String,
        /// Its type.
        kind: ValueType,
    },
    /// No function of that name.
    #[error("there is no function {0:?}, only min, max, abs, round, floor, ceil, if")]
    UnknownFunction(String),
    /// A call with too few or too many arguments.
    #[error("{function} takes {allowed}, found {found}")]
    Arguments {
        /// Its name.
        function: &'static str,
        /// How many it takes, in words.
        allowed: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A number where a truth should be, or the other way round.
    #[error("{expected} is needed here, found {found}", expected = .expected.name(), found = .found.name())]
    Type {
        /// What is needed.
        expected: Kind,
        /// What is there.
        found: Kind,
    },
    /// No property in it.
    #[error("nothing to compute from: it names no property")]
    NoInput,
    /// Longer than [`LONGEST`].
    #[error("longer than {LONGEST} characters")]
    TooLong,
    /// Nested deeper than [`DEEPEST`].
    #[error("nested deeper than {DEEPEST}")]
    TooDeep,
    /// More parts than [`LARGEST`].
    #[error("more than {LARGEST} numbers, names and operators")]
    TooLarge,
}

/// What should stand at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A number, a name, a call or an opening parenthesis.
    Operand,
    /// An operator or the end.
    Operator,
    /// `)`
    Closing,
    /// `(`
    Opening,
    /// `, or )`
    Separator,
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::Operand => "a number or a property",
            Self::Operator => "an operator or the end",
            Self::Closing => "\")\"",
            Self::Opening => "\"(\"",
            Self::Separator => "\",\" or \")\"",
        }
    }
}

/// Reads an expression. `lookup` says what a name stands for.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Name) -> Result<Expression, ExpressionError> {
    if text.chars().count() > LONGEST {
        return Err(ExpressionError { at: LONGEST + 1, fault: Fault::TooLong });
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, end: text.chars().count() + 1, parts: 0, lookup };
    let (root, kind) = parser.level(0, 0)?;
    if let Some(token) = parser.peek() {
        let found = token.kind.show();
        return Err(token.fault(Fault::Unexpected { expected: Expected::Operator, found }));
    }
    let mut inputs = Vec::new();
    collect(&root, &mut inputs);
    inputs.sort_unstable();
    inputs.dedup();
    if inputs.is_empty() {
        return Err(ExpressionError { at: 1, fault: Fault::NoInput });
    }
    Ok(Expression { root, kind, inputs })
}

fn collect(node: &Node, inputs: &mut Vec<usize>) {
    match node {
        Node::Constant(_) => {}
        Node::Input(position) => inputs.push(*position),
        Node::Negative(inner) | Node::Not(inner) => collect(inner, inputs),
        Node::Binary(_, left, right) => {
            collect(left, inputs);
            collect(right, inputs);
        }
        Node::Call(_, arguments) => arguments.iter().for_each(|argument| collect(argument, inputs)),
    }
}

#[derive(Clone, Debug)]
struct Token {
    /// Counted from 1.
    at: usize,
    kind: TokenKind,
}

impl Token {
    fn fault(&self, fault: Fault) -> ExpressionError {
        ExpressionError { at: self.at, fault }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum TokenKind {
    Number(f64),
    /// A word, or what stands in braces; only the former can be a keyword or a function.
    Name {
        name: String,
        braced: bool,
    },
    Operator(Operator),
    Not,
    Open,
    Close,
    Comma,
}

impl TokenKind {
    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name { name, .. } => format!("{name:?}"),
            Self::Operator(operator) => format!("{:?}", operator.sign()),
            Self::Not => "\"not\"".to_owned(),
            Self::Open => "\"(\"".to_owned(),
            Self::Close => "\")\"".to_owned(),
            Self::Comma => "\",\"".to_owned(),
        }
    }
}

/// Longer signs stand before those that they begin with.
const SIGNS: [(&str, TokenKind); 18] = [
    ("||", TokenKind::Operator(Operator::Or)),
    ("&&", TokenKind::Operator(Operator::And)),
    ("==", TokenKind::Operator(Operator::Equal)),
    ("!=", TokenKind::Operator(Operator::NotEqual)),
    ("<=", TokenKind::Operator(Operator::LessOrEqual)),
    (">=", TokenKind::Operator(Operator::GreaterOrEqual)),
    ("<", TokenKind::Operator(Operator::Less)),
    (">", TokenKind::Operator(Operator::Greater)),
    ("+", TokenKind::Operator(Operator::Add)),
    ("-", TokenKind::Operator(Operator::Subtract)),
    ("*", TokenKind::Operator(Operator::Multiply)),
    ("/", TokenKind::Operator(Operator::Divide)),
    ("%", TokenKind::Operator(Operator::Remainder)),
    ("!", TokenKind::Not),
    ("(", TokenKind::Open),
    (")", TokenKind::Close),
    (",", TokenKind::Comma),
    ("=", TokenKind::Operator(Operator::Equal)),
];

impl Operator {
    fn sign(self) -> &'static str {
        SIGNS.iter().find(|(_, kind)| *kind == TokenKind::Operator(self)).map_or("", |(sign, _)| sign)
    }

    /// What both sides must be, where the left one is of this kind.
    fn takes(self, left: Kind) -> Kind {
        match self {
            Self::Or | Self::And => Kind::Truth,
            Self::Equal | Self::NotEqual => left,
            Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::Add
            | Self::Subtract
            | Self::Multiply
            | Self::Divide
            | Self::Remainder => Kind::Number,
        }
    }

    /// From loose to tight.
    fn level(self) -> usize {
        match self {
            Self::Or => 0,
            Self::And => 1,
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => COMPARISON,
            Self::Add | Self::Subtract => 3,
            Self::Multiply | Self::Divide | Self::Remainder => 4,
        }
    }
}

/// The level whose operators are not chained: `a < b < c` means nothing.
const COMPARISON: usize = 2;

/// The level of signs, which is tighter than that of every operator.
const SIGN: usize = 5;

fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut tokens = Vec::new();
    let (mut rest, mut at) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let fault = |fault| ExpressionError { at, fault };
        let (kind, length) = if first.is_whitespace() {
            (None, first.len_utf8())
        } else if first.is_ascii_digit() || first == '.' {
            let length = number_length(rest);
            let digits = rest.get(..length).unwrap_or_default();
            let number: f64 = digits.parse().map_err(|_| fault(Fault::Number(digits.to_owned())))?;
            if !number.is_finite() {
                return Err(fault(Fault::Number(digits.to_owned())));
            }
            (Some(TokenKind::Number(number)), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.');
            let length = rest.find(end).unwrap_or(rest.len());
            let name = rest.get(..length).unwrap_or_default();
            (Some(word(name)), length)
        } else if first == '{' {
            let Some((name, _)) = rest.get(1..).and_then(|after| after.split_once('}')) else {
                return Err(fault(Fault::Stray(first)));
            };
            (Some(TokenKind::Name { name: name.trim().to_owned(), braced: true }), name.len() + 2)
        } else {
            let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
            let (sign, kind) = sign.ok_or_else(|| fault(Fault::Stray(first)))?;
            if *sign == "=" {
                return Err(fault(Fault::Stray('=')));
            }
            (Some(kind.clone()), sign.len())
        };
        tokens.extend(kind.map(|kind| Token { at, kind }));
        let (taken, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        at += taken.chars().count();
        rest = after;
    }
    Ok(tokens)
}

/// Digits, a point, and an exponent if one follows.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let tail = |length: usize| text.get(length..).unwrap_or_default();
    let mut length = digits(text);
    if tail(length).starts_with('.') {
        length += 1 + digits(tail(length + 1));
    }
    if tail(length).starts_with(['e', 'E']) {
        let sign = usize::from(tail(length + 1).starts_with(['+', '-']));
        let exponent = digits(tail(length + 1 + sign));
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

fn word(name: &str) -> TokenKind {
    match name {
        "or" => TokenKind::Operator(Operator::Or),
        "and" => TokenKind::Operator(Operator::And),
        "not" => TokenKind::Not,
        _ => TokenKind::Name { name: name.to_owned(), braced: false },
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    /// The place behind the last character.
    end: usize,
    parts: usize,
    lookup: &'a dyn Fn(&str) -> Name,
}

type Parsed = Result<(Node, Kind), ExpressionError>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<&'a Token> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    /// Takes what must stand next.
    fn demand(&mut self, kind: &TokenKind, expected: Expected) -> Result<(), ExpressionError> {
        match self.take() {
            Some(token) if token.kind == *kind => Ok(()),
            other => Err(self.unexpected(other, expected)),
        }
    }

    fn unexpected(&self, found: Option<&Token>, expected: Expected) -> ExpressionError {
        let at = found.map_or(self.end, |token| token.at);
        let found = found.map_or_else(|| "the end".to_owned(), |token| token.kind.show());
        ExpressionError { at, fault: Fault::Unexpected { expected, found } }
    }

    /// Counts one part.
    fn count(&mut self, at: usize) -> Result<(), ExpressionError> {
        self.parts += 1;
        if self.parts > LARGEST { Err(ExpressionError { at, fault: Fault::TooLarge }) } else { Ok(()) }
    }

    /// Operands with operators of this level, or of a tighter one, between them.
    fn level(&mut self, level: usize, depth: usize) -> Parsed {
        if level == SIGN {
            return self.signed(depth);
        }
        let begin = self.place();
        let (mut left, mut kind) = self.level(level + 1, depth)?;
        while let Some(Token { at, kind: TokenKind::Operator(operator) }) = self.peek() {
            if operator.level() != level {
                break;
            }
            self.next += 1;
            self.count(*at)?;
            let middle = self.place();
            let (right, right_kind) = self.level(level + 1, depth)?;
            let needed = operator.takes(kind);
            same(needed, kind, begin)?;
            same(needed, right_kind, middle)?;
            kind = if level <= COMPARISON { Kind::Truth } else { Kind::Number };
            left = Node::Binary(*operator, Box::new(left), Box::new(right));
            if level == COMPARISON {
                break;
            }
        }
        Ok((left, kind))
    }

    fn place(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    fn signed(&mut self, depth: usize) -> Parsed {
        let Some(token) = self.peek() else { return self.operand(depth) };
        let needed = if token.kind == TokenKind::Not {
            Kind::Truth
        } else if token.kind == TokenKind::Operator(Operator::Subtract) {
            Kind::Number
        } else {
            return self.operand(depth);
        };
        self.next += 1;
        self.count(token.at)?;
        let begin = self.place();
        let (inner, kind) = self.signed(deeper(depth, token.at)?)?;
        same(needed, kind, begin)?;
        let inner = Box::new(inner);
        let node = if needed == Kind::Number { Node::Negative(inner) } else { Node::Not(inner) };
        Ok((node, kind))
    }

    fn operand(&mut self, depth: usize) -> Parsed {
        let Some(token) = self.take() else { return Err(self.unexpected(None, Expected::Operand)) };
        self.count(token.at)?;
        match &token.kind {
            TokenKind::Number(number) => Ok((Node::Constant(*number), Kind::Number)),
            TokenKind::Open => {
                let inner = self.level(0, deeper(depth, token.at)?)?;
                self.demand(&TokenKind::Close, Expected::Closing)?;
                Ok(inner)
            }
            TokenKind::Name { name, braced } => self.name(name, *braced, token.at, depth),
            TokenKind::Operator(_) | TokenKind::Not | TokenKind::Close | TokenKind::Comma => {
                Err(self.unexpected(Some(token), Expected::Operand))
            }
        }
    }

    fn name(&mut self, name: &str, braced: bool, at: usize, depth: usize) -> Parsed {
        let fault = |fault| Err(ExpressionError { at, fault });
        if !braced {
            match name {
                "true" => return Ok((Node::Constant(1.0), Kind::Truth)),
                "false" => return Ok((Node::Constant(0.0), Kind::Truth)),
                _ => {}
            }
            if name == "if" || self.peek().is_some_and(|token| token.kind == TokenKind::Open) {
                let Some(function) = FUNCTIONS.iter().find(|known| known.name == name) else {
                    return fault(Fault::UnknownFunction(name.to_owned()));
                };
                return self.call(function, at, depth);
            }
        }
        match (self.lookup)(name) {
            Name::Input(position, kind) => Ok((Node::Input(position), kind)),
            Name::Unusable(kind) => fault(Fault::Unusable { name: name.to_owned(), kind }),
            Name::Unknown => fault(Fault::UnknownName(name.to_owned())),
        }
    }

    fn call(&mut self, known: &'static Known, at: usize, depth: usize) -> Parsed {
        self.demand(&TokenKind::Open, Expected::Opening)?;
        let depth = deeper(depth, at)?;
        let mut arguments = Vec::new();
        let mut kinds = Vec::new();
        loop {
            let begin = self.place();
            let (argument, kind) = self.level(0, depth)?;
            arguments.push(argument);
            kinds.push((kind, begin));
            match self.take() {
                Some(Token { kind: TokenKind::Comma, .. }) => {}
                Some(Token { kind: TokenKind::Close, .. }) => break,
                other => return Err(self.unexpected(other, Expected::Separator)),
            }
        }
        let found = arguments.len();
        if found < known.least || found > known.most {
            let fault = Fault::Arguments { function: known.name, allowed: known.allowed, found };
            return Err(ExpressionError { at, fault });
        }
        let mut given = Kind::Number;
        for (place, (kind, begin)) in kinds.iter().enumerate() {
            let needed = match (known.function, place) {
                (Function::If, 0) => Kind::Truth,
                (Function::If, 1) => {
                    given = *kind;
                    *kind
                }
                (Function::If, _) => given,
                _ => Kind::Number,
            };
            same(needed, *kind, *begin)?;
        }
        Ok((Node::Call(known.function, arguments), given))
    }
}

/// A function as it is called.
struct Known {
    name: &'static str,
    function: Function,
    least: usize,
    most: usize,
    allowed: &'static str,
}

const FUNCTIONS: [Known; 7] = {
    const fn known(
        name: &'static str,
        function: Function,
        least: usize,
        most: usize,
        allowed: &'static str,
    ) -> Known {
        Known { name, function, least, most, allowed }
    }
    [
        known("min", Function::Min, 1, LARGEST, "at least one argument"),
        known("max", Function::Max, 1, LARGEST, "at least one argument"),
        known("abs", Function::Abs, 1, 1, "one argument"),
        known("round", Function::Round, 1, 2, "a number and perhaps how many decimals to keep"),
        known("floor", Function::Floor, 1, 1, "one argument"),
        known("ceil", Function::Ceil, 1, 1, "one argument"),
        known("if", Function::If, 3, 3, "a condition and two values"),
    ]
};

/// One level further in, if there is one.
fn deeper(depth: usize, at: usize) -> Result<usize, ExpressionError> {
    if depth < DEEPEST { Ok(depth + 1) } else { Err(ExpressionError { at, fault: Fault::TooDeep }) }
}

fn same(expected: Kind, found: Kind, at: usize) -> Result<(), ExpressionError> {
    if expected == found {
        Ok(())
    } else {
        Err(ExpressionError { at, fault: Fault::Type { expected, found } })
    }
}

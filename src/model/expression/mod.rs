//! Expressions that compute a property of a device from its other properties.
//!
//! `voltage * current`, `if(power > 0, energy / power, 0)`. An expression is checked when it is read: its names, its
//! types, its size. After that evaluating it cannot fail in any other way than by giving no number, takes a bounded
//! time, and depends on nothing but its inputs.
//!
//! | from loose to tight | |
//! |---|---|
//! | `or`, `\|\|` | |
//! | `and`, `&&` | |
//! | `==` `!=` `<` `<=` `>` `>=` | one at a time |
//! | `+` `-` | |
//! | `*` `/` `%` | the remainder has the sign of its left side |
//! | `-` `not` `!` | in front |
//! | `min` `max` `abs` `round` `floor` `ceil` `if` | calls; `round(x, 2)` keeps two decimals |
//!
//! A name is a property; one that is no plain word stands in braces, as in `{active-power}`. Everything is either a
//! number or true or false, and neither is taken for the other. Numbers are floats, so whole ones beyond 2^53 lose
//! their last digits.

mod parse;

pub use parse::{Expected, ExpressionError, Fault, parse};

use super::check::integral;
use super::value::{Value, ValueType};

/// Longest text of an expression in characters: more than a person would read.
pub const LONGEST: usize = 1000;

/// Deepest nesting of parentheses, calls and signs.
pub const DEEPEST: usize = 32;

/// Most numbers, names, operators and calls together; also bounds how deep evaluation goes.
pub const LARGEST: usize = 200;

/// What an expression or a part of it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// True or false.
    Truth,
}

impl Kind {
    /// What properties of a type are in an expression; `None` for those that can be in none.
    pub fn of(kind: ValueType) -> Option<Self> {
        match kind {
            ValueType::Bool => Some(Self::Truth),
            ValueType::Int | ValueType::Float | ValueType::Enum => Some(Self::Number),
            ValueType::Text | ValueType::Object => None,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Truth => "true or false",
        }
    }
}

/// What a name in an expression stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A property at this position.
    Input(usize, Kind),
    /// A property of a type that no expression can use.
    Unusable(ValueType),
    /// Nothing.
    Unknown,
}

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    root: Node,
    kind: Kind,
    inputs: Vec<usize>,
}

impl Expression {
    /// What it gives.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Positions of the properties in it, each once, in ascending order; never empty.
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// Its value in a property's type. `None` where an input has no value or the result is no number, such as a
    /// division by zero, or none that the type holds.
    pub fn evaluate(&self, kind: ValueType, input: &dyn Fn(usize) -> Option<f64>) -> Option<Value> {
        let result = self.root.evaluate(input).filter(|result| result.is_finite())?;
        match kind {
            ValueType::Bool => Some(Value::Bool(result != 0.0)),
            ValueType::Int | ValueType::Enum => integral(result.round()).map(Value::Int),
            ValueType::Float => Some(Value::Float(result)),
            ValueType::Text | ValueType::Object => None,
        }
    }
}

/// One part. True and false are 1 and 0; the parser has seen to it that nobody can tell.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Constant(f64),
    Input(usize),
    Negative(Box<Self>),
    Not(Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
    Call(Function, Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Abs,
    Round,
    Floor,
    Ceil,
    If,
}

impl Node {
    fn evaluate(&self, input: &dyn Fn(usize) -> Option<f64>) -> Option<f64> {
        match self {
            Self::Constant(number) => Some(*number),
            Self::Input(position) => input(*position),
            Self::Negative(inner) => inner.evaluate(input).map(|n| -n),
            Self::Not(inner) => inner.evaluate(input).map(|n| truth(n == 0.0)),
            Self::Binary(operator, left, right) => {
                let left = left.evaluate(input)?;
                let decided = match operator {
                    Operator::Or => left != 0.0,
                    Operator::And => left == 0.0,
                    Operator::Equal
                    | Operator::NotEqual
                    | Operator::Less
                    | Operator::LessOrEqual
                    | Operator::Greater
                    | Operator::GreaterOrEqual
                    | Operator::Add
                    | Operator::Subtract
                    | Operator::Multiply
                    | Operator::Divide
                    | Operator::Remainder => false,
                };
                if decided {
                    return Some(left);
                }
                right.evaluate(input).map(|right| operator.apply(left, right))
            }
            Self::Call(function, arguments) => function.apply(arguments, input),
        }
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            // Where the left side decides, nobody comes here.
            Self::Or | Self::And => right,
            Self::Equal => truth(left - right == 0.0),
            Self::NotEqual => truth(left - right != 0.0),
            Self::Less => truth(left < right),
            Self::LessOrEqual => truth(left <= right),
            Self::Greater => truth(left > right),
            Self::GreaterOrEqual => truth(left >= right),
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        }
    }
}

impl Function {
    fn apply(self, arguments: &[Node], input: &dyn Fn(usize) -> Option<f64>) -> Option<f64> {
        let argument = |at: usize| arguments.get(at)?.evaluate(input);
        match self {
            Self::If => argument(if argument(0)? == 0.0 { 2 } else { 1 }),
            Self::Abs => argument(0).map(f64::abs),
            Self::Floor => argument(0).map(f64::floor),
            Self::Ceil => argument(0).map(f64::ceil),
            Self::Round if arguments.len() < 2 => argument(0).map(f64::round),
            Self::Round => {
                let scale = 10_f64.powf(argument(1)?.round());
                argument(0).map(|n| (n * scale).round() / scale)
            }
            Self::Min => fold(arguments, input, |a, b| if b < a { b } else { a }),
            Self::Max => fold(arguments, input, |a, b| if b > a { b } else { a }),
        }
    }
}

/// The one of all arguments that `pick` prefers; no number if any of them is none.
fn fold(
    arguments: &[Node],
    input: &dyn Fn(usize) -> Option<f64>,
    pick: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    let mut picked: Option<f64> = None;
    for argument in arguments {
        let next = argument.evaluate(input).filter(|next| !next.is_nan())?;
        picked = Some(picked.map_or(next, |before| pick(before, next)));
    }
    picked
}

fn truth(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests;

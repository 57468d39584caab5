//! What a template gives for a value.
//!
//! Pure. As in Home Assistant, what a template gives is text without blanks around it. What is not there stays not there
//! through members and filters, up to `default`; where nothing else is said, nothing is given.

use std::borrow::Cow;

use serde_json::{Map, Number, Value as Json};

use super::{Filter, Node, Op, Template, Term, Test};

/// Longest text that filters may make, in bytes, so that a short template does not grow without end.
const LARGEST: usize = 256 << 10;

/// What a template is about.
#[derive(Debug)]
pub struct Scope<'a> {
    value: Json,
    json: Option<&'a Json>,
    set: Vec<(&'a str, Json)>,
}

/// Why a template gives nothing for a value. `Display` is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template wants a member of it.
    #[error("the payload is not JSON")]
    NotJson,
    /// Arithmetic with something else.
    #[error("the template calculates with something that is no number")]
    NoNumber,
    /// See [`LARGEST`].
    #[error("the template makes a text that is too long")]
    Large,
}

/// A value; `None` for what is not there.
type Found<'a> = Option<Cow<'a, Json>>;

impl<'a> Scope<'a> {
    /// Of a message: its text, and the same as JSON where it is.
    pub fn of(text: &str, json: Option<&'a Json>) -> Self {
        Self { value: text.into(), json, set: Vec::new() }
    }

    /// Of a value that is sent.
    pub fn sent(value: Json) -> Self {
        Self { value, json: None, set: Vec::new() }
    }
}

impl Template {
    /// The text that it gives; nothing where it only asks for something that is not there.
    pub fn render<'a>(&'a self, mut scope: Scope<'a>) -> Result<Option<String>, RenderError> {
        if let [Node::Say(term)] = self.0.as_slice() {
            return Ok(eval(term, &scope)?.map(|found| text(&found).trim().to_owned()));
        }
        let mut said = String::new();
        render(&self.0, &mut scope, &mut said)?;
        Ok(Some(said.trim().to_owned()))
    }
}

fn render<'a>(nodes: &'a [Node], scope: &mut Scope<'a>, said: &mut String) -> Result<(), RenderError> {
    for node in nodes {
        match node {
            Node::Text(literal) => said.push_str(literal),
            Node::Say(term) => {
                if let Some(found) = eval(term, scope)? {
                    said.push_str(&text(&found));
                }
                if said.len() > LARGEST {
                    return Err(RenderError::Large);
                }
            }
            Node::Set(name, term) => {
                // What is not there counts as none from here on.
                let found = eval(term, scope)?.map_or(Json::Null, Cow::into_owned);
                scope.set.push((name, found));
            }
            Node::If(branches, otherwise) => {
                let mut taken = otherwise;
                for (condition, nodes) in branches {
                    if eval(condition, scope)?.is_some_and(|found| is_so(&found)) {
                        taken = nodes;
                        break;
                    }
                }
                render(taken, scope, said)?;
            }
        }
    }
    Ok(())
}

fn eval<'a>(term: &'a Term, scope: &'a Scope<'_>) -> Result<Found<'a>, RenderError> {
    Ok(match term {
        Term::Literal(literal) => Some(Cow::Borrowed(literal)),
        Term::Name(name) => match (scope.set.iter().rev().find(|(known, _)| **known == **name), &**name) {
            (Some((_, set)), _) => Some(Cow::Borrowed(set)),
            (None, "value_json") => Some(Cow::Borrowed(scope.json.ok_or(RenderError::NotJson)?)),
            (None, "value" | "position" | "tilt_position") => Some(Cow::Borrowed(&scope.value)),
            // A branch that was not taken would have set it.
            (None, _) => None,
        },
        Term::Member(of, key) => match (eval(of, scope)?, eval(key, scope)?) {
            (Some(of), Some(key)) => member(of, &key),
            (_, _) => None,
        },
        Term::List(terms) => {
            let mut items = Vec::with_capacity(terms.len());
            for term in terms {
                items.push(eval(term, scope)?.map_or(Json::Null, Cow::into_owned));
            }
            owned(Json::Array(items))
        }
        Term::Dict(pairs) => {
            let mut members = Map::new();
            for (key, value) in pairs {
                let key = eval(key, scope)?.map(|key| text(&key)).unwrap_or_default();
                members.insert(key, eval(value, scope)?.map_or(Json::Null, Cow::into_owned));
            }
            owned(Json::Object(members))
        }
        Term::Not(term) => owned(Json::Bool(!truth(term, scope)?)),
        Term::Negative(term) => match eval(term, scope)? {
            Some(found) => Some(Cow::Owned(calculated(Op::Minus, &Json::from(0), &found)?)),
            None => None,
        },
        Term::Both(Op::And, left, right) => {
            let found = eval(left, scope)?;
            if found.as_deref().is_some_and(is_so) { eval(right, scope)? } else { found }
        }
        Term::Both(Op::Or, left, right) => {
            let found = eval(left, scope)?;
            if found.as_deref().is_some_and(is_so) { found } else { eval(right, scope)? }
        }
        Term::Both(op, left, right) => both(*op, eval(left, scope)?, eval(right, scope)?)?,
        Term::Filter(filter, terms) => filtered(*filter, terms, scope)?,
        Term::Is(test, term) => {
            let found = eval(term, scope)?;
            owned(Json::Bool(match test {
                Test::Defined => found.is_some(),
                Test::Undefined => found.is_none(),
                Test::None => found.is_some_and(|found| found.is_null()),
                Test::Number => found.is_some_and(|found| found.is_number()),
                Test::Text => found.is_some_and(|found| found.is_string()),
            }))
        }
        Term::Choice(terms) => {
            let [condition, then, otherwise] = &**terms;
            eval(if truth(condition, scope)? { then } else { otherwise }, scope)?
        }
    })
}

fn truth(term: &Term, scope: &Scope<'_>) -> Result<bool, RenderError> {
    Ok(eval(term, scope)?.is_some_and(|found| is_so(&found)))
}

#[expect(clippy::unnecessary_wraps, reason = "it is what all arms give")]
fn owned<'a>(json: Json) -> Found<'a> {
    Some(Cow::Owned(json))
}

/// As Python has it: nothing, zero and what is empty are not so.
fn is_so(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(so) => *so,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(members) => !members.is_empty(),
    }
}

/// As Python writes it, but for lists and objects, which stay JSON.
pub(super) fn text(json: &Json) -> String {
    match json {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::String(text) => text.clone(),
        Json::Number(_) | Json::Array(_) | Json::Object(_) => json.to_string(),
    }
}

fn member<'a>(of: Cow<'a, Json>, key: &Json) -> Found<'a> {
    fn within<'j>(of: &'j Json, key: &Json) -> Option<&'j Json> {
        match of {
            Json::Object(members) => members.get(text(key).as_str()),
            Json::Array(items) => {
                let at = key.as_i64()?;
                let at = if at < 0 {
                    items.len().checked_sub(usize::try_from(-at).ok()?)?
                } else {
                    usize::try_from(at).ok()?
                };
                items.get(at)
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        }
    }
    match of {
        Cow::Borrowed(of) => within(of, key).map(Cow::Borrowed),
        Cow::Owned(of) => within(&of, key).cloned().map(Cow::Owned),
    }
}

fn both<'a>(op: Op, left: Found<'a>, right: Found<'a>) -> Result<Found<'a>, RenderError> {
    let ordered = |fits: fn(std::cmp::Ordering) -> bool| {
        let order = match (left.as_deref()?, right.as_deref()?) {
            (Json::String(left), Json::String(right)) => left.cmp(right),
            (left, right) => real(left)?.partial_cmp(&real(right)?)?,
        };
        Some(Cow::Owned(Json::Bool(fits(order))))
    };
    Ok(match op {
        Op::Equal => owned(Json::Bool(same(left.as_deref(), right.as_deref()))),
        Op::Different => owned(Json::Bool(!same(left.as_deref(), right.as_deref()))),
        Op::Less => ordered(std::cmp::Ordering::is_lt),
        Op::LessOrEqual => ordered(std::cmp::Ordering::is_le),
        Op::Greater => ordered(std::cmp::Ordering::is_gt),
        Op::GreaterOrEqual => ordered(std::cmp::Ordering::is_ge),
        Op::In => owned(Json::Bool(match (left.as_deref(), right.as_deref()) {
            (Some(Json::String(part)), Some(Json::String(all))) => all.contains(part.as_str()),
            (Some(key), Some(Json::Object(members))) => members.contains_key(text(key).as_str()),
            (item, Some(Json::Array(items))) => items.iter().any(|known| same(item, Some(known))),
            (_, _) => false,
        })),
        Op::Join => {
            let said = |found: Found<'a>| found.map(|found| text(&found)).unwrap_or_default();
            owned(Json::String(fit(said(left) + &said(right))?))
        }
        Op::Or | Op::And | Op::Plus | Op::Minus | Op::Times | Op::Divided | Op::Whole | Op::Rest => {
            match (left, right) {
                (Some(left), Some(right)) => owned(calculated(op, &left, &right)?),
                (_, _) => None,
            }
        }
    })
}

fn same(left: Option<&Json>, right: Option<&Json>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) if left.is_number() && right.is_number() => real(left) == real(right),
        (left, right) => left == right,
    }
}

/// A number, where it is one: true and false are 1 and 0, as in Python.
fn real(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| json.as_bool().map(|so| f64::from(u8::from(so))))
}

fn calculated(op: Op, left: &Json, right: &Json) -> Result<Json, RenderError> {
    if let (Op::Plus, Json::String(left), Json::String(right)) = (op, left, right) {
        return Ok(Json::String(fit(left.to_owned() + right)?));
    }
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let divisible = right > 0;
        let whole = match op {
            Op::Plus => left.checked_add(right),
            Op::Minus => left.checked_sub(right),
            Op::Times => left.checked_mul(right),
            Op::Whole if divisible => left.checked_div_euclid(right),
            Op::Rest if divisible => left.checked_rem_euclid(right),
            Op::Or
            | Op::And
            | Op::Equal
            | Op::Different
            | Op::Less
            | Op::LessOrEqual
            | Op::Greater
            | Op::GreaterOrEqual
            | Op::In
            | Op::Join
            | Op::Divided
            | Op::Whole
            | Op::Rest => None,
        };
        if let Some(whole) = whole {
            return Ok(whole.into());
        }
    }
    let (left, right) = (real(left).ok_or(RenderError::NoNumber)?, real(right).ok_or(RenderError::NoNumber)?);
    number(match op {
        Op::Plus => left + right,
        Op::Minus => left - right,
        Op::Times => left * right,
        Op::Whole => (left / right).floor(),
        Op::Rest => left - right * (left / right).floor(),
        Op::Or
        | Op::And
        | Op::Equal
        | Op::Different
        | Op::Less
        | Op::LessOrEqual
        | Op::Greater
        | Op::GreaterOrEqual
        | Op::In
        | Op::Join
        | Op::Divided => left / right,
    })
}

fn number(real: f64) -> Result<Json, RenderError> {
    Number::from_f64(real).map(Json::Number).ok_or(RenderError::NoNumber)
}

fn fit(text: String) -> Result<String, RenderError> {
    if text.len() > LARGEST { Err(RenderError::Large) } else { Ok(text) }
}

/// A number out of a number or its text.
fn read_number(json: &Json) -> Option<f64> {
    let Some(text) = json.as_str() else { return real(json) };
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range is checked before")]
fn whole(number: f64) -> Result<Json, RenderError> {
    if number.abs() < 9e15 { Ok((number as i64).into()) } else { Err(RenderError::NoNumber) }
}

fn filtered<'a>(filter: Filter, terms: &'a [Term], scope: &'a Scope<'_>) -> Result<Found<'a>, RenderError> {
    let argument = |at: usize| terms.get(at).map(|term| eval(term, scope)).transpose().map(Option::flatten);
    let found = argument(0)?;
    if filter == Filter::Default {
        // The second argument says that what is not so counts as not there.
        let also = argument(2)?.is_some_and(|also| is_so(&also));
        let there = found.filter(|found| !also || is_so(found));
        return if there.is_some() { Ok(there) } else { argument(1) };
    }
    if filter == Filter::Choose {
        let so = found.is_some_and(|found| is_so(&found));
        let chosen = argument(if so { 1 } else { 2 })?;
        return Ok(chosen.or_else(|| owned(Json::Bool(so))));
    }
    if filter == Filter::Get {
        let key = argument(1)?;
        let there = found.zip(key).and_then(|(found, key)| member(found, &key));
        return Ok(there.or(argument(2)?).or_else(|| owned(Json::Null)));
    }
    let is_number = matches!(filter, Filter::Float | Filter::Int);
    let Some(found) = found else {
        // `float(0)` and its like stand for what is not there as well.
        return if is_number { argument(1) } else { Ok(None) };
    };
    let others = (argument(1)?, argument(2)?);
    if is_number && read_number(&found).is_none() {
        return others.0.map(Some).ok_or(RenderError::NoNumber);
    }
    if filter == Filter::IsDefined {
        return Ok(Some(found));
    }
    if matches!(filter, Filter::First | Filter::Last) {
        return Ok(member(found, &Json::from(if filter == Filter::First { 0 } else { -1 })));
    }
    made(filter, &found, others.0.as_deref(), others.1.as_deref()).map(owned)
}

/// What a filter makes of a value and its arguments.
fn made(filter: Filter, found: &Json, one: Option<&Json>, two: Option<&Json>) -> Result<Json, RenderError> {
    let said = || text(found);
    let real_of = |json: Option<&Json>| json.and_then(read_number).ok_or(RenderError::NoNumber);
    let real = || real_of(Some(found));
    Ok(match filter {
        Filter::Float => number(real()?)?,
        Filter::Int => whole(real()?.trunc())?,
        Filter::Round => {
            let places = one.and_then(Json::as_i64).unwrap_or_default().clamp(-15, 15);
            let factor = 10_f64.powi(i32::try_from(places).unwrap_or_default());
            let scaled = real()? * factor;
            let rounded = match two.and_then(Json::as_str) {
                Some("floor") => scaled.floor(),
                Some("ceil") => scaled.ceil(),
                _ => scaled.round(),
            };
            if places == 0 { whole(rounded)? } else { number(rounded / factor)? }
        }
        Filter::Abs => match found.as_i64().and_then(i64::checked_abs) {
            Some(whole) => whole.into(),
            None => number(real()?.abs())?,
        },
        Filter::Multiply => number(real()? * real_of(one)?)?,
        Filter::Add => number(real()? + real_of(one)?)?,
        Filter::Upper => said().to_uppercase().into(),
        Filter::Lower => said().to_lowercase().into(),
        Filter::Capitalize => {
            let lower = said().to_lowercase();
            let mut characters = lower.chars();
            let first = characters.next().map(|c| c.to_uppercase().to_string());
            first.map(|first| first + characters.as_str()).unwrap_or_default().into()
        }
        Filter::Trim => said().trim().into(),
        Filter::Text => said().into(),
        Filter::Bool => {
            let word = said().to_lowercase();
            Json::Bool(matches!(word.as_str(), "true" | "yes" | "on" | "enable" | "1"))
        }
        Filter::Replace => {
            let (from, to) = (one.map(text).unwrap_or_default(), two.map(text).unwrap_or_default());
            replaced(&said(), &from, &to)?.into()
        }
        Filter::Split => {
            let said = said();
            Json::Array(match one.map(text).filter(|by| !by.is_empty()) {
                Some(by) => said.split(by.as_str()).map(Json::from).collect(),
                None => said.split_whitespace().map(Json::from).collect(),
            })
        }
        Filter::Json => found.to_string().into(),
        Filter::FromJson => serde_json::from_str(&said()).map_err(|_| RenderError::NotJson)?,
        Filter::Length => match found {
            Json::Array(items) => items.len().into(),
            Json::Object(members) => members.len().into(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => said().chars().count().into(),
        },
        Filter::IsDefined | Filter::Default | Filter::Choose | Filter::Get | Filter::First | Filter::Last => {
            found.clone()
        }
    })
}

/// With every part replaced, as long as it does not grow too much.
fn replaced(text: &str, from: &str, to: &str) -> Result<String, RenderError> {
    let times = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let grown = times.checked_mul(to.len()).and_then(|more| more.checked_add(text.len()));
    if grown.is_some_and(|grown| grown <= LARGEST) {
        Ok(text.replace(from, to))
    } else {
        Err(RenderError::Large)
    }
}

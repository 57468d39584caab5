//! Reads `compute`: the expression of a computed property, with everything that can be wrong with it.

use std::cell::Cell;
use std::sync::Arc;

use super::guess::nearest;
use super::node::Node;
use super::problem::{Problem, Report, Spot};
use super::reader::Table;
use crate::model::expression::{Expression, ExpressionError, Fault, Kind, Name, parse};
use crate::model::product::{Access, Product, Property};

const ALLOWED: &str = "an expression over other properties, as in \"voltage * current\"";

/// A property that is computed comes from nowhere else and is not written.
pub(super) fn check_unbound(table: &Table<'_>, bindings: [Option<Spot>; 2], access: Access) {
    for spot in bindings.into_iter().flatten() {
        let problem = Problem::error(&spot, "a property that is computed is bound to nothing");
        table.report().add(problem.allowed("compute, or a binding"));
    }
    if access != Access::Read {
        let problem = Problem::error(&table.key("access").spot(), "a property that is computed is only read");
        table.report().add(problem.allowed("r"));
    }
}

/// Gives properties, by position, the expressions that stand there.
pub(super) fn compute(formulas: &[(usize, Node<'_>)], properties: &mut [Property], names: &[&str]) {
    let read: Vec<_> =
        formulas.iter().map(|(at, node)| formula(node, properties.get(*at)?, properties, names)).collect();
    for ((at, _), expression) in formulas.iter().zip(read) {
        if let Some(property) = properties.get_mut(*at) {
            property.compute = expression;
        }
    }
}

/// The expression of one property.
fn formula(
    node: &Node<'_>,
    property: &Property,
    properties: &[Property],
    names: &[&str],
) -> Option<Arc<Expression>> {
    let Some(wanted) = Kind::of(property.kind) else {
        let found = format!("a property of type {} cannot be computed", property.kind.name());
        node.report().add(Problem::error(&node.spot(), found).allowed("bool, int, float, enum"));
        return None;
    };
    let found =
        |given: &str| format!("it gives {given}, and the property is of type {}", property.kind.name());
    expression(node, wanted, found, properties, names)
}

/// An expression that is true or false.
pub(super) fn condition(node: &Node<'_>, properties: &[Property], names: &[&str]) -> Option<Arc<Expression>> {
    expression(node, Kind::Truth, |given| format!("a condition that gives {given}"), properties, names)
}

/// `names` are the ids of all properties, also of those that could not be read.
fn expression(
    node: &Node<'_>,
    wanted: Kind,
    found: impl Fn(&str) -> String,
    properties: &[Property],
    names: &[&str],
) -> Option<Arc<Expression>> {
    let text = node.text()?;
    // A property that stands there, but could not be read, is reported at its own place.
    let unread = Cell::new(false);
    let lookup = |name: &str| {
        let found = properties.iter().enumerate().find(|(_, known)| *known.id == *name);
        let Some((position, known)) = found else {
            unread.set(unread.get() || names.contains(&name));
            return Name::Unknown;
        };
        Kind::of(known.kind).map_or(Name::Unusable(known.kind), |kind| Name::Input(position, kind))
    };
    match parse(text, &lookup) {
        Ok(expression) if expression.kind() == wanted => Some(Arc::new(expression)),
        Ok(expression) => {
            let allowed = format!("an expression that gives {}", wanted.name());
            let found = found(expression.kind().name());
            node.report().add(Problem::error(&node.spot(), found).allowed(allowed));
            None
        }
        Err(_) if unread.get() => None,
        Err(error) => {
            refuse(node, &error, names);
            None
        }
    }
}

fn refuse(node: &Node<'_>, error: &ExpressionError, names: &[&str]) {
    let mut problem = Problem::error(&node.spot(), error.to_string());
    if let Fault::UnknownName(name) = &error.fault {
        let written: Vec<String> = names.iter().map(|name| written(name)).collect();
        problem = problem.allowed(written.join(", "));
        problem.hint = nearest(name, names).map(|near| format!("did you mean {}?", self::written(near)));
    } else {
        problem = problem.allowed(ALLOWED);
    }
    node.report().add(problem);
}

/// A name as an expression writes it.
fn written(name: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let plain = name.starts_with(first)
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !["true", "false", "and", "or", "not", "if"].contains(&name);
    if plain { name.to_owned() } else { format!("{{{name}}}") }
}

/// Reports properties that are computed from themselves.
pub(super) fn check_cycles(report: &Report, product: &Product, spots: &[(usize, Spot)]) {
    let order = product.computed();
    let left: Vec<usize> =
        spots.iter().map(|(position, _)| *position).filter(|position| !order.contains(position)).collect();
    // Of what is left, each is computed from another one that is left, so following that must come round.
    let mut known: Vec<usize> = Vec::new();
    for (start, spot) in spots.iter().filter(|(position, _)| left.contains(position)) {
        let mut way = vec![*start];
        while let Some(next) = way.last().and_then(|at| step(product, *at, &left)) {
            let seen = way.iter().position(|at| *at == next);
            way.push(next);
            if let Some(seen) = seen {
                let round = way.split_off(seen);
                if !round.iter().any(|at| known.contains(at)) {
                    let ids: Vec<&str> = round
                        .iter()
                        .filter_map(|at| product.properties.get(*at))
                        .map(|property| &*property.id)
                        .collect();
                    let found = format!("computed from itself: {}", ids.join(" from "));
                    let spot =
                        spots.iter().find(|(at, _)| Some(at) == round.first()).map_or(spot, |(_, spot)| spot);
                    report.add(Problem::error(spot, found).allowed(ALLOWED));
                }
                known.extend(round);
                break;
            }
        }
    }
}

fn step(product: &Product, at: usize, left: &[usize]) -> Option<usize> {
    let expression = product.properties.get(at)?.compute.as_ref()?;
    expression.inputs().iter().copied().find(|input| left.contains(input))
}

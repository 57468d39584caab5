//! What a client may ask of a device, checked against the device's product before anything travels.
//!
//! Clients write values the way their language does: `1` for true, `"20.5"` for a number, a label for an
//! enumeration. What can only mean one thing is taken over in the product's type; everything else is a
//! [`Rejection`] that names what was found and what is allowed.

use std::sync::Arc;

use super::command::{Action, Rejection};
use super::product::{Function, Parameter, Product, Property};
use super::value::{Value, ValueType};

/// An [`Action`] that the product admits, by positions and in the product's types.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// Positions of readable properties, each once; never empty.
    Read(Vec<usize>),
    /// Positions of writable properties, each once, in the order in which they were last named; never empty.
    Write(Vec<(usize, Value)>),
    /// A function with all its required inputs.
    Invoke {
        /// Position in the product's functions.
        function: usize,
        /// Known inputs, each once; those that were not given are absent.
        inputs: Vec<(Arc<str>, Value)>,
    },
}

/// Checks an action against a product. Of several faults the first one in the client's order is told.
pub fn check(product: &Product, action: &Action) -> Result<Checked, Rejection> {
    match action {
        Action::Read(ids) => read(product, ids).map(Checked::Read),
        Action::Write(values) => write(product, values).map(Checked::Write),
        Action::Invoke { function: id, inputs } => {
            let (position, function) =
                product.function(id).ok_or_else(|| Rejection::UnknownFunction(Arc::clone(id)))?;
            Ok(Checked::Invoke { function: position, inputs: call(function, inputs)? })
        }
    }
}

/// A value for a property in the property's type, if a write may carry it. Says nothing of access.
pub fn property_value(property: &Property, found: &Value) -> Result<Value, Rejection> {
    let value = match coerce(property.kind, &property.labels, found) {
        Ok(value) => value,
        Err(Mismatch::Type) => return Err(wrong_type(&property.id, property.kind, found)),
        Err(Mismatch::Label) => return Err(out_of_range(&property.id, labels(property), found)),
    };
    if !within(property.range, &value) {
        return Err(out_of_range(&property.id, range(property.range), found));
    }
    if let Some(step) = off_step(property, &value) {
        let start = property.range.map_or(0.0, |(start, _)| start);
        return Err(out_of_range(&property.id, format!("steps of {step} from {start}"), found));
    }
    Ok(value)
}

/// A value for an input, an output or an event's parameter, in its type.
pub fn parameter_value(parameter: &Parameter, found: &Value) -> Result<Value, Rejection> {
    let Ok(value) = coerce(parameter.kind, &[], found) else {
        return Err(wrong_type(&parameter.id, parameter.kind, found));
    };
    if within(parameter.range, &value) {
        Ok(value)
    } else {
        Err(out_of_range(&parameter.id, range(parameter.range), found))
    }
}

/// Whether two values are the same to a person: `1`, `1.0` and `true` are, `1` and `"1"` are not.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        // Two whole numbers are compared as such, because a float cannot tell large ones apart.
        (Some(_), Some(_)) if matches!((a, b), (Value::Int(_), Value::Int(_))) => a == b,
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq() || (a - b == 0.0),
        _ => a == b,
    }
}

/// Why a value cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    /// It is of another type.
    Type,
    /// It is of the enumeration's type but none of its values.
    Label,
}

fn read(product: &Product, ids: &[Arc<str>]) -> Result<Vec<usize>, Rejection> {
    let mut positions = Vec::with_capacity(ids.len());
    for id in ids {
        let (position, property) = find(product, id)?;
        if !property.access.readable() {
            return Err(Rejection::WriteOnly(Arc::clone(id)));
        }
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    if ids.is_empty() {
        let readable =
            product.properties.iter().enumerate().filter(|(_, property)| property.access.readable());
        positions.extend(readable.map(|(position, _)| position));
    }
    if positions.is_empty() {
        return Err(Rejection::Empty);
    }
    Ok(positions)
}

fn write(product: &Product, values: &[(Arc<str>, Value)]) -> Result<Vec<(usize, Value)>, Rejection> {
    if values.is_empty() {
        return Err(Rejection::Empty);
    }
    let mut checked: Vec<(usize, Value)> = Vec::with_capacity(values.len());
    for (id, found) in values {
        let (position, property) = find(product, id)?;
        if !property.access.writable() {
            return Err(Rejection::ReadOnly(Arc::clone(id)));
        }
        let value = property_value(property, found)?;
        checked.retain(|(earlier, _)| *earlier != position);
        checked.push((position, value));
    }
    Ok(checked)
}

fn call(function: &Function, inputs: &[(Arc<str>, Value)]) -> Result<Vec<(Arc<str>, Value)>, Rejection> {
    let mut checked: Vec<(Arc<str>, Value)> = Vec::with_capacity(inputs.len());
    for (id, found) in inputs {
        let Some(input) = function.inputs.iter().find(|input| input.id == *id) else {
            return Err(Rejection::UnknownInput(Arc::clone(id)));
        };
        checked.retain(|(earlier, _)| *earlier != input.id);
        // A null is how many a client says that it leaves an input out.
        if *found != Value::Null {
            checked.push((Arc::clone(&input.id), parameter_value(input, found)?));
        }
    }
    for input in &function.inputs {
        if input.required && !checked.iter().any(|(id, _)| *id == input.id) {
            return Err(Rejection::MissingInput(Arc::clone(&input.id)));
        }
    }
    Ok(checked)
}

fn find<'a>(product: &'a Product, id: &Arc<str>) -> Result<(usize, &'a Property), Rejection> {
    product.property(id).ok_or_else(|| Rejection::UnknownProperty(Arc::clone(id)))
}

fn wrong_type(id: &Arc<str>, expected: ValueType, found: &Value) -> Rejection {
    Rejection::WrongType { id: Arc::clone(id), expected, found: found.clone() }
}

fn out_of_range(id: &Arc<str>, allowed: String, found: &Value) -> Rejection {
    Rejection::OutOfRange { id: Arc::clone(id), allowed, found: found.clone() }
}

fn coerce(kind: ValueType, labels: &[(i64, Arc<str>)], found: &Value) -> Result<Value, Mismatch> {
    let value = match kind {
        ValueType::Bool => switch(found).map(Value::Bool),
        ValueType::Int => whole(found).map(Value::Int),
        ValueType::Float => number(found).map(Value::Float),
        ValueType::Text => matches!(found, Value::Text(_)).then(|| found.clone()),
        ValueType::Object => matches!(found, Value::Object(_)).then(|| found.clone()),
        ValueType::Enum => return choice(labels, found).map(Value::Int),
    };
    value.ok_or(Mismatch::Type)
}

fn switch(found: &Value) -> Option<bool> {
    match found {
        Value::Bool(on) => Some(*on),
        Value::Int(_) | Value::Float(_) => match whole(found) {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
        Value::Text(text) => {
            let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
            if is("true") || is("on") || is("1") {
                Some(true)
            } else if is("false") || is("off") || is("0") {
                Some(false)
            } else {
                None
            }
        }
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}

fn whole(found: &Value) -> Option<i64> {
    match found {
        Value::Int(n) => Some(*n),
        Value::Float(n) => integral(*n),
        Value::Text(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(integral))
        }
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => None,
    }
}

/// The whole number that a float is, if it is one that 64 bits hold.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the range and fraction are checked"
)]
pub(super) fn integral(n: f64) -> Option<i64> {
    /// 2^63, the first float above every `i64`.
    const END: f64 = 9_223_372_036_854_775_808.0;
    (n.fract() == 0.0 && (-END..END).contains(&n)).then_some(n as i64)
}

fn number(found: &Value) -> Option<f64> {
    let number = match found {
        Value::Int(_) | Value::Float(_) => found.as_f64(),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// An enumeration's value from its number or its label. Without labels every whole number is one.
fn choice(labels: &[(i64, Arc<str>)], found: &Value) -> Result<i64, Mismatch> {
    let by_label = |text: &str| {
        let exact = labels.iter().find(|(_, label)| **label == *text);
        exact.or_else(|| labels.iter().find(|(_, label)| label.eq_ignore_ascii_case(text.trim())))
    };
    if let Value::Text(text) = found {
        if let Some((n, _)) = by_label(text) {
            return Ok(*n);
        }
    }
    match (whole(found), found) {
        (Some(n), _) if labels.is_empty() || labels.iter().any(|(known, _)| *known == n) => Ok(n),
        (Some(_), _) => Err(Mismatch::Label),
        (None, Value::Text(_)) if !labels.is_empty() => Err(Mismatch::Label),
        (None, _) => Err(Mismatch::Type),
    }
}

fn within(range: Option<(f64, f64)>, value: &Value) -> bool {
    match (range, value) {
        (Some((least, most)), Value::Int(_) | Value::Float(_)) => {
            value.as_f64().is_some_and(|n| (least..=most).contains(&n))
        }
        _ => true,
    }
}

/// The step that a number misses. The tolerance is that of a decimal fraction written as a float.
fn off_step(property: &Property, value: &Value) -> Option<f64> {
    let step = property.step.filter(|step| step.is_finite() && *step > 0.0)?;
    let n = match value {
        Value::Int(_) | Value::Float(_) => value.as_f64()?,
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => return None,
    };
    let steps = (n - property.range.map_or(0.0, |(start, _)| start)) / step;
    let miss = (steps - steps.round()).abs();
    (miss > 1e-6 + steps.abs() * 1e-12).then_some(step)
}

fn range(range: Option<(f64, f64)>) -> String {
    range.map_or_else(|| "any number".to_owned(), |(least, most)| format!("{least} to {most}"))
}

fn labels(property: &Property) -> String {
    let named: Vec<String> = property.labels.iter().map(|(n, label)| format!("{n} ({label})")).collect();
    format!("one of {}", named.join(", "))
}

#[cfg(test)]
mod tests;

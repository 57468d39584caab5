//! Which events of a product a change of a reading fires.

use std::sync::Arc;

use crate::model::check::same;
use crate::model::message::Body;
use crate::model::product::{Change, Edge, EventTrigger, EventType, Product};
use crate::model::value::Value;

/// Fires the events that wait for such a change. `known` gives the value of a property by position, for events that
/// carry one; `before` is absent for the first reading.
pub(super) fn fire(
    product: &Product,
    position: usize,
    before: Option<&Value>,
    value: &Value,
    known: impl Fn(usize) -> Option<Value>,
    facts: &mut Vec<Body>,
) {
    for event in &product.events {
        let Some(trigger) = event.when.as_ref().filter(|trigger| trigger.property == position) else {
            continue;
        };
        if before.is_none() && !trigger.initial {
            continue;
        }
        if let Change::Bits { labels, edge } = &trigger.change {
            for (bit, label) in labels {
                let (was, is) = (before.is_some_and(|before| set(before, *bit)), set(value, *bit));
                if flips(*edge, was, is) {
                    let own = [
                        (Arc::from("bit"), Value::Int(i64::from(*bit))),
                        (Arc::from("label"), Value::Text(Arc::clone(label))),
                        (Arc::from("active"), Value::Bool(is)),
                    ];
                    facts.push(told(event, trigger, own.into(), &known));
                }
            }
        } else if changed(&trigger.change, before, value) {
            facts.push(told(event, trigger, Vec::new(), &known));
        }
    }
}

fn told(
    event: &EventType,
    trigger: &EventTrigger,
    mut params: Vec<(Arc<str>, Value)>,
    known: &impl Fn(usize) -> Option<Value>,
) -> Body {
    let carried = |(id, at): &(Arc<str>, usize)| Some((Arc::clone(id), known(*at)?));
    params.extend(trigger.carries.iter().filter_map(carried));
    Body::Event { event: Arc::clone(&event.id), level: event.level, params }
}

fn changed(change: &Change, before: Option<&Value>, value: &Value) -> bool {
    match change {
        Change::Becomes(wanted) => same(wanted, value) && before.is_none_or(|before| !same(wanted, before)),
        Change::Rises => number(before) < value.as_f64(),
        Change::Falls => before.is_some() && number(before) > value.as_f64() && value.as_f64().is_some(),
        Change::Differs => before.is_none_or(|before| !same(before, value)),
        Change::Bits { .. } => false,
    }
}

/// What a value is compared with; nothing read yet counts as zero.
fn number(before: Option<&Value>) -> Option<f64> {
    before.map_or(Some(0.0), Value::as_f64)
}

fn flips(edge: Edge, was: bool, is: bool) -> bool {
    match edge {
        Edge::Rising => !was && is,
        Edge::Falling => was && !is,
        Edge::Both => was != is,
    }
}

/// Whether a bit is set; never in what is no whole number.
fn set(value: &Value, bit: u8) -> bool {
    match value {
        Value::Int(n) => n.checked_shr(u32::from(bit)).is_some_and(|shifted| shifted & 1 == 1),
        Value::Bool(on) => *on && bit == 0,
        Value::Null | Value::Float(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => false,
    }
}

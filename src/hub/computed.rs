//! Computed properties of one device: which of them a reading concerns, and what they are then.
//!
//! One is computed anew when an input is read and all its inputs are good. Its quality is the worst of theirs; while
//! that is not good it keeps its last value.

use crate::model::device::Device;
use crate::model::product::Product;
use crate::model::value::{Quality, Reading, Value};

/// The computed properties of a product.
#[derive(Debug)]
pub(super) struct Computed {
    /// Each after those that it is computed from.
    order: Vec<usize>,
}

/// What a computed property is now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Result {
    /// A value from good inputs.
    Value(Value),
    /// As trustworthy as its worst input; `Bad` also where the inputs give no number.
    Worse(Quality),
    /// An input was never read.
    Nothing,
}

impl Computed {
    pub(super) fn new(device: &Device) -> Self {
        Self { order: device.product.computed() }
    }

    /// The computed properties that depend on these, in the order in which to compute them.
    pub(super) fn concerned(&self, product: &Product, touched: &[usize]) -> Vec<usize> {
        if self.order.is_empty() {
            return Vec::new();
        }
        let mut all = touched.to_vec();
        let mut concerned = Vec::new();
        for position in &self.order {
            let expression = product.properties.get(*position).and_then(|property| property.compute.as_ref());
            if expression.is_some_and(|it| it.inputs().iter().any(|input| all.contains(input))) {
                all.push(*position);
                concerned.push(*position);
            }
        }
        concerned
    }
}

/// Computes one property from the readings of the others.
pub(super) fn compute<'r>(
    product: &Product,
    position: usize,
    reading: impl Fn(usize) -> Option<&'r Reading>,
) -> Result {
    let Some(property) = product.properties.get(position) else { return Result::Nothing };
    let Some(expression) = &property.compute else { return Result::Nothing };
    let mut worst = Quality::Good;
    for input in expression.inputs() {
        let Some(reading) = reading(*input) else { return Result::Nothing };
        worst = match (worst, reading.quality) {
            (Quality::Bad, _) | (_, Quality::Bad) => Quality::Bad,
            (Quality::Stale, _) | (_, Quality::Stale) => Quality::Stale,
            (Quality::Good, Quality::Good) => Quality::Good,
        };
    }
    if worst != Quality::Good {
        return Result::Worse(worst);
    }
    let input = |at: usize| reading(at)?.value.as_f64();
    expression.evaluate(property.kind, &input).map_or(Result::Worse(Quality::Bad), Result::Value)
}

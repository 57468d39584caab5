//! Numbers between registers and values: whole ones stay exact to 64 bits, and scaled ones come out with the digits
//! that people expect.

use std::sync::Arc;

use crate::model::value::{Value, ValueType};

/// A number before it gets a property's type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    pub(super) fn typed(self, kind: ValueType) -> Result<Value, Arc<str>> {
        match kind {
            ValueType::Bool => Ok(Value::Bool(match self {
                Self::Whole(n) => n != 0,
                Self::Real(n) => n != 0.0,
            })),
            ValueType::Int | ValueType::Enum => {
                let whole = self.whole().and_then(|n| i64::try_from(n).ok());
                whole.map(Value::Int).ok_or_else(|| "the number is beyond 64 bits".into())
            }
            ValueType::Float => Ok(Value::Float(self.real())),
            ValueType::Text | ValueType::Object => Err("registers hold numbers only".into()),
        }
    }

    pub(super) fn real(self) -> f64 {
        match self {
            Self::Whole(n) => float(n),
            Self::Real(n) => n,
        }
    }

    /// Rounded to the nearest, if it is in the range of 64 bits, signed or not.
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range is checked")]
    pub(super) fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(n) => Some(n),
            Self::Real(n) if n.abs() <= TWO_TO_64 => Some(n.round() as i128),
            Self::Real(_) => None,
        }
    }
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// Decimal digits behind the first that every f64 keeps.
const EXACT_DIGITS: i32 = 14;

/// raw * scale + offset, without the digits that binary fractions add: 235 * 0.1 is 23.5 and not 23.500000000000004.
pub(super) fn scaled_up(raw: f64, scale: f64, offset: f64) -> f64 {
    let product = raw * scale;
    let sum = product + offset;
    let largest = exponent(product).max(exponent(offset));
    match usize::try_from(EXACT_DIGITS - largest) {
        // What the larger one is not exact in, the sum is not exact in either: 40.3 - 40 is 0.3.
        Ok(decimals) => rounded(sum, decimals),
        Err(_) => sum,
    }
}

/// Rounded to so many digits behind the point; never to a negative zero, which would be printed as one.
pub(super) fn rounded(n: f64, decimals: usize) -> f64 {
    if n.is_finite() { format!("{n:.decimals$}").parse().unwrap_or(n) + 0.0 } else { n }
}

/// The decimal exponent: 2 for 235.0, and for zero that of the smallest number.
fn exponent(n: f64) -> i32 {
    if n == 0.0 {
        return f64::MIN_10_EXP;
    }
    format!("{n:e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default()
}

/// The f64 that prints as the f32 does: 23.1 and not 23.100000381469727, which is what the device meant.
pub(super) fn widened(n: f32) -> f64 {
    if !n.is_finite() {
        return f64::from(n);
    }
    n.to_string().parse().unwrap_or_else(|_| f64::from(n))
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "overflow is checked for")]
pub(super) fn narrowed(n: f64) -> Option<f32> {
    Some(n as f32).filter(|n| n.is_finite())
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a float property has float precision"
)]
pub(super) fn float(n: i128) -> f64 {
    n as f64
}

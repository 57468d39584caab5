//! Whether a unit shows the signs by which a product says that its devices are known. Pure.

use std::fmt;

use crate::drivers::Sample;
use crate::drivers::modbus::map::{Mark, Wanted};
use crate::model::value::Value;

impl Mark {
    /// Whether what was read at its place is what it must be.
    pub(super) fn fits(&self, sample: &Sample) -> bool {
        let (Self::Place { wanted, .. }, Sample::Value(found)) = (self, sample) else { return false };
        match wanted {
            Wanted::OneOf(values) => values.iter().any(|value| same(value, found)),
            Wanted::Range(low, high) => found.as_f64().is_some_and(|found| (*low..=*high).contains(&found)),
            Wanted::StartsWith(words) => {
                let Value::Text(found) = found else { return false };
                words.iter().any(|word| found.trim_start().starts_with(&**word))
            }
        }
    }

    /// Whether the device says the words; `None` for a sign that stands in registers.
    pub(super) fn is_said(&self, says: &[String]) -> Option<bool> {
        let Self::Says(words) = self else { return None };
        let words = words.to_lowercase();
        Some(says.iter().any(|said| said.to_lowercase().contains(&words)))
    }
}

/// Numbers are equal whatever they are written as.
fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Text(wanted), Value::Text(found)) => wanted.trim() == found.trim(),
        (Value::Text(_), _) | (_, Value::Text(_)) => false,
        _ => match (wanted.as_f64(), found.as_f64()) {
            (Some(wanted), Some(found)) => (wanted - found).abs() <= f64::EPSILON * wanted.abs(),
            _ => false,
        },
    }
}

impl fmt::Display for Mark {
    /// Where the sign is, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { point, .. } => match point.place() {
                Some(place) => write!(f, "{place}"),
                None => write!(f, "address {}", point.address),
            },
            Self::Says(words) => write!(f, "its own words {words:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::holding;
    use super::*;
    use crate::model::value::ValueType;

    fn place(wanted: Wanted) -> Mark {
        Mark::Place { point: holding(11), kind: ValueType::Float, wanted }
    }

    #[test]
    fn a_number_is_one_of_some_or_within_a_range() {
        let one_of = place(Wanted::OneOf(vec![Value::Int(70), Value::Float(71.0)]));
        let range = place(Wanted::Range(70.0, 73.0));
        for (found, is_one, within) in
            [(70.0, true, true), (71.0, true, true), (72.0, false, true), (74.0, false, false)]
        {
            let sample = Sample::Value(Value::Float(found));
            assert_eq!((one_of.fits(&sample), range.fits(&sample)), (is_one, within), "{found}");
        }
        assert!(!range.fits(&Sample::Unreadable("refused".into())));
        assert_eq!(range.to_string(), "holding register 11");
    }

    #[test]
    fn a_text_is_the_whole_text_and_words_are_said_in_any_letters() {
        let text = place(Wanted::OneOf(vec![Value::text("iEM3155")]));
        assert!(text.fits(&Sample::Value(Value::text("iEM3155 "))));
        assert!(!text.fits(&Sample::Value(Value::text("iEM31550"))));
        assert!(!text.fits(&Sample::Value(Value::Int(3155))));
        let begins = place(Wanted::StartsWith(vec!["SUN2000".into(), "SUN3000".into()]));
        assert!(begins.fits(&Sample::Value(Value::text("SUN2000-10KTL-M1"))));
        assert!(begins.fits(&Sample::Value(Value::text(" SUN3000"))));
        for other in
            [Value::text("sun2000-10KTL"), Value::text("MySUN2000"), Value::text(""), Value::Int(2000)]
        {
            assert!(!begins.fits(&Sample::Value(other)));
        }
        let says = Mark::Says("acme em-4".into());
        assert_eq!(says.is_said(&["ACME EM-4 v2".to_owned()]), Some(true));
        assert_eq!(says.is_said(&["ACME".to_owned()]), Some(false));
        assert_eq!(text.is_said(&["iEM3155".to_owned()]), None);
    }
}

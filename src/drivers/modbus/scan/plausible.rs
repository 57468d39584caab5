//! How well readings fit what a product says its properties are. Pure.

use std::sync::Arc;

use crate::drivers::Sample;
use crate::model::product::{Product, Property};
use crate::model::value::Value;

/// A product that a unit may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Id of the product.
    pub product: Arc<str>,
    /// From 0 to 2: the share of its values that make sense, weighted by how much they tell, and one more where the
    /// device names itself. 3 for a device that was recognised.
    pub score: f64,
    /// The signs that it was recognised by; `None` for a guess.
    pub by: Option<String>,
    /// Values that make sense.
    pub good: usize,
    /// Values that were read.
    pub of: usize,
    /// One telling value, for people.
    pub example: Option<String>,
}

impl Match {
    /// A product whose signs the unit shows.
    pub(super) fn known(product: &Product, by: String) -> Self {
        Self { product: Arc::clone(&product.id), score: 3.0, by: Some(by), good: 0, of: 0, example: None }
    }
}

/// Below this share a fit is chance.
const LEAST: f64 = 0.7;

/// What a reading tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sense {
    /// Hardly any other register would look so: a mains frequency, a mains voltage.
    Telling,
    /// It may be so.
    Possible,
    /// Not a reading of this property.
    None,
}

/// Judges readings of one unit; `None` when they do not fit. A product none of whose readings is telling only fits when
/// the device names itself, since small numbers fit everything.
pub fn judge(product: &Product, readings: &[(usize, Sample)], says: &[String]) -> Option<Match> {
    let named = is_named(product, says);
    let (mut good, mut weight, mut of) = (0, 0.0, 0.0);
    let (mut telling, mut example) = (false, None);
    for (position, sample) in readings {
        let Some(property) = product.properties.get(*position) else { continue };
        let sense = sense(property, sample);
        let worth = if sense == Sense::Telling { 3.0 } else { 1.0 };
        of += worth;
        if sense != Sense::None {
            good += 1;
            weight += worth;
        }
        if let (Sense::Telling, Sample::Value(value)) = (sense, sample) {
            telling = true;
            if example.is_none() {
                example = Some(shown(property, value));
            }
        }
    }
    let share = if of > 0.0 { weight / of } else { 0.0 };
    let fits = share >= LEAST && (telling || named);
    fits.then(|| Match {
        product: Arc::clone(&product.id),
        score: share + if named { 1.0 } else { 0.0 },
        by: None,
        good,
        of: readings.len(),
        example,
    })
}

/// Text out of bytes, if that is what they are.
pub fn words(bytes: &[u8]) -> Option<String> {
    let text: String =
        bytes.iter().map(|byte| char::from(*byte)).filter(|c| (' '..='~').contains(c)).collect();
    let text = text.trim().to_owned();
    (text.len() >= 2 && text.len() * 2 >= bytes.len()).then_some(text)
}

/// Whether the device names the product: a word of its name with a digit in it, such as a model number.
fn is_named(product: &Product, says: &[String]) -> bool {
    let said = says.join(" ").to_lowercase();
    let name = product.name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() >= 4 && word.chars().any(|c| c.is_ascii_digit()))
        .any(|word| said.contains(word))
}

fn sense(property: &Property, sample: &Sample) -> Sense {
    let Sample::Value(value) = sample else { return Sense::None };
    let number = match value {
        Value::Text(text) => {
            let printable = text.chars().filter(|c| !c.is_control()).count() >= 4;
            return if printable { Sense::Telling } else { Sense::Possible };
        }
        Value::Bool(_) => return Sense::Possible,
        Value::Null | Value::Int(_) | Value::Float(_) | Value::List(_) | Value::Object(_) => value.as_f64(),
    };
    let Some(number) = number.filter(|number| number.is_finite()) else { return Sense::None };
    if let Some((low, high)) = property.range {
        if !(low..=high).contains(&number) {
            return Sense::None;
        }
    }
    if !property.labels.is_empty() {
        let known = |(label, _): &(i64, Arc<str>)| Value::Int(*label).as_f64() == Some(number);
        return if property.labels.iter().any(known) { Sense::Possible } else { Sense::None };
    }
    let within =
        |low: f64, high: f64| if (low..=high).contains(&number) { Sense::Possible } else { Sense::None };
    match property.unit.as_deref().unwrap_or_default() {
        // Nothing but a mains frequency is so exact.
        "Hz" if (49.0..=51.0).contains(&number) || (59.0..=61.0).contains(&number) => Sense::Telling,
        "Hz" => within(0.0, 1000.0),
        "V" if (85.0..=265.0).contains(&number) || (380.0..=440.0).contains(&number) => Sense::Telling,
        "V" => within(0.0, 2000.0),
        "A" => within(-10_000.0, 10_000.0),
        "%" | "%RH" => within(-1.0, 110.0),
        "\u{b0}C" if (-40.0..=120.0).contains(&number) && number.fract() != 0.0 => Sense::Telling,
        "\u{b0}C" => within(-60.0, 400.0),
        _ if number != 0.0 && number.abs() < 1e-6 => Sense::None,
        _ => within(-1e9, 1e9),
    }
}

fn shown(property: &Property, value: &Value) -> String {
    let number = value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:.2}"));
    format!("{} {number} {}", property.id, property.unit.as_deref().unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{device, holding};
    use super::*;

    fn product() -> Product {
        let thing = device(1, 1, vec![holding(0), holding(1), holding(2)], vec![]);
        let mut product = (*thing.device.product).clone();
        product.name = "Acme EM-X24".into();
        for (property, (id, unit)) in
            product.properties.iter_mut().zip([("voltage", "V"), ("frequency", "Hz"), ("power", "W")])
        {
            property.id = id.into();
            property.unit = Some(unit.into());
        }
        product
    }

    fn readings(values: [f64; 3]) -> Vec<(usize, Sample)> {
        values.into_iter().map(|value| Sample::Value(Value::Float(value))).enumerate().collect()
    }

    #[test]
    fn a_meter_is_known_by_its_mains() {
        let found = judge(&product(), &readings([230.1, 49.98, 512.0]), &[]).unwrap();
        assert_eq!((found.good, found.of, found.example.as_deref()), (3, 3, Some("voltage 230.10 V")));
        let named = judge(&product(), &readings([230.1, 49.98, 512.0]), &["ACME x24 v2".to_owned()]);
        assert!(named.is_none_or(|named| named.score >= found.score));
    }

    #[test]
    fn what_would_fit_anything_does_not_fit() {
        for values in [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [230.0, 1e30, 1e30], [1e-30, 1e-30, 5e20]] {
            assert_eq!(judge(&product(), &readings(values), &[]), None, "{values:?}");
        }
        assert_eq!(judge(&product(), &[], &[]), None);
        let says = ["Acme Ltd".to_owned(), "EM-X24A".to_owned()];
        assert_eq!(
            judge(&product(), &readings([0.0, 0.0, 0.0]), &says),
            None,
            "the words are too short to tell"
        );
    }

    #[test]
    fn only_text_is_taken_for_text() {
        assert_eq!(words(b"  SDM120 \0"), Some("SDM120".to_owned()));
        assert_eq!(words(&[1, 2, 3, 4, b'a', b'b']), None);
        assert_eq!(words(b""), None);
    }
}

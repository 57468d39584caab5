//! What a run of registers may mean: every type, order and scale that makes sense of it, the most likely first. Pure.
//!
//! With an expected value the nearest readings win, and among those the plainest; without one, readings of the size that
//! measurements have. Guesses, not knowledge: the answer is for people who look at the device's display meanwhile.

use std::fmt;

/// How far a reading may be from what is expected: what is read is not read at the moment when somebody looked.
const TOLERANCE: f64 = 0.02;

/// Guesses that are given at most.
const MOST: usize = 12;

/// One way to read registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Meaning {
    /// Registers from the start of the run.
    pub offset: u16,
    /// As the configuration names it.
    pub kind: &'static str,
    /// Order of the bytes; `None` where there is nothing to order.
    pub order: Option<&'static str>,
    /// Factor.
    pub scale: f64,
    /// What it makes of the registers.
    pub value: f64,
    /// Smaller is likelier.
    pub doubt: f64,
}

impl fmt::Display for Meaning {
    /// The keys of a property's place, without table and address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type = \"{}\"", self.kind)?;
        if let Some(order) = self.order.filter(|order| *order != "ABCD") {
            write!(f, ", order = \"{order}\"")?;
        }
        if (self.scale - 1.0).abs() > f64::EPSILON {
            write!(f, ", scale = {}", self.scale)?;
        }
        Ok(())
    }
}

/// Every order of a number's bytes: its letters, and how to come from the wire to big-endian.
type Order = (&'static str, fn(&[u16]) -> Vec<u8>);

const ORDERS: [Order; 4] = [
    ("ABCD", |words| words.iter().flat_map(|word| word.to_be_bytes()).collect()),
    ("CDAB", |words| words.iter().rev().flat_map(|word| word.to_be_bytes()).collect()),
    ("BADC", |words| words.iter().flat_map(|word| word.to_le_bytes()).collect()),
    ("DCBA", |words| words.iter().rev().flat_map(|word| word.to_le_bytes()).collect()),
];

/// A type: its name, its registers, its number out of big-endian bytes, and how readily it is believed.
struct Kind {
    name: &'static str,
    registers: usize,
    number: fn(&[u8]) -> Option<f64>,
    float: bool,
    doubt: f64,
}

const KINDS: [Kind; 8] = [
    Kind {
        name: "u16",
        registers: 1,
        number: |b| Some(f64::from(u16::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.0,
    },
    Kind {
        name: "i16",
        registers: 1,
        number: |b| Some(f64::from(i16::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.1,
    },
    Kind {
        name: "f32",
        registers: 2,
        number: |b| Some(f64::from(f32::from_be_bytes(b.try_into().ok()?))),
        float: true,
        doubt: 0.0,
    },
    Kind {
        name: "u32",
        registers: 2,
        number: |b| Some(f64::from(u32::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.2,
    },
    Kind {
        name: "i32",
        registers: 2,
        number: |b| Some(f64::from(i32::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.3,
    },
    Kind {
        name: "f64",
        registers: 4,
        number: |b| Some(f64::from_be_bytes(b.try_into().ok()?)),
        float: true,
        doubt: 0.3,
    },
    Kind {
        name: "u64",
        registers: 4,
        number: |b| Some(whole(u64::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.6,
    },
    Kind {
        name: "i64",
        registers: 4,
        number: |b| Some(signed(i64::from_be_bytes(b.try_into().ok()?))),
        float: false,
        doubt: 0.7,
    },
];

const SCALES: [(f64, f64); 5] = [(1.0, 0.0), (0.1, 0.2), (0.01, 0.3), (0.001, 0.4), (10.0, 0.5)];

/// The likeliest meanings, best first.
pub fn meanings(words: &[u16], expected: Option<f64>) -> Vec<Meaning> {
    let mut found = Vec::new();
    for (offset, kind) in (0..words.len()).flat_map(|at| KINDS.iter().map(move |kind| (at, kind))) {
        let Some(place) = words.get(offset..offset + kind.registers) else { continue };
        for (at, (letters, order)) in (0_u8..).zip(&ORDERS) {
            let bytes = order(place);
            // A register alone knows two orders only, and few devices swap its bytes.
            if kind.registers == 1 && !matches!(*letters, "ABCD" | "BADC") {
                continue;
            }
            let Some(number) = (kind.number)(&bytes).filter(|number| number.is_finite()) else { continue };
            for (scale, scaling) in
                SCALES.iter().filter(|(scale, _)| !kind.float || (*scale - 1.0).abs() < f64::EPSILON)
            {
                let value = number * scale;
                let ordering = f64::from(at) * 0.25 + if kind.registers == 1 { f64::from(at) } else { 0.0 };
                let plain = kind.doubt + ordering + scaling;
                let doubt = match expected {
                    Some(expected) => distance(value, expected).map(|away| plain + away * 50.0),
                    None => unlikely(value, kind.float, number).map(|odd| plain + odd),
                };
                if let (Some(doubt), Ok(offset)) = (doubt, u16::try_from(offset)) {
                    let order = (*letters != "ABCD" || kind.registers > 1).then_some(*letters);
                    found.push(Meaning { offset, kind: kind.name, order, scale: *scale, value, doubt });
                }
            }
        }
    }
    found.sort_by(|one, other| one.doubt.total_cmp(&other.doubt).then(one.offset.cmp(&other.offset)));
    found.truncate(MOST);
    found
}

/// How far off, as a share; `None` when too far.
fn distance(value: f64, expected: f64) -> Option<f64> {
    let away = (value - expected).abs() / expected.abs().max(1e-3);
    (away <= TOLERANCE).then_some(away)
}

/// How little a number looks like a measurement; `None` when not at all.
fn unlikely(value: f64, float: bool, number: f64) -> Option<f64> {
    let size = value.abs();
    if number == 0.0 {
        // Nothing can be read from a zero, and a scaled one is no better.
        return None;
    }
    let range = if float { 1e-3..1e7 } else { 1e-1..1e7 };
    // A mains voltage or frequency with digits behind the point is what people look for first.
    let mains = (200.0..250.0).contains(&value) || (49.0..51.0).contains(&value);
    let large = (size.log10() - 3.0).max(0.0) * 0.3;
    let odd = if float { 0.0 } else { 0.5 };
    range.contains(&size).then_some(large + odd - if mains { 0.4 } else { 0.0 })
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a guess needs no last digit")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a guess needs no last digit")]
fn signed(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn best(words: &[u16], expected: Option<f64>) -> (u16, &'static str, Option<&'static str>, String) {
        let found = meanings(words, expected);
        let first = found.first().unwrap_or_else(|| panic!("no meaning of {words:?}"));
        (first.offset, first.kind, first.order, format!("{}", first.scale))
    }

    #[test]
    fn the_expected_value_tells_type_order_and_scale() {
        // 230.1 as a float is 0x4366199A.
        assert_eq!(best(&[0x4366, 0x199A], Some(230.1)), (0, "f32", Some("ABCD"), "1".into()));
        assert_eq!(best(&[0x199A, 0x4366], Some(230.1)), (0, "f32", Some("CDAB"), "1".into()));
        assert_eq!(best(&[0x6643, 0x9A19], Some(230.1)), (0, "f32", Some("BADC"), "1".into()));
        assert_eq!(best(&[0x9A19, 0x6643], Some(230.1)), (0, "f32", Some("DCBA"), "1".into()));
        assert_eq!(best(&[7, 2301], Some(230.1)), (1, "u16", None, "0.1".into()));
        assert_eq!(best(&[0xFFEC], Some(-2.0)), (0, "i16", None, "0.1".into()));
        assert_eq!(best(&[0x0001, 0xE240], Some(1234.56)), (0, "u32", Some("ABCD"), "0.01".into()));
        assert_eq!(best(&[0, 0, 0x3039, 0x0001], Some(77_749.0)).1, "u32");
    }

    #[test]
    fn without_one_measurements_come_first() {
        assert_eq!(best(&[0x4366, 0x199A], None).1, "f32");
        assert_eq!(best(&[0x199A, 0x4366], None), (0, "f32", Some("CDAB"), "1".into()));
        assert_eq!(meanings(&[0, 0, 0, 0], None), []);
    }

    #[test]
    fn a_guess_is_written_as_the_configuration_wants_it() {
        let found = meanings(&[0x199A, 0x4366], Some(230.1));
        assert_eq!(found[0].to_string(), r#"type = "f32", order = "CDAB""#);
        assert_eq!(meanings(&[2301], Some(230.1))[0].to_string(), r#"type = "u16", scale = 0.1"#);
    }

    proptest! {
        #[test]
        fn any_float_is_found_under_its_own_value(value in 0.01_f32..1e6, before: u16) {
            let bits = value.to_bits();
            let words = [before, u16::try_from(bits >> 16).unwrap(), u16::try_from(bits & 0xFFFF).unwrap()];
            let found = meanings(&words, Some(f64::from(value)));
            prop_assert!(found.iter().any(|m| m.offset == 1 && m.kind == "f32" && m.order == Some("ABCD")), "{found:?}");
        }

        #[test]
        fn no_registers_make_it_panic(words in prop::collection::vec(any::<u16>(), 0..20), expected: Option<f64>) {
            prop_assert!(meanings(&words, expected).len() <= MOST);
        }
    }
}

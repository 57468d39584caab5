//! How registers become values and values become registers.
//!
//! One codec for both directions: what is read with an order and a scale is written with the same. Numbers come out
//! with the digits that people expect, whole 64-bit numbers stay exact, and what is no number is unreadable rather
//! than a number. Pure: no port, no clock.

use std::sync::Arc;

use super::map::{Data, Order, Point, Table, WritePolicy};
use crate::drivers::Sample;
use crate::model::value::{Value, ValueType};
use crate::proto::modbus::Span;
use crate::proto::modbus::frame::{Answer, Request};

impl Point {
    /// The places that it takes; `None` when they reach beyond address 65535.
    pub fn span(&self) -> Option<Span> {
        let count = if self.table.is_bits() { 1 } else { self.data.count() };
        Span::new(self.table, self.address, count)
    }

    /// Takes the point's own content out of the answer to a read of `span`.
    pub fn extract(&self, span: Span, answer: &Answer) -> Option<Content> {
        let own = self.span()?;
        let offset = span.offset_of(own)?;
        match answer {
            Answer::Bits(bits) => bits.get(offset).copied().map(Content::Bit),
            Answer::Registers(words) => {
                let words = words.get(offset..)?.get(..usize::from(own.count()))?;
                Some(Content::Registers(words.to_vec()))
            }
            Answer::Written | Answer::Exception(_) => None,
        }
    }

    /// What the content means for a property of this type.
    pub fn decode(&self, kind: ValueType, content: &Content) -> Sample {
        let number = match content {
            Content::Bit(on) => Number::Whole(i128::from(*on)),
            Content::Registers(words) => self.number(words),
        };
        self.scaled(number)
            .and_then(|number| number.typed(kind))
            .map_or_else(Sample::Unreadable, Sample::Value)
    }

    /// The content that stands for a value, rounded to the nearest that the registers can hold.
    pub fn encode(&self, value: &Value) -> Result<Content, EncodeError> {
        let raw = match value {
            Value::Bool(on) if self.is_plain() => Number::Whole(i128::from(*on)),
            Value::Int(n) if self.is_plain() => Number::Whole(i128::from(*n)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let number = value.as_f64().unwrap_or_default();
                Number::Real(if self.is_plain() { number } else { (number - self.offset) / self.scale })
            }
            Value::Null | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                return Err(EncodeError::NotANumber { found: value.type_name() });
            }
        };
        let bits = self.raw_bits(raw).ok_or_else(|| self.out_of_range())?;
        if self.table.is_bits() {
            return Ok(Content::Bit(bits != 0));
        }
        Ok(Content::Registers(arranged(&words_of(bits, self.data.count()), self.order)))
    }

    /// The requests that write a content, in order.
    pub fn write_requests(&self, content: &Content) -> Result<Vec<Request>, EncodeError> {
        let address = self.address;
        if self.span().is_none() {
            return Err(EncodeError::BeyondEnd);
        }
        match (self.table, content) {
            (Table::Coil, Content::Bit(on)) => Ok(vec![match self.write {
                WritePolicy::Auto | WritePolicy::Single => Request::WriteCoil { address, on: *on },
                WritePolicy::Multiple => Request::WriteCoils { address, values: vec![*on] },
            }]),
            (Table::Holding, Content::Registers(words)) => Ok(match (self.write, words.as_slice()) {
                (WritePolicy::Auto, [value]) => vec![Request::WriteRegister { address, value: *value }],
                (WritePolicy::Auto | WritePolicy::Multiple, _) => {
                    vec![Request::WriteRegisters { address, values: words.clone() }]
                }
                (WritePolicy::Single, _) => {
                    let single =
                        |(address, value): (u16, &u16)| Request::WriteRegister { address, value: *value };
                    (address..=u16::MAX).zip(words).map(single).collect()
                }
            }),
            (table, _) => Err(EncodeError::ReadOnly { table }),
        }
    }

    /// Whether a content read back is the one that was written.
    pub fn same(&self, written: &Content, found: &Content) -> bool {
        match (written, found) {
            // A device may keep any non-zero number for "on".
            (Content::Registers(written), Content::Registers(found)) if self.data == Data::Bool => {
                written.iter().any(|word| *word != 0) == found.iter().any(|word| *word != 0)
            }
            _ => written == found,
        }
    }

    /// Whether the raw number is the value.
    #[expect(clippy::float_cmp, reason = "exactly one and zero are what a configuration leaves out")]
    fn is_plain(&self) -> bool {
        self.scale == 1.0 && self.offset == 0.0
    }

    fn number(&self, words: &[u16]) -> Number {
        let bits = arranged(words, self.order).iter().fold(0_u64, |bits, word| bits << 16 | u64::from(*word));
        match self.data {
            Data::Bool => Number::Whole(i128::from(bits != 0)),
            Data::U16 | Data::U32 | Data::U64 => Number::Whole(i128::from(bits)),
            Data::I16 | Data::I32 | Data::I64 => {
                let (modulus, bits) = (1_i128 << self.data.bits(), i128::from(bits));
                Number::Whole(if bits >= modulus / 2 { bits - modulus } else { bits })
            }
            Data::F32 => Number::Real(widened(f32::from_bits(u32::try_from(bits).unwrap_or_default()))),
            Data::F64 => Number::Real(f64::from_bits(bits)),
        }
    }

    fn scaled(&self, number: Number) -> Result<Number, Arc<str>> {
        let real = match number {
            Number::Whole(_) if self.is_plain() => return Ok(number),
            Number::Whole(n) => self.scaled_up(float(n)),
            Number::Real(n) if self.is_plain() => n,
            Number::Real(n) => self.scaled_up(n),
        };
        if real.is_nan() {
            return Err("the registers hold no number (NaN)".into());
        }
        if real.is_infinite() {
            return Err("the registers hold an infinite number".into());
        }
        // A negative zero would be printed as one.
        Ok(Number::Real(if real == 0.0 { 0.0 } else { real }))
    }

    /// raw * scale + offset, without the digits that binary fractions add: 235 * 0.1 is 23.5 and not
    /// 23.500000000000004.
    fn scaled_up(&self, raw: f64) -> f64 {
        let product = raw * self.scale;
        let sum = product + self.offset;
        let largest = exponent(product).max(exponent(self.offset));
        match usize::try_from(EXACT_DIGITS - largest) {
            // What the larger one is not exact in, the sum is not exact in either: 40.3 - 40 is 0.3.
            Ok(decimals) if sum.is_finite() => format!("{sum:.decimals$}").parse().unwrap_or(sum),
            _ => sum,
        }
    }

    /// The bits, lowest last, that hold a raw number; `None` when they cannot.
    fn raw_bits(&self, raw: Number) -> Option<u64> {
        match self.data {
            Data::F32 => Some(u64::from(narrowed(raw.real())?.to_bits())),
            Data::F64 => Some(raw.real()).filter(|n| n.is_finite()).map(f64::to_bits),
            Data::Bool | Data::U16 | Data::I16 | Data::U32 | Data::I32 | Data::U64 | Data::I64 => {
                let n = raw.whole()?;
                let (low, high) = self.data.limits();
                let modulus = 1_i128 << self.data.bits();
                let held = (low..=high).contains(&n);
                held.then(|| u64::try_from(if n < 0 { n + modulus } else { n }).ok()).flatten()
            }
        }
    }

    fn out_of_range(&self) -> EncodeError {
        let (low, high) = match self.data {
            Data::F32 => (-f64::from(f32::MAX), f64::from(f32::MAX)),
            Data::F64 => (f64::MIN, f64::MAX),
            Data::Bool | Data::U16 | Data::I16 | Data::U32 | Data::I32 | Data::U64 | Data::I64 => {
                let (low, high) = self.data.limits();
                (float(low), float(high))
            }
        };
        let ends = [low, high].map(|raw| self.scaled_up(raw));
        let [a, b] = ends;
        EncodeError::OutOfRange { low: a.min(b), high: a.max(b) }
    }
}

/// What a point's places hold on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of a coil or discrete input.
    Bit(bool),
    /// As they travel, lowest address first.
    Registers(Vec<u16>),
}

/// A value that cannot be written. `Display` says what is allowed, to stand behind "takes".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// Only bools and numbers become registers.
    #[error("a number or bool, not a {found}")]
    NotANumber {
        /// The value's type.
        found: &'static str,
    },
    /// The registers cannot hold it.
    #[error("{low} to {high}, which is what its registers hold")]
    OutOfRange {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// The point reaches beyond the last address.
    #[error("no value: its registers reach beyond address 65535")]
    BeyondEnd,
    /// Discrete inputs and input registers cannot be written.
    #[error("no value: a {table} cannot be written", table = .table.name())]
    ReadOnly {
        /// Which table.
        table: Table,
    },
}

/// A number before it gets a property's type. Whole numbers of 64 bits stay exact.
#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn typed(self, kind: ValueType) -> Result<Value, Arc<str>> {
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

    fn real(self) -> f64 {
        match self {
            Self::Whole(n) => float(n),
            Self::Real(n) => n,
        }
    }

    /// Rounded to the nearest, if it is in the range of 64 bits, signed or not.
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the range is checked")]
    fn whole(self) -> Option<i128> {
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

/// The decimal exponent: 2 for 235.0, and for zero that of the smallest number.
fn exponent(n: f64) -> i32 {
    if n == 0.0 {
        return f64::MIN_10_EXP;
    }
    format!("{n:e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default()
}

/// The f64 that prints as the f32 does: 23.1 and not 23.100000381469727, which is what the device meant.
fn widened(n: f32) -> f64 {
    if !n.is_finite() {
        return f64::from(n);
    }
    n.to_string().parse().unwrap_or_else(|_| f64::from(n))
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "overflow is checked for")]
fn narrowed(n: f64) -> Option<f32> {
    Some(n as f32).filter(|n| n.is_finite())
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a float property has float precision"
)]
fn float(n: i128) -> f64 {
    n as f64
}

/// Words most significant first, from words as they travel or the other way round: each order is its own inverse.
fn arranged(words: &[u16], order: Order) -> Vec<u16> {
    match order {
        Order::Abcd => words.to_vec(),
        Order::Cdab => words.iter().rev().copied().collect(),
        Order::Badc => words.iter().map(|word| word.swap_bytes()).collect(),
        Order::Dcba => words.iter().rev().map(|word| word.swap_bytes()).collect(),
    }
}

/// The lowest `count` words, most significant first.
fn words_of(bits: u64, count: u16) -> Vec<u16> {
    let word = |shift: u32| u16::try_from(bits >> shift & 0xFFFF).unwrap_or_default();
    [48, 32, 16, 0].map(word).into_iter().skip(4_usize.saturating_sub(usize::from(count))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const ORDERS: [Order; 4] = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba];

    fn point(data: Data, order: Order) -> Point {
        Point {
            table: Table::Holding,
            address: 100,
            data,
            order,
            scale: 1.0,
            offset: 0.0,
            every: Duration::from_secs(1),
            write: WritePolicy::Auto,
            verify: true,
        }
    }

    fn scaled(data: Data, scale: f64, offset: f64) -> Point {
        Point { scale, offset, ..point(data, Order::Abcd) }
    }

    fn read(point: &Point, kind: ValueType, words: &[u16]) -> Sample {
        point.decode(kind, &Content::Registers(words.to_vec()))
    }

    #[test]
    fn orders_are_named_by_letters() {
        // A=0x12 B=0x34 C=0x56 D=0x78.
        let wire = [[0x1234, 0x5678], [0x5678, 0x1234], [0x3412, 0x7856], [0x7856, 0x3412]];
        for (order, words) in ORDERS.into_iter().zip(wire) {
            let value = Value::Int(0x1234_5678);
            assert_eq!(read(&point(Data::U32, order), ValueType::Int, &words), Sample::Value(value.clone()));
            assert_eq!(point(Data::U32, order).encode(&value), Ok(Content::Registers(words.to_vec())));
        }
        let swapped = point(Data::U64, Order::Cdab).encode(&Value::Int(0x0001_0002_0003_0004));
        assert_eq!(swapped, Ok(Content::Registers(vec![4, 3, 2, 1])));
        let single = point(Data::U16, Order::Badc).encode(&Value::Int(0x1234));
        assert_eq!(single, Ok(Content::Registers(vec![0x3412])));
    }

    #[test]
    fn readings_get_the_type_of_the_property() {
        let cases = [
            (point(Data::I16, Order::Abcd), ValueType::Int, vec![0xFFFF], Value::Int(-1)),
            (point(Data::U16, Order::Abcd), ValueType::Float, vec![7], Value::Float(7.0)),
            (point(Data::U16, Order::Abcd), ValueType::Bool, vec![7], Value::Bool(true)),
            (point(Data::Bool, Order::Abcd), ValueType::Int, vec![7], Value::Int(1)),
            (point(Data::U16, Order::Abcd), ValueType::Enum, vec![3], Value::Int(3)),
            (scaled(Data::I16, 0.1, 0.0), ValueType::Float, vec![235], Value::Float(23.5)),
            (scaled(Data::I16, 0.1, 0.0), ValueType::Int, vec![238], Value::Int(24)),
            (scaled(Data::U16, 0.1, -40.0), ValueType::Float, vec![403], Value::Float(0.3)),
            (scaled(Data::U16, 1e-12, 0.0), ValueType::Float, vec![1234], Value::Float(1.234e-9)),
            (scaled(Data::I16, -0.1, 0.0), ValueType::Float, vec![0], Value::Float(0.0)),
            (point(Data::F32, Order::Abcd), ValueType::Float, vec![0x41B8, 0xCCCD], Value::Float(23.1)),
            (point(Data::I64, Order::Abcd), ValueType::Int, vec![0x8000, 0, 0, 0], Value::Int(i64::MIN)),
        ];
        for (point, kind, words, value) in cases {
            assert_eq!(read(&point, kind, &words), Sample::Value(value), "{words:?}");
        }
        let zero = read(&scaled(Data::I16, -0.1, 0.0), ValueType::Float, &[0]);
        assert!(matches!(zero, Sample::Value(Value::Float(n)) if n.is_sign_positive()));
    }

    #[test]
    fn what_is_no_number_is_unreadable() {
        let cases = [
            (point(Data::F32, Order::Abcd), ValueType::Float, vec![0x7FC0, 0]),
            (point(Data::F32, Order::Abcd), ValueType::Float, vec![0x7F80, 0]),
            (point(Data::F64, Order::Abcd), ValueType::Float, vec![0xFFF0, 0, 0, 0]),
            (scaled(Data::F64, 1e300, 0.0), ValueType::Float, vec![0x7F00, 0, 0, 0]),
            (point(Data::U64, Order::Abcd), ValueType::Int, vec![0xFFFF; 4]),
            (point(Data::U16, Order::Abcd), ValueType::Text, vec![1]),
        ];
        for (point, kind, words) in cases {
            assert!(matches!(read(&point, kind, &words), Sample::Unreadable(_)), "{words:?}");
        }
    }

    #[test]
    fn values_that_registers_cannot_hold_are_refused_with_what_they_can() {
        let refused = |point: &Point, value| point.encode(&value).unwrap_err().to_string();
        assert_eq!(
            refused(&scaled(Data::I16, 0.1, 0.0), Value::Float(4000.0)),
            "-3276.8 to 3276.7, which is what its registers hold"
        );
        for value in [Value::Int(-1), Value::Int(65536), Value::Float(f64::NAN), Value::Float(f64::INFINITY)]
        {
            assert!(point(Data::U16, Order::Abcd).encode(&value).is_err(), "{value}");
        }
        assert!(point(Data::F32, Order::Abcd).encode(&Value::Float(1e39)).is_err());
        assert!(point(Data::F64, Order::Abcd).encode(&Value::Float(f64::NAN)).is_err());
        assert!(scaled(Data::U16, 0.0, 0.0).encode(&Value::Int(1)).is_err());
        assert!(refused(&point(Data::U16, Order::Abcd), Value::text("x")).contains("string"));
    }

    #[test]
    fn the_write_policy_chooses_the_function() {
        let functions = |table, data, write| {
            let point = Point { table, write, ..point(data, Order::Abcd) };
            let requests = point.write_requests(&point.encode(&Value::Int(1)).unwrap()).unwrap();
            requests.iter().map(Request::function).collect::<Vec<_>>()
        };
        assert_eq!(functions(Table::Coil, Data::Bool, WritePolicy::Auto), [5]);
        assert_eq!(functions(Table::Coil, Data::Bool, WritePolicy::Multiple), [15]);
        assert_eq!(functions(Table::Holding, Data::U16, WritePolicy::Auto), [6]);
        assert_eq!(functions(Table::Holding, Data::U16, WritePolicy::Multiple), [16]);
        assert_eq!(functions(Table::Holding, Data::F32, WritePolicy::Auto), [16]);
        assert_eq!(functions(Table::Holding, Data::F32, WritePolicy::Single), [6, 6]);
        let input = Point { table: Table::Input, ..point(Data::U16, Order::Abcd) };
        assert!(input.write_requests(&Content::Registers(vec![1])).is_err());
    }

    #[test]
    fn a_point_finds_itself_in_a_grouped_answer() {
        let point = point(Data::U32, Order::Abcd);
        let span = Span::new(Table::Holding, 98, 5).unwrap();
        let answer = Answer::Registers(vec![1, 2, 3, 4, 5]);
        assert_eq!(point.extract(span, &answer), Some(Content::Registers(vec![3, 4])));
        let elsewhere = Span::new(Table::Holding, 101, 5).unwrap();
        assert_eq!(point.extract(elsewhere, &answer), None);
    }

    prop_compose! {
        fn any_data()(at in 0..8_usize, order in 0..4_usize) -> Point {
            let data = [
                Data::U16, Data::I16, Data::U32, Data::I32, Data::F32, Data::U64, Data::I64, Data::F64,
            ];
            point(data[at], ORDERS[order])
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_back_as_it_was(point in any_data(), words: [u16; 4]) {
            let words = &words[..usize::from(point.data.count())];
            let kind = match point.data {
                Data::F32 | Data::F64 => ValueType::Float,
                Data::Bool | Data::U16 | Data::I16 | Data::U32 | Data::I32 | Data::U64 | Data::I64 => ValueType::Int,
            };
            match read(&point, kind, words) {
                // Of the two zeros only one is written.
                Sample::Value(Value::Float(0.0)) | Sample::Unreadable(_) => {}
                Sample::Value(value) => {
                    prop_assert_eq!(point.encode(&value), Ok(Content::Registers(words.to_vec())));
                }
            }
        }

        #[test]
        fn decimal_fractions_survive(raw: i16, places in 0..4_i32) {
            let scale = 10_f64.powi(-places);
            let point = scaled(Data::I16, scale, 0.0);
            let Ok(Content::Registers(words)) = point.encode(&Value::Float(f64::from(raw) * scale)) else {
                return Err(TestCaseError::fail("not encoded"));
            };
            let Sample::Value(value) = read(&point, ValueType::Float, &words) else {
                return Err(TestCaseError::fail("not decoded"));
            };
            prop_assert!(value.to_string().len() <= 8, "{} has too many digits", value);
            prop_assert_eq!(point.encode(&value), Ok(Content::Registers(words)));
        }

        #[test]
        fn no_value_does_harm(
            point in any_data(), scale: f64, offset: f64, number: f64, words: [u16; 4],
        ) {
            let point = Point { scale, offset, ..point };
            drop(point.encode(&Value::Float(number)));
            let words = &words[..usize::from(point.data.count())];
            if let Sample::Value(Value::Float(n)) = read(&point, ValueType::Float, words) {
                prop_assert!(n.is_finite());
            }
        }
    }
}

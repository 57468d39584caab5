//! How registers become values and values become registers.
//!
//! One codec for both directions: what is read with an order and a scale is written with the same. Numbers come out
//! with the digits that people expect, whole 64-bit numbers stay exact, and what is no number is unreadable rather
//! than a number. Pure: no port, no clock.

use std::sync::Arc;

use number::{Number, float, narrowed, rounded, scaled_up, widened};

use super::map::{Data, Point, Table, WritePolicy};
use crate::drivers::Sample;
use crate::model::value::{Value, ValueType};
use crate::proto::modbus::Span;
use crate::proto::modbus::frame::{Answer, Request};

mod number;
mod raw;
mod text;

/// What a register with a factor holds when there is none (SunSpec's "not implemented").
const NO_FACTOR: u16 = 0x8000;

/// Largest power of ten that a factor may be. SunSpec allows ten.
const LARGEST_FACTOR: i32 = 20;

impl Point {
    /// Its own places, in the table that it is read from; `None` when they reach beyond address 65535.
    pub fn place(&self) -> Option<Span> {
        let count = if self.table.is_bits() { 1 } else { self.data.count() };
        Span::new(self.read, self.address, count)
    }

    /// What is read for it: its own places and the register with its factor, and whatever is in between, in one read,
    /// so that they belong together. `None` when one read cannot reach over both.
    pub fn span(&self) -> Option<Span> {
        let own = self.place()?;
        let Some(factor) = self.factor else { return Some(own) };
        let first = own.address().min(factor);
        let end = own.end().max(u32::from(factor) + 1);
        Span::new(self.read, first, u16::try_from(end - u32::from(first)).ok()?)
    }

    /// Takes the point's own content out of the answer to a read of `span`.
    pub fn extract(&self, span: Span, answer: &Answer) -> Option<Found> {
        let own = self.place()?;
        let offset = span.offset_of(own)?;
        match answer {
            Answer::Bits(bits) => bits.get(offset).copied().map(|bit| Content::Bit(bit).into()),
            Answer::Registers(words) => {
                let factor = match self.factor {
                    Some(address) => {
                        let at = span.offset_of(Span::new(self.read, address, 1)?)?;
                        Some(words.get(at).copied()?)
                    }
                    None => None,
                };
                let own = words.get(offset..)?.get(..usize::from(own.count()))?;
                Some(Found { content: Content::Registers(own.to_vec()), factor })
            }
            Answer::Written | Answer::Exception(_) | Answer::Data(_) | Answer::Names(_) => None,
        }
    }

    /// What the content means for a property of this type.
    pub fn decode(&self, kind: ValueType, found: &Found) -> Sample {
        self.value(kind, found).map_or_else(Sample::Unreadable, Sample::Value)
    }

    fn value(&self, kind: ValueType, found: &Found) -> Result<Value, Arc<str>> {
        let words = match &found.content {
            Content::Bit(on) => return Number::Whole(i128::from(*on)).typed(kind),
            Content::Registers(words) => words,
        };
        if let Data::Text { chars, .. } = self.data {
            let text = text::decode(words, self.order, chars)?;
            return if kind == ValueType::Text {
                Ok(Value::text(text))
            } else {
                Err("the registers hold text".into())
            };
        }
        let number = self.number(words)?;
        let number = self.scaled(number, self.scale_with(found.factor)?)?;
        let number = match (self.decimals, number) {
            (Some(decimals), Number::Real(n)) => Number::Real(rounded(n, decimals.into())),
            (_, number) => number,
        };
        number.typed(kind)
    }

    /// What must be read before a value can be written: the register whose other bits stay, or the factor. What
    /// comes of it is given to `encode`.
    pub fn needs(&self) -> Option<Span> {
        let keeps = self.bits.is_some() && self.write != WritePolicy::Mask;
        if keeps || self.factor.is_some() { self.span() } else { None }
    }

    /// The content that stands for a value, rounded to the nearest that the registers can hold. `before` is what
    /// stands there now, for a point that needs it.
    pub fn encode(&self, value: &Value, before: Option<&Found>) -> Result<Content, EncodeError> {
        if let Data::Text { registers, chars } = self.data {
            let Value::Text(text) = value else {
                return Err(EncodeError::NotText { found: value.type_name() });
            };
            let plain = !text.chars().any(char::is_control);
            let words = plain.then(|| text::encode(text, registers, self.order, chars)).flatten();
            let bytes = text::capacity(registers, chars);
            return words.map(Content::Registers).ok_or(EncodeError::TooLong { bytes });
        }
        let scale = self.scale_with(before.and_then(|found| found.factor));
        let scale = scale.map_err(|reason| EncodeError::Unknown { reason })?;
        let plain = self.is_plain(scale);
        let raw = match value {
            Value::Bool(on) if plain => Number::Whole(i128::from(*on)),
            Value::Int(n) if plain => Number::Whole(i128::from(*n)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let number = value.as_f64().unwrap_or_default();
                Number::Real(if plain { number } else { (number - self.offset) / scale })
            }
            Value::Null | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                return Err(EncodeError::NotANumber { found: value.type_name() });
            }
        };
        let bits = self.raw_bits(raw).ok_or_else(|| self.out_of_range(scale))?;
        if self.table.is_bits() {
            return Ok(Content::Bit(bits != 0));
        }
        let bits = match self.bits {
            None => bits,
            Some(part) => {
                let around = match before.map(|found| &found.content) {
                    Some(Content::Registers(words)) => raw::bits_of(words, self.data, self.order),
                    Some(Content::Bit(_)) | None if self.write == WritePolicy::Mask => 0,
                    Some(Content::Bit(_)) | None => {
                        return Err(EncodeError::Unknown { reason: "its other bits are not known".into() });
                    }
                };
                raw::with_part(around, part, bits)
            }
        };
        Ok(Content::Registers(raw::words_from(bits, self.data, self.order)))
    }

    /// The requests that write a content, in order.
    pub fn write_requests(&self, content: &Content) -> Result<Vec<Request>, EncodeError> {
        let address = self.address;
        if self.place().is_none() {
            return Err(EncodeError::BeyondEnd);
        }
        match (self.table, content) {
            (Table::Coil, Content::Bit(on)) => Ok(vec![match self.write {
                WritePolicy::Auto | WritePolicy::Single | WritePolicy::Mask => {
                    Request::WriteCoil { address, on: *on }
                }
                WritePolicy::Multiple => Request::WriteCoils { address, values: vec![*on] },
            }]),
            (Table::Holding, Content::Registers(words)) => Ok(match (self.write, words.as_slice()) {
                (WritePolicy::Mask, _) if self.bits.is_some() => self.masked(words),
                (WritePolicy::Auto | WritePolicy::Mask, [value]) => {
                    vec![Request::WriteRegister { address, value: *value }]
                }
                (WritePolicy::Auto | WritePolicy::Multiple | WritePolicy::Mask, _) => {
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

    /// One mask write for each register that the point's bits are in.
    fn masked(&self, words: &[u16]) -> Vec<Request> {
        let mask = self.bits.map_or(0, |part| raw::with_part(0, part, u64::MAX));
        let masks = raw::words_from(mask, self.data, self.order);
        let registers = (self.address..=u16::MAX).zip(words.iter().zip(masks));
        let touched = registers.filter(|(_, (_, mask))| *mask != 0);
        touched
            .map(|(address, (word, mask))| Request::MaskRegister { address, and: !mask, or: word & mask })
            .collect()
    }

    /// Whether a content read back is the one that was written.
    pub fn same(&self, written: &Content, found: &Content) -> bool {
        let (Content::Registers(written), Content::Registers(found)) = (written, found) else {
            return written == found;
        };
        let bits = |words: &[u16]| raw::bits_of(words, self.data, self.order);
        match (self.data, self.bits) {
            // A device may keep any non-zero number for "on".
            (Data::Bool, _) => (bits(written) != 0) == (bits(found) != 0),
            // Or another padding.
            (Data::Text { chars, .. }, _) => {
                text::decode(written, self.order, chars) == text::decode(found, self.order, chars)
            }
            (_, Some(part)) => raw::part(bits(written), part) == raw::part(bits(found), part),
            (_, None) => bits(written) == bits(found),
        }
    }

    /// The bits that stand for a number without any scale; `None` when they cannot.
    pub fn raw(&self, number: f64) -> Option<u64> {
        self.raw_bits(Number::Real(number))
    }

    /// Whether the raw number is the value.
    #[expect(clippy::float_cmp, reason = "exactly one and zero are what a configuration leaves out")]
    fn is_plain(&self, scale: f64) -> bool {
        scale == 1.0 && self.offset == 0.0
    }

    /// The scale with the factor that was read.
    fn scale_with(&self, factor: Option<u16>) -> Result<f64, Arc<str>> {
        if self.factor.is_none() {
            return Ok(self.scale);
        }
        let Some(word) = factor.filter(|word| *word != NO_FACTOR) else {
            return Err("the device tells no scale factor".into());
        };
        let power = raw::whole(word.into(), Data::I16, None).and_then(|power| i32::try_from(power).ok());
        match power.filter(|power| power.abs() <= LARGEST_FACTOR) {
            Some(power) => Ok(self.scale * 10_f64.powi(power)),
            None => Err(format!("the scale factor is no power of ten: {word}").into()),
        }
    }

    /// The number in the registers, not scaled yet.
    fn number(&self, words: &[u16]) -> Result<Number, Arc<str>> {
        let bits = raw::bits_of(words, self.data, self.order);
        if self.invalid.contains(&bits) {
            let digits = usize::try_from(self.data.width() / 4).unwrap_or_default();
            return Err(format!("the device tells that it has no reading (0x{bits:0digits$X})").into());
        }
        if self.data == Data::F64 {
            return Ok(Number::Real(f64::from_bits(bits)));
        }
        if self.data == Data::F32 {
            return Ok(Number::Real(widened(f32::from_bits(u32::try_from(bits).unwrap_or_default()))));
        }
        if let Data::Switch { on, off } = self.data {
            let state = [on, off].iter().position(|state| u64::from(*state) == bits);
            let neither = || format!("the register holds {bits}, which is neither on nor off").into();
            return state.map(|at| Number::Whole(i128::from(at == 0))).ok_or_else(neither);
        }
        let part = self.bits.map_or(bits, |part| raw::part(bits, part));
        let whole = raw::whole(part, self.data, self.bits);
        whole
            .map(|n| Number::Whole(if self.data == Data::Bool { i128::from(n != 0) } else { n }))
            .ok_or_else(|| format!("the registers hold no decimal digits (0x{bits:X})").into())
    }

    fn scaled(&self, number: Number, scale: f64) -> Result<Number, Arc<str>> {
        let real = match number {
            Number::Whole(_) if self.is_plain(scale) => return Ok(number),
            Number::Whole(n) => scaled_up(float(n), scale, self.offset),
            Number::Real(n) if self.is_plain(scale) => n,
            Number::Real(n) => scaled_up(n, scale, self.offset),
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

    /// The bits that hold a raw number; `None` when they cannot.
    fn raw_bits(&self, raw: Number) -> Option<u64> {
        if self.data == Data::F32 {
            return Some(u64::from(narrowed(raw.real())?.to_bits()));
        }
        if self.data == Data::F64 {
            return Some(raw.real()).filter(|n| n.is_finite()).map(f64::to_bits);
        }
        let (low, high) = raw::limits(self.data, self.bits);
        let n = raw.whole().filter(|n| (low..=high).contains(n))?;
        if let Data::Switch { on, off } = self.data {
            return Some(u64::from(if n == 1 { on } else { off }));
        }
        raw::bits_from(n, self.data)
    }

    fn out_of_range(&self, scale: f64) -> EncodeError {
        let (low, high) = self.value_limits(scale);
        EncodeError::OutOfRange { low, high }
    }

    fn value_limits(&self, scale: f64) -> (f64, f64) {
        let (low, high) = if self.data == Data::F32 {
            (f64::from(f32::MIN), f64::from(f32::MAX))
        } else if self.data == Data::F64 {
            (f64::MIN, f64::MAX)
        } else {
            let (low, high) = raw::limits(self.data, self.bits);
            (float(low), float(high))
        };
        let [a, b] = [low, high].map(|raw| scaled_up(raw, scale, self.offset));
        (a.min(b), a.max(b))
    }
}

/// What a point's own places hold on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of a coil or discrete input.
    Bit(bool),
    /// As they travel, lowest address first.
    Registers(Vec<u16>),
}

/// What was read for a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of its own places.
    pub content: Content,
    /// Of the register with its factor, if it has one.
    pub factor: Option<u16>,
}

impl From<Content> for Found {
    fn from(content: Content) -> Self {
        Self { content, factor: None }
    }
}

/// A value that cannot be written. `Display` says what is allowed, to stand behind "takes".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// Only bools and numbers become numbers in registers.
    #[error("a number or bool, not a {found}")]
    NotANumber {
        /// The value's type.
        found: &'static str,
    },
    /// Only text becomes text in registers.
    #[error("text, not a {found}")]
    NotText {
        /// The value's type.
        found: &'static str,
    },
    /// The registers cannot hold the text.
    #[error("text of at most {bytes} bytes without control characters")]
    TooLong {
        /// That they can hold.
        bytes: usize,
    },
    /// The registers cannot hold it.
    #[error("{low} to {high}, which is what its registers hold")]
    OutOfRange {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Something that must be known is not.
    #[error("no value now: {reason}")]
    Unknown {
        /// What.
        reason: Arc<str>,
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

#[cfg(test)]
mod tests;

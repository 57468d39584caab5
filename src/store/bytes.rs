//! The alphabet of stored records: numbers, texts and values as bytes.
//!
//! Whole numbers are variable-length, texts carry their length. Reading never panics and never reserves memory for
//! a length that the bytes do not bear out, since the file may be damaged.

use std::sync::Arc;
use std::time::Duration;

use crate::model::value::Value;

/// Deepest value that is read. Drivers give none that is deeper; a damaged record might.
const DEEPEST: usize = 160;

/// A record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored record is damaged: expected {expected} with {left} bytes left")]
pub struct Damaged {
    /// What should stand there.
    pub expected: &'static str,
    /// Bytes from there to the end of the record.
    pub left: usize,
}

/// Bytes under construction.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.byte(u8::from(flag));
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(low_byte(number) | 0x80);
            number >>= 7;
        }
        self.byte(low_byte(number));
    }

    pub(super) fn size(&mut self, size: usize) {
        self.number(u64::try_from(size).unwrap_or(u64::MAX));
    }

    /// Small magnitudes are short whatever their sign.
    pub(super) fn signed(&mut self, number: i64) {
        let magnitude = if number < 0 { !number } else { number };
        self.number(magnitude.unsigned_abs() << 1 | u64::from(number < 0));
    }

    /// A duration in milliseconds.
    pub(super) fn millis(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn float(&mut self, number: f64) {
        self.0.extend(number.to_bits().to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn option<T>(&mut self, option: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(option.is_some());
        if let Some(thing) = option {
            write(self, thing);
        }
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(0),
            Value::Bool(false) => self.byte(1),
            Value::Bool(true) => self.byte(2),
            Value::Int(number) => {
                self.byte(3);
                self.signed(*number);
            }
            Value::Float(number) => {
                self.byte(4);
                self.float(*number);
            }
            Value::Text(text) => {
                self.byte(5);
                self.text(text);
            }
            Value::List(items) => {
                self.byte(6);
                self.size(items.len());
                for item in items {
                    self.value(item);
                }
            }
            Value::Object(members) => {
                self.byte(7);
                self.size(members.len());
                for (name, member) in members {
                    self.text(name);
                    self.value(member);
                }
            }
        }
    }

    pub(super) fn named(&mut self, values: &[(Arc<str>, Value)]) {
        self.size(values.len());
        for (name, value) in values {
            self.text(name);
            self.value(value);
        }
    }
}

#[expect(clippy::as_conversions, reason = "seven bits are taken out")]
fn low_byte(number: u64) -> u8 {
    (number & 0x7f) as u8
}

/// Bytes being read.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The error for what stands here.
    pub(super) fn damaged(&self, expected: &'static str) -> Damaged {
        Damaged { expected, left: self.0.len() }
    }

    pub(super) fn byte(&mut self, expected: &'static str) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or_else(|| self.damaged(expected))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.byte("a flag")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("a flag of 0 or 1")),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte("a number")?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damaged("a number of at most ten bytes"))
    }

    pub(super) fn size(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.number()?).map_err(|_| self.damaged("a size"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        let magnitude = i64::try_from(number >> 1).map_err(|_| self.damaged("a number with a sign"))?;
        Ok(if number & 1 == 0 { magnitude } else { !magnitude })
    }

    pub(super) fn float(&mut self) -> Result<f64, Damaged> {
        let (bits, rest) = self.0.split_first_chunk().ok_or_else(|| self.damaged("a float"))?;
        self.0 = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bits)))
    }

    pub(super) fn blob(&mut self) -> Result<&'a [u8], Damaged> {
        let size = self.size()?;
        let (blob, rest) = self.0.split_at_checked(size).ok_or_else(|| self.damaged("as many bytes"))?;
        self.0 = rest;
        Ok(blob)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, Damaged> {
        let bytes = self.blob()?;
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| self.damaged("UTF-8"))
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Damaged>,
    ) -> Result<Option<T>, Damaged> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn value(&mut self) -> Result<Value, Damaged> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, Damaged> {
        if depth > DEEPEST {
            return Err(self.damaged("a value that is not nested so deeply"));
        }
        Ok(match self.byte("a value")? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.signed()?),
            4 => Value::Float(self.float()?),
            5 => Value::Text(self.text()?),
            6 => {
                let count = self.size()?;
                Value::List((0..count).map(|_| self.value_at(depth + 1)).collect::<Result<_, _>>()?)
            }
            7 => {
                let count = self.size()?;
                let member = |_| Ok((self.text()?, self.value_at(depth + 1)?));
                Value::Object((0..count).map(member).collect::<Result<_, Damaged>>()?)
            }
            _ => return Err(self.damaged("a kind of value")),
        })
    }

    pub(super) fn named(&mut self) -> Result<Vec<(Arc<str>, Value)>, Damaged> {
        let count = self.size()?;
        (0..count).map(|_| Ok((self.text()?, self.value()?))).collect()
    }

    /// The record must end here.
    pub(super) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(self.damaged("the end")) }
    }
}

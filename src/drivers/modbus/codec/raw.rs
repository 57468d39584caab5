//! Bits in registers: byte order, two's complement, BCD, and parts of numbers. Numbers here are not scaled yet.
//!
//! BCD has one decimal digit in each four bits; a digit above nine is none.

use super::super::map::{Bits, Data, Order};

/// The bytes of a number or text, A first, from words as they travel.
pub(super) fn bytes_of(words: &[u16], order: Order) -> Vec<u8> {
    let wire: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let mut bytes = vec![0; wire.len()];
    for (at, byte) in wire.iter().enumerate() {
        if let Some(place) = bytes.get_mut(letter(order, at, wire.len())) {
            *place = *byte;
        }
    }
    bytes
}

/// Words as they travel, from bytes, A first; of an odd number of bytes the last one is left out.
pub(super) fn words_of(bytes: &[u8], order: Order) -> Vec<u16> {
    let byte = |at: usize| bytes.get(letter(order, at, bytes.len())).copied().unwrap_or_default();
    (0..bytes.len() / 2).map(|word| u16::from_be_bytes([byte(2 * word), byte(2 * word + 1)])).collect()
}

/// Which byte, A being 0, stands at a place on the wire.
fn letter(order: Order, at: usize, length: usize) -> usize {
    match order {
        Order::Abcd => at,
        Order::Badc => at ^ 1,
        Order::Cdab => (length.saturating_sub(2) - (at & !1).min(length.saturating_sub(2))) | (at & 1),
        Order::Dcba => length.saturating_sub(1).saturating_sub(at),
        Order::Letters(letters) => letters.get(at).map_or(at, |letter| usize::from(*letter)),
    }
}

/// The bits of a number, from words as they travel; of 24-bit numbers only these.
pub(super) fn bits_of(words: &[u16], data: Data, order: Order) -> u64 {
    let bits = bytes_of(words, order).iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    bits & mask(data.width())
}

/// Words as they travel, from the bits of a number.
pub(super) fn words_from(bits: u64, data: Data, order: Order) -> Vec<u16> {
    let bytes = bits.to_be_bytes();
    let count = usize::from(data.count()) * 2;
    words_of(bytes.get(bytes.len().saturating_sub(count)..).unwrap_or_default(), order)
}

/// So many ones.
pub(super) fn mask(width: u32) -> u64 {
    1_u64.checked_shl(width).map_or(u64::MAX, |end| end - 1)
}

/// The part of a number.
pub(super) fn part(bits: u64, part: Bits) -> u64 {
    bits.checked_shr(part.first.into()).unwrap_or_default() & mask(part.count.into())
}

/// A number whose part is replaced.
pub(super) fn with_part(bits: u64, part: Bits, value: u64) -> u64 {
    let shifted = |bits: u64| bits.checked_shl(part.first.into()).unwrap_or_default();
    let mask = mask(part.count.into());
    (bits & !shifted(mask)) | shifted(value & mask)
}

/// What bits mean as a whole number; `None` for BCD with a digit above nine.
pub(super) fn whole(bits: u64, data: Data, bits_are: Option<Bits>) -> Option<i128> {
    if data.digits().is_some() {
        return from_bcd(bits);
    }
    let width = bits_are.map_or(data.width(), |part| part.count.into());
    let (modulus, bits) = (1_i128 << width, i128::from(bits));
    Some(if data.is_signed() && bits >= modulus / 2 { bits - modulus } else { bits })
}

/// The bits that stand for a whole number within [`limits`]. A negative one keeps its sign in all registers.
pub(super) fn bits_from(number: i128, data: Data) -> Option<u64> {
    if data.digits().is_some() {
        return to_bcd(number);
    }
    let all = 1_i128 << (u32::from(data.count()) * 16);
    u64::try_from(if number < 0 { number + all } else { number }).ok()
}

/// Smallest and largest whole number that it holds.
pub(super) fn limits(data: Data, bits: Option<Bits>) -> (i128, i128) {
    if matches!(data, Data::Bool | Data::Switch { .. }) {
        return (0, 1);
    }
    if let Some(digits) = data.digits() {
        return (0, 10_i128.pow(digits) - 1);
    }
    let modulus = 1_i128 << bits.map_or(data.width(), |part| part.count.into());
    if data.is_signed() { (-modulus / 2, modulus / 2 - 1) } else { (0, modulus - 1) }
}

fn from_bcd(bits: u64) -> Option<i128> {
    (0..16).rev().try_fold(0_i128, |number, place| {
        let digit = bits >> (4 * place) & 0xF;
        (digit <= 9).then(|| number * 10 + i128::from(digit))
    })
}

fn to_bcd(number: i128) -> Option<u64> {
    let mut left = u64::try_from(number).ok()?;
    let mut bits = 0;
    for place in 0..16 {
        bits |= (left % 10) << (4 * place);
        left /= 10;
    }
    (left == 0).then_some(bits)
}

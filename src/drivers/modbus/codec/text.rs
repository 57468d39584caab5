//! Text in registers: one or two characters in each, padded at the end.
//!
//! Read leniently: it ends at the first NUL, and padding of spaces or 0xFF at the ends is not part of it. Written
//! with NUL as padding.

use super::super::map::{Chars, Order};
use super::raw;

/// The text, or why it is none.
pub(super) fn decode(words: &[u16], order: Order, chars: Chars) -> Result<String, &'static str> {
    let bytes = match chars {
        Chars::Both => raw::bytes_of(words, order),
        Chars::High | Chars::Low => {
            ordered(words, order).into_iter().map(|word| single(word, chars)).collect()
        }
    };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    let padding = bytes.iter().rev().take_while(|byte| **byte == 0xFF).count();
    let bytes = bytes.get(..bytes.len() - padding).unwrap_or_default();
    let text = std::str::from_utf8(bytes).map_err(|_| "the registers hold no text")?.trim_matches(' ');
    if text.chars().any(char::is_control) {
        return Err("the registers hold no text");
    }
    Ok(text.to_owned())
}

/// The registers that hold a text; `None` when it does not fit.
pub(super) fn encode(text: &str, registers: u16, order: Order, chars: Chars) -> Option<Vec<u16>> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.len() > capacity(registers, chars) {
        return None;
    }
    bytes.resize(capacity(registers, chars), 0);
    Some(match chars {
        Chars::Both => raw::words_of(&bytes, order),
        Chars::High => ordered(&bytes.iter().map(|byte| u16::from(*byte) << 8).collect::<Vec<_>>(), order),
        Chars::Low => ordered(&bytes.iter().map(|byte| u16::from(*byte)).collect::<Vec<_>>(), order),
    })
}

/// Bytes that fit.
pub(super) fn capacity(registers: u16, chars: Chars) -> usize {
    usize::from(registers) * if chars == Chars::Both { 2 } else { 1 }
}

/// With one character in each register only the order of registers matters.
fn ordered(words: &[u16], order: Order) -> Vec<u16> {
    let mut words = words.to_vec();
    if matches!(order, Order::Cdab | Order::Dcba) {
        words.reverse();
    }
    words
}

fn single(word: u16, chars: Chars) -> u8 {
    let [high, low] = word.to_be_bytes();
    if chars == Chars::High { high } else { low }
}

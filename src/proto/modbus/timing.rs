//! How long things take on a serial line: characters, frames, and the silence between frames.
//!
//! Used to space requests, to know when an answer can be complete, and to tell an administrator beforehand how busy a
//! bus will be. Over TCP all of it is zero.

use std::time::Duration;

use super::Span;

/// Above this rate the silence no longer shrinks: 1.75 ms, as the serial line specification recommends.
const SILENCE_FLOOR_ABOVE_BAUD: u32 = 19_200;
const SILENCE_FLOOR: Duration = Duration::from_micros(1750);

/// Characters of silence between frames, in halves: 3.5 characters.
const SILENCE_HALF_CHARACTERS: u64 = 7;

/// A read request, a single write request, and the answer to any write: unit, function, two words, checksum.
const SHORT_FRAME: u32 = 8;

/// What surrounds the data in the answer to a read: unit, function, byte count, checksum.
const READ_ANSWER_OVERHEAD: u32 = 5;

/// The pace of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTiming {
    bits_per_second: u32,
    bits_per_character: u32,
    ascii: bool,
}

impl LineTiming {
    /// A serial line. `bits_per_character` counts start, data, parity and stop bits: 10 for 8N1, 11 for 8E1. A rate of
    /// zero is taken for a line without pace.
    pub fn serial(bits_per_second: u32, bits_per_character: u32) -> Self {
        Self { bits_per_second, bits_per_character, ascii: false }
    }

    /// The same line with ASCII frames. Those need no silence around them; the same one is kept all the same, since it
    /// is what transceivers need to turn round.
    #[must_use]
    pub fn in_ascii(self) -> Self {
        Self { ascii: true, ..self }
    }

    /// TCP: no character times, no silence.
    pub fn instant() -> Self {
        Self { bits_per_second: 0, bits_per_character: 0, ascii: false }
    }

    /// How long this many characters are under way.
    pub fn characters(self, count: u32) -> Duration {
        self.half_characters(u64::from(count) * 2)
    }

    /// How long a frame is under way that has so many characters in RTU; in ASCII it has two for each byte but one.
    fn frame(self, rtu: u32) -> Duration {
        self.characters(if self.ascii { rtu * 2 + 1 } else { rtu })
    }

    /// The pause that ends a frame: 3.5 characters, but 1.75 ms where characters are faster than at 19200 bits/s.
    pub fn silence(self) -> Duration {
        if self.bits_per_second > SILENCE_FLOOR_ABOVE_BAUD {
            SILENCE_FLOOR
        } else {
            self.half_characters(SILENCE_HALF_CHARACTERS)
        }
    }

    /// The whole turn of reading a span: request, silence, answer, silence; without the device's own thinking time.
    pub fn read_turn(self, span: Span) -> Duration {
        self.frame(SHORT_FRAME) + self.frame(read_answer_length(span)) + self.silence() * 2
    }

    fn half_characters(self, count: u64) -> Duration {
        if self.bits_per_second == 0 {
            return Duration::ZERO;
        }
        let bits = count.saturating_mul(u64::from(self.bits_per_character));
        Duration::from_nanos(bits.saturating_mul(500_000_000) / u64::from(self.bits_per_second))
    }
}

/// Characters in the answer to a read of this span over a serial line.
pub fn read_answer_length(span: Span) -> u32 {
    let count = u32::from(span.count());
    READ_ANSWER_OVERHEAD + if span.table().is_bits() { count.div_ceil(8) } else { count * 2 }
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;

    #[test]
    fn silence_is_three_and_a_half_characters_with_a_floor_for_fast_lines() {
        for (baud, bits, micros) in
            [(9600, 11, 4010), (9600, 10, 3645), (19_200, 11, 2005), (38_400, 11, 1750), (115_200, 10, 1750)]
        {
            let silence = LineTiming::serial(baud, bits).silence();
            assert_eq!(silence.as_micros(), micros, "{baud} baud, {bits} bits per character");
        }
        assert_eq!(LineTiming::instant().silence(), Duration::ZERO);
    }

    #[test]
    fn a_turn_counts_request_answer_and_two_silences() {
        let line = LineTiming::serial(9600, 10);
        let span = Span::new(Table::Holding, 0, 10).unwrap();
        let characters = 8 + 25 + 7;
        assert_eq!(line.read_turn(span).as_micros(), characters * 10 * 1_000_000 / 9600);
        let characters = 17 + 51 + 7;
        let expected = Duration::from_micros(characters * 10 * 1_000_000 / 9600);
        let found = line.in_ascii().read_turn(span);
        assert!(found.abs_diff(expected) < Duration::from_micros(2), "{found:?}, expected {expected:?}");
        let bits = Span::new(Table::Coil, 0, 9).unwrap();
        assert_eq!(read_answer_length(bits), 7);
    }

    #[test]
    fn absurd_settings_give_finite_times() {
        assert!(LineTiming::serial(1, u32::MAX).characters(u32::MAX) > Duration::ZERO);
        assert_eq!(LineTiming::serial(0, 10).characters(100), Duration::ZERO);
    }
}

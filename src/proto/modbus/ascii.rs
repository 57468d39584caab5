//! The ASCII form of a frame: a colon, each byte as two hexadecimal digits, a checksum, carriage return and line feed.
//!
//! Source: "MODBUS over Serial Line V1.02", section 2.5.2. Turns whole frames over; where a frame begins in a stream is
//! found by `reply/`.

/// Begins a frame, and nothing else may hold it.
pub const START: u8 = b':';

/// Ends a frame, behind a carriage return.
pub const END: u8 = b'\n';

/// The checksum: what makes the sum of all bytes zero.
pub fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// The whole frame around unit, function code and data.
pub fn encode(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() * 2 + 5);
    frame.push(START);
    for byte in body.iter().chain([&lrc(body)]) {
        frame.extend([digit(byte >> 4), digit(byte & 0x0F)]);
    }
    frame.extend(b"\r\n");
    frame
}

/// Bytes of unit, function code and data out of a frame's text between colon and line feed; `None` where something
/// else than pairs of digits stands there or the checksum is wrong. Small letters are taken too, as some devices send
/// them.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let mut bytes = pairs(text)?;
    let found = bytes.pop()?;
    (found == lrc(&bytes)).then_some(bytes)
}

/// The bytes that these digits spell, without a checksum; an odd digit at the end is left out.
pub fn pairs(text: &[u8]) -> Option<Vec<u8>> {
    text.chunks_exact(2)
        .map(|pair| pair.iter().try_fold(0_u8, |byte, digit| Some(byte << 4 | value(*digit)?)))
        .collect()
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

fn value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_looks_as_the_specification_describes_it() {
        // Read coils 0x13 to 0x37 of unit 17: the sum of the bytes is 0x69.
        let body = [0x11, 0x01, 0x00, 0x13, 0x00, 0x25];
        assert_eq!(lrc(&body), 0xB6);
        assert_eq!(encode(&body), b":110100130025B6\r\n");
        assert_eq!(decode(b"110100130025B6\r"), Some(body.to_vec()));
        assert_eq!(decode(b"110100130025b6"), Some(body.to_vec()));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in [&b""[..], b"0", b"110100130025B7", b"11010013002 B6", b"1101:0130025B6"] {
            assert_eq!(decode(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in prop::collection::vec(any::<u8>(), 1..256)) {
            let frame = encode(&body);
            prop_assert_eq!(frame.len(), body.len() * 2 + 5);
            prop_assert_eq!(decode(&frame[1..frame.len() - 1]), Some(body));
        }
    }
}

//! The decoder against the rules of the three versions, against limits, and against any cutting.

use proptest::prelude::*;

use super::*;

fn decoder(version: Version) -> Decoder {
    let mut decoder = Decoder::default();
    decoder.connected(version, 1 << 16);
    decoder
}

/// Every frame of a stream that comes in these chunks, and how it ends.
fn read(mut decoder: Decoder, chunks: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk);
        loop {
            match decoder.poll() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn one(version: Version, text: &str) -> Frame {
    let (mut frames, error) = read(decoder(version), &[text.as_bytes()]);
    assert_eq!((frames.len(), error), (1, None), "{text:?}");
    frames.remove(0)
}

#[track_caller]
fn fails(version: Version, text: &str, expected: &FrameError) {
    let (frames, error) = read(decoder(version), &[text.as_bytes()]);
    assert_eq!((frames.len(), error.as_ref()), (0, Some(expected)), "{text:?}");
}

#[test]
fn line_ends_and_stray_nuls_between_frames_are_passed_over() {
    let text = "\n\r\n\nSEND\ndestination:/a\n\n1\0\n\r\n\0SEND\r\ndestination:/b\r\n\r\n2\0";
    let (frames, error) = read(decoder(Version::V1_0), &[text.as_bytes()]);
    assert_eq!(error, None);
    let read: Vec<_> = frames.iter().map(|frame| (frame.header("destination"), &frame.body[..])).collect();
    assert_eq!(read, [(Some("/a"), &b"1"[..]), (Some("/b"), &b"2"[..])]);
}

#[test]
fn a_value_keeps_colons_spaces_and_may_be_empty() {
    let frame = one(Version::V1_2, "SEND\na: b:c \nempty:\n\n\0");
    assert_eq!((frame.header("a"), frame.header("empty")), (Some(" b:c "), Some("")));
    let padded = one(Version::V1_0, "SEND\n a : b \n\n\0");
    assert_eq!(padded.header("a"), Some("b"));
}

#[test]
fn the_first_of_a_repeated_header_wins() {
    assert_eq!(one(Version::V1_2, "SEND\na:1\na:2\n\n\0").header("a"), Some("1"));
}

#[test]
fn escapes_follow_the_version_and_never_the_handshake() {
    let text = "SEND\nk\\cey:a\\nb\\cc\\\\d\n\n\0";
    assert_eq!(one(Version::V1_1, text).header("k:ey"), Some("a\nb:c\\d"));
    assert_eq!(one(Version::V1_0, text).header("k\\cey"), Some("a\\nb\\cc\\\\d"));
    assert_eq!(one(Version::V1_2, "SEND\na:\\r\n\n\0").header("a"), Some("\r"));
    fails(Version::V1_1, "SEND\na:\\r\n\n\0", &FrameError::BadEscape);
    fails(Version::V1_2, "SEND\na:\\t\n\n\0", &FrameError::BadEscape);
    fails(Version::V1_2, "SEND\na:b\\\n\n\0", &FrameError::BadEscape);
    let connect = one(Version::V1_2, "CONNECT\npasscode:a\\nb\n\n\0");
    assert_eq!(connect.header("passcode"), Some("a\\nb"));
}

#[test]
fn a_counted_body_may_hold_nul_and_must_end_in_one() {
    assert_eq!(one(Version::V1_2, "SEND\ncontent-length:3\n\na\0b\0").body, "a\0b");
    assert_eq!(one(Version::V1_2, "SEND\ncontent-length: 1 \n\na\0").body, "a");
    fails(Version::V1_2, "SEND\ncontent-length:1\n\nab\0", &FrameError::NoTerminator(1));
}

#[test]
fn a_length_that_is_no_count_is_as_good_as_none() {
    for length in ["-1", "abc", "", "1.5", "+1"] {
        let text = format!("SEND\ncontent-length:{length}\n\nabc\0");
        assert_eq!(one(Version::V1_2, &text).body, "abc", "{length}");
    }
}

#[test]
fn what_is_malformed_is_named() {
    let cases = [
        ("HELLO\n\n\0", FrameError::UnknownCommand),
        ("send\n\n\0", FrameError::UnknownCommand),
        ("{\"id\":1}", FrameError::UnknownCommand),
        ("SEND\nno colon\n\n\0", FrameError::NoHeaderName),
        ("SEND\n:value\n\n\0", FrameError::NoHeaderName),
        ("SEND\na:1\0", FrameError::EndsInHeaders),
        ("SEND\0", FrameError::EndsInHeaders),
        ("SEND\na:1\r2\n\n\0", FrameError::StrayCarriageReturn),
        ("\rSEND\n\n\0", FrameError::StrayCarriageReturn),
        ("SUBSCRIBE\nid:1\n\nbody\0", FrameError::UnexpectedBody(Command::Subscribe)),
    ];
    for (text, error) in cases {
        fails(Version::V1_2, text, &error);
    }
    let (_, error) = read(decoder(Version::V1_2), &[b"SEND\na:\xff\n\n\0"]);
    assert_eq!(error, Some(FrameError::NotUtf8));
}

#[test]
fn line_ends_in_place_of_a_body_are_forgiven_and_1_0_ignores_any() {
    assert_eq!(one(Version::V1_0, "SUBSCRIBE\nid:1\n\nbody\0").body, "");
    assert_eq!(one(Version::V1_2, "SUBSCRIBE\nid:1\n\n\r\n\n\0").body, "");
}

#[test]
fn limits_are_noticed_before_the_rest_arrives() {
    fails(Version::V1_2, &"A".repeat(COMMAND_BYTES + 1), &FrameError::LineTooLong(COMMAND_BYTES));
    let header = format!("SEND\n{}", "a".repeat(HEADER_BYTES + 1));
    fails(Version::V1_2, &header, &FrameError::LineTooLong(HEADER_BYTES));
    fails(Version::V1_2, "SEND\ncontent-length:65536\n\n", &FrameError::TooLarge(1 << 16));
    let huge = "SEND\ncontent-length:99999999999999999999999\n\n";
    fails(Version::V1_2, huge, &FrameError::TooLarge(1 << 16));
    let body = format!("SEND\n\n{}", "x".repeat(1 << 16));
    fails(Version::V1_2, &body, &FrameError::TooLarge(1 << 16));
    let many: Vec<String> = (0..=HEADERS).map(|n| format!("h{n}:\n")).collect();
    fails(Version::V1_2, &format!("SEND\n{}", many.concat()), &FrameError::TooManyHeaders);
    let repeated = "h:1\n".repeat(HEADERS * 2);
    assert_eq!(one(Version::V1_2, &format!("SEND\n{repeated}\n\0")).headers.len(), 1);
}

#[test]
fn before_the_client_is_known_its_frames_are_small() {
    let text = format!("CONNECT\n{}", format!("a:{}\n", "x".repeat(16_000)).repeat(5));
    let (_, error) = read(Decoder::default(), &[text.as_bytes()]);
    assert_eq!(error, Some(FrameError::TooLarge(FRAME_BYTES_BEFORE_CONNECT)));
}

#[test]
fn an_error_stays() {
    let mut decoder = decoder(Version::V1_2);
    decoder.feed(b"NO\n");
    assert_eq!(decoder.poll(), Err(FrameError::UnknownCommand));
    decoder.feed(b"SEND\n\n\0");
    assert_eq!(decoder.poll(), Err(FrameError::UnknownCommand));
}

#[test]
fn debug_does_not_tell_the_passcode() {
    let frame = one(Version::V1_2, "CONNECT\npasscode:hush\n\n\0");
    assert!(!format!("{frame:?}").contains("hush"));
}

/// Text out of the pieces that frames are made of, so that many cases come close to being frames.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "SEND",
        "CONNECT",
        "SUBSCRIBE",
        "\n",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\0",
        "\0",
        "a:b",
        "content-length:2",
        "content-length:9",
        ":",
        "\\n",
        "\\x",
        "\u{fc}",
        "xy",
    ];
    let whole = "SEND\ndestination:/a\ncontent-length:3\n\nb\0d\0";
    let piece = prop_oneof![
        4 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        3 => Just(whole.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_frames_and_the_same_end(
        octets in nearly_frames(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        version in prop::sample::select(Version::ALL.to_vec()),
        limit in 8_usize..80,
    ) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
        at.extend([0, octets.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|ends| &octets[ends[0]..ends[1]]).collect();
        let with_limit = || {
            let mut decoder = Decoder::default();
            decoder.connected(version, limit);
            decoder
        };
        let whole = read(with_limit(), &[&octets]);
        prop_assert_eq!(&read(with_limit(), &chunks), &whole);
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        prop_assert_eq!(&read(with_limit(), &single), &whole);
    }

    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let (frames, _) = read(Decoder::default(), &[&octets]);
        prop_assert!(frames.len() <= octets.len());
    }
}

//! Outgoing frames: one text each, in the form that every known client reads.
//!
//! Line feeds only, nothing before the command, the exact content-length wherever there may be a body. `stomp.js`
//! loses a frame that begins with a line end or has carriage returns, and others trust the length blindly.

use super::frame::{Command, Version};

/// How headers are written to one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Says what is escaped and how.
    pub version: Version,
    /// Colons in values are written as they are, to a client that writes them so: `stomp.js`, and `@stomp/stompjs` in 1.1,
    /// take escapes for the text itself and would not know their own ids again. Nobody is misled by a plain one, since
    /// a name ends at the first colon.
    pub plain_colons: bool,
}

/// Writes a frame. `content-length` is added behind the headers of a frame that takes a body; the body of one that
/// takes none is left out. What a version cannot escape is replaced by a space.
pub fn encode<'a>(
    command: Command,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
    style: Style,
) -> String {
    // Room for the usual headers of a MESSAGE, so that the body is copied once.
    let mut text = String::with_capacity(body.len() + 192);
    text.push_str(command.name());
    text.push('\n');
    for (name, value) in headers {
        write_escaped(&mut text, name, command, Style { plain_colons: false, ..style });
        text.push(':');
        write_escaped(&mut text, value, command, style);
        text.push('\n');
    }
    if command.takes_body() {
        text.push_str("content-length:");
        text.push_str(&body.len().to_string());
        text.push('\n');
    }
    text.push('\n');
    if command.takes_body() {
        text.push_str(body);
    }
    text.push('\0');
    text
}

fn write_escaped(text: &mut String, plain: &str, command: Command, style: Style) {
    let Style { version, plain_colons } = style;
    if !plain.contains(['\\', ':', '\n', '\r', '\0']) {
        text.push_str(plain);
        return;
    }
    let escapes = command.escapes() && version != Version::V1_0;
    for character in plain.chars() {
        match character {
            '\n' if escapes => text.push_str("\\n"),
            ':' if escapes && !plain_colons => text.push_str("\\c"),
            '\\' if escapes => text.push_str("\\\\"),
            '\r' if escapes && version == Version::V1_2 => text.push_str("\\r"),
            '\0' | '\n' | '\r' => text.push(' '),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::stomp::frame::Decoder;

    fn escaping(version: Version) -> Style {
        Style { version, plain_colons: false }
    }

    #[test]
    fn a_message_has_its_headers_in_order_and_an_exact_length() {
        let headers = [("destination", "/a"), ("message-id", "3-8")];
        assert_eq!(
            encode(Command::Message, headers, "gr\u{fc}n", escaping(Version::V1_2)),
            "MESSAGE\ndestination:/a\nmessage-id:3-8\ncontent-length:5\n\ngr\u{fc}n\0",
        );
    }

    #[test]
    fn an_empty_body_still_has_a_length_and_a_receipt_has_none() {
        assert_eq!(encode(Command::Error, [], "", escaping(Version::V1_0)), "ERROR\ncontent-length:0\n\n\0");
        let receipt = encode(Command::Receipt, [("receipt-id", "77")], "", escaping(Version::V1_0));
        assert_eq!(receipt, "RECEIPT\nreceipt-id:77\n\n\0");
    }

    #[test]
    fn each_version_escapes_what_it_defines() {
        let header = [("n", "a\\b:c\nd\re")];
        let write = |version| encode(Command::Receipt, header, "", escaping(version));
        assert_eq!(write(Version::V1_0), "RECEIPT\nn:a\\b:c d e\n\n\0");
        assert_eq!(write(Version::V1_1), "RECEIPT\nn:a\\\\b\\cc\\nd e\n\n\0");
        assert_eq!(write(Version::V1_2), "RECEIPT\nn:a\\\\b\\cc\\nd\\re\n\n\0");
        assert_eq!(
            encode(Command::Connected, [("server", "a:b\\c")], "", escaping(Version::V1_2)),
            "CONNECTED\nserver:a:b\\c\n\n\0",
        );
    }

    #[test]
    fn a_client_that_writes_plain_colons_is_written_plain_colons() {
        let header = [("a:b", "c:d\\e")];
        for (version, expected) in [(Version::V1_1, "a\\cb:c:d\\\\e"), (Version::V1_2, "a\\cb:c:d\\\\e")] {
            let text = encode(Command::Receipt, header, "", Style { version, plain_colons: true });
            assert_eq!(text, format!("RECEIPT\n{expected}\n\n\0"));
        }
    }

    /// Text that a version carries through a header unchanged.
    fn header_text(version: Version) -> &'static str {
        match version {
            // 1.0 has no escapes, and its readers trim.
            Version::V1_0 => "[a-z/]([ a-z/\\\\]{0,20}[a-z/])?",
            Version::V1_1 => "[^\\x00\r]{1,20}",
            Version::V1_2 => "[^\\x00]{1,20}",
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            (version, headers) in prop::sample::select(Version::ALL.to_vec()).prop_flat_map(|version| {
                let text = header_text(version);
                (Just(version), prop::collection::btree_map(text, text, 0..8))
            }),
            body in any::<String>(),
            plain_colons in any::<bool>(),
        ) {
            prop_assume!(!headers.contains_key("content-length"));
            let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let text = encode(Command::Message, pairs, &body, Style { version, plain_colons });
            let mut decoder = Decoder::default();
            decoder.connected(version, 1 << 20);
            decoder.feed(text.as_bytes());
            let frame = decoder.poll().unwrap().unwrap();
            prop_assert_eq!(frame.command, Command::Message);
            prop_assert_eq!(&frame.body[..], body.as_bytes());
            for (name, value) in &headers {
                prop_assert_eq!(frame.header(name), Some(value.as_str()));
            }
            prop_assert_eq!(frame.headers.len(), headers.len() + 1);
            prop_assert_eq!(decoder.poll(), Ok(None));
        }
    }
}

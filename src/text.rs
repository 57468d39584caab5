//! The one text type that travels from a device message to the wire.
//!
//! A reference-counted, UTF-8 checked byte string: cloning it for a hundred clients copies a pointer, and the
//! WebSocket library sends it without another copy. It lives here so that the pure parts can name it without
//! naming the network library that happens to define it.

use bytes::Bytes;

/// Immutable shared text; `Text::from(String)` takes the buffer over without copying.
pub use tokio_tungstenite::tungstenite::Utf8Bytes as Text;

/// The lines of a text, each sharing its bytes.
pub fn lines(text: &Text) -> Vec<Text> {
    let bytes = Bytes::from(text.clone());
    let mut start = 0;
    let cut = |line: &str| {
        let end = start + line.len();
        let shared = bytes.slice(start..end);
        start = end + 1;
        Text::try_from(shared).unwrap_or_default()
    };
    text.split('\n').map(cut).collect()
}

//! The one text type that travels from a device message to the wire.
//!
//! A reference-counted, UTF-8 checked byte string: cloning it for a hundred clients copies a pointer, and the
//! WebSocket library sends it without another copy. It lives here so that the pure parts can name it without
//! naming the network library that happens to define it.

/// Immutable shared text; `Text::from(String)` takes the buffer over without copying.
pub use tokio_tungstenite::tungstenite::Utf8Bytes as Text;

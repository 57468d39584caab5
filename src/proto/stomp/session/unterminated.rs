//! Frames whose NUL was lost on the way: React Native removes it from every text message.
//!
//! Only the end of the message shows the end of such a frame, and the first piece of a large frame looks the same. So a
//! message that begins a frame, has the blank line and no NUL is taken for a whole frame only when nothing follows for
//! a while, or when what follows begins a frame or is a heart-beat. What is guessed wrong costs the client its
//! connection, so nothing of this happens unless it is asked for.

use std::time::{Duration, Instant};

use super::Command;

/// After so long a silence no further piece of the frame is going to come.
const SILENCE: Duration = Duration::from_millis(250);

/// UTF-16 units of the pieces that `stomp.js` and `@stomp/stompjs` cut large frames into. A message of such a length is
/// a piece.
const PIECES: [usize; 2] = [8192, 16384];

/// Whether the last message is to be taken for a whole frame.
#[derive(Debug)]
pub(super) struct Unterminated {
    enabled: bool,
    /// A frame has begun, and no NUL has ended it.
    within: bool,
    /// When a message becomes a frame.
    until: Option<Instant>,
}

impl Unterminated {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, within: false, until: None }
    }

    /// Looks at a message. True when it shows that a frame without NUL has ended before it.
    pub(super) fn ends_before(&mut self, octets: &[u8], now: Instant) -> bool {
        if !self.enabled {
            return false;
        }
        let last = octets.iter().rfind(|octet| !is_line_end(**octet));
        let ended = self.until.take().is_some() && (last.is_none() || begins_frame(octets));
        if ended {
            self.within = false;
        }
        if !self.within && may_be_whole(octets) {
            self.until = now.checked_add(SILENCE);
        }
        if let Some(last) = last {
            self.within = *last != 0;
        }
        ended
    }

    /// When [`Unterminated::ends_by`] is to be called.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the silence shows that a frame without NUL has ended.
    pub(super) fn ends_by(&mut self, now: Instant) -> bool {
        let ended = self.until.take_if(|until| *until <= now).is_some();
        if ended {
            self.within = false;
        }
        ended
    }
}

fn is_line_end(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n')
}

/// Whether the first line that is not empty is a command.
fn begins_frame(octets: &[u8]) -> bool {
    let mut lines = octets.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii_end);
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    Command::ALL.iter().any(|command| command.name().as_bytes() == first)
}

fn may_be_whole(octets: &[u8]) -> bool {
    let has = |end: &[u8]| octets.windows(end.len()).any(|window| window == end);
    begins_frame(octets)
        && !octets.contains(&0)
        && (has(b"\n\n") || has(b"\n\r\n"))
        && !PIECES.contains(&String::from_utf8_lossy(octets).encode_utf16().count())
}

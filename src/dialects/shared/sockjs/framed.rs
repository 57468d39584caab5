//! A session on a WebSocket with SockJS frames around what it says and hears.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dialects::{Input, Output, Session};
use crate::model::client::Client;
use crate::model::time::Now;
use crate::proto::sockjs::{Pace, frame};

/// The session inside and what its frames add.
#[derive(Debug)]
pub(super) struct Framed {
    inner: Box<dyn Session>,
    /// What the frames themselves want sent; goes out before what the inner session says.
    own: Option<Output>,
    /// The close of the inner session, behind its close frame.
    closing: Option<Output>,
    closed: bool,
    beat: Duration,
    next_beat: Instant,
    now: Now,
}

impl Framed {
    pub(super) fn new(inner: Box<dyn Session>, now: Now) -> Self {
        let beat = Pace::default().heart_beat;
        Self { inner, own: None, closing: None, closed: false, beat, next_beat: now.instant + beat, now }
    }

    fn say(&mut self, frame: String) -> Output {
        self.next_beat = self.now.instant + self.beat;
        Output::Send(frame.into())
    }

    /// Closes without a close frame, as the protocol wants it for what is no SockJS.
    fn cut(&mut self, code: u16, reason: &str) {
        self.own = Some(Output::Close { code, reason: reason.to_owned() });
    }
}

impl Session for Framed {
    fn handle(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Open => {
                let open = self.say(frame::OPEN.to_owned());
                self.own = Some(open);
                self.inner.handle(Input::Open, now);
            }
            // Empty messages are no messages.
            Input::Text(text) if text.is_empty() => {}
            Input::Text(text) => match frame::decode(&text) {
                // STOMP is a stream, so where one message ends and the next begins means nothing to it.
                Ok(texts) if !texts.is_empty() => self.inner.handle(Input::Text(texts.concat().into()), now),
                Ok(_) | Err(frame::FrameError::Empty) => {}
                Err(frame::FrameError::Broken) => self.cut(1007, "broken JSON encoding"),
            },
            Input::Binary(_) => self.cut(1003, "binary messages are not spoken here"),
            Input::Timeout => {
                if self.inner.timeout().is_some_and(|timeout| timeout <= now.instant) {
                    self.inner.handle(Input::Timeout, now);
                }
                if self.next_beat <= now.instant {
                    let beat = self.say(frame::HEART_BEAT.to_owned());
                    self.own = Some(beat);
                }
            }
            input @ (Input::Message(_)
            | Input::Accepted(_)
            | Input::Outcome(..)
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Reconfigured(_)
            | Input::Closing(_)) => self.inner.handle(input, now),
        }
    }

    fn known(&self) -> bool {
        self.inner.known()
    }

    fn poll(&mut self) -> Option<Output> {
        if self.closed {
            return self.closing.take();
        }
        let output = match self.own.take() {
            Some(output) => output,
            None => match self.inner.poll()? {
                Output::Send(text) => {
                    let frame = frame::messages(&[text.as_str()]);
                    self.say(frame)
                }
                Output::Close { code, reason } => {
                    let frame = frame::close(code, &reason);
                    self.closed = true;
                    self.closing = Some(Output::Close { code, reason });
                    self.say(frame)
                }
                other @ (Output::Watch { .. }
                | Output::Submit { .. }
                | Output::Ask { .. }
                | Output::Respond(_)) => other,
            },
        };
        self.closed |= matches!(output, Output::Close { .. });
        Some(output)
    }

    fn client(&self) -> Option<&Arc<Client>> {
        self.inner.client()
    }

    fn holding(&self) -> usize {
        self.inner.holding()
    }

    fn one_by_one(&self) -> bool {
        self.inner.one_by_one()
    }

    fn timeout(&self) -> Option<Instant> {
        Some(self.inner.timeout().map_or(self.next_beat, |inner| inner.min(self.next_beat)))
    }
}

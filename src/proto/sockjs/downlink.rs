//! The way to a client whose session is carried by HTTP responses, one at a time.
//!
//! It keeps what the client has not been handed yet, says what goes into the response that is there, and when that
//! has to end. It promises order, and that a session whose response broke off is closed rather than continued with a
//! gap. It bounds nothing by itself: its driver looks at [`Downlink::octets`] before it adds more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{close, frame};
use crate::text::Text;

/// How long responses live, and how long a session lives without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which a heart-beat is sent, so that proxies keep the response open.
    pub heart_beat: Duration,
    /// How long a session lives without a response to carry it.
    pub disconnect: Duration,
    /// Octets after which a streaming response ends; browsers keep a response whole in memory.
    pub stream_octets: usize,
    /// Time after which a streaming response ends, so that the connection below it can be closed in peace.
    pub stream_time: Duration,
}

impl Default for Pace {
    /// As the other servers; none of them has a time for streams.
    fn default() -> Self {
        Self {
            heart_beat: Duration::from_secs(25),
            disconnect: Duration::from_secs(5),
            stream_octets: 128 * 1024,
            stream_time: Duration::from_secs(60),
        }
    }
}

/// Octets of messages from which on a frame takes no further one, so that a response is not far ahead of its reader.
const FRAME_OCTETS: usize = 16 * 1024;

/// What a streaming response of XHR begins with: enough to make old browsers show what follows.
const PRELUDE: usize = 2048;

/// The form of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ends after one frame.
    Polling,
    /// One line for each frame.
    Streaming,
    /// Server-sent events.
    EventSource,
}

impl Form {
    /// The whole response for a client that has one open already.
    pub fn busy(self) -> String {
        let (code, reason) = close::BUSY;
        let mut text = self.prelude();
        self.write(&frame::close(code, reason), &mut text);
        text
    }

    fn prelude(self) -> String {
        match self {
            Self::Polling => String::new(),
            Self::Streaming => "h".repeat(PRELUDE) + "\n",
            Self::EventSource => "\r\n".to_owned(),
        }
    }

    fn write(self, frame: &str, into: &mut String) {
        match self {
            Self::Polling | Self::Streaming => into.extend([frame, "\n"]),
            Self::EventSource => into.extend(["data: ", frame, "\r\n\r\n"]),
        }
    }
}

/// A piece of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What to write; may be empty.
    pub text: String,
    /// Whether the response ends with it.
    pub last: bool,
}

/// What one session owes its client.
#[derive(Debug)]
pub struct Downlink {
    pace: Pace,
    greeted: bool,
    texts: VecDeque<Text>,
    octets: usize,
    /// The last frame, repeated to whoever still asks.
    closed: Option<String>,
    response: Option<Response>,
    /// When a response was there last; while one is there, when it was last written to.
    since: Instant,
}

/// The response that is there.
#[derive(Debug)]
struct Response {
    form: Form,
    /// Octets given so far; `None` until the prelude has been.
    given: Option<usize>,
    begun: Instant,
}

impl Downlink {
    /// Of a session that begins.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            greeted: false,
            texts: VecDeque::new(),
            octets: 0,
            closed: None,
            response: None,
            since: now,
        }
    }

    /// A response wants to carry the session; false if another one does.
    pub fn attach(&mut self, form: Form, now: Instant) -> bool {
        if self.response.is_some() {
            return false;
        }
        self.response = Some(Response { form, given: None, begun: now });
        self.since = now;
        true
    }

    /// The response broke off before its last chunk was taken. What has not been sent is dropped: behind the gap it
    /// would be worse than nothing.
    pub fn interrupt(&mut self, now: Instant) {
        if self.response.take().is_some() {
            self.since = now;
            self.texts = VecDeque::new();
            self.octets = 0;
            let (code, reason) = close::INTERRUPTED;
            self.close(code, reason);
        }
    }

    /// Adds a message, in order. After the close it is dropped.
    pub fn push(&mut self, text: Text) {
        if self.closed.is_none() {
            self.octets += text.len();
            self.texts.push_back(text);
        }
    }

    /// Closes the session behind what has been added so far. The first close stands.
    pub fn close(&mut self, code: u16, reason: &str) {
        self.closed.get_or_insert_with(|| frame::close(code, reason));
    }

    /// Whether the session is closed, though its client may not know it yet.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Octets of messages that no response has taken.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Whether a response is there.
    pub fn is_carried(&self) -> bool {
        self.response.is_some()
    }

    /// Whether [`Downlink::take`] has something for the response now.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(response) = &self.response else { return false };
        let prelude = response.given.is_none() && response.form != Form::Polling;
        prelude || !self.greeted || !self.texts.is_empty() || self.closed.is_some() || self.timeout() <= now
    }

    /// The next piece for the response that is there. After the last one it is there no more.
    pub fn take(&mut self, now: Instant) -> Option<Chunk> {
        if !self.is_due(now) {
            return None;
        }
        let beat = now >= self.since + self.pace.heart_beat;
        let response = self.response.as_mut()?;
        let form = response.form;
        let mut text = if response.given.is_none() { form.prelude() } else { String::new() };
        let mut last = form == Form::Polling || now >= response.begun + self.pace.stream_time;
        if !self.greeted {
            self.greeted = true;
            form.write(frame::OPEN, &mut text);
        } else if !self.texts.is_empty() {
            let mut octets = 0;
            let fits = self.texts.iter().take_while(|text| {
                let fits = octets < FRAME_OCTETS;
                octets += text.len();
                fits
            });
            let fits = fits.count();
            let texts: Vec<Text> = self.texts.drain(..fits).collect();
            self.octets -= texts.iter().map(|text| text.len()).sum::<usize>();
            if self.texts.is_empty() {
                // The room is given back: a burst must not be paid for as long as the session lives.
                self.texts = VecDeque::new();
            }
            form.write(&frame::messages(&texts), &mut text);
        } else if let Some(close) = &self.closed {
            form.write(close, &mut text);
            last = true;
        } else if beat {
            form.write(frame::HEART_BEAT, &mut text);
        }
        let given = response.given.unwrap_or(0) + text.len();
        response.given = Some(given);
        last |= given >= self.pace.stream_octets;
        if last {
            self.response = None;
        }
        self.since = now;
        Some(Chunk { text, last })
    }

    /// When something is due though nothing happens: a heart-beat, the end of a response, the end of the session.
    pub fn timeout(&self) -> Instant {
        match &self.response {
            None => self.since + self.pace.disconnect,
            Some(response) => (self.since + self.pace.heart_beat).min(match response.form {
                Form::Polling => self.since + self.pace.heart_beat,
                Form::Streaming | Form::EventSource => response.begun + self.pace.stream_time,
            }),
        }
    }

    /// Whether the client has stayed away for too long.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        self.response.is_none() && self.timeout() <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn take(downlink: &mut Downlink, now: Instant) -> (String, bool) {
        let chunk = downlink.take(now).expect("something is due");
        (chunk.text, chunk.last)
    }

    #[test]
    fn polls_take_the_open_frame_and_then_all_messages_in_one() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Polling, now));
        downlink.push("a".into());
        assert_eq!(take(&mut downlink, now), ("o\n".to_owned(), true));
        downlink.push("b".into());
        assert_eq!(downlink.take(now), None);
        assert!(downlink.attach(Form::Polling, now));
        assert_eq!(take(&mut downlink, now), ("a[\"a\",\"b\"]\n".to_owned(), true));
        assert_eq!(downlink.octets(), 0);
    }

    #[test]
    fn a_stream_goes_on_until_its_limit() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Streaming, now));
        assert_eq!(take(&mut downlink, now), (format!("{}\no\n", "h".repeat(2048)), false));
        assert_eq!(downlink.take(now), None);
        downlink.push("x".into());
        assert_eq!(take(&mut downlink, now), ("a[\"x\"]\n".to_owned(), false));
        downlink.push("x".repeat(128 * 1024).into());
        assert!(take(&mut downlink, now).1, "enough is in memory");
        assert!(!downlink.is_carried());
    }

    #[test]
    fn a_backlog_is_given_in_frames_that_can_be_read_one_by_one() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Polling, now));
        drop(take(&mut downlink, now));
        for _ in 0..5 {
            downlink.push("x".repeat(10_000).into());
        }
        let mut counts = Vec::new();
        while downlink.octets() > 0 {
            assert!(downlink.attach(Form::Polling, now));
            counts.push(take(&mut downlink, now).0.len() / 10_000);
        }
        assert_eq!(counts, [2, 2, 1]);
    }

    #[test]
    fn a_stream_ends_after_its_time_even_without_a_message() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::EventSource, now));
        assert_eq!(take(&mut downlink, now), ("\r\ndata: o\r\n\r\n".to_owned(), false));
        assert_eq!(take(&mut downlink, now + after(25)), ("data: h\r\n\r\n".to_owned(), false));
        assert_eq!(take(&mut downlink, now + after(50)), ("data: h\r\n\r\n".to_owned(), false));
        assert_eq!(downlink.timeout(), now + after(60));
        assert_eq!(take(&mut downlink, now + after(60)), (String::new(), true));
    }

    #[test]
    fn a_poll_without_news_is_a_heart_beat() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Polling, now));
        drop(take(&mut downlink, now));
        assert!(downlink.attach(Form::Polling, now + after(1)));
        assert_eq!(downlink.take(now + after(25)), None);
        assert_eq!(take(&mut downlink, now + after(26)), ("h\n".to_owned(), true));
    }

    #[test]
    fn only_one_response_carries_the_session() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Streaming, now));
        assert!(!downlink.attach(Form::Polling, now));
        assert_eq!(Form::Polling.busy(), "c[2010,\"Another connection still open\"]\n");
        assert!(Form::Streaming.busy().ends_with("h\nc[2010,\"Another connection still open\"]\n"));
    }

    #[test]
    fn messages_come_before_the_close_and_the_close_is_told_to_whoever_asks() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Streaming, now));
        drop(take(&mut downlink, now));
        downlink.push("bye".into());
        downlink.close(3000, "Go away!");
        downlink.close(1000, "never seen");
        downlink.push("never seen".into());
        assert_eq!(take(&mut downlink, now), ("a[\"bye\"]\n".to_owned(), false));
        assert_eq!(take(&mut downlink, now), ("c[3000,\"Go away!\"]\n".to_owned(), true));
        assert!(downlink.attach(Form::Polling, now));
        assert_eq!(take(&mut downlink, now), ("c[3000,\"Go away!\"]\n".to_owned(), true));
    }

    #[test]
    fn a_response_that_breaks_off_closes_the_session() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Polling, now));
        drop(take(&mut downlink, now));
        assert!(downlink.attach(Form::Polling, now));
        downlink.push("behind the gap".into());
        downlink.interrupt(now);
        assert!(downlink.is_closed());
        assert!(downlink.attach(Form::Polling, now));
        assert_eq!(take(&mut downlink, now).0, "c[1002,\"Connection interrupted\"]\n");
    }

    #[test]
    fn a_client_that_stays_away_is_given_up() {
        let now = start();
        let mut downlink = Downlink::new(Pace::default(), now);
        assert!(downlink.attach(Form::Polling, now));
        assert!(!downlink.is_abandoned(now + after(20)));
        drop(take(&mut downlink, now + after(20)));
        assert!(!downlink.is_abandoned(now + after(24)));
        assert!(downlink.is_abandoned(now + after(25)));
    }

    proptest! {
        #[test]
        fn responses_together_give_every_message_once_and_in_order(
            steps in proptest::collection::vec((0_u8..4, 0_u64..30), 0..60),
        ) {
            let mut now = start();
            let mut downlink = Downlink::new(Pace::default(), now);
            let (mut pushed, mut seen) = (Vec::new(), Vec::new());
            let mut collect = |text: &str| {
                for line in text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line)) {
                    if let Some(array) = line.strip_prefix('a') {
                        seen.extend(frame::decode(array).unwrap());
                    }
                }
            };
            for (kind, wait) in steps {
                let form = [Form::Polling, Form::Streaming, Form::EventSource].get(usize::from(kind));
                if let Some(form) = form {
                    downlink.attach(*form, now);
                } else {
                    pushed.push(pushed.len().to_string());
                    downlink.push(pushed.last().unwrap().into());
                }
                now += after(wait);
                while let Some(chunk) = downlink.take(now) {
                    collect(&chunk.text);
                    prop_assert_eq!(chunk.last, !downlink.is_carried());
                }
            }
            // One poll may still be owed the open frame.
            for _ in 0..2 {
                downlink.attach(Form::Polling, now);
                while let Some(chunk) = downlink.take(now) {
                    collect(&chunk.text);
                }
            }
            prop_assert_eq!(seen, pushed);
        }
    }
}

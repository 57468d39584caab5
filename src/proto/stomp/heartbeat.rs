//! Heart-beats of 1.1 and 1.2: when to send one, and when the client has been silent for too long.

use std::time::{Duration, Instant};

/// How many of its intervals a client may let pass. Three, as Spring grants: a network may hold a message back for a
/// while.
const TOLERANCE: u32 = 3;

/// How long a client may be silent whatever its interval: a browser runs the timers of a hidden page once a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the server can do and wants, in milliseconds; zero means not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Shortest interval at which it sends.
    pub sends: u32,
    /// Interval at which it wants to hear something.
    pub wants: u32,
}

impl Default for Offer {
    /// Sends every ten seconds, as most clients ask; wants none, because the WebSocket has a ping of its own that
    /// no hidden or frozen page forgets to answer.
    fn default() -> Self {
        Self { sends: 10_000, wants: 0 }
    }
}

/// Both directions of one connection.
#[derive(Clone, Copy, Debug)]
pub struct HeartBeat {
    send_every: Option<Duration>,
    lost_after: Option<Duration>,
    sent: Instant,
    received: Instant,
}

/// What time it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing was sent for an interval.
    Beat,
    /// Nothing was heard for longer than the client may be silent.
    Lost,
}

impl HeartBeat {
    /// No heart-beats, as in 1.0.
    pub fn none(now: Instant) -> Self {
        Self { send_every: None, lost_after: None, sent: now, received: now }
    }

    /// What follows from the offer and the client's `heart-beat` header. One that is not two numbers counts as
    /// absent.
    pub fn negotiate(offer: Offer, header: Option<&str>, now: Instant) -> Self {
        let (sends, wants) = header.and_then(parse).unwrap_or((0, 0));
        let every = |ours: u32, theirs: u32| {
            (ours > 0 && theirs > 0).then(|| Duration::from_millis(ours.max(theirs).into()))
        };
        Self {
            send_every: every(offer.sends, wants),
            lost_after: every(offer.wants, sends)
                .map(|interval| interval.saturating_mul(TOLERANCE).max(PATIENCE)),
            sent: now,
            received: now,
        }
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Something was received.
    pub fn received(&mut self, now: Instant) {
        self.received = now;
    }

    /// When [`HeartBeat::due`] next has something to say.
    pub fn timeout(&self) -> Option<Instant> {
        let beat = self.send_every.map(|every| self.sent + every);
        let lost = self.lost_after.map(|after| self.received + after);
        beat.into_iter().chain(lost).min()
    }

    /// What time it is for.
    pub fn due(&self, now: Instant) -> Option<Due> {
        if self.lost_after.is_some_and(|after| now >= self.received + after) {
            return Some(Due::Lost);
        }
        self.send_every.is_some_and(|every| now >= self.sent + every).then_some(Due::Beat)
    }
}

fn parse(header: &str) -> Option<(u32, u32)> {
    let (sends, wants) = header.split_once(',')?;
    Some((milliseconds(sends)?, milliseconds(wants)?))
}

/// A number beyond 32 bits is an interval that never passes.
fn milliseconds(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::clock::instant()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_slower_of_both_sides_sets_the_pace() {
        let now = start();
        let offer = Offer { sends: 10_000, wants: 5_000 };
        let beat = HeartBeat::negotiate(offer, Some("40000,20000"), now);
        assert_eq!(beat.send_every, Some(seconds(20)));
        assert_eq!(beat.lost_after, Some(seconds(120)));
    }

    #[test]
    fn a_side_that_says_zero_has_none() {
        let now = start();
        for header in [None, Some("0,0"), Some("10000"), Some("a,b"), Some("-1,-1")] {
            let beat = HeartBeat::negotiate(Offer { sends: 10_000, wants: 10_000 }, header, now);
            assert_eq!(beat.timeout(), None, "{header:?}");
        }
        let beat = HeartBeat::negotiate(Offer::default(), Some("10000,0"), now);
        assert_eq!(beat.timeout(), None);
    }

    #[test]
    fn anything_sent_puts_the_beat_off() {
        let now = start();
        let mut beat = HeartBeat::negotiate(Offer::default(), Some("0,10000"), now);
        assert_eq!(beat.due(now + seconds(9)), None);
        assert_eq!(beat.due(now + seconds(10)), Some(Due::Beat));
        beat.sent(now + seconds(9));
        assert_eq!(beat.due(now + seconds(10)), None);
        assert_eq!(beat.timeout(), Some(now + seconds(19)));
    }

    #[test]
    fn a_silent_client_is_lost_after_three_intervals_and_never_sooner_than_a_hidden_page_beats() {
        let now = start();
        for (every, lost) in [(40, 120), (10, 90)] {
            let header = format!("{every}000,0");
            let mut beat = HeartBeat::negotiate(Offer { sends: 0, wants: 1000 }, Some(&header), now);
            assert_eq!(beat.due(now + seconds(lost - 1)), None);
            beat.received(now + seconds(lost - 1));
            assert_eq!(beat.due(now + seconds(2 * lost - 2)), None);
            assert_eq!(beat.due(now + seconds(2 * lost - 1)), Some(Due::Lost));
        }
    }

    #[test]
    fn an_absurd_interval_does_no_harm() {
        let now = start();
        let header = Some("99999999999999999999,99999999999999999999");
        let beat = HeartBeat::negotiate(Offer { sends: 1, wants: 1 }, header, now);
        assert_eq!(beat.due(now + seconds(86_400)), None);
    }
}

//! How a client says in text how long a written value shall hold.

use std::time::Duration;

use crate::model::command::Lease;

/// What may stand there where the session lasts, for messages.
pub const OF_SESSIONS: &str =
    "a time as in \"30s\", \"10m\" or \"2h\", seconds as a number, \"session\" or \"release\"";

/// What may stand there in a call, which is a session of its own and over when it is answered.
pub const OF_CALLS: &str = "a time as in \"30s\", \"10m\" or \"2h\", seconds as a number, or \"release\"";

/// The longest lease that can be said; a product may allow less.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

/// Reads a lease. A tie to the session only makes sense where there is one that lasts.
pub fn parse(text: &str, lasting: bool) -> Option<Lease> {
    match text.trim() {
        "session" if lasting => Some(Lease::Session),
        "release" => Some(Lease::Release),
        text => {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let factor = match text.get(digits.len()..)? {
                "ms" => 0.001,
                "s" | "" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
            let seconds = digits.parse::<f64>().ok()? * factor;
            let sensible = seconds.is_finite() && (0.001..=LONGEST_SECONDS).contains(&seconds);
            sensible.then(|| Lease::For(Duration::from_secs_f64(seconds)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lease_is_a_time_or_a_word() {
        let seconds = |seconds| Some(Lease::For(Duration::from_secs_f64(seconds)));
        let cases = [
            ("30s", seconds(30.0)),
            ("30", seconds(30.0)),
            (" 1.5 ", seconds(1.5)),
            ("500ms", seconds(0.5)),
            ("10m", seconds(600.0)),
            ("2h", seconds(7200.0)),
            ("session", Some(Lease::Session)),
            ("release", Some(Lease::Release)),
            ("0", None),
            ("-3s", None),
            ("9999999d", None),
            ("", None),
            ("s", None),
            ("3 weeks", None),
            ("1e400s", None),
            ("nan", None),
        ];
        for (text, lease) in cases {
            assert_eq!(parse(text, true), lease, "{text:?}");
        }
        assert_eq!(parse("session", false), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_or_gives_a_lease_that_is_over(text in ".*") {
            if let Some(Lease::For(time)) = parse(&text, true) {
                prop_assert!(!time.is_zero());
            }
        }
    }
}

//! Every transcript of every dialect, against the pure session and hub.
//!
//! A transcript is a file in `tests/transcripts/<dialect>/`; adding one needs no code.

#![cfg(test)]

mod common;

use common::pure::PureStage;
use common::transcript;
use pentad::model::client::Dialect;

/// Fewer than this and a dialect's behaviour is not shown.
const AT_LEAST: usize = 25;

fn check(dialect: Dialect) {
    let files = transcript::files(dialect.name());
    assert!(files.len() >= AT_LEAST, "{} has only {} transcripts", dialect.name(), files.len());
    let only = std::env::var("TRANSCRIPT").ok();
    let mut failures = Vec::new();
    for path in &files {
        if only.as_ref().is_some_and(|only| !path.to_string_lossy().contains(only.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("a transcript is text");
        let played = std::panic::catch_unwind(|| transcript::play(&text, &mut PureStage::new(dialect)));
        let outcome = played.unwrap_or_else(|_| Err("panicked".to_owned()));
        if let Err(failure) = outcome {
            failures.push(format!("{}: {failure}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), files.len(), failures.join("\n"));
}

#[test]
fn janus_transcripts_hold_on_the_pure_session() {
    check(Dialect::Janus);
}

#[test]
fn sagoo_transcripts_hold_on_the_pure_session() {
    check(Dialect::Sagoo);
}

#[test]
fn ithings_transcripts_hold_on_the_pure_session() {
    check(Dialect::Ithings);
}

#[test]
fn oam_transcripts_hold_on_the_pure_session() {
    check(Dialect::Oam);
}

#[test]
fn uplus_transcripts_hold_on_the_pure_session() {
    check(Dialect::Uplus);
}

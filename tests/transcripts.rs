//! Every transcript of every dialect, against the pure session and hub, and again over a real socket.
//!
//! A transcript is a file in `tests/transcripts/<dialect>/`; adding one needs no code.

#![cfg(test)]

mod common;

use common::pure::PureStage;
use common::socket::SocketStage;
use common::transcript;
use pentad::model::client::Dialect;

/// Fewer than this and a dialect's behaviour is not shown.
const AT_LEAST: usize = 40;

fn check(dialect: Dialect, on_socket: bool) {
    let files = transcript::files(dialect.name());
    assert!(files.len() >= AT_LEAST, "{} has only {} transcripts", dialect.name(), files.len());
    let only = std::env::var("TRANSCRIPT").ok();
    let mut failures = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a transcript is text");
        let picked = only.as_ref().is_none_or(|only| path.to_string_lossy().contains(only.as_str()));
        if !picked || (on_socket && transcript::waits(&text)) {
            continue;
        }
        let played = std::panic::catch_unwind(|| {
            if on_socket {
                transcript::play(&text, &mut SocketStage::new())
            } else {
                transcript::play(&text, &mut PureStage::new(dialect))
            }
        });
        let outcome = played.unwrap_or_else(|_| Err("panicked; its message stands above".to_owned()));
        if let Err(failure) = outcome {
            failures.push(format!("{}: {failure}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), files.len(), failures.join("\n"));
}

macro_rules! dialect {
    ($module:ident, $dialect:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn transcripts_hold_on_the_pure_session() {
                check($dialect, false);
            }

            #[test]
            fn transcripts_hold_on_a_real_socket() {
                check($dialect, true);
            }
        }
    };
}

dialect!(janus, Dialect::Janus);
dialect!(sagoo, Dialect::Sagoo);
dialect!(ithings, Dialect::Ithings);
dialect!(oam, Dialect::Oam);
dialect!(uplus, Dialect::Uplus);

//! An error with its whole chain, on one line for logs and on several for people.

use std::error::Error;
use std::fmt;

/// Shows an error and its sources, joined by `: `. No error of ours repeats its source in its own text, so each
/// part appears once.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on 127.0.0.1:1")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_shown_once() {
        let error = Outer(std::io::Error::other("address in use"));
        assert_eq!(Chain(&error).to_string(), "cannot listen on 127.0.0.1:1: address in use");
    }
}

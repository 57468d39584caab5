//! What is wrong with a configuration, in a form that a person can act on.
//!
//! A problem says where (file, line, path of the key), what was found there, what is allowed, and, when it can be
//! guessed, what was probably meant. It never holds a secret: readers of secret keys leave the found value out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::guess::did_you_mean;

/// Whether a configuration with this problem can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It can not.
    Error,
    /// It can, but probably not as its author thinks.
    Warning,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the gateway from starting.
    pub severity: Severity,
    /// The file it stands in.
    pub file: PathBuf,
    /// Line in that file, from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// Character in that line, from 1.
    pub column: Option<usize>,
    /// The key, such as `device[2].unit`; array elements count from 0 within their file. Empty for a whole file.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What is allowed there.
    pub allowed: Option<String>,
    /// What helps, as a sentence without full stop.
    pub hint: Option<String>,
    order: (usize, usize),
}

impl Problem {
    pub(super) fn error(spot: &Spot, found: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: spot.file.to_path_buf(),
            line: spot.position.map(|(line, _)| line),
            column: spot.position.map(|(_, column)| column),
            path: spot.path.clone(),
            found: found.into(),
            allowed: None,
            hint: None,
            order: spot.order,
        }
    }

    pub(super) fn warning(spot: &Spot, found: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(spot, found) }
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// With the hint what was probably meant by a name, where that can be guessed.
    pub(super) fn meant(mut self, name: &str, known: &[&str]) -> Self {
        self.hint = did_you_mean(name, known);
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.found)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration that cannot be run: its errors, and its warnings among them, in the
/// order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where something stands: for problems that are found after reading.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) file: Arc<Path>,
    pub(super) position: Option<(usize, usize)>,
    pub(super) path: String,
    /// Number of the source and offset in it: the order in which problems are shown.
    pub(super) order: (usize, usize),
}

impl Spot {
    /// A file as a whole.
    pub(super) fn file(file: &Path, source: usize) -> Self {
        Self { file: file.into(), position: None, path: String::new(), order: (source, 0) }
    }

    /// How another problem refers to this place.
    pub(super) fn reference(&self) -> String {
        match self.position {
            Some((line, _)) => format!("{}:{line}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }
}

/// Collects problems while a configuration is read; shared by all readers of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    known: RefCell<BTreeSet<String>>,
    incomplete: Cell<bool>,
}

impl Report {
    pub(super) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Remembers that the program knows this key, written without array positions.
    pub(super) fn know(&self, key: String) {
        self.known.borrow_mut().insert(key);
    }

    /// Notes that a file could not be read, so that what seems to be missing may well stand there.
    pub(super) fn incomplete(&self) {
        self.incomplete.set(true);
    }

    /// Whether a file could not be read.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// Whether there is an error already.
    pub(super) fn failed(&self) -> bool {
        self.problems.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Every key that was asked for so far.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// The problems in the order of files and lines: all of them as an error, or the warnings alone.
    pub(super) fn into_result(self) -> Result<Vec<Problem>, Problems> {
        let failed = self.failed();
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.order);
        if failed { Err(Problems(problems)) } else { Ok(problems) }
    }
}

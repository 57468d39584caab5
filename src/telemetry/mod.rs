//! Where the log goes: to the journal when systemd started us, to standard error otherwise.
//!
//! What is logged is decided by `--log-level`, else by `PENTAD_LOG`, else it is `info`; both take a level or a list
//! of `target=level`. Libraries that log through `log` end up here too, but for one that cannot keep a secret.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_log::{AsLog, LogTracer};
use tracing_subscriber::filter::{FilterExt, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

mod flood;

use self::flood::Flood;
pub use self::flood::tell as tell_what_was_held_back;

/// The environment variable that sets the level.
pub const VARIABLE: &str = "PENTAD_LOG";

/// What is logged unless something else is asked for.
const DEFAULT: &str = "info";

/// Libraries that say more at `info` than an administrator wants to read. What the administrator asks for comes
/// behind and wins. The demo's broker calls every client that leaves an error.
const QUIETER: &str = "rumqttd=off,rumqttc=warn,hyper=warn,rustls=warn";

/// A library that writes whole WebSocket frames into its log, and with them the credentials that some dialects send
/// in frames. Its log is never taken over, whatever is asked for.
const INDISCREET: &str = "tungstenite";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or list is malformed.
    #[error("\"{asked}\" is no log level and no list of target=level")]
    Filter {
        /// As asked for.
        asked: String,
        /// Why.
        source: ParseError,
    },
    /// Somebody set up a log before us.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process. `level` goes before the environment.
pub fn init(level: Option<&str>) -> Result<(), TelemetryError> {
    let asked = level.map(str::to_owned).or_else(|| std::env::var(VARIABLE).ok()).unwrap_or_default();
    let filter = filter(&asked)?;
    let output: Box<dyn Layer<Registry> + Send + Sync> = match journal() {
        Some(journal) => Box::new(journal),
        None => Box::new(terminal()),
    };
    let subscriber = Registry::default().with(output.with_filter(filter.and(Flood)));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
    // The bridge is told the level, so that records nobody wants cost one comparison.
    let bridge =
        LogTracer::builder().with_max_level(LevelFilter::current().as_log()).ignore_crate(INDISCREET);
    bridge.init().map_err(|_| TelemetryError::Twice)
}

fn filter(asked: &str) -> Result<Targets, TelemetryError> {
    let asked = if asked.trim().is_empty() { DEFAULT } else { asked };
    format!("{QUIETER},{asked}")
        .parse()
        .map_err(|source| TelemetryError::Filter { asked: asked.to_owned(), source })
}

/// The journal, if standard error leads there.
fn journal() -> Option<tracing_journald::Layer> {
    if !leads_to(&std::env::var("JOURNAL_STREAM").ok()?, io::stderr()) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    // Fields keep their names, so that `journalctl DEVICE=meter-1` finds what there is to know of a device.
    // The layer's own choice calls `info` a notice.
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    Some(
        layer
            .with_field_prefix(None)
            .with_syslog_identifier("pentad".to_owned())
            .with_priority_mappings(priorities),
    )
}

/// Whether the file is the one that systemd named as `device:inode`; a program started from a service inherits the
/// variable, but its output may have been redirected.
fn leads_to(stream: &str, file: impl AsFd) -> bool {
    nix::sys::stat::fstat(file).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn terminal() -> impl Layer<Registry> + Send + Sync {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    fmt::layer().compact().with_writer(io::stderr).with_ansi(colours).with_target(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let quiet = filter("").unwrap().to_string();
        assert!(quiet.contains("rumqttd=off") && quiet.contains("info"), "{quiet}");
        let loud = filter("debug,rumqttd=trace").unwrap().to_string();
        assert!(loud.contains("rumqttd=trace") && !loud.contains("rumqttd=off"), "{loud}");
    }

    #[test]
    fn what_nobody_asked_for_is_not_even_looked_at() {
        let both = FilterExt::<Registry>::and(filter("").unwrap(), Flood);
        let hint = tracing_subscriber::layer::Filter::<Registry>::max_level_hint(&both);
        assert_eq!(hint, Some(LevelFilter::INFO));
    }

    #[test]
    fn a_malformed_level_is_named() {
        let error = filter("pentad=loud").unwrap_err();
        assert_eq!(error.to_string(), "\"pentad=loud\" is no log level and no list of target=level");
    }

    #[test]
    fn only_the_named_file_is_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        assert!(leads_to(&format!("{}:{}", stat.st_dev, stat.st_ino), &file));
        assert!(!leads_to(&format!("{}:{}", stat.st_dev, stat.st_ino + 1), &file));
        assert!(!leads_to("", &file));
    }
}

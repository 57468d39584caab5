//! Writes what the recorders hold into files: all of it on SIGUSR1, and that of one bus after a fault.
//!
//! Promises: a bus never waits for the disk; faults write at most one file for each bus in a while, and ever less often while
//! they do not end, since flash wears out; there are never more than a number of files, of which the oldest goes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::recorder::{Recorder, Recorders};
use crate::clock;

/// Files that are kept, the half-written ones of a crash among them; of many buses so many each, or a signal would write over
/// what it has just written. The oldest goes.
const MOST_FILES: usize = 20;
const FILES_OF_A_BUS: usize = 2;

/// After a fault was written, the next one of the same bus is not, for so long: it is most likely the same. The pause doubles
/// each time up to the longest one, and is the first one again after as long without any fault.
const FAULT_PAUSE: Duration = Duration::from_secs(600);
const FAULT_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// When faults of one bus are written.
#[derive(Clone, Copy, Debug)]
struct Faults {
    heard: Instant,
    written: Instant,
    pause: Duration,
}

impl Faults {
    /// Whether a fault is to be written now, given what is known of its bus so far; and what is known then.
    fn hear(known: Option<Self>, now: Instant) -> (bool, Self) {
        let since = |then| now.saturating_duration_since(then);
        match known {
            Some(known) if since(known.heard) < FAULT_PAUSE_MAX => {
                if since(known.written) < known.pause {
                    return (false, Self { heard: now, ..known });
                }
                let pause = known.pause.saturating_mul(2).min(FAULT_PAUSE_MAX);
                (true, Self { heard: now, written: now, pause })
            }
            _ => (true, Self { heard: now, written: now, pause: FAULT_PAUSE }),
        }
    }
}

/// Where captures are written: below the state directory that the service manager names, if there is one.
pub fn folder() -> PathBuf {
    let state = std::env::var_os("STATE_DIRECTORY");
    // Several directories are separated by colons.
    let first = state.as_ref().and_then(|state| state.to_str()?.split(':').next().map(PathBuf::from));
    first.unwrap_or_else(|| PathBuf::from("/var/lib/pentad")).join("captures")
}

/// Serves signals and faults until told to stop.
pub async fn run(
    recorders: Recorders,
    mut faults: mpsc::Receiver<Arc<str>>,
    folder: PathBuf,
    stop: CancellationToken,
) {
    let mut asked = match signal(SignalKind::user_defined1()) {
        Ok(signal) => Some(signal),
        Err(error) => {
            error!(%error, "SIGUSR1 writes no captures");
            None
        }
    };
    // At most one entry for each bus that there ever was.
    let mut known: BTreeMap<Arc<str>, Faults> = BTreeMap::new();
    loop {
        let signal = async {
            match &mut asked {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel safe: the token remembers.
            () = stop.cancelled() => return,
            // Cancel safe: a signal that has not been returned is kept.
            _ = signal => {
                for recorder in recorders.all() {
                    if let Some(path) = write(&recorder, &folder, most(&recorders)).await {
                        info!(bus = %recorder.bus(), path = %path.display(), "capture written");
                    }
                }
            }
            // Cancel safe by contract of the channel. It never ends: this task holds a sender.
            Some(bus) = faults.recv() => {
                let (due, then) = Faults::hear(known.get(&bus).copied(), clock::instant());
                known.insert(Arc::clone(&bus), then);
                let recorder = recorders.get(&bus).filter(|_| due && folder.parent().is_some_and(Path::is_dir));
                let Some(recorder) = recorder else { continue };
                if let Some(path) = write(&recorder, &folder, most(&recorders)).await {
                    info!(%bus, path = %path.display(), "what was on the bus before the fault is written");
                }
            }
        }
    }
}

/// How many files are kept.
fn most(recorders: &Recorders) -> usize {
    MOST_FILES.max(recorders.all().len() * FILES_OF_A_BUS)
}

/// Writes one capture and gives its path, or says why not.
async fn write(recorder: &Recorder, folder: &Path, most: usize) -> Option<PathBuf> {
    let (bytes, stamp) = (recorder.pcapng(clock::now()), clock::wall());
    let stamp =
        Timestamp::from_millisecond(stamp.0).unwrap_or_default().strftime("%Y%m%d-%H%M%S%.3f").to_string();
    let path = folder.join(format!("{}-{stamp}.pcapng", recorder.bus()));
    let (target, folder) = (path.clone(), folder.to_owned());
    let done = tokio::task::spawn_blocking(move || store(&folder, &target, &bytes, most)).await;
    match done {
        Ok(Ok(())) => Some(path),
        Ok(Err(error)) => {
            warn!(path = %path.display(), %error, "cannot write a capture");
            None
        }
        Err(error) => {
            debug!(%error, "a capture was not finished");
            None
        }
    }
}

fn store(folder: &Path, path: &Path, bytes: &[u8], most: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let captures = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let modified = fs::metadata(&path).and_then(|data| data.modified()).ok()?;
        let ours = path.extension().is_some_and(|extension| extension == "pcapng" || extension == "part");
        ours.then_some((modified, path))
    };
    let mut there: Vec<_> = fs::read_dir(folder)?.filter_map(captures).collect();
    there.sort();
    let surplus = (there.len() + 1).saturating_sub(most);
    for (_, old) in there.into_iter().take(surplus) {
        fs::remove_file(old)?;
    }
    let half = path.with_extension("part");
    fs::write(&half, bytes)?;
    fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_half_written_goes_too_and_many_buses_have_more_files() {
        let folder = tempfile::tempdir().unwrap();
        let captures = folder.path().join("captures");
        fs::create_dir(&captures).unwrap();
        for number in 0..MOST_FILES {
            fs::write(captures.join(format!("line-{number:02}.part")), b"x").unwrap();
        }
        let names = |extension: &str| {
            let entries = fs::read_dir(&captures).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
        };
        store(&captures, &captures.join("a.pcapng"), b"x", MOST_FILES).unwrap();
        assert_eq!((names("part"), names("pcapng")), (MOST_FILES - 1, 1));
        for number in 0..MOST_FILES * 2 {
            store(&captures, &captures.join(format!("b-{number}.pcapng")), b"x", MOST_FILES * 2).unwrap();
        }
        assert_eq!(names("part") + names("pcapng"), MOST_FILES * 2);
    }

    #[test]
    fn a_bus_that_flaps_is_written_ever_less_often_until_a_day_is_quiet() {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let start = Instant::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let mut known = None;
        let mut written = Vec::new();
        for minute in 0..7 * 1440 {
            let (due, then) = Faults::hear(known, start + minutes(minute));
            known = Some(then);
            written.extend(due.then_some(minute));
        }
        assert_eq!(written[..6], [0, 10, 30, 70, 150, 310]);
        assert!(written.len() < 16, "{written:?}");
        let quiet = minutes(8 * 1440 + 1);
        let (due, then) = Faults::hear(known, start + quiet);
        assert!(due);
        assert!(!Faults::hear(Some(then), start + quiet + minutes(9)).0);
        assert!(Faults::hear(Some(then), start + quiet + minutes(10)).0);
    }

    #[test]
    fn the_oldest_capture_goes_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let captures = folder.path().join("captures");
        for number in 0..MOST_FILES + 5 {
            store(&captures, &captures.join(format!("line-{number:02}.pcapng")), b"x", MOST_FILES).unwrap();
        }
        fs::write(captures.join("notes.txt"), "mine").unwrap();
        store(&captures, &captures.join("line-99.pcapng"), b"x", MOST_FILES).unwrap();
        let mut names: Vec<String> = fs::read_dir(&captures)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), MOST_FILES + 1, "{names:?}");
        assert!(names.contains(&"line-99.pcapng".to_owned()) && names.contains(&"notes.txt".to_owned()));
    }
}

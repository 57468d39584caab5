//! Writes what the recorders hold into files: all of it on SIGUSR1, and that of one bus after a fault.
//!
//! Promises: a bus never waits for the disk; faults write at most one file for each bus in a while; there are never more
//! than a fixed number of files, of which the oldest goes.

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

/// Files that are kept.
const MOST_FILES: usize = 20;

/// After a fault was written, the next one of the same bus is not, for so long: it is most likely the same.
const FAULT_PAUSE: Duration = Duration::from_secs(600);

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
    let mut written: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
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
                    if let Some(path) = write(&recorder, &folder).await {
                        info!(bus = %recorder.bus(), path = %path.display(), "capture written");
                    }
                }
            }
            // Cancel safe by contract of the channel. It never ends: this task holds a sender.
            Some(bus) = faults.recv() => {
                let now = clock::instant();
                let early = written.get(&bus).is_some_and(|last| now.saturating_duration_since(*last) < FAULT_PAUSE);
                let recorder = recorders.get(&bus).filter(|_| !early && folder.parent().is_some_and(Path::is_dir));
                let Some(recorder) = recorder else { continue };
                if let Some(path) = write(&recorder, &folder).await {
                    written.insert(Arc::clone(&bus), now);
                    info!(%bus, path = %path.display(), "what was on the bus before the fault is written");
                }
            }
        }
    }
}

/// Writes one capture and gives its path, or says why not.
async fn write(recorder: &Recorder, folder: &Path) -> Option<PathBuf> {
    let (bytes, stamp) = (recorder.pcapng(clock::now()), clock::wall());
    let stamp =
        Timestamp::from_millisecond(stamp.0).unwrap_or_default().strftime("%Y%m%d-%H%M%S%.3f").to_string();
    let path = folder.join(format!("{}-{stamp}.pcapng", recorder.bus()));
    let (target, folder) = (path.clone(), folder.to_owned());
    let done = tokio::task::spawn_blocking(move || store(&folder, &target, &bytes)).await;
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

fn store(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let captures = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let modified = fs::metadata(&path).and_then(|data| data.modified()).ok()?;
        path.extension().is_some_and(|extension| extension == "pcapng").then_some((modified, path))
    };
    let mut there: Vec<_> = fs::read_dir(folder)?.filter_map(captures).collect();
    there.sort();
    let surplus = (there.len() + 1).saturating_sub(MOST_FILES);
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
    fn the_oldest_capture_goes_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let captures = folder.path().join("captures");
        for number in 0..MOST_FILES + 5 {
            store(&captures, &captures.join(format!("line-{number:02}.pcapng")), b"x").unwrap();
        }
        fs::write(captures.join("notes.txt"), "mine").unwrap();
        store(&captures, &captures.join("line-99.pcapng"), b"x").unwrap();
        let mut names: Vec<String> = fs::read_dir(&captures)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), MOST_FILES + 1, "{names:?}");
        assert!(names.contains(&"line-99.pcapng".to_owned()) && names.contains(&"notes.txt".to_owned()));
    }
}

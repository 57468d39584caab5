//! Opening the store's files: what a process that was killed has left behind, damage, a disk that takes nothing.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{error, info, warn};

use super::database::{Database, Trouble};
use super::tail::Tail;
use super::{Recovered, Write};
use crate::clock;
use crate::config::History;
use crate::model::time::UnixMillis;
use crate::report::Chain;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder or the tail.
    #[error("cannot open {path}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error("cannot open {path}")]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Trouble,
    },
}

/// What is open, and what was in it.
pub(super) struct Files {
    /// Missing where none could be begun, since the disk takes nothing.
    pub(super) database: Option<Database>,
    pub(super) tail: Tail,
    pub(super) recovered: Recovered,
    /// What the disk has no room for, and is in the tail until it has.
    pub(super) left: Vec<Write>,
    pub(super) shortage: Option<Trouble>,
}

/// A number above all that were given before, where nobody knows which: milliseconds since 1970, since a gateway sends
/// fewer than a thousand messages a second.
pub(super) fn high_number() -> u64 {
    u64::try_from(clock::wall().0).unwrap_or(0)
}

/// Opens them, and takes in what a process that was killed has left behind. A damaged file is set aside. On a disk that takes
/// nothing, a history that is there is read, and one that is not is begun when there is room.
pub(super) fn open_files(settings: &History) -> Result<Files, OpenError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| OpenError::File { path, source }
    };
    if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(file(folder))?;
    }
    let in_database = |source| OpenError::Database { path: settings.path.clone(), source };
    let nothing_there = !has_content(&settings.path);
    let mut anew = false;
    let opened = match open_database(settings) {
        Err(trouble) if trouble.is_damage() => {
            set_aside(&settings.path, &trouble);
            anew = true;
            open_database(settings)
        }
        opened => opened,
    };
    let mut shortage = None;
    let (mut database, mut recovered) = match opened {
        Ok((database, recovered)) => (Some(database), recovered),
        Err(trouble) if nothing_there && trouble.is_shortage() => {
            shortage = Some(trouble);
            (None, Recovered::default())
        }
        Err(trouble) => return Err(in_database(trouble)),
    };
    let tail_path = beside(&settings.path, "-tail");
    let (mut tail, mut left) = Tail::open(&tail_path).map_err(file(&tail_path))?;
    if let (Some(database), false) = (&mut database, left.is_empty()) {
        (recovered, shortage) = with_tail(database, &mut left, settings, &mut anew).map_err(in_database)?;
    }
    if anew {
        // Numbers that clients have seen never come again.
        recovered.seq = recovered.seq.max(high_number());
        if let (Some(database), None) = (&database, &shortage) {
            database.begin_above(recovered.seq).map_err(in_database)?;
        }
    }
    // What could not be taken in stays there.
    if shortage.is_none() {
        tail.clear().map_err(file(&tail_path))?;
        info!(path = %settings.path.display(), seq = recovered.seq, "history is kept");
    }
    Ok(Files { database, tail, recovered, left, shortage })
}

pub(super) fn open_database(settings: &History) -> Result<(Database, Recovered), Trouble> {
    let database = Database::open(&settings.path, settings.max_bytes)?;
    let recovered = database.recover()?;
    Ok((database, recovered))
}

/// What there is once the tail has been taken in. Where the disk has no room for it, also what it said; the tail waits then.
fn with_tail(
    database: &mut Database,
    left: &mut Vec<Write>,
    settings: &History,
    anew: &mut bool,
) -> Result<(Recovered, Option<Trouble>), Trouble> {
    let taken = match take_in(database, left, settings) {
        Err(trouble) if trouble.is_damage() => {
            set_aside(&settings.path, &trouble);
            *anew = true;
            *database = open_database(settings)?.0;
            take_in(database, left, settings)
        }
        taken => taken,
    };
    match taken {
        Ok(recovered) => {
            info!(
                changes = left.len(),
                "the history has taken in what was not committed when the process ended"
            );
            left.clear();
            Ok((recovered, None))
        }
        Err(trouble) if trouble.is_shortage() => {
            database.roll_back();
            Ok((database.foresee(left)?, Some(trouble)))
        }
        Err(trouble) => Err(trouble),
    }
}

fn take_in(database: &mut Database, left: &[Write], settings: &History) -> Result<Recovered, Trouble> {
    for write in left {
        database.write(write)?;
    }
    database.commit(oldest(settings))?;
    database.recover()
}

pub(super) fn oldest(settings: &History) -> UnixMillis {
    let keep = i64::try_from(settings.keep.as_millis()).unwrap_or(i64::MAX);
    // Nothing is forgotten because a clock is wrong.
    UnixMillis(clock::now().certain.0.saturating_sub(keep))
}

/// Whether there may be something in a file.
fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Renames a damaged database with its log, so that somebody can look at it, and says so. One that was set aside before is
/// deleted: each is as large as the history may be.
pub(super) fn set_aside(path: &Path, trouble: &Trouble) {
    forget_those_aside(path);
    let mark = format!(".damaged-{}", clock::wall().0 / 1000);
    let aside = beside(path, &mark);
    error!(
        path = %path.display(),
        aside = %aside.display(),
        error = %Chain(trouble),
        "the history is damaged and is set aside, a new one is begun"
    );
    for part in ["", "-wal", "-shm"] {
        let (from, to) = (beside(path, part), beside(path, &format!("{mark}{part}")));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(path = %from.display(), %error, "cannot set the file aside, it is deleted");
                drop(fs::remove_file(&from));
            }
        }
    }
}

fn forget_those_aside(path: &Path) {
    let Some(name) = beside(path, ".damaged-").file_name().map(OsStr::to_owned) else { return };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that cannot be read is told of by whoever opens the file in it.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            continue;
        }
        let path = entry.path();
        match fs::remove_file(&path) {
            Ok(()) => info!(path = %path.display(), "an older damaged history is deleted"),
            Err(error) => warn!(path = %path.display(), %error, "cannot delete an older damaged history"),
        }
    }
}

/// A file whose name begins like another one's.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

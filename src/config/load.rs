//! Finds and reads the files of a configuration.
//!
//! The only part of the configuration that touches the file system; everything after it works on text.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::problem::{Problem, Problems, Report, Spot};
use super::resolve::{Surroundings, resolve_in};
use super::{Loaded, Source};
use crate::drivers::modbus::adapter;

/// Where the package puts the products that come with it.
pub const SHIPPED_PRODUCTS: &str = "/usr/share/pentad/products";

/// Where systemd puts the credentials of the service while it runs. Who checks a configuration by hand is not told.
const CREDENTIALS: &str = "/run/credentials/pentad.service";

/// Bytes in one file. A plant of ten thousand devices takes a tenth of it; what is larger is some other file, or a
/// device that never ends.
const LARGEST: u64 = 16 << 20;

/// Where the files of a configuration are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The main file. `conf.d/*.toml`, `products/*.toml` and `clients.toml` stand beside it.
    pub config: PathBuf,
    /// The products that came with the program.
    pub products: PathBuf,
    /// Where a service manager puts credentials (`$CREDENTIALS_DIRECTORY`): a `clients.toml` there is read as well, and
    /// files that are named `credential:NAME` are looked for there.
    pub credentials: Option<PathBuf>,
}

impl Places {
    /// A main file with the packaged products and no credentials folder.
    pub fn of(config: impl Into<PathBuf>) -> Self {
        Self { config: config.into(), products: SHIPPED_PRODUCTS.into(), credentials: None }
    }
}

/// Reads and checks a configuration: the main file, `conf.d/*.toml` in name order, `clients.toml`, and the products.
/// Of a key that several files set, the last one holds.
pub fn load(places: &Places) -> Result<Loaded, Problems> {
    let report = Report::default();
    let sources = read_all(places, &report);
    let credentials = places.credentials.clone().unwrap_or_else(|| CREDENTIALS.into());
    resolve_in(&sources, &Machine { credentials }, report)
}

fn read_all(places: &Places, report: &Report) -> Vec<Source> {
    let beside = |name: &str| places.config.parent().unwrap_or(Path::new("")).join(name);
    let clients = beside("clients.toml");
    let mut files = Vec::new();
    files.extend(toml_files(&places.products, report));
    files.extend(toml_files(&beside("products"), report));
    files.push(places.config.clone());
    files.extend(toml_files(&beside("conf.d"), report));
    let credentials = places.credentials.as_ref().map(|folder| folder.join("clients.toml"));
    files.extend([Some(clients.clone()), credentials].into_iter().flatten().filter(|path| path.exists()));
    let mut sources = Vec::new();
    for (at, name) in files.into_iter().enumerate() {
        match read(&name) {
            Ok(text) => sources.push(Source { name, text }),
            Err(error) => {
                report.incomplete();
                report.add(Problem::error(&Spot::file(&name, at), format!("cannot be read: {error}")));
                // An empty stand-in keeps the numbers of the sources, by which problems are ordered.
                sources.push(Source { name, text: String::new() });
            }
        }
    }
    if let Some(at) = sources.iter().position(|source| source.name == clients) {
        check_mode(&clients, at, report);
    }
    sources
}

/// The text of a file, which must end within the limit.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Whoever opens a pipe by its name waits for somebody who writes, perhaps for ever, and no further change would be
    // taken over. Pipes of a shell, as in <(..), are handed over open and have no name outside /dev and /proc.
    let system = path.starts_with("/dev") || path.starts_with("/proc");
    if !system && fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a named pipe, expected a file"));
    }
    let mut text = String::new();
    let mut file = File::open(path)?.take(LARGEST);
    file.read_to_string(&mut text)?;
    if file.into_inner().read(&mut [0])? > 0 {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(text)
}

/// The files of a folder that does not have to exist, in name order.
pub(super) fn toml_files(folder: &Path, report: &Report) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            report.incomplete();
            report.add(Problem::error(&Spot::file(folder, 0), format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml") && !hidden(path));
    files.sort();
    files
}

/// Secrets are nobody's business but the gateway's.
fn check_mode(clients: &Path, source: usize, report: &Report) {
    let mode = fs::metadata(clients).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        let problem =
            Problem::warning(&Spot::file(clients, source), "every user of this machine can open the secrets");
        report.add(problem.allowed("mode 0640"));
    }
}

/// The machine that the program runs on.
#[derive(Debug)]
struct Machine {
    credentials: PathBuf,
}

impl Surroundings for Machine {
    fn credentials(&self) -> Option<&Path> {
        Some(&self.credentials)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        read(path)
    }

    fn missing(&self, path: &Path) -> bool {
        matches!(path.try_exists(), Ok(false))
    }

    fn canonical(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }

    fn stable_name(&self, port: &str) -> Option<String> {
        adapter::is_counted(port).then(|| {
            adapter::stable_name(Path::new(port), Path::new(adapter::BY_ID)).map_or_else(
                || format!("take its stable name under {}", adapter::BY_ID),
                |stable| format!("its stable name is {}", stable.display()),
            )
        })
    }

    fn timezone(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::system()
    }
}

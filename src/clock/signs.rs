//! Whether the system says that its clock was set.
//!
//! systemd-timesyncd leaves a file behind when it has set the clock, until the next start of the machine. Whatever else
//! may have set it (chrony, ntpsec) tells the kernel, and the kernel's word is asked of `timedatectl`: the call itself
//! (`adjtimex`) is one that the sandbox of the service refuses, and needs unsafe code.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// There from the moment on when systemd-timesyncd has set the clock.
const FILE: &str = "/run/systemd/timesync/synchronized";

/// There where systemd runs the machine, and so somebody answers `timedatectl`.
const SYSTEMD: &str = "/run/systemd/system";

/// How long the answer may take: somebody may have to be started for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether systemd-timesyncd has set the clock.
pub(super) fn left_behind() -> bool {
    Path::new(FILE).exists()
}

/// Whether there is anybody to ask.
pub(super) fn somebody_knows() -> bool {
    Path::new(SYSTEMD).exists()
}

/// Whether the kernel says that somebody has set the clock; `false` where nobody can tell.
pub(super) async fn kernel_says() -> bool {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output.status.success() && output.stdout.trim_ascii() == b"yes",
        Ok(Err(_)) | Err(_) => false,
    }
}

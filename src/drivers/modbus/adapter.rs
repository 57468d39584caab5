//! What the system knows of a serial adapter: its stable name, and whether it holds back what it receives.
//!
//! Reads `/dev` and `/sys` and promises nothing: where they say nothing, there is nothing to advise.

use std::fs;
use std::path::{Path, PathBuf};

/// Where udev keeps names that follow the adapter and not the socket or the order of discovery.
pub const BY_ID: &str = "/dev/serial/by-id";

/// Where the kernel describes its terminals.
pub const TERMINALS: &str = "/sys/class/tty";

/// An FTDI adapter hands over what it has received after this many milliseconds at the latest. Its usual setting of
/// 16 makes each short answer that much later.
const LATENCY_FINE: u32 = 2;

/// Whether the name of a port counts the adapters in the order in which they were found.
pub fn is_counted(port: &str) -> bool {
    ["/dev/ttyUSB", "/dev/ttyACM"].iter().any(|stem| {
        let number = port.strip_prefix(stem).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The first name in this folder that leads to the same port.
pub fn stable_name(port: &Path, by_id: &Path) -> Option<PathBuf> {
    let real = port.canonicalize().ok()?;
    let mut names: Vec<PathBuf> =
        fs::read_dir(by_id).ok()?.filter_map(|name| Some(name.ok()?.path())).collect();
    names.sort();
    names.into_iter().find(|name| name.canonicalize().is_ok_and(|other| other == real))
}

/// What could be said to whoever wonders why the bus is slow, if anything.
pub fn latency_advice(port: &Path, terminals: &Path) -> Option<String> {
    let real = port.canonicalize().ok()?;
    let file = terminals.join(real.file_name()?).join("device/latency_timer");
    let millis: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (millis > LATENCY_FINE).then(|| {
        format!(
            "the adapter keeps answers back for up to {millis} ms; set its latency timer to 1 by a udev rule: \
             ACTION==\"add\", SUBSYSTEM==\"usb-serial\", DRIVER==\"ftdi_sio\", ATTR{{latency_timer}}=\"1\""
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_names_that_count_adapters_are_called_so() {
        assert!(is_counted("/dev/ttyUSB0") && is_counted("/dev/ttyACM12"));
        for stable in ["/dev/serial/by-id/usb-a-port0", "/dev/ttyS0", "/dev/ttyUSB", "/dev/ttyUSB-meters"] {
            assert!(!is_counted(stable), "{stable}");
        }
    }

    #[test]
    fn the_name_that_leads_to_the_same_port_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (port, by_id) = (folder.path().join("ttyUSB0"), folder.path().join("by-id"));
        fs::create_dir(&by_id).unwrap();
        fs::write(&port, "").unwrap();
        fs::write(folder.path().join("ttyUSB1"), "").unwrap();
        symlink("../ttyUSB1", by_id.join("a")).unwrap();
        symlink("../gone", by_id.join("b")).unwrap();
        symlink("../ttyUSB0", by_id.join("c")).unwrap();
        assert_eq!(stable_name(&port, &by_id), Some(by_id.join("c")));
        assert_eq!(stable_name(&folder.path().join("ttyUSB2"), &by_id), None);
        assert_eq!(stable_name(&port, &folder.path().join("nothing")), None);
    }

    #[test]
    fn a_slow_latency_timer_is_told_with_the_rule_against_it() {
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("ttyUSB0");
        fs::write(&port, "").unwrap();
        let device = folder.path().join("sys/ttyUSB0/device");
        fs::create_dir_all(&device).unwrap();
        let advice = |millis: &str| {
            fs::write(device.join("latency_timer"), millis).unwrap();
            latency_advice(&port, &folder.path().join("sys"))
        };
        let told = advice("16\n").unwrap();
        assert!(told.contains("16 ms") && told.contains("ATTR{latency_timer}=\"1\""), "{told}");
        assert_eq!(advice("1\n"), None);
        assert_eq!(advice("what"), None);
    }
}

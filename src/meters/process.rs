//! What the process itself costs, as the kernel counts it, under the names that clients of Prometheus agree on.
//!
//! A figure that the kernel does not give is left out.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The process's figures in the text form of Prometheus. `alive` is how long it has been running.
pub fn text(alive: Duration) -> String {
    let figures = [
        ("process_cpu_seconds_total", "counter", "Processor time used", cpu_seconds()),
        ("process_resident_memory_bytes", "gauge", "Memory in use", status("VmRSS:")),
        ("process_peak_memory_bytes", "gauge", "Most memory that was in use", status("VmHWM:")),
        ("process_threads", "gauge", "Threads", fs::read_dir("/proc/self/task").ok().map(count)),
        (
            "process_open_fds",
            "gauge",
            "Open files and sockets",
            fs::read_dir("/proc/self/fd").ok().map(count),
        ),
        ("process_uptime_seconds", "gauge", "Time since the start", Some(alive.as_secs_f64())),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in figures {
        if let Some(value) = value {
            // Writing into a string cannot fail.
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").ok();
        }
    }
    text
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn seconds(time: TimeVal) -> f64 {
    let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64()
}

/// A line of `/proc/self/status` that is given in kB, as bytes.
fn status(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kilobytes(&status, name)
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(number) * 1024.0)
}

fn count(entries: fs::ReadDir) -> f64 {
    f64::from(u32::try_from(entries.count()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_told_with_their_kinds() {
        let text = text(Duration::from_millis(1500));
        for line in ["# TYPE process_cpu_seconds_total counter", "process_uptime_seconds 1.5"] {
            assert!(text.lines().any(|each| each == line), "{line} is missing in\n{text}");
        }
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_threads "] {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{line}");
        }
    }

    #[test]
    fn a_status_line_counts_kilobytes() {
        assert_eq!(kilobytes("VmPeak:\t 10 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_097_152.0));
        assert_eq!(kilobytes("Name:\tpentad\n", "VmRSS:"), None);
    }
}

//! Rules of the source tree that no lint knows: purity of the pure parts, headers, sizes, who may import whom.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Most lines of a file; a longer one does two things.
const MOST_LINES: usize = 600;

/// Parts that must run without IO: what they may not mention.
const IMPURE: [&str; 9] = [
    "tokio",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "rumqttc",
    "hyper",
    "crate::clock",
    "Instant::now",
    "SystemTime",
];

/// Files and folders that are pure.
const PURE: [&str; 49] = [
    "src/backoff.rs",
    "src/model/",
    "src/proto/",
    "src/dialects/",
    "src/hub/state/",
    "src/hub/point.rs",
    "src/hub/events.rs",
    "src/hub/computed.rs",
    "src/hub/device.rs",
    "src/hub/alarms.rs",
    "src/hub/commands.rs",
    "src/hub/index.rs",
    "src/hub/journal.rs",
    "src/hub/leases/",
    "src/hub/groups/",
    "src/hub/client_alarms.rs",
    "src/hub/documents.rs",
    "src/hub/effect.rs",
    "src/hub/revive.rs",
    "src/hub/links.rs",
    "src/store/bytes.rs",
    "src/store/record/",
    "src/drivers/modbus/codec/",
    "src/drivers/modbus/core/",
    "src/drivers/modbus/job/",
    "src/drivers/modbus/map.rs",
    "src/drivers/modbus/scan/meaning.rs",
    "src/drivers/modbus/scan/mark.rs",
    "src/drivers/modbus/scan/plausible.rs",
    "src/drivers/modbus/scan/starter.rs",
    "src/drivers/modbus/silence.rs",
    "src/drivers/mqtt/route.rs",
    "src/drivers/mqtt/body.rs",
    "src/drivers/mqtt/discover.rs",
    "src/drivers/mqtt/feed.rs",
    "src/drivers/mqtt/map.rs",
    "src/drivers/mqtt/presence.rs",
    "src/drivers/mqtt/path.rs",
    "src/drivers/mqtt/payload.rs",
    "src/drivers/mqtt/session.rs",
    "src/drivers/mqtt/state/",
    "src/drivers/mqtt/station.rs",
    "src/drivers/mqtt/template.rs",
    "src/drivers/mqtt/waiting.rs",
    "src/drivers/wear.rs",
    "src/demo/gadgets/lamp.rs",
    "src/demo/gadgets/plug.rs",
    "src/demo/gadgets/shelly.rs",
    "src/demo/plant.rs",
];

const DIALECTS: [&str; 5] = ["janus", "sagoo", "ithings", "oam", "uplus"];

#[test]
fn every_source_file_says_what_it_owns() {
    check(&rust_files(), |path, text| {
        (!text.starts_with("//!")).then(|| format!("{path} does not open with a //! header"))
    });
}

#[test]
fn no_file_is_longer_than_its_limit() {
    check(&rust_files(), |path, text| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("{path} has {lines} lines; split it below {MOST_LINES}"))
    });
}

#[test]
fn pure_parts_mention_no_io_and_no_clock() {
    let pure: Vec<_> = rust_files().into_iter().filter(|(path, _)| is_pure(path)).collect();
    assert!(pure.len() > 20, "the list of pure parts matches only {} files", pure.len());
    check(&pure, |path, text| {
        // Tests need one instant to count from, and only the clock gives instants.
        let tested = if path.ends_with("tests.rs") { "" } else { text };
        let code = code_lines(tested.split("#[cfg(test)]").next().unwrap_or_default());
        let found = IMPURE.iter().find(|word| code.contains(*word))?;
        Some(format!("{path} is pure but mentions {found}"))
    });
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|part| path.starts_with(part))
        && !path.ends_with("/tests.rs")
        && !path.ends_with("/fixture.rs")
}

#[test]
fn protocols_do_not_know_the_model() {
    let protocols: Vec<_> =
        rust_files().into_iter().filter(|(path, _)| path.starts_with("src/proto/")).collect();
    check(&protocols, |path, text| {
        let code = code_lines(text);
        let found = ["crate::model", "crate::dialects", "crate::hub", "crate::drivers"]
            .into_iter()
            .find(|word| code.contains(word))?;
        Some(format!("{path} imports {found}"))
    });
}

#[test]
fn no_dialect_imports_another() {
    check(&rust_files(), |path, text| {
        let own = DIALECTS.into_iter().find(|name| path.starts_with(&format!("src/dialects/{name}/")))?;
        let code = code_lines(text);
        let other = DIALECTS.into_iter().filter(|name| *name != own).find(|name| {
            code.contains(&format!("dialects::{name}")) || code.contains(&format!("super::super::{name}"))
        })?;
        Some(format!("{path} imports the dialect {other}"))
    });
}

#[test]
fn serde_shapes_stand_only_in_wire_files() {
    check(&rust_files(), |path, text| {
        let inside = path.starts_with("src/model/")
            || path.starts_with("src/hub/")
            || (path.starts_with("src/dialects/") && !path.ends_with("wire.rs"));
        let code = code_lines(text);
        let found = ["derive(Serialize", "derive(Deserialize", "Serialize)]", "Deserialize)]"]
            .into_iter()
            .find(|word| code.contains(word))?;
        inside.then(|| format!("{path} has {found}; wire shapes belong into wire.rs"))
    });
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    // Spelled in two halves so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("#[ign", "ore")];
    check(&rust_files(), |path, text| {
        let found = words.into_iter().find(|word| text.contains(word))?;
        Some(format!("{path} contains {found}"))
    });
}

#[test]
fn the_lock_of_the_client_libraries_names_versions_and_checksums_but_no_server() {
    let lock =
        std::fs::read_to_string(root().join("tests/clients/package-lock.json")).expect("the lock is there");
    assert!(lock.contains("\"integrity\""), "the lock has no checksums");
    let found = lock.lines().find(|line| line.contains("://") || line.contains("\"resolved\""));
    assert_eq!(found, None, "npm install in tests/clients, with its .npmrc, writes it without addresses");
}

/// A search that found nothing in another version of a library says nothing about ours.
#[test]
fn the_fuzz_targets_are_locked_to_the_versions_that_the_program_is_built_with() {
    let [ours, searched] = ["Cargo.lock", "fuzz/Cargo.lock"].map(locked);
    let names: BTreeSet<_> = ours.iter().map(|(name, _)| name).collect();
    let other: Vec<_> =
        searched.iter().filter(|package| names.contains(&package.0) && !ours.contains(package)).collect();
    assert!(other.is_empty(), "cargo update --manifest-path fuzz/Cargo.toml --precise: {other:?}");
}

/// Names and versions of the packages of a lock file.
fn locked(file: &str) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(root().join(file)).expect("the lock is there");
    let of = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut lines = text.lines();
    let mut packages = BTreeSet::new();
    while let Some(name) = lines.find_map(|line| of(line, "name = ")) {
        packages
            .insert((name, lines.find_map(|line| of(line, "version = ")).expect("a version after a name")));
    }
    assert!(packages.len() > 10, "{file} names hardly a package");
    packages
}

#[test]
fn every_decision_record_has_date_and_status() {
    let folder = root().join("docs/decisions");
    let mut records = 0;
    for entry in std::fs::read_dir(&folder).expect("docs/decisions is there") {
        let path = entry.expect("a readable entry").path();
        let text = std::fs::read_to_string(&path).expect("a decision record is text");
        records += 1;
        assert!(
            text.contains("Date: 20") && text.contains("Status: "),
            "{} lacks date or status",
            path.display()
        );
    }
    assert!(records > 0, "there are no decision records");
}

/// These are merged by union, which leaves both where two people have changed the same line.
#[test]
fn no_merge_has_left_a_line_or_a_row_of_a_table_twice() {
    let mut twice = Vec::new();
    for path in ["ARCHITECTURE.md", "CHANGELOG.md", "docs/decisions/0004-dependencies.md"] {
        let text = std::fs::read_to_string(root().join(path)).expect("a document is text");
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| line.len() > 40) {
            let mark = line.strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or(line);
            if !seen.insert(mark) {
                twice.push(format!("{path} has this twice: {mark}"));
            }
        }
        assert!(!seen.is_empty(), "{path} is empty");
    }
    assert!(twice.is_empty(), "{}", twice.join("\n"));
}

/// Every transcript has its place in the table of its dialect, and every name there is a transcript of that dialect or
/// a test function.
#[test]
fn the_feature_tables_and_the_transcripts_name_each_other() {
    let document =
        std::fs::read_to_string(root().join("docs/dialects.md")).expect("docs/dialects.md is text");
    let code = rust_files().into_iter().fold(String::new(), |all, (_, text)| all + &text);
    let mut wrong = Vec::new();
    for dialect in DIALECTS {
        let heading = format!("\n## {dialect}\n");
        let (_, section) = document.split_once(&heading).expect("every dialect has its table");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter_map(|row| row.strip_suffix(" |")?.rsplit_once(" | "));
        let named: Vec<&str> = rows.flat_map(|(_, shown)| shown.split('`').skip(1).step_by(2)).collect();
        let folder = root().join("tests/transcripts").join(dialect);
        for name in &named {
            let there = if name.contains('_') {
                // A fuzz target is a plain function, a test one without arguments.
                code.contains(&format!("fn {name}("))
            } else {
                folder.join(format!("{name}.txt")).is_file()
            };
            if !there {
                wrong.push(format!("docs/dialects.md names {name} for {dialect}, which does not exist"));
            }
        }
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if !named.contains(&name.as_str()) {
                wrong.push(format!("docs/dialects.md has no row for the {dialect} transcript {name}"));
            }
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lines without comments, so that documentation may name what code may not, and without an inline test module.
fn code_lines(text: &str) -> String {
    let code = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |mut code, line| {
        writeln!(code, "{line}").expect("a string takes all");
        code
    })
}

fn check(files: &[(String, String)], rule: impl Fn(&str, &str) -> Option<String>) {
    let broken: Vec<String> = files.iter().filter_map(|(path, text)| rule(path, text)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of `src` and `tests` with its path from the root, in path order.
fn rust_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "fuzz"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "node_modules" && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative =
                    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((relative, std::fs::read_to_string(&path).expect("source is text")));
            }
        }
    }
    found.sort();
    found
}

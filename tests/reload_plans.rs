//! What a changed configuration is said to change, case by case: `tests/reload/NAME.txt`, each an edit of
//! `tests/reload/base.toml`.
//!
//! `- ` lines stand in the base and are taken out, `+ ` lines come in their place, or at the end where nothing was taken
//! out; an empty line begins another edit. `= ` lines are what the difference says, `! ` lines what only a restart can
//! change. A run with `PENTAD_BLESS=1` writes what was found.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot read its own files has failed")]

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use pentad::config::{Config, Difference, Source, resolve};

#[path = "common/files.rs"]
#[expect(dead_code, unreachable_pub, clippy::panic, reason = "other tests share it")]
mod files;

use files::{paths, root};

#[test]
fn every_case_says_what_changes() {
    let base = fs::read_to_string(root().join("tests/reload/base.toml")).expect("the base is there");
    let cases = paths("tests/reload", "txt");
    assert!(cases.len() >= 15, "only {} cases were found", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case, &base)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_configuration_shares_with_the_running_one_what_they_have_in_common() {
    let base = fs::read_to_string(root().join("tests/reload/base.toml")).expect("the base is there");
    let (old, again) = (configuration(&base), configuration(&base));
    let new = again.reusing(&old);
    for (old, new) in old.devices.iter().zip(&new.devices) {
        assert!(std::sync::Arc::ptr_eq(old, new), "{}", old.id);
    }
    for (old, new) in old.clients.clients().iter().zip(new.clients.clients()) {
        assert!(std::sync::Arc::ptr_eq(old, new), "{}", old.id);
    }
    // A device that differs still shares its product with those that do not.
    let renamed = configuration(&base.replace("\"Meter 2\"", "\"Second meter\"")).reusing(&old);
    let product = |config: &Config, at: usize| {
        config.devices.get(at).map(|device| std::sync::Arc::clone(&device.product)).expect("a device")
    };
    assert!(std::sync::Arc::ptr_eq(&product(&old, 0), &product(&renamed, 1)));
    let on_bus = renamed.buses.iter().flat_map(|bus| &bus.devices).map(|each| &each.device);
    for device in on_bus {
        assert!(renamed.devices.iter().any(|known| std::sync::Arc::ptr_eq(known, device)), "{}", device.id);
    }
}

/// What differs, if anything.
fn check(case: &Path, base: &str) -> Option<String> {
    let text = fs::read_to_string(case).expect("a case is text");
    let edits: String =
        text.lines().filter(|line| !line.starts_with(['=', '!'])).fold(String::new(), |mut edits, line| {
            writeln!(edits, "{line}").expect("a string takes all");
            edits
        });
    let old = configuration(base);
    let new = configuration(&edited(base, &edits)).reusing(&old);
    let difference = Difference::between(&old, &new);
    let mut found = edits.trim_end().to_owned() + "\n\n";
    for (mark, lines) in [("!", &difference.restart), ("=", &difference.lines)] {
        for line in lines {
            writeln!(found, "{mark} {line}").expect("a string takes all");
        }
    }
    if env::var_os("PENTAD_BLESS").is_some() {
        fs::write(case, &found).expect("the case can be written");
    }
    let back = Difference::between(&new, &new.clone().reusing(&new));
    assert!(back.is_empty(), "{}: nothing lies between a configuration and itself: {back}", case.display());
    assert!(!difference.to_string().contains("-secret"), "{}: a secret shows", case.display());
    (found != text).then(|| format!("{}\n  expected:\n{text}  found:\n{found}", case.display()))
}

fn edited(base: &str, edits: &str) -> String {
    let mut text = base.to_owned();
    for edit in edits.split("\n\n") {
        let lines = |mark: &str| -> String {
            edit.lines()
                .filter_map(|line| line.strip_prefix(mark))
                .fold(String::new(), |all, line| all + line.strip_prefix(' ').unwrap_or(line) + "\n")
        };
        let (out, come) = (lines("-"), lines("+"));
        if out.is_empty() {
            text.push_str(&come);
        } else {
            assert_eq!(text.matches(&out).count(), 1, "stands in the base once: {out}");
            text = text.replace(&out, &come);
        }
    }
    text
}

fn configuration(text: &str) -> Config {
    let mut sources: Vec<Source> = ["eastron-sdm120", "tasmota-plug"].into_iter().map(product).collect();
    sources.push(Source { name: "pentad.toml".into(), text: text.to_owned() });
    resolve(&sources).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

fn product(name: &str) -> Source {
    let path = root().join(format!("products/{name}.toml"));
    Source { text: fs::read_to_string(&path).expect("a shipped product"), name: path }
}

//! What a wrong configuration is told, case by case: `tests/config/NAME.toml` beside `NAME.expected`.
//!
//! A case may hold several files: a line `#= PATH` begins the next one, the text before the first such line is
//! `pentad.toml`. The shipped products are always there. The expected text is the problems line by line, or, for a
//! configuration that loads, `loads` and then its warnings. A run with `PENTAD_BLESS=1` writes what was found.

#![expect(clippy::expect_used, reason = "a test that cannot read its own files has failed")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use pentad::config::{Places, Source, load, resolve};

#[path = "common/files.rs"]
#[expect(dead_code, unreachable_pub, clippy::panic, reason = "other tests share it")]
mod files;

use files::{paths, root};

#[test]
fn every_case_is_told_what_is_wrong() {
    let cases = paths("tests/config", "toml");
    assert!(cases.len() >= 30, "only {} cases were found", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What differs, if anything.
fn check(case: &Path) -> Option<String> {
    let mut sources = products();
    sources.extend(split(&fs::read_to_string(case).expect("a case is text")));
    let found = match resolve(&sources) {
        Ok(loaded) => {
            loaded.warnings.iter().fold("loads\n".to_owned(), |text, warning| format!("{text}{warning}\n"))
        }
        Err(problems) => format!("{problems}\n"),
    };
    let file = case.with_extension("expected");
    if env::var_os("PENTAD_BLESS").is_some() {
        fs::write(&file, &found).expect("the expectation can be written");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    (found != expected).then(|| format!("{}\n  expected:\n{expected}  found:\n{found}", case.display()))
}

fn split(text: &str) -> Vec<Source> {
    let mut sources = vec![Source { name: "pentad.toml".into(), text: String::new() }];
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#= ") {
            sources.push(Source { name: name.into(), text: String::new() });
        } else if let Some(source) = sources.last_mut() {
            source.text.push_str(line);
            source.text.push('\n');
        }
    }
    sources
}

fn products() -> Vec<Source> {
    ["eastron-sdm120", "shelly-gen2-switch", "tasmota-plug", "zigbee2mqtt-lamp"]
        .into_iter()
        .map(|name| {
            let name = format!("products/{name}.toml");
            let text = fs::read_to_string(root().join(&name)).expect("a shipped product is text");
            Source { name: name.into(), text }
        })
        .collect()
}

/// A folder like /etc/pentad.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder can be made"));
        for (name, text) in files {
            let path = folder.path(name);
            fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a folder can be made");
            fs::write(&path, text).expect("a file can be written");
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn places(&self) -> Places {
        Places { products: root().join("products"), ..Places::of(self.path("pentad.toml")) }
    }

    /// The result as text, with the folder's own path left out.
    fn told(&self) -> String {
        let text = match load(&self.places()) {
            Ok(loaded) => {
                loaded.warnings.iter().fold("loads".to_owned(), |text, warning| format!("{text}\n{warning}"))
            }
            Err(problems) => problems.to_string(),
        };
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const METER: &str = r#"
[gateway]
id = "g"
[[serial]]
id = "line"
port = "/dev/null"
[[device]]
id = "meter-1"
product = "eastron-sdm120"
bus = "line"
unit = 1
"#;

const CLIENT: &str = "[[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n";

#[test]
fn files_beside_the_main_one_are_read_in_order_and_the_last_word_holds() {
    let folder = Folder::new(&[
        ("pentad.toml", METER),
        ("conf.d/20-late.toml", "[gateway]\nname = \"late\"\n"),
        ("conf.d/10-early.toml", "[gateway]\nname = \"early\"\narea = \"7\"\n"),
        ("conf.d/.hidden.toml", "not = \"read\"\n"),
        ("conf.d/notes.txt", "not read either\n"),
        (
            "conf.d/30-more.toml",
            "[[device]]\nid = \"meter-2\"\nproduct = \"eastron-sdm120\"\nbus = \"line\"\nunit = 2\n",
        ),
        ("clients.toml", CLIENT),
    ]);
    let config = load(&folder.places()).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!((&*config.gateway.id, &*config.gateway.name, &*config.gateway.area), ("g", "late", "7"));
    assert_eq!(config.devices.len(), 2);
    assert_eq!(config.clients.clients().len(), 1);
}

#[test]
fn a_product_beside_the_main_file_replaces_the_shipped_one() {
    let product = r#"
        [[product]]
        id = "eastron-sdm120"
        name = "Ours"
        property = [{ id = "voltage", type = "float", modbus = { table = "input", address = 0, type = "f32" } }]
    "#;
    let folder =
        Folder::new(&[("pentad.toml", METER), ("products/ours.toml", product), ("clients.toml", CLIENT)]);
    let config = load(&folder.places()).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!(&*config.devices[0].product.name, "Ours");
}

#[test]
fn clients_may_come_as_a_service_credential() {
    let folder = Folder::new(&[("pentad.toml", METER), ("credentials/clients.toml", CLIENT)]);
    let places = Places { credentials: Some(folder.path("credentials")), ..folder.places() };
    let config = load(&places).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!(config.clients.clients().len(), 1);
}

#[test]
fn a_password_may_be_a_service_credential() {
    let broker = |name: &str| {
        format!(
            "{METER}\n[[mqtt]]\nid = \"b\"\nurl = \"mqtt://127.0.0.1\"\nusername = \"u\"\npassword_file = \"{name}\"\n"
        )
    };
    let told = |name: &str| {
        let files =
            [("pentad.toml", broker(name)), ("credentials/word", "a-word-that-never-shows\n".to_owned())];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let folder = Folder::new(&files);
        let places = Places { credentials: Some(folder.path("credentials")), ..folder.places() };
        load(&places).map(|_| ()).map_err(|problems| problems.to_string())
    };
    assert_eq!(told("credential:word"), Ok(()));
    let missing = told("credential:other").unwrap_err();
    assert!(missing.contains("credentials/other does not exist; LoadCredential= hands it over"), "{missing}");
    let outside = told("credential:../pentad.toml").unwrap_err();
    assert!(outside.contains("credential: and a name without a slash"), "{outside}");
}

#[test]
fn a_missing_main_file_is_a_problem_and_the_others_are_read_all_the_same() {
    let folder = Folder::new(&[("clients.toml", "[[client]]\nid = 1\nsecret = \"long-enough-secret\"\n")]);
    let told = folder.told();
    assert!(told.contains("pentad.toml: cannot be read: No such file"), "{told}");
    assert!(told.contains("clients.toml:2: client[0].id: found 1"), "{told}");
}

#[test]
fn a_file_that_is_no_text_is_a_problem() {
    let folder = Folder::new(&[("pentad.toml", METER)]);
    fs::create_dir(folder.path("conf.d")).unwrap();
    fs::write(folder.path("conf.d/10-latin.toml"), b"name = \"\xE9\"\n").unwrap();
    let told = folder.told();
    assert!(told.contains("conf.d/10-latin.toml: cannot be read"), "{told}");
}

#[test]
fn one_serial_port_under_two_names_is_found_out() {
    let folder = Folder::new(&[("tty-real", "")]);
    std::os::unix::fs::symlink(folder.path("tty-real"), folder.path("tty-alias")).unwrap();
    let line = |id: &str, port: &str| {
        format!("[[serial]]\nid = \"{id}\"\nport = \"{}\"\n", folder.path(port).display())
    };
    let text = format!("[gateway]\nid = \"g\"\n{}{}", line("a", "tty-real"), line("b", "tty-alias"));
    fs::write(folder.path("pentad.toml"), text).unwrap();
    let told = folder.told();
    assert!(told.contains("serial[1].port: "), "{told}");
    assert!(told.contains("tty-real is used already by serial[0].port"), "{told}");
}

#[test]
fn paths_count_from_the_file_that_they_stand_in() {
    let server = |key: &str| {
        format!(
            "{METER}\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"tls/cert.pem\"\nkey = \"{key}\"\n"
        )
    };
    let folder = Folder::new(&[("tls/cert.pem", ""), ("tls/key.pem", ""), ("clients.toml", CLIENT)]);
    fs::write(folder.path("pentad.toml"), server("tls/key.pem")).unwrap();
    let config = load(&folder.places()).unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!(config.server.tls.unwrap().certificate, folder.path("tls/cert.pem"));

    fs::write(folder.path("pentad.toml"), server("tls/kye.pem")).unwrap();
    let told = folder.told();
    assert!(told.contains("server.tls.key: found \"tls/kye.pem\""), "{told}");
    assert!(told.contains("tls/kye.pem does not exist"), "{told}");
}

#[test]
fn a_broker_password_comes_out_of_its_file_without_the_line_end() {
    let text = "[gateway]\nid = \"g\"\n[[mqtt]]\nid = \"b\"\nurl = \"mqtt://h\"\nusername = \"u\"\npassword_file = \"p\"\n";
    let folder = Folder::new(&[("pentad.toml", text), ("p", "pass word\n")]);
    let config = load(&folder.places()).unwrap_or_else(|problems| panic!("{problems}")).config;
    let (name, secret) = config.brokers[0].settings.login.clone().unwrap();
    assert_eq!((&*name, secret.reveal()), ("u", "pass word"));
}

#[test]
fn a_clients_file_that_everyone_can_open_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new(&[("pentad.toml", METER), ("clients.toml", CLIENT)]);
    let told = |mode| {
        fs::set_permissions(folder.path("clients.toml"), fs::Permissions::from_mode(mode)).unwrap();
        folder.told()
    };
    assert_eq!(told(0o640), "loads");
    assert!(told(0o644).contains("clients.toml: warning: every user of this machine"), "{}", told(0o644));
}

#[test]
fn a_file_that_never_ends_is_not_read_to_the_end() {
    let folder = Folder::new(&[("clients.toml", CLIENT)]);
    std::os::unix::fs::symlink("/dev/zero", folder.path("pentad.toml")).unwrap();
    let told = folder.told();
    assert!(told.contains("pentad.toml: cannot be read: it is larger than 16 MiB"), "{told}");
}

#[test]
fn a_named_pipe_is_not_waited_for() {
    let folder = Folder::new(&[("clients.toml", CLIENT)]);
    let made = std::process::Command::new("mkfifo").arg(folder.path("pentad.toml")).status().unwrap();
    assert!(made.success());
    let told = folder.told();
    assert!(told.contains("pentad.toml: cannot be read: it is a named pipe, expected a file"), "{told}");
}

#[test]
fn a_port_name_that_counts_adapters_is_warned_of() {
    let plant = METER.replace("/dev/null", "/dev/ttyUSB17");
    let folder = Folder::new(&[("pentad.toml", &plant), ("clients.toml", CLIENT)]);
    let told = folder.told();
    let expected = "pentad.toml:6: warning: serial[0].port: /dev/ttyUSB17 may be another adapter after a restart; \
                    take its stable name under /dev/serial/by-id";
    assert!(told.contains(expected), "{told}");
}

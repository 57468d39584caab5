//! `pentad scan` from outside, against slaves on a pseudo-terminal and behind TCP.

#![cfg(test)]

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;
use tokio_serial::SerialPortBuilderExt;

#[path = "common/slave.rs"]
#[expect(dead_code, reason = "shared with the tests of the driver")]
mod slave;

use slave::{Asked, Deed, Line, Server, World, exception, rtu};

const PRODUCTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/products");

/// In milliseconds: long enough for a slave that shares two cores with much else, short enough for tests.
const TIMEOUT: &str = "400";

/// Runs it to its end: exit code, output, errors.
async fn pentad(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pentad"));
    command.args(arguments).stdin(Stdio::null()).env_remove("PENTAD_LOG").kill_on_drop(true);
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("not killed"), text(stdout), text(stderr))
}

/// A meter at unit 1 with the registers of an SDM120, and at unit 5 a device that names itself and refuses all reads.
fn plant() -> World {
    let world = World::default();
    world.set(1, 0, &[0; 400]);
    for (address, value) in
        [(0, 231.4_f32), (6, 1.25), (12, 280.5), (18, 290.0), (24, 70.0), (30, 0.96), (70, 49.98)]
    {
        let bits = value.to_bits();
        world.set(1, address, &[u16::try_from(bits >> 16).unwrap(), u16::try_from(bits & 0xFFFF).unwrap()]);
    }
    world.script(|asked| match (asked.unit, asked.function) {
        (1, 3 | 4) => None,
        (5, 43) => Some(vec![Deed::Send(rtu(&names(asked)))]),
        (1 | 5, _) => Some(vec![Deed::Send(rtu(&exception(asked, 1)))]),
        _ => Some(Vec::new()),
    });
    world
}

fn names(asked: &Asked) -> Vec<u8> {
    [&[asked.unit, 43, 14, 1, 1, 0, 0, 2, 0, 4][..], b"Acme", &[1, 5], b"RX-77"].concat()
}

/// What `pentad check` says of a starter configuration.
async fn checked(folder: &Path, starter: &str) -> String {
    let path = folder.join("pentad.toml");
    std::fs::write(&path, starter).unwrap();
    let (code, stdout, stderr) =
        pentad(&["check", "--config", path.to_str().unwrap(), "--products", PRODUCTS]).await;
    assert_eq!(code, 0, "{starter}\n{stderr}");
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_of_a_line_become_a_configuration_that_can_be_checked() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::plug(&plant(), &folder.path().join("port"));
    let port = line.path.to_str().unwrap();
    let options = ["--baud", "9600,115200", "--parity", "none", "--units", "1-8", "--timeout", TIMEOUT];
    let (code, stdout, stderr) =
        pentad(&[&["scan", port, "--products", PRODUCTS][..], &options].concat()).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("9600 8N1: unit 1 answers: eastron-sdm120"), "{stderr}");
    assert!(stderr.contains("unit 5 answers: unknown Acme, RX-77"), "{stderr}");
    for words in [
        "product = \"eastron-sdm120\"",
        "unit = 1",
        "voltage 231.40 V",
        "unit 5 says: Acme",
        "baud_rate = 9600",
    ] {
        assert!(stdout.contains(words), "{words} is missing in {stdout}");
    }
    let told = checked(folder.path(), &stdout).await;
    assert!(told.contains("1 devices, 1 buses"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ascii_line_and_rtu_over_tcp_are_scanned_too() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::plug_ascii(&plant(), &folder.path().join("port"));
    let server = Server::start_rtu(&plant()).await;
    for (target, framing) in
        [(line.path.to_str().unwrap().to_owned(), "ascii"), (server.address.to_string(), "rtu")]
    {
        let options = ["--baud", "115200", "--parity", "none", "--units", "1-2", "--timeout", TIMEOUT];
        let arguments = ["scan", &target, "--framing", framing, "--products", PRODUCTS];
        let (code, stdout, stderr) = pentad(&[&arguments[..], &options].concat()).await;
        assert_eq!(code, 0, "{framing}: {stderr}");
        assert!(stdout.contains(&format!("framing = \"{framing}\"")), "{stdout}");
        checked(folder.path(), &stdout).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_for_every_unit_is_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    for unit in 0..=255 {
        world.set(unit, 0, &[42]);
    }
    let server = Server::start(&world, "127.0.0.1:0").await;
    let target = server.address.to_string();
    let (code, stdout, stderr) = pentad(&["scan", &target, "--products", PRODUCTS]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("answers whatever the unit"), "{stderr}");
    assert_eq!(stdout.matches("[[device]]").count(), 1, "{stdout}");
    assert!(stdout.contains("# 42 now"), "{stdout}");
    checked(folder.path(), &stdout).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_behind_a_tcp_gateway_are_found_one_by_one() {
    let world = World::default();
    world.set(3, 0, &[7]);
    // The gateway speaks for units that it does not reach.
    world.script(|asked| (asked.unit != 3).then(|| vec![Deed::Send(rtu(&exception(asked, 11)))]));
    let server = Server::start(&world, "127.0.0.1:0").await;
    let target = server.address.to_string();
    let (code, stdout, stderr) = pentad(&["scan", &target, "--units", "1-9", "--products", PRODUCTS]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((stdout.matches("[[device]]").count(), stdout.contains("unit = 3")), (1, true), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_up_costs_no_unit_that_answers() {
    let world = World::default();
    for unit in [3, 4, 8] {
        world.set(unit, 0, &[u16::from(unit)]);
    }
    // Unit 3 knows no identification, and the gateway says so in its own way; to unit 5 it says nothing else at all.
    // And it ends a connection once for no reason.
    let mut asked_unit_8 = 0;
    world.script(move |asked| match (asked.unit, asked.function) {
        (3, 17 | 43) | (5, _) => Some(vec![Deed::HangUp]),
        (8, 3) => {
            asked_unit_8 += 1;
            (asked_unit_8 == 1).then(|| vec![Deed::HangUp])
        }
        (3 | 4 | 8, 3 | 4) => None,
        _ => Some(vec![Deed::Send(rtu(&exception(asked, 11)))]),
    });
    let server = Server::start(&world, "127.0.0.1:0").await;
    let target = server.address.to_string();
    let (code, stdout, stderr) = pentad(&["scan", &target, "--units", "1-9", "--products", PRODUCTS]).await;
    assert_eq!(code, 0, "{stderr}");
    for unit in [3, 4, 8] {
        assert!(stdout.contains(&format!("\nunit = {unit}\n")), "{unit}: {stdout}\n{stderr}");
    }
    assert_eq!(stdout.matches("[[device]]").count(), 3, "{stdout}");
    assert!(stderr.contains("the port was lost at unit 5 and opened again"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_told_although_the_port_cannot_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 0, &[7]);
    let path = folder.path().join("port");
    let line = Line::plug(&world, &path);
    let port = path.clone();
    // At unit 2 the name of the port goes: it is still open, and cannot be opened with the next setting of the line.
    world.script(move |asked| match (asked.unit, asked.function) {
        (1, 3 | 4) => None,
        (2, _) => {
            std::fs::remove_file(&port).ok();
            Some(Vec::new())
        }
        _ => Some(vec![Deed::Send(rtu(&exception(asked, 1)))]),
    });
    let options = ["--units", "1-9", "--baud", "9600", "--parity", "none,even", "--products", PRODUCTS];
    let (code, stdout, stderr) = pentad(&[&["scan", path.to_str().unwrap()][..], &options].concat()).await;
    drop(line);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("\nunit = 1\n"), "{stdout}");
    assert!(stderr.contains("9600 8E1: cannot open serial port"), "{stderr}");
    assert!(stderr.contains("not everything could be looked at"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_an_rts_line_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::plug(&plant(), &folder.path().join("port"));
    let (code, _, stderr) =
        pentad(&["scan", line.path.to_str().unwrap(), "--units", "1", "--rs485", "rts"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("by RTS"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_registers_is_decoded_by_what_the_display_shows() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::plug(&plant(), &folder.path().join("port"));
    let place = ["scan", line.path.to_str().unwrap(), "--parity", "none", "--decode", "1:input:0+14"];
    let (code, stdout, stderr) = pentad(&[&place[..], &["--expect", "280"]].concat()).await;
    assert_eq!(code, 0, "{stderr}");
    let best = stdout.lines().find(|line| line.starts_with("modbus")).unwrap_or_else(|| panic!("{stdout}"));
    assert_eq!(best, "modbus = { table = \"input\", address = 12, type = \"f32\" } # 280.5");
    let (code, stdout, _) = pentad(&place).await;
    assert_eq!(code, 0);
    assert!(stdout.contains("address = 0, type = \"f32\" } # 231.4"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_an_empty_line_are_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::plug(&plant(), &folder.path().join("port"));
    let port = line.path.to_str().unwrap();
    let owner = tokio_serial::new(port, 9600).open_native_async().unwrap();
    let (code, _, stderr) = pentad(&["scan", port, "--units", "1"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("in use by another program"), "{stderr}");
    drop(owner);
    let options = ["--units", "2-3", "--timeout", "100", "--baud", "9600", "--parity", "none"];
    let (code, stdout, stderr) = pentad(&[&["scan", port][..], &options].concat()).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("no unit answered"), "{stderr}");
    let (code, _, stderr) = pentad(&["scan", port, "--framing", "tcp"]).await;
    assert_eq!(code, 64, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_port_at_all_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("ttyUSB7");
    for (target, wanted, words) in [
        ("", 64, "give a serial port such as /dev/ttyUSB0"),
        ("null", 64, "did you mean /dev/null?"),
        ("/dev/null", 1, "/dev/null is no serial port"),
        (folder.path().to_str().unwrap(), 1, "is no serial port"),
        (gone.to_str().unwrap(), 1, "cannot open serial port"),
    ] {
        let (code, stdout, stderr) = pentad(&["scan", target, "--units", "1"]).await;
        assert_eq!((code, stdout.as_str()), (wanted, ""), "{target}: {stderr}");
        assert!(stderr.contains(words), "{target}: {stderr}");
    }
}

/// Text in registers, two characters in each, with zeros behind it.
fn text(words: &str, registers: usize) -> Vec<u16> {
    let mut bytes = words.as_bytes().to_vec();
    bytes.resize(registers * 2, 0);
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_shows_what_it_is_is_recognised_and_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    // The same readings everywhere: only the signs tell these apart.
    for unit in 1..=7 {
        world.set(unit, 0, &[2301; 200]);
    }
    world.set(1, 40000, &text("SunS", 2));
    world.set(1, 40069, &[103]);
    world.set(2, 11, &[71]);
    world.set(3, 0, &[3]);
    world.set(4, 49, &text("iEM3255", 20));
    // Signs of two products at once: both are named.
    world.set(5, 40000, &text("SunS", 2));
    world.set(5, 40069, &[101]);
    world.set(5, 11, &[73]);
    world.set(6, 11, &[74]);
    world.set(7, 30000, &text("SUN2000-10KTL-M1", 15));
    let line = Line::plug(&world, &folder.path().join("port"));
    let port = line.path.to_str().unwrap();
    let options = ["--baud", "115200", "--parity", "none", "--units", "1-7", "--timeout", TIMEOUT];
    let (code, stdout, stderr) =
        pentad(&[&["scan", port, "--products", PRODUCTS][..], &options].concat()).await;
    assert_eq!(code, 0, "{stderr}");
    for words in [
        "# recognised as sunspec-inverter-103 by holding registers 40000 to 40001 and holding register 40069\n[[device]]\nid = \"unit-1\"\nproduct = \"sunspec-inverter-103\"",
        "# recognised as gavazzi-em24 by input register 11\n[[device]]\nid = \"unit-2\"",
        "# recognised as deye-hybrid-1p by holding register 0\n[[device]]\nid = \"unit-3\"",
        "# recognised as schneider-iem3155 by holding registers 49 to 68\n[[device]]\nid = \"unit-4\"",
        "# recognised as huawei-sun2000 by holding registers 30000 to 30014\n[[device]]\nid = \"unit-7\"",
        "# it could also be sunspec-inverter-103\n[[device]]\nid = \"unit-5\"\nproduct = \"gavazzi-em24\"",
    ] {
        assert!(stdout.contains(words), "{words} is missing in {stdout}");
    }
    let last = stdout.split("unit = 5").last().unwrap().split("# recognised as huawei").next().unwrap();
    assert!(!last.contains("recognised") && !last.contains("gavazzi-em24"), "{last}");
    checked(folder.path(), &stdout).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_recognised_by_what_it_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let product = "[[product]]\nid = \"acme-rx77\"\n[product.modbus]\nidentify = [{ says = \"rx-77\" }]\n\
        [[product.property]]\nid = \"a\"\ntype = \"int\"\n\
        modbus = { table = \"holding\", address = 0, type = \"u16\" }\n";
    std::fs::write(folder.path().join("acme.toml"), product).unwrap();
    let server = Server::start(&plant(), "127.0.0.1:0").await;
    let target = server.address.to_string();
    let products = folder.path().to_str().unwrap();
    let options = ["scan", &target, "--units", "5-6", "--products", products, "--timeout", TIMEOUT];
    let (code, stdout, stderr) = pentad(&options).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("# recognised as acme-rx77 by its own words \"rx-77\""), "{stdout}");
}

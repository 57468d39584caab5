//! The built binary beside `sdm_modbus`, a library for real Eastron meters: both read the same simulated meters, which
//! pymodbus serves over TCP out of the dumps in tests/products/modbus, and have to find the same.

#![cfg(test)]

mod common;

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use common::port::Port;
use common::ws::{PATIENCE, http};
use serde_json::{Map, Value as Json, json};

const MODELS: [(&str, &str); 4] = [
    ("SDM120", "eastron-sdm120"),
    ("SDM230", "eastron-sdm230"),
    ("SDM630", "eastron-sdm630"),
    ("SDM72V2", "eastron-sdm72"),
];

const SINGLE: [(&str, &str); 14] = [
    ("voltage", "voltage"),
    ("current", "current"),
    ("active_power", "power_active"),
    ("apparent_power", "power_apparent"),
    ("reactive_power", "power_reactive"),
    ("power_factor", "power_factor"),
    ("phase_angle", "phase_angle"),
    ("frequency", "frequency"),
    ("import_energy", "import_energy_active"),
    ("export_energy", "export_energy_active"),
    ("import_reactive_energy", "import_energy_reactive"),
    ("export_reactive_energy", "export_energy_reactive"),
    ("energy", "total_energy_active"),
    ("reactive_energy", "total_energy_reactive"),
];

/// What the meters of three phases have in common.
const THREE: [(&str, &str); 13] = [
    ("voltage", "voltage_ln"),
    ("current", "total_line_current"),
    ("apparent_power", "total_power_apparent"),
    ("reactive_power", "total_power_reactive"),
    ("frequency", "frequency"),
    ("import_energy", "import_energy_active"),
    ("export_energy", "export_energy_active"),
    ("voltage_l1_l2", "l12_voltage"),
    ("voltage_l2_l3", "l23_voltage"),
    ("voltage_l3_l1", "l31_voltage"),
    ("neutral_current", "neutral_current"),
    ("energy", "total_energy_active"),
    ("reactive_energy", "total_energy_reactive"),
];

const OF_SDM630: [(&str, &str); 6] = [
    ("active_power", "total_power_active"),
    ("power_factor", "total_power_factor"),
    ("import_reactive_energy", "import_energy_reactive"),
    ("export_reactive_energy", "export_energy_reactive"),
    // A phase each, as `NAME_l1` here and `l1_NAME` there.
    ("import_energy_l", "import_energy_active"),
    ("export_energy_l", "export_energy_active"),
];

/// The library calls these two otherwise.
const OF_SDM72: [(&str, &str); 2] = [("active_power", "total_power"), ("power_factor", "total_pf")];

const PHASES: [(&str, &str); 6] = [
    ("voltage_l", "voltage"),
    ("current_l", "current"),
    ("active_power_l", "power_active"),
    ("apparent_power_l", "power_apparent"),
    ("reactive_power_l", "power_reactive"),
    ("power_factor_l", "power_factor"),
];

/// The names of every property of a model, ours and the library's.
fn names(model: &str) -> Vec<(String, String)> {
    let pairs: Vec<(&str, &str)> = match model {
        "SDM630" => THREE.into_iter().chain(PHASES).chain(OF_SDM630).collect(),
        "SDM72V2" => THREE.into_iter().chain(PHASES).chain(OF_SDM72).collect(),
        _ => SINGLE.to_vec(),
    };
    let expand = |(ours, theirs): (&str, &str)| -> Vec<(String, String)> {
        if ours.ends_with("_l") {
            (1..=3).map(|phase| (format!("{ours}{phase}"), format!("l{phase}_{theirs}"))).collect()
        } else {
            vec![(ours.to_owned(), theirs.to_owned())]
        }
    };
    pairs.into_iter().flat_map(expand).collect()
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A Python of the tests, made by tests/run.
fn python(environment: &str) -> Command {
    let python = tests().join(environment).join("bin/python");
    assert!(python.exists(), "{} is missing; tests/run makes it", python.display());
    Command::new(python)
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    /// Starts it and waits until it listens.
    async fn start(command: &mut Command, port: u16) -> Self {
        let running = Self(command.stdin(Stdio::null()).spawn().expect("it starts"));
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("it listens in time");
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn configuration(port: u16, meters: u16) -> String {
    let text = format!(
        "[gateway]\nid = \"gw\"\n[server]\nlisten = [\"127.0.0.1:{port}\"]\n[[modbus_tcp]]\nid = \"meters\"\naddress = \"127.0.0.1:{meters}\"\n\
         [[client]]\nid = \"c\"\nsecret = \"a-secret-that-never-shows\"\ndevices = [\"*\"]\ndialects = [\"oam\"]\nrights = [\"read\"]\n"
    );
    let device = |(unit, (_, product)): (u8, (_, &str))| {
        format!("[[device]]\nid = \"{product}\"\nproduct = \"{product}\"\nbus = \"meters\"\nunit = {unit}\n")
    };
    text + &(1..).zip(MODELS).map(device).collect::<String>()
}

/// The current values of a device, once it has all of them.
async fn current(port: u16, device: &str, count: usize) -> Map<String, Json> {
    let body = json!({"node": "meters", "mediaId": device}).to_string();
    let bearer = [("authorization", "Bearer a-secret-that-never-shows")];
    let complete = async {
        loop {
            let (_, answer) = http(port, "POST", "/api/stream/metrics", &bearer, &body).await;
            let answer: Json = serde_json::from_str(&answer).unwrap_or_default();
            // What was read together comes together, so there are several samples.
            let samples = answer["payload"].as_array().into_iter().flatten().filter_map(Json::as_object);
            let values: Map<String, Json> =
                samples.flatten().map(|(id, value)| (id.clone(), value.clone())).collect();
            // The time stands among them.
            if values.len() > count {
                return values;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, complete).await.expect("every value is read in time")
}

#[tokio::test]
async fn a_library_for_real_meters_reads_the_same_as_pentad() {
    let (of_meters, own) = (Port::free(), Port::free());
    let (meters, port) = (of_meters.number, own.number);
    let dumps = MODELS.map(|(_, product)| tests().join(format!("products/modbus/{product}.txt")));
    let mut server = python(".venv");
    server
        .arg(tests().join("counterparts/meters.py"))
        .arg(meters.to_string())
        .args(dumps)
        .stdout(Stdio::null());
    let _meters = Running::start(&mut server, meters).await;

    let mut library = python(".venv-meters");
    library.arg(tests().join("counterparts/read_meters.py")).arg(meters.to_string());
    let read = library.args(MODELS.map(|(model, _)| model)).output().expect("the library runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let theirs: Json = serde_json::from_slice(&read.stdout).expect("JSON");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("pentad.toml");
    fs::write(&config, configuration(port, meters)).expect("a writable folder");
    let log = folder.path().join("log");
    let binary = env::var_os("PENTAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pentad").into());
    let products = tests().join("../products");
    let mut pentad = Command::new(binary);
    pentad.arg("run").arg("--config").arg(&config).arg("--products").arg(products);
    pentad.stdout(Stdio::null()).stderr(File::create(&log).expect("a writable folder"));
    let _pentad = Running::start(&mut pentad, port).await;

    for (at, (model, product)) in MODELS.into_iter().enumerate() {
        let names = names(model);
        let text =
            fs::read_to_string(tests().join(format!("../products/{product}.toml"))).expect("it is text");
        let properties = text.matches("[[product.property]]").count();
        assert_eq!(names.len(), properties, "every property of {product} is compared");
        let ours = current(port, product, names.len()).await;
        for (here, there) in names {
            let ours = ours.get(&here.to_uppercase()).and_then(Json::as_f64);
            let theirs = theirs[at][&there].as_f64();
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                panic!("{product} {here}: pentad reads {ours:?}, sdm_modbus {theirs:?} as {there}");
            };
            // The library gives the digits of a float of 32 bits as one of 64.
            let same = (ours - theirs).abs() <= theirs.abs() * 1e-6;
            assert!(same && theirs != 0.0, "{product} {here}: pentad reads {ours}, sdm_modbus {theirs}");
        }
    }
}

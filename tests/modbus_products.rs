//! Shipped Modbus products against dumps of registers: `tests/products/modbus/NAME.txt` for `products/NAME.toml`.
//!
//! A new product needs a dump and no code. Its values come from a manual's example or a recording, or were packed by
//! `tests/counterparts/pack.py`; the head of the dump says which. Lines:
//!
//! - `# text` is a comment,
//! - `input ADDRESS: 4366 3333`: registers from an address on, as they travel (`holding` too); `coil ADDRESS: 1 0`: bits
//!   (`discrete` too); what stands behind ` # ` is what pack.py made them of,
//! - `= PROPERTY JSON`: what the property reads; `? PROPERTY`: it is no reading,
//! - `! write PROPERTY JSON` or `! invoke FUNCTION {JSON}`: a client asks for it,
//! - `> 06 0001 09C4`: the next request that it makes, without unit and checksum; `> wait 200ms`: a pause; `> refused`.
//!
//! Every readable property has its value, everything that can be written its requests, every function its steps.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use pentad::config::{Loaded, Source, resolve};
use pentad::dialects::shared::json::{from_json, to_json};
use pentad::drivers::Sample;
use pentad::drivers::modbus::ModbusDevice;
use pentad::drivers::modbus::map::{Operand, Point, Step, Table};
use pentad::model::check::{Checked, check};
use pentad::model::command::Action;
use pentad::model::value::Value;
use pentad::proto::modbus::Span;
use pentad::proto::modbus::frame::{Answer, Framing};
use pentad::proto::modbus::plan::group;
use serde_json::Value as Json;

#[path = "common/files.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod files;

use files::{root, texts};

/// A product with a place in registers, as against one that is only on a broker.
fn is_on_modbus(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("modbus = ") || line.starts_with("[product.property.modbus]"))
}

/// A plant with one device of every shipped product.
fn plant() -> String {
    let mut plant = String::from(
        "[gateway]\nid = \"gw\"\n[[modbus_tcp]]\nid = \"bus\"\naddress = \"127.0.0.1:502\"\n[[mqtt]]\nid = \"broker\"\n\
         url = \"mqtt://127.0.0.1\"\n[[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\ndevices = [\"*\"]\n",
    );
    for (at, (name, text)) in texts("products", "toml").iter().enumerate() {
        let place = if is_on_modbus(text) {
            format!("bus = \"bus\"\nunit = {}", at + 1)
        } else {
            format!("mqtt = \"broker\"\ntopic = \"{name}\"")
        };
        writeln!(plant, "[[device]]\nid = \"{name}\"\nproduct = \"{name}\"\n{place}").unwrap();
    }
    plant
}

fn loaded() -> Loaded {
    let mut sources: Vec<Source> = texts("products", "toml")
        .into_iter()
        .map(|(name, text)| Source { name: format!("products/{name}.toml").into(), text })
        .collect();
    sources.push(Source { name: "pentad.toml".into(), text: plant() });
    resolve(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_product_reads_and_writes_as_its_dump_says() {
    let dumps = texts("tests/products/modbus", "txt");
    let loaded = loaded();
    let devices: Vec<&ModbusDevice> = loaded.config.buses.iter().flat_map(|bus| &bus.devices).collect();
    assert!(devices.len() >= 29, "only {} products were found", devices.len());
    let mut wrong = Vec::new();
    for device in devices {
        match dumps.get(&*device.device.id).map(|text| Dump::parse(text)) {
            Some(Ok(dump)) => wrong.extend(dump.play(device)),
            Some(Err(error)) => wrong.push(error),
            None => wrong.push("there is no dump".to_owned()),
        }
        for line in wrong.iter_mut().filter(|line| !line.starts_with("tests/")) {
            *line = format!("tests/products/modbus/{}.txt: {line}", device.device.id);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_product_names_its_line_its_source_and_what_it_was_checked_against() {
    let table = fs::read_to_string(root().join("docs/products.md")).expect("it is text");
    let dumps = texts("tests/products/modbus", "txt");
    let products = texts("products", "toml");
    for (name, text) in &products {
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(head.contains("Source:") && head.contains("Checked against"), "products/{name}.toml");
        let line = head.contains("# Line: ");
        assert_eq!(line, is_on_modbus(text), "products/{name}.toml says what the line has to be");
        assert!(text.contains(&format!("id = \"{name}\"")), "products/{name}.toml has another id");
        assert!(table.contains(&format!("| `{name}` |")), "docs/products.md has no row for {name}");
    }
    let stray: Vec<&String> = dumps.keys().filter(|name| !products.contains_key(*name)).collect();
    assert_eq!(stray, Vec::<&String>::new(), "dumps of no product");
}

/// The registers do not come from the code that is tested: Python's struct module has to make the same of the values.
#[test]
fn the_dumps_hold_what_python_packs() {
    let dumps = texts("tests/products/modbus", "txt");
    let paths = dumps.keys().map(|name| root().join(format!("tests/products/modbus/{name}.txt")));
    let script = root().join("tests/counterparts/pack.py");
    let output =
        Command::new("python3").arg(script).arg("--check").args(paths).output().expect("python3 runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_plant_with_every_product_is_checked_without_a_warning() {
    is_checked_without_a_warning(&plant());
}

#[test]
fn the_cabinet_of_the_documentation_is_checked_without_a_warning_and_has_a_plan() {
    let cabinet = fs::read_to_string(root().join("docs/cabinet.toml")).expect("it is text");
    let client = "[[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n";
    let plan = is_checked_without_a_warning(&format!("{cabinet}{client}"));
    for bus in ["meters", "roof", "inverter"] {
        assert!(plan.lines().any(|line| line.starts_with(bus)), "{bus} has no plan:\n{plan}");
    }
}

/// What `pentad check` prints of a configuration that is right.
fn is_checked_without_a_warning(configuration: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pentad.toml");
    fs::write(&path, configuration).expect("it can be written");
    let binary = env::var_os("PENTAD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pentad").into());
    let output = Command::new(binary)
        .args(["check".as_ref(), "--config".as_ref(), path.as_os_str()])
        .args(["--products".as_ref(), root().join("products").as_os_str()])
        .output()
        .expect("pentad runs");
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    let quiet = said.iter().all(|said| !said.contains("warning"));
    assert!(output.status.success() && quiet, "{}{}", said[0], said[1]);
    said.concat()
}

/// What a client asks for and the requests that come of it.
#[derive(Debug)]
struct Wish {
    line: usize,
    verb: String,
    what: Arc<str>,
    json: Json,
    expected: Vec<String>,
}

/// A dump as it stands in the file.
#[derive(Debug, Default)]
struct Dump {
    registers: BTreeMap<(Table, u16), u16>,
    /// `None` for what is no reading.
    expected: BTreeMap<String, Option<Json>>,
    wishes: Vec<Wish>,
}

impl Dump {
    fn parse(text: &str) -> Result<Self, String> {
        let mut dump = Self::default();
        for (at, line) in text.lines().enumerate() {
            dump.line(at + 1, line).map_err(|error| format!("line {}: {error}", at + 1))?;
        }
        Ok(dump)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        let json = |text: &str| serde_json::from_str::<Json>(text).map_err(|error| error.to_string());
        match sign {
            "" | "#" => {}
            "=" => {
                let (id, value) = rest.split_once(' ').ok_or("a property and its value")?;
                self.expected.insert(id.to_owned(), Some(json(value)?));
            }
            "?" => {
                self.expected.insert(rest.to_owned(), None);
            }
            "!" => {
                let mut parts = rest.splitn(3, ' ');
                let mut part = || parts.next().ok_or("a verb, an id and JSON");
                let (verb, what, value) = (part()?.to_owned(), part()?.into(), part()?);
                self.wishes.push(Wish { line: number, verb, what, json: json(value)?, expected: Vec::new() });
            }
            ">" => {
                let wish = self.wishes.last_mut().ok_or("nobody asked for anything yet")?;
                let is_bytes = rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b' ');
                wish.expected.push(if is_bytes { rest.replace(' ', "") } else { rest.to_owned() });
            }
            table => self.content(table, rest)?,
        }
        Ok(())
    }

    fn content(&mut self, table: &str, rest: &str) -> Result<(), String> {
        let tables = [
            ("coil", Table::Coil),
            ("discrete", Table::Discrete),
            ("input", Table::Input),
            ("holding", Table::Holding),
        ];
        let (_, table) =
            tables.into_iter().find(|(name, _)| *name == table).ok_or(format!("no table {table}"))?;
        let (address, words) = rest.split_once(": ").ok_or("an address and its content")?;
        let first = match address.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => address.parse(),
        };
        let first = first.map_err(|error| error.to_string())?;
        let words = words.split(" # ").next().unwrap_or_default();
        for (address, word) in (first..=u16::MAX).zip(words.split_whitespace()) {
            let word = u16::from_str_radix(word, 16).map_err(|error| error.to_string())?;
            if self.registers.insert((table, address), word).is_some() {
                return Err(format!("{address} stands there twice"));
            }
        }
        Ok(())
    }

    /// What the device answers. Registers that the dump does not know hold what no property expects.
    fn answer(&self, span: Span) -> Answer {
        let word = |address| self.registers.get(&(span.table(), address)).copied().unwrap_or(0xDEAD);
        let words = (span.address()..=u16::MAX).take(usize::from(span.count())).map(word);
        if span.table().is_bits() {
            Answer::Bits(words.map(|word| word == 1).collect())
        } else {
            Answer::Registers(words.collect())
        }
    }

    /// Everything that is not as the dump says.
    fn play(&self, device: &ModbusDevice) -> Vec<String> {
        let mut wrong = self.read(device);
        let product = &device.device.product;
        for wish in &self.wishes {
            let found = requests(self, device, wish).unwrap_or_else(|error| vec![error]);
            if found != wish.expected {
                wrong.push(format!("line {}: expected {:?}, found {found:?}", wish.line, wish.expected));
            }
        }
        let asked =
            |verb: &str, id: &str| self.wishes.iter().any(|wish| wish.verb == verb && *wish.what == *id);
        let writable = product.properties.iter().filter(|property| property.access.writable());
        wrong.extend(
            writable
                .filter(|property| !asked("write", &property.id))
                .map(|property| format!("{} is written nowhere", property.id)),
        );
        let functions = product.functions.iter().filter(|function| !asked("invoke", &function.id));
        wrong.extend(functions.map(|function| format!("{} is invoked nowhere", function.id)));
        wrong
    }

    /// Reads all properties in groups, as the bus does, and compares them.
    fn read(&self, device: &ModbusDevice) -> Vec<String> {
        let (product, map) = (&device.device.product, &device.map);
        let readable = |at: &usize| product.properties[*at].access.readable();
        let polled: Vec<(usize, &Point)> = (0..product.properties.len())
            .filter(readable)
            .filter_map(|at| Some((at, map.properties[at].as_ref()?)))
            .collect();
        let mut found: BTreeMap<usize, Sample> = BTreeMap::new();
        let intervals: BTreeSet<Duration> = polled.iter().map(|(_, point)| point.every).collect();
        for every in intervals {
            let places = polled
                .iter()
                .filter(|(_, point)| point.every == every)
                .map(|(at, point)| (*at, point.span().expect("the resolver has checked it")));
            for read in group(places, map.limits()) {
                let answer = self.answer(read.span());
                for member in read.members() {
                    let point = map.properties[member.key].as_ref().expect("it is polled");
                    let content = point.extract(read.span(), &answer).expect("the answer covers it");
                    found.insert(member.key, point.decode(product.properties[member.key].kind, &content));
                }
            }
        }
        for at in product.computed() {
            let property = &product.properties[at];
            let number = |at: usize| match found.get(&at) {
                Some(Sample::Value(value)) => value.as_f64(),
                Some(Sample::Unreadable(_)) | None => None,
            };
            let expression = property.compute.as_ref().expect("it is computed");
            let value = expression.evaluate(property.kind, &number);
            found.insert(at, value.map_or_else(|| Sample::Unreadable("".into()), Sample::Value));
        }
        let mut wrong: Vec<String> = found
            .iter()
            .filter_map(|(at, sample)| self.differs(&product.properties[*at].id, sample))
            .collect();
        let strays = self.expected.keys().filter(|id| product.property(id).is_none());
        wrong.extend(strays.map(|id| format!("the product has no property {id}")));
        wrong
    }

    fn differs(&self, id: &str, sample: &Sample) -> Option<String> {
        let found = match sample {
            Sample::Value(value) => Some(to_json(value)),
            Sample::Unreadable(_) => None,
        };
        let Some(expected) = self.expected.get(id) else {
            return Some(format!("{id} has no value in it; found {found:?}"));
        };
        let same = match (expected, &found) {
            // Whole numbers in a float are written either way.
            (Some(expected), Some(found)) => {
                expected == found || expected.as_f64().is_some_and(|n| found.as_f64() == Some(n))
            }
            (expected, found) => expected == found,
        };
        (!same).then(|| format!("{id}: expected {expected:?}, found {found:?} ({sample:?})"))
    }
}

/// The requests of a wish, in hexadecimal, in the way of the driver: checked, encoded over what stands there, written.
fn requests(dump: &Dump, device: &ModbusDevice, wish: &Wish) -> Result<Vec<String>, String> {
    let product = &device.device.product;
    let action = match (&*wish.verb, from_json(&wish.json)) {
        ("write", value) => Action::Write(vec![(Arc::clone(&wish.what), value)]),
        ("invoke", Value::Object(inputs)) => Action::Invoke {
            function: Arc::clone(&wish.what),
            inputs: inputs.iter().map(|(name, value)| (Arc::clone(name), value.clone())).collect(),
        },
        _ => return Err(format!("nobody can {}", wish.verb)),
    };
    let steps: Vec<Step> = match check(product, &action) {
        Ok(Checked::Write(values)) => values
            .into_iter()
            .map(|(at, value)| Step::Write {
                point: device.map.properties[at].clone().expect("it is on the bus"),
                value: Operand::Constant(value),
            })
            .collect(),
        Ok(Checked::Invoke { function, .. }) => device.map.functions[function].clone(),
        Ok(Checked::Read(_)) => Vec::new(),
        Err(_) => return Ok(vec!["refused".to_owned()]),
    };
    let mut shown = Vec::new();
    for step in steps {
        let (point, value) = match step {
            Step::Wait(time) => {
                shown.push(format!("wait {}ms", time.as_millis()));
                continue;
            }
            Step::Write { point, value: Operand::Constant(value) } => (point, value),
            Step::Write { value: Operand::Input(name), .. } => return Err(format!("the input {name}")),
        };
        let before = point.needs().and_then(|span| point.extract(span, &dump.answer(span)));
        let content = point.encode(&value, before.as_ref()).map_err(|error| error.to_string())?;
        for request in point.write_requests(&content).map_err(|error| error.to_string())? {
            let frame = request.encode(1, Framing::Rtu).map_err(|error| error.to_string())?;
            let body = &frame[1..frame.len() - 2];
            shown.push(body.iter().fold(String::new(), |text, byte| text + &format!("{byte:02X}")));
        }
    }
    Ok(shown)
}

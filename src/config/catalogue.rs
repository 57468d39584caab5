//! The Modbus products of a folder as if there were one device of each: what a scan compares units with.
//!
//! Files that are wrong are left out; `pentad check` is there to complain of them.

use std::path::Path;

use super::load::{read, toml_files};
use super::problem::Report;
use super::reader::{Document, Table};
use super::{Source, resolve};
use crate::drivers::modbus::ModbusDevice;

/// One device for each product of the folder that lies in Modbus registers, in the order of the files.
pub fn catalogue(folder: &Path) -> Vec<ModbusDevice> {
    let files = toml_files(folder, &Report::default());
    files
        .into_iter()
        .flat_map(|path| read(&path).map_or_else(|_| Vec::new(), |text| products(&path, text)))
        .collect()
}

fn products(path: &Path, text: String) -> Vec<ModbusDevice> {
    let file = Source { name: path.to_owned(), text };
    let plant = Source { name: "scan".into(), text: plant(&ids(&file)) };
    let sources = [file, plant];
    let config = resolve(&sources).map(|loaded| loaded.config);
    config
        .map_or_else(|_| Vec::new(), |config| config.buses.into_iter().flat_map(|bus| bus.devices).collect())
}

/// The products of a file that have a property in a register.
fn ids(file: &Source) -> Vec<String> {
    let report = Report::default();
    let Some(document) = Document::parse(0, file, &report) else { return Vec::new() };
    let documents = [document];
    let bound = |product: Table<'_>| {
        let on_modbus = product.tables("property").iter().any(|property| property.key("modbus").given());
        let id = product.key("id").node()?.quiet_text()?.to_owned();
        on_modbus.then_some(id)
    };
    Table::root(&documents, &report).tables("product").into_iter().filter_map(bound).collect()
}

/// A configuration with one device of each.
fn plant(ids: &[String]) -> String {
    let device = |(number, id): (u16, &String)| {
        format!(
            "[[modbus_tcp]]\nid = \"bus-{number}\"\naddress = \"127.0.0.1:{number}\"\n\
             [[device]]\nid = \"device-{number}\"\nproduct = {id:?}\nbus = \"bus-{number}\"\nunit = 1\n"
        )
    };
    let devices: Vec<String> = (1..).zip(ids).map(device).collect();
    format!("[gateway]\nid = \"scan\"\n{}", devices.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_modbus_products_are_in_it_and_no_others() {
        let found = catalogue(&Path::new(env!("CARGO_MANIFEST_DIR")).join("products"));
        let ids: Vec<&str> = found.iter().map(|device| &*device.device.product.id).collect();
        assert!(ids.contains(&"eastron-sdm120"), "{ids:?}");
        assert!(!ids.contains(&"tasmota-plug"), "{ids:?}");
        assert!(catalogue(Path::new("/nowhere")).is_empty());
    }
}

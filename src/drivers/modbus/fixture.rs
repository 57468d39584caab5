//! Devices for the tests of this folder.

use std::sync::Arc;

use super::ModbusDevice;
use super::map::{Data, ModbusMap, Point, Step, Table};
use crate::model::device::Device;
use crate::model::product::{Access, Function, Product, Property};
use crate::model::value::ValueType;

/// A holding register of 16 bits, read every second.
pub(super) fn holding(address: u16) -> Point {
    Point::new(Table::Holding, address, Data::U16)
}

/// A device `dev-<number>` with int properties `p0`, `p1`, ... and functions `f0`, ...
pub(super) fn device(number: u32, unit: u8, points: Vec<Point>, functions: Vec<Vec<Step>>) -> ModbusDevice {
    let property =
        |at: usize| Property { access: Access::ReadWrite, ..Property::new(format!("p{at}"), ValueType::Int) };
    let function = |at: usize| Function::new(format!("f{at}"));
    let product = Product {
        id: "thing".into(),
        name: "thing".into(),
        type_id: "thing".into(),
        properties: (0..points.len()).map(property).collect(),
        functions: (0..functions.len()).map(function).collect(),
        events: Vec::new(),
    };
    let device = Device {
        id: format!("dev-{number}").into(),
        name: format!("dev-{number}").into(),
        product: Arc::new(product),
        link: "bus".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
        uuid: "0000-0000-0000-0001".into(),
        mac: "000000000001".into(),
    };
    let map = ModbusMap { max_gap: 4, ..ModbusMap::new(points.into_iter().map(Some).collect(), functions) };
    ModbusDevice { device: Arc::new(device), unit, map: Arc::new(map) }
}

//! A small gateway for the tests of sessions: one press, one client that may do everything, one that may only look.

use std::sync::Arc;

use bytes::Bytes;

use crate::dialects::shared::logins::Logins;
use crate::dialects::{Context, Origin, Request, Seal, Settings};
use crate::model::client::{Client, ClientBook, DeviceFilter, Dialect, Rights, Secret};
use crate::model::device::{Device, Gateway};
use crate::model::directory::Directory;
use crate::model::product::{Access, Function, Parameter, Product, Property};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::ValueType;

/// `press-1` and `press-2`, clients `demo` (everything) and `reader` (reads `press-1`), tokens like their ids.
pub(crate) fn context() -> Arc<Context> {
    let press = Arc::new(product());
    let devices = ["press-1", "press-2"].map(|id| {
        Arc::new(Device {
            id: id.into(),
            name: "Press".into(),
            product: Arc::clone(&press),
            link: "rs485".into(),
            project: "1".into(),
            area: "1".into(),
            tags: Vec::new(),
            uuid: id.into(),
            mac: id.into(),
        })
    });
    let client = |id: &str, devices: &str, rights| {
        let devices = DeviceFilter::new([devices]);
        let (secret, dialects) = (Secret::new(id), Dialect::ALL.to_vec());
        Arc::new(Client { id: id.into(), secret, dialects, devices, rights })
    };
    let clients = vec![client("demo", "*", Rights::ALL), client("reader", "press-1", Rights::READ)];
    Arc::new(Context {
        gateway: Gateway {
            id: "demo".into(),
            name: "Demo".into(),
            project: "1".into(),
            area: "1".into(),
            timezone: jiff::tz::TimeZone::UTC,
            clock: crate::model::time::Trust::Auto,
        },
        directory: Arc::new(Directory::new(devices.to_vec(), Vec::new())),
        clients: Arc::new(ClientBook::new(clients)),
        settings: Settings::default(),
        seal: Seal { key: [7; 32], made: now().instant },
        frame_bytes: 1 << 20,
    })
}

/// The device `press-1` of a context.
pub(in crate::dialects) fn press(context: &Context) -> Arc<Device> {
    context.directory.device("press-1").map(Arc::clone).unwrap()
}

/// A request as the server hands it over.
pub(crate) fn request(method: &str, path: &str, upgrade: bool) -> Request {
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: Bytes::new(),
        peer: "127.0.0.1".parse().unwrap(),
        origin: Origin { secure: false, host: "127.0.0.1:8080".to_owned() },
        upgrade,
        logins: Logins::default(),
    }
}

/// One moment; tests count from it.
#[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
pub(crate) fn now() -> Now {
    Now::new(std::time::Instant::now(), UnixMillis(1_700_000_000_000))
}

fn product() -> Product {
    let property = |id: &str, kind, access| Property { access, ..Property::new(id, kind) };
    Product {
        id: "press".into(),
        name: "Hydraulic press".into(),
        type_id: "press".into(),
        properties: vec![
            property("temperature", ValueType::Float, Access::Read),
            property("setpoint", ValueType::Float, Access::ReadWrite),
            property("running", ValueType::Bool, Access::ReadWrite),
        ],
        functions: vec![Function {
            id: "reset".into(),
            name: "Reset".into(),
            inputs: vec![Parameter { id: "code".into(), kind: ValueType::Int, required: true, range: None }],
            outputs: Vec::new(),
            ..Function::new("")
        }],
        events: Vec::new(),
    }
}

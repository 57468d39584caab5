//! The fixed test bed of the transcripts: one gateway, its devices, and its clients.
//!
//! It is built by hand from model types, so that a transcript depends on no configuration syntax.

use std::sync::Arc;
use std::time::Duration;

use pentad::config::Limits;
use pentad::dialects::{Context, Seal, Settings};
use pentad::model::client::{Anonymous, Client, ClientBook, DeviceFilter, Dialect, Rights, Secret};
use pentad::model::device::{Device, Gateway, Link};
use pentad::model::directory::Directory;
use pentad::model::product::{
    Access, AlarmCondition, AlarmRule, EventType, Function, LeaseRule, Level, Parameter, Product, Property,
};
use pentad::model::value::{Value, ValueType};

/// U+ typeId of the press, the vendor's example.
pub const PRESS_TYPE_ID: &str = "101c1200240008101e0a00000141414100000000020000000000000000000000";

/// The Modbus line.
pub const BUS: &str = "rs485";
/// The broker.
pub const BROKER: &str = "local";

/// What every online device reports before a transcript begins.
pub fn first_values() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let press = || {
        vec![
            ("temperature", Value::Float(40.0)),
            ("setpoint", Value::Float(50.0)),
            ("running", Value::Bool(false)),
        ]
    };
    vec![
        (
            "meter-1",
            vec![
                ("voltage", Value::Float(230.0)),
                ("current", Value::Float(1.5)),
                ("active_power", Value::Float(340.0)),
                ("frequency", Value::Float(50.0)),
                ("energy", Value::Float(12.5)),
            ],
        ),
        ("press-1", press()),
        ("press-2", press()),
        ("lamp-1", vec![("state", Value::Bool(true)), ("brightness", Value::Int(100))]),
    ]
}

/// The context that every session of a transcript sees.
pub fn context() -> Context {
    Context {
        gateway: gateway(),
        directory: Arc::new(directory()),
        clients: Arc::new(clients()),
        settings: settings(),
        seal: Seal { key: [7; 32], made: pentad::clock::instant() },
        frame_bytes: Limits::default().frame_bytes,
    }
}

fn gateway() -> Gateway {
    Gateway {
        id: "demo".into(),
        name: "Demo".into(),
        project: "1".into(),
        area: "1".into(),
        timezone: jiff::tz::TimeZone::UTC,
        clock: pentad::model::time::Trust::Auto,
    }
}

/// Default settings, with loopback read for oam.
pub fn settings() -> Settings {
    let loopback = Anonymous {
        networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        client: client("anonymous", "", &[Dialect::Oam], &["*"], Rights::READ),
    };
    let mut settings = Settings::default();
    settings.oam.common.anonymous = Some(loopback);
    settings
}

fn clients() -> ClientBook {
    ClientBook::new(vec![
        client("demo", "demo", &Dialect::ALL, &["*"], Rights::ALL),
        client("reader", "reader-secret", &Dialect::ALL, &["press-*"], Rights::READ),
        client("half", "half-secret", &[Dialect::Oam], &["press-*"], Rights::ALL),
        client("SV-EDGE-0001", "k3y-Secret", &Dialect::ALL, &["*"], Rights::ALL),
        client("janus-only", "59E9-B2A9-7609-D0E2", &[Dialect::Janus], &["*"], Rights::READ),
    ])
}

fn client(id: &str, secret: &str, dialects: &[Dialect], devices: &[&str], rights: Rights) -> Arc<Client> {
    Arc::new(Client {
        id: id.into(),
        secret: Secret::new(secret),
        dialects: dialects.to_vec(),
        devices: DeviceFilter::new(devices),
        rights,
    })
}

fn directory() -> Directory {
    let meter = Arc::new(meter_product());
    let press = Arc::new(press_product());
    let lamp = Arc::new(lamp_product());
    let devices = vec![
        device("meter-1", "Main meter", &meter, BUS, "E07E-8972-925A-C99B", "0000000000B1"),
        device("press-1", "Press one", &press, BUS, "AAAA-BBBB-CCCC-0001", "0000000000A1"),
        device("press-2", "Press two", &press, BUS, "AAAA-BBBB-CCCC-0002", "0000000000A2"),
        device("dead-1", "Dead press", &press, BUS, "AAAA-BBBB-CCCC-0009", "0000000000A9"),
        device("lamp-1", "Lamp", &lamp, BROKER, "AAAA-BBBB-CCCC-0010", "0000000000C1"),
    ];
    let links = vec![
        Arc::new(Link { id: BUS.into(), address: "/dev/pts/0".into(), readable: true }),
        Arc::new(Link { id: BROKER.into(), address: "mqtt://127.0.0.1:1883".into(), readable: false }),
    ];
    Directory::new(devices, links)
}

fn device(id: &str, name: &str, product: &Arc<Product>, link: &str, uuid: &str, mac: &str) -> Arc<Device> {
    Arc::new(Device {
        id: id.into(),
        name: name.into(),
        product: Arc::clone(product),
        link: link.into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
        uuid: uuid.into(),
        mac: mac.into(),
    })
}

fn meter_product() -> Product {
    let float = |id: &str, unit: &str| Property { unit: Some(unit.into()), ..property(id, ValueType::Float) };
    Product {
        id: "eastron-sdm120".into(),
        name: "Eastron SDM120".into(),
        type_id: "00000000000000000000000000000000000000000000000000000000000sdm120".into(),
        properties: vec![
            float("voltage", "V"),
            float("current", "A"),
            float("active_power", "W"),
            float("frequency", "Hz"),
            float("energy", "kWh"),
        ],
        functions: Vec::new(),
        events: Vec::new(),
    }
}

fn press_product() -> Product {
    let too_hot = AlarmRule {
        hysteresis: 5.0,
        level: Level::Fault,
        ..AlarmRule::new("too-hot", AlarmCondition::Above(80.0))
    };
    Product {
        id: "press".into(),
        name: "Hydraulic press".into(),
        type_id: PRESS_TYPE_ID.into(),
        properties: vec![
            Property {
                name: "Oil temperature".into(),
                unit: Some("\u{b0}C".into()),
                stale_after: Some(Duration::from_secs(300)),
                alarms: vec![Arc::new(too_hot)],
                ..property("temperature", ValueType::Float)
            },
            Property {
                access: Access::ReadWrite,
                range: Some((0.0, 100.0)),
                lease: Some(LeaseRule {
                    safe: Value::Float(50.0),
                    default: None,
                    longest: Duration::from_secs(3600),
                }),
                ..property("setpoint", ValueType::Float)
            },
            Property { access: Access::ReadWrite, ..property("running", ValueType::Bool) },
        ],
        functions: vec![Function {
            id: "reset".into(),
            name: "Reset counters".into(),
            inputs: vec![Parameter { id: "code".into(), kind: ValueType::Int, required: true, range: None }],
            outputs: Vec::new(),
            ..Function::new("")
        }],
        events: vec![EventType {
            id: "door-opened".into(),
            name: "door-opened".into(),
            level: Level::Alert,
            params: Vec::new(),
            when: None,
        }],
    }
}

fn lamp_product() -> Product {
    Product {
        id: "zigbee2mqtt-lamp".into(),
        name: "Zigbee2MQTT lamp".into(),
        type_id: "0000000000000000000000000000000000000000000000000000000000001a3b".into(),
        properties: vec![
            Property { access: Access::ReadWrite, on_request: true, ..property("state", ValueType::Bool) },
            Property {
                access: Access::ReadWrite,
                range: Some((0.0, 254.0)),
                ..property("brightness", ValueType::Int)
            },
        ],
        functions: Vec::new(),
        events: Vec::new(),
    }
}

fn property(id: &str, kind: ValueType) -> Property {
    Property::new(id, kind)
}

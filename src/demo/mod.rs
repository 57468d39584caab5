//! The demo: a simulated plant behind the real drivers, a fixed test bed for documentation and tests.
//!
//! It needs nothing but the binary. Its configuration is an ordinary one with two blanks, the serial port and the
//! broker's port, which are filled in with what was really opened. Its credential is no secret, so it listens on
//! loopback only.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::{self, Config, Problems, Source};

mod banner;
pub mod plant;
pub mod slaves;

use plant::Plant;
use slaves::{Line, LineError};

/// Id and secret of the client that may do everything.
pub const CREDENTIAL: &str = "demo";

/// The plant is the same at every start.
const SEED: u64 = 0x5e_ed;

/// What a demo is made of: the configuration with blanks, and the products that are shipped.
const CONFIGURATION: &str = include_str!("demo.toml");
const PRODUCTS: [(&str, &str); 4] = [
    ("products/eastron-sdm120.toml", include_str!("../../products/eastron-sdm120.toml")),
    ("products/shelly-gen2-switch.toml", include_str!("../../products/shelly-gen2-switch.toml")),
    ("products/tasmota-plug.toml", include_str!("../../products/tasmota-plug.toml")),
    ("products/zigbee2mqtt-lamp.toml", include_str!("../../products/zigbee2mqtt-lamp.toml")),
];

/// What the command line may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// Where clients connect; must be a loopback address.
    pub listen: SocketAddr,
    /// Where the embedded broker listens on loopback.
    pub broker_port: u16,
}

/// A demo that is ready to run.
#[derive(Debug)]
pub struct Demo {
    /// What the gateway is to be built from.
    pub config: Config,
    /// The serial line with its units; to be run beside the gateway.
    pub line: Line,
    broker_port: u16,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Whoever reaches the demo may do everything in it.
    #[error(
        "the demo listens on loopback only, since its token is known to everybody: found {found}, allowed are \
         127.0.0.1 and [::1] with any port"
    )]
    Exposed {
        /// The address that was asked for.
        found: SocketAddr,
    },
    /// The serial line.
    #[error("cannot simulate the Modbus line")]
    Line(#[source] LineError),
    /// The built-in configuration; only a mistake in this program makes it fail.
    #[error("cannot read the demo's own configuration")]
    Configuration(#[source] Problems),
}

/// Sets up the plant and fills in the configuration. Must be called inside the runtime.
pub fn prepare(options: DemoOptions) -> Result<Demo, DemoError> {
    let DemoOptions { listen, broker_port } = options;
    if !listen.ip().to_canonical().is_loopback() {
        return Err(DemoError::Exposed { found: listen });
    }
    let line = Line::open(Plant::new(SEED)).map_err(DemoError::Line)?;
    let mut config = configuration(&line.path, broker_port).map_err(DemoError::Configuration)?;
    config.server.listen = vec![listen];
    Ok(Demo { config, line, broker_port })
}

impl Demo {
    /// Addresses and messages to copy and paste, for a gateway that listens here.
    pub fn banner(&self, listen: SocketAddr) -> String {
        banner::banner(&self.config, &self.line.path, self.broker_port, listen)
    }
}

fn configuration(port: &Path, broker_port: u16) -> Result<Config, Problems> {
    let text = CONFIGURATION
        .replace("{pty}", &port.display().to_string())
        .replace("{broker_port}", &broker_port.to_string());
    let sources: Vec<Source> = PRODUCTS
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .chain([("demo.toml", text)])
        .map(|(name, text)| Source { name: name.into(), text })
        .collect();
    config::resolve(&sources).map(|loaded| loaded.config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::modbus::Target;

    fn options(listen: &str) -> DemoOptions {
        DemoOptions { listen: listen.parse().unwrap(), broker_port: 1883 }
    }

    #[tokio::test]
    async fn the_demo_is_refused_on_any_address_but_loopback() {
        for listen in ["0.0.0.0:8080", "192.168.1.5:8080", "[::]:8080", "[::ffff:10.0.0.1]:8080"] {
            let error = prepare(options(listen)).unwrap_err();
            assert!(error.to_string().contains(&format!("found {listen}")), "{error}");
        }
        for listen in ["127.0.0.1:0", "127.8.9.10:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(prepare(options(listen)).unwrap().config.server.listen, [listen.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn the_blanks_are_filled_in_with_what_was_opened() {
        let demo = prepare(DemoOptions { broker_port: 1999, ..options("127.0.0.1:8080") }).unwrap();
        let Target::Serial(serial) = &demo.config.buses[0].settings.target else { panic!("no serial line") };
        assert_eq!(Path::new(&*serial.path), demo.line.path);
        assert_eq!(demo.config.brokers[0].settings.port, 1999);
        assert_eq!(demo.config.brokers[0].devices.len(), 3);
    }

    #[tokio::test]
    async fn the_banner_has_an_address_for_every_dialect_and_the_page() {
        let demo = prepare(options("127.0.0.1:8080")).unwrap();
        let banner = demo.banner("127.0.0.1:4711".parse().unwrap());
        for part in [
            "http://127.0.0.1:4711/#token=demo&id=demo",
            "http://127.0.0.1:4711/api/janus/websocket?token=demo&uuid=E07E-8972-925A-C99B",
            "ws://127.0.0.1:4711/messaging/demo",
            "ws://127.0.0.1:4711/api/v1/system/common/websocket/connect",
            "http://127.0.0.1:4711/api/metric/list",
            "ws://127.0.0.1:4711/ws",
            "ws://127.0.0.1:4711/wssubscriber/msgplatform/websocket?systemId=demo&timestamp=",
            "mqtt://127.0.0.1:1883",
            demo.line.path.to_str().unwrap(),
        ] {
            assert!(banner.contains(part), "{part} is not in\n{banner}");
        }
    }
}

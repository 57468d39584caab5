//! The demo: a simulated plant behind the real drivers, a fixed test bed for documentation and tests.
//!
//! It needs nothing but the binary. Its configuration is an ordinary one with two blanks, the serial port and the
//! broker's port, which are filled in with what was really opened. Its credential is no secret, so it listens on
//! loopback only.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::config::{self, Config, Problems, Source};

mod banner;
pub mod broker;
pub mod gadgets;
pub mod plant;
pub mod slaves;

use broker::BrokerError;
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
    /// Where the embedded broker listens, on loopback as well; `None` is port 1883, or any free one if that is taken.
    pub broker: Option<SocketAddr>,
}

/// A demo that is ready to run.
#[derive(Debug)]
pub struct Demo {
    /// What the gateway is to be built from.
    pub config: Config,
    /// The serial line with its units; to be run beside the gateway.
    pub line: Line,
    /// Where the embedded broker listens; the configuration says the same.
    pub broker: SocketAddr,
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
    /// No port for the broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The serial line.
    #[error("cannot simulate the Modbus line")]
    Line(#[source] LineError),
    /// The built-in configuration; only a mistake in this program makes it fail.
    #[error("cannot read the demo's own configuration")]
    Configuration(#[source] Problems),
}

/// Sets up the plant and fills in the configuration. Gives the socket of the broker beside them, so that nobody takes its
/// port until it starts. Must be called inside the runtime.
pub fn prepare(options: DemoOptions) -> Result<(Demo, TcpListener), DemoError> {
    let exposed = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    if let Some(found) = [Some(options.listen), options.broker].into_iter().flatten().find(exposed) {
        return Err(DemoError::Exposed { found });
    }
    let door = broker::listen(options.broker)?;
    let broker = door.local_addr().map_err(BrokerError::Thread)?;
    let line = Line::open(Plant::new(SEED)).map_err(DemoError::Line)?;
    let mut config = configuration(&line.path, broker).map_err(DemoError::Configuration)?;
    config.server.listen = vec![options.listen];
    Ok((Demo { config, line, broker }, door))
}

impl Demo {
    /// Addresses and messages to copy and paste, for a gateway that listens here.
    pub fn banner(&self, listen: SocketAddr) -> String {
        banner::banner(&self.config, &self.line.path, self.broker, listen)
    }
}

fn configuration(port: &Path, broker: SocketAddr) -> Result<Config, Problems> {
    let text = CONFIGURATION
        .replace("{pty}", &port.display().to_string())
        .replace("127.0.0.1:{broker_port}", &broker.to_string());
    let sources: Vec<Source> = PRODUCTS
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .chain([("demo.toml", text)])
        .map(|(name, text)| Source { name: name.into(), text })
        .collect();
    config::resolve(&sources).map(|loaded| loaded.config)
}

#[cfg(test)]
mod tests;

//! pentad: an `IoT` gateway daemon that reads Modbus and MQTT devices and serves them in five WebSocket dialects.
//!
//! ```text
//!  hardware          drivers/             hub/               dialects/            serve/         clients
//!  RS-485, TCP <--> modbus bus task --obs-->          --msg--> five sessions <--> connection <--> WebSocket
//!  MQTT        <--> mqtt client task --obs--> state    (pure)  (pure)             (IO, shared)    HTTP
//!                                   <--cmd--          <--cmd--
//!                                                     --outcome--> the session that asked
//!  proto/{modbus,stomp}: pure protocols      model/: pure types      app.rs: the only wiring
//! ```
//!
//! Read ARCHITECTURE.md for the tour.

pub mod addresses;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dialects;
pub mod drivers;
pub mod hub;
pub mod meters;
pub mod model;
pub mod notify;
pub mod proto;
pub mod report;
pub mod serve;
pub mod signals;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod text;
pub mod tls;

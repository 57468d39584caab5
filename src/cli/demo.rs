//! Runs the demo: a gateway as ever, with its plant beside it.

use std::net::SocketAddr;
use std::process::ExitCode;

use tracing::error;

use super::run::{deaf, not_built, run_to_the_end, with_runtime};
use super::{USAGE, say};
use crate::app::App;
use crate::demo::{Demo, DemoError, DemoOptions, broker, gadgets, prepare};
use crate::report::Chain;
use crate::signals::Signals;

pub(super) fn demo(listen: SocketAddr, broker: Option<SocketAddr>) -> ExitCode {
    with_runtime(run(DemoOptions { listen, broker }))
}

async fn run(options: DemoOptions) -> ExitCode {
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return deaf(&error),
    };
    let (demo, door) = match prepare(options) {
        Ok(prepared) => prepared,
        Err(error) => {
            error!("{}", Chain(&error));
            return match error {
                DemoError::Exposed { .. } => ExitCode::from(USAGE),
                DemoError::Broker(_) | DemoError::Line(_) | DemoError::Configuration(_) => ExitCode::FAILURE,
            };
        }
    };
    if let Err(error) = broker::start(door).await {
        error!("{}", Chain(&error));
        return ExitCode::FAILURE;
    }
    let mut app = match App::build(demo.config.clone()) {
        Ok(app) => app,
        Err(error) => return not_built(&error),
    };
    let listening = app.addresses().first().map_or(options.listen, |listener| listener.address);
    say(&demo.banner(listening));
    let Demo { line, broker, .. } = demo;
    app.add_world("simulated Modbus units", |stop| line.run(stop));
    app.add_world("simulated MQTT devices", |stop| gadgets::run(broker, stop));
    Box::pin(run_to_the_end(app, signals, None)).await
}

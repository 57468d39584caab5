//! Runs the demo.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::complain;

pub(super) fn demo(listen: SocketAddr, broker: Option<SocketAddr>) -> ExitCode {
    complain(&format!("the demo is not part of this build (asked for {listen}, {broker:?})"));
    ExitCode::FAILURE
}

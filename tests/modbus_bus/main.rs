//! The Modbus bus driver against scripted slaves and against units of others, in real time with short timeouts: a kernel's pseudo-terminal does
//! not follow a paused clock.

#![cfg(test)]

mod commands;
mod framings;
mod line;
mod peers;
mod recorder;
mod rig;
#[path = "../common/slave.rs"]
mod slave;
mod tcp;
mod units;
mod written;

//! The Modbus bus driver against scripted slaves and against units of others, in real time with short timeouts: a kernel's pseudo-terminal does
//! not follow a paused clock.

#![cfg(test)]

mod commands;
mod framings;
mod line;
mod peers;
#[path = "../common/port.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod port;
mod recorder;
mod rig;
#[path = "../common/slave.rs"]
mod slave;
mod tcp;
mod units;
mod written;

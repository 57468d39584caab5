//! The MQTT driver against a real broker, with independent clients in the place of devices.

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "the module is shared and each test binary uses a part of it")]
#[allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses a part of it"
)]
#[path = "../common/mosquitto.rs"]
mod mosquitto;

mod basics;
mod presence;
mod rig;
mod secure;

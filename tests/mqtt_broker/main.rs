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

#[path = "../common/port.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod port;

#[path = "../common/gateway.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod gateway;
#[path = "../common/ws.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod ws;

mod announced;
mod basics;
mod drops;
mod found;
mod live;
mod presence;
mod properties;
mod relay;
mod rig;
mod secure;

//! What several integration tests share. Each test binary uses a part of it.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test binary uses another part"
)]

pub mod bed;
pub mod certificate;
pub mod client;
pub mod pure;
pub mod script;
pub mod socket;
pub mod transcript;
pub mod world;
pub mod ws;

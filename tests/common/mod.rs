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
pub mod files;
pub mod port;
pub mod pure;
pub mod script;
pub mod socket;
pub mod transcript;
pub mod world;
pub mod ws;

use std::path::Path;
use std::time::Duration;

/// Waits until the log of a gateway holds this: it acts first and says so afterwards, so that what was seen of it by
/// another way may not stand in the log yet.
pub async fn until_logged(log: &Path, text: &str) {
    let said = async {
        while !std::fs::read_to_string(log).unwrap_or_default().contains(text) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(ws::PATIENCE, said).await.unwrap_or_else(|_| panic!("never logged: {text}"));
}

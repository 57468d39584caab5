//! Replays every corpus of the fuzz targets: the seeds, and what the fuzzer has found before.

#![cfg(test)]

mod common;
#[expect(unreachable_pub, reason = "the fuzz crate takes the same file as a public module")]
#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// Runs one target over its folder.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no input", folder.display());
    for file in files {
        let data = std::fs::read(&file).expect("a readable input");
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "{} breaks its target", file.display());
    }
}

macro_rules! corpora {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name);
            }
        )*
    };
}

corpora!(
    expression,
    stomp_frames,
    stomp_session,
    modbus_reply,
    mqtt_packet,
    mqtt_payload,
    mqtt_discover,
    homeassistant,
    config,
    janus,
    sagoo,
    ithings,
    oam,
    uplus,
    uplus_query,
    uplus_sign,
    sockjs
);

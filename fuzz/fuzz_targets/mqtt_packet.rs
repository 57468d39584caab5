//! Finds inputs for `targets::mqtt_packet`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::mqtt_packet(data));

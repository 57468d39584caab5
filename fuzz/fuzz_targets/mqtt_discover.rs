//! Finds inputs for `targets::mqtt_discover`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::mqtt_discover(data));

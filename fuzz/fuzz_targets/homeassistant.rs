//! Finds inputs for `targets::homeassistant`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::homeassistant(data));

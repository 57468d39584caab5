//! Finds inputs for `targets::modbus_reply`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::modbus_reply(data));

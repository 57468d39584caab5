//! Finds inputs for `targets::uplus_sign`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::uplus_sign(data));

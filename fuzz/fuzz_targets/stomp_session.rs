//! Finds inputs for `targets::stomp_session`; see there.

#![no_main]

#[path = "../parts.rs"]
mod parts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parts::targets::stomp_session(data));

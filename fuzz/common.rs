//! The parts of the integration tests' shared code that need no process and no socket.

#![allow(dead_code, unreachable_pub, reason = "every target uses another part")]

#[path = "../tests/common/bed.rs"]
pub mod bed;
#[path = "../tests/common/pure.rs"]
pub mod pure;
#[path = "../tests/common/script.rs"]
pub mod script;
#[path = "../tests/common/transcript.rs"]
pub mod transcript;

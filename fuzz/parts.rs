//! What every fuzz target is made of: the targets, and the test bed of the transcripts that the sessions run in.

#![allow(dead_code, unreachable_pub, reason = "every target uses another part")]

#[path = "targets.rs"]
pub mod targets;

pub mod common {
    //! The parts of the integration tests' shared code that need no process and no socket.

    #[path = "../../tests/common/bed.rs"]
    pub mod bed;
    #[path = "../../tests/common/pure.rs"]
    pub mod pure;
    #[path = "../../tests/common/script.rs"]
    pub mod script;
    #[path = "../../tests/common/transcript.rs"]
    pub mod transcript;
}

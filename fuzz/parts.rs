//! What every fuzz target is made of: the targets, and the test bed of the transcripts that the sessions run in.

#![allow(dead_code, reason = "every target uses another part")]

#[path = "common.rs"]
pub mod common;
#[path = "targets.rs"]
pub mod targets;

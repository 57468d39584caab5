//! The hub: the one owner of what is known about every device.
//!
//! Observations and commands come in, numbered device messages and outcomes go out. `state.rs` and what it uses are
//! pure; `task.rs` is the loop around it; [`handle`] is what drivers' and sessions' owners hold.

mod alarms;
mod client_alarms;
pub mod commands;
mod computed;
mod device;
mod documents;
mod effect;
mod events;
mod groups;
pub mod handle;
mod index;
mod journal;
mod leases;
mod links;
mod outcomes;
mod point;
mod queues;
mod revive;
mod roster;
mod slow;
pub mod state;
pub mod task;

#[cfg(test)]
mod tests;

//! The words of pentad as types: products, devices, values, device messages, commands, clients.
//!
//! Pure data with small pure functions. Nothing here knows a driver, a dialect, a socket or a clock, and nothing
//! here is serialisable: each dialect has wire types of its own, so that a change of the model never changes a
//! wire by accident.

pub mod check;
pub mod client;
pub mod command;
pub mod device;
pub mod directory;
pub mod expression;
pub mod history;
pub mod identity;
pub mod interest;
pub mod message;
pub mod product;
mod rules;
pub mod snapshot;
pub mod time;
pub mod value;

//! The demo: a simulated plant behind the real drivers, a fixed test bed for documentation and tests.

pub mod plant;
pub mod slaves;

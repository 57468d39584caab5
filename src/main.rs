//! The thin binary: arguments, configuration, logging, runtime, exit code. Nothing else.

fn main() {}

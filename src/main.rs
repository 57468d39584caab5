//! The thin binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    pentad::cli::main(std::env::args_os())
}

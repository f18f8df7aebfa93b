//! The `statekeep` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    statekeep::cli::run(std::env::args_os())
}

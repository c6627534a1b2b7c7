//! The `sluice-agent` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_agent::run(std::env::args_os())
}

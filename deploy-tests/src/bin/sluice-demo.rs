//! `sluice-demo`: the main job in one command, on embedded defaults.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_deploy_tests::role::take().unwrap_or_else(sluice_deploy_tests::demo::main)
}

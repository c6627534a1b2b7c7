//! Shows what Sluice promises, each figure beside its bound. `deploy-tests/show` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_deploy_tests::role::take().unwrap_or_else(sluice_deploy_tests::show::main)
}

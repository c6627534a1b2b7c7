//! Shows what Sluice promises, each figure beside its bound. `deploy-tests/show` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    use sluice_deploy_tests::{apart, role, show};
    role::take().unwrap_or_else(|| apart::run(show::main))
}

//! Rehearses a coordinator that is killed: the service as it is, which ends itself as `kill -9` does at one of its
//! commits. Tests of recovery start it; nothing of it is reachable from the service's own command line.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::store::{Strike, strike};

/// The environment variable that says where to strike: `before:N` or `after:N`, the N-th commit of the process that counts;
/// `after:N:rollout.finish` counts those alone whose audit entry has that action, `report` those of reports.
pub const STRIKE: &str = "SLUICE_REHEARSAL_STRIKE";

/// Runs the service with the given arguments, the program's name first, until it ends or strikes.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Ok(text) = std::env::var(STRIKE) {
        match text.parse::<Strike>() {
            Ok(at) => strike::arm(at),
            Err(error) => {
                eprintln!("error: {STRIKE}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    crate::service::run(args)
}

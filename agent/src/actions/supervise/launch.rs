//! How this program starts itself as a supervisor.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program, and what stands before `supervise` on its command line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Launch {
    arguments: Vec<OsString>,
}

impl Launch {
    /// This program, as it was started itself: what stands before `run` applies to a supervisor too.
    #[cfg(not(test))]
    pub(super) fn of_this_program() -> Self {
        Self { arguments: std::env::args_os().skip(1).take_while(|argument| argument != "run").collect() }
    }

    /// The test that plays the supervisor.
    #[cfg(test)]
    pub(super) fn of_this_program() -> Self {
        let arguments = ["--exact", "--nocapture", super::tests::SUPERVISOR];
        Self { arguments: arguments.map(OsString::from).to_vec() }
    }

    /// Starts a supervisor of `dir`. It puts itself into a session of its own; while this process lives, the runtime's
    /// reaper takes its end.
    pub(super) fn start(&self, dir: &Path) -> std::io::Result<()> {
        // The file that runs now, even where an update has put another in its place.
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.arguments).arg("supervise").arg(dir).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        tokio::process::Command::from(command).spawn().map(drop)
    }
}

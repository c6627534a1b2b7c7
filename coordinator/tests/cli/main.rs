//! The shipped `sluice`, run as people run it: arguments in; stdout, stderr and exit code out.

#![expect(clippy::unwrap_used, reason = "a test may panic wherever its ground is not as it must be")]

mod double;
mod grammar;
mod local;
mod remote;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// Returns stdout as JSON.
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// Makes a command with a home of its own and nothing of the caller's environment.
fn command<S: AsRef<OsStr>>(home: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().env("SLUICE_HOME", home).stdin(Stdio::null()).args(args);
    command
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs without an identity: for commands that need none.
fn sluice(args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    finish(&mut command(home.path(), args))
}

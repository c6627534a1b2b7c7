//! Roles: the executable starts itself again as a shipped program.
//!
//! `sluice-demo role coordinator …` behaves as `sluice-coordinator …` does, through the same entry point. A role that
//! stays ends when its standard input closes, so that nothing outlives the process that started it, however that ends.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The word that makes an executable take a role.
const WORD: &str = "role";

/// A shipped program, or the web application of the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `sluice-coordinator`
    Coordinator,
    /// `sluice-agent`
    Agent,
    /// `sluice`
    Operator,
    /// The web application that runs on every host of the demonstration.
    Web,
    /// The encoder alone: prints what a transfer sends. For measuring what encoding takes.
    Encode,
    /// The parent of a program that is measured.
    Measure,
    /// A step of either end with a manifest of many entries. For measuring what it takes.
    Manifests,
    /// The agent's engine without a coordinator: what fault tests strike.
    Rehearse,
    /// The coordinator that is killed at one of its commits.
    RehearseCoordinator,
    /// The first process of a program that runs apart.
    First,
    /// What removes its files after it.
    Sweep,
}

impl Role {
    const ALL: [Self; 11] = [
        Self::Coordinator,
        Self::Agent,
        Self::Operator,
        Self::Web,
        Self::Encode,
        Self::Measure,
        Self::Manifests,
        Self::Rehearse,
        Self::RehearseCoordinator,
        Self::First,
        Self::Sweep,
    ];

    /// Returns the role's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
            Self::Operator => "sluice",
            Self::Web => "web",
            Self::Encode => "encode",
            Self::Measure => "measure",
            Self::Manifests => "manifests",
            Self::Rehearse => "rehearse",
            Self::RehearseCoordinator => "rehearse-coordinator",
            Self::First => "first",
            Self::Sweep => "sweep",
        }
    }

    /// Says whether the role, started with this verb, runs until it is ended.
    fn stays(self, verb: Option<&OsString>) -> bool {
        match self {
            Self::Coordinator | Self::RehearseCoordinator => verb.is_some_and(|verb| verb == "serve"),
            Self::Agent => verb.is_some_and(|verb| verb == "run"),
            Self::Operator
            | Self::Encode
            | Self::Measure
            | Self::Manifests
            | Self::Rehearse
            | Self::First
            | Self::Sweep => false,
            Self::Web => true,
        }
    }

    /// Returns a command that starts `executable` in this role.
    pub fn command(self, executable: &Path) -> Command {
        let mut command = Command::new(executable);
        command.args(self.words());
        command
    }

    /// Returns what stands first on the command line of an executable in this role.
    pub(crate) fn words(self) -> [&'static str; 2] {
        [WORD, self.as_str()]
    }
}

/// Takes the role that the command line asks for and returns how it ended; nothing when it asks for none.
/// The first thing every executable of this crate does.
pub fn take() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != WORD {
        return None;
    }
    let name = args.next()?;
    let role = Role::ALL.into_iter().find(|role| name == role.as_str())?;
    let args: Vec<OsString> = std::iter::once(OsString::from(role.as_str())).chain(args).collect();
    if role.stays(args.get(1)) {
        end_with_standard_input();
    }
    Some(match role {
        Role::Coordinator => sluice_coordinator::service::run(args),
        Role::Agent => sluice_agent::run(args),
        Role::Operator => sluice_coordinator::cli::run(args),
        Role::Web => crate::web::run(args),
        Role::Encode => crate::measure::encode(args),
        Role::Measure => crate::measure::report(args),
        Role::Manifests => crate::measure::manifests(args),
        Role::Rehearse => sluice_agent::rehearsal::run(args),
        Role::RehearseCoordinator => sluice_coordinator::rehearsal::run(args),
        Role::First => crate::apart::first(args),
        Role::Sweep => crate::apart::sweep(args),
    })
}

/// Asks this process to end, as an operator would, once its standard input has closed.
fn end_with_standard_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        // Failing to signal oneself leaves nothing else to try.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
}

//! How the command line ends: the exit codes that scripts rely on.

use std::process::ExitCode;

/// How a command ended. The numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It did what was asked.
    Success,
    /// A plan or a comparison found something to do.
    Changes,
    /// A plan or a comparison could not be made.
    Unanswered,
    /// Bad input, refused by the coordinator, no connection.
    Error,
    /// The command line itself is wrong.
    Usage,
    /// The rollout failed, and what switched has what it had before.
    RolledBack,
    /// The rollout failed, was paused or aborted, and was not rolled back.
    Unfinished,
    /// `--timeout` was reached; the rollout goes on.
    TimedOut,
    /// Watching was ended by ctrl-C; the rollout goes on. 128 + SIGINT, as shells have it.
    Detached,
}

impl Exit {
    /// Returns the number.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error | Self::Changes => 1,
            Self::Unanswered => 255,
            Self::Usage => 2,
            Self::RolledBack => 3,
            Self::Unfinished => 4,
            Self::TimedOut => 5,
            Self::Detached => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

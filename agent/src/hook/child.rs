//! What a command's process does to itself between fork and exec: its own session, its cgroup, its user.
//!
//! The only place where that can be done: from outside it would come after the command has begun, and it may have started
//! others by then. Only system calls are made here, nothing is allocated and no lock is taken.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tokio::process::Command;

use super::user::User;

/// What commands keep from others of the files that they make: what is usual, not what the agent does with its own.
pub(crate) const UMASK: Mode = Mode::from_raw_mode(0o022);

/// What is done before a command begins.
pub(super) struct Setup {
    /// `cgroup.procs` of the cgroup that the process joins.
    pub(super) cgroup: Option<OwnedFd>,
    /// Whom it runs as; the agent's own user otherwise.
    pub(super) user: Option<User>,
}

impl Setup {
    /// Has `command` do this when it is spawned.
    #[expect(unsafe_code, reason = "the standard library has no safe way to leave a session and its groups")]
    pub(super) fn install(self, command: &mut Command) {
        // SAFETY: `apply` makes system calls on what was opened and allocated before the fork, and nothing else.
        unsafe { command.pre_exec(move || self.apply()) };
    }

    fn apply(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            // Where it may not join, it is found by its session and its mark.
            let _ = rustix::io::write(cgroup, b"0");
        }
        rustix::process::setsid()?;
        rustix::process::umask(UMASK);
        if let Some(User { uid, gid, groups, .. }) = &self.user {
            // The process has one thread, so that what is set for the thread is set for the process.
            set_thread_groups(groups)?;
            set_thread_gid(*gid)?;
            set_thread_uid(*uid)?;
        }
        Ok(())
    }
}

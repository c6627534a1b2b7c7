//! Ends this process as `kill -9` does, right before or right after one of its commits: for rehearsals of recovery.
//!
//! Commits that count are those on which rollouts turn: decisions, and what hosts reported. Content that is put in order and times
//! that are noted do not.
//!
//! Nothing strikes unless [`arm`] was called, which only [`crate::rehearsal`] does; a commit then costs one look at an
//! atomic more.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// A moment in the life of a process: `before:3` or `after:3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    side: Side,
    /// Counted from 1.
    commit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Everything is written, nothing of it lasts.
    Before,
    /// All of it lasts, and nobody has been told.
    After,
}

/// What a commit is about, as far as a strike cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody, or the coordinator itself, decided something.
    Decision,
    /// Hosts reported.
    Report,
    /// All else.
    Other,
}

static ARMED: OnceLock<Strike> = OnceLock::new();
static COMMITS: AtomicU64 = AtomicU64::new(0);

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no strike; write before:N or after:N, N from 1");
        let (side, commit) = text.split_once(':').ok_or_else(wrong)?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(wrong()),
        };
        let commit = commit.parse().ok().filter(|commit| *commit > 0).ok_or_else(wrong)?;
        Ok(Self { side, commit })
    }
}

/// Arms this process; the first call counts.
pub(crate) fn arm(strike: Strike) {
    // A second strike would come too late.
    let _ = ARMED.set(strike);
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit {
    number: u64,
    kind: Kind,
}

impl Commit {
    /// Passes the moment before a commit.
    pub(super) fn begin(kind: Kind) -> Self {
        let number = match kind {
            Kind::Decision | Kind::Report => COMMITS.fetch_add(1, Ordering::Relaxed) + 1,
            Kind::Other => 0,
        };
        let commit = Self { number, kind };
        commit.pass(Side::Before);
        commit
    }

    /// Passes the moment after it.
    pub(super) fn end(&self) {
        self.pass(Side::After);
    }

    fn pass(&self, side: Side) {
        if ARMED.get() != Some(&Strike { side, commit: self.number }) {
            return;
        }
        tracing::warn!(kind = ?self.kind, ?side, number = self.number, "struck at a commit");
        // Nothing is left to do where a process may not signal itself.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_read_as_they_are_written() {
        assert_eq!("before:1".parse(), Ok(Strike { side: Side::Before, commit: 1 }));
        assert_eq!("after:20".parse(), Ok(Strike { side: Side::After, commit: 20 }));
        for bad in ["", "after", "after:0", "after:-1", "amid:3"] {
            assert!(bad.parse::<Strike>().is_err(), "{bad}");
        }
    }
}

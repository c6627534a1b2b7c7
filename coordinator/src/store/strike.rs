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

/// A moment in the life of a process: `before:3`, `after:3`, or `after:1:rollout.roll_back` for one of the commits that are about
/// that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    side: Side,
    /// Counted from 1.
    commit: u64,
    /// What the commits that count are about; nothing where all do.
    about: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Everything is written, nothing of it lasts.
    Before,
    /// All of it lasts, and nobody has been told.
    After,
}

/// What a commit is, as far as a strike cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Somebody, or the coordinator itself, decided something: the action of its audit entry.
    Decision(&'a str),
    /// Hosts reported.
    Report,
    /// All else.
    Other,
}

impl<'a> Kind<'a> {
    /// Returns what a commit that counts is about.
    fn about(self) -> Option<&'a str> {
        match self {
            Self::Decision(action) => Some(action),
            Self::Report => Some("report"),
            Self::Other => None,
        }
    }
}

static ARMED: OnceLock<Strike> = OnceLock::new();
static COMMITS: AtomicU64 = AtomicU64::new(0);

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no strike; write before:N or after:N, N from 1, or after:N:ACTION");
        let (side, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (commit, about) = match rest.split_once(':') {
            Some((commit, about)) => (commit, Some(about.to_owned())),
            None => (rest, None),
        };
        if about.as_deref() == Some("") {
            return Err(wrong());
        }
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(wrong()),
        };
        let commit = commit.parse().ok().filter(|commit| *commit > 0).ok_or_else(wrong)?;
        Ok(Self { side, commit, about })
    }
}

/// Arms this process; the first call counts.
pub(crate) fn arm(strike: Strike) {
    // A second strike would come too late.
    let _ = ARMED.set(strike);
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    /// Which of those that count for the strike it is; nothing where it does not.
    number: Option<u64>,
    kind: Kind<'a>,
}

impl<'a> Commit<'a> {
    /// Passes the moment before a commit.
    pub(super) fn begin(kind: Kind<'a>) -> Self {
        let counts = |strike: &Strike| {
            kind.about().is_some_and(|about| strike.about.as_deref().is_none_or(|wanted| wanted == about))
        };
        let number = ARMED.get().is_some_and(counts).then(|| COMMITS.fetch_add(1, Ordering::Relaxed) + 1);
        let commit = Self { number, kind };
        commit.pass(Side::Before);
        commit
    }

    /// Passes the moment after it.
    pub(super) fn end(&self) {
        self.pass(Side::After);
    }

    fn pass(&self, side: Side) {
        let Some(number) = self.number else { return };
        if !ARMED.get().is_some_and(|strike| strike.side == side && strike.commit == number) {
            return;
        }
        tracing::warn!(about = self.kind.about(), ?side, number, "struck at a commit");
        // Nothing is left to do where a process may not signal itself.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_read_as_they_are_written() {
        assert_eq!("before:1".parse(), Ok(Strike { side: Side::Before, commit: 1, about: None }));
        assert_eq!("after:20".parse(), Ok(Strike { side: Side::After, commit: 20, about: None }));
        let about = Some("app.reopen".to_owned());
        assert_eq!("after:2:app.reopen".parse(), Ok(Strike { side: Side::After, commit: 2, about }));
        for bad in ["", "after", "after:0", "after:-1", "amid:3", "after:1:"] {
            assert!(bad.parse::<Strike>().is_err(), "{bad}");
        }
    }
}

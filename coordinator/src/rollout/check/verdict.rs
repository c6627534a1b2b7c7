//! What the samples of a check come to. Pure.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::units::format_duration;

use super::Check;
use crate::clock::{after, elapsed};

/// What one sample came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it must be.
    Pass,
    /// It is not.
    Fail,
    /// Nobody knows: no answer, no data, not yet.
    Inconclusive,
}

impl Outcome {
    /// Returns the outcome's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Returns the outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pass, Self::Fail, Self::Inconclusive].into_iter().find(|outcome| outcome.as_str() == name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When it was asked for.
    pub at: Timestamp,
    /// What it came to.
    pub outcome: Outcome,
    /// Why, in a line.
    pub words: String,
}

/// The samples of one check in one batch, as far as decisions need them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many there were.
    pub samples: u64,
    /// How many of them passed.
    pub passed: u64,
    /// When the first of them was asked for, since an operator resumed the rollout last.
    pub first: Option<Timestamp>,
    /// The newest of them, since an operator resumed the rollout last.
    pub newest: Option<Said>,
    /// Why the check has failed, and the rollout with it.
    pub failure: Option<String>,
}

impl Tally {
    /// Takes in a sample.
    pub fn take(&mut self, said: Said) {
        self.samples += 1;
        self.passed += u64::from(said.outcome == Outcome::Pass);
        self.first.get_or_insert(said.at);
        self.newest = Some(said);
    }

    /// Begins anew; what was counted stays.
    pub fn forgive(&mut self) {
        (self.first, self.newest, self.failure) = (None, None, None);
    }
}

/// What a check says of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The newest sample passed, and is fresh.
    Passed,
    /// The batch must not pass.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody knows yet.
    Waiting {
        /// What the newest sample said, where there is one.
        words: Option<String>,
        /// How long that may go on.
        left: Duration,
    },
}

/// Decides what the samples of `check` say of a batch that has been holding since `since` and has to for `bake`.
///
/// A sample from before `since` says nothing of this bake, unless it failed.
pub fn verdict(
    check: &Check,
    tally: Option<&Tally>,
    since: Timestamp,
    bake: Duration,
    now: Timestamp,
) -> Verdict {
    let newest = tally.and_then(|tally| tally.newest.as_ref());
    if let Some(said) = newest.filter(|said| said.outcome == Outcome::Fail) {
        return Verdict::Failed { reason: said.words.clone() };
    }
    let newest = newest.filter(|said| said.at >= since);
    let fresh_for = check.every.saturating_add(check.timeout).saturating_mul(2);
    if newest.is_some_and(|said| said.outcome == Outcome::Pass && elapsed(said.at, now) <= fresh_for) {
        return Verdict::Passed;
    }
    let words = newest.map(|said| match said.outcome {
        Outcome::Pass => "its last pass is too old".to_owned(),
        Outcome::Fail | Outcome::Inconclusive => said.words.clone(),
    });
    // Hosts may have been holding for long before they were first asked after.
    let begun = tally.and_then(|tally| tally.first).map_or(now, |first| first.max(since));
    let left = bake.saturating_add(check.patience).saturating_sub(elapsed(begun, now));
    if left.is_zero() {
        let words = words.unwrap_or_else(|| "no answer".to_owned());
        let reason = format!("inconclusive for {} after the bake: {words}", format_duration(check.patience));
        return Verdict::Failed { reason };
    }
    Verdict::Waiting { words, left }
}

/// Returns when the next sample is due; one that was never asked is due at once.
pub fn due(check: &Check, tally: Option<&Tally>, since: Timestamp) -> Timestamp {
    let newest = tally.and_then(|tally| tally.newest.as_ref()).filter(|said| said.at >= since);
    newest.map_or(since, |said| after(said.at, check.every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn tally(samples: &[(i64, Outcome)]) -> Tally {
        let mut tally = Tally::default();
        for (seconds, outcome) in samples {
            tally.take(Said { at: at(*seconds), outcome: *outcome, words: format!("said at {seconds}") });
        }
        tally
    }

    #[test]
    fn nothing_but_a_fresh_pass_is_a_success() {
        use Outcome::{Fail, Inconclusive, Pass};
        let check: Check = "c(every=10s,timeout=5s,patience=1m)=command x".parse().unwrap();
        type Case = (&'static str, &'static [(i64, Outcome)], i64, &'static str);
        let cases: [Case; 11] = [
            ("never asked", &[], 5, "waiting"),
            ("never asked, and the hosts have long held", &[], 5_000, "waiting"),
            ("a pass", &[(0, Pass)], 5, "passed"),
            ("a pass from before the bake", &[(-5, Pass)], 5, "waiting"),
            ("a pass too old", &[(0, Pass)], 31, "waiting"),
            ("no data after a pass", &[(0, Pass), (10, Inconclusive)], 12, "waiting"),
            ("no data until the end of patience", &[(0, Inconclusive), (89, Inconclusive)], 89, "waiting"),
            ("no data beyond it", &[(0, Inconclusive), (90, Inconclusive)], 90, "failed: inconclusive"),
            ("a pass at last", &[(0, Inconclusive), (90, Pass)], 95, "passed"),
            ("a failure", &[(0, Pass), (10, Fail)], 12, "failed: said at 10"),
            ("a failure from before the bake", &[(-10, Fail)], 12, "failed: said at -10"),
        ];
        for (name, samples, now, expected) in cases {
            let tally = tally(samples);
            let seen = match verdict(&check, Some(&tally), at(0), Duration::from_secs(30), at(now)) {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Failed { reason } => format!("failed: {reason}"),
                Verdict::Waiting { .. } => "waiting".to_owned(),
            };
            assert!(seen.starts_with(expected), "{name}: {seen}");
        }
    }

    #[test]
    fn samples_are_due_at_their_interval_and_anew_in_each_bake() {
        let check: Check = "c(every=10s)=command x".parse().unwrap();
        assert_eq!(due(&check, None, at(0)), at(0));
        let tally = tally(&[(0, Outcome::Pass), (7, Outcome::Inconclusive)]);
        assert_eq!(due(&check, Some(&tally), at(0)), at(17));
        assert_eq!(due(&check, Some(&tally), at(9)), at(9));
    }

    #[test]
    fn who_resumes_begins_anew() {
        let mut tally = tally(&[(0, Outcome::Fail)]);
        tally.failure = Some("why".to_owned());
        tally.forgive();
        assert_eq!(tally, Tally { samples: 1, ..Tally::default() });
    }
}

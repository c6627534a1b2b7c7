//! What changed between two states of a rollout: the lines of a log and the events of `--json`.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use sluice_common::order::Phase;

use crate::cli::output::one_line;
use crate::cli::view::rollout::{BatchState, Check, Host, Outcome, Rollout, State};

/// One change. Its JSON is `{"event": ..., "rollout": ID, ...}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Change {
    /// The rollout as a whole.
    State { rollout: String, state: State, reason: Option<String> },
    /// A batch.
    Batch { rollout: String, batch: usize, batches: usize, state: BatchState },
    /// A host's outcome or phase.
    Host {
        rollout: String,
        host: String,
        site: String,
        batch: usize,
        outcome: Outcome,
        phase: Option<Phase>,
        reachable: bool,
        wire_bytes: u64,
        reason: Option<String>,
    },
    /// A check was asked once more, or its verdict on the batch fell.
    Check {
        rollout: String,
        check: String,
        batch: u32,
        samples: u64,
        passed: u64,
        outcome: Option<String>,
        words: Option<String>,
        verdict: Option<Verdict>,
        /// Whether it says something else than before: worth a line in a log.
        #[serde(skip)]
        is_news: bool,
    },
    /// What it waits for.
    Blockers { rollout: String, blockers: Vec<String> },
}

/// What a check came to in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The batch has passed with it.
    Passed,
    /// The rollout has failed by it.
    Failed,
}

/// Returns what changed; everything worth saying when there is no state before.
pub(super) fn changes(before: Option<&Rollout>, now: &Rollout) -> Vec<Change> {
    let rollout = || now.id.clone();
    let mut changes = Vec::new();
    if before.is_none_or(|before| before.state != now.state) {
        changes.push(Change::State { rollout: rollout(), state: now.state, reason: now.reason.clone() });
    }
    let states = |rollout: &Rollout| rollout.batches.iter().map(|batch| batch.state).collect::<Vec<_>>();
    let (old, new) = (before.map(states).unwrap_or_default(), states(now));
    for (i, state) in new.iter().enumerate() {
        if *old.get(i).unwrap_or(&BatchState::Waiting) != *state {
            let batches = new.len();
            changes.push(Change::Batch { rollout: rollout(), batch: i + 1, batches, state: *state });
        }
    }
    let old: HashMap<&str, &Host> =
        before.iter().flat_map(|before| before.hosts()).map(|(_, host)| (host.name.as_str(), host)).collect();
    for (batch, host) in now.hosts() {
        if has_changed(old.get(host.name.as_str()).copied(), host) {
            changes.push(host_change(rollout(), batch, host));
        }
    }
    changes.extend(now.checks.iter().filter_map(|check| check_change(before, now, check)));
    let known = before.map_or(&[][..], |before| &before.blockers);
    if !now.blockers.is_empty() && causes(known) != causes(&now.blockers) {
        changes.push(Change::Blockers { rollout: rollout(), blockers: now.blockers.clone() });
    }
    changes
}

fn has_changed(before: Option<&Host>, now: &Host) -> bool {
    match before {
        None => now.outcome != Outcome::Waiting || now.phase.is_some() || !now.reachable,
        Some(before) => {
            (before.outcome, before.phase, before.reachable) != (now.outcome, now.phase, now.reachable)
        }
    }
}

fn host_change(rollout: String, batch: usize, host: &Host) -> Change {
    Change::Host {
        rollout,
        host: host.name.clone(),
        site: host.site.clone(),
        batch,
        outcome: host.outcome,
        phase: host.phase,
        reachable: host.reachable,
        wire_bytes: host.wire_bytes,
        reason: host.reason.clone(),
    }
}

fn check_change(before: Option<&Rollout>, now: &Rollout, check: &Check) -> Option<Change> {
    let is_it = |old: &&Check| (&old.name, old.batch) == (&check.name, check.batch);
    let old = before.and_then(|before| Some((before, before.checks.iter().find(is_it)?)));
    let verdict = verdict(now, check);
    let old_verdict = old.and_then(|(before, old)| self::verdict(before, old));
    let old = old.map(|(_, old)| old);
    let was_asked = old.map_or(0, |old| old.samples) != check.samples;
    if !was_asked && old_verdict == verdict {
        return None;
    }
    let has_turned = old.is_none_or(|old| old.outcome != check.outcome);
    let Check { name, batch, samples, passed, outcome, words, at: _, failure } = check.clone();
    Some(Change::Check {
        rollout: now.id.clone(),
        check: name,
        batch,
        samples,
        passed,
        outcome,
        words: failure.or(words),
        verdict,
        is_news: has_turned || old_verdict != verdict,
    })
}

fn verdict(rollout: &Rollout, check: &Check) -> Option<Verdict> {
    let batch = (check.batch as usize).checked_sub(1).and_then(|place| rollout.batches.get(place));
    match (&check.failure, batch.map(|batch| batch.state)) {
        (Some(_), _) => Some(Verdict::Failed),
        (None, Some(BatchState::Passed)) => Some(Verdict::Passed),
        (None, _) => None,
    }
}

/// Blockers without their numbers: how long they have lasted is no news.
fn causes(blockers: &[String]) -> Vec<String> {
    blockers
        .iter()
        .map(|blocker| blocker.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect())
        .collect()
}

impl Change {
    /// Says whether the change is worth a line in a log at all: one more sample that says the same is not.
    pub(super) fn is_news(&self) -> bool {
        match self {
            Self::Check { is_news, .. } => *is_news,
            Self::State { .. } | Self::Batch { .. } | Self::Host { .. } | Self::Blockers { .. } => true,
        }
    }

    /// Says whether the change is worth a line in a log where hosts are many.
    pub(super) fn is_coarse(&self) -> bool {
        match self {
            Self::State { .. } | Self::Batch { .. } => true,
            Self::Host { outcome: Outcome::Failed, .. } => true,
            Self::Check { verdict, is_news, .. } => *is_news && *verdict == Some(Verdict::Failed),
            Self::Host { .. } | Self::Blockers { .. } => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |reason: &Option<String>| match reason {
            Some(reason) => format!(": {}", one_line(reason)),
            None => String::new(),
        };
        match self {
            Self::State { rollout, state, reason } => {
                write!(f, "rollout {rollout}: {}{}", state.as_str(), because(reason))
            }
            Self::Batch { rollout: _, batch, batches, state } => {
                write!(f, "batch {batch} of {batches}: {}", state.as_str())
            }
            Self::Host { host, outcome, phase, reachable, reason, .. } => {
                write!(f, "{}: {}", one_line(host), standing(*outcome, *phase))?;
                if !reachable {
                    f.write_str(", unreachable")?;
                }
                f.write_str(&because(reason))
            }
            Self::Check { check, batch, samples, passed, outcome, words, verdict, .. } => {
                let said = match (verdict, outcome) {
                    (Some(Verdict::Failed), _) => "failed",
                    (Some(Verdict::Passed), _) => "passed",
                    (None, outcome) => outcome.as_deref().unwrap_or("not answered"),
                };
                write!(f, "check {} of batch {batch}: ", one_line(check))?;
                write!(f, "{}, {passed} of {samples} passed{}", one_line(said), because(words))
            }
            Self::Blockers { rollout: _, blockers } => f.write_str(&one_line(&blockers.join("; "))),
        }
    }
}

fn standing(outcome: Outcome, phase: Option<Phase>) -> String {
    match (outcome, phase) {
        (Outcome::Waiting, Some(phase @ (Phase::Fetching | Phase::Staged | Phase::Candidate))) => {
            phase.to_string()
        }
        (Outcome::Ordered | Outcome::RollingBack, Some(phase)) => format!("{}, {phase}", outcome.as_str()),
        (outcome, _) => outcome.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn lines(before: Option<&Rollout>, now: &Rollout) -> String {
        changes(before, now).iter().map(|change| format!("{change}\n")).collect()
    }

    #[test]
    fn a_first_look_says_how_things_stand() {
        insta::assert_snapshot!(lines(None, &samples::running()), @r#"
        rollout r42: running
        batch 1 of 3: passed
        batch 2 of 3: open
        web-1: updated
        web-2: ordered, validating
        web-10: ordered, staged
        web-4: fetching
        web-5: waiting, unreachable
        "#);
    }

    #[test]
    fn only_news_is_said() {
        assert_eq!(lines(Some(&samples::running()), &samples::running()), "");
        insta::assert_snapshot!(lines(Some(&samples::running()), &samples::baking()), @r#"
        batch 2 of 3: baking
        web-2: updated
        web-10: updated
        baking batch 2: 18s of 30s left
        "#);
        insta::assert_snapshot!(lines(Some(&samples::baking()), &samples::rolled_back()), @r#"
        rollout r42: rolled back: 1 host failed, 0 are tolerated
        batch 2 of 3: open
        web-1: rolled back
        web-2: failed: health[0]: GET http://127.0.0.1:8080/: 500�[31m, expected 200
        web-10: ordered, staged
        "#);
    }

    #[test]
    fn a_blocker_that_merely_lasts_longer_is_no_news() {
        let mut later = samples::blocked();
        later.blockers = later.blockers.iter().map(|blocker| blocker.replace('4', "5")).collect();
        assert_ne!(later.blockers, samples::blocked().blockers);
        assert_eq!(changes(Some(&samples::blocked()), &later), []);
    }

    #[test]
    fn a_check_is_told_of_when_it_was_asked_and_when_its_verdict_falls() {
        let said = |samples, outcome: &str| Check {
            name: "errors".into(),
            batch: 2,
            samples,
            passed: 1,
            outcome: Some(outcome.into()),
            words: Some("0.1 < 0.5".into()),
            at: None,
            failure: None,
        };
        let with = |check: Check| Rollout { checks: vec![check], ..samples::baking() };
        let (first, second, other) = (with(said(1, "pass")), with(said(2, "pass")), with(said(3, "fail")));
        let mut passed = other.clone();
        passed.batches[1].state = BatchState::Passed;
        let failed = with(Check { failure: Some("2 of 3 samples failed".into()), ..said(3, "fail") });
        let told = |before: &Rollout, now: &Rollout| -> Vec<Change> {
            let all = changes(Some(before), now);
            all.into_iter().filter(|change| matches!(change, Change::Check { .. })).collect()
        };
        let event = serde_json::to_string(&told(&samples::baking(), &first)).unwrap();
        insta::assert_snapshot!(event, @r#"[{"event":"check","rollout":"r42","check":"errors","batch":2,"samples":1,"passed":1,"outcome":"pass","words":"0.1 < 0.5","verdict":null}]"#);
        let line = |before: &Rollout, now: &Rollout| {
            told(before, now)
                .iter()
                .filter(|change| change.is_news())
                .map(ToString::to_string)
                .collect::<String>()
        };
        assert_eq!((told(&first, &first), told(&first, &second).len()), (Vec::new(), 1));
        assert_eq!(line(&first, &second), "", "one more that says the same is no line of a log");
        assert_eq!(line(&second, &other), "check errors of batch 2: fail, 1 of 3 passed: 0.1 < 0.5");
        assert_eq!(line(&other, &passed), "check errors of batch 2: passed, 1 of 3 passed: 0.1 < 0.5");
        assert_eq!(
            line(&other, &failed),
            "check errors of batch 2: failed, 1 of 3 passed: 2 of 3 samples failed"
        );
    }

    #[test]
    fn events_have_stable_keys() {
        let changes = changes(Some(&samples::running()), &samples::failed());
        let json: String = changes.iter().map(|c| serde_json::to_string(c).unwrap() + "\n").collect();
        insta::assert_snapshot!(json, @r#"
        {"event":"state","rollout":"r42","state":"failed","reason":"1 host failed, 0 are tolerated"}
        {"event":"host","rollout":"r42","host":"web-2","site":"berlin","batch":2,"outcome":"failed","phase":"reverted","reachable":true,"wire_bytes":3120000,"reason":"health[0]: GET http://127.0.0.1:8080/: 500\u001b[31m, expected 200"}
        "#);
    }
}

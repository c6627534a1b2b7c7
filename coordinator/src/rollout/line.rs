//! Stop the line: a rollout that failed closes its application to new ones, until an operator records the cause.
//!
//! It closes as soon as hosts are taken back because too many failed, not only at the end: a second try beside the retreat of the first
//! would be one too many. What operators abort or take back at will closes nothing.

use jiff::Timestamp;
use sluice_common::name::{AppName, OperatorName, RolloutId};

use super::action::Action;
use super::model::Rollout;
use super::state::State;

/// One time that a failed rollout closed its application to new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineStop {
    /// The application.
    pub app: AppName,
    /// The rollout.
    pub rollout: RolloutId,
    /// Why it failed.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
    /// How it ended; nothing while the application is closed.
    pub reopened: Option<Reopened>,
}

/// How an application was opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopened {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: OperatorName,
    /// What was found to be the cause.
    pub cause: String,
}

/// Says whether these changes of a rollout, which has them applied already, close its application to new ones.
pub fn stops(rollout: &Rollout, actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::BeginRollback { .. } => rollout.is_condemned(),
        Action::Finish { state } => matches!(state, State::Failed { .. }),
        Action::Order { .. }
        | Action::Migrates { .. }
        | Action::Ready
        | Action::HostFailed { .. }
        | Action::CheckFailed { .. }
        | Action::BatchOpened { .. }
        | Action::BakeStarted { .. }
        | Action::BakeBroken { .. }
        | Action::BatchPassed { .. }
        | Action::Pause { .. }
        | Action::Resume
        | Action::Approve { .. }
        | Action::Override { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use sluice_common::units::Share;

    use super::*;
    use crate::rollout::testing::{at, rollout_of};
    use crate::rollout::{Failure, Spec};

    #[test]
    fn only_what_failed_closes_an_application() {
        let why = || "because".to_owned();
        let fail = |member| Action::HostFailed { member, failure: Failure::Deadline };
        let (back, pause) = (Action::BeginRollback { reason: why() }, Action::Pause { reason: why() });
        let finish = |state| Action::Finish { state };
        // Of four hosts in batches of one, one failure is tolerated.
        let spec = || Spec { max_failures: Share::Count(1), ..Spec::default() };
        for (name, before, actions, expected) in [
            ("too many failed", vec![fail(1)], vec![fail(2), back.clone()], true),
            ("the whole first batch failed", vec![], vec![fail(0), back.clone()], true),
            (
                "paused by failures, then taken back",
                vec![fail(1), fail(2), pause.clone()],
                vec![back.clone()],
                true,
            ),
            ("paused by failures", vec![fail(1)], vec![fail(2), pause.clone()], false),
            (
                "failures accepted, then taken back",
                vec![fail(1), fail(2), pause.clone(), Action::Resume],
                vec![back.clone()],
                false,
            ),
            (
                "the first batch accepted and left behind, then taken back",
                vec![fail(0), pause, Action::Resume, Action::BatchPassed { batch: 0 }, fail(1)],
                vec![back.clone()],
                false,
            ),
            ("taken back at will", vec![fail(1)], vec![back.clone()], false),
            ("given up", vec![fail(1), fail(2)], vec![finish(State::Aborted { reason: why() })], false),
            ("the retreat failed", vec![back], vec![finish(State::Failed { reason: why() })], true),
            ("the retreat succeeded", vec![], vec![finish(State::RolledBack { reason: why() })], false),
            ("succeeded", vec![], vec![finish(State::Succeeded)], false),
        ] {
            let mut rollout = rollout_of(4, spec());
            for action in before.iter().chain(&actions) {
                rollout.apply(action, at(0));
            }
            assert_eq!(stops(&rollout, &actions), expected, "{name}");
        }
    }
}

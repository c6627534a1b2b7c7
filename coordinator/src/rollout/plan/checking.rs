//! External checks of the batch that bakes: which of them are due, and whether they let the batch pass.

use jiff::Timestamp;

use super::super::action::Action;
use super::super::blocker::Blocker;
use super::super::check::verdict::due;
use super::super::check::{Verdict, verdict};
use super::super::model::Rollout;
use super::super::spec::OnFailure;
use super::Draft;

/// What the checks of a batch come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Each of them has passed, or there is none.
    Passed,
    /// Some have to be asked, or asked again.
    Waiting,
    /// One has failed; what follows is in the draft.
    Failed,
}

/// Looks at every check of the current batch, which has been holding since `since`.
pub(super) fn checked(rollout: &Rollout, since: Timestamp, now: Timestamp, draft: &mut Draft) -> Checked {
    let batch = rollout.cursor.batch;
    let mut all = Checked::Passed;
    for check in &rollout.spec.checks {
        let tally = rollout.tallies.get(&(batch, check.name.clone()));
        match verdict(check, tally, since, rollout.bake(batch), now) {
            Verdict::Passed => {}
            Verdict::Waiting { words, left } => {
                draft.blockers.push(Blocker::Check { name: check.name.clone(), words, left });
                all = Checked::Waiting;
            }
            Verdict::Failed { reason } => {
                fail(rollout, check.name.clone(), reason, draft);
                return Checked::Failed;
            }
        }
        let due = due(check, tally, since);
        if due <= now {
            draft.probes.push(check.name.clone());
        }
        draft.wake_at(Some(due).filter(|due| *due > now));
    }
    all
}

fn fail(rollout: &Rollout, name: super::super::check::CheckName, reason: String, draft: &mut Draft) {
    let batch = rollout.cursor.batch;
    let said = format!("check {name} of batch {} failed: {reason}", batch + 1);
    draft.actions.push(Action::CheckFailed { batch, name, reason });
    draft.actions.push(match rollout.spec.on_failure {
        OnFailure::Rollback => Action::BeginRollback { reason: said },
        OnFailure::Pause => Action::Pause { reason: said },
    });
}

//! What has to hold before a batch begins, and before any host is ordered to switch: staging, approvals, calendar.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::super::action::Action;
use super::super::blocker::Blocker;
use super::super::calendar::{Closed, Verdict};
use super::super::model::{Gate, Rollout};
use super::Draft;
use super::look::{Look, Position};
use crate::clock::after;

/// Until those that a rollout comes together with are looked at again: another coordinator may drive them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Says whether hosts of the current batch may be ordered to switch, and opens the batch if it just became so.
pub(super) fn open(
    rollout: &Rollout,
    looks: &[Look<'_>],
    range: Range<usize>,
    now: Timestamp,
    draft: &mut Draft,
) -> bool {
    let batch = rollout.cursor.batch;
    match rollout.cursor.gate {
        Gate::Open | Gate::Baking { .. } => return true,
        Gate::Waiting => {}
    }
    let is_staged = batch > 0 || staged_enough(rollout, looks, draft);
    // A batch of which every host runs the release already switches nothing.
    let switches = |look: &Look<'_>| look.member.failure.is_none() && look.position != Position::There;
    let switches = looks[range].iter().any(switches);
    let may_begin = !switches || may_switch(rollout, rollout.batch_time(batch), now, draft);
    let is_open = is_staged && may_begin && together(rollout, now, draft);
    if is_open {
        draft.actions.push(Action::BatchOpened { batch });
    }
    is_open
}

/// Says whether those that this rollout comes together with are as far as it is: none of them switches before all could. Notes
/// first that this one could.
fn together(rollout: &Rollout, now: Timestamp, draft: &mut Draft) -> bool {
    if rollout.comes_with().is_empty() {
        return true;
    }
    if !rollout.is_ready {
        draft.actions.push(Action::Ready);
        return false;
    }
    if !rollout.awaits.is_empty() {
        draft.blockers.push(Blocker::Together { apps: rollout.awaits.clone() });
        draft.wake_at(Some(after(now, LOOK_AGAIN)));
    }
    rollout.awaits.is_empty()
}

/// Says whether enough approvers have agreed, and whether the calendar is open for as long as is needed.
pub(super) fn may_switch(rollout: &Rollout, needs: Duration, now: Timestamp, draft: &mut Draft) -> bool {
    let needed = rollout.spec.approvals as usize;
    let is_approved = rollout.approvals.len() >= needed;
    if !is_approved {
        let approved = rollout.approvals.keys().cloned().collect();
        draft.blockers.push(Blocker::Approvals { approved, needed });
    }
    let is_open = is_open(rollout, needs, now, draft);
    is_approved && is_open
}

/// Says whether the calendar is open for as long as is needed.
pub(super) fn is_open(rollout: &Rollout, needs: Duration, now: Timestamp, draft: &mut Draft) -> bool {
    if rollout.overridden.is_some() {
        return true;
    }
    let Closed { freeze, is_short, opens } = match rollout.spec.calendar.look(now, needs) {
        Verdict::Open => return true,
        Verdict::Closed(closed) => closed,
    };
    draft.wake_at(opens.as_ref().map(|opens| opens.timestamp()));
    let thaw = freeze.as_ref().map(|freeze| freeze.to.timestamp());
    if let Some(freeze) = freeze {
        draft.blockers.push(Blocker::Frozen { until: freeze.to, reason: freeze.reason });
    }
    if thaw.is_none() || thaw != opens.as_ref().map(|opens| opens.timestamp()) {
        draft.blockers.push(Blocker::Window { opens, needs: is_short.then_some(needs) });
    }
    false
}

/// Says whether as many hosts are staged as have to be before anything switches.
pub(super) fn staged_enough(rollout: &Rollout, looks: &[Look<'_>], draft: &mut Draft) -> bool {
    let (mut staged, mut failed, mut unreachable) = (0, 0, 0);
    let (mut fetched_bytes, mut fetch_total_bytes) = (0_u64, 0_u64);
    for look in looks {
        if look.member.failure.is_some() {
            failed += 1;
            continue;
        }
        match look.position {
            Position::New => unreachable += usize::from(!look.is_reachable),
            Position::Staging { fetched_bytes: fetched, fetch_total_bytes: total } => {
                unreachable += usize::from(!look.is_reachable);
                fetched_bytes = fetched_bytes.saturating_add(fetched);
                fetch_total_bytes = fetch_total_bytes.saturating_add(total);
            }
            Position::StagingFailed | Position::CandidateFailed => {}
            Position::Staged { .. }
            | Position::Starting { .. }
            | Position::Ready { .. }
            | Position::Switching { .. }
            | Position::There
            | Position::NotSwitched
            | Position::Returning { .. }
            | Position::Returned
            | Position::ReturnFailed => staged += 1,
        }
    }
    // Tolerated failures will never be staged, and a dead host is no reason to keep the others from their gates: it
    // counts as out all the same.
    let needed = rollout.spec.stage_first.of_rounded_up(looks.len() - failed - unreachable);
    if staged < needed {
        draft.blockers.push(Blocker::StageFirst {
            staged,
            needed,
            unreachable,
            fetched_bytes,
            fetch_total_bytes,
        });
    }
    staged >= needed
}

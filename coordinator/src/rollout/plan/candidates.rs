//! Parallel production: every host brings up the release beside what runs there, and no traffic moves before enough of them have.
//!
//! A candidate takes nothing away: it costs none of the budgets and asks for no approval, so that approvers can look at it. What starts
//! on a host and puts load on it keeps to the calendar all the same.

use jiff::Timestamp;

use super::super::action::Action;
use super::super::blocker::Blocker;
use super::super::model::{Gate, Rollout, Target};
use super::Draft;
use super::look::{Look, Position};
use super::opening::{is_open, staged_enough};

/// Orders staged hosts to bring up their candidate; says whether traffic may move as far as candidates go. Without them it may.
pub(super) fn bring_up(rollout: &Rollout, looks: &[Look<'_>], now: Timestamp, draft: &mut Draft) -> bool {
    if !rollout.spec.strategy.has_candidates() {
        return true;
    }
    let has_begun = rollout.cursor.batch > 0 || rollout.cursor.gate != Gate::Waiting;
    if !has_begun && !staged_enough(rollout, looks, draft) {
        return false;
    }
    order(rollout, looks, now, draft);
    has_begun || up_enough(rollout, looks, now, draft)
}

fn order(rollout: &Rollout, looks: &[Look<'_>], now: Timestamp, draft: &mut Draft) {
    let current = |look: &Look<'_>| match look.position {
        Position::Staged { current } if look.member.failure.is_none() && look.is_reachable => {
            Some(current.cloned())
        }
        _ => None,
    };
    let mut ready =
        looks.iter().enumerate().filter_map(|(member, look)| Some((member, look, current(look)?))).peekable();
    if ready.peek().is_none() || !is_open(rollout, rollout.spec.host_deadline, now, draft) {
        return;
    }
    for (member, look, over) in ready {
        let target = Target::Candidate { over };
        draft.order(Action::Order { member, generation: look.next_generation(), target });
    }
}

/// Says whether as many candidates are up as have to be, of the hosts that can be heard and have not failed.
fn up_enough(rollout: &Rollout, looks: &[Look<'_>], now: Timestamp, draft: &mut Draft) -> bool {
    let (mut up, mut heard, mut unreachable) = (0, 0, 0);
    for look in looks.iter().filter(|look| look.member.failure.is_none()) {
        heard += usize::from(look.is_reachable);
        unreachable += usize::from(!look.is_reachable);
        up += usize::from(look.is_reachable && is_up(look.position));
    }
    let needed = rollout.spec.stage_first.of_rounded_up(heard);
    if up >= needed {
        return true;
    }
    draft.blockers.push(Blocker::Candidates { up, needed, unreachable });
    for look in looks.iter().filter(|look| look.is_reachable && look.member.failure.is_none()) {
        if let Position::Starting { phase } = look.position {
            let (host, waited) = (look.member.host.clone(), look.waited(now));
            draft.blockers.push_host(|| Blocker::Switching { host, phase, waited });
        }
    }
    false
}

fn is_up(position: Position<'_>) -> bool {
    match position {
        Position::Ready { .. } | Position::Switching { .. } | Position::There => true,
        Position::New
        | Position::Staging { .. }
        | Position::StagingFailed
        | Position::Staged { .. }
        | Position::Starting { .. }
        | Position::CandidateFailed
        | Position::NotSwitched
        | Position::Returning { .. }
        | Position::Returned
        | Position::ReturnFailed => false,
    }
}

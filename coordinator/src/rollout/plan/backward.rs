//! A rollout that is rolled back: every host that was ordered to switch gets its predecessor, last one first.
//!
//! Hosts that went back by themselves are ordered too: the newer generation fences the order that failed. Hosts that
//! are out already are ordered at once; those that still serve go so many at a time as may be out. Hosts that cannot
//! be heard hold up nobody else, but the rollout does not end before they have confirmed.

use jiff::Timestamp;
use sluice_common::order::Installed;

use super::super::action::Action;
use super::super::blocker::Blocker;
use super::super::model::{Rollout, Target};
use super::super::state::State;
use super::super::view::FleetView;
use super::budget::Budget;
use super::look::{Look, Position, look};
use super::{Draft, Plan};

pub(super) fn plan(rollout: &Rollout, fleet: &FleetView, now: Timestamp, reason: &str) -> Plan {
    let looks = look(rollout, fleet, now);
    let mut draft = Draft::default();
    let mut budget = Budget::new(rollout, &looks, |look| is_underway(look, rollout, now));
    let is_own = |look: &&Look<'_>| !look.is_superseded();
    let is_switched = looks.iter().filter(is_own).any(|look| {
        matches!(look.member.order.as_ref().map(|order| &order.target), Some(Target::Activate { .. }))
    });
    let (mut waiting, mut lost) = (0, Vec::new());
    for (member, look) in looks.iter().enumerate().rev().filter(|(_, look)| !look.is_superseded()) {
        let Some(order) = &look.member.order else { continue };
        match (&order.target, look.position) {
            (Target::Stage, _) => {}
            // What serves goes first; what merely runs beside it waits, and then costs nothing.
            (Target::Candidate { .. }, _) if is_switched => waiting += 1,
            (Target::Candidate { over }, _) => {
                waiting += 1;
                draft.order(back(member, look, over.as_ref()));
            }
            (Target::Activate { over }, _) => {
                waiting += 1;
                let serves = look.is_reachable && !look.is_unhealthy && look.position == Position::There;
                if serves && budget.refuses(look, true).is_some() {
                    continue;
                }
                draft.order(back(member, look, over.as_ref()));
                budget.take(look, look.is_reachable);
            }
            (Target::Restore { .. } | Target::Remove, Position::Returned) => {}
            (Target::Restore { .. } | Target::Remove, Position::ReturnFailed) => {
                lost.push(format!("{}: {}", look.member.host, look.reason()));
            }
            (Target::Restore { .. } | Target::Remove, _) => {
                waiting += 1;
                draft.wake_at(look.changes_at(rollout.spec.host_deadline));
                explain(look, now, &mut draft);
            }
        }
    }
    if waiting == 0 {
        draft.actions.push(Action::Finish { state: outcome(reason, &lost, looks.len()) });
    }
    draft.finish()
}

/// Returns the order that brings a host back to what it ran.
fn back(member: usize, look: &Look<'_>, over: Option<&Installed>) -> Action {
    let target = over.cloned().map_or(Target::Remove, |to| Target::Restore { to });
    Action::Order { member, generation: look.next_generation(), target }
}

/// Says whether a host is on its way back and may yet make it in time; one that hangs holds up nobody else.
fn is_underway(look: &Look<'_>, rollout: &Rollout, now: Timestamp) -> bool {
    let is_late = look.deadline(rollout.spec.host_deadline).is_none_or(|deadline| now >= deadline);
    matches!(look.position, Position::Returning { .. }) && look.is_reachable && !is_late
}

fn explain(look: &Look<'_>, now: Timestamp, draft: &mut Draft) {
    let host = || look.member.host.clone();
    let phase = look.view.observed.as_ref().map(|observed| observed.phase);
    if look.is_reachable {
        draft.blockers.push_host(|| Blocker::Switching { host: host(), phase, waited: look.waited(now) });
    } else {
        draft.blockers.push_host(|| Blocker::Unreachable { host: host(), silent: look.silent(now) });
    }
}

fn outcome(reason: &str, lost: &[String], total: usize) -> State {
    match lost.first() {
        None => State::RolledBack { reason: reason.to_owned() },
        Some(first) => {
            let reason =
                format!("not back on their predecessor: {} of {total} hosts ({first}); {reason}", lost.len());
            State::Failed { reason }
        }
    }
}

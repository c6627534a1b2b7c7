//! A running rollout: stage everywhere, then switch batch by batch through the gates.

use std::collections::BTreeSet;
use std::ops::Range;

use jiff::Timestamp;

use super::super::action::Action;
use super::super::blocker::Blocker;
use super::super::model::{Failure, Gate, Rollout, Target};
use super::super::spec::OnFailure;
use super::super::state::State;
use super::super::view::FleetView;
use super::budget::Budget;
use super::checking::{Checked, checked};
use super::look::{Look, Position, look};
use super::opening::{may_switch, open};
use super::{Draft, Plan, candidates, spent};
use crate::clock::{after, elapsed};

pub(super) fn plan(rollout: &Rollout, fleet: &FleetView, now: Timestamp) -> Plan {
    let looks = look(rollout, fleet, now);
    let mut draft = Draft::default();
    let failures = new_failures(rollout, &looks, now);
    if !failures.is_empty() {
        let verdict = judge(rollout, &failures);
        let failed = failures.into_iter().map(|(member, failure)| Action::HostFailed { member, failure });
        draft.actions.extend(failed.chain(verdict));
        return draft.finish();
    }
    let Some(range) = rollout.batches.get(rollout.cursor.batch).cloned() else {
        draft.actions.push(Action::Finish { state: State::Succeeded });
        return draft.finish();
    };
    for look in &looks {
        draft.wake_at(look.changes_at(rollout.spec.host_deadline));
    }
    let is_dropping = take_back_failed(&looks, &mut draft);
    stage(&looks, &mut draft);
    let is_up = candidates::bring_up(rollout, &looks, now, &mut draft);
    if is_up && !is_dropping && open(rollout, &looks, range.clone(), now, &mut draft) {
        switch(rollout, &looks, range.clone(), now, &mut draft);
        watch_gate(rollout, &looks, range, now, &mut draft);
    }
    draft.finish()
}

fn new_failures(rollout: &Rollout, looks: &[Look<'_>], now: Timestamp) -> Vec<(usize, Failure)> {
    let failure =
        |(i, look): (usize, &Look<'_>)| Some((i, look.new_failure(rollout.spec.host_deadline, now)?));
    looks.iter().enumerate().filter_map(failure).collect()
}

/// Decides whether these failures, with those before them, are more than the rollout tolerates.
fn judge(rollout: &Rollout, failures: &[(usize, Failure)]) -> Option<Action> {
    let total = rollout.members.len();
    let failed = rollout.failed() + failures.len();
    let tolerated = rollout.spec.max_failures.of_rounded_down(total);
    let first = rollout.batches.first().cloned().unwrap_or_default();
    let left = rollout.members[first.clone()].iter().filter(|member| member.failure.is_none()).count();
    let lost = failures.iter().filter(|(member, _)| first.contains(member)).count();
    // A first batch of which nothing is left has proved nothing, whatever is tolerated.
    let first_lost = lost > 0 && lost == left;
    let failing: Vec<usize> = failures.iter().map(|(member, _)| *member).collect();
    let is_over = failed.saturating_sub(rollout.forgiven) > tolerated || first_lost;
    let domain = rollout.failed_domain(&failing).filter(|_| !is_over);
    if !is_over && domain.is_none() {
        return None;
    }
    let is_named = |member: usize| {
        domain.is_none_or(|domain| rollout.members[member].domain.as_deref() == Some(domain.name))
    };
    let (member, failure) = failures.iter().find(|(member, _)| is_named(*member))?;
    let host = &rollout.members[*member].host;
    let reason = match domain {
        Some(domain) => format!("{host} {failure} ({domain})"),
        None => format!("{host} {failure} ({failed} of {total} hosts failed, {tolerated} tolerated)"),
    };
    Some(match rollout.spec.on_failure {
        OnFailure::Rollback => Action::BeginRollback { reason },
        OnFailure::Pause => Action::Pause { reason },
    })
}

/// A tolerated failure that still takes its host away is taken back on that host alone. Such a host is out already, so
/// the order costs nothing of `max_unavailable`; one that has come round since is left as it is. Says whether a host that was not
/// out is to drop its candidate: until the next plan has counted it, nobody else switches.
fn take_back_failed(looks: &[Look<'_>], draft: &mut Draft) -> bool {
    let mut is_dropping = false;
    for (member, look) in looks.iter().enumerate().filter(|(_, look)| look.member.failure.is_some()) {
        let over = match look.member.order.as_ref().map(|order| &order.target) {
            Some(Target::Candidate { over } | Target::Activate { over }) => over,
            Some(Target::Stage | Target::Restore { .. } | Target::Remove) | None => continue,
        };
        let is_ill = look.position == Position::There && look.is_unhealthy;
        if is_ill || matches!(look.position, Position::Starting { .. } | Position::Switching { .. }) {
            let target = over.clone().map_or(Target::Remove, |to| Target::Restore { to });
            draft.order(Action::Order { member, generation: look.next_generation(), target });
            is_dropping |= !look.is_out();
        }
    }
    is_dropping
}

fn stage(looks: &[Look<'_>], draft: &mut Draft) {
    for (member, look) in looks.iter().enumerate() {
        if look.position == Position::New && look.is_reachable {
            draft.order(Action::Order { member, generation: look.next_generation(), target: Target::Stage });
        }
    }
}

/// Orders staged hosts of the batch to switch, as far as the budgets let it.
fn switch<'a>(
    rollout: &'a Rollout,
    looks: &[Look<'a>],
    range: Range<usize>,
    now: Timestamp,
    draft: &mut Draft,
) {
    let has_candidates = rollout.spec.strategy.has_candidates();
    let leaves = |look: &Look<'a>| match look.position {
        Position::Staged { current } if !has_candidates => Some(current),
        Position::Ready { current } if has_candidates => Some(current),
        _ => None,
    };
    let is_ready =
        |look: &Look<'a>| leaves(look).is_some() && look.member.failure.is_none() && look.is_reachable;
    let is_asked = looks[range.clone()].iter().any(is_ready);
    // A host that comes late has its own deadline within the window too.
    if !is_asked || !may_switch(rollout, rollout.spec.host_deadline, now, draft) {
        return;
    }
    let mut budget = Budget::new(rollout, looks, Look::is_out);
    let (mut full, mut is_migrated) = (BTreeSet::new(), is_migrated(rollout, looks));
    for (member, look) in looks[range.clone()].iter().enumerate().map(|(i, look)| (range.start + i, look)) {
        let Some(current) = leaves(look) else { continue };
        if !is_ready(look) {
            continue;
        }
        // A host that is out already, being unhealthy, adds nothing.
        let adds = !look.is_out();
        if let Some(refusal) = budget.refuses(look, adds) {
            full.insert(refusal);
            continue;
        }
        let target = Target::Activate { over: current.cloned() };
        if draft.order(Action::Order { member, generation: look.next_generation(), target }) {
            budget.take(look, adds);
            if !std::mem::replace(&mut is_migrated, true) {
                draft.actions.push(Action::Migrates { member });
            }
        }
    }
    spent::explain(rollout, looks, &budget, &full, draft);
}

/// Says whether what all hosts share was migrated, or is being: by a host that was told to and did not go back, or before this
/// rollout.
fn is_migrated(rollout: &Rollout, looks: &[Look<'_>]) -> bool {
    let went_back = |look: &Look<'_>| {
        look.member.failure.is_some() && matches!(look.position, Position::NotSwitched | Position::Returned)
    };
    rollout.was_migrated_before() || looks.iter().any(|look| look.member.migrates && !went_back(look))
}

/// Passes the batch once each host that has not failed has been holding for the whole bake.
fn watch_gate(rollout: &Rollout, looks: &[Look<'_>], range: Range<usize>, now: Timestamp, draft: &mut Draft) {
    let batch = rollout.cursor.batch;
    // A batch whose every host failed, and that was accepted, has nothing left to wait for.
    let mut since = Some(Timestamp::MIN);
    for look in looks[range].iter().filter(|look| look.member.failure.is_none()) {
        let holds = look.holds_since();
        since = since.zip(holds).map(|(all, this)| all.max(this));
        if holds.is_none() {
            explain(look, now, draft);
        }
    }
    let bake = rollout.bake(batch);
    match (since, rollout.cursor.gate) {
        (None, Gate::Baking { .. }) => draft.actions.push(Action::BakeBroken { batch }),
        (None, Gate::Waiting | Gate::Open) => {}
        // Nobody is left whom a check could be about.
        (Some(since), _) if since == Timestamp::MIN => draft.actions.push(Action::BatchPassed { batch }),
        (Some(since), gate) => {
            let is_over = elapsed(since, now) >= bake;
            let is_news = gate != (Gate::Baking { since });
            if is_news && !(is_over && rollout.spec.checks.is_empty()) {
                draft.actions.push(Action::BakeStarted { batch, since });
            }
            let checked = if is_news && !rollout.spec.checks.is_empty() {
                Checked::Waiting
            } else {
                checked(rollout, since, now, draft)
            };
            match (checked, is_over) {
                (Checked::Failed, _) | (Checked::Waiting, true) => {}
                (Checked::Passed, true) => draft.actions.push(Action::BatchPassed { batch }),
                (Checked::Passed | Checked::Waiting, false) => {
                    draft.wake_at(Some(after(since, bake)));
                    let left = bake.saturating_sub(elapsed(since, now));
                    draft.blockers.push(Blocker::Baking { batch, left, bake });
                }
            }
        }
    }
}

/// Says what a host of the current batch lacks.
fn explain(look: &Look<'_>, now: Timestamp, draft: &mut Draft) {
    let host = || look.member.host.clone();
    if !look.is_reachable {
        draft.blockers.push_host(|| Blocker::Unreachable { host: host(), silent: look.silent(now) });
        return;
    }
    match look.position {
        Position::New => {
            draft.blockers.push_host(|| Blocker::Staging {
                host: host(),
                fetched_bytes: 0,
                fetch_total_bytes: 0,
            });
        }
        Position::Staging { fetched_bytes, fetch_total_bytes } => {
            draft.blockers.push_host(|| Blocker::Staging { host: host(), fetched_bytes, fetch_total_bytes });
        }
        Position::Starting { phase } | Position::Switching { phase } | Position::Returning { phase } => {
            draft.blockers.push_host(|| Blocker::Switching { host: host(), phase, waited: look.waited(now) });
        }
        Position::There => {
            draft.blockers.push_host(|| Blocker::Unhealthy { host: host(), reason: look.reason() });
        }
        // Staged hosts wait for the budget, which says so itself; the others have failed or are about to.
        Position::Staged { .. }
        | Position::Ready { .. }
        | Position::StagingFailed
        | Position::CandidateFailed
        | Position::NotSwitched
        | Position::Returned
        | Position::ReturnFailed => {}
    }
}

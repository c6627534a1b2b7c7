//! What must never happen, checked after every commit, from what was committed and heard alone.
//!
//! Nothing here calls the planner: the same rules are said a second time, so that one slip cannot hide another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use sluice_common::name::HostName;
use sluice_common::order::{Generation, Phase};

use super::fixture::package;
use super::scenario::WINDOW_SECONDS;
use crate::rollout::{Action, FleetView, HostView, Member, Rollout, State, Strategy, Target};

#[derive(Debug, Default)]
pub(crate) struct Checker {
    generations: BTreeMap<(HostName, Generation), Target>,
    passed: BTreeSet<usize>,
    held_since: HashMap<HostName, Timestamp>,
    /// Whether a pause was the verdict on failures, and nobody has resumed since.
    is_paused_by_failure: bool,
    /// Whether the application must be closed to new rollouts.
    pub(crate) is_line_stopped: bool,
}

fn is_reachable(view: &HostView, now: Timestamp) -> bool {
    view.contact.is_some_and(|contact| now.duration_since(contact.last).as_secs() <= 20)
}

fn holds(member: &Member, view: &HostView, now: Timestamp) -> bool {
    let Some(report) = &view.observed else { return false };
    let answers = member.order.as_ref().is_none_or(|order| {
        matches!(order.target, Target::Activate { .. }) && order.generation == report.generation
    });
    answers
        && is_reachable(view, now)
        && report.phase == Phase::Active
        && report.healthy != Some(false)
        && report.current.as_ref().is_some_and(|current| current.package == package())
}

fn is_out(member: &Member, view: &HostView, now: Timestamp) -> bool {
    let answered = |generation| {
        let phase = view.observed.as_ref().filter(|o| o.generation == generation).map(|o| o.phase);
        matches!(phase, Some(Phase::Active | Phase::Reverted | Phase::Failed))
    };
    let unconfirmed =
        member.order.as_ref().is_some_and(|o| o.target.is_disruptive() && !answered(o.generation));
    let ill = view.observed.as_ref().is_some_and(|o| o.healthy == Some(false));
    unconfirmed || ill || !is_reachable(view, now)
}

/// Looks whether no more hosts of the domain of `member`, which was just ordered to switch, are out than may be.
fn domain_holds(after: &Rollout, member: &Member, fleet: &FleetView, now: Timestamp) -> Result<(), String> {
    let Some(per_domain) = &after.spec.per_domain else { return Ok(()) };
    let domain: Vec<&Member> = after.members.iter().filter(|other| other.domain == member.domain).collect();
    let out = domain.iter().filter(|m| is_out(m, &fleet[&m.host], now)).count();
    let max = per_domain.max_unavailable.of_rounded_down(domain.len()).max(1);
    match member.domain {
        Some(_) if out > max => {
            Err(format!("I11: {out} hosts of domain {:?} out, {max} may be", member.domain))
        }
        _ => Ok(()),
    }
}

/// Looks whether the candidates of enough hosts are healthy, when the traffic may begin to move.
fn candidates_are_up(before: &Rollout, fleet: &FleetView, now: Timestamp) -> Result<(), String> {
    if !matches!(before.spec.strategy, Strategy::BlueGreen { .. }) {
        return Ok(());
    }
    let is_up = |member: &&Member| {
        let answer = fleet[&member.host].observed.as_ref();
        let runs = answer.is_some_and(|o| o.current.as_ref().is_some_and(|c| c.package == package()));
        let order = member.order.as_ref().filter(|order| matches!(order.target, Target::Candidate { .. }));
        let is_beside = answer.is_some_and(|o| {
            o.phase == Phase::Candidate && order.is_some_and(|order| order.generation == o.generation)
        });
        runs || is_beside
    };
    let mut heard = before
        .members
        .iter()
        .filter(|m| m.failure.is_none() && is_reachable(&fleet[&m.host], now))
        .collect::<Vec<_>>();
    let needed = before.spec.stage_first.of_rounded_up(heard.len());
    heard.retain(is_up);
    match heard.len() < needed {
        true => Err(format!("candidates: the traffic moves with {} of {needed} up", heard.len())),
        false => Ok(()),
    }
}

/// Looks whether somebody migrates what all hosts share, now that one of them is ordered to switch.
fn is_migrated(after: &Rollout) -> Result<(), String> {
    match after.members.iter().any(|member| member.migrates) {
        true => Ok(()),
        false => Err("migration: a host is ordered to switch, and none migrates".to_owned()),
    }
}

/// Looks whether the host that is to migrate is one that switches now, and whether each one before it has failed and gone back.
fn named(before: &Rollout, after: &Rollout, member: usize, fleet: &FleetView) -> Result<(), String> {
    let order = after.members[member]
        .order
        .as_ref()
        .filter(|order| before.members[member].order.as_ref() != Some(order));
    if !order.is_some_and(|order| matches!(order.target, Target::Activate { .. })) {
        return Err(format!("migration: {} is to migrate and does not switch", after.members[member].host));
    }
    let is_back = |other: &Member| {
        let answer = fleet[&other.host].observed.as_ref();
        let answer =
            answer.filter(|o| other.order.as_ref().is_some_and(|order| order.generation == o.generation));
        other.failure.is_some()
            && answer.is_some_and(|o| match o.phase {
                Phase::Reverted | Phase::Failed => true,
                _ => o.phase == Phase::Active && o.current.as_ref().is_none_or(|c| c.package != package()),
            })
    };
    match before.members.iter().find(|other| other.migrates && !is_back(other)) {
        Some(other) => Err(format!("migration: {} may have migrated already", other.host)),
        None => Ok(()),
    }
}

/// Looks whether as many hosts are in service, now that `switching` are ordered to switch, as every floor asks for.
fn floors_hold(
    before: &Rollout,
    after: &Rollout,
    switching: &[usize],
    fleet: &FleetView,
    now: Timestamp,
) -> Result<(), String> {
    let ran = |member: &Member| {
        let had = match member.order.as_ref().map(|order| &order.target) {
            Some(Target::Candidate { over } | Target::Activate { over }) => over.is_some(),
            Some(Target::Restore { .. }) => true,
            Some(Target::Stage | Target::Remove) | None => false,
        };
        had || fleet[&member.host].observed.as_ref().is_some_and(|o| o.current.is_some())
    };
    for floor in &after.spec.floors {
        for position in switching {
            // One that was out before it was ordered takes nothing away.
            let was = &before.members[*position];
            if !ran(was) || is_out(was, &fleet[&was.host], now) {
                continue;
            }
            let mine = |member: &&Member| floor.label.is_none() || member.site == was.site;
            for of in [None, floor.label.as_ref()] {
                let members: Vec<&Member> =
                    after.members.iter().filter(|m| ran(m) && (of.is_none() || mine(m))).collect();
                let serving = members.iter().filter(|m| !is_out(m, &fleet[&m.host], now)).count();
                let needs = floor.needs(members.len());
                if serving < needs {
                    return Err(format!(
                        "floor: {serving} of {} hosts in service, {needs} have to be",
                        members.len()
                    ));
                }
            }
        }
    }
    Ok(())
}

fn is_approved(before: &Rollout) -> Result<(), String> {
    let others = before.approvals.keys().filter(|operator| **operator != before.started_by).count();
    match others < before.spec.approvals as usize {
        true => Err(format!("approvals: {others} of {}", before.spec.approvals)),
        false => Ok(()),
    }
}

/// Looks whether the host has its whole deadline within a window of the scenario, and outside of its freezes.
fn is_in_a_window(before: &Rollout, now: Timestamp) -> Result<(), String> {
    let calendar = &before.spec.calendar;
    if before.overridden.is_some() || calendar.is_empty() {
        return Ok(());
    }
    let until = now + before.spec.host_deadline;
    let into = now.as_second() % (2 * WINDOW_SECONDS);
    let is_frozen = calendar.freezes.iter().any(|f| f.from.timestamp() < until && now < f.to.timestamp());
    match is_frozen || into + until.duration_since(now).as_secs() > WINDOW_SECONDS {
        true => Err(format!("calendar: a host is ordered {into} s after a window opened")),
        false => Ok(()),
    }
}

fn switched(action: &Action) -> Option<usize> {
    match action {
        Action::Order { member, target: Target::Activate { .. }, .. } => Some(*member),
        _ => None,
    }
}

impl Checker {
    /// Notes who holds; called whenever anything was heard, and every second.
    pub(crate) fn heard(&mut self, rollout: &Rollout, fleet: &FleetView, now: Timestamp) {
        for member in &rollout.members {
            if holds(member, &fleet[&member.host], now) {
                self.held_since.entry(member.host.clone()).or_insert(now);
            } else {
                self.held_since.remove(&member.host);
            }
        }
    }

    /// Forgets what a coordinator that died had seen.
    pub(crate) fn crashed(&mut self) {
        self.held_since.clear();
    }

    /// Checks one commit.
    pub(crate) fn committed(
        &mut self,
        before: &Rollout,
        after: &Rollout,
        actions: &[Action],
        fleet: &FleetView,
        now: Timestamp,
    ) -> Result<(), String> {
        self.follow_the_line(actions);
        let mut activated = false;
        for action in actions {
            match action {
                Action::Order { member, generation, target } => {
                    if !matches!(before.state, State::Running | State::RollingBack { .. }) {
                        return Err(format!("I15: an order while {}", before.state));
                    }
                    self.ordered(&before.members[*member], *generation, target)?;
                    if let Target::Activate { .. } = target {
                        activated = true;
                        is_migrated(after)?;
                        self.may_activate(before, *member)?;
                        is_approved(before)?;
                        is_in_a_window(before, now)?;
                    }
                }
                Action::BatchPassed { batch } => self.pass(before, *batch, now)?,
                Action::Finish { state: State::Succeeded } => {
                    if self.passed.len() != before.batches.len() {
                        return Err(format!("I12: succeeded with gates {:?} passed", self.passed));
                    }
                }
                Action::Migrates { member } => named(before, after, *member, fleet)?,
                Action::BatchOpened { batch: 0 } => candidates_are_up(before, fleet, now)?,
                Action::Ready
                | Action::HostFailed { .. }
                | Action::CheckFailed { .. }
                | Action::BatchOpened { .. }
                | Action::BakeStarted { .. }
                | Action::BakeBroken { .. }
                | Action::BeginRollback { .. }
                | Action::Pause { .. }
                | Action::Resume
                | Action::Approve { .. }
                | Action::Override { .. }
                | Action::Finish { .. } => {}
            }
        }
        let out = after.members.iter().filter(|m| is_out(m, &fleet[&m.host], now)).count();
        let max = after.spec.max_unavailable.of_rounded_down(after.members.len()).max(1);
        if activated && out > max {
            return Err(format!("I11: {out} hosts out, {max} may be"));
        }
        let switching: Vec<usize> = actions.iter().filter_map(switched).collect();
        floors_hold(before, after, &switching, fleet, now)?;
        for action in actions {
            if let Action::Order { member, target: Target::Activate { .. }, .. } = action {
                domain_holds(after, &after.members[*member], fleet, now)?;
            }
        }
        Ok(())
    }

    /// A verdict stands beside the failure that led to it; operators act alone.
    fn follow_the_line(&mut self, actions: &[Action]) {
        let has_failure = actions
            .iter()
            .any(|action| matches!(action, Action::HostFailed { .. } | Action::CheckFailed { .. }));
        for action in actions {
            match action {
                Action::Pause { .. } => self.is_paused_by_failure |= has_failure,
                Action::Resume => self.is_paused_by_failure = false,
                Action::BeginRollback { .. } => {
                    self.is_line_stopped |= has_failure || self.is_paused_by_failure;
                }
                Action::Finish { state: State::Failed { .. } } => self.is_line_stopped = true,
                Action::Order { .. }
                | Action::Migrates { .. }
                | Action::Ready
                | Action::HostFailed { .. }
                | Action::CheckFailed { .. }
                | Action::BatchOpened { .. }
                | Action::BakeStarted { .. }
                | Action::BakeBroken { .. }
                | Action::BatchPassed { .. }
                | Action::Approve { .. }
                | Action::Override { .. }
                | Action::Finish { .. } => {}
            }
        }
    }

    fn ordered(&mut self, member: &Member, generation: Generation, target: &Target) -> Result<(), String> {
        let host = || member.host.clone();
        let newest =
            self.generations.range((host(), Generation(0))..=(host(), Generation(u64::MAX))).next_back();
        if newest.is_some_and(|((_, newest), _)| *newest >= generation) {
            return Err(format!("I10: {} was ordered generation {generation} again", member.host));
        }
        self.generations.insert((host(), generation), target.clone());
        Ok(())
    }

    fn may_activate(&self, before: &Rollout, member: usize) -> Result<(), String> {
        let batch = before
            .batches
            .iter()
            .position(|batch| batch.contains(&member))
            .expect("every member is in a batch");
        match (0..batch).find(|earlier| !self.passed.contains(earlier)) {
            Some(earlier) => {
                Err(format!("I12: batch {batch} switches before the gate of batch {earlier} passed"))
            }
            None => Ok(()),
        }
    }

    fn pass(&mut self, before: &Rollout, batch: usize, now: Timestamp) -> Result<(), String> {
        for member in before.members[before.batches[batch].clone()].iter().filter(|m| m.failure.is_none()) {
            let held = self.held_since.get(&member.host).map(|since| now.duration_since(*since).as_secs());
            // The first site is that of the first host: it may have to hold for longer.
            let first = before.members[before.batches[batch].clone()]
                .iter()
                .any(|m| m.site == before.members[0].site);
            let longer = before.spec.first_site_bake.filter(|_| first);
            let bake = longer.unwrap_or(before.spec.bake).as_secs() as i64;
            if held.is_none_or(|held| held < bake) {
                return Err(format!(
                    "I12, I16: batch {batch} passed, {} held for {held:?} of {bake} s",
                    member.host
                ));
            }
        }
        self.passed.insert(batch);
        Ok(())
    }
}

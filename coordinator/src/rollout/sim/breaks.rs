//! Each rule broken once, by a planner or by a journal that does it wrong: a simulation that finds none of them would find
//! nothing else either.

use sluice_common::units::Share;

use super::journal::Slip;
use super::{Planner, Sim};
use crate::rollout::plan::{Plan, plan};
use crate::rollout::{Action, Contact, Cursor, FleetView, Gate, Rollout, State, Target};

/// A rule, and one way of breaking it.
#[derive(Debug)]
pub struct Break {
    /// The rule, as the simulation names it.
    pub rule: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    by: By,
}

/// Who does it wrong.
#[derive(Debug)]
enum By {
    Planner(Planner),
    Journal(Slip),
}

/// What the simulation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many seeds it took.
    pub seeds: u64,
    /// What it said.
    pub said: String,
}

impl Break {
    /// Runs seeds until the simulation names the rule, at most so many: what is broken may show by its consequences first.
    pub fn find(&self, seeds_max: u64) -> Option<Found> {
        (0..seeds_max).find_map(|seed| {
            let error = match self.by {
                By::Planner(planner) => Sim::new(seed, planner).run().err()?,
                By::Journal(slip) => Sim::new(seed, plan).journalled(Some(slip)).run().err()?,
            };
            let said = error.lines().last().unwrap_or_default().to_owned();
            said.starts_with(self.rule).then_some(Found { seeds: seed + 1, said })
        })
    }
}

const fn by_planner(rule: &'static str, what: &'static str, planner: Planner) -> Break {
    Break { rule, what, by: By::Planner(planner) }
}

const fn by_journal(rule: &'static str, what: &'static str, slip: Slip) -> Break {
    Break { rule, what, by: By::Journal(slip) }
}

/// Every rule, broken.
pub const BREAKS: [Break; 20] = [
    by_planner("I10", "orders to switch repeat a generation", repeats_a_generation),
    by_planner("I11", "the budget is not looked at", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.max_unavailable = Share::Percent(100))
    }),
    by_planner("I11", "the budget of failure domains is not looked at", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.per_domain = None)
    }),
    by_planner("candidates", "the traffic moves with whatever candidates are up", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| {
            if rollout.spec.strategy.has_candidates() {
                rollout.spec.stage_first = Share::Count(0);
            }
        })
    }),
    by_planner("floor", "what dependents need is not looked at", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.floors.clear())
    }),
    by_planner("I12, I16", "the first site bakes no longer than others", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.first_site_bake = None)
    }),
    by_planner("I12", "the next batch does not wait for the gate", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| {
            if let Gate::Open = rollout.cursor.gate {
                let batch = (rollout.cursor.batch + 1).min(rollout.batches.len() - 1);
                rollout.cursor = Cursor { batch, ..rollout.cursor };
            }
        })
    }),
    by_planner("I12, I16", "the bake takes half its time", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.bake /= 2)
    }),
    by_planner("I12, I16", "a host that cannot be heard passes the gate", hears_everybody),
    by_journal("I13", "a write planned on an older revision is let through", Slip::ForgetsTheFence),
    by_journal("I14", "a commit is acknowledged and lost", Slip::LosesACommit),
    by_planner("I15", "orders are given after an abort", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| {
            if matches!(rollout.state, State::Aborted { .. }) {
                rollout.state = State::Running;
            }
        })
    }),
    by_journal("I17", "a commit leaves no entry in the audit log", Slip::SkipsTheAudit),
    by_planner("migration", "nobody is told to migrate", |rollout, fleet, now| {
        let mut plan = plan(rollout, fleet, now);
        plan.actions.retain(|action| !matches!(action, Action::Migrates { .. }));
        plan
    }),
    by_planner("migration", "each batch has a host that migrates", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| {
            let batch = rollout.batches.get(rollout.cursor.batch).cloned().unwrap_or_default();
            for (position, member) in rollout.members.iter_mut().enumerate() {
                member.migrates &= batch.contains(&position);
            }
        })
    }),
    by_planner("approvals", "one approval less is enough", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| {
            rollout.spec.approvals = rollout.spec.approvals.saturating_sub(1);
        })
    }),
    by_planner("calendar", "freezes are not looked at", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.calendar.freezes.clear())
    }),
    by_planner("calendar", "windows are not looked at", |rollout, fleet, now| {
        altered(rollout, fleet, now, |rollout| rollout.spec.calendar.windows.clear())
    }),
    by_planner("liveness", "the plan never asks to be woken", |rollout, fleet, now| Plan {
        wake: None,
        ..plan(rollout, fleet, now)
    }),
    by_planner("liveness", "a batch whose gate has held is not passed", |rollout, fleet, now| {
        let mut plan = plan(rollout, fleet, now);
        plan.actions.retain(|action| !matches!(action, Action::BatchPassed { .. }));
        plan
    }),
];

/// Plans for a rollout that is not quite the one that is meant.
fn altered(rollout: &Rollout, fleet: &FleetView, now: jiff::Timestamp, alter: fn(&mut Rollout)) -> Plan {
    let mut rollout = rollout.clone();
    alter(&mut rollout);
    plan(&rollout, fleet, now)
}

fn repeats_a_generation(rollout: &Rollout, fleet: &FleetView, now: jiff::Timestamp) -> Plan {
    let mut plan = plan(rollout, fleet, now);
    for action in &mut plan.actions {
        if let Action::Order { generation, target: Target::Activate { .. }, .. } = action {
            generation.0 -= 1;
        }
    }
    plan
}

/// Takes whoever was ever heard for there; the budget is held, so that only the gate can tell.
fn hears_everybody(rollout: &Rollout, fleet: &FleetView, now: jiff::Timestamp) -> Plan {
    let mut seen = fleet.clone();
    for view in seen.values_mut() {
        view.contact = view.contact.map(|contact| Contact { last: now, ..contact });
    }
    let switches = |action: &Action| matches!(action, Action::Order { target: Target::Activate { .. }, .. });
    let mut deaf = plan(rollout, &seen, now);
    deaf.actions.retain(|action| !switches(action));
    deaf.actions.extend(plan(rollout, fleet, now).actions.into_iter().filter(switches));
    deaf
}

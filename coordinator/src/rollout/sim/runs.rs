//! The runs: many seeds without a violation, and each rule broken once to see that the simulation finds it.

use std::time::Duration;

use sluice_common::units::Share;

use super::*;

/// Seeds of the ordinary test run; `SLUICE_SIM_SEEDS` asks for more, `SLUICE_SIM_SEED` for one.
const SEEDS: u64 = 4_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_seed_breaks_a_rule_and_every_rollout_ends() {
    let seeds = match number("SLUICE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut ends = BTreeMap::<String, u64>::new();
    for seed in seeds {
        match Sim::new(seed, plan).run() {
            Ok(log) => {
                let last = log.lines().last().unwrap_or_default();
                let end = last.split([' ', ':']).filter(|word| !word.is_empty()).nth(1).unwrap_or_default();
                *ends.entry(end.to_owned()).or_default() += 1;
            }
            Err(log) => panic!(
                "{log}\nagain with: SLUICE_SIM_SEED={seed} cargo test -p sluice-coordinator rollout::sim"
            ),
        }
    }
    println!("{ends:?}");
    // A simulation that never gets anywhere would find nothing.
    if number("SLUICE_SIM_SEED").is_none() {
        for end in ["succeeded", "rolled-back", "aborted", "failed"] {
            assert!(ends.contains_key(end), "no rollout ended {end}: {ends:?}");
        }
    }
}

#[test]
fn the_database_holds_what_was_decided_and_heard() {
    for seed in 0..number("SLUICE_SIM_STORED_SEEDS").unwrap_or(40) {
        if let Err(log) = Sim::new(seed, plan).journalled().run() {
            panic!("seed {seed}:\n{log}");
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 17, 4_711] {
        assert_eq!(Sim::new(seed, plan).run(), Sim::new(seed, plan).run());
    }
}

/// Runs seeds under a planner that breaks a rule until the simulation names that rule: what is broken may show by its
/// consequences first.
fn is_found(rule: &str, planner: Planner) {
    let names_it = |error: &String| error.lines().last().unwrap_or_default().starts_with(rule);
    let mut errors = (0..2_000).filter_map(|seed| Sim::new(seed, planner).run().err());
    assert!(errors.any(|error| names_it(&error)), "nobody noticed that {rule} is broken");
}

#[test]
fn each_broken_rule_is_found() {
    is_found("I10", |rollout, fleet, now| {
        let mut plan = plan(rollout, fleet, now);
        for action in &mut plan.actions {
            if let Action::Order { generation, target: Target::Activate { .. }, .. } = action {
                generation.0 -= 1;
            }
        }
        plan
    });
    is_found("I11", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.max_unavailable = Share::Percent(100);
        plan(&rollout, fleet, now)
    });
    is_found("I11", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.per_domain = None;
        plan(&rollout, fleet, now)
    });
    is_found("I12", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        if let Gate::Open = rollout.cursor.gate {
            // The gate is not waited for.
            rollout.cursor =
                Cursor { batch: (rollout.cursor.batch + 1).min(rollout.batches.len() - 1), ..rollout.cursor };
        }
        plan(&rollout, fleet, now)
    });
    is_found("I12, I16", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.bake /= 2;
        plan(&rollout, fleet, now)
    });
    is_found("I12, I16", |rollout, fleet, now| {
        // Whoever was ever heard counts as there; the budget is held, so that only the gate can tell.
        let mut seen = fleet.clone();
        for view in seen.values_mut() {
            view.contact = view.contact.map(|contact| Contact { last: now, ..contact });
        }
        let mut plan = plan(rollout, &seen, now);
        plan.actions
            .retain(|action| !matches!(action, Action::Order { target: Target::Activate { .. }, .. }));
        plan.actions.extend(
            super::plan(rollout, fleet, now)
                .actions
                .into_iter()
                .filter(|action| matches!(action, Action::Order { target: Target::Activate { .. }, .. })),
        );
        plan
    });
    is_found("I15", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        if matches!(rollout.state, State::Aborted { .. }) {
            rollout.state = State::Running;
        }
        plan(&rollout, fleet, now)
    });
    is_found("approvals", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.approvals = rollout.spec.approvals.saturating_sub(1);
        plan(&rollout, fleet, now)
    });
    is_found("calendar", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.calendar.freezes.clear();
        plan(&rollout, fleet, now)
    });
    is_found("calendar", |rollout, fleet, now| {
        let mut rollout = rollout.clone();
        rollout.spec.calendar.windows.clear();
        plan(&rollout, fleet, now)
    });
    is_found("liveness", |rollout, fleet, now| Plan { wake: None, ..plan(rollout, fleet, now) });
}

#[test]
fn planning_a_large_fleet_takes_a_moment() {
    // Debug builds are some ten times slower than what the bound is for: 100,000 hosts in 100 ms.
    let mut world = super::super::testing::World::new(
        100_000,
        Spec {
            strategy: Strategy::Canary { canary: Share::Percent(1), batch: Share::Percent(25) },
            ..Spec::default()
        },
    );
    for member in 0..world.rollout.members.len() {
        let order = Action::Order { member, generation: Generation(8), target: Target::Stage };
        world.rollout.apply(&order, at(0));
    }
    let began = tokio::time::Instant::now();
    let plan = plan(&world.rollout, &world.fleet, world.now);
    let took = began.elapsed();
    println!("planned 100,000 hosts in {took:?}");
    assert_eq!(plan.actions, Vec::new());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

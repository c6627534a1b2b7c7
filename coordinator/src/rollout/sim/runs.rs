//! The runs of the ordinary tests: some thousand seeds without a violation, and each rule broken once.

use std::time::Duration;

use sluice_common::units::Share;

use super::breaks::{BREAKS, Found};
use super::*;
use crate::rollout::{Spec, Strategy};

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
        match run(seed, Records::Paper) {
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
fn seeds_that_once_broke_a_rule_hold() {
    for (seed, records) in [(6_970, Records::Paper), (894, Records::Database)] {
        if let Err(log) = run(seed, records) {
            panic!("seed {seed}:\n{log}");
        }
    }
}

#[test]
fn the_database_holds_what_was_decided_and_heard() {
    for seed in 0..number("SLUICE_SIM_STORED_SEEDS").unwrap_or(40) {
        if let Err(log) = run(seed, Records::Database) {
            panic!("seed {seed}:\n{log}");
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 17, 4_711] {
        assert_eq!(run(seed, Records::Paper), run(seed, Records::Paper));
    }
}

#[test]
fn each_broken_rule_is_found() {
    for broken in &BREAKS {
        let Found { seeds, .. } =
            broken.find(2_000).unwrap_or_else(|| panic!("nobody noticed: {}", broken.what));
        println!("{}: {} found at seed {seeds}", broken.rule, broken.what);
    }
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

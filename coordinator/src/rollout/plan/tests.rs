//! Named cases, one table of events and decisions each.

use std::time::Duration;

use sluice_common::order::Phase;
use sluice_common::units::Share;

use super::super::testing::{World, at};
use super::*;
use crate::rollout::{Command, OnFailure, PerDomain, Spec, Strategy, Target};

mod candidates;
mod checks;
mod failures;
mod floors;
mod gates;
mod ways_back;

fn spec() -> Spec {
    Spec {
        strategy: Strategy::Canary { canary: Share::Count(1), batch: Share::Count(2) },
        max_unavailable: Share::Count(2),
        bake: Duration::from_secs(30),
        host_deadline: Duration::from_secs(60),
        ..Spec::default()
    }
}

fn at_once(max_unavailable: u32) -> Spec {
    Spec {
        strategy: Strategy::AllAtOnce,
        max_unavailable: Share::Count(max_unavailable),
        bake: Duration::ZERO,
        ..spec()
    }
}

/// Brings a rollout to where every host is staged.
fn staged(hosts: usize, spec: Spec) -> World {
    let mut world = World::new(hosts, spec);
    world.go();
    let names: Vec<String> = (1..=hosts).map(|i| format!("h{i}")).collect();
    world.answer(&names.iter().map(String::as_str).collect::<Vec<_>>(), Phase::Staged);
    world
}

#[test]
fn a_good_release_goes_through_canary_and_batches() {
    let mut world = World::new(4, spec());
    assert_eq!(world.go(), "stage h1, stage h2, stage h3, stage h4");
    assert_eq!(world.blockers(), ["staging: 0 of 4 hosts"]);
    world.answer(&["h1", "h2", "h3"], Phase::Staged);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["staging: 3 of 4 hosts"]);
    world.answer(&["h4"], Phase::Staged);
    assert_eq!(world.go(), "open 0, activate h1");
    assert_eq!(world.blockers(), ["waiting for h1 to take its order of 0s ago"]);
    world.wait(2);
    world.answer(&["h1"], Phase::Validating);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for h1 (validating, ordered 2s ago)"]);
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "bake 0");
    world.wait(18);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["baking batch 1: 12s of 30s left"]);
    assert_eq!(world.wakes_in(), Some(12.0));
    world.wait(12);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3");
    world.answer(&["h2", "h3"], Phase::Active);
    assert_eq!(world.go(), "bake 1");
    world.wait(30);
    assert_eq!(world.go(), "pass 1, open 2, activate h4");
    world.answer(&["h4"], Phase::Active);
    world.wait(30);
    assert_eq!(world.go(), "pass 2, finish succeeded");
    assert_eq!(world.rollout.ended, Some(world.now));
    assert_eq!(plan(&world.rollout, &world.fleet, world.now), Plan::default());
}

#[test]
fn the_first_batch_waits_for_as_many_staged_hosts_as_asked() {
    for (stage_first, staged, goes) in
        [("100%", 3, false), ("75%", 3, true), ("75%", 2, false), ("0", 0, true)]
    {
        let mut world = World::new(4, Spec { stage_first: stage_first.parse().unwrap(), ..spec() });
        world.go();
        world.answer(&["h1", "h2", "h3"][..staged], Phase::Staged);
        world.go();
        assert_eq!(world.rollout.cursor.gate == super::super::Gate::Open, goes, "{stage_first} {staged}");
    }
}

#[test]
fn a_host_is_ordered_to_switch_only_once_it_is_staged() {
    let mut world = World::new(2, Spec { stage_first: Share::Count(0), ..at_once(2) });
    assert_eq!(world.go(), "stage h1, stage h2, open 0");
    let (host, generation) = ("h1", world.rollout.members[0].order.as_ref().unwrap().generation);
    world.answer(&[host], Phase::Fetching);
    let observed = world.host(host).observed.as_mut().unwrap();
    (observed.fetched_bytes, observed.fetch_total_bytes) = (1_000_000, 4_000_000);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for h1 to stage (1.00 MB of 4.00 MB)", "waiting for h2 to stage"]);
    // A report about an older order says nothing about this one.
    world.answer(&[host], Phase::Staged);
    world.host(host).observed.as_mut().unwrap().generation.0 -= 1;
    assert_eq!(world.go(), "");
    world.host(host).observed.as_mut().unwrap().generation = generation;
    assert_eq!(world.go(), "activate h1");
}

#[test]
fn hosts_that_run_the_release_already_are_left_alone() {
    let mut world = World::new(3, at_once(3));
    world.host("h2").observed.as_mut().unwrap().current = Some(super::super::testing::successor());
    assert_eq!(world.go(), "stage h1, stage h3");
    world.answer(&["h1", "h3"], Phase::Staged);
    assert_eq!(world.go(), "open 0, activate h1, activate h3");
    world.answer(&["h1", "h3"], Phase::Active);
    assert_eq!(world.go(), "pass 0, finish succeeded");
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h3, restore h1", "h2 never switched");
}

#[test]
fn no_more_hosts_are_out_than_may_be() {
    let mut world = staged(4, at_once(2));
    assert_eq!(world.go(), "open 0, activate h1, activate h2");
    assert_eq!(world.blockers()[0], "max_unavailable: 2 of 2 hosts out (h1, h2)");
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "activate h3");
    world.answer(&["h2", "h3"], Phase::Active);
    assert_eq!(world.go(), "activate h4");
}

#[test]
fn unreachable_and_unhealthy_hosts_are_out() {
    let mut world = staged(4, at_once(2));
    world.lose(&["h4"]);
    world.health(&["h3"], Some(false));
    // Switching h3 adds nothing to what is out; switching h1 or h2 would.
    assert_eq!(world.go(), "open 0, activate h3");
    assert_eq!(
        world.blockers(),
        [
            "max_unavailable: 2 of 2 hosts out (h3, h4)",
            "waiting for h3 to take its order of 0s ago",
            "waiting for h4 to report (unreachable for 21s)"
        ]
    );
    world.health(&["h3"], Some(true));
    world.answer(&["h3"], Phase::Active);
    assert_eq!(world.go(), "activate h1");
    world.find(&["h4"]);
    assert_eq!(world.go(), "activate h2");
}

#[test]
fn an_order_never_taken_counts_as_out_however_old() {
    let mut world = staged(3, at_once(1));
    assert_eq!(world.go(), "open 0, activate h1");
    world.lose(&["h1"]);
    world.wait(3_600);
    assert_eq!(world.go(), "", "unreachable is no failure, and no success");
    world.find(&["h1"]);
    assert_eq!(world.go(), "", "the deadline begins when the host is heard again");
    world.wait(59);
    assert_eq!(world.go(), "");
    world.wait(1);
    assert_eq!(world.go(), "fail h1, roll back, restore h1");
}

#[test]
fn the_bake_begins_anew_when_a_host_wavers() {
    let mut world = staged(1, spec());
    world.go();
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "bake 0");
    world.wait(29);
    world.health(&["h1"], Some(false));
    assert_eq!(world.go(), "unbake 0");
    assert_eq!(world.blockers(), ["h1 is unhealthy: 503"]);
    world.wait(5);
    world.health(&["h1"], Some(true));
    assert_eq!(world.go(), "bake 0");
    world.wait(29);
    assert_eq!(world.go(), "");
    world.lose(&["h1"]);
    assert_eq!(world.go(), "unbake 0");
    world.find(&["h1"]);
    assert_eq!(world.go(), "bake 0");
    world.wait(30);
    assert_eq!(world.go(), "pass 0, finish succeeded");
}

#[test]
fn a_wavering_between_two_plans_is_not_overlooked() {
    let mut world = staged(1, spec());
    world.go();
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "bake 0");
    world.wait(25);
    world.health(&["h1"], Some(false));
    world.wait(2);
    world.health(&["h1"], Some(true));
    world.wait(4);
    assert_eq!(world.go(), "bake 0", "it holds for 4 s, not for 31 s");
}

#[test]
fn unknown_health_is_not_ill_health() {
    let mut world = staged(1, spec());
    world.health(&["h1"], None);
    world.go();
    world.answer(&["h1"], Phase::Active);
    world.wait(30);
    assert_eq!(world.go(), "pass 0, finish succeeded");
}

#[test]
fn lasting_ill_health_is_a_failure() {
    let mut world = staged(2, spec());
    world.go();
    world.answer(&["h1"], Phase::Active);
    world.go();
    world.health(&["h1"], Some(false));
    world.go();
    let grace = i64::try_from(ILL_HEALTH_GRACE.as_secs()).unwrap();
    world.wait(grace - 1);
    assert_eq!(world.go(), "");
    assert_eq!(world.wakes_in(), Some(1.0));
    world.wait(1);
    assert_eq!(world.go(), "fail h1, roll back, restore h1");
    let reason = world.rollout.state.reason().unwrap();
    assert_eq!(reason, "h1 unhealthy with the release: 503 (1 of 2 hosts failed, 0 tolerated)");
}

#[test]
fn ill_health_after_the_gate_stops_later_batches() {
    let mut world = staged(3, spec());
    world.go();
    world.answer(&["h1"], Phase::Active);
    world.wait(30);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3");
    world.health(&["h1"], Some(false));
    world.wait(15);
    assert_eq!(world.go(), "fail h1, roll back, restore h3, restore h2, restore h1");
}

#[test]
fn while_paused_nothing_is_ordered_and_standing_orders_stand() {
    let mut world = staged(3, spec());
    world.go();
    world.command(Command::Pause { reason: "by alice".into() });
    world.answer(&["h1"], Phase::Active);
    world.wait(3_600);
    assert_eq!(world.go(), "");
    assert!(world.rollout.state.delivers(&world.rollout.members[0].order.as_ref().unwrap().target));
    world.command(Command::Resume);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3");
}

#[test]
fn no_more_hosts_of_a_failure_domain_are_out_than_may_be() {
    // h1 and h4 stand in rack r1, h2 and h5 in r2, h3 and h6 in r0.
    let per_domain =
        Some(PerDomain { label: "rack".into(), max_unavailable: Share::Count(1), max_failures: None });
    let mut world = staged(6, Spec { per_domain, ..at_once(5) });
    assert_eq!(world.go(), "open 0, activate h1, activate h2, activate h3");
    assert_eq!(
        world.blockers()[..3],
        [
            "rack r0: 1 of 1 hosts out (h3)",
            "rack r1: 1 of 1 hosts out (h1)",
            "rack r2: 1 of 1 hosts out (h2)"
        ]
    );
    world.answer(&["h2"], Phase::Active);
    assert_eq!(world.go(), "activate h5");
    world.answer(&["h1", "h3", "h5"], Phase::Active);
    // A host of the rack that is lost is out, too.
    world.lose(&["h1"]);
    assert_eq!(world.go(), "activate h6");
    world.find(&["h1"]);
    assert_eq!(world.go(), "activate h4");
    world.answer(&["h4", "h6"], Phase::Active);
    assert_eq!(world.go(), "pass 0, finish succeeded");
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h6, restore h5, restore h4");
    world.answer(&["h5"], Phase::Active);
    assert_eq!(world.go(), "restore h2");
}

#[test]
fn a_generation_is_above_all_that_was_ordered_or_accepted() {
    let mut world = World::new(1, at_once(1));
    world.host("h1").generation.0 = 3;
    world.host("h1").observed.as_mut().unwrap().generation.0 = 9;
    world.go();
    assert_eq!(world.rollout.members[0].order.as_ref().unwrap().generation.0, 10);
    world.answer(&["h1"], Phase::Staged);
    world.go();
    let order = world.rollout.members[0].order.clone().unwrap();
    assert_eq!(order.generation.0, 11);
    assert_eq!(order.target, Target::Activate { over: Some(super::super::testing::predecessor()) });
}

#[test]
fn a_large_plan_is_cut_into_several() {
    let mut world = World::new(ORDERS_MAX + 5, at_once(1));
    let first = plan(&world.rollout, &world.fleet, world.now);
    assert_eq!(first.actions.len(), ORDERS_MAX);
    assert_eq!(world.go().split(", ").count(), ORDERS_MAX + 5);
}

#[test]
fn a_host_missing_from_the_fleet_is_unreachable() {
    let mut world = World::new(2, spec());
    world.fleet.remove(&"h2".parse().unwrap());
    assert_eq!(world.go(), "stage h1");
    assert_eq!(world.blockers(), ["staging: 0 of 1 hosts, 1 unreachable"]);
    world.answer(&["h1"], Phase::Staged);
    assert_eq!(world.go(), "open 0, activate h1");
}

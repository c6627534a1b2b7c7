//! Named cases, one table of events and decisions each.

use std::time::Duration;

use sluice_common::order::Phase;
use sluice_common::units::Share;

use super::super::testing::{World, at};
use super::*;
use crate::rollout::{Command, OnFailure, PerDomain, Spec, Strategy, Target};

mod candidates;
mod checks;
mod floors;
mod gates;

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
fn each_way_to_fail_rolls_back_what_switched() {
    for (phase, reason) in [
        (Phase::Reverted, "h1 went back by itself: it said no (1 of 3 hosts failed, 0 tolerated)"),
        (Phase::Failed, "h1 could not switch: it said no (1 of 3 hosts failed, 0 tolerated)"),
    ] {
        let mut world = staged(3, spec());
        world.go();
        world.answer(&["h1"], phase);
        // It runs its predecessor, and yet the failed order has to be fenced.
        assert_eq!(world.go(), "fail h1, roll back, restore h1");
        assert_eq!(world.rollout.state, State::RollingBack { reason: reason.into() });
        world.answer(&["h1"], Phase::Active);
        assert_eq!(world.go(), "finish rolled-back");
    }
}

#[test]
fn failing_to_stage_fails_the_rollout_before_anything_switched() {
    let mut world = World::new(3, spec());
    world.go();
    world.answer(&["h2"], Phase::Failed);
    assert_eq!(world.go(), "fail h2, roll back, finish rolled-back");
    assert!(world.rollout.state.reason().unwrap().contains("h2 could not stage the release: it said no"));
}

#[test]
fn tolerated_failures_let_the_rollout_go_on() {
    let mut world = staged(4, Spec { max_failures: Share::Count(1), ..at_once(4) });
    world.go();
    world.answer(&["h1", "h2", "h3"], Phase::Active);
    world.answer(&["h4"], Phase::Reverted);
    assert_eq!(world.go(), "fail h4, pass 0, finish succeeded");
    assert_eq!(world.rollout.failed(), 1);

    let mut world = staged(4, Spec { max_failures: Share::Count(1), ..at_once(4) });
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.answer(&["h3", "h4"], Phase::Reverted);
    assert_eq!(world.go(), "fail h3, fail h4, roll back, restore h4, restore h3, restore h2, restore h1");
}

#[test]
fn a_tolerated_host_that_hangs_or_is_ill_goes_back_alone() {
    let mut world = staged(3, Spec { max_failures: Share::Count(2), ..at_once(3) });
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.health(&["h2"], Some(false));
    world.wait(15);
    assert_eq!(world.go(), "fail h2, restore h2");
    world.wait(45);
    // With h3 out of the reckoning the batch holds.
    assert_eq!(world.go(), "fail h3, restore h3, pass 0, finish succeeded");
}

#[test]
fn more_failures_than_one_domain_tolerates_end_it_though_the_selection_tolerates_them() {
    // h1 and h4 stand in rack r1, h2 and h5 in r2, h3 and h6 in r0.
    let per_domain = Some(PerDomain {
        label: "rack".into(),
        max_unavailable: Share::Count(2),
        max_failures: Some(Share::Count(1)),
    });
    let tolerant =
        Spec { max_failures: Share::Count(5), per_domain, on_failure: OnFailure::Pause, ..at_once(6) };
    let mut world = staged(6, tolerant);
    world.go();
    world.answer(&["h1", "h2"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, fail h2", "one of each rack");
    world.answer(&["h4"], Phase::Reverted);
    assert_eq!(world.go(), "fail h4, pause");
    let reason = world.rollout.state.reason().unwrap().to_owned();
    assert!(reason.ends_with("(2 of 2 hosts of rack r1 failed, 1 tolerated)"), "{reason}");
    assert!(world.rollout.is_condemned());
    // What was accepted of one rack does not hold up the others.
    world.command(Command::Resume);
    assert!(!world.rollout.is_condemned());
    world.answer(&["h3", "h5", "h6"], Phase::Active);
    assert_eq!(world.go(), "pass 0, finish succeeded");
}

#[test]
fn a_first_batch_that_failed_whole_is_never_tolerated() {
    let mut world = staged(5, Spec { max_failures: Share::Count(3), ..spec() });
    world.go();
    world.answer(&["h1"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, roll back, restore h1");
}

#[test]
fn on_failure_pause_leaves_everything_until_an_operator_decides() {
    let mut world = staged(3, Spec { on_failure: OnFailure::Pause, ..spec() });
    world.go();
    world.answer(&["h1"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, pause");
    assert_eq!(
        world.blockers(),
        ["paused: h1 went back by itself: it said no (1 of 3 hosts failed, 0 tolerated)"]
    );
    world.command(Command::Resume);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3", "the failure is accepted");
    world.answer(&["h2"], Phase::Reverted);
    assert_eq!(world.go(), "fail h2, pause", "the next is not");
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h3, restore h2, restore h1");
}

#[test]
fn failures_accepted_by_resuming_count_no_more() {
    let tolerant = Spec { on_failure: OnFailure::Pause, max_failures: Share::Count(1), ..at_once(6) };
    let mut world = staged(6, tolerant);
    world.go();
    world.answer(&["h1", "h2"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, fail h2, pause");
    world.command(Command::Resume);
    world.answer(&["h3"], Phase::Reverted);
    assert_eq!(world.go(), "fail h3", "one more is tolerated again");
    world.answer(&["h4"], Phase::Reverted);
    assert_eq!(world.go(), "fail h4, pause");
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
fn after_an_abort_nothing_is_ordered_until_a_rollback() {
    let mut world = staged(3, spec());
    world.go();
    world.command(Command::Abort { reason: "by alice".into() });
    world.answer(&["h1"], Phase::Active);
    world.wait(3_600);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), Vec::<String>::new());
    world.command(Command::RollBack { reason: "by bob".into() });
    assert_eq!(world.rollout.ended, None);
    assert_eq!(world.go(), "restore h1");
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
}

#[test]
fn a_rollback_keeps_to_the_budget_and_goes_backwards() {
    let mut world = staged(4, at_once(2));
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.go();
    world.answer(&["h3", "h4"], Phase::Active);
    assert_eq!(world.go(), "pass 0, finish succeeded");
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h4, restore h3");
    assert_eq!(world.go(), "");
    world.answer(&["h4"], Phase::Active);
    assert_eq!(world.go(), "restore h2");
    // One that hangs past its deadline holds up nobody else.
    world.wait(60);
    assert_eq!(world.go(), "restore h1");
    world.answer(&["h1", "h2"], Phase::Active);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for h3 (active, ordered 1m ago)"]);
    world.answer(&["h3"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
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
fn a_rollback_waits_for_hosts_that_cannot_be_heard() {
    let mut world = staged(3, at_once(3));
    world.go();
    world.answer(&["h1"], Phase::Active);
    world.lose(&["h2"]);
    world.answer(&["h3"], Phase::Reverted);
    assert_eq!(world.go(), "fail h3, roll back, restore h3, restore h2, restore h1");
    world.answer(&["h1", "h3"], Phase::Active);
    world.wait(9);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for h2 to report (unreachable for 30s)"]);
    world.find(&["h2"]);
    world.answer(&["h2"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
}

#[test]
fn where_nothing_ran_before_a_rollback_removes() {
    let mut world = World::new(1, at_once(1));
    world.host("h1").observed = None;
    world.go();
    world.host("h1").observed = Some(super::super::Observed {
        generation: world.rollout.members[0].order.as_ref().unwrap().generation,
        phase: Phase::Staged,
        current: None,
        healthy: None,
        reason: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        since: at(0),
    });
    assert_eq!(world.go(), "open 0, activate h1");
    world.answer(&["h1"], Phase::Reverted);
    assert_eq!(world.go(), "fail h1, roll back, remove h1");
    let mut refusing =
        World { rollout: world.rollout.clone(), fleet: world.fleet.clone(), ..World::new(1, at_once(1)) };
    refusing.answer(&["h1"], Phase::Failed);
    assert_eq!(refusing.go(), "finish failed", "it does not know what it runs");
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
}

#[test]
fn a_host_that_cannot_go_back_makes_the_rollout_fail() {
    let mut world = staged(2, at_once(2));
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.go();
    world.command(Command::RollBack { reason: "by alice".into() });
    world.go();
    world.answer(&["h1"], Phase::Active);
    world.answer(&["h2"], Phase::Failed);
    assert_eq!(world.go(), "finish failed");
    let reason = "not back on their predecessor: 1 of 2 hosts (h2: it said no); by alice";
    assert_eq!(world.rollout.state.reason(), Some(reason));
}

#[test]
fn hosts_that_a_later_rollout_took_over_are_not_taken_back() {
    let mut world = staged(2, at_once(2));
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.go();
    world.host("h2").generation.0 += 5;
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h1");
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
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

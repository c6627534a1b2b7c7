//! What people set a rollout: windows, freezes, approvals.

use super::*;
use sluice_common::name::AppName;

use crate::rollout::Calendar;
use crate::rollout::origin::Origin;

/// Lets time pass to `seconds` after the beginning, which is a Friday, 08:00:00 UTC.
fn wait_until(world: &mut World, seconds: i64) {
    world.wait(seconds - world.now.duration_since(at(0)).as_secs());
}

fn windowed(windows: &[&str], freezes: &[&str]) -> Spec {
    let calendar = Calendar {
        windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
        freezes: freezes.iter().map(|text| text.parse().unwrap()).collect(),
    };
    Spec { calendar, ..spec() }
}

#[test]
fn hosts_are_staged_outside_a_window_and_switched_inside() {
    // A batch takes up to 1m of host deadline and 30s of bake.
    let mut world = World::new(4, windowed(&["daily 08:10-08:13 UTC"], &[]));
    assert_eq!(world.go(), "stage h1, stage h2, stage h3, stage h4");
    let waits = "waiting for the window that opens at 2027-01-15 08:10 UTC";
    assert_eq!(world.blockers(), ["staging: 0 of 4 hosts", waits], "everything it waits for is said");
    world.answer(&["h1", "h2", "h3", "h4"], Phase::Staged);
    assert_eq!(world.go(), "");
    assert_eq!((world.blockers(), world.wakes_in()), (vec![waits.to_owned()], Some(600.0)));
    wait_until(&mut world, 600);
    assert_eq!(world.go(), "open 0, activate h1");
    world.answer(&["h1"], Phase::Active);
    world.go();
    world.wait(30);
    assert_eq!(world.go(), "pass 0, open 1, activate h2, activate h3");
    world.wait(45);
    world.answer(&["h2", "h3"], Phase::Active);
    world.go();
    world.wait(30);
    // 105 s into a window of 180 s: not 90 s are left.
    assert_eq!(world.go(), "pass 1");
    let waits = "waiting for the window that opens at 2027-01-16 08:10 UTC (up to 1m30s needed, the open one closes before)";
    assert_eq!(world.blockers(), [waits]);
    wait_until(&mut world, 24 * 3600 + 600);
    assert_eq!(world.go(), "open 2, activate h4");
}

#[test]
fn what_comes_together_switches_when_all_of_it_could() {
    let others: Vec<AppName> = vec!["basket".parse().unwrap(), "stock".parse().unwrap()];
    let origin = Origin {
        environment: "shop".parse().unwrap(),
        run: 1,
        part: None,
        is_addition: false,
        needs: std::collections::BTreeMap::new(),
        beside: others.clone(),
    };
    let mut world = World::new(2, Spec { origin: Some(origin), approvals: 1, ..spec() });
    world.rollout.awaits = others.clone();
    assert_eq!(world.go(), "stage h1, stage h2");
    world.answer(&["h1", "h2"], Phase::Staged);
    assert_eq!(world.go(), "", "it waits for an approval of its own");
    world.command(Command::Approve { by: "bob".parse().unwrap() });
    assert_eq!(world.go(), "ready");
    let waits = "staged, and waiting for basket, stock, which it comes together with";
    assert_eq!((world.blockers(), world.wakes_in()), (vec![waits.to_owned()], Some(1.0)));
    world.rollout.awaits = others[1..].to_vec();
    assert_eq!(world.go(), "");
    world.rollout.awaits.clear();
    assert_eq!(world.go(), "open 0, activate h1");
    // Once it has begun it waits for nobody.
    world.rollout.awaits = others;
    world.answer(&["h1"], Phase::Active);
    world.go();
    world.wait(30);
    assert_eq!(world.go(), "pass 0, open 1, activate h2");
}

#[test]
fn a_host_that_comes_late_waits_for_the_next_window() {
    let mut world =
        World::new(3, Spec { strategy: Strategy::AllAtOnce, ..windowed(&["daily 08:00-08:02 UTC"], &[]) });
    world.go();
    world.answer(&["h1", "h2", "h3"], Phase::Staged);
    assert_eq!(world.go(), "open 0, activate h1, activate h2");
    world.wait(61);
    world.answer(&["h1", "h2"], Phase::Active);
    assert_eq!(world.go(), "", "h3 has less than its deadline left");
    let waits = "waiting for the window that opens at 2027-01-16 08:00 UTC (up to 1m needed, the open one closes before)";
    assert_eq!(world.blockers(), [waits]);
    wait_until(&mut world, 24 * 3600);
    assert_eq!(world.go(), "activate h3");
}

#[test]
fn a_freeze_that_begins_in_mid_rollout_holds_the_next_batch_and_no_retreat() {
    let freeze = "2027-01-15 08:02 to 2027-01-15 09:00 UTC: high load";
    let mut world = staged(4, windowed(&[], &[freeze]));
    assert_eq!(world.go(), "open 0, activate h1");
    world.answer(&["h1"], Phase::Active);
    world.go();
    world.wait(31);
    assert_eq!(world.go(), "pass 0");
    let waits = "waiting for the window that opens at 2027-01-15 09:00 UTC (up to 1m30s needed, the open one closes before)";
    assert_eq!(world.blockers(), [waits]);
    wait_until(&mut world, 120);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["frozen until 2027-01-15 09:00 UTC: high load"]);
    assert_eq!(world.wakes_in(), Some(3_480.0));
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h1", "going back asks no calendar");
}

#[test]
fn an_override_lets_a_rollout_switch_at_any_time() {
    let freeze = "2027-01-15 08:00 to 2027-01-15 09:00 UTC: high load";
    let mut world = staged(2, windowed(&["sun 10:00-12:00 UTC"], &[freeze]));
    assert_eq!(world.go(), "");
    let waits = "waiting for the window that opens at 2027-01-17 10:00 UTC";
    assert_eq!(world.blockers(), ["frozen until 2027-01-15 09:00 UTC: high load", waits]);
    world.command(Command::Override { reason: "by bob: leak".into() });
    assert_eq!(world.go(), "open 0, activate h1");
}

#[test]
fn nothing_switches_before_enough_have_approved() {
    let mut world = staged(2, Spec { approvals: 2, ..spec() });
    let approve = |world: &mut World, by: &str| world.command(Command::Approve { by: by.parse().unwrap() });
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for 2 of 2 approvals"]);
    approve(&mut world, "carol");
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for 1 of 2 approvals (carol approved)"]);
    approve(&mut world, "bob");
    assert_eq!(world.go(), "open 0, activate h1");
}

#[test]
fn a_batch_that_switches_nobody_asks_neither_approvers_nor_calendar() {
    let mut world = World::new(1, Spec { approvals: 1, ..windowed(&["sun 10:00-12:00 UTC"], &[]) });
    world.host("h1").observed.as_mut().unwrap().current = Some(super::super::super::testing::successor());
    assert_eq!(world.go(), "open 0, bake 0");
    world.wait(30);
    assert_eq!(world.go(), "pass 0, finish succeeded");
}

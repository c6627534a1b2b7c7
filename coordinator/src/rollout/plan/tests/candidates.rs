//! Parallel production over the fleet: candidates everywhere, then the traffic.

use super::*;
use crate::rollout::Calendar;

fn blue_green(batch: Share) -> Spec {
    Spec {
        strategy: Strategy::BlueGreen { batch },
        max_unavailable: batch,
        bake: Duration::from_secs(30),
        ..spec()
    }
}

const ALL: Share = Share::Percent(100);

/// Brings a rollout to where every host was ordered to bring up its candidate.
fn starting(hosts: usize, spec: Spec) -> World {
    let mut world = staged(hosts, spec);
    let orders: Vec<String> = (1..=hosts).map(|i| format!("candidate h{i}")).collect();
    assert_eq!(world.go(), orders.join(", "));
    world
}

#[test]
fn the_traffic_moves_once_every_candidate_is_healthy() {
    let mut world = starting(3, blue_green(ALL));
    assert_eq!(world.blockers()[0], "candidates: 0 of 3 hosts have theirs up");
    assert_eq!(world.blockers()[1], "waiting for h1 to take its order of 0s ago");
    world.wait(5);
    world.answer(&["h1", "h2"], Phase::Candidate);
    world.answer(&["h3"], Phase::Validating);
    assert_eq!(world.go(), "");
    assert_eq!(
        world.blockers(),
        ["candidates: 2 of 3 hosts have theirs up", "waiting for h3 (validating, ordered 5s ago)"]
    );
    world.answer(&["h3"], Phase::Candidate);
    assert_eq!(world.go(), "open 0, activate h1, activate h2, activate h3");
    assert_eq!(world.migrators(), ["h1"]);
    world.answer(&["h1", "h2", "h3"], Phase::Active);
    assert_eq!(world.go(), "bake 0");
    world.wait(30);
    assert_eq!(world.go(), "pass 0, finish succeeded");
}

#[test]
fn candidates_come_up_on_every_host_and_the_traffic_moves_in_batches() {
    let mut world = starting(4, blue_green(Share::Percent(50)));
    world.answer(&["h1", "h2", "h3", "h4"], Phase::Candidate);
    assert_eq!(world.go(), "open 0, activate h1, activate h2");
    world.answer(&["h1", "h2"], Phase::Active);
    world.go();
    world.wait(30);
    assert_eq!(world.go(), "pass 0, open 1, activate h3, activate h4");
}

#[test]
fn a_candidate_that_does_not_come_up_takes_no_traffic_and_all_are_dropped() {
    for (phase, words) in [
        (Phase::Failed, "h2 could not bring up its candidate: it said no (1 of 3 hosts failed, 0 tolerated)"),
        (
            Phase::Reverted,
            "h2 could not bring up its candidate: it said no (1 of 3 hosts failed, 0 tolerated)",
        ),
    ] {
        let mut world = starting(3, blue_green(ALL));
        world.answer(&["h1", "h3"], Phase::Candidate);
        world.answer(&["h2"], phase);
        assert_eq!(world.go(), "fail h2, roll back, restore h3, restore h2, restore h1");
        assert_eq!(world.rollout.state.reason(), Some(words));
        world.answer(&["h1", "h2", "h3"], Phase::Active);
        assert_eq!(world.go(), "finish rolled-back");
    }
}

#[test]
fn a_candidate_that_takes_too_long_has_failed() {
    let mut world = starting(2, Spec { max_failures: Share::Count(1), ..blue_green(ALL) });
    world.answer(&["h1"], Phase::Candidate);
    world.answer(&["h2"], Phase::Validating);
    world.go();
    assert_eq!(world.wakes_in(), Some(60.0));
    world.wait(60);
    // It is tolerated here, and its candidate is dropped; the others go on.
    assert_eq!(world.go(), "fail h2, restore h2, open 0, activate h1");
    let failure = world.rollout.members[1].failure.as_ref().unwrap().to_string();
    assert_eq!(failure, "could not bring up its candidate: it is not healthy within 1m");
}

#[test]
fn hosts_that_cannot_be_heard_hold_up_nobody_and_come_later() {
    let mut world = World::new(3, blue_green(ALL));
    world.lose(&["h3"]);
    world.go();
    world.answer(&["h1", "h2"], Phase::Staged);
    assert_eq!(world.go(), "candidate h1, candidate h2");
    world.answer(&["h1"], Phase::Candidate);
    world.go();
    assert_eq!(world.blockers()[0], "candidates: 1 of 2 hosts have theirs up, 1 unreachable");
    world.answer(&["h2"], Phase::Candidate);
    assert_eq!(world.go(), "open 0, activate h1, activate h2");
    world.find(&["h3"]);
    assert_eq!(world.go(), "stage h3");
    world.answer(&["h3"], Phase::Staged);
    assert_eq!(world.go(), "candidate h3");
    world.answer(&["h3"], Phase::Candidate);
    assert_eq!(world.go(), "activate h3");
}

#[test]
fn a_share_of_the_candidates_may_be_enough() {
    let mut world = starting(4, Spec { stage_first: Share::Percent(50), ..blue_green(ALL) });
    world.answer(&["h1", "h2"], Phase::Candidate);
    assert_eq!(world.go(), "open 0, activate h1, activate h2");
}

#[test]
fn candidates_need_no_approval_and_keep_to_the_calendar() {
    // The world begins at 08:00 UTC.
    let calendar =
        Calendar { windows: vec!["daily 08:10-12:00 UTC".parse().unwrap()], ..Calendar::default() };
    let mut world = staged(1, Spec { approvals: 1, calendar, ..blue_green(ALL) });
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers()[0], "waiting for the window that opens at 2027-01-15 08:10 UTC");
    assert_eq!(world.wakes_in(), Some(600.0));
    world.wait(600);
    assert_eq!(world.go(), "candidate h1");
    world.answer(&["h1"], Phase::Candidate);
    assert_eq!(world.go(), "");
    assert_eq!(world.blockers(), ["waiting for 1 of 1 approvals"]);
    world.command(Command::Approve { by: "bob".parse().unwrap() });
    assert_eq!(world.go(), "open 0, activate h1");
}

#[test]
fn what_has_the_traffic_goes_back_before_candidates_are_dropped() {
    let mut world = starting(4, blue_green(Share::Percent(50)));
    world.answer(&["h1", "h2", "h3", "h4"], Phase::Candidate);
    world.go();
    world.answer(&["h1", "h2"], Phase::Active);
    world.command(Command::RollBack { reason: "by alice".into() });
    assert_eq!(world.go(), "restore h2, restore h1, restore h4, restore h3");
    world.answer(&["h1", "h2", "h3", "h4"], Phase::Active);
    assert_eq!(world.go(), "finish rolled-back");
}

#[test]
fn hosts_that_run_the_release_need_no_candidate() {
    let mut world = World::new(2, blue_green(ALL));
    world.host("h2").observed.as_mut().unwrap().current = Some(super::super::super::testing::successor());
    assert_eq!(world.go(), "stage h1");
    world.answer(&["h1"], Phase::Staged);
    assert_eq!(world.go(), "candidate h1");
    world.answer(&["h1"], Phase::Candidate);
    assert_eq!(world.go(), "open 0, activate h1");
}

//! Roll-backs and aborts.

use super::*;

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
    world.host("h1").observed = Some(crate::rollout::Observed {
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

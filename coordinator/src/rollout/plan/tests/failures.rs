//! Hosts that fail, and what a rollout makes of it.

use super::*;

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

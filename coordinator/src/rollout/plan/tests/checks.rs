//! Checks: nothing but a pass lets a batch pass.

use super::*;
use crate::rollout::check::{Outcome, Said};

fn checked(checks: &[&str], on_failure: OnFailure) -> World {
    let checks = checks.iter().map(|text| text.parse().unwrap()).collect();
    let mut world = World::new(2, Spec { checks, on_failure, ..spec() });
    world.go();
    world.answer(&["h1", "h2"], Phase::Staged);
    world.go();
    world.answer(&["h1"], Phase::Active);
    assert_eq!(world.go(), "bake 0");
    world
}

fn probes(world: &World) -> Vec<String> {
    let plan = plan(&world.rollout, &world.fleet, world.now);
    plan.probes.iter().map(ToString::to_string).collect()
}

fn says(world: &mut World, check: &str, outcome: Outcome) {
    let said = Said { at: world.now, outcome, words: format!("{outcome} it is") };
    let key = (world.rollout.cursor.batch, check.parse().unwrap());
    world.rollout.tallies.entry(key).or_default().take(said);
}

#[test]
fn a_batch_passes_once_every_check_passes_and_the_bake_is_over() {
    let mut world = checked(&["a=command a", "b(every=20s)=command b"], OnFailure::Rollback);
    assert_eq!(probes(&world), ["a", "b"]);
    says(&mut world, "a", Outcome::Pass);
    says(&mut world, "b", Outcome::Pass);
    assert_eq!((probes(&world).len(), world.wakes_in()), (0, Some(10.0)));
    world.wait(10);
    assert_eq!(probes(&world), ["a"]);
    says(&mut world, "a", Outcome::Pass);
    world.wait(10);
    says(&mut world, "a", Outcome::Pass);
    says(&mut world, "b", Outcome::Inconclusive);
    world.wait(10);
    assert_eq!(world.go(), "", "the bake is over, and nobody knows about b");
    assert_eq!(world.blockers(), ["check b is inconclusive: inconclusive it is (fails in 5m)"]);
    world.wait(10);
    assert_eq!(probes(&world), ["a", "b"]);
    says(&mut world, "b", Outcome::Pass);
    assert_eq!(world.go(), "pass 0, open 1, activate h2");
}

#[test]
fn a_check_that_fails_takes_the_batch_back_and_stops_the_line() {
    let mut world = checked(&["a=command a"], OnFailure::Rollback);
    says(&mut world, "a", Outcome::Fail);
    assert_eq!(world.go(), "fail check a, roll back, restore h1");
    let reason = "check a of batch 1 failed: fail it is";
    assert_eq!((world.rollout.state.reason(), world.rollout.is_condemned()), (Some(reason), true));
}

#[test]
fn what_nobody_knows_in_the_end_is_a_failure() {
    let mut world = checked(&["a(patience=1m)=command a"], OnFailure::Rollback);
    says(&mut world, "a", Outcome::Inconclusive);
    world.wait(89);
    assert_eq!(world.go(), "");
    world.wait(1);
    assert_eq!(world.go(), "fail check a, roll back, restore h1");
}

#[test]
fn a_check_is_asked_anew_when_somebody_resumes() {
    let mut world = checked(&["a=command a"], OnFailure::Pause);
    says(&mut world, "a", Outcome::Fail);
    assert_eq!(world.go(), "fail check a, pause");
    world.command(Command::Resume);
    assert_eq!((world.go().as_str(), probes(&world)), ("", vec!["a".to_owned()]));
    world.wait(30);
    assert_eq!(world.go(), "", "it has not been asked since");
    says(&mut world, "a", Outcome::Pass);
    assert_eq!(world.go(), "pass 0, open 1, activate h2");
}

#[test]
fn a_broken_bake_forgets_its_passes() {
    let mut world = checked(&["a=command a"], OnFailure::Rollback);
    says(&mut world, "a", Outcome::Pass);
    world.wait(5);
    world.health(&["h1"], Some(false));
    assert_eq!(world.go(), "unbake 0");
    world.health(&["h1"], Some(true));
    assert_eq!((world.go().as_str(), probes(&world)), ("bake 0", vec!["a".to_owned()]));
    world.wait(30);
    assert_eq!(world.go(), "");
}

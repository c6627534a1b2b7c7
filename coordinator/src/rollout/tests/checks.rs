//! Checks over a real database: what they said outlives the coordinator.

use super::*;
use crate::rollout::check::Outcome as Said;

const CHECK: &str = "errors(every=100ms,timeout=1s,patience=1s)=command errors";

fn checked(on_failure: OnFailure) -> Spec {
    Spec { checks: vec![CHECK.parse().unwrap()], on_failure, bake: Duration::from_millis(100), ..spec() }
}

#[tokio::test]
async fn a_check_that_passes_lets_every_batch_pass() {
    let world = World::new(3).await;
    world.paper.answers.lock().unwrap().extend([Said::Pass; 100]);
    let id = world.start("1", checked(OnFailure::Rollback)).await.unwrap();
    let end = world.ended(&id).await;
    assert_eq!(end.rollout.state, State::Succeeded);
    let passed: Vec<(usize, bool)> =
        end.rollout.tallies.iter().map(|((batch, _), tally)| (*batch, tally.passed > 0)).collect();
    assert_eq!(passed, [(0, true), (1, true)]);
}

#[tokio::test]
async fn a_check_without_an_answer_fails_the_rollout_whatever_kills_the_coordinator() {
    let mut world = World::new(3).await;
    let id = world.start("1", checked(OnFailure::Rollback)).await.unwrap();
    let name = || "errors".parse().unwrap();
    let asked = |snapshot: &Snapshot| snapshot.rollout.tallies.contains_key(&(0, name()));
    world.until(&id, asked).await;
    world = world.kill().await;
    assert!(asked(&world.look(&id).await), "what was said is forgotten");
    let end = world.ended(&id).await;
    let reason = "check errors of batch 1 failed: inconclusive for 1s after the bake: no data";
    assert_eq!(end.rollout.state, State::RolledBack { reason: reason.to_owned() });
    assert_eq!(world.versions(), "- - -");
    let failure = end.rollout.tallies[&(0, name())].failure.clone();
    assert!(failure.is_some_and(|failure| failure.contains("no data")));
    assert!(matches!(world.start("2", spec()).await, Err(StartError::Closed(_))), "the line is stopped");
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn a_failed_check_pauses_where_it_is_asked_to_and_is_asked_anew_after_it() {
    let world = World::new(3).await;
    world.paper.answers.lock().unwrap().push_back(Said::Fail);
    let id = world.start("1", checked(OnFailure::Pause)).await.unwrap();
    let paused = world.until(&id, |s| matches!(s.rollout.state, State::Paused { .. })).await;
    assert_eq!(paused.rollout.state.reason(), Some("check errors of batch 1 failed: fail on paper"));
    world.paper.answers.lock().unwrap().extend([Said::Pass; 100]);
    world.command(&id, Command::Resume).await.unwrap();
    assert_eq!(world.ended(&id).await.rollout.state, State::Succeeded);
}

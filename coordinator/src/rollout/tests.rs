//! The whole component over a real database: driver, recorder, sessions' side and operators' side.

use std::time::Duration;

use sluice_common::name::{HostName, RolloutId};
use sluice_common::order::{Phase, Report};
use sluice_common::units::Share;

use self::world::{BAD, World, a_report, app, spec};
use super::*;
use crate::audit;
use crate::clock::Clock;
use crate::fleet::RolloutSink;
use crate::store::Actor;

mod checks;
mod records;
mod service;
mod tables;
mod world;

#[tokio::test]
async fn three_releases_one_of_them_bad() {
    let world = World::new(5).await;
    for (version, state, versions) in
        [("1", "succeeded", "1 1 1 1 1"), ("2", "succeeded", "2 2 2 2 2"), (BAD, "rolled-back", "2 2 2 2 2")]
    {
        let id = world.start(version, spec()).await.unwrap();
        let end = world.ended(&id).await;
        assert_eq!(end.rollout.state.as_str(), state, "{:?}", end.rollout.state);
        assert_eq!(world.versions(), versions);
    }
    let bad = world.look(&"r3".parse().unwrap()).await;
    let reason = "h1 went back by itself: 503 from /health (1 of 5 hosts failed, 0 tolerated)";
    assert_eq!(bad.rollout.state.reason(), Some(reason));
    let outcomes: Vec<Outcome> = bad.hosts.iter().map(|host| host.outcome).collect();
    assert_eq!((outcomes[0], outcomes[1]), (Outcome::RolledBack, Outcome::Waiting));
    let report = bad.hosts[0].report.as_ref().unwrap();
    assert_eq!(report.hook_output.as_deref(), Some("503 from /health"), "it outlives the way back");
    // What an ended rollout achieved stays said, whatever came after it.
    let first = world.look(&"r1".parse().unwrap()).await;
    assert!(first.hosts.iter().all(|host| host.outcome == Outcome::Updated));
    let history = world.handle.history(&app(), Some(&"h2".parse().unwrap()), 10).await.unwrap();
    let lines: Vec<String> = history.iter().map(|l| format!("{:?} {}", l.rollout, l.reason)).collect();
    assert_eq!(lines, [r#"Some(RolloutId("r2")) rolled out"#, r#"Some(RolloutId("r1")) rolled out"#]);
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn a_rollout_survives_every_kill() {
    let mut world = World::new(6).await;
    let id = world.start("1", spec()).await.unwrap();
    let mut kills = 0;
    while !world.look(&id).await.rollout.state.is_ended() {
        // Each life is a little longer than the one before, so that the kills fall everywhere.
        tokio::time::sleep(Duration::from_millis(kills % 40)).await;
        world = world.kill().await;
        kills += 1;
        assert!(kills < 400, "{:#?}", world.look(&id).await);
    }
    assert_eq!(world.look(&id).await.rollout.state, State::Succeeded);
    assert_eq!(world.versions(), "1 1 1 1 1 1");
    assert!(kills > 5, "only {kills} kills");
    let verdict = audit::verify(&world.store).await.unwrap();
    assert_eq!(verdict.broken_at, None);
    // I10, as the table has it: no generation twice, and each newer than the one before it.
    let rows = sqlx::query("SELECT COUNT(*), COUNT(DISTINCT host || generation) FROM orders")
        .fetch_one(world.store.read())
        .await
        .unwrap();
    let count = |i| sqlx::Row::try_get::<i64, usize>(&rows, i).unwrap();
    assert_eq!((count(0), count(1)), (12, 12), "6 hosts, staged and activated once each");
}

#[tokio::test]
async fn operators_pause_resume_abort_and_roll_back() {
    let world = World::new(3).await;
    let id = world.start("1", Spec { bake: Duration::from_millis(300), ..spec() }).await.unwrap();
    let why = || "by alice".to_owned();
    world.until(&id, |s| s.hosts[0].outcome == Outcome::Updated).await;
    world.command(&id, Command::Pause { reason: why() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let paused = world.look(&id).await;
    assert_eq!(paused.blockers, [Blocker::Paused { reason: why() }]);
    assert_eq!(world.versions(), "1 - -");
    world.command(&id, Command::Resume).await.unwrap();
    world.until(&id, |s| s.rollout.cursor.batch == 1).await;
    world.command(&id, Command::Abort { reason: why() }).await.unwrap();
    assert!(world.look(&id).await.rollout.state.is_ended());
    let error = world.command(&id, Command::Resume).await.unwrap_err();
    assert_eq!(error.to_string(), "rollout r1 is aborted; it cannot be resumed");
    world.command(&id, Command::RollBack { reason: why() }).await.unwrap();
    let end = world.ended(&id).await;
    assert_eq!(end.rollout.state, State::RolledBack { reason: why() });
    assert_eq!(world.versions(), "- - -");
    let error = world.command(&"r9".parse().unwrap(), Command::Resume).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no rollout r9; see: sluice rollout list");
}

#[tokio::test]
async fn an_order_of_an_aborted_rollout_no_longer_goes_out() {
    let world = World::new(2).await;
    let at_once = Spec { strategy: Strategy::AllAtOnce, max_unavailable: Share::Count(2), ..spec() };
    let stubborn: HostName = "h2".parse().unwrap();
    world.paper.make_stubborn(&stubborn);
    let id = world.start("1", at_once).await.unwrap();
    world.until(&id, |s| s.hosts[1].outcome == Outcome::Ordered).await;
    let standing = world.handle.standing_orders(&stubborn).await.unwrap();
    assert_eq!(standing.len(), 1);
    assert!(!standing[0].confirmed && !standing[0].migrates, "it is the second host");
    let waiting = Report { healthy: Some(true), ..a_report(standing[0].generation.0, Phase::Validating) };
    world.handle.record_report(&stubborn, waiting).await.unwrap();
    assert!(world.handle.standing_orders(&stubborn).await.unwrap()[0].confirmed);
    let first = world.handle.standing_orders(&"h1".parse().unwrap()).await.unwrap();
    assert!(first[0].migrates && !first[0].confirmed);
    world.command(&id, Command::Abort { reason: "by alice".into() }).await.unwrap();
    assert_eq!(world.handle.standing_orders(&stubborn).await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let world = World::new(2).await;
    let text = |result: Result<RolloutId, StartError>| result.unwrap_err().to_string();
    let bad = Spec { max_unavailable: Share::Count(0), ..spec() };
    assert!(text(world.start("1", bad).await).starts_with("max_unavailable is 0; it must be at least 1"));
    assert_eq!(
        text(world.start("7", spec()).await),
        "there is no release shop 7; see: sluice release list shop"
    );
    let nobody = Spec { selector: "site=rome".parse().unwrap(), ..spec() };
    assert!(text(world.start("1", nobody).await).contains("chooses none of 2 enrolled hosts"));
    let one = Spec { selector: "host=h1".parse().unwrap(), bake: Duration::from_secs(60), ..spec() };
    world.start("1", one.clone()).await.unwrap();
    assert_eq!(
        text(world.start("2", spec()).await),
        "rollout r1 of shop is not finished on h1; wait for it, or run: sluice rollout abort r1"
    );
    let other = Spec { selector: "host=h2".parse().unwrap(), ..spec() };
    let second = world.start("1", other).await.unwrap();
    assert_eq!(
        world.ended(&second).await.rollout.state,
        State::Succeeded,
        "it is not in the way of the first"
    );
}

#[tokio::test]
async fn a_failed_rollout_closes_its_application_until_the_cause_is_known() {
    let world = World::new(2).await;
    let text = |result: Result<RolloutId, StartError>| result.unwrap_err().to_string();
    let bad = world.start(BAD, spec()).await.unwrap();
    assert_eq!(world.ended(&bad).await.rollout.state.as_str(), "rolled-back");
    let refused = text(world.start("1", spec()).await);
    assert!(refused.starts_with("shop is closed to new rollouts since r1 failed at 20"), "{refused}");
    assert!(
        refused.contains(": h1 went back by itself: 503 from /health (1 of 2 hosts failed, 0 tolerated); ")
    );
    assert!(refused.contains("run: sluice app reopen shop --cause"), "{refused}");
    let emergency = Spec { emergency: Some("leak".into()), ..spec() };
    let fix = world.start("1", emergency).await.unwrap();
    assert_eq!(world.ended(&fix).await.rollout.state, State::Succeeded);
    assert!(text(world.start("2", spec()).await).contains("since r1 failed"), "an emergency opens nothing");
    let (by, shop) = ("bob".parse().unwrap(), app());
    let reopen = || world.handle.reopen(&by, Actor::console(), &shop, "no such port");
    let stops = reopen().await.unwrap();
    assert_eq!(stops.iter().map(|stop| stop.rollout.as_str()).collect::<Vec<_>>(), ["r1"]);
    assert_eq!(reopen().await.unwrap(), [], "it is open");
    let again = world.start("2", spec()).await.unwrap();
    assert_eq!(world.ended(&again).await.rollout.state, State::Succeeded);
    let known = world.handle.stops(&app(), 10).await.unwrap();
    let reopened = known[0].reopened.as_ref().unwrap();
    assert_eq!((known.len(), reopened.by.as_str(), reopened.cause.as_str()), (1, "bob", "no such port"));
    // What operators take back at will closes nothing.
    world.command(&again, Command::RollBack { reason: "by alice".into() }).await.unwrap();
    world.ended(&again).await;
    let last = world.start("2", spec()).await.unwrap();
    world.ended(&last).await;
    let entries = audit::list(&world.store, 0, 1_000).await.unwrap();
    let entry = entries.iter().find(|entry| entry.action == "app.reopen").unwrap();
    assert_eq!(entry.detail, r#"{"cause":"no such port","rollouts":["r1"]}"#);
    let closing = |entry: &&audit::Recorded| entry.detail.contains(r#""closes":"shop""#);
    assert_eq!(
        entries.iter().filter(closing).map(|entry| entry.subject.as_str()).collect::<Vec<_>>(),
        ["r1"]
    );
    let started =
        entries.iter().find(|entry| entry.action == "rollout.start" && entry.subject == "r2").unwrap();
    assert!(started.detail.contains(r#""emergency":"leak""#), "{}", started.detail);
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn approvals_and_overrides_survive_a_kill() {
    let world = World::new(2).await;
    let mut asked = Spec { approvals: 1, ..spec() };
    // A window that is far from now, whenever this runs.
    let day = (Clock::of_process().now() + Duration::from_secs(3 * 24 * 3600)).strftime("%a").to_string();
    asked.calendar.windows.push(format!("{} 00:00-23:00 UTC", day.to_lowercase()).parse().unwrap());
    let id = world.start("1", asked).await.unwrap();
    world.until(&id, |s| matches!(s.blockers[..], [Blocker::Approvals { .. }, Blocker::Window { .. }])).await;
    let own = world.command(&id, Command::Approve { by: "alice".parse().unwrap() }).await.unwrap_err();
    assert_eq!(own.to_string(), "alice started rollout r1; somebody else has to approve it");
    world.command(&id, Command::Approve { by: "bob".parse().unwrap() }).await.unwrap();
    let world = world.kill().await;
    world.until(&id, |s| matches!(s.blockers[..], [Blocker::Window { .. }])).await;
    assert_eq!(world.versions(), "- -");
    world.command(&id, Command::Override { reason: "by bob: leak".into() }).await.unwrap();
    let world = world.kill().await;
    let end = world.ended(&id).await;
    assert_eq!(end.rollout.state, State::Succeeded);
    assert_eq!(end.rollout.overridden.as_deref(), Some("by bob: leak"));
    assert_eq!(end.rollout.approvals.keys().map(|by| by.as_str()).collect::<Vec<_>>(), ["bob"]);
    let entries = audit::list(&world.store, 0, 1_000).await.unwrap();
    for action in ["rollout.approve", "rollout.override"] {
        assert!(entries.iter().any(|entry| entry.action == action && entry.subject == "r1"), "{action}");
    }
}

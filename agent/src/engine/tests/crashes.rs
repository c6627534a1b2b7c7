//! A crash at every point between two durable effects: afterwards invariant I1 holds, and a restart finishes the order.

use super::*;
use crate::stage::discard;

/// What is ordered in turn; a crash strikes somewhere in the last of them.
struct Story {
    name: &'static str,
    versions: &'static [(&'static str, &'static str)],
    /// What may be the end, with what then runs.
    ends: &'static [(Phase, &'static str)],
}

const PLAIN: &str = "";
const BAD: &str = "[hooks.validate]\ncommand = [\"/bin/false\"]";

const SLOTTED: &str = "[parallel]\nslots = { blue = { PORT = \"1\" }, green = { PORT = \"2\" } }\n\
    [hooks.candidate]\ncommand = [\"/bin/true\"]\n[hooks.stop]\ncommand = [\"/bin/true\"]\n\
    [gate]\nbake = \"1ms\"";

const STORIES: [Story; 5] = [
    Story { name: "first install", versions: &[("1", PLAIN)], ends: &[(Phase::Active, "1")] },
    Story { name: "update", versions: &[("1", PLAIN), ("2", PLAIN)], ends: &[(Phase::Active, "2")] },
    Story { name: "revert", versions: &[("1", PLAIN), ("2", BAD)], ends: &[(Phase::Reverted, "1")] },
    Story {
        name: "update with hooks",
        versions: &[("1", LOGGING), ("2", LOGGING)],
        // A crash between the start of a hook and its note of success ends on the way back.
        ends: &[(Phase::Active, "2"), (Phase::Reverted, "1")],
    },
    Story {
        name: "parallel",
        versions: &[("1", SLOTTED), ("2", SLOTTED)],
        // A crash while the candidate is started is the candidate's end: nothing was switched.
        ends: &[(Phase::Active, "2"), (Phase::Failed, "1")],
    },
];

#[tokio::test]
async fn every_crash_is_recovered_from() {
    for story in STORIES {
        let mut points = 0;
        loop {
            if !strike(&story, points).await {
                break;
            }
            points += 1;
        }
        assert!(points > 15, "{}: only {points} points were struck", story.name);
    }
}

/// Plays the story, with a crash after `points` points of its last order. Says whether there were as many.
async fn strike(story: &Story, points: i64) -> bool {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let (last, before) = story.versions.split_last().unwrap();
    for (version, spec) in before {
        let package = world.pack(version, spec, &[("payload", version.repeat(9_000).as_bytes())]);
        let order = world.order(version, package, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active);
    }
    drop(engine);
    let package = world.pack(last.0, last.1, &[("payload", last.0.repeat(9_000).as_bytes())]);
    let order = world.order(last.0, package, Stage::Active);
    let crash = CrashPoints::after(points);
    let crashed = async {
        let mut engine = world.engine(crash.clone()).await?;
        engine.take(order.clone()).await?;
        drive(&mut engine).await
    }
    .await
    .is_err();
    assert_eq!(crashed, crash.has_happened());
    let name = format!("{} after {points} points", story.name);
    let allowed = |current: &str| current == "none" || story.versions.iter().any(|(v, _)| *v == current);
    assert!(allowed(&world.current()), "{name}");
    if !before.is_empty() {
        assert_ne!(world.current(), "none", "{name}: the link was never away");
    }
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    // The coordinator repeats the order.
    engine.take(order).await.unwrap();
    assert_eq!(drive(&mut engine).await.unwrap(), Rest::Settled, "{name}");
    let end = (world.report().phase, world.current());
    assert!(
        story.ends.iter().any(|(phase, current)| (*phase, *current) == (end.0, end.1.as_str())),
        "{name}: {end:?} {:?}",
        world.report().reason
    );
    assert_eq!(crate::fsck::check(&world.dir()).unwrap(), Vec::<String>::new(), "{name}");
    let history = fs_err::read_to_string(world.dir().history()).unwrap_or_default();
    let moves = history.lines().filter(|line| line.contains(&format!("generation={} ", world.next))).count();
    assert!((1..=2).contains(&moves) || end.0 != Phase::Active, "{name}: {history}");
    // At rest the state file says everything by itself.
    discard(&world.dir().state().with_extension("steps")).unwrap();
    assert_eq!(AppState::load(&world.dir().state()).unwrap().as_ref(), engine.state(), "{name}");
    discard(world.dir().base()).unwrap();
    crashed
}

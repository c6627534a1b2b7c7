//! Parallel production: two releases beside each other, one of them live.

use super::*;
use crate::layout::LinkName;

/// A release with two slots, which logs what happens in which.
fn spec(changes: &[(&str, &str)], rest: &str) -> String {
    let hook = |event: &str| {
        let script = changes.iter().find(|(name, _)| *name == event).map_or("", |(_, script)| *script);
        let log = "echo $LIFECYCLE_EVENT:$RELEASE_VERSION:$SLOT:$PORT >> $LOG";
        let command =
            ["/bin/sh", "-c", &format!("{log}; {script}")].map(|word| format!("{word:?}")).join(", ");
        format!("[hooks.{event}]\ncommand = [{command}]\n")
    };
    let slots = "[parallel]\nslots = { blue = { PORT = \"81\" }, green = { PORT = \"82\" } }\n";
    format!("{}{slots}{rest}", ["candidate", "switch", "stop", "validate"].map(hook).concat())
}

struct Lives {
    world: World,
    engine: TestEngine,
}

impl Lives {
    async fn new() -> Self {
        let world = World::new();
        let engine = world.engine(CrashPoints::default()).await.unwrap();
        Self { world, engine }
    }

    /// Orders a version; returns the phase that it comes to, and what its hooks logged.
    async fn order(&mut self, version: &str, package: Digest, stage: Stage) -> (Phase, String) {
        let _ = fs_err::remove_file(self.world.log());
        let order = self.world.order(version, package, stage);
        let phase = obey(&mut self.engine, order).await;
        (phase, self.world.logged())
    }

    fn candidate(&self) -> Option<String> {
        let link = observe::link(&self.world.dir(), LinkName::Candidate).unwrap();
        link.installed().map(|release| release.version.to_string())
    }
}

#[tokio::test]
async fn releases_take_turns_in_the_slots() {
    let mut lives = Lives::new().await;
    let one = lives.world.pack("1", &spec(&[], ""), &[]);
    let two = lives.world.pack("2", &spec(&[], ""), &[]);
    let (phase, logged) = lives.order("1", one, Stage::Active).await;
    assert_eq!(
        (phase, logged.as_str()),
        (Phase::Active, "candidate:1:blue:81 switch:1:blue:81 validate:1:blue:81")
    );
    let (phase, logged) = lives.order("2", two, Stage::Candidate).await;
    assert_eq!((phase, logged.as_str()), (Phase::Candidate, "candidate:2:green:82"));
    assert_eq!((lives.world.current(), lives.candidate()), ("1".into(), Some("2".into())));
    // The candidate runs already, in its slot.
    let (phase, logged) = lives.order("2", two, Stage::Active).await;
    let expected = "switch:2:green:82 validate:2:green:82 stop:1:blue:81";
    assert_eq!((phase, logged.as_str()), (Phase::Active, expected));
    assert_eq!((lives.world.current(), lives.candidate()), ("2".into(), None));
    let (phase, logged) = lives.order("1", one, Stage::Active).await;
    let expected = "candidate:1:blue:81 switch:1:blue:81 validate:1:blue:81 stop:2:green:82";
    assert_eq!((phase, logged.as_str()), (Phase::Active, expected));
    assert_eq!(crate::fsck::check(&lives.world.dir()).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_candidate_that_is_not_good_never_takes_the_traffic() {
    let ill = "[gate]\ndeadline = \"200ms\"\n[[health]]\ntype = \"command\"\ncommand = [\"/bin/false\"]\ninterval = \"20ms\"";
    for (name, bad, expected) in [
        ("does not start", spec(&[("candidate", "exit 4")], ""), "candidate of 2 exited with status 4"),
        ("is ill", spec(&[], ill), "the candidate is not healthy"),
    ] {
        for stage in [Stage::Candidate, Stage::Active] {
            let mut lives = Lives::new().await;
            let (one, two) = (lives.world.pack("1", &spec(&[], ""), &[]), lives.world.pack("2", &bad, &[]));
            lives.order("1", one, Stage::Active).await;
            let (phase, logged) = lives.order("2", two, stage).await;
            assert_eq!(
                (phase, logged.as_str()),
                (Phase::Failed, "candidate:2:green:82 stop:2:green:82"),
                "{name}"
            );
            assert_eq!((lives.world.current(), lives.candidate()), ("1".into(), None), "{name}");
            let reason = lives.world.report().reason.unwrap();
            assert!(reason.contains(expected), "{name}: {reason}");
        }
    }
}

#[tokio::test]
async fn the_warm_predecessor_takes_the_traffic_back_at_once() {
    let mut lives = Lives::new().await;
    let one = lives.world.pack("1", &spec(&[], ""), &[]);
    let two = lives.world.pack("2", &spec(&[("validate", "exit 6")], ""), &[]);
    lives.order("1", one, Stage::Active).await;
    let (phase, logged) = lives.order("2", two, Stage::Active).await;
    let expected =
        "candidate:2:green:82 switch:2:green:82 validate:2:green:82 switch:1:blue:81 stop:2:green:82";
    assert_eq!((phase, logged.as_str()), (Phase::Reverted, expected));
    assert_eq!((lives.world.current(), lives.candidate()), ("1".into(), None));
    let standing = &lives.engine.state().unwrap().standing;
    assert_eq!((standing.slot.as_deref(), &standing.beside), (Some("blue"), &None));
}

#[tokio::test]
async fn a_candidate_that_nobody_wants_any_more_is_stopped() {
    let mut lives = Lives::new().await;
    let packages = ["1", "2", "3"].map(|version| lives.world.pack(version, &spec(&[], ""), &[]));
    lives.order("1", packages[0], Stage::Active).await;
    lives.order("2", packages[1], Stage::Candidate).await;
    let (phase, logged) = lives.order("3", packages[2], Stage::Candidate).await;
    assert_eq!((phase, logged.as_str()), (Phase::Candidate, "stop:2:green:82 candidate:3:green:82"));
    let (phase, logged) = lives.order("3", packages[2], Stage::Staged).await;
    assert_eq!((phase, logged.as_str()), (Phase::Staged, "stop:3:green:82"));
    assert_eq!((lives.world.current(), lives.candidate()), ("1".into(), None));
}

#[tokio::test]
async fn a_newer_order_in_the_bake_finds_the_warm_predecessor_running() {
    let mut lives = Lives::new().await;
    let one = lives.world.pack("1", &spec(&[], ""), &[]);
    let baking = "[gate]\nbake = \"1h\"\n[[health]]\ntype = \"command\"\ncommand = [\"/bin/true\"]\ninterval = \"20ms\"";
    let two = lives.world.pack("2", &spec(&[], baking), &[]);
    lives.order("1", one, Stage::Active).await;
    let order = lives.world.order("2", two, Stage::Active);
    lives.engine.take(order).await.unwrap();
    let token = CancellationToken::new();
    while lives.engine.state().unwrap().progress.phase() != Phase::Validating {
        let step = lives.engine.next().await.unwrap();
        lives.engine.perform(step, &token).await.unwrap();
    }
    let (phase, logged) = lives.order("1", one, Stage::Active).await;
    let expected = "switch:1:blue:81 validate:1:blue:81 stop:2:green:82";
    assert_eq!((phase, logged.as_str()), (Phase::Active, expected));
}

#[tokio::test]
async fn a_release_without_slots_cannot_be_a_candidate() {
    let mut lives = Lives::new().await;
    let one = lives.world.pack("1", LOGGING, &[]);
    let (phase, logged) = lives.order("1", one, Stage::Candidate).await;
    assert_eq!((phase, logged.as_str()), (Phase::Failed, ""));
    assert!(lives.world.report().reason.unwrap().contains("[parallel]"));
}

#[tokio::test]
async fn a_release_without_slots_gives_way_to_one_with_slots_and_back() {
    let mut lives = Lives::new().await;
    let plain = lives.world.pack("1", LOGGING, &[]);
    let slotted = lives.world.pack("2", &spec(&[], ""), &[]);
    lives.order("1", plain, Stage::Active).await;
    let (phase, logged) = lives.order("2", slotted, Stage::Active).await;
    assert_eq!(
        (phase, logged.as_str()),
        (Phase::Active, "candidate:2:blue:81 switch:2:blue:81 validate:2:blue:81 stop 1")
    );
    let (phase, logged) = lives.order("1", plain, Stage::Active).await;
    assert_eq!((phase, logged.as_str()), (Phase::Active, "stop:2:blue:81 start 1 2 validate 1"));
    assert_eq!(lives.engine.state().unwrap().standing.slot, None);
}

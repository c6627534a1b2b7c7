use sluice_common::durable;
use sluice_common::order::Installed;

use super::*;
use crate::clock::BootTime;
use crate::layout::LinkName;
use crate::sequence::{BackStep, SwitchStep, undeclared, undeclared_back};
use crate::state::{HookRun, Progress, Switch};

/// A switch as agents wrote it before sequences stood in it.
fn undeclared_switch(predecessor: Option<Installed>) -> Switch {
    Switch { steps: undeclared(), back: undeclared_back(), ..Switch::plain(predecessor) }
}

async fn start(world: &World) -> TestEngine {
    world.engine(CrashPoints::default()).await.unwrap()
}

#[tokio::test]
async fn two_releases_follow_each_other() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let (one, two) = (world.pack("1", LOGGING, &[]), world.pack("2", LOGGING, &[]));
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!((world.current(), world.logged()), ("1".into(), "start 1 validate 1".into()));
    let order = world.order("2", two, Stage::Staged);
    assert_eq!(obey(&mut engine, order).await, Phase::Staged);
    assert_eq!(world.current(), "1");
    let order = world.order("2", two, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(world.current(), "2");
    assert_eq!(world.logged(), "start 1 validate 1 stop 1 start 2 1 validate 2");
    let report = world.report();
    assert_eq!(report.current.unwrap().package, two);
    assert_eq!(report.previous.unwrap().package, one);
    assert_eq!(report.healthy, Some(true));
    assert!(report.wire_bytes > 0, "what staging cost is told with the switch of the same rollout");
    let history = fs_err::read_to_string(world.dir().history()).unwrap();
    assert_eq!(history.lines().count(), 2, "{history}");
}

#[tokio::test]
async fn a_gate_that_does_not_pass_is_reverted() {
    let failing = |validate: &str| format!("{LOGGING}\n[gate]\ndeadline = \"300ms\"\n{validate}");
    let check = "[[health]]\ntype = \"command\"\ncommand = [\"/bin/false\"]\ninterval = \"50ms\"";
    for (name, spec, expected) in [
        ("check", failing(check), "exited with status 1"),
        (
            "validate hook",
            LOGGING.replace("echo validate", "echo bad news; exit 7; echo"),
            "hook validate of 2 exited with status 7",
        ),
        (
            "start hook",
            LOGGING.replace("echo start", "echo bad news; exit 3; echo"),
            "hook start of 2 exited with status 3",
        ),
        (
            "hook that hangs",
            LOGGING
                .replace("echo start", "echo bad news; sleep 99; echo")
                .replace("[hooks.validate]", "timeout = \"300ms\"\n[hooks.validate]"),
            "took longer than 300ms",
        ),
        (
            "hook without program",
            LOGGING.replace("\"/bin/sh\", \"-c\", \"echo start", "\"bin/none\", \"-c\", \"echo start"),
            "bin/none",
        ),
        (
            "bake",
            failing(
                "bake = \"5s\"\n[[health]]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"test $(wc -l < $LOG) -lt 5 && echo asked >> $LOG\"]\ninterval = \"20ms\"\nsuccesses = 1",
            ),
            "did not stay healthy",
        ),
    ] {
        let mut world = World::new();
        let mut engine = start(&world).await;
        let (one, two) = (world.pack("1", LOGGING, &[]), world.pack("2", &spec, &[]));
        let order = world.order("1", one, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active, "{name}");
        fs_err::remove_file(world.log()).unwrap();
        let order = world.order("2", two, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Reverted, "{name}");
        assert_eq!(world.current(), "1", "{name}");
        let report = world.report();
        let reason = report.reason.unwrap();
        assert!(reason.contains(expected), "{name}: {reason}");
        let is_hook = name.contains("hook") && !name.contains("without");
        assert_eq!(report.hook_output.is_some_and(|output| output.contains("bad news")), is_hook, "{name}");
        assert!(
            world.logged().starts_with("stop 1") && world.logged().ends_with("start 1"),
            "{name}: {}",
            world.logged()
        );
    }
}

#[tokio::test]
async fn a_first_install_that_fails_leaves_nothing_running() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", &LOGGING.replace("echo validate", "exit 1; echo"), &[]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert_eq!((world.current(), world.logged()), ("none".into(), "start 1 stop 1".into()));
}

#[tokio::test]
async fn a_release_is_taken_away() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", LOGGING, &[]);
    let order = world.order("1", one, Stage::Active);
    obey(&mut engine, order).await;
    let order = world.wrap(Desired::Absent);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!((world.current(), world.logged()), ("none".into(), "start 1 validate 1 stop 1".into()));
    let order = world.wrap(Desired::Absent);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(world.report().current, None);
}

#[tokio::test]
async fn what_runs_already_is_confirmed_without_a_switch() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let spec = format!(
        "{LOGGING}\n[gate]\ndeadline = \"200ms\"\n[[health]]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"test ! -e $LOG.down\"]\ninterval = \"20ms\""
    );
    let one = world.pack("1", &spec, &[]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let logged = world.logged();
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    fs_err::write(format!("{}.down", world.log().display()), "").unwrap();
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Failed);
    assert!(world.report().reason.unwrap().contains("runs already"));
    assert_eq!((world.current(), world.logged()), ("1".into(), logged));
}

#[tokio::test]
async fn generations_fence_and_refusals_are_reported() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let (one, two) = (world.pack("1", "", &[]), world.pack("2", "", &[]));
    let stale = world.order("2", two, Stage::Active);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order.clone()).await, Phase::Active);
    assert!(!engine.take(stale.clone()).await.unwrap());
    // Across a restart too.
    drop(engine);
    let mut engine = start(&world).await;
    assert!(!engine.take(stale).await.unwrap());
    assert!(!engine.take(order.clone()).await.unwrap());
    let other = Order { desired: Desired::Absent, ..order };
    assert!(!engine.take(other).await.unwrap());
    assert_eq!((drive(&mut engine).await.unwrap(), world.current()), (Rest::Settled, "1".into()));
    // A release by a key that is not pinned.
    world.key = SecretKey::generate().unwrap();
    let unknown = world.order("2", two, Stage::Active);
    assert_eq!(obey(&mut engine, unknown).await, Phase::Failed);
    assert!(world.report().reason.unwrap().contains("not pinned"));
    assert_eq!((world.current(), world.report().generation), ("1".into(), Generation(world.next)));
    assert!(!exists(&world.dir().release(&two)) && !exists(&world.dir().staging(&two)));
}

#[tokio::test]
async fn a_key_that_was_unpinned_meanwhile_stops_the_switch() {
    let mut world = World::new();
    let one = world.pack("1", "", &[]);
    let order = world.order("1", one, Stage::Active);
    let mut engine = start(&world).await;
    engine.take(order).await.unwrap();
    drop(engine);
    world.key = SecretKey::generate().unwrap();
    let mut engine = start(&world).await;
    drive(&mut engine).await.unwrap();
    assert_eq!((world.report().phase, world.current()), (Phase::Failed, "none".into()));
}

#[tokio::test]
async fn an_expired_order_waits_for_its_renewal() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", "", &[]);
    let order = Order { ttl: Duration::ZERO, ..world.order("1", one, Stage::Active) };
    engine.take(order.clone()).await.unwrap();
    assert_eq!(drive(&mut engine).await.unwrap(), Rest::AwaitsRenewal);
    assert_eq!((world.report().phase, world.current()), (Phase::Staged, "none".into()));
    engine.change(|state| state.ttl_ms = 60_000).await.unwrap();
    assert!(engine.take(order).await.unwrap());
    assert_eq!((drive(&mut engine).await.unwrap(), world.current()), (Rest::Settled, "1".into()));
}

#[tokio::test]
async fn a_staged_file_that_was_damaged_is_had_anew_before_the_switch() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", "", &[("bin/app!", &[7; 50_000]), ("data", &[8; 50_000])]);
    let order = world.order("1", one, Stage::Staged);
    assert_eq!(obey(&mut engine, order).await, Phase::Staged);
    fs_err::write(world.dir().release(&one).join("bin/app"), [9; 50_000]).unwrap();
    // As when it was staged longer ago than `caps::LOOK_TTL`.
    engine.hashed.forget_look();
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(world.current(), "1");
    assert_eq!(fs_err::read(world.dir().release(&one).join("bin/app")).unwrap(), [7; 50_000]);
}

#[tokio::test]
async fn what_a_stage_hook_does_to_its_release_is_undone_before_the_switch() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let spec = "[hooks.stage]\ncommand = [\"sh\", \"-c\", \"echo more >> $RELEASE_DIR/data\"]";
    let one = world.pack("1", spec, &[("data", b"bytes")]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(fs_err::read(world.dir().release(&one).join("data")).unwrap(), b"bytes");
}

#[tokio::test]
async fn a_hook_interrupted_by_a_restart_is_never_run_again() {
    let one = |world: &World| world.pack("1", LOGGING, &[]);
    let (at_stop, at_start) = (SwitchStep::StopOld, SwitchStep::StartNew);
    for (name, at, expected) in [("stop", at_stop, "start 1"), ("start", at_start, "stop 2 1 start 1")] {
        let mut world = World::new();
        let mut engine = start(&world).await;
        let (one, two) = (one(&world), world.pack("2", LOGGING, &[]));
        let order = world.order("1", one, Stage::Active);
        obey(&mut engine, order).await;
        let order = world.order("2", two, Stage::Staged);
        obey(&mut engine, order).await;
        let order = world.order("2", two, Stage::Active);
        engine.take(order).await.unwrap();
        // What an agent leaves that is killed while the hook runs, the hook's process included.
        let id = crate::hook::new_id(&format!("{}hook", engine.scope()));
        let mut left =
            tokio::process::Command::new("sleep").arg("1000").env("SLUICE_HOOK_ID", &id).spawn().unwrap();
        let predecessor = world.report().current;
        if at == SwitchStep::StartNew {
            let link = world.dir().link(LinkName::Current);
            durable::replace_symlink(&link, &AppDir::link_target(&two)).unwrap();
        }
        let switch = undeclared_switch(predecessor);
        let hook = Some(HookRun { name: format!("{name} of x"), id });
        engine.change(|state| state.progress = Progress::Switching { at, hook, switch }).await.unwrap();
        drop(engine);
        fs_err::remove_file(world.log()).unwrap();
        let mut engine = start(&world).await;
        assert!(!left.wait().await.unwrap().success(), "the hook's process is ended");
        drive(&mut engine).await.unwrap();
        let report = world.report();
        assert_eq!(
            (report.phase, world.current(), world.logged().as_str()),
            (Phase::Reverted, "1".into(), expected),
            "{name}"
        );
        assert!(report.reason.unwrap().contains(&format!("{name} of x was interrupted")), "{name}");
    }
}

#[tokio::test]
async fn an_interrupted_hook_of_a_revert_is_passed_over() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let (one, two) = (world.pack("1", LOGGING, &[]), world.pack("2", LOGGING, &[]));
    let order = world.order("1", one, Stage::Active);
    obey(&mut engine, order).await;
    let order = world.order("2", two, Stage::Staged);
    obey(&mut engine, order).await;
    let switch = undeclared_switch(world.report().current);
    let hook = Some(HookRun { name: "stop of 2".into(), id: "none".into() });
    let progress = Progress::Reverting { at: BackStep::StopNew, hook, switch };
    engine.change(|state| (state.progress, state.reason) = (progress, Some("ill".into()))).await.unwrap();
    fs_err::remove_file(world.log()).unwrap();
    drive(&mut engine).await.unwrap();
    assert_eq!((world.report().phase, world.logged().as_str()), (Phase::Reverted, "start 1"));
    let reason = world.report().reason.unwrap();
    assert!(reason.starts_with("ill; on the way back hook stop of 2 was interrupted"), "{reason}");
}

#[tokio::test]
async fn the_gate_goes_on_after_a_restart_until_its_deadline() {
    for (left, expected) in [(60, Phase::Active), (0, Phase::Reverted)] {
        let mut world = World::new();
        let mut engine = start(&world).await;
        let (one, two) = (world.pack("1", LOGGING, &[]), world.pack("2", LOGGING, &[]));
        let order = world.order("1", one, Stage::Active);
        obey(&mut engine, order).await;
        let order = world.order("2", two, Stage::Staged);
        obey(&mut engine, order).await;
        let link = world.dir().link(LinkName::Current);
        let switch = undeclared_switch(world.report().current);
        durable::replace_symlink(&link, &AppDir::link_target(&two)).unwrap();
        let deadline = BootTime::now().unwrap().after(Duration::from_secs(left));
        let progress = Progress::Validating { deadline, bake_until: None, confirm_until: None, switch };
        engine.change(|state| state.progress = progress).await.unwrap();
        drop(engine);
        let mut engine = start(&world).await;
        drive(&mut engine).await.unwrap();
        let version = if expected == Phase::Active { "2" } else { "1" };
        assert_eq!((world.report().phase, world.current()), (expected, version.into()));
    }
}

#[tokio::test]
async fn old_releases_go_and_linked_ones_stay() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    for version in ["1", "2", "3", "4", "5"] {
        let package = world.pack(version, "", &[]);
        let order = world.order(version, package, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active);
    }
    let mut versions: Vec<String> =
        observe::installed(&world.dir()).unwrap().iter().map(|release| release.version.to_string()).collect();
    versions.sort();
    assert_eq!(versions, ["3", "4", "5"]);
    assert_eq!(fs_err::read_dir(world.dir().releases()).unwrap().count(), 9);
    assert_eq!(fs_err::read_dir(world.dir().staging_root()).unwrap().count(), 0);
}

#[tokio::test]
async fn reports_are_numbered_upwards_across_restarts() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", "", &[]);
    let order = world.order("1", one, Stage::Active);
    obey(&mut engine, order).await;
    let before = world.report().sequence;
    drop(engine);
    world.board = Board::default();
    let _engine = start(&world).await;
    assert!(world.report().sequence > before);
    assert_eq!(world.report().phase, Phase::Active);
}

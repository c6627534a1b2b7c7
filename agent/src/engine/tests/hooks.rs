//! Hooks: which release's run when, what they are told, and what becomes of those that fail or ask for time.

use super::*;

/// Hooks of every event that log what they are told; `changes` replaces some of their scripts.
pub(super) fn every_hook(changes: &[(&str, &str)]) -> String {
    let events = [
        "stage", "drain", "stop", "switch", "start", "validate", "undrain", "rollback", "snapshot",
        "migrate", "restore",
    ];
    let hook = |event: &str| {
        let script = changes.iter().find(|(name, _)| *name == event).map_or("", |(_, script)| *script);
        let log = "echo $LIFECYCLE_EVENT:$RELEASE_VERSION$(test -n \"$SNAPSHOT\" && echo :$SNAPSHOT) >> $LOG";
        let command =
            ["/bin/sh", "-c", &format!("{log}; {script}")].map(|word| format!("{word:?}")).join(", ");
        format!("[hooks.{event}]\ncommand = [{command}]\n")
    };
    events.map(hook).concat()
}

/// Brings version 1 up and forgets what its hooks logged; then orders version 2.
async fn after_one(one: &str, two: &str) -> (World, TestEngine, Phase) {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let (one, two) = (world.pack("1", one, &[]), world.pack("2", two, &[]));
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let _ = fs_err::remove_file(world.log());
    let order = world.order("2", two, Stage::Active);
    let phase = obey(&mut engine, order).await;
    (world, engine, phase)
}

#[tokio::test]
async fn hooks_of_the_right_release_run_in_order() {
    let spec = every_hook(&[("snapshot", "echo kept; echo snap-$RELEASE_VERSION")]);
    let (mut world, mut engine, phase) = after_one(&spec, &spec).await;
    assert_eq!(phase, Phase::Active);
    assert_eq!(
        world.logged(),
        "stage:2 drain:1 stop:1 snapshot:2 migrate:2:snap-2 switch:2:snap-2 start:2:snap-2 validate:2 undrain:2:snap-2",
    );
    fs_err::remove_file(world.log()).unwrap();
    // The same rollout goes back to where it began: the release that is left undoes what it did.
    let back = observe::link(&world.dir(), crate::layout::LinkName::Previous).unwrap();
    let order = world.order("1", back.installed().unwrap().package, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(
        world.logged(),
        "stage:1 drain:2:snap-2 stop:2:snap-2 rollback:2:snap-2 restore:2:snap-2 switch:1:snap-2 start:1:snap-2 \
         validate:1 undrain:1:snap-2",
    );
}

#[tokio::test]
async fn a_failure_is_undone_by_the_right_release() {
    for (failing, expected) in [
        ("drain", "stage:2 drain:1 undrain:1"),
        ("stop", "stage:2 drain:1 stop:1 start:1 undrain:1"),
        ("migrate", "stage:2 drain:1 stop:1 snapshot:2 migrate:2:s restore:2:s start:1:s undrain:1:s"),
        (
            "start",
            "stage:2 drain:1 stop:1 snapshot:2 migrate:2:s switch:2:s start:2:s stop:2:s rollback:2:s restore:2:s \
             switch:1:s start:1:s undrain:1:s",
        ),
        (
            "undrain",
            "stage:2 drain:1 stop:1 snapshot:2 migrate:2:s switch:2:s start:2:s validate:2 undrain:2:s drain:2:s \
             stop:2:s rollback:2:s restore:2:s switch:1:s start:1:s undrain:1:s",
        ),
    ] {
        let is_of_old = ["drain", "stop"].contains(&failing);
        // Only in the switch away from version 1.
        let script = format!(
            "test -e $LOG.good || exit 5; test $RELEASE_VERSION = {}",
            if is_of_old { "x" } else { "1" }
        );
        let script = if is_of_old { "test $GENERATION != 3".to_owned() } else { script };
        let changes = [("snapshot", "echo s"), (failing, script.as_str())];
        let spec = every_hook(&changes);
        let mut world = World::new();
        fs_err::write(format!("{}.good", world.log().display()), "").unwrap();
        let mut engine = world.engine(CrashPoints::default()).await.unwrap();
        let (one, two) = (world.pack("1", &spec, &[]), world.pack("2", &spec, &[]));
        let order = world.order("1", one, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active, "{failing}: {:?}", world.report().reason);
        fs_err::remove_file(world.log()).unwrap();
        let order = world.order("2", two, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Reverted, "{failing}");
        assert_eq!((world.logged().as_str(), world.current()), (expected, "1".into()), "{failing}");
    }
}

#[tokio::test]
async fn a_hook_may_ask_to_be_tried_later() {
    let counting =
        |times: u32| format!("echo again >> $LOG.tries; test $(wc -l < $LOG.tries) -ge {times} || exit 21");
    for (times, expected) in [(3, Phase::Active), (1_000, Phase::Reverted)] {
        for hook in ["start", "validate"] {
            let (world, engine, phase) =
                after_one("", &every_hook(&[("snapshot", "echo s"), (hook, &counting(times))])).await;
            assert_eq!(phase, expected, "{hook}");
            let tries = fs_err::read_to_string(format!("{}.tries", world.log().display())).unwrap();
            let most = times.min(sluice_common::caps::HOOK_TRIES_MAX) as usize;
            assert_eq!(tries.lines().count(), most, "{hook}");
            let is_told = engine.state().unwrap().reason.as_ref().is_some_and(|r| r.contains("tried later"));
            assert_eq!(is_told, expected == Phase::Reverted);
        }
    }
}

#[tokio::test]
async fn tries_are_counted_across_restarts() {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let spec = every_hook(&[("snapshot", "echo s"), ("start", "exit 21")]);
    let one = world.pack("1", &spec, &[]);
    let order = world.order("1", one, Stage::Active);
    engine.take(order).await.unwrap();
    let token = CancellationToken::new();
    for _ in 0..12 {
        if world.logged().contains("start:1") {
            break;
        }
        let step = engine.next().await.unwrap();
        engine.perform(step, &token).await.unwrap();
    }
    drop(engine);
    let engine = world.engine(CrashPoints::default()).await.unwrap();
    assert!(matches!(
        &engine.state().unwrap().progress,
        crate::state::Progress::Switching { hook: None, switch, .. } if switch.tries == 1
    ));
}

#[tokio::test]
async fn the_stage_hook_runs_once_for_a_release() {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let spec = every_hook(&[("snapshot", "echo s")]);
    let one = world.pack("1", &spec, &[]);
    for stage in [Stage::Staged, Stage::Staged, Stage::Active] {
        let order = world.order("1", one, stage);
        obey(&mut engine, order).await;
    }
    assert_eq!(world.logged().matches("stage:1").count(), 1);
    let two = world.pack("2", &every_hook(&[("stage", "echo no room; exit 9")]), &[]);
    let order = world.order("2", two, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Failed);
    let report = world.report();
    assert_eq!(report.reason.as_deref(), Some("hook stage of 2 exited with status 9"));
    assert!(report.hook_output.unwrap().contains("no room"));
    assert_eq!(world.current(), "1");
}

#[tokio::test]
async fn a_mistake_in_sluice_toml_is_known_before_anything_stops() {
    let (world, _, phase) = after_one(LOGGING, "[hooks.begin]\ncommand = [\"x\"]").await;
    assert_eq!((phase, world.logged().as_str()), (Phase::Failed, ""));
    assert!(world.report().reason.unwrap().contains("begin"));
}

#[tokio::test]
async fn only_one_host_of_a_rollout_migrates() {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let one = world.pack("1", &every_hook(&[]), &[]);
    let order = Order { migrates: false, ..world.order("1", one, Stage::Active) };
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert!(!world.logged().contains("snapshot") && !world.logged().contains("migrate"));
    // A snapshot that has no name cannot be gone back to.
    let two = world.pack("2", &every_hook(&[]), &[]);
    let order = world.order("2", two, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert!(world.report().reason.unwrap().contains("must name the snapshot"));
}

#[tokio::test]
async fn hooks_are_told_what_needs_are_met_by() {
    let mut world = World::new();
    let mut engine = world.engine(CrashPoints::default()).await.unwrap();
    let spec = "[hooks.start]\ncommand = [\"/bin/sh\", \"-c\", \"echo $SLUICE_NEED_USERS_API/$SLUICE_NEED_SEARCH >> $LOG\"]";
    let one = world.pack("1", spec, &[]);
    let met = [("users-api", "users-api 3.1"), ("search", "by name")];
    let needs = met.map(|(app, by)| (app.parse().unwrap(), by.to_owned())).into();
    let order = Order { needs, ..world.order("1", one, Stage::Active) };
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(world.logged(), "users-api 3.1/by name");
}

#[tokio::test]
async fn an_unconfirmed_release_goes_back_by_itself() {
    let spec = "[gate]\nconfirm = true\nconfirm_within = \"300ms\"";
    let (world, _, phase) = after_one("", spec).await;
    assert_eq!((phase, world.current()), (Phase::Reverted, "1".into()));
    assert!(world.report().reason.unwrap().contains("not confirmed"));
}

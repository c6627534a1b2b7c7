//! A configuration and the application that it is of.

use sluice_common::name::AppName;

use super::*;

const CONFIGURATION: &str = "kind = \"configuration\"\nof = \"web\"\n";

fn web() -> AppName {
    "web".parse().unwrap()
}

/// Brings the application up that the configuration is of.
async fn bring_web(world: &mut World, host: &Arc<Host<MemorySource>>) {
    let log = world.log().display().to_string();
    let package = world.pack("7", &LOGGING.replace("$LOG", &log), &[]);
    let release = Release {
        app: web(),
        version: "7".parse().unwrap(),
        packages: [(Platform::any(), package)].into(),
        notes: String::new(),
    };
    let release = release.sign(&world.key).unwrap();
    let order = world.wrap(Desired::Release { stage: Stage::Active, release, package });
    let mut engine = world.engine_of(web(), host.clone()).await.unwrap();
    assert_eq!(obey(&mut engine, Order { app: web(), ..order }).await, Phase::Active);
    fs_err::remove_file(world.log()).unwrap();
}

#[tokio::test]
async fn a_configuration_restarts_what_reads_it_and_goes_back_by_itself() {
    let mut world = World::new();
    let host = world.host(CrashPoints::default());
    bring_web(&mut world, &host).await;
    let mut engine = world.engine_of(World::app(), host).await.unwrap();
    let good = world.pack("a", CONFIGURATION, &[]);
    let bad = world.pack("b", &format!("{CONFIGURATION}[hooks.validate]\ncommand = [\"/bin/false\"]"), &[]);
    let order = world.order("a", good, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    assert_eq!(world.logged(), "stop 7 start 7");
    fs_err::remove_file(world.log()).unwrap();
    let order = world.order("b", bad, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert_eq!((world.logged().as_str(), world.current().as_str()), ("stop 7 start 7 stop 7 start 7", "a"));
}

#[tokio::test]
async fn a_configuration_that_can_be_reloaded_restarts_nothing() {
    let mut world = World::new();
    let host = world.host(CrashPoints::default());
    bring_web(&mut world, &host).await;
    let mut engine = world.engine_of(World::app(), host).await.unwrap();
    let reload = |validate: &str| {
        format!(
            "{CONFIGURATION}[hooks.reload]\ncommand = [\"/bin/sh\", \"-c\", \"echo reload $RELEASE_VERSION >> $LOG\"]\n{validate}"
        )
    };
    let good = world.pack("a", &reload(""), &[]);
    let bad = world.pack("b", &reload("[hooks.validate]\ncommand = [\"/bin/false\"]"), &[]);
    let order = world.order("a", good, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let order = world.order("b", bad, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert_eq!((world.logged().as_str(), world.current().as_str()), ("reload a reload b reload a", "a"));
}

#[tokio::test]
async fn a_configuration_waits_while_its_application_moves() {
    let mut world = World::new();
    let host = world.host(CrashPoints::default());
    bring_web(&mut world, &host).await;
    let good = world.pack("a", CONFIGURATION, &[]);
    let order = world.order("a", good, Stage::Staged);
    let mut engine = world.engine_of(World::app(), host.clone()).await.unwrap();
    obey(&mut engine, order).await;
    let order = world.order("a", good, Stage::Active);
    engine.take(order).await.unwrap();
    let mut moving = world.engine_of(web(), host).await.unwrap();
    let token = CancellationToken::new();
    assert!(moving.hold(&Step::BeginSwitch, &token).await.unwrap());
    // It waits for its turn, and is called away.
    let stop = token.child_token();
    {
        let waiting = engine.perform(Step::BeginSwitch, &stop);
        tokio::pin!(waiting);
        let waited = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(waited.is_err());
        stop.cancel();
        waiting.await.unwrap();
    }
    assert_eq!(world.logged(), "");
    drop(moving);
    drive(&mut engine).await.unwrap();
    assert_eq!(world.logged(), "stop 7 start 7");
}

//! The agent's own update: each start of an agent is an engine with another program.

use super::*;
use crate::update::{Own, PROGRAM};

const WAITING: &str = "[gate]\nconfirm_within = \"1h\"";

/// Starts the agent of a release, or the one that the host was set up with.
async fn start(world: &mut World, release: Option<Digest>, in_place_of: Option<Digest>) -> TestEngine {
    let root = fs_err::canonicalize(world.root.path()).unwrap().join("srv");
    let dir = AppDir::new(&root, &World::app());
    let packaged = PathBuf::from("/usr/bin/sluice-agent");
    world.own = Own {
        app: World::app(),
        program: release.map_or(packaged, |release| dir.release(&release).join(PROGRAM)),
        is_guarded: true,
        in_place_of: in_place_of.map(|release| release.short()),
        give_way: CancellationToken::new(),
    };
    world.engine(CrashPoints::default()).await.unwrap()
}

/// Performs steps until the agent gives way.
async fn until_it_gives_way(world: &World, engine: &mut TestEngine) {
    tokio::select! {
        rest = drive(engine) => panic!("{rest:?} {:?}", world.report()),
        () = world.own.give_way.cancelled() => {}
    }
}

/// Performs steps until the agent waits for its confirmation.
async fn until_it_waits(engine: &mut TestEngine) {
    loop {
        match engine.next().await.unwrap() {
            Step::AwaitConfirmation => return,
            step => engine.perform(step, &CancellationToken::new()).await.unwrap(),
        }
    }
}

/// Brings the host from `before` to a first release of the agent.
async fn first(world: &mut World) -> Digest {
    let mut engine = start(world, None, None).await;
    let one = world.pack("1", WAITING, &[]);
    let order = world.order("1", one, Stage::Active);
    engine.take(order.clone()).await.unwrap();
    until_it_gives_way(world, &mut engine).await;
    assert_eq!(world.report().phase, Phase::Switching);
    drop(engine);
    let mut engine = start(world, Some(one), None).await;
    until_it_waits(&mut engine).await;
    assert_eq!(world.report().phase, Phase::Validating);
    engine.take(Order { confirmed: true, ..order }).await.unwrap();
    drive(&mut engine).await.unwrap();
    assert_eq!((world.report().phase, world.current()), (Phase::Active, "1".into()));
    one
}

#[tokio::test]
async fn an_agent_is_active_once_the_coordinator_has_heard_of_it() {
    let mut world = World::new();
    first(&mut world).await;
}

#[tokio::test]
async fn an_agent_that_does_not_start_is_left_for_its_predecessor() {
    let mut world = World::new();
    let one = first(&mut world).await;
    let mut engine = start(&mut world, Some(one), None).await;
    let two = world.pack("2", WAITING, &[]);
    let order = world.order("2", two, Stage::Active);
    engine.take(order).await.unwrap();
    until_it_gives_way(&world, &mut engine).await;
    assert_eq!(world.current(), "2");
    drop(engine);
    let mut engine = start(&mut world, Some(one), Some(two)).await;
    drive(&mut engine).await.unwrap();
    assert_eq!((world.report().phase, world.current()), (Phase::Reverted, "1".into()));
    assert!(world.report().reason.unwrap().contains("the new agent did not start"));
    // The next one is given way to all the same.
    let three = world.pack("3", WAITING, &[]);
    let order = world.order("3", three, Stage::Active);
    engine.take(order).await.unwrap();
    until_it_gives_way(&world, &mut engine).await;
}

#[tokio::test]
async fn an_agent_that_nobody_hears_of_gives_way_to_its_predecessor() {
    for is_first in [false, true] {
        let mut world = World::new();
        let before = if is_first { None } else { Some(first(&mut world).await) };
        let mut engine = start(&mut world, before, None).await;
        let two = world.pack("2", "[gate]\nconfirm_within = \"1ms\"", &[]);
        let order = world.order("2", two, Stage::Active);
        engine.take(order).await.unwrap();
        until_it_gives_way(&world, &mut engine).await;
        drop(engine);
        let mut engine = start(&mut world, Some(two), None).await;
        until_it_gives_way(&world, &mut engine).await;
        drop(engine);
        let mut engine = start(&mut world, before, None).await;
        drive(&mut engine).await.unwrap();
        let current = if is_first { "none" } else { "1" };
        assert_eq!((world.report().phase, world.current()), (Phase::Reverted, current.into()));
        assert!(world.report().reason.unwrap().contains("not confirmed by the coordinator"));
    }
}

#[tokio::test]
async fn an_agent_without_a_guard_stays_what_it_is() {
    let mut world = World::new();
    let mut engine = start(&mut world, None, None).await;
    world.own.is_guarded = false;
    drop(engine);
    engine = world.engine(CrashPoints::default()).await.unwrap();
    let one = world.pack("1", WAITING, &[]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert_eq!(world.current(), "none");
    assert!(world.report().reason.unwrap().contains("have the unit run sluice-agent guard"));
}

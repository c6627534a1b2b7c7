//! Lives of every shape, with a crash anywhere: each order ends in exactly one terminal state, and I1 holds all the while.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::sequence::tests::HOOKS;
use crate::stage::discard;

/// A `sluice.toml` with some hooks, some of which fail.
fn any_spec() -> impl Strategy<Value = String> {
    let hooks = proptest::sample::subsequence(HOOKS.to_vec(), 0..=HOOKS.len());
    (hooks, proptest::collection::vec(0..8_u8, HOOKS.len()), any::<bool>(), any::<bool>()).prop_map(
        |(hooks, fates, is_parallel, bakes)| {
            let hook = |(hook, fate): (&&str, &u8)| {
                let script = if *fate == 0 { "echo no; exit 1" } else { "echo done" };
                format!("[hooks.{hook}]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n")
            };
            let slots = "[parallel]\nslots = { a = { PORT = \"1\" }, b = { PORT = \"2\" } }\n";
            let slots = if is_parallel && hooks.contains(&"candidate") { slots } else { "" };
            let bake = if bakes { "[gate]\nbake = \"10ms\"\n" } else { "" };
            format!("{}{slots}{bake}", hooks.iter().zip(&fates).map(hook).collect::<String>())
        },
    )
}

#[test]
fn every_order_ends_in_one_terminal_state() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let lives = (any_spec(), any_spec(), 0..60_i64);
    let result = runner.run(&lives, |(one, two, crash)| {
        runtime.block_on(live(&one, &two, crash));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn live(one: &str, two: &str, crash: i64) {
    let mut world = World::new();
    let (one, two) = (world.pack("1", one, &[]), world.pack("2", two, &[]));
    let crash = CrashPoints::after(crash);
    for (version, package) in [("1", one), ("2", two)] {
        let order = world.order(version, package, Stage::Active);
        let begun = async {
            let mut engine = world.engine(crash.clone()).await?;
            engine.take(order.clone()).await?;
            drive(&mut engine).await
        };
        if begun.await.is_err() {
            world.current();
            let mut engine = world.engine(CrashPoints::default()).await.unwrap();
            engine.take(order.clone()).await.unwrap();
            drive(&mut engine).await.unwrap();
        }
        let report = world.report();
        assert!(report.phase.is_terminal(), "{report:?}");
        // It stays there, whatever is repeated.
        let mut engine = world.engine(CrashPoints::default()).await.unwrap();
        engine.take(order).await.unwrap();
        assert_eq!(drive(&mut engine).await.unwrap(), Rest::Settled);
        assert_eq!(world.report().phase, report.phase);
        let current = world.current();
        assert!(current == version || report.phase != Phase::Active, "{report:?} {current}");
        assert_eq!(engine.state().unwrap().standing.beside, None, "nothing is left running beside");
        assert_eq!(crate::fsck::check(&world.dir()).unwrap(), Vec::<String>::new());
    }
    discard(world.dir().base()).unwrap();
}

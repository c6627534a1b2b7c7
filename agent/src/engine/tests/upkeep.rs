//! Upkeep over the life of an application: requirements, what outlives releases, old releases.

use super::*;
use crate::upkeep::Retention;

async fn start(world: &World) -> TestEngine {
    world.engine(CrashPoints::default()).await.unwrap()
}

#[tokio::test]
async fn what_the_host_lacks_is_refused_before_anything_is_fetched() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    for (spec, expected) in [
        ("[requires]\nkernel = \"99.1\"", "kernel is to be 99.1 at least and is"),
        ("linked = [\"VERSION\"]", "VERSION is in the package too"),
        ("retention = 3", "sluice.toml is not valid"),
    ] {
        let package = world.pack("1", spec, &[("payload", &[7; 9_000])]);
        let order = world.order("1", package, Stage::Staged);
        assert_eq!(obey(&mut engine, order).await, Phase::Failed, "{spec}");
        assert!(world.report().reason.unwrap().contains(expected), "{:?}", world.report().reason);
        assert_eq!(world.source.seen().sent, 0, "{spec}");
        assert!(!exists(&world.dir().staging(&package)), "{spec}");
    }
    let met = world.pack("1", "[requires]\nkernel = \"2.6\"\nos = \"linux\"", &[]);
    let order = world.order("1", met, Stage::Staged);
    assert_eq!(obey(&mut engine, order).await, Phase::Staged);
}

#[tokio::test]
async fn what_is_linked_outlives_releases_and_the_way_back() {
    const LINKED: &str = "linked = [\"data/uploads\"]\n[retention]\nkeep = 2\n";
    const BAD: &str = "[hooks.validate]\ncommand = [\"/bin/false\"]";
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", LINKED, &[]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let upload = world.dir().base().join("current/data/uploads/picture");
    fs_err::write(&upload, "kept").unwrap();
    for version in ["2", "3", "4"] {
        let package = world.pack(version, LINKED, &[("payload", version.as_bytes())]);
        let order = world.order(version, package, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active, "{version}");
        assert_eq!(fs_err::read_to_string(&upload).unwrap(), "kept", "{version}");
    }
    assert!(!exists(&world.dir().release(&one)), "two releases are kept");
    let bad = world.pack("5", &format!("{LINKED}{BAD}"), &[]);
    let order = world.order("5", bad, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Reverted);
    assert_eq!((world.current(), fs_err::read_to_string(&upload).unwrap()), ("4".into(), "kept".into()));
    assert_eq!(crate::fsck::check(&world.dir()).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_crowded_disk_keeps_what_runs_and_what_it_would_go_back_to() {
    let mut world = World::new();
    let mut packages = Vec::new();
    for version in ["1", "2", "3", "4"] {
        let mut engine = start(&world).await;
        let package = world.pack(version, "", &[]);
        let order = world.order(version, package, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active);
        packages.push(package);
    }
    let standing = |world: &World| -> Vec<bool> {
        packages.iter().map(|package| exists(&world.dir().marker(package))).collect()
    };
    assert_eq!(standing(&world), [false, true, true, true]);
    world.upkeep.retention = Retention { keep: Some(9), disk_floor: Floor::Bytes(u64::MAX) };
    let mut engine = start(&world).await;
    assert_eq!(standing(&world), [false, false, true, true], "the floor is looked at when the agent starts");
    let five = world.pack("5", "", &[]);
    let order = world.order("5", five, Stage::Staged);
    assert_eq!(obey(&mut engine, order).await, Phase::Failed);
    let reason = world.report().reason.unwrap();
    assert!(reason.contains("the disk is too small") && reason.contains("disk_floor"), "{reason}");
    assert_eq!(world.current(), "4");
}

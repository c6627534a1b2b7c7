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

/// Looks after what stands: the first time at its shape, the second at every byte, then at what has changed.
async fn look_after(engine: &mut TestEngine) {
    engine.perform(Step::LookAfter, &CancellationToken::new()).await.unwrap();
}

fn drift(world: &World) -> (u64, String, u64) {
    world.report().drift.map_or((0, String::new(), 0), |drift| (drift.count, drift.first, drift.mended))
}

#[tokio::test]
async fn drift_is_mended_without_a_switch() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut world = World::new();
    world.reuse = crate::stage::Reuse::Copy;
    let mut engine = start(&world).await;
    let shared: (&str, &[u8]) = ("shared", &[9; 40_000]);
    for (version, own) in [("1", [1; 20_000]), ("2", [2; 20_000])] {
        let files = [shared, ("d/own", &own), ("bin/run!", b"#!"), ("link@", b"shared"), ("empty/", b"")];
        let package = world.pack(version, &format!("linked = [\"uploads\"]\n{LOGGING}"), &files);
        let order = world.order(version, package, Stage::Active);
        assert_eq!(obey(&mut engine, order).await, Phase::Active);
    }
    let logged = world.logged();
    for _ in 0..2 {
        look_after(&mut engine).await;
    }
    assert_eq!(drift(&world), (0, String::new(), 0), "nothing is wrong yet");
    let current = fs_err::canonicalize(world.dir().base().join("current")).unwrap();
    let previous = fs_err::canonicalize(world.dir().base().join("previous")).unwrap();
    let untouched = fs_err::metadata(current.join("bin/run")).unwrap().ino();
    let fetched = world.source.seen().sent;

    // Of the same size, with the time of writing set back: only the time of change tells.
    let times = fs_err::metadata(current.join("shared")).unwrap().modified().unwrap();
    let damaged = fs_err::OpenOptions::new().write(true).open(current.join("shared")).unwrap().into_parts().0;
    std::os::unix::fs::FileExt::write_all_at(&damaged, b"bad", 7).unwrap();
    damaged.set_modified(times).unwrap();
    fs_err::remove_file(previous.join("bin/run")).unwrap();
    fs_err::set_permissions(current.join("bin/run"), PermissionsExt::from_mode(0o644)).unwrap();
    for link in ["link", "uploads"] {
        fs_err::remove_file(current.join(link)).unwrap();
        std::os::unix::fs::symlink("/etc", current.join(link)).unwrap();
    }
    fs_err::remove_dir(current.join("empty")).unwrap();
    look_after(&mut engine).await;
    assert_eq!(drift(&world), (0, String::new(), 5 + 1));
    assert_eq!(world.source.seen().sent, fetched, "the other release had the bytes");
    assert_eq!(world.current(), "2", "and I1 holds");
    assert_eq!(fs_err::metadata(current.join("bin/run")).unwrap().ino(), untouched);
    assert_eq!(world.logged(), logged, "no hook ran");
    assert_eq!(crate::fsck::check(&world.dir()).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_no_release_has_comes_from_the_coordinator_and_what_is_more_stays() {
    let mut world = World::new();
    let mut engine = start(&world).await;
    let package = world.pack("1", "", &[("own", &[5; 30_000]), ("d/other", &[6; 30_000])]);
    let order = world.order("1", package, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let release = world.dir().release(&package);
    let open = fs_err::File::open(release.join("own")).unwrap();
    fs_err::write(release.join("own"), [7; 30_000]).unwrap();
    fs_err::remove_dir_all(release.join("d")).unwrap();
    fs_err::write(release.join("pid"), "1").unwrap();
    world.source.set(|faults| faults.away = true);
    look_after(&mut engine).await;
    assert_eq!(
        drift(&world),
        (2, "d/other of 1 is missing".into(), 1),
        "a look takes the size for the bytes"
    );
    look_after(&mut engine).await;
    assert_eq!(drift(&world), (3, "d/other of 1 is missing".into(), 1));
    assert_eq!(crate::fsck::check(&world.dir()).unwrap().len(), 3, "and nothing is left over");
    world.source.set(|faults| faults.away = false);
    look_after(&mut engine).await;
    assert_eq!(drift(&world), (1, "pid of 1 is not in the package".into(), 3));
    assert_eq!(fs_err::read(release.join("own")).unwrap(), [5; 30_000]);
    let mut held = Vec::new();
    std::io::Read::read_to_end(&mut open.into_parts().0, &mut held).unwrap();
    assert_eq!(held, [7; 30_000], "what is open is not written to");
    assert!(exists(&release.join("pid")));
}

#[tokio::test]
async fn a_dead_link_leads_where_it_did() {
    use sluice_common::durable;
    let mut world = World::new();
    let mut engine = start(&world).await;
    let one = world.pack("1", "", &[]);
    let order = world.order("1", one, Stage::Active);
    assert_eq!(obey(&mut engine, order).await, Phase::Active);
    let bad = world.pack("2", "[hooks.validate]\ncommand = [\"/bin/false\"]", &[]);
    let order = world.order("2", bad, Stage::Active);
    let link = world.dir().link(crate::layout::LinkName::Current);
    for phase in [Phase::Active, Phase::Reverted] {
        if phase == Phase::Reverted {
            assert_eq!(obey(&mut engine, order.clone()).await, phase);
        }
        fs_err::remove_file(&link).unwrap();
        look_after(&mut engine).await;
        assert_eq!(world.current(), "1", "{phase:?}: removed");
        durable::replace_symlink(&link, Path::new("releases/000000000000")).unwrap();
        look_after(&mut engine).await;
        assert_eq!(world.current(), "1", "{phase:?}: dead");
    }
    assert_eq!(drift(&world), (0, String::new(), 4));
    fs_err::remove_file(&link).unwrap();
    fs_err::create_dir(&link).unwrap();
    look_after(&mut engine).await;
    assert!(drift(&world).1.contains("remove it"), "a directory may be somebody's data");
}

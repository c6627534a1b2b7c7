use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sluice_common::durable;
use sluice_common::path::RelPath;
use sluice_common::units::parse_size;

use super::testing::{MemorySource, noise, package};
use super::*;
use crate::examine::examine;
use crate::layout::LinkName;
use crate::observe;
use crate::seen::Hashed;

mod damage;
mod hashed;

struct World {
    _root: tempfile::TempDir,
    dir: AppDir,
    source: MemorySource,
    attempts: Attempts,
    progress: Progress,
    reuse: Reuse,
    floor: Floor,
    hashed: Hashed,
}

fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
    World {
        _root: root,
        dir,
        source: MemorySource::default(),
        attempts: Attempts::default(),
        progress: Progress::default(),
        reuse: Reuse::Auto,
        floor: Floor::Percent(0),
        hashed: Hashed::default(),
    }
}

impl World {
    fn release(&self, package: Digest) -> Installed {
        Installed { package, version: "1".parse().unwrap() }
    }

    async fn stage_with(&mut self, package: Digest, crash: CrashPoints) -> Result<Seen, StageError> {
        let job = Job {
            dir: self.dir.clone(),
            release: self.release(package),
            reuse: self.reuse,
            floor: self.floor,
            hashed: self.hashed.for_reuse(),
            crash,
        };
        let token = CancellationToken::new();
        stage(&job, &mut self.source.clone(), &mut self.attempts, &self.progress, &token).await
    }

    async fn stage(&mut self, package: Digest) -> Result<Seen, StageError> {
        self.stage_with(package, CrashPoints::default()).await
    }

    /// Stages, trying again as the engine does.
    async fn persist(&mut self, package: Digest) -> u32 {
        for tries in 0.. {
            match self.stage(package).await {
                Ok(_) => return tries,
                Err(StageError::Retry { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!()
    }

    fn assert_staged(&self, package: Digest, original: &Path) {
        assert!(observe::marker(&self.dir, &package).unwrap().is_some(), "no marker");
        let manifest = observe::manifest(&self.dir, &package).unwrap();
        let release = self.dir.release(&package);
        assert_eq!(examine(&release, &manifest, &AtomicBool::new(false)).unwrap(), []);
        assert_eq!(examine(original, &manifest, &AtomicBool::new(false)).unwrap(), []);
        assert!(!self.dir.staging(&package).exists(), "staging is left");
    }

    fn inode(&self, package: &Digest, path: &str) -> u64 {
        let path = RelPath::new(path).unwrap();
        fs_err::metadata(path.below(&self.dir.release(package))).unwrap().ino()
    }
}

fn first() -> tempfile::TempDir {
    package(&[
        ("bin/run!", &noise(1, 40_000)),
        ("lib/a", &noise(2, 300_000)),
        ("lib/b", &noise(3, 200_000)),
        ("lib/twin", &noise(3, 200_000)),
        ("lib/twin-to-run!", &noise(3, 200_000)),
        ("empty-file", b""),
        ("empty-dir/", b""),
        ("lib/link@", b"../bin/run"),
    ])
}

fn second() -> tempfile::TempDir {
    let mut changed = noise(2, 300_000);
    changed[5] ^= 1;
    package(&[
        ("bin/run!", &noise(1, 40_000)),
        ("lib/a", &changed),
        ("lib/renamed", &noise(3, 200_000)),
        ("lib/fresh", &noise(9, 50_000)),
    ])
}

/// A release of so many files that its plan has several frames, and the next one, in which every file has changed.
fn many(changed: bool) -> tempfile::TempDir {
    let files: Vec<(String, Vec<u8>)> = (0..6)
        .map(|number| {
            let mut bytes = noise(100 + number, 6 << 20);
            bytes[1_000] ^= u8::from(changed);
            (format!("file-{number}"), bytes)
        })
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    package(&files)
}

#[tokio::test]
async fn a_cold_install_is_byte_identical() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.stage(package).await.unwrap();
    world.assert_staged(package, tree.path());
    let (fetched, total) = world.progress.read();
    assert_eq!((fetched, world.source.seen().sent as u64), (total, total));
}

#[tokio::test]
async fn an_update_takes_from_the_installed_release_what_it_holds() {
    let (mut world, old, new) = (world(), first(), second());
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    let before = world.source.seen().sent;
    world.stage(two).await.unwrap();
    world.assert_staged(two, new.path());
    world.assert_staged(one, old.path());
    assert!(world.source.seen().sent - before < 51_500, "{} bytes", world.source.seen().sent - before);
    assert_eq!(world.source.seen().bases, [vec![], vec![one]]);
    // Without reflinks (most test machines) unchanged files share their inode, renamed ones too.
    let shares = world.inode(&one, "bin/run") == world.inode(&two, "bin/run");
    assert_eq!(world.inode(&one, "lib/b") == world.inode(&two, "lib/renamed"), shares);
}

#[tokio::test]
async fn what_the_base_lacks_is_taken_from_any_other_release_whose_manifest_is_right() {
    for is_damaged in [false, true] {
        let (mut world, old, new) = (world(), first(), second());
        // What the first release has in `lib/a` and the second has not, under another name, and executable.
        let third =
            package(&[("bin/run!", &noise(1, 40_000)), ("opt/", b""), ("opt/back!", &noise(2, 300_000))]);
        let [one, two, three] = [&old, &new, &third].map(|tree| world.source.add(tree.path()));
        world.stage(one).await.unwrap();
        world.stage(two).await.unwrap();
        if is_damaged {
            let path = world.dir.manifest(&one);
            let mut bytes = fs_err::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs_err::write(path, bytes).unwrap();
        }
        let before = world.source.seen().sent;
        world.stage(three).await.unwrap();
        world.assert_staged(three, third.path());
        assert_eq!(world.source.seen().bases[2][0], two);
        assert_eq!(world.source.seen().sent - before > 290_000, is_damaged);
    }
}

#[tokio::test]
async fn a_content_larger_than_a_frame_survives_interruption_between_its_frames() {
    let (mut world, tree) = (world(), package(&[("huge", &noise(4, 40 << 20)), ("small", b"s")]));
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.cuts = vec![20 << 20, 15 << 20]);
    assert_eq!(world.persist(package).await, 2);
    world.assert_staged(package, tree.path());
    let seen = world.source.seen();
    assert!(
        seen.fetches[1].len() < seen.fetches[0].len(),
        "frames that were decoded are not asked for again"
    );
    assert_eq!(seen.sent as u64, world.progress.read().1, "no byte came twice");
}

#[tokio::test]
async fn frames_that_are_the_same_are_gathered_and_removed_each_for_itself() {
    let (mut world, tree) = (world(), package(&[("zeros", &vec![0; 40 << 20]), ("small", b"s")]));
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.cuts = vec![100, 400, 300]);
    assert_eq!(world.persist(package).await, 3);
    world.assert_staged(package, tree.path());
    let seen = world.source.seen();
    let digests: HashSet<Digest> = seen.fetches[0].iter().map(|frame| frame.digest).collect();
    assert!(digests.len() + 1 < seen.fetches[0].len(), "{} frames", seen.fetches[0].len());
    assert_eq!(seen.sent as u64, world.progress.read().1, "no byte came twice");
}

#[tokio::test]
async fn an_agent_that_was_restarted_takes_a_better_plan_but_ends_one_that_is_nearly_done() {
    for (cut, is_taken) in [(8 << 20, true), (35 << 20, false)] {
        let (mut world, old, new) = (world(), many(false), many(true));
        let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
        world.stage(one).await.unwrap();
        let before = world.source.seen().sent;
        world.source.set(|faults| (faults.is_plain, faults.cuts) = (true, vec![cut]));
        assert!(matches!(world.stage(two).await, Err(StageError::Retry { .. })));
        world.source.set(|faults| faults.is_plain = false);
        world.attempts = Attempts::default();
        world.stage(two).await.unwrap();
        world.assert_staged(two, new.path());
        let seen = world.source.seen();
        assert_eq!(seen.bases.len(), if is_taken { 3 } else { 2 }, "cut after {cut} bytes");
        let sent = (seen.sent - before) as u64;
        assert_eq!(sent < (9 << 20), is_taken, "{sent} bytes, cut after {cut}");
        assert!(is_taken || sent == world.progress.read().1, "no byte came twice");
    }
}

#[tokio::test]
async fn releases_share_no_file_where_that_is_not_wanted() {
    for (reuse, may_share) in [(Reuse::Copy, false), (Reuse::Reflink, false), (Reuse::Hardlink, true)] {
        let (mut world, old, new) = (world(), first(), second());
        let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
        world.reuse = reuse;
        world.stage(one).await.unwrap();
        world.stage(two).await.unwrap();
        world.assert_staged(two, new.path());
        assert_eq!(world.inode(&one, "bin/run") == world.inode(&two, "bin/run"), may_share, "{reuse:?}");
        assert_eq!(world.inode(&one, "lib/b") == world.inode(&one, "lib/twin"), may_share, "{reuse:?}");
    }
}

#[tokio::test]
async fn a_file_whose_mode_was_changed_is_copied_not_linked() {
    for is_seen in [false, true] {
        let (mut world, old, new) = (world(), first(), second());
        let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
        world.reuse = Reuse::Hardlink;
        let seen = world.stage(one).await.unwrap();
        if is_seen {
            world.hashed.add(seen);
        }
        for name in ["lib/b", "lib/twin"] {
            let path = world.dir.release(&one).join(name);
            fs_err::set_permissions(path, PermissionsExt::from_mode(0o664)).unwrap();
        }
        world.stage(two).await.unwrap();
        world.assert_staged(two, new.path());
        assert_ne!(world.inode(&one, "lib/b"), world.inode(&two, "lib/renamed"), "{is_seen}");
        assert_eq!(world.inode(&one, "bin/run"), world.inode(&two, "bin/run"), "{is_seen}");
        assert_eq!(world.source.seen().bases.len(), 2, "one plan each");
    }
}

#[tokio::test]
async fn copies_are_not_made_into_the_room_that_is_kept_free() {
    for (reuse, is_changed, is_refused) in [
        (Reuse::Copy, false, true),
        (Reuse::Hardlink, false, false),
        (Reuse::Auto, false, false),
        // A link would share the mode that somebody has set.
        (Reuse::Hardlink, true, true),
    ] {
        let (mut world, old) = (world(), first());
        let moved = package(&[
            ("else/where", &noise(2, 300_000)),
            ("and/here", &noise(2, 300_000)),
            ("empty", b""),
            ("empty-program!", b""),
        ]);
        let (one, two) = (world.source.add(old.path()), world.source.add(moved.path()));
        world.reuse = reuse;
        world.stage(one).await.unwrap();
        let standing = AppDir::link_target(&one);
        durable::replace_symlink(&world.dir.link(LinkName::Current), &standing).unwrap();
        let file = world.dir.release(&one).join("lib/a");
        if is_changed {
            fs_err::set_permissions(&file, PermissionsExt::from_mode(0o664)).unwrap();
        }
        world.floor = Floor::Bytes(u64::MAX / 2);
        match world.stage(two).await {
            Err(StageError::Failed { reason }) => {
                assert!(is_refused && reason.contains("the disk is too small"), "{reuse:?}: {reason}");
            }
            other => assert!(other.is_ok() && !is_refused, "{reuse:?} {is_changed}: {other:?}"),
        }
        if is_changed {
            fs_err::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        }
        world.assert_staged(one, old.path());
    }
}

#[tokio::test]
async fn what_came_before_an_interruption_is_not_asked_of_the_disk_again() {
    /// Returns the bytes that the disk is said to lack room for.
    async fn asked(world: &mut World, package: Digest) -> u64 {
        let floor = std::mem::replace(&mut world.floor, Floor::Bytes(u64::MAX / 2));
        let Err(StageError::Failed { reason }) = world.stage(package).await else { panic!("it fits") };
        world.floor = floor;
        let size = reason.strip_prefix("the disk is too small: ").unwrap().split(" in ").next().unwrap();
        parse_size(&size.replace(' ', "")).unwrap()
    }
    let (mut world, tree) = (world(), package(&[("model", &noise(1, 30_000_000))]));
    let package = world.source.add(tree.path());
    let whole = asked(&mut world, package).await;
    world.source.set(|faults| faults.cuts = vec![20_000_000]);
    assert!(matches!(world.stage(package).await, Err(StageError::Retry { .. })));
    let rest = asked(&mut world, package).await;
    assert!((19_000_000..=21_000_000).contains(&(whole - rest)), "{whole} and {rest}");
}

#[test]
fn retries_grow_and_are_spread() {
    for (failures, random, expected) in [(0, 1.0, 500), (0, 0.0, 250), (3, 1.0, 4_000), (99, 1.0, 30_000)] {
        assert_eq!(retry_delay(failures, random), Duration::from_millis(expected));
    }
}

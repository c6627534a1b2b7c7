use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sluice_common::path::RelPath;

use super::stager::{DAMAGED_MAX, REFUSED_MAX};
use super::testing::{MemorySource, noise, package};
use super::*;
use crate::examine::examine;
use crate::examine::examine_unseen;
use crate::observe;
use crate::seen::{Hashed, Seen, Stamp};

struct World {
    _root: tempfile::TempDir,
    dir: AppDir,
    source: MemorySource,
    attempts: Attempts,
    progress: Progress,
    reuse: Reuse,
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
            floor: Floor::Percent(0),
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

#[tokio::test]
async fn a_cold_install_is_byte_identical() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.stage(package).await.unwrap();
    world.assert_staged(package, tree.path());
    let (fetched, total) = world.progress.read();
    assert_eq!((fetched, world.source.seen().sent as u64), (total, total));
}

/// Whatever was written to after its bytes were hashed is read again before a switch, through whichever name it was.
#[tokio::test]
async fn what_was_hashed_is_not_read_again_unless_it_was_touched() {
    let (mut world, old, new) = (world(), first(), second());
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    let seen = world.stage(two).await.unwrap();
    let manifest = observe::manifest(&world.dir, &two).unwrap();
    let release = world.dir.release(&two);
    let look = || examine_unseen(&release, &manifest, &seen, &AtomicBool::new(false)).unwrap();
    assert_eq!(look(), []);
    // Without reflinks the two releases have a file in common, and whoever writes to the one changes the other.
    for (release, path, bytes) in
        [(&release, "lib/fresh", noise(9, 50_000)), (&world.dir.release(&one), "bin/run", noise(1, 40_000))]
    {
        let is_shared = world.inode(&one, "bin/run") == world.inode(&two, "bin/run");
        let mut flipped = bytes;
        flipped[7] ^= 1;
        fs_err::write(release.join(path), flipped).unwrap();
        let is_found = look().iter().any(|finding| finding.path == Path::new(path));
        assert_eq!(is_found, path == "lib/fresh" || is_shared, "{path}");
    }
}

/// Takes every file of a release for hashed as it stands.
fn seen_as_it_stands(world: &World, package: Digest) -> Seen {
    let (manifest, release) = (observe::manifest(&world.dir, &package).unwrap(), world.dir.release(&package));
    let stamp = |path: &RelPath| Some(Stamp::of(&fs_err::metadata(path.below(&release)).ok()?));
    let stamps = manifest.entries().map(|entry| stamp(entry.path)).collect();
    Seen::marked_at_the_end_of_time(package, stamps)
}

#[tokio::test]
async fn what_was_hashed_lately_is_linked_without_being_hashed_again_unless_it_was_touched() {
    for is_noted_after in [true, false] {
        let (mut world, old, new) = (world(), first(), second());
        world.reuse = Reuse::Hardlink;
        let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
        world.stage(one).await.unwrap();
        let before = seen_as_it_stands(&world, one);
        let damaged = world.dir.release(&one).join("bin/run");
        let mut flipped = noise(1, 40_000);
        flipped[7] ^= 1;
        fs_err::write(&damaged, &flipped).unwrap();
        // A note of the damaged file says that it was right, which nothing but hashing could tell from the truth.
        world.hashed.add(if is_noted_after { seen_as_it_stands(&world, one) } else { before });
        let seen = world.stage(two).await.unwrap();
        let taken = fs_err::read(world.dir.release(&two).join("bin/run")).unwrap();
        assert_eq!(taken == flipped, is_noted_after);
        assert!(seen.hashed_since() < std::time::Instant::now());
        if !is_noted_after {
            world.assert_staged(two, new.path());
        }
    }
}

#[tokio::test]
async fn what_was_hashed_stays_known_when_an_older_release_is_removed() {
    let (mut world, old, new) = (world(), first(), second());
    world.reuse = Reuse::Hardlink;
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    world.stage(two).await.unwrap();
    // Written long before a name is taken away: within a tick of the clock a change leaves the times as they were.
    for file in ["bin/run", "lib/fresh"] {
        let file = fs_err::File::open(world.dir.release(&two).join(file)).unwrap();
        file.into_parts()
            .0
            .set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60))
            .unwrap();
    }
    let seen = seen_as_it_stands(&world, two);
    let (manifest, release) = (observe::manifest(&world.dir, &two).unwrap(), world.dir.release(&two));
    let number = |path: &str| manifest.entries().position(|e| e.path.as_str() == path).unwrap();
    let is_known = |seen: &Seen, path: &str| {
        seen.covers(number(path), Stamp::of(&fs_err::metadata(release.join(path)).unwrap()))
    };
    world.hashed.add(seen.clone());
    let (dir, first_release) = (world.dir.clone(), world.dir.release(&one));
    world.hashed.across(&dir, || fs_err::remove_dir_all(&first_release)).unwrap();
    assert!(!is_known(&seen, "bin/run"), "its time of change has moved");
    let renewed = world.hashed.for_reuse().unwrap();
    assert!(is_known(&renewed, "bin/run") && is_known(&renewed, "lib/fresh"));
    let touch = || fs_err::write(release.join("lib/fresh"), noise(9, 50_000));
    world.hashed.across(&dir, touch).unwrap();
    let renewed = world.hashed.for_reuse().unwrap();
    assert!(is_known(&renewed, "bin/run") && !is_known(&renewed, "lib/fresh"), "it was written to");
    let gone = world.dir.release(&two);
    fs_err::remove_dir_all(&gone).unwrap();
    let mut is_done = false;
    let work = || {
        is_done = true;
        Ok(())
    };
    world.hashed.across(&dir, work).unwrap();
    assert!(is_done && world.hashed.for_reuse().is_none());
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
async fn staging_resumes_at_the_byte_where_the_stream_was_cut() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.cuts = vec![1, 100_000, 30_000, 7_000]);
    assert_eq!(world.persist(package).await, 4);
    world.assert_staged(package, tree.path());
    let seen = world.source.seen();
    let offsets: Vec<u64> = seen.fetches.iter().map(|frames| frames[0].offset).collect();
    assert_eq!(offsets, [0, 1, 100_001, 130_001, 137_001]);
    assert_eq!(seen.sent as u64, world.progress.read().1, "no byte came twice");
    assert_eq!(seen.bases.len(), 1, "the plan was asked for once");
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
async fn a_flipped_byte_is_refused_and_fetched_anew() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.flips = 3);
    assert_eq!(world.persist(package).await, 3);
    world.assert_staged(package, tree.path());
}

#[tokio::test]
async fn a_source_that_never_serves_a_whole_frame_is_given_up() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.rotten = true);
    let mut tries = 0;
    let reason = loop {
        tries += 1;
        match world.stage(package).await {
            Err(StageError::Retry { .. }) => {}
            Err(StageError::Failed { reason }) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(tries == DAMAGED_MAX && reason.contains("came damaged"), "{tries}: {reason}");
    assert!(!world.dir.release(&package).exists() && !world.dir.staging(&package).exists());
}

#[tokio::test]
async fn a_refusing_source_fails_and_one_that_is_away_is_waited_for() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.away = true);
    for _ in 0..50 {
        assert!(matches!(world.stage(package).await, Err(StageError::Retry { .. })));
    }
    world.source.set(|faults| (faults.away, faults.refuses) = (false, true));
    for _ in 1..REFUSED_MAX {
        assert!(matches!(world.stage(package).await, Err(StageError::Retry { .. })));
    }
    assert!(matches!(world.stage(package).await, Err(StageError::Failed { .. })));
}

#[tokio::test]
async fn a_damaged_file_of_the_base_is_skipped_and_its_content_fetched() {
    let (mut world, old, new) = (world(), first(), second());
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    let release = world.dir.release(&one);
    for name in ["lib/b", "lib/twin", "lib/twin-to-run"] {
        fs_err::write(release.join(name), noise(78, 200_000)).unwrap();
    }
    world.persist(two).await;
    world.assert_staged(two, new.path());
    assert_eq!(world.source.seen().bases, [vec![], vec![one], vec![]], "the base is not offered again");
}

#[tokio::test]
async fn a_base_that_a_frame_leans_on_may_be_damaged() {
    let (mut world, old, new) = (world(), first(), second());
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    fs_err::write(world.dir.release(&one).join("lib/a"), noise(77, 300_000)).unwrap();
    world.persist(two).await;
    world.assert_staged(two, new.path());
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
async fn one_damaged_file_of_a_base_costs_the_frames_that_lean_on_it_and_no_others() {
    let (mut world, old, new) = (world(), many(false), many(true));
    let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
    world.stage(one).await.unwrap();
    let cold = world.source.seen().sent;
    fs_err::write(world.dir.release(&one).join("file-0"), noise(77, 6 << 20)).unwrap();
    world.persist(two).await;
    world.assert_staged(two, new.path());
    let seen = world.source.seen();
    assert_eq!(seen.bases, [vec![], vec![one], vec![]]);
    assert!(seen.sent - cold < cold * 2 / 3, "{} bytes for a cold install of {cold}", seen.sent - cold);
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
async fn what_a_crash_left_in_staging_is_hashed_and_never_trusted() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.cuts = vec![usize::MAX]);
    // Everything is staged, but the crash comes before the tree gets its name.
    assert!(world.stage_with(package, CrashPoints::after(1)).await.is_err());
    let staging = world.dir.staging(&package);
    // A failed staging is removed; rebuild what a crash would have left.
    assert!(!staging.exists());
    let area = Area::open(&world.dir, package, CrashPoints::default()).unwrap();
    fs_err::create_dir(area.tree().join("lib")).unwrap();
    fs_err::write(area.tree().join("lib/a"), b"wrong").unwrap();
    fs_err::write(area.tree().join("stray"), b"stray").unwrap();
    std::os::unix::fs::symlink("/etc", area.tree().join("bin")).unwrap();
    fs_err::write(area.incoming_file(&Digest::of(b"x"), ""), b"half").unwrap();
    world.persist(package).await;
    world.assert_staged(package, tree.path());
}

#[tokio::test]
async fn a_release_that_lost_its_marker_is_repaired_from_what_is_right_of_it() {
    for is_current in [false, true] {
        let (mut world, tree) = (world(), first());
        let package = world.source.add(tree.path());
        world.stage(package).await.unwrap();
        let release = world.dir.release(&package);
        let current = world.dir.link(crate::layout::LinkName::Current);
        if is_current {
            std::os::unix::fs::symlink(AppDir::link_target(&package), &current).unwrap();
        }
        let sent = world.source.seen().sent;
        unmark(&world.dir, &package).unwrap();
        fs_err::remove_file(release.join("bin/run")).unwrap();
        fs_err::write(release.join("bin/run"), noise(5, 40_000)).unwrap();
        world.persist(package).await;
        world.assert_staged(package, tree.path());
        assert!(world.source.seen().sent > sent);
        assert!(!is_current || current.join("bin/run").exists());
    }
}

#[tokio::test]
async fn a_wrong_manifest_or_plan_on_disk_is_asked_for_anew() {
    let (mut world, tree) = (world(), first());
    let package = world.source.add(tree.path());
    world.source.set(|faults| faults.cuts = vec![50_000]);
    assert!(world.stage(package).await.is_err());
    for name in ["manifest", "plan", "base"] {
        fs_err::write(world.dir.staging(&package).join(name), b"garbage").unwrap();
        world.source.set(|faults| faults.cuts = vec![1_000]);
        assert!(world.stage(package).await.is_err(), "{name}");
    }
    world.persist(package).await;
    world.assert_staged(package, tree.path());
}

#[test]
fn retries_grow_and_are_spread() {
    for (failures, random, expected) in [(0, 1.0, 500), (0, 0.0, 250), (3, 1.0, 4_000), (99, 1.0, 30_000)] {
        assert_eq!(retry_delay(failures, random), Duration::from_millis(expected));
    }
}

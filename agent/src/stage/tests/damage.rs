//! Sources, bases and files that are wrong, cut off or away.

use rustix::fs::{CWD, FileType, Mode};

use super::super::stager::{DAMAGED_MAX, REFUSED_MAX};
use super::*;

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

#[tokio::test]
async fn what_stands_in_the_place_of_a_file_that_a_frame_leans_on_is_not_waited_for_or_followed() {
    for is_pipe in [true, false] {
        let (mut world, old, new) = (world(), first(), second());
        let (one, two) = (world.source.add(old.path()), world.source.add(new.path()));
        world.stage(one).await.unwrap();
        let path = world.dir.release(&one).join("lib/a");
        fs_err::rename(&path, path.with_extension("aside")).unwrap();
        if is_pipe {
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        } else {
            fs_err::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        }
        let sent = world.source.seen().sent;
        world.persist(two).await;
        world.assert_staged(two, new.path());
        assert!(world.source.seen().sent - sent > 290_000, "it leant on what stands there");
    }
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
    use crate::layout::LinkName::{Candidate, Current, Previous};
    for link in [None, Some(Current), Some(Previous), Some(Candidate)] {
        let (mut world, tree) = (world(), first());
        let package = world.source.add(tree.path());
        world.stage(package).await.unwrap();
        let release = world.dir.release(&package);
        let link = link.map(|link| world.dir.link(link));
        if let Some(link) = &link {
            std::os::unix::fs::symlink(AppDir::link_target(&package), link).unwrap();
        }
        let stood = fs_err::metadata(&release).unwrap().ino();
        let sent = world.source.seen().sent;
        unmark(&world.dir, &package).unwrap();
        fs_err::remove_file(release.join("bin/run")).unwrap();
        fs_err::write(release.join("bin/run"), noise(5, 40_000)).unwrap();
        world.persist(package).await;
        world.assert_staged(package, tree.path());
        assert!(world.source.seen().sent > sent);
        // What something may run in stays where it stands until the other one is whole.
        let is_another = fs_err::metadata(&release).unwrap().ino() != stood;
        assert_eq!(is_another, link.is_some(), "{link:?}");
        assert!(link.is_none_or(|link| link.join("bin/run").exists()));
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

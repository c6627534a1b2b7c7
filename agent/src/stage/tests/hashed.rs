//! What was hashed once and is not hashed again.

use super::*;
use crate::examine::examine_unseen;
use crate::seen::{Seen, Stamp};

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

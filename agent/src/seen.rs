//! What this process has hashed of the release that it staged, so that a switch, and the staging of the next release, read
//! again only what may have changed since. Lives in memory alone: after a restart every byte is read.
//!
//! Invariant: a file is taken as read only while it is the same file with the same times as when its bytes were hashed.
//! Whoever writes to a file, through any of its names, moves those times; there is no call that sets the time of change.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::fs::Stat;
use sluice_common::caps;
use sluice_common::digest::Digest;

use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::observe;

/// How long a change may leave the times as they were: file systems stamp with the clock of the timer's last tick, which
/// comes every 10 ms at the slowest.
const TICK_NANOSECONDS: i64 = 10_000_000;

/// Which file stands at a place, and when it was last written and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    modified_nanoseconds: i64,
    changed_nanoseconds: i64,
}

impl Stamp {
    /// Returns the stamp of an open file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified_nanoseconds: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanoseconds: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Says whether the file is the same and was not written to, whatever became of its names.
    pub(crate) fn has_same_bytes(self, other: Self) -> bool {
        self.inode == other.inode && self.modified_nanoseconds == other.modified_nanoseconds
    }

    /// Says whether the file is what was found as `noted`, but for a link made by `moment`.
    pub(crate) fn was_linked(self, noted: Self, moment: i64) -> bool {
        self.has_same_bytes(noted) && self.changed_nanoseconds <= moment
    }

    /// Says whether the last change came so long after the last writing that one more writing would have moved its time.
    fn is_settled(self) -> bool {
        self.modified_nanoseconds.saturating_add(TICK_NANOSECONDS) <= self.changed_nanoseconds
    }
}

impl From<&Stat> for Stamp {
    fn from(stat: &Stat) -> Self {
        // The types of the fields differ between architectures.
        let part = |nanoseconds| i64::try_from(nanoseconds).unwrap_or_default();
        Self {
            inode: stat.st_ino,
            modified_nanoseconds: nanoseconds(stat.st_mtime, part(stat.st_mtime_nsec)),
            changed_nanoseconds: nanoseconds(stat.st_ctime, part(stat.st_ctime_nsec)),
        }
    }
}

/// Returns the time by the clock that file systems stamp with, none of whose stamps is later.
pub(crate) fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    nanoseconds(now.tv_sec, now.tv_nsec)
}

fn nanoseconds(seconds: i64, part: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(part)
}

/// Returns room for the stamps of so many entries; none for those of a release that is not worth the memory.
pub(crate) fn room_for_stamps(entries: usize) -> Vec<Option<Stamp>> {
    vec![None; if entries <= caps::SEEN_ENTRIES_MAX { entries } else { 0 }]
}

/// Puts down a stamp where there is room for it.
pub(crate) fn put_down(stamps: &mut [Option<Stamp>], number: usize, stamp: Option<Stamp>) {
    if let Some(room) = stamps.get_mut(number) {
        *room = stamp;
    }
}

/// The stamps of a release's files, each taken when the file's bytes were hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    package: Digest,
    /// By number of entry; nothing for what is no file, or was not hashed where it stands.
    stamps: Vec<Option<Stamp>>,
    /// When the marker was written.
    marked_nanoseconds: i64,
    /// Since when bytes were hashed for it.
    hashed_since: Instant,
    /// When the tree was last found to be of the package's shape, before the marker was written.
    looked: Option<Instant>,
}

impl Seen {
    /// Notes what was hashed of `package`, whose marker has this stamp, and whose shape was looked at from `looked` on.
    pub(crate) fn new(
        package: Digest,
        stamps: Vec<Option<Stamp>>,
        marker: Stamp,
        hashed_since: Instant,
        looked: Instant,
    ) -> Self {
        let marked_nanoseconds = marker.changed_nanoseconds;
        Self { package, stamps, marked_nanoseconds, hashed_since, looked: Some(looked) }
    }

    /// Notes what was hashed of `package`, which has stood for long: what changes after `moment` bears a later time.
    pub(crate) fn as_of(
        package: Digest,
        stamps: Vec<Option<Stamp>>,
        moment: SystemTime,
        hashed_since: Instant,
    ) -> Self {
        let since_epoch = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let moment = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
        // File systems stamp with a clock that lags behind by a tick.
        let marked_nanoseconds = moment.saturating_sub(TICK_NANOSECONDS);
        Self { package, stamps, marked_nanoseconds, hashed_since, looked: None }
    }

    /// Says whether it is remembered: one of very many files is not.
    pub(crate) fn is_worth_its_memory(&self) -> bool {
        !self.stamps.is_empty()
    }

    /// Notes what was hashed of a package whose marker is newer than any file.
    #[cfg(test)]
    pub(crate) fn marked_at_the_end_of_time(package: Digest, stamps: Vec<Option<Stamp>>) -> Self {
        let hashed_since = Instant::now();
        Self { package, stamps, marked_nanoseconds: i64::MAX, hashed_since, looked: None }
    }

    /// Returns the package.
    pub(crate) fn package(&self) -> &Digest {
        &self.package
    }

    /// Returns since when bytes were hashed for it.
    pub(crate) fn hashed_since(&self) -> Instant {
        self.hashed_since
    }

    /// Says whether the whole release was looked at a moment ago, so that another look would find the same.
    pub(crate) fn is_just_looked_at(&self) -> bool {
        self.looked.is_some_and(|looked| looked.elapsed() < caps::LOOK_TTL)
    }

    /// Does `work`, which takes names away that other releases have for the same files, and notes anew the files whose time
    /// of change moved by that. A file that is written to meanwhile bears another time of writing and is not noted.
    fn across(&self, dir: &AppDir, work: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let manifest = observe::manifest(dir, &self.package)?;
        let tree = Beneath::open(&dir.release(&self.package))?;
        let look = |number: usize| tree.stat(manifest.entry(number).path).ok().flatten();
        let is_noted = |number: &usize| self.stamps[*number].is_some();
        let noted: Vec<usize> = (0..self.stamps.len().min(manifest.len())).filter(is_noted).collect();
        let covered: Vec<(usize, Stamp)> = noted
            .into_iter()
            .filter_map(|number| Some((number, look(number)?.stamp)))
            .filter(|(number, found)| self.covers(*number, *found))
            .collect();
        work()?;
        let mut stamps = vec![None; self.stamps.len()];
        let mut latest = self.marked_nanoseconds;
        for (number, before) in covered {
            let Some(after) = look(number).map(|standing| standing.stamp) else { continue };
            if after == before || (after.has_same_bytes(before) && after.is_settled()) {
                latest = latest.max(after.changed_nanoseconds.saturating_add(TICK_NANOSECONDS));
                stamps[number] = Some(after);
            }
        }
        Ok(Self { stamps, marked_nanoseconds: latest, ..self.clone() })
    }

    /// Says whether the file of an entry, found as `found`, has the bytes that were hashed.
    pub(crate) fn covers(&self, number: usize, found: Stamp) -> bool {
        let noted = self.stamps.get(number).copied().flatten();
        noted.is_some_and(|noted| is_unchanged(noted, found, self.marked_nanoseconds))
    }
}

/// What this process has hashed of an application's releases: of the one that it staged last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashed {
    newest: Option<Arc<Seen>>,
    has_been_switched_to: bool,
}

impl Hashed {
    /// Notes what was hashed of a release that was just staged. One of very many files is not worth the memory.
    pub(crate) fn add(&mut self, seen: Seen) {
        *self =
            Self { newest: seen.is_worth_its_memory().then(|| Arc::new(seen)), has_been_switched_to: false };
    }

    /// Notes what was hashed of a release that runs; what is known of one that is about to be switched to counts more.
    pub(crate) fn add_examined(&mut self, seen: &Seen) {
        let awaits_switch = self.newest.is_some() && !self.has_been_switched_to;
        if !awaits_switch && seen.is_worth_its_memory() {
            *self = Self { newest: Some(Arc::new(seen.clone())), has_been_switched_to: true };
        }
    }

    /// Returns what was hashed of a release that is about to be switched to, once: whatever follows a switch finds a
    /// release that has run.
    pub(crate) fn before_switch(&mut self, package: &Digest) -> Option<Arc<Seen>> {
        let is_first = !std::mem::replace(&mut self.has_been_switched_to, true);
        self.newest.clone().filter(|seen| is_first && seen.package() == package)
    }

    /// Forgets that anything was just looked at: what belongs to an application has run since.
    pub(crate) fn forget_look(&mut self) {
        if let Some(seen) = self.newest.take() {
            self.newest = Some(Arc::new(Seen { looked: None, ..Arc::unwrap_or_clone(seen) }));
        }
    }

    /// Returns what the next release may take files from without hashing them again: what was hashed lately. A file that
    /// is written to bears another time; what a disk loses in silence is found within [`caps::SEEN_TTL`].
    pub(crate) fn for_reuse(&self) -> Option<Arc<Seen>> {
        self.newest.clone().filter(|seen| seen.hashed_since.elapsed() < caps::SEEN_TTL)
    }

    /// Does `work`, which takes names of files away.
    pub(crate) fn across(&mut self, dir: &AppDir, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(seen) = self.newest.take() else { return work() };
        let mut work = Some(work);
        let renewed = seen.across(dir, || work.take().map_or(Ok(()), |work| work()));
        match (work, renewed) {
            // The release itself is gone: there is nothing to know of it.
            (Some(work), Err(_)) => work(),
            (_, renewed) => {
                self.newest = Some(Arc::new(renewed?));
                Ok(())
            }
        }
    }
}

/// Decides whether a file noted as `noted` and found as `found` has the bytes it had. Pure.
///
/// Until its marker is written a release stands where nobody else has access, but for files that it shares with another
/// release by a hardlink: a write to one of those moves its time of writing, which the link left alone. What changes
/// later bears a later time than the marker; so the note of a file changed less than a tick before that proves nothing.
fn is_unchanged(noted: Stamp, found: Stamp, marked_nanoseconds: i64) -> bool {
    noted == found && noted.changed_nanoseconds.saturating_add(TICK_NANOSECONDS) <= marked_nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_is_as_it_was_is_not_read_again() {
        let noted = Stamp { inode: 7, modified_nanoseconds: 1_000, changed_nanoseconds: 2_000 };
        let long_after = 2_000 + TICK_NANOSECONDS;
        for (name, found, marked, expected) in [
            ("as it was", noted, long_after, true),
            ("another file in its place", Stamp { inode: 8, ..noted }, long_after, false),
            ("written to", Stamp { modified_nanoseconds: 3_000, ..noted }, long_after, false),
            ("linked or chmodded", Stamp { changed_nanoseconds: 2_001, ..noted }, long_after, false),
            ("clock set back, then written to", Stamp { changed_nanoseconds: 9, ..noted }, long_after, false),
            ("in the tick of the marker", noted, long_after - 1, false),
            ("after the marker, by a clock set back", noted, 0, false),
            ("at the end of time", Stamp { changed_nanoseconds: i64::MAX, ..noted }, i64::MAX, false),
        ] {
            assert_eq!(is_unchanged(noted, found, marked), expected, "{name}");
        }
        let seen = Seen {
            package: Digest::of(b""),
            stamps: vec![None, Some(noted)],
            marked_nanoseconds: long_after,
            hashed_since: Instant::now(),
            looked: None,
        };
        for (number, expected) in [(0, false), (1, true), (2, false)] {
            assert_eq!(seen.covers(number, noted), expected, "{number}");
        }
    }

    #[test]
    fn a_link_made_by_then_is_all_that_may_have_changed() {
        let noted = Stamp { inode: 7, modified_nanoseconds: 1_000, changed_nanoseconds: 2_000 };
        for (name, found, expected) in [
            ("as it was", noted, true),
            ("linked", Stamp { changed_nanoseconds: 5_000, ..noted }, true),
            (
                "changed later, its time of writing set back",
                Stamp { changed_nanoseconds: 5_001, ..noted },
                false,
            ),
            ("written to", Stamp { modified_nanoseconds: 4_000, changed_nanoseconds: 4_000, ..noted }, false),
            ("another file in its place", Stamp { inode: 8, ..noted }, false),
        ] {
            assert_eq!(found.was_linked(noted, 5_000), expected, "{name}");
        }
    }

    #[test]
    fn both_ways_to_look_at_a_file_see_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = rustix::fs::stat(file.path()).unwrap();
        assert_eq!(Stamp::from(&stat), Stamp::of(&file.as_file().metadata().unwrap()));
    }
}

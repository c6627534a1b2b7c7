//! Refuses to begin what the disk cannot hold: better a clear failure now than a full disk under a running application.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::units::{format_size, parse_size};

use super::place::Placer;
use super::target::Planned;
use super::{Job, StageError};
use crate::layout::AppDir;
use crate::retention;

/// What a file system has: free to us, and in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes free for us.
    pub(crate) free: u64,
    /// Bytes in all that are not withheld from us: what `df` counts its use by.
    pub(crate) total: u64,
    /// Inodes free for us; nothing where the file system makes them as they are needed.
    pub(crate) free_inodes: Option<u64>,
}

/// What is to be put on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) inodes: u64,
}

/// What stays free of a disk, in percent or in bytes; `disk_floor` in `agent.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Floor {
    /// So many percent of all.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// What a disk lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// So many bytes.
    Bytes(u64),
    /// So many inodes.
    Inodes(u64),
}

impl Default for Floor {
    fn default() -> Self {
        Self::Percent(caps::DISK_FLOOR_PERCENT)
    }
}

impl Floor {
    /// Returns the bytes that stay free of so many.
    pub(crate) fn of(self, total: u64) -> u64 {
        match self {
            Self::Percent(percent) => total / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl TryFrom<String> for Floor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let percent =
            text.strip_suffix('%').map(|number| number.parse().ok().filter(|percent| *percent < 100));
        match percent {
            Some(Some(percent)) => Ok(Self::Percent(percent)),
            Some(None) => Err(format!("{text:?} is no share of a disk; write 0% to 99%")),
            None => parse_size(&text).map(Self::Bytes).map_err(|error| format!("{error}, or 10%")),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent} percent"),
            Self::Bytes(bytes) => f.write_str(&format_size(*bytes)),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&format_size(*bytes)),
            Self::Inodes(inodes) => write!(f, "{inodes} inodes"),
        }
    }
}

impl Space {
    /// Asks the file system that holds `path`.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat =
            rustix::fs::statvfs(path).map_err(|e| crate::beneath::failed("ask the space of", path, e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self {
            free: bytes(stat.f_bavail),
            total: bytes(usable(stat.f_blocks, stat.f_bfree, stat.f_bavail)),
            free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
        })
    }

    /// Says what the disk lacks for `needs` above the floor; nothing when it suffices.
    pub(crate) fn lacks(self, needs: Needs, floor: Floor) -> Option<Lack> {
        let wanted = needs.bytes.saturating_add(floor.of(self.total));
        let bytes = wanted.checked_sub(self.free).filter(|lack| *lack > 0).map(Lack::Bytes);
        let inodes = self.free_inodes.and_then(|free| needs.inodes.checked_sub(free));
        bytes.or(inodes.filter(|lack| *lack > 0).map(Lack::Inodes))
    }
}

/// Returns the blocks that are taken and the ones that we may still take. Those that are free for others alone, as the share that
/// ext4 keeps for root, count neither as free nor in all: a disk that withholds much would otherwise look full for ever.
fn usable(all: u64, free: u64, available: u64) -> u64 {
    all.saturating_sub(free).saturating_add(available)
}

/// Frames on disk at once: one comes, one has come, two wait, two are restored.
const FRAMES: u64 = 6;

/// Checks that the disk holds what is still to come of the files that are lacking, and some frames beside them, above the
/// floor. What came before an interruption is on the disk already. Old releases go where it would not hold them.
pub(crate) fn check(
    job: &Job,
    placer: &Placer,
    planned: &Planned,
    frames: &[usize],
    frame_bytes_lacking: u64,
) -> Result<(), StageError> {
    let lens = || frames.iter().map(|number| planned.plan.frames[*number].wire_len);
    let frames_on_disk = lens().sum::<u64>().saturating_sub(frame_bytes_lacking);
    let frames_at_once = FRAMES * lens().max().unwrap_or(0);
    let needs = Needs {
        bytes: placer.bytes_to_come() + frames_at_once.saturating_sub(frames_on_disk),
        inodes: placer.lacking_files() as u64 + FRAMES,
    };
    let Some(lack) = retention::make_room(&job.dir, &[job.release.package].into(), needs, job.floor)? else {
        return Ok(());
    };
    Err(StageError::failed(format!(
        "the disk is too small: {} in {} files are still to come and {} are kept free, {lack} are lacking at {}; free \
         them, enlarge the disk, or lower [retention] disk_floor in agent.toml",
        format_size(needs.bytes),
        needs.inodes,
        job.floor,
        job.dir.base().display(),
    )))
}

/// Room above the floor for copies of installed files, asked for as each is made: before that nobody knows which files the
/// file system shares. Once the room for all that is lacking was seen to be there, nothing more is asked.
///
/// Of several copies at once each is seen to fit by itself; so the floor may be touched by what all but one take.
#[derive(Debug)]
pub(crate) struct Room {
    dir: AppDir,
    floor: Floor,
    package: Digest,
    /// The release from which files are taken.
    source: Mutex<Option<Digest>>,
    is_granted: AtomicBool,
}

impl Room {
    /// Returns the room above `floor` for what is copied while `package` is staged.
    pub(crate) fn new(dir: AppDir, floor: Floor, package: Digest) -> Self {
        Self { dir, floor, package, source: Mutex::default(), is_granted: AtomicBool::new(false) }
    }

    /// Has one release stay, because files are taken from it, and no other any longer.
    pub(crate) fn keep(&self, release: Option<Digest>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = release;
    }

    /// Asks no more: there is room for all that is lacking.
    pub(crate) fn grant(&self) {
        self.is_granted.store(true, Ordering::Relaxed);
    }

    /// Sees to it that a copy of so many bytes fits. Old releases go where it would not.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::StorageFull`] where it does not fit all the same.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<()> {
        let needs = Needs { bytes, inodes: 1 };
        if bytes == 0
            || self.is_granted.load(Ordering::Relaxed)
            || Space::of(self.dir.base())?.lacks(needs, self.floor).is_none()
        {
            return Ok(());
        }
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = [self.package].into_iter().chain(*source).collect();
        match retention::make_room(&self.dir, &needed, needs, self.floor)? {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_kept() {
        let space = |free| Space { free, total: 1_000, free_inodes: Some(5) };
        let tenth = Floor::default();
        for (free, bytes, inodes, floor, expected) in [
            (500, 400, 0, tenth, None),
            (500, 401, 0, tenth, Some(Lack::Bytes(1))),
            (100, 0, 0, tenth, None),
            (50, 0, 0, tenth, Some(Lack::Bytes(50))),
            (1_000, u64::MAX, 0, tenth, Some(Lack::Bytes(u64::MAX - 1_000))),
            (50, 0, 0, Floor::Percent(0), None),
            (50, 10, 0, Floor::Bytes(40), None),
            (50, 10, 0, Floor::Bytes(41), Some(Lack::Bytes(1))),
            (500, 1, 5, tenth, None),
            (500, 1, 7, tenth, Some(Lack::Inodes(2))),
        ] {
            assert_eq!(
                space(free).lacks(Needs { bytes, inodes }, floor),
                expected,
                "{free} free, {bytes} needed"
            );
        }
        let endless = Space { free_inodes: None, ..space(500) };
        assert_eq!(endless.lacks(Needs { bytes: 1, inodes: u64::MAX }, tenth), None);
    }

    #[test]
    fn what_is_withheld_is_no_part_of_the_disk() {
        for (all, free, available, expected) in [
            (100, 100, 100, 100),
            (100, 40, 35, 95),
            (264, 199, 30, 95),
            (100, 0, 0, 100),
            (0, 0, 0, 0),
            // Quotas and thin pools can tell more than there is.
            (100, 120, 90, 90),
        ] {
            assert_eq!(usable(all, free, available), expected, "{free} and {available} of {all}");
        }
    }

    #[test]
    fn floors_are_read() {
        let read = |text: &str| Floor::try_from(text.to_owned());
        assert_eq!((read("15%"), read("5GiB")), (Ok(Floor::Percent(15)), Ok(Floor::Bytes(5 << 30))));
        for bad in ["100%", "-1%", "x%", "5", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn room_is_made_of_other_releases_than_the_one_that_files_are_taken_from() {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let releases = ["one", "two", "wanted"].map(|name| Digest::of(name.as_bytes()));
        let [one, two, wanted] = releases;
        for package in releases {
            fs_err::create_dir_all(dir.release(&package)).unwrap();
            let release = sluice_common::order::Installed { package, version: "1".parse().unwrap() };
            fs_err::write(dir.manifest(&package), b"").unwrap();
            crate::observe::write_marker(&dir, &release).unwrap();
        }
        let standing = || releases.map(|package| dir.marker(&package).exists());
        let room = Room::new(dir.clone(), Floor::Bytes(u64::MAX / 2), wanted);
        room.take(0).unwrap();
        assert_eq!(standing(), [true; 3], "nothing needs no room");
        room.keep(Some(one));
        room.keep(Some(two));
        assert_eq!(room.take(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(standing(), [false, true, true]);
        room.keep(None);
        assert!(room.take(1).is_err());
        assert_eq!(standing(), [false, false, true]);
        room.grant();
        room.take(1).unwrap();
    }
}

//! Refuses to begin what the disk cannot hold: better a clear failure now than a full disk under a running application.

use std::path::Path;

use sluice_common::caps;
use sluice_common::units::format_size;

use super::StageError;
use super::place::Placer;
use super::target::Planned;
use crate::layout::AppDir;

/// Bytes of a file system: free to us, and in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Free for us.
    pub(crate) free: u64,
    /// In all.
    pub(crate) total: u64,
}

impl Space {
    /// Asks the file system that holds `path`.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let stat =
            rustix::fs::statvfs(path).map_err(|e| crate::beneath::failed("ask the space of", path, e))?;
        Ok(Self { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }

    /// Says by how many bytes the disk is too small for `needed` above the floor; nothing when it suffices.
    fn lacks(self, needed: u64) -> Option<u64> {
        let floor = self.total / 100 * caps::DISK_FLOOR_PERCENT;
        needed.saturating_add(floor).checked_sub(self.free).filter(|lack| *lack > 0)
    }
}

/// Frames on disk at once: one comes, one has come, two wait, two are restored.
const FRAMES: u64 = 6;

/// Checks that the disk holds the files that are lacking, and some frames beside them, above the floor.
pub(crate) fn check(
    dir: &AppDir,
    placer: &Placer,
    planned: &Planned,
    frames: &[usize],
) -> Result<(), StageError> {
    let frame = frames.iter().map(|number| planned.plan.frames[*number].wire_len).max().unwrap_or(0);
    let needed = placer.lacking_bytes() + FRAMES * frame;
    let space = Space::of(dir.base())?;
    match space.lacks(needed) {
        None => Ok(()),
        Some(lack) => Err(StageError::failed(format!(
            "the disk is too small: {} more are needed and {} percent are kept free, {} are lacking at {}",
            format_size(needed),
            caps::DISK_FLOOR_PERCENT,
            format_size(lack),
            dir.base().display(),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_kept() {
        let space = |free| Space { free, total: 1_000 };
        for (free, needed, expected) in [
            (500, 400, None),
            (500, 401, Some(1)),
            (100, 0, None),
            (50, 0, Some(50)),
            (1_000, u64::MAX, Some(u64::MAX - 1_000)),
        ] {
            assert_eq!(space(free).lacks(needed), expected, "{free} free, {needed} needed");
        }
    }
}

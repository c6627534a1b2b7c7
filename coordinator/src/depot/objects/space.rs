//! Room on the disk: some of it is kept free, for the database, and for what has to be written before anything can go.

use std::path::Path;
use std::sync::Arc;

/// Room that is kept free: the database's log of a large push, and what a collection writes before it removes anything.
const KEPT_BYTES: u64 = 256 << 20;
/// Of a small disk, this part is kept free.
const KEPT_PART: u64 = 16;

/// What a write may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::depot) enum Reserve {
    /// Not the room that is kept free.
    Kept,
    /// That room too: what is written here makes more.
    Spent,
}

/// The room of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::depot) struct Room {
    /// Bytes that may be written.
    pub(in crate::depot) free_bytes: u64,
    /// Bytes that it holds altogether.
    pub(in crate::depot) disk_bytes: u64,
}

impl Room {
    /// Makes it of what the kernel says: blocks of so many bytes, how many are free, and all of them. Some file systems keep no count, and
    /// say that they have none.
    fn of(block_bytes: u64, free: u64, all: u64) -> Option<Self> {
        let bytes = |blocks: u64| blocks.saturating_mul(block_bytes);
        (all > 0).then(|| Self { free_bytes: bytes(free), disk_bytes: bytes(all) })
    }

    /// Says whether so many bytes fit beside what is kept free.
    fn has(self, bytes: u64) -> bool {
        let kept = KEPT_BYTES.min(self.disk_bytes / KEPT_PART);
        self.free_bytes >= bytes.saturating_add(kept)
    }
}

type Measure = dyn Fn() -> Option<Room> + Send + Sync;

/// Measures the room. Cheap to clone.
#[derive(Clone)]
pub(in crate::depot) struct Space(Arc<Measure>);

impl Space {
    /// Makes it of whatever measures; nothing, where that cannot be told.
    pub(in crate::depot) fn new(measure: impl Fn() -> Option<Room> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }

    /// Measures the disk of a folder.
    pub(super) fn of(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::new(move || {
            let stat = rustix::fs::statvfs(&folder).ok()?;
            Room::of(stat.f_frsize, stat.f_bavail, stat.f_blocks)
        })
    }

    /// Says whether so many bytes fit beside what is kept free; yes, where that cannot be told: the write will.
    pub(super) async fn has(&self, bytes: u64) -> bool {
        let measure = self.0.clone();
        let room = tokio::task::spawn_blocking(move || measure()).await;
        room.ok().flatten().is_none_or(|room| room.has(bytes))
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_room_is_kept_free_and_of_a_small_disk_less() {
        const MIB: u64 = 1 << 20;
        for (name, disk, free, wanted, has) in [
            ("large and empty", 100_000, 99_000, 16, true),
            ("large, down to what is kept", 100_000, 272, 16, true),
            ("large, below it", 100_000, 271, 16, false),
            ("large and full", 100_000, 0, 0, false),
            ("small, down to what is kept", 160, 26, 16, true),
            ("small, below it", 160, 25, 16, false),
        ] {
            let room = Room { free_bytes: free * MIB, disk_bytes: disk * MIB };
            assert_eq!(room.has(wanted * MIB), has, "{name}");
        }
        assert_eq!(Room::of(4096, 0, 0), None, "no count is kept");
        assert_eq!(Room::of(4096, 1, 3), Some(Room { free_bytes: 4096, disk_bytes: 12_288 }));
        assert!(!Room { free_bytes: u64::MAX - 1, disk_bytes: u64::MAX }.has(u64::MAX));
    }

    #[tokio::test]
    async fn the_disk_of_a_folder_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Space::of(dir.path()).has(u64::MAX).await);
        assert!(Space::of(&dir.path().join("missing")).has(u64::MAX).await, "the write will tell");
    }
}

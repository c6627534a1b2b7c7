//! Begins to bring to disk what frames restore while the next ones come, so that the sync before the marker finds little
//! left to do.
//!
//! Decides nothing about durability: a release counts as synced by the last sync alone. But one that fails here fails the
//! staging, because the kernel tells of a lost page once.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::beneath::Beneath;

/// Bytes restored from which on a sync is worth its commit of the journal: what a disk of 350 MB/s takes a tenth of a
/// second for.
const STEP_BYTES: u64 = 32 << 20;

/// Syncs a tree's file system now and then, one sync at a time, on a blocking thread.
pub(super) struct Writeback {
    tree: Arc<Beneath>,
    unsynced_bytes: u64,
    running: JoinSet<io::Result<()>>,
}

impl Writeback {
    /// Watches over what is restored into `tree`.
    pub(super) fn new(tree: Arc<Beneath>) -> Self {
        Self { tree, unsynced_bytes: 0, running: JoinSet::new() }
    }

    /// Takes note of bytes that were restored, and begins a sync where they are many. Fails where an earlier sync did.
    pub(super) fn note(&mut self, bytes: u64) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        while let Some(ended) = self.running.try_join_next() {
            ended.map_err(io::Error::other)??;
        }
        if self.running.is_empty() && self.unsynced_bytes >= STEP_BYTES {
            self.unsynced_bytes = 0;
            let tree = self.tree.clone();
            self.running.spawn_blocking(move || tree.sync_filesystem());
        }
        Ok(())
    }

    /// Waits for the sync that runs, if any. Must be called: a failed sync is told here.
    pub(super) async fn end(mut self) -> io::Result<()> {
        while let Some(ended) = self.running.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sync_runs_once_enough_was_restored_and_only_one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let mut writeback = Writeback::new(Arc::new(Beneath::open(root.path()).unwrap()));
        writeback.note(STEP_BYTES - 1).unwrap();
        assert_eq!(writeback.running.len(), 0);
        writeback.note(1).unwrap();
        assert_eq!((writeback.running.len(), writeback.unsynced_bytes), (1, 0));
        writeback.note(2 * STEP_BYTES).unwrap();
        assert_eq!(writeback.running.len(), 1);
        writeback.end().await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_sync_is_told() {
        let root = tempfile::tempdir().unwrap();
        for is_noted in [true, false] {
            let mut writeback = Writeback::new(Arc::new(Beneath::open(root.path()).unwrap()));
            writeback.running.spawn_blocking(|| Err(io::Error::other("lost a page")));
            let told = if is_noted {
                // A task is taken for ended a moment after it is finished.
                loop {
                    match writeback.note(1) {
                        Ok(()) => tokio::task::yield_now().await,
                        Err(error) => break error,
                    }
                }
            } else {
                writeback.end().await.unwrap_err()
            };
            assert_eq!(told.to_string(), "lost a page");
        }
    }
}

//! Work with large packages takes turns: plans of a package of a million files, cold and from a base, hold up to 200 MiB each.
//!
//! Invariant: no two pieces of work that take a turn hold manifests of large packages at once, but where one takes longer than
//! anybody waits, and meanwhile the caches hold little beside. Small packages never wait. Nobody waits for a turn who has one.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::allocator;
use sluice_common::digest::Digest;
use tokio::sync::OwnedMutexGuard;

use super::Depot;
use super::packages;
use super::reader::ChunkReader;
use crate::store;

/// Files from which on packages, base and target together, are large: they take some 20 MB as manifests, and as much again
/// while a plan is made.
const LARGE_FILES: u64 = 250_000;

/// How long a turn is waited for. A best plan of many GiB takes an hour: then two hold more memory, and nobody stands still.
const PATIENCE: Duration = Duration::from_secs(60);

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    chunks: Arc<ChunkReader>,
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.chunks.keep_much();
    }
}

impl Depot {
    /// Waits for the turn of work with these packages; nothing where they are small.
    pub(super) async fn turn(&self, packages: &[Digest]) -> Result<Option<Turn>, store::Error> {
        let mut files = 0;
        for package in packages {
            files += packages::find(&self.store, package).await?.map_or(0, |row| row.files);
        }
        if files < LARGE_FILES {
            return Ok(None);
        }
        let alone = tokio::time::timeout(PATIENCE, self.large.clone().lock_owned()).await.ok();
        self.forget_packages_but(packages);
        self.chunks.forget();
        self.chunks.keep_little();
        allocator::give_back_what_is_between();
        Ok(Some(Turn { chunks: self.chunks.clone(), _alone: alone }))
    }
}

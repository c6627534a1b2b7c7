//! Staging: brings a release to disk beside the running one, verified and synced, however often it is interrupted.
//!
//! 1. Learn the manifest and a plan, from the staging directory or from a content source.
//! 2. Survey the staging tree by hashing it; take what installed releases hold, and hash that.
//! 3. Fetch the frames that cover the rest, each from the byte where it stopped; decode and hash them into the tree.
//! 4. Sync the file system while the shape of the tree is compared with the manifest, give it its name, write the marker.
//!
//! Invariant: `releases/<digest12>.verified` exists only after every byte of the tree was hashed, once, by the process
//! that wrote or found it there (or, of a file that it linked, by the same process not long before: [`crate::seen`]), and
//! synced.
//! Called by the [`crate::engine`] of an application; one staging at a time runs on a host. Blocking work runs on the
//! runtime's blocking threads through [`Work`], which is always awaited.

mod ahead;
mod area;
mod blocks;
mod fetch;
mod gather;
mod parts;
mod place;
mod restore;
mod resume;
mod reuse;
mod schedule;
mod share;
mod sink;
mod space;
mod stager;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writeback;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::order::Installed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::content::{Begun, ContentClient};
use crate::crash::CrashPoints;
use crate::layout::AppDir;
use crate::seen::Seen;

pub(crate) use area::{discard, make_directory, unmark};
pub(crate) use share::Reuse;
pub(crate) use space::{Floor, Lack, Needs, Space};

use area::Area;
use stager::Stager;

/// Frame bytes of the plan that are on disk, all of them, and those that came. Shared with whoever reports.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    fetched: AtomicU64,
    total: AtomicU64,
    came: AtomicU64,
}

impl Progress {
    fn begin(&self, total: u64, lacking: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.fetched.store(total.saturating_sub(lacking), Ordering::Relaxed);
    }

    fn note(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.came.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes that came, from whatever plan.
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Returns the bytes that are on disk, and all of them.
    pub(crate) fn read(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::Relaxed);
        (self.fetched.load(Ordering::Relaxed).min(total), total)
    }
}

/// What is remembered of an order's attempts; only for as long as the agent runs.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Installed releases that are no good as a base.
    excluded: HashSet<Digest>,
    damaged: u32,
    refused: u32,
    /// When a plan was last asked for.
    asked: Option<Instant>,
    /// What has come of the answer, where the connection broke in it.
    begun: Begun,
    /// When content was first asked for.
    pub(crate) first_request: Option<Instant>,
}

/// Runs blocking work that can be told to stop.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Ends what is awaited.
    pub(crate) token: CancellationToken,
}

impl Work {
    /// Runs `work` on a blocking thread to its end; it is told to stop when the token is cancelled.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let mut running = tokio::task::spawn_blocking(move || work(&flag));
        let joined = tokio::select! {
            joined = &mut running => joined,
            () = self.token.cancelled() => {
                stop.store(true, Ordering::Relaxed);
                running.await
            }
        };
        joined.map_err(io::Error::other)?
    }
}

/// What is to be staged.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The application.
    pub(crate) dir: AppDir,
    /// The release.
    pub(crate) release: Installed,
    /// How bytes of installed releases are shared.
    pub(crate) reuse: Reuse,
    /// What stays free of the disk.
    pub(crate) floor: Floor,
    /// What was hashed of an installed release and need not be again.
    pub(crate) hashed: Option<Arc<Seen>>,
    /// Simulated crashes, in tests.
    pub(crate) crash: CrashPoints,
}

/// Says why staging ended without a staged release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// Trying again later is right.
    #[error("{reason}")]
    Retry {
        /// What is waited for.
        reason: String,
    },
    /// Trying again would not help.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The agent stops, or another order came.
    #[error("staging was interrupted")]
    Cancelled,
}

impl StageError {
    fn retry(reason: impl ToString) -> Self {
        Self::Retry { reason: reason.to_string() }
    }

    fn failed(reason: impl ToString) -> Self {
        Self::Failed { reason: reason.to_string() }
    }
}

/// The local disk failing is nothing that trying again mends.
impl From<io::Error> for StageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Cancelled,
            _ => Self::failed(format!("cannot stage: {error}")),
        }
    }
}

/// Stages a release. When this returns, its marker stands; what was hashed of it is told.
pub(crate) async fn stage(
    job: &Job,
    client: &mut impl ContentClient,
    attempts: &mut Attempts,
    progress: &Progress,
    token: &CancellationToken,
) -> Result<Seen, StageError> {
    let work = Work { token: token.clone() };
    let package = job.release.package;
    let (dir, crash) = (job.dir.clone(), job.crash.clone());
    let opened = work.run(move |_| {
        Area::open(&dir, package, crash).inspect_err(|_| {
            // What was made of it takes space. Where that fails too, it is removed with the next start.
            let _ = discard(&dir.staging(&package));
        })
    });
    let area = opened.await?;
    let mut stager = Stager { job, area, attempts, progress, work };
    let result = stager.run(client).await;
    if let Err(StageError::Failed { .. }) = &result {
        // What failed is not used again, and its space is free again.
        let area = stager.area.clone();
        stager.work.run(move |_| area.remove()).await?;
    }
    result
}

/// Has files of a release anew that stands, and puts them in their places there, each by a rename; the rest of it is not
/// touched. `wrong` are paths of regular files.
pub(crate) async fn regain(
    job: &Job,
    client: &mut impl ContentClient,
    attempts: &mut Attempts,
    progress: &Progress,
    wrong: Vec<PathBuf>,
    token: &CancellationToken,
) -> Result<(), StageError> {
    let work = Work { token: token.clone() };
    let (dir, package, crash) = (job.dir.clone(), job.release.package, job.crash.clone());
    let area = work.run(move |_| Area::open(&dir, package, crash)).await?;
    // What is damaged is no base for its own repair.
    attempts.excluded.insert(package);
    let mut stager = Stager { job, area, attempts, progress, work };
    let gathered = stager.gather(client).await;
    let area = stager.area.clone();
    let placed = match gathered {
        Ok(placer) => {
            let area = area.clone();
            stager.work.run(move |_| area.give_back(&placer, &wrong)).await.map_err(StageError::from)
        }
        Err(error) => Err(error),
    };
    Work { token: CancellationToken::new() }.run(move |_| area.remove()).await?;
    placed
}

/// Returns how long to wait before staging is tried again after so many failures in a row: half a second doubled up to
/// half a minute, spread by `random` (0 to 1) so that hosts do not come together.
pub(crate) fn retry_delay(failures: u32, random: f64) -> Duration {
    let longest = Duration::from_millis(500) * 2_u32.pow(failures.min(6));
    longest.min(Duration::from_secs(30)).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

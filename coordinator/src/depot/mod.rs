//! The depot: packages as chunks in packs, transfer plans with their frames, signed releases.
//!
//! Bytes lie in an object store ([`objects`]), what they mean in the database. Invariants: an object is durable before a
//! row names it; nothing is handed out that does not have its digest; what is damaged at rest is forgotten, so that
//! the next push or the next plan makes it anew.
//!
//! | module | owns |
//! |---|---|
//! | [`objects`], [`chunks`], [`packs`] | where bytes lie: objects, the chunk index, packs |
//! | [`reader`], [`source`] | verified reading of chunks and contents |
//! | [`hot`] | frames in memory while hosts fetch them |
//! | [`packages`], [`releases`] | what exists; lookups for the rest of the coordinator |
//! | [`push`] | taking a package in |
//! | [`plans`] | transfer plans: made once, kept, healed |
//! | [`room`] | work with large packages, which takes turns |
//! | [`works`], [`sweep`] | what is under way; removals and writes kept apart |
//! | [`collect`] | removing what nothing uses |
//! | [`service`], [`content`] | the gRPC edges: `Packages` for operators, `Content` for hosts |
//!
//! ```text
//! let depot = Depot::open(store.clone(), &data.join("depot"), stop.clone())?;
//! let plans = Plans::new(depot.clone(), policy.first());
//! let improver = Improver::new(plans.clone(), forecast, Options { policy, workers });  // spawn its `run`
//! routes.with(PackagesServer::new(PackagesService::new(depot.clone(), improver)))
//!     .with(ContentServer::new(ContentService::new(plans, Arc::new(orders), fleet)));
//! depot.ended().await;                                                    // after `stop` was cancelled
//! ```
//!
//! Tasks, all on [`Depot`]'s tracker and ended by its token: one per running push (requests in, responses out through
//! a bounded channel), one per pack being written, one per plan being made or frame being checked (its result shared
//! by all who wait), one that collects what nothing uses, at the start and once a day, one per collection that an
//! operator asks for. The [`plans::Improver`] is run by whoever opened the depot.

mod bounded;
mod chunks;
pub mod collect;
pub mod content;
mod flights;
mod hot;
mod lru;
mod objects;
pub mod packages;
mod packs;
pub mod plans;
pub mod push;
mod reader;
pub mod releases;
mod room;
pub mod service;
mod source;
mod specs;
mod sweep;
mod works;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sluice_common::digest::Digest;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::hot::HotFrames;
use self::lru::Lru;
use self::objects::Objects;
use self::packages::Package;
use self::reader::ChunkReader;
use self::works::Works;
use crate::store::Store;

/// Pushes at once: each may hold a manifest, an index and two packs in memory.
const PUSHES_MAX: usize = 4;
/// Memory for manifests: two of a million entries, between which a plan is made.
const PACKAGE_CACHE_BYTES: u64 = 192 << 20;

/// The depot. One per coordinator; shared as an `Arc`.
#[derive(Debug)]
pub struct Depot {
    store: Store,
    objects: Objects,
    chunks: Arc<ChunkReader>,
    hot: HotFrames,
    packages: Mutex<Lru<Digest, Arc<Package>>>,
    /// Held while a manifest is read: whoever else wants the same finds it then, and no two are decoded at once.
    loading: tokio::sync::Mutex<()>,
    /// Held by whoever works with large packages.
    large: Arc<tokio::sync::Mutex<()>>,
    pushes: Arc<Semaphore>,
    works: Works,
    /// Whoever collects has the one permit.
    collecting: Semaphore,
    /// Counts packages, releases and plans that came: the planning ahead looks again.
    news: watch::Sender<u64>,
    tasks: TaskTracker,
    token: CancellationToken,
}

impl Depot {
    /// Opens the depot in `folder`, made where it is missing. Its tasks end when `token` is cancelled.
    /// Call it on the runtime that is to serve it.
    pub fn open(store: Store, folder: &Path, token: CancellationToken) -> io::Result<Arc<Self>> {
        let depot = Self::over(store, Objects::open(folder)?, token);
        depot.tasks.spawn(depot.clone().collect_daily());
        Ok(depot)
    }

    fn over(store: Store, objects: Objects, token: CancellationToken) -> Arc<Self> {
        let chunks = Arc::new(ChunkReader::new(objects.clone(), store.clone(), Handle::current()));
        let tasks = TaskTracker::new();
        Arc::new(Self {
            store,
            hot: HotFrames::new(objects.clone(), tasks.clone()),
            objects,
            chunks,
            packages: Mutex::new(Lru::new(PACKAGE_CACHE_BYTES)),
            loading: tokio::sync::Mutex::new(()),
            large: Arc::default(),
            pushes: Arc::new(Semaphore::new(PUSHES_MAX)),
            works: Works::default(),
            collecting: Semaphore::new(1),
            news: watch::Sender::new(0),
            tasks,
            token,
        })
    }

    /// Tells that a package, a release or a plan came.
    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Waits until every task has ended; call it after the token was cancelled.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;

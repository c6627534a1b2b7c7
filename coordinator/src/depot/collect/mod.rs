//! Removes what nothing uses: packages that nobody released, their plans, packs that are hardly used, objects that no
//! row names.
//!
//! Invariants: nothing goes that a release, a plan, a frame still served to somebody, a running push or a plan in the
//! making needs. A row goes before its object, so that a run that is cut off leaves orphans, which the next run finds. Nor does what failed before
//! keep objects: on a full disk they are what makes room. Where rows name packs that are missing, the database may be older than
//! the objects, and those stay that cannot be made anew.
//! What keeps races out: rows go in transactions that look again (`forget`, `repack`); a push that counted on a chunk
//! looks again before its commit; objects are kept apart by [`super::sweep`] and by their age.
//!
//! What goes is decided purely (`plan`) on what `survey` reads; one collection runs at a time. Runs at the start, once
//! a day, and when an operator asks ([`service`]).

mod forget;
pub(in crate::depot) mod mismatch;
pub(super) mod plan;
mod repack;
pub mod service;
mod survey;
mod usage;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use sluice_common::caps;
use sluice_common::digest::Digest;

pub use self::plan::Ages;
use self::plan::PackFate;
use self::survey::AsIf;
use super::Depot;
use super::objects::{Kind, ObjectError};
use super::packages::LoadError;
use super::packs::FrameError;
use super::reader::ReadError;
use crate::audit;
use crate::store::{self, Actor};

/// Says why collecting stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A package's manifest or index could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A chunk could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was read is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The coordinator stops.
    #[error("the coordinator is stopping; what was not collected is at the next start")]
    Stopping,
}

/// Why something stays that would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocker {
    /// What a package uses cannot be told: no pack goes.
    Damaged(Digest),
    /// A package came meanwhile: the packs that are left wait for the next run.
    Overtaken,
    /// So many packs are missing that rows name, or were, if none: the database may be older than the objects, and a newer one may come
    /// back. Until then no pack, manifest or index goes that is there.
    MissingPacks(u64, Timestamp),
}

/// Objects of a kind that went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// How many.
    pub objects: u64,
    /// How large they were together.
    pub bytes: u64,
}

/// What a collection removed; of a dry run, what one would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collection {
    /// Packages that were forgotten, and when they were pushed last.
    pub packages: Vec<(Digest, Timestamp)>,
    /// Packs that went because more than half of them was not used.
    pub sparse_packs: u64,
    /// Bytes of those packs that were written again.
    pub rewritten_bytes: u64,
    /// Objects that went, by kind.
    pub(super) removed: Vec<(Kind, Removed)>,
    /// Bytes that nothing uses either, but not for long enough, or while work is under way: a later run removes them.
    pub waiting_bytes: u64,
    /// What stayed, and why.
    pub blockers: Vec<Blocker>,
}

impl Collection {
    /// Says whether everything of a kind stays, named or not: what cannot be made anew, where the database may be older.
    fn keeps(&self, kind: Kind) -> bool {
        let is_older = self.blockers.iter().any(|blocker| matches!(blocker, Blocker::MissingPacks(..)));
        match kind {
            Kind::Pack | Kind::Manifest | Kind::Index => is_older,
            Kind::Frame | Kind::Plan => false,
        }
    }

    /// Returns what went of a kind.
    fn removed_of(&mut self, kind: Kind) -> &mut Removed {
        let at = self.removed.iter().position(|(of, _)| *of == kind).unwrap_or_else(|| {
            self.removed.push((kind, Removed { objects: 0, bytes: 0 }));
            self.removed.len() - 1
        });
        &mut self.removed[at].1
    }

    /// Returns how many objects went.
    pub fn objects(&self) -> u64 {
        self.removed.iter().map(|(_, removed)| removed.objects).sum()
    }

    /// Returns how much smaller the depot is.
    pub fn freed_bytes(&self) -> u64 {
        let removed: u64 = self.removed.iter().map(|(_, removed)| removed.bytes).sum();
        removed.saturating_sub(self.rewritten_bytes)
    }
}

/// What a collection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Removes.
    Remove,
    /// Says what would be removed.
    DryRun,
}

impl Depot {
    /// Collects at the start and once a day from then on.
    pub(super) async fn collect_daily(self: Arc<Self>) {
        let day = || async {
            if let Err(error) = self.collect(Ages::default(), Mode::Remove, Actor::coordinator()).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what nothing uses was not removed from the depot"
                );
            }
            tokio::time::sleep(caps::COLLECTION_INTERVAL).await;
        };
        while self.token.run_until_cancelled(day()).await.is_some() {}
    }

    /// Removes what nothing has used for so long, in the name of `actor`. Runs to its end, whoever waits.
    pub async fn collect(
        self: &Arc<Self>,
        ages: Ages,
        mode: Mode,
        actor: Actor,
    ) -> Result<Collection, CollectError> {
        let depot = self.clone();
        let run = self.tasks.spawn(async move {
            let _turn = depot.collecting.acquire().await.expect("the semaphore is never closed");
            depot.run(ages, mode, &actor).await
        });
        run.await.map_err(|_| CollectError::Stopping)?
    }

    pub(super) async fn run(
        self: &Arc<Self>,
        ages: Ages,
        mode: Mode,
        actor: &Actor,
    ) -> Result<Collection, CollectError> {
        let mut collection = Collection::default();
        let mut as_if = AsIf::default();
        // Before any row goes: which are missing tells the age of the database.
        self.look_for_missing(mode, &mut collection).await?;
        let rows = self.collect_rows(ages, mode, actor, &mut collection, &mut as_if).await;
        // Whatever became of the rows: this is what makes room, which they may have lacked.
        let objects = self.collect_objects(ages, mode, &mut collection, &as_if).await;
        if mode == Mode::Remove && collection.objects() > 0 {
            self.tell();
            let (objects, bytes) = (collection.objects(), collection.freed_bytes());
            tracing::info!(objects, bytes, "what nothing uses was removed from the depot");
        }
        if let (Err(_), Err(error)) = (&rows, &objects) {
            tracing::warn!(error = error as &dyn std::error::Error, "nor were all objects removed");
        }
        rows.and(objects)?;
        Ok(collection)
    }

    async fn collect_rows(
        self: &Arc<Self>,
        ages: Ages,
        mode: Mode,
        actor: &Actor,
        collection: &mut Collection,
        as_if: &mut AsIf,
    ) -> Result<(), CollectError> {
        self.collect_packages(ages, mode, actor, collection, as_if).await?;
        if collection.keeps(Kind::Pack) {
            return Ok(());
        }
        self.collect_packs(ages, mode, collection, as_if).await
    }

    /// Takes the packs that are missing for lost, and the database for the newest there is, so that collecting goes on.
    pub(super) async fn accept_missing(&self) -> Result<(), CollectError> {
        let _turn = self.collecting.acquire().await.expect("the semaphore is never closed");
        mismatch::accept_all(self).await
    }

    /// Says where packs that rows name are not there.
    async fn look_for_missing(&self, mode: Mode, collection: &mut Collection) -> Result<(), CollectError> {
        if let Some((packs, until)) = mismatch::look(self, mode == Mode::DryRun).await? {
            tracing::warn!(
                packs,
                %until,
                "packs are missing that the database names, which may be older than the depot; what it does not name is kept until \
                 then. Bring the newer database back; where this one is the newest, run: sluice depot collect --accept-missing"
            );
            collection.blockers.push(Blocker::MissingPacks(packs, until));
        }
        Ok(())
    }

    async fn collect_packages(
        &self,
        ages: Ages,
        mode: Mode,
        actor: &Actor,
        collection: &mut Collection,
        as_if: &mut AsIf,
    ) -> Result<(), CollectError> {
        for package in plan::packages(&survey::packages(self).await?, ages, Timestamp::now()) {
            let goes = match mode {
                Mode::DryRun => as_if.packages.insert(package.digest),
                Mode::Remove => forget::package(self, actor, &package).await?,
            };
            if goes {
                collection.packages.push((package.digest, package.wanted));
            }
        }
        Ok(())
    }

    async fn collect_packs(
        self: &Arc<Self>,
        ages: Ages,
        mode: Mode,
        collection: &mut Collection,
        as_if: &mut AsIf,
    ) -> Result<(), CollectError> {
        let survey = match survey::packs(self, as_if).await {
            Ok(survey) => survey,
            Err(CollectError::Load(LoadError::Damaged { package, .. })) => {
                tracing::warn!(%package, "packs are kept: what a damaged package uses cannot be told; push it again");
                collection.blockers.push(Blocker::Damaged(package));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let now = Timestamp::now();
        let fates = plan::packs(&survey.facts, ages, now);
        collection.waiting_bytes += plan::waiting(&survey.facts, &fates, now);
        match mode {
            Mode::DryRun => {
                let sparse = fates.iter().filter(|(_, fate)| *fate == PackFate::Sparse);
                collection.sparse_packs = sparse.clone().count() as u64;
                collection.rewritten_bytes = sparse.map(|(pack, _)| pack.live_bytes).sum();
                as_if.packs = fates.iter().map(|(pack, _)| pack.digest).collect();
            }
            Mode::Remove => {
                if !repack::packs(self, &survey, &fates, ages, collection).await? {
                    collection.blockers.push(Blocker::Overtaken);
                }
            }
        }
        Ok(())
    }

    async fn collect_objects(
        &self,
        ages: Ages,
        mode: Mode,
        collection: &mut Collection,
        as_if: &AsIf,
    ) -> Result<(), CollectError> {
        collection.waiting_bytes += self.collect_kinds(&Kind::ALL, ages, mode, collection, as_if).await?;
        Ok(())
    }

    /// Removes the objects of these kinds that no row names; returns the bytes of those that are too young.
    async fn collect_kinds(
        &self,
        kinds: &[Kind],
        ages: Ages,
        mode: Mode,
        collection: &mut Collection,
        as_if: &AsIf,
    ) -> Result<u64, CollectError> {
        let sweep = self.objects.sweep();
        // Asked before rows are read: work that ended before has its rows.
        let oldest_work = survey::oldest_work(self).await?;
        let (now, mut waiting_bytes) = (Timestamp::now(), 0);
        for kind in kinds {
            collection.removed_of(*kind);
            for object in survey::objects(self, *kind, as_if).await? {
                if self.token.is_cancelled() {
                    return Err(CollectError::Stopping);
                }
                if !object.is_named && collection.keeps(*kind) {
                    continue;
                }
                if !plan::is_orphan(&object, ages, oldest_work, now) {
                    waiting_bytes += if object.is_named { 0 } else { object.bytes };
                    continue;
                }
                let goes = match mode {
                    Mode::DryRun => true,
                    Mode::Remove => self.objects.remove(&sweep, object.name).await?,
                };
                if goes {
                    let removed = collection.removed_of(*kind);
                    removed.objects += 1;
                    removed.bytes += object.bytes;
                    tracing::debug!(object = %object.name, ?mode, "no row names an object");
                }
            }
        }
        Ok(waiting_bytes)
    }

    /// Notes in the audit log that an operator collects, before anything goes.
    async fn note_collection(&self, actor: Actor, ages: Ages) -> Result<(), store::Error> {
        let mut tx = self.store.begin(actor).await?;
        let detail = json!({ "unreleased_after_seconds": ages.unreleased.as_secs() });
        audit::append(&mut tx, audit::Entry { action: "depot.collect", subject: "depot", detail }).await?;
        tx.commit().await
    }
}

//! Removes objects that no row names: what a crash between an object and its rows left behind, and what was replaced.
//!
//! Invariant: nothing that a package, a release or a plan names is removed, nor what a running push or plan has just
//! written: such objects are young.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use sluice_common::digest::Digest;
use sqlx::Row;

use super::Depot;
use super::objects::{Kind, Name, ObjectError};
use super::plans::retired;
use crate::clock::Clock;
use crate::store::{self, Actor};

/// Age under which an object may still be on its way to its row: far longer than any write takes.
pub(super) const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Says why collecting stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Depot {
    /// Removes what the time before this start has left behind.
    pub(super) async fn collect_at_start(self: Arc<Self>) {
        tokio::select! {
            () = self.token.cancelled() => {}
            collected = self.collect(ORPHAN_AGE) => {
                if let Err(error) = collected {
                    tracing::warn!(error = &error as &dyn std::error::Error, "orphans were not removed from the depot");
                }
            }
        }
    }

    /// Removes the objects older than `age` that no row names; returns how many.
    pub async fn collect(&self, age: Duration) -> Result<u64, CollectError> {
        self.forget_empty_packs().await?;
        retired::forget_expired(&self.store, Clock::of_process().now()).await?;
        let before = Timestamp::now() - age;
        let mut removed = 0;
        for kind in Kind::ALL {
            let named = self.named(kind).await?;
            let mut objects = self.objects.list(kind);
            while let Some(object) = objects.try_next().await? {
                if object.modified <= before && !named.contains(&object.digest) {
                    self.objects.delete(Name(kind, object.digest)).await?;
                    tracing::debug!(object = %Name(kind, object.digest), "orphan removed");
                    removed += 1;
                }
            }
        }
        if removed > 0 {
            tracing::info!(objects = removed, "objects that nothing names were removed from the depot");
        }
        Ok(removed)
    }

    /// Drops packs of which every chunk was forgotten.
    async fn forget_empty_packs(&self) -> Result<(), store::Error> {
        let mut tx = self.store.begin(Actor::coordinator()).await?;
        sqlx::query(
            "DELETE FROM depot_packs
             WHERE NOT EXISTS (SELECT 1 FROM depot_chunks WHERE depot_chunks.pack = depot_packs.digest)",
        )
        .execute(&mut *tx)
        .await?;
        tx.commit_observation().await
    }

    async fn named(&self, kind: Kind) -> Result<HashSet<Digest>, store::Error> {
        let sql = match kind {
            Kind::Pack => "SELECT digest FROM depot_packs",
            Kind::Manifest => return self.packages_named().await,
            Kind::Index => "SELECT index_digest FROM packages",
            Kind::Frame => "SELECT frame FROM depot_plan_frames UNION SELECT frame FROM depot_retired_frames",
            Kind::Plan => "SELECT plan FROM depot_plans",
        };
        let mut rows = sqlx::query(sql).fetch(self.store.read());
        let mut named = HashSet::new();
        while let Some(row) = rows.try_next().await? {
            named.insert(store::digest("depot", &row.try_get::<Vec<u8>, _>(0)?)?);
        }
        Ok(named)
    }

    async fn packages_named(&self) -> Result<HashSet<Digest>, store::Error> {
        let rows = sqlx::query("SELECT digest FROM packages").fetch_all(self.store.read()).await?;
        rows.iter().map(|row| store::parse("packages.digest", &row.try_get::<String, _>(0)?)).collect()
    }
}

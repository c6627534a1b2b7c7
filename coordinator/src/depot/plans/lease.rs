//! Who makes which plan: one row a plan, so that coordinators that share a database do no work twice.
//!
//! A lease saves work and guards nothing: a plan is stored whole or not at all. Whoever dies
//! stops renewing; after [`caps::PLAN_LEASE`] another takes the work up.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::progress::Progress;
use super::{PlanKey, stored};
use crate::clock;
use crate::store::{self, Actor, Store};

/// A plan in the making, at any coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// Who makes it.
    pub(super) holder: String,
    /// How far it was at the last renewal.
    pub(super) progress: Progress,
    /// Since when it is being made.
    pub(super) begun: Timestamp,
}

/// Takes a plan to make; says whether nobody else has it.
pub(super) async fn take(
    store: &Store,
    key: PlanKey,
    holder: &str,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    let taken = sqlx::query(
        "INSERT INTO depot_plan_leases (target, base, effort, holder, expires_ms, frames_done, frames, begun_ms)
         VALUES ($1, $2, $3, $4, $5, 0, 0, $6)
         ON CONFLICT (target, base, effort) DO UPDATE SET holder = excluded.holder,
             expires_ms = excluded.expires_ms, frames_done = 0, frames = 0, begun_ms = excluded.begun_ms
         WHERE depot_plan_leases.expires_ms <= $7",
    )
    .bind(key.target.to_string())
    .bind(key.base_text())
    .bind(stored::effort_text(key.effort))
    .bind(holder)
    .bind(store::to_millis(clock::after(now, caps::PLAN_LEASE)))
    .bind(store::to_millis(now))
    .bind(store::to_millis(now))
    .execute(&mut *tx)
    .await?;
    tx.commit_observation().await?;
    Ok(taken.rows_affected() > 0)
}

/// Keeps a plan for another while and tells how far it is.
pub(super) async fn renew(
    store: &Store,
    key: PlanKey,
    holder: &str,
    progress: Progress,
    now: Timestamp,
) -> Result<(), store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    sqlx::query(
        "UPDATE depot_plan_leases SET expires_ms = $1, frames_done = $2, frames = $3
         WHERE target = $4 AND base = $5 AND effort = $6 AND holder = $7",
    )
    .bind(store::to_millis(clock::after(now, caps::PLAN_LEASE)))
    .bind(i64::from(progress.done))
    .bind(i64::from(progress.frames))
    .bind(key.target.to_string())
    .bind(key.base_text())
    .bind(stored::effort_text(key.effort))
    .bind(holder)
    .execute(&mut *tx)
    .await?;
    tx.commit_observation().await
}

/// Gives a plan back, made or not.
pub(super) async fn release(store: &Store, key: PlanKey, holder: &str) -> Result<(), store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    let sql = "DELETE FROM depot_plan_leases WHERE target = $1 AND base = $2 AND effort = $3 AND holder = $4";
    sqlx::query(sql)
        .bind(key.target.to_string())
        .bind(key.base_text())
        .bind(stored::effort_text(key.effort))
        .bind(holder)
        .execute(&mut *tx)
        .await?;
    tx.commit_observation().await
}

/// Gives back whatever a coordinator holds: it stops.
pub(super) async fn release_all(store: &Store, holder: &str) -> Result<(), store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    sqlx::query("DELETE FROM depot_plan_leases WHERE holder = $1").bind(holder).execute(&mut *tx).await?;
    tx.commit_observation().await
}

/// Returns the packages of which any coordinator makes plans now, and since when the oldest of these is being made.
pub(in crate::depot) async fn in_use(
    store: &Store,
    now: Timestamp,
) -> Result<(HashSet<Digest>, Option<Timestamp>), store::Error> {
    let leases = list(store, now).await?;
    let packages = leases.keys().flat_map(|key| key.packages()).collect();
    Ok((packages, leases.values().map(|lease| lease.begun).min()))
}

/// Returns the leases that hold now.
pub(super) async fn list(store: &Store, now: Timestamp) -> Result<HashMap<PlanKey, Lease>, store::Error> {
    let rows = sqlx::query("SELECT * FROM depot_plan_leases WHERE expires_ms > $1")
        .bind(store::to_millis(now))
        .fetch_all(store.read())
        .await?;
    rows.iter().map(lease).collect()
}

fn lease(row: &AnyRow) -> Result<(PlanKey, Lease), store::Error> {
    let number = |column: &'static str| -> Result<u32, store::Error> {
        let number: i64 = row.try_get(column)?;
        u32::try_from(number).map_err(|_| store::Error::damaged("depot_plan_leases", number))
    };
    let progress = Progress { done: number("frames_done")?, frames: number("frames")? };
    let begun = store::from_millis("depot_plan_leases.begun_ms", row.try_get("begun_ms")?)?;
    Ok((stored::key(row)?, Lease { holder: row.try_get("holder")?, progress, begun }))
}

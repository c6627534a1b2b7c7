//! Frames of plans that were replaced by better ones.
//!
//! Invariant: a frame that a plan has named since [`caps::RETIRED_FRAMES_TTL`] is still served and never collected, so
//! that a host goes on at its byte with the plan that it began with.

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sqlx::{AssertSqlSafe, Row};

use super::{PlanKey, ServedPlan};
use crate::clock;
use crate::store::{self, Actor, Store, Transaction};

/// Frames in one statement: five parameters each.
const BATCH: usize = 500;

/// Keeps the frames of `old` that `new` does not name.
pub(super) async fn keep(
    tx: &mut Transaction,
    old: &ServedPlan,
    new: &ServedPlan,
    now: Timestamp,
) -> Result<(), store::Error> {
    let (target, base) = (old.target.to_string(), old.key().base_text());
    let until = store::to_millis(clock::after(now, caps::RETIRED_FRAMES_TTL));
    let frames: Vec<(Digest, u64)> =
        old.frames().filter(|(frame, _)| new.frame_len(frame).is_none()).collect();
    for batch in frames.chunks(BATCH) {
        let row = |i: usize| {
            let first = i * 5;
            format!("(${}, ${}, ${}, ${}, ${})", first + 1, first + 2, first + 3, first + 4, first + 5)
        };
        let rows: Vec<String> = (0..batch.len()).map(row).collect();
        let sql = format!(
            "INSERT INTO depot_retired_frames (target, base, frame, bytes, until_ms) VALUES {}
             ON CONFLICT (target, base, frame) DO UPDATE SET until_ms = excluded.until_ms",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(batch.len() == BATCH);
        for (frame, bytes) in batch {
            query = query
                .bind(target.as_str())
                .bind(base.as_str())
                .bind(frame.as_bytes().to_vec())
                .bind(*bytes as i64)
                .bind(until);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Returns the length of a retired frame.
pub(super) async fn frame_len(
    store: &Store,
    key: PlanKey,
    frame: &Digest,
) -> Result<Option<u64>, store::Error> {
    let row =
        sqlx::query("SELECT bytes FROM depot_retired_frames WHERE target = $1 AND base = $2 AND frame = $3")
            .bind(key.target.to_string())
            .bind(key.base_text())
            .bind(frame.as_bytes().to_vec())
            .fetch_optional(store.read())
            .await?;
    row.map(|row| store::unsigned("depot_retired_frames.bytes", row.try_get(0)?)).transpose()
}

/// Forgets a frame that turned out damaged: nothing makes it anew.
pub(super) async fn forget(tx: &mut Transaction, frame: &Digest) -> Result<(), store::Error> {
    sqlx::query("DELETE FROM depot_retired_frames WHERE frame = $1")
        .bind(frame.as_bytes().to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets the frames whose time is over; their objects are collected once nothing else names them.
pub(in crate::depot) async fn forget_expired(store: &Store, now: Timestamp) -> Result<(), store::Error> {
    let mut tx = store.begin(Actor::coordinator()).await?;
    sqlx::query("DELETE FROM depot_retired_frames WHERE until_ms <= $1")
        .bind(store::to_millis(now))
        .execute(&mut *tx)
        .await?;
    tx.commit_observation().await
}

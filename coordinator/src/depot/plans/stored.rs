//! Plans at rest: rows that name a plan object, a manifest frame and the frames of the plan.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::transfer::{Effort, PlanOutline};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::queue::Weight;
use super::{ManifestFrame, PlanError, PlanKey, ServedPlan};
use crate::clock::Clock;
use crate::depot::Depot;
use crate::depot::objects::{Kind, Name, ObjectError};
use crate::store::{self, Actor, Store, Transaction};

/// Frames in one statement: four parameters each.
const BATCH: usize = 500;

impl PlanKey {
    pub(super) fn base_text(&self) -> String {
        self.base.map(|base| base.to_string()).unwrap_or_default()
    }
}

/// Reads a plan back, verified; nothing when there is none, or none that is undamaged.
pub(super) async fn load(depot: &Depot, key: PlanKey) -> Result<Option<ServedPlan>, PlanError> {
    let sql = "SELECT plan, manifest_frame FROM depot_plans WHERE target = $1 AND base = $2 AND effort = $3";
    let row = sqlx::query(sql)
        .bind(key.target.to_string())
        .bind(key.base_text())
        .bind(effort_text(key.effort))
        .fetch_optional(depot.store.read())
        .await
        .map_err(store::Error::from)?;
    let Some(row) = row else { return Ok(None) };
    let digest = |column: &'static str| -> Result<Digest, store::Error> {
        store::digest("depot_plans", &row.try_get::<Vec<u8>, _>(column)?)
    };
    let (plan, manifest_frame) = (digest("plan")?, digest("manifest_frame")?);
    let target = depot.package(key.target).await?;
    let base = match key.base {
        Some(base) => Some(depot.package(base).await?),
        None => None,
    };
    let read = async {
        let plan = depot.objects.get(Name(Kind::Plan, plan)).await?;
        Ok((plan, depot.objects.get(Name(Kind::Frame, manifest_frame)).await?))
    };
    let (plan_bytes, manifest_bytes) = match read.await {
        Ok(read) => read,
        Err(error) if ObjectError::is_damage(&error) => return damaged(depot, key).await,
        Err(error) => return Err(error.into()),
    };
    let decoding = tokio::task::spawn_blocking(move || {
        let named = ManifestFrame::of(&manifest_bytes);
        drop(manifest_bytes);
        let fit = Digest::of(&plan_bytes) == plan && named.digest == manifest_frame;
        let base = base.as_ref().map(|base| base.contents()).unwrap_or_default();
        let plan = fit.then(|| PlanOutline::decode(&plan_bytes, base, target.contents()).ok()).flatten()?;
        (plan.base == key.base && plan.target == key.target)
            .then(|| ServedPlan::new(key.effort, plan, plan_bytes, named, &target.manifest))
    });
    match decoding.await.expect("decoding a plan does not panic") {
        Some(plan) => Ok(Some(plan)),
        None => damaged(depot, key).await,
    }
}

/// Says whether there is a plan, damaged or not.
pub(super) async fn is_there(store: &Store, key: PlanKey) -> Result<bool, store::Error> {
    let sql = "SELECT 1 FROM depot_plans WHERE target = $1 AND base = $2 AND effort = $3";
    let row = sqlx::query(sql).bind(key.target.to_string()).bind(key.base_text());
    Ok(row.bind(effort_text(key.effort)).fetch_optional(store.read()).await?.is_some())
}

async fn damaged(depot: &Depot, key: PlanKey) -> Result<Option<ServedPlan>, PlanError> {
    tracing::warn!(package = %key.target, base = key.base_text(), "a plan in the depot is damaged; it is made anew");
    forget(depot, key).await?;
    Ok(None)
}

/// A row: a plan without its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Digest of the encoded plan.
    pub(super) plan: Digest,
    /// Its sizes.
    pub(super) weight: Weight,
    /// CPU that encoding it took.
    pub(super) cpu: Duration,
    /// When it was made.
    pub(super) made: Timestamp,
}

/// Returns the word of an effort.
pub(super) fn effort_text(effort: Effort) -> &'static str {
    match effort {
        Effort::Quick => "quick",
        Effort::Best => "best",
    }
}

/// Returns the plan that a row is about, by its columns `base`, `target` and `effort`.
pub(super) fn key(row: &AnyRow) -> Result<PlanKey, store::Error> {
    let base: String = row.try_get("base")?;
    let base = (!base.is_empty()).then(|| store::parse("depot_plans.base", &base)).transpose()?;
    let target = store::parse("depot_plans.target", &row.try_get::<String, _>("target")?)?;
    Ok(PlanKey { base, target, effort: store::parse("depot_plans.effort", row.try_get("effort")?)? })
}

/// Returns every plan.
pub(super) async fn list(store: &Store) -> Result<HashMap<PlanKey, Row>, store::Error> {
    let rows = sqlx::query("SELECT * FROM depot_plans").fetch_all(store.read()).await?;
    rows.iter().map(|row| Ok((key(row)?, from_row(row)?))).collect()
}

fn from_row(row: &AnyRow) -> Result<Row, store::Error> {
    let number = |column: &'static str| -> Result<u64, store::Error> {
        store::unsigned("depot_plans", row.try_get(column)?)
    };
    Ok(Row {
        plan: store::digest("depot_plans.plan", &row.try_get::<Vec<u8>, _>("plan")?)?,
        weight: Weight { wire_bytes: number("wire_bytes")?, raw_bytes: number("raw_bytes")? },
        cpu: Duration::from_millis(number("cpu_ms")?),
        made: store::from_millis("depot_plans.made_ms", row.try_get("made_ms")?)?,
    })
}

/// Names a plan whose objects are durable. `cpu` is what encoding it took. Not one of a package that was forgotten meanwhile: nobody
/// would forget the plan.
pub(super) async fn insert(depot: &Depot, plan: &ServedPlan, cpu: Duration) -> Result<(), store::Error> {
    let mut tx = depot.store.begin(Actor::coordinator()).await?;
    for package in plan.key().packages() {
        let row = sqlx::query("SELECT 1 FROM packages WHERE digest = $1").bind(package.to_string());
        if row.fetch_optional(&mut *tx).await?.is_none() {
            tracing::info!(%package, "a plan is not kept: its package was forgotten while it was made");
            return tx.roll_back().await;
        }
    }
    forget_in(&mut tx, plan.key()).await?;
    insert_in(&mut tx, plan, cpu).await?;
    tx.commit_observation().await
}

async fn insert_in(tx: &mut Transaction, plan: &ServedPlan, cpu: Duration) -> Result<(), store::Error> {
    let (target, base, effort) = (plan.target.to_string(), plan.key().base_text(), effort_text(plan.effort));
    let manifest_frame = plan.manifest_frame.digest;
    sqlx::query(
        "INSERT INTO depot_plans (target, base, effort, plan, manifest_frame, wire_bytes, raw_bytes, cpu_ms, made_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(target.as_str())
    .bind(base.as_str())
    .bind(effort)
    .bind(plan.plan_digest.as_bytes().to_vec())
    .bind(manifest_frame.as_bytes().to_vec())
    .bind(plan.wire_bytes() as i64)
    .bind(plan.raw_bytes() as i64)
    .bind(cpu.as_millis() as i64)
    .bind(store::to_millis(Clock::of_process().now()))
    .execute(&mut **tx)
    .await?;
    let mut frames: Vec<Digest> = plan.frames.iter().map(|frame| frame.digest).collect();
    frames.push(manifest_frame);
    for batch in frames.chunks(BATCH) {
        let row = |i: usize| format!("(${}, ${}, ${}, ${})", i * 4 + 1, i * 4 + 2, i * 4 + 3, i * 4 + 4);
        let rows: Vec<String> = (0..batch.len()).map(row).collect();
        let sql = format!(
            "INSERT INTO depot_plan_frames (target, base, effort, frame) VALUES {}
             ON CONFLICT (target, base, effort, frame) DO NOTHING",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(batch.len() == BATCH);
        for frame in batch {
            query =
                query.bind(target.as_str()).bind(base.as_str()).bind(effort).bind(frame.as_bytes().to_vec());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Forgets a plan; its objects are collected once nothing else names them.
pub(super) async fn forget(depot: &Depot, key: PlanKey) -> Result<(), store::Error> {
    let mut tx = depot.store.begin(Actor::coordinator()).await?;
    forget_in(&mut tx, key).await?;
    tx.commit_observation().await
}

async fn forget_in(tx: &mut Transaction, key: PlanKey) -> Result<(), store::Error> {
    let (target, base) = (key.target.to_string(), key.base_text());
    for sql in [
        "DELETE FROM depot_plan_frames WHERE target = $1 AND base = $2 AND effort = $3",
        "DELETE FROM depot_plans WHERE target = $1 AND base = $2 AND effort = $3",
    ] {
        let query = sqlx::query(sql).bind(target.as_str()).bind(base.as_str());
        query.bind(effort_text(key.effort)).execute(&mut **tx).await?;
    }
    Ok(())
}

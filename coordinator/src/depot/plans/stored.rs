//! Plans at rest: rows that name a plan object, a manifest frame and the frames of the plan.

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::transfer::TransferPlan;
use sqlx::{AssertSqlSafe, Row};

use super::{PlanError, PlanKey, ServedPlan};
use crate::depot::Depot;
use crate::depot::objects::{Kind, Name, ObjectError};
use crate::store::{self, Actor, Transaction};

/// Frames in one statement: three parameters each.
const BATCH: usize = 500;

impl PlanKey {
    fn base_text(&self) -> String {
        self.base.map(|base| base.to_string()).unwrap_or_default()
    }
}

/// Reads a plan back, verified; nothing when there is none, or none that is undamaged.
pub(super) async fn load(depot: &Depot, key: PlanKey) -> Result<Option<ServedPlan>, PlanError> {
    let row = sqlx::query("SELECT plan, manifest_frame FROM depot_plans WHERE target = $1 AND base = $2")
        .bind(key.target.to_string())
        .bind(key.base_text())
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
        Err(ObjectError::Missing { .. } | ObjectError::Short { .. }) => return damaged(depot, key).await,
        Err(error @ ObjectError::Store { .. }) => return Err(error.into()),
    };
    let decoding = tokio::task::spawn_blocking(move || {
        let fit = Digest::of(&plan_bytes) == plan && Digest::of(&manifest_bytes) == manifest_frame;
        let base = base.as_ref().map(|base| &base.contents[..]).unwrap_or_default();
        let plan = fit.then(|| TransferPlan::decode(&plan_bytes, base, &target.contents).ok()).flatten()?;
        (plan.base == key.base && plan.target == key.target)
            .then(|| ServedPlan::new(plan, plan_bytes, manifest_bytes))
    });
    match decoding.await.expect("decoding a plan does not panic") {
        Some(plan) => Ok(Some(plan)),
        None => damaged(depot, key).await,
    }
}

async fn damaged(depot: &Depot, key: PlanKey) -> Result<Option<ServedPlan>, PlanError> {
    tracing::warn!(package = %key.target, base = key.base_text(), "a plan in the depot is damaged; it is made anew");
    forget(depot, key).await?;
    Ok(None)
}

/// Names a plan whose objects are durable.
pub(super) async fn insert(depot: &Depot, plan: &ServedPlan) -> Result<(), store::Error> {
    let (target, base) = (plan.target.to_string(), plan.key().base_text());
    let manifest_frame = Digest::of(&plan.manifest_frame);
    let mut tx = depot.store.begin(Actor::coordinator()).await?;
    forget_in(&mut tx, &target, &base).await?;
    sqlx::query(
        "INSERT INTO depot_plans (target, base, plan, manifest_frame, wire_bytes, made_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(target.as_str())
    .bind(base.as_str())
    .bind(Digest::of(&plan.plan_bytes).as_bytes().to_vec())
    .bind(manifest_frame.as_bytes().to_vec())
    .bind(plan.wire_bytes() as i64)
    .bind(store::to_millis(Timestamp::now()))
    .execute(&mut *tx)
    .await?;
    let mut frames: Vec<Digest> = plan.plan.frames.iter().map(|frame| frame.digest).collect();
    frames.push(manifest_frame);
    for batch in frames.chunks(BATCH) {
        let row = |i: usize| format!("(${}, ${}, ${})", i * 3 + 1, i * 3 + 2, i * 3 + 3);
        let rows: Vec<String> = (0..batch.len()).map(row).collect();
        let sql = format!(
            "INSERT INTO depot_plan_frames (target, base, frame) VALUES {} ON CONFLICT (target, base, frame) DO NOTHING",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(batch.len() == BATCH);
        for frame in batch {
            query = query.bind(target.as_str()).bind(base.as_str()).bind(frame.as_bytes().to_vec());
        }
        query.execute(&mut *tx).await?;
    }
    tx.commit_observation().await
}

/// Forgets a plan; its objects are collected once nothing else names them.
pub(super) async fn forget(depot: &Depot, key: PlanKey) -> Result<(), store::Error> {
    let mut tx = depot.store.begin(Actor::coordinator()).await?;
    forget_in(&mut tx, &key.target.to_string(), &key.base_text()).await?;
    tx.commit_observation().await
}

async fn forget_in(tx: &mut Transaction, target: &str, base: &str) -> Result<(), store::Error> {
    for sql in [
        "DELETE FROM depot_plan_frames WHERE target = $1 AND base = $2",
        "DELETE FROM depot_plans WHERE target = $1 AND base = $2",
    ] {
        sqlx::query(sql).bind(target).bind(base).execute(&mut **tx).await?;
    }
    Ok(())
}

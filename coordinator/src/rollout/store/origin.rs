//! Rollouts that the run of an environment has started, and what else its planner asks of the tables.

use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_common::name::{AppName, EnvironmentName, HostName, RolloutId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::text;
use crate::rollout::model::Rollout;
use crate::rollout::origin::Origin;
use crate::rollout::spec::Spec;
use crate::rollout::state::State;
use crate::store::{self, Store, Transaction};

/// A rollout that a run has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfRun {
    /// The rollout.
    pub id: RolloutId,
    /// Its application.
    pub app: AppName,
    /// What the run has started it for.
    pub origin: Origin,
    /// Where it stands.
    pub state: State,
}

/// Notes the run that a rollout was started for.
pub(super) async fn note(tx: &mut Transaction, rollout: &Rollout) -> Result<(), store::Error> {
    let Some(origin) = &rollout.spec.origin else { return Ok(()) };
    let needs = (!origin.needs.is_empty()).then(|| text::json(&origin.needs)).transpose()?;
    sqlx::query(
        "UPDATE rollouts SET environment = $1, environment_run = $2, addition = $3, needs = $4 WHERE id = $5",
    )
    .bind(origin.environment.as_str())
    .bind(text::signed(origin.run))
    .bind(origin.is_addition.then_some(1_i64))
    .bind(needs)
    .bind(rollout.id.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Returns those of the applications that a rollout comes together with that are not ready.
pub(crate) async fn awaited(store: &Store, rollout: &Rollout) -> Result<Vec<AppName>, store::Error> {
    if rollout.comes_with().is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = store.read().acquire().await?;
    awaited_in(&mut connection, rollout).await
}

/// The same, on a connection that is at hand. One is ready where its newest rollout for the same part of the same run is.
pub(super) async fn awaited_in(
    connection: &mut AnyConnection,
    rollout: &Rollout,
) -> Result<Vec<AppName>, store::Error> {
    let (apps, Some(origin)) = (rollout.comes_with(), &rollout.spec.origin) else { return Ok(Vec::new()) };
    if apps.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT app, spec, ready FROM rollouts WHERE environment = $1 AND environment_run = $2 AND addition IS NULL
         ORDER BY number",
    )
    .bind(origin.environment.as_str())
    .bind(text::signed(origin.run))
    .fetch_all(connection)
    .await?;
    let mut ready: HashMap<AppName, bool> = HashMap::new();
    for row in &rows {
        let spec = text::from_json::<Spec>("rollouts.spec", row.try_get("spec")?)?;
        if spec.origin.is_some_and(|other| other.part == origin.part) {
            let is_ready = row.try_get::<Option<i64>, _>("ready")?.is_some();
            ready.insert(store::parse("rollouts.app", row.try_get("app")?)?, is_ready);
        }
    }
    Ok(apps.iter().filter(|app| !ready.get(*app).copied().unwrap_or(false)).cloned().collect())
}

/// Returns the rollouts of a run, oldest first.
pub(crate) async fn of_run(
    store: &Store,
    environment: &EnvironmentName,
    run: u64,
) -> Result<Vec<OfRun>, store::Error> {
    let rows = sqlx::query(
        "SELECT id, app, spec, state, reason FROM rollouts WHERE environment = $1 AND environment_run = $2
         ORDER BY number",
    )
    .bind(environment.as_str())
    .bind(text::signed(run))
    .fetch_all(store.read())
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<OfRun, store::Error> {
    let state: &str = row.try_get("state")?;
    let spec = text::from_json::<Spec>("rollouts.spec", row.try_get("spec")?)?;
    Ok(OfRun {
        id: store::parse("rollouts.id", row.try_get("id")?)?,
        app: store::parse("rollouts.app", row.try_get("app")?)?,
        origin: spec.origin.ok_or_else(|| store::Error::damaged("rollouts.spec", "no origin"))?,
        state: State::from_parts(state, row.try_get("reason")?)
            .ok_or_else(|| store::Error::damaged("rollouts.state", state))?,
    })
}

/// Returns the hosts of those rollouts of a run that have ended without success, each with its application.
pub(crate) async fn lost_hosts(
    store: &Store,
    environment: &EnvironmentName,
    run: u64,
) -> Result<HashSet<(AppName, HostName)>, store::Error> {
    let rows = sqlx::query(
        "SELECT r.app, h.host FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout
         WHERE r.environment = $1 AND r.environment_run = $2 AND r.state IN ('rolled-back', 'failed', 'aborted')",
    )
    .bind(environment.as_str())
    .bind(text::signed(run))
    .fetch_all(store.read())
    .await?;
    let pair = |row: &AnyRow| {
        let app = store::parse("rollouts.app", row.try_get("app")?)?;
        Ok((app, store::parse("rollout_hosts.host", row.try_get("host")?)?))
    };
    rows.iter().map(pair).collect()
}

/// Returns the unfinished rollouts of every application, oldest first.
pub(crate) async fn unfinished_by_app(
    store: &Store,
) -> Result<BTreeMap<AppName, Vec<RolloutId>>, store::Error> {
    let rows = sqlx::query(
        "SELECT id, app FROM rollouts WHERE state IN ('running', 'paused', 'rolling-back') ORDER BY number",
    )
    .fetch_all(store.read())
    .await?;
    let mut by_app: BTreeMap<AppName, Vec<RolloutId>> = BTreeMap::new();
    for row in &rows {
        let app = store::parse("rollouts.app", row.try_get("app")?)?;
        by_app.entry(app).or_default().push(store::parse("rollouts.id", row.try_get("id")?)?);
    }
    Ok(by_app)
}

/// Returns the failed rollout that has closed each closed application.
pub(crate) async fn closed_apps(store: &Store) -> Result<HashMap<AppName, RolloutId>, store::Error> {
    let rows = sqlx::query("SELECT app, rollout FROM line_stops WHERE reopened_ms IS NULL ORDER BY number")
        .fetch_all(store.read())
        .await?;
    let pair = |row: &AnyRow| {
        let app = store::parse("line_stops.app", row.try_get("app")?)?;
        Ok((app, store::parse("line_stops.rollout", row.try_get("rollout")?)?))
    };
    rows.iter().map(pair).collect()
}

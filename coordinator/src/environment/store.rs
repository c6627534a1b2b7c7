//! Environments in the database.
//!
//! Invariants: a change names the revision it was planned on (I13), and commits together with its audit entry (I17); what is
//! stored was checked, so a file that does not read is damage.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_common::name::{AppName, EnvironmentName, OperatorName};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::next::in_force;
use super::spec::Environment;
use super::state::State;
use crate::audit::{self, Entry};
use crate::store::{self, Store, Transaction};

/// An environment as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Counts what was applied.
    pub run: u64,
    /// The text that was applied last.
    pub file: String,
    /// What it says.
    pub wanted: Environment,
    /// What all stood, whole, before it; or it itself.
    pub standing: Option<Environment>,
    /// Where the run stands.
    pub state: State,
    /// The applications that have stood in the run.
    pub settled: BTreeSet<AppName>,
    /// Who applied it.
    pub applied_by: OperatorName,
    /// When.
    pub applied: Timestamp,
    /// When the run ended.
    pub ended: Option<Timestamp>,
    /// Grows with every change.
    pub revision: u64,
}

/// What is changed of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// Applications that stand now.
    pub(super) settled: Vec<AppName>,
    /// The new state.
    pub(super) state: Option<State>,
}

impl Stored {
    /// Returns its name.
    pub fn name(&self) -> &EnvironmentName {
        self.wanted.name()
    }

    /// Returns every application of the file, and of the one before.
    pub fn apps(&self) -> BTreeSet<AppName> {
        let before = self.standing.iter().flat_map(|standing| standing.applications().keys());
        self.wanted.applications().keys().chain(before).cloned().collect()
    }

    /// Returns the environment whose word holds for an application.
    pub fn in_force(&self, app: &AppName, stands: bool) -> Option<&Environment> {
        in_force(&self.wanted, self.standing.as_ref(), &self.state, stands, app)
    }
}

/// Returns the names of all environments.
pub(super) async fn names(store: &Store) -> Result<Vec<EnvironmentName>, store::Error> {
    let rows = sqlx::query("SELECT name FROM environments ORDER BY name").fetch_all(store.read()).await?;
    rows.iter().map(|row| store::parse("environments.name", row.try_get("name")?)).collect()
}

/// Reads an environment.
pub(super) async fn load(store: &Store, name: &EnvironmentName) -> Result<Option<Stored>, store::Error> {
    let mut tx = store.read().begin().await?;
    load_in(&mut tx, name).await
}

/// Reads an environment within a transaction.
pub(super) async fn load_in(
    connection: &mut AnyConnection,
    name: &EnvironmentName,
) -> Result<Option<Stored>, store::Error> {
    let row = sqlx::query("SELECT * FROM environments WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let rows = sqlx::query("SELECT app FROM environment_settled WHERE environment = $1")
        .bind(name.as_str())
        .fetch_all(connection)
        .await?;
    let app = |row: &AnyRow| store::parse("environment_settled.app", row.try_get("app")?);
    let settled = rows.iter().map(app).collect::<Result<_, store::Error>>()?;
    read(&row, settled).map(Some)
}

fn read(row: &AnyRow, settled: BTreeSet<AppName>) -> Result<Stored, store::Error> {
    let environment =
        |column, text: &str| Environment::parse(text).map_err(|error| store::Error::damaged(column, error));
    let file: String = row.try_get("file")?;
    let standing: Option<String> = row.try_get("standing")?;
    let state: &str = row.try_get("state")?;
    let ended: Option<i64> = row.try_get("ended_ms")?;
    Ok(Stored {
        run: store::unsigned("environments.run", row.try_get("run")?)?,
        wanted: environment("environments.file", &file)?,
        standing: standing.map(|text| environment("environments.standing", &text)).transpose()?,
        file,
        state: State::from_parts(state, row.try_get("reason")?)
            .ok_or_else(|| store::Error::damaged("environments.state", state))?,
        settled,
        applied_by: store::parse("environments.applied_by", row.try_get("applied_by")?)?,
        applied: store::from_millis("environments.applied_ms", row.try_get("applied_ms")?)?,
        ended: ended.map(|millis| store::from_millis("environments.ended_ms", millis)).transpose()?,
        revision: store::unsigned("environments.revision", row.try_get("revision")?)?,
    })
}

/// Begins a new run with this file. The caller commits.
pub(super) async fn apply(
    tx: &mut Transaction,
    file: &str,
    environment: &Environment,
    by: &OperatorName,
    now: Timestamp,
) -> Result<(), store::Error> {
    let name = environment.name().as_str();
    sqlx::query(
        "INSERT INTO environments (name, run, file, state, applied_by, applied_ms, revision)
         VALUES ($1, 1, $2, 'applying', $3, $4, 1) ON CONFLICT (name) DO UPDATE SET run = environments.run + 1,
         file = excluded.file, state = excluded.state, reason = NULL, applied_by = excluded.applied_by,
         applied_ms = excluded.applied_ms, ended_ms = NULL, revision = environments.revision + 1",
    )
    .bind(name)
    .bind(file)
    .bind(by.as_str())
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM environment_settled WHERE environment = $1")
        .bind(name)
        .execute(&mut **tx)
        .await?;
    let releases: serde_json::Map<String, Value> = environment
        .applications()
        .iter()
        .map(|(app, application)| (app.to_string(), json!(application.release)))
        .collect();
    audit::append(
        tx,
        Entry { action: "environment.apply", subject: name, detail: json!({ "releases": releases }) },
    )
    .await
}

/// Changes a run that was read at `stored.revision`; returns whether nobody else was faster. The caller commits.
pub(super) async fn change(
    tx: &mut Transaction,
    stored: &Stored,
    change: &Change,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let name = stored.name().as_str();
    let state = change.state.as_ref().unwrap_or(&stored.state);
    let ended = match &change.state {
        Some(state) if state.is_ended() => Some(now),
        Some(_) => None,
        None => stored.ended,
    };
    let revision = i64::try_from(stored.revision).unwrap_or(i64::MAX);
    let done = sqlx::query(
        "UPDATE environments SET state = $1, reason = $2, ended_ms = $3, revision = revision + 1
         WHERE name = $4 AND revision = $5",
    )
    .bind(state.as_str())
    .bind(state.reason().map(str::to_owned))
    .bind(ended.map(store::to_millis))
    .bind(name)
    .bind(revision)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    for app in &change.settled {
        sqlx::query("INSERT INTO environment_settled (environment, app) VALUES ($1, $2)")
            .bind(name)
            .bind(app.as_str())
            .execute(&mut **tx)
            .await?;
    }
    if change.state == Some(State::Standing) {
        sqlx::query("UPDATE environments SET standing = file WHERE name = $1")
            .bind(name)
            .execute(&mut **tx)
            .await?;
    }
    let action = if change.state.is_some() { "environment.enter" } else { "environment.settle" };
    let detail = json!({ "run": stored.run, "state": state.as_str(), "reason": state.reason(), "settled": change.settled });
    audit::append(tx, Entry { action, subject: name, detail }).await?;
    Ok(true)
}

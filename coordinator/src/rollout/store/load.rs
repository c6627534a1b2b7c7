//! Reading rollouts and what hosts reported.

use std::collections::HashMap;
use std::ops::Range;

use jiff::Timestamp;
use sluice_common::name::{AppName, HostName, RolloutId};
use sluice_common::order::{Generation, Report};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::text;
use crate::rollout::model::{Cursor, Gate, Issued, Member, Rollout};
use crate::rollout::spec::Spec;
use crate::rollout::state::State;
use crate::rollout::view::Observed;
use crate::store::{self, Store};

/// A rollout as it was read, and the revision that a change of it has to name.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The rollout.
    pub(crate) rollout: Rollout,
    /// Grows with every change.
    pub(crate) revision: i64,
    /// The newest report of each member that answers an order of this rollout.
    pub(crate) reports: Vec<Option<Report>>,
}

/// What the database knows of the fleet, for one application.
pub(crate) type Fleet = HashMap<HostName, (Option<Observed>, Generation)>;

/// Reads a rollout; all of it as of one moment.
pub(crate) async fn load(store: &Store, id: &RolloutId) -> Result<Option<Stored>, store::Error> {
    let mut tx = store.read().begin().await?;
    let row = sqlx::query("SELECT * FROM rollouts WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(with_members(&mut tx, &row).await?))
}

/// Reads the newest rollouts, of one application or of all.
pub(crate) async fn list(store: &Store, app: Option<&AppName>, limit: u32) -> Result<Vec<Stored>, store::Error> {
    let mut tx = store.read().begin().await?;
    let rows = match app {
        Some(app) => {
            sqlx::query("SELECT * FROM rollouts WHERE app = $1 ORDER BY number DESC LIMIT $2")
                .bind(app.as_str())
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?
        }
        None => {
            sqlx::query("SELECT * FROM rollouts ORDER BY number DESC LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?
        }
    };
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        list.push(with_members(&mut tx, row).await?);
    }
    Ok(list)
}

/// Returns the rollouts that somebody has to drive, oldest first.
pub(crate) async fn unfinished(store: &Store) -> Result<Vec<RolloutId>, store::Error> {
    let rows = sqlx::query(
        "SELECT id FROM rollouts WHERE state IN ('running', 'paused', 'rolling-back') ORDER BY number",
    )
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| store::parse("rollouts.id", row.try_get("id")?)).collect()
}

/// Returns every host that an unfinished rollout of this application holds, with that rollout.
pub(crate) async fn unfinished_hosts(
    connection: &mut AnyConnection,
    app: &AppName,
) -> Result<HashMap<HostName, RolloutId>, store::Error> {
    let rows = sqlx::query(
        "SELECT h.host, h.rollout FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout
         WHERE r.app = $1 AND r.state IN ('running', 'paused', 'rolling-back')",
    )
    .bind(app.as_str())
    .fetch_all(connection)
    .await?;
    let pair = |row: &AnyRow| {
        let host = store::parse("rollout_hosts.host", row.try_get("host")?)?;
        Ok((host, store::parse("rollout_hosts.rollout", row.try_get("rollout")?)?))
    };
    rows.iter().map(pair).collect()
}

async fn with_members(connection: &mut AnyConnection, row: &AnyRow) -> Result<Stored, store::Error> {
    let id: &str = row.try_get("id")?;
    let app: AppName = store::parse("rollouts.app", row.try_get("app")?)?;
    let rows = sqlx::query("SELECT * FROM rollout_hosts WHERE rollout = $1 ORDER BY position")
        .bind(id.to_owned())
        .fetch_all(connection)
        .await?;
    let mut batches: Vec<Range<usize>> = Vec::new();
    let (mut members, mut reports) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for (position, row) in rows.iter().enumerate() {
        let batch = index("rollout_hosts.batch", row.try_get("batch")?)?;
        match batches.last_mut() {
            Some(last) if batches_match(batch, last, position) => last.end = position + 1,
            _ => batches.push(position..position + 1),
        }
        if batch + 1 != batches.len() {
            return Err(store::Error::damaged("rollout_hosts.batch", batch));
        }
        members.push(member(row)?);
        let report: Option<String> = row.try_get("report")?;
        reports.push(report.map(|text| text::to_report("rollout_hosts.report", &app, &text)).transpose()?);
    }
    Ok(Stored {
        rollout: rollout(row, app, members, batches)?,
        revision: row.try_get("revision")?,
        reports,
    })
}

//! What closed applications to new rollouts, and how they were opened again.

use jiff::Timestamp;
use sluice_common::name::{AppName, OperatorName};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::rollout::line::{LineStop, Reopened};
use crate::rollout::model::Rollout;
use crate::store::{self, Store, Transaction};

/// Closes the application of a rollout that failed, unless that rollout has closed it already.
pub(super) async fn stop(
    tx: &mut Transaction,
    rollout: &Rollout,
    now: Timestamp,
) -> Result<(), store::Error> {
    if open(tx, &rollout.app).await?.iter().any(|stop| stop.rollout == rollout.id) {
        return Ok(());
    }
    let row = sqlx::query("SELECT number FROM line_stops ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut **tx)
        .await?;
    let last: i64 = row.map_or(Ok(0), |row| row.try_get("number"))?;
    sqlx::query(
        "INSERT INTO line_stops (number, app, rollout, reason, stopped_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(last + 1)
    .bind(rollout.app.as_str())
    .bind(rollout.id.as_str())
    .bind(rollout.state.reason().unwrap_or_default().to_owned())
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Returns what closes an application now: the newest of it.
pub(crate) async fn standing_stop(
    tx: &mut Transaction,
    app: &AppName,
) -> Result<Option<LineStop>, store::Error> {
    Ok(open(tx, app).await?.into_iter().next())
}

/// Opens an application again; returns what had closed it, newest first.
pub(crate) async fn reopen(
    tx: &mut Transaction,
    app: &AppName,
    by: &OperatorName,
    cause: &str,
    now: Timestamp,
) -> Result<Vec<LineStop>, store::Error> {
    let mut stops = open(tx, app).await?;
    sqlx::query(
        "UPDATE line_stops SET reopened_ms = $1, reopened_by = $2, cause = $3 WHERE app = $4 AND reopened_ms IS NULL",
    )
    .bind(store::to_millis(now))
    .bind(by.as_str())
    .bind(cause.to_owned())
    .bind(app.as_str())
    .execute(&mut **tx)
    .await?;
    for stop in &mut stops {
        stop.reopened = Some(Reopened { at: now, by: by.clone(), cause: cause.to_owned() });
    }
    Ok(stops)
}

/// Returns what has closed an application so far, newest first; whether it is closed stands in the first of those that are
/// open.
pub(crate) async fn stops(store: &Store, app: &AppName, limit: u32) -> Result<Vec<LineStop>, store::Error> {
    let rows = sqlx::query(
        "SELECT * FROM line_stops WHERE app = $1 ORDER BY CASE WHEN reopened_ms IS NULL THEN 0 ELSE 1 END, number DESC LIMIT $2",
    )
    .bind(app.as_str())
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?;
    rows.iter().map(read).collect()
}

async fn open(connection: &mut AnyConnection, app: &AppName) -> Result<Vec<LineStop>, store::Error> {
    let rows =
        sqlx::query("SELECT * FROM line_stops WHERE app = $1 AND reopened_ms IS NULL ORDER BY number DESC")
            .bind(app.as_str())
            .fetch_all(connection)
            .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<LineStop, store::Error> {
    let reopened: Option<i64> = row.try_get("reopened_ms")?;
    let reopened = match reopened {
        None => None,
        Some(at) => Some(Reopened {
            at: store::from_millis("line_stops.reopened_ms", at)?,
            by: store::parse("line_stops.reopened_by", row.try_get("reopened_by")?)?,
            cause: row.try_get("cause")?,
        }),
    };
    Ok(LineStop {
        app: store::parse("line_stops.app", row.try_get("app")?)?,
        rollout: store::parse("line_stops.rollout", row.try_get("rollout")?)?,
        reason: row.try_get("reason")?,
        at: store::from_millis("line_stops.stopped_ms", row.try_get("stopped_ms")?)?,
        reopened,
    })
}

//! What ran where and when: one line a switch.

use jiff::Timestamp;
use sluice_common::name::{AppName, HostName, RolloutId};
use sluice_common::order::{Generation, Installed};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::text;
use crate::store::{self, Store, Transaction};

/// One switch of an application on a host, as the host reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When the coordinator heard of it.
    pub at: Timestamp,
    /// The host.
    pub host: HostName,
    /// The application.
    pub app: AppName,
    /// What ran before.
    pub from: Option<Installed>,
    /// What ran from then on; nothing where it was removed.
    pub to: Option<Installed>,
    /// The rollout whose order the host followed.
    pub rollout: Option<RolloutId>,
    /// That order.
    pub generation: Generation,
    /// Why.
    pub reason: String,
}

/// Appends a line.
pub(super) async fn append(tx: &mut Transaction, line: Line) -> Result<(), store::Error> {
    let Line { at, host, app, from, to, rollout, generation, reason } = line;
    let row = sqlx::query("SELECT number FROM history ORDER BY number DESC LIMIT 1")
        .fetch_optional(&mut **tx)
        .await?;
    let last: i64 = row.map_or(Ok(0), |row| row.try_get("number"))?;
    let texts = |installed: Option<Installed>| {
        installed.map(|i| (i.package.to_string(), i.version.to_string())).unzip()
    };
    let ((from_package, from_version), (to_package, to_version)) = (texts(from), texts(to));
    sqlx::query(
        "INSERT INTO history (number, at_ms, host, app, from_package, from_version, to_package, to_version, rollout, generation, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(last + 1)
    .bind(store::to_millis(at))
    .bind(host.as_str())
    .bind(app.as_str())
    .bind(from_package)
    .bind(from_version)
    .bind(to_package)
    .bind(to_version)
    .bind(rollout.map(String::from))
    .bind(text::signed(generation.0))
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Returns the newest lines of an application, of one host or of all.
pub(crate) async fn history(
    store: &Store,
    app: &AppName,
    host: Option<&HostName>,
    limit: u32,
) -> Result<Vec<Line>, store::Error> {
    let rows = match host {
        Some(host) => {
            sqlx::query("SELECT * FROM history WHERE host = $1 AND app = $2 ORDER BY number DESC LIMIT $3")
                .bind(host.as_str())
                .bind(app.as_str())
                .bind(i64::from(limit))
                .fetch_all(store.read())
                .await?
        }
        None => {
            sqlx::query("SELECT * FROM history WHERE app = $1 ORDER BY number DESC LIMIT $2")
                .bind(app.as_str())
                .bind(i64::from(limit))
                .fetch_all(store.read())
                .await?
        }
    };
    rows.iter().map(from_row).collect()
}

/// Returns what the newest line says that a host runs.
pub(super) async fn last(
    tx: &mut Transaction,
    host: &HostName,
    app: &AppName,
) -> Result<Option<Installed>, store::Error> {
    let row = sqlx::query("SELECT * FROM history WHERE host = $1 AND app = $2 ORDER BY number DESC LIMIT 1")
        .bind(host.as_str())
        .bind(app.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    row.map_or(Ok(None), |row| installed(&row, "to_package", "to_version"))
}

pub(super) fn installed(
    row: &AnyRow,
    package: &str,
    version: &str,
) -> Result<Option<Installed>, store::Error> {
    let (package, version): (Option<&str>, Option<&str>) = (row.try_get(package)?, row.try_get(version)?);
    let Some((package, version)) = package.zip(version) else { return Ok(None) };
    let package = store::parse("history.package", package)?;
    Ok(Some(Installed { package, version: store::parse("history.version", version)? }))
}

pub(super) fn from_row(row: &AnyRow) -> Result<Line, store::Error> {
    let rollout: Option<&str> = row.try_get("rollout")?;
    Ok(Line {
        at: store::from_millis("history.at_ms", row.try_get("at_ms")?)?,
        host: store::parse("history.host", row.try_get("host")?)?,
        app: store::parse("history.app", row.try_get("app")?)?,
        from: installed(row, "from_package", "from_version")?,
        to: installed(row, "to_package", "to_version")?,
        rollout: rollout.map(|id| store::parse("history.rollout", id)).transpose()?,
        generation: Generation(store::unsigned("history.generation", row.try_get("generation")?)?),
        reason: row.try_get("reason")?,
    })
}

//! The history, asked from two sides: what ran on a host at a time, and where a release has been.

use jiff::Timestamp;
use sluice_common::name::{AppName, HostName, RolloutId, Version};
use sluice_common::order::Installed;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::history::{Line, from_row, installed};
use super::text;
use crate::store::{self, Store};

/// A time in which a host ran a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// Its place in the history; pages are asked for by it.
    pub number: u64,
    /// The host.
    pub host: HostName,
    /// Since when.
    pub from: Timestamp,
    /// Until when; nothing while it runs still.
    pub until: Option<Timestamp>,
    /// The rollout that brought it.
    pub rollout: Option<RolloutId>,
    /// What came after it.
    pub next: Option<Installed>,
}

/// Returns the newest switches of a host.
pub(crate) async fn of_host(store: &Store, host: &HostName, limit: u32) -> Result<Vec<Line>, store::Error> {
    let rows = sqlx::query("SELECT * FROM history WHERE host = $1 ORDER BY number DESC LIMIT $2")
        .bind(host.as_str())
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?;
    rows.iter().map(from_row).collect()
}

/// Returns for each application of a host the switch that brought what ran at a time; one that had been removed by then is among
/// them, with nothing as what ran.
pub(crate) async fn at(store: &Store, host: &HostName, at: Timestamp) -> Result<Vec<Line>, store::Error> {
    let rows = sqlx::query(
        "SELECT h.* FROM history h JOIN (SELECT MAX(number) AS number FROM history WHERE host = $1 AND at_ms <= $2 GROUP BY app) n
         ON n.number = h.number ORDER BY h.app",
    )
    .bind(host.as_str())
    .bind(store::to_millis(at))
    .fetch_all(store.read())
    .await?;
    rows.iter().map(from_row).collect()
}

/// Returns where a release has been, newest first, before the given place in the history.
pub(crate) async fn of_release(
    store: &Store,
    app: &AppName,
    version: &Version,
    before: u64,
    limit: u32,
) -> Result<Vec<Stay>, store::Error> {
    let rows = sqlx::query(
        "SELECT b.number, b.host, b.at_ms, b.rollout, e.at_ms AS until_ms, e.to_package, e.to_version
         FROM history b LEFT JOIN history e ON e.number =
         (SELECT MIN(n.number) FROM history n WHERE n.host = b.host AND n.app = b.app AND n.number > b.number)
         WHERE b.app = $1 AND b.to_version = $2 AND b.number < $3 ORDER BY b.number DESC LIMIT $4",
    )
    .bind(app.as_str())
    .bind(version.as_str())
    .bind(text::signed(before))
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?;
    rows.iter().map(stay).collect()
}

fn stay(row: &AnyRow) -> Result<Stay, store::Error> {
    let until: Option<i64> = row.try_get("until_ms")?;
    let rollout: Option<&str> = row.try_get("rollout")?;
    Ok(Stay {
        number: store::unsigned("history.number", row.try_get("number")?)?,
        host: store::parse("history.host", row.try_get("host")?)?,
        from: store::from_millis("history.at_ms", row.try_get("at_ms")?)?,
        until: until.map(|until| store::from_millis("history.at_ms", until)).transpose()?,
        rollout: rollout.map(|id| store::parse("history.rollout", id)).transpose()?,
        next: installed(row, "to_package", "to_version")?,
    })
}

//! Hosts and sites in the database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sluice_common::name::{HostName, SiteName};
use sluice_common::selector::Labels;
use sluice_common::units::ByteRate;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::Facts;
use crate::store::{self, Store, Transaction};

/// A host as it is stored.
pub(super) struct StoredHost {
    pub(super) name: HostName,
    pub(super) site: SiteName,
    pub(super) labels: Labels,
    pub(super) facts: Option<Facts>,
    pub(super) enrolled: Timestamp,
    pub(super) last_seen: Option<Timestamp>,
    pub(super) revoked: bool,
}

/// Adds a site without a limit, unless it is there.
pub async fn insert_site(tx: &mut Transaction, site: &SiteName) -> Result<(), store::Error> {
    sqlx::query(
        "INSERT INTO sites (name, limit_bytes_per_second, created_ms) VALUES ($1, 0, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(site.to_string())
    .bind(Timestamp::now().as_millisecond())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds a host and its site. Returns false, and changes nothing, when a host of that name is there and not revoked.
pub async fn insert_host(
    tx: &mut Transaction,
    host: &HostName,
    site: &SiteName,
    labels: &Labels,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let found = sqlx::query("SELECT revoked_ms FROM hosts WHERE name = $1")
        .bind(host.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    if let Some(row) = found
        && row.try_get::<Option<i64>, _>("revoked_ms")?.is_none()
    {
        return Ok(false);
    }
    insert_site(tx, site).await?;
    let labels =
        serde_json::to_string(labels).map_err(|error| store::Error::damaged("hosts.labels", error))?;
    sqlx::query(
        "INSERT INTO hosts (name, site, labels, facts, enrolled_ms, last_seen_ms, revoked_ms)
         VALUES ($1, $2, $3, NULL, $4, 0, NULL)
         ON CONFLICT (name) DO UPDATE SET site = excluded.site, labels = excluded.labels, facts = NULL,
             enrolled_ms = excluded.enrolled_ms, last_seen_ms = 0, revoked_ms = NULL",
    )
    .bind(host.to_string())
    .bind(site.to_string())
    .bind(labels)
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Marks a host as revoked. Returns false when there is none, or it is revoked already.
pub async fn revoke_host(
    tx: &mut Transaction,
    host: &HostName,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let done = sqlx::query("UPDATE hosts SET revoked_ms = $1 WHERE name = $2 AND revoked_ms IS NULL")
        .bind(store::to_millis(now))
        .bind(host.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Writes what a host says it is.
pub(super) async fn update_facts(
    tx: &mut Transaction,
    host: &HostName,
    facts: &Facts,
) -> Result<(), store::Error> {
    let facts = serde_json::to_string(facts).map_err(|error| store::Error::damaged("hosts.facts", error))?;
    sqlx::query("UPDATE hosts SET facts = $1 WHERE name = $2")
        .bind(facts)
        .bind(host.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes when a host was heard.
pub(super) async fn update_last_seen(
    tx: &mut Transaction,
    host: &HostName,
    seen: Timestamp,
) -> Result<(), store::Error> {
    sqlx::query("UPDATE hosts SET last_seen_ms = $1 WHERE name = $2")
        .bind(store::to_millis(seen))
        .bind(host.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes a site's limit. Returns false when there is no such site.
pub(super) async fn update_limit(
    tx: &mut Transaction,
    site: &SiteName,
    limit: Option<ByteRate>,
) -> Result<bool, store::Error> {
    let bytes = limit.map_or(0, ByteRate::bytes_per_second);
    let done = sqlx::query("UPDATE sites SET limit_bytes_per_second = $1 WHERE name = $2")
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind(site.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Returns one host, or all.
pub(super) async fn load_hosts(
    store: &Store,
    only: Option<&HostName>,
) -> Result<Vec<StoredHost>, store::Error> {
    let rows = match only {
        None => sqlx::query("SELECT * FROM hosts").fetch_all(store.read()).await?,
        Some(host) => {
            sqlx::query("SELECT * FROM hosts WHERE name = $1")
                .bind(host.to_string())
                .fetch_all(store.read())
                .await?
        }
    };
    rows.iter().map(host_from).collect()
}

fn host_from(row: &AnyRow) -> Result<StoredHost, store::Error> {
    let text = |column: &str| -> Result<String, store::Error> { Ok(row.try_get(column)?) };
    let facts: Option<String> = row.try_get("facts")?;
    let facts = facts.map(|facts| serde_json::from_str(&facts)).transpose();
    let last_seen: i64 = row.try_get("last_seen_ms")?;
    Ok(StoredHost {
        name: store::parse("hosts.name", &text("name")?)?,
        site: store::parse("hosts.site", &text("site")?)?,
        labels: serde_json::from_str(&text("labels")?)
            .map_err(|e| store::Error::damaged("hosts.labels", e))?,
        facts: facts.map_err(|error| store::Error::damaged("hosts.facts", error))?,
        enrolled: store::from_millis("hosts.enrolled_ms", row.try_get("enrolled_ms")?)?,
        last_seen: match last_seen {
            0 => None,
            millis => Some(store::from_millis("hosts.last_seen_ms", millis)?),
        },
        revoked: row.try_get::<Option<i64>, _>("revoked_ms")?.is_some(),
    })
}

/// Returns every site with its limit.
pub(super) async fn load_sites(store: &Store) -> Result<BTreeMap<SiteName, Option<ByteRate>>, store::Error> {
    let rows = sqlx::query("SELECT name, limit_bytes_per_second FROM sites").fetch_all(store.read()).await?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get("name")?;
            let limit =
                store::unsigned("sites.limit_bytes_per_second", row.try_get("limit_bytes_per_second")?)?;
            Ok((store::parse("sites.name", &name)?, ByteRate::from_bytes_per_second(limit)))
        })
        .collect()
}

//! Orders that stand: the newest of each application on a host.

use std::collections::BTreeMap;

use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, RolloutId};
use sluice_common::order::{Generation, Installed};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::text;
use crate::rollout::model::Target;
use crate::rollout::state::State;
use crate::store::{self, Store};

/// The newest order of one application on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) app: AppName,
    pub(crate) generation: Generation,
    pub(crate) rollout: RolloutId,
    pub(crate) target: Target,
    /// What the host is to have; nothing where it is to have nothing.
    pub(crate) wanted: Option<Installed>,
    /// Where the rollout that gave it stands.
    pub(crate) state: State,
    /// Whether the host is the one of that rollout that migrates what all of them share.
    pub(crate) migrates: bool,
    /// What each need of the application is met by.
    pub(crate) needs: BTreeMap<AppName, String>,
}

/// Returns the newest order of each application on a host.
pub(crate) async fn standing(store: &Store, host: &HostName) -> Result<Vec<Standing>, store::Error> {
    let rows = sqlx::query(
        "SELECT o.app, o.generation, o.rollout, o.target, o.package, o.version, r.state, r.needs, h.migrates FROM orders o
         JOIN rollouts r ON r.id = o.rollout
         LEFT JOIN rollout_hosts h ON h.rollout = o.rollout AND h.host = o.host WHERE o.host = $1 AND NOT EXISTS
         (SELECT 1 FROM orders n WHERE n.host = o.host AND n.app = o.app AND n.generation > o.generation)
         ORDER BY o.app",
    )
    .bind(host.as_str())
    .fetch_all(store.read())
    .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Standing, store::Error> {
    let package: Option<&str> = row.try_get("package")?;
    let version: Option<&str> = row.try_get("version")?;
    let wanted = match (package, version) {
        (Some(package), Some(version)) => Some(Installed {
            package: store::parse("orders.package", package)?,
            version: store::parse("orders.version", version)?,
        }),
        (_, _) => None,
    };
    let state: &str = row.try_get("state")?;
    let needs: Option<&str> = row.try_get("needs")?;
    Ok(Standing {
        app: store::parse("orders.app", row.try_get("app")?)?,
        generation: Generation(store::unsigned("orders.generation", row.try_get("generation")?)?),
        rollout: store::parse("orders.rollout", row.try_get("rollout")?)?,
        target: text::from_json("orders.target", row.try_get("target")?)?,
        wanted,
        state: State::from_parts(state, None)
            .ok_or_else(|| store::Error::damaged("rollouts.state", state))?,
        migrates: row.try_get::<Option<i64>, _>("migrates")?.is_some(),
        needs: needs.map(|text| text::from_json("rollouts.needs", text)).transpose()?.unwrap_or_default(),
    })
}

/// Says whether a host has an order, its newest of some application, that names this package.
pub(crate) async fn may_fetch(
    store: &Store,
    host: &HostName,
    package: &Digest,
) -> Result<bool, store::Error> {
    let row = sqlx::query(
        "SELECT 1 FROM orders o WHERE o.host = $1 AND o.package = $2 AND NOT EXISTS
         (SELECT 1 FROM orders n WHERE n.host = o.host AND n.app = o.app AND n.generation > o.generation)",
    )
    .bind(host.as_str())
    .bind(package.to_string())
    .fetch_optional(store.read())
    .await?;
    Ok(row.is_some())
}

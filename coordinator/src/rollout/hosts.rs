//! Enrolled hosts as a rollout needs them: what the selector asks, and the platform that decides the package.

use jiff::Timestamp;
use serde::Deserialize;
use sluice_common::name::{AppName, HostName, Platform, SiteName};
use sluice_common::release::Release;
use sluice_common::selector::{Labels, Selector};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::batches::Candidate;
use super::store::{fleet_running, is_settled};
use crate::store::{self, Store};

/// Says why a selection cannot have a release.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The selector chooses nobody.
    #[error(
        "selector {selector} chooses none of {enrolled} enrolled hosts; see their sites and labels with: sluice host list"
    )]
    NoHost {
        /// The selector.
        selector: Selector,
        /// How many hosts there are.
        enrolled: usize,
    },
    /// Hosts have a platform for which the release has no package.
    #[error(
        "release {app} {version} has no package for {hosts}; build one for that platform, or choose other hosts"
    )]
    NoPackage {
        /// The application.
        app: AppName,
        /// The release's version.
        version: String,
        /// Some of the hosts, each with its platform.
        hosts: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// An enrolled host that is not revoked.
struct Enrolled {
    name: HostName,
    site: SiteName,
    labels: Labels,
    /// Nothing before the host's first session.
    platform: Option<Platform>,
}

/// The one fact of a host that matters here.
#[derive(Deserialize)]
struct Facts {
    platform: String,
}

/// Most hosts that one error names.
const HOSTS_NAMED_MAX: usize = 5;

/// Chooses the hosts of a rollout, each with its package.
pub(super) async fn select(
    store: &Store,
    selector: &Selector,
    release: &Release,
    now: Timestamp,
) -> Result<Vec<Candidate>, SelectError> {
    let enrolled = enrolled(store).await?;
    let running = fleet_running(store, &release.app, now).await?;
    let (mut chosen, mut without) = (Vec::new(), Vec::new());
    for host in enrolled.iter().filter(|host| selector.matches(&host.name, &host.site, &host.labels)) {
        // A host of unknown platform can still take what runs everywhere.
        let platform = host.platform.clone().unwrap_or_else(Platform::any);
        let Some(package) = release.package_for(&platform) else {
            without.push(host);
            continue;
        };
        let observed = running.get(&host.name).and_then(|(observed, _)| observed.as_ref());
        chosen.push(Candidate {
            host: host.name.clone(),
            site: host.site.clone(),
            platform,
            package,
            settled: is_settled(observed, &package),
        });
    }
    if !without.is_empty() {
        let (app, version) = (release.app.clone(), release.version.to_string());
        return Err(SelectError::NoPackage { app, version, hosts: named(&without) });
    }
    if chosen.is_empty() {
        return Err(SelectError::NoHost { selector: selector.clone(), enrolled: enrolled.len() });
    }
    Ok(chosen)
}

fn named(hosts: &[&Enrolled]) -> String {
    let name = |host: &&Enrolled| match &host.platform {
        Some(platform) => format!("{} ({platform})", host.name),
        None => format!("{} (platform unknown until its agent has connected once)", host.name),
    };
    let mut names: Vec<String> = hosts.iter().take(HOSTS_NAMED_MAX).map(name).collect();
    if hosts.len() > HOSTS_NAMED_MAX {
        names.push(format!("{} more", hosts.len() - HOSTS_NAMED_MAX));
    }
    names.join(", ")
}

async fn enrolled(store: &Store) -> Result<Vec<Enrolled>, store::Error> {
    let rows = sqlx::query("SELECT name, site, labels, facts FROM hosts WHERE revoked_ms IS NULL")
        .fetch_all(store.read())
        .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Enrolled, store::Error> {
    let labels: &str = row.try_get("labels")?;
    let facts: Option<&str> = row.try_get("facts")?;
    let platform = facts.map(|facts| {
        let facts: Facts =
            serde_json::from_str(facts).map_err(|error| store::Error::damaged("hosts.facts", error))?;
        store::parse("hosts.facts", &facts.platform)
    });
    Ok(Enrolled {
        name: store::parse("hosts.name", row.try_get("name")?)?,
        site: store::parse("hosts.site", row.try_get("site")?)?,
        labels: serde_json::from_str(labels).map_err(|error| store::Error::damaged("hosts.labels", error))?,
        platform: platform.transpose()?,
    })
}

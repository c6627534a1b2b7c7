//! What the fleet has and will want, put together for the planning of transfers from hosts, rollouts and releases.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, Platform};
use sluice_common::release::Release;
use sluice_common::units::ByteRate;
use tokio::sync::watch;

use super::surroundings;
use crate::depot::plans::demand::{Forecast, Outlook, Standing};
use crate::depot::releases;
use crate::fleet::{Fleet, HostView, RolloutSink};
use crate::rollout;
use crate::store::{self, Store};

/// Asks everyone.
pub(super) struct Survey {
    pub(super) store: Store,
    pub(super) fleet: Fleet,
    pub(super) rollouts: rollout::Handle,
}

#[async_trait]
impl Forecast for Survey {
    async fn outlook(&self) -> Result<Outlook, store::Error> {
        let reports = self.rollouts.latest_reports(None).await?;
        let running = reports.into_iter().map(|(host, report)| {
            let package = report.current.map(|installed| installed.package);
            ((host, report.app), package)
        });
        let limits = surroundings::limits(&self.fleet);
        let hosts = self.fleet.hosts().into_iter().filter(|host| !host.revoked).map(|host| {
            let limit = limits.least(&host.name, &host.site);
            (host, limit)
        });
        Ok(outlook(
            &running.collect(),
            &self.rollouts.unfinished_targets().await?,
            &newest(releases::newest(&self.store).await?),
            &hosts.collect::<Vec<_>>(),
        ))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.rollouts.starts()
    }
}

/// A package for each application on a host.
type ByHost<T> = HashMap<(HostName, AppName), T>;

/// Keeps the newest release of each application.
fn newest(newest_first: Vec<releases::Registered>) -> HashMap<AppName, Release> {
    let mut newest = HashMap::new();
    for registered in newest_first {
        let release = registered.signed.release;
        newest.entry(release.app.clone()).or_insert(release);
    }
    newest
}

/// Puts together what hosts run, what rollouts bring them, and what the newest releases have for them.
fn outlook(
    running: &ByHost<Option<Digest>>,
    ordered: &ByHost<Digest>,
    newest: &HashMap<AppName, Release>,
    hosts: &[(HostView, Option<ByteRate>)],
) -> Outlook {
    let known: HashMap<&HostName, &(HostView, Option<ByteRate>)> =
        hosts.iter().map(|host| (&host.0.name, host)).collect();
    let pairs: BTreeSet<&(HostName, AppName)> = running.keys().chain(ordered.keys()).collect();
    let standing = |pair: &(HostName, AppName)| {
        let (host, limit) = known.get(&pair.0)?;
        // A host of unknown platform can still take what runs everywhere.
        let platform = host.platform().cloned().unwrap_or_else(Platform::any);
        Some(Standing {
            has: running.get(pair).copied().flatten(),
            ordered: ordered.get(pair).copied(),
            newest: newest.get(&pair.1).and_then(|release| release.package_for(&platform)),
            limit: *limit,
        })
    };
    let released: BTreeSet<Digest> =
        newest.values().flat_map(|release| release.packages.values().copied()).collect();
    Outlook {
        hosts: pairs.into_iter().filter_map(standing).collect(),
        released: released.into_iter().collect(),
    }
}

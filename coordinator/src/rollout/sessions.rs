//! What sessions of hosts need of the rollouts: where reports go, where orders come from.

use async_trait::async_trait;
use sluice_common::caps;
use sluice_common::name::{AppName, HostName};
use sluice_common::order::{Desired, Installed, Order, Phase, Report, Stage};
use sluice_common::release::SignedRelease;
use tokio::sync::oneshot;

use super::handle::Handle;
use super::model::Target;
use super::recorder::Record;
use super::store::{self as tables, Standing};
use crate::depot::releases;
use crate::fleet::RolloutSink;
use crate::store::{self, Store};

#[async_trait]
impl RolloutSink for Handle {
    async fn record_report(&self, host: &HostName, report: Report) -> Result<(), store::Error> {
        let (done, answer) = oneshot::channel();
        let awaits = awaits_confirmation(&report);
        let stopped = || store::Error::Database(sqlx::Error::PoolClosed);
        let record = Record { host: host.clone(), report, done };
        self.shared.reports.send(record).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())??;
        if awaits {
            // The standing order now confirms.
            self.shared.hosts.notify_orders(host);
        }
        Ok(())
    }

    async fn standing_orders(&self, host: &HostName) -> Result<Vec<Order>, store::Error> {
        let mut orders = Vec::new();
        let reports = tables::reports(self.store(), Some(host)).await?;
        for standing in tables::standing(self.store(), host).await? {
            if standing.state.delivers(&standing.target) {
                let is_confirmed = reports.iter().any(|(_, report)| {
                    (&report.app, report.generation) == (&standing.app, standing.generation)
                        && awaits_confirmation(report)
                });
                let order = order(self.store(), host, standing).await?;
                orders.extend(order.map(|order| Order { confirmed: is_confirmed, ..order }));
            }
        }
        Ok(orders)
    }

    async fn latest_reports(&self, host: Option<&HostName>) -> Result<Vec<(HostName, Report)>, store::Error> {
        tables::reports(self.store(), host).await
    }

    fn host_changed(&self, host: &HostName) {
        self.shared.host_changed(host);
    }
}

/// Says whether a host has found its release healthy and waits to hear that this is known: that the report has come is the
/// confirmation.
fn awaits_confirmation(report: &Report) -> bool {
    report.phase == Phase::Validating && report.healthy == Some(true)
}

async fn order(store: &Store, host: &HostName, standing: Standing) -> Result<Option<Order>, store::Error> {
    let Standing { app, generation, rollout, target, wanted, state: _, migrates, needs } = standing;
    let stage = match target {
        Target::Stage => Stage::Staged,
        Target::Candidate { .. } => Stage::Candidate,
        Target::Activate { .. } | Target::Restore { .. } | Target::Remove => Stage::Active,
    };
    let desired = match wanted {
        None => Desired::Absent,
        Some(wanted) => {
            let Some(release) = release_of(store, &app, &wanted).await? else {
                tracing::error!(host.id = %host, app = %app, release = %wanted.version, "order withheld: its release is not registered here");
                return Ok(None);
            };
            Desired::Release { stage, release, package: wanted.package }
        }
    };
    let ttl = caps::ORDER_TTL;
    Ok(Some(Order { app, generation, rollout, desired, ttl, confirmed: false, migrates, needs }))
}

/// Finds the signed release of an installed package: that of its version, else any that brings the package.
async fn release_of(
    store: &Store,
    app: &AppName,
    installed: &Installed,
) -> Result<Option<SignedRelease>, store::Error> {
    let named = releases::get(store, app, &installed.version).await?;
    match named.filter(|signed| signed.release.packages.values().any(|package| *package == installed.package))
    {
        Some(signed) => Ok(Some(signed)),
        None => releases::by_package(store, app, &installed.package).await,
    }
}

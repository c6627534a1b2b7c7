//! A rollout as operators see it: what is durable, what hosts reported, what it waits for.

use sluice_common::order::Report;

use super::blocker::Blocker;
use super::model::Rollout;
use super::plan::{Outcome, outcomes, plan};
use super::shared::Shared;
use super::store::{self as tables, Stored};
use super::view::{FleetView, HostView, Observed};
use crate::store;

/// A rollout at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The rollout.
    pub rollout: Rollout,
    /// Grows with every change of the rollout itself.
    pub revision: u64,
    /// How each member fares, in the order of the members.
    pub hosts: Vec<HostSnapshot>,
    /// What the rollout waits for.
    pub blockers: Vec<Blocker>,
}

/// A member at one moment.
#[derive(Debug, Clone)]
pub struct HostSnapshot {
    /// Where it stands.
    pub outcome: Outcome,
    /// Whether it can be heard.
    pub is_reachable: bool,
    /// The newest report that answers an order of the rollout.
    pub report: Option<Report>,
}

impl Snapshot {
    /// Looks at a rollout now.
    pub(super) async fn take(shared: &Shared, stored: Stored) -> Result<Self, store::Error> {
        let Stored { rollout, revision, reports } = stored;
        let now = shared.clock.now();
        let known = tables::fleet(&shared.store, &rollout, now).await?;
        let mut fleet: FleetView =
            rollout.members.iter().map(|m| (m.host.clone(), HostView::default())).collect();
        for (host, (observed, generation)) in known {
            if let Some(view) = fleet.get_mut(&host) {
                (view.observed, view.generation) = (observed, generation);
            }
        }
        shared.see(&mut fleet);
        let blockers = plan(&rollout, &fleet, now).blockers;
        // Hosts that a later rollout took over are shown as this one left them.
        for (member, report) in rollout.members.iter().zip(&reports) {
            let view = fleet.entry(member.host.clone()).or_default();
            let is_ours = member.order.as_ref().is_some_and(|order| order.generation == view.generation);
            if let (false, Some(report)) = (is_ours, report) {
                view.observed = Some(Observed::of(report.clone(), now));
            }
        }
        let outcomes = outcomes(&rollout, &fleet, now);
        let host = |((outcome, is_reachable), report)| HostSnapshot { outcome, is_reachable, report };
        let hosts = outcomes.into_iter().zip(reports).map(host).collect();
        let revision = store::unsigned("rollouts.revision", revision)?;
        Ok(Self { rollout, revision, hosts, blockers })
    }
}

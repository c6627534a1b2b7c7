//! What the environments ask of the rollouts and of the fleet around them.

use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_common::name::{AppName, EnvironmentName, HostName, RolloutId};
use tokio::sync::watch;

use super::handle::Handle;
use super::hosts::Enrolled;
use super::store::{self as tables, OfRun};
use super::view::Observed;
use crate::store;

/// What the rollouts of one run have come to, and what else holds its applications.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The rollouts of the run, oldest first.
    pub rollouts: Vec<OfRun>,
    /// The hosts of those that ended without success.
    pub lost: HashSet<(AppName, HostName)>,
    /// The unfinished rollouts of every application, of the run or not.
    pub unfinished: BTreeMap<AppName, Vec<RolloutId>>,
    /// The failed rollout that has closed each closed application.
    pub closed: HashMap<AppName, RolloutId>,
}

impl Handle {
    /// Returns every enrolled host, and whether it can be heard now.
    pub fn hosts_heard(&self) -> Vec<(Enrolled, bool)> {
        let now = self.shared.clock.now();
        let with_contact = |host: Enrolled| {
            let contact = self.shared.hosts.contact(&host.name);
            (host, contact.is_some_and(|contact| contact.is_fresh(now)))
        };
        self.shared.hosts.enrolled().into_iter().map(with_contact).collect()
    }

    /// Returns what every host said last of one application.
    pub async fn observed(&self, app: &AppName) -> Result<HashMap<HostName, Observed>, store::Error> {
        let known = tables::fleet_running(self.store(), app, self.shared.clock.now()).await?;
        Ok(known.into_iter().filter_map(|(host, (observed, _))| Some((host, observed?))).collect())
    }

    /// Returns how a run fares; without a run, what else holds applications.
    pub async fn progress(&self, run: Option<(&EnvironmentName, u64)>) -> Result<Progress, store::Error> {
        let (mut rollouts, mut lost) = (Vec::new(), HashSet::new());
        if let Some((environment, run)) = run {
            rollouts = tables::of_run(self.store(), environment, run).await?;
            lost = tables::lost_hosts(self.store(), environment, run).await?;
        }
        let unfinished = tables::unfinished_by_app(self.store()).await?;
        let closed = tables::closed_apps(self.store()).await?;
        Ok(Progress { rollouts, lost, unfinished, closed })
    }

    /// Returns a count that changes when a host comes, goes or says something that decides, and when a rollout ends.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }
}

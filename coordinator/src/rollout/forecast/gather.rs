//! Puts together what a forecast takes: the rollout as it would be started, the fleet, and what each host would be sent.

use std::collections::HashMap;

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, Platform, Version};
use sluice_common::order::Report;

use super::super::batches::{Candidate, lower};
use super::super::floor::check_room;
use super::super::handle::{Busy, Handle, StartError, running};
use super::super::hosts::select;
use super::super::model::Rollout;
use super::super::slots::check_slots;
use super::super::spec::Spec;
use super::super::store as tables;
use super::super::view::{FleetView, HostView, Observed};
use super::{Part, Prospect, Surroundings, Transfer};
use crate::depot::plans::Link;
use crate::depot::releases;
use crate::fleet::RolloutSink;
use crate::store;

/// Stops of an application that are read; what closes it now comes first.
const STOPS_READ: u32 = 1;

/// Says why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    /// Such a rollout could never be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A transfer cannot be planned.
    #[error("what hosts would be sent cannot be worked out: {0}")]
    Transfer(String),
}

impl From<store::Error> for ForecastError {
    fn from(error: store::Error) -> Self {
        Self::Start(error.into())
    }
}

impl Handle {
    /// Looks at a rollout as it would be started now; changes nothing but the transfer plans that are missing.
    pub(crate) async fn prospect(
        &self,
        by: &OperatorName,
        app: AppName,
        version: Version,
        spec: Spec,
        surroundings: &dyn Surroundings,
    ) -> Result<Prospect, ForecastError> {
        spec.check().map_err(StartError::from)?;
        let now = self.shared.clock.now();
        spec.check_calendar(now).map_err(StartError::from)?;
        let Some(signed) = releases::get(self.store(), &app, &version).await? else {
            return Err(StartError::NoRelease { app, version }.into());
        };
        let known = tables::fleet_running(self.store(), &app, now).await?;
        let enrolled = self.shared.hosts.enrolled();
        let candidates = select(&enrolled, &known, &spec, &signed.release).map_err(StartError::from)?;
        let batches = lower(&spec.strategy, candidates);
        let lowered: Vec<Candidate> = batches.iter().flatten().cloned().collect();
        let id = tables::id_of(0)?;
        let rollout = Rollout::new(id, app.clone(), version, spec, batches, by.clone(), now);
        let mut obstacles = self.obstacles(&rollout).await?;
        let runs = running(&known);
        let room = check_room(&rollout, |host| runs.contains(host));
        obstacles.extend(room.err().map(|error| error.to_string()));
        let packages = rollout.members.iter().map(|member| member.package).collect();
        let slots = check_slots(&app, &rollout.version, &rollout.spec, packages, surroundings).await;
        obstacles.extend(slots.err().map(|error| error.to_string()));
        let fleet = self.view(&rollout, known, now);
        let parts = self.parts(&app, &lowered, surroundings).await?;
        let (limits, mut disks) = (surroundings.limits(), surroundings.disks());
        disks.retain(|host, _| fleet.contains_key(host));
        Ok(Prospect { rollout, fleet, parts, limits, disks, obstacles, begins: now })
    }

    /// Says what would keep the rollout from being started, in the words of the refusal.
    async fn obstacles(&self, rollout: &Rollout) -> Result<Vec<String>, store::Error> {
        let mut obstacles = Vec::new();
        let mut connection = self.store().read().acquire().await.map_err(store::Error::from)?;
        let held = tables::unfinished_hosts(&mut connection, &rollout.app).await?;
        let busy = rollout.members.iter().find_map(|member| {
            let other = held.get(&member.host)?;
            Some(Busy { app: rollout.app.clone(), rollout: other.clone(), host: member.host.clone() })
        });
        obstacles.extend(busy.map(|busy| busy.to_string()));
        drop(connection);
        let stops = tables::stops(self.store(), &rollout.app, STOPS_READ).await?;
        let stop = stops.into_iter().find(|stop| stop.reopened.is_none());
        let closed = stop.filter(|_| rollout.spec.emergency.is_none());
        obstacles.extend(closed.map(|stop| StartError::Closed(Box::new(stop)).to_string()));
        Ok(obstacles)
    }

    fn view(&self, rollout: &Rollout, mut known: tables::Fleet, now: Timestamp) -> FleetView {
        let view = |host: &HostName| {
            let (observed, ordered) = known.remove(host).unwrap_or_default();
            let generation = observed.as_ref().map_or(ordered, |o: &Observed| ordered.max(o.generation));
            let contact = self.shared.hosts.contact(host).filter(|contact| contact.is_fresh(now));
            (host.clone(), HostView { contact, observed, generation })
        };
        rollout.members.iter().map(|member| &member.host).map(view).collect()
    }

    async fn parts(
        &self,
        app: &AppName,
        candidates: &[Candidate],
        surroundings: &dyn Surroundings,
    ) -> Result<Vec<Part>, ForecastError> {
        let reports = self.latest_reports(None).await?;
        let reports: HashMap<HostName, Report> =
            reports.into_iter().filter(|(_, report)| report.app == *app).collect();
        let limits = surroundings.limits();
        let mut transfers: HashMap<(Digest, Vec<Digest>, Link), Transfer> = HashMap::new();
        let mut bakes = HashMap::new();
        let mut parts = Vec::with_capacity(candidates.len());
        for Candidate { host, site, platform, package, settled, .. } in candidates {
            let platform: Platform = platform.clone();
            let bake = match bakes.get(package) {
                Some(bake) => *bake,
                None => *bakes.entry(*package).or_insert(surroundings.bake(*package).await),
            };
            let key = (*package, has(reports.get(host)), limits.link(host, site));
            let transfer = match transfers.get(&key) {
                _ if *settled => None,
                Some(transfer) => Some(*transfer),
                None => {
                    let made = surroundings.transfer(*package, &key.1, key.2).await;
                    let made = made.map_err(ForecastError::Transfer)?;
                    Some(*transfers.entry(key).or_insert(made))
                }
            };
            parts.push(Part { transfer, bake, platform });
        }
        Ok(parts)
    }
}

/// Returns the packages that a host is known to have, the one that runs first: what its agent will offer as bases. An agent
/// may keep an older one too, which would only make a transfer smaller.
fn has(report: Option<&Report>) -> Vec<Digest> {
    let installed = report.into_iter().flat_map(|report| [&report.current, &report.previous]);
    installed.flatten().map(|installed| installed.package).collect()
}

//! What applying a file would do: which rollouts, in which order, in which batches, and what waits. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_common::name::{AppName, HostName, Platform, SiteName, Version};

use super::blocker::{Blocker, Wait};
use super::file::Application;
use super::next::{Standing, named, standing_of};
use super::spec::Environment;
use super::view::{AppView, HostView, View};
use crate::rollout::{Candidate, Spec, lower};

/// What applying a file would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its applications, in the order in which they come.
    pub apps: Vec<PlannedApp>,
    /// What forbids applying it.
    pub problems: Vec<String>,
    /// Applications that stood before and are no more in the file.
    pub left: Vec<AppName>,
}

/// What would become of one application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedApp {
    /// The application.
    pub app: AppName,
    /// Those of one step come beside each other; from 1.
    pub step: usize,
    /// Those that it switches with.
    pub together: Vec<AppName>,
    /// How many hosts it is for.
    pub hosts: usize,
    /// How many run the release already.
    pub settled: usize,
    /// What the others run.
    pub from: BTreeMap<Option<Version>, usize>,
    /// Its rollouts, one after another.
    pub parts: Vec<Part>,
    /// What it waits for that no run brings about.
    pub blockers: Vec<Blocker>,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The site with a calendar of its own; nothing: all others.
    pub site: Option<SiteName>,
    /// How it goes.
    pub spec: Spec,
    /// Its batches.
    pub batches: Vec<Vec<HostName>>,
}

impl Outline {
    /// Says whether a host would change.
    pub fn has_changes(&self) -> bool {
        self.apps.iter().any(|app| app.settled < app.hosts)
    }
}

impl Part {
    /// Returns how long its batches take at most, one after another, where their calendar is open and nothing is awry.
    pub fn longest(&self) -> Duration {
        let batches = u32::try_from(self.batches.len()).unwrap_or(u32::MAX);
        self.spec.batch_time().saturating_mul(batches)
    }
}

/// Returns what applying `wanted` would do, where `standing` stands.
pub fn outline(wanted: &Environment, standing: Option<&Environment>, view: &View) -> Outline {
    let steps = steps(wanted);
    let mut apps = Vec::new();
    for unit in wanted.units() {
        for app in unit {
            let together = unit.iter().filter(|other| *other != app).cloned().collect();
            let seen = view.get(app).cloned().unwrap_or_default();
            let planned = planned(wanted, app, &seen, view);
            apps.push(PlannedApp { step: steps[app], together, ..planned });
        }
    }
    // Steps first: what comes beside each other stands beside each other.
    apps.sort_by_key(|planned| planned.step);
    let gone = |standing: &Environment| {
        let gone = standing.applications().keys().filter(|app| !wanted.applications().contains_key(*app));
        gone.cloned().collect()
    };
    let problems = standing.map(|standing| broken_on_the_way(standing, wanted)).unwrap_or_default();
    Outline { apps, problems, left: standing.map(gone).unwrap_or_default() }
}

/// Returns the step of each application: one more than the last of those that it needs.
pub fn steps(environment: &Environment) -> BTreeMap<&AppName, usize> {
    let mut steps: BTreeMap<&AppName, usize> = BTreeMap::new();
    for unit in environment.units() {
        let needed = unit.iter().flat_map(|app| environment.edges_of(app)).map(|edge| &edge.to);
        let step = needed.filter_map(|app| steps.get(app)).max().map_or(1, |step| step + 1);
        steps.extend(unit.iter().map(|app| (app, step)));
    }
    steps
}

fn planned(environment: &Environment, app: &AppName, seen: &AppView, view: &View) -> PlannedApp {
    let mut from = BTreeMap::new();
    for host in seen.hosts.iter().filter(|host| !host.is_settled) {
        *from.entry(host.running.as_ref().map(|running| running.version.clone())).or_default() += 1;
    }
    PlannedApp {
        app: app.clone(),
        step: 0,
        together: Vec::new(),
        hosts: seen.hosts.len(),
        settled: seen.hosts.iter().filter(|host| host.is_settled).count(),
        from,
        parts: parts(environment, app, seen),
        blockers: blockers(environment, app, seen, view),
    }
}

/// Returns the rollouts that are due: one for each part with a host that does not run the release.
fn parts(environment: &Environment, app: &AppName, seen: &AppView) -> Vec<Part> {
    let mut by_part: BTreeMap<Option<&SiteName>, Vec<&HostView>> = BTreeMap::new();
    for host in seen.hosts.iter().filter(|host| host.is_usable()) {
        by_part.entry(environment.part(&host.site)).or_default().push(host);
    }
    by_part.retain(|_, hosts| hosts.iter().any(|host| !host.is_settled));
    let part = |(site, hosts): (Option<&SiteName>, Vec<&HostView>)| {
        let spec = environment.spec(app, site, &named(environment, seen, site))?;
        let candidates = hosts.into_iter().filter_map(|host| candidate(host, &spec)).collect();
        let batches = lower(&spec.strategy, candidates);
        let names = |batch: Vec<Candidate>| batch.into_iter().map(|candidate| candidate.host).collect();
        Some(Part { site: site.cloned(), spec, batches: batches.into_iter().map(names).collect() })
    };
    by_part.into_iter().filter_map(part).collect()
}

fn candidate(host: &HostView, spec: &Spec) -> Option<Candidate> {
    let label = spec.per_domain.as_ref().map(|domains| domains.label.as_str());
    Some(Candidate {
        host: host.name.clone(),
        site: host.site.clone(),
        domain: match label {
            Some("site") => Some(host.site.to_string()),
            Some(label) => host.labels.get(label).cloned(),
            None => None,
        },
        platform: host.platform.clone().unwrap_or_else(Platform::any),
        package: host.package?,
        settled: host.is_settled,
    })
}

/// Returns what the application waits for that the run itself does not bring about.
fn blockers(environment: &Environment, app: &AppName, seen: &AppView, view: &View) -> Vec<Blocker> {
    let is_due = seen.hosts.iter().any(|host| !host.is_settled);
    let mut waits = Vec::new();
    match standing_of(environment, app, seen) {
        Standing::Vacant => waits.push(Wait::NoHost),
        Standing::Stuck(wait) => waits.push(wait),
        Standing::Settled | Standing::UnderWay(_) | Standing::Failed(_) | Standing::Due(_) => {}
    }
    if is_due {
        waits.extend(seen.closed_by.clone().map(Wait::Closed));
        waits.extend(seen.others.first().cloned().map(Wait::Other));
        let vacant = |app: &AppName| view.get(app).is_none_or(|view| view.hosts.is_empty());
        let edges = environment.edges_of(app).filter(|edge| !edge.optional && vacant(&edge.to));
        waits.extend(edges.cloned().map(Wait::NeedNoHost));
    }
    waits.into_iter().map(|wait| Blocker { app: app.clone(), wait }).collect()
}

/// Finds contracts that what stands uses and that its provider is about to drop, before the one that uses it comes.
fn broken_on_the_way(standing: &Environment, wanted: &Environment) -> Vec<String> {
    let mut broken = Vec::new();
    for (app, old) in standing.applications() {
        for need in old.needs.iter().filter(|need| !need.optional) {
            let (Some(contract), Some(provider)) = (&need.contract, wanted.applications().get(&need.app))
            else {
                continue;
            };
            let was = standing.applications().get(&need.app);
            let is_changed = was.is_none_or(|was| was.release != provider.release);
            if !is_changed || provider.provides.contains(contract) || are_one(wanted, app, &need.app) {
                continue;
            }
            broken.push(dropped(app, old, &need.app, provider, contract));
        }
    }
    broken
}

fn are_one(environment: &Environment, one: &AppName, other: &AppName) -> bool {
    environment.units().iter().any(|unit| unit.contains(one) && unit.contains(other))
}

fn dropped(
    app: &AppName,
    old: &Application,
    provider: &AppName,
    new: &Application,
    contract: &Version,
) -> String {
    format!(
        "{provider} {release} no longer provides contract {contract}, which {app} {running} needs until it is updated itself; \
         bring a release of {provider} first that provides both, or let the two switch as one, with atomic = true for each",
        release = new.release,
        running = old.release
    )
}

#[cfg(test)]
mod tests;

//! Looks at the fleet for an environment: hosts, what they said last, releases, rollouts, put together as a [`View`].

use std::collections::{BTreeSet, HashMap};

use sluice_common::name::{AppName, EnvironmentName, HostName};
use sluice_common::release::Release;

use super::spec::Environment;
use super::view::{AppView, Attempt, HostView, View};
use crate::depot::releases;
use crate::rollout::{self, Enrolled, Observed, Progress, is_settled};
use crate::store::{self, Store};

/// Whose word holds for each application, and in which run.
pub(super) struct Question<'a> {
    /// The run; nothing: a file that was not applied.
    pub(super) run: Option<(&'a EnvironmentName, u64)>,
    /// The applications that have stood in the run.
    pub(super) settled: &'a BTreeSet<AppName>,
    /// The applications asked of.
    pub(super) apps: BTreeSet<AppName>,
    /// Returns the environment whose word holds for an application, given whether the run's stands.
    pub(super) in_force: &'a (dyn Fn(&AppName, bool) -> Option<&'a Environment> + Sync),
}

/// Looks at the fleet.
pub(super) async fn look(
    store: &Store,
    rollouts: &rollout::Handle,
    question: &Question<'_>,
) -> Result<View, store::Error> {
    let progress = rollouts.progress(question.run).await?;
    let fleet = rollouts.hosts_heard();
    let mut view = View::new();
    for app in &question.apps {
        let mut seen = of_run(app, &progress, question.settled.contains(app));
        let Some(environment) = (question.in_force)(app, seen.stands()) else { continue };
        let observed = rollouts.observed(app).await?;
        let release = match environment.release(app) {
            Some(version) => releases::get(store, app, version).await?,
            None => None,
        };
        let release = release.map(|signed| signed.release);
        seen.is_released = release.is_some();
        let fleet =
            Fleet { app, hosts: &fleet, observed: &observed, release: release.as_ref(), progress: &progress };
        fleet.fill(&mut seen, environment);
        view.insert(app.clone(), seen);
    }
    Ok(view)
}

/// Returns what the run's rollouts say of an application; without its hosts.
fn of_run(app: &AppName, progress: &Progress, has_stood: bool) -> AppView {
    let own = progress.rollouts.iter().filter(|rollout| rollout.app == *app);
    let attempts: Vec<Attempt> = own
        .map(|rollout| Attempt {
            rollout: rollout.id.clone(),
            part: rollout.origin.part.clone(),
            is_addition: rollout.origin.is_addition,
            state: rollout.state.clone(),
        })
        .collect();
    let unfinished = progress.unfinished.get(app).into_iter().flatten();
    let others = unfinished.filter(|id| attempts.iter().all(|attempt| attempt.rollout != **id)).cloned();
    let others = others.collect();
    let closed_by = progress.closed.get(app).cloned();
    AppView { attempts, others, closed_by, has_stood, ..AppView::default() }
}

/// The hosts, as one application sees them.
struct Fleet<'a> {
    app: &'a AppName,
    hosts: &'a [(Enrolled, bool)],
    observed: &'a HashMap<HostName, Observed>,
    release: Option<&'a Release>,
    progress: &'a Progress,
}

impl Fleet<'_> {
    fn fill(&self, seen: &mut AppView, environment: &Environment) {
        for (host, is_reachable) in self.hosts {
            let view = self.host(host, *is_reachable);
            if environment.selects(self.app, &host.name, &host.site, &host.labels) {
                seen.hosts.push(view);
            } else if view.running.is_some() {
                seen.strays.push(view);
            }
        }
        seen.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        seen.strays.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn host(&self, host: &Enrolled, is_reachable: bool) -> HostView {
        let Enrolled { name, site, labels, platform } = host.clone();
        let observed = self.observed.get(&name);
        // A host of unknown platform can still take what runs everywhere.
        let of = platform.clone().unwrap_or_else(sluice_common::name::Platform::any);
        let package = self.release.and_then(|release| release.package_for(&of));
        HostView {
            is_reachable,
            running: observed.and_then(|observed| observed.current.clone()),
            healthy: observed.and_then(|observed| observed.healthy),
            is_settled: package.is_some_and(|package| is_settled(observed, &package)),
            was_tried: self.progress.lost.contains(&(self.app.clone(), name.clone())),
            package,
            platform,
            labels,
            site,
            name,
        }
    }
}

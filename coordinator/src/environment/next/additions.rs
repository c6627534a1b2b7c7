//! Hosts that came after the run: brought to what their neighbours run, in the order of needs, a small rollout at a time.
//!
//! Only hosts on which the application never was are taken: whoever runs something else was brought to it by somebody.

use sluice_common::name::{AppName, HostName, SiteName};

use super::super::blocker::{Blocker, Wait};
use super::super::graph::{Edge, Why};
use super::super::spec::Environment;
use super::super::state::State;
use super::super::view::{AppView, Fate, View};
use super::{Action, Step};

/// Returns the environment whose word holds for an application: what was applied, or what stood before where that failed.
pub(in crate::environment) fn in_force<'a>(
    wanted: &'a Environment,
    standing: Option<&'a Environment>,
    state: &State,
    has_stood: bool,
    app: &AppName,
) -> Option<&'a Environment> {
    let chosen = match state {
        State::Applying | State::Standing | State::RollingBack { .. } => Some(wanted),
        State::Stopped { .. } if has_stood => Some(wanted),
        State::Stopped { .. } | State::RolledBack { .. } => standing,
    };
    chosen.filter(|environment| environment.applications().contains_key(app))
}

/// Returns what is done for hosts that came later.
pub(super) fn additions(
    wanted: &Environment,
    standing: Option<&Environment>,
    state: &State,
    view: &View,
) -> Step {
    let mut step = Step::default();
    for (app, seen) in view {
        let Some(environment) = in_force(wanted, standing, state, seen.stands(), app) else { continue };
        failed(&mut step, app, seen);
        let (part, hosts) = waiting(environment, seen);
        if hosts.is_empty() {
            continue;
        }
        let waits = waits(environment, app, seen, view);
        if waits.is_empty() && seen.is_released {
            // What they come to has come together already.
            let (app, beside) = (app.clone(), Vec::new());
            step.actions.push(Action::Start { app, part, hosts, is_addition: true, beside });
        }
        step.blockers.extend(waits.into_iter().map(|wait| Blocker { app: app.clone(), wait }));
    }
    step
}

fn failed(step: &mut Step, app: &AppName, view: &AppView) {
    let lost = view.attempts.iter().filter(|attempt| attempt.is_addition && attempt.fate() == Fate::Lost);
    for attempt in lost {
        let has_left = view.hosts.iter().any(|host| host.was_tried && host.running.is_none());
        if has_left {
            let wait = Wait::Failed { words: attempt.words() };
            step.blockers.push(Blocker { app: app.clone(), wait });
        }
    }
}

/// Returns the hosts that wait, of the first part that has some.
fn waiting(environment: &Environment, view: &AppView) -> (Option<SiteName>, Vec<HostName>) {
    let part_of = |site: &SiteName| environment.part(site).cloned();
    let added = || view.hosts.iter().filter(|host| host.is_addition());
    let Some(part) = added().map(|host| part_of(&host.site)).min() else { return (None, Vec::new()) };
    let hosts = added().filter(|host| part_of(&host.site) == part).map(|host| host.name.clone());
    (part.clone(), hosts.collect())
}

fn waits(environment: &Environment, app: &AppName, seen: &AppView, view: &View) -> Vec<Wait> {
    let mut waits: Vec<Wait> = Vec::new();
    let open = seen.attempts.iter().filter(|attempt| matches!(attempt.fate(), Fate::Open | Fate::Retreating));
    for attempt in open {
        let is_moving = !matches!(attempt.state, crate::rollout::State::Paused { .. });
        waits.push(Wait::Rollout { words: attempt.words(), is_moving });
    }
    waits.extend(seen.closed_by.clone().map(Wait::Closed));
    waits.extend(seen.others.first().cloned().map(Wait::Other));
    let unit = environment.units().iter().find(|unit| unit.contains(app));
    let outside = |edge: &&Edge| unit.is_none_or(|unit| !unit.contains(&edge.to));
    waits.extend(environment.edges_of(app).filter(outside).filter_map(|edge| need(edge, view)));
    waits
}

/// Returns what an edge makes hosts wait for: a provider that comes to new hosts itself.
fn need(edge: &Edge, view: &View) -> Option<Wait> {
    let provider = view.get(&edge.to).filter(|provider| !provider.hosts.is_empty());
    if let (Why::InsteadOf(preferred), true) = (&edge.why, edge.optional)
        && view.get(preferred).is_some_and(|preferred| !preferred.hosts.is_empty())
    {
        return None;
    }
    let Some(provider) = provider else {
        return (!edge.optional).then(|| Wait::NeedNoHost(edge.clone()));
    };
    let is_coming = provider.hosts.iter().any(super::super::view::HostView::is_addition)
        || provider.attempts.iter().any(|a| matches!(a.fate(), Fate::Open | Fate::Retreating));
    is_coming.then(|| Wait::Need(edge.clone()))
}

//! What runs where: application by host, with configuration and needs. Pure.

use std::collections::BTreeMap;

use sluice_common::name::{AppName, Version};
use sluice_common::units::Share;

use super::file::{Application, Fallback, Instead, Need};
use super::outline::steps;
use super::spec::Environment;
use super::view::{HostView, View};

/// One application and its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The application.
    pub app: AppName,
    /// What is said of it.
    pub application: Application,
    /// Its selector.
    pub selector: String,
    /// Where in the order it comes, from 1.
    pub step: usize,
    /// What it needs, and by whom that is met.
    pub needs: Vec<NeedMet>,
    /// The hosts that it is for.
    pub hosts: Vec<HostView>,
    /// The hosts that run it, though it is not for them.
    pub strays: Vec<HostView>,
}

/// What an application needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedMet {
    /// The other application.
    pub app: AppName,
    /// The version of its contract.
    pub contract: Option<Version>,
    /// Whether it can be missing.
    pub optional: bool,
    /// Whether a host runs it.
    pub is_met: bool,
    /// What takes its place where it is missing.
    pub fallback: Option<String>,
    /// What it is met by now, as hooks are told: provider and version, or what is done without it; nothing: by nothing yet.
    pub by: Option<String>,
    /// How many of its hosts have to stay in service.
    pub min_healthy: Option<Share>,
}

/// Returns the applications in the order in which they come. `in_force` names the environment whose word holds for each.
pub fn layout<'a>(view: &View, in_force: impl Fn(&AppName) -> Option<&'a Environment>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (app, seen) in view {
        let Some(environment) = in_force(app) else { continue };
        let Some(application) = environment.applications().get(app).cloned() else { continue };
        let selector = environment.selector(app).map(ToString::to_string).unwrap_or_default();
        let step = steps(environment).get(app).copied().unwrap_or_default();
        let needs = needs(&application, view);
        let (hosts, strays) = (seen.hosts.clone(), seen.strays.clone());
        rows.push(Row { app: app.clone(), application, selector, step, needs, hosts, strays });
    }
    rows.sort_by(|a, b| (a.step, &a.app).cmp(&(b.step, &b.app)));
    rows
}

/// Returns what an application needs, and whether somebody runs it.
pub fn needs(application: &Application, view: &View) -> Vec<NeedMet> {
    let need = |need: &Need| {
        let Need { app, contract, optional, fallback, min_healthy } = need.clone();
        let own = provider(&app, view);
        let is_met = own.is_some();
        let by = own.or_else(|| match &fallback {
            Some(Fallback::App(Instead { app })) => provider(app, view),
            Some(Fallback::Words(words)) => Some(words.clone()),
            None => None,
        });
        let fallback = fallback.map(|fallback| fallback.to_string());
        NeedMet { app, contract, optional, is_met, fallback, by, min_healthy }
    };
    application.needs.iter().map(need).collect()
}

/// Names an application with the version that most of its hosts run; nothing where none does.
fn provider(app: &AppName, view: &View) -> Option<String> {
    let mut versions: BTreeMap<&Version, usize> = BTreeMap::new();
    for host in view.get(app).iter().flat_map(|seen| &seen.hosts) {
        if let Some(running) = &host.running {
            *versions.entry(&running.version).or_default() += 1;
        }
    }
    let (version, _) = versions.into_iter().max_by_key(|(_, hosts)| *hosts)?;
    Some(format!("{app} {version}"))
}

/// Returns what the hooks of an application are told of its needs; of what nothing meets, nothing.
pub fn told(application: &Application, view: &View) -> BTreeMap<AppName, String> {
    let needs = needs(application, view).into_iter();
    needs.map(|need| (need.app, need.by.unwrap_or_default())).collect()
}

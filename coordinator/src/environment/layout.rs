//! What runs where: application by host, with configuration and needs. Pure.

use sluice_common::name::{AppName, Version};

use super::file::{Application, Need};
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
        let Need { app, contract, optional, fallback } = need.clone();
        let is_met = view.get(&app).is_some_and(|seen| seen.hosts.iter().any(|host| host.running.is_some()));
        NeedMet { app, contract, optional, is_met, fallback: fallback.map(|fallback| fallback.to_string()) }
    };
    application.needs.iter().map(need).collect()
}

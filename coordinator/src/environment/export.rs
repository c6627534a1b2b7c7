//! The `fleet.toml` of what stands. Pure.

use std::collections::BTreeMap;

use sluice_common::name::{AppName, EnvironmentName, HostName, Version};
use sluice_common::order::Report;

use super::file::{Application, File, OnFailure};
use super::options::Options;
use super::spec::Environment;

/// Writes an environment with the releases that are in force.
pub fn export<'a>(wanted: &'a Environment, in_force: impl Fn(&AppName) -> Option<&'a Environment>) -> File {
    let applications = wanted.applications().keys().filter_map(|app| {
        let standing = in_force(app)?.applications().get(app)?;
        Some((app.clone(), standing.clone()))
    });
    File { applications: applications.collect(), ..wanted.file().clone() }
}

/// An application of which hosts run several versions, and how many each.
pub type Mixed = (AppName, BTreeMap<Version, usize>);

/// Writes what hosts report, whoever brought it there: each application in the version that most of its hosts run, on all of
/// its hosts. Applications of several versions are returned beside it.
pub fn observed(name: EnvironmentName, reports: &[(HostName, Report)]) -> (File, Vec<Mixed>) {
    let mut running: BTreeMap<AppName, BTreeMap<HostName, Version>> = BTreeMap::new();
    for (host, report) in reports {
        if let Some(current) = &report.current {
            let hosts = running.entry(report.app.clone()).or_default();
            hosts.insert(host.clone(), current.version.clone());
        }
    }
    let (mut applications, mut mixed) = (BTreeMap::new(), Vec::new());
    for (app, hosts) in running {
        let mut counts: BTreeMap<Version, usize> = BTreeMap::new();
        for version in hosts.values() {
            *counts.entry(version.clone()).or_default() += 1;
        }
        let Some((release, _)) = counts.iter().max_by_key(|(_, count)| **count) else { continue };
        let (release, hosts) = (release.clone(), hosts.into_keys().collect());
        if counts.len() > 1 {
            mixed.push((app.clone(), counts));
        }
        applications.insert(app, plain(release, hosts));
    }
    let rollout = Options::default();
    let on_failure = OnFailure::default();
    (File { environment: name, on_failure, rollout, sites: BTreeMap::new(), applications }, mixed)
}

fn plain(release: Version, hosts: Vec<HostName>) -> Application {
    Application {
        release,
        selector: None,
        sites: Vec::new(),
        hosts,
        provides: Vec::new(),
        needs: Vec::new(),
        configuration: Vec::new(),
        atomic: false,
        rollout: Options::default(),
    }
}

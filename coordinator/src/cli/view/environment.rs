//! Environments: what applying would do, how far it is, what differs, what runs where.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::v1;

use super::{Installed, at_millis, text};

pub(in crate::cli) mod forecast;

use forecast::Forecast;

/// What applying a file would do.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Plan {
    pub(in crate::cli) environment: String,
    pub(in crate::cli) changes: bool,
    pub(in crate::cli) on_failure: String,
    pub(in crate::cli) apps: Vec<PlannedApp>,
    pub(in crate::cli) problems: Vec<String>,
    pub(in crate::cli) left: Vec<String>,
    /// What links, disks and clocks say of it; nothing where it was not asked or there is nothing to do.
    pub(in crate::cli) forecast: Option<Forecast>,
}

/// What would become of one application.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct PlannedApp {
    pub(in crate::cli) app: String,
    pub(in crate::cli) release: String,
    pub(in crate::cli) step: u32,
    pub(in crate::cli) together: Vec<String>,
    pub(in crate::cli) selector: String,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) hosts_settled: u32,
    pub(in crate::cli) from: Vec<PlannedFrom>,
    pub(in crate::cli) rollouts: Vec<PlannedPart>,
    pub(in crate::cli) needs: Vec<Need>,
    pub(in crate::cli) configuration: Vec<String>,
    pub(in crate::cli) blockers: Vec<String>,
}

/// Hosts that would leave one version.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct PlannedFrom {
    pub(in crate::cli) version: Option<String>,
    pub(in crate::cli) hosts: u32,
}

/// One rollout that would start.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct PlannedPart {
    pub(in crate::cli) site: Option<String>,
    pub(in crate::cli) strategy: String,
    pub(in crate::cli) batches: Vec<Vec<String>>,
    pub(in crate::cli) windows: Vec<String>,
    pub(in crate::cli) freezes: Vec<String>,
    pub(in crate::cli) approvals: u32,
    pub(in crate::cli) longest_ms: u64,
    pub(in crate::cli) on_failure: String,
}

/// What an application needs.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Need {
    pub(in crate::cli) app: String,
    pub(in crate::cli) contract: Option<String>,
    pub(in crate::cli) optional: bool,
    pub(in crate::cli) met: bool,
    pub(in crate::cli) fallback: Option<String>,
    pub(in crate::cli) by: Option<String>,
    pub(in crate::cli) min_healthy: Option<String>,
}

/// An environment as it stands.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Environment {
    pub(in crate::cli) name: String,
    pub(in crate::cli) run: u64,
    pub(in crate::cli) state: State,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) applied_by: String,
    pub(in crate::cli) applied_at: Option<Timestamp>,
    pub(in crate::cli) ended_at: Option<Timestamp>,
    pub(in crate::cli) apps: Vec<App>,
    pub(in crate::cli) blockers: Vec<String>,
    pub(in crate::cli) awaits_operator: bool,
    pub(in crate::cli) revision: u64,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum State {
    Unknown,
    Applying,
    Standing,
    Stopped,
    RollingBack,
    RolledBack,
}

/// One application of a run.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct App {
    pub(in crate::cli) app: String,
    pub(in crate::cli) release: String,
    pub(in crate::cli) stands: bool,
    pub(in crate::cli) hosts: u32,
    pub(in crate::cli) hosts_settled: u32,
    pub(in crate::cli) rollouts: Vec<Rollout>,
}

/// One rollout of a run.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Rollout {
    pub(in crate::cli) rollout: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) site: Option<String>,
    pub(in crate::cli) addition: bool,
}

/// What is not as declared.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Diff {
    pub(in crate::cli) environment: String,
    pub(in crate::cli) looked_at: u32,
    pub(in crate::cli) differences: Vec<Difference>,
}

/// One host that is not as declared.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Difference {
    pub(in crate::cli) app: String,
    pub(in crate::cli) host: String,
    pub(in crate::cli) site: String,
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) declared: Option<String>,
    pub(in crate::cli) reported: Option<String>,
}

/// What runs where.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Layout {
    pub(in crate::cli) environment: String,
    pub(in crate::cli) apps: Vec<LayoutApp>,
}

/// One application and its hosts.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct LayoutApp {
    pub(in crate::cli) app: String,
    pub(in crate::cli) release: String,
    pub(in crate::cli) step: u32,
    pub(in crate::cli) selector: String,
    pub(in crate::cli) configuration: Vec<String>,
    pub(in crate::cli) provides: Vec<String>,
    pub(in crate::cli) needs: Vec<Need>,
    pub(in crate::cli) hosts: Vec<LayoutHost>,
}

/// One host of an application.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct LayoutHost {
    pub(in crate::cli) host: String,
    pub(in crate::cli) site: String,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    pub(in crate::cli) declared: bool,
    pub(in crate::cli) running: Option<Installed>,
    pub(in crate::cli) healthy: Option<bool>,
    pub(in crate::cli) reachable: bool,
    pub(in crate::cli) settled: bool,
}

impl From<v1::EnvironmentPlan> for Plan {
    fn from(message: v1::EnvironmentPlan) -> Self {
        let v1::EnvironmentPlan { environment, apps, problems, changes, on_failure, left } = message;
        let apps = apps.into_iter().map(PlannedApp::from).collect();
        Self { environment, changes, on_failure, apps, problems, left, forecast: None }
    }
}

impl From<v1::PlannedApp> for PlannedApp {
    fn from(message: v1::PlannedApp) -> Self {
        let v1::PlannedApp {
            app,
            release,
            step,
            together,
            selector,
            hosts,
            hosts_settled,
            from,
            parts,
            needs,
            configuration,
            blockers,
        } = message;
        let from = from.into_iter();
        Self {
            app,
            release,
            step,
            together,
            selector,
            hosts,
            hosts_settled,
            from: from.map(|f| PlannedFrom { version: text(f.version), hosts: f.hosts }).collect(),
            rollouts: parts.into_iter().map(PlannedPart::from).collect(),
            needs: needs.into_iter().map(Need::from).collect(),
            configuration,
            blockers,
        }
    }
}

impl From<v1::PlannedPart> for PlannedPart {
    fn from(message: v1::PlannedPart) -> Self {
        let v1::PlannedPart { site, strategy, batches, windows, freezes, approvals, longest_ms, on_failure } =
            message;
        let batches = batches.into_iter().map(|batch| batch.hosts).collect();
        Self { site: text(site), strategy, batches, windows, freezes, approvals, longest_ms, on_failure }
    }
}

impl From<v1::LayoutNeed> for Need {
    fn from(message: v1::LayoutNeed) -> Self {
        let v1::LayoutNeed { app, contract, optional, met, fallback, by, min_healthy } = message;
        let (by, min_healthy) = (text(by), text(min_healthy));
        Self { app, contract: text(contract), optional, met, fallback: text(fallback), by, min_healthy }
    }
}

impl From<v1::Environment> for Environment {
    fn from(message: v1::Environment) -> Self {
        let state = match message.state() {
            v1::EnvironmentState::Unspecified => State::Unknown,
            v1::EnvironmentState::Applying => State::Applying,
            v1::EnvironmentState::Standing => State::Standing,
            v1::EnvironmentState::Stopped => State::Stopped,
            v1::EnvironmentState::RollingBack => State::RollingBack,
            v1::EnvironmentState::RolledBack => State::RolledBack,
        };
        let v1::Environment {
            name,
            run,
            state: _,
            reason,
            applied_by,
            applied_unix_ms,
            ended_unix_ms,
            apps,
            blockers,
            awaits_operator,
            revision,
        } = message;
        Self {
            name,
            run,
            state,
            reason: text(reason),
            applied_by,
            applied_at: at_millis(applied_unix_ms),
            ended_at: at_millis(ended_unix_ms),
            apps: apps.into_iter().map(App::from).collect(),
            blockers,
            awaits_operator,
            revision,
        }
    }
}

impl From<v1::EnvironmentApp> for App {
    fn from(message: v1::EnvironmentApp) -> Self {
        let v1::EnvironmentApp { app, release, stands, hosts, hosts_settled, rollouts } = message;
        let rollout = |message: v1::EnvironmentRollout| {
            let v1::EnvironmentRollout { rollout, state, reason, site, addition } = message;
            Rollout { rollout, state, reason: text(reason), site: text(site), addition }
        };
        let rollouts = rollouts.into_iter().map(rollout).collect();
        Self { app, release, stands, hosts, hosts_settled, rollouts }
    }
}

impl From<v1::EnvironmentDifference> for Difference {
    fn from(message: v1::EnvironmentDifference) -> Self {
        let kind = match message.kind() {
            v1::DifferenceKind::Unspecified => "unknown",
            v1::DifferenceKind::Missing => "missing",
            v1::DifferenceKind::Other => "other",
            v1::DifferenceKind::Unwell => "unwell",
            v1::DifferenceKind::Undeclared => "undeclared",
            v1::DifferenceKind::Unheard => "unheard",
        };
        let v1::EnvironmentDifference { app, host, site, kind: _, declared, reported } = message;
        Self { app, host, site, kind, declared: text(declared), reported: text(reported) }
    }
}

impl From<v1::LayoutApp> for LayoutApp {
    fn from(message: v1::LayoutApp) -> Self {
        let v1::LayoutApp { app, release, step, configuration, provides, needs, hosts, selector } = message;
        Self {
            app,
            release,
            step,
            selector,
            configuration,
            provides,
            needs: needs.into_iter().map(Need::from).collect(),
            hosts: hosts.into_iter().map(LayoutHost::from).collect(),
        }
    }
}

impl From<v1::LayoutHost> for LayoutHost {
    fn from(message: v1::LayoutHost) -> Self {
        let v1::LayoutHost { host, site, labels, declared, running, healthy, reachable, settled } = message;
        Self {
            host,
            site,
            labels: labels.into_iter().collect(),
            declared,
            running: Installed::from_wire(running),
            healthy,
            reachable,
            settled,
        }
    }
}

//! Environments on the wire.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sluice_common::name::{AppName, SiteName, Version};
use sluice_proto::convert::millis;
use sluice_proto::v1;

use super::diff::{Difference, Kind};
use super::handle::{Status, declared};
use super::layout::{NeedMet, Row, needs};
use super::outline::{Outline, Part, PlannedApp};
use super::spec::Environment;
use super::state::State;
use super::view::{AppView, Attempt, HostView, View};
use crate::rollout::{OnFailure, Spec, Strategy};

/// Writes what applying a file would do.
pub(super) fn plan(environment: &Environment, view: &View, outline: &Outline) -> v1::EnvironmentPlan {
    v1::EnvironmentPlan {
        environment: environment.name().to_string(),
        apps: outline.apps.iter().map(|app| planned(environment, view, app)).collect(),
        problems: outline.problems.clone(),
        changes: outline.has_changes(),
        on_failure: environment.on_failure().as_str().to_owned(),
        left: names(&outline.left),
    }
}

fn planned(environment: &Environment, view: &View, planned: &PlannedApp) -> v1::PlannedApp {
    let PlannedApp { app, step, together, hosts, settled, from, parts, blockers } = planned;
    let application = environment.applications().get(app);
    v1::PlannedApp {
        app: app.to_string(),
        release: environment.release(app).map(Version::to_string).unwrap_or_default(),
        step: count(*step),
        together: names(together),
        selector: environment.selector(app).map(ToString::to_string).unwrap_or_default(),
        hosts: count(*hosts),
        hosts_settled: count(*settled),
        from: from.iter().map(|(version, hosts)| planned_from(version.as_ref(), *hosts)).collect(),
        parts: parts.iter().map(part).collect(),
        needs: application.map(|a| needs(a, view).into_iter().map(need).collect()).unwrap_or_default(),
        configuration: application.map(|a| names(&a.configuration)).unwrap_or_default(),
        blockers: blockers.iter().map(ToString::to_string).collect(),
    }
}

fn planned_from(version: Option<&Version>, hosts: usize) -> v1::PlannedFrom {
    v1::PlannedFrom { version: version.map(Version::to_string).unwrap_or_default(), hosts: count(hosts) }
}

fn part(part: &Part) -> v1::PlannedPart {
    let Part { site, spec, batches } = part;
    let hosts = |batch: &Vec<_>| v1::PlannedHosts { hosts: names(batch) };
    v1::PlannedPart {
        site: site.as_ref().map(SiteName::to_string).unwrap_or_default(),
        strategy: strategy(spec),
        batches: batches.iter().map(hosts).collect(),
        windows: names(&spec.calendar.windows),
        freezes: names(&spec.calendar.freezes),
        approvals: spec.approvals,
        longest_ms: millis(part.longest()),
        on_failure: match spec.on_failure {
            OnFailure::Rollback => "rollback".to_owned(),
            OnFailure::Pause => "pause".to_owned(),
        },
    }
}

fn strategy(spec: &Spec) -> String {
    match &spec.strategy {
        Strategy::AllAtOnce => "all at once".to_owned(),
        Strategy::Rolling { batch } => format!("{batch} at a time"),
        Strategy::Canary { canary, batch } => format!("canary {canary}, then {batch} at a time"),
        Strategy::Waves { waves } => format!("waves {}", names(waves).join(", ")),
        Strategy::Exponential { first } => format!("{first} first, then doubling"),
        Strategy::OneHostFirst { batch } => format!("one host, then {batch} at a time"),
        Strategy::BlueGreen { batch } => format!("candidates everywhere, then {batch} at a time"),
    }
}

/// Writes an environment as it stands.
pub(super) fn environment(status: &Status) -> v1::Environment {
    let Status { stored, view, blockers, is_moving } = status;
    let state = match stored.state {
        State::Applying => v1::EnvironmentState::Applying,
        State::Standing => v1::EnvironmentState::Standing,
        State::Stopped { .. } => v1::EnvironmentState::Stopped,
        State::RollingBack { .. } => v1::EnvironmentState::RollingBack,
        State::RolledBack { .. } => v1::EnvironmentState::RolledBack,
    };
    let app = |app: &AppName| {
        let release = declared(stored, view, app)?.release(app)?.clone();
        Some(application(app, &release, view.get(app)?))
    };
    // What waits for something that moves, moves.
    let is_stuck =
        !is_moving && !blockers.is_empty() && blockers.iter().all(|b| b.needs_operator() || waits(b));
    v1::Environment {
        name: stored.name().to_string(),
        run: stored.run,
        state: state.into(),
        reason: stored.state.reason().unwrap_or_default().to_owned(),
        applied_by: stored.applied_by.to_string(),
        applied_unix_ms: stored.applied.as_millisecond(),
        ended_unix_ms: stored.ended.map_or(0, Timestamp::as_millisecond),
        apps: stored.wanted.units().iter().flatten().filter_map(app).collect(),
        blockers: blockers.iter().map(ToString::to_string).collect(),
        awaits_operator: is_stuck,
        revision: stored.revision,
    }
}

/// Says whether a blocker only repeats that another application waits.
fn waits(blocker: &super::Blocker) -> bool {
    matches!(blocker.wait, super::Wait::Need(_) | super::Wait::Dependent(_))
}

fn application(app: &AppName, release: &Version, seen: &AppView) -> v1::EnvironmentApp {
    v1::EnvironmentApp {
        app: app.to_string(),
        release: release.to_string(),
        stands: seen.stands(),
        hosts: count(seen.hosts.len()),
        hosts_settled: count(seen.hosts.iter().filter(|host| host.is_settled).count()),
        rollouts: seen.attempts.iter().map(attempt).collect(),
    }
}

fn attempt(attempt: &Attempt) -> v1::EnvironmentRollout {
    let Attempt { rollout, part, is_addition, state } = attempt;
    v1::EnvironmentRollout {
        rollout: rollout.to_string(),
        state: state.as_str().to_owned(),
        reason: state.reason().unwrap_or_default().to_owned(),
        site: part.as_ref().map(SiteName::to_string).unwrap_or_default(),
        addition: *is_addition,
    }
}

/// Writes a difference.
pub(super) fn difference(difference: Difference) -> v1::EnvironmentDifference {
    let Difference { app, host, site, kind, declared, reported } = difference;
    let kind = match kind {
        Kind::Missing => v1::DifferenceKind::Missing,
        Kind::Other => v1::DifferenceKind::Other,
        Kind::Unwell => v1::DifferenceKind::Unwell,
        Kind::Undeclared => v1::DifferenceKind::Undeclared,
        Kind::Unheard => v1::DifferenceKind::Unheard,
    };
    v1::EnvironmentDifference {
        app: app.to_string(),
        host: host.to_string(),
        site: site.to_string(),
        kind: kind.into(),
        declared: declared.map(String::from).unwrap_or_default(),
        reported: reported.map(String::from).unwrap_or_default(),
    }
}

/// Writes an application and its hosts.
pub(super) fn row(row: Row) -> v1::LayoutApp {
    let Row { app, application, selector, step, needs, hosts, strays } = row;
    let declared = hosts.into_iter().map(|view| host(view, true));
    let strays = strays.into_iter().map(|view| host(view, false));
    v1::LayoutApp {
        app: app.to_string(),
        release: application.release.to_string(),
        step: count(step),
        configuration: names(&application.configuration),
        provides: names(&application.provides),
        needs: needs.into_iter().map(need).collect(),
        hosts: declared.chain(strays).collect(),
        selector,
    }
}

fn need(need: NeedMet) -> v1::LayoutNeed {
    let NeedMet { app, contract, optional, is_met, fallback, by, min_healthy } = need;
    v1::LayoutNeed {
        app: app.to_string(),
        contract: contract.map(String::from).unwrap_or_default(),
        optional,
        met: is_met,
        fallback: fallback.unwrap_or_default(),
        by: by.unwrap_or_default(),
        min_healthy: min_healthy.map(|share| share.to_string()).unwrap_or_default(),
    }
}

fn host(host: HostView, is_declared: bool) -> v1::LayoutHost {
    v1::LayoutHost {
        host: host.name.to_string(),
        site: host.site.to_string(),
        labels: host.labels.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect(),
        declared: is_declared,
        running: host.running.as_ref().map(Into::into),
        healthy: host.healthy,
        reachable: host.is_reachable,
        settled: host.is_settled,
    }
}

fn names<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

//! Plan, status, differences and layout as tables, for people.

use std::fmt::Write as _;
use std::time::Duration;

use sluice_common::units::format_duration;

use super::super::output::{clean, count, moment, one_line, or_dash, table};
use super::super::view::environment::{
    App, Diff, Difference, Environment, Layout, LayoutApp, LayoutHost, Need, Plan, PlannedApp, PlannedPart,
    State,
};
use super::forecast;

/// Formats a plan: one line an application, then what stands out.
pub(super) fn plan(plan: &Plan) -> String {
    let changing = plan.apps.iter().filter(|app| app.hosts_settled < app.hosts).count();
    let mut text = match changing {
        0 => format!("{}: nothing changes\n\n", plan.environment),
        _ => format!(
            "{}: {} of {} change; on failure: {}\n\n",
            plan.environment,
            changing,
            count(plan.apps.len(), "application"),
            plan.on_failure
        ),
    };
    if let Some(seen) = &plan.forecast {
        text.truncate(text.trim_end().len());
        let _ = write!(text, "\n{}\n\n", forecast::headline(seen));
    }
    let rows = plan.apps.iter().flat_map(plan_rows).collect();
    text += &table(&["STEP", "APP", "RELEASE", "FROM", "HOSTS", "ROLLOUT"], &[], rows);
    text += &plan.forecast.as_ref().map(forecast::tables).unwrap_or_default();
    for (title, lines) in notes(plan) {
        section(&mut text, title, lines);
    }
    text
}

/// Returns what is said below the table of a plan, by title.
pub(super) fn notes(plan: &Plan) -> Vec<(&'static str, Vec<String>)> {
    let per_app = |of: fn(&PlannedApp) -> Vec<String>| plan.apps.iter().flat_map(of).collect::<Vec<_>>();
    let seen = plan.forecast.as_ref().map(forecast::notes).unwrap_or_default();
    let said = vec![
        ("needs", per_app(|app| app.needs.iter().map(|n| format!("{} {}", app.app, need(n))).collect())),
        (
            "as one",
            per_app(|app| match app.together.as_slice() {
                [] => Vec::new(),
                others => vec![format!("{} with {}", app.app, others.join(", "))],
            }),
        ),
        ("calendar", per_app(|app| app.rollouts.iter().flat_map(|part| calendar(app, part)).collect())),
        ("waits", per_app(|app| app.blockers.clone())),
        ("no more in the file, and left as it is", plan.left.clone()),
        ("cannot be applied", plan.problems.clone()),
    ];
    said.into_iter().chain(seen).collect()
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(text, "\n{title}:\n");
    for line in lines {
        let _ = writeln!(text, "  {}", one_line(&line));
    }
}

fn plan_rows(app: &PlannedApp) -> Vec<Vec<String>> {
    let cells = |rollout: String| {
        vec![
            app.step.to_string(),
            app.app.clone(),
            app.release.clone(),
            from(app),
            format!("{} of {}", app.hosts - app.hosts_settled.min(app.hosts), app.hosts),
            rollout,
        ]
    };
    match app.rollouts.as_slice() {
        [] => vec![cells("-".to_owned())],
        parts => parts.iter().map(|part| cells(rollout(part))).collect(),
    }
}

/// Says what hosts run that change.
pub(super) fn from(app: &PlannedApp) -> String {
    let one = |version: Option<&str>, hosts: u32| format!("{} ({hosts})", version.unwrap_or("nothing"));
    let all: Vec<String> = app.from.iter().map(|from| one(from.version.as_deref(), from.hosts)).collect();
    or_dash(&all.join(", "))
}

/// Says how a rollout goes: strategy, sizes of batches, longest time.
pub(super) fn rollout(part: &PlannedPart) -> String {
    let sizes: Vec<String> = part.batches.iter().map(|batch| batch.len().to_string()).collect();
    let site = part.site.as_ref().map(|site| format!("{site}: ")).unwrap_or_default();
    let longest = format_duration(Duration::from_millis(part.longest_ms));
    format!("{site}{}: {}; at most {longest}", part.strategy, sizes.join(" + "))
}

fn calendar(app: &PlannedApp, part: &PlannedPart) -> Vec<String> {
    let site = part.site.as_ref().map(|site| format!(" at {site}")).unwrap_or_default();
    let line = |what: String| format!("{}{site}: {what}", app.app);
    let windows = part.windows.iter().map(|window| line(format!("only {window}")));
    let freezes = part.freezes.iter().map(|freeze| line(format!("not {freeze}")));
    let approvals = (part.approvals > 0).then(|| line(format!("after {} approvals", part.approvals)));
    windows.chain(freezes).chain(approvals).collect()
}

/// Says what is needed, and by what it is met.
pub(super) fn need(need: &Need) -> String {
    let contract =
        need.contract.as_ref().map(|contract| format!(" (contract {contract})")).unwrap_or_default();
    let said = match (need.met, need.optional, &need.fallback) {
        (false, true, Some(fallback)) => format!("can do without {}{contract}: {fallback}", need.app),
        (_, true, _) => format!("likes {}{contract}", need.app),
        (_, false, _) => format!("needs {}{contract}", need.app),
    };
    let min_healthy = need.min_healthy.as_ref().map(|share| format!(", {share} of it in service"));
    // What is done without it is said already.
    let by = need.by.as_ref().filter(|by| need.fallback.as_ref() != Some(by)).map(|by| format!("; now {by}"));
    [Some(said), min_healthy, by].into_iter().flatten().collect()
}

/// Returns the word for a state.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Applying => "applying",
        State::Standing => "standing",
        State::Stopped => "stopped",
        State::RollingBack => "rolling-back",
        State::RolledBack => "rolled-back",
    }
}

/// Formats all environments, one a line.
pub(super) fn environments(environments: &[Environment]) -> String {
    let row = |environment: &Environment| {
        let stand = environment.apps.iter().filter(|app| app.hosts_settled == app.hosts).count();
        vec![
            environment.name.clone(),
            state(environment.state).to_owned(),
            environment.run.to_string(),
            format!("{stand} of {}", environment.apps.len()),
            moment(environment.applied_at),
            environment.applied_by.clone(),
            or_dash(environment.reason.as_deref().unwrap_or_default()),
        ]
    };
    table(
        &["NAME", "STATE", "RUN", "APPS", "APPLIED", "BY", "REASON"],
        &["RUN"],
        environments.iter().map(row).collect(),
    )
}

/// Formats one environment.
pub(super) fn environment(environment: &Environment) -> String {
    let reason = environment.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut text = format!(
        "{} is {}{}\nrun {}, applied {} by {}\n\n",
        environment.name,
        state(environment.state),
        clean(&reason),
        environment.run,
        moment(environment.applied_at),
        environment.applied_by
    );
    let row = |app: &App| {
        let rollout = app.rollouts.last().map(|rollout| format!("{} {}", rollout.rollout, rollout.state));
        vec![
            app.app.clone(),
            app.release.clone(),
            format!("{} of {}", app.hosts_settled, app.hosts),
            rollout.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows = environment.apps.iter().map(row).collect();
    text += &table(&["APP", "RELEASE", "HOSTS", "ROLLOUT"], &[], rows);
    section(&mut text, "waits", environment.blockers.clone());
    text
}

/// Formats what differs.
pub(super) fn diff(diff: &Diff) -> String {
    if diff.differences.is_empty() {
        return format!("{}: as declared, {} looked at\n", diff.environment, diff.looked_at);
    }
    let row = |difference: &Difference| {
        let Difference { app, host, site, kind, declared, reported } = difference;
        let version = |version: &Option<String>| or_dash(version.as_deref().unwrap_or_default());
        vec![
            app.clone(),
            host.clone(),
            site.clone(),
            (*kind).to_owned(),
            version(declared),
            version(reported),
        ]
    };
    let rows = diff.differences.iter().map(row).collect();
    table(&["APP", "HOST", "SITE", "WHAT", "DECLARED", "REPORTED"], &[], rows)
}

/// Formats what runs where: a line for each application and host.
pub(super) fn layout(layout: &Layout) -> String {
    let mut text = String::new();
    for app in &layout.apps {
        let _ = writeln!(text, "{} {}", app.app, app.release);
        for line in about(app) {
            let _ = writeln!(text, "  {}", one_line(&line));
        }
        let rows = app.hosts.iter().map(|host| host_row(app, host)).collect();
        let hosts = table(&["HOST", "SITE", "LABELS", "RUNS", "STATE"], &[], rows);
        text.extend(hosts.lines().map(|line| format!("    {line}\n")));
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Says what is to be known of an application beside its hosts.
pub(super) fn about(app: &LayoutApp) -> Vec<String> {
    let list =
        |title: &str, names: &[String]| (!names.is_empty()).then(|| format!("{title} {}", names.join(", ")));
    let configuration = list("configured by", &app.configuration);
    let provides = list("provides contract", &app.provides);
    let hosts = Some(format!("for {}", app.selector));
    hosts.into_iter().chain(configuration).chain(provides).chain(app.needs.iter().map(need)).collect()
}

/// Returns the cells of a host.
pub(super) fn host_row(app: &LayoutApp, host: &LayoutHost) -> Vec<String> {
    let labels: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let runs = host.running.as_ref().map_or("-", |running| &running.version);
    vec![
        host.host.clone(),
        host.site.clone(),
        or_dash(&labels.join(",")),
        runs.to_owned(),
        host_state(app, host).to_owned(),
    ]
}

/// Says how an application fares on a host, in a word.
pub(super) fn host_state(app: &LayoutApp, host: &LayoutHost) -> &'static str {
    match &host.running {
        _ if !host.declared => "undeclared",
        _ if !host.reachable => "unheard",
        None => "missing",
        Some(running) if running.version != app.release => "other",
        Some(_) if host.healthy == Some(false) => "ill",
        Some(_) if !host.settled => "under way",
        Some(_) => "ok",
    }
}

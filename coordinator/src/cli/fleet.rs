//! `host`, `site`, `operator`: what is connected and what may connect.

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sluice_common::identity::Principal;
use sluice_common::units::{ByteRate, format_duration, format_size};
use sluice_proto::v1;

use super::Context;
use super::args::{HostCommand, OperatorCommand, SiteCommand};
use super::error::context as advice;
use super::exit::Exit;
use super::output::{moment, or_dash, pairs, table};
use super::view::Installed;
use super::view::fleet::{Application, Drift, Facts, Host, HostState, Operator, Site};
use super::view::short;
use super::{pages, past};

#[derive(Serialize)]
struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Serialize)]
struct Sites {
    sites: Vec<Site>,
}

#[derive(Serialize)]
struct Operators {
    operators: Vec<Operator>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

pub(super) async fn host(context: &Context, command: HostCommand) -> anyhow::Result<Exit> {
    match command {
        HostCommand::List { selector } => {
            let selector = selector.map(|selector| selector.to_string()).unwrap_or_default();
            let hosts = pages::hosts(&context.connect().await?, selector).await?;
            let hosts = Hosts { hosts: hosts.into_iter().map(Host::from).collect() };
            context.output.show(&hosts, || host_table(&hosts.hosts, Timestamp::now()))?;
        }
        HostCommand::History { name, at, limit } => return past::host(context, name, at, limit).await,
        HostCommand::Show { name } => {
            let request = v1::GetHostRequest { name: name.to_string() };
            let answer = context.connect().await?.fleet().get_host(request).await;
            let answer = answer.with_context(|| no_such("host", name.as_str()))?.into_inner();
            let host = Host::from(answer.host.context("the coordinator answered without a host")?);
            context.output.show(&host, || host_text(&host, Timestamp::now()))?;
        }
        HostCommand::Revoke { name, reason } => revoke(context, Principal::Host(name), reason).await?,
    }
    Ok(Exit::Success)
}

pub(super) async fn site(context: &Context, command: SiteCommand) -> anyhow::Result<Exit> {
    let mut fleet = context.connect().await?.fleet();
    match command {
        SiteCommand::List => {
            let answer = fleet.list_sites(v1::ListSitesRequest {}).await?.into_inner();
            let sites = Sites { sites: answer.sites.into_iter().map(Site::from).collect() };
            context.output.show(&sites, || site_table(&sites.sites))?;
        }
        SiteCommand::SetLimit { site, rate } => {
            let limit_bytes_per_second = rate.0.map_or(0, ByteRate::bytes_per_second);
            let request = v1::SetSiteLimitRequest { site: site.to_string(), limit_bytes_per_second };
            let answer = fleet.set_site_limit(request).await;
            let answer = answer.with_context(|| no_such("site", site.as_str()))?.into_inner();
            let site = Site::from(answer.site.context("the coordinator answered without a site")?);
            context.output.show(&site, || site_table(std::slice::from_ref(&site)))?;
        }
    }
    Ok(Exit::Success)
}

pub(super) async fn operator(context: &Context, command: OperatorCommand) -> anyhow::Result<Exit> {
    match command {
        OperatorCommand::List => {
            let mut administration = context.connect().await?.administration();
            let answer = administration.list_operators(v1::ListOperatorsRequest {}).await?.into_inner();
            let operators = answer.operators.into_iter().map(Operator::from).collect();
            let operators = Operators { operators };
            context.output.show(&operators, || operator_table(&operators.operators))?;
        }
        OperatorCommand::Revoke { name, reason } => {
            revoke(context, Principal::Operator(name), reason).await?;
        }
    }
    Ok(Exit::Success)
}

async fn revoke(context: &Context, principal: Principal, reason: String) -> anyhow::Result<()> {
    let request = v1::RevokeRequest { principal: principal.to_string(), reason };
    context.connect().await?.administration().revoke(request).await?;
    if context.output.is_json() {
        return context.output.json(&Revoked { revoked: principal.to_string() });
    }
    context.output.note(format_args!("revoked {principal}: its certificate opens nothing from now on"));
    Ok(())
}

fn no_such(noun: &str, name: &str) -> super::error::Advice {
    advice(format!("cannot use the {noun} {name}"), format!("sluice {noun} list shows what there is"))
}

fn host_table(hosts: &[Host], now: Timestamp) -> String {
    let rows = hosts.iter().map(|host| {
        vec![
            host.name.clone(),
            host.site.clone(),
            state_text(host, now),
            or_dash(&runs(&host.applications)),
            host.facts.as_ref().map_or_else(|| "-".to_owned(), |facts| facts.platform.clone()),
            or_dash(&labels(host)),
        ]
    });
    table(&["NAME", "SITE", "STATE", "RUNS", "PLATFORM", "LABELS"], &[], rows.collect())
}

fn state_text(host: &Host, now: Timestamp) -> String {
    match (host.state, host.last_seen_at) {
        (HostState::Connected | HostState::Revoked, _) => host.state.as_str().to_owned(),
        (HostState::Unreachable, None) => "never seen".to_owned(),
        (HostState::Unreachable, Some(seen)) => {
            format!("unreachable for {}", format_duration(now.duration_since(seen).unsigned_abs()))
        }
    }
}

fn runs(applications: &[Application]) -> String {
    let runs = applications.iter().filter_map(|application| {
        let current = application.current.as_ref()?;
        let health = if application.healthy == Some(false) { " (unhealthy)" } else { "" };
        Some(format!("{} {}{health}", application.app, current.version))
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn labels(host: &Host) -> String {
    host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn host_text(host: &Host, now: Timestamp) -> String {
    let mut lines = vec![
        ("name", host.name.clone()),
        ("site", host.site.clone()),
        ("state", state_text(host, now)),
        ("labels", or_dash(&labels(host))),
        ("last seen", moment(host.last_seen_at)),
        ("enrolled", moment(host.enrolled_at)),
        ("certificate until", moment(host.certificate_expires_at)),
        ("content carried", format_size(host.content_bytes)),
    ];
    if let Some(facts) = &host.facts {
        lines.extend([
            ("host name there", facts.hostname.clone()),
            ("platform", format!("{}, {}, kernel {}", facts.platform, facts.os_version, facts.kernel)),
            ("machine", format!("{} cpus, {} of memory", facts.cpus, format_size(facts.memory_bytes))),
            ("disk", disk(facts)),
            ("agent", format!("version {}", facts.agent_version)),
        ]);
    }
    let mut text = pairs(&lines);
    if !host.applications.is_empty() {
        text.push('\n');
        text.push_str(&application_table(&host.applications));
        text.push_str(&drift_text(&host.applications));
    }
    text
}

fn disk(facts: &Facts) -> String {
    let kept = facts
        .disk_floor_bytes
        .map_or_else(String::new, |floor| format!(", {} stay free", format_size(floor)));
    format!("{} free of {}{kept}", format_size(facts.disk_free_bytes), format_size(facts.disk_bytes))
}

/// Tells what differs on the host from its installed releases, a line for each application.
fn drift_text(applications: &[Application]) -> String {
    let lines = applications.iter().filter_map(|Application { app, drift, .. }| {
        let Drift { count, first, mended } = drift.as_ref()?;
        Some(match count {
            0 => format!("drift of {app}: none any more, {mended} mended\n"),
            1 => format!("drift of {app}: {first}; {mended} mended\n"),
            more => format!("drift of {app}: {first}, and {} more; {mended} mended\n", more - 1),
        })
    });
    lines.collect()
}

fn application_table(applications: &[Application]) -> String {
    let installed = |installed: &Option<Installed>| match installed {
        Some(installed) => format!("{} ({})", installed.version, short(&installed.package)),
        None => "-".to_owned(),
    };
    let rows = applications.iter().map(|application| {
        vec![
            application.app.clone(),
            installed(&application.current),
            installed(&application.previous),
            application.phase.map_or("-", |phase| phase.as_str()).to_owned(),
            application.healthy.map_or("-", |healthy| if healthy { "yes" } else { "no" }).to_owned(),
            application.reason.as_deref().map_or_else(|| "-".to_owned(), or_dash),
        ]
    });
    table(&["APP", "CURRENT", "PREVIOUS", "PHASE", "HEALTHY", "REASON"], &[], rows.collect())
}

fn site_table(sites: &[Site]) -> String {
    let rows = sites.iter().map(|site| {
        vec![
            site.name.clone(),
            site.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            site.hosts.to_string(),
            site.hosts_connected.to_string(),
            format_size(site.content_bytes),
        ]
    });
    table(
        &["SITE", "LIMIT", "HOSTS", "CONNECTED", "CARRIED"],
        &["LIMIT", "HOSTS", "CONNECTED", "CARRIED"],
        rows.collect(),
    )
}

fn operator_table(operators: &[Operator]) -> String {
    let rows = operators.iter().map(|operator| {
        let state = if operator.revoked { "revoked" } else { "active" };
        vec![operator.name.clone(), operator.role.clone(), state.to_owned(), moment(operator.enrolled_at)]
    });
    table(&["NAME", "ROLE", "STATE", "ENROLLED"], &[], rows.collect())
}

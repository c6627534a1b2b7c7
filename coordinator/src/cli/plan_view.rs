//! `rollout plan`: what a rollout would do, as text, JSON, Markdown or a Mermaid chart.
//!
//! Exit codes are those of a plan: 0 nothing would change, 1 something would, 255 there is none.

mod document;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use sluice_common::units::{ByteRate, format_duration, format_size};
use sluice_proto::v1;

use super::Context;
use super::args::{Format, RolloutPlanArgs};
use super::connect::Coordinator;
use super::error::{self, context as advice};
use super::exit::Exit;
use super::output::{Closed, count, moment, or_dash, table};
use super::rollout::spec;
use super::view::forecast::{Batch, Forecast, Site, Span};
use super::view::rollout::Floor;
use super::view::short;

/// Host names in one cell.
const NAMES_MAX: usize = 6;

/// Plans, and says in the exit code what the plan comes to.
pub(super) async fn run(
    context: &Context,
    coordinator: &Coordinator,
    args: RolloutPlanArgs,
) -> anyhow::Result<Exit> {
    match plan(context, coordinator, args).await {
        Err(error) if !error.is::<Closed>() => Ok(none(context, &error)),
        done => done,
    }
}

/// Says why there is no plan.
pub(super) fn none(context: &Context, error: &anyhow::Error) -> Exit {
    context.output.note(error::render(error));
    Exit::Unanswered
}

async fn plan(context: &Context, coordinator: &Coordinator, args: RolloutPlanArgs) -> anyhow::Result<Exit> {
    let RolloutPlanArgs { what, format } = args;
    let (app, version) = (what.app.to_string(), what.version.to_string());
    let request =
        v1::PlanRolloutRequest { app: app.clone(), version: version.clone(), spec: Some(spec(&what)) };
    let failed = || {
        advice(
            format!("cannot plan a rollout of {app} {version}"),
            format!("sluice release list {app} shows its versions, sluice host list whom it could be for"),
        )
    };
    let answer = coordinator.forecasts().plan(request).await.with_context(failed)?.into_inner();
    let forecast: Forecast = answer.forecast.context("the coordinator answered without a forecast")?.into();
    let output = context.output;
    match format.format {
        Format::Json => output.json(&forecast),
        Format::Text => output.show(&forecast, || text(&forecast)),
        Format::Markdown => output.show(&forecast, || document::markdown(&forecast)),
        Format::Mermaid => output.show(&forecast, || document::mermaid(&forecast)),
    }?;
    Ok(if forecast.changing == 0 { Exit::Success } else { Exit::Changes })
}

/// Formats a time from the start: when by the clock.
fn clock(begins: Option<Timestamp>, after: Option<Span>) -> String {
    moment(begins.zip(after).and_then(|(begins, after)| begins.checked_add(after.0).ok()))
}

pub(super) fn for_so_long(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), lasts)
}

/// Formats a time to the second: a forecast knows no better.
pub(super) fn lasts(time: Duration) -> String {
    format_duration(Duration::from_secs(time.as_secs_f64().round() as u64))
}

fn names(batch: &Batch) -> String {
    let mut names: Vec<&str> = batch.names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = batch.hosts as usize - names.len();
    let more = format!("{more} more");
    if batch.hosts as usize > names.len() {
        names.push(&more);
    }
    names.join(", ")
}

fn limit(site: &Site) -> String {
    let rate = site.limit_bytes_per_second.and_then(ByteRate::from_bytes_per_second);
    rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string())
}

/// Says in a sentence what it comes to.
fn headline(forecast: &Forecast) -> String {
    let Forecast { app, version, hosts, changing, .. } = forecast;
    let hosts = count(*hosts as usize, "host");
    match (changing, forecast.ends_seconds) {
        (0, _) => format!("{app} {version}: nothing to do, {hosts} run it"),
        (changing, Some(ends)) => {
            let took = lasts(ends.0);
            format!("{app} {version}: {changing} of {hosts} change, done after {took}")
        }
        (changing, None) => {
            format!(
                "{app} {version}: {changing} of {hosts} change, and it would not come to its end by itself"
            )
        }
    }
}

/// Says what the gates ask for.
fn gates(forecast: &Forecast) -> Vec<String> {
    let Forecast {
        bake_seconds,
        first_site_bake_seconds,
        floors,
        has_candidates,
        approvals,
        max_unavailable,
        max_failures,
        has_calendar,
        fits_window,
        ..
    } = forecast;
    let bake = format_duration(bake_seconds.0);
    let mut gates = vec![
        format!("each batch holds for {bake}, with at most {max_unavailable} of the hosts out"),
        format!("more than {max_failures} failed hosts end it"),
    ];
    if let Some(longer) = first_site_bake_seconds {
        gates.insert(1, format!("batches of the first site hold for {}", format_duration(longer.0)));
    }
    if *has_candidates {
        gates.insert(
            0,
            "every host has its candidate up beside the live release before any traffic moves".to_owned(),
        );
    }
    gates.extend(floors.iter().map(Floor::says));
    if *approvals > 0 {
        gates.push(format!(
            "{} before the first switch; times count from then",
            count(*approvals as usize, "approval")
        ));
    }
    if *has_calendar {
        let fits = if *fits_window { "fits into one window" } else { "does not fit into one window" };
        gates.push(format!("what switches {fits}"));
    }
    gates
}

/// Says what it waits for, and what stands in its way.
fn troubles(forecast: &Forecast) -> Vec<String> {
    let obstacles = forecast.obstacles.iter().map(|what| format!("now: {what}"));
    let waits = forecast.waits.iter().map(|wait| {
        let from = lasts(wait.from_seconds.0);
        match wait.until_seconds {
            Some(until) => {
                format!("after {from}, until {}: {}", lasts(until.0), wait.what)
            }
            None => format!("after {from}, for good: {}", wait.what),
        }
    });
    let disks = forecast.short_of_disk.iter().map(|disk| {
        let (needed, available) = (format_size(disk.needed_bytes), format_size(disk.available_bytes));
        format!("{} needs {needed} of disk and may take {available}", disk.host)
    });
    obstacles.chain(disks).chain(waits).collect()
}

fn batch_rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let row = |(number, batch): (usize, &Batch)| {
        let times = batch.opens_seconds.zip(batch.passes_seconds);
        let takes = times.map(|(opens, passes)| passes.0.saturating_sub(opens.0));
        vec![
            (number + 1).to_string(),
            batch.hosts.to_string(),
            clock(forecast.begins_at, batch.opens_seconds),
            for_so_long(batch.opens_seconds.map(|opens| opens.0)),
            for_so_long(takes),
            batch.platforms.join(", "),
            names(batch),
        ]
    };
    forecast.batches.iter().enumerate().map(row).collect()
}

const BATCH_HEAD: [&str; 7] = ["BATCH", "HOSTS", "SWITCHES", "AFTER", "TAKES", "PLATFORMS", "NAMES"];
const SITE_HEAD: [&str; 6] = ["SITE", "HOSTS", "CHANGE", "BYTES", "LIMIT", "STAGED"];
const TRANSFER_HEAD: [&str; 5] = ["FROM", "TO", "HOSTS", "SENT", "DISK"];

fn site_rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let row = |site: &Site| {
        let staged = lasts(site.staged_seconds.0);
        let (hosts, changing) = (site.hosts.to_string(), site.changing.to_string());
        vec![site.site.clone(), hosts, changing, format_size(site.bytes), limit(site), staged]
    };
    forecast.sites.iter().map(row).collect()
}

fn transfer_rows(forecast: &Forecast) -> Vec<Vec<String>> {
    let rows = forecast.transfers.iter().map(|transfer| {
        vec![
            or_dash(&transfer.base.as_deref().map(short).unwrap_or_default()),
            short(&transfer.target),
            transfer.hosts.to_string(),
            format_size(transfer.wire_bytes),
            format_size(transfer.disk_bytes),
        ]
    });
    rows.collect()
}

fn text(forecast: &Forecast) -> String {
    let mut text = format!("{}\n", headline(forecast));
    for gate in gates(forecast) {
        text += &format!("  {gate}\n");
    }
    let troubles = troubles(forecast);
    if !troubles.is_empty() {
        text += "\nWaits\n";
    }
    for trouble in troubles {
        text += &format!("  {trouble}\n");
    }
    let batches = table(&BATCH_HEAD, &["BATCH", "HOSTS", "AFTER", "TAKES"], batch_rows(forecast));
    let sites = table(&SITE_HEAD, &["HOSTS", "CHANGE", "BYTES", "STAGED"], site_rows(forecast));
    text += &format!("\n{batches}\n{sites}");
    if !forecast.transfers.is_empty() {
        let transfers = table(&TRANSFER_HEAD, &["HOSTS", "SENT", "DISK"], transfer_rows(forecast));
        text += &format!("\n{transfers}");
    }
    text
}

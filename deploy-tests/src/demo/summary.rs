//! What the demonstration tells at its end, for people and as JSON.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use sluice_common::digest::Digest;
use sluice_common::tree::Tree;
use sluice_common::units::{format_duration, format_size};
use sluice_proto::v1;

use super::load::Count;

/// One rollout, as the JSON output says it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RolloutSummary {
    version: String,
    outcome: &'static str,
    hosts: usize,
    files: u64,
    tree_bytes: u64,
    wire_bytes: u64,
    wire_bytes_per_host: u64,
    stage_seconds: f64,
    switch_seconds_max: f64,
    requests: u64,
    failed_requests: u64,
    #[serde(skip)]
    reason: String,
}

impl RolloutSummary {
    /// Gathers what a rollout of `tree` has cost and brought.
    pub(super) fn new(rollout: &v1::Rollout, tree: &Path, count: Count) -> Result<Self> {
        let hosts: Vec<_> = rollout.batches.iter().flat_map(|batch| &batch.hosts).collect();
        let reports: Vec<_> = hosts.iter().filter_map(|host| host.report.as_ref()).collect();
        let manifest = Tree::scan(tree)?;
        let wire_bytes: u64 = reports.iter().map(|report| report.wire_bytes).sum();
        let longest = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        Ok(Self {
            version: rollout.version.clone(),
            outcome: outcome(rollout.state())
                .with_context(|| format!("rollout {} has not ended", rollout.id))?,
            hosts: hosts.len(),
            files: manifest.manifest().file_count(),
            tree_bytes: manifest.manifest().tree_bytes(),
            wire_bytes,
            wire_bytes_per_host: wire_bytes / hosts.len().max(1) as u64,
            stage_seconds: longest(reports.iter().map(|report| report.stage_time_us).max().unwrap_or(0)),
            switch_seconds_max: longest(
                reports.iter().map(|report| report.switch_time_us).max().unwrap_or(0),
            ),
            requests: count.requests,
            failed_requests: count.failed,
            reason: rollout.reason.clone(),
        })
    }

    /// Returns the outcome in words.
    pub(super) fn sentence(&self) -> String {
        match self.reason.as_str() {
            "" => format!("  {}", self.outcome),
            reason => format!("  {}: {reason}", self.outcome.replace('_', " ")),
        }
    }
}

fn outcome(state: v1::RolloutState) -> Option<&'static str> {
    match state {
        v1::RolloutState::Succeeded => Some("succeeded"),
        v1::RolloutState::RolledBack => Some("rolled_back"),
        v1::RolloutState::Failed => Some("failed"),
        v1::RolloutState::Aborted => Some("aborted"),
        v1::RolloutState::Unspecified
        | v1::RolloutState::Running
        | v1::RolloutState::Paused
        | v1::RolloutState::RollingBack => None,
    }
}

/// Returns the one object of the JSON output.
pub(super) fn json(summaries: &[RolloutSummary]) -> Result<String> {
    Ok(serde_json::to_string(&serde_json::json!({ "rollouts": summaries }))?)
}

/// Returns the table of rollouts.
pub(super) fn rollouts_table(summaries: &[RolloutSummary], with_requests: bool) -> Table {
    let mut head =
        vec!["version", "outcome", "hosts", "deployed", "sent", "per host", "staged in", "longest switch"];
    if with_requests {
        head.extend(["requests", "failed"]);
    }
    let mut table = new_table(&head);
    for summary in summaries {
        let seconds = |seconds: f64| format_duration(Duration::from_secs_f64(seconds));
        let mut row = vec![
            summary.version.clone(),
            summary.outcome.replace('_', " "),
            summary.hosts.to_string(),
            format_size(summary.tree_bytes * summary.hosts as u64),
            format_size(summary.wire_bytes),
            format_size(summary.wire_bytes_per_host),
            seconds(summary.stage_seconds),
            format!("{:.1} ms", summary.switch_seconds_max * 1e3),
        ];
        if with_requests {
            row.extend([summary.requests.to_string(), summary.failed_requests.to_string()]);
        }
        table.add_row(row);
    }
    align_right(&mut table, 2);
    table
}

/// Returns the table of end states.
pub(super) fn hosts_table(hosts: &[v1::Host]) -> Table {
    let mut table = new_table(&["host", "site", "application", "runs", "package", "last order", "health"]);
    for host in hosts {
        for report in &host.reports {
            let (version, package) = match &report.current {
                Some(current) => (
                    current.version.clone(),
                    Digest::from_slice(&current.package).map(|digest| digest.short()).unwrap_or_default(),
                ),
                None => ("nothing".to_owned(), String::new()),
            };
            let health = match report.healthy {
                Some(true) => "healthy",
                Some(false) => "unhealthy",
                None => "",
            };
            let phase = report.phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
            let row = [host.name.as_str(), &host.site, &report.app, &version, &package, &phase, health];
            table.add_row(row);
        }
    }
    table
}

fn new_table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head.iter().map(|title| title.to_uppercase()));
    table
}

fn align_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

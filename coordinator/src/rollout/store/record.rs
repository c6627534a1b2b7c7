//! Reports: what hosts say is kept as they say it, newest first, and a switch leaves a line in the history.

use jiff::Timestamp;
use sluice_common::name::{HostName, RolloutId};
use sluice_common::order::{Installed, Phase, Report};
use sqlx::Row;

use super::history::{self, Line};
use super::text;
use crate::rollout::model::Target;
use crate::rollout::view::Observed;
use crate::store::{self, Transaction};

/// Most applications that one host may report: more than any host runs, and a bound on what a stolen key can write.
const APPS_PER_HOST_MAX: i64 = 1_000;

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It was known, older than what is known, or one too many.
    Old,
    /// It says something new, but nothing that a decision turns on.
    Progress,
    /// It says something that decisions turn on.
    News,
}

/// Records a report of `host`. Repeated and outdated ones change nothing; the first of a session is never outdated,
/// for it says how things stand on a host that may have lost count.
pub(crate) async fn record(
    tx: &mut Transaction,
    host: &HostName,
    report: &Report,
    is_first: bool,
    now: Timestamp,
) -> Result<Recorded, store::Error> {
    let row = sqlx::query("SELECT since_ms, report FROM reports WHERE host = $1 AND app = $2")
        .bind(host.as_str())
        .bind(report.app.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let mut before = None;
    if let Some(row) = row {
        let since = store::from_millis("reports.since_ms", row.try_get("since_ms")?)?;
        before = Some((text::to_report("reports.report", &report.app, row.try_get("report")?)?, since));
    }
    let order = order_of(tx, host, report).await?;
    match &before {
        Some((old, _)) if old == report => return Ok(Recorded::Old),
        Some((old, _))
            if !is_first && (old.generation, old.sequence) >= (report.generation, report.sequence) =>
        {
            return Ok(Recorded::Old);
        }
        None if order.is_none() && reported_apps(tx, host).await? >= APPS_PER_HOST_MAX => {
            tracing::warn!(host = %host, app = %report.app, "report of one application too many dropped");
            return Ok(Recorded::Old);
        }
        Some(_) | None => {}
    }
    let observed = Observed::of(report.clone(), now);
    let same = before.as_ref().filter(|(old, since)| Observed::of(old.clone(), *since).is_like(&observed));
    let since = same.map_or(now, |(_, since)| *since);
    let recorded = if same.is_some() { Recorded::Progress } else { Recorded::News };
    write(tx, host, report, since, now, order.as_ref()).await?;
    let old = before.and_then(|(old, _)| old.current);
    let package = |installed: &Option<Installed>| installed.as_ref().map(|installed| installed.package);
    // A failed order has switched nothing, and its report may not know what runs.
    if report.phase != Phase::Failed && package(&old) != package(&report.current) {
        let from = history::last(tx, host, &report.app).await?;
        if package(&from) != package(&report.current) {
            history::append(tx, line(host, report, from, order, now)).await?;
        }
    }
    Ok(recorded)
}

async fn order_of(
    tx: &mut Transaction,
    host: &HostName,
    report: &Report,
) -> Result<Option<(RolloutId, Target)>, store::Error> {
    let row =
        sqlx::query("SELECT rollout, target FROM orders WHERE host = $1 AND app = $2 AND generation = $3")
            .bind(host.as_str())
            .bind(report.app.as_str())
            .bind(text::signed(report.generation.0))
            .fetch_optional(&mut **tx)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let rollout = store::parse("orders.rollout", row.try_get("rollout")?)?;
    Ok(Some((rollout, text::from_json("orders.target", row.try_get("target")?)?)))
}

async fn reported_apps(tx: &mut Transaction, host: &HostName) -> Result<i64, store::Error> {
    let row = sqlx::query("SELECT COUNT(*) FROM reports WHERE host = $1")
        .bind(host.as_str())
        .fetch_one(&mut **tx)
        .await?;
    Ok(row.try_get(0)?)
}

async fn write(
    tx: &mut Transaction,
    host: &HostName,
    report: &Report,
    since: Timestamp,
    now: Timestamp,
    order: Option<&(RolloutId, Target)>,
) -> Result<(), store::Error> {
    let body = text::from_report(report)?;
    sqlx::query(
        "INSERT INTO reports (host, app, generation, sequence, since_ms, received_ms, report)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (host, app) DO UPDATE SET generation = excluded.generation, sequence = excluded.sequence,
         since_ms = excluded.since_ms, received_ms = excluded.received_ms, report = excluded.report",
    )
    .bind(host.as_str())
    .bind(report.app.as_str())
    .bind(text::signed(report.generation.0))
    .bind(text::signed(report.sequence))
    .bind(store::to_millis(since))
    .bind(store::to_millis(now))
    .bind(body.clone())
    .execute(&mut **tx)
    .await?;
    let Some((rollout, target)) = order else { return Ok(()) };
    let output = match target {
        Target::Restore { .. } | Target::Remove if report.hook_output.is_none() => {
            output_before(tx, host, rollout, report).await?
        }
        Target::Stage
        | Target::Candidate { .. }
        | Target::Activate { .. }
        | Target::Restore { .. }
        | Target::Remove => None,
    };
    let body = match output {
        Some(output) => text::from_report(&Report { hook_output: Some(output), ..report.clone() })?,
        None => body,
    };
    sqlx::query("UPDATE rollout_hosts SET report = $1 WHERE host = $2 AND rollout = $3")
        .bind(body)
        .bind(host.as_str())
        .bind(rollout.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Returns what a hook had printed before the host was told to go back: that is what people look for afterwards.
async fn output_before(
    tx: &mut Transaction,
    host: &HostName,
    rollout: &RolloutId,
    report: &Report,
) -> Result<Option<String>, store::Error> {
    let row = sqlx::query("SELECT report FROM rollout_hosts WHERE host = $1 AND rollout = $2")
        .bind(host.as_str())
        .bind(rollout.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let before: Option<String> = row.map_or(Ok(None), |row| row.try_get("report"))?;
    let Some(before) = before else { return Ok(None) };
    Ok(text::to_report("rollout_hosts.report", &report.app, &before)?.hook_output)
}

fn line(
    host: &HostName,
    report: &Report,
    from: Option<Installed>,
    order: Option<(RolloutId, Target)>,
    now: Timestamp,
) -> Line {
    let why = report.reason.as_deref().unwrap_or("no reason given");
    let reason = match (&order, report.phase) {
        (_, Phase::Reverting | Phase::Reverted) => format!("went back by itself: {why}"),
        (Some((_, Target::Restore { .. } | Target::Remove)), _) => "rolled back".to_owned(),
        (Some((_, Target::Stage | Target::Candidate { .. } | Target::Activate { .. })), _) => {
            "rolled out".to_owned()
        }
        (None, _) => "found on the host".to_owned(),
    };
    Line {
        at: now,
        host: host.clone(),
        app: report.app.clone(),
        from,
        to: report.current.clone(),
        rollout: order.map(|(rollout, _)| rollout),
        generation: report.generation,
        reason,
    }
}

/// Forgets what a host reported: one that enrols anew under an old name begins to count from the start.
pub async fn forget_reports(tx: &mut Transaction, host: &HostName) -> Result<(), store::Error> {
    sqlx::query("DELETE FROM reports WHERE host = $1").bind(host.as_str()).execute(&mut **tx).await?;
    Ok(())
}

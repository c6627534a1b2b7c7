//! Reading rollouts and what hosts reported.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use jiff::Timestamp;
use sluice_common::digest::Digest;
use sluice_common::name::{AppName, HostName, OperatorName, RolloutId};
use sluice_common::order::{Generation, Phase, Report};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{checks, origin, text};
use crate::rollout::model::{Cursor, Gate, Issued, Member, Rollout};
use crate::rollout::spec::Spec;
use crate::rollout::state::State;
use crate::rollout::view::Observed;
use crate::store::{self, Store};

/// A rollout as it was read, and the revision that a change of it has to name.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The rollout.
    pub(crate) rollout: Rollout,
    /// Grows with every change.
    pub(crate) revision: i64,
    /// The newest report of each member that answers an order of this rollout.
    pub(crate) reports: Vec<Option<Report>>,
}

impl Stored {
    /// Takes times that lie ahead, because the clock was set back between two runs, for `now`.
    pub(crate) fn forget_future(&mut self, now: Timestamp) {
        for order in self.rollout.members.iter_mut().filter_map(|member| member.order.as_mut()) {
            order.at = order.at.min(now);
        }
    }
}

/// What the database knows of the fleet, for one application.
pub(crate) type Fleet = HashMap<HostName, (Option<Observed>, Generation)>;

/// Reads a rollout; all of it as of one moment.
pub(crate) async fn load(store: &Store, id: &RolloutId) -> Result<Option<Stored>, store::Error> {
    let mut tx = store.read().begin().await?;
    let row = sqlx::query("SELECT * FROM rollouts WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(with_members(&mut tx, &row).await?))
}

/// Reads the newest rollouts, of one application or of all.
pub(crate) async fn list(
    store: &Store,
    app: Option<&AppName>,
    limit: u32,
) -> Result<Vec<Stored>, store::Error> {
    let mut tx = store.read().begin().await?;
    let rows = match app {
        Some(app) => {
            sqlx::query("SELECT * FROM rollouts WHERE app = $1 ORDER BY number DESC LIMIT $2")
                .bind(app.as_str())
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?
        }
        None => {
            sqlx::query("SELECT * FROM rollouts ORDER BY number DESC LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?
        }
    };
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        list.push(with_members(&mut tx, row).await?);
    }
    Ok(list)
}

/// Returns the rollouts that somebody has to drive, oldest first.
pub(crate) async fn unfinished(store: &Store) -> Result<Vec<RolloutId>, store::Error> {
    let rows = sqlx::query(
        "SELECT id FROM rollouts WHERE state IN ('running', 'paused', 'rolling-back') ORDER BY number",
    )
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| store::parse("rollouts.id", row.try_get("id")?)).collect()
}

/// Returns every host that an unfinished rollout of this application holds, with that rollout.
pub(crate) async fn unfinished_hosts(
    connection: &mut AnyConnection,
    app: &AppName,
) -> Result<HashMap<HostName, RolloutId>, store::Error> {
    let rows = sqlx::query(
        "SELECT h.host, h.rollout FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout
         WHERE r.app = $1 AND r.state IN ('running', 'paused', 'rolling-back')",
    )
    .bind(app.as_str())
    .fetch_all(connection)
    .await?;
    let pair = |row: &AnyRow| {
        let host = store::parse("rollout_hosts.host", row.try_get("host")?)?;
        Ok((host, store::parse("rollout_hosts.rollout", row.try_get("rollout")?)?))
    };
    rows.iter().map(pair).collect()
}

/// Returns the package that an unfinished rollout brings to each of its hosts; not what one that goes back leaves there.
pub(crate) async fn unfinished_targets(
    store: &Store,
) -> Result<HashMap<(HostName, AppName), Digest>, store::Error> {
    let rows = sqlx::query(
        "SELECT h.host, r.app, h.package FROM rollout_hosts h JOIN rollouts r ON r.id = h.rollout
         WHERE r.state IN ('running', 'paused')",
    )
    .fetch_all(store.read())
    .await?;
    let target = |row: &AnyRow| {
        let host = store::parse("rollout_hosts.host", row.try_get("host")?)?;
        let app = store::parse("rollouts.app", row.try_get("app")?)?;
        Ok(((host, app), store::parse("rollout_hosts.package", row.try_get("package")?)?))
    };
    rows.iter().map(target).collect()
}

async fn with_members(connection: &mut AnyConnection, row: &AnyRow) -> Result<Stored, store::Error> {
    let id: &str = row.try_get("id")?;
    let app: AppName = store::parse("rollouts.app", row.try_get("app")?)?;
    let rows = sqlx::query("SELECT * FROM rollout_hosts WHERE rollout = $1 ORDER BY position")
        .bind(id.to_owned())
        .fetch_all(&mut *connection)
        .await?;
    let approvals = approvals(connection, id).await?;
    let tallies = checks::tallies(connection, id).await?;
    let mut batches: Vec<Range<usize>> = Vec::new();
    let (mut members, mut reports) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for (position, row) in rows.iter().enumerate() {
        let batch: i64 = row.try_get("batch")?;
        let batch =
            usize::try_from(batch).map_err(|_| store::Error::damaged("rollout_hosts.batch", batch))?;
        match batches.len().checked_sub(batch) {
            Some(1) => batches[batch].end = position + 1,
            Some(0) => batches.push(position..position + 1),
            Some(_) | None => return Err(store::Error::damaged("rollout_hosts.batch", batch)),
        }
        members.push(member(row)?);
        let report: Option<String> = row.try_get("report")?;
        reports.push(report.map(|text| text::to_report("rollout_hosts.report", &app, &text)).transpose()?);
    }
    let mut rollout = Rollout { approvals, tallies, ..rollout(row, app, members, batches)? };
    rollout.awaits = origin::awaited_in(connection, &rollout).await?;
    Ok(Stored { rollout, revision: row.try_get("revision")?, reports })
}

async fn approvals(
    connection: &mut AnyConnection,
    id: &str,
) -> Result<BTreeMap<OperatorName, Timestamp>, store::Error> {
    let rows = sqlx::query("SELECT operator, approved_ms FROM rollout_approvals WHERE rollout = $1")
        .bind(id.to_owned())
        .fetch_all(connection)
        .await?;
    let approval = |row: &AnyRow| {
        let operator = store::parse("rollout_approvals.operator", row.try_get("operator")?)?;
        let at = store::from_millis("rollout_approvals.approved_ms", row.try_get("approved_ms")?)?;
        Ok((operator, at))
    };
    rows.iter().map(approval).collect()
}

/// Reads a rollout but for its approvals and checks.
fn rollout(
    row: &AnyRow,
    app: AppName,
    members: Vec<Member>,
    batches: Vec<Range<usize>>,
) -> Result<Rollout, store::Error> {
    let state: &str = row.try_get("state")?;
    let batch: i64 = row.try_get("batch")?;
    let forgiven: i64 = row.try_get("forgiven")?;
    let ended: Option<i64> = row.try_get("ended_ms")?;
    Ok(Rollout {
        id: store::parse("rollouts.id", row.try_get("id")?)?,
        app,
        version: store::parse("rollouts.version", row.try_get("version")?)?,
        spec: text::from_json::<Spec>("rollouts.spec", row.try_get("spec")?)?,
        members,
        batches,
        state: State::from_parts(state, row.try_get("reason")?)
            .ok_or_else(|| store::Error::damaged("rollouts.state", state))?,
        cursor: Cursor {
            batch: usize::try_from(batch).map_err(|_| store::Error::damaged("rollouts.batch", batch))?,
            gate: gate(row)?,
        },
        is_ready: row.try_get::<Option<i64>, _>("ready")?.is_some(),
        awaits: Vec::new(),
        forgiven: usize::try_from(forgiven)
            .map_err(|_| store::Error::damaged("rollouts.forgiven", forgiven))?,
        tallies: BTreeMap::new(),
        approvals: BTreeMap::new(),
        overridden: row.try_get("overridden")?,
        started_by: store::parse("rollouts.started_by", row.try_get("started_by")?)?,
        started: store::from_millis("rollouts.started_ms", row.try_get("started_ms")?)?,
        ended: ended.map(|millis| store::from_millis("rollouts.ended_ms", millis)).transpose()?,
    })
}

fn gate(row: &AnyRow) -> Result<Gate, store::Error> {
    let since: Option<i64> = row.try_get("baking_ms")?;
    match (row.try_get::<&str, _>("gate")?, since) {
        ("waiting", _) => Ok(Gate::Waiting),
        ("open", _) => Ok(Gate::Open),
        ("baking", Some(since)) => {
            Ok(Gate::Baking { since: store::from_millis("rollouts.baking_ms", since)? })
        }
        (gate, _) => Err(store::Error::damaged("rollouts.gate", gate)),
    }
}

fn member(row: &AnyRow) -> Result<Member, store::Error> {
    let generation: Option<i64> = row.try_get("generation")?;
    let target: Option<&str> = row.try_get("target")?;
    let at: Option<i64> = row.try_get("ordered_ms")?;
    let order = match (generation, target, at) {
        (Some(generation), Some(target), Some(at)) => Some(Issued {
            generation: Generation(store::unsigned("rollout_hosts.generation", generation)?),
            target: text::from_json("rollout_hosts.target", target)?,
            at: store::from_millis("rollout_hosts.ordered_ms", at)?,
        }),
        (None, None, None) => None,
        (_, _, _) => return Err(store::Error::damaged("rollout_hosts.generation", "half an order")),
    };
    let failure: Option<&str> = row.try_get("failure")?;
    Ok(Member {
        host: store::parse("rollout_hosts.host", row.try_get("host")?)?,
        site: store::parse("rollout_hosts.site", row.try_get("site")?)?,
        domain: row.try_get("domain")?,
        package: store::parse("rollout_hosts.package", row.try_get("package")?)?,
        order,
        migrates: row.try_get::<Option<i64>, _>("migrates")?.is_some(),
        failure: failure.map(|text| text::from_json("rollout_hosts.failure", text)).transpose()?,
    })
}

const FLEET_REPORTS: &str = "SELECT r.host, r.since_ms, r.report FROM reports r
    JOIN rollout_hosts h ON h.host = r.host WHERE h.rollout = $1 AND r.app = $2";
const FLEET_ORDERS: &str = "SELECT o.host, MAX(o.generation) AS generation FROM orders o
    JOIN rollout_hosts h ON h.host = o.host WHERE h.rollout = $1 AND o.app = $2 GROUP BY o.host";

/// Reads what is known of every host of a rollout. A `since` that lies ahead, because the clock was set back between two
/// runs, counts as `now`.
pub(crate) async fn fleet(store: &Store, rollout: &Rollout, now: Timestamp) -> Result<Fleet, store::Error> {
    let mut tx = store.read().begin().await?;
    let mut fleet = Fleet::with_capacity(rollout.members.len());
    for sql in [FLEET_REPORTS, FLEET_ORDERS] {
        let rows =
            sqlx::query(sql).bind(rollout.id.as_str()).bind(rollout.app.as_str()).fetch_all(&mut *tx).await?;
        for row in &rows {
            let host = store::parse("reports.host", row.try_get("host")?)?;
            let known = fleet.entry(host).or_default();
            if sql == FLEET_REPORTS {
                known.0 = Some(observed(row, &rollout.app, now)?);
            } else {
                known.1 = Generation(store::unsigned("orders.generation", row.try_get("generation")?)?);
            }
        }
    }
    Ok(fleet)
}

/// Reads what is known of some hosts, which had news.
pub(crate) async fn fleet_of(
    store: &Store,
    app: &AppName,
    hosts: &[HostName],
    now: Timestamp,
) -> Result<Fleet, store::Error> {
    let mut tx = store.read().begin().await?;
    let mut fleet = Fleet::with_capacity(hosts.len());
    for host in hosts {
        let report = sqlx::query("SELECT since_ms, report FROM reports WHERE host = $1 AND app = $2")
            .bind(host.as_str())
            .bind(app.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let report = report.as_ref().map(|row| observed(row, app, now)).transpose()?;
        let newest = newest_generation(&mut tx, host, app).await?;
        fleet.insert(host.clone(), (report, newest));
    }
    Ok(fleet)
}

/// Returns the newest generation ordered of an application on a host; 0 for none.
pub(super) async fn newest_generation(
    connection: &mut AnyConnection,
    host: &HostName,
    app: &AppName,
) -> Result<Generation, store::Error> {
    let row = sqlx::query(
        "SELECT generation FROM orders WHERE host = $1 AND app = $2 ORDER BY generation DESC LIMIT 1",
    )
    .bind(host.as_str())
    .bind(app.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(Generation::default()) };
    Ok(Generation(store::unsigned("orders.generation", row.try_get("generation")?)?))
}

fn observed(row: &AnyRow, app: &AppName, now: Timestamp) -> Result<Observed, store::Error> {
    let report = text::to_report("reports.report", app, row.try_get("report")?)?;
    let since = store::from_millis("reports.since_ms", row.try_get("since_ms")?)?;
    Ok(Observed::of(report, since.min(now)))
}

/// Says whether a host runs `package` and has said so as the end of its newest order.
pub(crate) fn is_settled(observed: Option<&Observed>, package: &Digest) -> bool {
    observed.is_some_and(|o| {
        o.phase == Phase::Active && o.current.as_ref().is_some_and(|c| c.package == *package)
    })
}

/// Returns the newest report of every application, on one host or on all.
pub(crate) async fn reports(
    store: &Store,
    host: Option<&HostName>,
) -> Result<Vec<(HostName, Report)>, store::Error> {
    let rows = match host {
        Some(host) => {
            sqlx::query("SELECT host, app, report FROM reports WHERE host = $1 ORDER BY app")
                .bind(host.as_str())
                .fetch_all(store.read())
                .await?
        }
        None => {
            sqlx::query("SELECT host, app, report FROM reports ORDER BY host, app")
                .fetch_all(store.read())
                .await?
        }
    };
    let report = |row: &AnyRow| {
        let app = store::parse("reports.app", row.try_get("app")?)?;
        let host = store::parse("reports.host", row.try_get("host")?)?;
        Ok((host, text::to_report("reports.report", &app, row.try_get("report")?)?))
    };
    rows.iter().map(report).collect()
}

/// Returns what every host is known to run of one application.
pub(crate) async fn fleet_running(
    store: &Store,
    app: &AppName,
    now: Timestamp,
) -> Result<Fleet, store::Error> {
    let rows = sqlx::query("SELECT host, since_ms, report FROM reports WHERE app = $1")
        .bind(app.as_str())
        .fetch_all(store.read())
        .await?;
    let entry = |row: &AnyRow| {
        let host = store::parse("reports.host", row.try_get("host")?)?;
        Ok((host, (Some(observed(row, app, now)?), Generation::default())))
    };
    rows.iter().map(entry).collect()
}

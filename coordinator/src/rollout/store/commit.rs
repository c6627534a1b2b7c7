//! Writing rollouts: a new one, and the actions of one plan or command.

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_common::name::OperatorName;
use sluice_common::order::Installed;

use super::load::newest_generation;
use super::{checks, line, origin, text};
use crate::audit::{self, Entry};
use crate::notify::{event, store as listeners};
use crate::rollout::action::Action;
use crate::rollout::line::stops;
use crate::rollout::model::{Gate, Member, Rollout, Target};
use crate::rollout::state::State;
use crate::store::{self, Transaction};

/// Says why actions were not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The rollout, or the orders of one of its hosts, changed since the actions were planned: read again, plan again.
    #[error("somebody else changed the rollout")]
    Conflict,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Writes a new rollout and its audit entry.
pub(crate) async fn insert(tx: &mut Transaction, rollout: &Rollout, number: i64) -> Result<(), store::Error> {
    let Rollout {
        id,
        app,
        version,
        spec,
        members,
        batches,
        state,
        cursor: _,
        is_ready: _,
        awaits: _,
        forgiven: _,
        tallies: _,
        approvals: _,
        overridden: _,
        started_by,
        started,
        ended: _,
    } = rollout;
    let spec_text = text::json(spec)?;
    sqlx::query(
        "INSERT INTO rollouts (number, id, app, version, spec, state, batch, gate, forgiven, started_by, started_ms, revision)
         VALUES ($1, $2, $3, $4, $5, $6, 0, 'waiting', 0, $7, $8, 1)",
    )
    .bind(number)
    .bind(id.as_str())
    .bind(app.as_str())
    .bind(version.as_str())
    .bind(spec_text)
    .bind(state.as_str())
    .bind(started_by.as_str())
    .bind(store::to_millis(*started))
    .execute(&mut **tx)
    .await?;
    origin::note(tx, rollout).await?;
    for (batch, range) in batches.iter().enumerate() {
        for position in range.clone() {
            insert_member(tx, rollout, &members[position], position, batch).await?;
        }
    }
    let detail = json!({ "app": app, "version": version, "spec": spec, "hosts": members.len(), "batches": batches.len() });
    audit::append(tx, Entry { action: "rollout.start", subject: id.as_str(), detail }).await?;
    tell(tx, rollout, 0, &event::of_start(rollout), *started).await
}

/// Queues what listeners are to be told.
async fn tell(
    tx: &mut Transaction,
    rollout: &Rollout,
    revision: i64,
    kinds: &[&'static str],
    now: Timestamp,
) -> Result<(), store::Error> {
    if kinds.is_empty() || !listeners::has_listeners(tx).await? {
        return Ok(());
    }
    let notes = listeners::notes(tx, &rollout.app, &rollout.version).await?;
    for kind in kinds {
        listeners::queue(tx, &event::of_rollout(rollout, revision, kind, &notes, now), now).await?;
    }
    Ok(())
}

async fn insert_member(
    tx: &mut Transaction,
    rollout: &Rollout,
    member: &Member,
    position: usize,
    batch: usize,
) -> Result<(), store::Error> {
    let Member { host, site, domain, package, order: _, migrates: _, failure: _ } = member;
    sqlx::query(
        "INSERT INTO rollout_hosts (rollout, position, batch, host, site, package, domain)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(rollout.id.as_str())
    .bind(text::signed(position as u64))
    .bind(text::signed(batch as u64))
    .bind(host.as_str())
    .bind(site.as_str())
    .bind(package.to_string())
    .bind(domain.as_deref())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes what `actions` change of a rollout that was read at `revision`, with its audit entry; `rollout` has them
/// applied already. The caller commits.
pub(crate) async fn commit(
    tx: &mut Transaction,
    rollout: &Rollout,
    revision: i64,
    actions: &[Action],
    now: Timestamp,
) -> Result<(), CommitError> {
    update(tx, rollout, revision).await?;
    if stops(rollout, actions) {
        line::stop(tx, rollout, now).await?;
    }
    for action in actions {
        match action {
            Action::Order { member, target, .. } => order(tx, rollout, *member, target, now).await?,
            Action::Migrates { member } => {
                sqlx::query("UPDATE rollout_hosts SET migrates = 1 WHERE rollout = $1 AND position = $2")
                    .bind(rollout.id.as_str())
                    .bind(text::signed(*member as u64))
                    .execute(&mut **tx)
                    .await?;
            }
            Action::Ready => {
                sqlx::query("UPDATE rollouts SET ready = 1 WHERE id = $1")
                    .bind(rollout.id.as_str())
                    .execute(&mut **tx)
                    .await?;
            }
            Action::HostFailed { member, failure } => {
                sqlx::query("UPDATE rollout_hosts SET failure = $1 WHERE rollout = $2 AND position = $3")
                    .bind(text::json(failure)?)
                    .bind(rollout.id.as_str())
                    .bind(text::signed(*member as u64))
                    .execute(&mut **tx)
                    .await?;
            }
            Action::Approve { by } => approve(tx, rollout, by, now).await?,
            Action::CheckFailed { batch, name, reason } => {
                checks::fail(tx, &rollout.id, *batch, name, reason).await?;
            }
            Action::Resume => checks::forgive(tx, &rollout.id).await?,
            Action::BatchOpened { .. }
            | Action::BakeStarted { .. }
            | Action::BakeBroken { .. }
            | Action::BatchPassed { .. }
            | Action::BeginRollback { .. }
            | Action::Pause { .. }
            | Action::Override { .. }
            | Action::Finish { .. } => {}
        }
    }
    let entry =
        Entry { action: verb(actions), subject: rollout.id.as_str(), detail: detail(rollout, actions) };
    audit::append(tx, entry).await?;
    Ok(tell(tx, rollout, revision, &event::of_actions(actions), now).await?)
}

async fn update(tx: &mut Transaction, rollout: &Rollout, revision: i64) -> Result<(), CommitError> {
    let (gate, baking) = match rollout.cursor.gate {
        Gate::Waiting => ("waiting", None),
        Gate::Open => ("open", None),
        Gate::Baking { since } => ("baking", Some(store::to_millis(since))),
    };
    let done = sqlx::query(
        "UPDATE rollouts SET state = $1, reason = $2, batch = $3, gate = $4, baking_ms = $5, forgiven = $6,
         ended_ms = $7, overridden = $8, revision = revision + 1 WHERE id = $9 AND revision = $10",
    )
    .bind(rollout.state.as_str())
    .bind(rollout.state.reason().map(str::to_owned))
    .bind(text::signed(rollout.cursor.batch as u64))
    .bind(gate)
    .bind(baking)
    .bind(text::signed(rollout.forgiven as u64))
    .bind(rollout.ended.map(store::to_millis))
    .bind(rollout.overridden.clone())
    .bind(rollout.id.as_str())
    .bind(revision)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(CommitError::Conflict) }
}

async fn approve(
    tx: &mut Transaction,
    rollout: &Rollout,
    by: &OperatorName,
    now: Timestamp,
) -> Result<(), CommitError> {
    sqlx::query("INSERT INTO rollout_approvals (rollout, operator, approved_ms) VALUES ($1, $2, $3)")
        .bind(rollout.id.as_str())
        .bind(by.as_str())
        .bind(store::to_millis(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn order(
    tx: &mut Transaction,
    rollout: &Rollout,
    position: usize,
    target: &Target,
    now: Timestamp,
) -> Result<(), CommitError> {
    let damaged = || store::Error::damaged("rollout_hosts.position", position);
    let member = rollout.members.get(position).ok_or_else(damaged)?;
    let generation = member.order.as_ref().ok_or_else(damaged)?.generation;
    // Somebody else's order came first: what was planned no longer fits.
    if newest_generation(tx, &member.host, &rollout.app).await? >= generation {
        return Err(CommitError::Conflict);
    }
    let wanted = match target {
        Target::Stage | Target::Candidate { .. } | Target::Activate { .. } => {
            Some(Installed { package: member.package, version: rollout.version.clone() })
        }
        Target::Restore { to } => Some(to.clone()),
        Target::Remove => None,
    };
    let target = text::json(target)?;
    sqlx::query(
        "INSERT INTO orders (host, app, generation, rollout, target, package, version, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(member.host.as_str())
    .bind(rollout.app.as_str())
    .bind(text::signed(generation.0))
    .bind(rollout.id.as_str())
    .bind(target.clone())
    .bind(wanted.as_ref().map(|wanted| wanted.package.to_string()))
    .bind(wanted.as_ref().map(|wanted| wanted.version.to_string()))
    .bind(store::to_millis(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE rollout_hosts SET generation = $1, target = $2, ordered_ms = $3 WHERE rollout = $4 AND position = $5",
    )
    .bind(text::signed(generation.0))
    .bind(target)
    .bind(store::to_millis(now))
    .bind(rollout.id.as_str())
    .bind(text::signed(position as u64))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Names a commit after the weightiest of its actions.
fn verb(actions: &[Action]) -> &'static str {
    let weight = |action: &Action| match action {
        Action::Finish { state: State::Aborted { .. } } => (11, "rollout.abort"),
        Action::Finish { .. } => (10, "rollout.finish"),
        Action::Override { .. } => (9, "rollout.override"),
        Action::Approve { .. } => (8, "rollout.approve"),
        Action::BeginRollback { .. } => (7, "rollout.roll_back"),
        Action::Pause { .. } => (6, "rollout.pause"),
        Action::Resume => (5, "rollout.resume"),
        Action::HostFailed { .. } => (4, "rollout.host_fail"),
        Action::CheckFailed { .. } => (4, "rollout.check_fail"),
        Action::BatchPassed { .. } => (3, "rollout.batch_pass"),
        Action::BatchOpened { .. } => (2, "rollout.batch_open"),
        Action::Order { .. } | Action::Migrates { .. } => (1, "rollout.order"),
        Action::Ready => (1, "rollout.ready"),
        Action::BakeStarted { .. } | Action::BakeBroken { .. } => (0, "rollout.bake"),
    };
    actions.iter().map(weight).max().map_or("rollout.keep", |(_, verb)| verb)
}

/// Says everything that the actions change: the log alone tells what was decided.
fn detail(rollout: &Rollout, actions: &[Action]) -> Value {
    let host = |member: &usize| rollout.members.get(*member).map(|member| member.host.as_str());
    let (mut orders, mut failures, mut gates) = (Vec::new(), Vec::new(), Vec::new());
    let mut detail = serde_json::Map::new();
    for action in actions {
        match action {
            Action::Order { member, generation, target } => {
                orders.push(json!([host(member), generation, word(target)]));
            }
            Action::Migrates { member } => drop(detail.insert("migrates".to_owned(), json!(host(member)))),
            Action::Ready => gates.push(json!(["ready"])),
            Action::HostFailed { member, failure } => {
                failures.push(json!([host(member), failure.to_string()]));
            }
            Action::CheckFailed { batch, name, reason } => {
                gates.push(json!(["check", batch, name, reason]));
            }
            Action::BatchOpened { batch } => gates.push(json!(["open", batch])),
            Action::BakeStarted { batch, since } => gates.push(json!(["bake", batch, since.to_string()])),
            Action::BakeBroken { batch } => gates.push(json!(["broken", batch])),
            Action::BatchPassed { batch } => gates.push(json!(["pass", batch])),
            Action::Override { reason } => drop(detail.insert("override".to_owned(), json!(reason))),
            Action::BeginRollback { .. }
            | Action::Pause { .. }
            | Action::Resume
            | Action::Approve { .. }
            | Action::Finish { .. } => {}
        }
    }
    for (key, list) in [("orders", orders), ("failures", failures), ("gates", gates)] {
        if !list.is_empty() {
            detail.insert(key.to_owned(), Value::Array(list));
        }
    }
    if stops(rollout, actions) {
        detail.insert("closes".to_owned(), json!(rollout.app));
    }
    detail.insert("state".to_owned(), json!(rollout.state.as_str()));
    if let Some(reason) = rollout.state.reason() {
        detail.insert("reason".to_owned(), json!(reason));
    }
    Value::Object(detail)
}

fn word(target: &Target) -> &'static str {
    match target {
        Target::Stage => "stage",
        Target::Candidate { .. } => "candidate",
        Target::Activate { .. } => "activate",
        Target::Restore { .. } => "restore",
        Target::Remove => "remove",
    }
}

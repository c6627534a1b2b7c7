//! What the checks of a rollout have said: one row for each batch and check, however often it was asked.

use std::collections::BTreeMap;

use sluice_common::name::RolloutId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::text;
use crate::rollout::check::{CheckName, Outcome, Said, Tally};
use crate::store::{self, Transaction};

/// Writes one more sample and returns the tally with it.
pub(crate) async fn sampled(
    tx: &mut Transaction,
    rollout: &RolloutId,
    batch: usize,
    name: &CheckName,
    said: Said,
) -> Result<Tally, store::Error> {
    let mut tally = tallies(tx, rollout.as_str()).await?.remove(&(batch, name.clone())).unwrap_or_default();
    tally.take(said);
    let Tally { samples, passed, first, newest, failure: _ } = &tally;
    let said = newest.as_ref();
    sqlx::query(
        "INSERT INTO rollout_checks (rollout, batch, name, samples, passed, first_ms, newest_ms, outcome, words)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (rollout, batch, name) DO UPDATE SET samples = excluded.samples, passed = excluded.passed,
         first_ms = excluded.first_ms, newest_ms = excluded.newest_ms, outcome = excluded.outcome, words = excluded.words",
    )
    .bind(rollout.as_str())
    .bind(text::signed(batch as u64))
    .bind(name.as_str())
    .bind(text::signed(*samples))
    .bind(text::signed(*passed))
    .bind(first.map(store::to_millis))
    .bind(said.map(|said| store::to_millis(said.at)))
    .bind(said.map(|said| said.outcome.as_str()))
    .bind(said.map(|said| said.words.clone()))
    .execute(&mut **tx)
    .await?;
    Ok(tally)
}

/// Writes that a check has failed, and the rollout with it.
pub(super) async fn fail(
    tx: &mut Transaction,
    rollout: &RolloutId,
    batch: usize,
    name: &CheckName,
    reason: &str,
) -> Result<(), store::Error> {
    sqlx::query(
        "INSERT INTO rollout_checks (rollout, batch, name, samples, passed, failure) VALUES ($1, $2, $3, 0, 0, $4)
         ON CONFLICT (rollout, batch, name) DO UPDATE SET failure = excluded.failure",
    )
    .bind(rollout.as_str())
    .bind(text::signed(batch as u64))
    .bind(name.as_str())
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Lets every check of a rollout begin anew.
pub(super) async fn forgive(tx: &mut Transaction, rollout: &RolloutId) -> Result<(), store::Error> {
    sqlx::query(
        "UPDATE rollout_checks SET first_ms = NULL, newest_ms = NULL, outcome = NULL, words = NULL, failure = NULL
         WHERE rollout = $1",
    )
    .bind(rollout.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Reads what the checks of a rollout have said.
pub(super) async fn tallies(
    connection: &mut AnyConnection,
    rollout: &str,
) -> Result<BTreeMap<(usize, CheckName), Tally>, store::Error> {
    let rows = sqlx::query("SELECT * FROM rollout_checks WHERE rollout = $1")
        .bind(rollout.to_owned())
        .fetch_all(connection)
        .await?;
    rows.iter().map(tally).collect()
}

fn tally(row: &AnyRow) -> Result<((usize, CheckName), Tally), store::Error> {
    let batch: i64 = row.try_get("batch")?;
    let batch = usize::try_from(batch).map_err(|_| store::Error::damaged("rollout_checks.batch", batch))?;
    let name = store::parse("rollout_checks.name", row.try_get("name")?)?;
    let time = |column| row.try_get::<Option<i64>, _>(column);
    let (first, newest) = (time("first_ms")?, time("newest_ms")?);
    let time = |millis| store::from_millis("rollout_checks.newest_ms", millis);
    let tally = Tally {
        samples: store::unsigned("rollout_checks.samples", row.try_get("samples")?)?,
        passed: store::unsigned("rollout_checks.passed", row.try_get("passed")?)?,
        first: first.map(time).transpose()?,
        newest: newest.map(|at| said(row, time(at)?)).transpose()?,
        failure: row.try_get("failure")?,
    };
    Ok(((batch, name), tally))
}

fn said(row: &AnyRow, at: jiff::Timestamp) -> Result<Said, store::Error> {
    let outcome: &str = row.try_get("outcome")?;
    let outcome = Outcome::from_name(outcome)
        .ok_or_else(|| store::Error::damaged("rollout_checks.outcome", outcome))?;
    Ok(Said { at, outcome, words: row.try_get("words")? })
}

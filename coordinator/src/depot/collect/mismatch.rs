//! Packs that rows name and that are missing: a disk has lost them, or an older database was brought back over newer objects. Then what
//! no row names may be what the newer database names, so nothing goes for a while that cannot be made anew, whatever becomes of
//! the rows that told of it.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use sluice_common::caps;
use sluice_common::digest::Digest;
use sqlx::Row;

use super::{CollectError, survey};
use crate::depot::{Depot, chunks};
use crate::store::{self, Actor, Store, Transaction};

/// What is to be done about packs that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// None are.
    Sound,
    /// What no row names stays until then.
    Waits(Timestamp),
    /// They are lost.
    Lost,
}

/// Judges by whether packs are missing, and since when that is known. A newer database does not know of it. Pure.
fn judge(is_missing: bool, since: Option<Timestamp>, now: Timestamp) -> Verdict {
    let Some(since) = since.or(is_missing.then_some(now)) else { return Verdict::Sound };
    let patience = SignedDuration::try_from(caps::UNRELEASED_PACKAGE_TTL).unwrap_or(SignedDuration::MAX);
    match since.saturating_add(patience) {
        Ok(until) if until > now => Verdict::Waits(until),
        Ok(_) | Err(_) => Verdict::Lost,
    }
}

/// Looks for packs that are missing: returns how many are, and until when what no row names stays for that. Those that have been missing
/// for long are forgotten; a dry run writes nothing.
pub(super) async fn look(depot: &Depot, is_dry: bool) -> Result<Option<(u64, Timestamp)>, CollectError> {
    let missing = survey::missing_packs(depot).await?;
    let (since, now) = (since(&depot.store).await?, Timestamp::now());
    match judge(!missing.is_empty(), since, now) {
        Verdict::Sound => Ok(None),
        Verdict::Waits(until) => {
            if since.is_none() && !is_dry {
                let mut tx = depot.store.begin(Actor::coordinator()).await?;
                note(&mut tx, now).await?;
                tx.commit_observation().await?;
            }
            Ok(Some((missing.len() as u64, until)))
        }
        Verdict::Lost if is_dry => Ok(None),
        Verdict::Lost => accept(depot, &missing).await.map(|()| None),
    }
}

/// Takes the packs that are missing for lost, and the database for the newest there is.
pub(super) async fn accept_all(depot: &Depot) -> Result<(), CollectError> {
    let missing = survey::missing_packs(depot).await?;
    accept(depot, &missing).await
}

async fn accept(depot: &Depot, missing: &HashSet<Digest>) -> Result<(), CollectError> {
    for pack in missing {
        let chunks = chunks::forget_lost::<CollectError>(&depot.store, &depot.objects, *pack).await?;
        tracing::warn!(%pack, chunks, "a pack is lost; push the packages again that were made of it");
    }
    let mut tx = depot.store.begin(Actor::coordinator()).await?;
    sqlx::query("DELETE FROM depot_missing_packs").execute(&mut *tx).await.map_err(store::Error::from)?;
    Ok(tx.commit_observation().await?)
}

/// Notes that packs are missing, unless that is known.
pub(in crate::depot) async fn note(tx: &mut Transaction, now: Timestamp) -> Result<(), store::Error> {
    sqlx::query("INSERT INTO depot_missing_packs (id, since_ms) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
        .bind(store::to_millis(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn since(store: &Store) -> Result<Option<Timestamp>, store::Error> {
    let row = sqlx::query("SELECT since_ms FROM depot_missing_packs").fetch_optional(store.read()).await?;
    row.map(|row| store::from_millis("depot_missing_packs.since_ms", row.try_get(0)?)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_row_names_stays_for_as_long_as_a_package_nobody_released() {
        let at = |hour: i64| Timestamp::from_second(hour * 3_600).unwrap();
        let week = 7 * 24;
        for (name, is_missing, since, now, expected) in [
            ("all are there", false, None, 1_000, Verdict::Sound),
            ("some are missing", true, None, 1_000, Verdict::Waits(at(1_000 + week))),
            ("they are still", true, Some(1_000), 1_100, Verdict::Waits(at(1_000 + week))),
            ("their rows are gone", false, Some(1_000), 1_100, Verdict::Waits(at(1_000 + week))),
            ("for so long", true, Some(1_000), 1_000 + week, Verdict::Lost),
            ("their rows are gone for so long", false, Some(1_000), 1_001 + week, Verdict::Lost),
        ] {
            assert_eq!(judge(is_missing, since.map(at), at(now)), expected, "{name}");
        }
    }
}

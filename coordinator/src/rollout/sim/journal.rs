//! The same simulation over the real tables: every commit and every report goes through the database, what is read
//! back must be what was meant, a coordinator that died goes on from there, and one that was overtaken changes nothing.

use anyhow::Context;
use sluice_common::name::HostName;
use sluice_common::order::Report;
use tokio::runtime::Runtime;

use super::host::Told;
use crate::audit;
use crate::rollout::store::{CommitError, commit, fleet, insert, load, record, stops};
use crate::rollout::{Action, FleetView, Rollout};
use crate::store::{Actor, Schema, Store};

/// Every so many commits, a coordinator that was overtaken tries the same once more.
const OVERTAKEN_EVERY: i64 = 3;
/// Every so many commits, a journal with a slip slips.
const SLIPS_EVERY: i64 = 4;

/// What a journal does wrong, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// A write that was planned on an older revision is let through.
    ForgetsTheFence,
    /// A commit is acknowledged and lost.
    LosesACommit,
    /// A commit leaves no entry in the audit log.
    SkipsTheAudit,
}

pub(super) struct Journal {
    runtime: Runtime,
    store: Store,
    revision: i64,
    slip: Option<Slip>,
    dir: tempfile::TempDir,
}

/// Puts a failure of the database among the violations: it is none of the rules, and yet nothing holds without it.
fn told<T>(done: anyhow::Result<T>) -> Result<T, String> {
    done.map_err(|error| format!("database: {error:#}"))
}

impl Journal {
    pub(super) fn new(rollout: &Rollout, slip: Option<Slip>) -> Self {
        Self::begin(rollout, slip).expect("a directory of its own takes a new database")
    }

    fn begin(rollout: &Rollout, slip: Option<Slip>) -> anyhow::Result<Self> {
        // Syncing is not what is tested here; memory spares the disk some ten thousand of them.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(async {
            let store = Store::open(dir.path(), Schema::Migrate).await?;
            let mut tx = store.begin(Actor::console()).await?;
            insert(&mut tx, rollout, 1).await?;
            tx.commit().await?;
            anyhow::Ok(store)
        })?;
        Ok(Self { runtime, store, revision: 1, slip, dir })
    }

    fn slips(&self, slip: Slip) -> bool {
        self.slip == Some(slip) && self.revision % SLIPS_EVERY == 0
    }

    /// Commits actions that `rollout` has applied already; then somebody who was overtaken tries it too.
    pub(super) fn commit(
        &mut self,
        rollout: &Rollout,
        actions: &[Action],
        now: jiff::Timestamp,
    ) -> Result<(), String> {
        if !self.slips(Slip::LosesACommit) {
            told(self.runtime.block_on(self.write(rollout, self.revision, actions, now)))?
                .then_some(())
                .ok_or("I13: a commit on the newest revision was refused")?;
        }
        self.revision += 1;
        if self.slips(Slip::SkipsTheAudit) {
            told(self.runtime.block_on(self.forget_entry()))?;
        }
        if self.revision % OVERTAKEN_EVERY == 0 {
            self.overtaken(rollout, actions, now)?;
        }
        Ok(())
    }

    fn overtaken(&self, rollout: &Rollout, actions: &[Action], now: jiff::Timestamp) -> Result<(), String> {
        let known = if self.slip == Some(Slip::ForgetsTheFence) { self.revision } else { self.revision - 1 };
        match told(self.runtime.block_on(self.write(rollout, known, actions, now)))? {
            true => Err(format!("I13: a write planned before revision {} was let through", self.revision)),
            false => Ok(()),
        }
    }

    /// Writes what was planned on a revision; says whether it was taken.
    async fn write(
        &self,
        rollout: &Rollout,
        revision: i64,
        actions: &[Action],
        now: jiff::Timestamp,
    ) -> anyhow::Result<bool> {
        let mut tx = self.store.begin(Actor::coordinator()).await?;
        match commit(&mut tx, rollout, revision, actions, now).await {
            Ok(()) => tx.commit().await?,
            Err(CommitError::Conflict) => {
                tx.roll_back().await?;
                return Ok(false);
            }
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        Ok(true)
    }

    async fn forget_entry(&self) -> anyhow::Result<()> {
        let mut tx = self.store.begin(Actor::coordinator()).await?;
        sqlx::query("DELETE FROM audit WHERE number = (SELECT MAX(number) FROM audit)")
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit_observation().await?)
    }

    /// Opens the database again, as whoever comes after a coordinator that died.
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        let opened = self.runtime.block_on(Store::open(self.dir.path(), Schema::Migrate));
        self.store = told(opened.context("cannot be opened again"))?;
        Ok(())
    }

    pub(super) fn record(
        &self,
        rollout: &Rollout,
        host: &HostName,
        told_of: &Told,
        now: jiff::Timestamp,
    ) -> Result<(), String> {
        let report = Report {
            app: rollout.app.clone(),
            generation: told_of.generation,
            sequence: told_of.sequence,
            phase: told_of.phase,
            current: told_of.current.clone(),
            previous: None,
            healthy: told_of.healthy,
            reason: None,
            hook_output: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            wire_bytes: 0,
            stage_time: std::time::Duration::ZERO,
            switch_time: std::time::Duration::ZERO,
            drift: None,
        };
        told(self.runtime.block_on(async {
            let mut tx = self.store.begin(Actor::coordinator()).await?;
            record(&mut tx, host, &report, false, now).await?;
            Ok(tx.commit_observation().await?)
        }))
    }

    /// Reads everything back; says what differs from what the simulation means it to be.
    pub(super) fn differs(
        &self,
        rollout: &Rollout,
        view: &FleetView,
        now: jiff::Timestamp,
    ) -> Result<(), String> {
        let (stored, known) = told(self.runtime.block_on(async {
            let stored = load(&self.store, &rollout.id).await?.context("the rollout is gone")?;
            let known = fleet(&self.store, rollout, now).await?;
            anyhow::Ok((stored, known))
        }))?;
        if stored.rollout != *rollout || stored.revision != self.revision {
            return Err(format!("I14: the database holds {:?} instead of {rollout:?}", stored.rollout));
        }
        for (host, meant) in view {
            let (observed, generation) = known.get(host).cloned().unwrap_or_default();
            if observed != meant.observed || generation != meant.generation {
                return Err(format!(
                    "I14: of {host} the database holds {observed:?} {generation} instead of {meant:?}"
                ));
            }
        }
        Ok(())
    }

    /// Checks whether the application is closed to new rollouts.
    pub(super) fn closes(&self, rollout: &Rollout, expected: bool) -> Result<(), String> {
        let stops = told(self.runtime.block_on(async { Ok(stops(&self.store, &rollout.app, 10).await?) }))?;
        match stops.len() == usize::from(expected) {
            true => Ok(()),
            false => Err(format!("line: {stops:?}, though it must be stopped: {expected}")),
        }
    }

    /// Checks the audit log; every commit has its entry.
    pub(super) fn audited(&self) -> Result<(), String> {
        let verdict = told(self.runtime.block_on(async { Ok(audit::verify(&self.store).await?) }))?;
        let entries = self.revision.unsigned_abs();
        match (verdict.broken_at, verdict.entries == entries) {
            (None, true) => Ok(()),
            (_, _) => Err(format!("I17: {verdict:?} after {entries} commits")),
        }
    }
}

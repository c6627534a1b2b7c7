//! The same simulation over the real tables: every commit and every report goes through the database, what is read
//! back must be what was meant, and a coordinator that died goes on from there.

use sluice_common::name::HostName;
use sluice_common::order::Report;
use tokio::runtime::Runtime;

use super::host::Told;
use crate::audit;
use crate::rollout::store::{commit, fleet, insert, load, record, stops};
use crate::rollout::{Action, FleetView, Rollout};
use crate::store::{Actor, Schema, Store};

pub(super) struct Journal {
    runtime: Runtime,
    store: Store,
    revision: i64,
    _dir: tempfile::TempDir,
}

impl Journal {
    pub(super) fn new(rollout: &Rollout) -> Self {
        // Syncing is not what is tested here; memory spares the disk some ten thousand of them.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(async {
            let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
            let mut tx = store.begin(Actor::console()).await.unwrap();
            insert(&mut tx, rollout, 1).await.unwrap();
            tx.commit().await.unwrap();
            store
        });
        Self { runtime, store, revision: 1, _dir: dir }
    }

    /// Commits actions that `rollout` has applied already.
    pub(super) fn commit(&mut self, rollout: &Rollout, actions: &[Action], now: jiff::Timestamp) {
        self.runtime.block_on(async {
            let mut tx = self.store.begin(Actor::coordinator()).await.unwrap();
            commit(&mut tx, rollout, self.revision, actions, now).await.unwrap();
            tx.commit().await.unwrap();
        });
        self.revision += 1;
    }

    pub(super) fn record(&self, rollout: &Rollout, host: &HostName, told: &Told, now: jiff::Timestamp) {
        let report = Report {
            app: rollout.app.clone(),
            generation: told.generation,
            sequence: told.sequence,
            phase: told.phase,
            current: told.current.clone(),
            previous: None,
            healthy: told.healthy,
            reason: None,
            hook_output: None,
            fetched_bytes: 0,
            fetch_total_bytes: 0,
            wire_bytes: 0,
            stage_time: std::time::Duration::ZERO,
            switch_time: std::time::Duration::ZERO,
            drift: None,
        };
        self.runtime.block_on(async {
            let mut tx = self.store.begin(Actor::coordinator()).await.unwrap();
            record(&mut tx, host, &report, false, now).await.unwrap();
            tx.commit_observation().await.unwrap();
        });
    }

    /// Reads everything back; says what differs from what the simulation means it to be.
    pub(super) fn differs(
        &self,
        rollout: &Rollout,
        view: &FleetView,
        now: jiff::Timestamp,
    ) -> Result<(), String> {
        let (stored, known) = self.runtime.block_on(async {
            let stored = load(&self.store, &rollout.id).await.unwrap().unwrap();
            let known = fleet(&self.store, rollout, now).await.unwrap();
            (stored, known)
        });
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
        let stops = self.runtime.block_on(stops(&self.store, &rollout.app, 10)).unwrap();
        match stops.len() == usize::from(expected) {
            true => Ok(()),
            false => Err(format!("line: {stops:?}, though it must be stopped: {expected}")),
        }
    }

    /// Checks the audit log; every commit has its entry.
    pub(super) fn audited(&self) -> Result<(), String> {
        let verdict = self.runtime.block_on(audit::verify(&self.store)).unwrap();
        let entries = u64::try_from(self.revision).unwrap();
        match (verdict.broken_at, verdict.entries == entries) {
            (None, true) => Ok(()),
            (_, _) => Err(format!("I17: {verdict:?} after {entries} commits")),
        }
    }
}

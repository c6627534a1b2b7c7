//! The watcher: owns one driver for every unfinished rollout, and the recorder.
//!
//! At its start it takes up every rollout that is not ended, so that a coordinator that was killed goes on where it was.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_common::name::RolloutId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::handle::Handle;
use super::hosts::Hosts;
use super::prober::Prober;
use super::recorder::{Record, Recorder};
use super::shared::Shared;
use super::store::unfinished;
use crate::store::{self, Store};

/// Reports that may wait for the recorder; sessions beyond it wait their turn.
const REPORTS_WAITING: usize = 1_024;
/// Rollouts that may wait for their driver.
const ROLLOUTS_WAITING: usize = 64;

/// The rollout component, not yet running.
pub struct Service {
    shared: Arc<Shared>,
    wanted: mpsc::Receiver<RolloutId>,
    reports: mpsc::Receiver<Record>,
}

impl Service {
    /// Makes the component and the handle by which everybody else speaks to it.
    pub fn new(store: Store, hosts: Arc<dyn Hosts>, prober: Arc<dyn Prober>) -> (Self, Handle) {
        let (wanted, wanted_out) = mpsc::channel(ROLLOUTS_WAITING);
        let (reports, reports_out) = mpsc::channel::<Record>(REPORTS_WAITING);
        let shared = Arc::new(Shared::new(store, hosts, prober, wanted, reports));
        (Self { shared: Arc::clone(&shared), wanted: wanted_out, reports: reports_out }, Handle::new(shared))
    }

    /// Drives rollouts and records reports until `token` says to stop.
    pub async fn run(self, token: CancellationToken) -> Result<(), store::Error> {
        let Self { shared, mut wanted, reports } = self;
        let mut tasks = JoinSet::new();
        let mut watcher = Watcher { shared, token: token.clone(), drivers: HashMap::new() };
        let recorder = Recorder::new(Arc::clone(&watcher.shared), reports);
        let stop = token.clone();
        tasks.spawn(async move {
            recorder.run(stop).await;
            None
        });
        for id in unfinished(&watcher.shared.store).await? {
            tracing::info!(rollout.id = %id, "rollout taken up");
            watcher.drive(id, &mut tasks);
        }
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                Some(id) = wanted.recv() => watcher.drive(id, &mut tasks),
                Some(ended) = tasks.join_next() => watcher.joined(ended, &mut tasks),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            note_panic(&ended);
        }
        Ok(())
    }
}

struct Watcher {
    shared: Arc<Shared>,
    token: CancellationToken,
    /// Running drivers, and whether one was asked for again meanwhile.
    drivers: HashMap<RolloutId, bool>,
}

type Ended = Result<Option<RolloutId>, tokio::task::JoinError>;

impl Watcher {
    fn drive(&mut self, id: RolloutId, tasks: &mut JoinSet<Option<RolloutId>>) {
        if let Some(again) = self.drivers.get_mut(&id) {
            // It may be about to leave, having read that the rollout has ended.
            *again = true;
            return;
        }
        self.drivers.insert(id.clone(), false);
        let driver = Driver::new(Arc::clone(&self.shared), id.clone());
        let token = self.token.clone();
        tasks.spawn(async move {
            driver.run(token).await;
            Some(id)
        });
    }

    fn joined(&mut self, ended: Ended, tasks: &mut JoinSet<Option<RolloutId>>) {
        note_panic(&ended);
        let Ok(Some(id)) = ended else { return };
        match self.drivers.remove(&id) {
            Some(true) => self.drive(id, tasks),
            Some(false) | None => self.shared.close_inbox(&id),
        }
    }
}

fn note_panic(ended: &Ended) {
    if let Err(error) = ended {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "a rollout task died; restart the coordinator"
        );
    }
}

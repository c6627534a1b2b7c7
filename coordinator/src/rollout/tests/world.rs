//! A coordinator that can be killed, and hosts on paper, which cannot: they obey at once.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::name::{AppName, RolloutId};
use sluice_common::order::{Phase, Report};
use sluice_common::units::Share;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(super) use crate::rollout::paper::BAD;
use crate::rollout::paper::{self, Paper, obedience, spawn};
use crate::rollout::{Command, CommandError, Handle, Service, Snapshot, Spec, StartError, Strategy};
use crate::store::{Actor, Schema, Store};

/// A coordinator that can be killed, and its hosts, which cannot.
pub(super) struct World {
    pub(super) paper: Arc<Paper>,
    pub(super) store: Store,
    pub(super) handle: Handle,
    _tasks: Vec<AbortOnDropHandle<()>>,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(hosts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        for version in ["1", "2", BAD] {
            paper::release(&store, &app(), version, Digest::of(version.as_bytes())).await;
        }
        Self::over(dir, store, Paper::with(hosts))
    }

    pub(super) fn over(dir: tempfile::TempDir, store: Store, paper: Arc<Paper>) -> Self {
        let (service, handle) =
            Service::new(store.clone(), Arc::<Paper>::clone(&paper), Arc::<Paper>::clone(&paper) as _);
        let tasks = vec![
            spawn(async move { service.run(CancellationToken::new()).await.unwrap() }),
            spawn(obedience(Arc::clone(&paper), handle.clone())),
        ];
        Self { paper, store, handle, _tasks: tasks, dir }
    }

    /// Kills the coordinator where it stands and starts another over the same directory.
    pub(super) async fn kill(self) -> Self {
        let Self { paper, store, handle, _tasks, dir } = self;
        drop((_tasks, handle));
        store.close().await;
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        Self::over(dir, store, paper)
    }

    pub(super) async fn start(&self, version: &str, spec: Spec) -> Result<RolloutId, StartError> {
        let by = "alice".parse().unwrap();
        self.handle.start(&by, Actor::console(), app(), version.parse().unwrap(), spec).await
    }

    pub(super) async fn look(&self, id: &RolloutId) -> Snapshot {
        self.handle.snapshot(id).await.unwrap().unwrap()
    }

    /// Waits until something holds of a rollout.
    pub(super) async fn until(&self, id: &RolloutId, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        for _ in 0..3_000 {
            let snapshot = self.look(id).await;
            if holds(&snapshot) {
                return snapshot;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came to it: {:#?}", self.look(id).await);
    }

    pub(super) async fn ended(&self, id: &RolloutId) -> Snapshot {
        self.until(id, |snapshot| snapshot.rollout.state.is_ended()).await
    }

    /// Returns the version that each host runs.
    pub(super) fn versions(&self) -> String {
        self.paper.versions(&app())
    }

    pub(super) async fn command(&self, id: &RolloutId, command: Command) -> Result<(), CommandError> {
        self.handle.command(Actor::console(), id, command).await
    }
}

pub(super) fn a_report(generation: u64, phase: Phase) -> Report {
    paper::a_report(&app(), generation, phase)
}

pub(super) fn app() -> AppName {
    "shop".parse().unwrap()
}

pub(super) fn spec() -> Spec {
    Spec {
        strategy: Strategy::Canary { canary: Share::Count(1), batch: Share::Count(2) },
        max_unavailable: Share::Count(2),
        bake: Duration::from_millis(30),
        ..Spec::default()
    }
}

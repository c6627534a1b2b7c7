//! A coordinator that can be killed, and hosts on paper that obey at once, for any number of applications.

use std::sync::Arc;
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::name::{EnvironmentName, HostName};
use sluice_common::selector::Labels;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::environment::handle::{ApplyError, Status};
use crate::environment::{Handle, Service};
use crate::fleet::RolloutSink;
use crate::rollout;
pub(super) use crate::rollout::paper::BAD;
use crate::rollout::paper::{self, Paper, obedience, spawn};
use crate::store::{Actor, Schema, Store};

/// A coordinator that can be killed, and its hosts, which cannot.
pub(super) struct World {
    pub(super) paper: Arc<Paper>,
    pub(super) store: Store,
    pub(super) rollouts: rollout::Handle,
    pub(super) handle: Handle,
    _tasks: Vec<AbortOnDropHandle<()>>,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        Self::over(dir, store, Arc::default())
    }

    fn over(dir: tempfile::TempDir, store: Store, paper: Arc<Paper>) -> Self {
        let (service, rollouts) = rollout::Service::new(
            store.clone(),
            Arc::<Paper>::clone(&paper),
            Arc::<Paper>::clone(&paper) as _,
        );
        let (runner, handle) = Service::new(store.clone(), rollouts.clone());
        let tasks = vec![
            spawn(async move { service.run(CancellationToken::new()).await.unwrap() }),
            spawn(runner.run(CancellationToken::new())),
            spawn(obedience(Arc::clone(&paper), rollouts.clone())),
        ];
        Self { paper, store, rollouts, handle, _tasks: tasks, dir }
    }

    /// Kills the coordinator where it stands and starts another over the same directory.
    pub(super) async fn kill(self) -> Self {
        let Self { paper, store, rollouts, handle, _tasks, dir } = self;
        drop((_tasks, rollouts, handle));
        store.close().await;
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        Self::over(dir, store, paper)
    }

    /// Enrols a host with one label.
    pub(super) fn enrol(&self, name: &str, role: &str) {
        let labels = Labels::from([("role".to_owned(), role.to_owned())]);
        let name: HostName = name.parse().unwrap();
        self.paper.enrol(&name, labels);
        self.rollouts.host_changed(&name);
    }

    /// Registers releases, each as `APP VERSION`.
    pub(super) async fn release(&self, releases: &[&str]) {
        for text in releases {
            let (app, version) = text.split_once(' ').unwrap();
            let package = Digest::of(text.as_bytes());
            paper::release(&self.store, &app.parse().unwrap(), version, package).await;
        }
    }

    pub(super) async fn apply(&self, text: &str) -> Result<EnvironmentName, ApplyError> {
        self.handle.apply(&"alice".parse().unwrap(), Actor::console(), text).await
    }

    pub(super) async fn status(&self) -> Status {
        self.handle.status(&"e".parse().unwrap()).await.unwrap()
    }

    /// Waits until something holds of the environment.
    pub(super) async fn until(&self, holds: impl Fn(&Status) -> bool) -> Status {
        for _ in 0..12_000 {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came to it: {:#?}", self.status().await);
    }

    /// Waits until something holds of the rollouts.
    pub(super) async fn until_rollouts(&self, holds: impl Fn(&[rollout::Snapshot]) -> bool) {
        for _ in 0..12_000 {
            if holds(&self.rollouts.list(None, 500).await.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came to it: {:?}", self.rollouts().await);
    }

    /// Waits until the environment is in this state.
    pub(super) async fn comes_to(&self, state: &str) -> Status {
        self.until(|status| status.stored.state.as_str() == state).await
    }

    /// Returns what every host runs, as `HOST: APP VERSION, ...`.
    pub(super) fn runs(&self) -> String {
        self.paper.runs()
    }

    /// Returns the rollouts in the order in which they were started, as `APP VERSION STATE`.
    pub(super) async fn rollouts(&self) -> Vec<String> {
        let mut list = self.rollouts.list(None, 500).await.unwrap();
        list.reverse();
        list.iter()
            .map(|s| format!("{} {} {}", s.rollout.app, s.rollout.version, s.rollout.state.as_str()))
            .collect()
    }
}

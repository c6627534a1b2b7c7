//! A coordinator that can be killed, and hosts on paper that obey at once, for any number of applications.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::name::{AppName, EnvironmentName, HostName, Platform};
use sluice_common::order::{Desired, Generation, Installed, Order, Phase, Report, Stage};
use sluice_common::release::Release;
use sluice_common::selector::Labels;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::checks::Checks;
use crate::clock::Clock;
use crate::depot::releases;
use crate::environment::handle::{ApplyError, Status};
use crate::environment::{Handle, Service};
use crate::fleet::RolloutSink;
use crate::rollout::{self, Contact, Enrolled, Hosts};
use crate::store::{Actor, Schema, Store};

/// A version that hosts take back by themselves.
pub(super) const BAD: &str = "bad";

/// Hosts on paper.
#[derive(Default)]
pub(super) struct Paper {
    hosts: Mutex<BTreeMap<HostName, (Labels, Apps)>>,
}

type Apps = BTreeMap<AppName, State>;

#[derive(Default, Clone)]
struct State {
    generation: Generation,
    sequence: u64,
    current: Option<Installed>,
    phase: Option<Phase>,
}

impl Hosts for Paper {
    fn enrolled(&self) -> Vec<Enrolled> {
        let hosts = self.hosts.lock().unwrap();
        let host = |(name, (labels, _)): (&HostName, &(Labels, _))| Enrolled {
            name: name.clone(),
            site: "berlin".parse().unwrap(),
            labels: labels.clone(),
            platform: Some("linux-x86_64".parse().unwrap()),
        };
        hosts.iter().map(host).collect()
    }

    fn contact(&self, host: &HostName) -> Option<Contact> {
        let now = Clock::of_process().now();
        let hosts = self.hosts.lock().unwrap();
        hosts.get(host).map(|_| Contact { since: now - Duration::from_secs(3_600), last: now })
    }

    fn notify_orders(&self, _: &HostName) {}
}

impl Paper {
    fn obey(&self, name: &HostName, order: &Order) -> Option<Report> {
        let mut hosts = self.hosts.lock().unwrap();
        let host = hosts.get_mut(name)?.1.entry(order.app.clone()).or_default();
        if order.generation < host.generation {
            return None;
        }
        if order.generation > host.generation {
            (host.generation, host.phase) = (order.generation, None);
        }
        if host.phase.is_none() {
            host.sequence += 1;
            host.phase = Some(match &order.desired {
                Desired::Absent => {
                    host.current = None;
                    Phase::Active
                }
                Desired::Release { stage: Stage::Staged, .. } => Phase::Staged,
                Desired::Release { stage: Stage::Candidate, .. } => Phase::Candidate,
                Desired::Release { release, package, stage: Stage::Active } => {
                    let version = release.release.version.clone();
                    if version.as_str() == BAD {
                        Phase::Reverted
                    } else {
                        host.current = Some(Installed { package: *package, version });
                        Phase::Active
                    }
                }
            });
        }
        Some(report(order.app.clone(), host))
    }
}

fn report(app: AppName, host: &State) -> Report {
    Report {
        app,
        generation: host.generation,
        sequence: host.sequence,
        phase: host.phase.unwrap(),
        current: host.current.clone(),
        previous: None,
        healthy: Some(true),
        reason: (host.phase == Some(Phase::Reverted)).then(|| "503".to_owned()),
        hook_output: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        wire_bytes: 0,
        stage_time: Duration::ZERO,
        switch_time: Duration::ZERO,
        drift: None,
    }
}

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
        let (service, rollouts) =
            rollout::Service::new(store.clone(), Arc::<Paper>::clone(&paper), Arc::new(Checks::default()));
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
        self.paper.hosts.lock().unwrap().insert(name.clone(), (labels, BTreeMap::new()));
        self.rollouts.host_changed(&name);
    }

    /// Registers releases, each as `APP VERSION`.
    pub(super) async fn release(&self, releases: &[&str]) {
        for text in releases {
            let (app, version) = text.split_once(' ').unwrap();
            release(&self.store, app, version).await;
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

    /// Waits until the environment is in this state.
    pub(super) async fn comes_to(&self, state: &str) -> Status {
        self.until(|status| status.stored.state.as_str() == state).await
    }

    /// Returns what every host runs, as `HOST: APP VERSION, ...`.
    pub(super) fn runs(&self) -> String {
        let hosts = self.paper.hosts.lock().unwrap();
        let host = |(name, (_, apps)): (&HostName, &(Labels, Apps))| {
            let app =
                |(app, state): (&AppName, &State)| Some(format!("{app} {}", state.current.as_ref()?.version));
            format!("{name}: {}", apps.iter().filter_map(app).collect::<Vec<_>>().join(", "))
        };
        hosts.iter().map(host).collect::<Vec<_>>().join("; ")
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

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(TaskTracker::new().spawn(task))
}

async fn obedience(paper: Arc<Paper>, handle: rollout::Handle) {
    let mut told = HashMap::new();
    loop {
        let names: Vec<HostName> = paper.hosts.lock().unwrap().keys().cloned().collect();
        for name in names {
            for order in handle.standing_orders(&name).await.unwrap_or_default() {
                let Some(report) = paper.obey(&name, &order) else { continue };
                let key = (name.clone(), order.app.clone());
                if told.get(&key) != Some(&report)
                    && handle.record_report(&name, report.clone()).await.is_ok()
                {
                    told.insert(key, report);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn release(store: &Store, app: &str, version: &str) {
    let package = Digest::of(format!("{app} {version}").as_bytes());
    let mut tx = store.begin(Actor::console()).await.unwrap();
    sqlx::query("INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by) VALUES ($1, 1, 1, $2, 0, 'alice')")
        .bind(package.to_string())
        .bind(vec![0_u8; 32])
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit_observation().await.unwrap();
    let packages = BTreeMap::from([(Platform::any(), package)]);
    let (app, version) = (app.parse().unwrap(), version.parse().unwrap());
    let signed = Release { app, version, packages, notes: String::new() };
    let signed = signed.sign(&SecretKey::generate().unwrap()).unwrap();
    releases::create(store, &"alice".parse().unwrap(), signed).await.unwrap();
}

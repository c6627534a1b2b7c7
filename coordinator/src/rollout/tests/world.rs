//! A coordinator that can be killed, and hosts on paper, which cannot: they obey at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::name::{AppName, HostName, Platform, RolloutId};
use sluice_common::order::{Desired, Generation, Installed, Order, Phase, Report, Stage};
use sluice_common::release::Release;
use sluice_common::selector::Labels;
use sluice_common::units::Share;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::depot::releases;
use crate::fleet::RolloutSink;
use crate::rollout::{
    About, Check, Command, CommandError, Contact, Enrolled, Handle, Hosts, Prober, Service, Snapshot, Spec,
    StartError, Strategy, check,
};
use crate::store::{Actor, Schema, Store};

/// A version that hosts take back by themselves.
pub(super) const BAD: &str = "3";

/// Hosts on paper.
#[derive(Default)]
pub(super) struct Paper {
    pub(super) hosts: Mutex<BTreeMap<HostName, PaperHost>>,
    /// What checks answer, in turn; inconclusive when there is nothing left.
    pub(super) answers: Mutex<VecDeque<check::Outcome>>,
}

#[derive(Default, Clone)]
pub(super) struct PaperHost {
    pub(super) generation: Generation,
    pub(super) sequence: u64,
    pub(super) current: Option<Installed>,
    pub(super) phase: Option<Phase>,
    pub(super) reason: Option<String>,
    /// Whether it takes orders to stage alone.
    pub(super) is_stubborn: bool,
}

impl Hosts for Paper {
    fn enrolled(&self) -> Vec<Enrolled> {
        let host = |name: &HostName| Enrolled {
            name: name.clone(),
            site: "berlin".parse().unwrap(),
            labels: Labels::new(),
            platform: Some("linux-x86_64".parse().unwrap()),
        };
        self.hosts.lock().unwrap().keys().map(host).collect()
    }

    fn contact(&self, host: &HostName) -> Option<Contact> {
        let now = Clock::of_process().now();
        let since = now - Duration::from_secs(3_600);
        let hosts = self.hosts.lock().unwrap();
        hosts.get(host).map(|_| Contact { since, last: now })
    }

    fn notify_orders(&self, _: &HostName) {}
}

#[async_trait::async_trait]
impl Prober for Paper {
    async fn probe(&self, _: &Check, _: &About) -> (check::Outcome, String) {
        let mut answers = self.answers.lock().unwrap();
        answers.pop_front().map_or_else(
            || (check::Outcome::Inconclusive, "no data".to_owned()),
            |outcome| (outcome, format!("{outcome} on paper")),
        )
    }
}

impl Paper {
    pub(super) fn with(count: usize) -> Arc<Self> {
        let hosts = (1..=count).map(|i| (format!("h{i}").parse().unwrap(), PaperHost::default())).collect();
        Arc::new(Self { hosts: Mutex::new(hosts), answers: Mutex::default() })
    }

    /// Returns the version that each host runs.
    pub(super) fn versions(&self) -> String {
        let version =
            |host: &PaperHost| host.current.as_ref().map_or("-".to_owned(), |c| c.version.to_string());
        self.hosts.lock().unwrap().values().map(version).collect::<Vec<_>>().join(" ")
    }

    /// Lets a host obey an order; returns its report.
    pub(super) fn obey(&self, name: &HostName, order: &Order) -> Option<Report> {
        let mut hosts = self.hosts.lock().unwrap();
        let host = hosts.get_mut(name).unwrap();
        let switches = !matches!(order.desired, Desired::Release { stage: Stage::Staged, .. });
        if order.generation < host.generation || (host.is_stubborn && switches) {
            return None;
        }
        if order.generation > host.generation {
            *host = PaperHost { generation: order.generation, phase: None, reason: None, ..host.clone() };
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
                Desired::Release { stage: Stage::Active, release, .. }
                    if release.release.version.as_str() == BAD =>
                {
                    host.reason = Some("503 from /health".to_owned());
                    Phase::Reverted
                }
                Desired::Release { stage: Stage::Active, release, package } => {
                    host.current =
                        Some(Installed { package: *package, version: release.release.version.clone() });
                    Phase::Active
                }
            });
        }
        Some(Report {
            sequence: host.sequence,
            current: host.current.clone(),
            healthy: Some(true),
            reason: host.reason.clone(),
            hook_output: host.reason.clone(),
            ..a_report(host.generation.0, host.phase?)
        })
    }
}

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
            release(&store, version).await;
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

    pub(super) async fn command(&self, id: &RolloutId, command: Command) -> Result<(), CommandError> {
        self.handle.command(Actor::console(), id, command).await
    }
}

pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio_util::task::TaskTracker::new().spawn(task))
}

/// Hosts ask for their orders again and again, and report what became of them.
pub(super) async fn obedience(paper: Arc<Paper>, handle: Handle) {
    let mut told = HashMap::new();
    loop {
        let names: Vec<HostName> = paper.hosts.lock().unwrap().keys().cloned().collect();
        for name in names {
            for order in handle.standing_orders(&name).await.unwrap_or_default() {
                let Some(report) = paper.obey(&name, &order) else { continue };
                if told.get(&name) != Some(&report)
                    && handle.record_report(&name, report.clone()).await.is_ok()
                {
                    told.insert(name.clone(), report);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn a_report(generation: u64, phase: Phase) -> Report {
    Report {
        app: app(),
        generation: Generation(generation),
        sequence: 0,
        phase,
        current: None,
        previous: None,
        healthy: None,
        reason: None,
        hook_output: None,
        fetched_bytes: 0,
        fetch_total_bytes: 0,
        wire_bytes: 0,
        stage_time: Duration::ZERO,
        switch_time: Duration::ZERO,
        drift: None,
    }
}

pub(super) fn app() -> AppName {
    "shop".parse().unwrap()
}

pub(super) async fn release(store: &Store, version: &str) {
    let package = Digest::of(version.as_bytes());
    let mut tx = store.begin(Actor::console()).await.unwrap();
    sqlx::query("INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by) VALUES ($1, 1, 1, $2, 0, 'alice')")
        .bind(package.to_string())
        .bind(vec![0_u8; 32])
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit_observation().await.unwrap();
    let packages = BTreeMap::from([(Platform::any(), package)]);
    let statement =
        Release { app: app(), version: version.parse().unwrap(), packages, notes: "faster".into() };
    let signed = statement.sign(&SecretKey::generate().unwrap()).unwrap();
    releases::create(store, &"alice".parse().unwrap(), signed).await.unwrap();
}

pub(super) fn spec() -> Spec {
    Spec {
        strategy: Strategy::Canary { canary: Share::Count(1), batch: Share::Count(2) },
        max_unavailable: Share::Count(2),
        bake: Duration::from_millis(30),
        ..Spec::default()
    }
}

//! Hosts on paper for tests of rollouts and environments: they obey at once, each for any number of applications, and outlive every
//! coordinator.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::keys::SecretKey;
use sluice_common::name::{AppName, HostName, Platform};
use sluice_common::order::{Desired, Generation, Installed, Order, Phase, Report, Stage};
use sluice_common::release::Release;
use sluice_common::selector::Labels;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{About, Check, Contact, Enrolled, Handle, Hosts, Prober, check};
use crate::clock::Clock;
use crate::depot::releases;
use crate::fleet::RolloutSink;
use crate::store::{Actor, Store};

/// A version that hosts take back by themselves.
pub(crate) const BAD: &str = "bad";

/// Hosts on paper.
#[derive(Default)]
pub(crate) struct Paper {
    hosts: Mutex<BTreeMap<HostName, PaperHost>>,
    /// What checks answer, in turn; inconclusive when there is nothing left.
    pub(crate) answers: Mutex<VecDeque<check::Outcome>>,
}

#[derive(Default)]
struct PaperHost {
    labels: Labels,
    /// Whether it takes orders to stage alone.
    is_stubborn: bool,
    /// Whether it takes no orders for now.
    is_idle: bool,
    apps: BTreeMap<AppName, PaperApp>,
}

#[derive(Default)]
struct PaperApp {
    generation: Generation,
    sequence: u64,
    current: Option<Installed>,
    phase: Option<Phase>,
}

impl Hosts for Paper {
    fn enrolled(&self) -> Vec<Enrolled> {
        let host = |(name, host): (&HostName, &PaperHost)| Enrolled {
            name: name.clone(),
            site: "berlin".parse().unwrap(),
            labels: host.labels.clone(),
            platform: Some("linux-x86_64".parse().unwrap()),
        };
        self.lock().iter().map(host).collect()
    }

    fn contact(&self, host: &HostName) -> Option<Contact> {
        let now = Clock::of_process().now();
        let since = now - Duration::from_secs(3_600);
        self.lock().get(host).map(|_| Contact { since, last: now })
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
    /// Makes the hosts `h1`, `h2` and so on.
    pub(crate) fn with(count: usize) -> Arc<Self> {
        let paper = Self::default();
        for number in 1..=count {
            paper.enrol(&format!("h{number}").parse().unwrap(), Labels::new());
        }
        Arc::new(paper)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostName, PaperHost>> {
        self.hosts.lock().unwrap()
    }

    /// Adds a host on which nothing is.
    pub(crate) fn enrol(&self, name: &HostName, labels: Labels) {
        self.lock().insert(name.clone(), PaperHost { labels, ..PaperHost::default() });
    }

    /// Lets a host take orders to stage alone.
    pub(crate) fn make_stubborn(&self, name: &HostName) {
        self.lock().get_mut(name).unwrap().is_stubborn = true;
    }

    /// Lets a host take no orders, or take them again.
    pub(crate) fn make_idle(&self, name: &HostName, is_idle: bool) {
        self.lock().get_mut(name).unwrap().is_idle = is_idle;
    }

    /// Returns the version of an application that each host runs.
    pub(crate) fn versions(&self, app: &AppName) -> String {
        let version = |host: &PaperHost| {
            let current = host.apps.get(app).and_then(|state| state.current.as_ref());
            current.map_or("-".to_owned(), |current| current.version.to_string())
        };
        self.lock().values().map(version).collect::<Vec<_>>().join(" ")
    }

    /// Returns what every host runs, as `HOST: APP VERSION, ...`.
    pub(crate) fn runs(&self) -> String {
        let app =
            |(app, state): (&AppName, &PaperApp)| Some(format!("{app} {}", state.current.as_ref()?.version));
        let host = |(name, host): (&HostName, &PaperHost)| {
            format!("{name}: {}", host.apps.iter().filter_map(app).collect::<Vec<_>>().join(", "))
        };
        self.lock().iter().map(host).collect::<Vec<_>>().join("; ")
    }

    /// Lets a host obey an order; returns its report.
    fn obey(&self, name: &HostName, order: &Order) -> Option<Report> {
        let mut hosts = self.lock();
        let host = hosts.get_mut(name)?;
        if host.is_idle {
            return None;
        }
        let switches = !matches!(order.desired, Desired::Release { stage: Stage::Staged, .. });
        let is_stubborn = host.is_stubborn && switches;
        let app = host.apps.entry(order.app.clone()).or_default();
        if order.generation < app.generation || is_stubborn {
            return None;
        }
        if order.generation > app.generation {
            (app.generation, app.phase) = (order.generation, None);
        }
        if app.phase.is_none() {
            app.sequence += 1;
            app.phase = Some(app.take(&order.desired));
        }
        Some(app.report(&order.app))
    }
}

impl PaperApp {
    fn take(&mut self, desired: &Desired) -> Phase {
        match desired {
            Desired::Absent => {
                self.current = None;
                Phase::Active
            }
            Desired::Release { stage: Stage::Staged, .. } => Phase::Staged,
            Desired::Release { stage: Stage::Candidate, .. } => Phase::Candidate,
            Desired::Release { stage: Stage::Active, release, .. }
                if release.release.version.as_str() == BAD =>
            {
                Phase::Reverted
            }
            Desired::Release { stage: Stage::Active, release, package } => {
                let version = release.release.version.clone();
                self.current = Some(Installed { package: *package, version });
                Phase::Active
            }
        }
    }

    fn report(&self, app: &AppName) -> Report {
        let phase = self.phase.expect("it has just obeyed");
        let reason = (phase == Phase::Reverted).then(|| "503 from /health".to_owned());
        Report {
            sequence: self.sequence,
            current: self.current.clone(),
            healthy: Some(true),
            hook_output: reason.clone(),
            reason,
            ..a_report(app, self.generation.0, phase)
        }
    }
}

/// Returns a report that says nothing else.
pub(crate) fn a_report(app: &AppName, generation: u64, phase: Phase) -> Report {
    Report {
        app: app.clone(),
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

/// Starts a task that ends with the handle.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(TaskTracker::new().spawn(task))
}

/// Hosts ask for their orders again and again, and report what became of them.
pub(crate) async fn obedience(paper: Arc<Paper>, handle: Handle) {
    let mut told = HashMap::new();
    loop {
        let names: Vec<HostName> = paper.lock().keys().cloned().collect();
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

/// Registers a release of one package.
pub(crate) async fn release(store: &Store, app: &AppName, version: &str, package: Digest) {
    let mut tx = store.begin(Actor::console()).await.unwrap();
    sqlx::query("INSERT INTO packages (digest, files, tree_bytes, index_digest, pushed_ms, pushed_by) VALUES ($1, 1, 1, $2, 0, 'alice')")
        .bind(package.to_string())
        .bind(vec![0_u8; 32])
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit_observation().await.unwrap();
    let packages = BTreeMap::from([(Platform::any(), package)]);
    let version = version.parse().unwrap();
    let statement = Release { app: app.clone(), version, packages, notes: "faster".into() };
    let signed = statement.sign(&SecretKey::generate().unwrap()).unwrap();
    releases::create(store, &"alice".parse().unwrap(), signed).await.unwrap();
}

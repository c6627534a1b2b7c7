//! The whole component over a real database: driver, recorder, sessions' side and operators' side, with hosts on paper
//! that obey at once.

use std::collections::{BTreeMap, HashMap};
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

use super::*;
use crate::audit;
use crate::depot::releases;
use crate::fleet::RolloutSink;
use crate::store::{Actor, Schema, Store};

mod service;

/// A version that hosts take back by themselves.
const BAD: &str = "3";

/// Hosts on paper.
#[derive(Default)]
struct Paper {
    hosts: Mutex<BTreeMap<HostName, PaperHost>>,
}

#[derive(Default, Clone)]
struct PaperHost {
    generation: Generation,
    sequence: u64,
    current: Option<Installed>,
    phase: Option<Phase>,
    reason: Option<String>,
    /// Whether it takes orders to stage alone.
    is_stubborn: bool,
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

impl Paper {
    fn with(count: usize) -> Arc<Self> {
        let hosts = (1..=count).map(|i| (format!("h{i}").parse().unwrap(), PaperHost::default())).collect();
        Arc::new(Self { hosts: Mutex::new(hosts) })
    }

    /// Returns the version that each host runs.
    fn versions(&self) -> String {
        let version =
            |host: &PaperHost| host.current.as_ref().map_or("-".to_owned(), |c| c.version.to_string());
        self.hosts.lock().unwrap().values().map(version).collect::<Vec<_>>().join(" ")
    }

    /// Lets a host obey an order; returns its report.
    fn obey(&self, name: &HostName, order: &Order) -> Option<Report> {
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
struct World {
    paper: Arc<Paper>,
    store: Store,
    handle: Handle,
    _tasks: Vec<AbortOnDropHandle<()>>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new(hosts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        for version in ["1", "2", BAD] {
            release(&store, version).await;
        }
        Self::over(dir, store, Paper::with(hosts))
    }

    fn over(dir: tempfile::TempDir, store: Store, paper: Arc<Paper>) -> Self {
        let (service, handle) = Service::new(store.clone(), Arc::<Paper>::clone(&paper));
        let tasks = vec![
            spawn(async move { service.run(CancellationToken::new()).await.unwrap() }),
            spawn(obedience(Arc::clone(&paper), handle.clone())),
        ];
        Self { paper, store, handle, _tasks: tasks, dir }
    }

    /// Kills the coordinator where it stands and starts another over the same directory.
    async fn kill(self) -> Self {
        let Self { paper, store, handle, _tasks, dir } = self;
        drop((_tasks, handle));
        store.close().await;
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        Self::over(dir, store, paper)
    }

    async fn start(&self, version: &str, spec: Spec) -> Result<RolloutId, StartError> {
        let by = "alice".parse().unwrap();
        self.handle.start(&by, Actor::console(), app(), version.parse().unwrap(), spec).await
    }

    async fn look(&self, id: &RolloutId) -> Snapshot {
        self.handle.snapshot(id).await.unwrap().unwrap()
    }

    /// Waits until something holds of a rollout.
    async fn until(&self, id: &RolloutId, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        for _ in 0..3_000 {
            let snapshot = self.look(id).await;
            if holds(&snapshot) {
                return snapshot;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came to it: {:#?}", self.look(id).await);
    }

    async fn ended(&self, id: &RolloutId) -> Snapshot {
        self.until(id, |snapshot| snapshot.rollout.state.is_ended()).await
    }

    async fn command(&self, id: &RolloutId, command: Command) -> Result<(), CommandError> {
        self.handle.command(Actor::console(), id, command).await
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio_util::task::TaskTracker::new().spawn(task))
}

/// Hosts ask for their orders again and again, and report what became of them.
async fn obedience(paper: Arc<Paper>, handle: Handle) {
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

fn a_report(generation: u64, phase: Phase) -> Report {
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
    }
}

fn app() -> AppName {
    "shop".parse().unwrap()
}

async fn release(store: &Store, version: &str) {
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

fn spec() -> Spec {
    Spec {
        strategy: Strategy::Canary { canary: Share::Count(1), batch: Share::Count(2) },
        max_unavailable: Share::Count(2),
        bake: Duration::from_millis(30),
        ..Spec::default()
    }
}

#[tokio::test]
async fn three_releases_one_of_them_bad() {
    let world = World::new(5).await;
    for (version, state, versions) in
        [("1", "succeeded", "1 1 1 1 1"), ("2", "succeeded", "2 2 2 2 2"), (BAD, "rolled-back", "2 2 2 2 2")]
    {
        let id = world.start(version, spec()).await.unwrap();
        let end = world.ended(&id).await;
        assert_eq!(end.rollout.state.as_str(), state, "{:?}", end.rollout.state);
        assert_eq!(world.paper.versions(), versions);
    }
    let bad = world.look(&"r3".parse().unwrap()).await;
    let reason = "h1 went back by itself: 503 from /health (1 of 5 hosts failed, 0 tolerated)";
    assert_eq!(bad.rollout.state.reason(), Some(reason));
    let outcomes: Vec<Outcome> = bad.hosts.iter().map(|host| host.outcome).collect();
    assert_eq!((outcomes[0], outcomes[1]), (Outcome::RolledBack, Outcome::Waiting));
    let report = bad.hosts[0].report.as_ref().unwrap();
    assert_eq!(report.hook_output.as_deref(), Some("503 from /health"), "it outlives the way back");
    // What an ended rollout achieved stays said, whatever came after it.
    let first = world.look(&"r1".parse().unwrap()).await;
    assert!(first.hosts.iter().all(|host| host.outcome == Outcome::Updated));
    let history = world.handle.history(&app(), Some(&"h2".parse().unwrap()), 10).await.unwrap();
    let lines: Vec<String> = history.iter().map(|l| format!("{:?} {}", l.rollout, l.reason)).collect();
    assert_eq!(lines, [r#"Some(RolloutId("r2")) rolled out"#, r#"Some(RolloutId("r1")) rolled out"#]);
    assert_eq!(audit::verify(&world.store).await.unwrap().broken_at, None);
}

#[tokio::test]
async fn a_rollout_survives_every_kill() {
    let mut world = World::new(6).await;
    let id = world.start("1", spec()).await.unwrap();
    let mut kills = 0;
    while !world.look(&id).await.rollout.state.is_ended() {
        // Each life is a little longer than the one before, so that the kills fall everywhere.
        tokio::time::sleep(Duration::from_millis(kills % 40)).await;
        world = world.kill().await;
        kills += 1;
        assert!(kills < 400, "{:#?}", world.look(&id).await);
    }
    assert_eq!(world.look(&id).await.rollout.state, State::Succeeded);
    assert_eq!(world.paper.versions(), "1 1 1 1 1 1");
    assert!(kills > 5, "only {kills} kills");
    let verdict = audit::verify(&world.store).await.unwrap();
    assert_eq!(verdict.broken_at, None);
    // I10, as the table has it: no generation twice, and each newer than the one before it.
    let rows = sqlx::query("SELECT COUNT(*), COUNT(DISTINCT host || generation) FROM orders")
        .fetch_one(world.store.read())
        .await
        .unwrap();
    let count = |i| sqlx::Row::try_get::<i64, usize>(&rows, i).unwrap();
    assert_eq!((count(0), count(1)), (12, 12), "6 hosts, staged and activated once each");
}

#[tokio::test]
async fn operators_pause_resume_abort_and_roll_back() {
    let world = World::new(3).await;
    let id = world.start("1", Spec { bake: Duration::from_millis(300), ..spec() }).await.unwrap();
    let why = || "by alice".to_owned();
    world.until(&id, |s| s.hosts[0].outcome == Outcome::Updated).await;
    world.command(&id, Command::Pause { reason: why() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let paused = world.look(&id).await;
    assert_eq!(paused.blockers, [Blocker::Paused { reason: why() }]);
    assert_eq!(world.paper.versions(), "1 - -");
    world.command(&id, Command::Resume).await.unwrap();
    world.until(&id, |s| s.rollout.cursor.batch == 1).await;
    world.command(&id, Command::Abort { reason: why() }).await.unwrap();
    assert!(world.look(&id).await.rollout.state.is_ended());
    let error = world.command(&id, Command::Resume).await.unwrap_err();
    assert_eq!(error.to_string(), "rollout r1 is aborted; it cannot be resumed");
    world.command(&id, Command::RollBack { reason: why() }).await.unwrap();
    let end = world.ended(&id).await;
    assert_eq!(end.rollout.state, State::RolledBack { reason: why() });
    assert_eq!(world.paper.versions(), "- - -");
    let error = world.command(&"r9".parse().unwrap(), Command::Resume).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no rollout r9; see: sluice rollout list");
}

#[tokio::test]
async fn an_order_of_an_aborted_rollout_no_longer_goes_out() {
    let world = World::new(2).await;
    let at_once = Spec { strategy: Strategy::AllAtOnce, max_unavailable: Share::Count(2), ..spec() };
    let stubborn: HostName = "h2".parse().unwrap();
    world.paper.hosts.lock().unwrap().get_mut(&stubborn).unwrap().is_stubborn = true;
    let id = world.start("1", at_once).await.unwrap();
    world.until(&id, |s| s.hosts[1].outcome == Outcome::Ordered).await;
    assert_eq!(world.handle.standing_orders(&stubborn).await.unwrap().len(), 1);
    world.command(&id, Command::Abort { reason: "by alice".into() }).await.unwrap();
    assert_eq!(world.handle.standing_orders(&stubborn).await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let world = World::new(2).await;
    let text = |result: Result<RolloutId, StartError>| result.unwrap_err().to_string();
    let bad = Spec { max_unavailable: Share::Count(0), ..spec() };
    assert!(text(world.start("1", bad).await).starts_with("max_unavailable is 0; it must be at least 1"));
    assert_eq!(
        text(world.start("7", spec()).await),
        "there is no release shop 7; see: sluice release list shop"
    );
    let nobody = Spec { selector: "site=rome".parse().unwrap(), ..spec() };
    assert!(text(world.start("1", nobody).await).contains("chooses none of 2 enrolled hosts"));
    let one = Spec { selector: "host=h1".parse().unwrap(), bake: Duration::from_secs(60), ..spec() };
    world.start("1", one.clone()).await.unwrap();
    assert_eq!(
        text(world.start("2", spec()).await),
        "rollout r1 of shop is not finished on h1; wait for it, or run: sluice rollout abort r1"
    );
    let other = Spec { selector: "host=h2".parse().unwrap(), ..spec() };
    let second = world.start("1", other).await.unwrap();
    assert_eq!(
        world.ended(&second).await.rollout.state,
        State::Succeeded,
        "it is not in the way of the first"
    );
}

#[tokio::test]
async fn a_host_may_fetch_what_its_newest_orders_name() {
    let world = World::new(1).await;
    let id = world.start("1", spec()).await.unwrap();
    world.ended(&id).await;
    let host = "h1".parse().unwrap();
    let may = async |package: &[u8]| world.handle.may_fetch(&host, &Digest::of(package)).await.unwrap();
    assert!(may(b"1").await && !may(b"2").await);
    let id = world.start("2", spec()).await.unwrap();
    world.ended(&id).await;
    assert!(may(b"2").await && !may(b"1").await);
    assert!(!world.handle.may_fetch(&"h2".parse().unwrap(), &Digest::of(b"2")).await.unwrap());
}

#[tokio::test]
async fn reports_are_believed_in_order_but_for_the_first_of_a_session() {
    let world = World::new(1).await;
    let host: HostName = "h9".parse().unwrap();
    let report = |generation, sequence, phase| Report { sequence, ..a_report(generation, phase) };
    let tell = async |report: Report| {
        world.handle.record_report(&host, report).await.unwrap();
        world.handle.latest_reports(Some(&host)).await.unwrap()[0].1.clone()
    };
    assert_eq!(tell(report(5, 7, Phase::Staged)).await.sequence, 7);
    assert_eq!(tell(report(5, 6, Phase::Fetching)).await.phase, Phase::Staged, "late");
    assert_eq!(tell(report(4, 9, Phase::Active)).await.phase, Phase::Staged, "of an older order");
    assert_eq!(tell(report(5, 8, Phase::Active)).await.phase, Phase::Active);
    // An agent that lost count begins with 1 again.
    world.handle.host_changed(&host);
    assert_eq!(tell(report(5, 1, Phase::Failed)).await.phase, Phase::Failed);
    assert_eq!(tell(report(5, 1, Phase::Active)).await.phase, Phase::Failed);
}

#[tokio::test]
async fn history_has_one_line_a_switch_and_none_for_what_is_not_known() {
    let world = World::new(1).await;
    let host: HostName = "h9".parse().unwrap();
    let installed = |version: &str| Installed {
        package: Digest::of(version.as_bytes()),
        version: version.parse().unwrap(),
    };
    let steps = [
        (1, Phase::Active, Some("1")),
        (2, Phase::Staged, Some("1")),
        (3, Phase::Validating, Some("2")),
        (3, Phase::Active, Some("2")),
        (4, Phase::Failed, None),
        (5, Phase::Staged, Some("2")),
        (6, Phase::Validating, Some("3")),
        (6, Phase::Reverted, Some("2")),
        (7, Phase::Active, None),
    ];
    for (sequence, (generation, phase, current)) in steps.into_iter().enumerate() {
        let report = Report {
            current: current.map(installed),
            sequence: sequence as u64,
            ..a_report(generation, phase)
        };
        world.handle.record_report(&host, report).await.unwrap();
    }
    let lines = world.handle.history(&app(), Some(&host), 10).await.unwrap();
    let version =
        |installed: &Option<Installed>| installed.as_ref().map_or("-".to_owned(), |i| i.version.to_string());
    let lines: Vec<String> =
        lines.iter().rev().map(|l| format!("{}>{}", version(&l.from), version(&l.to))).collect();
    assert_eq!(lines, ["->1", "1>2", "2>3", "3>2", "2>-"]);
}

#[tokio::test]
async fn of_two_writers_one_starts_over() {
    let world = World::new(1).await;
    let by = "alice".parse().unwrap();
    let candidate = Candidate {
        host: "h9".parse().unwrap(),
        site: "berlin".parse().unwrap(),
        platform: Platform::any(),
        package: Digest::of(b"1"),
        settled: false,
    };
    let version = "1".parse().unwrap();
    let now = Clock::of_process().now();
    let id = "r1".parse().unwrap();
    let mut rollout = Rollout::new(id, app(), version, spec(), vec![vec![candidate]], by, now);
    let mut tx = world.store.begin(Actor::console()).await.unwrap();
    store::insert(&mut tx, &rollout, 1).await.unwrap();
    tx.commit().await.unwrap();
    let mut commit = async |revision, generation| {
        let action = Action::Order { member: 0, generation: Generation(generation), target: Target::Stage };
        rollout.apply(&action, now);
        let mut tx = world.store.begin(Actor::coordinator()).await.unwrap();
        let done = store::commit(&mut tx, &rollout, revision, &[action], now).await;
        match done {
            Ok(()) => tx.commit().await.is_ok(),
            Err(store::CommitError::Conflict) => false,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(commit(1, 4).await);
    assert!(!commit(1, 5).await, "planned on a revision that is gone");
    assert!(!commit(2, 4).await, "a generation that was given");
    assert!(!commit(2, 3).await, "an older one");
    assert!(commit(2, 5).await);
    assert_eq!(audit::verify(&world.store).await.unwrap().entries, 3 + 3, "3 releases, a start, two commits");
}

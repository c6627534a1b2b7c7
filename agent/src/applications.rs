//! The applications of a host: starts an actor for each that stands on disk, and for each that an order names.
//!
//! One task. In: orders from the session, by a bounded channel. Out: orders to each actor, by a bounded channel each; a
//! full one drops an order, which the coordinator repeats. Actors run in a [`JoinSet`] and are joined at the end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::name::AppName;
use sluice_common::order::Order;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actor;
use crate::content::Origin;
use crate::engine::Host;

/// Orders that wait for one actor: it looks at the newest only.
const INBOX: usize = 8;

/// Runs the applications of a host.
pub(crate) struct Applications<O> {
    host: Arc<Host<O>>,
    data: PathBuf,
    actors: HashMap<AppName, mpsc::Sender<Order>>,
    tasks: JoinSet<()>,
    token: CancellationToken,
}

impl<O: Origin> Applications<O> {
    /// Makes the runner; `data` holds the locks.
    pub(crate) fn new(host: Arc<Host<O>>, data: PathBuf, token: CancellationToken) -> Self {
        Self { host, data, actors: HashMap::new(), tasks: JoinSet::new(), token }
    }

    /// Runs until the token is cancelled, and then until every actor has ended.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> std::io::Result<()> {
        for app in self.known()? {
            self.start(app);
        }
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.deliver(order),
                    None => break,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(error = %error, "actor of an application failed");
                    }
                }
                () = self.token.cancelled() => break,
            }
        }
        self.actors.clear();
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Returns the applications that have state on disk.
    fn known(&self) -> std::io::Result<Vec<AppName>> {
        let mut known = Vec::new();
        for entry in fs_err::read_dir(&self.host.root)? {
            let entry = entry?;
            if entry.path().join("state.toml").is_file()
                && let Some(app) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                known.push(app);
            }
        }
        known.sort();
        Ok(known)
    }

    fn deliver(&mut self, order: Order) {
        let app = order.app.clone();
        if self.actors.get(&app).is_none_or(mpsc::Sender::is_closed) {
            if self.actors.len() >= caps::APPS_PER_HOST_MAX && !self.actors.contains_key(&app) {
                tracing::error!(app = %app, max = caps::APPS_PER_HOST_MAX, "too many applications; order is dropped");
                return;
            }
            self.start(app.clone());
        }
        if self.actors.get(&app).is_some_and(|actor| actor.try_send(order).is_err()) {
            tracing::warn!(app = %app, "application is busy; order is dropped until it is repeated");
        }
    }

    fn start(&mut self, app: AppName) {
        let (sender, inbox) = mpsc::channel(INBOX);
        self.actors.insert(app.clone(), sender);
        let (host, data, token) = (self.host.clone(), self.data.clone(), self.token.child_token());
        self.tasks.spawn(async move { actor::run(app, host, &data, inbox, token).await });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_common::order::{Desired, Phase, Report, Stage};

    use super::*;
    use crate::crash::CrashPoints;
    use crate::engine::tests::{LOGGING, World};
    use crate::stage::testing::MemorySource;

    struct Running {
        world: World,
        orders: mpsc::Sender<Order>,
        token: CancellationToken,
        task: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    impl Running {
        fn start(world: World) -> Self {
            let host: Arc<Host<MemorySource>> = world.host(CrashPoints::default());
            let data = world.data();
            fs_err::create_dir_all(data.join("locks")).unwrap();
            let token = CancellationToken::new();
            let (orders, receiver) = mpsc::channel(8);
            #[expect(clippy::disallowed_methods, reason = "joined by stop")]
            let task = tokio::spawn(Applications::new(host, data, token.clone()).run(receiver));
            Self { world, orders, token, task }
        }

        async fn stop(self) -> World {
            self.token.cancel();
            self.task.await.unwrap().unwrap();
            self.world
        }

        async fn until(&self, what: impl Fn(&Report) -> bool) -> Report {
            let mut board = self.world.board.watch();
            let wait = board.wait_for(|reports| reports.get(&World::app()).is_some_and(&what));
            match tokio::time::timeout(Duration::from_secs(60), wait).await {
                Ok(waited) => waited.unwrap()[&World::app()].clone(),
                Err(_) => panic!("never came; there is {:?}", self.world.board.watch().borrow()),
            }
        }
    }

    const BAKING: &str = "[gate]\nbake = \"1h\"\n[[health]]\ntype = \"command\"\ncommand = [\"/bin/true\"]\ninterval = \"20ms\"\n";

    #[tokio::test]
    async fn an_order_runs_its_course_and_what_runs_is_looked_after() {
        let mut running = Running::start(World::new());
        let spec = format!(
            "{LOGGING}[[health]]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"test ! -e $LOG.down\"]\ninterval = \"20ms\"\n"
        );
        let one = running.world.pack("1", &spec, &[]);
        let order = running.world.order("1", one, Stage::Active);
        running.orders.send(order).await.unwrap();
        running.until(|report| report.phase == Phase::Active && report.healthy == Some(true)).await;
        let down = format!("{}.down", running.world.log().display());
        fs_err::write(&down, "").unwrap();
        let report = running.until(|report| report.healthy == Some(false)).await;
        assert!(report.reason.unwrap().contains("exited with status 1"));
        fs_err::remove_file(&down).unwrap();
        running.until(|report| report.healthy == Some(true) && report.reason.is_none()).await;
        // After a restart it is found again without an order.
        let world = running.stop().await;
        world.board.clear();
        let running = Running::start(world);
        running.until(|report| report.phase == Phase::Active && report.healthy == Some(true)).await;
        assert_eq!(running.stop().await.current(), "1");
    }

    #[tokio::test]
    async fn a_newer_order_ends_a_bake_and_the_rest_waits_its_turn() {
        let mut running = Running::start(World::new());
        let (one, two) = (running.world.pack("1", LOGGING, &[]), running.world.pack("2", BAKING, &[]));
        let order = running.world.order("1", one, Stage::Active);
        running.orders.send(order).await.unwrap();
        running.until(|report| report.phase == Phase::Active).await;
        let order = running.world.order("2", two, Stage::Active);
        running.orders.send(order).await.unwrap();
        running.until(|report| report.phase == Phase::Validating).await;
        let back = running.world.order("1", one, Stage::Active);
        let generation = back.generation;
        running.orders.send(back).await.unwrap();
        running.until(|report| report.generation == generation && report.phase == Phase::Active).await;
        assert_eq!(running.stop().await.current(), "1");
    }

    #[tokio::test]
    async fn a_stop_in_the_gate_is_resumed_and_one_in_staging_too() {
        let mut running = Running::start(World::new());
        running.world.source.set(|faults| faults.away = true);
        let one = running.world.pack("1", &BAKING.replace("1h", "300ms"), &[]);
        let order = running.world.order("1", one, Stage::Active);
        running.orders.send(order).await.unwrap();
        running.until(|report| report.reason.as_deref().is_some_and(|r| r.contains("can be reached"))).await;
        let world = running.stop().await;
        world.source.set(|faults| faults.away = false);
        let running = Running::start(world);
        running.until(|report| report.phase == Phase::Validating).await;
        let world = running.stop().await;
        let running = Running::start(world);
        running.until(|report| report.phase == Phase::Active && report.reason.is_none()).await;
        assert_eq!(running.stop().await.current(), "1");
    }

    #[tokio::test]
    async fn a_confirmation_lets_the_gate_pass() {
        let mut running = Running::start(World::new());
        let spec = format!("{LOGGING}[gate]\nconfirm = true\nconfirm_within = \"1h\"\n");
        let one = running.world.pack("1", &spec, &[]);
        let order = running.world.order("1", one, Stage::Active);
        running.orders.send(order.clone()).await.unwrap();
        let awaits = |report: &Report| report.phase == Phase::Validating && report.healthy == Some(true);
        running.until(awaits).await;
        // A restart waits on.
        let world = running.stop().await;
        world.board.clear();
        let running = Running::start(world);
        running.until(awaits).await;
        running.orders.send(order.clone()).await.unwrap();
        running.orders.send(Order { confirmed: true, ..order }).await.unwrap();
        running.until(|report| report.phase == Phase::Active).await;
        assert_eq!(running.stop().await.current(), "1");
    }

    #[tokio::test]
    async fn a_disk_in_trouble_is_reported_until_it_is_back() {
        let mut running = Running::start(World::new());
        let (one, two) = (running.world.pack("1", LOGGING, &[]), running.world.pack("2", LOGGING, &[]));
        let order = running.world.order("1", one, Stage::Active);
        running.orders.send(order).await.unwrap();
        running.until(|report| report.phase == Phase::Active).await;
        // A directory stands where the state is written first.
        let obstacle = running.world.dir().base().join(".state.toml.sluice-tmp");
        fs_err::create_dir_all(obstacle.join("full")).unwrap();
        let order = running.world.order("2", two, Stage::Active);
        let generation = order.generation;
        running.orders.send(order.clone()).await.unwrap();
        let is_told = |report: &Report| {
            report.generation == generation
                && report.phase == Phase::Fetching
                && report.reason.as_deref().is_some_and(|reason| reason.contains("waits for its disk"))
        };
        running.until(is_told).await;
        // So it is after a restart, which cannot be written down either.
        let world = running.stop().await;
        world.board.clear();
        let running = Running::start(world);
        running.orders.send(order).await.unwrap();
        let report = running.until(is_told).await;
        assert!(report.reason.unwrap().contains("see that the agent can write"));
        fs_err::remove_dir_all(obstacle).unwrap();
        let is_there = |report: &Report| report.generation == generation && report.phase == Phase::Active;
        assert_eq!(running.until(is_there).await.reason, None);
        assert_eq!(running.stop().await.current(), "2");
    }

    #[tokio::test]
    async fn a_damaged_state_is_reported_and_obeys_nothing() {
        let mut world = World::new();
        fs_err::create_dir_all(world.dir().base()).unwrap();
        fs_err::write(world.dir().state(), "generation = x").unwrap();
        let order = world.wrap(Desired::Absent);
        let running = Running::start(world);
        running.orders.send(order).await.unwrap();
        let report = running.until(|report| report.phase == Phase::Failed).await;
        assert!(report.reason.unwrap().contains("is damaged"));
        running.stop().await;
    }
}

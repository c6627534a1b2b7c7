//! Makes plans before anybody asks for them, and best ones beside quick ones.
//!
//! Tasks, both in [`Improver::run`] and ended by its token: one that makes missing plans ahead, one that improves, each
//! a plan at a time. In: news of the depot and of the forecast (`watch`), and a look around every
//! [`LOOK_INTERVAL`]. What is next is decided purely (`demand`, `queue`); a lease keeps other coordinators off it.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::transfer::Effort;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::demand::{self, Forecast, Route};
use super::lease::{self, Lease};
use super::make::Crew;
use super::queue::{self, Candidate, Lane};
use super::{PlanError, PlanKey, Plans, Policy, stored};
use crate::clock::{self, Clock};
use crate::depot::packages::{self, PackageRow};
use crate::store;

/// Time between two looks at least: much may happen at once.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Time between two looks at most: hosts that report change what is worth while.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Time for which a plan that could not be made is left alone: somebody has to push a package again.
const FAILURE_REST: Duration = Duration::from_secs(600);
/// Time between two renewals of a lease: five may be missed before it expires.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(caps::PLAN_LEASE.as_secs() / 6);
/// Age up to which a package's cold plan is made though no release names it: the release usually follows at once.
const FRESH: Duration = Duration::from_secs(3600);

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which plans are made with which effort.
    pub policy: Policy,
    /// Threads that improve plans.
    pub workers: NonZeroUsize,
}

impl Options {
    /// Returns the options that leave half of the cores to everything else.
    pub fn new(policy: Policy) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { policy, workers: NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN) }
    }
}

/// The planning ahead of one coordinator.
pub struct Improver {
    pub(super) plans: Arc<Plans>,
    forecast: Arc<dyn Forecast>,
    options: Options,
    /// The name of this coordinator in leases: another one after each start.
    holder: String,
    clock: Clock,
    /// Time between two renewals of a lease.
    pub(in crate::depot) renewal_interval: Duration,
    /// Plans that failed, until when they are left alone.
    resting: Mutex<HashMap<PlanKey, Timestamp>>,
}

/// Everything that decisions turn on, read at one moment.
pub(super) struct Survey {
    pub(super) candidates: Vec<Candidate>,
    pub(super) stored: HashMap<PlanKey, stored::Row>,
    pub(super) leases: HashMap<PlanKey, Lease>,
    pub(super) packages: HashMap<Digest, PackageRow>,
}

impl Improver {
    /// Makes it; nothing is done before [`Improver::run`].
    pub fn new(plans: Arc<Plans>, forecast: Arc<dyn Forecast>, options: Options) -> Arc<Self> {
        let (holder, clock, resting) = (Uuid::new_v4().to_string(), Clock::of_process(), Mutex::default());
        let renewal_interval = RENEWAL_INTERVAL;
        Arc::new(Self { plans, forecast, options, holder, clock, renewal_interval, resting })
    }

    /// Works until `stop` is cancelled, and gives back then what it holds.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let improving = async {
            if self.options.policy.improves() {
                self.work_on(Lane::Better).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(self.work_on(Lane::Ahead), improving) } => {}
        }
        if let Err(error) = lease::release_all(&self.plans.depot.store, &self.holder).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases of plans were not given back; they expire"
            );
        }
    }

    async fn work_on(&self, lane: Lane) {
        let (mut depot, mut fleet) = (self.plans.depot.news.subscribe(), self.forecast.changes());
        loop {
            match self.step(lane).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for plans to make");
                }
            }
            tokio::select! {
                () = changed(&mut depot) => {}
                () = changed(&mut fleet) => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            depot.mark_unchanged();
            fleet.mark_unchanged();
        }
    }

    /// Says whether there is room for a best plan, which is no larger than the quick one beside it. Minutes later it would be too late.
    async fn has_room_beside(&self, survey: &Survey, key: PlanKey) -> bool {
        let quick = survey.stored.get(&PlanKey { effort: Effort::Quick, ..key });
        self.plans.depot.objects.has_room(quick.map_or(0, |row| row.weight.wire_bytes)).await
    }

    /// Does the most urgent work of a lane; says whether there was any.
    pub(in crate::depot) async fn step(&self, lane: Lane) -> Result<bool, PlanError> {
        let now = self.clock.now();
        let survey = self.survey(now).await?;
        self.plans.drop_replaced(&survey.stored);
        let Some(key) = queue::next(lane, &survey.candidates) else { return Ok(false) };
        if lane == Lane::Better && !self.has_room_beside(&survey, key).await {
            tracing::debug!(package = %key.target, "no best plan is made: the disk has no room for it");
            return Ok(false);
        }
        let store = &self.plans.depot.store;
        if !lease::take(store, key, &self.holder, now).await? {
            // Another coordinator was faster; at the next look the plan is held.
            return Ok(true);
        }
        let worked = self.work(lane, key).await;
        lease::release(store, key, &self.holder).await?;
        if let Err(error) = worked {
            let base = key.base.map(tracing::field::display);
            tracing::warn!(package = %key.target, base, error = &*error as &dyn std::error::Error, "no plan was made ahead");
            let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
            resting.insert(key, clock::after(self.clock.now(), FAILURE_REST));
        }
        Ok(true)
    }

    /// Makes a plan, and keeps the lease meanwhile; gives up what nobody wants any more.
    async fn work(&self, lane: Lane, key: PlanKey) -> Result<(), Arc<PlanError>> {
        let making = async {
            match lane {
                Lane::Ahead => self.plans.get_exact(key).await.map(drop),
                Lane::Better => {
                    let crew = Crew::Background(self.options.workers);
                    self.plans.improve(key, crew).await.map_err(Arc::new)
                }
            }
        };
        // Both are polled until one ends: the renewal waits for the database's one writer, which the plan may be holding.
        tokio::select! {
            made = making => made,
            () = self.keep(lane, key) => {
                tracing::info!(package = %key.target, "nobody wants this plan any more; it is left as it is");
                Ok(())
            }
        }
    }

    /// Keeps the lease of a plan for as long as somebody wants the plan.
    async fn keep(&self, lane: Lane, key: PlanKey) {
        let first = Instant::now() + self.renewal_interval;
        let mut renewal = interval_at(first, self.renewal_interval);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewal.tick().await;
            self.renew(key).await;
            if !self.is_wanted(lane, key).await {
                return;
            }
        }
    }

    /// Says whether a plan is still worth its work; yes, while that cannot be told.
    async fn is_wanted(&self, lane: Lane, key: PlanKey) -> bool {
        match lane {
            // It takes a second or two.
            Lane::Ahead => true,
            Lane::Better => match self.survey(self.clock.now()).await {
                Ok(survey) => {
                    survey.candidates.iter().any(|other| other.key == key && other.demand.wants_smallest)
                }
                Err(_) => true,
            },
        }
    }

    async fn renew(&self, key: PlanKey) {
        let progress = self.plans.under_way().get(&key).map(|making| making.progress()).unwrap_or_default();
        let store = &self.plans.depot.store;
        if let Err(error) = lease::renew(store, key, &self.holder, progress, self.clock.now()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the lease of a plan was not renewed");
        }
    }

    /// Returns the effort with which a lane makes plans.
    pub(super) fn effort(&self, lane: Lane) -> Effort {
        match lane {
            Lane::Ahead => self.plans.effort,
            Lane::Better => Effort::Best,
        }
    }

    /// Says whether anything is done in a lane.
    pub(super) fn is_at_work(&self, lane: Lane) -> bool {
        match lane {
            Lane::Ahead => true,
            Lane::Better => self.options.policy.improves(),
        }
    }

    /// Looks around.
    pub(super) async fn survey(&self, now: Timestamp) -> Result<Survey, store::Error> {
        let store = &self.plans.depot.store;
        let outlook = self.forecast.outlook().await?;
        let packages: HashMap<Digest, PackageRow> =
            packages::list(store).await?.into_iter().map(|row| (row.digest, row)).collect();
        let mut demands = demand::tally(&outlook, |digest| packages.contains_key(digest));
        for row in packages.values().filter(|row| clock::elapsed(row.pushed, now) < FRESH) {
            demands.entry((None, row.digest)).or_default();
        }
        let (stored, leases) = (stored::list(store).await?, lease::list(store, now).await?);
        let resting = self.resting(now);
        let candidate = |lane, (base, target): Route, demand| {
            let key = PlanKey { base, target, effort: self.effort(lane) };
            let quick = PlanKey { effort: Effort::Quick, ..key };
            Candidate {
                lane,
                key,
                demand,
                is_stored: stored.contains_key(&key),
                quick: stored.get(&quick).map(|row| row.weight),
                is_held: leases.contains_key(&key) || resting.contains_key(&key),
            }
        };
        let of_lanes =
            |(route, demand)| [Lane::Ahead, Lane::Better].map(|lane| candidate(lane, route, demand));
        let candidates = demands.into_iter().flat_map(of_lanes).collect();
        Ok(Survey { candidates, stored, leases, packages })
    }

    fn resting(&self, now: Timestamp) -> HashMap<PlanKey, Timestamp> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.retain(|_, until| *until > now);
        resting.clone()
    }

    /// Looks around now.
    pub(super) async fn survey_now(&self) -> Result<Survey, store::Error> {
        self.survey(self.clock.now()).await
    }
}

/// Waits for a change; for ever, where nobody is left to make one.
async fn changed(news: &mut watch::Receiver<u64>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl std::fmt::Debug for Improver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Improver").field("options", &self.options).finish_non_exhaustive()
    }
}

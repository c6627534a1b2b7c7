//! Transfer plans: made once per (base, target) and effort, kept in the depot, shared by every host with the same base.
//!
//! Invariants: a plan is handed out only after every frame it names is durable; the best plan stands beside the quick
//! one and never changes it, so that a host goes on at its byte with the plan that it began with. Frames are
//! checked again when they are first sent after a start; damaged ones make their plan anew.
//!
//! A host gets the plan that suits its link ([`Link`]). Each plan is made by one task, whoever waits for it; encoding that
//! somebody waits for takes at most one thread per core in all, for however many plans. The [`Improver`] makes plans
//! before anybody asks, and best ones beside them, on threads of the lowest priority.
//!
//! | module | owns |
//! |---|---|
//! | [`ahead`] | what a transfer will be, before anybody is ordered to have it |
//! | `choice` | which package of a host is the best base, and which plan suits its link |
//! | `make`, `progress` | encoding a plan, and how far it is |
//! | [`ServedPlan`] | a plan with all that a host is sent before the frames |
//! | `stored` | plans at rest |
//! | `frames` | trust in frames at rest |
//! | [`policy`] | which effort when |
//! | [`demand`], `queue` | pure: who wants what, and what to work on next |
//! | `lease` | which coordinator works on it |
//! | [`improver`] | the tasks that do |
//! | [`overview`] | all of it, as operators see it |

pub mod ahead;
mod choice;
pub mod demand;
mod error;
mod frames;
pub mod improver;
pub(in crate::depot) mod lease;
mod make;
pub mod overview;
pub mod policy;
mod progress;
pub(in crate::depot) mod queue;
mod served;
mod stored;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_common::digest::Digest;
use sluice_common::name::HostName;
use sluice_common::transfer::Effort;
use tokio::sync::Semaphore;

pub use self::choice::Link;
pub use self::error::PlanError;
use self::frames::Frames;
pub use self::improver::Improver;
use self::make::Crew;
pub use self::policy::Policy;
use self::progress::Making;
pub use self::served::{ManifestFrame, ServedPlan};
use super::Depot;
use super::flights::Flights;
use super::lru::Lru;

/// Memory for plans.
const PLAN_CACHE_BYTES: u64 = 64 << 20;
/// Estimates of bases kept.
const ESTIMATES: u64 = 1024;

/// From what to what, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PlanKey {
    /// The package that the host has; nothing for a cold install.
    pub(super) base: Option<Digest>,
    /// The package that it gets.
    pub(super) target: Digest,
    /// The effort that makes it small.
    pub(super) effort: Effort,
}

impl PlanKey {
    /// Returns the packages that making the plan reads.
    fn packages(self) -> Vec<Digest> {
        self.base.into_iter().chain([self.target]).collect()
    }
}

/// The estimated cost from a base; nothing when the depot does not have the base.
type Estimated = Result<Option<u64>, Arc<PlanError>>;
type Made = Result<Arc<ServedPlan>, Arc<PlanError>>;

/// The plans of a depot. One per coordinator; shared as an `Arc`.
#[derive(Debug)]
pub struct Plans {
    depot: Arc<Depot>,
    effort: Effort,
    ready: Mutex<Lru<PlanKey, Arc<ServedPlan>>>,
    estimates: Mutex<Lru<(Digest, Digest), u64>>,
    estimating: Flights<(Digest, Digest), Estimated>,
    making: Flights<PlanKey, Made>,
    /// Plans that are being encoded here, for onlookers.
    under_way: Mutex<HashMap<PlanKey, Arc<Making>>>,
    encoders: Arc<Semaphore>,
    frames: Frames,
    encoded: AtomicU64,
}

impl Plans {
    /// Makes the plans of `depot`; those that somebody waits for with so much effort.
    pub fn new(depot: Arc<Depot>, effort: Effort) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            effort,
            ready: Mutex::new(Lru::new(PLAN_CACHE_BYTES)),
            estimates: Mutex::new(Lru::new(ESTIMATES)),
            estimating: Flights::new(depot.tasks.clone()),
            making: Flights::new(depot.tasks.clone()),
            under_way: Mutex::default(),
            encoders: Arc::new(Semaphore::new(cores)),
            frames: Frames::new(depot.tasks.clone()),
            encoded: AtomicU64::new(0),
            depot,
        })
    }

    /// Returns the plan from `base` (nothing: a cold install) to `target` that suits a link; makes one where none is
    /// ready. Where the base is damaged in the depot, the plan is that of a cold install: look at its `base`.
    pub async fn get(self: &Arc<Self>, base: Option<Digest>, target: Digest, link: Link) -> Made {
        match self.get_suiting(base, target, link).await {
            Err(error) if base.is_some() && error.is_damage() => {
                tracing::warn!(
                    package = %target,
                    base = base.map(tracing::field::display),
                    error = &*error as &dyn std::error::Error,
                    "no transfer plan against this base; the host installs cold"
                );
                self.get_suiting(None, target, link).await
            }
            made => made,
        }
    }

    async fn get_suiting(self: &Arc<Self>, base: Option<Digest>, target: Digest, link: Link) -> Made {
        let first = PlanKey { base, target, effort: self.effort };
        let best = PlanKey { effort: Effort::Best, ..first };
        if link == Link::Limited
            && let Some(best) = self.find(best).await.map_err(Arc::new)?
        {
            let first = self.find(first).await.map_err(Arc::new)?;
            return Ok(first
                .into_iter()
                .chain([best])
                .min_by_key(|plan| plan.wire_bytes())
                .expect("there is one"));
        }
        self.get_exact(first).await
    }

    /// Returns the plan of this very effort; makes it, once for all who wait, where it is not there.
    async fn get_exact(self: &Arc<Self>, key: PlanKey) -> Made {
        if let Some(plan) = self.ready(&key) {
            return Ok(plan);
        }
        let plans = self.clone();
        let made = self
            .making
            .join(key, || async move { plans.find_or_make(key, Crew::AtOnce).await.map_err(Arc::new) });
        made.await.unwrap_or_else(|| Err(Arc::new(PlanError::Stopping)))
    }

    async fn find_or_make(self: &Arc<Self>, key: PlanKey, crew: Crew) -> Result<Arc<ServedPlan>, PlanError> {
        let _turn = self.depot.turn(&key.packages()).await?;
        match self.find_in_turn(key).await? {
            Some(plan) => Ok(plan),
            None => Ok(self.serve(make::make(self, key, crew).await?)),
        }
    }

    /// Returns a plan that is there. Waits for no turn where none is: it may be the one whose turn takes an hour.
    async fn find(&self, key: PlanKey) -> Result<Option<Arc<ServedPlan>>, PlanError> {
        if let Some(plan) = self.ready(&key) {
            return Ok(Some(plan));
        }
        if !stored::is_there(&self.depot.store, key).await? {
            return Ok(None);
        }
        let _turn = self.depot.turn(&key.packages()).await?;
        self.find_in_turn(key).await
    }

    /// Returns a plan that is there, or has come to be there while a turn was waited for.
    async fn find_in_turn(&self, key: PlanKey) -> Result<Option<Arc<ServedPlan>>, PlanError> {
        match self.ready(&key) {
            Some(plan) => Ok(Some(plan)),
            None => Ok(stored::load(&self.depot, key).await?.map(|plan| self.serve(plan))),
        }
    }

    /// Returns the depot whose plans these are.
    pub fn depot(&self) -> &Arc<Depot> {
        &self.depot
    }

    /// Returns how many plans were encoded since the start.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Makes sure that a frame of a plan is undamaged before its first byte is sent; heals it by making the plan
    /// anew. After that, the frame may be another, or its plan takes too long: [`PlanError::FrameGone`].
    pub async fn ensure_frame(
        self: &Arc<Self>,
        plan: &Arc<ServedPlan>,
        frame: Digest,
        len: u64,
    ) -> Result<(), Arc<PlanError>> {
        let (plans, plan) = (self.clone(), plan.clone());
        self.frames.ensure(frame, || async move { plans.check_or_heal(&plan, frame, len).await }).await
    }

    /// Returns the plan from `base` to `target` that names all of these frames, whichever coordinator has made it, and
    /// whatever suits the host's link now: a host goes on with the plan that it began with.
    pub async fn holding(self: &Arc<Self>, base: Option<Digest>, target: Digest, frames: &[Digest]) -> Made {
        let first = self.get(base, target, Link::Open).await?;
        let lacking =
            |plan: &ServedPlan| frames.iter().find(|frame| plan.frame_len(frame).is_none()).copied();
        let Some(lacks) = lacking(&first) else { return Ok(first) };
        for effort in [Effort::Quick, Effort::Best] {
            let key = PlanKey { effort, ..first.key() };
            // What is in memory may be what another coordinator has made anew since.
            let _turn = self.depot.turn(&key.packages()).await.map_err(PlanError::from)?;
            let stored = stored::load(&self.depot, key).await.map_err(Arc::new)?;
            if let Some(plan) = stored.filter(|plan| lacking(plan).is_none()) {
                return Ok(self.serve(plan));
            }
        }
        Err(PlanError::FrameGone(lacks).into())
    }

    /// Notes that a request of a host asks for a frame from its first byte on. Asking again means that it did not fit: the
    /// frame is checked again.
    pub fn begin_frame(&self, host: &HostName, frame: Digest) {
        if self.frames.begin(host, frame) {
            self.depot.hot.forget(&frame);
        }
    }

    /// Notes that reading a frame has failed: it is checked again before it is sent again.
    pub fn doubt_frame(&self, frame: &Digest) {
        self.frames.doubt(frame);
        self.depot.hot.forget(frame);
    }

    fn ready(&self, key: &PlanKey) -> Option<Arc<ServedPlan>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    /// Serves a plan to whoever asks from now on.
    fn serve(&self, plan: ServedPlan) -> Arc<ServedPlan> {
        let plan = Arc::new(plan);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.insert(plan.key(), plan.clone(), plan.weight());
        plan
    }

    /// Forgets what is in memory of plans that another coordinator has replaced.
    fn drop_replaced(&self, stored: &HashMap<PlanKey, stored::Row>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.retain(|key, plan| stored.get(key).is_some_and(|row| row.plan == plan.plan_digest));
    }

    /// Makes a plan beside the quick one, for whoever it suits. Dropped before it is done, its encoders end.
    async fn improve(self: &Arc<Self>, key: PlanKey, crew: Crew) -> Result<(), PlanError> {
        self.find_or_make(key, crew).await.map(drop)
    }

    /// Notes that a plan is being encoded, until what is returned is dropped.
    fn begin_making(self: &Arc<Self>, key: PlanKey) -> UnderWay {
        let making = Arc::new(Making::default());
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.insert(key, making.clone());
        UnderWay { plans: self.clone(), key, making }
    }

    /// Returns what is being encoded here.
    fn under_way(&self) -> HashMap<PlanKey, Arc<Making>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn check_or_heal(
        self: &Arc<Self>,
        plan: &ServedPlan,
        frame: Digest,
        len: u64,
    ) -> Result<(), Arc<PlanError>> {
        if frames::is_sound(&self.depot, frame, len).await? {
            return Ok(());
        }
        tracing::warn!(frame = %frame, package = %plan.target, "a frame in the depot is damaged; its plan is made anew");
        stored::forget(&self.depot, plan.key()).await.map_err(PlanError::from)?;
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&plan.key());
        // Nobody waits for minutes for a best plan: the host asks for another, and this one is made again in the background.
        if plan.effort != self.effort {
            return Err(PlanError::FrameGone(frame).into());
        }
        let anew = self.get_exact(plan.key()).await?;
        match anew.frame_len(&frame) {
            Some(len) if frames::is_sound(&self.depot, frame, len).await? => Ok(()),
            Some(_) | None => Err(PlanError::FrameGone(frame).into()),
        }
    }
}

/// A plan on the list of those that are being encoded. Dropped before it is done, its encoders end.
struct UnderWay {
    plans: Arc<Plans>,
    key: PlanKey,
    making: Arc<Making>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.making.abandon();
        let mut under_way = self.plans.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // A plan that is made at once and in the background at the same time is on the list once, as what began last.
        if under_way.get(&self.key).is_some_and(|making| Arc::ptr_eq(making, &self.making)) {
            under_way.remove(&self.key);
        }
    }
}

//! Transfer plans: made once per (base, target), kept in the depot, shared by every host with the same base.
//!
//! Invariant: a plan is handed out only after every frame it names is durable. Frames are checked again when they are
//! first sent after a start; damaged ones make their plan anew.
//!
//! Each plan is made by one task, whoever waits for it; encoding takes at most one thread per core in all, for
//! however many plans.

mod choice;
mod error;
mod frames;
mod make;
mod stored;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sluice_common::digest::Digest;
use sluice_common::name::HostName;
use sluice_common::transfer::{Effort, TransferPlan};
use tokio::sync::Semaphore;

pub use self::error::PlanError;
use self::frames::Frames;
use super::Depot;
use super::flights::Flights;
use super::lru::Lru;

/// Memory for decoded plans.
const PLAN_CACHE_BYTES: u64 = 64 << 20;
/// What a part of a plan weighs in memory.
const PART_BYTES: u64 = 64;
/// Estimates of bases kept.
const ESTIMATES: u64 = 1024;

/// From what to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    /// The package that the host has; nothing for a cold install.
    pub(super) base: Option<Digest>,
    /// The package that it gets.
    pub(super) target: Digest,
}

/// A plan with all that a host is sent before the frames.
#[derive(Debug)]
pub struct ServedPlan {
    /// The package that the host must have; nothing for a cold install.
    pub base: Option<Digest>,
    /// The package that it gets.
    pub target: Digest,
    /// The target's manifest, compressed against the base's.
    pub manifest_frame: Bytes,
    /// The plan, encoded.
    pub plan_bytes: Bytes,
    /// The plan, decoded.
    pub plan: TransferPlan,
    lengths: HashMap<Digest, u64>,
}

impl ServedPlan {
    fn new(plan: TransferPlan, plan_bytes: Bytes, manifest_frame: Bytes) -> Self {
        let lengths = plan.frames.iter().map(|frame| (frame.digest, frame.wire_len)).collect();
        Self { base: plan.base, target: plan.target, manifest_frame, plan_bytes, plan, lengths }
    }

    /// Returns the length of a frame; nothing when the plan does not name it.
    pub fn frame_len(&self, frame: &Digest) -> Option<u64> {
        self.lengths.get(frame).copied()
    }

    /// Returns everything that a host is sent.
    pub fn wire_bytes(&self) -> u64 {
        (self.manifest_frame.len() + self.plan_bytes.len()) as u64 + self.plan.wire_len()
    }

    fn key(&self) -> PlanKey {
        PlanKey { base: self.base, target: self.target }
    }

    fn weight(&self) -> u64 {
        let parts: usize =
            self.plan.frames.iter().map(|frame| 1 + frame.base.len() + frame.parts.len()).sum();
        (self.manifest_frame.len() + self.plan_bytes.len()) as u64 + parts as u64 * PART_BYTES
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
    encoders: Arc<Semaphore>,
    frames: Frames,
    encoded: AtomicU64,
}

impl Plans {
    /// Makes the plans of `depot`; new ones with so much effort.
    pub fn new(depot: Arc<Depot>, effort: Effort) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            effort,
            ready: Mutex::new(Lru::new(PLAN_CACHE_BYTES)),
            estimates: Mutex::new(Lru::new(ESTIMATES)),
            estimating: Flights::new(depot.tasks.clone()),
            making: Flights::new(depot.tasks.clone()),
            encoders: Arc::new(Semaphore::new(cores)),
            frames: Frames::new(depot.tasks.clone()),
            encoded: AtomicU64::new(0),
            depot,
        })
    }

    /// Returns the plan from `base` (nothing: a cold install) to `target`; makes it where it is not ready. Where the
    /// base is damaged in the depot, the plan is that of a cold install: look at its `base`.
    pub async fn get(self: &Arc<Self>, base: Option<Digest>, target: Digest) -> Made {
        match self.get_exact(PlanKey { base, target }).await {
            Err(error) if base.is_some() && error.is_damage() => {
                tracing::warn!(
                    package = %target,
                    base = base.map(tracing::field::display),
                    error = &*error as &dyn std::error::Error,
                    "no transfer plan against this base; the host installs cold"
                );
                self.get_exact(PlanKey { base: None, target }).await
            }
            made => made,
        }
    }

    async fn get_exact(self: &Arc<Self>, key: PlanKey) -> Made {
        if let Some(plan) = self.ready(&key) {
            return Ok(plan);
        }
        let plans = self.clone();
        let made = self.making.join(key, || async move { plans.fetch_or_make(key).await.map_err(Arc::new) });
        made.await.unwrap_or_else(|| Err(Arc::new(PlanError::Stopping)))
    }

    /// Returns the depot whose plans these are.
    pub fn depot(&self) -> &Arc<Depot> {
        &self.depot
    }

    /// Returns how many plans were encoded since the start.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Begins to make a plan that will be wanted soon.
    pub fn prepare(self: &Arc<Self>, base: Option<Digest>, target: Digest) {
        let plans = self.clone();
        self.depot.tasks.spawn(async move {
            if let Err(error) = plans.get(base, target).await {
                let base = base.map(tracing::field::display);
                tracing::warn!(package = %target, base, error = &error as &dyn std::error::Error, "no transfer plan");
            }
        });
    }

    /// Makes sure that a frame of a plan is undamaged before its first byte is sent; heals it by making the plan
    /// anew. After that, the frame may be another: [`PlanError::FrameGone`].
    pub async fn ensure_frame(
        self: &Arc<Self>,
        plan: &Arc<ServedPlan>,
        frame: Digest,
    ) -> Result<(), Arc<PlanError>> {
        let (plans, plan) = (self.clone(), plan.clone());
        self.frames.ensure(frame, || async move { plans.check_or_heal(&plan, frame).await }).await
    }

    /// Notes that a host asks for a frame from its first byte on. Asking twice means that it did not fit: the frame
    /// is checked again.
    pub fn begin_frame(&self, host: &HostName, frame: Digest) {
        self.frames.begin(host, frame);
    }

    /// Notes that reading a frame has failed: it is checked again before it is sent again.
    pub fn doubt_frame(&self, frame: &Digest) {
        self.frames.doubt(frame);
    }

    fn ready(&self, key: &PlanKey) -> Option<Arc<ServedPlan>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    async fn fetch_or_make(self: &Arc<Self>, key: PlanKey) -> Result<Arc<ServedPlan>, PlanError> {
        if let Some(plan) = self.ready(&key) {
            return Ok(plan);
        }
        let plan = match stored::load(&self.depot, key).await? {
            Some(plan) => plan,
            None => make::make(self, key).await?,
        };
        let plan = Arc::new(plan);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.insert(key, plan.clone(), plan.weight());
        Ok(plan)
    }

    async fn check_or_heal(self: &Arc<Self>, plan: &ServedPlan, frame: Digest) -> Result<(), Arc<PlanError>> {
        let len = plan.frame_len(&frame).ok_or(PlanError::FrameGone(frame))?;
        if frames::is_sound(&self.depot, frame, len).await? {
            return Ok(());
        }
        tracing::warn!(frame = %frame, package = %plan.target, "a frame in the depot is damaged; its plan is made anew");
        self.forget(plan.key()).await?;
        let anew = self.get(plan.base, plan.target).await?;
        match anew.frame_len(&frame) {
            Some(len) if frames::is_sound(&self.depot, frame, len).await? => Ok(()),
            Some(_) | None => Err(PlanError::FrameGone(frame).into()),
        }
    }

    async fn forget(&self, key: PlanKey) -> Result<(), PlanError> {
        stored::forget(&self.depot, key).await?;
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(())
    }
}

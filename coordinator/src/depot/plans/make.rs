//! Making a plan: decide, encode, store the frames, store the plan, name it.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::setpriority_process;
use sluice_common::digest::Digest;
use sluice_common::manifest::Contents;
use sluice_common::transfer::{
    self, ContentSource, EncodeError, EncodedFrame, FrameSpec, NoContent, PlanOutline,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::progress::Making;
use super::{ManifestFrame, PlanError, PlanKey, Plans, ServedPlan, stored};
use crate::depot::objects::{Kind, Name};
use crate::depot::packages::Package;
use crate::depot::reader::ReadError;
use crate::depot::source::PackageSource;

/// A package with the contents that the frames take from it.
struct Side {
    package: Arc<Package>,
    source: PackageSource,
}

/// Who encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crew {
    /// Somebody waits: as many threads as are free of one per core.
    AtOnce,
    /// Nobody waits: so many threads of the lowest priority, beside those that somebody waits for.
    Background(NonZeroUsize),
}

/// Lowest priority of a thread: it computes when nothing else wants to.
const NICENESS: i32 = 19;

/// Bytes of both manifests from which on they count beside what is kept of chunks: of some 800,000 entries.
const LARGE_MANIFESTS_BYTES: usize = 64 << 20;

/// Makes, stores and names a plan.
pub(super) async fn make(plans: &Arc<Plans>, key: PlanKey, crew: Crew) -> Result<ServedPlan, PlanError> {
    let _under_way = plans.depot.works.begin(key.packages());
    let (plan, cpu) = encode(plans, key, crew).await?;
    stored::insert(&plans.depot, &plan, cpu).await?;
    plans.depot.tell();
    Ok(plan)
}

/// Makes a plan and stores all that it names; returns the CPU time that it took too. Cut off, it leaves objects that nothing
/// names, for the collection.
async fn encode(plans: &Arc<Plans>, key: PlanKey, crew: Crew) -> Result<(ServedPlan, Duration), PlanError> {
    let started = Instant::now();
    let work = prepare(plans, key).await?;
    let under_way = plans.begin_making(key);
    let making = under_way.making.clone();
    making.begin(work.specs.len());
    plans.encoded.fetch_add(1, Ordering::Relaxed);
    let (encoder, runtime, frames) = (plans.clone(), Handle::current(), work.specs.len());
    let note = making.clone();
    let encoded = match crew {
        Crew::AtOnce => {
            let permits = plans.encoders(frames).await;
            let encoding = tokio::task::spawn_blocking(move || {
                // The permits live as long as the threads do.
                let permits = permits;
                encoder.encode(&runtime, key, &work, &note, permits.len())
            });
            encoding.await.expect("encoding does not panic")
        }
        Crew::Background(workers) => {
            below_everything(move || encoder.encode(&runtime, key, &work, &note, workers.get())).await?
        }
    };
    let (plan, cpu) = (encoded?, making.cpu());
    tracing::info!(
        package = %key.target,
        base = key.base.map(tracing::field::display),
        effort = stored::effort_text(key.effort),
        frames,
        bytes = plan.wire_bytes(),
        cpu_ms = cpu.as_millis() as u64,
        elapsed_ms = started.elapsed().as_millis() as u64,
        "transfer plan made"
    );
    Ok((plan, cpu))
}

/// Runs `work` on a thread of the lowest priority, which the threads that it starts inherit. Not one of the runtime's:
/// a thread without privileges never gets its priority back, and the stop of the service does not wait for a frame
/// that takes a minute. Such a thread finds the token cancelled before it touches anything again.
async fn below_everything<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PlanError> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("plan-encoder".to_owned());
    let begun = thread.spawn(move || {
        // On Linux the priority is the calling thread's own.
        if let Err(errno) = setpriority_process(None, NICENESS) {
            tracing::debug!(%errno, "encoding keeps the priority of the service");
        }
        // Nobody is left to tell when the service stops.
        let _ = tell.send(work());
    });
    begun.map_err(PlanError::Encode)?;
    told.await.map_err(|_| PlanError::Stopping)
}

/// Everything that encoding needs.
struct Work {
    specs: Vec<FrameSpec>,
    base: Option<Side>,
    target: Side,
}

/// Sorts numbers and drops repetitions.
fn numbers(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Decides on the frames and looks up what they take.
async fn prepare(plans: &Arc<Plans>, key: PlanKey) -> Result<Work, PlanError> {
    let depot = &plans.depot;
    let target = depot.package(key.target).await?;
    let base = match key.base {
        Some(base) => Some(depot.package(base).await?),
        None => None,
    };
    let (from, to) = (base.clone(), target.clone());
    let planning = tokio::task::spawn_blocking(move || {
        transfer::plan(from.as_ref().map(|p| &p.manifest), &to.manifest, key.effort)
    });
    let specs = planning.await.expect("planning does not panic");
    // What a frame leans on of the target is what earlier frames hold.
    let taken = specs.iter().flat_map(|spec| spec.parts.iter().map(|part| part.content));
    let target = plans.side(key.target, target, numbers(taken)).await?;
    let base = match key.base.zip(base) {
        Some((digest, package)) => {
            let leaned = specs.iter().flat_map(|spec| {
                spec.base.iter().filter_map(|lean| lean.of_base()).map(|extent| extent.content)
            });
            Some(plans.side(digest, package, numbers(leaned)).await?)
        }
        None => None,
    };
    Ok(Work { specs, base, target })
}

impl Plans {
    async fn side(&self, digest: Digest, package: Arc<Package>, wanted: Vec<u32>) -> Result<Side, PlanError> {
        let source = self.depot.source(digest, &package, &wanted).await?;
        Ok(Side { package, source })
    }

    /// Takes as many encoder threads as are free, but for one, for which it waits.
    async fn encoders(&self, frames: usize) -> Vec<OwnedSemaphorePermit> {
        let first = self.encoders.clone().acquire_owned().await;
        let mut permits = vec![first.expect("the semaphore is never closed")];
        while permits.len() < frames
            && let Ok(permit) = self.encoders.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
        permits
    }

    fn encode(
        &self,
        runtime: &Handle,
        key: PlanKey,
        work: &Work,
        making: &Making,
        workers: usize,
    ) -> Result<ServedPlan, PlanError> {
        let Work { specs, base, target } = work;
        let (base_contents, base_source): (Contents<'_>, &dyn ContentSource) = match base {
            Some(side) => (side.package.contents(), &side.source),
            None => (Contents::default(), &NoContent),
        };
        let frames = transfer::encode_all(
            specs,
            (base_contents, base_source),
            (target.package.contents(), &target.source),
            key.effort,
            workers,
            |_, EncodedFrame { frame, bytes }| {
                self.store_frame(runtime, making, frame.digest, bytes)?;
                Ok((frame.outline(), frame.encode(base_contents, target.package.contents())))
            },
        )
        .map_err(|error| if self.depot.token.is_cancelled() { PlanError::Stopping } else { error.into() })?;
        let (frames, listed): (_, Vec<Vec<u8>>) = frames.into_iter().unzip();
        let plan = PlanOutline { base: key.base, target: key.target, frames };
        let plan_bytes: Bytes =
            transfer::encode_plan(key.base, key.target, listed.iter()).map_err(PlanError::Encode)?.into();
        let base_manifest = base.as_ref().map(|side| side.package.manifest.as_bytes()).unwrap_or_default();
        if base_manifest.len() + target.package.manifest.as_bytes().len() > LARGE_MANIFESTS_BYTES {
            // Nothing is read of chunks from here on, and compressing takes as much.
            self.depot.chunks.forget();
        }
        let manifest_frame = transfer::encode_manifest(target.package.manifest.as_bytes(), base_manifest);
        let manifest_frame: Bytes = manifest_frame.map_err(PlanError::Encode)?.into();
        let objects = &self.depot.objects;
        let named = ManifestFrame::of(&manifest_frame);
        runtime.block_on(objects.put(Name(Kind::Frame, named.digest), manifest_frame))?;
        runtime.block_on(objects.put(Name(Kind::Plan, Digest::of(&plan_bytes)), plan_bytes.clone()))?;
        Ok(ServedPlan::new(key.effort, plan, plan_bytes, named, &target.package.manifest))
    }

    /// Makes a frame durable as soon as it is encoded, so that no more than one per thread is in memory.
    fn store_frame(
        &self,
        runtime: &Handle,
        making: &Making,
        frame: Digest,
        bytes: Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.depot.token.is_cancelled() || making.is_abandoned() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let stored = runtime.block_on(self.depot.objects.put(Name(Kind::Frame, frame), bytes));
        stored.map_err(|error| io::Error::from(ReadError::Object(error)))?;
        making.frame_done();
        Ok(())
    }
}

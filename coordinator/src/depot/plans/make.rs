//! Making a plan: decide, encode, store the frames, store the plan, name it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Content, Manifest};
use sluice_common::transfer::{
    self, ContentSource, EncodeError, EncodedFrame, Frame, FrameSpec, NoContent, TransferPlan,
};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{PlanError, PlanKey, Plans, ServedPlan, stored};
use crate::depot::objects::{Kind, Name};
use crate::depot::packages::Package;
use crate::depot::source::PackageSource;

/// A package with the contents that the frames take from it.
struct Side {
    package: Arc<Package>,
    source: PackageSource,
}

/// Makes, stores and names a plan.
pub(super) async fn make(plans: &Arc<Plans>, key: PlanKey) -> Result<ServedPlan, PlanError> {
    let started = Instant::now();
    let depot = &plans.depot;
    let target = depot.package(key.target).await?;
    let base = match key.base {
        Some(base) => Some(depot.package(base).await?),
        None => None,
    };
    let (from, to) = (base.clone(), target.clone());
    let effort = plans.effort;
    let planning = tokio::task::spawn_blocking(move || {
        transfer::plan(from.as_ref().map(|p| &p.manifest), &to.manifest, effort)
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
    let workers = plans.encoders(specs.len()).await;
    plans.encoded.fetch_add(1, Ordering::Relaxed);
    let (encoder, runtime) = (plans.clone(), Handle::current());
    let encoding = tokio::task::spawn_blocking(move || {
        // The permits live as long as the threads do.
        let workers = workers;
        encoder.encode(&runtime, key, &specs, base.as_ref(), &target, workers.len())
    });
    let plan = encoding.await.expect("encoding does not panic")?;
    stored::insert(depot, &plan).await?;
    tracing::info!(
        package = %key.target,
        base = key.base.map(tracing::field::display),
        frames = plan.plan.frames.len(),
        bytes = plan.wire_bytes(),
        elapsed_ms = started.elapsed().as_millis() as u64,
        "transfer plan made"
    );
    Ok(plan)
}

/// Sorts numbers and drops repetitions.
fn numbers(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

impl Plans {
    async fn side(&self, digest: Digest, package: Arc<Package>, wanted: Vec<u32>) -> Result<Side, PlanError> {
        let depot = &self.depot;
        let index = depot.index(digest, &package).await?;
        let reader = depot.chunks.clone();
        let source = PackageSource::open(reader, &depot.store, &package.contents, &index, &wanted).await?;
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
        specs: &[FrameSpec],
        base: Option<&Side>,
        target: &Side,
        workers: usize,
    ) -> Result<ServedPlan, PlanError> {
        let (base_contents, base_source): (&[Content], &dyn ContentSource) = match base {
            Some(side) => (&side.package.contents, &side.source),
            None => (&[], &NoContent),
        };
        let frames = transfer::encode_all(
            specs,
            (base_contents, base_source),
            (&target.package.contents, &target.source),
            self.effort,
            workers,
            |_, encoded| self.store_frame(runtime, encoded),
        )
        .map_err(|error| if self.depot.token.is_cancelled() { PlanError::Stopping } else { error.into() })?;
        let plan = TransferPlan { base: key.base, target: key.target, frames };
        let plan_bytes: Bytes =
            plan.encode(base_contents, &target.package.contents).map_err(PlanError::Encode)?.into();
        let base_manifest = base.map(|side| side.package.manifest.encode()).unwrap_or_default();
        let manifest_frame: Bytes = encode_manifest(&target.package.manifest, &base_manifest)?;
        let objects = &self.depot.objects;
        let name = |kind, bytes: &Bytes| Name(kind, Digest::of(bytes));
        runtime.block_on(objects.put(name(Kind::Frame, &manifest_frame), manifest_frame.clone()))?;
        runtime.block_on(objects.put(name(Kind::Plan, &plan_bytes), plan_bytes.clone()))?;
        Ok(ServedPlan::new(plan, plan_bytes, manifest_frame))
    }

    /// Makes a frame durable as soon as it is encoded, so that no more than one per thread is in memory.
    fn store_frame(&self, runtime: &Handle, encoded: EncodedFrame) -> Result<Frame, EncodeError> {
        if self.depot.token.is_cancelled() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let EncodedFrame { frame, bytes } = encoded;
        let stored = runtime.block_on(self.depot.objects.put(Name(Kind::Frame, frame.digest), bytes));
        stored.map_err(io::Error::other)?;
        Ok(frame)
    }
}

fn encode_manifest(target: &Manifest, base: &[u8]) -> Result<Bytes, PlanError> {
    Ok(transfer::encode_manifest(&target.encode(), base).map_err(PlanError::Encode)?.into())
}

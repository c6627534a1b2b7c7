//! Staging: brings a release to disk beside the running one, verified and synced, however often it is interrupted.
//!
//! 1. Learn the manifest and a plan, from the staging directory or from a content source.
//! 2. Survey the staging tree by hashing it; take what installed releases hold, and hash that.
//! 3. Fetch the frames that cover the rest, each from the byte where it stopped; decode and hash them into the tree.
//! 4. Compare the shape of the tree with the manifest, sync the file system, give it its name, write the marker.
//!
//! Invariant: `releases/<digest12>.verified` exists only after every byte of the tree was hashed, once, by the process
//! that wrote or found it there, and synced.
//! Called by the [`crate::engine`] of an application; one staging at a time runs on a host. Blocking work runs on the
//! runtime's blocking threads through [`Work`], which is always awaited.

mod area;
mod behind;
mod fetch;
mod place;
mod restore;
mod resume;
mod reuse;
mod share;
mod space;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writeback;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::order::Installed;
use sluice_common::transfer::decode_manifest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::content::{ContentClient, ContentError, PlanReply};
use crate::crash::CrashPoints;
use crate::examine::examine;
use crate::layout::AppDir;
use crate::observe;
use crate::seen::Seen;

pub(crate) use area::{discard, make_directory, unmark};
pub(crate) use share::Reuse;
pub(crate) use space::Space;

use area::{Area, PublishError, Published};
use fetch::{Fetch, FetchError, Needed, frames_for};
use place::Placer;
use share::Sharer;
use target::{Known, Target};

/// Most bases that are offered: more than a host keeps.
const BASES_MAX: usize = 8;
/// Damaged frames, wrong plans and wrong manifests in a row after which an order fails.
const DAMAGED_MAX: u32 = 20;
/// Refusals in a row after which an order fails.
const REFUSED_MAX: u32 = 10;

/// Frame bytes of the plan that are on disk, and all of them. Shared with whoever reports.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    fetched: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    fn begin(&self, total: u64, lacking: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.fetched.store(total.saturating_sub(lacking), Ordering::Relaxed);
    }

    /// Returns the bytes that are on disk, and all of them.
    pub(crate) fn read(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::Relaxed);
        (self.fetched.load(Ordering::Relaxed).min(total), total)
    }
}

/// What is remembered of an order's attempts; only for as long as the agent runs.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Installed releases that are no good as a base.
    excluded: HashSet<Digest>,
    damaged: u32,
    refused: u32,
    /// When a plan was last asked for.
    asked: Option<Instant>,
    /// When content was first asked for.
    pub(crate) first_request: Option<Instant>,
}

/// Runs blocking work that can be told to stop.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Ends what is awaited.
    pub(crate) token: CancellationToken,
}

impl Work {
    /// Runs `work` on a blocking thread to its end; it is told to stop when the token is cancelled.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let mut running = tokio::task::spawn_blocking(move || work(&flag));
        let joined = tokio::select! {
            joined = &mut running => joined,
            () = self.token.cancelled() => {
                stop.store(true, Ordering::Relaxed);
                running.await
            }
        };
        joined.map_err(io::Error::other)?
    }
}

/// What is to be staged.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The application.
    pub(crate) dir: AppDir,
    /// The release.
    pub(crate) release: Installed,
    /// How bytes of installed releases are shared.
    pub(crate) reuse: Reuse,
    /// Simulated crashes, in tests.
    pub(crate) crash: CrashPoints,
}

/// Says why staging ended without a staged release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// Trying again later is right.
    #[error("{reason}")]
    Retry {
        /// What is waited for.
        reason: String,
    },
    /// Trying again would not help.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The agent stops, or another order came.
    #[error("staging was interrupted")]
    Cancelled,
}

impl StageError {
    fn retry(reason: impl ToString) -> Self {
        Self::Retry { reason: reason.to_string() }
    }

    fn failed(reason: impl ToString) -> Self {
        Self::Failed { reason: reason.to_string() }
    }
}

/// The local disk failing is nothing that trying again mends.
impl From<io::Error> for StageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Cancelled,
            _ => Self::failed(format!("cannot stage: {error}")),
        }
    }
}

/// Stages a release. When this returns, its marker stands; what was hashed of it is told.
pub(crate) async fn stage(
    job: &Job,
    client: &mut impl ContentClient,
    attempts: &mut Attempts,
    progress: &Progress,
    token: &CancellationToken,
) -> Result<Seen, StageError> {
    let work = Work { token: token.clone() };
    let package = job.release.package;
    let (dir, crash) = (job.dir.clone(), job.crash.clone());
    let area = work.run(move |_| Area::open(&dir, package, crash)).await?;
    let mut stager = Stager { job, area, attempts, progress, work };
    let result = stager.run(client).await;
    if let Err(StageError::Failed { .. }) = &result {
        // What failed is not used again, and its space is free again.
        let area = stager.area.clone();
        stager.work.run(move |_| area.remove()).await?;
    }
    result
}

struct Stager<'a> {
    job: &'a Job,
    area: Area,
    attempts: &'a mut Attempts,
    progress: &'a Progress,
    work: Work,
}

impl Stager<'_> {
    async fn run(&mut self, client: &mut impl ContentClient) -> Result<Seen, StageError> {
        loop {
            let mut known = self.load().await?;
            if known.is_none() {
                known = Some(self.ask(client).await?);
            }
            let known = known.expect("it was just learnt");
            let (mut placer, damaged) = self.survey(&known).await?;
            if !placer.is_whole() {
                self.attempts.excluded.extend(damaged);
                match self.fetch(known, placer, client).await? {
                    Some(whole) => placer = whole,
                    None => continue,
                }
            }
            if let Some(seen) = self.publish(placer).await? {
                return Ok(seen);
            }
        }
    }

    async fn load(&self) -> Result<Option<Known>, StageError> {
        let area = self.area.clone();
        Ok(self.work.run(move |_| area.load()).await?)
    }

    /// Hashes what stands in the staging tree and fills what installed releases hold.
    async fn survey(&self, known: &Known) -> Result<(Placer, HashSet<Digest>), StageError> {
        let (area, known) = (self.area.clone(), known.clone());
        let sharer = Arc::new(Sharer::new(self.job.reuse));
        let surveyed = self.work.run(move |stop| {
            let findings = examine(&area.tree(), &known.target.manifest, stop)?;
            let mut placer = Placer::prepare(&area, known.target.clone(), sharer, &findings)?;
            let damaged = reuse::reuse(area.dir(), &mut placer, stop)?;
            if let Some(planned) = &known.plan {
                placer.survey_parts(&planned.plan)?;
            }
            Ok((placer, damaged))
        });
        Ok(surveyed.await?)
    }

    /// Asks for manifest and plan, checks them and keeps them.
    async fn ask(&mut self, client: &mut impl ContentClient) -> Result<Known, StageError> {
        let (offered, answer) = self.offer(client).await?;
        self.keep(offered, answer).await
    }

    /// Asks for manifest and plan, and checks them.
    async fn offer(&mut self, client: &mut impl ContentClient) -> Result<(Known, PlanReply), StageError> {
        let now = Instant::now();
        self.attempts.first_request.get_or_insert(now);
        self.attempts.asked = Some(now);
        let (dir, package) = (self.job.dir.clone(), self.job.release.package);
        let bases = self.work.run(move |_| observe::installed(&dir)).await?;
        let bases = bases.into_iter().map(|installed| installed.package);
        let bases: Vec<Digest> =
            bases.filter(|base| !self.attempts.excluded.contains(base)).take(BASES_MAX).collect();
        let reply = tokio::select! {
            reply = client.plan(package, bases) => reply,
            () = self.work.token.cancelled() => return Err(StageError::Cancelled),
        };
        let reply = reply.map_err(|error| self.content_error(error))?;
        let dir = self.job.dir.clone();
        let base = reply.base;
        let known = self
            .work
            .run(move |_| {
                let base_bytes = match &reply.base {
                    Some(base) => observe::manifest(&dir, base)?.encode(),
                    None => Vec::new(),
                };
                let Ok(bytes) = decode_manifest(&reply.manifest, &base_bytes) else { return Ok(None) };
                let Some(target) = Target::decode(package, bytes) else { return Ok(None) };
                let known = Known::new(&dir, target, reply.base, Some(&reply.plan));
                Ok(known.plan.is_some().then_some((known, reply)))
            })
            .await;
        match known {
            Ok(Some(known)) => Ok(known),
            Ok(None) => Err(self.blame(base, format!("the plan or manifest of {package} came damaged"))),
            // The base's manifest cannot be read: the base is no good.
            Err(error) if base.is_some() => Err(self.blame(base, error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps an offered plan on disk.
    async fn keep(&self, offered: Known, answer: PlanReply) -> Result<Known, StageError> {
        let area = self.area.clone();
        let kept = self.work.run(move |_| {
            if let Some(planned) = &offered.plan {
                area.store_plan(&offered.target.bytes, answer.base, &answer.plan, &planned.plan)?;
            }
            Ok(offered)
        });
        Ok(kept.await?)
    }

    /// Fetches what the plan has of what is lacking. Returns the placer once it is whole; nothing where there was no plan
    /// that could make it so, and the next one is to be tried.
    async fn fetch(
        &mut self,
        known: Known,
        placer: Placer,
        client: &mut impl ContentClient,
    ) -> Result<Option<Placer>, StageError> {
        let Some(planned) = &known.plan else {
            self.ask(client).await?;
            return Ok(None);
        };
        let base = planned.plan.base;
        let Needed { frames, is_enough } = frames_for(&planned.plan, &placer);
        if frames.is_empty() {
            return self.leave_plan(base).await;
        }
        let left = self.area.lacking_bytes(&planned.plan, &frames);
        if resume::may_ask(left, self.attempts.asked, Instant::now()) {
            let (offered, answer) = self.offer(client).await?;
            if let Some(other) = &offered.plan {
                let Needed { frames, is_enough } = frames_for(&other.plan, &placer);
                if is_enough && resume::is_better(self.area.lacking_bytes(&other.plan, &frames), left) {
                    tracing::info!(left, "a better plan is taken than the one that was begun");
                    self.keep(offered, answer).await?;
                    return Ok(None);
                }
            }
        }
        space::check(&self.job.dir, &placer, planned, &frames)?;
        self.attempts.first_request.get_or_insert_with(Instant::now);
        let lacked = placer.lacking().len();
        let fetch = Fetch { area: &self.area, planned, progress: self.progress, work: &self.work };
        let (placer, result) = fetch.run(placer, &frames, client).await?;
        if placer.lacking().len() < lacked {
            (self.attempts.damaged, self.attempts.refused) = (0, 0);
        }
        match result {
            Ok(()) if placer.is_whole() => Ok(Some(placer)),
            Ok(()) if !is_enough => self.leave_plan(base).await,
            Ok(()) => {
                self.discard_plan().await?;
                Err(self.blame(base, "the frames of the plan do not restore the package".into()))
            }
            Err(FetchError::Damaged(frame)) => {
                tracing::warn!(frame = %frame.short(), "frame came damaged and is fetched anew");
                Err(self.blame(None, format!("frame {} came damaged", frame.short())))
            }
            Err(FetchError::Base(frame)) => {
                self.discard_plan().await?;
                let reason = format!("frame {} does not fit what this host has", frame.short());
                Err(self.blame(base, reason))
            }
            Err(FetchError::Content(error)) => {
                if matches!(error, ContentError::Refused(_)) {
                    self.discard_plan().await?;
                }
                Err(self.content_error(error))
            }
            Err(FetchError::Disk(error)) => Err(error.into()),
            Err(FetchError::Cancelled) => Err(StageError::Cancelled),
        }
    }

    /// Gives up a plan that takes for granted what turned out damaged; what it had is in place.
    async fn leave_plan(&mut self, base: Option<Digest>) -> Result<Option<Placer>, StageError> {
        self.discard_plan().await?;
        match base {
            Some(base) => {
                self.attempts.excluded.insert(base);
                Ok(None)
            }
            None => Err(self.blame(None, "the plan does not hold the whole package".into())),
        }
    }

    async fn discard_plan(&self) -> Result<(), StageError> {
        let area = self.area.clone();
        Ok(self.work.run(move |_| area.discard_plan()).await?)
    }

    /// Publishes the tree; returns nothing when some of it was wrong and has to be had anew.
    async fn publish(&mut self, placer: Placer) -> Result<Option<Seen>, StageError> {
        let (area, release) = (self.area.clone(), self.job.release.clone());
        let published = self.work.run(move |stop| Ok(area.publish(placer, &release, stop))).await?;
        match published {
            Ok(Published::Done(seen)) => {
                let area = self.area.clone();
                if let Err(error) = self.work.run(move |_| area.remove()).await {
                    tracing::warn!(%error, "staging directory is left over; it is removed later");
                }
                Ok(Some(seen))
            }
            Ok(Published::NotWhole(files)) => {
                match self.blame(None, format!("{files} staged files were damaged")) {
                    StageError::Retry { .. } => Ok(None),
                    error => Err(error),
                }
            }
            Err(PublishError::Verify(error)) => Err(error.into()),
            Err(PublishError::Sync(error)) => {
                Err(StageError::failed(format!("cannot make the staged release durable: {error}")))
            }
        }
    }

    /// Counts damage against the source, and leaves a base out from now on.
    fn blame(&mut self, base: Option<Digest>, reason: String) -> StageError {
        self.attempts.excluded.extend(base);
        self.attempts.damaged += 1;
        match self.attempts.damaged {
            0..DAMAGED_MAX => StageError::retry(reason),
            times => StageError::failed(format!("{reason}, for the {times}th time in a row; giving up")),
        }
    }

    fn content_error(&mut self, error: ContentError) -> StageError {
        match &error {
            ContentError::Unreachable(_) => StageError::retry(error),
            ContentError::Protocol(_) => self.blame(None, error.to_string()),
            ContentError::Refused(_) => {
                self.attempts.refused += 1;
                match self.attempts.refused {
                    0..REFUSED_MAX => StageError::retry(error),
                    times => {
                        StageError::failed(format!("{error}, for the {times}th time in a row; giving up"))
                    }
                }
            }
        }
    }
}

/// Returns how long to wait before staging is tried again after so many failures in a row: half a second doubled up to
/// half a minute, spread by `random` (0 to 1) so that hosts do not come together.
pub(crate) fn retry_delay(failures: u32, random: f64) -> Duration {
    let longest = Duration::from_millis(500) * 2_u32.pow(failures.min(6));
    longest.min(Duration::from_secs(30)).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

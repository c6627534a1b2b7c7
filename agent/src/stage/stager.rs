//! The steps of staging, in the order in which what is on disk asks for them.
//!
//! Every step begins from what the one before left on disk, so that an interrupted staging goes on by running again.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_common::digest::Digest;
use sluice_common::transfer::decode_manifest;
use tokio::time::Instant;

use super::area::{Area, PublishError, Published};
use super::fetch::{Fetch, FetchError, Needed, frames_for};
use super::place::Placer;
use super::share::Sharer;
use super::space::{self, Room};
use super::target::{Known, Target};
use super::{Attempts, Job, Progress, StageError, Work, resume, reuse};
use crate::content::{ContentClient, ContentError, PlanReply};
use crate::examine::{examine, is_bare};
use crate::seen::Seen;
use crate::{observe, preflight};

/// Most bases that are offered: more than a host keeps.
const BASES_MAX: usize = 8;
/// Damaged frames, wrong plans and wrong manifests in a row after which an order fails.
pub(super) const DAMAGED_MAX: u32 = 20;
/// Refusals in a row after which an order fails.
pub(super) const REFUSED_MAX: u32 = 10;

/// One attempt to stage a release.
pub(super) struct Stager<'a> {
    pub(super) job: &'a Job,
    pub(super) area: Area,
    pub(super) attempts: &'a mut Attempts,
    pub(super) progress: &'a Progress,
    pub(super) work: Work,
}

impl Stager<'_> {
    /// Asks, fetches and publishes until the release is staged or something has to wait.
    pub(super) async fn run(&mut self, client: &mut impl ContentClient) -> Result<Seen, StageError> {
        loop {
            let placer = self.gather(client).await?;
            if let Some(seen) = self.publish(placer).await? {
                return Ok(seen);
            }
        }
    }

    /// Asks and fetches until every file stands in the tree or something has to wait.
    pub(super) async fn gather(&mut self, client: &mut impl ContentClient) -> Result<Placer, StageError> {
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
            return Ok(placer);
        }
    }

    async fn load(&self) -> Result<Option<Known>, StageError> {
        let area = self.area.clone();
        Ok(self.work.run(move |_| area.load()).await?)
    }

    /// Hashes what stands in the staging tree and fills what installed releases hold.
    async fn survey(&self, known: &Known) -> Result<(Placer, HashSet<Digest>), StageError> {
        let (area, known) = (self.area.clone(), known.clone());
        let room = Room::new(self.job.dir.clone(), self.job.floor, self.job.release.package);
        let sharer = Arc::new(Sharer::new(self.job.reuse, room));
        let hashed = self.job.hashed.clone();
        let surveyed = self.work.run(move |stop| {
            let findings = match is_bare(&area.tree())? {
                true => None,
                false => Some(examine(&area.tree(), &known.target.manifest, stop)?),
            };
            let mut placer = Placer::prepare(&area, known.target.clone(), sharer, findings.as_deref())?;
            let knowledge = (known.plan.as_deref(), hashed.as_deref());
            let damaged = reuse::reuse(area.dir(), &mut placer, knowledge, stop)?;
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
            reply = client.plan(package, bases, &mut self.attempts.begun) => reply,
            () = self.work.token.cancelled() => return Err(StageError::Cancelled),
        };
        let reply = reply.map_err(|error| self.content_error(error))?;
        let dir = self.job.dir.clone();
        let base = reply.base;
        let known = self
            .work
            .run(move |_| {
                let base = match reply.base {
                    Some(base) => Some((base, observe::manifest(&dir, &base)?)),
                    None => None,
                };
                let base_bytes = base.as_ref().map(|(_, manifest)| manifest.as_bytes()).unwrap_or_default();
                let Ok(bytes) = decode_manifest(&reply.manifest, base_bytes) else { return Ok(None) };
                let Some(target) = Target::decode(package, bytes) else { return Ok(None) };
                let known = Known::new(&dir, target, base, &reply.plan);
                let objection = preflight::objection(&reply.spec, &known.target.manifest, dir.base())?;
                Ok(known.plan.is_some().then_some((known, reply, objection)))
            })
            .await;
        match known {
            Ok(Some((_, _, Some(objection)))) => Err(StageError::failed(objection)),
            Ok(Some((known, reply, None))) => Ok((known, reply)),
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
                area.store_plan(offered.target.manifest.as_bytes(), answer.base, &answer.plan, planned)?;
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
        let left = self.area.lacking_bytes(planned, &frames);
        if self.took_better_plan(left, &placer, client).await? {
            return Ok(None);
        }
        space::check(self.job, &placer, planned, &frames, left)?;
        placer.sharer().room().grant();
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

    /// Asks whether there is a plan of which fewer than `left` bytes would have to come, and takes it; says whether.
    async fn took_better_plan(
        &mut self,
        left: u64,
        placer: &Placer,
        client: &mut impl ContentClient,
    ) -> Result<bool, StageError> {
        if !resume::may_ask(left, self.attempts.asked, Instant::now()) {
            return Ok(false);
        }
        let (offered, answer) = self.offer(client).await?;
        let Some(other) = &offered.plan else { return Ok(false) };
        let Needed { frames, is_enough } = frames_for(&other.plan, placer);
        if !is_enough || !resume::is_better(self.area.lacking_bytes(other, &frames), left) {
            return Ok(false);
        }
        tracing::info!(left, "a better plan is taken than the one that was begun");
        self.keep(offered, answer).await?;
        Ok(true)
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

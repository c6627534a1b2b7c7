//! Fetches frames: only those that cover what is missing, each from the byte where its file ends. Each that is whole
//! goes to the [`Restorer`], on a blocking thread, while the next one comes and what came before goes to disk.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use futures::StreamExt;
use sluice_common::digest::Digest;
use sluice_common::transfer::{Frame, TransferPlan};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::area::{Area, discard};
use super::blocks::Room;
use super::gather::{Coming, Gathered};
use super::place::Placer;
use super::restore::Restorer;
use super::schedule;
use super::target::Planned;
use super::writeback::Writeback;
use super::{Progress, Work};
use crate::content::{ContentClient, ContentError, FrameChunk, FrameStream, FrameWanted, STALL_TIMEOUT};

/// Says why a fetch ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The source failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A frame's bytes are not the frame.
    #[error("frame {0} came damaged")]
    Damaged(Digest),
    /// A frame is right, but what it leans on is not, or the plan lies.
    #[error("frame {0} does not restore what the plan promises")]
    Base(Digest),
    /// The disk failed.
    #[error("cannot store what was fetched")]
    Disk(#[from] io::Error),
    /// The agent stops, or another order came.
    #[error("fetching was interrupted")]
    Cancelled,
}

/// Returns which of two ends counts: that the disk failed, because the kernel says so once; else the first.
fn graver(first: Result<(), FetchError>, then: Result<(), FetchError>) -> Result<(), FetchError> {
    match (first, then) {
        (Err(FetchError::Disk(error)), _) | (_, Err(FetchError::Disk(error))) => Err(FetchError::Disk(error)),
        (first, then) => first.and(then),
    }
}

/// The frames of a plan that are of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Those that hold a part which is lacking, by number.
    pub(crate) frames: Vec<usize>,
    /// Whether they hold all that is lacking: the plan may have taken some of it to be in a base.
    pub(crate) is_enough: bool,
}

/// Returns the frames of `plan` that the placer still needs.
pub(crate) fn frames_for(plan: &TransferPlan, placer: &Placer) -> Needed {
    let covered: HashSet<u32> =
        plan.frames.iter().flat_map(|frame| &frame.parts).map(|part| part.extent.content).collect();
    let needs = |frame: &Frame| frame.parts.iter().any(|part| !placer.has_part(part));
    Needed {
        frames: (0..plan.frames.len()).filter(|number| needs(&plan.frames[*number])).collect(),
        is_enough: placer.lacking().iter().all(|content| covered.contains(content)),
    }
}

/// One fetch of some frames of a plan.
pub(crate) struct Fetch<'a> {
    /// Where frames are gathered.
    pub(crate) area: &'a Area,
    /// The plan.
    pub(crate) planned: &'a Arc<Planned>,
    /// Told how much has come.
    pub(crate) progress: &'a Progress,
    /// How blocking work is run and stopped.
    pub(crate) work: &'a Work,
}

impl Fetch<'_> {
    /// Fetches and decodes `frames`, by number, into `placer`, which comes back with how it ended. Frames that were
    /// gathered whole before are not asked for. Fails where blocking work does not come back.
    pub(crate) async fn run(
        &self,
        placer: Placer,
        frames: &[usize],
        client: &mut impl ContentClient,
    ) -> io::Result<(Placer, Result<(), FetchError>)> {
        let plan = &self.planned.plan;
        self.progress.begin(plan.wire_len(), self.area.lacking_bytes(self.planned, frames));
        let is_gathered =
            |number: &usize| self.area.frame_len(self.planned.file(*number)) >= plan.frames[*number].wire_len;
        let (gathered, mut wanted): (Vec<usize>, Vec<usize>) = frames.iter().partition(|n| is_gathered(n));
        let mut restorer = Restorer::new(self.area.clone(), self.planned.clone(), placer);
        gathered.into_iter().for_each(|number| restorer.add(Gathered::on_disk(number)));
        let (_, nothing_comes) = mpsc::channel(1);
        let (mut restorer, restored) =
            self.restore(restorer, nothing_comes, &CancellationToken::new()).await?;
        if let Err(error) = restored {
            return Ok((restorer.into_placer(), Err(error)));
        }
        wanted.append(&mut restorer.take_damaged());
        wanted.sort_unstable();
        if wanted.is_empty() {
            let outcome = restorer.outcome();
            return Ok((restorer.into_placer(), outcome));
        }
        match self.open(&wanted, client).await {
            Ok(stream) => self.receive_and_restore(restorer, &wanted, stream).await,
            Err(error) => Ok((restorer.into_placer(), Err(error))),
        }
    }

    async fn open(
        &self,
        wanted: &[usize],
        client: &mut impl ContentClient,
    ) -> Result<FrameStream, FetchError> {
        let request = wanted.iter().map(|number| {
            let file = self.planned.file(*number);
            FrameWanted { digest: file.digest, offset: self.area.frame_len(file) }
        });
        let TransferPlan { base, target, .. } = &self.planned.plan;
        tokio::select! {
            opened = client.fetch(*target, *base, request.collect()) => Ok(opened?),
            () = self.work.token.cancelled() => Err(FetchError::Cancelled),
        }
    }

    /// Restores each frame while the next one comes. One more may wait between, so that neither side waits for a frame
    /// that is smaller than the others.
    async fn receive_and_restore(
        &self,
        restorer: Restorer,
        wanted: &[usize],
        stream: FrameStream,
    ) -> io::Result<(Placer, Result<(), FetchError>)> {
        let (whole, gathered) = mpsc::channel(1);
        let room = Room::new(schedule::room(&self.planned.plan.frames));
        let given_up = CancellationToken::new();
        let receive = self.receive(wanted, &room, stream, whole, &given_up);
        let (received, restored) = tokio::join!(receive, self.restore(restorer, gathered, &given_up));
        let (restorer, restored) = restored?;
        // What was given up has its cause in restoring.
        let result = graver(restored, received).and_then(|()| restorer.outcome());
        Ok((restorer.into_placer(), result))
    }

    /// Restores the frames that have come and those that come, until nothing more does and all that can be is restored. Where
    /// that fails, it says that receiving is given up, and keeps what has come until then.
    async fn restore(
        &self,
        mut restorer: Restorer,
        mut gathered: mpsc::Receiver<Gathered>,
        given_up: &CancellationToken,
    ) -> io::Result<(Restorer, Result<(), FetchError>)> {
        // Whatever becomes of this, nobody receives for it any longer.
        let _gives_up = given_up.clone().drop_guard();
        let mut writeback = Writeback::new(restorer.tree().clone());
        let (mut running, mut restored, mut is_open) = (JoinSet::new(), Ok(()), true);
        loop {
            while restored.is_ok() && !self.work.token.is_cancelled() {
                let Some(work) = restorer.next() else { break };
                running.spawn_blocking(work);
            }
            let takes = is_open && restored.is_ok() && !restorer.is_busy();
            tokio::select! {
                frame = gathered.recv(), if takes => match frame {
                    Some(frame) => restorer.add(frame),
                    None => is_open = false,
                },
                Some(worked) = running.join_next(), if !running.is_empty() => {
                    let bytes = restorer.ended(worked.map_err(io::Error::other)?);
                    restored = graver(restored, bytes.and_then(|bytes| Ok(writeback.note(bytes)?)));
                }
                else => break,
            }
        }
        let ended = writeback.end().await;
        given_up.cancel();
        while let Some(frame) = gathered.recv().await {
            restorer.add(frame);
        }
        let restorer = self.work.run(move |_| restorer.keep()).await?;
        Ok((restorer, graver(restored, ended.map_err(Into::into))))
    }

    /// Gathers the frames wanted and tells of each that is whole. What has come of a frame that is not is on disk then.
    async fn receive(
        &self,
        wanted: &[usize],
        room: &Room,
        mut stream: FrameStream,
        whole: mpsc::Sender<Gathered>,
        given_up: &CancellationToken,
    ) -> Result<(), FetchError> {
        let mut coming: Option<Coming> = None;
        let mut left = wanted.len();
        let result = loop {
            if left == 0 {
                break Ok(());
            }
            let due = coming.as_ref().and_then(Coming::due);
            let taken = tokio::select! {
                chunk = self.next(&mut stream) => match chunk {
                    Ok(chunk) => self.take(&mut coming, wanted, room, chunk),
                    Err(error) => Err(error),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
                () = given_up.cancelled() => break Ok(()),
            };
            if let Err(error) = taken {
                break Err(error);
            }
            if coming.as_ref().is_some_and(|coming| coming.is_due(Instant::now()))
                && let Some(due) = coming.take()
            {
                match self.write(wanted, due).await {
                    Ok(written) => coming = Some(written),
                    Err(error) => break Err(error.into()),
                }
            }
            if let Some(frame) = coming.take_if(|coming| coming.is_whole()) {
                left -= 1;
                let number = wanted[frame.wanted];
                if whole.send(frame.end(number)).await.is_err() {
                    break Ok(());
                }
            }
        };
        match coming {
            Some(coming) => {
                let written = self.write(wanted, coming).await;
                graver(result, written.map(drop).map_err(Into::into))
            }
            None => result,
        }
    }

    async fn next(&self, stream: &mut FrameStream) -> Result<FrameChunk, FetchError> {
        let broken = |reason: &str| ContentError::Unreachable(reason.to_owned());
        tokio::select! {
            item = tokio::time::timeout(STALL_TIMEOUT, stream.next()) => match item {
                Ok(Some(chunk)) => Ok(chunk?),
                Ok(None) => Err(broken("the stream ended before all frames had come").into()),
                Err(_) => Err(broken("the stream stands still").into()),
            },
            () = self.work.token.cancelled() => Err(FetchError::Cancelled),
        }
    }

    /// Takes bytes of a frame.
    fn take(
        &self,
        coming: &mut Option<Coming>,
        wanted: &[usize],
        room: &Room,
        chunk: FrameChunk,
    ) -> Result<(), FetchError> {
        let unasked = || ContentError::Protocol("bytes of a frame that was not asked for".into());
        let number = *wanted.get(chunk.frame).ok_or_else(unasked)?;
        let (frame, path) = (&self.planned.plan.frames[number], self.area.frame(self.planned.file(number)));
        let mut open = match coming.take() {
            Some(open) if open.wanted == chunk.frame => open,
            Some(other) => {
                *coming = Some(other);
                let reason = "a frame began before the one before it was whole";
                return Err(ContentError::Protocol(reason.into()).into());
            }
            None => Coming::begin(&path, chunk.frame, frame, room)?,
        };
        self.progress.note(chunk.data.len() as u64);
        if !open.take(chunk.data) {
            discard(&path)?;
            return Err(FetchError::Damaged(frame.digest));
        }
        *coming = Some(open);
        Ok(())
    }

    /// Writes what has come of a frame.
    async fn write(&self, wanted: &[usize], coming: Coming) -> io::Result<Coming> {
        let path = self.area.frame(self.planned.file(wanted[coming.wanted]));
        self.work.run(move |_| coming.write(&path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_failed_is_never_kept_silent() {
        let ends = ["ok", "disk", "base", "cancelled"];
        let end = |name: &str| match name {
            "ok" => Ok(()),
            "disk" => Err(FetchError::Disk(io::Error::other("lost a page"))),
            "base" => Err(FetchError::Base(Digest::of(b"frame"))),
            _ => Err(FetchError::Cancelled),
        };
        let name = |end: Result<(), FetchError>| match end {
            Ok(()) => "ok",
            Err(FetchError::Disk(_)) => "disk",
            Err(FetchError::Base(_)) => "base",
            Err(_) => "cancelled",
        };
        for first in ends {
            for then in ends {
                let expected = match (first, then) {
                    (_, "disk") => "disk",
                    ("ok", then) => then,
                    (first, _) => first,
                };
                assert_eq!(name(graver(end(first), end(then))), expected, "{first}, {then}");
            }
        }
    }
}

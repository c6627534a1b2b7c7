//! Fetches frames: only those that cover what is missing, each from the byte where its file ends. Each that is whole
//! goes to the [`Restorer`], on a blocking thread, while the next one comes and what came before goes to disk.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use sluice_common::digest::{Digest, Hasher};
use sluice_common::transfer::{Frame, TransferPlan};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::area::{Area, discard};
use super::place::Placer;
use super::restore::{Gathered, Restorer};
use super::target::Planned;
use super::writeback::Writeback;
use super::{Progress, Work};
use crate::content::{ContentClient, ContentError, FrameChunk, FrameStream, FrameWanted, STALL_TIMEOUT};

/// Bytes gathered before they are written: a crash loses at most these.
const WRITE_BYTES: usize = 256 * 1024;
/// Time after which fewer bytes are written too.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

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
        self.progress.begin(plan.wire_len(), self.area.lacking_bytes(plan, frames));
        let is_gathered = |number: &usize| {
            let frame = &self.planned.plan.frames[*number];
            self.area.frame_len(&frame.digest) >= frame.wire_len
        };
        let (gathered, mut wanted): (Vec<usize>, Vec<usize>) = frames.iter().partition(|n| is_gathered(n));
        let mut restorer = Restorer::new(self.area.clone(), self.planned.clone(), placer);
        gathered.into_iter().for_each(|number| restorer.add(Gathered { number, digest: None }));
        let (_, nothing_comes) = mpsc::channel(1);
        let (mut restorer, restored) = self.restore(restorer, nothing_comes).await?;
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
            let digest = self.planned.plan.frames[*number].digest;
            FrameWanted { digest, offset: self.area.frame_len(&digest) }
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
        let receive = async move {
            // Dropped with the other sender: restoring ends once nothing more comes.
            let is_given_up = whole.clone();
            tokio::select! {
                received = self.receive(wanted, stream, whole) => received,
                () = is_given_up.closed() => Ok(()),
            }
        };
        let (received, restored) = tokio::join!(receive, self.restore(restorer, gathered));
        let (restorer, restored) = restored?;
        // What was given up has its cause in restoring.
        let result = restored.and(received).and_then(|()| restorer.outcome());
        Ok((restorer.into_placer(), result))
    }

    /// Restores the frames that have come and those that come, until nothing more does and all that can be is restored.
    async fn restore(
        &self,
        mut restorer: Restorer,
        mut gathered: mpsc::Receiver<Gathered>,
    ) -> io::Result<(Restorer, Result<(), FetchError>)> {
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
                    restored = restored.and(bytes.and_then(|bytes| Ok(writeback.note(bytes)?)));
                }
                else => break,
            }
        }
        let ended = writeback.end().await;
        Ok((restorer, restored.and(ended.map_err(Into::into))))
    }

    /// Gathers the frames wanted and tells of each that is whole.
    async fn receive(
        &self,
        wanted: &[usize],
        mut stream: FrameStream,
        whole: mpsc::Sender<Gathered>,
    ) -> Result<(), FetchError> {
        let mut writer: Option<PartWriter> = None;
        let mut left = wanted.len();
        let result = loop {
            if left == 0 {
                break Ok(());
            }
            let taken = match self.next(&mut stream).await {
                Ok(chunk) => self.take(&mut writer, wanted, chunk).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(false) => {}
                Ok(true) => {
                    left -= 1;
                    let writer = writer.take().expect("it was just written to");
                    let number = wanted[writer.frame];
                    if whole.send(Gathered { number, digest: writer.digest() }).await.is_err() {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
        };
        match writer {
            Some(writer) => {
                let flushed = self.work.run(move |_| writer.flush().map(drop)).await;
                result.and(flushed.map_err(Into::into))
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

    /// Takes bytes of a frame and says whether it is whole now.
    async fn take(
        &self,
        writer: &mut Option<PartWriter>,
        wanted: &[usize],
        chunk: FrameChunk,
    ) -> Result<bool, FetchError> {
        let unasked = || ContentError::Protocol("bytes of a frame that was not asked for".into());
        let frame = &self.planned.plan.frames[*wanted.get(chunk.frame).ok_or_else(unasked)?];
        if writer.as_ref().is_some_and(|writer| writer.frame != chunk.frame) {
            return Err(
                ContentError::Protocol("a frame began before the one before it was whole".into()).into()
            );
        }
        if writer.is_none() {
            *writer = Some(PartWriter::open(self.area, chunk.frame, frame)?);
        }
        let open = writer.as_mut().expect("it was just opened");
        if open.len + chunk.data.len() as u64 > frame.wire_len {
            discard(&self.area.frame(&frame.digest))?;
            *writer = None;
            return Err(FetchError::Damaged(frame.digest));
        }
        open.len += chunk.data.len() as u64;
        open.buffer.extend_from_slice(&chunk.data);
        self.progress.fetched.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
        let whole = open.len == frame.wire_len;
        let is_due = open.written.is_none_or(|written| written.elapsed() >= WRITE_INTERVAL);
        if whole || is_due || open.buffer.len() >= WRITE_BYTES {
            let taken = writer.take().expect("it was just written to");
            *writer = Some(self.work.run(move |_| taken.flush()).await?);
        }
        Ok(whole)
    }
}

/// Appends to a frame's file.
struct PartWriter {
    frame: usize,
    file: std::fs::File,
    buffer: Vec<u8>,
    /// Bytes in the file and the buffer.
    len: u64,
    /// When bytes were last written; not yet: the first that come are written at once, because over a thin link the next
    /// ones are seconds away.
    written: Option<Instant>,
    /// Hashes what is written, where that is the frame from its first byte on.
    hasher: Option<Hasher>,
}

impl PartWriter {
    fn open(area: &Area, number: usize, frame: &Frame) -> io::Result<Self> {
        let mut options = fs_err::OpenOptions::new();
        options.append(true).create(true);
        options.options_mut().mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let file: std::fs::File = options.open(area.frame(&frame.digest))?.into();
        let len = file.metadata()?.len();
        Ok(Self {
            frame: number,
            file,
            buffer: Vec::with_capacity(WRITE_BYTES),
            len,
            written: None,
            hasher: (len == 0).then(Hasher::new),
        })
    }

    fn flush(mut self) -> io::Result<Self> {
        self.file.write_all(&self.buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer);
        }
        self.buffer.clear();
        self.written = Some(Instant::now());
        Ok(self)
    }

    /// Returns the digest of what was written, where all of it was hashed.
    fn digest(&self) -> Option<Digest> {
        self.hasher.as_ref().map(Hasher::finish)
    }
}

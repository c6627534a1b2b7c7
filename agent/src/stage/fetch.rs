//! Fetches frames: only those that cover what is missing, each from the byte where its file ends; checks each by its
//! digest, then decodes it into the [`Placer`].

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use sluice_common::digest::Digest;
use sluice_common::transfer::{DecodeFrameError, Frame, Lean, TransferPlan, decode_frame};
use tokio::time::Instant;

use super::area::{Area, discard};
use super::place::Placer;
use super::target::Planned;
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

/// Returns the frames of `plan` that hold a part which is lacking, by number; nothing when some lacking content is in no
/// frame at all, because the plan took it to be in a base.
pub(crate) fn frames_for(plan: &TransferPlan, placer: &Placer) -> Option<Vec<usize>> {
    let covered: std::collections::HashSet<u32> =
        plan.frames.iter().flat_map(|frame| &frame.parts).map(|part| part.extent.content).collect();
    if placer.lacking().iter().any(|content| !covered.contains(content)) {
        return None;
    }
    let needed = |frame: &Frame| frame.parts.iter().any(|part| !placer.has_part(part));
    Some((0..plan.frames.len()).filter(|number| needed(&plan.frames[*number])).collect())
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
    /// Fetches and decodes `frames`, by number, into `placer`. Frames that were gathered whole before are not asked for.
    pub(crate) async fn run(
        &self,
        mut placer: Placer,
        frames: &[usize],
        client: &mut impl ContentClient,
    ) -> (Option<Placer>, Result<(), FetchError>) {
        self.progress.begin(self.planned.plan.wire_len(), self.lacking_bytes(frames));
        let is_gathered = |number: &usize| {
            let frame = &self.planned.plan.frames[*number];
            self.area.frame_len(&frame.digest) >= frame.wire_len
        };
        let (gathered, mut wanted): (Vec<usize>, Vec<usize>) = frames.iter().partition(|n| is_gathered(n));
        let mut held = Held { gathered, damaged: Vec::new() };
        match self.restore_held(placer, &mut held).await {
            (Some(back), Ok(())) => placer = back,
            failed => return failed,
        }
        wanted.append(&mut held.damaged);
        wanted.sort_unstable();
        if wanted.is_empty() {
            return (Some(placer), held.outcome(&self.planned.plan));
        }
        let request = wanted.iter().map(|number| {
            let digest = self.planned.plan.frames[*number].digest;
            FrameWanted { digest, offset: self.area.frame_len(&digest) }
        });
        let TransferPlan { base, target, .. } = &self.planned.plan;
        let opened = tokio::select! {
            opened = client.fetch(*target, *base, request.collect()) => opened,
            () = self.work.token.cancelled() => return (Some(placer), Err(FetchError::Cancelled)),
        };
        match opened {
            Ok(stream) => self.receive(placer, held, &wanted, stream).await,
            Err(error) => (Some(placer), Err(error.into())),
        }
    }

    fn lacking_bytes(&self, frames: &[usize]) -> u64 {
        let lacking = |number: &usize| {
            let frame = &self.planned.plan.frames[*number];
            frame.wire_len.saturating_sub(self.area.frame_len(&frame.digest))
        };
        frames.iter().map(lacking).sum()
    }

    async fn receive(
        &self,
        mut placer: Placer,
        mut held: Held,
        wanted: &[usize],
        mut stream: FrameStream,
    ) -> (Option<Placer>, Result<(), FetchError>) {
        let mut writer: Option<PartWriter> = None;
        let mut left = wanted.len();
        let result = loop {
            if left == 0 {
                break held.outcome(&self.planned.plan);
            }
            let chunk = match self.next(&mut stream).await {
                Ok(chunk) => chunk,
                Err(error) => break Err(error),
            };
            let whole = match self.take(&mut writer, wanted, chunk).await {
                Ok(whole) => whole,
                Err(error) => break Err(error),
            };
            if whole {
                held.gathered.push(wanted[writer.take().expect("it was just written to").frame]);
                left -= 1;
                match self.restore_held(placer, &mut held).await {
                    (Some(back), Ok(())) => placer = back,
                    failed => return failed,
                }
            }
        };
        if let Some(writer) = writer {
            let flushed = self.work.run(move |_| writer.into_file().map(drop)).await;
            if let (Ok(()), Err(error)) = (&result, flushed) {
                return (Some(placer), Err(error.into()));
            }
        }
        (Some(placer), result)
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
        if whole || open.buffer.len() >= WRITE_BYTES || open.written.elapsed() >= WRITE_INTERVAL {
            let taken = writer.take().expect("it was just written to");
            *writer = Some(self.work.run(move |_| taken.flush()).await?);
        }
        Ok(whole)
    }

    /// Decodes the gathered frames that lean on nothing that is still to come. Damaged ones are noted: the others are
    /// of use all the same.
    async fn restore_held(
        &self,
        mut placer: Placer,
        held: &mut Held,
    ) -> (Option<Placer>, Result<(), FetchError>) {
        held.gathered.sort_unstable();
        for number in std::mem::take(&mut held.gathered) {
            let frame = &self.planned.plan.frames[number];
            let mut leans = frame.base.iter().filter_map(Lean::of_produced);
            if !leans.all(|extent| placer.has_produced(extent)) {
                held.gathered.push(number);
                continue;
            }
            match self.finish(placer, number).await {
                (Some(back), Ok(())) => placer = back,
                (Some(back), Err(FetchError::Damaged(_))) => {
                    placer = back;
                    held.damaged.push(number);
                }
                failed => return failed,
            }
        }
        (Some(placer), Ok(()))
    }

    /// Checks a gathered frame and decodes it. The placer comes back unless the disk took it.
    async fn finish(&self, placer: Placer, number: usize) -> (Option<Placer>, Result<(), FetchError>) {
        let (area, planned) = (self.area.clone(), self.planned.clone());
        let finished = self
            .work
            .run(move |_| {
                let mut placer = placer;
                let result = restore(&area, &planned, &planned.plan.frames[number], &mut placer);
                Ok((placer, result))
            })
            .await;
        match finished {
            Ok((placer, result)) => (Some(placer), result),
            Err(error) => (None, Err(error.into())),
        }
    }
}

/// Frames that have come and are not restored yet, by number.
struct Held {
    /// They wait for a frame that they lean on.
    gathered: Vec<usize>,
    /// They are not what they are named.
    damaged: Vec<usize>,
}

impl Held {
    /// Returns how a fetch ends after which these are left.
    fn outcome(&self, plan: &TransferPlan) -> Result<(), FetchError> {
        let digest = |number: &usize| plan.frames[*number].digest;
        match (self.damaged.first(), self.gathered.first()) {
            (Some(damaged), _) => Err(FetchError::Damaged(digest(damaged))),
            (None, Some(waiting)) => Err(FetchError::Base(digest(waiting))),
            (None, None) => Ok(()),
        }
    }
}

/// Checks a frame's digest, decodes it, and removes its file, whether it was right or not.
fn restore(area: &Area, planned: &Planned, frame: &Frame, placer: &mut Placer) -> Result<(), FetchError> {
    let path = area.frame(&frame.digest);
    let (digest, _) = Digest::of_reader(fs_err::File::open(&path)?)?;
    if digest != frame.digest {
        discard(&path)?;
        return Err(FetchError::Damaged(frame.digest));
    }
    let compressed = io::BufReader::with_capacity(128 * 1024, fs_err::File::open(&path)?);
    let produced = placer.produced();
    let result = decode_frame(
        frame,
        compressed,
        (&planned.base_contents, planned.base()),
        (produced.contents(), &produced),
        placer,
    );
    match result {
        Ok(()) => Ok(discard(&path)?),
        Err(DecodeFrameError::Sink { source, .. }) => Err(source.into()),
        Err(DecodeFrameError::Damaged { frame, reason }) => {
            tracing::warn!(frame = %frame.short(), reason, "frame does not restore what its plan promises");
            discard(&path)?;
            Err(FetchError::Base(frame))
        }
        Err(DecodeFrameError::Base { frame, source }) => {
            tracing::warn!(frame = %frame.short(), error = %source, "base of a frame cannot be read");
            discard(&path)?;
            Err(FetchError::Base(frame))
        }
    }
}

/// Appends to a frame's file.
struct PartWriter {
    frame: usize,
    file: std::fs::File,
    buffer: Vec<u8>,
    /// Bytes in the file and the buffer.
    len: u64,
    written: Instant,
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
            written: Instant::now(),
        })
    }

    fn flush(mut self) -> io::Result<Self> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        self.written = Instant::now();
        Ok(self)
    }

    fn into_file(self) -> io::Result<std::fs::File> {
        self.flush().map(|writer| writer.file)
    }
}

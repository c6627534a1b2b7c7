//! The chunks of a push on their way into packs: verified on blocking threads, packed in order, written while more
//! come. Frames are restored side by side and hashed one after the other, each with the contents that it goes on with.
//!
//! At most [`VERIFYING_MAX`] frames are being verified, one pack is being filled and one is being written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use sluice_common::digest::Digest;
use sluice_proto::v1;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::PushError;
use super::prover::Prover;
use super::receive::Announced;
use crate::depot::Depot;
use crate::depot::packs::{FrameError, PackBuilder, VerifiedFrame};

/// Frames being verified at once: as many as small machines have cores, and some waiting.
const VERIFYING_MAX: usize = 4;
/// Time after which what has come is written even if it makes a small pack: a break loses no more than this.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Chunks on their way in.
pub(super) struct Upload {
    depot: Arc<Depot>,
    announced: Arc<Announced>,
    /// By chunk number: asked for and not yet come.
    wanted: Vec<bool>,
    outstanding: u64,
    verifying: FuturesOrdered<JoinHandle<Result<VerifiedFrame, FrameError>>>,
    /// Comes from the frame that was taken last, once that is hashed; never where one could not be restored.
    prover: oneshot::Receiver<Prover>,
    /// Memory that frames were restored into, for the next ones.
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    pack: PackBuilder,
    /// When the pack being filled has to be written.
    flush_at: Option<Instant>,
    writing: Option<JoinHandle<Result<u32, PushError>>>,
    stored: u32,
}

/// What came of an upload.
#[derive(Debug)]
pub(super) struct Stored {
    /// Chunks that are durable now.
    pub(super) chunks: u32,
    /// Contents that were put together of them and have their digest, by number, sorted.
    pub(super) proven: Vec<u32>,
}

impl Upload {
    pub(super) fn new(depot: Arc<Depot>, announced: Arc<Announced>, wanted: Vec<bool>) -> Self {
        let outstanding = wanted.iter().filter(|wanted| **wanted).count() as u64;
        let (first, prover) = oneshot::channel();
        first.send(Prover::new(announced.clone())).expect("the receiver is held");
        Self {
            depot,
            announced,
            wanted,
            outstanding,
            verifying: FuturesOrdered::new(),
            prover,
            buffers: Arc::default(),
            pack: PackBuilder::default(),
            flush_at: None,
            writing: None,
            stored: 0,
        }
    }

    /// Says whether another frame may be taken; if not, [`Self::progress`] makes room.
    pub(super) fn has_room(&self) -> bool {
        self.verifying.len() < VERIFYING_MAX && !(self.pack.is_full() && self.writing.is_some())
    }

    /// Takes a frame of chunks that were asked for.
    pub(super) fn take(&mut self, message: v1::PushChunks) -> Result<(), PushError> {
        let v1::PushChunks { numbers, frame } = message;
        let mut chunks = Vec::with_capacity(numbers.len());
        for number in &numbers {
            match self.wanted.get_mut(*number as usize) {
                Some(wanted) if *wanted => *wanted = false,
                Some(_) | None => return Err(PushError::NotAsked(*number)),
            }
            self.outstanding -= 1;
            chunks.push(self.announced.index.chunk(*number));
        }
        let (pass_on, next) = oneshot::channel();
        let (before, buffers) = (std::mem::replace(&mut self.prover, next), self.buffers.clone());
        self.verifying.push_back(tokio::task::spawn_blocking(move || {
            let mut raw = lock(&buffers).pop().unwrap_or_default();
            let verified = VerifiedFrame::verify_by(frame, chunks, &mut raw, |raw, pieces| {
                // Where a frame before this one could not be restored, the push is refused.
                let Ok(mut prover) = before.blocking_recv() else { return Digest::of_each(pieces) };
                let digests = prover.hash(&numbers, raw, pieces);
                // Nobody waits for it once the push has ended.
                let _ = pass_on.send(prover);
                digests
            });
            lock(&buffers).push(raw);
            verified
        }));
        Ok(())
    }

    /// Refuses a commit that comes before its chunks.
    pub(super) fn expect_complete(&self) -> Result<(), PushError> {
        match self.outstanding {
            0 => Ok(()),
            missing => Err(PushError::Incomplete(missing)),
        }
    }

    /// Does the next piece of work; returns how many chunks of this push are durable when that has changed.
    /// Cancel-safe. Waits forever when there is nothing to do.
    pub(super) async fn progress(&mut self) -> Result<Option<u32>, PushError> {
        let flush_at = self.flush_at.filter(|_| self.writing.is_none());
        tokio::select! {
            Some(verified) = self.verifying.next() => {
                self.packed(verified.expect("verifying does not panic")?);
                Ok(None)
            }
            written = written(&mut self.writing) => {
                self.writing = None;
                self.stored += written?;
                self.flush_if_full();
                Ok(Some(self.stored))
            }
            () = at(flush_at) => {
                self.flush();
                Ok(None)
            }
        }
    }

    /// Stores everything that has come.
    pub(super) async fn finish(mut self) -> Result<Stored, PushError> {
        let mut refused = None;
        while let Some(verified) = self.verifying.next().await {
            match verified.expect("verifying does not panic") {
                Ok(frame) if refused.is_none() => self.pack.push(frame),
                Ok(_) => {}
                Err(error) => refused = Some(error),
            }
        }
        if let Some(writing) = self.writing.take() {
            self.stored += joined(writing.await)?;
        }
        if !self.pack.is_empty() {
            let chunks = self.pack.chunk_count();
            self.pack.store(&self.depot.objects, &self.depot.store).await?;
            self.stored += chunks;
        }
        match refused {
            Some(error) => Err(error.into()),
            None => {
                let proven = self.prover.await.map_or_else(|_| Vec::new(), Prover::into_proven);
                Ok(Stored { chunks: self.stored, proven })
            }
        }
    }

    fn packed(&mut self, frame: VerifiedFrame) {
        self.pack.push(frame);
        self.flush_at.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
        self.flush_if_full();
    }

    fn flush_if_full(&mut self) {
        if self.pack.is_full() && self.writing.is_none() {
            self.flush();
        }
    }

    /// Begins to write the pack. A task of its own: it completes even if the push ends.
    fn flush(&mut self) {
        self.flush_at = None;
        let (pack, depot) = (std::mem::take(&mut self.pack), self.depot.clone());
        let chunks = pack.chunk_count();
        self.writing = Some(self.depot.tasks.spawn(async move {
            pack.store(&depot.objects, &depot.store).await?;
            Ok(chunks)
        }));
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a thread that panicked has left in a buffer is not looked at.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn written(writing: &mut Option<JoinHandle<Result<u32, PushError>>>) -> Result<u32, PushError> {
    match writing {
        Some(writing) => joined(writing.await),
        None => std::future::pending().await,
    }
}

fn joined(result: Result<Result<u32, PushError>, tokio::task::JoinError>) -> Result<u32, PushError> {
    result.expect("writing a pack does not panic and is never aborted")
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

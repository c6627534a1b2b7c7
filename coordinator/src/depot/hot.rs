//! Blocks of the frames that hosts are fetching, read once for all of them.
//!
//! Invariant: a block is what its frame's object held when it was read, and no block that was read before
//! [`HotFrames::forget`] is handed out after it: what is sent after a check was read after it. Bounded: hosts that
//! drift further apart than the budget read again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sluice_common::digest::Digest;
use tokio_util::task::TaskTracker;

use super::flights::Flights;
use super::lru::Lru;
use super::objects::{Kind, Name, ObjectError, Objects};

/// Bytes of a block: one read of the object store, and what a host that stalls keeps alive.
const BLOCK_BYTES: u64 = 256 << 10;
/// Memory for blocks: how far hosts that began together may drift apart before they read for themselves.
const BUDGET_BYTES: u64 = 16 << 20;

/// A block's place: its frame and its number there.
type Place = (Digest, u64);
type Read = Result<Bytes, Arc<ObjectError>>;

/// The blocks.
pub(super) struct HotFrames {
    objects: Objects,
    kept: Arc<Mutex<Kept>>,
    /// By place and generation, so that nobody joins a read that began before a doubt.
    reading: Flights<(Place, u64), Read>,
}

struct Kept {
    blocks: Lru<Place, Bytes>,
    /// How often frames were doubted.
    generation: u64,
}

impl HotFrames {
    /// Makes a cache over `objects`; reads are tasks of `tasks`.
    pub(super) fn new(objects: Objects, tasks: TaskTracker) -> Self {
        let kept = Kept { blocks: Lru::new(BUDGET_BYTES), generation: 0 };
        Self { objects, kept: Arc::new(Mutex::new(kept)), reading: Flights::new(tasks) }
    }

    /// Returns bytes of a frame of `len` bytes, from `offset` to the end of the block that holds it; nothing when the
    /// runtime ends meanwhile.
    pub(super) async fn read(&self, frame: Digest, len: u64, offset: u64) -> Option<Read> {
        let place = (frame, offset / BLOCK_BYTES);
        let (kept, generation) = {
            let mut kept = lock(&self.kept);
            (kept.blocks.get(&place), kept.generation)
        };
        let block = match kept {
            Some(block) => Ok(block),
            None => self.reading.join((place, generation), || self.fetch(place, generation, len)).await?,
        };
        Some(block.map(|block| block.slice((offset % BLOCK_BYTES) as usize..)))
    }

    /// Forgets what was read of a frame.
    pub(super) fn forget(&self, frame: &Digest) {
        let mut kept = lock(&self.kept);
        kept.generation += 1;
        kept.blocks.retain(|(of, _), _| of != frame);
    }

    fn fetch(&self, place: Place, generation: u64, len: u64) -> impl Future<Output = Read> + Send + use<> {
        let (objects, kept) = (self.objects.clone(), self.kept.clone());
        async move {
            let (frame, number) = place;
            let range = number * BLOCK_BYTES..len.min((number + 1) * BLOCK_BYTES);
            let block = objects.range(Name(Kind::Frame, frame), range).await.map_err(Arc::new)?;
            let mut kept = lock(&kept);
            if kept.generation == generation {
                kept.blocks.insert(place, block.clone(), block.len() as u64);
            }
            Ok(block)
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Whatever a panicking holder left is still a cache of what was read.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for HotFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotFrames").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::depot::objects::space::Space;

    async fn read_all(hot: &HotFrames, frame: Digest, len: u64, from: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while from + (bytes.len() as u64) < len {
            bytes.extend(hot.read(frame, len, from + bytes.len() as u64).await.unwrap().unwrap());
        }
        bytes
    }

    #[tokio::test]
    async fn what_was_read_is_read_once_until_it_is_doubted() {
        let objects = Objects::over(Arc::new(InMemory::new()), Space::new(|| None));
        let hot = HotFrames::new(objects.clone(), TaskTracker::new());
        let bytes: Vec<u8> = (0..600_000_u32).map(|i| (i / 7) as u8).collect();
        let (frame, len) = (Digest::of(&bytes), bytes.len() as u64);
        objects.put(Name(Kind::Frame, frame), bytes.clone()).await.unwrap();
        for from in [0, 1, 262_143, 262_144, 599_999, 600_000] {
            assert_eq!(read_all(&hot, frame, len, from).await, bytes[from as usize..], "from {from}");
        }
        objects.delete(Name(Kind::Frame, frame)).await.unwrap();
        assert_eq!(read_all(&hot, frame, len, 0).await, bytes, "from memory");
        hot.forget(&frame);
        for offset in [0, 262_144, 599_999] {
            let gone = hot.read(frame, len, offset).await.unwrap().unwrap_err();
            assert!(matches!(*gone, ObjectError::Missing { .. }), "{gone}");
        }
    }

    #[tokio::test]
    async fn a_read_that_began_before_a_doubt_is_not_kept() {
        let objects = Objects::over(Arc::new(InMemory::new()), Space::new(|| None));
        let hot = HotFrames::new(objects.clone(), TaskTracker::new());
        let frame = Digest::of(b"frame");
        objects.put(Name(Kind::Frame, frame), &b"frome"[..]).await.unwrap();
        let early = hot.fetch((frame, 0), 0, 5);
        hot.forget(&frame);
        assert_eq!(early.await.unwrap(), "frome");
        objects.put(Name(Kind::Frame, frame), &b"frame"[..]).await.unwrap();
        assert_eq!(hot.read(frame, 5, 0).await.unwrap().unwrap(), "frame");
    }
}

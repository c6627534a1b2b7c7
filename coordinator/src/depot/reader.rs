//! Reads chunks out of packs: verified on every read, the frames around them kept in a bounded cache.
//!
//! Invariant: bytes that do not have their digest are never handed out; their rows are removed from the chunk index
//! first, so that the next push of a package that needs them brings them again. A chunk that the collection has moved
//! since it was looked up is read where it is now. Synchronous, for blocking threads:
//! encoders and verifiers pull bytes as they need them.

use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_common::digest::Digest;
use tokio::runtime::Handle;

use super::bounded;
use super::chunks::{self, Location};
use super::lru::Lru;
use super::objects::{Kind, Name, ObjectError, Objects};
use super::packs::FRAME_RAW_BYTES_MAX;
use crate::store::{self, Store};

/// Raw bytes of frames kept: plans read files in the order of their likeness, not of their upload.
const CACHE_BYTES: u64 = 128 << 20;
/// The same while large packages are worked on, which take much else.
const SMALL_CACHE_BYTES: u64 = 32 << 20;
/// What an entry costs besides its bytes; bounds how many tiny frames are kept.
const ENTRY_BYTES: u64 = 64 << 10;

/// Says why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The depot does not have the chunk.
    #[error("the depot lacks chunk {chunk}; push the package again")]
    Lacking {
        /// The chunk.
        chunk: Digest,
    },
    /// The chunk's bytes were damaged at rest. The depot has forgotten them.
    #[error("chunk {chunk} was damaged in pack {pack}; push the package again")]
    Damaged {
        /// The chunk.
        chunk: Digest,
        /// The pack.
        pack: Digest,
    },
    /// Something else failed on the way.
    #[error("cannot read a content from the depot")]
    Io(#[source] io::Error),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl ReadError {
    /// Says whether pushing the package again heals it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Lacking { .. } | Self::Damaged { .. } => true,
            Self::Io(_) | Self::Object(_) | Self::Store(_) => false,
        }
    }
}

impl From<io::Error> for ReadError {
    /// Takes back what was passed through a [`std::io::Read`].
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

impl From<ReadError> for tonic::Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Lacking { .. } | ReadError::Damaged { .. } => {
                Self::failed_precondition(error.to_string())
            }
            ReadError::Io(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "depot failed");
                Self::internal("the coordinator's depot failed; see its log")
            }
            ReadError::Object(error) => error.into(),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The verified bytes of a chunk.
#[derive(Debug, Clone)]
pub(super) struct ChunkBytes {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Deref for ChunkBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame[self.range.clone()]
    }
}

/// A frame's place: its pack and its first byte there.
type Place = (Digest, u64);

/// Reads chunks.
#[derive(Debug)]
pub(super) struct ChunkReader {
    objects: Objects,
    store: Store,
    runtime: Handle,
    frames: Mutex<Lru<Place, Arc<Vec<u8>>>>,
    /// For how many pieces of work little is kept.
    sparing: AtomicUsize,
}

/// How the bytes at a place disappoint.
enum Broken {
    Frame,
    Pack,
}

impl ChunkReader {
    /// Makes a reader that waits for objects and rows on `runtime`.
    pub(super) fn new(objects: Objects, store: Store, runtime: Handle) -> Self {
        Self {
            objects,
            store,
            runtime,
            frames: Mutex::new(Lru::new(CACHE_BYTES)),
            sparing: AtomicUsize::new(0),
        }
    }

    /// Keeps little in memory for a piece of work, until [`Self::keep_much`] says that it has ended.
    pub(super) fn keep_little(&self) {
        self.cache(|frames| {
            self.sparing.fetch_add(1, Ordering::Relaxed);
            frames.set_budget(SMALL_CACHE_BYTES);
        });
    }

    /// Keeps as much in memory as it may once no other piece of work wants little.
    pub(super) fn keep_much(&self) {
        self.cache(|frames| {
            if self.sparing.fetch_sub(1, Ordering::Relaxed) == 1 {
                frames.set_budget(CACHE_BYTES);
            }
        });
    }

    /// Forgets what is kept in memory.
    pub(super) fn forget(&self) {
        self.cache(|frames| frames.retain(|_, _| false));
    }

    /// Reads a chunk and verifies it. Blocks: never call it on a runtime's worker.
    pub(super) fn read(&self, chunk: &Digest, at: &Location) -> Result<ChunkBytes, ReadError> {
        match self.read_at(chunk, at) {
            Err(damaged @ ReadError::Damaged { .. }) => match self.moved(chunk, at)? {
                Some(to) => self.read_at(chunk, &to),
                None => Err(damaged),
            },
            read => read,
        }
    }

    /// Returns where a chunk lies that was written into another pack after it was looked up.
    fn moved(&self, chunk: &Digest, from: &Location) -> Result<Option<Location>, ReadError> {
        let located = self.runtime.block_on(chunks::locate(&self.store, &[*chunk]))?;
        Ok(located.into_iter().flatten().find(|to| to.pack != from.pack))
    }

    fn read_at(&self, chunk: &Digest, at: &Location) -> Result<ChunkBytes, ReadError> {
        let broken = match self.frame(at)? {
            Ok(frame) => {
                let range = at.raw_offset as usize..(at.raw_offset + at.raw_len) as usize;
                match frame.get(range.clone()) {
                    Some(bytes) if Digest::of(bytes) == *chunk => return Ok(ChunkBytes { frame, range }),
                    Some(_) | None => Broken::Frame,
                }
            }
            Err(broken) => broken,
        };
        self.quarantine(at, &broken)?;
        Err(ReadError::Damaged { chunk: *chunk, pack: at.pack })
    }

    fn frame(&self, at: &Location) -> Result<Result<Arc<Vec<u8>>, Broken>, ReadError> {
        let place = (at.pack, at.frame_offset);
        if let Some(frame) = self.cache(|frames| frames.get(&place)) {
            return Ok(Ok(frame));
        }
        let range = at.frame_offset..at.frame_offset + u64::from(at.frame_len);
        let compressed = match self.runtime.block_on(self.objects.range(Name(Kind::Pack, at.pack), range)) {
            Ok(compressed) => compressed,
            Err(ObjectError::Missing { .. }) => return Ok(Err(Broken::Pack)),
            Err(error) if error.is_damage() => return Ok(Err(Broken::Frame)),
            Err(error) => return Err(error.into()),
        };
        let Ok(raw) = bounded::decode(&compressed, FRAME_RAW_BYTES_MAX) else {
            return Ok(Err(Broken::Frame));
        };
        let frame = Arc::new(raw);
        self.cache(|frames| frames.insert(place, frame.clone(), frame.len() as u64 + ENTRY_BYTES));
        Ok(Ok(frame))
    }

    /// Removes the rows of what is damaged: of the frame, or of the whole pack where the object is gone.
    fn quarantine(&self, at: &Location, broken: &Broken) -> Result<(), ReadError> {
        self.cache(|frames| frames.remove(&(at.pack, at.frame_offset)));
        let chunks = match broken {
            Broken::Frame => self.runtime.block_on(chunks::forget(&self.store, at.pack, at.frame_offset))?,
            Broken::Pack => {
                let forgotten = chunks::forget_lost::<ReadError>(&self.store, &self.objects, at.pack);
                self.runtime.block_on(forgotten)?
            }
        };
        if chunks > 0 {
            tracing::error!(
                pack = %at.pack,
                frame.offset = at.frame_offset,
                chunks,
                "a pack in the depot is damaged; push the packages again that were made of it"
            );
        }
        Ok(())
    }

    fn cache<T>(&self, use_it: impl FnOnce(&mut Lru<Place, Arc<Vec<u8>>>) -> T) -> T {
        // Whatever a panicking holder left is still a cache: every chunk is verified when it is taken out.
        use_it(&mut self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::depot::tests::Bench;

    #[tokio::test]
    async fn little_is_kept_in_memory_until_the_last_piece_of_work_has_ended() {
        let bench = Bench::new().await;
        let chunks = &bench.depot.chunks;
        let keeps_much = || {
            chunks.cache(|frames| {
                let place = (Digest::of(b"pack"), 0);
                frames.insert(place, Arc::new(Vec::new()), SMALL_CACHE_BYTES + 1);
                frames.remove(&place).is_some()
            })
        };
        assert!(keeps_much());
        chunks.keep_little();
        chunks.keep_little();
        assert!(!keeps_much());
        chunks.keep_much();
        assert!(!keeps_much(), "the other piece of work goes on");
        chunks.keep_much();
        assert!(keeps_much());
    }
}

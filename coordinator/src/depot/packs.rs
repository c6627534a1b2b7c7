//! Packs: uploaded frames laid end to end in one object, verified chunk by chunk on the way in.
//!
//! Invariant: the object is whole and durable before the rows that name it commit. A crash between the two leaves an
//! object that nothing names, which [`super::collect`] removes.

use std::io;

use bytes::Bytes;
use object_store::PutPayload;
use sluice_common::caps;
use sluice_common::chunk::Chunk;
use sluice_common::digest::{Digest, Hasher};

use super::bounded;
use super::chunks::{self, Packed};
use super::objects::space::Reserve;
use super::objects::{Kind, Name, ObjectError, Objects};
use crate::store::{self, Store};

/// Most raw bytes of an uploaded frame: a group may be overrun by one chunk.
pub(super) const FRAME_RAW_BYTES_MAX: u64 = caps::UPLOAD_GROUP_BYTES + caps::CHUNK_BYTES_MAX as u64;

/// Chunks at which a pack is closed, however small they are: while it is written they wait with the next one's in 56 bytes
/// each, and their rows are one transaction. Packs of small sources have half as many.
const CHUNKS_MAX: usize = 64 * 1024;

/// An uploaded frame whose every chunk has its digest.
#[derive(Debug)]
pub(super) struct VerifiedFrame {
    compressed: Bytes,
    chunks: Vec<Chunk>,
}

/// Says why an uploaded frame is refused.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame promises more than one message may carry.
    #[error("a frame of {0} raw bytes is over the limit of {FRAME_RAW_BYTES_MAX}")]
    TooLarge(u64),
    /// It is no zstd frame of the promised length.
    #[error("an uploaded frame is damaged")]
    Zstd(#[source] io::Error),
    /// The raw bytes end before the chunks do.
    #[error("an uploaded frame holds {found} raw bytes instead of {expected}")]
    Length {
        /// As the index says.
        expected: u64,
        /// As the frame has it.
        found: u64,
    },
    /// Some chunk is not what its name says.
    #[error("chunk {0} is not what its digest says: its file changed while it was pushed; push again")]
    Chunk(Digest),
}

impl VerifiedFrame {
    /// Restores the frame within bounds and verifies each chunk. Hashes megabytes: call it on a blocking thread.
    pub(super) fn verify(compressed: Bytes, chunks: Vec<Chunk>) -> Result<Self, FrameError> {
        Self::verify_by(compressed, chunks, &mut Vec::new(), |_, pieces| Digest::of_each(pieces))
    }

    /// Does it with the memory of `raw`, and by `hash`, which is given all that was restored, and the same chunk by chunk, and returns
    /// the digest of each chunk.
    pub(super) fn verify_by(
        compressed: Bytes,
        chunks: Vec<Chunk>,
        raw: &mut Vec<u8>,
        hash: impl FnOnce(&[u8], &[&[u8]]) -> Vec<Digest>,
    ) -> Result<Self, FrameError> {
        let expected: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        if expected > FRAME_RAW_BYTES_MAX {
            return Err(FrameError::TooLarge(expected));
        }
        bounded::decode_to(&compressed, expected, raw).map_err(FrameError::Zstd)?;
        if raw.len() as u64 != expected {
            return Err(FrameError::Length { expected, found: raw.len() as u64 });
        }
        let mut rest = &raw[..];
        let take = |chunk: &Chunk| rest.split_off(..chunk.len as usize).expect("lengths were added up");
        let pieces: Vec<&[u8]> = chunks.iter().map(take).collect();
        let mut found = chunks.iter().zip(hash(raw, &pieces));
        match found.find(|(chunk, digest)| chunk.digest != *digest) {
            Some((wrong, _)) => Err(FrameError::Chunk(wrong.digest)),
            None => Ok(Self { compressed, chunks }),
        }
    }
}

/// Gathers frames until they make a pack.
#[derive(Debug, Default)]
pub(super) struct PackBuilder {
    frames: Vec<Bytes>,
    chunks: Vec<Packed>,
    bytes: u64,
}

impl PackBuilder {
    /// Adds a frame.
    pub(super) fn push(&mut self, frame: VerifiedFrame) {
        let mut raw_offset = 0;
        for chunk in &frame.chunks {
            self.chunks.push(Packed {
                digest: chunk.digest,
                frame_offset: self.bytes,
                frame_len: frame.compressed.len() as u32,
                raw_offset,
                raw_len: chunk.len,
            });
            raw_offset += chunk.len;
        }
        self.bytes += frame.compressed.len() as u64;
        self.frames.push(frame.compressed);
    }

    /// Says whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Says whether it has reached the size of a pack.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= caps::PACK_BYTES || self.chunks.len() >= CHUNKS_MAX
    }

    /// Returns how many chunks it holds.
    pub(super) fn chunk_count(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// Writes the pack, then indexes its chunks. On return they are stored durably.
    pub(super) async fn store(self, objects: &Objects, store: &Store) -> Result<(), StorePackError> {
        let WrittenPack { digest, bytes, chunks } = self.write(objects, Reserve::Kept).await?;
        chunks::insert(store, digest, bytes, &chunks).await?;
        tracing::debug!(pack = %digest, bytes, chunks = chunks.len(), "pack stored");
        Ok(())
    }

    /// Writes the pack durably. Nothing names it yet.
    pub(super) async fn write(self, objects: &Objects, reserve: Reserve) -> Result<WrittenPack, ObjectError> {
        let Self { frames, chunks, bytes } = self;
        let hashing = tokio::task::spawn_blocking(move || {
            let mut hasher = Hasher::new();
            frames.iter().for_each(|frame| hasher.update(frame));
            (hasher.finish(), PutPayload::from_iter(frames))
        });
        let (digest, payload) = hashing.await.expect("hashing does not panic");
        objects.put_from(reserve, Name(Kind::Pack, digest), payload).await?;
        Ok(WrittenPack { digest, bytes, chunks })
    }
}

/// A pack that is durable and that nothing names yet.
#[derive(Debug)]
pub(super) struct WrittenPack {
    /// Its name.
    pub(super) digest: Digest,
    /// Its size.
    pub(super) bytes: u64,
    /// What it holds.
    pub(super) chunks: Vec<Packed>,
}

/// Says why a pack could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StorePackError {
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database failed; the object is an orphan now.
    #[error(transparent)]
    Store(#[from] store::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> Chunk {
        Chunk { digest: Digest::of(bytes), len: bytes.len() as u32 }
    }

    fn verify(raw: &[u8], chunks: &[Chunk]) -> Result<VerifiedFrame, FrameError> {
        VerifiedFrame::verify(zstd::bulk::compress(raw, 3).unwrap().into(), chunks.to_vec())
    }

    #[test]
    fn only_frames_that_hold_just_their_chunks_are_taken() {
        assert!(verify(b"onetwo", &[chunk(b"one"), chunk(b"two")]).is_ok());
        assert!(matches!(verify(b"onetwx", &[chunk(b"one"), chunk(b"two")]), Err(FrameError::Chunk(_))));
        assert!(matches!(verify(b"onetw", &[chunk(b"one"), chunk(b"two")]), Err(FrameError::Length { .. })));
        assert!(matches!(verify(b"onetwos", &[chunk(b"one"), chunk(b"two")]), Err(FrameError::Zstd(_))));
        assert!(matches!(verify(&vec![0; 64 << 20], &[chunk(b"one")]), Err(FrameError::Zstd(_))));
        let many = vec![Chunk { digest: Digest::of(b"x"), len: caps::CHUNK_BYTES_MAX }; 10];
        assert!(matches!(verify(b"", &many), Err(FrameError::TooLarge(_))));
        let garbage = VerifiedFrame::verify(Bytes::from_static(b"garbage"), vec![chunk(b"one")]);
        assert!(matches!(garbage, Err(FrameError::Zstd(_))));
    }

    #[test]
    fn a_pack_knows_where_each_chunk_lies() {
        let mut pack = PackBuilder::default();
        pack.push(verify(b"onetwo", &[chunk(b"one"), chunk(b"two")]).unwrap());
        let first = pack.bytes;
        pack.push(verify(b"three", &[chunk(b"three")]).unwrap());
        let at: Vec<_> = pack.chunks.iter().map(|c| (c.frame_offset, c.raw_offset, c.raw_len)).collect();
        assert_eq!(at, [(0, 0, 3), (0, 3, 3), (first, 0, 5)]);
        assert_eq!(pack.chunks[0].frame_len, first as u32);
    }
}

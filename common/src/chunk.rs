//! Content-defined chunks: the unit in which the depot avoids storing anything twice.
//!
//! FastCDC as in Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage
//! Systems" (2020), by the `fastcdc` crate's `v2020`, pinned exactly: another cut would store everything anew.

use std::io::{self, Read};

use fastcdc::v2020::{ChunkData, Error, StreamCDC};

use crate::caps;
use crate::digest::Digest;

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// SHA-256 of the raw bytes.
    pub digest: Digest,
    /// Length in bytes; at most [`caps::CHUNK_BYTES_MAX`].
    pub len: u32,
}

/// Cuts a reader to its end and hands each chunk with its bytes to `each`.
pub fn cut(reader: impl Read, mut each: impl FnMut(Chunk, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let (min, mean, max) = (caps::CHUNK_BYTES_MIN, caps::CHUNK_BYTES_MEAN, caps::CHUNK_BYTES_MAX);
    let mut pieces = StreamCDC::new(reader, min as usize, mean as usize, max as usize);
    loop {
        let some = pieces.by_ref().take(Digest::AT_ONCE).filter_map(|piece| match piece {
            Ok(piece) => Some(Ok(piece)),
            Err(Error::Empty) => None,
            Err(Error::IoError(error)) => Some(Err(error)),
            Err(Error::Other(reason)) => Some(Err(io::Error::other(reason))),
        });
        let some: Vec<ChunkData> = some.collect::<io::Result<_>>()?;
        if some.is_empty() {
            return Ok(());
        }
        let bytes: Vec<&[u8]> = some.iter().map(|piece| &piece.data[..]).collect();
        for (bytes, digest) in bytes.iter().zip(Digest::of_each(&bytes)) {
            each(Chunk { digest, len: bytes.len() as u32 }, bytes)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same on every machine (xorshift64).
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(len)
        .collect()
    }

    fn lengths(bytes: &[u8]) -> Vec<u32> {
        let mut lengths = Vec::new();
        cut(bytes, |chunk, data| {
            assert_eq!(Digest::of(data), chunk.digest);
            lengths.push(chunk.len);
            Ok(())
        })
        .unwrap();
        lengths
    }

    #[test]
    fn cuts_are_golden() {
        assert_eq!(lengths(&noise(600_000)), [96_993, 169_265, 45_787, 64_402, 66_790, 88_956, 67_807]);
        assert_eq!(lengths(&[]), Vec::<u32>::new());
        assert_eq!(lengths(b"x"), [1]);
    }

    #[test]
    fn an_insertion_moves_only_the_chunks_around_it() {
        let old = noise(2_000_000);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"inserted");
        let chunks = |bytes: &[u8]| {
            let mut all = std::collections::HashSet::new();
            cut(bytes, |chunk, _| {
                all.insert(chunk);
                Ok(())
            })
            .unwrap();
            all
        };
        let changed = chunks(&new).difference(&chunks(&old)).count();
        assert!(changed <= 3, "{changed} chunks changed");
    }
}

//! Contents of a package, read from the depot's chunks: what encoders and the push's last check read from.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use sluice_common::chunk::Chunk;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::manifest::Contents;
use sluice_common::transfer::ContentSource;

use super::chunks::{self, Location};
use super::reader::{ChunkBytes, ChunkReader, ReadError};
use crate::store::{self, Store};

/// Some contents of a package and where their chunks lie.
#[derive(Debug)]
pub(super) struct PackageSource {
    reader: Arc<ChunkReader>,
    contents: HashMap<Digest, Vec<Piece>>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    chunk: Chunk,
    at: Option<Location>,
}

impl PackageSource {
    /// Looks up the chunks of the `wanted` contents, by their numbers. Chunks that are missing show when they are read.
    pub(super) async fn open(
        reader: Arc<ChunkReader>,
        store: &Store,
        contents: Contents<'_>,
        index: &PackageIndex,
        wanted: &[u32],
    ) -> Result<Self, store::Error> {
        let digests: Vec<Digest> =
            wanted.iter().flat_map(|number| chunks_of(index, *number)).map(|chunk| chunk.digest).collect();
        let mut located = chunks::locate(store, &digests).await?.into_iter();
        let mut found = HashMap::with_capacity(wanted.len());
        for number in wanted {
            let pieces = chunks_of(index, *number).map(|chunk| Piece { chunk, at: located.next().flatten() });
            found.insert(contents.at(*number).digest, pieces.collect());
        }
        Ok(Self { reader, contents: found })
    }
}

fn chunks_of(index: &PackageIndex, content: u32) -> impl Iterator<Item = Chunk> {
    index.content(content as usize).iter().map(|number| index.chunks()[*number as usize])
}

impl ContentSource for PackageSource {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let pieces = self.contents.get(content).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("content {content} was not looked up"))
        })?;
        let (mut first, mut skip) = (0, offset);
        while let Some(piece) = pieces.get(first).filter(|piece| skip >= u64::from(piece.chunk.len)) {
            skip -= u64::from(piece.chunk.len);
            first += 1;
        }
        Ok(Box::new(ContentReader {
            reader: &self.reader,
            pieces: &pieces[first..],
            open: None,
            at: skip as usize,
        }))
    }
}

/// Reads one content, chunk after chunk.
struct ContentReader<'a> {
    reader: &'a ChunkReader,
    pieces: &'a [Piece],
    /// The first of `pieces`, once it was read.
    open: Option<ChunkBytes>,
    /// How much of it was handed out.
    at: usize,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some((piece, rest)) = self.pieces.split_first() else { return Ok(0) };
            let bytes = match self.open.take() {
                Some(bytes) => bytes,
                None => {
                    let at = piece.at.as_ref().ok_or(ReadError::Lacking { chunk: piece.chunk.digest })?;
                    self.reader.read(&piece.chunk.digest, at)?
                }
            };
            let left = bytes.get(self.at..).unwrap_or_default();
            if left.is_empty() {
                (self.pieces, self.at) = (rest, 0);
                continue;
            }
            let n = left.len().min(buffer.len());
            buffer[..n].copy_from_slice(&left[..n]);
            self.at += n;
            self.open = Some(bytes);
            return Ok(n);
        }
    }
}

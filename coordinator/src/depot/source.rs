//! Contents of a package, read from the depot's chunks: what encoders and the push's last check read from. In a few dozen
//! bytes a chunk: a cold plan of a large package takes a million of them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use sluice_common::chunk::Chunk;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::transfer::ContentSource;

use super::chunks::{self, Location};
use super::packages::Package;
use super::reader::{ChunkBytes, ChunkReader, ReadError};
use crate::store::{self, Store};

/// Chunks looked up at once.
const LOOKED_UP_AT_ONCE: usize = 16 * 1024;

/// Some contents of a package and where their chunks lie.
#[derive(Debug)]
pub(super) struct PackageSource {
    reader: Arc<ChunkReader>,
    package: Arc<Package>,
    /// Numbers of the contents, sorted.
    contents: Vec<u32>,
    /// By place in `contents`: where in `pieces` its chunks end.
    ends: Vec<u32>,
    pieces: Vec<Piece>,
    packs: Packs,
}

/// A chunk and where it lies.
#[derive(Debug, Clone, Copy)]
struct Piece {
    chunk: Chunk,
    /// Which of the packs; nothing where the depot lacks the chunk.
    pack: Option<u32>,
    frame_offset: u64,
    frame_len: u32,
    raw_offset: u32,
}

/// Packs, each of which holds many chunks, by number.
#[derive(Debug, Default)]
struct Packs {
    digests: Vec<Digest>,
    numbers: HashMap<Digest, u32>,
}

impl Packs {
    fn number(&mut self, pack: Digest) -> u32 {
        let Self { digests, numbers } = self;
        *numbers.entry(pack).or_insert_with(|| {
            digests.push(pack);
            digests.len() as u32 - 1
        })
    }

    fn piece(&mut self, chunk: Chunk, at: Option<Location>) -> Piece {
        // One of another length is not the chunk: it has another digest, so it is lacking.
        let at = at.filter(|at| at.raw_len == chunk.len);
        Piece {
            chunk,
            pack: at.map(|at| self.number(at.pack)),
            frame_offset: at.map_or(0, |at| at.frame_offset),
            frame_len: at.map_or(0, |at| at.frame_len),
            raw_offset: at.map_or(0, |at| at.raw_offset),
        }
    }

    fn location(&self, piece: &Piece) -> Option<Location> {
        let Piece { chunk, pack, frame_offset, frame_len, raw_offset } = *piece;
        let pack = self.digests[pack? as usize];
        Some(Location { pack, frame_offset, frame_len, raw_offset, raw_len: chunk.len })
    }
}

impl PackageSource {
    /// Looks up the chunks of the `wanted` contents, by their numbers, which are sorted. Chunks that are missing show when they
    /// are read.
    pub(super) async fn open(
        reader: Arc<ChunkReader>,
        store: &Store,
        package: &Arc<Package>,
        index: &PackageIndex,
        wanted: Vec<u32>,
    ) -> Result<Self, store::Error> {
        let count = |number: &u32| index.content(*number as usize).len();
        let mut pieces = Vec::with_capacity(wanted.iter().map(count).sum());
        let mut packs = Packs::default();
        let mut chunks = wanted.iter().flat_map(|number| chunks_of(index, *number));
        loop {
            let some: Vec<Chunk> = chunks.by_ref().take(LOOKED_UP_AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let digests: Vec<Digest> = some.iter().map(|chunk| chunk.digest).collect();
            let located = chunks::locate(store, &digests).await?;
            pieces.extend(some.into_iter().zip(located).map(|(chunk, at)| packs.piece(chunk, at)));
        }
        let mut end = 0;
        let ends = wanted.iter().map(|number| {
            end += count(number) as u32;
            end
        });
        Ok(Self { reader, package: package.clone(), ends: ends.collect(), contents: wanted, pieces, packs })
    }

    /// Returns the chunks of a content; nothing where it was not looked up.
    fn pieces(&self, content: &Digest) -> Option<&[Piece]> {
        let number = self.package.manifest.content_number(content)?;
        let at = self.contents.binary_search(&number).ok()?;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.pieces[begin as usize..self.ends[at] as usize])
    }
}

fn chunks_of(index: &PackageIndex, content: u32) -> impl Iterator<Item = Chunk> {
    index.content(content as usize).iter().map(|number| index.chunks()[*number as usize])
}

impl ContentSource for PackageSource {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let pieces = self.pieces(content).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("content {content} was not looked up"))
        })?;
        let (mut first, mut skip) = (0, offset);
        while let Some(piece) = pieces.get(first).filter(|piece| skip >= u64::from(piece.chunk.len)) {
            skip -= u64::from(piece.chunk.len);
            first += 1;
        }
        Ok(Box::new(ContentReader { source: self, pieces: &pieces[first..], open: None, at: skip as usize }))
    }
}

/// Reads one content, chunk after chunk.
struct ContentReader<'a> {
    source: &'a PackageSource,
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
                    let at = self.source.packs.location(piece);
                    let at = at.ok_or(ReadError::Lacking { chunk: piece.chunk.digest })?;
                    self.source.reader.read(&piece.chunk.digest, &at)?
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

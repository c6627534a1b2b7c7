//! Contents of a package, read from the depot's chunks: what encoders and the push's last check read from. In sixteen bytes
//! for a content of one chunk: a cold plan of a large package takes a million of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use sluice_common::chunk::Chunk;
use sluice_common::digest::Digest;
use sluice_common::index::{PackageIndex, lone_chunk};
use sluice_common::transfer::ContentSource;

use super::Depot;
use super::chunks::{self, Location};
use super::packages::{LoadError, Package};
use super::reader::{ChunkBytes, ChunkReader, ReadError};
use crate::store::{self, Store};

/// Contents whose chunks are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 16 * 1024;

/// Some contents of a package and where their chunks lie.
#[derive(Debug)]
pub(super) struct PackageSource {
    reader: Arc<ChunkReader>,
    package: Arc<Package>,
    /// By number of a content that is one chunk, whose digest is its own: where that lies. Sorted.
    lone: Vec<(u32, Option<Place>)>,
    /// Numbers of contents of several chunks, sorted, and where in `pieces` those end.
    cut: Vec<(u32, u32)>,
    pieces: Vec<Piece>,
    frames: Frames,
}

/// A chunk and where it lies; nothing where the depot lacks it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    chunk: Chunk,
    place: Option<Place>,
}

/// Where a chunk lies: in which of the frames, and its first byte in the frame's raw bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    frame: u32,
    raw_offset: u32,
}

/// Frames, each of which holds many chunks, by number.
#[derive(Debug, Default)]
struct Frames {
    list: Vec<(Digest, u64, u32)>,
    numbers: HashMap<(Digest, u64), u32>,
}

impl Frames {
    fn place(&mut self, at: &Location) -> Place {
        let Self { list, numbers } = self;
        let frame = *numbers.entry((at.pack, at.frame_offset)).or_insert_with(|| {
            list.push((at.pack, at.frame_offset, at.frame_len));
            list.len() as u32 - 1
        });
        Place { frame, raw_offset: at.raw_offset }
    }

    fn location(&self, piece: &Piece) -> Option<Location> {
        let Place { frame, raw_offset } = piece.place?;
        let (pack, frame_offset, frame_len) = self.list[frame as usize];
        Some(Location { pack, frame_offset, frame_len, raw_offset, raw_len: piece.chunk.len })
    }
}

impl Depot {
    /// Returns what serves the `wanted` contents of a package, by their numbers, which are sorted. Its index is read only where
    /// some of them may have been cut.
    pub(super) async fn source(
        &self,
        digest: Digest,
        package: &Arc<Package>,
        wanted: &[u32],
    ) -> Result<PackageSource, LoadError> {
        let contents = package.contents();
        let is_lone =
            |number: &u32| contents.at(*number).size == 0 || lone_chunk(&contents.at(*number)).is_some();
        let index = match wanted.iter().all(is_lone) {
            true => None,
            false => Some(self.index(digest, package).await?),
        };
        let reader = self.chunks.clone();
        Ok(PackageSource::open(reader, &self.store, package, index.as_ref(), wanted).await?)
    }
}

impl PackageSource {
    /// Looks up the chunks of the `wanted` contents, by their numbers, which are sorted. Chunks that are missing show when they
    /// are read. Without the index, no wanted content may have been cut.
    pub(super) async fn open(
        reader: Arc<ChunkReader>,
        store: &Store,
        package: &Arc<Package>,
        index: Option<&PackageIndex>,
        wanted: &[u32],
    ) -> Result<Self, store::Error> {
        let (lone, cut, pieces) = (Vec::with_capacity(wanted.len()), Vec::new(), Vec::new());
        let mut source =
            Self { reader, package: package.clone(), lone, cut, pieces, frames: Frames::default() };
        for numbers in wanted.chunks(LOOKED_UP_AT_ONCE) {
            source.look_up(store, index, numbers).await?;
        }
        source.lone.shrink_to_fit();
        Ok(source)
    }

    async fn look_up(
        &mut self,
        store: &Store,
        index: Option<&PackageIndex>,
        numbers: &[u32],
    ) -> Result<(), store::Error> {
        let (mut chunks, mut counts) = (Vec::new(), Vec::with_capacity(numbers.len()));
        for number in numbers {
            let before = chunks.len();
            match (lone_chunk(&self.package.contents().at(*number)), index) {
                (Some(chunk), _) => chunks.push(chunk),
                (None, Some(index)) => chunks.extend(index.content(*number).map(|chunk| index.chunk(chunk))),
                (None, None) => {}
            }
            counts.push(chunks.len() - before);
        }
        let digests: Vec<Digest> = chunks.iter().map(|chunk| chunk.digest).collect();
        let located = chunks::locate(store, &digests).await?;
        let mut pieces = chunks.into_iter().zip(located).map(|(chunk, at)| {
            // One of another length is not the chunk: it has another digest, so it is lacking.
            let at = at.filter(|at| at.raw_len == chunk.len);
            Piece { chunk, place: at.map(|at| self.frames.place(&at)) }
        });
        for (number, count) in numbers.iter().zip(counts) {
            if count == 1 {
                self.lone.extend(pieces.next().map(|piece| (*number, piece.place)));
            } else {
                self.pieces.extend(pieces.by_ref().take(count));
                self.cut.push((*number, self.pieces.len() as u32));
            }
        }
        Ok(())
    }

    /// Returns the chunks of a content; nothing where it was not looked up.
    fn pieces(&self, content: &Digest) -> Option<Cow<'_, [Piece]>> {
        let number = self.package.manifest.content_number(content)?;
        if let Ok(at) = self.lone.binary_search_by_key(&number, |(number, _)| *number) {
            let len = self.package.contents().at(number).size as u32;
            let piece = Piece { chunk: Chunk { digest: *content, len }, place: self.lone[at].1 };
            return Some(Cow::Owned(vec![piece]));
        }
        let at = self.cut.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let begin = at.checked_sub(1).map_or(0, |before| self.cut[before].1);
        Some(Cow::Borrowed(&self.pieces[begin as usize..self.cut[at].1 as usize]))
    }
}

impl ContentSource for PackageSource {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let pieces = self.pieces(content).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("content {content} was not looked up"))
        })?;
        let (mut next, mut skip) = (0, offset);
        while let Some(piece) = pieces.get(next).filter(|piece| skip >= u64::from(piece.chunk.len)) {
            skip -= u64::from(piece.chunk.len);
            next += 1;
        }
        Ok(Box::new(ContentReader { source: self, pieces, next, open: None, at: skip as usize }))
    }
}

/// Reads one content, chunk after chunk.
struct ContentReader<'a> {
    source: &'a PackageSource,
    pieces: Cow<'a, [Piece]>,
    /// Which of `pieces` comes next.
    next: usize,
    /// That one, once it was read.
    open: Option<ChunkBytes>,
    /// How much of it was handed out.
    at: usize,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(piece) = self.pieces.get(self.next) else { return Ok(0) };
            let bytes = match self.open.take() {
                Some(bytes) => bytes,
                None => {
                    let at = self.source.frames.location(piece);
                    let at = at.ok_or(ReadError::Lacking { chunk: piece.chunk.digest })?;
                    self.source.reader.read(&piece.chunk.digest, &at)?
                }
            };
            let left = bytes.get(self.at..).unwrap_or_default();
            if left.is_empty() {
                (self.next, self.at) = (self.next + 1, 0);
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

//! The image codec: a target as its differences to a base, the way executables differ.
//!
//! Matching finds runs of the target that are nearly runs of the base ([`matching`]). Inside of them each byte is
//! predicted: as the base's byte, or, where the base is an ELF file for x86-64 or aarch64 and the bytes are a reference, as the
//! reference moved by as much as what it refers to ([`references`], [`prediction`]). What is left goes into six streams,
//! each under zstd ([`streams`]). After Percival, "Matching with Mismatches and Assorted Applications" (2006), and
//! Courgette's idea that a moved target should cost nothing.
//!
//! The decoder finds the references of the base again, so the disassembler's version belongs to this codec's version:
//! both sides pin it. An executable that either side fails to read has no references, and the part's digest decides.

mod base;
mod files;
mod matching;
mod prediction;
mod references;
mod streams;

use std::borrow::Cow;
use std::io::{self, Read};

use crate::caps;

use base::Pages;
pub(super) use base::{Base, ReadAt};
pub(super) use files::File;
use matching::{Block, Matcher};
use prediction::{BlockMap, Piece, Predictor};
use references::Image;
use streams::{Control, Opened, Residual, Sections};

/// How often matching is repeated on images whose references are replaced by their targets; a third time gains 0.5 %.
const ROUNDS: usize = 2;
/// Bytes that are predicted at once, by both sides; what one piece teaches serves the next.
const PIECE_BYTES: usize = 4 * 1024;

/// Base or target: bytes of several files end to end, and which files those are.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) files: &'a [File],
}

impl<'a> Bytes<'a> {
    /// Runs `read` with these bytes as they are read by place.
    fn read<T>(self, read: impl FnOnce(Base<'_>) -> T) -> T {
        read(Base { source: &self.bytes, len: self.bytes.len(), files: self.files })
    }
}

/// What a target is known by before it is restored: how long it is, and its files.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) len: usize,
    pub(super) files: &'a [File],
}

/// Encodes `target` against `base`.
pub(super) fn encode(base: Bytes<'_>, target: Bytes<'_>) -> io::Result<Vec<u8>> {
    let (old, new) = (base.read(Image::of)?, target.read(Image::of)?);
    let blocks = longest(Matcher::new(base.bytes)?.blocks(target.bytes), caps::IMAGE_BLOCKS_MAX);
    let plain = encode_blocks(base, target, &old, &blocks)?;
    if old.is_empty() || new.is_empty() {
        return Ok(plain);
    }
    let aware = encode_blocks(base, target, &old, &match_tokens(base, target, (&old, &new), blocks)?)?;
    Ok(if aware.len() < plain.len() { aware } else { plain })
}

/// Says whether `encoded` restores `target`.
pub(super) fn restores(base: Bytes<'_>, encoded: &[u8], target: Bytes<'_>) -> bool {
    let base = Base { source: &base.bytes, len: base.bytes.len(), files: base.files };
    let restore = || -> io::Result<bool> {
        let shape = Shape { len: target.bytes.len(), files: target.files };
        let mut decoder = Decoder::new(base, encoded, shape)?;
        let (mut rest, mut piece) = (target.bytes, vec![0; PIECE_BYTES]);
        while !rest.is_empty() {
            let n = decoder.read(&mut piece)?;
            let Some(after) = rest.strip_prefix(&piece[..n]).filter(|_| n > 0) else { return Ok(false) };
            rest = after;
        }
        Ok(true)
    };
    restore().unwrap_or(false)
}

/// Matches again on images whose references are replaced by the places of their targets in the old image.
fn match_tokens(
    base: Bytes<'_>,
    target: Bytes<'_>,
    (old, new): (&Image, &Image),
    mut blocks: Vec<Block>,
) -> io::Result<Vec<Block>> {
    let old_tokens = old.tokens(base.bytes, |place| place);
    let matcher = Matcher::new(&old_tokens)?;
    for _ in 0..ROUNDS {
        let back = BlockMap::of_new(&blocks);
        blocks = matcher.blocks(&new.tokens(target.bytes, |place| back.shifted(place)));
    }
    Ok(longest(blocks, caps::IMAGE_BLOCKS_MAX))
}

/// Returns at most `max` of `blocks`, without the shortest; what they cover then matches nothing.
fn longest(mut blocks: Vec<Block>, max: usize) -> Vec<Block> {
    if blocks.len() > max {
        let mut lens: Vec<usize> = blocks.iter().map(|block| block.len).collect();
        let shortest = *lens.select_nth_unstable_by(max, |a, b| b.cmp(a)).1;
        blocks.retain(|block| block.len > shortest);
    }
    blocks
}

fn encode_blocks(base: Bytes<'_>, target: Bytes<'_>, old: &Image, blocks: &[Block]) -> io::Result<Vec<u8>> {
    let mut predictor = Predictor::new(Cow::Borrowed(old.references()), blocks, (base.files, target.files));
    let (mut control, mut residual, mut extra) = (Control::default(), Residual::default(), Vec::new());
    let mut piece = Piece::default();
    let mut at = 0;
    for block in blocks {
        control.push(block, at);
        extra.extend_from_slice(&target.bytes[at..block.new]);
        let mut from = 0;
        while from < block.len {
            let range = from..predictor.piece_end(block, from, PIECE_BYTES);
            piece.old.clear();
            piece.old.extend_from_slice(&base.bytes[block.old + range.start..block.old + range.end]);
            predictor.predict(block, &range, &mut piece);
            let actual = &target.bytes[block.new + range.start..block.new + range.end];
            residual.push(&piece.bytes, actual);
            piece.bytes.copy_from_slice(actual);
            predictor.learn(block, &range, &piece);
            from = range.end;
        }
        at = block.new + block.len;
    }
    extra.extend_from_slice(&target.bytes[at..]);
    Sections { control, residual, extra }.encode()
}

/// Restores a target of `len` bytes as it is read. Never yields more, whatever `encoded` is. Holds of the base what was
/// read last, and its references.
pub(super) struct Decoder<'a> {
    pages: Pages<'a>,
    predictor: Predictor<'a>,
    opened: Opened<'a>,
    len: usize,
    /// Bytes restored so far.
    at: usize,
    /// The block that comes next or is being restored, and how much of it was.
    block: usize,
    within: usize,
    piece: Piece,
    taken: usize,
}

impl<'a> Decoder<'a> {
    /// Reads the control streams of `encoded`; fails when they are not those of a target of that shape.
    pub(super) fn new(base: Base<'a>, encoded: &'a [u8], target: Shape<'a>) -> io::Result<Self> {
        let references = Image::of(base)?.into_references();
        let len = target.len;
        let opened = Opened::new(encoded, base.len, len)?;
        let files = (base.files, target.files);
        let predictor = Predictor::new(Cow::Owned(references), &opened.blocks, files);
        let (pages, piece) = (Pages::new(base), Piece::default());
        Ok(Self { pages, predictor, opened, len, at: 0, block: 0, within: 0, piece, taken: 0 })
    }

    /// Restores the next bytes; leaves no piece at the end.
    fn refill(&mut self) -> io::Result<()> {
        (self.taken, self.at) = (0, self.at + self.piece.bytes.len());
        let next = self.opened.blocks.get(self.block).copied();
        match next {
            Some(block) if block.new + self.within == self.at => self.restore(&block),
            _ => {
                let gap = next.map_or(self.len, |block| block.new) - self.at;
                self.piece.bytes.resize(gap.min(PIECE_BYTES), 0);
                self.opened.extra.read_exact(&mut self.piece.bytes)
            }
        }
    }

    /// Restores the next piece of a block.
    fn restore(&mut self, block: &Block) -> io::Result<()> {
        let range = self.within..self.predictor.piece_end(block, self.within, PIECE_BYTES);
        self.pages.read(block.old + range.start..block.old + range.end, &mut self.piece.old)?;
        self.predictor.predict(block, &range, &mut self.piece);
        self.opened.residual.apply(&mut self.piece.bytes)?;
        self.predictor.learn(block, &range, &self.piece);
        (self.block, self.within) =
            if range.end == block.len { (self.block + 1, 0) } else { (self.block, range.end) };
        Ok(())
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.bytes.len() && self.at + self.piece.bytes.len() < self.len {
            self.refill()?;
        }
        let n = out.len().min(self.piece.bytes.len() - self.taken);
        out[..n].copy_from_slice(&self.piece.bytes[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
pub(super) mod tests;

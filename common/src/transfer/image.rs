//! The image codec: a target as its differences to a base, the way executables differ.
//!
//! Matching finds runs of the target that are nearly runs of the base ([`matching`]). Inside of them each byte is
//! predicted: as the base's byte, or, where the base is an x86-64 ELF file and the bytes are a reference, as the
//! reference moved by as much as what it refers to ([`references`], [`prediction`]). What is left goes into six streams,
//! each under zstd ([`streams`]). After Percival, "Matching with Mismatches and Assorted Applications" (2006), and
//! Courgette's idea that a moved target should cost nothing.
//!
//! The decoder finds the references of the base again, so the disassembler's version belongs to this codec's version:
//! both sides pin it. An executable that either side fails to read has no references, and the part's digest decides.

mod matching;
mod prediction;
mod references;
mod streams;

use std::io::{self, Read};
use std::ops::Range;

use matching::{Block, Matcher};
use prediction::{BlockMap, Predictor};
use references::Image;
use streams::{Control, Residual, ResidualReader, Sections};

/// How often matching is repeated on images whose references are replaced by their targets; a third time gains 0.5 %.
const ROUNDS: usize = 2;
/// Bytes that the decoder predicts at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Base or target: bytes of several files end to end, and where each whole file lies.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) files: &'a [Range<usize>],
}

/// Encodes `target` against `base`.
pub(super) fn encode(base: Bytes<'_>, target: Bytes<'_>) -> io::Result<Vec<u8>> {
    let (old, new) = (Image::of(base), Image::of(target));
    let blocks = Matcher::new(base.bytes)?.blocks(target.bytes);
    let plain = encode_blocks(base, target, &old, &blocks)?;
    if old.is_empty() || new.is_empty() {
        return Ok(plain);
    }
    let aware = encode_blocks(base, target, &old, &match_tokens(base, target, (&old, &new), blocks)?)?;
    Ok(if aware.len() < plain.len() { aware } else { plain })
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
    Ok(blocks)
}

fn encode_blocks(base: Bytes<'_>, target: Bytes<'_>, old: &Image, blocks: &[Block]) -> io::Result<Vec<u8>> {
    let predictor = Predictor::new(base.bytes, old, blocks);
    let (mut control, mut residual, mut extra) = (Control::default(), Residual::default(), Vec::new());
    let mut piece = Vec::new();
    let mut at = 0;
    for block in blocks {
        control.push(block, at);
        extra.extend_from_slice(&target.bytes[at..block.new]);
        predictor.predict(block, 0..block.len, &mut piece);
        residual.push(&piece, &target.bytes[block.new..block.new + block.len]);
        at = block.new + block.len;
    }
    extra.extend_from_slice(&target.bytes[at..]);
    Sections { control, residual, extra }.encode(base.bytes)
}

/// Restores a target of `len` bytes as it is read. Never yields more, whatever `encoded` is.
pub(super) struct Decoder<'a> {
    predictor: Predictor<'a>,
    blocks: Vec<Block>,
    residual: ResidualReader<'a>,
    extra: Box<dyn Read + 'a>,
    len: usize,
    /// Bytes restored so far.
    at: usize,
    /// The block that comes next or is being restored, and how much of it was.
    block: usize,
    within: usize,
    piece: Vec<u8>,
    taken: usize,
}

impl<'a> Decoder<'a> {
    /// Reads the control streams of `encoded`; fails when they are not those of a target of `len` bytes.
    pub(super) fn new(base: Bytes<'a>, encoded: &'a [u8], len: usize) -> io::Result<Self> {
        let (blocks, residual, extra) = streams::open(encoded, base.bytes, len)?;
        let predictor = Predictor::new(base.bytes, &Image::of(base), &blocks);
        let (piece, at, block, within, taken) = (Vec::new(), 0, 0, 0, 0);
        Ok(Self { predictor, blocks, residual, extra, len, at, block, within, piece, taken })
    }

    /// Restores the next bytes; leaves no piece at the end.
    fn refill(&mut self) -> io::Result<()> {
        (self.taken, self.at) = (0, self.at + self.piece.len());
        let next = self.blocks.get(self.block).copied();
        match next {
            Some(block) if block.new + self.within == self.at => {
                let end = self.predictor.safe_end(&block, self.within, PIECE_BYTES);
                self.predictor.predict(&block, self.within..end, &mut self.piece);
                self.residual.apply(&mut self.piece)?;
                (self.block, self.within) =
                    if end == block.len { (self.block + 1, 0) } else { (self.block, end) };
            }
            _ => {
                let gap = next.map_or(self.len, |block| block.new) - self.at;
                self.piece.resize(gap.min(PIECE_BYTES), 0);
                self.extra.read_exact(&mut self.piece)?;
            }
        }
        Ok(())
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && self.at + self.piece.len() < self.len {
            self.refill()?;
        }
        let n = out.len().min(self.piece.len() - self.taken);
        out[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;

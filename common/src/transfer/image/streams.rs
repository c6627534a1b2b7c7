//! The six streams of an encoded image, each packed by itself: gaps, seeks and lengths of the blocks, runs of right
//! predictions and what is wrong after each, and the bytes that match nothing.
//!
//! ```text
//! (raw length: varint, packed length: varint; six times)  the six packed streams
//! ```
//!
//! A stream whose lengths are the same stands as it is; any other is raw LZMA.

mod packed;

use std::io::{self, BufRead, Read};

use crate::caps;
use crate::codec::{self, Reader};

use super::matching::Block;
use packed::{BYTES, Head, NUMBERS, Packed, Shape};

/// What each of the streams looks like.
const SHAPES: [Shape; 6] = [NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, BYTES];
/// Longest varint of a stream.
const VARINT_BYTES_MAX: usize = 10;

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("image: {reason}"))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Where the blocks lie.
#[derive(Default)]
pub(super) struct Control {
    gaps: Vec<u8>,
    seeks: Vec<u8>,
    lens: Vec<u8>,
    old_end: usize,
}

impl Control {
    /// Adds a block; the one before it ended at `at` of the new image.
    pub(super) fn push(&mut self, block: &Block, at: usize) {
        codec::put_varint(&mut self.gaps, (block.new - at) as u64);
        codec::put_varint(&mut self.seeks, zigzag(block.old as i64 - self.old_end as i64));
        codec::put_varint(&mut self.lens, block.len as u64);
        self.old_end = block.old + block.len;
    }
}

/// What predictions got wrong.
#[derive(Default)]
pub(super) struct Residual {
    runs: Vec<u8>,
    values: Vec<u8>,
    run: u64,
}

impl Residual {
    /// Adds what was predicted and what is there.
    pub(super) fn push(&mut self, predicted: &[u8], actual: &[u8]) {
        for (predicted, actual) in predicted.iter().zip(actual) {
            if predicted == actual {
                self.run += 1;
            } else {
                codec::put_varint(&mut self.runs, std::mem::take(&mut self.run));
                self.values.push(actual.wrapping_sub(*predicted));
            }
        }
    }
}

/// All streams of an image.
pub(super) struct Sections {
    pub(super) control: Control,
    pub(super) residual: Residual,
    pub(super) extra: Vec<u8>,
}

impl Sections {
    /// Packs the streams.
    pub(super) fn encode(self) -> io::Result<Vec<u8>> {
        let Self {
            control: Control { gaps, seeks, lens, .. },
            residual: Residual { runs, values, .. },
            extra,
        } = self;
        let mut streams = Vec::with_capacity(SHAPES.len());
        for (raw, shape) in [gaps, seeks, lens, runs, values, extra].into_iter().zip(SHAPES) {
            streams.push(Packed::new(raw, shape)?);
        }
        let mut out = Vec::new();
        streams.iter().for_each(|stream| stream.put_head(&mut out));
        streams.iter().for_each(|stream| out.extend_from_slice(stream.bytes()));
        Ok(out)
    }
}

/// A stream as it is read.
type Stream<'a> = Box<dyn BufRead + 'a>;

/// What is read as an image is restored.
pub(super) struct Opened<'a> {
    pub(super) blocks: Vec<Block>,
    pub(super) residual: ResidualReader<'a>,
    pub(super) extra: Stream<'a>,
}

impl<'a> Opened<'a> {
    /// Reads the blocks of a target of `len` bytes, and opens the streams that are read as it is restored.
    pub(super) fn new(encoded: &'a [u8], base_len: usize, len: usize) -> io::Result<Self> {
        let mut reader = Reader::new("image", encoded);
        let decode_error = |error: codec::DecodeError| invalid(&error.to_string());
        let numbers_max = caps::IMAGE_BLOCKS_MAX * VARINT_BYTES_MAX;
        // A run takes as many bytes at most as it has bytes to name, and one for the wrong one after it.
        let maxima = [numbers_max, numbers_max, numbers_max, len.saturating_mul(2), len, len];
        let mut heads = [Head::default(); SHAPES.len()];
        for (head, max) in heads.iter_mut().zip(maxima) {
            *head = Head::take(&mut reader, max).map_err(decode_error)?;
        }
        let mut open = |stream: usize| {
            heads[stream].open(reader.take(heads[stream].len).map_err(decode_error)?, SHAPES[stream])
        };
        let blocks = read_blocks([open(0)?, open(1)?, open(2)?], base_len, len)?;
        let residual = ResidualReader { runs: open(3)?, values: open(4)?, run: None };
        let extra = open(5)?;
        reader.finish().map_err(decode_error)?;
        Ok(Self { blocks, residual, extra })
    }
}

fn read_blocks(
    [mut gaps, mut seeks, mut lens]: [Stream<'_>; 3],
    base_len: usize,
    len: usize,
) -> io::Result<Vec<Block>> {
    let (mut blocks, mut at, mut old_end) = (Vec::new(), 0_usize, 0_i64);
    while let Some(gap) = read_number(&mut gaps)? {
        let (Some(seek), Some(block_len)) = (read_number(&mut seeks)?, read_number(&mut lens)?) else {
            return Err(invalid("a block ends early"));
        };
        let old = old_end.checked_add(unzigzag(seek)).and_then(|old| usize::try_from(old).ok());
        let (gap, block_len) = (gap as usize, block_len as usize);
        let begin = at.checked_add(gap);
        let ends = (
            begin.and_then(|new| new.checked_add(block_len)),
            old.and_then(|old| old.checked_add(block_len)),
        );
        let ((Some(new), Some(old)), (Some(new_end), Some(end))) = ((begin, old), ends) else {
            return Err(invalid("a block lies beyond all images"));
        };
        if block_len == 0 || new_end > len || end > base_len || blocks.len() == caps::IMAGE_BLOCKS_MAX {
            return Err(invalid("a block lies beyond its image"));
        }
        blocks.push(Block { old, new, len: block_len });
        (at, old_end) = (new_end, end as i64);
    }
    if read_number(&mut seeks)?.is_some() || read_number(&mut lens)?.is_some() {
        return Err(invalid("numbers follow the last block"));
    }
    Ok(blocks)
}

/// Mends predictions as they are made.
pub(super) struct ResidualReader<'a> {
    runs: Stream<'a>,
    values: Stream<'a>,
    /// Right predictions before the next wrong one; nothing before the first is read.
    run: Option<u64>,
}

impl ResidualReader<'_> {
    /// Mends the next predicted bytes.
    pub(super) fn apply(&mut self, mut piece: &mut [u8]) -> io::Result<()> {
        loop {
            let run = match self.run {
                Some(run) => run,
                // After the last run everything is right.
                None => read_number(&mut self.runs)?.unwrap_or(u64::MAX),
            };
            if run >= piece.len() as u64 {
                self.run = Some(run - piece.len() as u64);
                return Ok(());
            }
            let mut value = [0];
            self.values.read_exact(&mut value)?;
            piece[run as usize] = piece[run as usize].wrapping_add(value[0]);
            piece = &mut piece[run as usize + 1..];
            self.run = None;
        }
    }
}

/// Reads the next number of a stream; nothing at its end.
fn read_number(stream: &mut Stream<'_>) -> io::Result<Option<u64>> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return if shift == 0 { Ok(None) } else { Err(invalid("a number ends early")) };
        }
        if shift > 56 {
            return Err(invalid("a number is over its limit"));
        }
        number |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(number));
        }
    }
}

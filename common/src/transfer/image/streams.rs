//! The six streams of an encoded image, each under zstd: gaps, seeks and lengths of the blocks, runs of right predictions
//! and what is wrong after each, and the bytes that match nothing (with the base as prefix).
//!
//! ```text
//! (compressed length: varint, six times)  the six compressed streams
//! ```

use std::io::{self, Read, Write};

use zstd::zstd_safe::CParameter;

use crate::caps;
use crate::codec::{self, Reader};

use super::matching::Block;

const LEVEL: i32 = 19;
/// Most blocks of one image: bounds what the control streams can make a decoder allocate.
const BLOCKS_MAX: usize = 2 << 20;
/// Longest varint of a control stream.
const VARINT_BYTES_MAX: u64 = 10;

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
    /// Compresses the streams.
    pub(super) fn encode(self, base: &[u8]) -> io::Result<Vec<u8>> {
        let Self {
            control: Control { gaps, seeks, lens, .. },
            residual: Residual { runs, values, .. },
            extra,
        } = self;
        let plain = |bytes: &[u8]| zstd::bulk::compress(bytes, LEVEL);
        let streams = [
            plain(&gaps)?,
            plain(&seeks)?,
            plain(&lens)?,
            plain(&runs)?,
            plain(&values)?,
            compress_extra(&extra, base)?,
        ];
        let mut out = Vec::new();
        for stream in &streams {
            codec::put_varint(&mut out, stream.len() as u64);
        }
        out.extend(streams.into_iter().flatten());
        Ok(out)
    }
}

fn compress_extra(extra: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, base)?;
    let span = (extra.len() + base.len()) as u64;
    let window_log = (u64::BITS - span.leading_zeros()).clamp(10, caps::ZSTD_WINDOW_LOG_MAX);
    encoder.set_pledged_src_size(Some(extra.len() as u64))?;
    encoder.set_parameter(CParameter::WindowLog(window_log))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.write_all(extra)?;
    encoder.finish()
}

/// Reads the blocks of a target of `len` bytes, and opens the streams that are read as it is restored.
pub(super) fn open<'a>(
    encoded: &'a [u8],
    base: &'a [u8],
    len: usize,
) -> io::Result<(Vec<Block>, ResidualReader<'a>, Box<dyn Read + 'a>)> {
    let mut reader = Reader::new("image", encoded);
    let decode_error = |error: codec::DecodeError| invalid(&error.to_string());
    let mut lens = [0_usize; 6];
    for stream_len in &mut lens {
        *stream_len = reader.varint(caps::FRAME_WIRE_BYTES_MAX).map_err(decode_error)? as usize;
    }
    let mut streams = [&encoded[..0]; 6];
    for (stream, stream_len) in streams.iter_mut().zip(lens) {
        *stream = reader.take(stream_len).map_err(decode_error)?;
    }
    reader.finish().map_err(decode_error)?;
    let [gaps, seeks, block_lens, runs, values, extra] = streams;
    let blocks = read_blocks([gaps, seeks, block_lens], base.len(), len)?;
    let residual = ResidualReader { runs: bytes_of(runs)?, values: bytes_of(values)?, run: None };
    let mut extra = zstd::stream::read::Decoder::with_ref_prefix(extra, base)?;
    extra.window_log_max(caps::ZSTD_WINDOW_LOG_MAX)?;
    Ok((blocks, residual, Box::new(extra)))
}

type Stream<'a> = io::BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>;

fn bytes_of(stream: &[u8]) -> io::Result<Stream<'_>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX)?;
    Ok(io::BufReader::new(decoder))
}

fn read_blocks(streams: [&[u8]; 3], base_len: usize, len: usize) -> io::Result<Vec<Block>> {
    let control = |stream| -> io::Result<Vec<u8>> {
        let max = BLOCKS_MAX as u64 * VARINT_BYTES_MAX;
        let mut bytes = Vec::new();
        bytes_of(stream)?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let [gaps, seeks, lens] = [control(streams[0])?, control(streams[1])?, control(streams[2])?];
    let [mut gaps, mut seeks, mut lens] =
        [&gaps, &seeks, &lens].map(|bytes| Reader::new("image control", bytes));
    let next = |reader: &mut Reader<'_>| reader.varint(u64::MAX).map_err(|error| invalid(&error.to_string()));
    let (mut blocks, mut at, mut old_end) = (Vec::new(), 0_usize, 0_i64);
    while gaps.remaining() > 0 {
        let gap = next(&mut gaps)? as usize;
        let old = old_end.checked_add(unzigzag(next(&mut seeks)?)).and_then(|old| usize::try_from(old).ok());
        let block_len = next(&mut lens)? as usize;
        let begin = at.checked_add(gap);
        let ends = (
            begin.and_then(|new| new.checked_add(block_len)),
            old.and_then(|old| old.checked_add(block_len)),
        );
        let ((Some(new), Some(old)), (Some(new_end), Some(end))) = ((begin, old), ends) else {
            return Err(invalid("a block lies beyond all images"));
        };
        if block_len == 0 || new_end > len || end > base_len || blocks.len() == BLOCKS_MAX {
            return Err(invalid("a block lies beyond its image"));
        }
        blocks.push(Block { old, new, len: block_len });
        (at, old_end) = (new_end, end as i64);
    }
    seeks.finish().and_then(|()| lens.finish()).map_err(|error| invalid(&error.to_string()))?;
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
                None => read_run(&mut self.runs)?,
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

/// Reads the next run; after the last one everything is right.
fn read_run(runs: &mut Stream<'_>) -> io::Result<u64> {
    let (mut run, mut shift) = (0_u64, 0);
    loop {
        let mut byte = [0];
        if runs.read(&mut byte)? == 0 {
            return if shift == 0 { Ok(u64::MAX) } else { Err(invalid("a run ends early")) };
        }
        if shift > 56 {
            return Err(invalid("a run is over its limit"));
        }
        run |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            return Ok(run);
        }
    }
}

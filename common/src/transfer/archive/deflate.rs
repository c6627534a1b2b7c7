//! Deflates members again as the tool did that made the archive.
//!
//! There are few compressors in the world, and each gives the same bits for the same text. So a stream is described by the
//! compressor that rebuilds it, its *method*: one byte, and nothing to correct.

use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};
use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// How a stream was compressed. Its place in [`METHODS`] is its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// zlib at a level: Java, Python, most others.
    Zlib(u8),
    /// `miniz_oxide` at a level: Rust.
    Miniz(u8),
}

/// Every method, the common ones first. Only ever appended to.
pub(super) const METHODS: [Method; 18] = [
    Method::Zlib(6),
    Method::Miniz(6),
    Method::Zlib(9),
    Method::Zlib(1),
    Method::Zlib(2),
    Method::Zlib(3),
    Method::Zlib(4),
    Method::Zlib(5),
    Method::Zlib(7),
    Method::Zlib(8),
    Method::Miniz(9),
    Method::Miniz(1),
    Method::Miniz(2),
    Method::Miniz(3),
    Method::Miniz(4),
    Method::Miniz(5),
    Method::Miniz(7),
    Method::Miniz(8),
];

/// Bytes by which the output grows at once.
const ROOM_BYTES: usize = 32 * 1024;
/// Plain bytes compressed between two looks at the result.
const PIECE_BYTES: usize = 64 * 1024;

/// One stream while it is compressed.
pub(super) enum Deflater {
    Zlib(Compress),
    Miniz(Box<CompressorOxide>),
}

impl Deflater {
    pub(super) fn new(method: Method) -> Self {
        match method {
            Method::Zlib(level) => Self::Zlib(Compress::new(Compression::new(u32::from(level)), false)),
            Method::Miniz(level) => {
                let mut compressor = Box::<CompressorOxide>::default();
                compressor.set_format_and_level(DataFormat::Raw, level);
                Self::Miniz(compressor)
            }
        }
    }

    /// Compresses the next plain bytes, the last ones where `is_last`, and appends what comes of it to `out`.
    pub(super) fn push(&mut self, mut plain: &[u8], is_last: bool, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let (consumed, is_done) = match self {
                Self::Zlib(compressor) => step_zlib(compressor, plain, is_last, out)?,
                Self::Miniz(compressor) => step_miniz(compressor, plain, is_last, out)?,
            };
            plain = &plain[consumed..];
            if is_done || (plain.is_empty() && !is_last) {
                return Ok(());
            }
        }
    }
}

/// Returns how many bytes were taken and whether the stream ended.
fn step_zlib(
    compressor: &mut Compress,
    plain: &[u8],
    is_last: bool,
    out: &mut Vec<u8>,
) -> io::Result<(usize, bool)> {
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::None };
    let before = compressor.total_in();
    out.reserve(ROOM_BYTES);
    let status = compressor.compress_vec(plain, out, flush).map_err(io::Error::other)?;
    Ok(((compressor.total_in() - before) as usize, status == Status::StreamEnd))
}

/// Returns how many bytes were taken and whether the stream ended.
fn step_miniz(
    compressor: &mut CompressorOxide,
    plain: &[u8],
    is_last: bool,
    out: &mut Vec<u8>,
) -> io::Result<(usize, bool)> {
    let flush = if is_last { MZFlush::Finish } else { MZFlush::None };
    let begin = out.len();
    out.resize(begin + ROOM_BYTES, 0);
    let result = deflate(compressor, plain, &mut out[begin..], flush);
    out.truncate(begin + result.bytes_written);
    let status =
        result.status.map_err(|error| io::Error::other(format!("cannot deflate a member: {error:?}")))?;
    Ok((result.bytes_consumed, status == MZStatus::StreamEnd))
}

/// Returns the method that makes `stream` of `plain`; tries `likely` first.
pub(super) fn method_of(plain: &[u8], stream: &[u8], likely: Method) -> Option<Method> {
    let others = METHODS.into_iter().filter(|method| *method != likely);
    std::iter::once(likely).chain(others).find(|method| makes(*method, plain, stream).unwrap_or(false))
}

/// Says whether a method makes `stream` of `plain`; stops at the first difference.
fn makes(method: Method, plain: &[u8], stream: &[u8]) -> io::Result<bool> {
    let (mut deflater, mut made, mut rest) = (Deflater::new(method), Vec::new(), stream);
    for start in (0..plain.len().max(1)).step_by(PIECE_BYTES) {
        let end = plain.len().min(start + PIECE_BYTES);
        made.clear();
        deflater.push(&plain[start..end], end == plain.len(), &mut made)?;
        let Some(after) = rest.strip_prefix(made.as_slice()) else { return Ok(false) };
        rest = after;
    }
    Ok(rest.is_empty())
}

#[cfg(test)]
pub(super) fn deflated(plain: &[u8], method: Method) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(method).push(plain, true, &mut out).unwrap();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that repeats itself now and then, so that the levels differ.
    fn text(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let word = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("word{} ", (*state >> 33) % 3_000)
        };
        std::iter::repeat_with(|| word(&mut state)).flat_map(String::into_bytes).take(len).collect()
    }

    /// Golden: when this fails, a method has another number or a compressor other bits, and frames in the field no longer
    /// restore.
    #[test]
    fn numbers_and_bits_of_all_methods_are_golden() {
        let plain = text(100_000);
        let all: Vec<u8> = METHODS.iter().flat_map(|method| deflated(&plain, *method)).collect();
        let golden = "sha256:b63a86c2913d5cd83ead86ace3131464ed601b98e6d2119bea0499ccab2a96c4";
        assert_eq!(crate::digest::Digest::of(&all).to_string(), golden);
    }

    #[test]
    fn a_stream_made_in_pieces_is_the_same() {
        let plain = text(300_000);
        for method in METHODS {
            for len in [1_000, 65_536, 300_000] {
                let (mut deflater, mut out) = (Deflater::new(method), Vec::new());
                for (number, piece) in plain.chunks(len).enumerate() {
                    deflater.push(piece, (number + 1) * len >= plain.len(), &mut out).unwrap();
                }
                assert!(out == deflated(&plain, method), "{method:?} in pieces of {len}");
            }
        }
    }

    #[test]
    fn the_method_of_a_stream_is_found_whatever_was_likely() {
        for plain in [text(0), text(10), text(100_000)] {
            for method in METHODS {
                let stream = deflated(&plain, method);
                for likely in [METHODS[0], METHODS[17]] {
                    let found = method_of(&plain, &stream, likely).unwrap();
                    assert!(deflated(&plain, found) == stream, "{method:?} likely {likely:?}");
                }
            }
        }
    }

    #[test]
    fn a_stream_of_another_text_or_compressor_has_no_method() {
        let plain = text(10_000);
        let mut stream = deflated(&plain, METHODS[0]);
        assert_eq!(method_of(&text(9_999), &stream, METHODS[0]), None);
        stream.push(0);
        assert_eq!(method_of(&plain, &stream, METHODS[0]), None);
        stream.truncate(100);
        assert_eq!(method_of(&plain, &stream, METHODS[0]), None);
    }
}

//! One stream: raw LZMA, or as it is where that is no longer.

use std::io::{self, Read, Write};

use lzma_rust2::{LzmaOptions, LzmaReader, LzmaWriter};

use crate::caps;
use crate::codec::{self, DecodeError};

/// What a kind of stream looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Bits of the byte before that predict a byte.
    context_bits: u32,
}

/// Numbers as varints, and differences.
pub(super) const NUMBERS: Shape = Shape { context_bits: 3 };
/// Bytes of files.
pub(super) const BYTES: Shape = Shape { context_bits: 4 };

/// A stream with its length before it was packed.
pub(super) struct Packed {
    raw_len: usize,
    bytes: Vec<u8>,
}

impl Packed {
    /// Packs `raw`.
    pub(super) fn new(raw: Vec<u8>, shape: Shape) -> io::Result<Self> {
        let raw_len = raw.len();
        if raw_len == 0 {
            return Ok(Self { raw_len, bytes: raw });
        }
        let mut options = LzmaOptions::with_preset(9);
        (options.lc, options.lp, options.pb) = (shape.context_bits, 0, 0);
        (options.dict_size, options.nice_len) = (dictionary_bytes(raw_len), LzmaOptions::NICE_LEN_MAX);
        let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
        writer.write_all(&raw)?;
        let bytes = writer.finish()?;
        Ok(Self { raw_len, bytes: if bytes.len() < raw_len { bytes } else { raw } })
    }

    /// Appends both lengths.
    pub(super) fn put_head(&self, out: &mut Vec<u8>) {
        codec::put_varint(out, self.raw_len as u64);
        codec::put_varint(out, self.bytes.len() as u64);
    }

    /// Returns the packed bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The lengths of a packed stream.
#[derive(Clone, Copy, Default)]
pub(super) struct Head {
    raw_len: usize,
    pub(super) len: usize,
}

impl Head {
    /// Reads both lengths of a stream of at most `raw_max` bytes.
    pub(super) fn take(reader: &mut codec::Reader<'_>, raw_max: usize) -> Result<Self, DecodeError> {
        let raw_len = reader.varint(raw_max as u64)? as usize;
        Ok(Self { raw_len, len: reader.varint(raw_len as u64)? as usize })
    }

    /// Opens the stream; it ends after its raw length.
    pub(super) fn open<'a>(self, packed: &'a [u8], shape: Shape) -> io::Result<Box<dyn io::BufRead + 'a>> {
        if packed.len() == self.raw_len {
            return Ok(Box::new(packed));
        }
        let (len, dictionary) = (self.raw_len as u64, dictionary_bytes(self.raw_len));
        let reader = LzmaReader::new(packed, len, shape.context_bits, 0, 0, dictionary, None)?;
        Ok(Box::new(io::BufReader::new(reader.take(len))))
    }
}

/// Returns what both sides keep of a stream of `raw_len` bytes to copy from.
fn dictionary_bytes(raw_len: usize) -> u32 {
    const MIN: u32 = 4_096;
    u32::try_from(raw_len).unwrap_or(u32::MAX).clamp(MIN, caps::IMAGE_DICTIONARY_BYTES_MAX)
}

//! Restores frames on the receiver: bounded, streaming, verified part by part.

use std::io::{self, BufRead, BufReader, Read};

use zstd::stream::read::Decoder;

use crate::caps;
use crate::digest::{Digest, Hasher};
use crate::manifest::Content;

use super::archive::Expansion;
use super::encode::{Side, read_leans};
use super::image::{self, Base, File, Shape};
use super::leans::LeanReader;
use super::{Codec, ContentSource, Frame, Part};

/// Bytes of a base read at once where it is read from its beginning to its end.
const LEAN_BUFFER_BYTES: usize = 256 * 1024;

/// Takes the parts of a frame. A part counts only once it was committed.
pub trait PartSink {
    /// Begins a part.
    fn begin(&mut self, part: &Part) -> io::Result<()>;
    /// Takes the next bytes of the part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the part; its digest was right.
    fn commit(&mut self, part: &Part) -> io::Result<()>;
}

/// Says why a frame could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum DecodeFrameError {
    /// The compressed bytes are not the frame that was asked for, or are no zstd of the promised length.
    #[error("frame {frame} is damaged: {reason}")]
    Damaged {
        /// The frame.
        frame: Digest,
        /// What did not fit.
        reason: String,
    },
    /// The base could not be read.
    #[error("cannot read the base of frame {frame}")]
    Base {
        /// The frame.
        frame: Digest,
        /// What failed.
        source: io::Error,
    },
    /// The sink failed: the receiver's disk.
    #[error("cannot store what frame {frame} holds")]
    Sink {
        /// The frame.
        frame: Digest,
        /// What failed.
        source: io::Error,
    },
}

/// Restores `frame` from its compressed bytes into `sink`. The caller has checked the frame's own digest.
/// `base` and `produced` are the numbered contents of both packages, with what serves those that the receiver has:
/// of the target, what earlier frames have restored. Never writes a byte more than the plan promised, whatever the
/// compressed bytes are.
pub fn decode_frame(
    frame: &Frame,
    compressed: impl BufRead,
    base: (&[Content], &dyn ContentSource),
    produced: (&[Content], &dyn ContentSource),
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let base_error = |source| DecodeFrameError::Base { frame: frame.digest, source };
    let sides = (Side::new(base.0, base.1), Side::new(produced.0, produced.1));
    let damaged = |reason: String| DecodeFrameError::Damaged { frame: frame.digest, reason };
    match frame.codec {
        Codec::Zstd => {
            let prefix = read_leans(&frame.base, &sides.0, &sides.1).map_err(base_error)?;
            let mut decoder =
                Decoder::with_ref_prefix(compressed, &prefix).map_err(|e| damaged(e.to_string()))?;
            decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX).map_err(|e| damaged(e.to_string()))?;
            decode_parts(frame, decoder.single_frame(), sink)
        }
        Codec::Image => {
            let mut encoded = Vec::new();
            compressed.take(frame.wire_len).read_to_end(&mut encoded).map_err(|e| damaged(e.to_string()))?;
            let leans = LeanReader::new(&frame.base, sides.0, sides.1);
            let target_files = part_files(frame);
            let target = Shape { len: frame.raw_len() as usize, files: &target_files };
            let decoded = leans.files().map_err(|e| damaged(e.to_string())).and_then(|files| {
                let image = Base { source: &leans, len: leans.len(), files: &files };
                let decoder = image::Decoder::new(image, &encoded, target);
                decode_parts(frame, decoder.map_err(|e| damaged(e.to_string()))?, sink)
            });
            decoded.map_err(|error| leans.into_failure().map_or(error, base_error))
        }
        Codec::Archive => {
            let mut encoded = Vec::new();
            compressed.take(frame.wire_len).read_to_end(&mut encoded).map_err(|e| damaged(e.to_string()))?;
            let leans = LeanReader::new(&frame.base, sides.0, sides.1);
            // Expanded as it is read: compressed and expanded base together are too much to hold.
            let base = BufReader::with_capacity(LEAN_BUFFER_BYTES, leans.stream());
            let decoded =
                Expansion::open(base, &encoded).map_err(|e| damaged(e.to_string())).and_then(|expansion| {
                    let decoder = expansion.decoder(frame.raw_len() as usize);
                    decode_parts(frame, decoder.map_err(|e| damaged(e.to_string()))?, sink)
                });
            decoded.map_err(|error| leans.into_failure().map_or(error, base_error))
        }
    }
}

/// Returns the files of which a frame holds the parts, as far as they are known before they are there.
fn part_files(frame: &Frame) -> Vec<File> {
    let mut at = 0;
    let file = |part: &Part| {
        let begin = at;
        at += part.extent.len as usize;
        File::unread(begin..at, part.extent.offset)
    };
    frame.parts.iter().map(file).collect()
}

fn decode_parts(
    frame: &Frame,
    mut decoder: impl Read,
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let damaged = |reason: String| DecodeFrameError::Damaged { frame: frame.digest, reason };
    let mut buffer = vec![0; 128 * 1024];
    for part in &frame.parts {
        decode_part(frame, part, &mut decoder, &mut buffer, sink)?;
    }
    match decoder.read(&mut buffer[..1]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(damaged("it holds more than the plan promised".into())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

fn decode_part(
    frame: &Frame,
    part: &Part,
    decoder: &mut impl Read,
    buffer: &mut [u8],
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let damaged = |reason: String| DecodeFrameError::Damaged { frame: frame.digest, reason };
    let sink_error = |source| DecodeFrameError::Sink { frame: frame.digest, source };
    sink.begin(part).map_err(sink_error)?;
    let mut hasher = Hasher::new();
    while hasher.len() < part.extent.len {
        let wanted = (part.extent.len - hasher.len()).min(buffer.len() as u64) as usize;
        let n = decoder.read(&mut buffer[..wanted]).map_err(|e| damaged(e.to_string()))?;
        if n == 0 {
            return Err(damaged("it ends before what the plan promised".into()));
        }
        hasher.update(&buffer[..n]);
        sink.write(&buffer[..n]).map_err(sink_error)?;
    }
    if hasher.finish() != part.digest {
        return Err(damaged(format!("a part is not {}: the base or the frame is wrong", part.digest)));
    }
    sink.commit(part).map_err(sink_error)
}

//! Restores frames on the receiver: bounded, streaming, verified part by part.

mod behind;
mod verify;
pub(super) mod whole;

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use zstd::stream::read::Decoder;

use crate::caps;
use crate::digest::{Beginning, Digest};
use crate::manifest::Contents;

use super::archive::{Expansion, Scratch};
use super::encode::{Side, append_leans, read_leans, read_leans_filtered};
use super::filter;
use super::image::{self, Base, File, Shape};
use super::leans::LeanReader;
use super::memory::{Buffers, Shelf};
use super::{Codec, ContentSource, Frame, Part};
use behind::behind;
use verify::Verifier;

/// Bytes of a base read at once where it is read from its beginning to its end.
const LEAN_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes decoded, or hashed and then stored, at once where one thread does it all.
const BUFFER_BYTES: usize = 128 * 1024;
/// Raw bytes from which on a frame is worth a thread that stores it.
const BEHIND_BYTES: u64 = 1 << 20;

/// Takes the parts of a frame. A part counts only once it was committed. Called on one thread, which need not be the caller's.
pub trait PartSink: Send {
    /// Begins a part.
    fn begin(&mut self, part: &Part) -> io::Result<()>;
    /// Takes the next bytes of the part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the part; its digest was right.
    fn commit(&mut self, part: &Part) -> io::Result<()>;

    /// Gives away the hash of its content up to the part, where the sink has it: it is taken on together with the part's own, sooner
    /// than one after the other. A sink that hashes no content that comes in several parts has none.
    fn hash_before(&mut self, _part: &Part) -> Option<Beginning> {
        None
    }

    /// Takes the hash of its content up to the part's end, just before the part is committed.
    fn hash_after(&mut self, _part: &Part, _hash: Beginning) {}
}

/// What restoring takes beside the two packages; shared by frames that are restored together.
#[derive(Debug)]
pub struct Workspace {
    /// A directory: what a frame needs beside memory lies in it without a name.
    scratch: PathBuf,
    buffers: Buffers,
    shelf: Shelf,
}

impl Workspace {
    /// Makes one whose scratch lies in this directory.
    pub fn new(scratch: PathBuf) -> Self {
        Self { scratch, buffers: Buffers::default(), shelf: Shelf::default() }
    }

    /// Gives back what is kept of earlier frames and this one does not take: it has a bound for what all of them hold together.
    fn begin(&self, frame: &Frame) {
        let (takes_room, takes_shelf) = match frame.codec {
            Codec::Zstd => (!frame.is_chained(), !frame.is_chained() && !frame.base.is_empty()),
            Codec::Filtered => (true, false),
            Codec::Image | Codec::Archive => (false, false),
        };
        if !takes_room {
            self.buffers.clear();
        }
        if !takes_shelf {
            self.shelf.clear();
        }
    }

    /// Lends a buffer of `len` bytes.
    fn lend<T>(&self, len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut buffer = self.buffers.take(len);
        let done = work(buffer.first(len));
        self.buffers.give(buffer);
        done
    }

    /// Lends an empty buffer for what a frame leans on.
    fn leaning<T>(&self, frame: &Frame, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if frame.base.is_empty() {
            return work(&mut Vec::new());
        }
        self.shelf.lend(frame.shared_bytes() as usize, work)
    }
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

/// Restores `frame` from its compressed bytes into `sink`. Of the codecs that are ours the caller has checked the frame's own
/// digest; a zstd stream may be anything, because each part is checked.
/// `base` and `produced` are the numbered contents of both packages, with what serves those that the receiver has:
/// of the target, what earlier frames have restored. Never writes a byte more than the plan promised, whatever the
/// compressed bytes are.
pub fn decode_frame(
    frame: &Frame,
    compressed: impl BufRead,
    base: (Contents<'_>, &dyn ContentSource),
    produced: (Contents<'_>, &dyn ContentSource),
    workspace: &Workspace,
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let base_error = |source| DecodeFrameError::Base { frame: frame.digest, source };
    let sides = (Side::new(base.0, base.1), Side::new(produced.0, produced.1));
    workspace.begin(frame);
    match frame.codec {
        Codec::Zstd => {
            // Of frames that do not wait for each other several are restored at once; of a chain each is stored while it is
            // decoded.
            if !frame.is_chained() {
                return workspace.lend(frame.raw_len() as usize, |room| {
                    let restored = workspace.leaning(frame, |prefix| {
                        append_leans(&frame.base, &sides.0, &sides.1, prefix)?;
                        Ok(whole::restore(compressed, prefix, room))
                    });
                    let (restored, ended) = restored.map_err(base_error)?;
                    take_whole(frame, restored, ended, sink)
                });
            }
            let prefix = read_leans(&frame.base, &sides.0, &sides.1).map_err(base_error)?;
            let mut decoder =
                Decoder::with_ref_prefix(compressed, &prefix).map_err(|e| damaged(frame, e.to_string()))?;
            decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX).map_err(|e| damaged(frame, e.to_string()))?;
            decode_parts(frame, decoder.single_frame(), sink)
        }
        Codec::Filtered => {
            let prefix = read_leans_filtered(&frame.base, &sides.0, &sides.1).map_err(base_error)?;
            workspace.lend(frame.raw_len() as usize, |room| {
                let (restored, ended) = whole::restore(compressed, &prefix, room);
                drop(prefix);
                take_filtered(frame, restored, ended, sink)
            })
        }
        Codec::Image => {
            let mut encoded = Vec::new();
            compressed
                .take(frame.wire_len)
                .read_to_end(&mut encoded)
                .map_err(|e| damaged(frame, e.to_string()))?;
            let leans = LeanReader::new(&frame.base, sides.0, sides.1);
            let target_files = part_files(frame);
            let target = Shape { len: frame.raw_len() as usize, files: &target_files };
            let decoded = leans.files().map_err(|e| damaged(frame, e.to_string())).and_then(|files| {
                let image = Base { source: &leans, len: leans.len(), files: &files };
                let decoder = image::Decoder::new(image, &encoded, target);
                decode_parts(frame, decoder.map_err(|e| damaged(frame, e.to_string()))?, sink)
            });
            decoded.map_err(|error| leans.into_failure().map_or(error, base_error))
        }
        Codec::Archive => {
            let mut encoded = Vec::new();
            compressed
                .take(frame.wire_len)
                .read_to_end(&mut encoded)
                .map_err(|e| damaged(frame, e.to_string()))?;
            let leans = LeanReader::new(&frame.base, sides.0, sides.1);
            let base = BufReader::with_capacity(LEAN_BUFFER_BYTES, leans.stream());
            let sink_error = |source| DecodeFrameError::Sink { frame: frame.digest, source };
            let scratch = Scratch::new(&workspace.scratch).map_err(sink_error)?;
            let expansion = Expansion::open(base, &encoded, &scratch);
            let decoded = expansion.map_err(|e| damaged(frame, e.to_string())).and_then(|expansion| {
                let decoder = expansion.decoder(frame.raw_len() as usize);
                decode_parts(frame, decoder.map_err(|e| damaged(frame, e.to_string()))?, sink)
            });
            let decoded = decoded.map_err(|error| leans.into_failure().map_or(error, base_error));
            decoded.map_err(|error| scratch.into_failure().map_or(error, sink_error))
        }
    }
}

/// Hands on what was restored of a frame, and tells of what ended it early only then: the parts before that are right.
fn take_whole(
    frame: &Frame,
    restored: &[u8],
    ended: io::Result<()>,
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    verify::take_whole(frame, restored, sink)?;
    ended.map_err(|error| damaged(frame, error.to_string()))?;
    match restored.len() as u64 == frame.raw_len() {
        true => Ok(()),
        false => Err(damaged(frame, verify::TOO_SHORT)),
    }
}

/// Hands on what was restored of a frame as [`take_whole`] does, and takes the filter off it.
fn take_filtered(
    frame: &Frame,
    restored: &[u8],
    ended: io::Result<()>,
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let mut verifier = Verifier::new(frame, sink);
    let extents = frame.parts.iter().map(|part| part.extent);
    filter::take_off(extents, restored, BUFFER_BYTES, |bytes| verifier.take(bytes))?;
    ended.map_err(|error| damaged(frame, error.to_string()))?;
    verifier.end()
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
    let mut verifier = Verifier::new(frame, sink);
    if frame.raw_len() >= BEHIND_BYTES {
        return behind(decoder, verifier, |error| damaged(frame, error.to_string()));
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match decoder.read(&mut buffer).map_err(|error| damaged(frame, error.to_string()))? {
            0 => return verifier.end(),
            n => verifier.take(&buffer[..n])?,
        }
    }
}

fn damaged(frame: &Frame, reason: impl Into<String>) -> DecodeFrameError {
    DecodeFrameError::Damaged { frame: frame.digest, reason: reason.into() }
}

fn unstored(frame: &Frame, source: io::Error) -> DecodeFrameError {
    DecodeFrameError::Sink { frame: frame.digest, source }
}

#[cfg(test)]
mod tests;

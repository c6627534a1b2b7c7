//! Compresses planned frames. Runs wherever the contents are: at the coordinator, or on a release engineer's
//! machine for `sluice package cost`.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use crate::caps;
use crate::digest::{Digest, Hasher};
use crate::manifest::Contents;

use super::archive;
use super::image::{self, Bytes};
use super::leans::LeanReader;
use super::{Codec, ContentSource, Extent, Frame, FrameSpec, Lean, Part};
use super::{filter, likeness, memory};

/// Size of an encoder's match tables when it leans on a base, as a power of two.
const TABLE_LOG_MAX: u32 = 24;

/// Largest target that is tried under zstd -19 against its base too.
const BEST_ZSTD_BYTES_MAX: u64 = 4 << 20;

/// How much CPU encoding may take: levels measured so that quick plans are ready in about a second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Ord, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// zstd -3 plain, -9 against a base.
    #[default]
    Quick,
    /// zstd -19, leaning on what earlier frames restore; against a base the image codec, where that is smaller.
    Best,
}

/// Says that a text is no effort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an effort; write quick or best")]
pub struct EffortError(String);

impl FromStr for Effort {
    type Err = EffortError;

    fn from_str(text: &str) -> Result<Self, EffortError> {
        match text {
            "quick" => Ok(Self::Quick),
            "best" => Ok(Self::Best),
            other => Err(EffortError(other.to_owned())),
        }
    }
}

impl Effort {
    fn level(self, spec: &FrameSpec) -> i32 {
        match (self, spec.base.is_empty()) {
            (Self::Quick, true) => 3,
            (Self::Quick, false) => 9,
            // The image codec is smaller but for small texts, and nine levels up cost twenty times the CPU.
            (Self::Best, false) if spec.needs_base() && spec.raw_len() > BEST_ZSTD_BYTES_MAX => 9,
            (Self::Best, _) => 19,
        }
    }
}

/// A frame and its compressed bytes.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// What the bytes are.
    pub frame: Frame,
    /// The compressed bytes.
    pub bytes: Vec<u8>,
}

/// Says why a frame could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Reading a content or compressing failed.
    #[error("cannot encode a frame")]
    Io(#[from] io::Error),
    /// A content is not what its digest says.
    #[error("content {0} is damaged at its source")]
    Damaged(Digest),
}

/// A package's contents, numbered, with the bytes behind them.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    contents: Contents<'a>,
    source: &'a dyn ContentSource,
}

impl Side<'_> {
    pub(super) fn reader(&self, extent: &Extent) -> io::Result<impl Read + '_> {
        let digest = self.contents.at(extent.content).digest;
        Ok(self.source.reader(&digest, extent.offset)?.take(extent.len))
    }

    fn append(&self, extent: &Extent, bytes: &mut Vec<u8>) -> io::Result<()> {
        let before = bytes.len() as u64;
        self.reader(extent)?.read_to_end(bytes)?;
        if bytes.len() as u64 - before != extent.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a content is shorter than its size"));
        }
        Ok(())
    }

    /// Returns the size of the whole content.
    pub(super) fn size(&self, extent: &Extent) -> u64 {
        self.contents.at(extent.content).size
    }

    pub(super) fn new<'a>(contents: Contents<'a>, source: &'a dyn ContentSource) -> Side<'a> {
        Side { contents, source }
    }
}

/// Reads what a frame leans on, end to end.
pub(super) fn read_leans(leans: &[Lean], base: &Side<'_>, produced: &Side<'_>) -> io::Result<Vec<u8>> {
    let total: u64 = leans.iter().map(|lean| lean.extent().len).sum();
    let mut bytes = memory::buffer(total as usize);
    append_leans(leans, base, produced, &mut bytes)?;
    Ok(bytes)
}

/// Appends what a frame leans on, end to end.
pub(super) fn append_leans(
    leans: &[Lean],
    base: &Side<'_>,
    produced: &Side<'_>,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    leans.iter().try_for_each(|lean| match lean {
        Lean::Base(extent) => base.append(extent, bytes),
        Lean::Produced(extent) => produced.append(extent, bytes),
    })
}

/// Reads what a filtered frame leans on, end to end and filtered.
pub(super) fn read_leans_filtered(
    leans: &[Lean],
    base: &Side<'_>,
    produced: &Side<'_>,
) -> io::Result<Vec<u8>> {
    let total: u64 = leans.iter().map(|lean| lean.extent().len).sum();
    let mut bytes = memory::buffer(total as usize);
    for lean in leans {
        match lean {
            Lean::Base(extent) => filter::append(extent, base.reader(extent)?, &mut bytes)?,
            Lean::Produced(extent) => filter::append(extent, produced.reader(extent)?, &mut bytes)?,
        }
    }
    if bytes.len() as u64 != total {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a content is shorter than its size"));
    }
    Ok(bytes)
}

/// Encodes one frame. `base` and `target` are the numbered contents of both packages with their sources.
pub fn encode_frame(
    spec: &FrameSpec,
    base: (Contents<'_>, &dyn ContentSource),
    target: (Contents<'_>, &dyn ContentSource),
    effort: Effort,
) -> Result<EncodedFrame, EncodeError> {
    let target_side = Side::new(target.0, target.1);
    let prefix = read_leans(&spec.base, &Side::new(base.0, base.1), &target_side)?;
    let (parts, codec, bytes) = match effort {
        Effort::Best if spec.needs_base() => {
            encode_aware(spec, (&Side::new(base.0, base.1), &prefix), &target_side, effort)?
        }
        Effort::Best => encode_plain(spec, &prefix, &Side::new(base.0, base.1), &target_side)?,
        Effort::Quick => {
            let fill = |out: &mut Compressor<'_>| copy_parts(&target_side, &spec.parts, out);
            let (parts, bytes) = compress(spec, &prefix, effort, fill)?;
            (parts, Codec::Zstd, bytes)
        }
    };
    let digest = Digest::of(&bytes);
    let frame = Frame { digest, wire_len: bytes.len() as u64, codec, base: spec.base.clone(), parts };
    Ok(EncodedFrame { frame, bytes })
}

type Compressor<'a> = Encoder<'a, Vec<u8>>;

/// Returns the zstd frame of what has no base, filtered where programs are in it that gain by that.
fn encode_plain(
    spec: &FrameSpec,
    prefix: &[u8],
    base: &Side<'_>,
    target: &Side<'_>,
) -> Result<(Vec<Part>, Codec, Vec<u8>), EncodeError> {
    let mut raw = Vec::with_capacity(spec.raw_len() as usize);
    let parts = copy_parts(target, &spec.parts, &mut raw)?;
    let compressed = |prefix: &[u8], bytes: &[u8]| {
        compress(spec, prefix, Effort::Best, |out| Ok(out.write_all(bytes)?)).map(|(_, bytes)| bytes)
    };
    let Some(filtered) = filter::if_better(&spec.parts, &raw)? else {
        return Ok((parts, Codec::Zstd, compressed(prefix, &raw)?));
    };
    drop(raw);
    let prefix = read_leans_filtered(&spec.base, base, target)?;
    Ok((parts, Codec::Filtered, compressed(&prefix, &filtered)?))
}

/// Compresses what `fill` writes; returns what it returned, too.
fn compress<T>(
    spec: &FrameSpec,
    prefix: &[u8],
    effort: Effort,
    fill: impl FnOnce(&mut Compressor<'_>) -> Result<T, EncodeError>,
) -> Result<(T, Vec<u8>), EncodeError> {
    let mut encoder = Encoder::with_ref_prefix(Vec::new(), effort.level(spec), prefix)?;
    configure(&mut encoder, spec)?;
    let filled = fill(&mut encoder)?;
    Ok((filled, encoder.finish()?))
}

/// Returns the smallest of the zstd frame, where its receiver can hold it, and those by the codecs that know what is
/// in a file.
fn encode_aware(
    spec: &FrameSpec,
    base: (&Side<'_>, &[u8]),
    target: &Side<'_>,
    effort: Effort,
) -> Result<(Vec<Part>, Codec, Vec<u8>), EncodeError> {
    let mut raw = Vec::with_capacity(spec.raw_len() as usize);
    let parts = copy_parts(target, &spec.parts, &mut raw)?;
    let leans: Vec<Lean> = spec.parts.iter().map(|part| Lean::Produced(*part)).collect();
    let base_files = LeanReader::new(&spec.base, *base.0, *target).files()?;
    let files = LeanReader::new(&leans, *base.0, *target).files()?;
    let (from, to) = (Bytes { bytes: base.1, files: &base_files }, Bytes { bytes: &raw, files: &files });
    let zstd = if Codec::Zstd.fits(spec.raw_len(), spec.base_len()) {
        Some(compress(spec, base.1, effort, |out| Ok(out.write_all(&raw)?))?.1)
    } else {
        None
    };
    let is_smallest = |bytes: &Vec<u8>| zstd.as_ref().is_none_or(|zstd| bytes.len() < zstd.len());
    // The archive codec is the image codec but for what it inflates: where that gains, trying both is a waste.
    if let Some(archive) = archive::encode(from, to)?.filter(is_smallest) {
        return Ok((parts, Codec::Archive, archive));
    }
    let image = image::encode(from, to)?;
    if is_smallest(&image) && image::restores(from, &image, to) {
        return Ok((parts, Codec::Image, image));
    }
    let zstd = zstd.ok_or_else(|| io::Error::other("an image frame does not restore what it holds"))?;
    Ok((parts, Codec::Zstd, zstd))
}

fn configure(encoder: &mut Encoder<'_, Vec<u8>>, spec: &FrameSpec) -> io::Result<()> {
    // The plan carries lengths and digests; the frame need not repeat them.
    encoder.include_contentsize(false)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(Some(spec.raw_len()))?;
    if !spec.base.is_empty() {
        let span = spec.raw_len() + spec.base_len();
        let window_log = (u64::BITS - span.leading_zeros()).clamp(10, caps::ZSTD_WINDOW_LOG_MAX);
        encoder.set_parameter(CParameter::WindowLog(window_log))?;
        // The level's own tables forget all but the last few MiB of a base; these reach over all of it (a quarter
        // off the bytes of a recompiled binary, measured). 24 bounds an encoder's memory to about 150 MiB.
        encoder.set_parameter(CParameter::ChainLog(window_log.min(TABLE_LOG_MAX)))?;
        encoder.set_parameter(CParameter::HashLog(window_log.min(TABLE_LOG_MAX)))?;
        // Beyond what the tables reach, long-distance matching finds at least what only moved.
        encoder.set_parameter(CParameter::EnableLongDistanceMatching(span > 4 << TABLE_LOG_MAX))?;
    }
    Ok(())
}

/// Copies parts to where they are wanted and returns them with their digests.
fn copy_parts(target: &Side<'_>, extents: &[Extent], out: &mut impl Write) -> Result<Vec<Part>, EncodeError> {
    let copy = |extent: &Extent| Ok(Part { extent: *extent, digest: copy_part(target, extent, out)? });
    extents.iter().map(copy).collect()
}

/// Copies a part to where it is wanted and returns its digest; a whole content must be what its name says.
fn copy_part(target: &Side<'_>, extent: &Extent, out: &mut impl Write) -> Result<Digest, EncodeError> {
    let content = target.contents.at(extent.content);
    let mut hasher = Hasher::new();
    let mut reader = target.reader(extent)?;
    let mut buffer = vec![0; extent.len.min(128 * 1024) as usize];
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        out.write_all(&buffer[..n])?;
    }
    let digest = hasher.finish();
    let whole = extent.offset == 0 && extent.len == content.size;
    if hasher.len() != extent.len || (whole && digest != content.digest) {
        return Err(EncodeError::Damaged(content.digest));
    }
    Ok(digest)
}

/// Encodes all of `specs` on `workers` threads. `each` gets every frame with its number, in any order; what it
/// returns is collected in the order of `specs`. With [`Effort::Best`], plain frames come to lean on what earlier ones
/// restore.
pub fn encode_all<T: Send>(
    specs: &[FrameSpec],
    base: (Contents<'_>, &dyn ContentSource),
    target: (Contents<'_>, &dyn ContentSource),
    effort: Effort,
    workers: usize,
    each: impl Fn(usize, EncodedFrame) -> Result<T, EncodeError> + Sync,
) -> Result<Vec<T>, EncodeError> {
    let leaning = match effort {
        Effort::Quick => Cow::Borrowed(specs),
        Effort::Best => Cow::Owned(likeness::lean_on_produced(specs, &Side::new(target.0, target.1))?),
    };
    let specs: &[FrameSpec] = &leaning;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<T>>> = Mutex::new(specs.iter().map(|_| None).collect());
    let work = || -> Result<(), EncodeError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(spec) = specs.get(number) else { return Ok(()) };
            let result = encode_frame(spec, base, target, effort).and_then(|frame| each(number, frame));
            let result = result.inspect_err(|_| next.store(specs.len(), Ordering::Relaxed))?;
            done.lock().expect("no worker panics while it holds the lock")[number] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.clamp(1, specs.len().max(1))).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("an encoder does not panic"))
    })?;
    let done = done.into_inner().expect("no worker panics while it holds the lock");
    Ok(done.into_iter().flatten().collect())
}

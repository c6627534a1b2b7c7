//! The bytes of a transfer plan, format 2, zstd-compressed as a whole.
//!
//! ```text
//! "sluice-plan\x02"  base:0 | 1 sha256  target:sha256  frames:varint  frame*
//! frame  = digest:sha256  wire_len:varint  codec:u8  leans:varint lean*  parts:varint part*
//! lean   = 0 (of the base) | 1 (of the target, within one part of an earlier frame)  extent
//! part   = extent  sha256 only where the extent is not the whole content; no two parts of a plan overlap
//! extent = content:varint (difference to the one before of the same package in the list, zigzag)
//!          0 (whole content) | 1 offset:varint len:varint
//! ```
//!
//! Format 1 knew no leans on the target.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::caps;
use crate::codec::{self, DecodeError, Reader};
use crate::digest::Digest;
use crate::manifest::Contents;

use super::{Codec, Extent, Frame, Lean, Part, PlanOutline, TransferPlan};

const MAGIC: &[u8; 12] = b"sluice-plan\x02";
const WHAT: &str = "transfer plan";
const LEVEL: i32 = 19;
/// Above this, as of half a million files, a lower level: this one takes 50 MiB for its tables.
const LEVEL_BYTES_MAX: usize = 1 << 20;

impl TransferPlan {
    /// Encodes and compresses the plan, given the contents of both packages.
    pub fn encode(&self, base: Contents<'_>, target: Contents<'_>) -> io::Result<Vec<u8>> {
        encode_plan(self.base, self.target, self.frames.iter().map(|frame| frame.encode(base, target)))
    }

    /// Decodes a plan and checks every reference against the contents of both packages.
    pub fn decode(bytes: &[u8], base: Contents<'_>, target: Contents<'_>) -> Result<Self, DecodeError> {
        let mut frames = Vec::new();
        let Ends { base, target } = read(bytes, base, target, |frame| frames.push(frame))?;
        Ok(Self { base, target, frames })
    }
}

impl PlanOutline {
    /// Decodes a plan as [`TransferPlan::decode`] does, and keeps of it what serving it takes.
    pub fn decode(bytes: &[u8], base: Contents<'_>, target: Contents<'_>) -> Result<Self, DecodeError> {
        let mut frames = Vec::new();
        let Ends { base, target } = read(bytes, base, target, |frame| frames.push(frame.outline()))?;
        Ok(Self { base, target, frames })
    }
}

impl Frame {
    /// Encodes the frame as a plan lists it, given the contents of both packages.
    pub fn encode(&self, base: Contents<'_>, target: Contents<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, self, base, target);
        out
    }
}

/// Puts a plan together from its encoded frames and compresses it.
pub fn encode_plan(
    base: Option<Digest>,
    target: Digest,
    frames: impl ExactSizeIterator<Item = impl AsRef<[u8]>>,
) -> io::Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    match &base {
        None => out.push(0),
        Some(digest) => {
            out.push(1);
            out.extend_from_slice(digest.as_bytes());
        }
    }
    out.extend_from_slice(target.as_bytes());
    codec::put_varint(&mut out, frames.len() as u64);
    frames.for_each(|frame| out.extend_from_slice(frame.as_ref()));
    zstd::bulk::compress(&out, if out.len() <= LEVEL_BYTES_MAX { LEVEL } else { 6 })
}

/// From what to what a plan leads.
struct Ends {
    base: Option<Digest>,
    target: Digest,
}

/// Reads a plan, checks every reference and hands out one frame after the other.
fn read(
    bytes: &[u8],
    base: Contents<'_>,
    target: Contents<'_>,
    mut each: impl FnMut(Frame),
) -> Result<Ends, DecodeError> {
    let raw = restore(bytes)?;
    let mut reader = Reader::new(WHAT, &raw);
    reader.magic(MAGIC)?;
    let base_digest = match reader.byte()? {
        0 => None,
        1 => Some(reader.digest()?),
        _ => return Err(reader.invalid("unknown kind of base")),
    };
    let target_digest = reader.digest()?;
    let (mut produced, mut room) = (Produced::default(), Room(caps::PLAN_MEMORY_MAX));
    for _ in 0..reader.varint((reader.remaining() / Digest::BYTES) as u64)? {
        each(take_frame(&mut reader, base, target, &mut produced, &mut room)?);
    }
    reader.finish()?;
    Ok(Ends { base: base_digest, target: target_digest })
}

fn restore(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let invalid = |reason: String| DecodeError::Invalid { what: WHAT, at: 0, reason };
    let mut raw = Vec::new();
    let mut decoder =
        zstd::stream::read::Decoder::new(bytes).map_err(|e| invalid(e.to_string()))?.single_frame();
    decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX).map_err(|e| invalid(e.to_string()))?;
    decoder.take(caps::PLAN_BYTES_MAX + 1).read_to_end(&mut raw).map_err(|e| invalid(e.to_string()))?;
    if raw.len() as u64 > caps::PLAN_BYTES_MAX {
        return Err(invalid("longer than its limit".into()));
    }
    Ok(raw)
}

fn put_frame(out: &mut Vec<u8>, frame: &Frame, base: Contents<'_>, target: Contents<'_>) {
    out.extend_from_slice(frame.digest.as_bytes());
    codec::put_varint(out, frame.wire_len);
    out.push(frame.codec.number());
    codec::put_varint(out, frame.base.len() as u64);
    let (mut previous_base, mut previous_target) = (0, 0);
    for lean in &frame.base {
        match lean {
            Lean::Base(extent) => {
                out.push(0);
                put_extent(out, extent, &mut previous_base, base);
            }
            Lean::Produced(extent) => {
                out.push(1);
                put_extent(out, extent, &mut previous_target, target);
            }
        }
    }
    codec::put_varint(out, frame.parts.len() as u64);
    let mut previous = 0;
    for part in &frame.parts {
        if !put_extent(out, &part.extent, &mut previous, target) {
            out.extend_from_slice(part.digest.as_bytes());
        }
    }
}

fn is_whole(extent: &Extent, contents: Contents<'_>) -> bool {
    extent.offset == 0 && extent.len == contents.at(extent.content).size
}

/// Appends an extent and says whether it is the whole content.
fn put_extent(out: &mut Vec<u8>, extent: &Extent, previous: &mut u32, contents: Contents<'_>) -> bool {
    let step = i64::from(extent.content) - i64::from(*previous);
    codec::put_varint(out, ((step << 1) ^ (step >> 63)) as u64);
    *previous = extent.content;
    let whole = is_whole(extent, contents);
    out.push(u8::from(!whole));
    if !whole {
        codec::put_varint(out, extent.offset);
        codec::put_varint(out, extent.len);
    }
    whole
}

/// What the frames read so far hold.
#[derive(Default)]
struct Produced {
    /// By number of content: whether it is there as a whole, as most are.
    whole: Vec<bool>,
    /// Lengths of the other parts, by content and offset; no two overlap.
    parts: BTreeMap<(u32, u64), u64>,
}

/// Bytes that what is read of a plan may still take in memory, where it is many times as long as on the wire.
struct Room(usize);

impl Room {
    /// Takes room for one more of a list.
    fn take<T>(&mut self, reader: &Reader<'_>) -> Result<(), DecodeError> {
        let left = self.0.checked_sub(size_of::<T>());
        self.0 = left.ok_or_else(|| reader.invalid("a plan takes more memory than it may"))?;
        Ok(())
    }
}

impl Produced {
    /// Takes note of a part; says whether no byte of it was there before.
    fn add(&mut self, part: &Extent, target: Contents<'_>) -> bool {
        let (content, end) = (part.content, part.offset + part.len);
        // What is there does not overlap, so that the last of it that begins before the end is the one to look at.
        let before = self.parts.range((content, 0)..(content, end)).next_back();
        let is_new = self.whole.get(content as usize) != Some(&true)
            && before.is_none_or(|((_, offset), len)| offset + len <= part.offset);
        if is_whole(part, target) {
            self.whole.resize(target.len(), false);
            self.whole[content as usize] = true;
        } else {
            self.parts.insert((content, part.offset), part.len);
        }
        is_new
    }

    /// Says whether an extent lies within one part.
    fn holds(&self, extent: &Extent) -> bool {
        if self.whole.get(extent.content as usize) == Some(&true) {
            return true;
        }
        let at = (extent.content, extent.offset);
        self.parts.range(..=at).next_back().is_some_and(|((content, offset), len)| {
            *content == extent.content && extent.offset + extent.len <= offset + len
        })
    }
}

fn take_frame(
    reader: &mut Reader<'_>,
    base: Contents<'_>,
    target: Contents<'_>,
    produced: &mut Produced,
    room: &mut Room,
) -> Result<Frame, DecodeError> {
    room.take::<Frame>(reader)?;
    let digest = reader.digest()?;
    let wire_len = reader.varint(caps::FRAME_WIRE_BYTES_MAX)?;
    let codec = Codec::from_number(reader.byte()?).ok_or_else(|| reader.invalid("unknown codec"))?;
    let (leans, base_bytes) = take_leans(reader, base, target, produced, room)?;
    let mut previous = 0;
    let mut raw_bytes = 0_u64;
    let mut parts = Vec::new();
    for _ in 0..reader.varint(reader.remaining() as u64)? {
        let (extent, whole) = take_extent(reader, &mut previous, target)?;
        let digest = if whole { target.at(extent.content).digest } else { reader.digest()? };
        raw_bytes = raw_bytes.saturating_add(extent.len);
        // What was checked by its digest must stay as it was, whoever has made the plan.
        if !produced.add(&extent, target) {
            return Err(reader.invalid("a part overlaps another"));
        }
        room.take::<Part>(reader)?;
        parts.push(Part { extent, digest });
    }
    if !codec.fits(raw_bytes, base_bytes) {
        return Err(reader.invalid("a frame is over its limit"));
    }
    Ok(Frame { digest, wire_len, codec, base: leans, parts })
}

fn take_leans(
    reader: &mut Reader<'_>,
    base: Contents<'_>,
    target: Contents<'_>,
    produced: &Produced,
    room: &mut Room,
) -> Result<(Vec<Lean>, u64), DecodeError> {
    let (mut previous_base, mut previous_target) = (0, 0);
    let mut bytes = 0_u64;
    let mut leans = Vec::new();
    for _ in 0..reader.varint(reader.remaining() as u64)? {
        let lean = match reader.byte()? {
            0 => Lean::Base(take_extent(reader, &mut previous_base, base)?.0),
            1 => Lean::Produced(take_extent(reader, &mut previous_target, target)?.0),
            _ => return Err(reader.invalid("unknown kind of lean")),
        };
        if lean.of_produced().is_some_and(|extent| !produced.holds(extent)) {
            return Err(reader.invalid("a frame leans on what no frame before it holds"));
        }
        bytes = bytes.saturating_add(lean.extent().len);
        room.take::<Lean>(reader)?;
        leans.push(lean);
    }
    Ok((leans, bytes))
}

fn take_extent(
    reader: &mut Reader<'_>,
    previous: &mut u32,
    contents: Contents<'_>,
) -> Result<(Extent, bool), DecodeError> {
    let zigzag = reader.varint(u64::from(u32::MAX) * 2)?;
    let step = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let number = i64::from(*previous) + step;
    let content = u32::try_from(number).ok().and_then(|n| contents.get(n));
    let content = content.ok_or_else(|| reader.invalid("unknown content"))?;
    *previous = number as u32;
    let whole = match reader.byte()? {
        0 => true,
        1 => false,
        _ => return Err(reader.invalid("unknown kind of extent")),
    };
    let (offset, len) = if whole {
        (0, content.size)
    } else {
        (reader.varint(caps::PACKAGE_BYTES_MAX)?, reader.varint(caps::PACKAGE_BYTES_MAX)?)
    };
    let fits = offset.checked_add(len).is_some_and(|end| end <= content.size);
    if len == 0 || !fits || (!whole && len == content.size) {
        return Err(reader.invalid("an extent does not lie inside its content"));
    }
    Ok((Extent { content: number as u32, offset, len }, whole))
}

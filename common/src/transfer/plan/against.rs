//! Frames of what changed: each part against a base content.

use crate::caps;

use super::Wanted;
use super::bases::Candidate;
use crate::transfer::{Extent, FrameSpec, Lean};

/// Base bytes kept on either side of a segment of a file too large for one frame.
const SEGMENT_MARGIN_BYTES: u64 = (caps::FRAME_BASE_BYTES_MAX - caps::FRAME_BYTES_MAX) / 2;

/// Groups changed contents: small ones share a frame and its base, large ones are cut into segments.
pub(super) fn frames(changed: &[(Wanted<'_>, Candidate)], frames: &mut Vec<FrameSpec>) {
    let mut group = FrameSpec { base: Vec::new(), parts: Vec::new() };
    for (wanted, base) in changed {
        let whole = Extent { content: wanted.number, offset: 0, len: wanted.size };
        let fits =
            |raw: u64, leaned: u64| raw <= caps::FRAME_SOLID_BYTES && leaned <= caps::FRAME_SOLID_BYTES;
        if !fits(wanted.size, base.size) {
            segments(wanted, base, frames);
            continue;
        }
        if !fits(group.raw_len() + wanted.size, group.base_len() + base.size) {
            frames.push(std::mem::replace(&mut group, FrameSpec { base: Vec::new(), parts: Vec::new() }));
        }
        group.base.push(Lean::Base(Extent { content: base.number, offset: 0, len: base.size }));
        group.parts.push(whole);
    }
    if !group.parts.is_empty() {
        frames.push(group);
    }
}

/// Cuts a large content into frames, each against the base around the same place.
fn segments(wanted: &Wanted<'_>, base: &Candidate, frames: &mut Vec<FrameSpec>) {
    let mut offset = 0;
    while offset < wanted.size {
        let len = caps::FRAME_BYTES_MAX.min(wanted.size - offset);
        let from = offset
            .saturating_sub(SEGMENT_MARGIN_BYTES)
            .min(base.size.saturating_sub(caps::FRAME_BASE_BYTES_MAX));
        let base_len = caps::FRAME_BASE_BYTES_MAX.min(base.size - from);
        frames.push(FrameSpec {
            base: vec![Lean::Base(Extent { content: base.number, offset: from, len: base_len })],
            parts: vec![Extent { content: wanted.number, offset, len }],
        });
        offset += len;
    }
}

//! Frames of what changed: each part against a base content.

use crate::caps;

use super::bases::Candidate;
use super::{PARTS_MAX, Wanted, full};
use crate::transfer::{Effort, Extent, FrameSpec, Lean};

/// How a file too large to share a frame is cut.
struct Segments {
    /// Raw bytes of each, at most.
    raw_bytes: u64,
    /// Base bytes that each leans on, at most: as much on either side of it.
    base_bytes: u64,
}

impl Segments {
    fn of(effort: Effort) -> Self {
        let (raw_bytes, base_bytes) = match effort {
            Effort::Quick => (caps::ZSTD_FRAME_BYTES_MAX, caps::ZSTD_FRAME_BASE_BYTES_MAX),
            Effort::Best => (caps::FRAME_BYTES_MAX, caps::FRAME_BASE_BYTES_MAX),
        };
        Self { raw_bytes, base_bytes }
    }

    /// Cuts a large content into frames of even size, each against the base around the same place.
    fn cut(&self, wanted: &Wanted<'_>, base: &Candidate, frames: &mut Vec<FrameSpec>) {
        let even = wanted.size.div_ceil(wanted.size.div_ceil(self.raw_bytes));
        let margin = (self.base_bytes - self.raw_bytes) / 2;
        let mut offset = 0;
        while offset < wanted.size {
            let len = even.min(wanted.size - offset);
            let base_len = base.size.min(len + 2 * margin);
            let from = offset.saturating_sub(margin).min(base.size - base_len);
            frames.push(FrameSpec {
                base: vec![Lean::Base(Extent { content: base.number, offset: from, len: base_len })],
                parts: vec![Extent { content: wanted.number, offset, len }],
            });
            offset += len;
        }
    }
}

/// Groups changed contents: small ones share a frame and its base, large ones are cut into segments.
pub(super) fn frames(changed: &[(Wanted<'_>, Candidate)], effort: Effort, frames: &mut Vec<FrameSpec>) {
    let mut group = FrameSpec { base: Vec::new(), parts: Vec::new() };
    let (mut raw, mut leaned) = (0, 0);
    let is_within = |bytes: u64, raw: u64, leaned: u64| raw <= bytes && leaned <= bytes;
    for (wanted, base) in changed {
        let whole = Extent { content: wanted.number, offset: 0, len: wanted.size };
        if !is_within(caps::ZSTD_FRAME_BYTES_MAX, wanted.size, base.size) {
            Segments::of(effort).cut(wanted, base, frames);
            continue;
        }
        let is_full =
            group.parts.len() == PARTS_MAX || !is_within(full(effort), raw + wanted.size, leaned + base.size);
        if !group.parts.is_empty() && is_full {
            frames.push(std::mem::replace(&mut group, FrameSpec { base: Vec::new(), parts: Vec::new() }));
            (raw, leaned) = (0, 0);
        }
        (raw, leaned) = (raw + wanted.size, leaned + base.size);
        group.base.push(Lean::Base(Extent { content: base.number, offset: 0, len: base.size }));
        group.parts.push(whole);
    }
    if !group.parts.is_empty() {
        frames.push(group);
    }
}

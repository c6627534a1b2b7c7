//! Frames of what has no base.

use crate::caps;
use crate::path::RelPath;

use super::{PARTS_MAX, Wanted, full};
use crate::transfer::{Effort, Extent, FrameSpec};

/// Orders fresh contents by likeness and fills solid frames; only a content larger than any frame is cut, into frames as large as
/// those that small ones fill.
pub(super) fn frames(mut fresh: Vec<Wanted<'_>>, effort: Effort, frames: &mut Vec<FrameSpec>) {
    fresh.sort_by(|one, other| likeness(one).cmp(&likeness(other)));
    let mut parts: Vec<Extent> = Vec::new();
    let full = full(effort);
    let mut held = 0;
    for wanted in fresh {
        let is_cut = wanted.size > caps::ZSTD_FRAME_BYTES_MAX;
        let is_too_large = wanted.size > full.saturating_sub(held) && !is_cut;
        if is_too_large || held >= full || parts.len() == PARTS_MAX {
            flush(&mut parts, &mut held, frames);
        }
        let bound = if is_cut { full } else { caps::ZSTD_FRAME_BYTES_MAX };
        let mut offset = 0;
        while offset < wanted.size {
            let len = (bound - held).min(wanted.size - offset);
            parts.push(Extent { content: wanted.number, offset, len });
            (offset, held) = (offset + len, held + len);
            if held == bound {
                flush(&mut parts, &mut held, frames);
            }
        }
    }
    flush(&mut parts, &mut held, frames);
}

/// Returns by what contents are alike.
fn likeness<'a>(wanted: &Wanted<'a>) -> (&'a str, &'a str, &'a RelPath) {
    (wanted.path.extension(), wanted.path.file_name(), wanted.path)
}

fn flush(parts: &mut Vec<Extent>, held: &mut u64, frames: &mut Vec<FrameSpec>) {
    if !parts.is_empty() {
        frames.push(FrameSpec { base: Vec::new(), parts: std::mem::take(parts) });
    }
    *held = 0;
}
